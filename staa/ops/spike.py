"""The spike and its surrogate gradients.

A surrogate is a smooth step S(u) of the distance to threshold u = v − threshold. The forward pass of a spike is the
Heaviside step; its backward pass is S'(u), taken by autograd. All five surrogates here peak at S'(0) = 1.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

Surrogate = Callable[[Tensor], Tensor]


def rectangle(u: Tensor) -> Tensor:
    """S'(u) = 1 where |u| < 1/2, else 0 (width 1; STBP, Wu et al. 2018). The border itself has gradient 0."""
    return torch.where(u.abs() >= 0.5, (u >= 0).to(u.dtype), u + 0.5)  # clamp would let the gradient through at the border


def triangle(u: Tensor) -> Tensor:
    """S'(u) = max(0, 1 − |u|) (Esser et al. 2016)."""
    u = u.clamp(-1, 1)
    return 0.5 + u - 0.5 * u * u.abs()


def arctan(u: Tensor) -> Tensor:
    """S(u) = 1/2 + arctan(π u) / π, so S'(u) = 1 / (1 + (π u)²) (alpha = 2; PLIF, Fang et al. 2021)."""
    return 0.5 + (math.pi * u).atan() / math.pi


def sigmoid(u: Tensor) -> Tensor:
    """S(u) = σ(4 u), so S'(u) = 4 σ(4u) (1 − σ(4u)) (alpha = 4)."""
    return (4 * u).sigmoid()


def fast_sigmoid(u: Tensor) -> Tensor:
    """S'(u) = 1 / (1 + 25 |u|)² (SuperSpike, Zenke & Ganguli 2018). S itself spans 1/2 ± 1/25."""
    u = u.clamp(-1e30, 1e30)  # so that an infinite membrane has a slope, 0
    return 0.5 + u / (1 + 25 * u.abs())


SURROGATES: dict[str, Surrogate] = {f.__name__: f for f in (rectangle, triangle, arctan, sigmoid, fast_sigmoid)}


def fire(u: Tensor, surrogate: Surrogate, strict: bool = False) -> Tensor:
    """Θ(u), exactly 0 or 1 with Θ(0) = 1, or 0 if strict, whose gradient is S'(u). NaN where u is NaN.

    S(u) − S(u) is exactly zero in floating point, so the sum below keeps the value of the step and the slope of S.
    """
    smooth = surrogate(u)
    return (u > 0 if strict else u >= 0).to(u.dtype) + (smooth - smooth.detach())
