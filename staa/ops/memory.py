"""Which kernels serve a device, and the orders in memory that they take."""

from typing import Any

from torch import Tensor

from staa.ops import cpu

KERNELS: dict[str, Any] = {"cpu": cpu}


def kernels_of(device: str) -> Any:
    """The module with the kernels of a type of device, or None. Triton is imported when the first tensor on CUDA comes."""
    if device == "cuda" and "cuda" not in KERNELS:
        try:
            from staa.ops import cuda
        except ImportError:  # not every torch brings Triton
            cuda = None
        KERNELS["cuda"] = cuda
    return KERNELS.get(device)


def channels_last(x: Tensor, dim: int = 2) -> bool:
    return x.ndim > dim and x.stride(dim) == 1 and x.movedim(dim, -1).is_contiguous()


def dense(x: Tensor) -> Tensor:
    """x itself if it is contiguous or channels-last in memory, else a contiguous copy."""
    return x if x.is_contiguous() or channels_last(x) else x.contiguous()


def laid_out(p: Tensor, x: Tensor, dim: int) -> Tensor:
    """p, whose channels are dimension `dim`, in the memory order of x."""
    if p.stride() == x.stride()[x.ndim - p.ndim :]:
        return p
    return p.contiguous() if x.is_contiguous() else p.movedim(dim, -1).contiguous().movedim(-1, dim)
