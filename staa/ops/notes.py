"""What a network computes and does not put out (the charge of a neuron, the gate of an attention), told to whoever listens."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from torch import nn

Listener = Callable[[nn.Module | None, dict[str, Any]], None]

_listener: ContextVar[Listener | None] = ContextVar("staa.notes", default=None)  # of this thread or task
_open = 0  # listeners, of all threads: torch.compile guards a global, but a ContextVar only from 2.14 on


def note(owner: nn.Module | None, **what: Any) -> None:
    """Tell `staa.record` of tensors that a module computes on its way; nothing if nobody listens.

        gate = self.excite(mean).sigmoid()
        note(self, gate=gate)                   # staa.record gives it as "NAME.gate", with the module's name

    Args:
        owner: The module; None for an operation, which knows no module.
        **what: The tensors by name.
    """
    if listened_to() and (listener := _listener.get()) is not None:
        listener(owner, what)


def listened_to() -> bool:
    """Whether anybody listens: what is made for a note alone need not be made else."""
    return _open > 0 and _listener.get() is not None


@contextmanager
def listening(listener: Listener | None) -> Iterator[None]:
    """Within, each note of this thread goes to the listener, and to no other; None: to nobody."""
    global _open
    token = _listener.set(listener)
    _open += 1
    try:
        yield
    finally:
        _open -= 1
        _listener.reset(token)
