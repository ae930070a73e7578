"""Pictures. matplotlib is imported when the first one is drawn."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from staa.data.events.frames import borders_of, count
from staa.data.events.recording import Events
from staa.files import save_with
from staa.text import for_figure

FRAMES = 8
SIDE = 640  # pixels of a frame's longer side at most, whatever the sensor is said to be
BINS = 100  # of the curve of event rates
POINTS = 4000  # of the scatter
LARGEST = 1e30  # that is drawn: matplotlib's own sums overflow far above it
TITLE = 120  # characters above a whole figure
NAMED = 30  # nodes at most whose names stand at a matrix
RED = (0.85, 0.25, 0.1)
COLOURS = {"OFF": (0.13, 0.35, 0.75), "ON": (0.85, 0.25, 0.1)}


def draw_recording(events: Events, path: Path, title: str = "") -> None:
    """Draw a recording to a PNG: frames of equal duration, the rate of ON and OFF events, and events in space and time.

    Raises ValueError if the sensor is not known, or there are no events.
    """
    coarser = -(-max(events.sensor or (1,)) // SIDE)
    size = events.sensor and (-(-events.sensor[0] // coarser), -(-events.sensor[1] // coarser))
    frames = count(events, borders_of(events, FRAMES, by="time"), size=size)
    plt = pyplot()
    seconds = (events.t - events.t[0]) / 1e6
    figure = plt.figure(figsize=(14, 7), layout="constrained")
    grid = figure.add_gridspec(2, FRAMES, height_ratios=(1, 1.6))
    full = brightest(frames)
    edges = np.linspace(0, float(seconds[-1]) + 1e-6, FRAMES + 1)  # the last event's own microsecond too
    for k, frame in enumerate(frames):
        axis = figure.add_subplot(grid[0, k])
        axis.imshow(composite(frame, full), interpolation="nearest")
        axis.set_title(f"{edges[k]:.3g}–{edges[k + 1]:.3g} s\n{int(frame.sum()):,} events", fontsize=8)
        axis.set_xticks([])
        axis.set_yticks([])
    axis = figure.add_subplot(grid[1, : FRAMES // 2])
    bins = np.linspace(0, edges[-1], BINS + 1)
    for p, name in enumerate(("OFF", "ON")):
        rate = np.histogram(seconds[events.p == p], bins)[0] / np.diff(bins)
        axis.plot(
            (bins[1:] + bins[:-1]) / 2, rate, color=COLOURS[name], label=f"{for_figure(name)}: {(events.p == p).sum():,} events"
        )
    axis.set(xlabel="time [s]", ylabel="events per second", ylim=(0, None))
    axis.legend()
    space = figure.add_subplot(grid[1, FRAMES // 2 :], projection="3d")
    some = np.linspace(0, len(seconds) - 1, min(POINTS, len(seconds))).astype(np.int64)
    colours = np.array([COLOURS["OFF"], COLOURS["ON"]])[events.p[some]]
    space.scatter(seconds[some], events.x[some], events.y[some], s=1.5, c=colours, depthshade=False)  # type: ignore[arg-type]
    space.set(xlabel="time [s]", ylabel="x", zlabel="y", xlim=(0, edges[-1]))
    space.locator_params(nbins=5)
    space.invert_zaxis()  # type: ignore[attr-defined]
    height, width = events.sensor or (0, 0)
    about = [f"{title}  {len(seconds):,} events on {height} × {width} in {seconds[-1]:.3g} s".strip()]
    about += ["frames: OFF blue, ON red, both black"]
    about += [f"{len(some):,} of the events at the lower right"] if len(some) < len(seconds) else []
    figure.suptitle(for_figure("; ".join(about), 2 * TITLE), fontsize=10)
    save(figure, path, dpi=110)


def composite(frame: np.ndarray, full: float | None = None) -> np.ndarray:
    """Counts of OFF and ON events [2, H, W] as colours [H, W, 3] on white: OFF blue, ON red, both black. full: the count of the
    brightest colour; None: `brightest`'s."""
    share = np.clip(frame / (brightest(frame) if full is None else full), 0, 1)[..., None]
    off, on = (share[p] * (1 - np.array(COLOURS[name])) for p, name in enumerate(("OFF", "ON")))
    return np.clip(1 - off - on, 0, 1)


