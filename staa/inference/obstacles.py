"""Whether a run can be fed by a camera: all that is in the way, told at once, and the command that trains one without it."""

import shlex
from typing import Any

from torch import nn

from staa.build.inputs import Obstacle
from staa.causality import check_causal
from staa.recipes import RECIPES
from staa.recipes.as_json import flat
from staa.runs.load import Run

OTHER = "A run on recordings can be: 'staa train events-folder-stream --data DIR', or 'staa train nmnist-stream'"


def check_streamable(run: Run, model: nn.Module | None, *, window: float | None = None) -> None:
    """Raises ValueError naming all that keeps a run from a stream, and the command that trains one that can be streamed.

    model: the run's; None for a run that forecasts, whose network does not matter. window: that of the stream, in milliseconds,
    which does for frames that were cut otherwise.
    """
    if model is None:
        raise ValueError(f"{run.folder} can't be streamed: it forecasts a series. {OTHER}")
    known = [*run.preparation.obstacles, *_of_network(run, model)]
    found = [o.why for o in known if window is None or "data.window" not in (o.change or "")]
    if not found:
        return
    whys = found[0] if len(found) == 1 else "; ".join(f"({k}) {why}" for k, why in enumerate(found, 1))
    if any(o.change is None for o in known):
        what_to_do = OTHER
    else:
        what_to_do = f"This trains one that can be: {training(run, [o.change for o in known if o.change])}"
        if window is None and len(found) == 1 and "data.window" in (known[0].change or ""):
            what_to_do += "; or say how many ms a `window` has"
    raise ValueError(f"{run.folder} can't be streamed: {whys}. {what_to_do}")


def training(run: Run, changes: list[str]) -> str:
    """The command that trains the run's recipe with some settings, such as "data.values=sum", changed."""
    recipe = run.recipe
    given: dict[str, Any] = dict(change.split("=") for several in changes for change in several.split())
    if recipe.name not in RECIPES:
        return "staa train with your recipe and " + ", ".join(f"`{name}={value}`" for name, value in given.items())
    if given.get("model.steps") == "None":
        given["data.steps"] = recipe.model.steps
    named = flat(RECIPES[recipe.name])
    differ: dict[str, Any] = {name: value for name, value in flat(recipe).items() if named.get(name, ...) != value}
    words = ["staa", "train", recipe.name]
    if run.task.needs_files:
        words += ["--data", str(run.data_root or run.environment.get("data_root") or "DIR")]
    for name, value in (differ | given).items():
        section, dot, last = name.replace("_", "-").rpartition(".")
        flag = f"--{section}{dot}{'no-' if value is False else ''}{last}"
        words += [flag] if isinstance(value, bool) else [flag, str(value)]
    return shlex.join(words)


def _of_network(run: Run, model: nn.Module) -> list[Obstacle]:
    """What keeps the network from running window by window."""
    try:
        check_causal(model)
    except ValueError as error:
        whole = [module for module in model.modules() if not getattr(module, "causal", True)]
        if not whole or any(not type(module).__module__.startswith("staa.") for module in whole):
            raise ValueError(f"{run.folder} can't be streamed: {error}") from error  # of one's own: it says what to do
        return [Obstacle(str(error).partition(";")[0], _any_steps(run))]
    return []


def _any_steps(run: Run) -> str:
    """What makes a network of this library see no later step."""
    attention = getattr(run.task, "attention", None)
    try:
        if attention is not None:
            attention(None, 8)
    except ValueError:  # it is made for a fixed number of steps
        return "model.steps=None model.attention=staa"
    return "model.steps=None"
