"""Folding: which modules may be applied by their weights without being called, since nobody would notice."""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

from torch import Tensor, nn
from torch.nn.modules import module as everywhere


class Passive:
    """A hook that only takes notes, such as Passive(print): the module it is on may still be folded, and then is not called.

    Args:
        f: What is called with the hook's arguments; what it returns is dropped.
    """

    def __init__(self, f: Callable[..., None]):
        self.f = f

    def __call__(self, *args: Any) -> None:
        self.f(*args)


class Resumed(partial):
    """What stands for a module's forward while a stream goes on: its scan, from where it was."""


def hooked(module: nn.Module) -> bool:
    """Whether a hook of any kind waits for the module's call, its own or one for all modules; `Passive` ones don't count."""
    return bool(
        (module._forward_hooks and not _passive(module._forward_hooks))
        or (module._forward_pre_hooks and not _passive(module._forward_pre_hooks))
        or module._backward_hooks
        or module._backward_pre_hooks
        or everywhere._global_forward_hooks
        or everywhere._global_forward_pre_hooks
        or everywhere._global_backward_hooks
        or everywhere._global_backward_pre_hooks
    )


def untouched(module: nn.Module) -> bool:
    """Whether calling the module comes to running the forward that its class was written with.

    It does not if there is a hook, a forward or compiled call of its own, or if the forward was patched for the whole class.
    """
    return (
        not hooked(module)
        and module._compiled_call_impl is None
        and "forward" not in module.__dict__
        and _as_written(type(module))
    )


def _as_written(kind: type[nn.Module]) -> bool:
    """Whether its forward, own or inherited, has the name of a function written in that class, and wraps no other."""
    for base in kind.__mro__:
        if "forward" in base.__dict__:
            forward = base.__dict__["forward"]
            name = getattr(forward, "__module__", None), getattr(forward, "__qualname__", None)
            return name == (base.__module__, f"{base.__qualname__}.forward") and not hasattr(forward, "__wrapped__")
    return False


# torch.compile knows no function's name. This is what torch.compiler.assume_constant_result sets, without importing dynamo.
_as_written._dynamo_marked_constant = True  # type: ignore[attr-defined]


def plain(module: nn.Module, kind: type[nn.Module]) -> bool:
    """Whether it is exactly PyTorch's `kind`, untouched, its parameters ordinary tensors: then they may be read without a call.

    It is not if it is a subclass, nor what parametrizations, pruning, weight_norm, quantization or an adapter have made of it.
    """
    return type(module) is kind and untouched(module) and all(type(p) in _ORDINARY for p in module._parameters.values())


_ORDINARY = (nn.Parameter, Tensor, type(None))


def fold_of(module: nn.Module) -> Literal["fold", "affine"] | None:
    """How a module that acts on the current is folded: by its fold or its affine, or not: then it is called.

    It is called if anything hangs on the call (see `untouched`), if it has neither, and if a subclass has a forward
    of its own above an inherited fold or affine, which would be gone round.
    """
    if not untouched(module):
        return None
    for kind in type(module).__mro__:
        if "fold" in kind.__dict__:
            return "fold"
        if "affine" in kind.__dict__:
            return "affine"
        if "forward" in kind.__dict__:
            return None
    return None


def _passive(hooks: Any) -> bool:
    return all(type(hook) is Passive for hook in hooks.values())