def brightest(frames: np.ndarray) -> float:
    """The count that has the full colour; a hot pixel would else hide the rest."""
    some = frames[frames > 0]
    return float(np.quantile(some, 0.95)) if len(some) else 1.0


def drawable(values: Any) -> np.ndarray:
    """Numbers, with NaN, which leaves a gap, for what is infinite or above LARGEST."""
    numbers = np.asarray(values, float)
    return np.where(np.abs(numbers) < LARGEST, numbers, np.nan)


def draw_bars(
    names: Sequence[str], panels: Mapping[str, Mapping[str, Sequence[float]]], path: Path, *, title: str = ""
) -> None:
    """Draw a panel of horizontal bars for each title to a PNG, a bar for each name, the names at the left of the first.

    panels: title -> parts that are stacked, label -> values; a label may be empty if there is one part. Part "±" is
    drawn as error bars, not stacked.
    """
    plt = pyplot()
    height = 1.6 + 0.45 * len(names)
    figure, axes = plt.subplots(1, len(panels), figsize=(2.5 * len(panels) + 2, height), sharey=True, layout="constrained")
    rows = np.arange(len(names))
    for axis, (above, parts) in zip(np.atleast_1d(axes), panels.items(), strict=True):
        drawn = {label: drawable(values) for label, values in parts.items()}
        spread, left = np.nan_to_num(drawn.pop("±", np.zeros(len(names)))), np.zeros(len(names))
        for shade, (label, values) in zip((0.45, 0.75), drawn.items(), strict=False):
            axis.barh(rows, values, 0.6, left=left, color=plt.get_cmap("Blues")(shade + 0.1), label=for_figure(label))
            left = left + values  # NaN: no bar
        if spread.any():
            axis.errorbar(left, rows, xerr=spread, fmt="none", color="black", capsize=2, linewidth=1)
        for row, total, end in zip(rows, left, left + spread, strict=True):
            text = " not drawn" if np.isnan(total) else f" {total:.3g}" if total < 1000 else f" {total:,.0f}"
            axis.annotate(for_figure(text), (np.nan_to_num(end), row), va="center", fontsize=8)
        axis.set_title(for_figure(above), fontsize=9)
        axis.set_xlim(0, 1.3 * max(np.nan_to_num(left + spread).max(), 1e-9))
        axis.tick_params(labelsize=8)
        axis.locator_params(axis="x", nbins=4)
        axis.spines[["top", "right"]].set_visible(False)
        if len(drawn) > 1:
            axis.legend(fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=2, frameon=False)
    axis = np.atleast_1d(axes)[0]
    axis.set_yticks(rows, [for_figure(name) for name in names])
    axis.invert_yaxis()
    if title:
        figure.suptitle(for_figure(title, TITLE), fontsize=10)
    save(figure, path, dpi=120)


class Drawn(NamedTuple):
    """A forecast to draw: when [L + P] times or row numbers, seen [L, K], forecast and truth [P, K], truth NaN if it is not
    known, and the ends of an interval [P, K], or None."""

    when: Sequence[Any] | np.ndarray
    seen: np.ndarray
    forecast: np.ndarray
    truth: np.ndarray
    lower: np.ndarray | None = None
    upper: np.ndarray | None = None


