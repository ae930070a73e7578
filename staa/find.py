"""From a name to what it stands for: an entry of a registry, or what a Python file of one's own defines."""

import difflib
import hashlib
import importlib.util
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from staa.config import Recipe
from staa.recipes import RECIPES


def find(name: str, known: Mapping[str, Any], what: str) -> Any:
    """The entry of a registry, or what `path.py:attribute` names (that file is run).

    Raises ValueError with the nearest known names, FileNotFoundError for a missing file.
    """
    if name in known:
        return known[name]
    path, colon, attribute = name.rpartition(":")
    if colon and path.endswith(".py"):
        return _from_file(Path(path), attribute)
    if name.endswith(".py"):
        raise ValueError(f"{name} is a file: name what it defines, as in {name}:recipe")
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
    hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(known)}"
    raise ValueError(f"unknown {what} {name!r}; {hint}")


def find_recipe(name: str) -> Recipe:
    """A recipe by name, or `my_file.py:recipe`."""
    recipe = find(name, RECIPES, "recipe")
    if not isinstance(recipe, Recipe):
        raise ValueError(f"{name} is a {type(recipe).__name__}, not a staa.Recipe")
    path, colon, attribute = name.rpartition(":")
    if colon:  # what a recipe file names is looked for beside it
        recipe = with_absolute_paths(recipe, Path(path).parent)
    return recipe if recipe.name else replace(recipe, name=attribute)


def with_absolute_paths(recipe: Recipe, base: Path = Path()) -> Recipe:
    """The recipe with each `my_file.py:name`, run folder and graph's file in it made absolute (from `base`): it is read from
    anywhere."""

    def absolute(name: str | None) -> str | None:
        path, colon, attribute = (name or "").rpartition(":")
        return f"{(base / path).resolve()}:{attribute}" if colon and path.endswith(".py") else name

    model = {key: absolute(getattr(recipe.model, key)) for key in ("name", "neuron", "attention")}
    data = replace(recipe.data, name=absolute(recipe.data.name) or "")
    loss = replace(recipe.loss, name=absolute(recipe.loss.name) or "")
    init_from, graph = (
        None if path is None else str((base / path).resolve()) for path in (recipe.init_from, recipe.series.graph)
    )
    return replace(
        recipe,
        data=data,
        loss=loss,
        model=replace(recipe.model, **model),  # type: ignore[arg-type]
        series=replace(recipe.series, graph=graph),
        init_from=init_from,
    )


def _from_file(path: Path, attribute: str) -> Any:
    """What a Python file defines. It is run once, with its folder on the import path."""
    path = path.resolve()
    if not path.is_file():
        raise FileNotFoundError(f"no file {path} to take {attribute!r} from")
    name = f"staa_file_{hashlib.sha256(str(path).encode()).hexdigest()[:16]}"
    module = sys.modules.get(name)
    if module is None:
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None
        assert spec.loader is not None
        module = sys.modules[name] = importlib.util.module_from_spec(spec)
        sys.path.insert(0, str(path.parent))
        try:
            spec.loader.exec_module(module)
        except (Exception, SystemExit) as error:
            del sys.modules[name]
            raise ValueError(f"{path} can't be imported: {type(error).__name__}: {error}") from error
        finally:
            sys.path.remove(str(path.parent))
    if not hasattr(module, attribute):
        raise ValueError(f"{path} defines no {attribute!r}")
    return getattr(module, attribute)
