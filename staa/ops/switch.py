"""The switch between the fast paths and the reference path, which every operation of staa.ops obeys."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

HOW = "put the forward pass under `with staa.reference():`, or set STAA_REFERENCE=1"

_setting = os.environ.get("STAA_REFERENCE", "")
if _setting not in ("", "0", "1"):
    raise ValueError(f"STAA_REFERENCE must be 1 (the reference path) or 0, got {_setting!r}")
ALWAYS = _setting == "1"

_here: ContextVar[bool] = ContextVar("staa.reference", default=False)  # of this thread or task
_depth: ContextVar[int] = ContextVar("staa.reference.depth", default=0)  # contexts open in it
_lock = threading.Lock()
_open = 0  # contexts, of all threads
_anywhere = False  # whether there are any: torch.compile always guards a global, but a ContextVar only from 2.14 on
_UNTRACED = torch.__version__ < "2.14"  # then a graph breaks at one, and a strict export fails; is_exporting() is always True


@contextmanager
def reference() -> Iterator[None]:
    """Within, operations take their reference paths: plain PyTorch, slower, and open to all that PyTorch can do.

        with staa.reference():
            hessian = torch.func.hessian(loss)(x)

    For second derivatives, torch.func (grad, jvp, jacrev, vmap), export without staa's own operations, and
    torch.autograd.detect_anomaly to name the operation that made a NaN. The forward pass decides: a graph that was made
    within keeps the reference path when it runs backward. Recomputation in the backward pass decides anew, so call backward
    within, too. It holds for this thread and task alone. STAA_REFERENCE=1 in the environment chooses it for a whole process.
    Compiled functions compile anew where it changes, and before torch 2.14 their graphs break there; enter it outside of
    them. A generator that yields within leaves it on for its caller until it goes on, and for its thread if another one closes
    it (Python gives generators no context of their own): don't yield within.
    """
    _count(+1)
    token = _depth.set(_depth.get() + 1)
    _here.set(True)
    try:
        yield
    finally:
        _count(-1)
        depth = _depth.get() - 1
        with suppress(ValueError):  # a generator closed by another thread or task, whose own choice stands
            _depth.reset(token)
            _depth.set(depth)  # and not what it was before: contexts in generators may overlap
            _here.set(depth > 0)


def _count(one: int) -> None:
    global _open, _anywhere
    with _lock:
        _open += one
        _anywhere = _open > 0


def reference_chosen() -> bool:
    if _UNTRACED and _anywhere and torch.compiler._is_exporting_flag:
        return ALWAYS or _chosen_for_export()
    return ALWAYS or (_anywhere and _here.get())


def _chosen_for_export() -> bool:
    """Not traced and not guarded: an export is for good."""
    return _here.get()


_chosen_for_export._dynamo_marked_constant = True  # type: ignore[attr-defined]  # what assume_constant_result does, by dynamo


def refuse_torch_func(operation: str) -> None:
    """Raise RuntimeError within a transform of torch.func, which the fast paths don't know."""
    if not torch.compiler.is_compiling() and torch._C._are_functorch_transforms_active():
        raise RuntimeError(f"the fast path of {operation} does not work under torch.func (grad, jvp, jacrev, vmap): {HOW}")


def refuse_batched(operation: str, *grads: Tensor | None) -> None:
    """Raise RuntimeError for gradients that come many at once: is_grads_batched, jacobian(vectorize=True)."""
    if any(p is not None and torch._C._functorch.is_legacy_batchedtensor(p) for p in grads):  # type: ignore[attr-defined]
        raise RuntimeError(f"the fast path of {operation} takes one gradient at a time, not a batch of them: {HOW}")


def refuse_dual(operation: str, *tensors: Tensor | None) -> None:
    """Raise RuntimeError for a dual tensor. A jvp of the Function's own would break torch.compile."""
    if torch.compiler.is_compiling() or forward_ad._current_level < 0:
        return
    if any(p is not None and forward_ad.unpack_dual(p).tangent is not None for p in tensors):
        raise RuntimeError(f"the fast path of {operation} has no forward-mode derivatives (jvp, linearize): {HOW}")


class _Once(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, operation: str, count: int, *tensors: Tensor | None) -> tuple[Tensor | None, ...]:
        ctx.operation = operation
        return tuple(None if p is None else p.view_as(p) for p in tensors[:count])

    @staticmethod
    def backward(ctx: Any, *_: Any) -> Any:
        raise RuntimeError(f"the fast path of {ctx.operation} has first derivatives alone: for second ones, {HOW}")


def once(operation: str, grads: tuple[Tensor | None, ...], *given: Tensor | None) -> tuple[Tensor | None, ...]:
    """The gradients that a backward pass made of what it was given; to differentiate them raises RuntimeError.

    torch's own once_differentiable looks at the arriving gradients alone, and leaves out what depends on the saved tensors.
    """
    if not torch.is_grad_enabled():  # no create_graph
        return grads
    return _Once.apply(operation, len(grads), *(None if p is None else p.detach() for p in grads), *given)
