"""A run folder: the records in it, and the checks that they belong together."""

import json
import os
import platform
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from torch import nn

from staa.build import TASKS, task_of
from staa.build.records import is_real, is_whole
from staa.data import SplitData
from staa.files import FORMAT, check_format, read_text, save_text
from staa.ops import cpu
from staa.ops.memory import kernels_of
from staa.parallel import joined
from staa.recipes.as_json import differences, from_json, parse_json
from staa.recipes.code import comparable, trust
from staa.recipes.parts import Augment
from staa.recipes.recipe import Recipe

RECIPE, ENVIRONMENT, RESULT = "recipe.json", "environment.json", "result.json"
ANEW = "delete it and resume the run to write it anew"
CHANGES_BITS = ("torch", "device", "processor", "threads", "processes", "precision", "compile", "deterministic", "neuron")
"""What of a machine may change the last bits of a run's figures."""
DRAWN = ("scale", "shift", "flip", "policy", "jitter", "events", "cutout")
"""Augmentation of single samples."""


def read_recipe(folder: Path, *, trusted: bool = False) -> Recipe:
    """The recipe of a run folder. trusted: let what it names of its own run in this process (`staa.recipes.code.trust`).

    Raises FileNotFoundError if it is none, ValueError if it is a file, such as a .zip of a run, or its recipe is broken.
    """
    path = folder / RECIPE
    if folder.is_file():
        raise ValueError(f"{folder} is a file, and a run is a folder: {_folder_of(folder)}")
    if not path.is_file():
        runs = sorted(p.parent.name for p in folder.glob(f"*/{RECIPE}"))
        hint = f"; there are runs in it: {', '.join(runs[:4])}" if runs else ""
        why = f"it has no {RECIPE}{hint}" if folder.exists() else "it does not exist"
        raise FileNotFoundError(f"{folder} is not a run folder: {why}")
    recipe = _parsed(read_text(path), folder, path)
    if trusted:
        trust(recipe)
    return recipe


def _folder_of(file: Path) -> str:
    """What to do if a file was given for a run folder."""
    if file.suffix == ".zip":
        return f"unpack it first, with `python -m zipfile -e {shlex.quote(str(file))} .`, and give the folder that comes out"
    return f"give {file.parent}" if (file.parent / RECIPE).is_file() else "give the one that holds its recipe.json"


def _parsed(text: str, folder: Path, path: Path) -> Recipe:
    try:
        return from_json(text, str(folder.resolve()))
    except (ValueError, TypeError, AttributeError, OverflowError) as error:
        raise ValueError(f"{path} can't be read as a recipe: {error}") from error


def read_environment(folder: Path, recipe: Recipe | None = None) -> dict[str, Any]:
    """What a run recorded of its machine and data. recipe: the run's, if it has been read. Raises FileNotFoundError or
    ValueError if that is missing or broken."""
    path = folder / ENVIRONMENT
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing, which says what the run was trained on: resume the run to write it anew")
    environment = read_json(path)
    about = environment.get("data")
    root = environment.get("data_root")  # a shared run has none
    if not isinstance(about, dict) or not (root is None or (isinstance(root, str) and "\0" not in root)):
        raise ValueError(f"{path} is broken: it does not say what the data were; {ANEW}")
    task = task_of(recipe or read_recipe(folder))
    odd = [*task.odd_facts(about), *([] if isinstance(about.get("split"), str) else ["split"])]
    if odd:
        raise ValueError(f"{path} is broken: its data.{odd[0]} is missing or makes no sense; {ANEW}")
    for name, own in task.told_facts().items():
        if about[name] != own:
            raise ValueError(f"{path} is broken: its data.{name} is {about[name]}, the recipe's {own}; {ANEW}")
    return environment


def read_result(folder: Path, recipe: Recipe | None = None) -> dict[str, Any]:
    """The test figures of a finished run. recipe: the run's, if it has been read. Raises FileNotFoundError or ValueError if
    they are missing, broken or of another recipe."""
    path = folder / RESULT
    result = read_json(path)
    recipe = recipe or read_recipe(folder)
    task = task_of(recipe)
    others = {name for kind in TASKS for name in kind.figures} - set(task.figures)
    measured = [f"test_{name}" for name in ("loss", *task.figures)]
    if result.get("protocol") == "paper":
        measured.append("best_test_accuracy")
    odd = [name for name in measured if not is_real(result.get(name))]
    odd += [f"test_{name}" for name in sorted(others) if f"test_{name}" in result]
    odd += [name for name in result if name.startswith("test_") and not is_real(result[name])]
    odd += [name for name, own in (("recipe", recipe.name), ("protocol", recipe.protocol)) if result.get(name) != own]
    odd += [name for name in ("recipe", "weights", "protocol") if not isinstance(result.get(name), str)]
    counts = ["test_samples", "best_epoch", *(["best_test_epoch"] if result.get("protocol") == "paper" else [])]
    odd += [name for name in counts if not is_whole(result.get(name), 0, 2**53)]
    odd += task.odd_details(result)
    if odd:
        raise ValueError(f"{path} is broken: its {odd[0]} is missing or does not go with the recipe; {ANEW}")
    return result


def check_same_recipe(folder: Path, wanted: Recipe, own: Recipe | None = None) -> None:
    """Raises ValueError naming the fields in which a run's recipe differs from the wanted one. own: the run's, if it has been
    read."""
    odd = differences(comparable(own or read_recipe(folder)), comparable(wanted))
    if odd:
        raise ValueError(
            f"{folder} was trained with another recipe (its, yours): {'; '.join(odd[:4])}. A run keeps its recipe: leave the "
            f"changes out, train it longer once it is finished (`prolong`), or begin a new run, from its weights if you like "
            f"(`init_from`)"
        )


