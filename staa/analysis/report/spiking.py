"""What the neurons of a network do: who fires when, how often, and why."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from staa.analysis.figures import percent
from staa.analysis.record import record
from staa.analysis.report.layered import (
    COLD,
    INK,
    QUIET,
    ROW,
    WARM,
    figure,
    heat,
    in_figure,
    label,
    numpy,
    png,
    samples_in,
    some,
    some_of,
    steps,
)
from staa.analysis.report.parts import Fold, Part, Picture, Section, Table
from staa.rates import SATURATED, SILENT, fires, neurons_heard
from staa.runs.load import Run, Weights
from staa.text import for_figure
from staa.training.evaluate import Inputs, evaluation_mode

TITLE = "Spiking"
OF_NODES = (
    "A forecaster's neuron is a feature of its layer, shared by all nodes and patches: the raster and the membranes show it at "
    "one of them, the shares count it over all."
)
RASTER = 32  # neurons of a layer at most in the raster
AT_ONCE = 4  # samples in a call
KINDS = {"busiest": (WARM, "o"), "median": (COLD, "s"), "silent": (QUIET, "^")}


@dataclass(frozen=True)
class Firing:
    """How often the neurons of some samples fire, by layer."""

    samples: int
    by_step: dict[str, np.ndarray]
    """[T], of all neurons of the layer."""
    by_neuron: dict[str, np.ndarray]
    """[C, ...], over all samples and steps."""

    def silent(self, name: str) -> float:
        """Share of the layer's neurons that fire at less than 0.1 % of their steps."""
        return float((self.by_neuron[name] < SILENT).mean())

    def saturated(self, name: str) -> float:
        """Share of the layer's neurons that fire at more than 95 % of their steps."""
        return float((self.by_neuron[name] > SATURATED).mean())


def spiking(run: Run, inputs: Inputs | None = None, *, weights: Weights | None = None) -> Section:
    """Raster, firing rates by step, silent and saturated neurons, and membranes.

    Args:
        run: A run with weights.
        inputs: Some samples, such as 32, as the model is called with them: images [N, C, H, W], frames [T, N, C, H, W], or a
            forecaster's (windows [B, L, K], time features, …). The first one is drawn. None: there are none, and the section
            says so.
        weights: "last" epoch or "best" on validation; None: what the test figure was measured with.
    """
    model = run.model(weights)
    neurons = {name.removesuffix(".neuron"): module for name, module in model.named_modules() if fires(module)}
    if not neurons:
        return Section(TITLE, ["This model has no spiking neurons."])
    if inputs is None or samples_in(inputs, model) == 0:
        missing = "Who fires when and how often is missing: that needs samples of the run's data."
        return Section(TITLE, [missing, _table(neurons, None)])
    found = firing(model, inputs)
    seen = record(model, *some_of(inputs, slice(0, 1), model))
    parts: list[Part] = [_told(found), *([OF_NODES] if isinstance(inputs, tuple) else []), _raster(seen), _rates(found)]
    parts.append(_shares(found))
    traces = _traces(seen)
    parts.append(traces or "Membranes are not drawn: these neurons compute theirs by themselves, and not with staa.ops.lif.")
    return Section(TITLE, [*parts, Fold("Numbers of each layer", [_table(neurons, found)])])


def firing(model: nn.Module, inputs: Inputs) -> Firing:
    """How often each neuron fires, over all samples, a few at once.

    Args:
        model: The network.
        inputs: Samples, as `spiking` takes them.
    """
    sums: dict[str, Tensor] = {}
    counts: dict[str, int] = {}
    calls: dict[str, int] = {}

    def count(name: str, module: nn.Module, args: Any, spikes: Tensor) -> None:
        calls[name] = calls.get(name, 0) + 1
        name = name if calls[name] == 1 else f"{name}.{calls[name]}"
        fired = (spikes != 0).sum(1)  # [T, ...]
        sums[name] = sums[name] + fired if name in sums else fired
        counts[name] = counts.get(name, 0) + spikes.shape[1]

    total = samples_in(inputs, model)
    with neurons_heard(model, count), evaluation_mode(model), torch.no_grad():
        for begin in range(0, total, AT_ONCE):
            calls.clear()
            model(*some_of(inputs, slice(begin, begin + AT_ONCE), model))
    rates = {name: numpy(fired) / counts[name] for name, fired in sums.items()}  # [T, ...]
    by_step = {name: rate.reshape(len(rate), -1).mean(1) for name, rate in rates.items()}
    return Firing(total, by_step, {name: rate.mean(0) for name, rate in rates.items()})


