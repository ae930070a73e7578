"""Bytes an element that a site moves to and from memory in a training step, and keeps:  python -m benchmarks.traffic

Counted and not timed: each operation's tensors that are as large as the window. The operations run on the CPU and are those of
CUDA. SpikingJelly's are counted from its source, 2.0.0.
"""

from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from staa.analysis.provenance import tensors_in
from staa.attention import STAA
from staa.layers import Site, fold_batch_norm, per_step
from staa.neurons import LIF

TWICE = ("aten::native_batch_norm", "aten::native_batch_norm_backward")
"""torch's BatchNorm reads its inputs for the sums and again for each element. (cuDNN may keep a small window on the chip.)"""
NO_TRAFFIC = ("aten::detach", "aten::empty", "aten::new_empty")
SHAPE = (4, 2, 32, 8, 8)

Traffic = tuple[float, float, float]
"""Bytes an element: moved forward, moved backward, kept in between."""


class _Counter(TorchDispatchMode):
    """The bytes that operations read and write of tensors of as many elements as the window, or more."""

    def __init__(self, elements: int):
        super().__init__()
        self.elements, self.bytes = elements, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if not func.is_view and not func.name().startswith(NO_TRAFFIC):
            read, written = (sum(map(self._size, tensors_in(p))) for p in ((args, kwargs), out))
            self.bytes += read * (2 if func.name() in TWICE else 1) + written
        return out

    def _size(self, x: Tensor) -> int:
        stored = min(x.nbytes, x.untyped_storage().nbytes())  # less where it is expanded
        return stored if stored >= self.elements * x.element_size() else 0


def traffic(site: Callable[[Tensor], Tensor], dtype: torch.dtype = torch.bfloat16) -> Traffic:
    """Of a site that maps a window [T, N, C, H, W], a convolution's output, to spikes."""
    x = torch.randn(SHAPE).flatten(0, 1).contiguous(memory_format=torch.channels_last).unflatten(0, SHAPE[:2])
    x = x.to(dtype).requires_grad_()
    kept: dict[int, int] = {}

    def keep(p: Tensor) -> Tensor:
        if p.numel() >= x.numel():
            kept[p.untyped_storage().data_ptr()] = p.nbytes
        return p

    half = torch.autocast("cpu", dtype, enabled=dtype != torch.float32)
    with half, torch.autograd.graph.saved_tensors_hooks(keep, lambda p: p), _Counter(x.numel()) as forward:
        spikes = site(x)
    up = torch.randn_like(spikes)
    with _Counter(x.numel()) as backward:
        torch.autograd.grad(spikes, x, up)
    return forward.bytes / x.numel(), backward.bytes / x.numel(), sum(kept.values()) / x.numel()


def spikingjelly(dtype: torch.dtype = torch.bfloat16) -> Traffic:
    """LIFNode's Triton kernels: forward reads x and writes spikes and membranes, backward reads those and the gradient that
    arrives and writes x's; x and the membranes are kept. Its membranes are float32."""
    x, membranes = dtype.itemsize, 4
    return x + x + membranes, x + membranes + x, x + membranes


def table(dtype: torch.dtype = torch.bfloat16) -> list[tuple[str, Traffic]]:
    """Each kind of site: what it was on CUDA, folded, and with SpikingJelly's neuron behind torch's BatchNorm."""
    torch.manual_seed(0)
    norm, neuron = nn.BatchNorm2d(SHAPE[2]), Site(LIF())
    attention = Site(LIF(), STAA(SHAPE[0], SHAPE[2], dropout=0.0))
    with patch("staa.ops.averages.served", lambda x: False):
        gates = traffic(lambda x: attention(per_step(norm, x)), dtype)
    alone, plain = (traffic(f, dtype) for f in (neuron, lambda x: neuron(per_step(norm, x))))
    jelly = spikingjelly(dtype)
    behind = tuple(a - b + c for a, b, c in zip(plain, alone, jelly, strict=True))
    return [
        ("neuron", alone),
        ("neuron, SpikingJelly", jelly),
        ("BatchNorm, neuron: before", plain),
        ("BatchNorm, neuron: folded", traffic(lambda x: neuron(fold_batch_norm(x, norm)), dtype)),
        ("BatchNorm, neuron: SpikingJelly", behind),
        ("BatchNorm, STAA, neuron: before", gates),
        ("BatchNorm, STAA, neuron: folded", traffic(lambda x: attention(fold_batch_norm(x, norm)), dtype)),
    ]


def rows(dtype: torch.dtype = torch.bfloat16) -> list[str]:
    return [f"| {name} | {' | '.join(f'{number:g}' for number in numbers)} |" for name, numbers in table(dtype)]


if __name__ == "__main__":
    for dtype in (torch.bfloat16, torch.float32):
        print(dtype, *rows(dtype), sep="\n")
