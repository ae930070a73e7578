"""That nothing of a run is infinite or NaN. Each check raises FloatingPointError."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


def check_losses(losses: Mapping[int, float], gradients: Mapping[int, Tensor], *, epoch: int, folder: Path) -> None:
    """By step, all of one epoch. gradients: what `check_gradients` takes; a step before the first bad loss is its cause."""
    for step, loss in losses.items():
        if not math.isfinite(loss):
            check_gradients(gradients, folder=folder, before=step)
            raise FloatingPointError(f"the loss is {loss} at step {step} (epoch {epoch}); {_advice(folder)}")


def check_gradients(finite: Mapping[int, Tensor], *, folder: Path, before: float = math.inf) -> None:
    """finite: by step, whether its gradients are, on the device; those of the steps before a step are looked at."""
    if not finite:
        return
    flags = zip(finite, torch.stack(list(finite.values())).tolist(), strict=True)
    bad = [step for step, good in flags if not good and step < before]
    if bad:
        at = f"step {bad[0]}" if len(bad) == 1 else f"steps {', '.join(map(str, bad))}"
        raise FloatingPointError(f"gradients are not finite at {at}; {_advice(folder)}")


def check_weights(weights: Mapping[str, Any], *, step: int, folder: Path) -> None:
    """The tensors among them, by name, all on one device."""
    tensors = {name: value for name, value in weights.items() if isinstance(value, Tensor)}
    good = torch.stack([value.isfinite().all() for value in tensors.values()]).tolist()
    bad = [name for name, fine in zip(tensors, good, strict=True) if not fine]
    if bad:
        raise FloatingPointError(
            f"a weight is not finite after step {step}; {_advice(folder)} ({len(bad)} tensors, first {bad[0]})"
        )


def _advice(folder: Path) -> str:
    return (
        f"the last good checkpoint is kept in {folder}; try a lower learning rate or gradient clipping in a new run, or let "
        "torch.autograd.detect_anomaly under staa.reference (STAA_REFERENCE=1) name the operation"
    )
