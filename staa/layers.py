"""Layers that know about time: folding it into the batch, and the place where attention meets a neuron."""

from collections.abc import Callable

from torch import Tensor, nn


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


class Site(nn.Module):
    """Where a network fires: attention (or None), then the neuron. [T, N, C, H, W] -> the same shape.

    Attention says what it acts on. "current": spikes = neuron(attention(x)), folded into the neuron's charge as
    scale · x + shift where it offers affine(x). "spikes": out = attention(x, neuron(x)).
    """

    def __init__(self, neuron: nn.Module, attention: nn.Module | None = None):
        super().__init__()
        if attention is not None and getattr(attention, "acts_on", None) not in ("current", "spikes"):
            raise ValueError(f'{type(attention).__name__} must say acts_on = "current" or "spikes" to serve as attention')
        self.attention, self.neuron = attention, neuron

    def forward(self, current: Tensor) -> Tensor:
        if self.attention is None:
            return self.neuron(current)
        if self.attention.acts_on == "spikes":
            return self.attention(current, self.neuron(current))
        affine = getattr(self.attention, "affine", None)
        if affine is not None:
            return self.neuron(current, *affine(current))
        return self.neuron(self.attention(current))
