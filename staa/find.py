"""From a name to what it stands for: an entry of a registry, or what a Python file of one's own defines.

Nothing else in the package turns a text into code. A registry's names are always found. A file runs only if this process's
user named it, on the command line or in a recipe made in Python, or trusts the run folder that names it. A run folder holds
copies of such files, `code/NAME-SHA256.py`, so that a copy that was changed is noticed.
"""

import ast
import difflib
import hashlib
import inspect
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import cache
from importlib.machinery import PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

from staa.config import Recipe
from staa.files import read_bytes
from staa.recipes import RECIPES

CODE = "code"
COPY = re.compile(CODE + r"/([\w.+-]+)-([0-9a-f]{64})\.py")
NAMES = (("data", "name"), ("model", "name"), ("model", "neuron"), ("model", "attention"), ("loss", "name"))
"""A recipe's fields that may name a file of one's own."""

_vouched: set[tuple[str, str]] = set()
"""(sha256 of a file's content, what it defines) that this process's user named or trusts."""


class UntrustedCodeError(ValueError):
    """A run folder names code of its own, and nobody has said that it may run."""


def find(name: str, known: Mapping[str, Any], what: str, *, folder: str | None) -> Any:
    """The entry of a registry, or what `path.py:attribute` names (that file is run).

    folder: the run folder that the name was read from (`Recipe.folder`); None if this process's user gave it. Raises ValueError
    with the nearest known names or for what a file does not define itself, FileNotFoundError for a missing file, and
    UntrustedCodeError for a folder's file that the user neither named nor trusts.
    """
    if name in known:
        return known[name]
    file, attribute = _split(name)
    if file is not None:
        return _from_file(file, attribute, folder)
    if name.endswith(".py"):
        raise ValueError(f"{name} is a file: name what it defines, as in {name}:recipe")
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
    hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(known)}"
    raise ValueError(f"unknown {what} {name!r}; {hint}")


def find_recipe(name: str) -> Recipe:
    """A recipe by name, or `my_file.py:recipe`, given by this process's user."""
    file, attribute = _split(name)
    if file is None:
        return find(name, RECIPES, "recipe", folder=None)
    path = _locate(file, attribute, None)
    recipe = _attribute(_module(path, _content(path), beside=True), attribute)
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
        file, attribute = _split(name)
        return name if file is None else f"{(base / file).resolve()}:{attribute}"

    init_from, graph = (
        None if path is None else str((base / path).resolve()) for path in (recipe.init_from, recipe.series.graph)
    )
    return replace(_renamed(recipe, absolute), series=replace(recipe.series, graph=graph), init_from=init_from)


def trust(recipe: Recipe) -> None:
    """Let this process run what a run folder's recipe names, as its files are now.

    Raises what `find` does, and warns of a file outside the folder, as runs of older versions name them.
    """
    for file, attribute in _files_of(recipe):
        path = _locate(file, attribute, recipe.folder)
        _vouched.add((_sha256(_content(path)), attribute))
        if COPY.fullmatch(file) is None:
            warnings.warn(f"{recipe.folder} is of an older version: {path} may have changed since it was trained", stacklevel=3)


def named_files(recipe: Recipe) -> list[str]:
    """The Python files that a recipe names, as it names them."""
    return [file for file, _ in _files_of(recipe)]


def for_folder(recipe: Recipe) -> tuple[Recipe, dict[str, bytes]]:
    """The recipe as its run folder holds it, which names the copies there, and those copies by their path in the folder.

    Raises ValueError for a file that imports others beside it: its copy would not find them.
    """
    copies: dict[str, bytes] = {}

    def copied(name: str) -> str:
        file, attribute = _split(name)
        if file is None:
            return name
        path = _locate(file, attribute, recipe.folder)
        data = _content(path)
        if COPY.fullmatch(file) is None and (others := _beside(path, data)):
            raise ValueError(
                f"{path} imports {', '.join(others)} beside it, which its copy in the run folder would not find: put all it "
                f"needs into that one file, or install {others[0]} as a package"
            )
        copy = _copy_of(file, data)
        copies[copy] = data
        return f"{copy}:{attribute}"

    return _renamed(recipe, copied), copies


def comparable(recipe: Recipe) -> Recipe:
    """The recipe with each file that it names called as its copy would be: equal for equal content, wherever the file lies."""

    def called(name: str) -> str:
        file, attribute = _split(name)
        if file is None or COPY.fullmatch(file):
            return name
        try:
            return f"{_copy_of(file, _content(_locate(file, attribute, recipe.folder)))}:{attribute}"
        except (OSError, ValueError):  # it is not there: its name is all there is
            return name

    return _renamed(recipe, called)


