"""From a name to what it stands for: an entry of a registry, or what a Python file of one's own defines."""

import difflib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from staa.recipes import RECIPES
from staa.recipes.code import attribute_of, from_file, module_of, read, renamed, split
from staa.recipes.recipe import Recipe


def find(name: str, known: Mapping[str, Any], what: str, *, folder: str | None) -> Any:
    """The entry of a registry, or what `path.py:attribute` names (that file is run).

    folder: the run folder that the name was read from (`Recipe.folder`); None if this process's user gave it. Raises ValueError
    with the nearest known names or for what a file does not define itself, FileNotFoundError for a missing file, and
    UntrustedCodeError for a folder's file that the user neither named nor trusts.
    """
    if name in known:
        return known[name]
    file, attribute = split(name)
    if file is not None:
        return from_file(file, attribute, folder)
    if name.endswith(".py"):
        raise ValueError(f"{name} is a file: name what it defines, as in {name}:recipe")
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
    hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(known)}"
    raise ValueError(f"unknown {what} {name!r}; {hint}")


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
