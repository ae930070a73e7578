"""A run folder: the records in it, and the checks that they belong together."""

import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn

from staa.config import Recipe, differences, from_json
from staa.data import SeriesSource, Source
from staa.files import append_text

RECIPE, LOG, ENVIRONMENT, RESULT = "recipe.json", "log.jsonl", "environment.json", "result.json"


def read_recipe(folder: Path) -> Recipe:
    """The recipe of a run folder. Raises FileNotFoundError where it is none, ValueError where its recipe is broken."""
    path = folder / RECIPE
    if not path.is_file():
        runs = sorted(p.parent.name for p in folder.glob(f"*/{RECIPE}"))
        hint = f"; there are runs in it: {', '.join(runs[:4])}" if runs else ""
        raise FileNotFoundError(f"{folder} is not a run folder: it has no {RECIPE}{hint}")
    try:
        return from_json(path.read_text())
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} can't be read as a recipe: {error}") from error


def read_environment(folder: Path) -> dict[str, Any]:
    """What a run recorded of its machine and data. Raises FileNotFoundError or ValueError where that is missing or broken."""
    path = folder / ENVIRONMENT
    if not path.is_file():
        raise FileNotFoundError(f"{folder} is not a run folder: it has no {ENVIRONMENT}")
    environment = read_json(path)
    about = environment.get("data")
    about = about if isinstance(about, dict) else {}
    sizes = [
        about.get(key) for key in (("nodes", "window", "horizon") if "nodes" in about else ("classes", "channels", "size"))
    ]
    lists = [about.get(key) for key in (("names", "offset", "scale") if "nodes" in about else ())]
    whole = all(isinstance(n, int) and n > 0 for n in sizes) and all(isinstance(a, list) and len(a) == sizes[0] for a in lists)
    if not whole or not isinstance(environment.get("data_root"), str):
        raise ValueError(f"{path} is broken: it does not say what the data were; delete it and resume the run to write it anew")
    return environment


def check_same_recipe(folder: Path, wanted: Recipe) -> None:
    """Raises ValueError naming the fields in which a run's recipe differs from the wanted one."""
    odd = differences(read_recipe(folder), wanted)
    if odd:
        raise ValueError(f"{folder} was trained with another recipe (its, yours): {'; '.join(odd[:4])}")


def check_origin(state: dict[str, Any], recipe: Recipe, path: Path) -> None:
    """Raises ValueError where a checkpoint was not made with this recipe."""
    if "recipe" not in state:
        raise ValueError(f"the checkpoint at {path} does not say which recipe it is of")
    odd = differences(from_json(state["recipe"]), recipe)
    if odd:
        raise ValueError(f"the checkpoint at {path} belongs to another recipe (its, the run's): {'; '.join(odd[:4])}")


def log(folder: Path, event: dict[str, Any]) -> None:
    """Add an event to the run's log."""
    path = folder / LOG
    try:
        append_text(path, json.dumps({"time": round(time.time(), 3), **event}) + "\n")
    except OSError as error:
        raise RuntimeError(f"could not write {path}: {error.strerror}; the last checkpoint is kept") from error


def log_once(folder: Path, event: dict[str, Any]) -> None:
    """Add an event to the run's log unless it is there."""
    path = folder / LOG
    mark = f'"event": "{event["event"]}", "step": {event["step"]},'
    if not path.is_file() or mark not in path.read_text(errors="replace"):
        log(folder, event)


def read_json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path} is broken ({error}); delete it and resume the run to write it anew") from error
    if not isinstance(values, dict):
        raise ValueError(f"{path} is broken: it holds no object")
    return values


def check_split(folder: Path, source: Source | SeriesSource) -> tuple[str, ...]:
    """Raises ValueError if the data are not those that the run was trained on. Returns what the user should hear."""
    about = read_environment(folder)["data"]
    if about.get("split") != source.split:
        raise ValueError(f"the data's split differs from the one {folder} was trained on; is it another data set?")
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
            f"the data have changed since {folder} was trained: their names and parts are the same, what they hold is not. "
            f"Bring back what was there, or give the folder that has it (data_root), or train anew on these"
        )
    return ()


def describe(
    source: Source | SeriesSource, model: nn.Module, device: torch.device, precision: str, root: Path, version: str
) -> dict[str, Any]:
    """What a run records of its machine, code and data."""
    return {
        "staa": version,
        "commit": _commit(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "platform": platform.platform(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else f"{device.type}, {os.cpu_count()} cores",
        "threads": torch.get_num_threads(),
        "precision": precision,
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
    }


def _commit() -> str | None:
    """The commit this package was run from, with a + for uncommitted changes; None outside a checkout of it."""
    here = Path(__file__).parent
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
