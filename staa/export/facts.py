"""What an exported file says of itself: one JSON object, the same in ONNX and in a program, written and read."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from staa.build import Task, task_of
from staa.build.inputs import PREPARATIONS, Preparation, preparation_of
from staa.build.records import is_whole
from staa.export.network import Form, State
from staa.export.proof import Proof
from staa.export.share import cleaner
from staa.files import FORMAT, check_bytes, check_format
from staa.recipes.as_json import from_json, parse_json, to_json
from staa.recipes.code import for_folder
from staa.recipes.recipe import Recipe
from staa.runs.classify import sees_the_whole
from staa.runs.folder import commit_of
from staa.runs.load import Run, Weights
from staa.version import __version__

KEY = "staa"
"""Of the metadata: an ONNX file's own, or an archive's extra file of this name with .json."""
OPSET = 18
LONGEST = 2**24  # characters of JSON: an ImageNet of long names is a thousandth of it


class Ends(NamedTuple):
    """What a network's own input and outputs are called, beside the state."""

    input: str
    outputs: tuple[str, ...]


ENDS: dict[str, Ends] = {
    "window": Ends("x", ("logits", "mean")),
    "step": Ends("frame", ("logits",)),
    "graph": Ends("input", ("output",)),
}


@dataclass(frozen=True)
class Facts:
    """What a file that staa wrote says of itself, checked.

    Args:
        form: Whether it holds the whole window or one step.
        steps: T; None: any number.
        whole: Whether the network sees the whole window, so that no step can be had before the last frame.
        names: Of the classes.
        preparation: How an input is made of a file or an array.
        recipe: The run's.
        state: What is carried from step to step, of form step.
        told: The object as it stands.
    """

    form: Form
    steps: int | None
    whole: bool
    names: tuple[str, ...]
    preparation: Preparation
    recipe: Recipe
    state: tuple[State, ...]
    told: dict[str, Any]

    @property
    def inputs(self) -> dict[str, tuple[tuple[int | None, ...], str]]:
        """The shape, None for N, and the type of each input."""
        own = input_sizes(self.form, self.preparation.shape), "float32"
        return {ENDS[self.form].input: own, **{s.name: (s.shape, s.dtype) for s in self.state}}


def input_sizes(form: Form | Literal["graph"], shape: tuple[int, ...]) -> tuple[int | None, ...]:
    """Sizes of a batch of inputs of a shape, None for N."""
    return (shape[0], None, *shape[1:]) if form == "window" and len(shape) == 4 else (None, *shape[-3:])


def facts_of(
    run: Run, form: Form | Literal["graph"], state: tuple[State, ...], *, weights: Weights | None, proof: Proof | None,
    opset: int | None = None,
) -> dict[str, Any]:  # fmt: skip
    """What a file is to say of a run's network; nothing of this machine, its user and its folders.

    Args:
        run: The run.
        form: What is exported; "graph": that of NIR, of one step.
        state: What is carried from step to step, as inputs and outputs.
        weights: Those of the network.
        proof: The comparison with the run; None: it was not verified.
        opset: Of an ONNX file.
    """
    about, recipe = run.about, run.recipe
    kept = parse_json(to_json(for_folder(recipe)[0]))
    told = {
        "staa": __version__,
        "commit": commit_of(),
        "trained": {"staa": run.environment.get("staa"), "commit": run.environment.get("commit")},
        "weights": weights or recipe.weights,
        "form": form,
        "steps": recipe.model.steps if form == "step" else run.preparation.steps,
        "whole": sees_the_whole(run.model(weights)) is not None,
        "input": {"name": ENDS[form].input, "shape": input_sizes(form, run.input_shape), "dtype": "float32"},
        "outputs": ENDS[form].outputs,
        "state": [{"name": s.name, "next": s.next, "shape": s.shape, "dtype": s.dtype} for s in state],
        "classes": run.names,
        "data": {name: about[name] for name in ("classes", "channels", "size")},
        "preprocessing": {
            "input": run.preparation.what, "values": getattr(PREPARATIONS.get(recipe.data.name), "keywords", {}),
            "settings": kept["data"],
        },
        "opset": opset,
        "verified": proof is not None,
        "proof": None if proof is None else proof._asdict(),
        "recipe": kept,
    }  # fmt: skip
    return {"format": FORMAT, **cleaner(run.folder.resolve(), run.environment)(told)}


