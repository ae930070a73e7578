"""Whether an exported network says what the run's own says: both on the same samples of the run's data."""

import math
from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from staa.counting import counted
from staa.runs.load import Run, Weights
from staa.training.evaluate import evaluation_mode
from staa.training.metrics import running_means

Part = Literal["validation", "test"]
SAMPLES = 128
AT_ONCE = 16
BATCH_BYTES = 2**26
FLIPPED = 0.01
"""Share of predictions that may flip. Sums in another order differ in their last bit, and a membrane at its threshold then
fires or does not: in float32 up to one spike in 10⁵. Such a flip moves the logits of its sample a little, and a prediction only
where two classes are level; another network moves the predictions of many."""
SHIFT = 0.01
"""The mean difference of logits as a share of their standard deviation. It sees what leaves predictions as they are: on
networks of digits-events a right export is at 10⁻⁷, and one whose membranes lose a thousandth a step at 0.04 and more."""


class Proof(NamedTuple):
    """What was found when an exported network was held against the run's own.

    Args:
        split: The part of the data that the samples are from.
        samples: How many.
        steps: Time steps of each.
        largest: The largest difference of two logits.
        mean: The mean difference.
        deviation: The standard deviation of the run's logits, to judge them by.
        flipped: The share of samples whose prediction is another.
        flipped_by_step: The share of the predictions after each step that are others.
        tolerance: What flipped and flipped_by_step may be, and mean / deviation.
    """

    split: str
    samples: int
    steps: int
    largest: float
    mean: float
    deviation: float
    flipped: float
    flipped_by_step: float
    tolerance: float = FLIPPED

    @property
    def holds(self) -> bool:
        """Whether all is within the tolerance."""
        shift = self.mean <= SHIFT * self.deviation or self.largest <= 1e-5
        return shift and self.flipped <= self.tolerance and self.flipped_by_step <= self.tolerance


def prove(run: Run, exported: Callable[[Tensor], Tensor], *, weights: Weights | None = None) -> Proof:
    """Hold an exported network against the run's own, on validation samples, or on test samples if there are none. No label is
    looked at.

    Args:
        run: The run, with its data.
        exported: Logits of each step of a batch.
        weights: The run's.

    Shapes:
        exported: x [T, N, C, H, W] or [N, C, H, W] -> [T, N, classes]

    Raises:
        ValueError: If the data are missing or have changed; if the exported network differs by more than `Proof.tolerance`.
    """
    split = split_of(run)
    model = run.model(weights).cpu()
    found = compare(model, exported, counted(_batches(run, split), "verifying"), split)
    if not found.holds:
        raise ValueError(
            f"the exported network is not the run's: on {found.samples} samples its logits differ by {found.largest:.3g} at "
            f"most and {found.mean:.3g} in the mean (their deviation is {found.deviation:.3g}), and {found.flipped:.2%} of its "
            f"predictions are others ({found.flipped_by_step:.2%} by step; at most {found.tolerance:.0%}). Nothing was written"
        )
    return found


def split_of(run: Run) -> Part:
    """The part of the data that samples come from. Raises ValueError if the data are missing or have changed."""
    try:
        return "test" if run.data.validation is None else "validation"
    except (OSError, ValueError, ImportError) as error:
        raise ValueError(f"the file can't be verified without samples of the run: {error}; or say `verify=False`") from error


def compare(model: nn.Module, exported: Callable[[Tensor], Tensor], inputs: Iterator[Tensor], split: str) -> Proof:
    """What `prove` finds, of any inputs."""
    samples = steps = flipped = by_step = 0
    largest, total, kept = 0.0, 0.0, []
    with evaluation_mode(model), torch.inference_mode():
        for x in inputs:
            wanted, given = model(x).float(), exported(x)
            if wanted.shape != given.shape or not bool(given.isfinite().all()):
                raise ValueError(
                    f"the exported network's logits are {list(given.shape)}, or not finite; the run's {list(wanted.shape)}"
                )
            off = (wanted - given).abs()
            others = running_means(wanted).argmax(-1) != running_means(given).argmax(-1)
            samples, steps = samples + wanted.shape[1], len(wanted)
            largest, total = max(largest, float(off.max())), total + float(off.double().mean()) * wanted.shape[1]
            flipped, by_step = flipped + int(others[-1].sum()), by_step + int(others.sum())
            kept.append(wanted.flatten())
    deviation = float(torch.cat(kept).std(correction=0))
    return Proof(split, samples, steps, largest, total / samples, deviation, flipped / samples, by_step / (samples * steps))


def _batches(run: Run, split: Part) -> Iterator[Tensor]:
    """Samples from all over a part, in batches that are small."""
    have = len(getattr(run.data, split))
    chosen = torch.linspace(0, have - 1, min(SAMPLES, have)).round().long()
    at_once = max(1, min(AT_ONCE, BATCH_BYTES // (4 * math.prod(run.input_shape))))
    for part in chosen.split(at_once):
        x, _ = run.task.take(run.data, split, part, torch.device("cpu"))
        assert isinstance(x, Tensor)
        yield x
