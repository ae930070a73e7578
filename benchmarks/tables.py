"""The tables of figures in the pages, each by its name; see benchmarks/figures.py."""

import json
import math
import statistics
from collections.abc import Callable
from functools import partial

from benchmarks import gpu
from benchmarks.figures import RESULTS, fill, mean, measured, text
from benchmarks.study import student_interval
from staa.analysis.figures import figures_in, shown, told
from staa.hub import pretrained, pretrained_names

README = """\
| data | network, T | paper | ours |
|---|---|---|---|
| CIFAR-10 | ResNet-19, 4 | 97.14 % | |
| CIFAR-100 | ResNet-19, 4 | 82.05 % | |
| CIFAR-100, 11 epochs on one GPU | ResNet-20, 4 | | {gpu/cifar100-resnet20-staa@11} (plain twin \
{gpu/cifar100-resnet20-plain@11}; difference {gpu/cifar100-resnet20-staa@11/plain.mean:+.1f} points, \
95 % {gpu/cifar100-resnet20-staa@11/plain.low:+.1f} to {gpu/cifar100-resnet20-staa@11/plain.high:+.1f}, \
{gpu/cifar100-resnet20-staa@11/plain.pairs} pairs) |
| ImageNet-1k | ResNet-34, 4 | 70.40 % | |
| CIFAR10-DVS | not known, 10 | 82.10 % | |
| DVS128 Gesture | not known | | |
| digits-events (simulated events) | VGGSNN ×⅛, 10 | | {digits-events} (plain twin {digits-events-plain}, linear on counts \
{digits-events/linear}) |
| N-MNIST, 1,100 recordings, five folds | VGGSNN ×⅛, 10 | | {nmnist-vggsnn-staa} (plain twin {nmnist-vggsnn-plain}, linear on \
counts {nmnist/linear}) |
| METR-LA, first week, 12 steps ahead | SpikeSTAG, 2 | | MAE {forecast/metr-la-week/spikestag.mae:.2f} mph (iSpikformer \
{forecast/metr-la-week/ispikformer.mae:.2f}, linear on all nodes {forecast/metr-la-week/linear, all nodes.mae:.2f}, last value \
{forecast/metr-la-week/last value.mae:.2f}) |
| Hangzhou metro, 12 steps ahead | SpikeSTAG, 2 | | MAE {forecast/hangzhou/spikestag.mae:.1f} passengers (iSpikformer \
{forecast/hangzhou/ispikformer.mae:.1f}, historical average {forecast/hangzhou/historical average.mae:.1f}, linear beside it \
{forecast/hangzhou/linear + profile.mae:.1f}) |
"""
ACCURACIES = """\
| data, network | recipe | test accuracy | lowest | seeds | a seed takes | commit |
|---|---|---|---|---|---|---|
| digits-events (simulated events), VGGSNN ×⅛, T = 10 | `digits-events` (STAA) | [digits-events] | 0-4 | \
{digits-events/time.seconds} s ¹ | [commit] |
| the same | `digits-events-plain` (plain LIF) | [digits-events-plain] | 0-4 | \
{digits-events-plain/time.seconds} s ¹ | [commit] |
| the same, summed over time | linear classifier, `python examples/linear_baseline.py` | [digits-events/linear] | | \
{digits-events/linear.seconds} s | [commit] |
| CIFAR-100, ResNet-20 ×¼, T = 2, 300 steps of 64 | `cifar100-resnet20-tiny-staa` | [cifar100-resnet20-tiny-staa] | 0-2 | \
{cifar100-resnet20-tiny/time.staa} s ² | [commit] |
| the same | `cifar100-resnet20-tiny-plain` (plain LIF) | [cifar100-resnet20-tiny-plain] | 0-2 | \
{cifar100-resnet20-tiny/time.plain} s ² | [commit] |
| the same | `cifar100-resnet20-tiny-dta` (plain LIF, DTA) | [cifar100-resnet20-tiny-dta] | 0-2 | | [commit] |
| the same | `cifar100-resnet20-tiny-ta` (plain LIF, TA) | [cifar100-resnet20-tiny-ta] | 0-2 | | [commit] |
| N-MNIST ³, 1,100 recordings, VGGSNN ×⅛, T = 10, five folds | `nmnist-vggsnn-staa` (STAA), `python -m benchmarks.nmnist` | \
[nmnist-vggsnn-staa] | 0 | {nmnist-vggsnn-staa.minutes} min, one core | [commit] |
| the same | `nmnist-vggsnn-plain` (plain LIF) | [nmnist-vggsnn-plain] | 0 | \
{nmnist-vggsnn-plain.minutes} min, one core | [commit] |
| the same, summed over time | linear classifier | [nmnist/linear] | | {nmnist/linear.seconds} s | [commit] |
| N-MNIST ³, first 1000 / last 100, windows of 30 ms, any T | `nmnist-stream` | [nmnist-stream] | 0 | \
{nmnist-stream.minutes} min, one core | [commit] |
"""
FORECASTERS = {
    "spikestag": "`series-spikestag`",
    "ispikformer": "`series-ispikformer`",
    "gru": "`series-gru`",
    "linear, all nodes": "`series-linear --forecast.across --series.season none`",
    "linear, all nodes + profile": "`series-linear --forecast.across`",
    "linear": "linear, a node's own values",
    "linear + profile": "the same, of what the historical average leaves",
    "historical average": "historical average",
    "seasonal naive (day)": "seasonal naive, yesterday's value",
    "seasonal naive (week)": "seasonal naive, last week's value",
    "last value": "last value",
}
SETS = {"metr-la-week": "METR-LA, a week", "hangzhou": "Hangzhou", "etth1": "ETTh1", "montevideo": "Montevideo"}
COLUMNS = {
    **{f"mae_{at}": (f"MAE, {at} ahead", "~#.3g") for at in (3, 6, 12)},
    **{"mae": ("MAE", "~#.4g"), "rmse": ("RMSE", "~#.4g"), "mase": ("MASE", "~.3f"), "wmape": ("wMAPE", "~.1%")},
    **{"r2": ("R²", "~.3f"), "r2_nodes": ("R² by node", "~.3f")},
    **{"parameters": ("parameters", ""), "cpu_minutes": ("CPU min", ".1f")},
}
CASES = {
    "neuron/T=4 16×128×32×32": "neuron, T = 4, 16 × 128 × 32 × 32",
    "neuron/T=10 16×64×48×48": "neuron, T = 10, 16 × 64 × 48 × 48",
    "neuron/T=4 262144": "neuron, T = 4, 262,144",
    "neuron/T=16 65536": "neuron, T = 16, 65,536",
    "neuron/T=100 10240": "neuron, T = 100, 10,240",
    "step/vgg6": "training step, 6-layer VGG (convolutions alone {})",
    "step/events": "training step, events, 34 × 34, T = 10 (convolutions alone {})",
}

