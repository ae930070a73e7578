"""`lif` as one operation, torch.ops.staa.lif: one pass over the window forward, and one backward that charges again.

The reference keeps every intermediate of every step for the backward pass; this keeps x alone. Forward reads x and writes
the spikes; backward reads x and the spikes' gradient and writes x's: 20 bytes an element in float32.

The operation takes its coefficients in one form, float32: decay, gain, threshold [C] and scale, shift [T or 1, N or 1, C] and
any 1s behind, where C is the number of channels, or 1 where all channels are alike. `fused` brings the arguments of `lif` into
it. Each device has its kernels in a module of its own.
"""

import warnings
from typing import Any

import torch
from torch import Tensor

from staa.ops.memory import channels_last, dense, kernels_of, laid_out
from staa.ops.register import register
from staa.ops.spike import SURROGATES, Surrogate
from staa.ops.switch import once, refuse_batched, refuse_dual, refuse_torch_func

Coefficients = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]


def fused(
    x: Tensor,
    v: Tensor | None,
    *,
    decay: float | Tensor,
    gain: float | Tensor,
    threshold: float | Tensor,
    strict: bool,
    reset: str,
    surrogate: Surrogate,
    detach_reset: bool,
    scale: Tensor | None,
    shift: Tensor | None,
) -> tuple[Tensor, Tensor] | None:
    """`lif` of arguments that passed its checks, or None if no kernel serves them."""
    kernels = kernels_of(x.device.type)
    if kernels is None or x.numel() == 0 or not kernels.serves(x.dtype):
        return None
    name = getattr(surrogate, "__name__", "")
    if SURROGATES.get(name) is not surrogate:
        if not torch.compiler.is_compiling():  # a warning would break the graph
            message = f"{name or surrogate} is none of staa.ops.SURROGATES: it takes the reference path, which is slower"
            warnings.warn(message, stacklevel=3)
        return None
    given = (decay, gain, threshold, 1.0 if scale is None else scale, 0.0 if shift is None else shift)
    terms = [_leading(p, x) if isinstance(p, Tensor) else p for p in given]
    constant = all(p.shape[:2] == (1, 1) for p in terms[:3] if isinstance(p, Tensor))
    if not constant or any(isinstance(p, Tensor) and p.shape[3:].numel() > 1 for p in terms):  # it varies over space
        return None
    channels = max([1, *(p.shape[2] for p in terms if isinstance(p, Tensor))])
    decay, gain, threshold, scale, shift = (_over_channels(p, channels, x) for p in terms)
    refuse_torch_func("staa.ops.lif")
    refuse_dual("staa.ops.lif", x, v, decay, gain, threshold, scale, shift)
    constants = (p.view(channels) for p in (decay, gain, threshold))
    return torch.ops.staa.lif(x, v, *constants, scale, shift, strict, reset, name, detach_reset)


def _leading(p: Tensor, x: Tensor) -> Tensor:
    """p, which broadcasts with x or x[0], in float32 and with all dimensions of x: [T or 1, N or 1, C or 1, …]."""
    if p.ndim == 0:
        p = p.to(x.device)  # torch's own operations take a number from the CPU
    if p.ndim != max(x.ndim, 3):
        p = p.reshape([1] * (x.ndim - p.ndim) + list(p.shape) + [1] * (3 - x.ndim))  # a current [T, N] has no channels
    return p.float()


def _over_channels(p: float | Tensor, channels: int, x: Tensor) -> Tensor:
    if not isinstance(p, Tensor):
        return torch.full((1, 1, channels), p, dtype=torch.float32, device=x.device)
    return p if p.shape[2] == channels else p.expand(-1, -1, channels, *p.shape[3:])


def _lif(
    x: Tensor,
    v: Tensor | None,
    decay: Tensor,
    gain: Tensor,
    threshold: Tensor,
    scale: Tensor,
    shift: Tensor,
    strict: bool,
    reset: str,
    surrogate: str,
    detach_reset: bool,
) -> tuple[Tensor, Tensor]:
    """(spikes, the last membrane)."""
    x = dense(x)
    v = None if v is None else laid_out(v, x, 1)
    coefficients, geometry = _geometry(x, (decay, gain, threshold, scale, shift))
    spikes, last = torch.empty_like(x), torch.empty_like(x[0], dtype=torch.float32)
    kernels_of(x.device.type).lif_forward(x, v, coefficients, geometry, strict, reset, spikes, last)
    return spikes, last


