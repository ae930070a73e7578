"""Encoders: from values without time to a window of T steps."""

import torch
from torch import Tensor


def direct(x: Tensor, steps: int) -> Tensor:
    """Direct coding: x[t] = x for every t, so the first layer sees the values themselves. [N, ...] -> [T, N, ...].

    The steps share memory; call .contiguous() before writing into the result.
    """
    _check_steps(steps)
    return x.expand(steps, *x.shape)


def rate(x: Tensor, steps: int, *, generator: torch.Generator | None = None) -> Tensor:
    """Rate (Poisson) coding: s[t] ~ Bernoulli(x), independent at each step. [N, ...] in [0, 1] -> [T, N, ...] in {0, 1}.

    Raises ValueError where x leaves [0, 1].
    """
    _check_unit(x, "rate")
    return torch.bernoulli(direct(x, steps), generator=generator)


def latency(x: Tensor, steps: int) -> Tensor:
    """Latency coding: one spike at step round((T − 1)(1 − x)), the brighter the earlier; x = 0 never fires.

    [N, ...] in [0, 1] -> [T, N, ...] in {0, 1}. Raises ValueError where x leaves [0, 1].
    """
    _check_unit(x, "latency")
    _check_steps(steps)
    when = ((steps - 1) * (1 - x)).round()
    clock = torch.arange(steps, device=x.device, dtype=x.dtype).view(-1, *[1] * x.ndim)
    return ((clock == when) & (x > 0)).to(x.dtype)


def _check_steps(steps: int) -> None:
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}")


def _check_unit(x: Tensor, name: str) -> None:
    if not x.is_floating_point() or not bool(((x >= 0) & (x <= 1)).all()):
        low, high = x.min().item(), x.max().item()
        raise ValueError(f"{name} coding needs float values in [0, 1], got {x.dtype} from {low:g} to {high:g}")
