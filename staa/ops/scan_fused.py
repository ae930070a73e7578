"""`lif` as one operation, torch.ops.staa.lif: one pass over the window forward, and one backward that charges again.

The reference keeps every intermediate of every step for the backward pass; this keeps x alone. Forward reads x and writes
the spikes; backward reads x and the spikes' gradient and writes x's: 20 bytes an element in float32.

The operation takes its coefficients in one form, float32: decay, gain, threshold [C] and scale, shift [T or 1, N or 1, C],
where C is the number of channels, or 1 where all channels are alike. `fused` brings the arguments of `lif` into it. Each
device has its kernels in a module of its own.
"""

import warnings
from typing import Any

import torch
from torch import Tensor

from staa.ops import cpu
from staa.ops.register import register
from staa.ops.spike import SURROGATES, Surrogate

KERNELS: dict[str, Any] = {"cpu": cpu}

Coefficients = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]


def kernels_of(device: str) -> Any:
    """The module with the kernels of a type of device, or None. Triton is imported when the first tensor on CUDA comes."""
    if device == "cuda" and "cuda" not in KERNELS:
        try:
            from staa.ops import scan_triton
        except ImportError:  # not every torch brings Triton
            scan_triton = None
        KERNELS["cuda"] = scan_triton
    return KERNELS.get(device)


def fused(
    x: Tensor,
    v: Tensor | None,
    *,
    decay: float | Tensor,
    gain: float | Tensor,
    threshold: float | Tensor,
    reset: str,
    surrogate: Surrogate,
    detach_reset: bool,
    scale: Tensor | None,
    shift: Tensor | None,
) -> tuple[Tensor, Tensor] | None:
    """`lif` of arguments that passed its checks, or None where no kernel serves them."""
    kernels = kernels_of(x.device.type)
    if kernels is None or x.numel() == 0 or not kernels.serves(x.dtype):
        return None
    name = getattr(surrogate, "__name__", "")
    if SURROGATES.get(name) is not surrogate:
        warnings.warn(
            f"{name or surrogate} is none of staa.ops.SURROGATES: it takes the reference path, which is slower", stacklevel=3
        )
        return None
    constants = [_leading(p, x, x.ndim - 1, 2) for p in (decay, gain, threshold)]
    maps = [_leading(p, x, x.ndim, 3) for p in (1.0 if scale is None else scale, 0.0 if shift is None else shift)]
    given = [p for p in constants + maps if p is not None]
    if len(given) < 5 or any(p.shape[0] != 1 for p in given[:3]):
        return None
    channels = max(p.shape[-1] for p in given)
    coefficients = [p[0].expand(channels) for p in given[:3]] + [p.expand(*p.shape[:2], channels) for p in given[3:]]
    return torch.ops.staa.lif(x, v, *coefficients, reset, name, detach_reset)


def _leading(p: float | Tensor, x: Tensor, ndim: int, keep: int) -> Tensor | None:
    """p in float32 with the first `keep` of its `ndim` dimensions, up to the channels; None where p varies over space."""
    if not isinstance(p, Tensor):
        return torch.full((1,) * keep, p, dtype=torch.float32, device=x.device)
    if p.ndim == 0:
        p = p.to(x.device)  # torch's own operations take a number from the CPU
    shape = [1] * (ndim - p.ndim) + list(p.shape) + [1] * (keep - ndim)  # a current [T, N] has no channels
    return None if any(n != 1 for n in shape[keep:]) else p.float().reshape(shape[:keep])


def _lif(
    x: Tensor,
    v: Tensor | None,
    decay: Tensor,
    gain: Tensor,
    threshold: Tensor,
    scale: Tensor,
    shift: Tensor,
    reset: str,
    surrogate: str,
    detach_reset: bool,
) -> tuple[Tensor, Tensor]:
    """(spikes, the last membrane)."""
    x = dense(x)
    v = None if v is None else laid_out(v, x, 1)
    coefficients, geometry = _geometry(x, (decay, gain, threshold, scale, shift))
    spikes, last = torch.empty_like(x), torch.empty_like(x[0], dtype=torch.float32)
    kernels_of(x.device.type).lif_forward(x, v, coefficients, geometry, reset, spikes, last)
    return spikes, last


def _lif_shapes(x, v, decay, gain, threshold, scale, shift, reset, surrogate, detach_reset):
    x = dense(x)
    return torch.empty_like(x), torch.empty_like(x[0], dtype=torch.float32)