def _lif_shapes(x, v, decay, gain, threshold, scale, shift, strict, reset, surrogate, detach_reset):
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
    strict: bool,
    reset: str,
    surrogate: str,
    detach_reset: bool,
    sums: int,
) -> list[Tensor]:
    """[∂x, Σ ∂u·x, Σ ∂u, Σ ∂u·h, ∂threshold, ∂v], where u is a membrane before its reset and h the one it decayed from.

    The first two sums are [T or 1, N or 1, C], over whatever scale and shift do not tell apart; the others are [C]. `sums`
    says how many pairs of them there are, 0, 1 or 2; ∂v is there if v is.
    """
    x = dense(x)
    grad_spikes = laid_out(grad_spikes, x, 2)
    v, grad_last = (None if p is None else laid_out(p, x, 1) for p in (v, grad_last))
    coefficients, geometry = _geometry(x, (decay, gain, threshold, scale, shift))
    outputs = _backward_outputs(x, v, scale, shift, sums)
    grad_x, *of_coefficients = outputs
    grad_v = None if v is None else of_coefficients.pop()
    kernels_of(x.device.type).lif_backward(
        x,
        v,
        coefficients,
        geometry,
        strict,
        reset,
        surrogate,
        detach_reset,
        grad_spikes,
        grad_last,
        grad_x,
        grad_v,
        of_coefficients,
    )
    return outputs


def _lif_backward_shapes(
    grad_spikes, grad_last, x, v, decay, gain, threshold, scale, shift, strict, reset, surrogate, detach_reset, sums
):
    return _backward_outputs(dense(x), v, scale, shift, sums)


def _backward_outputs(x: Tensor, v: Tensor | None, scale: Tensor, shift: Tensor, sums: int) -> list[Tensor]:
    steps, samples, channels = (max(scale.shape[i], shift.shape[i]) for i in range(3))
    shapes = [(steps, samples, channels)] * 2 + [(channels,)] * 2
    outputs = [torch.empty_like(x), *(x.new_empty(shape, dtype=torch.float32) for shape in shapes[: 2 * sums])]
    return outputs if v is None else [*outputs, torch.empty_like(x[0], dtype=torch.float32)]


class _Lif(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> tuple[Tensor, Tensor]:
        *tensors, ctx.strict, ctx.reset, ctx.surrogate, ctx.detach_reset = arguments
        ctx.save_for_backward(*tensors)
        ctx.set_materialize_grads(False)
        with torch._C._AutoDispatchBelowAutograd():
            return torch.ops.staa.lif(*arguments)

    @staticmethod
    def backward(ctx: Any, grad_spikes: Tensor | None, grad_last: Tensor | None) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        refuse_batched("staa.ops.lif", grad_spikes, grad_last)
        saved = x, v, decay, gain, threshold, scale, shift = ctx.saved_tensors  # once: recomputation forgets them
        if grad_spikes is None:
            grad_spikes = torch.zeros_like(x)
        _, _, decay_, gain_, threshold_, scale_, shift_ = ctx.needs_input_grad[:7]
        sums = 2 if decay_ or threshold_ else int(gain_ or scale_ or shift_)
        constants = (decay, gain, threshold, scale, shift, ctx.strict, ctx.reset, ctx.surrogate, ctx.detach_reset)
        with torch.no_grad():
            grad_x, *rest = torch.ops.staa.lif_backward(grad_spikes, grad_last, x, v, *constants, sums)
            grads = {"x": grad_x, "v": rest.pop() if v is not None else None}
            if sums:
                ux, u = rest[:2]
                of_gain = scale.view(scale.shape[:3]) * ux + shift.view(shift.shape[:3]) * u
                grads["gain"] = of_gain.sum((0, 1)) if gain_ else None
                grads["scale"] = (gain * ux).sum_to_size(scale.shape[:3]).view(scale.shape) if scale_ else None
                grads["shift"] = (gain * u).sum_to_size(shift.shape[:3]).view(shift.shape) if shift_ else None
            if sums == 2:
                grads["decay"], grads["threshold"] = rest[2:]
        ordered = tuple(grads.get(name) for name in ("x", "v", "decay", "gain", "threshold", "scale", "shift"))
        return *once("staa.ops.lif", ordered, grad_spikes, grad_last, *saved), None, None, None, None


register("lif", _lif, _lif_shapes, _Lif.apply)
register("lif_backward", _lif_backward, _lif_backward_shapes)


def _geometry(x: Tensor, coefficients: Coefficients) -> tuple[Coefficients, tuple[int, int, int, int, bool]]:
    """The coefficients, contiguous, and (T, N, A, B, channels are B and not A): the window in memory is [T][N][A][B].

    Samples that no coefficient tells apart are one.
    """
    *_, scale, shift = coefficients
    steps, samples, channels = x.shape[0], x.shape[1], scale.shape[2]
    step, apart = x.numel() // steps, scale.shape[1] > 1 or shift.shape[1] > 1
    decay, gain, threshold, scale, shift = (p.contiguous() for p in coefficients)
    n = samples if apart else 1
    if channels == 1:
        geometry = (steps, n, 1, step // n, False)
    elif channels_last(x):
        geometry = (steps, n, step // n // channels, channels, True)
    else:
        geometry = (steps, samples, channels, step // samples // channels, False)
    return (decay, gain, threshold, scale, shift), geometry
