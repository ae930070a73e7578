"""Options of what a recipe names, as in attention=("staa", {"reduction": 8}): its keyword-only parameters of plain type."""

import inspect
import reprlib
from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Any, Literal, NamedTuple

from staa.recipes.values import alternatives, fits, told
from staa.registry import did_you_mean, nearest

Option = int | float | bool | str | None
PLAIN = (int, float, bool, str, type(None))
Part = tuple[str, Mapping[str, Option] | tuple[tuple[str, Option], ...]]
"""A name and its options, given as a dict and kept as sorted pairs: recipes are compared and hashed."""


def as_part(value: Any, field: str) -> Any:
    """A name with options as it is kept, a name alone if there are none. Other values stay as they are.

    Raises ValueError if it is no name with options, or an option is not plain. Whether the part takes them is not known here.
    """
    if not isinstance(value, tuple | list):
        return value
    try:
        name, options = value
        options = dict(options)
        fine = isinstance(name, str)
    except (TypeError, ValueError):
        fine = False
    if not fine:
        raise ValueError(f'{field} must be a name, or one with options as ("name", {{"size": 3}}); got {reprlib.repr(value)}')
    for key, option in options.items():
        if not isinstance(key, str) or not key.isidentifier():
            raise ValueError(f"{field} has an option that no Python parameter is called like: {reprlib.repr(key)}")
        if type(option) not in PLAIN:
            raise ValueError(f"{field}.{key} must be a number, a text, True, False or None; got {reprlib.repr(option)}")
        if isinstance(option, float | int) and not abs(option) < 2**53:
            raise ValueError(f"{field}.{key} must be finite and below 2**53; got {reprlib.repr(option)}")
    return (name, tuple(sorted(options.items()))) if options else name


def name_of(part: str | Part) -> str:
    return part if isinstance(part, str) else part[0]


def options_of(part: str | Part | None) -> dict[str, Option]:
    return {} if part is None or isinstance(part, str) else dict(part[1])


class Taken(NamedTuple):
    """An option that a part takes.

    hint: its type; default: `inspect.Parameter.empty` if it must be given; functions: those that its values name, if they do.
    """

    hint: Any
    default: Any
    functions: Mapping[str, Any] | None = None


def taken(f: Any, *, given: Collection[str] = (), functions: Mapping[str, Mapping[str, Any]] | None = None) -> dict[str, Taken]:
    """The options of a part, by its signature: keyword-only parameters of type int, float, bool, str, None or Literal.

    given: parameters that the library sets itself. functions: those by name that a parameter takes, as in
    `staa.registry.Registry`.
    """
    try:
        signature = inspect.signature(f, eval_str=True)
    except Exception:  # an annotation that can't be evaluated may raise anything
        try:
            signature = inspect.signature(f)
        except (TypeError, ValueError):  # nothing that is called, or not one of Python's
            return {}
    found = {}
    for p in signature.parameters.values():
        if p.kind is not p.KEYWORD_ONLY or p.name in given:
            continue
        named = (functions or {}).get(p.name, {})
        default = next((name for name, function in named.items() if function is p.default), None)
        if default is not None:
            found[p.name] = Taken(Literal[tuple(named)], default, named)  # type: ignore[valid-type]
            continue
        unknown_type = p.annotation is p.empty or isinstance(p.annotation, str)
        hint: Any = type(p.default) if unknown_type else p.annotation
        if all(a in PLAIN or type(a) in PLAIN for a in alternatives(hint)) and not (unknown_type and p.default is None):
            found[p.name] = Taken(hint | None if p.default is None else hint, p.default)
    return found


def bind(
    f: Callable[..., Any],
    options: Mapping[str, Option],
    *,
    what: str,
    field: str,
    given: Collection[str] = (),
    functions: Mapping[str, Mapping[str, Any]] | None = None,
) -> Callable[..., Any]:
    """The part with its options. what: the part, in words; field: the recipe's; given, functions: as for `taken`.

    Raises ValueError for an option that the part does not take, one of another type, and one that is missing.
    """
    known = taken(f, given=given, functions=functions)
    for name, value in options.items():
        if name not in known:
            raise ValueError(takes_no(what, f"{field}.{name}", known))
        if not fits(value, known[name].hint):
            raise ValueError(f"`{field}.{name}` must be {told(known[name].hint)}; got {value!r}")
    for name, option in known.items():
        if option.default is inspect.Parameter.empty and name not in options:
            raise ValueError(f"{what} needs `{field}.{name}`: {told(option.hint)}")
    values = {name: value if (named := known[name].functions) is None else named[str(value)] for name, value in options.items()}
    return partial(f, **values) if values else f


def takes_no(what: str, option: str, known: Collection[str]) -> str:
    """What to say of an option (`model.attention.reduktion`) that a part does not take."""
    rule = "it has no options, which are keyword-only parameters of type int, float, bool, str or Literal"
    hint = did_you_mean(nearest(option.rpartition(".")[2], known))
    some = f"its options are {', '.join(known)}" if known else rule
    return f"{what} takes no `{option}`; {f'{hint} ' if hint else ''}{some}"
