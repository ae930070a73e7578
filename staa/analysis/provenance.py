"""What tensors are made of, followed from operation to operation: spikes are known by where they come from, not by values.

A kind belongs to a storage, so that all views of it share theirs and what is written through one counts for all. An operation
that isn't listed makes real numbers.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._pytree import tree_leaves

REAL, SPIKES, UNWRITTEN = range(3)
"""Any numbers; spikes and sums of them, whole numbers from 0 up; memory that holds nothing yet."""


class Kinds:
    """The kinds of tensors, while operations run under a TorchDispatchMode that tells it of each."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[StorageWeakRef, int]] = {}  # a weak reference keeps an address from being used anew
        self._fixed: dict[int, StorageWeakRef] = {}

    def of(self, x: Tensor) -> int:
        if x.dtype == torch.bool:
            return SPIKES
        if (storage := _storage(x)) is None:
            return REAL
        return self._known[storage._cdata][1] if storage._cdata in self._known else REAL

    def mark(self, x: Tensor, kind: int) -> None:
        if (storage := _storage(x)) is not None:
            self._known[storage._cdata] = StorageWeakRef(storage), kind

    def fix(self, x: Tensor) -> None:
        """Note that x is a weight or a constant, as is all that is made of such alone. Any other hangs on the inputs."""
        if (storage := _storage(x)) is not None:
            self._fixed[storage._cdata] = StorageWeakRef(storage)

    def fixed(self, x: Tensor) -> bool:
        return (storage := _storage(x)) is not None and storage._cdata in self._fixed

    def follow(self, func: Any, args: Any, kwargs: Any, out: Any) -> None:
        """After func(*args, **kwargs) gave out."""
        name = func.name().removeprefix("aten::").partition(".")[0]
        self._follow_fixed(name, func, args, kwargs, out)
        if func._schema.is_mutable:
            kind = self._kind(name.removesuffix("_"), args, kwargs)
            for x in _written(func, args, kwargs):
                self.mark(x, min(self.of(x), kind))
            return
        if name == "view" and "dtype" in func.name():  # the same bytes as other numbers
            self.mark(out, REAL)
        elif kind := self._kind(name, args, kwargs):
            (first, *_) = tensors_in(out) or [None]  # the others are membranes and indices; pieces share one storage
            if first is not None and not func.is_view:
                self.mark(first, kind)

    def _follow_fixed(self, name: str, func: Any, args: Any, kwargs: Any, out: Any) -> None:
        fixed = name not in EMPTY and all(self.fixed(x) for x in tensors_in((args, kwargs)))
        for x in (*tensors_in(out), *_written(func, args, kwargs)):
            if fixed:
                self.fix(x)
            elif (storage := _storage(x)) is not None:
                self._fixed.pop(storage._cdata, None)

    def _kind(self, name: str, args: Any, kwargs: Any) -> int:
        if name in EMPTY:
            return UNWRITTEN
        if name in ("zeros", "zeros_like", "new_zeros", "zero", "bernoulli", "staa::lif"):  # a comparison's are bool
            return SPIKES
        if name in FIRST:
            return self.of(args[0])
        if name == "constant_pad_nd":
            return self.of(args[0]) if not any((*args[2:], *kwargs.values())) else REAL
        lowest = min((self.of(x) for x in tensors_in(args)), default=REAL)
        if name in ("copy", "cat", "stack", "mm", "bmm"):
            return lowest
        both = len(args) > 1 and isinstance(args[-1], Tensor) and kwargs.get("alpha", 1) == 1  # not with a number
        return lowest if both and name in ("add", "mul", "maximum", "minimum", "where") else REAL


EMPTY = {"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided"}
FIRST = {
    "clone", "_to_copy", "sum", "cumsum", "index", "index_select", "gather", "masked_select", "roll", "flip", "repeat",
    "relu", "abs", "max", "amax", "min", "amin", "sort", "topk", "max_pool2d_with_indices", "adaptive_max_pool2d",
    "max_pool3d_with_indices", "upsample_nearest1d", "upsample_nearest2d", "pixel_shuffle", "pixel_unshuffle", "im2col",
    "lift_fresh", "unfold_copy", "view_copy", "_unsafe_index", "_reshape_copy",
}  # fmt: skip
"""What moves the numbers of its first argument about, chooses among them or adds them up."""


def tensors_in(tree: Any) -> list[Tensor]:
    return [x for x in tree_leaves(tree) if isinstance(x, Tensor)]


def _written(func: Any, args: Any, kwargs: Any) -> Iterator[Tensor]:
    for i, argument in enumerate(func._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            yield from tensors_in(args[i] if i < len(args) else kwargs.get(argument.name))


def _storage(x: Tensor) -> Any:
    try:
        return x.untyped_storage()
    except (NotImplementedError, RuntimeError):  # sparse tensors have none
        return None
