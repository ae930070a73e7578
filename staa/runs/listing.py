"""What run folders there are: of each what its records say, and nothing of it is run."""

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from staa.build import task_of
from staa.build.records import is_number, is_whole
from staa.files import check_no_file, read_bytes
from staa.locks import is_held
from staa.recipes.as_json import parse_json
from staa.recipes.recipe import Recipe
from staa.runs.folder import RECIPE, RESULT, read_recipe, read_result
from staa.runs.log import LOG
from staa.training.checkpoint import LAST

State = Literal["running", "finished", "stopped", "unfinished", "broken"]
"""running: a process holds the folder. unfinished: whether one does can't be told on this system."""
EVENT = re.compile(rb'^\{"time": (\d{1,11}(?:\.\d+)?), "event": "(\w+)".*\}$', re.MULTILINE)
"""A whole line of a log; one that a crash cut off is none."""


@dataclass(frozen=True)
class Listed:
    """A run folder, as it is listed."""

    folder: Path
    state: State
    recipe: Recipe | None = None
    """None if it is broken."""
    epoch: int = 0
    """The last one that has ended."""
    measured_on: str = ""
    """"test" for a finished run, else what each epoch is measured on: "validation", or with protocol "paper" "test"."""
    figures: Mapping[str, float] = field(default_factory=dict)
    """Those of the result, or of the best epoch so far."""
    seconds: float | None = None
    """In which it trained and was measured, without the time between an interruption and its resumption."""
    when: float | None = None
    """Of its last event, in seconds since 1970."""
    problem: str = ""
    """What is wrong with a broken one, or with the figure that counts, and then there are none."""


def runs_in(folders: Iterable[Path]) -> Iterator[Listed]:
    """Each run folder that is one of these folders or lies anywhere in them, once. Links, and folders with a name that begins
    with a dot, are not looked into. A broken run is listed, with what is wrong.

    Args:
        folders: Folders to look in.

    Raises:
        FileNotFoundError: If one of them does not exist.
        ValueError: If one of them is a file.
    """
    folders, seen = list(folders), set()
    for folder in folders:
        check_no_file(folder, "run folders")
        if not folder.exists():
            raise FileNotFoundError(f"{folder} does not exist: give a folder that holds run folders")
    for folder in folders:
        for found in _below(folder):
            if (key := found.folder.resolve()) not in seen:
                seen.add(key)
                yield found


def _below(folder: Path) -> Iterator[Listed]:
    unreadable: list[OSError] = []
    for at, below, files in os.walk(folder, onerror=unreadable.append):
        if RECIPE in files or {LOG, LAST} <= set(files):
            below.clear()
            yield listed(Path(at))
        below[:] = sorted(name for name in below if not name.startswith("."))
    for error in unreadable:
        yield Listed(Path(os.fsdecode(error.filename)), "broken", problem=f"it can't be read: {error.strerror}")


def listed(run_folder: Path) -> Listed:
    """What is listed of a run folder: recipe.json, result.json and log.jsonl are read, and whether a process holds it.

    Args:
        run_folder: The run folder.
    """
    try:
        recipe = read_recipe(run_folder)
        finished = (run_folder / RESULT).exists()
        data = read_bytes(run_folder / LOG) if (run_folder / LOG).exists() else b""
        times = [(float(found[1]), found[2]) for found in EVENT.finditer(data)]
        at, (epoch, part, said) = run_folder / LOG, _best_so_far(data, run_folder / LOG)
        if finished:
            at, part, said = run_folder / RESULT, "test", read_result(run_folder, recipe)
        counts = f"{part}_{task_of(recipe).figures[0]}"
        odd = bool(part) and not is_number(said.get(counts))
        figures = {} if odd else _figures_of(said, part)
        return Listed(
            run_folder,
            "finished" if finished else HELD[is_held(run_folder)],
            recipe=recipe,
            epoch=epoch,
            measured_on=part if figures else "",
            figures=figures,
            seconds=_seconds(times),
            when=times[-1][0] if times else None,
            problem=f"the {counts} in {at} is no finite number" if odd else "",
        )
    except (OSError, ValueError) as error:
        return Listed(run_folder, "broken", problem=" ".join(str(error).split()))


HELD: dict[bool | None, State] = {True: "running", False: "stopped", None: "unfinished"}


def _seconds(times: list[tuple[float, bytes]]) -> float | None:
    """From each start to the last event before the next environment, which a process writes first."""
    total, begun, last = 0.0, None, 0.0
    for when, event in times:
        if event == b"environment":
            total, begun = total + (0.0 if begun is None else max(0.0, last - begun)), None
        elif event == b"start":
            begun = when
        last = when
    total += 0.0 if begun is None else max(0.0, last - begun)
    return total if any(event == b"start" for _, event in times) else None


def _best_so_far(data: bytes, path: Path) -> tuple[int, str, dict[str, Any]]:
    """(the last epoch, what it was measured on, what is said of the best one so far). Of a log's lines two are parsed. Raises
    ValueError naming the log at `path` if one of them can't be."""
    epochs = [found[0] for found in EVENT.finditer(data) if found[2] == b"epoch"]
    if not epochs:
        return 0, "", {}
    last = _event(epochs[-1], path)
    best = last.get("best_epoch")
    of_best = [line for line in epochs if b'"epoch": %d,' % best in line] if isinstance(best, int) else []
    said = _event(of_best[-1], path) if of_best else {}
    part = next((part for part in ("validation", "test") if f"{part}_loss" in said), "")
    number: Any = last.get("epoch")
    return number if is_whole(number, 0) else 0, part, said


def _event(line: bytes, path: Path) -> dict[str, Any]:
    try:
        return parse_json(line.decode(errors="replace"))
    except ValueError as error:
        raise ValueError(f"{path} has a line of an epoch that can't be read: {error}") from error


def _figures_of(values: Mapping[str, Any], part: str) -> dict[str, float]:
    """The figures on a part of the data, by their names: a count of samples is none, nor what is not finite."""
    named = {name.removeprefix(f"{part}_"): value for name, value in values.items() if name.startswith(f"{part}_")}
    return {name: value for name, value in named.items() if name != "samples" and is_number(value)}
