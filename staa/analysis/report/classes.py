"""What a classifier says of samples that it was not trained on: which classes it mixes up, how sure it is, and how soon."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch

from staa.analysis.figures import percent
from staa.analysis.predictions import ByClass, Predictions, by_class, calibration, confusion, predictions, top
from staa.analysis.report.drawing import HELD_OUT, NAMED, QUIET, TRAIN, axes, legend, matrix, picture
from staa.analysis.report.parts import Fold, Part, Picture, Section, Table
from staa.analysis.report.samples import Sample, grid, shown_inputs
from staa.data import Source
from staa.runs.load import Run, Weights

MIXED = 20  # confusions that are listed at most
IN_GRID = 12  # samples of a grid at most
FEW = 5  # classes at each end of a long list that stand in the open
BINS, SOME = 15, 10


def classification(
    run: Run,
    *,
    split: Literal["train", "validation", "test"] | None = None,
    weights: Weights | None = None,
    device: str | None = None,
    workers: int | None = None,
) -> list[Section]:
    """Classes, calibration, steps used and samples of one part of a run's data.

    Args:
        run: A run that classifies.
        split: The part; None: the test set of a finished run, else validation.
        weights: "last" epoch or "best" on validation; None: what the test figure was measured with.
        device: Such as "cpu" or "cuda"; None: the GPU if there is one.
        workers: Processes that read, at least 0; None: as many as suit the machine.

    Raises:
        FileNotFoundError: If the weights or the data are missing.
        ValueError: If they are broken, or the run's data have changed.
        FloatingPointError: If the network's outputs are not finite.
    """
    p = predictions(run, split=split, weights=weights, device=device, workers=workers)
    source = run.data
    assert isinstance(source, Source)
    hindsight = any(not getattr(module, "causal", True) for module in run.model(weights).modules())
    return [classes(p), reliability(p), *([] if len(p.by_step) == 1 else [decisions(p, hindsight)]), _samples(p, source)]


def classes(p: Predictions) -> Section:
    """Accuracy, the classes that are mixed up, and figures of each class.

    Args:
        p: What was predicted.
    """
    counts, each = confusion(p).numpy(), by_class(p)
    figures = f"accuracy {percent(p.accuracy, 2)}" + (
        f", the right class among the five likeliest {percent(top(p, 5), 2)}" if len(p.names) > 5 else ""
    )
    parts: list[Part] = [
        f"On {len(p.labels):,} {p.split} samples, with the {p.weights} weights: {figures}.",
        *(f"Note: {note}" for note in p.notes),
    ]
    if len(p.names) <= NAMED:
        parts.append(_confusion(counts, p.names))
    parts.append(_mixed_up(counts, p.names))
    order = _by_accuracy(each)
    table = "Accuracy of each class, the worst first"
    if len(order) > NAMED:
        ends = [*order[: 2 * FEW], *order[-FEW:]]
        parts.append(Table(CLASS_HEADER, _class_rows(each, p.names, ends), f"The {2 * FEW} worst classes and the {FEW} best"))
        parts.append(Fold(f"All {len(order)} classes", [Table(CLASS_HEADER, _class_rows(each, p.names, order), table)]))
    else:
        parts.append(Table(CLASS_HEADER, _class_rows(each, p.names, order), table))
    return Section("Classes", parts)


CLASS_HEADER = ("class", "accuracy (recall)", "precision", "samples")


def _by_accuracy(each: ByClass) -> list[int]:
    """Classes that have samples, the worst first, then the others."""
    return [int(k) for k in each.accuracy.nan_to_num(2.0).argsort(stable=True)]


def _class_rows(each: ByClass, names: Sequence[str], which: Sequence[int]) -> list[list[str]]:
    return [
        [names[k], percent(float(each.accuracy[k])), percent(float(each.precision[k])), f"{int(each.support[k]):,}"]
        for k in which
    ]


def _confusion(counts: np.ndarray, names: Sequence[str]) -> Picture:
    rows = counts.sum(1, keepdims=True)
    shares = 100 * counts / np.maximum(rows, 1)
    figure = matrix(shares, names, labels=("right class", "predicted class"), top=100)
    worst = _pairs(counts)[:1]
    alt = f"Confusion matrix of {len(names)} classes; {np.trace(counts):,} of {counts.sum():,} samples lie on the diagonal"
    alt += f". Most often {names[worst[0][0]]} is taken for {names[worst[0][1]]}, {worst[0][2]} times." if worst else "."
    caption = "Confusion matrix in percent of each right class: a row is a right class, a column what was predicted."
    return picture(figure, caption, alt)


def _pairs(counts: np.ndarray) -> list[tuple[int, int, int]]:
    """(right class, predicted class, how often) of all that are mixed up, the most often first."""
    off = counts - np.diag(np.diag(counts))
    order = np.argsort(-off, axis=None, kind="stable")[: int((off > 0).sum())]
    rows, columns = np.unravel_index(order, off.shape)
    return [(int(a), int(b), int(off[a, b])) for a, b in zip(rows, columns, strict=True)]


def _mixed_up(counts: np.ndarray, names: Sequence[str]) -> Table | str:
    pairs = _pairs(counts)
    if not pairs:
        return "No class is taken for another one."
    total = counts.sum(1)
    rows = [[names[a], names[b], f"{n:,}", percent(n / total[a])] for a, b, n in pairs[:MIXED]]
    what = "The most common confusions" if len(pairs) > MIXED else "All confusions"
    return Table(("right class", "taken for", "times", "of the class"), rows, what)


def reliability(p: Predictions) -> Section:
    """Whether the network is right as often as its probabilities say.

    Args:
        p: What was predicted.
    """
    found = calibration(p, BINS)
    middle, width = np.asarray(found.edges[:-1] + found.edges[1:]) / 2, 1 / BINS
    accuracy, sure = np.asarray(found.accuracy), np.asarray(found.confidence)
    figure, axis = axes()
    sure_of = [TRAIN if n >= SOME else "#b6cbe3" for n in found.count.tolist()]
    axis.bar(middle, np.nan_to_num(accuracy), width * 0.92, color=sure_of)
    axis.bar([0], [0], color=TRAIN, label="share that is right")
    axis.plot(sure, accuracy, ".", color=HELD_OUT, label="at their mean confidence")
    axis.plot([0, 1], [0, 1], "--", color=QUIET, linewidth=1, label="as sure as right")
    axis.set(xlabel="probability of the predicted class", ylabel="share that is right", xlim=(0, 1), ylim=(0, 1.02))
    legend(figure, columns=3)
    counted, spread = axes()
    spread.bar(middle, found.count.numpy(), width * 0.92, color=QUIET)
    spread.set(xlabel="probability of the predicted class", ylabel="samples", xlim=(0, 1))
    mean = float(p.probabilities.amax(1).double().mean())
    way = "more sure than it is right" if mean > p.accuracy else "less sure than it is right"
    text = (
        f"Expected calibration error (ECE) {percent(found.ece, 2)} in {BINS} bins: the mean distance between how sure the "
        f"network is and how often it is right. Its mean confidence is {percent(mean)}, its accuracy {percent(p.accuracy)}: it "
        f"is {way}."
    )
    most = int(found.count.argmax())
    return Section(
        "Calibration",
        [
            text,
            picture(
                figure,
                f"Reliability diagram: of the samples in each bin of confidence, the share that is right. Bars below the "
                f"dashed line: too sure. Pale: of fewer than {SOME} samples, which say little.",
                f"Reliability diagram, ECE {percent(found.ece, 2)}; the fullest bin, around {middle[most]:.2f}, is right "
                f"{percent(accuracy[most])} of the time.",
            ),
            picture(
                counted,
                "How many samples are in each bin of confidence.",
                f"Samples by confidence: {int(found.count[most]):,} of {len(p.labels):,} around {middle[most]:.2f}.",
            ),
        ],
    )


def decisions(p: Predictions, hindsight: bool) -> Section:
    """How accuracy grows with the steps used, and what an early exit would save.

    Args:
        p: What was predicted, of T > 1 steps.
        hindsight: A part of the network sees the whole window.
    """
    steps = np.arange(1, len(p.by_step) + 1)
    right = (p.by_step == p.labels).double().mean(1).numpy()
    margins = np.array([0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99])
    used, reached = zip(*(_early(p, float(margin)) for margin in margins), strict=True)
    figure, axis = axes()
    axis.plot(steps, 100 * right, color=TRAIN, marker="o", markersize=4, label="all samples after so many steps")
    axis.plot(
        used,
        [100 * r for r in reached],
        color=HELD_OUT,
        marker="s",
        markersize=4,
        linestyle="--",
        label="each until its margin",
    )
    axis.set(xlabel="steps used (mean)", ylabel="accuracy [%]")
    axis.xaxis.get_major_locator().set_params(integer=True)
    legend(figure)
    settled = _settled(p)
    told = picture(
        figure,
        "Accuracy after so many steps, and with an early exit: a sample stops once its leading class is ahead by a margin.",
        f"Accuracy by steps used: {percent(right[0])} after one step, {percent(right[-1])} after all {steps[-1]}; with a "
        f"margin of 0.5 {percent(reached[3])} after {used[3]:.2f} steps in the mean.",
    )
    rows = [[f"{m:g}", f"{u:.2f}", percent(r, 2)] for m, u, r in zip(margins, used, reached, strict=True)]
    parts: list[Part] = [
        f"The answer after t steps is of the mean of the first t steps' logits. Half of the samples keep their final answer "
        f"from step {int(np.median(settled))} on, nine tenths from step {int(np.quantile(settled, 0.9, method='higher'))} on.",
        told,
        Fold("Early exit in numbers", [Table(("margin", "mean steps", "accuracy"), rows, "Stop when ahead by this margin")]),
    ]
    if hindsight:
        parts.insert(
            0,
            "This network's attention sees the whole window, so these figures are hindsight: its first steps already know of "
            "the last ones. They tell when the answer settles, not what the network would say had it seen the first steps "
            "alone. A causal network, such as one with attention causal=True, can stop early.",
        )
    return Section("Steps used", parts)


def _early(p: Predictions, margin: float) -> tuple[float, float]:
    """(mean steps, accuracy) if each sample stops at the first step at which it is ahead by the margin, or at the last."""
    ahead = p.margin_by_step >= margin
    ahead[-1] = True
    at = ahead.int().argmax(0)
    said = p.by_step.gather(0, at[None])[0]
    return float(at.double().mean()) + 1, float((said == p.labels).double().mean())


def _settled(p: Predictions) -> np.ndarray:
    """The step, from 1, from which each sample keeps its final answer: [n]."""
    differs = p.by_step != p.by_step[-1]
    last = torch.arange(1, len(differs) + 1)[:, None] * differs
    return (last.amax(0) + 1).numpy()


def _samples(p: Predictions, source: Source) -> Section:
    """The most confident mistakes, and some wrong and right samples, drawn as the network is given them."""
    sure = p.probabilities.amax(1)
    wrong, right = ((~p.correct).nonzero().flatten(), p.correct.nonzero().flatten())
    confident = wrong[sure[wrong].argsort(descending=True, stable=True)]
    some = {
        "The most confident mistakes": confident[:IN_GRID],
        "Wrong answers, spread over all of them": _spread(wrong) if len(wrong) > IN_GRID else wrong[:0],
        "Right answers, spread over all of them": _spread(right),
    }
    part = getattr(source, p.split)
    parts: list[Part] = []
    for what, chosen in some.items():
        if len(chosen):
            listed = [_sample(p, k) for k in chosen.tolist()]
            parts.append(grid(shown_inputs(part, source, chosen), listed, what))
    if not len(wrong):
        parts.insert(0, "Every sample is right: there is no mistake to show.")
    else:
        rows = [_row(p, k) for k in confident[:IN_GRID].tolist()]
        header = ("sample", "right class", "predicted", "probability", *(() if p.files is None else ("file",)))
        parts.append(Fold("The most confident mistakes in numbers", [Table(header, rows, f"Samples of {p.split}, from 0")]))
    return Section("Samples", parts)


def _spread(chosen: torch.Tensor) -> torch.Tensor:
    return chosen[torch.linspace(0, len(chosen) - 1, min(IN_GRID, len(chosen))).round().long()] if len(chosen) else chosen


def _sample(p: Predictions, k: int) -> Sample:
    return Sample(k, p.names[int(p.labels[k])], p.names[int(p.predicted[k])], float(p.probabilities[k].max()))


def _row(p: Predictions, k: int) -> list[str]:
    s = _sample(p, k)
    return [str(k), s.label, s.predicted, percent(s.probability), *(() if p.files is None else (p.files[k],))]
