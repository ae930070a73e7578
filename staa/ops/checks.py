"""What is checked of a call before any work is done: messages say what was expected, what was given and what to do."""

import math
import warnings
from functools import cache
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from staa.ops.spike import SURROGATES, Surrogate

Reset = Literal["zero", "subtract"]
WHOLE = (int, np.integer, torch.SymInt)  # no union, which torch 2.9 can't trace
NUMBERS = (float, int, np.floating, np.integer, torch.SymFloat, torch.SymInt)
TIME_FIRST = "give images [N, C, H, W] as staa.ops.direct(x, steps=T), and one step as x[None]"
LARGEST = torch.finfo(torch.float32).max  # of a constant


def charge_dtype(x: Tensor) -> torch.dtype:
    """At least float32: the eight bits of bfloat16's mantissa would lose small charges."""
    return torch.promote_types(x.dtype, torch.float32)


def check_tensor(x: Any, what: str) -> None:
    """Raise TypeError for what is no tensor."""
    if not isinstance(x, Tensor):
        array = isinstance(x, np.ndarray)
        given = f"a NumPy array {list(x.shape)}: call torch.from_numpy on it" if array else _short(x)
        raise TypeError(f"{what} must be a tensor, got {given}")


def check_floats(x: Tensor, what: str) -> None:
    """Raise TypeError for what is no tensor, ValueError for one that is not of floats."""
    check_tensor(x, what)
    if not x.is_floating_point():
        raise ValueError(f"{what} must be a float tensor, got {x.dtype}; call .float() on it")


def check_input(x: Tensor, module: nn.Module, what: str = "the input") -> None:
    """Raise TypeError for what is no tensor, ValueError for one without floats, or not of the weights' device and dtype.

    Under autocast any dtype of floats will do.
    """
    check_floats(x, what)
    weight = next((p for p in module.parameters() if p.is_floating_point()), x)
    if x.device != weight.device:
        name, device = type(module).__name__, weight.device
        raise ValueError(
            f"the weights of this {name} are on {device}, {what} is on {x.device}: call .to({str(device)!r}) on it"
        )
    if x.dtype != weight.dtype and not torch.is_autocast_enabled(x.device.type):
        name = type(module).__name__
        raise ValueError(f"the weights of this {name} are {weight.dtype}, {what} is {x.dtype}: call .to({weight.dtype}) on it")


def check_counts(*, least: int = 1, **counts: int) -> None:
    """Raise ValueError for what is no whole number of at least `least`."""
    for name, value in counts.items():
        if isinstance(value, bool) or not isinstance(value, WHOLE) or value < least:
            raise ValueError(f"{name} must be a whole number of at least {least}, got {_short(value)}")


def check_numbers(**numbers: float) -> None:
    """Raise ValueError for a constant that is no finite number, and for a threshold that is not positive."""
    for name, value in numbers.items():
        if isinstance(value, bool) or not isinstance(value, NUMBERS) or not -LARGEST <= value <= LARGEST:
            end = " (float32 ends at 3.4e38)" if isinstance(value, NUMBERS) and LARGEST < abs(value) < math.inf else ""
            raise ValueError(f"{name} must be a finite number, got {_short(value)}{end}")
    if numbers.get("threshold", 1.0) <= 0:
        raise ValueError(f"threshold must be positive, got {numbers['threshold']}")


def check_neuron(channels: int | None, **numbers: float) -> None:
    """Raise ValueError for channels that are no count, nor None, and for a constant that is no finite number."""
    if channels is not None and (isinstance(channels, bool) or not isinstance(channels, int) or channels < 1):
        raise ValueError(f"channels must be a whole number of at least 1, or None, got {channels!r}; all else goes by keyword")
    check_numbers(**numbers)


def check_dims(x: Tensor, dims: int | None, neuron: str) -> None:
    """Raise ValueError for a current of other than `dims` dimensions; without dims, warn once of one that has 4."""
    check_tensor(x, "the current")
    if dims is not None and x.ndim != dims:
        wanted = "[T, N, C, H, W]" if dims == 5 else f"{dims} dimensions, time first,"
        raise ValueError(f"the current must be {wanted} for this neuron, got {list(x.shape)}: {TIME_FIRST}")
    if dims is None and x.ndim == 4 and not torch.compiler.is_compiling():
        _warn_of_dims(neuron)


@cache  # so that it warns once
def _warn_of_dims(neuron: str) -> None:
    warnings.warn(
        f"a current of 4 dimensions is taken as [T, N, ...], time first: if it is a batch of images, {TIME_FIRST}; if time "
        f"does come first, build the neuron as {neuron}(dims=4)",
        stacklevel=6,  # past nn.Module's calls
    )


def check_options(strict: bool, detach_reset: bool, reset: Reset, surrogate: Surrogate) -> None:
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


def check_scan(x: Tensor, v: Tensor | None, scale: Tensor | None, shift: Tensor | None, **constants: float | Tensor) -> None:
    """Raise ValueError or TypeError for arguments of `lif` or `integrate` that don't go together."""
    check_tensor(x, "the current")
    for name, value in (("the membrane", v), ("scale", scale), ("shift", shift)):
        if value is not None and not isinstance(value, Tensor):
            raise TypeError(f"{name} must be a tensor or None, got {_short(value)}")
    for name, value in {**constants, "scale": scale, "shift": shift}.items():
        if isinstance(value, Tensor):
            check_floats(value, name)
            if value.ndim and value.device != x.device:
                raise ValueError(f"{name} is on {value.device} but the current on {x.device}: put both on the same device")
    numbers = {name: value for name, value in constants.items() if not isinstance(value, Tensor)}
    check_numbers(**numbers)
    if not 0 <= numbers.get("decay", 0.0) <= 1:
        raise ValueError(f"decay must be in [0, 1], got {numbers['decay']}")
    if x.ndim < 2:
        raise ValueError(f"the current must be [T, N, ...], at least 2 dimensions, got shape {list(x.shape)}")
    if x.shape[0] == 0:
        raise ValueError(f"the current must have at least one time step, got shape {list(x.shape)}")
    check_floats(x, "the current")
    step, charge = x.shape[1:], charge_dtype(x)
    if v is not None and (v.shape != step or v.dtype != charge or v.device != x.device):
        wanted, given = (
            f"{dtype} {list(shape)} on {p.device}" for dtype, shape, p in ((charge, step, x), (v.dtype, v.shape, v))
        )
        raise ValueError(f"the membrane must be like one step of the current, {wanted}; got {given}")
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
