"""What --over compares: a recipe at each value of an option, or at each combination of several."""

import hashlib
import itertools
import math
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from staa.build import check_recipe, task_of
from staa.cli.flags import PARTS, option_of, types_of
from staa.data import SplitData
from staa.recipes.as_json import flat
from staa.recipes.code import UntrustedCodeError, comparable
from staa.recipes.find import options_taken
from staa.recipes.recipe import Recipe
from staa.recipes.values import alternatives
from staa.registry import did_you_mean, nearest
from staa.runs.transfer import origin_of

MOST = 100  # recipes that one option list may make
LONGEST = 120  # bytes of a folder's name


class Variant(NamedTuple):
    """A recipe as it is compared: its name, the options that make it, and the values that these have."""

    label: str
    args: list[str]
    values: dict[str, str]


def variants_of(over: Sequence[str], args: Sequence[str], recipe: Recipe, *, alone: bool) -> list[Variant]:
    """The recipe at each combination of the values in `over`, such as ["model.attention=none,staa", "optim.lr=0.1,0.01"].

    args: the other options. alone: no other recipe is compared, so that its name need not be told. Raises ValueError for what
    is no option of a recipe, is given otherwise too, or has not several values.
    """
    axes = [(option, values) for option, values in map(parsed, over) if values]
    told = [option for option, _ in axes]
    check_once(told, args)
    _check_count(math.prod(len(values) for _, values in axes))
    combinations = itertools.product(*(values for _, values in axes))
    return [variant(dict(zip(told, values, strict=True)), recipe, alone=alone) for values in combinations]


def variant(values: dict[str, str], recipe: Recipe, *, alone: bool) -> Variant:
    """The recipe at such values of options."""
    label = ", ".join(f"{option}={value}" for option, value in values.items())
    name = [] if alone and label else [recipe.name]
    args = [_argument(option, value, recipe) for option, value in values.items()]
    return Variant(" ".join([*name, label]).strip(), args, values)


def check_once(told: Sequence[str], args: Sequence[str]) -> None:
    """Raises ValueError for an option that --over has twice, or that is also given otherwise."""
    given = {re.sub(r"(^|\.)no-", r"\1", option_of(arg)) for arg in args if arg.startswith("--")}
    for k, option in enumerate(told):
        if option in told[:k] or option in given:
            raise ValueError(f"{option} is given twice: give it once, with all values, in --over")


def settings_of(over: Sequence[str]) -> list[str]:
    """The settings that are compared on purpose, as a recipe names them."""
    named = [option for text in over for option in (text.split(",") if "=" not in text else [text.partition("=")[0]])]
    return [known_option(option).replace("-", "_") for option in named]


def folder_of(label: str) -> str:
    """Where a recipe's runs lie in --out: its name, as far as a folder's can be."""
    name = re.sub(r"[^\w.+=,-]+", "_", label)
    told = hashlib.sha256(label.encode(errors="surrogatepass")).hexdigest()[:16]
    return name if len(os.fsencode(name)) <= LONGEST else f"{name[:25]}-{told}"


def check_differ(recipes: Mapping[str, Recipe]) -> None:
    """Raises ValueError for recipes that are the same but for their names, or whose folders would be."""
    seen: dict[Any, str] = {}
    for label, recipe in recipes.items():
        settings = tuple(sorted((k, v) for k, v in map(_plain, flat(comparable(recipe)).items()) if k != "name"))
        for key, what in ((settings, "the same recipe"), (folder_of(label), "in the same folder")):
            if key in seen:
                raise ValueError(f"{seen[key]} and {label} are {what}: leave one out")
            seen[key] = label


def checked(label: str, recipe: Recipe, root: Path) -> SplitData:
    """Tries all of a recipe but the training; its data. Raises ValueError, with its label, for what is wrong with it."""
    try:
        if recipe.init_from is not None:
            origin_of(Path(recipe.init_from))
        return check_recipe(recipe, root)
    except UntrustedCodeError:
        raise
    except ValueError as error:
        raise ValueError(f"{label}: {error}") from error


def _plain(pair: tuple[str, Any]) -> tuple[str, str]:
    return pair[0], repr(pair[1])


def parsed(text: str) -> tuple[str, list[str]]:
    """An option and its values; of one that is only named, none."""
    option, equals, told = text.partition("=")
    values = told.split(",") if equals else []
    _check_count(len(values))
    for one in [option] if equals else text.split(","):
        known_option(one)
    if equals and (len(values) < 2 or "" in values):
        raise ValueError(f"--over wants an option and two values or more, as model.attention=none,staa; got {text!r}")
    if twice := [value for k, value in enumerate(values) if value in values[:k]]:
        raise ValueError(f"--over {option} has {twice[0]} twice: give each value once")
    return option_of(option), values


def _check_count(count: int) -> None:
    if count > MOST:
        raise ValueError(f"--over makes {count:,} recipes, and {MOST} are the most: give fewer values")


def known_option(text: str) -> str:
    """An option of a recipe; those of a part are looked up with the part."""
    option, known = option_of(text), types_of(Recipe)
    if option == "seed":
        raise ValueError("--over takes no seed: --seeds trains several of each recipe")
    if option not in known and not f"--{option}".startswith(PARTS):
        near = sorted(f for f in known if f.rpartition(".")[2] == option) or nearest(option, known)
        hint = did_you_mean(near) or "staa compare --help all shows them"
        raise ValueError(f"--over takes options of a recipe, and {option!r} is none; {hint}")
    return option


def _argument(option: str, value: str, recipe: Recipe) -> str:
    """An option and its value as the command line takes them: what is on or off has a flag for each."""
    if alternatives(type_of(option, recipe)) != [bool]:
        return f"--{option}={value}"
    if value.lower() not in ("true", "false"):
        raise ValueError(f"--over {option} must be true or false, got {value!r}")
    section, dot, name = option.rpartition(".")
    return f"--{option}" if value.lower() == "true" else f"--{section}{dot}no-{name}"


def type_of(option: str, recipe: Recipe) -> Any:
    known = types_of(Recipe)
    if option in known:
        return known[option]
    field, _, name = option.rpartition(".")
    what, registry = task_of(recipe).registries()[field]
    section, _, key = field.partition(".")
    part = getattr(getattr(recipe, section), key)
    taken = {} if part is None else options_taken(part, registry, what, folder=recipe.folder)
    return taken[name.replace("-", "_")].hint if name.replace("-", "_") in taken else str
