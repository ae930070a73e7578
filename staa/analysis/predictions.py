"""What a classifier says of a part of its run's data, sample by sample and step by step, and what that is worth."""

import math
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from staa.counting import counted
from staa.data import Source
from staa.files import check_bytes
from staa.runs.load import Run, Weights, check_classifies
from staa.runs.measure import Split, measuring
from staa.training.evaluate import autocast, call, evaluation_mode
from staa.training.metrics import leading, running_means


@dataclass(frozen=True)
class Predictions:
    """What a network says of n samples after each of T steps.

    After step t its logits are z_t = (l_1 + … + l_t) / t, the mean of those so far, and its probabilities softmax(z_t).

    Args:
        labels: The right class of each sample, int64.
        probabilities: Of each class after all steps, float32.
        by_step: The class that leads after each step, int64; the last row is the prediction.
        margin_by_step: The probability of the class that leads after each step, less that of the second, float32.
        names: Names of the classes; their numbers if they have none.
        notes: What the user should hear of these data.
        split: The part of the data that the samples are from.
        weights: Those of the "last" epoch or the "best" one.
        loss: Mean cross-entropy of the time-mean logits.
        files: The file that each sample was read from; None if they are not read from files one by one.

    Shapes:
        labels [n], probabilities [n, classes], by_step [T, n], margin_by_step [T, n]
    """

    labels: Tensor
    probabilities: Tensor
    by_step: Tensor
    margin_by_step: Tensor
    names: tuple[str, ...]
    notes: tuple[str, ...] = ()
    split: Split = "test"
    weights: Weights = "last"
    loss: float = math.nan
    files: tuple[str, ...] | None = None

    @property
    def predicted(self) -> Tensor:
        """The class that leads after all steps, [n]."""
        return self.by_step[-1]

    @property
    def correct(self) -> Tensor:
        """Whether that is the right one, [n] bool."""
        return self.predicted == self.labels

    @property
    def accuracy(self) -> float:
        """The share of samples whose prediction is right."""
        return float(self.correct.double().mean())


def predictions(
    run: Run,
    *,
    split: Split | None = None,
    weights: Weights | None = None,
    device: str | torch.device | None = None,
    workers: int | None = None,
) -> Predictions:
    """One pass of a run's classifier over a part of its data, in order and in the precision of `staa.runs.evaluate_run`.

    Args:
        run: A run that classifies.
        split: "train", "validation" or "test"; None: the test set of a finished run, else validation.
        weights: "last" epoch or "best" on validation; None: what the test figure was measured with.
        device: Such as "cpu" or "cuda"; None: the GPU if there is one.
        workers: Processes that read, at least 0; None: as many as suit the machine.

    Raises:
        FileNotFoundError: If the run, its weights or its data are missing.
        ValueError: If the run forecasts; if it is broken, its data have changed, or it has no validation samples to measure on;
            if what is predicted would take more memory than `staa.files.max_bytes` allows.
        FloatingPointError: If the network's outputs are not finite.
    """
    check_classifies(run)
    with measuring(run, split=split, weights=weights, device=device, workers=workers) as (model, batches, at):
        made: Predictions | None = None
        first, loss = 0, 0.0
        with evaluation_mode(model), torch.inference_mode(), autocast(at.device, at.precision):
            for x, y in counted(batches.epoch(), "measuring", len(batches)):
                logits = call(model, x)
                made = made or _room(run, at.split, at.weights, at.samples, logits)
                here = slice(first, first := first + len(y))
                means = running_means(logits)
                for kept, part in zip((made.by_step, made.margin_by_step), leading(means), strict=True):
                    kept[:, here] = part.cpu()
                made.probabilities[here] = means[-1].softmax(-1).cpu()
                made.labels[here] = y.cpu()
                loss += float(torch.nn.functional.cross_entropy(means[-1], y, reduction="sum").double())
    if made is None or not math.isfinite(loss):
        raise FloatingPointError(f"the measured loss is {loss}: the network's outputs are not finite, or too large")
    return replace(made, loss=loss / at.samples)


