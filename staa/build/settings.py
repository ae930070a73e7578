"""Settings for a function that says by its parameters which it takes."""

import inspect
from collections.abc import Callable, Iterable
from typing import Any


def settings_for(f: Callable[..., Any], what: str, *groups: tuple[str, Any, Iterable[str]]) -> dict[str, Any]:
    """The settings of a recipe that f has parameters for. groups: (part of the recipe, its values, which of them).

    Raises ValueError naming all the others that differ from their default.
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
                odd.append((f"`{part}.{name}={value}`", str(plain)))
    if len(odd) == 1:
        raise ValueError(f"{odd[0][0]} is not supported by {what}; remove it (default: {odd[0][1]})")
    if odd:
        names, defaults = (", ".join(texts) for texts in zip(*odd, strict=True))
        raise ValueError(f"{names} are not supported by {what}; remove them (defaults: {defaults})")
    return given