def check_origin(state: dict[str, Any], recipe: Recipe, path: Path) -> None:
    """Raises ValueError if a checkpoint was not made with this recipe."""
    if not isinstance(state.get("recipe"), str):
        raise ValueError(f"the checkpoint at {path} does not say which recipe it is of: take one that a run has written")
    odd = differences(comparable(_parsed(state["recipe"], path if path.is_dir() else path.parent, path)), comparable(recipe))
    if odd:
        raise ValueError(
            f"the checkpoint at {path} belongs to another recipe (its, the run's): {'; '.join(odd[:4])}; take one of this run"
        )


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file, without the number of its format. Raises OSError, or ValueError naming a file that is broken
    or of a newer version."""
    try:
        values = parse_json(read_text(path))
    except ValueError as error:
        raise ValueError(f"{path} is broken ({error}); {ANEW}") from error
    if not isinstance(values, dict):
        raise ValueError(f"{path} is broken: it must hold a JSON object; {ANEW}")
    check_format(values.pop("format", 0), path)
    return values


def save_json(path: Path, values: dict[str, Any]) -> None:
    """Write an object with the number of its format. Raises RuntimeError as `staa.files.write` does."""
    save_text(path, json.dumps({"format": FORMAT, **values}, indent=2) + "\n")


def check_split(folder: Path, source: SplitData, about: dict[str, Any]) -> tuple[str, ...]:
    """Raises ValueError if the run was trained on other data, of which its environment.json tells `about`.
    Returns what the user should hear."""
    if about.get("split") != source.split:
        raise ValueError(f"the data's split differs from the one {folder} was trained on: give the same data set (`data_root`)")
    for name, value in source.facts.items():
        if isinstance(value, int) and about.get(name, value) != value:
            raise ValueError(f"{folder / ENVIRONMENT} is broken: it tells of {about[name]!r} {name}, the data have {value}")
    kept, content = about.get("content"), source.content
    if kept is None:
        note = (
            f"{folder} was trained by a version that kept no digest of its data: whether they have changed since is not known"
        )
        return () if content is None else (note,)
    if not (isinstance(kept, dict) and all(isinstance(kept.get(key), str) for key in ("stamp", "sha256"))):
        raise ValueError(f"{folder / ENVIRONMENT} is broken: it does not say what its data held")
    if content is None or not content.is_that(kept):
        raise ValueError(
            f"the data have changed since {folder} was trained: their names and parts are the same, but what they hold is "
            f"not. Bring back what was there, give the folder that has it (`data_root`), or train anew on these"
        )
    return ()


def describe(
    source: SplitData,
    model: nn.Module,
    device: torch.device,
    precision: str,
    compile: bool | str,
    deterministic: bool,
    recipe: Recipe,
    root: Path,
    version: str,
) -> dict[str, Any]:
    """What a run records of its machine, code and data."""
    return {
        "staa": version,
        "commit": commit_of(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "platform": platform.platform(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else f"{device.type}, {os.cpu_count()} cores",
        "processor": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "processes": joined().world,
        "precision": precision,
        "compile": compile,
        "deterministic": deterministic,
        "augmentation": "by sample" if draws(recipe) else None,
        "neuron": neuron_path(device),
        "parameters": sum(p.numel() for p in model.parameters()),
        "data_root": str(root.resolve()),
        "data": {
            **source.facts,
            "split": source.split,
            "content": None if source.content is None else source.content.facts(),
            "train": len(source.train),
            "validation": 0 if source.validation is None else len(source.validation),
            "test": len(source.test),
        },
        "command": sys.argv,
        "job": os.environ.get("SLURM_JOB_ID"),
    }


def draws(recipe: Recipe) -> bool:
    """Whether a recipe augments single samples at random."""
    return any(getattr(recipe.augment, name) != getattr(Augment(), name) for name in DRAWN)


def neuron_path(device: torch.device) -> str:
    """Which code neurons run on here, and if it is the slow one, why."""
    if device.type == "cuda":
        return "fused kernels in Triton" if kernels_of("cuda") else "reference path, several times slower: no Triton here"
    return f"reference path, several times slower: {cpu.WHY_NOT}" if cpu.WHY_NOT else "fused CPU kernels"


def warnings_of(environment: dict[str, Any], begun: dict[str, Any] | None) -> list[str]:
    """What the user should hear of a run's machine: that it is slow, and what differs from the one the run was begun on."""
    texts = [f"neurons take the {path}"] if (path := environment["neuron"]).startswith("reference") else []
    begun = None if begun is None else {"deterministic": False, "augmentation": None, **begun}  # as a version before had it
    changed = [
        f"{name} {was!r}, now {environment[name]!r}"
        for name in CHANGES_BITS
        if begun is not None and (was := begun.get(name, environment[name])) != environment[name]
    ]
    if begun is not None and environment["augmentation"] != begun["augmentation"]:
        texts.append(
            "the run was begun with a version of staa that drew augmentation by the batch; this one draws it by the sample, so "
            "the run goes on with other draws than it would have had"
        )
    if changed:
        texts.append(f"the run was begun with other settings, so its last bits may differ: {'; '.join(changed)}")
    return texts


def commit_of() -> str | None:
    """The commit this package was run from, with a + for uncommitted changes; None outside a checkout of it."""
    here = Path(__file__).parent.parent
    try:
        git = ["git", "-C", str(here)]
        tracked = subprocess.run([*git, "ls-files", "--error-unmatch", __file__], capture_output=True, timeout=10)
        commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10)
        changes = subprocess.run([*git, "status", "--porcelain", "."], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    if tracked.returncode or commit.returncode:
        return None
    return commit.stdout.strip() + ("+" if changes.stdout.strip() else "")