FOLDED = {
    "STAA": "nmnist-vggsnn-staa",
    "plain LIF twin": "nmnist-vggsnn-plain",
    "linear classifier on counts": "nmnist/linear",
}


def table(head: list[str], rows: list[list[str]]) -> str:
    lines = [f"| {' | '.join(cells)} |".replace("|  ", "| ") for cells in [head, *rows]]
    return "\n".join([lines[0], f"|{'---|' * len(head)}", *lines[1:]]) + "\n"


def accuracies() -> str:
    """ACCURACIES, where [ENTRY] is the mean with its spread and the lowest, and [commit] that entry's."""
    lines = []
    for line in ACCURACIES.splitlines():
        for name in (name for name in measured() if f"[{name}]" in line):
            entry = measured()[name]
            low = text(f"{name}.lowest:.2%") if len(entry.get("correct", ())) > 1 else ""
            line = line.replace(f"[{name}]", f"{text(f'{name}:.2%')} | {low}".rstrip()).replace("[commit]", entry["commit"])
        lines.append(line)
    return fill("\n".join(lines) + "\n")


def folds() -> str:
    """N-MNIST fold by fold, in percent."""
    shares: dict[str, list[float]] = {}
    for title, name in FOLDED.items():
        entry = measured()[name]
        pairs = [*zip(entry["correct"], entry["of"], strict=True), entry["official"]]
        shares[title] = [right / count for right, count in pairs]
    shares["STAA − plain"] = [a - b for a, b in zip(shares["STAA"], shares["plain LIF twin"], strict=True)]
    rows = []
    for title, values in shares.items():
        *each, official = [f"{100 * v:.2f}" for v in values]
        middle = f"{100 * statistics.mean(values[:5]):.2f} ± {100 * statistics.stdev(values[:5]):.2f}"
        rows.append([title, *each, middle, official])
    head = ["test accuracy, %", "1", "2", "3", "4", "5", "mean ± spread", "first 1000 / last 100"]
    return table(head, rows).replace("| -", "| −")


