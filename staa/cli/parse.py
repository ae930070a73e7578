"""How options are read."""

import contextlib
import dataclasses
import inspect
import io
import os
import re
from collections.abc import Mapping
from typing import Annotated, Any

import tyro

from staa.build import task_of
from staa.cli.flags import APPENDED, PARTS, POSITIONAL, flags_of, hints_of, types_of
from staa.cli.help import show_help
from staa.files import LIMIT, parse_bytes
from staa.recipes.find import options_taken
from staa.recipes.options import Taken, name_of, options_of, takes_no
from staa.recipes.recipe import Recipe
from staa.recipes.values import alternatives
from staa.registry import did_you_mean, nearest

NO_FLOAT = "could not convert string to float"


def parse(kind: Any, args: list[str], prog: str, default: Any = None) -> Any:
    """Parse a command's options with tyro; its boxed complaint becomes one line. Raises ValueError."""
    args = [  # tyro wants a value of what takes one, and --compile alone is short for one
        "--compile=True" if arg == "--compile" and (after is None or after.startswith("-")) else arg
        for arg, after in zip(args, [*args, None][1:], strict=True)
    ]
    several = {name.replace("_", "-") for name, (_, marks) in hints_of(kind).items() if APPENDED in marks}
    args = _each_named(args, several, kind)
    given = [re.sub(r"(^|\.)no-", r"\1", _flag(arg)) for arg in args if re.match("--[a-z]", arg)]
    for k, flag in enumerate(given):
        if flag in given[:k] and flag not in several:
            raise ValueError(f"--{flag} is given twice: give it once")
    groups = {"": args} if default is None else _apart(args)
    args = groups.pop("")
    flags = flags_of(kind) | {"help"}
    for arg in args:
        if not re.match("--?[a-z]", arg) or arg == "-h":
            continue
        flag = _flag(arg)
        if flag not in flags and re.sub(r"(^|\.)no-", r"\1", flag) not in flags:
            near = sorted(f for f in flags if f.rpartition(".")[2] == flag.removeprefix("no-")) or nearest(flag, flags)
            hint = did_you_mean(f"--{f}" for f in near) or f"see {prog} --help"
            raise ValueError(f"unknown option {arg}; {hint}")
    wanted = next((i for i, arg in enumerate(args) if arg in ("-h", "--help")), None)
    if wanted is not None:
        everything = args[wanted + 1 : wanted + 2] == ["all"]
        others = args[:wanted] + args[wanted + 1 + everything :]
        with contextlib.suppress(ValueError):  # else the help is that of the options as they were
            default = None if default is None else _read(kind, others, groups, prog, default)
        show_help(kind, prog, default, everything=everything)
        raise SystemExit(0)
    options = _read(kind, args, groups, prog, default)
    if getattr(options, "max_bytes", None) is not None:
        parse_bytes(options.max_bytes)
        os.environ[LIMIT] = options.max_bytes  # for worker processes too
    return options


def _read(kind: Any, args: list[str], groups: dict[str, list[str]], prog: str, default: Any) -> Any:
    options = _parsed(kind, _with_none(args, types_of(kind)), prog, default)
    return dataclasses.replace(options, recipe=_with_options(options.recipe, groups, prog)) if groups else options


def _parsed(kind: Any, args: list[str], prog: str, default: Any = None) -> Any:
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            return tyro.cli(kind, args=args, prog=prog, **({} if default is None else {"default": default}))
    except SystemExit as stop:
        if not stop.code:
            raise
        lines = [re.sub(r"[─│╭╮╰╯]", " ", line).strip() for line in complaint.getvalue().splitlines()]
        text = " ".join(line for line in lines[1:] if line.strip("-"))
        text = re.split("Argument helptext:|For full helptext", text)[0]
        for told, wanted in (("invalid literal for int() with base 10", "a whole number"), (NO_FLOAT, "a number")):
            one_of = rf"(?:no type matching \{{None\}}\|\w+ could .*? )?{re.escape(told)}: ('.*?')"  # if it may be left out
            text = re.sub(rf"Error parsing (\S+): {one_of}", rf"\1 must be {wanted}, got \2", text)
        raise ValueError(f"{text.strip()} (see {prog} --help)") from None


