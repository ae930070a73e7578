"""How options are read, and messages of the library told in flags."""

import contextlib
import dataclasses
import difflib
import io
import os
import re
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import tyro

from staa.files import LIMIT, parse_bytes
from staa.recipes.recipe import Recipe
from staa.text import for_terminal

NAMES = {"data_root": "data", "trust": "trust-code"}
"""Arguments of the library whose flag is called otherwise."""


def parse(kind: Any, args: list[str], prog: str, default: Any = None) -> Any:
    """Parse a command's options with tyro; its boxed complaint becomes one line. Raises ValueError."""
    args = [  # tyro wants a value of what takes one, and --compile alone is short for one
        "--compile=True" if arg == "--compile" and (after is None or after.startswith("-")) else arg
        for arg, after in zip(args, [*args, None][1:], strict=True)
    ]
    flags = flags_of(kind) | {"help", "h"}
    for arg in args:
        if not re.match("--?[a-z]", arg):
            continue
        flag = arg.lstrip("-").partition("=")[0].replace("_", "-")
        if flag not in flags and re.sub(r"(^|\.)no-", r"\1", flag) not in flags:
            near = sorted(f for f in flags if f.rpartition(".")[2] == flag) or difflib.get_close_matches(flag, flags, n=2)
            hint = f"did you mean {' or '.join('--' + f for f in near)}?" if near else f"see {prog} --help"
            raise ValueError(f"unknown option {arg}; {hint}")
    if default is not None and {"-h", "--help"} & set(args):
        default = _shown(default)
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            options = tyro.cli(kind, args=args, prog=prog, **({} if default is None else {"default": default}))
    except SystemExit as stop:
        if not stop.code:
            raise
        lines = [re.sub(r"[─│╭╮╰╯]", " ", line).strip() for line in complaint.getvalue().splitlines()]
        text = " ".join(line for line in lines[1:] if line)
        text = re.split("Argument helptext:|For full helptext", text)[0]
        raise ValueError(f"{text.strip()} (see {prog} --help)") from None
    if getattr(options, "max_bytes", None) is not None:
        parse_bytes(options.max_bytes)
        os.environ[LIMIT] = options.max_bytes  # for worker processes too
    return options


def _shown(options: Any) -> Any:
    """The options as --help may print them, since a run's recipe is text of others."""
    values = {f.name: getattr(options, f.name) for f in dataclasses.fields(options)}
    texts = {name: for_terminal(value) for name, value in values.items() if isinstance(value, str)}
    nested = {name: _shown(value) for name, value in values.items() if dataclasses.is_dataclass(value)}
    return dataclasses.replace(options, **texts, **nested)


def flags_of(kind: Any, prefix: str = "") -> set[str]:
    """The options of a dataclass, nested ones as part.option; the recipe's own come without a prefix."""
    names: set[str] = set()
    hidden = get_args(tyro.conf.Suppress[str])[1]
    for key, annotation in get_type_hints(kind, include_extras=True).items():
        hint, *marks = get_args(annotation) if get_origin(annotation) is Annotated else [annotation]
        if hidden in marks:
            continue
        if dataclasses.is_dataclass(hint):
            names |= flags_of(hint, "" if hint is Recipe else f"{prefix}{key}.")
        else:
            names.add(prefix + key.replace("_", "-"))
    return names


def in_flags(text: object, kind: Any) -> str:
    """A message of the library, with each `argument` or `argument=value` in it as the flag that says so to this command.

    The library names arguments of Python and settings of a recipe between backticks, since it knows no command. `sensor` is
    --sensor where the command has it, and --data.sensor where only its recipe does; what no flag says stays as it is.
    """
    own = set() if kind is None else flags_of(kind)

    def flag(found: re.Match[str]) -> str:
        name, value = NAMES.get(found[1], found[1].replace("_", "-")), found[2]
        fitting = {name} & (own | flags_of(Recipe)) or {f for f in own if f.endswith(f".{name}")}
        if len(fitting) != 1:
            return found[0]
        part, dot, last = fitting.pop().rpartition(".")
        if value in ("True", "False"):
            return f"--{part}{dot}{'no-' if value == 'False' else ''}{last}"
        return f"--{part}{dot}{last}" + (f" {value}" if value else "")

    return re.sub(r"`([a-z][\w.]*)(?:=([^\s`]+))?`", flag, str(text))


def value_of(args: list[str], name: str) -> str | None:
    """The value of an option that is needed before parsing, since the defaults depend on it."""
    for i, arg in enumerate(args):
        if arg == name and i + 1 < len(args):
            return args[i + 1]
        if arg.startswith(name + "="):
            return arg.partition("=")[2]
    return None
