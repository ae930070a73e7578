"""Measuring a trained model."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import torch
from torch import Tensor, nn

from staa.metrics import classification_figures, classification_sums


class Epochs(Protocol):
    """Batches of a data set: how many an epoch has, and (input, labels) from any of them on."""

    def __len__(self) -> int: ...

    def epoch(self, epoch: int = 0, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]: ...


def evaluate(model: nn.Module, batches: Epochs, *, precision: str = "float32") -> dict[str, float]:
    """Accuracy and mean cross-entropy of the time-mean logits over one pass, in evaluation mode.

    precision: "float32" (the model's own dtype) or "bfloat16" autocast. Leaves the model in the mode it was in.
    Raises FloatingPointError where the loss is not finite.
    """
    device = next(model.parameters()).device
    sums = torch.zeros(3, dtype=torch.float64, device=device)
    with evaluation_mode(model), torch.inference_mode(), autocast(device, precision):
        for x, y in batches.epoch():
            sums += classification_sums(model(x), y)
    figures = classification_figures(sums)
    if not math.isfinite(figures["loss"]):
        raise FloatingPointError(f"the measured loss is {figures['loss']}: the network's outputs are not finite, or too large")
    return figures


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """model.eval() for a block, then back to the mode it was in."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """bfloat16 autocast, or none."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")