def _lif_backward(
    grad_spikes: Tensor,
    grad_last: Tensor | None,
    x: Tensor,
    v: Tensor | None,
    decay: Tensor,
    gain: Tensor,
    threshold: Tensor,
    scale: Tensor,
    shift: Tensor,
    reset: str,
    surrogate: str,
    detach_reset: bool,
    sums: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """(∂x, ∂v, Σ ∂u·x, Σ ∂u, Σ ∂u·h, ∂threshold), where u is a membrane before its reset and h the one it decayed from.

    The first two sums are [T or 1, N or 1, C], over whatever scale and shift do not tell apart; the others are [C]. `sums`
    says how many pairs of them are wanted, 0, 1 or 2; the others are empty, and so is ∂v without v.
    """
    x = dense(x)
    grad_spikes = laid_out(grad_spikes, x, 2)
    v, grad_last = (None if p is None else laid_out(p, x, 1) for p in (v, grad_last))
    coefficients, geometry = _geometry(x, (decay, gain, threshold, scale, shift))
    grad_x, grad_v, *of_coefficients = _backward_outputs(x, v, scale, shift, sums)
    kernels_of(x.device.type).lif_backward(
        x, v, coefficients, geometry, reset, surrogate, detach_reset, grad_spikes, grad_last, grad_x, grad_v, of_coefficients
    )
    return grad_x, grad_v, *of_coefficients  # type: ignore[return-value]


def _lif_backward_shapes(
    grad_spikes, grad_last, x, v, decay, gain, threshold, scale, shift, reset, surrogate, detach_reset, sums
):
    return _backward_outputs(dense(x), v, scale, shift, sums)


def _backward_outputs(x: Tensor, v: Tensor | None, scale: Tensor, shift: Tensor, sums: int) -> tuple[Tensor, ...]:
    steps, samples, channels = (max(a, b) for a, b in zip(scale.shape, shift.shape, strict=True))
    shapes = [(steps, samples, channels) if sums > 0 else (0,)] * 2 + [(channels,) if sums > 1 else (0,)] * 2
    grad_v = x.new_empty(0, dtype=torch.float32) if v is None else torch.empty_like(x[0], dtype=torch.float32)
    return torch.empty_like(x), grad_v, *(x.new_empty(shape, dtype=torch.float32) for shape in shapes)


def _setup_context(ctx, inputs, output):
    *tensors, ctx.reset, ctx.surrogate, ctx.detach_reset = inputs
    ctx.save_for_backward(*tensors)
    ctx.set_materialize_grads(False)


def _autograd(ctx, grad_spikes, grad_last):
    x, v, decay, gain, threshold, scale, shift = ctx.saved_tensors
    if grad_spikes is None:
        grad_spikes = torch.zeros_like(x)
    _, _, decay_, gain_, threshold_, scale_, shift_ = ctx.needs_input_grad[:7]
    sums = 2 if decay_ or threshold_ else int(gain_ or scale_ or shift_)
    constants = (decay, gain, threshold, scale, shift, ctx.reset, ctx.surrogate, ctx.detach_reset)
    grad_x, grad_v, ux, u, grad_decay, grad_threshold = torch.ops.staa.lif_backward(
        grad_spikes, grad_last, x, v, *constants, sums
    )
    grads = [grad_x, None if v is None else grad_v]
    if sums:
        grad_gain = (scale * ux + shift * u).sum((0, 1))
        if sums == 1:
            grad_decay = grad_threshold = None
        grads += [grad_decay, grad_gain, grad_threshold]
        grads += [(gain * ux).sum_to_size(scale.shape), (gain * u).sum_to_size(shift.shape)]
    return *grads, *[None] * (10 - len(grads))


register("lif", _lif, _lif_shapes)
register("lif_backward", _lif_backward, _lif_backward_shapes)
torch.library.register_autograd("staa::lif", _autograd, setup_context=_setup_context)


def channels_last(x: Tensor, dim: int = 2) -> bool:
    return x.ndim > dim and x.movedim(dim, -1).is_contiguous()


def dense(x: Tensor) -> Tensor:
    """x itself where it is contiguous or channels-last in memory, else a contiguous copy."""
    return x if x.is_contiguous() or channels_last(x) else x.contiguous()


def laid_out(p: Tensor, x: Tensor, dim: int) -> Tensor:
    """p, whose channels are dimension `dim`, in the memory order of x."""
    return p.contiguous() if x.is_contiguous() else p.movedim(dim, -1).contiguous().movedim(-1, dim)


def _geometry(x: Tensor, coefficients: Coefficients) -> tuple[Coefficients, tuple[int, int, int, int, bool]]:
    """The coefficients, contiguous, and (T, N, A, B, channels are B and not A): the window in memory is [T][N][A][B].

    Samples that no coefficient tells apart are one.
    """
    *_, scale, shift = coefficients
    steps, samples, channels = x.shape[0], x.shape[1], scale.shape[2]
    step, apart = x[0].numel(), scale.shape[1] > 1 or shift.shape[1] > 1
    decay, gain, threshold, scale, shift = (p.contiguous() for p in coefficients)
    n = samples if apart else 1
    if channels == 1:
        geometry = (steps, n, 1, step // n, False)
    elif channels_last(x):
        geometry = (steps, n, step // n // channels, channels, True)
    else:
        geometry = (steps, samples, channels, step // samples // channels, False)
    return (decay, gain, threshold, scale, shift), geometry
