"""Recipes as JSON, and what two of them differ in."""

import dataclasses
import json
import sys
from typing import Any

from staa.files import FORMAT, check_format
from staa.recipes.parts import Augment, Data, Early, Forecast, Loss, Model, Optim, Series
from staa.recipes.recipe import Recipe

PARTS = {
    "data": Data, "series": Series, "augment": Augment, "model": Model, "forecast": Forecast, "loss": Loss, "optim": Optim,
    "early": Early,
}  # fmt: skip


def to_json(recipe: Recipe) -> str:
    """The recipe as JSON text, every field written out; a part with options as ["staa", {"reduction": 8}]."""
    values = {"format": FORMAT, **dataclasses.asdict(recipe)}
    del values["folder"]
    for part in PARTS:
        values[part] = {k: [v[0], dict(v[1])] if isinstance(v, tuple) else v for k, v in values[part].items()}
    return json.dumps(values, indent=2) + "\n"


def from_json(text: str, folder: str = "") -> Recipe:
    """The recipe of such a text; a field it lacks, as one of an older version may, takes its default.

    folder: the run folder that the text is of. Such a recipe's names are its writer's word, not this process's user's: see
    `staa.recipes.code`. Raises ValueError naming a field that is unknown, a part that is missing, or what is no JSON, and for
    the text of a newer version.
    """
    values = parse_json(text)
    if isinstance(values, dict):
        check_format(values.pop("format", 0), "this recipe")
    for name, part in PARTS.items():
        if isinstance(values, dict) and name in ("series", "augment", "forecast", "loss", "early"):
            values.setdefault(name, {})
        if not isinstance(values, dict) or not isinstance(values.get(name), dict):
            raise ValueError(f"this is no recipe: it has no {name!r}")
        values[name] = _filled(part, values[name], f"{name}.")
    return dataclasses.replace(_filled(Recipe, values, ""), folder=folder)


def parse_json(text: str) -> Any:
    """json.loads, with ValueError for every text that is no JSON."""
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    except json.JSONDecodeError:  # a ValueError
        raise
    except ValueError as error:  # Python's limit, in Python's words
        raise ValueError(f"it holds a whole number of more than {sys.get_int_max_str_digits():,} digits") from error


def differences(a: Recipe, b: Recipe) -> list[str]:
    """The fields in which two recipes differ, as 'field: a's, b's'; texts about the recipe do not count."""
    flat_a, flat_b = flat(a), flat(b)
    pairs = {k: [repr(of[k]) if k in of else "not set" for of in (flat_a, flat_b)] for k in flat_a | flat_b}
    return [f"{k}: {', '.join(pair)}" for k, pair in pairs.items() if flat_a.get(k, ...) != flat_b.get(k, ...)]


def flat(recipe: Recipe) -> dict[str, Any]:
    """All settings by their names, such as "optim.lr" and "model.attention.reduction"; no texts about the recipe."""
    settings: dict[str, Any] = {}
    for key, value in dataclasses.asdict(recipe).items():
        if isinstance(value, dict):
            for k, v in value.items():
                name, options = v if isinstance(v, tuple) else (v, ())
                settings |= {f"{key}.{k}": name} | {f"{key}.{k}.{option}": given for option, given in options}
        elif key not in ("summary", "source", "expect", "folder"):
            settings[key] = value
    return settings


def _filled(kind: Any, values: dict[str, Any], prefix: str) -> Any:
    unknown = values.keys() - {f.name for f in dataclasses.fields(kind) if f.name != "folder"}
    if unknown:
        raise ValueError(f"this recipe is of another version of staa: unknown {', '.join(prefix + k for k in sorted(unknown))}")
    return kind(**values)
