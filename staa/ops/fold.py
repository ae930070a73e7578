"""Averages over the space of each frame, taken in one read, for what is folded into the neuron: BatchNorm and the gates.

A current that is not written out is scale · x + shift, with scale and shift constant over space: `Folded`. Whoever takes an
average of x to make them hands on the x that comes back with it: the average's gradient is then added to that of x in the one
pass that writes it, where a second use of x would cost autograd two more.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from staa.ops.register import register
from staa.ops.scan_fused import KERNELS, channels_last, dense, laid_out


class Folded(NamedTuple):
    """The current scale · x + shift; None stands for 1 and 0. mean: x's over space, [T, N, C], where it is known."""

    x: Tensor
    scale: Tensor | None = None
    shift: Tensor | None = None
    mean: Tensor | None = None

    def written_out(self) -> Tensor:
        current = self.x if self.scale is None else self.x * self.scale
        return current if self.shift is None else current + self.shift


def moments(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """x [T, N, C, H, W] itself, its mean over space and its variance (divided by H·W), both [T, N, C], at least float32."""
    if not served(x):
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        mean = wide.mean((3, 4))
        return x, mean, (wide - mean[..., None, None]).square().mean((3, 4))
    return _Moments.apply(x)


def context(x: Tensor, key: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Attention pooling over space with a linear key: (x itself, context [T, N, C], mean over space [T, N, C]).

        k_j = Σ_c key_c x_cj,    a = softmax(k),    context_c = Σ_j a_j x_cj

    x: [T, N, C, H, W]; key: [T or 1, N or 1, C]. At least float32 comes back.
    """
    if not served(x):
        flat = x.flatten(3).to(torch.promote_types(x.dtype, torch.float32))  # [T, N, C, H·W]
        weights = (key.expand(*x.shape[:2], -1).unsqueeze(2).to(flat.dtype) @ flat).softmax(-1)
        return x, (flat @ weights.mT).squeeze(-1), flat.mean(-1)
    return _Context.apply(x, key.float())


def served(x: Tensor) -> bool:
    """Whether a kernel takes the averages of x."""
    kernels = KERNELS.get(x.device.type)
    return kernels is not None and hasattr(kernels, "frames") and kernels.serves(x.dtype) and x.numel() > 0


class _Moments(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mean, variance = torch.ops.staa.moments(x)
        ctx.save_for_backward(x, mean)
        ctx.set_materialize_grads(False)
        return x.view_as(x), mean, variance

    @staticmethod
    def backward(ctx: Any, up: Tensor | None, grad_mean: Tensor | None, grad_variance: Tensor | None) -> Tensor | None:
        x, mean = ctx.saved_tensors
        if grad_mean is None and grad_variance is None:
            return up
        share = 1 / (x.shape[3] * x.shape[4])
        beta = torch.zeros_like(mean) if grad_variance is None else grad_variance * (2 * share)
        alpha = -beta * mean if grad_mean is None else grad_mean * share - beta * mean
        return torch.ops.staa.add_affine(up, x, alpha, beta)


class _Context(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, key: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        pooled, mean, weights = torch.ops.staa.context(x, key)
        ctx.save_for_backward(x, key, weights)
        ctx.set_materialize_grads(False)
        return x.view_as(x), pooled, mean

    @staticmethod
    def backward(
        ctx: Any, up: Tensor | None, grad_context: Tensor | None, grad_mean: Tensor | None
    ) -> tuple[Tensor | None, Tensor | None]:
        x, key, weights = ctx.saved_tensors
        none = torch.zeros(x.shape[:3], dtype=torch.float32, device=x.device)
        alpha = none if grad_mean is None else grad_mean / (x.shape[3] * x.shape[4])
        pooled = none if grad_context is None else grad_context
        grad_x, grad_key = torch.ops.staa.context_backward(up, x, key, weights, pooled, alpha)
        return grad_x, grad_key.sum_to_size(key.shape)


def _moments(x: Tensor) -> tuple[Tensor, Tensor]:
    x = dense(x)
    mean, m2 = _per_channel(x), _per_channel(x)
    KERNELS[x.device.type].frames("staa_moments", x, channels_last(x), mean=mean, m2=m2)
    return mean, m2 / (x.shape[3] * x.shape[4])


def _moments_shapes(x):
    return _per_channel(x), _per_channel(x)


def _add_affine(up: Tensor | None, x: Tensor, alpha: Tensor, beta: Tensor) -> Tensor:
    """up + alpha + beta · x, with alpha and beta [T, N, C]."""
    x = dense(x)
    up, out = None if up is None else laid_out(up, x, 2), torch.empty_like(x)
    coefficients = {"alpha": alpha.contiguous(), "beta": beta.contiguous()}
    KERNELS[x.device.type].frames("staa_add_affine", x, channels_last(x), up=up, out=out, **coefficients)
    return out


def _add_affine_shapes(up, x, alpha, beta):
    return torch.empty_like(dense(x))


def _context(x: Tensor, key: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(context, mean, weights [T, N, H·W])."""
    x = dense(x)
    key, stride = _key(x, key)
    pooled, mean, weights = _per_channel(x), _per_channel(x), x.new_empty(_positions(x), dtype=torch.float32)
    KERNELS[x.device.type].frames(
        "staa_context", x, channels_last(x), key=key, key_f=stride, context=pooled, mean=mean, weights=weights
    )
    return pooled, mean, weights


def _context_shapes(x, key):
    return _per_channel(x), _per_channel(x), x.new_empty(_positions(x), dtype=torch.float32)


def _context_backward(
    up: Tensor | None, x: Tensor, key: Tensor, weights: Tensor, grad_context: Tensor, alpha: Tensor
) -> tuple[Tensor, Tensor]:
    """(up + what context and mean give x, ∂key [T, N, C]); alpha is ∂mean / (H·W)."""
    x = dense(x)
    up, out, grad_key = None if up is None else laid_out(up, x, 2), torch.empty_like(x), _per_channel(x)
    key, stride = _key(x, key)
    tensors = {"weights": weights, "context": grad_context.contiguous(), "alpha": alpha.contiguous(), "grad_key": grad_key}
    KERNELS[x.device.type].frames(
        "staa_context_backward", x, channels_last(x), up=up, out=out, key=key, key_f=stride, **tensors
    )
    return out, grad_key


def _context_backward_shapes(up, x, key, weights, grad_context, alpha):
    return torch.empty_like(dense(x)), _per_channel(x)


def _per_channel(x: Tensor) -> Tensor:
    return x.new_empty(x.shape[:3], dtype=torch.float32)


def _positions(x: Tensor) -> tuple[int, int, int]:
    return x.shape[0], x.shape[1], x.shape[3] * x.shape[4]


def _key(x: Tensor, key: Tensor) -> tuple[Tensor, int]:
    """The key of each frame, and how far apart they lie: one for all where it is the same."""
    if key.shape[:2] == (1, 1):
        return key.contiguous(), 0
    return key.expand(*x.shape[:2], -1).contiguous(), x.shape[2]


register("moments", _moments, _moments_shapes)
register("add_affine", _add_affine, _add_affine_shapes)
register("context", _context, _context_shapes)
register("context_backward", _context_backward, _context_backward_shapes)
