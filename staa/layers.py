"""Layers that know about time: folding it into the batch, and the place where attention meets a neuron."""

import inspect
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from staa.folding import Passive as Passive
from staa.folding import Resumed, fold_of, hooked, plain
from staa.norms import SyncNorm
from staa.ops.averages import Folded, batch_norm, norm_affine
from staa.ops.checks import TIME_FIRST, check_floats, check_tensor
from staa.ops.joint import joint_batch_norm
from staa.ops.notes import note as note


def per_step(f: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """y[t] = f(x[t]) for every t, in one call of f on [T·N, ...]: right for whatever treats samples alike.

    BatchNorm in f takes its statistics jointly over T, N, H and W. A neuron in f would read the batch as time.

    Args:
        f: Function or module of a batch.
        x: Input, time first.

    Shapes:
        x [T, N, ...] -> y [T, N, ...]; f: [T·N, ...] -> [T·N, ...]

    Raises:
        ValueError: If x has fewer than 3 dimensions.
        TypeError: If x is no tensor.
    """
    check_tensor(x, "the input")
    if x.ndim < 3:
        raise ValueError(f"the input must be [T, N, ...], at least 3 dimensions, got shape {list(x.shape)}")
    return f(x.flatten(0, 1)).unflatten(0, x.shape[:2])


class PerStep(nn.Module):
    """Modules run at every step, y[t] = f(x[t]), in one call on the batch [T·N, ...].

    PerStep(nn.Conv2d(2, 8, 3), nn.BatchNorm2d(8)) takes x [T, N, 2, H, W]. BatchNorm is joint over T, N, H and W.

    Args:
        *modules: Run one after the other.

    Shapes:
        x [T, N, ...] -> y [T, N, ...]

    Raises:
        ValueError: If a neuron is among the modules, which would take the batch for time; if x has fewer than 3 dimensions, or
            others than time, batch and what a convolution in the first place takes.
    """

    per_step = True

    def __init__(self, *modules: nn.Module):
        super().__init__()
        for module in nn.ModuleList(modules).modules():
            if hasattr(module, "scan"):
                raise ValueError(f"{type(module).__name__} scans over time, so it can't stand inside PerStep")
        self.module = modules[0] if len(modules) == 1 else nn.Sequential(*modules)
        first = modules[0] if modules else None
        self.dims = 3 + len(first.kernel_size) if isinstance(first, _ConvNd) else None

    def forward(self, x: Tensor) -> Tensor:
        check_tensor(x, "the input")
        if x.ndim >= 3 and self.dims not in (None, x.ndim):  # a convolution would take a batch for the channels of one sample
            raise ValueError(
                f"the input must have {self.dims} dimensions, [T, N, C, ...], got shape {list(x.shape)}: {TIME_FIRST}"
            )
        return per_step(self.module, x)


class Window(nn.Module):
    """Which of its T steps a module sees, as a slice: all of them in a call; in a stream the next ones.

    If `partial` is set, a call may have the first of the T steps alone.

    Args:
        steps: T; None: any number.
        owner: Name of the module, for errors.

    Shapes:
        x [t, ...] -> slice(0, t)

    Raises:
        ValueError: If a call has other than T steps.
    """

    def __init__(self, steps: int | None, owner: str):
        super().__init__()
        self.steps, self.owner, self.partial = steps, owner, False

    def forward(self, x: Tensor) -> slice:
        given = x.shape[0]
        if self.steps is not None and given != self.steps and not (self.partial and given < self.steps):
            raise ValueError(f"this {self.owner} was built for T = {self.steps} steps, got {given} (input {list(x.shape)})")
        return slice(0, given)

    def scan(self, x: Tensor, seen: int | None = None) -> tuple[slice, int]:
        """The steps of a piece of the window, and how many have been seen with it.

        Args:
            x: The piece.
            seen: Steps seen before it; None: 0.

        Shapes:
            x [t, ...] -> (slice(seen, seen + t), seen + t)

        Raises:
            ValueError: If that is more than T.
        """
        begin = seen or 0
        end = begin + x.shape[0]
        if self.steps is not None and end > self.steps:
            left = "them all" if begin == self.steps else f"{begin} of them, so {x.shape[0]} more are too many"
            raise ValueError(
                f"this {self.owner} was built for T = {self.steps} steps and has seen {left}: start again with state=None, or "
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
    """Where a network fires: attention, if there is any, then the neuron.

    Attention says what it acts on. acts_on = "current": spikes = neuron(attention(x)), applied while the neuron charges, as
    scale · x + shift, if it has fold(current) or affine(x). acts_on = "spikes": out = attention(x, neuron(x)).

    Folding can't be seen from outside: a module with a hook or a forward of its own is called instead, and so is a neuron whose
    forward takes no scale and shift.

    Args:
        neuron: Spiking neuron, such as `staa.neurons.LIF`.
        attention: Module that says acts_on, such as `staa.attention.STAA`; None: none.

    Shapes:
        current [T, N, C, H, W], or a `staa.ops.averages.Folded` of one -> spikes [T, N, C, H, W]

    Raises:
        ValueError: If the attention does not say what it acts on.
    """

    per_step = True

    def __init__(self, neuron: nn.Module, attention: nn.Module | None = None):
        super().__init__()
        self.acts_on = getattr(attention, "acts_on", None)
        if attention is not None and self.acts_on not in ("current", "spikes"):
            raise ValueError(f'{type(attention).__name__} must say acts_on = "current" or "spikes" to serve as attention')
        self.attention: Any = attention
        self.neuron = neuron
        folds = {"scale", "shift"} <= inspect.signature(neuron.forward).parameters.keys()
        self.folding = type(neuron) if folds else None  # another type that takes the neuron's place is called plainly

    def forward(self, current: Tensor | Folded) -> Tensor:
        if not isinstance(current, Folded):
            check_tensor(current, "the current")
        folded = current if isinstance(current, Folded) else Folded(current)
        attention = self.attention
        if attention is None:
            return self._spikes(folded)
        if getattr(attention, "acts_on", self.acts_on) == "spikes":
            current = folded.written_out()
            return attention(current, self.neuron(current))
        how = fold_of(attention)
        if how == "fold":
            return self._spikes(attention.fold(folded))
        current = folded.written_out()
        return self._spikes(Folded(current, *attention.affine(current)) if how == "affine" else Folded(attention(current)))

    def _spikes(self, current: Folded) -> Tensor:
        neuron = self.neuron
        forward = neuron.__dict__.get("forward")  # a stream's, or somebody else's
        folds = type(neuron) is self.folding and not hooked(neuron) and (forward is None or type(forward) is Resumed)
        return neuron(*current[:3]) if folds else neuron(current.written_out())


def fold_batch_norm(x: Tensor, norm: nn.Module) -> Folded:
    """BatchNorm over T, N, H and W as a scale and shift of each channel, which the neuron applies:

        scale = weight / √(variance + eps),    shift = bias − mean · scale

    In training, mean and biased variance are the batch's, and the running ones are updated as nn.BatchNorm2d does, with the
    unbiased variance. x is read once, and its gradient written in one more pass. Those of a `staa.norms.SyncNorm` are the
    batch's of all processes.

    Args:
        x: Current.
        norm: Plainly nn.BatchNorm2d with weight, bias and running statistics; anything else is called.

    Shapes:
        x [T, N, C, H, W] -> `staa.ops.averages.Folded` of x, with scale and shift [1, 1, C, 1, 1]

    Raises:
        ValueError: If x has another rank or number of channels, or in training one value of each channel.
    """
    if not plain_batch_norm(norm):
        return Folded(per_step(norm, x))
    norm = cast(nn.BatchNorm2d, norm)
    check_floats(x, "the input")
    if x.ndim != 5 or x.shape[2] != norm.num_features:
        raise ValueError(f"the input must be [T, N, {norm.num_features}, H, W], as its BatchNorm is, got shape {list(x.shape)}")
    if x.device != norm.weight.device:
        raise ValueError(f"the input is on {x.device}, its BatchNorm on {norm.weight.device}: put both on the same device")
    assert norm.running_mean is not None
    assert norm.running_var is not None
    if not norm.training:
        return Folded(x, *norm_affine(norm.running_mean, norm.running_var, norm.weight, norm.bias, norm.eps))
    if isinstance(norm, SyncNorm):
        *found, mean, variance, total = joint_batch_norm(x, norm.weight, norm.bias, norm.eps, norm.group)
        norm.update(mean, variance, total)
        return Folded(*found)
    count = x.numel() // x.shape[2]
    if count < 2:
        raise ValueError("BatchNorm needs more than one value per channel in training: give more samples, steps or pixels")
    x, scale, shift, mean_of_frames, mean, variance = batch_norm(x, norm.weight, norm.bias, norm.eps)
    _update_running(norm, mean, variance, count)
    return Folded(x, scale, shift, mean_of_frames)


def plain_batch_norm(norm: nn.Module) -> bool:
    """Whether it is plainly nn.BatchNorm2d, be it synchronised, as it is built by default: with weight, bias and running
    statistics."""
    return (
        (plain(norm, nn.BatchNorm2d) or plain(norm, SyncNorm))
        and norm.weight is not None
        and norm.bias is not None
        and norm.momentum is not None
        and bool(norm.track_running_stats)
        and not any(buffer is None for buffer in norm._buffers.values())
    )


def _update_running(norm: nn.BatchNorm2d, mean: Tensor, variance: Tensor, count: int) -> None:
    assert norm.running_mean is not None
    assert norm.running_var is not None
    assert norm.num_batches_tracked is not None
    assert norm.momentum is not None
    norm.num_batches_tracked.add_(1)
    norm.running_mean.lerp_(mean.to(norm.running_mean.dtype), norm.momentum)
    norm.running_var.lerp_((variance * (count / (count - 1))).to(norm.running_var.dtype), norm.momentum)
