"""The scan over time: the only place that knows how a neuron charges, fires and resets."""

import math
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from staa.ops.lif_op import fused
from staa.ops.spike import SURROGATES, Surrogate, arctan, fire
from staa.ops.switch import reference_chosen

Reset = Literal["zero", "subtract"]
NUMBERS = (float, int, np.floating, np.integer, torch.SymFloat, torch.SymInt)
LARGEST = torch.finfo(torch.float32).max  # of a constant


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
    """Leaky integrate-and-fire over the whole window: the input current in, the spikes and the last membrane out.

        i[t] = scale[t] · x[t] + shift[t]          an affine map of the current, e.g. an attention gate
        v[t] = decay · h[t−1] + gain · i[t]        charge
        s[t] = Θ(v[t] − threshold)                 fire, where v ≥ threshold (strict=True: v > threshold)
        h[t] = v[t] · (1 − s[t])                   reset="zero"
        h[t] = v[t] − threshold · s[t]             reset="subtract"

    x: current [T, N, ...], float32 or float64; bfloat16 and float16 are charged in float32, and the spikes come back
    in the dtype of x. v: membrane h[−1] of shape x[0], or None for rest (0). decay, gain, threshold: numbers or tensors
    that broadcast with x[0]. scale, shift: tensors that broadcast with x. Membranes and currents are dimensionless, in
    units of the threshold's scale; decay is per time step.

    Returns (spikes [T, N, ...], h[T−1] [N, ...]). Starting again from the returned membrane continues the window
    exactly: the scan is bit-equal under any chunking. Channels-last tensors stay channels-last. The fast paths have first
    derivatives alone; `staa.reference` chooses the reference path.

    The spike's gradient is the surrogate's slope at v − threshold, strict or not. detach_reset=True keeps the reset out of
    the backward pass (Zenke & Vogels 2021).

    Raises ValueError on a wrong rank, dtype or shape, an unknown reset, and a number that is not finite, a decay outside
    [0, 1] or a threshold of 0 or less (the values of tensors are not looked at); TypeError on what is no tensor; RuntimeError
    on a fast path's second derivatives and under torch.func.
    """
    _check(x, v, scale, shift, decay=decay, gain=gain, threshold=threshold)
    check_options(strict, detach_reset, reset, surrogate)
    options = {"decay": decay, "gain": gain, "threshold": threshold, "scale": scale, "shift": shift}
    options |= {"strict": strict, "reset": reset, "surrogate": surrogate, "detach_reset": detach_reset}
    result = None if reference_chosen() else fused(x, v, **options)
    return lif_reference(x, v, **options) if result is None else result


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
    """The equations of `lif`, one line each, with no checks: what every faster path is tested against."""
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
    """The charge of `lif` without firing: v[t] = decay · v[t−1] + gain · (scale · x[t] + shift).

    Shapes, dtypes and errors as for `lif`. Returns (membranes [T, N, ...], the last one [N, ...]),
    in float32 for half precision.
    """
    _check(x, v, scale, shift, decay=decay, gain=gain)
    current = _current(x, scale, shift)
    v = torch.zeros_like(current[0]) if v is None else v
    trace = []
    for i in _steps(current):
        v = decay * v + gain * i
        trace.append(v)
    return _join(trace, x), v


def _current(x: Tensor, scale: Tensor | None, shift: Tensor | None) -> Tensor:
    x = x.to(_charge_dtype(x))
    if scale is not None:
        x = x * scale
    return x if shift is None else x + shift


def _steps(x: Tensor) -> tuple[Tensor, ...]:
    """x[0], x[1], …: indexing makes the backward pass quadratic in T, and unbind's stacks it, losing channels-last."""
    return x.flatten(0, 1).split(x.shape[1])


def _join(steps: list[Tensor], x: Tensor) -> Tensor:
    """The steps as one tensor [T, N, ...]: torch.cat over the batch keeps channels-last, torch.stack does not."""
    return torch.cat(steps).unflatten(0, x.shape[:2])


def _charge_dtype(x: Tensor) -> torch.dtype:
    """At least float32: the eight bits of bfloat16's mantissa would lose small charges."""
    return torch.promote_types(x.dtype, torch.float32)


