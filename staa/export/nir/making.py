"""Nodes of a NIR graph as modules; what a node holds is checked, as a stranger may have written it."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from staa.layers import PerStep
from staa.neurons import LIF, AdaptiveLIF, Integrator

DIMENSION = 2**31
"""What no size reaches."""


def _conv(node: Any, shape: tuple[int, ...], dt: float) -> nn.Module:
    weight, bias = _floats(node.weight, 4), _floats(node.bias, 1)
    if _whole(node.groups) != 1 or weight.shape[:1] != bias.shape:
        raise ValueError(f"it must have one group and a bias for each channel, got {node.groups} and {list(bias.shape)}")
    padding = node.padding if isinstance(node.padding, str) else _pair(node.padding, 0)
    outputs, inputs, *kernel = weight.shape
    conv = nn.Conv2d(inputs, outputs, tuple(kernel), _pair(node.stride), padding, _pair(node.dilation))
    return PerStep(_with(conv, weight, bias))


def _linear(node: Any, shape: tuple[int, ...], dt: float) -> nn.Module:
    weight, bias = _floats(node.weight, 2), getattr(node, "bias", None)
    if shape != weight.shape[1:]:
        raise ValueError(f"it takes {list(weight.shape[1:])}, and gets {list(shape)}")
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias is not None)
    return PerStep(_with(linear, weight, None if bias is None else _floats(bias, 1)))


def _pool(node: Any, shape: tuple[int, ...], dt: float) -> nn.Module:
    divisor = 1 if type(node).__name__ == "SumPool2d" else None
    sizes = _pair(node.kernel_size), _pair(node.stride), _pair(node.padding, 0)
    return PerStep(nn.AvgPool2d(*sizes, divisor_override=divisor))


def _flatten(node: Any, shape: tuple[int, ...], dt: float) -> nn.Module:
    start, end = (_whole(k) for k in (node.start_dim, node.end_dim))
    return PerStep(nn.Flatten(1 + start % len(shape), 1 + end % len(shape)))


def _lif(node: Any, shape: tuple[int, ...], dt: float) -> nn.Module:
    """decay = 1 − dt/τ, gain = dt R/τ, and v counted from v_leak = v_reset on."""
    tau, r = _floats(node.tau), _floats(node.r)
    if not (tau >= dt).all():
        raise ValueError(f"its time constant must be dt, {dt}, or longer, got {tau.min():.4g}: tell from_nir another dt")
    return _firing(node, shape, 1 - dt / tau, dt * r / tau, _floats(node.v_leak))


def _if(node: Any, shape: tuple[int, ...], dt: float) -> nn.Module:
    r = _floats(node.r)
    return _firing(node, shape, np.ones_like(r), dt * r, _floats(node.v_reset))


def _firing(node: Any, shape: tuple[int, ...], decay: np.ndarray, gain: np.ndarray, rest: np.ndarray) -> nn.Module:
    if not np.array_equal(np.broadcast_to(_floats(node.v_reset), shape), np.broadcast_to(rest, shape)):
        raise ValueError("its v_reset must be its v_leak, as a neuron here is reset to its rest")
    threshold = _constant(_floats(node.v_threshold) - rest, shape)
    if isinstance(threshold, Tensor):
        raise ValueError("its neurons have different thresholds")
    decay_of, gain_of = _constant(decay, shape), _constant(gain, shape)
    if not (isinstance(decay_of, Tensor) or isinstance(gain_of, Tensor)):
        return LIF(decay=decay_of, gain=gain_of, threshold=threshold, strict=True)
    neuron = AdaptiveLIF(shape[0], threshold=threshold, strict=True)
    with torch.no_grad():
        neuron.decay.copy_(torch.as_tensor(decay_of))
        neuron.gain.copy_(torch.as_tensor(gain_of))
    return neuron


def _li(node: Any, shape: tuple[int, ...], dt: float) -> nn.Module:
    tau, r = _floats(node.tau), _floats(node.r)
    if not (tau >= dt).all() or _floats(node.v_leak).any():
        raise ValueError(f"its time constant must be dt, {dt}, or longer, and its v_leak 0")
    return _integrator(1 - dt / tau, dt * r / tau, shape)


def _i(node: Any, shape: tuple[int, ...], dt: float) -> nn.Module:
    r = _floats(node.r)
    return _integrator(np.ones_like(r), dt * r, shape)


def _integrator(decay: np.ndarray, gain: np.ndarray, shape: tuple[int, ...]) -> nn.Module:
    constants = _constant(decay, shape), _constant(gain, shape)
    if any(isinstance(value, Tensor) for value in constants):
        raise ValueError("its neurons have different constants")
    return Integrator(decay=constants[0], gain=constants[1])


def _constant(values: np.ndarray, shape: tuple[int, ...]) -> Any:
    """One number for all neurons, or a tensor of one for each channel, in float32."""
    values = np.broadcast_to(values, shape).astype(np.float32).reshape(shape[0], -1)
    if not np.isfinite(values).all():
        raise ValueError("its constants are too large for float32")
    if (values != values[:, :1]).any():
        raise ValueError("its neurons have different constants within a channel")
    return values[0, 0].item() if (values[:, 0] == values[0, 0]).all() else torch.from_numpy(values[:, 0].copy())


def _with(layer: Any, weight: np.ndarray, bias: np.ndarray | None) -> nn.Module:
    layer.weight = nn.Parameter(torch.from_numpy(weight.astype(np.float32)))
    if bias is not None:
        if bias.shape != weight.shape[:1]:
            raise ValueError(f"its bias must be [{len(weight)}], got {list(bias.shape)}")
        layer.bias = nn.Parameter(torch.from_numpy(bias.astype(np.float32)))
    return layer


def _floats(value: Any, rank: int | None = None) -> np.ndarray:
    value = np.asarray(value)
    if value.dtype.kind not in "iuf" or value.size == 0 or (rank is not None and value.ndim != rank):
        raise ValueError(
            f"it must hold numbers{'' if rank is None else f' in {rank} dimensions'}, got {value.dtype} {list(value.shape)}"
        )
    if not np.isfinite(value).all():
        raise ValueError("its numbers must be finite")
    return value.astype(np.float64)


def _whole(value: Any) -> int:
    value = np.asarray(value)
    if value.dtype.kind not in "iu" or value.shape != () or not -DIMENSION < value < DIMENSION:
        raise ValueError(f"it must have a whole number, got {str(value)[:40]}")
    return int(value)


def _pair(value: Any, least: int = 1) -> tuple[int, int]:
    value = np.asarray(value)
    if value.dtype.kind not in "iu" or value.shape not in ((), (2,)) or not ((value >= least) & (value < DIMENSION)).all():
        raise ValueError(f"its sizes must be whole numbers from {least} on, one or two, got {str(value)[:40]}")
    height, width = np.broadcast_to(value, 2)
    return int(height), int(width)


MAKERS: dict[str, Callable[[Any, tuple[int, ...], float], nn.Module]] = {
    "Conv2d": _conv,
    "Linear": _linear,
    "Affine": _linear,
    "AvgPool2d": _pool,
    "SumPool2d": _pool,
    "Flatten": _flatten,
    "LIF": _lif,
    "IF": _if,
    "LI": _li,
    "I": _i,
}
"""Node of NIR -> what makes its module."""