def _with_none(args: list[str], types: Mapping[str, Any]) -> list[str]:
    """none for None, which tyro wants, where an option may be None and no text of its own could be meant."""
    told, flag = [], ""
    for arg in args:
        begin, equals, value = arg.rpartition("=")
        if re.match("--?[a-z]", arg):
            flag = _flag(arg)
            value = value if equals else ""
        hints = alternatives(types[flag]) if flag in types else []
        takes = type(None) in hints and not {str, "none"} & {*hints}
        told.append(f"{begin}{equals}None" if takes and value == "none" else arg)
    return told


def _flag(arg: str) -> str:
    """model.top-k of --model.top_k=3"""
    return arg.lstrip("-").partition("=")[0].replace("_", "-")


def _each_named(args: list[str], several: set[str], kind: Any) -> list[str]:
    """--at a b as --at a --at b, for options of several values, once all that has no flag was given before."""
    first = next((k for k, arg in enumerate(args) if arg.startswith("-")), len(args))
    if first < sum(POSITIONAL in marks for _, marks in hints_of(kind).values()):
        return args
    told: list[str] = []
    option, values = "", 0
    for arg in args:
        if re.match("--?[a-z]", arg):
            option, values = arg.partition("=")[0], int("=" in arg)
        elif _flag(option) in several:
            values += 1
            told += [option] * (values > 1)
        told.append(arg)
    return told


def _apart(args: list[str]) -> dict[str, list[str]]:
    """The options of each part, such as --model.attention.reduction 8, by what they begin with; all others by ""."""
    groups: dict[str, list[str]] = {"": []}
    into = groups[""]
    for arg in args:
        if re.match("--?[a-z]", arg):
            into = groups.setdefault(next((part for part in PARTS if arg.startswith(part)), ""), [])
        into.append(arg)
    return groups


def _with_options(recipe: Recipe, groups: dict[str, list[str]], prog: str) -> Recipe:
    """The recipe, its parts with the options that are given. The signature of a part says which it has and of which types."""
    for field, (what, registry) in task_of(recipe).registries().items():
        args = groups.get(f"--{field}.", [])
        if not args:
            continue
        section, key = field.split(".")
        values = getattr(recipe, section)
        part = getattr(values, key)
        if part is None:
            raise ValueError(f"the recipe has no {what}, so it takes no {args[0]}")
        known, own = options_taken(part, registry, what, folder=recipe.folder), options_of(part)
        given = set()
        for flag in (_flag(arg).removeprefix(f"{field}.") for arg in args if re.match("--?[a-z]", arg)):
            names = {flag.replace("-", "_"), flag.removeprefix("no-").replace("-", "_")} & known.keys()
            if not names:
                raise ValueError(takes_no(f"the {what} {name_of(part)}", f"{field}.{flag}", known))
            given |= names
        kind = dataclasses.make_dataclass(
            "Options",
            [(name, option.hint, own.get(name, _default(option))) for name, option in known.items()],
        )
        both = dataclasses.make_dataclass("Both", [("part", Annotated[kind, tyro.conf.arg(name=field)])])
        types = {f"{field}.{name.replace('_', '-')}": option.hint for name, option in known.items()}
        parsed = vars(_parsed(both, _with_none(args, types), prog).part)
        new = {name: parsed[name] for name in given if name in own or parsed[name] != known[name].default}
        recipe = dataclasses.replace(recipe, **{section: dataclasses.replace(values, **{key: (name_of(part), own | new)})})
    return recipe


def _default(option: Taken) -> Any:
    return tyro.MISSING if option.default is inspect.Parameter.empty else option.default
