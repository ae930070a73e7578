"""What a run begins with: an empty folder, or what an earlier process has left in it."""

from pathlib import Path
from typing import Any, NamedTuple

from staa.build import task_of
from staa.parallel import begin
from staa.recipes.recipe import Recipe
from staa.runs.folder import ENVIRONMENT, RECIPE, check_origin, check_same_recipe
from staa.runs.load import Run
from staa.runs.log import check_log
from staa.training.checkpoint import has_checkpoint, load_checkpoint


class Found(NamedTuple):
    """What is in a run folder to go on from: the result of a finished run, or the checkpoint, the environment that it was begun
    in, and what was recorded of the data."""

    result: dict[str, Any] | None = None
    state: dict[str, Any] | None = None
    begun: dict[str, Any] | None = None
    about: dict[str, Any] | None = None


def find(recipe: Recipe, folder: Path, resume: Path | None, same_data_as: Run | None) -> Found:
    """What there is to go on from; nothing for a new run, of which a launcher is then told (`staa.parallel.begin`).

    resume, same_data_as: as of `staa.runs.run`. Raises ValueError or OSError for a folder that a run can't be begun or gone on
    with in.
    """
    about = None if same_data_as is None else same_data_as.about
    if resume is None:
        if any(folder.iterdir()):
            there = "holds a run already: resume it" if (folder / RECIPE).is_file() else "holds other files: empty it"
            raise ValueError(f"{folder} {there}, or choose another folder")
        task_of(recipe).check()
        begin(str(folder))
        return Found(about=about)
    old = Run(folder)
    check_same_recipe(folder, recipe, old.recipe)
    check_log(folder)
    if resume.is_dir() and old.finished:
        return Found(result=old.result)
    if not (resume.is_file() or has_checkpoint(folder)):  # it died before its first one
        return Found(about=about)
    state = load_checkpoint(resume)
    check_origin(state, recipe, resume)
    begun = old.environment if (folder / ENVIRONMENT).is_file() else None
    return Found(state=state, begun=begun, about=about if begun is None else begun["data"])
