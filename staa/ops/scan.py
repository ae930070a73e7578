"""The scan over time: the only place that knows how a neuron charges, fires and resets."""

import torch
from torch import Tensor

from staa.ops.checks import Reset, charge_dtype, check_options, check_scan
from staa.ops.lif_op import fused
from staa.ops.notes import note
from staa.ops.spike import Surrogate, arctan, fire
from staa.ops.switch import reference_chosen


def lif(
    x: Tensor,
    v: Tensor | None = None,
    *,
    decay: float | Tensor,
    gain: float | Tensor = 1.0,
    threshold: float | Tensor = 1.0,
    strict: bool = False,
    reset: Reset = "zero",
    surrogate: Surrogate = arctan,
    detach_reset: bool = False,
    scale: Tensor | None = None,
    shift: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Leaky integrate-and-fire over a whole window: the current in, the spikes and the last membrane out.

        i[t] = scale[t] · x[t] + shift[t]          an affine map of the current
        v[t] = decay · h[t−1] + gain · i[t]        charge
        s[t] = 1 if v[t] ≥ threshold, else 0       fire; strict=True: if v[t] > threshold
        h[t] = v[t] · (1 − s[t])                   reset="zero"
        h[t] = v[t] − threshold · s[t]             reset="subtract"

    Going on from the returned membrane continues the window: in chunks of any length the bits are the same. Channels-last
    tensors stay channels-last. CUDA and the CPU have fast paths, with first derivatives alone; under `staa.reference` the
    equations run as they stand in `staa.ops.lif_reference`.

    Args:
        x: Current i without unit, float32 or float64. bfloat16 and float16 are charged in float32.
        v: Membrane h[−1] before the first step, at least float32; None: rest, 0.
        decay: Share of the membrane that a step keeps, in [0, 1]; a number or a tensor.
        gain: Factor of the current; a number or a tensor.
        threshold: Membrane at which it fires, above 0; a number or a tensor.
        strict: Fire only above the threshold, not at it.
        reset: Membrane after a spike: "zero", or "subtract" to keep what exceeds the threshold.
        surrogate: Smooth step whose slope at v − threshold is the spike's gradient, strict or not, such as `staa.ops.triangle`.
            One that is not in `staa.ops.SURROGATES` takes the reference path, with a warning.
        detach_reset: Keep the reset out of the backward pass.
        scale: Factor of the current, such as an attention gate; None: 1.
        shift: Added to scale · x; None: 0.

    Shapes:
        x [T, N, ...]; v [N, ...]; decay, gain, threshold broadcast with v; scale, shift broadcast with x, and have its rank
        -> (spikes [T, N, ...] in the dtype of x, last membrane h[T−1], [N, ...], at least float32)

    Raises:
        ValueError: If a tensor has another rank, dtype, device or shape than it must, a number is not finite or outside its
            range (a tensor's values are not looked at), or an option is unknown.
        TypeError: If x, v, scale or shift is no tensor.
        RuntimeError: On a fast path, for second derivatives and under torch.func.

    Source:
        Resetting without a gradient (detach_reset): Zenke & Vogels 2021.
    """
    check_scan(x, v, scale, shift, decay=decay, gain=gain, threshold=threshold)
    check_options(strict, detach_reset, reset, surrogate)
    options = {"decay": decay, "gain": gain, "threshold": threshold, "scale": scale, "shift": shift}
    options |= {"strict": strict, "reset": reset, "surrogate": surrogate, "detach_reset": detach_reset}
    result = None if reference_chosen() else fused(x, v, **options)
    result = lif_reference(x, v, **options) if result is None else result
    note(None, spikes=result[0], x=x, v=v, **options)
    return result


def lif_reference(
    x: Tensor,
    v: Tensor | None = None,
    *,
    decay: float | Tensor,
    gain: float | Tensor = 1.0,
    threshold: float | Tensor = 1.0,
    strict: bool = False,
    reset: Reset = "zero",
    surrogate: Surrogate = arctan,
    detach_reset: bool = False,
    scale: Tensor | None = None,
    shift: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Leaky integrate-and-fire over a whole window, one line an equation, unchecked: each faster path is tested against it.

        i[t] = scale[t] · x[t] + shift[t]
        v[t] = decay · h[t−1] + gain · i[t]
        s[t] = 1 if v[t] ≥ threshold, else 0       strict=True: if v[t] > threshold
        h[t] = v[t] · (1 − s[t])                   reset="subtract": v[t] − threshold · s[t]

    Args:
        x: Current i without unit, float32 or float64. bfloat16 and float16 are charged in float32.
        v: Membrane h[−1] before the first step, at least float32; None: rest, 0.
        decay: Share of the membrane that a step keeps, in [0, 1]; a number or a tensor.
        gain: Factor of the current; a number or a tensor.
        threshold: Membrane at which it fires, above 0; a number or a tensor.
        strict: Fire only above the threshold, not at it.
        reset: Membrane after a spike: "zero", or "subtract" to keep what exceeds the threshold.
        surrogate: Smooth step whose slope at v − threshold is the spike's gradient, strict or not, such as `staa.ops.triangle`.
        detach_reset: Keep the reset out of the backward pass.
        scale: Factor of the current, such as an attention gate; None: 1.
        shift: Added to scale · x; None: 0.

    Shapes:
        x [T, N, ...]; v [N, ...]; decay, gain, threshold broadcast with v; scale, shift broadcast with x, and have its rank
        -> (spikes [T, N, ...] in the dtype of x, last membrane h[T−1], [N, ...], at least float32)
    """
    current = _current(x, scale, shift)
    h = torch.zeros_like(current[0]) if v is None else v
    spikes = []
    for i in _steps(current):
        u = decay * h + gain * i
        s = fire(u - threshold, surrogate, strict)
        r = s.detach() if detach_reset else s
        h = u * (1 - r) if reset == "zero" else u - threshold * r
        spikes.append(s.to(x.dtype))
    return _join(spikes, x), h


def integrate(
    x: Tensor,
    v: Tensor | None = None,
    *,
    decay: float | Tensor,
    gain: float | Tensor = 1.0,
    scale: Tensor | None = None,
    shift: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Leaky integration over a whole window, without firing.

        v[t] = decay · v[t−1] + gain · (scale[t] · x[t] + shift[t])

    Args:
        x: Current without unit, float32 or float64. bfloat16 and float16 are charged in float32.
        v: Membrane before the first step, at least float32; None: rest, 0.
        decay: Share of the membrane that a step keeps, in [0, 1]; a number or a tensor.
        gain: Factor of the current; a number or a tensor.
        scale: Factor of the current, such as an attention gate; None: 1.
        shift: Added to scale · x; None: 0.

    Shapes:
        x [T, N, ...]; v [N, ...]; decay, gain broadcast with v; scale, shift broadcast with x, and have its rank
        -> (membranes [T, N, ...], the last one [N, ...]), at least float32

    Raises:
        ValueError: If a tensor has another rank, dtype, device or shape than it must, or a number is not finite or outside
            its range.
        TypeError: If x, v, scale or shift is no tensor.
    """
    check_scan(x, v, scale, shift, decay=decay, gain=gain)
    current = _current(x, scale, shift)
    v = torch.zeros_like(current[0]) if v is None else v
    trace = []
    for i in _steps(current):
        v = decay * v + gain * i
        trace.append(v)
    return _join(trace, x), v


def _current(x: Tensor, scale: Tensor | None, shift: Tensor | None) -> Tensor:
    x = x.to(charge_dtype(x))
    if scale is not None:
        x = x * scale
    return x if shift is None else x + shift


def _steps(x: Tensor) -> tuple[Tensor, ...]:
    """x[0], x[1], …: indexing makes the backward pass quadratic in T, and unbind's stacks it, losing channels-last. A list of
    sizes leaves N open in an export, where a single one would fix it."""
    return x.flatten(0, 1).split([x.shape[1]] * x.shape[0])


def _join(steps: list[Tensor], x: Tensor) -> Tensor:
    """The steps as one tensor [T, N, ...]: torch.cat over the batch keeps channels-last, torch.stack does not."""
    return torch.cat(steps).unflatten(0, x.shape[:2])
