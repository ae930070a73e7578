"""Settings for a function that says by its parameters which it takes."""

import inspect
from collections.abc import Callable, Iterable
from typing import Any


def settings_for(f: Callable[..., Any], what: str, *groups: tuple[str, Any, Iterable[str]]) -> dict[str, Any]:
    """Those settings of a recipe that f has parameters for. groups: (part of the recipe, its values, which of them).

    Raises ValueError that names each other one which is not at its default.
    """
    asked = inspect.signature(f).parameters
    given: dict[str, Any] = {}
    odd = []
    for part, values, names in groups:
        default = type(values)()
        for name in names:
            value, plain = getattr(values, name), getattr(default, name)
            if name in asked:
                given[name] = value
            elif value != plain:
                odd.append(f"`{part}.{name}`, which is {value}: leave it out (at {plain})")
    if odd:
        raise ValueError(f"{what} takes no {', and no '.join(odd)}")
    return given
