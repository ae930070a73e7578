"""Write what was measured into the pages, from the files under results/:  python -m benchmarks.figures

A page holds a figure before its mark, `98.3 ± 0.3 %<!-- =digits-events -->`, and a table between `<!-- table: NAME -->` and
`<!-- end -->` (benchmarks/tables.py). A mark is `=ENTRY` or `=ENTRY.FIGURE`, with or without a form, `=ENTRY.FIGURE:.2f`. The
entries are those of results/measured.json, and forecast/SET/MODEL of results/forecast.json. `make figures` also writes
staa/recipes/measured.py (what a recipe's `expect` says) and the pages of benchmarks, mutations and the study.
"""

import csv
import json
import re
import statistics
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

from benchmarks import gpu
from staa.analysis.cost import ratio

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "results"
MARK = re.compile(r"[-+−]?\d[\d.,]*(?:\s?[±–]\s?\d[\d.]*)?(?:\s%)?<!-- =(?P<key>[^>]*?) -->")
LOOSE = re.compile(r"<!-- =[^>]*-->")
TABLE = re.compile(r"(<!-- table: (?P<name>[^>]*?) -->\n).*?(<!-- end -->)", re.DOTALL)


@cache
def measured() -> dict[str, dict[str, Any]]:
    """Every entry by its name."""
    entries = json.loads((RESULTS / "measured.json").read_text())
    for data, table in json.loads((RESULTS / "forecast.json").read_text()).items():
        entries |= {f"forecast/{data}/{title}": {"figures": row} for title, row in table["rows"].items()}
    return entries | gpu.entries(RESULTS / "gpu") | derived(entries)


