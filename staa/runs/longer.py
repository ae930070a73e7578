"""A finished run, trained for longer: a new run that begins where it ended."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from staa.files import read_bytes, save_text, write
from staa.locks import exclusive
from staa.recipes.as_json import to_json
from staa.recipes.code import for_folder
from staa.runs.folder import ENVIRONMENT, RECIPE, check_origin, read_environment, read_result
from staa.runs.load import Run, opened
from staa.runs.log import LOG, check_log
from staa.training.checkpoint import BEST, LAST, checkpoint_bytes, load_checkpoint

COPIED = (ENVIRONMENT, LOG, BEST)


def prolong(run: Run | str | Path, epochs: int, out: Path, *, trust: bool = False) -> Path:
    """Make a run that goes on with a finished one for so many epochs, and return its folder, to be resumed like any other.

    The finished run stays as it is. The new one has its log, best weights and checkpoint, and its recipe with the epochs in
    `prolonged`: the learning rate goes down another cosine, from the recipe's lr to min_lr, with the optimizer's moments as
    they were. It ends with the weights of a run of that recipe from the start.

    Args:
        run: A `staa.Run`, or a run folder.
        epochs: How many more, from 1.
        out: The new run's folder, which is made, and must be empty.
        trust: Let Python files in the run folder run, if the run has parts of its own.

    Raises:
        FileNotFoundError: If there is no such run, or it has no checkpoint.
        ValueError: If it is not finished, can't be gone on with or is broken, or if out holds files.
        RuntimeError: If the new run can't be written.
    """
    run = opened(run, trust=trust)
    recipe, state = _continued(run, epochs)
    kept, copies = for_folder(recipe)
    files = copies | {name: read_bytes(run.folder / name) for name in COPIED if (run.folder / name).is_file()}
    with exclusive(out):
        if any(out.iterdir()):
            there = ", or resume the run in it" if (out / RECIPE).is_file() else ", or empty it"
            raise ValueError(f"{out} holds files already: choose another folder{there}")
        for name, data in files.items():
            (out / name).parent.mkdir(exist_ok=True)
            write(out / name, data)
        write(out / LAST, checkpoint_bytes({**state, "recipe": to_json(kept)}))
        save_text(out / RECIPE, to_json(kept))  # with which it is a run
    return out


def check_prolonged(run: Run, epochs: int) -> None:
    """Raises what `prolong` does for a run that can't be prolonged, before anything is written."""
    _continued(run, epochs)


def _continued(run: Run, epochs: int) -> tuple[Any, dict[str, Any]]:
    """The prolonged recipe, and the checkpoint that it goes on from."""
    if type(epochs) is not int or epochs < 1:
        raise ValueError(f"`prolong` must be a number of epochs from 1, got {epochs!r}")
    folder = run.folder
    if not run.finished:
        raise ValueError(f"{folder} is not finished, so it can't be prolonged: go on with it first (`resume={folder}`)")
    run.task.check()
    for path in (folder / name for name in COPIED):
        if path.is_symlink():  # to a file that is another's business
            raise ValueError(f"{path} is a link, which is not copied into a new run: put the file itself there")
    read_result(folder, run.recipe)
    check_log(folder)
    if (folder / ENVIRONMENT).is_file():  # else it is written anew
        read_environment(folder, run.recipe)
    state = load_checkpoint(folder)
    check_origin(state, run.recipe, folder / LAST)
    patience, report = run.recipe.optim.patience, state.get("report", {})
    if patience is not None and report.get("epoch", 0) - state.get("best_epoch", 0) >= patience:
        raise ValueError(
            f"{folder} ended since none of its last {patience} epochs was better (`optim.patience`), and would at once again: "
            f"begin a new run from its weights (`init_from`)"
        )
    if state["step"] == 0:
        raise ValueError(f"{folder} holds a network that is not trained in steps, so more epochs change nothing")
    try:
        rates = [float(group["initial_lr"]) for group in state["optimizer"]["param_groups"]]
        groups = [{**group, "lr": rate} for group, rate in zip(state["optimizer"]["param_groups"], rates, strict=True)]
        state["optimizer"] = {**state["optimizer"], "param_groups": groups}
        state["schedule"] = {**state["schedule"], "_last_lr": rates}
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{folder / LAST} lacks what training goes on with, as a shared run does: take the run itself"
        ) from error
    return replace(run.recipe, prolonged=(*run.recipe.prolonged, epochs)), state
