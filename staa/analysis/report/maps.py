"""Maps of where a network looks, below the input that they are of."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from staa.analysis.pictures import brightest, composite
from staa.analysis.report.layered import LAYERS, WIDTH, figure, in_figure, numpy, png, some
from staa.analysis.report.parts import Picture
from staa.text import for_figure

DRAWN = 2  # samples
COLUMNS = 4  # steps of a sample, at most
SHARES = (
    "White places have an even share, orange ones more and purple ones less, on a logarithmic scale of each row's own: it ends "
    "at the row's largest value and as far below an even share."
)


def maps_beside(
    maps: Mapping[str, Tensor],
    x: Tensor,
    labels: Sequence[object] | None,
    *,
    what: str,
    shares: bool = False,
) -> list[Picture]:
    """Of the first samples, the input and below it the maps of some layers, at some steps.

    Args:
        maps: By layer, 0 or more everywhere.
        x: What the network was called with.
        labels: Names of the samples' classes.
        what: What the maps are, for the caption.
        shares: The values are times an even share, and drawn on a logarithmic scale around it: few places have nearly all.

    Shapes:
        maps [T, N, H, W]; x [T, N, C, H, W] or [N, C, H, W]
    """
    if not maps:
        return []
    names = [[*maps][k] for k in some(len(maps), LAYERS)]
    total, samples = maps[names[0]].shape[:2]
    made = []
    for n in range(min(DRAWN, samples)):
        frames = _colours(numpy(x[:, n] if x.ndim == 5 else x[None, n].expand(total, -1, -1, -1)))
        label = "" if labels is None or n >= len(labels) else str(labels[n])
        rows = {name: numpy(maps[name][:, n]) for name in names}
        at = some(total, COLUMNS)
        shown = "all" if len(at) == total else f"{len(at)} of the"
        layers = f"{len(rows)} of {len(maps)} layers from front to back" if len(maps) > 1 else names[0]
        caption = (
            f"{what}. Sample {n + 1}{f' ({label})' if label else ''}, {shown} {total} steps: above the input, below it "
            f"{layers}. {SHARES if shares else 'Dark is 0, light the largest value of the row.'}"
        )
        told = "; ".join(_told(name, values, shares=shares) for name, values in rows.items())
        drawn = _drawn(frames, rows, at, shares=shares)
        if label:
            drawn.suptitle(for_figure(label), fontsize=10)
        made.append(png(drawn, caption, f"Sample {n + 1}. {told}."))
    return made


def _drawn(frames: np.ndarray, rows: Mapping[str, np.ndarray], at: Sequence[int], *, shares: bool) -> Any:
    cell = (WIDTH - 1.8) / max(len(at), 3) * min(frames.shape[1] / frames.shape[2], 2)
    drawn, axes = figure((cell + 0.1) * (1 + len(rows)) + 0.4, 1 + len(rows), len(at))
    for column, t in enumerate(at):
        axes[0, column].imshow(frames[t], interpolation="nearest")
        axes[0, column].set_title(f"step {t + 1}", fontsize=9)
    draw = _share if shares else _value
    for row, values in zip(axes[1:], rows.values(), strict=True):
        images = [draw(axis, values[t], values.max()) for axis, t in zip(row, at, strict=True)]
        image, ticks = images[-1]  # the row's all have one scale
        bar = drawn.colorbar(image, cax=row[-1].inset_axes((1.08, 0, 0.08, 1)))
        bar.set_ticks([*ticks], labels=[*ticks.values()])
        bar.ax.tick_params(labelsize=8)
        bar.ax.minorticks_off()
    for axis in axes.flat:
        axis.set_xticks([])
        axis.set_yticks([])
    for axis, text in zip(axes[:, 0], ["input", *in_figure(rows)], strict=True):
        axis.set_ylabel(text, rotation=0, ha="right", va="center", fontsize=8)
    return drawn


def _value(axis: Any, values: np.ndarray, most: float) -> tuple[Any, dict[float, str]]:
    """The image, and what stands at its colour bar."""
    return axis.imshow(values, cmap="magma", vmin=0, vmax=most or 1, interpolation="nearest"), {0: "0", most: f"{most:.3g}"}


def _share(axis: Any, values: np.ndarray, most: float) -> tuple[Any, dict[float, str]]:
    """The same, as far below an even share as above it."""
    from matplotlib.colors import LogNorm

    most = max(most, 2.0)  # else what is all but even would look as if it were not
    image = axis.imshow(np.clip(values, 1 / most, most), cmap="PuOr_r", norm=LogNorm(1 / most, most), interpolation="nearest")
    return image, {1 / most: f"1/{most:.3g}", 1.0: "1×", most: f"{most:.3g}×"}


def _told(name: str, values: np.ndarray, *, shares: bool) -> str:
    t, i, j = np.unravel_index(values.argmax(), values.shape)
    where = _place(int(i), int(j), values.shape[1:])
    mean = "" if shares else f", mean {values.mean():.2g}"  # of shares it is 1
    return f"{name}: up to {values.max():.3g}{'×' if shares else ''} at step {t + 1}, {where}{mean}"


def _place(i: int, j: int, size: tuple[int, ...]) -> str:
    """Such as "upper left", of a place of a map."""
    vertical = ("upper", "middle", "lower")[int(3 * (i + 0.5) / size[0])]
    horizontal = ("left", "centre", "right")[int(3 * (j + 0.5) / size[1])]
    return f"{vertical} {horizontal}"


def _colours(frames: np.ndarray) -> np.ndarray:
    """Frames [T, C, H, W] as colours [T, H, W, 3]: of events OFF blue and ON red, else from the least to the largest value."""
    if frames.shape[1] == 2 and frames.min() >= 0:
        full = brightest(frames)
        return np.stack([composite(frame, full) for frame in frames])
    shown = frames if frames.shape[1] == 3 else frames.mean(1, keepdims=True).repeat(3, 1)
    low, high = shown.min(), shown.max()
    return np.moveaxis((shown - low) / max(high - low, 1e-12), 1, -1)
