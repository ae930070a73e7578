"""Averages over the space of each frame, taken in one read, for what is folded into the neuron: BatchNorm and the gates.

A current that is not written out is scale · x + shift, with scale and shift constant over space: `Folded`. Whoever takes an
average of x to make them hands on the x that comes back with it: the average's gradient is then added to that of x in the one
pass that writes it, while a second use of x would cost autograd two more.
"""

from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor

from staa.ops.memory import channels_last, dense, kernels_of, laid_out
from staa.ops.register import register
from staa.ops.switch import once, reference_chosen, refuse_dual, refuse_torch_func


class Folded(NamedTuple):
    """The current scale · x + shift; None stands for 1 and 0. mean: x's over space, [T, N, C], if it is known."""

    x: Tensor
    scale: Tensor | None = None
    shift: Tensor | None = None
    mean: Tensor | None = None

    def written_out(self) -> Tensor:
        """In the dtype of x, as from the modules that were folded."""
        current = self.x if self.scale is None else self.x * self.scale
        return (current if self.shift is None else current + self.shift).to(self.x.dtype)


def norm_affine(
    mean: Tensor, variance: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
) -> tuple[Tensor, Tensor]:
    """scale = weight / √(variance + eps), shift = bias − mean · scale, [1, 1, C, 1, 1]; without weight 1, without bias 0.

    At least float32: eight bits of mantissa would make another network of the running statistics.
    """
    wide = torch.promote_types(mean.dtype, torch.float32)
    mean, variance = mean.to(wide), variance.to(wide)
    scale = (variance + eps).rsqrt()
    if weight is not None:
        scale = scale * weight
    shift = -mean * scale if bias is None else bias - mean * scale
    return scale.view(1, 1, -1, 1, 1), shift.view(1, 1, -1, 1, 1)