def derived(entries: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Figures that follow from several measurements."""
    bench = json.loads((RESULTS / "bench" / "bench.json").read_text())["cases"]["step/resnet20"]
    seconds, kept = bench["seconds"], bench["kept_bytes"]
    pairs = [
        100 * (a - b) / 450
        for a, b in zip(*(entries[f"digits-events{twin}"]["correct"] for twin in ("", "-plain")), strict=True)
    ]
    tricks = entries["cifar100-speedrun/tricks"]["rows"]
    found = {
        "bench/resnet20": {
            "time": ratio(seconds["staa, pages kept"], seconds["plain, pages kept"])[0],
            "kept": kept["staa"] / kept["plain"],
            "seconds": statistics.median(seconds["staa, pages kept"]),
        },
        "digits-events/pairs": {"points": summary(pairs)},
        "forecast/worth": {
            "season": _worth(entries, "hangzhou", "no season"),
            "windows": _worth(entries, "hangzhou", "instance normalisation"),
            "graph": _worth(entries, "metr-la-week", "graph: identity"),
            "given": _worth(entries, "metr-la-week", "graph: given"),
            "lstm": _worth(entries, "metr-la-week", "fusion: LSTM alone"),
        },
        "tricks": {"steps": tricks["T = 2 of 4"][1], "both": tricks["T = 2, 16 pixels"][1]},
    }
    return {name: {"figures": figures} for name, figures in found.items()}


def _worth(entries: dict[str, dict[str, Any]], name: str, row: str) -> float:
    """By how much SpikeSTAG's MAE rises without a part of it."""
    other, whole = (mean(entries[f"forecast/{name}, ablation/{title}"]["figures"]["mae"]) for title in (row, "whole"))
    return other - whole


def value(key: str) -> Any:
    """A number, [low, high], or {"mean", "spread"}: of `ENTRY` its accuracy, of `ENTRY.FIGURE` that figure.

    Beside what an entry's `figures` hold there are `lowest`, `official` (accuracy on the official parts) and `seeds` (how
    many). Raises KeyError for one that is not there.
    """
    name, _, figure = key.partition(".")
    if name not in measured():
        raise KeyError(f"results/ has no measurement {name!r}")
    entry = measured()[name]
    if figure == "seeds":
        return len(entry["seeds"])
    if figure == "official":
        return entry["official"][0] / entry["official"][1]
    if figure in ("", "lowest") and "correct" in entry:
        shares = [right / count for right, count in zip(entry["correct"], entry["of"], strict=True)]
        return min(shares) if figure else summary(shares)
    if not figure and "table" in entry:
        with (RESULTS / entry["table"]).open(newline="") as file:
            row = next(row for row in csv.DictReader(file) if row["name"] == name)
        return {"mean": float(row["test_accuracy"]), "spread": float(row["spread"])}
    if figure not in entry.get("figures", {}):
        raise KeyError(f"{name!r} of results/ has no figure {figure!r}")
    found = entry["figures"][figure]
    return summary(found["values"]) if isinstance(found, dict) and "values" in found else found


def mean(figure: Any) -> float:
    """Of a number, {"mean", "spread"} or {"values"}."""
    if not isinstance(figure, dict):
        return figure
    return statistics.mean(figure["values"]) if "values" in figure else figure["mean"]


def summary(values: list[float]) -> Any:
    """Mean and standard deviation, or the only one."""
    return values[0] if len(values) == 1 else {"mean": statistics.mean(values), "spread": statistics.stdev(values)}


def text(key: str) -> str:
    """A figure as the pages show it; `key` may end in `:FORM`, where a form is one of Python's.

    `%` takes percent with a space, and the spread in the same form; `~` before a form rounds the spread to one digit.
    """
    key, _, form = key.rpartition(":") if ":" in key else (key, "", "")
    found = value(key)
    form = form or (".1%" if "." not in key or key.endswith((".lowest", ".official")) else "")
    percent, loose = form.endswith("%"), form.startswith("~")
    form = form.removeprefix("~").replace("%", "f")

    def shown(number: float, form: str = form) -> str:
        return (f"{100 * number if percent else number:{form}}" if form else f"{number:,.10g}").rstrip(".")

    if isinstance(found, dict):
        spread = one_digit(found["spread"]) if loose else shown(found["spread"], form.removeprefix("+"))
        return f"{shown(found['mean'])} ± {spread}" + " %" * percent
    numbers = found if isinstance(found, list) else [found]
    return "–".join(map(shown, numbers)).replace("-", "−") + " %" * percent


def one_digit(spread: float) -> str:
    return f"{spread:.1f}" if spread >= 0.95 else f"{spread:.1g}"


def fill(template: str) -> str:
    """A text with each `{KEY}` replaced."""
    return re.sub(r"\{([^{}]+)\}", lambda found: text(found[1]), template)


EXPECT = {
    "digits-events": "{digits-events} ({digits-events.seeds} seeds), {digits-events/time.seconds} s on 2 cores",
    "digits-events-plain": "{digits-events-plain} ({digits-events-plain.seeds} seeds)",
    "cifar100-resnet20-tiny-staa": "{cifar100-resnet20-tiny-staa} ({cifar100-resnet20-tiny-staa.seeds} seeds)",
    "cifar100-resnet20-tiny-plain": "{cifar100-resnet20-tiny-plain} ({cifar100-resnet20-tiny-plain.seeds} seeds)",
    "cifar100-resnet20-tiny-dta": "{cifar100-resnet20-tiny-dta} ({cifar100-resnet20-tiny-dta.seeds} seeds)",
    "cifar100-resnet20-tiny-ta": "{cifar100-resnet20-tiny-ta} ({cifar100-resnet20-tiny-ta.seeds} seeds): chance",
    "nmnist-vggsnn-staa": "{nmnist-vggsnn-staa} (5 folds of 1,100 recordings; begun otherwise than now)",
    "nmnist-vggsnn-plain": "{nmnist-vggsnn-plain} (5 folds of 1,100 recordings; begun otherwise than now)",
    "nmnist-stream": "{nmnist-stream} ({nmnist-stream.seeds} seed, 1,000 + 100 recordings; begun otherwise than now)",
    "ring-spikestag": "R² {ring-spikestag.r2:.3f} ({ring-spikestag.seeds} seeds), {ring-spikestag/time.seconds} s on one core; "
    "last value {ring/last-value.r2:.2f}, least squares on all nodes {ring/linear.r2:.2f}",
}
"""What a recipe's `expect` says."""


def recipes() -> str:
    """staa/recipes/measured.py."""
    rows = "".join(f'    "{name}": "{fill(template)}",\n' for name, template in EXPECT.items())
    return (
        f'"""What was measured of the recipes. `make figures` writes this file from results/."""\n\nMEASURED = {{\n{rows}}}\n'
    )


def rewritten(page: str, tables: dict[str, Callable[[], str]]) -> str:
    """A page with its figures and tables anew. Raises ValueError for a mark that no number stands before."""
    whole = {found.end() for found in MARK.finditer(page)}
    if odd := [mark[0] for mark in LOOSE.finditer(page) if mark.end() not in whole]:
        raise ValueError(f"no number stands before the mark {odd[0]}: expected one such as 98.3 ± 0.3 %")
    page = MARK.sub(lambda found: f"{text(found['key'])}<!-- ={found['key']} -->", page)
    return TABLE.sub(lambda found: f"{found[1]}\n{tables[found['name']]()}\n{found[3]}", page)


def pages() -> list[Path]:
    """The pages that hold figures. docs/log.md is a diary: what it says was so on its day."""
    found = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), *sorted(RESULTS.glob("*.md"))]
    return [page for page in found if page != ROOT / "docs" / "log.md"]


def written() -> Iterator[tuple[Path, str]]:
    """Every file that is made from results/, and what it holds."""
    from benchmarks import loan_home, mutations, run, study
    from benchmarks.tables import TABLES

    for page in pages():
        yield page, rewritten(page.read_text(), TABLES)
    yield ROOT / "staa" / "recipes" / "measured.py", recipes()
    bench = json.loads((RESULTS / "bench" / "bench.json").read_text())
    yield RESULTS / "bench" / "bench.md", run.markdown(bench["environment"], bench["cases"])
    broken = json.loads((RESULTS / "mutations.json").read_text())
    yield RESULTS / "mutations.md", mutations.markdown(broken["about"], broken["kinds"])
    yield RESULTS / "gpu" / "README.md", loan_home.page(RESULTS / "gpu")
    folder = RESULTS / "study"
    yield folder / "table.md", study.as_table(study.differences(study.read_plan(folder), study.read_results(folder)))


def main() -> None:
    for path, content in written():
        if not path.exists() or path.read_text() != content:
            path.write_text(content)
            print(path.relative_to(ROOT))


if __name__ == "__main__":
    main()
