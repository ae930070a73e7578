"""Options by name, and messages of the library told in them."""

import dataclasses
import re
from collections.abc import Collection, Sequence
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import tyro

from staa.recipes.find import KINDS
from staa.recipes.recipe import Recipe

NAMES = {"data_root": "data", "trust": "trust-code"}
"""Arguments of the library whose flag is called otherwise."""
PARTS = tuple(f"--{field}." for field in dict.fromkeys(field for field, _ in KINDS.values()))
"""What the options of parts begin with, such as --model.attention.reduction."""
HIDDEN, POSITIONAL = get_args(tyro.conf.Suppress[str])[1], get_args(tyro.conf.Positional[str])[1]
APPENDED = get_args(tyro.conf.UseAppendAction[str])[1]


def hints_of(kind: Any) -> dict[str, tuple[Any, list[Any]]]:
    """The type of each field, and tyro's marks on it."""
    hints = get_type_hints(kind, include_extras=True)
    split = {key: get_args(hint) if get_origin(hint) is Annotated else [hint] for key, hint in hints.items()}
    return {key: (hint, marks) for key, (hint, *marks) in split.items()}


def types_of(kind: Any, prefix: str = "") -> dict[str, Any]:
    """The options of a dataclass and their types, nested ones as part.option; the recipe's own come without a prefix."""
    types: dict[str, Any] = {}
    for key, (hint, marks) in hints_of(kind).items():
        if HIDDEN in marks:
            continue
        if dataclasses.is_dataclass(hint):
            types |= types_of(hint, "" if hint is Recipe else f"{prefix}{key}.")
        else:
            types[prefix + key.replace("_", "-")] = hint
    return types


def flags_of(kind: Any) -> set[str]:
    """The options of a dataclass, as `types_of` names them."""
    return set(types_of(kind))


def in_flags(text: object, kind: Any) -> str:
    """A message of the library, with each `argument` or `argument=value` in it as the flag that says so to this command.

    The library names arguments of Python and settings of a recipe between backticks, since it knows no command. `sensor` is
    --sensor where the command has it, and --data.sensor where only its recipe does; what no flag says stays as it is.
    """
    own = set() if kind is None else flags_of(kind)

    def flag(found: re.Match[str]) -> str:
        name, value = NAMES.get(found[1], found[1].replace("_", "-")), found[2]
        if f"--{name}".startswith(PARTS):
            return f"--{name}" + (f" {value}" if value else "")
        fitting = {name} & (own | flags_of(Recipe)) or {f for f in own if f.endswith(f".{name}")}
        if len(fitting) != 1:
            return found[0]
        part, dot, last = fitting.pop().rpartition(".")
        if value in ("True", "False"):
            return f"--{part}{dot}{'no-' if value == 'False' else ''}{last}"
        return f"--{part}{dot}{last}" + (f" {value}" if value else "")

    return re.sub(r"`([a-z][\w.]*)(?:=([^\s`]+))?`", flag, str(text))


def option_of(text: str) -> str:
    """An option's name, of --some_option=VALUE or without the dashes."""
    return text.lstrip("-").partition("=")[0].replace("_", "-")


def without(args: Sequence[str], names: Collection[str]) -> list[str]:
    """Arguments without these options and their values."""
    kept, left_out = [], False
    for arg in args:
        if re.match("--?[a-z]", arg):
            left_out = option_of(arg) in names
        kept += [] if left_out else [arg]
    return kept


def value_of(args: list[str], name: str) -> str | None:
    """The value of an option that is needed before parsing, since the defaults depend on it."""
    for i, arg in enumerate(args):
        if arg == name and i + 1 < len(args):
            return args[i + 1]
        if arg.startswith(name + "="):
            return arg.partition("=")[2]
    return None