def forecasts() -> str:
    """MAE of each model on each set; bold: the least."""
    best = {name: min(_mae(name, model) for model in FORECASTERS) for name in SETS}
    rows = []
    there = {key.split("/", 2)[-1] for key in measured() if key.startswith("forecast/")}
    for model, title in FORECASTERS.items():
        if model not in there:
            continue
        cells = {name: _cell(f"forecast/{name}/{model}", "mae", "~#.4g") for name in SETS}
        rows.append([title, *(f"**{cell}**" if _mae(name, model) == best[name] else cell for name, cell in cells.items())])
    return table(["", *SETS.values()], rows)


def forecast(name: str) -> str:
    """Errors of each model on one set, or of each form of SpikeSTAG; and which are ahead of it."""
    titles = [key.split("/", 2)[2] for key in measured() if key.startswith(f"forecast/{name}/")]
    if name in SETS:
        titles = [title for title in FORECASTERS if title in titles]
    rows = [[title, *(_cell(f"forecast/{name}/{title}", c, form) for c, (_, form) in COLUMNS.items())] for title in titles]
    heads = ["", *(head for head, _ in COLUMNS.values())]
    if name not in SETS:
        return table([*heads, "MAE − whole (95 %)"], [[*row, _beside_whole(name, row[0])] for row in rows])
    told = table(heads, rows)
    behind = {title: ", ".join(_behind(name, title)) for title in titles if not title.startswith("spikestag")}
    ahead = "; ".join(f"{title} in {figures}" for title, figures in behind.items() if figures)
    return (
        f"{told}\nspikestag does not beat {ahead}.\n" if ahead else f"{told}\nspikestag is ahead of all in MAE, RMSE and R².\n"
    )


def _beside_whole(name: str, title: str) -> str:
    """By how much a form's MAE is above the whole network's, seed by seed, with Student's interval."""
    own, whole = (measured()[f"forecast/{name}/{row}"]["figures"]["mae"]["values"] for row in (title, "whole"))
    differences = [a - b for a, b in zip(own, whole, strict=True)]
    interval = student_interval(differences)
    if title == "whole" or interval is None:
        return ""
    low, high = (f"{end:+.2f}".replace("-", "−") for end in interval)
    return f"{statistics.mean(differences):+.2f} ({low} … {high})".replace("-", "−")


def _cell(entry: str, figure: str, form: str) -> str:
    """A figure; n/a for a forecast that was not possible, and nothing for a figure that it does not have."""
    figures = measured().get(entry, {"figures": {}})["figures"]
    return "n/a" if figures is None else text(f"{entry}.{figure}:{form}") if figure in figures else ""


def _mae(name: str, model: str) -> float:
    figures = measured().get(f"forecast/{name}/{model}", {}).get("figures")
    return math.inf if figures is None else mean(figures["mae"])


def _behind(name: str, other: str) -> list[str]:
    """Figures in which SpikeSTAG is no better."""
    own, others = (measured()[f"forecast/{name}/{model}"]["figures"] for model in ("spikestag", other))
    if others is None:
        return []
    signs = {"mae": 1, "rmse": 1, "r2": -1}
    return [COLUMNS[f][0] for f, sign in signs.items() if sign * mean(own[f]) >= sign * mean(others[f])]


def large() -> str:
    """Peak memory and CPU seconds of a step, in each form, by nodes and steps."""
    rows = measured()["forecast/large"]["rows"]
    forms = list(next(iter(rows.values())))
    told = [[size, *(f"{row[f][0]:.2f} GiB, {row[f][1]:.1f} s" for f in forms)] for size, row in rows.items()]
    return table(["nodes × steps", *forms], told)


def tricks() -> str:
    rows = []
    for title, (ms, ratio, low, high) in measured()["cifar100-speedrun/tricks"]["rows"].items():
        middle = "" if low is None else f"{low:.2f}–{high:.2f}"
        rows.append([title, f"{ms:.2f}", f"**{ratio:.2f}**" if ratio < 0.9 else f"{ratio:.2f}", middle])
    return table(["", "ms a sample", "of no trick's", "middle half"], rows)


def memory() -> str:
    rows = [
        [steps, *(f"{mib:.1f}" for mib in kept), f"{error:.1e}".replace("e-0", "e-") if error else "0"]
        for steps, (*kept, error) in measured()["memory"]["rows"].items()
    ]
    head = ["T", "as it is", "spikes as bits", "again in chunks of 10", "largest relative difference of a gradient"]
    return table(head, rows)


