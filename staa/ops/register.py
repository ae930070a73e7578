"""Operations under torch.ops.staa: opaque to torch.compile and torch.export, known by their shapes."""

from collections.abc import Callable
from typing import Any

import torch

_LIBRARY = torch.library.Library("staa", "DEF")


def register(name: str, f: Callable[..., Any], fake: Callable[..., Any], autograd: Callable[..., Any] | None = None) -> None:
    """Make f torch.ops.staa.NAME for every device; fake gives empty tensors of its outputs' shapes.

    autograd: the `apply` of an autograd.Function that calls NAME below autograd, if it has a gradient.

    torch.library.custom_op and register_autograd do this and more at every call, such as to look for outputs that alias
    inputs, which takes longer than a small neuron: none of ours do, and opcheck in the tests says so.
    """
    _LIBRARY.define(name + torch.library.infer_schema(f, mutates_args=()))
    _LIBRARY.impl(name, f, "CompositeExplicitAutograd")
    torch.library.register_fake(f"staa::{name}", fake)
    if autograd is not None:
        _LIBRARY.impl(name, autograd, "Autograd")
