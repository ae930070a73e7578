"""Spikes as bits on CUDA, in Triton: 32 elements a word, in memory order.

Whether a tensor holds zeros and ones alone is a question to the device, and an answer would stop the host until all work
before it is done. So spikes are known by where they come from: the neuron's kernel, and what hands its values on.
"""
# ruff: noqa: N803 — Triton writes constants in capitals
# pyright: reportMissingImports=false, reportCallIssue=false, reportInvalidTypeForm=false, reportAssignmentType=false
# pyright: reportGeneralTypeIssues=false

import torch
import triton
import triton.language as tl
from torch import Tensor

WORDS = 64  # of a program
HANDS_ON = (
    "AliasBackward0", "CloneBackward0", "MaxPool2DWithIndicesBackward0", "PermuteBackward0", "ReshapeAliasBackward0",
    "SliceBackward0", "ToCopyBackward0", "TransposeBackward0", "UnsafeViewBackward0", "ViewBackward0",
)  # fmt: skip
"""Autograd's names of the operations whose outputs are values of their input."""


def pack(x: Tensor) -> Tensor | None:
    """The bits, int32, of a dense x in memory order; None if x is not known to be spikes.

    Behind the words of bits there is one more for each WORDS of them, which says whether x held anything but zeros and ones
    there, as a neuron hands on NaN. Then `unpack` writes NaN for all of those.
    """
    if not _from_a_neuron(x):
        return None
    words = -(-x.numel() // 32)
    programs = triton.cdiv(words, WORDS)
    bits = torch.empty(words + programs, dtype=torch.int32, device=x.device)
    with torch.cuda.device_of(x):
        _pack[(programs,)](x, bits, x.numel(), words, WORDS=WORDS, num_warps=4)
    return bits


def unpack(bits: Tensor, x: Tensor) -> None:
    """Fill a dense x with what was packed."""
    words = -(-x.numel() // 32)
    with torch.cuda.device_of(x):
        _unpack[(triton.cdiv(words, WORDS),)](bits, x, x.numel(), words, WORDS=WORDS, num_warps=4)


def _from_a_neuron(x: Tensor) -> bool:
    """Whether x is the spikes of `staa.ops.lif`, as autograd tells it. A change in place would stand in between, or count."""
    node, output = (x.grad_fn, x.output_nr) if x._version == 0 else (None, 0)
    while node is not None and node.name() in HANDS_ON:
        node, output = node.next_functions[0]
    return node is not None and node.name() == "_LifBackward" and output == 0


@triton.jit
def _words(WORDS: tl.constexpr):
    """This program's words, and the elements they stand for [WORDS, 32]."""
    word = tl.program_id(0).to(tl.int64) * WORDS + tl.arange(0, WORDS)[:, None]
    return word, word * 32 + tl.arange(0, 32)[None, :]


@triton.jit
def _pack(x, bits, count, words, WORDS: tl.constexpr):
    word, at = _words(WORDS)
    value = tl.load(x + at, at < count, 0.0).to(tl.float32)
    one = (value != 0).to(tl.int32) << (at % 32).to(tl.int32)
    tl.store(bits + word, tl.xor_sum(one, 1, keep_dims=True), word < words)
    other = ((value != 0) & (value != 1)).to(tl.int32)
    tl.store(bits + words + tl.program_id(0), tl.max(tl.max(other, 1), 0))


@triton.jit
def _unpack(bits, x, count, words, WORDS: tl.constexpr):
    word, at = _words(WORDS)
    one = (tl.load(bits + word, word < words, 0) >> (at % 32).to(tl.int32)) & 1
    other = tl.load(bits + words + tl.program_id(0))
    value = tl.where(other != 0, float("nan"), one.to(tl.float32))
    tl.store(x + at, value.to(x.dtype.element_ty), at < count)
