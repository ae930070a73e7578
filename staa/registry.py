"""A dict of what can be named, which says in words what it does not hold."""

import difflib
from collections.abc import Iterable, Mapping
from typing import Any, NoReturn, TypeVar

MOST, FIRST = 20, 4  # names that a message lists, and if there are more
V = TypeVar("V")


class Registry(dict[str, V]):
    """A dict by name, read and extended as any dict is: REGISTRY["mine"] = thing.

    Args:
        what: an entry, in words.
        where: how the registry is called in Python.
        entries: its first ones.
        functions: functions by name, for each option of an entry that takes a function, such as a neuron's surrogate.

    Raises KeyError for an unknown name, with the nearest ones.
    """

    def __init__(
        self, what: str, where: str, entries: Mapping[str, V], *, functions: Mapping[str, Mapping[str, Any]] | None = None
    ):
        super().__init__(entries)
        self.what, self.where, self.functions = what, where, functions or {}

    def __missing__(self, name: object) -> NoReturn:
        raise KeyError(f"{unknown(self.what, name, self)} (sorted({self.where}) lists all)")


def unknown(what: str, name: object, known: Iterable[str]) -> str:
    """What to say of a name that is not known: the nearest ones, or the first ones if none is near."""
    known = list(known)
    first = ", ".join(known) if len(known) <= MOST else f"{', '.join(known[:FIRST])} and {len(known) - FIRST} more"
    hint = did_you_mean(nearest(name, known)) or f"known: {first}"
    return f"unknown {what} {name!r}; {hint}"


def nearest(name: object, known: Iterable[str]) -> list[str]:
    return difflib.get_close_matches(str(name), list(known), n=2)


def did_you_mean(names: Iterable[str]) -> str:
    """A question; empty if there are no names."""
    names = list(names)
    return f"did you mean {' or '.join(names)}?" if names else ""
