"""What the neurons and the attention of a run do with samples of its data."""

from typing import Any

import torch

from staa.analysis.report.attention import attention
from staa.analysis.report.parts import Section
from staa.analysis.report.spiking import spiking
from staa.analysis.run_energy import part_of
from staa.build.task import Part
from staa.data import Source
from staa.data.batches import spread
from staa.recipes.code import UntrustedCodeError
from staa.runs.load import Run, Weights
from staa.training.evaluate import Inputs

SAMPLES = 32


def activity(run: Run, *, split: Part | None = None, weights: Weights | None = None) -> list[Section]:
    """Spiking and attention, of samples spread over a part of the data; without data, what the weights alone tell.

    Args:
        run: A run with weights.
        split: The part; None: the test set of a finished run, else validation, or training if none was held out.
        weights: "last" epoch or "best" on validation; None: what the test figure was measured with.

    Raises:
        FileNotFoundError: If the weights are missing.
        ValueError: If the weights are broken.
    """
    run.model(weights)
    try:
        inputs, labels = _samples(run, split)
    except UntrustedCodeError:
        raise
    except (OSError, ValueError):  # gone, or changed: the sections say what is missing
        inputs, labels = None, None
    return [spiking(run, inputs, weights=weights), attention(run, inputs, labels, weights=weights)]


def _samples(run: Run, split: Part | None) -> tuple[Inputs, list[str] | None]:
    source: Any = run.data
    part = split or part_of(run)
    if getattr(source, part) is None:
        raise ValueError(f"the run held out no {part} samples (data.validation = 0): split must be train or test")
    chosen = spread(SAMPLES, getattr(source, part))
    inputs, _ = run.task.take(source, part, chosen, torch.device("cpu"))
    if not isinstance(source, Source):
        return inputs, None
    return inputs, [run.names[k] for k in getattr(source, part).y[chosen].tolist()]
