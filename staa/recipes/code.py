"""Python files of one's own that a recipe names: trusted or not, copied into a run folder, run.

Nothing else in the package turns a text into code. A file runs only if this process's user named it, on the command line or in
a recipe made in Python, or trusts the run folder that names it. A run folder holds copies of such files,
`code/NAME-SHA256.py`, so that a copy that was changed is noticed.
"""

import ast
import hashlib
import inspect
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib.machinery import PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

from staa.files import read_bytes, read_text
from staa.recipes.as_json import from_json
from staa.recipes.options import name_of, options_of
from staa.recipes.recipe import Recipe

CODE = "code"
COPY = re.compile(CODE + r"/([\w.+-]+)-([0-9a-f]{64})\.py")
NAMES = (("data", "name"), ("model", "name"), ("model", "neuron"), ("model", "attention"), ("loss", "name"))
"""A recipe's fields that may name a file of one's own."""

_vouched: set[tuple[str, str]] = set()
"""(sha256 of a file's content, what it defines) that this process's user named or trusts."""


class UntrustedCodeError(ValueError):
    """A run folder names code of its own, and nobody has said that it may run."""


def trust(recipe: Recipe) -> None:
    """Let this process run what a run folder's recipe names, as its files are now.

    Raises what `find` does, and warns of a file outside the folder, as runs of older versions name them.
    """
    for file, attribute in _files_of(recipe):
        path, data = read(file, attribute, recipe.folder)
        _vouched.add((_sha256(data), attribute))
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
        file, attribute = split(name)
        if file is None:
            return name
        path, data = read(file, attribute, recipe.folder)
        if COPY.fullmatch(file) is None:
            _check_alone(path, data)
        copy = _copy_of(file, data)
        copies[copy] = data
        return f"{copy}:{attribute}"

    return renamed(recipe, copied), copies


def comparable(recipe: Recipe) -> Recipe:
    """The recipe with each file that it names called as its copy would be: equal for equal content, wherever the file lies."""

    def called(name: str) -> str:
        file, attribute = split(name)
        if file is None or COPY.fullmatch(file):
            return name
        try:
            return f"{_copy_of(file, read(file, attribute, recipe.folder)[1])}:{attribute}"
        except (OSError, ValueError):  # it is not there: its name is all there is
            return name

    return renamed(recipe, called)


def from_file(file: str, attribute: str, folder: str | None) -> Any:
    path, data = read(file, attribute, folder)
    key = _sha256(data), attribute
    if folder is None:
        _check_alone(path, data)
        _vouched.add(key)
    elif key not in _vouched:
        raise UntrustedCodeError(
            f"{folder} names code of its own, {_all_code(folder, file, attribute)}; it was not run: read all of it, and if you "
            f"trust it, say so with `trust=True`"
        )
    module = module_of(path, data)
    value = attribute_of(module, attribute)
    routine = isinstance(value, type) or inspect.isroutine(value)
    if (value.__module__ != module.__name__) if routine else (attribute not in _defined(data)):
        raise ValueError(
            f"{path} only imports {attribute!r}: name what the file itself defines, such as a function that calls it"
        )
    return value


def _all_code(folder: str, file: str, attribute: str) -> str:
    """What the user is to read before trusting a folder: the file that was asked for, and all that its recipe names."""
    try:
        others = list(_files_of(from_json(read_text(Path(folder, "recipe.json")), folder)))
    except (OSError, ValueError, TypeError, AttributeError, OverflowError):  # broken since it was read
        others = []
    texts = []
    for name, what in dict.fromkeys([(file, attribute), *others]):
        path, data = read(name, what, folder)
        texts.append(f"{what!r} of {path}, sha256 {_sha256(data)}")
    return "; ".join(texts)


