"""Whether a run can be fed by a camera: all that is in the way, told at once, and the command that trains one without it."""

import shlex
from typing import Any

from torch import nn

from staa.build.inputs import Obstacle
from staa.causality import check_causal
from staa.recipes import RECIPES
from staa.recipes.as_json import flat
from staa.runs.load import Run

def check_streamable(run: Run, model: nn.Module | None, *, window: float | None = None) -> None:
    """Raises ValueError naming all that keeps a run from a stream, and the command that trains one that can be streamed.

    model: the run's; None for a run that forecasts, whose network does not matter. window: that of the stream, in milliseconds,
    which does for frames that were cut otherwise.
    """
    if model is None:
        found = [Obstacle("it forecasts a series, and a stream takes events of a camera")]
    else:
        found = [o for o in run.preparation.obstacles if window is None or "data.window" not in (o.change or "")]
        try:
            check_causal(model)
        except ValueError as error:
            whole = [module for module in model.modules() if not getattr(module, "causal", True)]
            own = not whole or any(not type(module).__module__.startswith("staa.") for module in whole)
            found.append(Obstacle(str(error), None if own else _any_steps(run)))
            if own:  # what to do stands in the message
                _refuse(run, found, "")
    if not found:
        return
    changes = [setting for o in found if o.change is not None for setting in o.change.split()]
    if any(o.change is None for o in found):
        _refuse(run, found, "Trained on recordings, one can: staa train events-folder-stream --data DIR (or nmnist-stream)")
    hint = ", or say how long a `window` is in ms" if any("data.window" in setting for setting in changes) else ""
    _refuse(run, found, f"What trains one that can: {training(run, changes)}" + (hint if len(found) == 1 else ""))


def training(run: Run, changes: list[str]) -> str:
    """The command that trains the run's recipe with some settings, such as "data.values=sum", changed."""
    recipe = run.recipe
    if recipe.name not in RECIPES:
        return "its recipe with " + ", ".join(f"`{change}`" for change in changes)
    settings, named = flat(recipe), flat(RECIPES[recipe.name])
    given: dict[str, Any] = {name: value for name, value in settings.items() if named.get(name, ...) != value}
    given |= dict(change.split("=") for change in changes)
    if given.get("model.steps") == "None":
        given.setdefault("data.steps", recipe.model.steps or recipe.data.steps)
    words = ["staa", "train", recipe.name]
    if run.task.needs_files:
        words += ["--data", str(run.data_root or run.environment.get("data_root") or "DIR")]
    for name, value in given.items():
        flag = name.replace("_", "-")
        section, dot, last = flag.rpartition(".")
        words += [f"--{section}{dot}no-{last}"] if value is False else [f"--{flag}"] if value is True else [f"--{flag}", str(value)]
    return shlex.join(words)


def _any_steps(run: Run) -> str:
    """What makes a network of this library see no later step."""
    attention = getattr(run.task, "attention", None)
    try:
        if attention is not None:
            attention(None, 8)
    except ValueError:  # it is made for a fixed number of steps
        return "model.steps=None model.attention=staa"
    return "model.steps=None"


def _refuse(run: Run, found: list[Obstacle], what_to_do: str) -> None:
    reasons = "; ".join(o.why if len(found) == 1 else f"({k}) {o.why}" for k, o in enumerate(found, 1))
    raise ValueError(f"{run.folder} can't be streamed: {reasons}" + (f". {what_to_do}" if what_to_do else ""))