def batch_norm(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """BatchNorm by the statistics of x [T, N, C, H, W] over all but C, as `norm_affine` of its mean and biased variance.

    Returns (x itself, scale and shift [1, 1, C, 1, 1], mean of each frame over space [T, N, C], mean [C], variance [C]), at
    least float32. The last two carry no gradient.
    """
    if reference_chosen():
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        variance, mean = torch.var_mean(wide, (0, 1, 3, 4), correction=0)
        return x, *norm_affine(mean, variance, weight, bias, eps), wide.mean((3, 4)), mean.detach(), variance.detach()
    refuse_torch_func("a folded BatchNorm")
    refuse_dual("a folded BatchNorm", x, weight, bias)
    return _BatchNorm.apply(x, weight, bias, eps)


def context(x: Tensor, key: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Attention pooling over space with a linear key: (x itself, context [T, N, C], mean over space [T, N, C]).

        k_j = Σ_c key_c x_cj,    a = softmax(k),    context_c = Σ_j a_j x_cj

    x: [T, N, C, H, W]; key: [T or 1, N or 1, C]. At least float32 comes back.
    """
    if reference_chosen() or not served(x):
        flat, weights = _attended(x, key)
        with without_autocast(x):  # it would take the products in half precision
            return x, (flat @ weights.mT).squeeze(-1), flat.mean(-1)
    refuse_torch_func("attention pooling")
    refuse_dual("attention pooling", x, key)
    return _Context.apply(x, key.float())


def context_weights(x: Tensor, key: Tensor) -> Tensor:
    """The softmax a of `context` [T, N, H·W], from the path that this takes; without a gradient."""
    if reference_chosen() or not served(x):
        return _attended(x, key)[1].squeeze(2)
    return torch.ops.staa.context(x, key.float())[2]


def _attended(x: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
    """(x [T, N, C, H·W], its softmax [T, N, 1, H·W]), at least float32."""
    flat = x.flatten(3).to(torch.promote_types(x.dtype, torch.float32))
    with without_autocast(x):
        return flat, (key.expand(*x.shape[:2], -1).unsqueeze(2).to(flat.dtype) @ flat).softmax(-1)


def without_autocast(x: Tensor) -> AbstractContextManager[Any]:
    """No half precision on the device of x; meta tensors know no autocast, and an exported program is to have none."""
    off = x.is_meta or not torch.is_autocast_enabled(x.device.type)
    return nullcontext() if off else torch.autocast(x.device.type, enabled=False)


def served(x: Tensor) -> bool:
    """Whether a kernel takes the averages of x."""
    kernels = kernels_of(x.device.type)
    return kernels is not None and kernels.serves(x.dtype) and x.numel() > 0


class _BatchNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> tuple[Tensor, ...]:
        scale, shift, mean_of_frames, mean, variance = torch.ops.staa.batch_norm(x, weight, bias, eps)
        ctx.save_for_backward(x, scale, mean, variance)
        ctx.eps = eps
        ctx.mark_non_differentiable(mean, variance)
        ctx.set_materialize_grads(False)
        return x.view_as(x), scale, shift, mean_of_frames, mean, variance

    @staticmethod
    def backward(ctx: Any, up: Tensor | None, scale_: Tensor | None, shift_: Tensor | None, frames_: Tensor | None, *_: Any):  # type: ignore[override]
        saved = ctx.saved_tensors  # once: recomputation forgets them
        with torch.no_grad():
            grad_x, grad_weight = torch.ops.staa.batch_norm_backward(up, scale_, shift_, frames_, *saved, ctx.eps)
        _, weight_, bias_, _ = ctx.needs_input_grad
        grads = grad_x, grad_weight if weight_ else None, shift_.flatten() if bias_ and shift_ is not None else None
        return *once("a folded BatchNorm", grads, up, scale_, shift_, frames_, *saved), None


class _Context(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, key: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        pooled, mean, weights = torch.ops.staa.context(x, key)
        ctx.save_for_backward(x, key, weights, pooled)
        ctx.set_materialize_grads(False)
        return x.view_as(x), pooled, mean

    @staticmethod
    def backward(
        ctx: Any, up: Tensor | None, grad_context: Tensor | None, grad_mean: Tensor | None
    ) -> tuple[Tensor | None, Tensor | None]:
        saved = x, key, weights, pooled = ctx.saved_tensors  # once: recomputation forgets them
        with torch.no_grad():
            alpha = torch.zeros_like(pooled) if grad_mean is None else grad_mean / (x.shape[3] * x.shape[4])
            of_context = torch.zeros_like(pooled) if grad_context is None else grad_context
            grad_x, grad_key = torch.ops.staa.context_backward(up, x, key, weights, pooled, of_context, alpha)
            grads = grad_x, grad_key.sum_to_size(key.shape)
        return once("attention pooling", grads, up, grad_context, grad_mean, *saved)  # type: ignore[return-value]


def _batch_norm(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """(scale, shift, mean of each frame, mean, variance)."""
    if not served(x):
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        variance, mean = torch.var_mean(wide, (0, 1, 3, 4), correction=0)
        return *norm_affine(mean, variance, weight, bias, eps), wide.mean((3, 4)), mean, variance
    x = dense(x)
    outputs = _batch_norm_shapes(x, weight, bias, eps)
    tensors = dict(zip(("scale", "shift", "mean", "all_mean", "variance"), outputs, strict=True))
    given = {name: None if p is None else p.float().contiguous() for name, p in (("weight", weight), ("bias", bias))}
    kernels_of(x.device.type).of_frames("staa_batch_norm", x, channels_last(x), {"eps": eps}, **tensors, **given)
    return outputs  # type: ignore[return-value]


def _batch_norm_shapes(x, weight, bias, eps):
    wide = torch.promote_types(x.dtype, torch.float32)
    channels = x.shape[2]
    shapes = [(1, 1, channels, 1, 1)] * 2 + [x.shape[:3]] + [(channels,)] * 2
    return tuple(x.new_empty(shape, dtype=wide) for shape in shapes)


def _batch_norm_backward(
    up: Tensor | None,
    scale_: Tensor | None,
    shift_: Tensor | None,
    frames_: Tensor | None,
    x: Tensor,
    scale: Tensor,
    mean: Tensor,
    variance: Tensor,
    eps: float,
) -> tuple[Tensor, Tensor]:
    """(∂x, ∂weight), with p_ for ∂p; up is what else x gets. Here ∂mean/∂x = 1 / count, ∂variance/∂x = 2 (x − mean) / count.

    ∂x = up + alpha + beta · x with alpha and beta constant over space; count = T·N·H·W.
    """
    if not served(x):
        scale_, shift_ = (torch.zeros_like(mean) if p is None else p.flatten() for p in (scale_, shift_))
        inverse = (variance + eps).rsqrt()
        grad_weight = (scale_ - mean * shift_) * inverse  # the shift goes by the scale too
        space, count = x.shape[3] * x.shape[4], x.numel() // x.shape[2]
        beta = -grad_weight * scale.flatten() * inverse / count
        alpha = -scale.flatten() * shift_ / count - beta * mean
        alpha = alpha if frames_ is None else alpha + frames_ / space
        added = alpha.expand(x.shape[:3])[..., None, None] + beta[:, None, None] * x
        return (added if up is None else added + up).to(x.dtype), grad_weight
    x = dense(x)
    up, out, grad_weight = None if up is None else laid_out(up, x, 2), torch.empty_like(x), torch.empty_like(mean)
    given = {"grad_scale": scale_, "grad_shift": shift_, "grad_mean": frames_}
    tensors = {name: None if p is None else p.contiguous() for name, p in given.items()}
    tensors |= {"up": up, "out": out, "scale": scale, "all_mean": mean, "variance": variance, "grad_weight": grad_weight}
    kernels_of(x.device.type).of_frames("staa_batch_norm_backward", x, channels_last(x), {"eps": eps}, **tensors)
    return out, grad_weight


def _batch_norm_backward_shapes(up, scale_, shift_, frames_, x, scale, mean, variance, eps):
    return torch.empty_like(dense(x)), torch.empty_like(mean)


def _context(x: Tensor, key: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(context, mean, weights [T, N, H·W])."""
    x = dense(x)
    key, stride = _key(x, key)
    pooled, mean, weights = _per_channel(x), _per_channel(x), x.new_empty(_positions(x), dtype=torch.float32)
    kernels_of(x.device.type).of_frames(
        "staa_context", x, channels_last(x), {"key_f": stride}, key=key, context=pooled, mean=mean, weights=weights
    )
    return pooled, mean, weights


def _context_shapes(x, key):
    return _per_channel(x), _per_channel(x), x.new_empty(_positions(x), dtype=torch.float32)


def _context_backward(
    up: Tensor | None, x: Tensor, key: Tensor, weights: Tensor, pooled: Tensor, grad_context: Tensor, alpha: Tensor
) -> tuple[Tensor, Tensor]:
    """(up + what context and mean give x, ∂key [T, N, C]); pooled is the context, alpha is ∂mean / (H·W)."""
    x = dense(x)
    up, out, grad_key = None if up is None else laid_out(up, x, 2), torch.empty_like(x), _per_channel(x)
    key, stride = _key(x, key)
    tensors = {"weights": weights, "context": grad_context.contiguous(), "alpha": alpha.contiguous(), "grad_key": grad_key}
    tensors["pooled"] = pooled  # so that a GPU reads x once; the CPU finds a frame in its caches again
    numbers = {"key_f": stride, "alpha_f": x.shape[2]}
    kernels_of(x.device.type).of_frames(
        "staa_context_backward", x, channels_last(x), numbers, up=up, out=out, key=key, **tensors
    )
    return out, grad_key


def _context_backward_shapes(up, x, key, weights, pooled, grad_context, alpha):
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


register("batch_norm", _batch_norm, _batch_norm_shapes)
register("batch_norm_backward", _batch_norm_backward, _batch_norm_backward_shapes)
register("context", _context, _context_shapes)
register("context_backward", _context_backward, _context_backward_shapes)
