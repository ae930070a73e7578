"""The CUDA kernels, in Triton, with the interface of staa.ops.cpu."""

from staa.ops.averages_triton import of_frames
from staa.ops.bits_triton import pack, unpack
from staa.ops.lif_triton import lif_backward, lif_forward, serves

__all__ = ["lif_backward", "lif_forward", "of_frames", "pack", "serves", "unpack"]
