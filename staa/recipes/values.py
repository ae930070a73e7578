"""Whether a value is of an annotated type, and how all that is wrong is told at once."""

import dataclasses
import functools
import reprlib
import types
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

_hints = functools.cache(get_type_hints)


def check_types(values: Any, prefix: str = "") -> None:
    """Raises ValueError for a field whose value is not of its annotated type; a whole number passes for a float."""
    for name, hint in _hints(type(values)).items():
        value = getattr(values, name)
        if not fits(value, hint):
            raise ValueError(f"{prefix}{name} must be {told(hint)}; got {reprlib.repr(value)}")


def raise_all(errors: list[str]) -> None:
    """Raises ValueError with all of these, if there are any."""
    if len(errors) == 1:
        raise ValueError(errors[0])
    if errors:
        raise ValueError(f"{len(errors)} settings are wrong: " + "; ".join(f"({k}) {e}" for k, e in enumerate(errors, 1)))


def field_names(part: Any) -> set[str]:
    """The fields of a part of a recipe, or of its class."""
    return {field.name for field in dataclasses.fields(part)}


def fits(value: Any, hint: Any) -> bool:
    allowed = alternatives(hint)
    chosen = any(type(a) is type(value) and a == value for a in allowed if not isinstance(a, type))
    return type(value) in allowed or chosen or (float in allowed and type(value) is int)


def told(hint: Any) -> str:
    """An annotation in words."""
    return ", ".join(
        "None" if a in (None, type(None)) else a.__name__ if isinstance(a, type) else repr(a) for a in alternatives(hint)
    )


def alternatives(hint: Any) -> list[Any]:
    """The types and literal values an annotation allows."""
    if get_origin(hint) is Literal:
        return list(get_args(hint))
    if get_origin(hint) in (types.UnionType, Union):
        return [a for part in get_args(hint) for a in alternatives(part)]
    return [get_origin(hint) or hint]


def rates_in(text: str | None) -> dict[str, float]:
    """Learning rates by name or pattern, as `optim.lr_of` has them. Raises ValueError for another text."""
    rates: dict[str, float] = {}
    for part in [] if text is None else text.split(","):
        name, _, value = part.strip().partition("=")
        try:
            rate = float(value)
        except ValueError:
            raise ValueError(f"`optim.lr_of` must be like readout=0.01,stages*=0.001; got {part.strip()!r}") from None
        if not name or name in rates:
            raise ValueError(f"`optim.lr_of` must name each part once, got {text!r}")
        rates[name] = rate
    return rates
