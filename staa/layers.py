"""Layers that know about time: folding it into the batch, and the place where attention meets a neuron."""

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn.modules import module as everywhere

from staa.ops.averages import Folded, batch_norm, norm_affine


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

    per_step = True

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
    form for pieces, seen the steps before x. If its `partial` is set, a call may have the first of the T steps alone. Raises
    ValueError where a call has other than T steps, or the pieces more.
    """

    def __init__(self, steps: int | None, owner: str):
        super().__init__()
        self.steps, self.owner, self.partial = steps, owner, False

    def forward(self, x: Tensor) -> slice:
        steps = x.shape[0]
        if self.steps is not None and steps != self.steps and not (self.partial and steps < self.steps):
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

    Folding can't be seen from outside: see `fold_of` for when a module is called instead. A neuron whose forward takes no
    scale and shift, or that is looked into by a hook, is called with the current as it is.
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


class Passive:
    """A hook that only takes notes of a call: what folds may still fold, and the module with the hook may not be called."""

    def __init__(self, f: Callable[..., None]):
        self.f = f

    def __call__(self, *args: Any) -> None:
        self.f(*args)


class Resumed(partial):
    """What stands for a module's forward while a stream goes on: its scan, from where it was."""


def hooked(module: nn.Module) -> bool:
    """Whether a hook of any kind waits for the module's call, its own or one for all modules; `Passive` ones don't count."""
    return bool(
        (module._forward_hooks and not _passive(module._forward_hooks))
        or (module._forward_pre_hooks and not _passive(module._forward_pre_hooks))
        or module._backward_hooks
        or module._backward_pre_hooks
        or everywhere._global_forward_hooks
        or everywhere._global_forward_pre_hooks
        or everywhere._global_backward_hooks
        or everywhere._global_backward_pre_hooks
    )


def untouched(module: nn.Module) -> bool:
    """Whether calling the module comes to running the forward that its class was written with.

    It does not if there is a hook, a forward or compiled call of its own, or if the forward was patched for the whole class.
    """
    return (
        not hooked(module)
        and module._compiled_call_impl is None
        and "forward" not in module.__dict__
        and _as_written(type(module))
    )


def _as_written(kind: type[nn.Module]) -> bool:
    """Whether its forward, own or inherited, has the name of a function written in that class, and wraps no other."""
    for base in kind.__mro__:
        if "forward" in base.__dict__:
            forward = base.__dict__["forward"]
            name = getattr(forward, "__module__", None), getattr(forward, "__qualname__", None)
            return name == (base.__module__, f"{base.__qualname__}.forward") and not hasattr(forward, "__wrapped__")
    return False


# torch.compile knows no function's name. This is what torch.compiler.assume_constant_result sets, without importing dynamo.
_as_written._dynamo_marked_constant = True  # type: ignore[attr-defined]


def plain(module: nn.Module, kind: type[nn.Module]) -> bool:
    """Whether it is exactly PyTorch's `kind`, untouched, its parameters ordinary tensors: then they may be read without a call.

    It is not if it is a subclass, nor what parametrizations, pruning, weight_norm, quantization or an adapter have made of it.
    """
    return type(module) is kind and untouched(module) and all(type(p) in _ORDINARY for p in module._parameters.values())


_ORDINARY = (nn.Parameter, Tensor, type(None))


def fold_of(module: nn.Module) -> Literal["fold", "affine"] | None:
    """How a module that acts on the current is folded: by its fold or its affine, or not: then it is called.

    It is called where anything hangs on the call (see `untouched`), where it has neither, and where a subclass has a forward
    of its own above an inherited fold or affine, which would be gone round.
    """
    if not untouched(module):
        return None
    for kind in type(module).__mro__:
        if "fold" in kind.__dict__:
            return "fold"
        if "affine" in kind.__dict__:
            return "affine"
        if "forward" in kind.__dict__:
            return None
    return None


def _passive(hooks: Any) -> bool:
    return all(type(hook) is Passive for hook in hooks.values())


def fold_batch_norm(x: Tensor, norm: nn.Module) -> Folded:
    """BatchNorm over T, N, H and W of x [T, N, C, H, W], as scale and shift per channel for the neuron to apply.

        scale = weight / √(variance + eps),    shift = bias − mean · scale

    with the batch's mean and biased variance in training, which also updates the running ones (unbiased variance), as
    nn.BatchNorm2d does. One read of x, and one pass more over its gradient. What is not plainly nn.BatchNorm2d with weight,
    bias and running statistics is called, and its output is what comes back.
    """
    if not plain_batch_norm(norm):
        return Folded(per_step(norm, x))
    norm = cast(nn.BatchNorm2d, norm)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    if not norm.training:
        return Folded(x, *norm_affine(norm.running_mean, norm.running_var, norm.weight, norm.bias, norm.eps))
    x, scale, shift, mean_of_frames, mean, variance = batch_norm(x, norm.weight, norm.bias, norm.eps)
    _update_running(norm, mean, variance, x.numel() // x.shape[2])
    return Folded(x, scale, shift, mean_of_frames)


def plain_batch_norm(norm: nn.Module) -> bool:
    """Whether it is plainly nn.BatchNorm2d, as it is built by default: with weight, bias and running statistics."""
    return (
        plain(norm, nn.BatchNorm2d)
        and norm.weight is not None
        and norm.bias is not None
        and norm.momentum is not None
        and bool(norm.track_running_stats)
        and not any(buffer is None for buffer in norm._buffers.values())
    )


def _update_running(norm: nn.BatchNorm2d, mean: Tensor, variance: Tensor, count: int) -> None:
    if count < 2:
        raise ValueError("BatchNorm needs more than one value per channel in training: give more samples, steps or pixels")
    assert norm.running_mean is not None
    assert norm.running_var is not None
    assert norm.num_batches_tracked is not None
    assert norm.momentum is not None
    norm.num_batches_tracked.add_(1)
    norm.running_mean.lerp_(mean.to(norm.running_mean.dtype), norm.momentum)
    norm.running_var.lerp_((variance * (count / (count - 1))).to(norm.running_var.dtype), norm.momentum)
