"""Statistics of BatchNorm over the batch of all processes that train together, forward and backward."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from staa.ops.averages import norm_affine
from staa.ops.switch import once, reference_chosen, refuse_dual, refuse_torch_func
from staa.parallel import Group


def joint(mean: Tensor, variance: Tensor, count: int, group: Group) -> tuple[Tensor, Tensor, Tensor]:
    """(mean, biased variance, count) of all processes' values, from those of each:

        n = Σ nᵢ,    m = Σ nᵢ mᵢ / n,    v = Σ nᵢ (vᵢ + (mᵢ − m)²) / n                 (Chan et al., 1979)

    mean, variance: [C]. Taken in float64; without a gradient.
    """
    own = torch.cat([mean.double(), variance.double(), mean.new_full((1,), count, dtype=torch.float64)])
    each = group.each(own)
    means, variances, counts = each.split([len(mean), len(mean), 1], 1)
    total = counts.sum()
    m = (counts * means).sum(0) / total
    v = (counts * (variances + (means - m).square())).sum(0) / total
    return m.to(mean.dtype), v.to(mean.dtype), total


def moments(x: Tensor, dims: list[int], group: Group) -> tuple[Tensor, Tensor, Tensor]:
    """(mean, biased variance, count) of all processes' x over all dimensions but one; mean and variance have a gradient."""
    return _Moments.apply(x, dims, group)


class _Moments(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, dims: list[int], group: Group) -> tuple[Tensor, Tensor, Tensor]:
        variance, mean = torch.var_mean(x, dims, correction=0)
        mean, variance, total = joint(mean, variance, x.numel() // max(1, mean.numel()), group)
        ctx.save_for_backward(x, mean, total)
        ctx.dims, ctx.group = dims, group
        ctx.mark_non_differentiable(total)
        return mean, variance, total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, mean_: Tensor, variance_: Tensor, _: Tensor) -> tuple[Tensor, None, None]:
        x, mean, total = ctx.saved_tensors
        shape = [1 if dim in ctx.dims else length for dim, length in enumerate(x.shape)]
        mean_, variance_ = ctx.group.total(torch.stack([mean_, variance_]))
        return ((mean_.view(shape) + 2 * (x - mean.view(shape)) * variance_.view(shape)) / total).to(x.dtype), None, None


def joint_batch_norm(
    x: Tensor, weight: Tensor, bias: Tensor, eps: float, group: Group
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """`staa.ops.averages.batch_norm` by the statistics of all processes' x, and how many values these are of."""
    if reference_chosen():
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        mean, variance, count = moments(wide, [0, 1, 3, 4], group)
        affine = norm_affine(mean, variance, weight, bias, eps)
        return x, *affine, wide.mean((3, 4)), mean.detach(), variance.detach(), count
    refuse_torch_func("a folded BatchNorm")
    refuse_dual("a folded BatchNorm", x, weight, bias)
    return _JointBatchNorm.apply(x, weight, bias, eps, group)


class _JointBatchNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float, group: Group) -> tuple[Tensor, ...]:
        _, _, mean_of_frames, mean, variance = torch.ops.staa.batch_norm(x, weight, bias, eps)
        count = x.numel() // x.shape[2]
        mean, variance, total = joint(mean, variance, count, group)
        scale, shift = norm_affine(mean, variance, weight, bias, eps)
        ctx.save_for_backward(x, scale, mean, variance, (count / total).to(mean.dtype))
        ctx.eps, ctx.group = eps, group
        ctx.mark_non_differentiable(mean, variance, total)
        ctx.set_materialize_grads(False)
        return x.view_as(x), scale, shift, mean_of_frames, mean, variance, total

    @staticmethod
    def backward(ctx: Any, up: Tensor | None, scale_: Tensor | None, shift_: Tensor | None, frames_: Tensor | None, *_: Any):  # type: ignore[override]
        """As of one process, whose gradients of scale and shift are this one's share of the sums over all: it divides by its
        own count, and the shares of the weights' gradients add up to the whole."""
        *saved, share = ctx.saved_tensors
        with torch.no_grad():
            own = [torch.zeros_like(saved[1]) if p is None else p for p in (scale_, shift_)]
            scale, shift = ctx.group.total(torch.stack(own)) * share
            grad_x, grad_weight = torch.ops.staa.batch_norm_backward(up, scale, shift, frames_, *saved, ctx.eps)
        grads = grad_x, grad_weight, shift.flatten()
        return *once("a folded BatchNorm", grads, up, scale_, shift_, frames_, *saved), None, None