def _from_file(file: str, attribute: str, folder: str | None) -> Any:
    path = _locate(file, attribute, folder)
    data = _content(path)
    key = _sha256(data), attribute
    if folder is None:
        _vouched.add(key)
    elif key not in _vouched:
        raise UntrustedCodeError(
            f"{folder} names code of its own, {attribute!r} of {path}, sha256 {key[0]}; it was not run: read that file, and if "
            f"you trust it, say so with trust=True"
        )
    module = _module(path, data, beside=folder is None)
    value = _attribute(module, attribute)
    routine = isinstance(value, type) or inspect.isroutine(value)
    if (value.__module__ != module.__name__) if routine else (attribute not in _defined(data)):
        raise ValueError(
            f"{path} only imports {attribute!r}: name what the file itself defines, such as a function that calls it"
        )
    return value


def _locate(file: str, attribute: str, folder: str | None) -> Path:
    """Where a file is that a recipe names. Raises FileNotFoundError, or ValueError for what is no copy or a changed one."""
    if folder is None:
        path = Path(file).resolve()
        if not path.is_file():
            raise FileNotFoundError(f"no file {path} to take {attribute!r} from")
        return path
    copy = COPY.fullmatch(file)
    if copy is not None and folder:
        path = Path(folder).resolve() / file
        if not path.is_file():
            raise FileNotFoundError(f"{path} is missing: the run can't do without this code of its own")
        if path.resolve() != path:
            raise ValueError(f"{path} is a link out of the run folder, which is never followed")
        if _sha256(_content(path)) != copy[2]:
            raise ValueError(
                f"{path} was changed since the run was trained: its sha256 is not {copy[2]}; put the old file back"
            )
        return path
    if not folder or not os.path.isabs(file):
        raise ValueError(
            f"{folder or 'a recipe'} names {file}, which is no copy in a run folder ({CODE}/NAME-SHA256.py): refused"
        )
    if not Path(file).is_file():
        raise FileNotFoundError(
            f"{folder} is of an older version and names {file}, which is not there: put it back, or train the run anew"
        )
    return Path(file).resolve()


@cache  # what was read first is what this process goes by, were the file changed meanwhile
def _content(path: Path) -> bytes:
    return read_bytes(path)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _copy_of(file: str, data: bytes) -> str:
    """code/NAME-SHA256.py"""
    copy = COPY.fullmatch(file)
    stem = re.sub(r"[^\w.+-]", "_", Path(file).stem) if copy is None else copy[1]
    return f"{CODE}/{stem[:100]}-{_sha256(data)}.py"


def _module(path: Path, data: bytes, *, beside: bool) -> ModuleType:
    """A Python file as a module. It is run once, from these bytes alone: no compiled file in a __pycache__ takes their place.

    beside: with the file's own folder on the import path meanwhile.
    """
    name = f"staa_file_{_sha256(str(path).encode() + data)[:16]}"
    if name in sys.modules:
        return sys.modules[name]
    module = sys.modules[name] = ModuleType(name)
    module.__file__ = str(path)
    sys.path[:0] = here = [str(path.parent)] if beside else []
    try:
        exec(compile(data, str(path), "exec", dont_inherit=True), module.__dict__)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise ValueError(f"{path} can't be imported: {type(error).__name__}: {error}") from error
    finally:
        for folder in here:
            sys.path.remove(folder)
    return module


def _attribute(module: ModuleType, attribute: str) -> Any:
    if not hasattr(module, attribute):
        raise ValueError(f"{module.__file__} defines no {attribute!r}")
    return getattr(module, attribute)


def _defined(data: bytes) -> set[str]:
    """Names that a file assigns or defines, and does not just import."""
    nodes = list(ast.walk(ast.parse(data)))
    stored = {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    return stored | {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.ClassDef)}


def _beside(path: Path, data: bytes) -> list[str]:
    """Modules that a file imports and that only its own folder has."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(data)):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module is not None and not node.level:
            names.add(node.module.partition(".")[0])
    elsewhere = [entry for entry in sys.path if Path(entry).resolve() != path.parent]
    return sorted(
        name
        for name in names - sys.stdlib_module_names - {"staa"}
        if PathFinder.find_spec(name, [str(path.parent)]) is not None
        and PathFinder.find_spec(name, elsewhere) is None
        and (name not in sys.modules or path.parent in Path(getattr(sys.modules[name], "__file__", None) or path).parents)
    )


def _split(name: str | None) -> tuple[str | None, str]:
    """(file, what it defines) of `path.py:attribute`; of any other name (None, "")."""
    file, colon, attribute = (name or "").rpartition(":")
    return (file, attribute) if colon and file.endswith(".py") else (None, "")


def _files_of(recipe: Recipe) -> Iterator[tuple[str, str]]:
    for part, key in NAMES:
        file, attribute = _split(getattr(getattr(recipe, part), key))
        if file is not None:
            yield file, attribute


def _renamed(recipe: Recipe, change: Callable[[str], str]) -> Recipe:
    for part, key in NAMES:
        values = getattr(recipe, part)
        if (name := getattr(values, key)) is not None:
            recipe = replace(recipe, **{part: replace(values, **{key: change(name)})})
    return recipe