def check_numbers(**numbers: float) -> None:
    """Raise ValueError for a constant that is no finite number, and for a threshold that is not positive."""
    for name, value in numbers.items():
        if isinstance(value, bool) or not isinstance(value, NUMBERS) or not -LARGEST <= value <= LARGEST:
            end = " (float32 ends at 3.4e38)" if isinstance(value, NUMBERS) and LARGEST < abs(value) < math.inf else ""
            raise ValueError(f"{name} must be a finite number, got {_short(value)}{end}")
    if numbers.get("threshold", 1.0) <= 0:
        raise ValueError(f"threshold must be positive, got {numbers['threshold']}")


def check_options(strict: bool, detach_reset: bool, reset: str, surrogate: Surrogate) -> None:
    """Raise ValueError for an option that is none."""
    for name, flag in (("strict", strict), ("detach_reset", detach_reset)):
        if not isinstance(flag, bool):
            raise ValueError(f"{name} must be True or False, got {flag!r}")
    if reset not in ("zero", "subtract"):
        raise ValueError(f'reset must be "zero" or "subtract", got {reset!r}')
    if not callable(surrogate):
        known = ", ".join(SURROGATES)
        raise ValueError(f"surrogate must be a function such as staa.ops.arctan, got {surrogate!r}; staa.ops has {known}")


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) < 100 else f"{text[:80]} …"


def _check(x: Tensor, v: Tensor | None, scale: Tensor | None, shift: Tensor | None, **constants: float | Tensor) -> None:
    for name, value in (("the current", x), ("the membrane", v), ("scale", scale), ("shift", shift)):
        if not isinstance(value, Tensor) and (value is not None or value is x):
            raise TypeError(f"{name} must be a tensor{'' if value is x else ' or None'}, got {_short(value)}")
    for name, value in {**constants, "scale": scale, "shift": shift}.items():
        if isinstance(value, Tensor) and not value.is_floating_point():
            raise ValueError(f"{name} must be a float tensor, got {value.dtype}; call .float() on it")
    numbers = {name: value for name, value in constants.items() if not isinstance(value, Tensor)}
    check_numbers(**numbers)
    if not 0 <= numbers.get("decay", 0.0) <= 1:
        raise ValueError(f"decay must be in [0, 1], got {numbers['decay']}")
    if x.ndim < 2:
        raise ValueError(f"the current must be [T, N, ...], at least 2 dimensions, got shape {list(x.shape)}")
    if x.shape[0] == 0:
        raise ValueError(f"the current must have at least one time step, got shape {list(x.shape)}")
    if not x.is_floating_point():
        raise ValueError(f"the current must be a float tensor, got {x.dtype}; call .float() on it")
    step, charge = x.shape[1:], _charge_dtype(x)
    if v is not None and (v.shape != step or v.dtype != charge):
        raise ValueError(f"the membrane must be {charge} of the shape of one step {list(step)}, got {v.dtype} {list(v.shape)}")
    for name, value in constants.items():
        if isinstance(value, Tensor) and not _broadcasts(value.shape, step):
            raise ValueError(f"{name} must broadcast with one step {list(step)}, got {list(value.shape)}")
    for name, value in {**constants, "scale": scale, "shift": shift}.items():
        if isinstance(value, Tensor) and value.ndim and torch.promote_types(value.dtype, charge) != charge:
            raise ValueError(f"{name} is {value.dtype} but the current {x.dtype}: give both the same dtype")
    for name, term in (("scale", scale), ("shift", shift)):
        if term is not None and not (term.ndim == x.ndim and _broadcasts(term.shape, x.shape)):
            raise ValueError(f"{name} must broadcast with the current {list(x.shape)}, got {list(term.shape)}")


def _broadcasts(shape: torch.Size, onto: torch.Size) -> bool:
    """Whether a tensor of `shape` expands to exactly `onto`."""
    lead = len(onto) - len(shape)
    return lead >= 0 and all(a in (1, b) for a, b in zip(shape, onto[lead:], strict=True))
