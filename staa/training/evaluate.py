"""Measuring a trained model."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from staa.counting import counted
from staa.parallel import ALONE, Group
from staa.training.metrics import classification_figures, classification_sums

Inputs = Tensor | tuple[Tensor, ...]
"""What a model is called with: images or frames, or a forecaster's series and time features."""


class Epochs(Protocol):
    """Batches of a data set: how many an epoch has, and (inputs, targets) from any of them on."""

    def __len__(self) -> int: ...

    def epoch(self, epoch: int = 0, start: int = 0) -> Iterator[tuple[Any, Tensor]]: ...


class Loader(Epochs, Protocol):
    """Batches of a data set; `close` ends the processes that make them."""

    def close(self) -> None: ...


class Measure(NamedTuple):
    """What outputs are worth: sums(outputs, targets), a tensor that adds up over batches; figures(sums), numbers by name, with
    "loss" among them; score(figures), higher is better, by which the best epoch is chosen; details(sums), what else a result
    tells."""

    sums: Callable[[Tensor, Tensor], Tensor]
    figures: Callable[[Tensor], dict[str, float]]
    score: Callable[[dict[str, float]], float]
    details: Callable[[Tensor], dict[str, Any]] = lambda sums: {}


CLASSIFICATION = Measure(classification_sums, classification_figures, lambda figures: figures["accuracy"])


def evaluate(
    model: nn.Module,
    batches: Epochs,
    *,
    measure: Measure = CLASSIFICATION,
    precision: str = "float32",
    group: Group = ALONE,
) -> dict[str, float]:
    """The measure's figures over one pass, in evaluation mode; by default accuracy and mean cross-entropy of the time-mean
    logits.

    precision: "float32" (the model's own dtype) or "bfloat16" autocast. group: the processes that take these batches in turn.
    Leaves the model in the mode it was in.
    Raises FloatingPointError if the loss is not finite, ValueError if there are no samples.
    """
    return evaluate_in_detail(model, batches, measure=measure, precision=precision, group=group)[0]


def evaluate_in_detail(
    model: nn.Module, batches: Epochs, *, measure: Measure, precision: str = "float32", group: Group = ALONE
) -> tuple[dict[str, float], dict[str, Any]]:
    """(the measure's figures over one pass, its details), in evaluation mode. Raises what `evaluate` does."""
    total: Tensor | None = None
    device = device_of(model)
    with evaluation_mode(model), torch.inference_mode(), autocast(device, precision):
        for x, y in counted(batches.epoch(), "measuring", -(-len(batches) // group.world)):
            sums = measure.sums(call(model, x), y)
            total = sums if total is None else total + sums
    if not group.alone:  # one of them may have no batch, but it is never the first
        shape = group.as_first(lambda: None if total is None else total.shape)
        nothing = None if shape is None else torch.zeros(shape, dtype=torch.float64, device=device)
        total = nothing if nothing is None else group.total(nothing if total is None else total)
    if total is None:
        raise ValueError("there are no samples to measure on")
    figures = measure.figures(total)
    if not math.isfinite(figures["loss"]):
        raise FloatingPointError(f"the measured loss is {figures['loss']}: the network's outputs are not finite, or too large")
    return figures, measure.details(total)


def call(model: nn.Module, inputs: Inputs) -> Tensor:
    return model(*inputs) if isinstance(inputs, tuple) else model(inputs)


def device_of(model: nn.Module) -> torch.device:
    """Where a model's weights are, or its buffers if it has none; the CPU if it has neither."""
    return next((value.device for value in model.state_dict().values() if isinstance(value, Tensor)), torch.device("cpu"))


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """model.eval() for a block, then each module back in its own, as a frozen BatchNorm's in a model in training."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        model.train(modes[model])
        for module, training in modes.items():
            module.training = training


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """bfloat16 autocast, or none."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")
