"""Spikes that wait for the backward pass as bits."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from staa.ops import cpu
from staa.ops.switch import reference_chosen

SMALL = 4096  # elements that are not worth it


def spikes_as_bits() -> AbstractContextManager[Any]:
    """Within, tensors of zeros and ones that autograd keeps for the backward pass are kept as bits: a 32nd of float32.

        with spikes_as_bits():
            logits = model(x)

    Gradients are the same bit for bit. A convolution keeps its input, so in a spiking network about half of what is kept
    are spikes. They are recognised by their values, each once read and, in the backward pass, once written out again. On
    the CPU, in float32 and bfloat16, where the kernels are there; elsewhere, and under `staa.reference`, nothing changes.
    """
    return nullcontext() if reference_chosen() else torch.autograd.graph.saved_tensors_hooks(_pack, _unpack)


def _pack(x: Tensor) -> Any:
    dense = x.numel() >= SMALL and x.device.type == "cpu" and cpu.serves(x.dtype) and _is_dense(x)
    if not dense:
        return x
    bits = torch.empty(-(-x.numel() // 32), dtype=torch.int32)
    if not cpu.pack(x.detach(), bits):
        return x
    return bits, x.shape, x.stride(), x.dtype


def _unpack(kept: Any) -> Tensor:
    if isinstance(kept, Tensor):
        return kept
    bits, shape, stride, dtype = kept
    x = torch.empty_strided(shape, stride, dtype=dtype)
    cpu.unpack(bits, x)
    return x


def _is_dense(x: Tensor) -> bool:
    """Whether the elements lie side by side in memory, in any order of dimensions."""
    expected = 1
    for stride, size in sorted(zip(x.stride(), x.shape, strict=True)):
        if size > 1 and stride != expected:
            return False
        expected *= size
    return True
