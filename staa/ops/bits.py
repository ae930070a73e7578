"""Spikes that wait for the backward pass as bits."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from staa.ops.memory import kernels_of
from staa.ops.switch import reference_chosen

SMALL = 4096  # elements that are not worth it
WATCHERS: list[Callable[[Tensor], None]] = []
"""Who is told of each tensor that is kept within `spikes_as_bits`, since other hooks don't see it."""


def spikes_as_bits() -> AbstractContextManager[Any]:
    """Within, tensors of zeros and ones that autograd keeps for the backward pass are kept as bits: a 32nd of float32.

        with spikes_as_bits():
            logits = model(x)

    Gradients are the same bit for bit. A tensor of spikes may be changed in place after that: its bits are a copy. A
    convolution keeps its input, so in a spiking network about half of what is kept are spikes. On the CPU, in float32 and
    bfloat16, they are recognised by their values, each once read and, in the backward pass, once written out again. On CUDA,
    float16 too, they are recognised by their source: a fused neuron and what hands its values on (see staa.ops.bits_triton).
    Where there are no kernels, and under `staa.reference`, nothing changes.
    """
    return nullcontext() if reference_chosen() else torch.autograd.graph.saved_tensors_hooks(_pack, _unpack)


def _pack(x: Tensor) -> Any:
    kept = _packed(x)
    for tell in WATCHERS:
        tell(kept[0])
    return kept


def _packed(x: Tensor) -> Any:
    plain = type(x) in (Tensor, torch.nn.Parameter) and x.layout is torch.strided and not x.is_nested
    kernels = kernels_of(x.device.type) if plain and x.numel() >= SMALL else None
    bits = kernels.pack(x) if kernels is not None and kernels.serves(x.dtype) and _is_dense(x) else None
    return (x, x._version) if bits is None else (bits, x.shape, x.stride(), x.dtype)


def _unpack(kept: Any) -> Tensor:
    if isinstance(kept[0], Tensor) and len(kept) == 2:
        x, version = kept
        if x._version != version:  # torch checks it for what no hook has seen
            raise RuntimeError(
                f"a tensor {list(x.shape)} that the backward pass needs was changed in place since: it is at version "
                f"{x._version}, and was at {version} in the forward pass"
            )
        return x
    bits, shape, stride, dtype = kept
    x = torch.empty_strided(shape, stride, dtype=dtype, device=bits.device)
    kernels_of(x.device.type).unpack(bits, x)
    return x


def _is_dense(x: Tensor) -> bool:
    """Whether the elements lie side by side in memory, in any order of dimensions."""
    expected = 1
    for stride, size in sorted(zip(x.stride(), x.shape, strict=True)):
        if size > 1 and stride != expected:
            return False
        expected *= size
    return True