def as_text(told: dict[str, Any]) -> str:
    """Facts as JSON."""
    return json.dumps(told)


def read_facts(text: str, path: Path) -> Facts:
    """The facts of a file, checked as a run's records are; nothing in them runs.

    Raises ValueError naming what is missing or makes no sense, for a newer format, and for inputs that code of one's own makes.
    """
    try:
        if len(text) > LONGEST:
            raise ValueError(f"it has {len(text)} characters")
        told = parse_json(text)
    except ValueError as error:
        raise ValueError(f"{path} is broken: what it says of itself can't be read ({error})") from error
    if not isinstance(told, dict):
        raise ValueError(f"{path} is broken: what it says of itself is no JSON object")
    check_format(told.get("format"), path)
    try:
        recipe = from_json(json.dumps(told.get("recipe")), str(path.resolve()))
    except (ValueError, TypeError, AttributeError, OverflowError) as error:
        raise ValueError(f"{path} is broken: its recipe can't be read: {error}") from error
    if recipe.data.name not in PREPARATIONS:
        raise ValueError(
            f"{path} is of a run whose data set is one of its own, so how a file becomes an input is not known: give the run "
            f"folder, or call the file from Python"
        )
    about = {**_object(told.get("data")), "names": told.get("classes")}
    odd = _odd(told, recipe, task_of(recipe), about)
    if odd:
        raise ValueError(f"{path} is broken: its {odd[0]} is missing or makes no sense; export the run anew")
    state = tuple(State(s["name"], tuple(s["shape"]), s["dtype"]) for s in told["state"])
    preparation = preparation_of(task_of(recipe), about)
    return Facts(told["form"], told["steps"], told["whole"], tuple(told["classes"]), preparation, recipe, state, told)


def _odd(told: dict[str, Any], recipe: Recipe, task: Task[Any], about: dict[str, Any]) -> list[str]:
    """What of the facts makes no sense."""
    if task.verb != "classify":
        return ["recipe"]
    odd = [] if told.get("form") in ("window", "step") else ["form"]
    odd += [] if type(told.get("whole")) is bool else ["whole"]
    odd += [] if isinstance(about["names"], list) else ["classes"]
    odd += task.odd_facts(about)
    if odd:
        return odd
    check_bytes(4 * about["channels"] * about["size"] ** 2 * (recipe.model.steps or 1), "one input of this file")
    preparation = preparation_of(task, about)
    step = told["form"] == "step"
    steps = recipe.model.steps if step else preparation.steps
    odd += [] if told.get("steps") == steps and type(told["steps"]) is type(steps) else ["steps"]
    states = told.get("state")
    if not isinstance(states, list) or bool(states) > step or not all(_is_state(s) for s in states):
        return [*odd, "state"]
    if len({s["name"] for s in states} | {ENDS["step"].input}) <= len(states):
        return [*odd, "state"]
    check_bytes(sum(8 * math.prod(side or 1 for side in s["shape"]) for s in states), "the state of this file")
    return odd


def _is_state(s: Any) -> bool:
    s = _object(s)
    shape = s.get("shape")
    return (
        isinstance(s.get("name"), str)
        and isinstance(s.get("next"), str)
        and s.get("dtype") in ("float32", "int64")
        and isinstance(shape, list)
        and 0 < len(shape) < 8
        and shape.count(None) <= 1
        and all(side is None or is_whole(side, 1) for side in shape)
    )


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
