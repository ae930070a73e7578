"""How many products an operation really has: none with the zeros of a padded border, none with an input or a weight of 0."""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

EXACT = 1 << 24  # up to here float32 holds every whole number


class Products(NamedTuple):
    """The products of one operation."""

    inside: float
    """Those whose two sides are there: the zeros around an image are not."""
    effective: float
    """Of these, those with no side that is 0; a spike that counts twice is two."""


def of_convolution(args: Any, *, spikes: bool) -> Products:
    """Those of aten::convolution(x, weight, bias, stride, padding, dilation, transposed, output_padding, groups).

    The same convolution of ones counts them: of where x is not 0, with a kernel that says how many weights of each place are
    not 0, all output channels of a group together.

    Args:
        args: Those of the operation.
        spikes: x is made of spikes, and each is counted as often as it says.

    Shapes:
        x [N, C, ...], weight [C_out, C / groups, ...], or transposed [C, C_out / groups, ...]
    """
    x, weight, _, *how = args
    transposed, groups = how[3], how[5]

    def count(x: Tensor, there: Tensor) -> float:
        taps = there.sum(1, keepdim=True) if transposed else there.unflatten(0, (groups, -1)).sum(1)
        most = float(taps.sum()) * max(1.0, float(x.max()))
        kind = torch.float32 if most < EXACT else torch.float64
        return total(torch.ops.aten.convolution.default(x.to(kind), taps.to(kind), None, *how))

    if not x.numel():
        return Products(0.0, 0.0)
    everywhere = torch.ones_like(weight, dtype=torch.float32)
    inside = len(x) * count(torch.ones_like(x[:1], dtype=torch.float32), everywhere)
    return Products(inside, count(_sides(x, spikes), (weight != 0).float()))


def of_matrices(a: Tensor, b: Tensor, *, spikes: tuple[bool, bool]) -> Products:
    """Those of a @ b: effective = Σ_k (Σ_m a_mk) (Σ_n b_kn), of where a and b are not 0, or of how many spikes are there.

    Args:
        a: Left side.
        b: Right side.
        spikes: Which of them is made of spikes, each counted as often as it says.

    Shapes:
        a [..., M, K] or [K], b [..., K, N] or [K]
    """
    a, b = a if a.ndim > 1 else a[None], b if b.ndim > 1 else b[:, None]
    left, right = (_sides(x, of).sum(dim, dtype=_widest(x)) for x, of, dim in ((a, spikes[0], -2), (b, spikes[1], -1)))
    return Products(a.numel() * b.shape[-1], total(left * right))


def of_context(x: Tensor, key: Tensor) -> Products:
    """Those of `staa.ops.averages.context`: of the key with each position, and of each position with its weight, never 0.

    Args:
        x: Current.
        key: The key's weights.

    Shapes:
        x [T, N, C, H, W], key [T or 1, N or 1, C]
    """
    return Products(2 * x.numel(), total((x != 0).sum((3, 4)) * (1 + (key != 0).long())))


def rarer(a: Tensor, b: Tensor) -> float:
    """The mean input of a product of spikes with spikes: the rarer ones', for each pair of matrices.

    Each pair belongs to one sample, so that what is in the same batch doesn't matter.

    Args:
        a: Left side.
        b: Right side.

    Shapes:
        a [..., M, K], b [..., K, N]
    """
    means = [x.mean((-2, -1), dtype=_widest(x)) if x.ndim > 2 else x.mean(dtype=_widest(x)) for x in (a, b)]
    return total(torch.minimum(*means)) / max(1, math.prod(a.shape[:-2]))


def total(x: Tensor) -> float:
    """The sum of a tensor's numbers."""
    return float(x.sum(dtype=_widest(x)))


def mean(x: Tensor) -> float:
    """The mean of a tensor's numbers."""
    return float(x.mean(dtype=_widest(x)))


def bytes_of(weight: Tensor) -> int:
    """Bytes of a tensor's own numbers: what is repeated without a copy counts once.

    Args:
        weight: Any tensor.
    """
    return weight.element_size() * math.prod(n for n, stride in zip(weight.shape, weight.stride(), strict=True) if stride)


def _sides(x: Tensor, spikes: bool) -> Tensor:
    return x if spikes else x != 0


def _widest(x: Tensor) -> torch.dtype:
    return torch.float32 if x.device.type == "mps" else torch.float64  # which has no other
