"""Inputs of a classifier, drawn: images as they are, frames of events as ON and OFF."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from staa.analysis.figures import percent
from staa.analysis.pictures import composite
from staa.analysis.report.drawing import panels, picture
from staa.analysis.report.parts import Picture
from staa.data import Samples, Source
from staa.text import for_figure

COLUMNS = 4
SIDE = 96  # pixels of a drawn sample's longer side at most
CELL = 1.2, 1.5  # inches
RIGHT, WRONG = "#166534", "#b91c1c"


class Sample(NamedTuple):
    """A sample and what was said of it."""

    number: int
    label: str
    predicted: str
    probability: float


def shown_inputs(part: Samples, source: Source, chosen: Tensor) -> np.ndarray:
    """Samples as colours: images as they are stored; of events the step with most of them, ON red, OFF blue and both black.

    What is stored otherwise is drawn as the network takes it: the mean of its steps and, if they are neither one nor three, of
    its channels, from each sample's least to its largest value.

    Args:
        part: The part of the data that they are of.
        source: The data.
        chosen: Their numbers in the part, [n].

    Shapes:
        -> [n, H, W, 3], from 0 to 1
    """
    x = part.take(chosen)
    if x.ndim == 5 and x.shape[2] == 2:
        return _events(_fullest(x.double()))
    if x.ndim == 4 and x.shape[1] in (1, 3) and not x.is_floating_point():
        return _colours(x.double() / 255)
    made = source.prepare(x).double()
    if made.ndim == 5:
        made = _fullest(made.movedim(0, 1)) if made.shape[2] == 2 and made.min() >= 0 else made.mean(0)
    if made.shape[1] == 2 and made.min() >= 0:
        return _events(made)
    made = made if made.shape[1] in (1, 3) else made.mean(1, keepdim=True)
    low, high = made.amin((1, 2, 3), keepdim=True), made.amax((1, 2, 3), keepdim=True)
    return _colours((made - low) / (high - low).clamp(min=1e-12))


def _fullest(x: Tensor) -> Tensor:
    """Of each sample's steps [n, T, ...] the one with most events; the sum of all would be smeared by what moves."""
    return x[torch.arange(len(x)), x.flatten(2).sum(2).argmax(1)]


def _events(counts: Tensor) -> np.ndarray:
    return np.stack([composite(frame) for frame in _small(counts).cpu().numpy()])


def _colours(pixels: Tensor) -> np.ndarray:
    pixels = _small(pixels)
    return pixels.expand(-1, 3, -1, -1).permute(0, 2, 3, 1).clamp(0, 1).cpu().numpy()


def _small(x: Tensor) -> Tensor:
    """Samples [n, C, H, W], a large one in the size that is drawn, each pixel the mean of those that it stands for."""
    longer = max(x.shape[2:])
    return x if longer <= SIDE else F.interpolate(x, size=[max(1, side * SIDE // longer) for side in x.shape[2:]], mode="area")


def grid(inputs: np.ndarray, samples: Sequence[Sample], what: str) -> Picture:
    """Samples side by side, each with its right class, and what was said of it.

    Args:
        inputs: As `shown_inputs` gives them.
        samples: What to say of each.
        what: What they are, such as "Right answers".

    Shapes:
        inputs [n, H, W, 3]
    """
    figure, cells = panels(len(samples), min(COLUMNS, len(samples)), *CELL)
    for axis, x, s in zip(cells, inputs, samples, strict=True):
        axis.imshow(x, interpolation="none")
        axis.set_title(f"{for_figure(s.label, 16)}\n{_said(s)}", fontsize=8, color=RIGHT if s.label == s.predicted else WRONG)
    told = "; ".join(f"sample {s.number}: {s.label}, said {s.predicted} at {percent(s.probability, 0)}" for s in samples)
    caption = f"{what}: the right class, below it what was said and how surely."
    return picture(figure, caption, f"{what}, drawn: {told}.")


def _said(s: Sample) -> str:
    return for_figure(f"said {for_figure(s.predicted, 10)}, {percent(s.probability, 0)}", 24)
