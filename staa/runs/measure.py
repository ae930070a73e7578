"""A run's model, measured on a part of the run's data."""

from collections.abc import Iterator, Sized
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import nn

from staa.machine import choose_device, choose_precision, choose_workers
from staa.runs.load import Run, Weights, opened
from staa.training.evaluate import Epochs, evaluate

Split = Literal["train", "validation", "test"]


def evaluate_run(
    run: Run | str | Path,
    *,
    split: Split | None = None,
    weights: Weights | None = None,
    data_root: Path | None = None,
    device: str | None = None,
    workers: int | None = None,
    trust: bool = False,
) -> dict[str, Any]:
    """Figures of a run's model on a part of its data, in the precision that the recipe has on this device.

    Args:
        run: A `staa.Run`, or a run folder, which is opened with data_root and trust.
        split: "train", "validation" or "test". None: the test set of a finished run, else validation, since the test set is
            touched once, at the end.
        weights: "last" epoch or "best" on validation; None: what the test figure was measured with.
        data_root: Where its data are; None: where the run found them.
        device: Such as "cpu" or "cuda"; None: the GPU if there is one.
        workers: Processes that read and augment, at least 0; None: as many as suit the machine.
        trust: Let Python files in the run folder run, if the run has parts of its own.

    Returns:
        The figures by name, with split, weights, samples, protocol, and "notes", what the user should hear of these data.

    Raises:
        FileNotFoundError: If the run, its weights or its data are missing.
        ValueError: If the run is broken, its data have changed, or it has no validation samples to measure on.
    """
    run = opened(run, data_root=data_root, trust=trust)
    with measuring(run, split=split, weights=weights, device=device, workers=workers) as (model, batches, at):
        measure = run.task.measure(run.data, at.device)
        figures = evaluate(model, batches, measure=measure, precision=at.precision)
    return {
        "split": at.split, "weights": at.weights, "samples": at.samples, "protocol": run.recipe.protocol,
        "notes": run.data.notes, **figures,
    }  # fmt: skip


class At(NamedTuple):
    """How a run's model is measured: on which part of its data, of how many samples, with which weights, where, and how."""

    split: Split
    samples: int
    weights: Weights
    device: torch.device
    precision: Literal["float32", "bfloat16"]


@contextmanager
def measuring(
    run: Run,
    *,
    split: Split | None = None,
    weights: Weights | None = None,
    device: str | torch.device | None = None,
    workers: int | None = None,
) -> Iterator[tuple[nn.Module, Epochs, At]]:
    """(the run's model on a device, batches of a part of its data there, how it is measured), as `evaluate_run` takes them.

    Raises what `evaluate_run` does.
    """
    chosen, model = choose_device(None if device is None else str(device)), run.model(weights)
    split = split or ("test" if run.finished else "validation")
    source = run.data
    samples: Sized | None = getattr(source, split)
    if samples is None:
        raise ValueError(f"{run.folder} held out no validation samples (data.validation = 0): split must be train or test")
    at = At(split, len(samples), weights or run.recipe.weights, chosen, choose_precision(run.recipe.precision, chosen))
    with closing(run.task.batches(source, split, chosen, workers=choose_workers(workers, chosen))) as batches:
        yield model.to(chosen), batches, at
