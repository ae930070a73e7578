"""Encoders: from values without time to a window of T steps."""

import torch
from torch import Tensor

from staa.ops.checks import check_counts, check_floats, check_tensor


def direct(x: Tensor, steps: int) -> Tensor:
    """Direct coding: s[t] = x for every t, so that the first layer sees the values themselves.

    Args:
        x: Values. The steps share their memory: call .contiguous() before writing into the result.
        steps: T, at least 1.

    Shapes:
        x [N, ...] -> [T, N, ...]

    Raises:
        ValueError: If steps is no whole number of at least 1.
    """
    check_tensor(x, "what is coded")
    check_counts(steps=steps)
    return x.expand(steps, *x.shape)


def rate(x: Tensor, steps: int, *, generator: torch.Generator | None = None) -> Tensor:
    """Rate (Poisson) coding: s[t] ~ Bernoulli(x), independent at each step.

    Args:
        x: Chance of a spike, floats in [0, 1].
        steps: T, at least 1.
        generator: Of the random numbers; None: PyTorch's own.

    Shapes:
        x [N, ...] -> spikes [T, N, ...], 0 or 1

    Raises:
        ValueError: If x leaves [0, 1] or steps is no whole number of at least 1.
    """
    _check_unit(x, "rate")
    return torch.bernoulli(direct(x, steps), generator=generator)


def latency(x: Tensor, steps: int) -> Tensor:
    """Latency coding: one spike, at step round((T − 1)(1 − x)): the brighter, the earlier. x = 0 never fires.

    Args:
        x: Brightness, floats in [0, 1].
        steps: T, at least 1.

    Shapes:
        x [N, ...] -> spikes [T, N, ...], 0 or 1

    Raises:
        ValueError: If x leaves [0, 1] or steps is no whole number of at least 1.
    """
    _check_unit(x, "latency")
    check_counts(steps=steps)
    when = ((steps - 1) * (1 - x)).round()
    clock = torch.arange(steps, device=x.device, dtype=x.dtype).view(-1, *[1] * x.ndim)
    return ((clock == when) & (x > 0)).to(x.dtype)


def _check_unit(x: Tensor, name: str) -> None:
    check_floats(x, f"the input of {name} coding")
    if not bool(((x >= 0) & (x <= 1)).all()):
        low, high = x.min().item(), x.max().item()
        raise ValueError(f"{name} coding needs values in [0, 1], got {low:g} to {high:g}")
