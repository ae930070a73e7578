"""A picture of settings that were tried: what each reaches on validation, against the values of the options."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from staa.analysis.figures import shown
from staa.analysis.pictures import RED, TITLE, drawable, pyplot, save
from staa.analysis.sweep import Tried
from staa.text import for_figure

MOST_CELLS = 15  # values of an option that a map has room for
NAME = 24  # characters of a value at an axis


def draw(rows: Sequence[Tried], path: Path, *, title: str) -> None:
    """Draw settings, the best one first, to a PNG: a map where two options were tried in all combinations, else a panel for
    each option, with a point for each seed and the mean of each setting. What failed is left out, or named in its cell.

    Raises ValueError if none was trained.
    """
    trained = [row for row in rows if not row.problem]
    if not trained:
        raise ValueError("there is nothing to draw: no setting was trained with all its seeds")
    measure = shown(trained[0].measure)
    unit = 100 if "%" in measure.form else 1
    what = f"validation {measure.name}" + (" [%]" if unit == 100 else " [series' units]" if measure.name == "MAE" else "")
    options = list(rows[0].values)
    ticks = {option: _in_order(list(dict.fromkeys(row.values[option] for row in rows))) for option in options}
    grid = len(options) == 2 and len(rows) == np.prod([len(values) for values in ticks.values()])
    if grid and max(map(len, ticks.values())) <= MOST_CELLS and min(map(len, ticks.values())) > 1:
        figure = _map(rows, ticks, what, unit)
    else:
        figure = _panels(trained, ticks, what, unit)
    figure.suptitle(for_figure(title, TITLE), fontsize=10)
    save(figure, path, dpi=120)


def _map(rows: Sequence[Tried], ticks: dict[str, list[str]], what: str, unit: int) -> Any:
    """The first option upwards, the second to the right, and the colour of each cell its mean."""
    (down, below), (right, across) = ticks.items()
    means, texts = np.full((len(below), len(across)), np.nan), {}
    for row in rows:
        at = below.index(row.values[down]), across.index(row.values[right])
        if row.problem:
            texts[at] = ["failed" if "failed: " in row.problem else "not trained"]
        else:
            means[at] = drawable(unit * row.mean)
            texts[at] = [f"{unit * row.mean:.3g}", *([] if row.spread is None else [f"± {unit * row.spread:.2g}"])]
    plt = pyplot()
    size = 2.2 + 0.95 * len(across), 1.6 + 0.6 * len(below)
    figure, axis = plt.subplots(figsize=(max(5.0, size[0]), max(3.2, size[1])), layout="constrained")
    image = axis.imshow(means, cmap="viridis", origin="lower", aspect="auto")
    least, most = np.nanmin(means), np.nanmax(means)
    for (y, x), text in texts.items():
        dark = np.isfinite(means[y, x]) and means[y, x] < (least + most) / 2
        axis.text(x, y, "\n".join(map(for_figure, text)), ha="center", va="center", fontsize=8, color="w" if dark else "k")
    best = rows[0].values
    at = across.index(best[right]) - 0.5, below.index(best[down]) - 0.5
    axis.add_patch(plt.Rectangle(at, 1, 1, fill=False, edgecolor=RED, linewidth=2.5, clip_on=False, zorder=3))
    axis.set_xticks(range(len(across)), [for_figure(value, NAME) for value in across], fontsize=8)
    axis.set_yticks(range(len(below)), [for_figure(value, NAME) for value in below], fontsize=8)
    axis.set_xlabel(for_figure(right))
    axis.set_ylabel(for_figure(down))
    figure.colorbar(image, ax=axis, label=for_figure(f"{what}, best framed"))
    return figure


def _panels(rows: Sequence[Tried], ticks: dict[str, list[str]], what: str, unit: int) -> Any:
    plt = pyplot()
    columns = min(3, len(ticks))
    lines = -(-len(ticks) // columns)
    figure, axes = plt.subplots(
        lines, columns, figsize=(4.2 * columns + 1, 3.4 * lines + 0.5), sharey=True, squeeze=False, layout="constrained"
    )
    for k, axis in enumerate(axes.flat):
        if k >= len(ticks):
            axis.set_visible(False)
            continue
        option, values = list(ticks.items())[k]
        numbers = _numbers(values)
        if numbers is None:
            axis.set_xticks(range(len(values)), [for_figure(value, NAME) for value in values], fontsize=8)
            if max(map(len, values)) > 8:
                axis.tick_params(axis="x", rotation=30)
            axis.set_xlim(-0.5, len(values) - 0.5)
        elif _is_log(numbers):
            axis.set_xscale("log")
        at = dict(zip(values, range(len(values)) if numbers is None else numbers, strict=True))
        x = [at[row.values[option]] for row in rows]
        means = drawable([unit * row.mean for row in rows])
        for place, row in zip(x, rows, strict=True):
            some = drawable([unit * value for value in row.reached.values()])
            if len(some) > 1:
                axis.plot([place] * len(some), some, ".", color="0.6", markersize=5, zorder=1, label=for_figure("a seed"))
        if len(ticks) == 1 and numbers is not None:
            order = np.argsort(x)
            axis.plot(np.array(x)[order], means[order], "-", color="C0", linewidth=1, zorder=2)
        axis.plot(x, means, "o", color="C0", markersize=5, zorder=2, label=for_figure("a setting"))
        axis.plot(x[:1], means[:1], "o", color=RED, markersize=8, zorder=3, label=for_figure("the best"))
        axis.set_xlabel(for_figure(option))
        axis.spines[["top", "right"]].set_visible(False)
        if k % columns == 0:
            axis.set_ylabel(for_figure(what))
    handles = dict(zip(*reversed(axes.flat[0].get_legend_handles_labels()), strict=True))  # each label once
    figure.legend(handles.values(), handles.keys(), fontsize=8, frameon=False, ncols=3, loc="outside lower center")
    return figure


def _in_order(values: list[str]) -> list[str]:
    """Numbers by size, anything else as it was told."""
    numbers = _numbers(values)
    return values if numbers is None else [value for _, value in sorted(zip(numbers, values, strict=True))]


def _numbers(values: Sequence[str]) -> list[float] | None:
    """The values as numbers, if all of them are."""
    try:
        numbers = [float(value) for value in values]
    except ValueError:
        return None
    return numbers if np.isfinite(drawable(numbers)).all() else None


def _is_log(numbers: Sequence[float]) -> bool:
    """Whether the values lie more evenly on a logarithmic scale."""
    x = np.unique(numbers)
    if len(x) < 3 or x[0] <= 0:
        return False
    uneven = [np.std(gaps) / np.mean(gaps) for gaps in (np.diff(x), np.diff(np.log(x)))]
    return bool(uneven[1] < uneven[0])
