"""Layers that know about time: folding it into the batch, and the place where attention meets a neuron."""

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from staa.ops.fold import Folded, batch_norm, norm_affine


def per_step(f: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """y[t] = f(x[t]) for every t in one call of f on [T·N, ...]. Right for whatever treats samples alike.

    BatchNorm inside f takes its statistics jointly over T, N, H and W. Never put a neuron inside: it would read the
    batch as time.
    """
    if x.ndim < 3:
        raise ValueError(f"expected a tensor [T, N, ...] of at least 3 dimensions, got shape {list(x.shape)}")
    return f(x.flatten(0, 1)).unflatten(0, x.shape[:2])


class PerStep(nn.Module):
    """Run modules at every step: PerStep(nn.Conv2d(...), nn.BatchNorm2d(...)) maps [T, N, C, H, W] to the same form.

    y[t] = f(x[t]); see `per_step`. Raises ValueError if a neuron is among the modules, which would mix up time and batch.
    """

    def __init__(self, *modules: nn.Module):
        super().__init__()
        for module in nn.ModuleList(modules).modules():
            if hasattr(module, "scan"):
                raise ValueError(f"{type(module).__name__} scans over time, so it can't stand inside PerStep")
        self.module = modules[0] if len(modules) == 1 else nn.Sequential(*modules)

    def forward(self, x: Tensor) -> Tensor:
        return per_step(self.module, x)


class Window(nn.Module):
    """Which of its T steps a module sees in x [t, ...], as a slice: all of them in a call, in a stream the next ones.

    steps: T, or None for any number. owner: who is named in an error. window.scan(x, seen) -> (slice, seen) is the explicit
    form for pieces, seen the steps before x. Raises ValueError where a call has other than T steps, or the pieces more.
    """

    def __init__(self, steps: int | None, owner: str):
        super().__init__()
        self.steps, self.owner = steps, owner

    def forward(self, x: Tensor) -> slice:
        steps = x.shape[0]
        if self.steps is not None and steps != self.steps:
            raise ValueError(f"this {self.owner} was built for T = {self.steps} steps, got {steps} (input {list(x.shape)})")
        return slice(0, steps)

    def scan(self, x: Tensor, seen: int | None = None) -> tuple[slice, int]:
        begin = seen or 0
        end = begin + x.shape[0]
        if self.steps is not None and end > self.steps:
            left = "them all" if begin == self.steps else f"{begin} of them, so {x.shape[0]} more are too many"
            raise ValueError(
                f"this {self.owner} was built for T = {self.steps} steps and has seen {left}: begin anew with state=None, or "
                f"build it with steps=None"
            )
        return slice(begin, end), end


class Past(nn.Module):
    """What a step may look back on: x [t, ...] itself in a call; past.scan(x, before) puts the steps before in front of it."""

    def forward(self, x: Tensor) -> Tensor:
        return x

    def scan(self, x: Tensor, before: Tensor | None = None) -> tuple[Tensor, Tensor]:
        x = x if before is None else torch.cat([before, x])
        return x, x


class Site(nn.Module):
    """Where a network fires: attention (or None), then the neuron. [T, N, C, H, W], or such a `Folded` -> the same shape.

    Attention says what it acts on. "current": spikes = neuron(attention(x)), folded into the neuron's charge as
    scale · x + shift where it offers fold(current) or affine(x). "spikes": out = attention(x, neuron(x)).
    """

    def __init__(self, neuron: nn.Module, attention: nn.Module | None = None):
        super().__init__()
        if attention is not None and getattr(attention, "acts_on", None) not in ("current", "spikes"):
            raise ValueError(f'{type(attention).__name__} must say acts_on = "current" or "spikes" to serve as attention')
        self.attention: Any = attention
        self.neuron = neuron
        self.folds = {"scale", "shift"} <= inspect.signature(neuron.forward).parameters.keys()

    def forward(self, current: Tensor | Folded) -> Tensor:
        folded = current if isinstance(current, Folded) else Folded(current)
        if self.attention is None:
            return self._fire(folded)
        if self.attention.acts_on == "spikes":
            current = folded.written_out()
            return self.attention(current, self.neuron(current))
        if hasattr(self.attention, "fold"):
            return self._fire(self.attention.fold(folded))
        current = folded.written_out()
        if hasattr(self.attention, "affine"):
            return self._fire(Folded(current, *self.attention.affine(current)))
        return self.neuron(self.attention(current))

    def _fire(self, current: Folded) -> Tensor:
        return self.neuron(*current[:3]) if self.folds else self.neuron(current.written_out())


def fold_batch_norm(x: Tensor, norm: nn.BatchNorm2d) -> Folded:
    """BatchNorm over T, N, H and W of x [T, N, C, H, W], as scale and shift per channel for the neuron to apply.

        scale = weight / √(variance + eps),    shift = bias − mean · scale

    with the batch's mean and biased variance in training, which also updates the running ones (unbiased variance), as
    nn.BatchNorm2d does. One read of x, and one pass more over its gradient.
    """
    mean_of_frames = None
    if norm.training or norm.running_mean is None or norm.running_var is None:
        x, scale, shift, mean_of_frames, mean, variance = batch_norm(x, norm.weight, norm.bias, norm.eps)
        if norm.training:
            _update_running(norm, mean, variance, x.numel() // x.shape[2])
    else:
        scale, shift = norm_affine(norm.running_mean, norm.running_var, norm.weight, norm.bias, norm.eps)
    return Folded(x, scale, shift, mean_of_frames)


def _update_running(norm: nn.BatchNorm2d, mean: Tensor, variance: Tensor, count: int) -> None:
    if count < 2:
        raise ValueError("BatchNorm needs more than one value per channel in training: give more samples, steps or pixels")
    if norm.running_mean is None or norm.running_var is None:
        return
    batches = norm.num_batches_tracked
    if batches is not None:
        batches.add_(1)
    momentum = norm.momentum if norm.momentum is not None else 1 / float(1 if batches is None else batches)
    norm.running_mean.lerp_(mean.to(norm.running_mean.dtype), momentum)
    norm.running_var.lerp_((variance * (count / (count - 1))).to(norm.running_var.dtype), momentum)
