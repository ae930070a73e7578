"""Figures with a row, or a panel, for each layer of a network; and the samples that they are of."""

import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from staa.analysis.report.parts import Picture
from staa.text import for_figure
from staa.training.evaluate import Inputs, device_of

WIDTH = 4.8
"""Inches of a figure: at 360 pixels a letter of 9 points is 9 pixels high."""
DPI = 150
ROW = 0.26  # inches of a layer at least
LAYERS = 3  # layers with a panel each, at most
WRITTEN = 12  # columns of a heat map at most whose values are written
NAME = 20  # characters of a layer's name
INK, QUIET, COLD, WARM = "#1f2937", "#6b7280", "#1f5fa8", "#c2410c"


def figure(height: float, rows: int = 1, columns: int = 1, **grid: Any) -> tuple[Any, np.ndarray]:
    """(figure, axes [rows, columns]), opaque white."""
    from matplotlib.figure import Figure

    made = Figure(figsize=(WIDTH, height), layout="constrained", facecolor="white")
    made.get_layout_engine().set(h_pad=0.08, w_pad=0.06)  # type: ignore[union-attr]
    axes = made.subplots(rows, columns, squeeze=False, **grid)
    for axis in axes.flat:
        axis.tick_params(labelsize=9)
    return made, axes


def png(figure: Any, caption: str, alt: str) -> Picture:
    """The figure as a PNG of few colours, without a date."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    figure.set_dpi(DPI)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # savefig would draw twice
    file = io.BytesIO()
    pixels = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
    pixels.quantize(192, dither=Image.Dither.NONE).save(file, format="png", optimize=True)
    return Picture(file.getvalue(), caption, alt)


def label(axis: Any, names: Sequence[str]) -> None:
    """The layers' names beside the rows 0, 1, … of an axis."""
    axis.set_yticks(range(len(names)), in_figure(names))


def in_figure(names: Iterable[str]) -> list[str]:
    """Names of layers, without the module that holds all of them if they are long."""
    names = [*names]
    holders = {name.partition(".")[0] for name in names}
    if len(holders) == 1 and max(map(len, names)) > NAME:
        names = [name.partition(".")[2] or name for name in names]
    return [for_figure(name, NAME) for name in names]


def heat(rows: Mapping[str, np.ndarray], *, what: str, form: str, colours: str = "viridis", factor: float = 1.0) -> Any:
    """A figure of a value for each layer and step, whose cells are written if there are few steps.

    rows: [T] of each layer. what: the value, on the colour bar. form: of a written value, which is multiplied by the factor.
    """
    values = factor * np.stack([*rows.values()])
    made, ((axis,),) = figure(0.9 + ROW * len(rows))
    image = axis.imshow(values, aspect="auto", cmap=colours, interpolation="none")
    label(axis, [*rows])
    steps(axis, values.shape[1])
    if values.shape[1] <= WRITTEN:
        light = image.cmap(image.norm(values))[..., :3] @ np.array([0.299, 0.587, 0.114])
        for row, column in np.ndindex(*values.shape):
            text, ink = format(values[row, column], form), "black" if light[row, column] > 0.55 else "white"
            if text != "nan":  # a layer with fewer steps
                axis.text(column, row, text.replace("0.", "."), ha="center", va="center", fontsize=7, color=ink)
    bar = made.colorbar(image, ax=axis, aspect=30, pad=0.02)
    bar.set_label(what, fontsize=9)
    bar.ax.tick_params(labelsize=8)
    return made


def steps(axis: Any, count: int, *, below: bool = True) -> None:
    """Steps 1 to T under the columns 0 to T − 1 of an axis."""
    shown = range(count) if count <= WRITTEN else sorted({*range(0, count, -(-count // 8)), count - 1})
    if count > WRITTEN and len(shown) > 1 and shown[-1] - shown[-2] < -(-count // 16):
        shown = [*shown[:-2], shown[-1]]
    axis.set_xticks([*shown], [str(t + 1) for t in shown])
    if below:
        axis.set_xlabel("time step", fontsize=9)


def rugs(panels: Mapping[str, Mapping[str, np.ndarray]]) -> Any:
    """A figure of values by layer, each value a stroke and their middle a dot: a panel for each title."""
    names = list(dict.fromkeys(name for rows in panels.values() for name in rows))
    made, (axes,) = figure(0.9 + ROW * len(names), 1, len(panels), sharey=True)
    for axis, (title, rows) in zip(axes, panels.items(), strict=True):
        for name, values in rows.items():
            row, values = names.index(name), values.ravel()
            axis.vlines(values, row - 0.33, row + 0.33, color=COLD, alpha=max(0.15, 0.8 / len(values) ** 0.3), linewidth=1)
            axis.plot(np.median(values), row, "o", color=WARM, markersize=4)
        axis.set_title(title, fontsize=9)
        axis.spines[["top", "right"]].set_visible(False)
        axis.locator_params(axis="x", nbins=4)
        axis.set_ylim(len(names) - 0.5, -0.5)
    label(axes[0], names)
    return made


def some(count: int, most: int) -> list[int]:
    """At most so many of the numbers from 0 to count − 1, the first and the last among them, evenly spread."""
    return sorted({round(k) for k in np.linspace(0, count - 1, min(most, count))})


def samples_in(inputs: Inputs, model: nn.Module) -> int:
    return inputs[0].shape[0] if isinstance(inputs, tuple) else inputs.shape[_batch(inputs, model)]


def some_of(inputs: Inputs, which: slice, model: nn.Module) -> tuple[Any, ...]:
    """What the model is called with for these samples alone, on its device: of windows [B, ...] and time features, of images
    [N, C, H, W] or of frames [T, N, C, H, W]."""
    device = device_of(model)
    if isinstance(inputs, tuple):
        return tuple(None if x is None else x[which].to(device) for x in inputs)
    chosen = inputs[:, which] if _batch(inputs, model) else inputs[which]
    return (chosen.to(device),)


def _batch(x: Tensor, model: nn.Module) -> int:
    return int(x.ndim == getattr(model, "frame_rank", 3) + 2)


def numpy(x: Tensor) -> np.ndarray:
    return x.detach().to("cpu", torch.float64).numpy()