def _room(run: Run, split: Split, weights: Weights, samples: int, logits: Tensor) -> Predictions:
    """Predictions yet to be filled in, for logits of this form."""
    source, (steps, _, classes) = run.data, logits.shape
    assert isinstance(source, Source)
    check_bytes(samples * (4 * classes + 12 * steps + 8), f"the predictions of {samples:,} samples for {classes:,} classes")
    files = getattr(source, split).origin()
    with torch.inference_mode(False):
        numbers, shares = torch.empty(steps + 1, samples, dtype=torch.int64), torch.empty(steps, samples)
        probabilities = torch.empty(samples, classes)
    return Predictions(
        labels=numbers[steps],
        probabilities=probabilities,
        by_step=numbers[:steps],
        margin_by_step=shares,
        names=run.names,
        notes=source.notes,
        split=split,
        weights=weights,
        files=None if files is None else tuple(files),
    )


def confusion(p: Predictions) -> Tensor:
    """How many samples of each class are taken for each class.

    Args:
        p: What was predicted.

    Shapes:
        counts [classes, classes], int64: row the right class, column the predicted one
    """
    classes = len(p.names)
    check_bytes(8 * classes * classes, f"a confusion matrix of {classes:,} classes")
    return torch.bincount(p.labels * classes + p.predicted, minlength=classes * classes).view(classes, classes)


class ByClass(NamedTuple):
    """Figures of each class; NaN where there is nothing to divide by.

    Args:
        accuracy: The share of its samples that are taken for it (recall).
        precision: The share of what is taken for it that is of it.
        support: How many samples it has.

    Shapes:
        accuracy, precision [classes] float64, support [classes] int64
    """

    accuracy: Tensor
    precision: Tensor
    support: Tensor


def by_class(p: Predictions) -> ByClass:
    """Accuracy, precision and support of each class.

    Args:
        p: What was predicted.
    """
    count = len(p.names)
    hits, support, taken = (torch.bincount(x, minlength=count) for x in (p.labels[p.correct], p.labels, p.predicted))
    return ByClass(hits.double() / support, hits.double() / taken, support)


def top(p: Predictions, k: int) -> float:
    """The share of samples whose right class is among the k likeliest. `top(p, 1)` is the accuracy.

    Args:
        p: What was predicted.
        k: From 1 to the number of classes.

    Raises:
        ValueError: If k is out of range.
    """
    if not 1 <= k <= len(p.names):
        raise ValueError(f"`k` must be from 1 to the {len(p.names)} classes, got {k}")
    if k == 1:
        return p.accuracy
    own = p.probabilities.gather(1, p.labels[:, None])
    # Of classes that tie with the right one, those of smaller numbers come first, as they do in argmax.
    before = torch.arange(len(p.names)) < p.labels[:, None]
    rank = (p.probabilities > own).sum(1) + ((p.probabilities == own) & before).sum(1)
    return float((rank < k).double().mean())


class Calibration(NamedTuple):
    """How sure a network is, and how often it is right, in bins of confidence of equal width.

    Args:
        edges: Where bins begin and end.
        count: Samples in each bin.
        confidence: Their mean probability of the predicted class; NaN in an empty bin.
        accuracy: The share of them that is right; NaN in an empty bin.
        ece: Expected calibration error, Σ (count / n) · |accuracy − confidence|.

    Shapes:
        edges [bins + 1], count [bins] int64, confidence and accuracy [bins], float64
    """

    edges: Tensor
    count: Tensor
    confidence: Tensor
    accuracy: Tensor
    ece: float


def calibration(p: Predictions, bins: int = 15) -> Calibration:
    """Reliability of the predictions: bin b holds the samples whose confidence is in (b / bins, (b + 1) / bins].

    Args:
        p: What was predicted.
        bins: How many bins, at least 1.

    Raises:
        ValueError: If there is no bin.

    Source:
        Guo et al., On calibration of modern neural networks, ICML 2017.
    """
    if bins < 1:
        raise ValueError(f"`bins` must be at least 1, got {bins}")
    sure = p.probabilities.amax(1).double()
    edges = torch.linspace(0, 1, bins + 1, dtype=torch.float64)
    which = (torch.bucketize(sure, edges) - 1).clamp(0, bins - 1)
    count = torch.bincount(which, minlength=bins)
    confidence, accuracy = (torch.bincount(which, values.double(), minlength=bins) / count for values in (sure, p.correct))
    gaps = (accuracy - confidence).abs().nan_to_num(0.0)
    return Calibration(edges, count, confidence, accuracy, float((gaps * count).sum() / count.sum()))
