"""From a name to what it stands for: an entry of a registry, or what a Python file of one's own defines."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from staa.recipes import RECIPES
from staa.recipes.code import attribute_of, from_file, module_of, read, renamed, split
from staa.recipes.options import Part, Taken, bind, name_of, options_of, taken
from staa.recipes.parts import Forecast, Loss, Model
from staa.recipes.recipe import Recipe
from staa.recipes.values import field_names
from staa.registry import Registry, unknown

KINDS: dict[str, tuple[str, tuple[str, ...]]] = {
    "neuron": ("model.neuron", ()),
    "attention": ("model.attention", ()),
    "model": ("model.name", ("in_channels", "size", *field_names(Model))),
    "forecaster": ("model.name", ("time_features", "steps", "neuron", *field_names(Forecast))),
    "loss": ("loss.name", tuple(field_names(Loss))),
}
"""The field that names each kind of part whose options can be set, and the parameters of it that the library sets itself."""


def find(part: str | Part, known: Mapping[str, Any], what: str, *, folder: str | None) -> Any:
    """The entry of a registry, or what `path.py:attribute` names (that file is run), with the options of the part bound to it.

    folder: the run folder that the name was read from (`Recipe.folder`); None if this process's user gave it. Raises ValueError
    with the nearest known names, for options that the part does not take, or for what a file does not define itself,
    FileNotFoundError for a missing file, and UntrustedCodeError for a folder's file that the user neither named nor trusts.
    """
    found = _find(name_of(part), known, what, folder)
    if what not in KINDS:
        return found
    field, given = KINDS[what]
    named = f"the {what} {name_of(part)}"
    functions = known.functions if isinstance(known, Registry) else None
    return bind(found, options_of(part), what=named, field=field, given=given, functions=functions)


def options_taken(part: str | Part, known: Mapping[str, Any], what: str, *, folder: str | None) -> dict[str, Taken]:
    """The options that a part takes. Raises what `find` does for its name."""
    functions = known.functions if isinstance(known, Registry) else None
    return taken(_find(name_of(part), known, what, folder), given=KINDS[what][1], functions=functions)


def _find(name: str, known: Mapping[str, Any], what: str, folder: str | None) -> Any:
    if name in known:
        return known[name]
    file, attribute = split(name)
    if file is not None:
        return from_file(file, attribute, folder)
    if name.endswith(".py"):
        raise ValueError(f"{name} is a file: name what it defines, as in {name}:recipe")
    raise ValueError(unknown(what, name, known))


def find_recipe(name: str) -> Recipe:
    """A recipe by name, or `my_file.py:recipe`, given by this process's user."""
    file, attribute = split(name)
    if file is None:
        if name not in RECIPES and not name.endswith(".py") and (name.endswith(".zip") or Path(name).exists()):
            raise ValueError(f"{name} is a file or folder: a recipe is given by its name, or as my_file.py:recipe")
        return find(name, RECIPES, "recipe", folder=None)
    recipe = attribute_of(module_of(*read(file, attribute, None), beside=True), attribute)
    if not isinstance(recipe, Recipe):
        raise ValueError(f"{name} is a {type(recipe).__name__}, not a staa.Recipe")
    recipe = with_absolute_paths(recipe, Path(file).parent)  # what a recipe file names is looked for beside it
    return recipe if recipe.name else replace(recipe, name=attribute)


def with_absolute_paths(recipe: Recipe, base: Path = Path()) -> Recipe:
    """The recipe with each `my_file.py:name`, run folder and graph's file in it made absolute (from `base`): it is read from
    anywhere. One of a run folder stays as it is."""
    if recipe.folder is not None:
        return recipe

    def absolute(name: str) -> str:
        file, attribute = split(name)
        return name if file is None else f"{(base / file).resolve()}:{attribute}"

    init_from, graph = (
        None if path is None else str((base / path).resolve()) for path in (recipe.init_from, recipe.series.graph)
    )
    return replace(renamed(recipe, absolute), series=replace(recipe.series, graph=graph), init_from=init_from)