def speed() -> str:
    """Medians of bench.json in ms: each as its user runs it, ours with kept pages and the others as they start.

    In brackets with kept pages too. Bold: the least, and what is within a twentieth of it.
    """
    cases = json.loads((RESULTS / "bench" / "bench.json").read_text())["cases"]
    rows = []
    for case, title in CASES.items():
        ms = {name: 1e3 * statistics.median(seconds) for name, seconds in cases[case]["seconds"].items()}
        peers = [name for name in ms if not name.endswith("kept") and name.startswith(("spikingjelly", "snntorch", "norse"))]
        best = min(ms["staa, pages kept"], *(ms[name] for name in peers))

        def cell(name: str, ms: dict[str, float] = ms, best: float = best) -> str:
            ours = name == "staa"
            middle = ms["staa, pages kept" if ours else name]
            told = _three(middle) if ours else f"{_three(middle)} ({_three(ms[f'{name}, pages kept'])})"
            return f"**{told}**" if middle < 1.05 * best else told

        last = "spikingjelly channels_last compiled"
        compiled = cell("spikingjelly compiled") + (f"; channels-last {cell(last)}" if last in ms else "")
        alone = next(name for name in ("copy, pages kept", "conv only, pages kept") if name in ms)
        rows.append(
            [title.format(_three(ms[alone])), cell("staa"), cell("spikingjelly"), compiled, cell("snntorch"), cell("norse")]
        )
        rows[-1].append(_three(ms[alone]) if alone.startswith("copy") else "")
    kept = {name: f"{size / 2**20:.0f}" for name, size in cases["step/vgg6"]["kept_bytes"].items()}
    title = f"kept for the backward pass, VGG, MiB (convolutions alone {kept['conv only']})"
    rows.append([title, f"**{kept['staa']}**", kept["spikingjelly"], "", kept["snntorch"], kept["norse"], ""])
    head = ["", "staa", "SpikingJelly", "its compiled form", "snnTorch", "Norse", "a copy of the bytes that must move"]
    return table(head, rows)


def _three(number: float) -> str:
    """Three digits."""
    return f"{number:#.3g}".rstrip(".") if number < 1000 else f"{number:,.0f}"


def early_exit() -> str:
    entries = measured()
    whole, causal = (entries[f"digits-events/early-exit{name}"]["rows"] for name in ("", "-causal"))
    lines = ["| margin | STAA: mean steps | accuracy | gc-pe: mean steps | accuracy |", "|---|---|---|---|---|"]
    for margin in whole:
        cells = [f"{steps:.2f} | {100 * right / of:.1f} %" for steps, right, of in (whole[margin], causal[margin])]
        lines.append(f"| {'never' if margin == 'None' else margin} | {' | '.join(cells)} |")
    return "\n".join(lines)


def weights() -> str:
    """The networks in the package, each with the figure of its run."""
    lines = ["| name | what it is | test figure of this run | parameters | KB |", "|---|---|---|---|---|"]
    for name in pretrained_names():
        run = pretrained(name)
        figures = {key.removeprefix("test_"): v for key, v in run.result.items() if key.startswith("test_")}
        first = figures_in(figures)[0]
        figure = told(first, figures[first], shown(first).form.replace(".4g", "#.4g")).replace("%", " %")
        how = "weights of the last epoch" if run.recipe.weights == "last" else "weights best on validation"
        size = sum(path.stat().st_size for path in run.folder.iterdir()) / 1e3
        about = f"{run.recipe.summary}; `{run.recipe.name}`"
        on = f"{figure} on {figures['samples']:,} samples, seed {run.recipe.seed}, {how}"
        lines.append(f"| `{name}` | {about} | {on} | {run.environment['parameters']:,} | {size:.0f} |")
    return "\n".join(lines)


TABLES: dict[str, Callable[[], str]] = {
    "README": partial(fill, README),
    "accuracies": accuracies,
    "folds": folds,
    "forecasts": forecasts,
    **{f"forecast/{name}": partial(forecast, name) for name in (*SETS, "hangzhou, ablation", "metr-la-week, ablation")},
    "forecast/large": large,
    "tricks": tricks,
    "early exit": early_exit,
    "memory": memory,
    "weights": weights,
    "speed": speed,
    "gpu/neuron": partial(gpu.neurons, RESULTS / "gpu"),
    "gpu/pairs": partial(gpu.paired, RESULTS / "gpu"),
}
