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
    """A step S(u) with the slope of a rectangle of width 1: S'(u) = 1 where |u| < 1/2, else 0, at the border too.

    Args:
        u: Distance to the threshold, v − threshold.

    Shapes:
        u [...] -> S(u) of the same shape

    Source:
        STBP, Wu et al. 2018.
    """
    return torch.where(u.abs() >= 0.5, (u >= 0).to(u.dtype), u + 0.5)  # clamp would let the gradient through at the border


def triangle(u: Tensor) -> Tensor:
    """A step S(u) with the slope of a triangle: S'(u) = max(0, 1 − |u|).

    Args:
        u: Distance to the threshold, v − threshold.

    Shapes:
        u [...] -> S(u) of the same shape

    Source:
        Esser et al. 2016.
    """
    u = u.clamp(-1, 1)
    return 0.5 + u - 0.5 * u * u.abs()


def arctan(u: Tensor) -> Tensor:
    """A step S(u) = 1/2 + arctan(π u) / π, with the slope S'(u) = 1 / (1 + (π u)²).

    Args:
        u: Distance to the threshold, v − threshold.

    Shapes:
        u [...] -> S(u) of the same shape

    Source:
        PLIF, Fang et al. 2021, with alpha = 2.
    """
    return 0.5 + (math.pi * u).atan() / math.pi


def sigmoid(u: Tensor) -> Tensor:
    """A step S(u) = σ(4 u), with the slope S'(u) = 4 σ(4 u) (1 − σ(4 u)).

    Args:
        u: Distance to the threshold, v − threshold.

    Shapes:
        u [...] -> S(u) of the same shape

    """
    return (4 * u).sigmoid()


def fast_sigmoid(u: Tensor) -> Tensor:
    """A step S(u) = 1/2 + u / (1 + 25 |u|), with the slope S'(u) = 1 / (1 + 25 |u|)². S itself spans 1/2 ± 1/25.

    Args:
        u: Distance to the threshold, v − threshold.

    Shapes:
        u [...] -> S(u) of the same shape

    Source:
        SuperSpike, Zenke & Ganguli 2018.
    """
    u = u.clamp(-1e30, 1e30)  # so that an infinite membrane has a slope, 0
    return 0.5 + u / (1 + 25 * u.abs())


SURROGATES: dict[str, Surrogate] = {f.__name__: f for f in (rectangle, triangle, arctan, sigmoid, fast_sigmoid)}


def fire(u: Tensor, surrogate: Surrogate, strict: bool = False) -> Tensor:
    """The spike: s = 1 if u ≥ 0, else 0, with the surrogate's slope S'(u) as its gradient. NaN if u is NaN.

    Args:
        u: Distance to the threshold, v − threshold.
        surrogate: Smooth step S, such as `staa.ops.arctan`.
        strict: s = 1 only if u > 0.

    Shapes:
        u [...] -> s of the same shape and dtype
    """
    smooth = surrogate(u)  # smooth − smooth is exactly 0: the sum has the value of the step and the slope of S
    return (u > 0 if strict else u >= 0).to(u.dtype) + (smooth - smooth.detach())