def draw_forecasts(names: Sequence[str], each: Sequence[Drawn], path: Path, *, title: str) -> None:
    """Draw, a panel for each variate, what was seen, what was forecast and, if it is known, what came, to a PNG.

    each: the forecasts, after one origin or several, with a column for each name.
    """
    plt = pyplot()
    columns = min(2, len(names))
    rows = -(-len(names) // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(6.5 * columns, 2.4 * rows + 0.8), sharex=True, squeeze=False, layout="constrained"
    )
    for k, axis in enumerate(axes.flat):
        if k >= len(names):
            axis.set_visible(False)
            continue
        for when, *parts in each:
            seen, forecast, truth, lower, upper = (None if a is None else drawable(a[:, k]) for a in parts)
            assert seen is not None
            assert forecast is not None
            assert truth is not None
            length = len(seen)
            axis.plot(when[:length], seen, color="0.35", label=for_figure("seen"))
            if not np.isnan(truth).all():
                axis.plot(
                    when[length - 1 :], [seen[-1], *truth], color="0.35", linestyle=":", marker=".", markersize=3,
                    label=for_figure("actual"),
                )  # fmt: skip
            axis.plot(when[length:], forecast, color=RED, marker=".", label=for_figure("forecast"))
            if lower is not None and upper is not None:
                axis.fill_between(when[length:], lower, upper, color=RED, alpha=0.2, linewidth=0, label=for_figure("interval"))
            axis.axvline(when[length - 1], color="0.8", linewidth=1, zorder=0)
        axis.set_title(for_figure(names[k]), fontsize=9)
        axis.tick_params(labelsize=8)
        axis.spines[["top", "right"]].set_visible(False)
    told = [dict(zip(*reversed(axis.get_legend_handles_labels()), strict=True)) for axis in axes.flat]  # each label once
    most = max(told, key=len)
    figure.legend(most.values(), most.keys(), fontsize=8, frameon=False, ncols=len(most), loc="outside lower center")
    if np.asarray(each[0].when).dtype.kind == "M":
        figure.autofmt_xdate(rotation=30)
    else:
        for axis in axes[-1]:
            axis.set_xlabel(for_figure("row"), fontsize=8)
    figure.suptitle(for_figure(title, TITLE), fontsize=10)
    save(figure, path, dpi=120)


def draw_adjacency(
    learned: np.ndarray, given: np.ndarray | None, path: Path, *, names: Sequence[str] = (), title: str = ""
) -> None:
    """Draw the matrix a forecaster aggregates neighbours by, beside the data's graph if there is one, to a PNG.

    learned, given: [K, K]. Both on a colour scale of their own, cut at their 99th percentile of what is not 0. names: of the
    nodes, which are written if there are few, else their numbers.
    """
    plt = pyplot()
    matrices = {"used by the network": learned} | ({} if given is None else {"given with the data": given})
    figure, axes = plt.subplots(1, len(matrices), figsize=(5.6 * len(matrices), 5.4), squeeze=False, layout="compressed")
    for axis, (which, matrix) in zip(axes.flat, matrices.items(), strict=True):
        above = matrix[matrix > 0]
        image = axis.imshow(matrix, cmap="viridis", vmin=0, vmax=np.quantile(above, 0.99) if len(above) else 1)
        axis.set(title=for_figure(which), xlabel="neighbour", ylabel="node")
        if 0 < len(names) <= NAMED:
            axis.set_xticks(range(len(names)), [for_figure(name, 16) for name in names], rotation=90, fontsize=7)
            axis.set_yticks(range(len(names)), [for_figure(name, 16) for name in names], fontsize=7)
        figure.colorbar(image, ax=axis, shrink=0.8)
    figure.suptitle(for_figure(title, TITLE), fontsize=10)
    save(figure, path, dpi=120)


def draw_horizons(curves: Mapping[str, Sequence[Mapping[str, float]]], path: Path, *, title: str = "") -> None:
    """Draw errors against the steps ahead to a PNG: MAE, RMSE and R², a curve for each name.

    curves: name -> `staa.training.metrics.forecast_figures_by_horizon`'s figures, in the series' units.
    """
    plt = pyplot()
    figure, axes = plt.subplots(1, 3, figsize=(13, 3.8), layout="constrained")
    for axis, (key, label) in zip(axes, {"mae": "MAE", "rmse": "RMSE", "r2": "R²"}.items(), strict=True):
        for name, figures in curves.items():
            axis.plot([f["step"] for f in figures], drawable([f[key] for f in figures]), marker=".", label=for_figure(name))
        axis.set(xlabel="steps ahead", title=for_figure(label))
        axis.locator_params(axis="x", integer=True)
        axis.spines[["top", "right"]].set_visible(False)
    if len(curves) > 1:
        axes[0].legend(fontsize=8, frameon=False)
    figure.suptitle(for_figure(title, TITLE), fontsize=10)
    save(figure, path, dpi=120)


def save(figure: Any, path: Path, *, dpi: int) -> None:
    try:
        save_with(path, partial(figure.savefig, dpi=dpi, format="png"))
    finally:
        pyplot().close(figure)


def pyplot() -> Any:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    return plt
