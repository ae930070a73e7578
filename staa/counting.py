"""How far long work is, for whoever wants to hear of it. By default nobody does."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

T = TypeVar("T")

Tell = Callable[[str, int, int | None], None]
"""tell(what, done, total), done = total at the end. total is None as long as it is not known."""

_tell: ContextVar[Tell | None] = ContextVar("tell", default=None)


@contextmanager
def telling(tell: Tell) -> Iterator[None]:
    """Within, `tell` hears of everything that is `counted`, in this thread. It must be quick."""
    before = _tell.set(tell)
    try:
        yield
    finally:
        _tell.reset(before)


def tell(what: str, done: int, total: int | None) -> None:
    """Tells whoever wants to hear of it."""
    now = _tell.get()
    if now is not None:
        now(what, done, total)


def counted(items: Iterable[T], what: str, total: int | None = None) -> Iterator[T]:
    """The items, told as they are done. total: how many, if it is known."""
    tell = _tell.get()
    return iter(items) if tell is None else _counted(items, what, total, tell)


def _counted(items: Iterable[T], what: str, total: int | None, tell: Tell) -> Iterator[T]:
    done = 0
    tell(what, done, total)
    try:
        for item in items:
            yield item
            done += 1
            tell(what, done, total)
    finally:
        if done != total:  # not known, or given up
            tell(what, done, done)
