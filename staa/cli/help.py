"""What --help prints: the options that have an effect, at their values, the common ones first."""

import ast
import inspect
import re
import textwrap
from collections.abc import Iterator
from dataclasses import MISSING, fields, is_dataclass
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

from rich.table import Column, Table

from staa.build import task_of
from staa.build.taken import settings_taken
from staa.cli.flags import HIDDEN, POSITIONAL, hints_of
from staa.cli.text import out, say, show
from staa.recipes.find import KINDS, options_taken
from staa.recipes.options import name_of, options_of
from staa.recipes.recipe import Recipe
from staa.recipes.values import alternatives

COMMON = (
    "epochs", "batch_size", "optim.lr", "model.attention", "model.neuron", "model.steps", "seed", "seeds", "out", "resume",
    "init_from", "device", "data",
)  # fmt: skip
LONGEST = 20  # characters of a value, such as a file's name


class Row(NamedTuple):
    """An option: its name in Python, as it is given, what it says, and the group it stands in."""

    name: str
    flag: str
    text: str
    choices: list[str]
    group: str


def show_help(kind: Any, prog: str, options: Any = None, *, everything: bool = False) -> None:
    """Print a command's options at the values of `options`, by default at their own.

    Of a recipe's settings come those that apply to it, unless `everything` is asked for; then each with its whole text.
    """
    rows = list(_rows(kind, options))
    recipe = getattr(options, "recipe", None)
    everything = everything or recipe is None
    if recipe is not None:
        rows = list(_with_parts(rows, recipe))
        if not everything:
            rows = _applying(rows, recipe)
            first = [row for name in COMMON for row in rows if row.name == name]
            rows = [row._replace(group="common") for row in first] + [row for row in rows if row not in first]
    say(inspect.cleandoc(kind.__doc__).replace("\n", " "))
    if positional := [row.flag for row in rows if not row.flag.startswith("-")]:
        say(f"Usage: {prog} {' '.join(positional)} [OPTIONS]")
    width = 2 + max(len(row.flag) for row in rows)
    for group in dict.fromkeys(row.group for row in rows):
        say(group, style="bold")
        table = Table(Column(no_wrap=True, min_width=width), Column(), box=None, pad_edge=False, show_header=False)
        own = (row for row in rows if row.group == group)
        room = None if everything else max(24, out.width - width - 2)
        show(table, ((f"  {row.flag}", _line(row, room)) for row in own))
    on = [row.name for row in rows if row.flag.endswith(" (on)")]
    if on:
        section, _, name = on[0].rpartition(".")
        say(f"What is on is turned off with no-: --{section}.no-{name.replace('_', '-')}")
    if not everything:
        say(f"Settings that have no effect here are left out: {prog} --help all shows them, and more on each.")


def _rows(kind: Any, values: Any, prefix: str = "") -> Iterator[Row]:
    hints, texts, group = hints_of(kind), _texts(kind), prefix.rstrip(".") or "options"
    own = [f for f in fields(kind) if f.name in kind.__annotations__]
    for field in own + [f for f in reversed(fields(kind)) if f not in own]:
        hint, marks = hints[field.name]
        default = None if field.default is MISSING else field.default
        value = default if values is None else getattr(values, field.name)
        if is_dataclass(hint):
            yield from _rows(hint, value, "" if hint is Recipe else f"{field.name}.")
        elif HIDDEN not in marks:
            name = prefix + field.name
            flag = _flag(name, hint, value)
            if POSITIONAL in marks:
                flag = f"[{field.name.upper()} …]" if value == () else field.name.upper()
            yield Row(name, flag, texts[field.name], _choices(hint), group)


def _flag(name: str, hint: Any, value: Any) -> str:
    flag = "--" + name.replace("_", "-")
    if alternatives(hint) == [bool]:
        return flag + (" (on)" if value else "")
    if value is None or value is inspect.Parameter.empty:
        kinds = [a.__name__.upper() for a in alternatives(hint) if isinstance(a, type) and a is not type(None)]
        return f"{flag} {(kinds or ['NAME'])[0]}"
    if value == ():
        return f"{flag} NAME …"
    text = str(name_of(value) if isinstance(value, tuple) and value else value)
    return f"{flag} {text if len(text) <= LONGEST else f'…{text[-LONGEST:]}'}"


def _choices(hint: Any) -> list[str]:
    return [str(a) for a in alternatives(hint) if not isinstance(a, type)]


def _line(row: Row, room: int | None) -> str:
    """What is said of an option; with `room` as much as fits into it, up to the end of a clause if one is near."""
    choices = f"[{', '.join(row.choices)}]" if row.choices else ""
    text = row.text
    if room is not None:
        text = re.split(r"\. |; ", text)[0].rstrip(".")
        left = room - len(choices) - 1 if choices and len(choices) < room / 2 else room
        if len(text) > left:
            ends = [m.start() for m in re.finditer(r"[,:(]", text) if left / 2 <= m.start() <= left]
            whole = [end for end in ends if text[:end].count("(") == text[:end].count(")")]
            text = (
                text[: whole[-1]].rstrip() if whole else textwrap.shorten(text, left, placeholder=" …", break_on_hyphens=False)
            )
    return f"{text} {choices}".strip()


def _texts(kind: type) -> dict[str, str]:
    """What stands below each field of a dataclass."""
    texts: dict[str, str] = {}
    for owner in kind.__mro__[-2::-1]:
        (tree,) = ast.parse(textwrap.dedent(inspect.getsource(owner))).body
        for field, below in pairwise(getattr(tree, "body", [])):
            match field, below:
                case ast.AnnAssign(target=ast.Name(name)), ast.Expr(ast.Constant(str(text))):
                    texts[name] = " ".join(text.split())
    return texts


def _said(part: Any, option: str) -> str:
    """What the docstring of a part says of an option."""
    while isinstance(part, partial):
        part = part.func
    found = re.search(rf"^ *(?:\w+, )*{option}(?:, \w+)*: (.+)", inspect.getdoc(part) or "", re.MULTILINE)
    return found[1] if found else ""


def _with_parts(rows: list[Row], recipe: Recipe) -> Iterator[Row]:
    """The options of each part after its name."""
    known = task_of(recipe).registries()
    for row in rows:
        if row.name not in known:
            yield row
            continue
        what, registry = known[row.name]
        yield row._replace(choices=list(registry))
        section, _, key = row.name.partition(".")
        part = getattr(getattr(recipe, section), key)
        if part is None or what not in KINDS:
            continue
        try:
            taken = options_taken(part, registry, what, folder=recipe.folder)
        except (ValueError, OSError):  # it is not there, or not trusted
            continue
        for name, option in taken.items():
            value = options_of(part).get(name, option.default)
            flag = _flag(full := f"{row.name}.{name}", option.hint, value)
            yield Row(full, flag, _said(registry.get(name_of(part)), name), _choices(option.hint), row.group)


def _applying(rows: list[Row], recipe: Recipe) -> list[Row]:
    try:
        taken = settings_taken(task_of(recipe))
    except (ValueError, OSError):
        return rows
    settings = {f.name for f in fields(Recipe)}
    parts = task_of(recipe).registries()
    return [
        row
        for row in rows
        if row.name in taken
        or row.name.partition(".")[0] not in settings
        or ((part := row.name.rpartition(".")[0]) in parts and part in taken)
    ]
