"""How training went, from the run's log."""

from typing import TYPE_CHECKING, Any

import numpy as np

from staa.analysis.figures import percent, shown, written
from staa.analysis.report.drawing import HEIGHT, HELD_OUT, QUIET, TRAIN, axes, legend, picture
from staa.analysis.report.parts import Fold, Part, Picture, Section, Table
from staa.text import for_figure

if TYPE_CHECKING:
    import pandas

HELD = ("validation", "test")
"""What an epoch may have been measured on."""
LAYERS = 12  # at most whose firing rates are told apart
STYLES = ("-", "--", ":")


def curves(log: "pandas.DataFrame", figure: str) -> Section:
    """Loss and the figure that counts by epoch, learning rate, and how often the layers fired.

    Args:
        log: The run's, as `staa.Run.log` gives it.
        figure: What counts, such as "accuracy".
    """
    parts: list[Part] = []
    epochs = _of(log, "epoch")
    if len(epochs):
        epochs = epochs.drop_duplicates("epoch", keep="last")  # one that was begun anew after a crash
        parts += [_by_epoch(epochs, name) for name in ("loss", figure) if name in epochs]
    steps = _of(log, "step")
    if len(steps) and "lr" in steps:
        parts.append(_learning_rate(steps))
    if len(epochs) and (rates := _rates(epochs)) is not None:
        parts.append(rates)
    if not parts:
        parts.append("There is no epoch in the log: the network was not trained in epochs, or the first one has not ended.")
    if len(epochs):
        parts.append(Fold("All epochs in numbers", [_table(epochs, figure)]))
    return Section("Learning curves", parts)


def _of(log: "pandas.DataFrame", event: str) -> Any:
    return log[log["event"] == event] if "event" in log else log


def _numbers(frame: Any, name: str) -> np.ndarray:
    """A column, NaN for what is no number, or none that is finite."""
    import pandas

    if name not in frame:
        return np.full(len(frame), np.nan)
    values = np.asarray(pandas.to_numeric(frame[name], errors="coerce"), float)
    return np.where(np.isfinite(values), values, np.nan)


def _by_epoch(epochs: Any, name: str) -> Picture:
    """A curve for training, and one for what was held out."""
    when, unit = _numbers(epochs, "epoch"), 100 if "%" in shown(name).form else 1
    drawing, axis = axes()
    told = []
    for (label, column), colour, style in zip(_columns(epochs, name), (TRAIN, HELD_OUT), STYLES, strict=False):
        values = unit * _numbers(epochs, column)
        axis.plot(when, values, style, color=colour, marker="o", markersize=3, label=for_figure(label))
        known = np.flatnonzero(~np.isnan(values))
        if len(known):
            best = known[(np.argmax if shown(name).rises else np.argmin)(values[known])]
            first, last, most = (written(values[k] / unit, shown(name).form) for k in (known[0], known[-1], best))
            told.append(f"{label} from {first} to {last}, best {most} in epoch {written(when[best], '.0f')}")
    unit_text = " [%]" if unit == 100 else ""
    axis.set(xlabel="epoch", ylabel=for_figure(shown(name).name) + unit_text)
    axis.xaxis.get_major_locator().set_params(integer=True)
    axis.legend(fontsize=9, frameon=False)
    what = shown(name).name
    caption = f"{what[:1].upper()}{what[1:]} by epoch: on training samples as they were met, while the weights still changed"
    held = _columns(epochs, name)[1:]
    caption += f"; on {held[0][0]} after the epoch." if held else "."
    return picture(drawing, caption, f"{what} by epoch: {'; '.join(told) or 'not recorded'}.")


def _columns(epochs: Any, name: str) -> list[tuple[str, str]]:
    """(what it is on, its column) of a figure."""
    return [("training", name), *((part, f"{part}_{name}") for part in HELD if f"{part}_{name}" in epochs)]


def _learning_rate(steps: Any) -> Picture:
    when, rate = _numbers(steps, "step"), _numbers(steps, "lr")
    drawing, axis = axes()
    axis.plot(when, rate, color=QUIET, marker="o", markersize=3)
    axis.set(xlabel="step", ylabel="learning rate", ylim=(0, None))
    axis.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3))
    top = f"{np.nanmax(rate):.3g}" if np.isfinite(rate).any() else "not known"
    last = f"{rate[-1]:.3g}"
    return picture(
        drawing,
        "Learning rate, at the steps that are in the log.",
        f"Learning rate by step: at most {top}, {last} at step {when[-1]:.0f}, the last in the log.",
    )


def _rates(epochs: Any) -> Picture | None:
    """Firing rate of each layer by epoch; of many layers, the range."""
    kept = [(epoch, rates) for epoch, rates in zip(_numbers(epochs, "epoch"), epochs.get("rates", ()), strict=False) if rates]
    layers: dict[str, list[float]] = {}
    for _, rates in kept:
        for name, rate in rates.items() if isinstance(rates, dict) else ():
            if type(rate) in (int, float):
                layers.setdefault(str(name), []).append(rate)
    layers = {name: some for name, some in layers.items() if len(some) == len(kept)}
    if not layers:
        return None
    when, values = [epoch for epoch, _ in kept], 100 * np.array(list(layers.values()), float)
    drawing, axis = axes(height=3.8 if len(layers) <= LAYERS else HEIGHT)
    if len(layers) <= LAYERS:
        import matplotlib

        colours = matplotlib.colormaps["viridis"](np.linspace(0, 0.9, len(layers)))
        for (name, line), colour, k in zip(zip(layers, values, strict=True), colours, range(len(layers)), strict=True):
            axis.plot(when, line, STYLES[k % 3], color=colour, marker="o", markersize=2, label=for_figure(name, 20))
        legend(drawing, columns=3)
    else:
        axis.fill_between(when, values.min(0), values.max(0), color=TRAIN, alpha=0.2, linewidth=0)
        axis.plot(when, values.mean(0), color=TRAIN, marker="o", markersize=3)
    axis.set(xlabel="epoch", ylabel="firing rate [%]", ylim=(0, None))
    axis.xaxis.get_major_locator().set_params(integer=True)
    last = dict(zip(layers, values[:, -1], strict=True))
    low, high = min(last, key=lambda name: last[name]), max(last, key=lambda name: last[name])
    how = "each layer" if len(layers) <= LAYERS else f"{len(layers)} layers: mean, lowest and highest"
    return picture(
        drawing,
        f"Firing rate of {how}: spikes per neuron and step, mean over the epoch's training samples.",
        f"Firing rates by epoch. In the last one {low} fires least, {percent(last[low] / 100)}, and {high} most, "
        f"{percent(last[high] / 100)}.",
    )


def _table(epochs: Any, figure: str) -> Table:
    columns = [(f"{on} {shown(name).name}", column, name) for name in ("loss", figure) for on, column in _columns(epochs, name)]
    seconds = _numbers(epochs, "seconds")
    rows = []
    for k, epoch in enumerate(_numbers(epochs, "epoch")):
        cells = (written(_numbers(epochs, column)[k], shown(name).form) for _, column, name in columns)
        rows.append([written(epoch, ".0f"), *cells, written(seconds[k], ".1f")])
    return Table(["epoch", *(header for header, _, _ in columns), "seconds"], rows, "Loss and figures after each epoch")