def _told(found: Firing) -> str:
    means = {name: float(rates.mean()) for name, rates in found.by_step.items()}
    busiest, quietest = max(means, key=means.__getitem__), min(means, key=means.__getitem__)
    return (
        f"Over {_samples(found)} a neuron fires at {percent(float(np.mean([*means.values()])))} of its steps, as the mean of "
        f"{len(means)} layers: {busiest} most often ({percent(means[busiest])}), {quietest} least ({percent(means[quietest])})."
    )


def _samples(found: Firing) -> str:
    return "1 sample" if found.samples == 1 else f"{found.samples} samples"


def _spikes_in(seen: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    """{layer: [T, neurons]} of a recording of one sample."""
    named = {key.removesuffix(".spikes"): value for key, value in seen.items() if key.endswith(".spikes")}
    return {name: numpy((spikes != 0).flatten(1)) for name, spikes in named.items()}


def _raster(seen: Mapping[str, Tensor]) -> Picture:
    from matplotlib.colors import ListedColormap

    layers = _spikes_in(seen)
    each = RASTER if len(layers) <= 12 else RASTER // 2
    total, middles, bands = max(len(s) for s in layers.values()), [], []
    for spikes in layers.values():
        shown = spikes[:, some(spikes.shape[1], each)].T  # [rows, T]
        high = shown[np.arange(each) * len(shown) // each]  # a small layer is as high as the others
        middles.append(len(bands) * (each + 2) + each / 2 - 0.5)
        band = np.pad(high * (1 + len(bands) % 2), ((0, 0), (0, total - len(spikes))))
        bands.append(np.vstack([band, np.full((2, total), 3)]))
    made, ((axis,),) = figure(0.9 + max(ROW, min(0.5, 4 / len(layers))) * len(layers))
    colours = ListedColormap(["white", INK, COLD, "#d1d5db"])
    axis.imshow(np.vstack(bands)[:-2], aspect="auto", cmap=colours, vmin=0, vmax=3, interpolation="none")
    axis.set_yticks(middles, in_figure(layers))
    axis.tick_params(axis="y", length=0)
    steps(axis, total)
    rates = {name: float(spikes.mean()) for name, spikes in layers.items()}
    busiest, quietest = max(rates, key=rates.__getitem__), min(rates, key=rates.__getitem__)
    sizes = [spikes.shape[1] for spikes in layers.values()]
    cut = f"{each} of a layer's neurons, evenly spread over it" if max(sizes) > each else "all neurons"
    return png(
        made,
        f"Raster of one sample: a dark cell is a spike. Rows are {cut} (layers have {min(sizes):,} to {max(sizes):,}). "
        f"Layers are stacked from the input, at the top, to the output, in two colours in turns.",
        f"Spikes of one sample over {total} steps in {len(layers)} layers. All neurons counted, {busiest} fires at "
        f"{percent(rates[busiest])} of its steps, {quietest} at {percent(rates[quietest])}.",
    )


def _rates(found: Firing) -> Picture:
    rates = found.by_step
    long = max(len(r) for r in rates.values())
    rows = {name: np.pad(r, (0, long - len(r)), constant_values=np.nan) for name, r in rates.items()}
    cells = [(value, name, t + 1) for name, r in rates.items() for t, value in enumerate(r)]
    most, least = max(cells), min(cells)
    return png(
        heat(rows, what="% of neurons that fire", form=".0f", factor=100),
        f"Firing rate of each layer at each step, in per cent of its neurons, over {_samples(found)}.",
        f"Heat map of {len(rates)} layers by {long} steps: from {percent(least[0])} ({least[1]}, step {least[2]}) to "
        f"{percent(most[0])} ({most[1]}, step {most[2]}).",
    )


def _shares(found: Firing) -> Picture | str:
    names = [*found.by_neuron]
    silent, saturated = (100 * np.array([f(name) for name in names]) for f in (found.silent, found.saturated))
    if not (silent + saturated).any():
        return f"No neuron is silent (below {percent(SILENT)} of its steps) or saturated (above {percent(SATURATED)}) here."
    made, ((axis,),) = figure(1.1 + ROW * len(names))
    rows = np.arange(len(names))
    axis.barh(rows, silent, 0.7, color=QUIET, label="silent")
    axis.barh(rows, saturated, 0.7, left=silent, color=WARM, label="saturated")
    for row, (a, b) in enumerate(zip(silent, saturated, strict=True)):
        text = f"{a:.2g}" if b == 0 else f"{a:.2g} + {b:.2g}"
        axis.annotate(text, (a + b, row), (3, 0), textcoords="offset points", va="center", fontsize=8)
    label(axis, names)
    axis.set_xlim(0, 1.15 * (silent + saturated).max())
    axis.set_xlabel("% of the layer's neurons", fontsize=9)
    axis.spines[["top", "right"]].set_visible(False)
    axis.invert_yaxis()
    made.legend(loc="outside lower center", fontsize=9, frameon=False, ncols=2)
    worst = int(np.argmax(silent))
    hot = names[int(np.argmax(saturated))] if saturated.max() > 0 else None
    return png(
        made,
        f"Neurons that hardly fire (silent: below {percent(SILENT)} of their steps) and that hardly rest (saturated: "
        f"above {percent(SATURATED)}), over {_samples(found)}. A neuron that is silent here may fire on other samples.",
        f"Silent neurons by layer: {percent(silent.min() / 100)} to {percent(silent[worst] / 100)}, most in {names[worst]}. "
        + ("No neuron is saturated." if hot is None else f"Saturated: up to {percent(saturated.max() / 100)}, in {hot}."),
    )


def _traces(seen: Mapping[str, Tensor]) -> Picture | None:
    layers = [name for name in _spikes_in(seen) if f"{name}.membrane" in seen]
    if not layers:
        return None
    layers = [layers[k] for k in some(len(layers), 3)]
    made, axes = figure(0.6 + 1.45 * len(layers), len(layers), 1, sharex=True)
    told: list[str] = []
    kinds: dict[str, Any] = dict.fromkeys((*KINDS, "threshold"))
    for axis, name in zip(axes.flat, layers, strict=True):
        spikes, membrane = (numpy(seen[f"{name}.{key}"].flatten(1)) for key in ("spikes", "membrane"))
        threshold = numpy(seen[f"{name}.threshold"].expand_as(seen[f"{name}.membrane"][0]).flatten())
        t, chosen = np.arange(len(spikes)), _typical(spikes, membrane, threshold)
        alike = len({threshold[k] for k in chosen.values()}) == 1
        for kind, k in chosen.items():
            colour, marker = KINDS[kind]
            (kinds[kind],) = axis.plot(t, membrane[:, k], color=colour, linewidth=1.3, marker=".", markersize=3)
            fired = spikes[:, k] != 0
            axis.plot(t[fired], membrane[fired, k], marker, color=colour, markersize=5)
            kinds["threshold"] = axis.axhline(threshold[k], color=INK if alike else colour, linestyle="--", linewidth=1)
            told.append(f"{name}, {kind}: {int(fired.sum())} spikes, membrane up to {membrane[:, k].max():.2g}")
        axis.set_title(for_figure(name), fontsize=9)
        axis.set_ylabel("membrane", fontsize=9)
        axis.spines[["top", "right"]].set_visible(False)
        axis.locator_params(axis="y", nbins=4)
    steps(axes[-1, 0], len(t))
    kinds = {kind: line for kind, line in kinds.items() if line is not None}
    made.legend(kinds.values(), kinds.keys(), loc="outside lower center", fontsize=8, frameon=False, ncols=4)
    least = float(seen[f"{layers[0]}.threshold"].min())
    return png(
        made,
        "Membranes of the same sample, before the reset, in the first, a middle and the last layer: of the neuron with most "
        "spikes, of one with the median number among those that fire, and of the silent one that comes nearest to the "
        "threshold. A large mark at or above the dashed threshold is a spike, after which the membrane is reset.",
        f"Membranes over {len(t)} steps with their threshold, {least:g} in {layers[0]}. {'; '.join(told)}.",
    )


def _typical(spikes: np.ndarray, membrane: np.ndarray, threshold: np.ndarray) -> dict[str, int]:
    """{kind: number} of the busiest neuron, one of the median number of spikes, and the liveliest silent one; [T, neurons]."""
    counts = spikes.sum(0)
    firing, silent = np.flatnonzero(counts), np.flatnonzero(counts == 0)
    by_count = firing[np.argsort(counts[firing], kind="stable")]
    chosen = {"busiest": int(by_count[-1])} if len(firing) else {}
    if len(firing) > 1:
        chosen["median"] = int(by_count[(len(by_count) - 1) // 2])
    if len(silent):
        chosen["silent"] = int(silent[np.argmax((membrane - threshold).max(0)[silent])])
    return chosen


def _table(neurons: Mapping[str, nn.Module], found: Firing | None) -> Table:
    rows = []
    for name, module in neurons.items():
        threshold = getattr(module, "threshold", None)
        row = [name, type(module).__name__, f"{threshold:g}" if isinstance(threshold, int | float) else "–"]
        if found is not None:
            each = found.by_neuron.get(name)
            none = each is None
            row += ["–"] * 4 if none else [f"{each.size:,}", percent(float(each.mean()))]
            row += [] if none else [percent(found.silent(name)), percent(found.saturated(name))]
        rows.append(row)
    more = [] if found is None else ["neurons", "firing rate", "silent", "saturated"]
    caption = "Neurons by layer" if found is None else f"Neurons by layer, over {_samples(found)}"
    return Table(["layer", "neuron", "threshold", *more], rows, caption)
