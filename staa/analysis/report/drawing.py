"""Figures of a report, each on a ground of its own, with letters that can be read at the width of a phone."""

import io
from collections.abc import Sequence
from typing import Any

import numpy as np

from staa.analysis.report.parts import Picture
from staa.text import for_figure

WIDTH, HEIGHT = 4.8, 3.3
"""Inches: at 360 pixels a letter of 9 points is 9 pixels high."""
TRAIN, HELD_OUT, QUIET = "#1f5fa8", "#c2410c", "#6b7280"
NAMED = 30  # rows of a matrix at most whose names stand beside it
COUNTED = 12  # rows of a matrix at most whose cells are written


def axes(width: float = WIDTH, height: float = HEIGHT) -> tuple[Any, Any]:
    """(figure, axis): one panel."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    axis = figure.subplots()
    axis.spines[["top", "right"]].set_visible(False)
    axis.tick_params(labelsize=9)
    return figure, axis


def panels(count: int, columns: int, width: float, height: float) -> tuple[Any, list[Any]]:
    """(figure, axes): so many small pictures, `columns` in a row, each of this size, without ticks."""
    from matplotlib.figure import Figure

    rows = -(-count // columns)
    figure = Figure(figsize=(columns * width, rows * height), layout="constrained", facecolor="white")
    cells = figure.subplots(rows, columns, squeeze=False).flat
    for axis in cells:
        axis.set_axis_off()
    return figure, list(figure.axes[:count])


def legend(figure: Any, *, columns: int = 2) -> None:
    """What the lines are, below the panel, where it hides none of them."""
    figure.legend(loc="outside lower center", fontsize=8, frameon=False, ncols=columns)


def picture(figure: Any, caption: str, alt: str) -> Picture:
    """The figure as SVG, which names no date and nothing outside itself: the same figure gives the same bytes."""
    from matplotlib import rc_context

    file = io.BytesIO()
    with rc_context({"svg.hashsalt": "staa", "svg.fonttype": "path", "savefig.facecolor": "white"}):
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    return Picture(file.getvalue(), caption, alt)


def matrix(
    values: np.ndarray, names: Sequence[str], *, labels: tuple[str, str], top: float | None = None, colours: str = "Blues"
) -> Any:
    """A figure of a matrix [n, n]: its rows from top to bottom, with names and values where they fit. labels: of rows and of
    columns. top: what has the darkest colour; None: the largest value."""
    figure, axis = axes(WIDTH, WIDTH * 0.92)
    most = float(np.nanmax(values, initial=0)) if top is None else top
    image = axis.imshow(values, cmap=colours, vmin=0, vmax=most or 1, interpolation="none")
    axis.set(xlabel=labels[1], ylabel=labels[0])
    axis.spines[:].set_visible(False)
    count = len(values)
    if 0 < len(names) <= NAMED:
        size = 9 if count <= COUNTED else 6
        axis.set_xticks(range(count), [for_figure(name, 14) for name in names], rotation=90, fontsize=size)
        axis.set_yticks(range(count), [for_figure(name, 14) for name in names], fontsize=size)
    if count <= COUNTED:
        light = image.cmap(image.norm(values))[..., :3] @ np.array([0.299, 0.587, 0.114])
        for row, column in np.argwhere(values > 0):
            ink = "black" if light[row, column] > 0.55 else "white"
            value = values[row, column]
            told = f"{value:.0f}" if value >= 10 else f"{value:.2g}"
            axis.text(column, row, told, ha="center", va="center", fontsize=8, color=ink)
    bar = figure.colorbar(image, ax=axis, shrink=0.8)
    bar.ax.tick_params(labelsize=8)
    return figure