def read(file: str, attribute: str, folder: str | None) -> tuple[Path, bytes]:
    """A file that a recipe names, and its content now.

    Raises FileNotFoundError, or ValueError for what is no copy or a changed one.
    """
    if folder is None:
        path = Path(file).resolve()
        if not path.is_file():
            raise FileNotFoundError(f"no file {path} to take {attribute!r} from")
        return path, read_bytes(path)
    copy = COPY.fullmatch(file)
    if copy is not None and folder:
        path = Path(folder).resolve() / file
        if not path.is_file():
            raise FileNotFoundError(f"{path} is missing: the run can't do without this code of its own")
        if path.resolve() != path:
            raise ValueError(f"{path} is a link out of the run folder, which is never followed")
        data = read_bytes(path)
        if _sha256(data) != copy[2]:
            raise ValueError(
                f"{path} was changed since the run was trained: its sha256 is not {copy[2]}; put the old file back"
            )
        return path, data
    if not folder or not os.path.isabs(file):
        raise ValueError(
            f"{folder or 'a recipe'} names {file}, which is no copy in a run folder ({CODE}/NAME-SHA256.py): refused"
        )
    if not Path(file).is_file():
        raise FileNotFoundError(
            f"{folder} is of an older version and names {file}, which is not there: put it back, or train the run anew"
        )
    path = Path(file).resolve()
    return path, read_bytes(path)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _copy_of(file: str, data: bytes) -> str:
    """code/NAME-SHA256.py"""
    copy = COPY.fullmatch(file)
    stem = re.sub(r"[^\w.+-]", "_", Path(file).stem) if copy is None else copy[1]
    return f"{CODE}/{stem[:100]}-{_sha256(data)}.py"


def module_of(path: Path, data: bytes, *, beside: bool = False) -> ModuleType:
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


def attribute_of(module: ModuleType, attribute: str) -> Any:
    if not hasattr(module, attribute):
        raise ValueError(f"{module.__file__} defines no {attribute!r}")
    return getattr(module, attribute)


def _defined(data: bytes) -> set[str]:
    """Names that a file assigns or defines, and does not just import."""
    nodes = list(ast.walk(ast.parse(data)))
    stored = {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    return stored | {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.ClassDef)}


def _check_alone(path: Path, data: bytes) -> None:
    """Raises ValueError for a file that imports others beside it, which its copy in a run folder would not find."""
    others = _beside(path, data)
    if others:
        raise ValueError(
            f"{path} imports {', '.join(others)} beside it, which its copy in the run folder would not find: put all it needs "
            f"into that one file, or install {others[0]} as a package; if another {others[0]} is meant, rename this one"
        )


def _beside(path: Path, data: bytes) -> list[str]:
    """Modules that a file imports and that its own folder has, be they elsewhere too: which is meant is not known."""
    try:
        names = {name.partition(".")[0] for name in _imports(ast.parse(data))} - {"", "staa"}
    except (SyntaxError, ValueError) as error:
        raise ValueError(f"{path} can't be imported: {type(error).__name__}: {error}") from error
    elsewhere = [entry for entry in sys.path if Path(entry).resolve() != path.parent]

    def found(name: str) -> bool:
        spec = PathFinder.find_spec(name, [str(path.parent)])
        if spec is None or spec.loader is not None:
            return spec is not None
        return name not in sys.stdlib_module_names and PathFinder.find_spec(name, elsewhere) is None  # a mere folder comes last

    return sorted(filter(found, names))


def _imports(tree: ast.AST) -> Iterator[str]:
    """Names of modules that are imported, by a statement or by a call with the name as it stands."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None and not node.level:
            yield node.module
        elif isinstance(node, ast.Call):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            given = [*node.args[:1], *(keyword.value for keyword in node.keywords if keyword.arg == "name")]
            if called in ("import_module", "__import__"):
                yield from (v.value for v in given if isinstance(v, ast.Constant) and isinstance(v.value, str))


def split(name: str) -> tuple[str | None, str]:
    """(file, what it defines) of `path.py:attribute`; of any other name (None, "")."""
    file, colon, attribute = name.rpartition(":")
    return (file, attribute) if colon and file.endswith(".py") else (None, "")


def _files_of(recipe: Recipe) -> Iterator[tuple[str, str]]:
    for part, key in NAMES:
        named = getattr(getattr(recipe, part), key)
        file, attribute = (None, "") if named is None else split(name_of(named))
        if file is not None:
            yield file, attribute


def renamed(recipe: Recipe, change: Callable[[str], str]) -> Recipe:
    for part, key in NAMES:
        values = getattr(recipe, part)
        if (named := getattr(values, key)) is not None:
            new = change(name_of(named)), options_of(named)
            recipe = replace(recipe, **{part: replace(values, **{key: new if new[1] else new[0]})})
    return recipe
