"""What a recipe says: plain frozen data that goes to JSON and back. Nothing here knows a network or a data set."""

import dataclasses
import json
import math
import re
import types
from dataclasses import dataclass, field
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from tyro.conf import Suppress  # texts about a recipe are no options of the command line


@dataclass(frozen=True)
class Data:
    """What it trains on."""

    name: str = "digits-events"
    """Data set."""
    validation: float = 0.1
    """Share of the training set held out for validation, stratified; 0 holds out none."""
    augment: bool = True
    """Augment training samples: random crop (and flip, for photographs)."""

    def __post_init__(self) -> None:
        _check_types(self, "data.")


@dataclass(frozen=True)
class Model:
    """The network."""

    name: str = "resnet20"
    """Backbone, or my_file.py:function."""
    steps: int | None = 4
    """Time steps T; None for any T, where attention and data allow it."""
    width: float = 1.0
    """Multiplier of every layer's channels."""
    neuron: str = "adaptive"
    """Neuron, or my_file.py:function."""
    attention: str | None = "staa"
    """Attention, None for a plain network, or my_file.py:function."""
    sites: Literal["all", "last-of-stage", "stem"] | None = None
    """Where attention goes; None: its own default."""

    def __post_init__(self) -> None:
        _check_types(self, "model.")


@dataclass(frozen=True)
class Optim:
    """The optimizer: a linear warm-up, then a cosine from lr to min_lr over the run, set at every step."""

    name: Literal["sgd", "adamw"] = "sgd"
    """Optimizer."""
    lr: float = 0.1
    """Peak learning rate."""
    min_lr: float = 1e-5
    """Learning rate at the end."""
    momentum: float = 0.9
    """Momentum (sgd)."""
    weight_decay: float = 0.0
    """Weight decay of convolution and linear weights; never on norms, biases, decays, gains and position encodings."""
    warmup_epochs: float = 0.0
    """Epochs of linear warm-up."""
    clip: float | None = None
    """Largest norm of the whole gradient; None: no clipping."""

    def __post_init__(self) -> None:
        _check_types(self, "optim.")


@dataclass(frozen=True)
class Recipe:
    """How to train one network: the whole truth of a run but for its seed's draws and the machine."""

    name: Suppress[str] = ""
    """What it is called."""
    summary: Suppress[str] = ""
    """One line on what it is."""
    source: Suppress[str] = ""
    """Where its numbers come from."""
    expect: Suppress[str] = ""
    """What we measured, or that we did not; the paper's figure is marked as such."""
    data: Data = field(default_factory=Data)
    model: Model = field(default_factory=Model)
    optim: Optim = field(default_factory=Optim)
    epochs: int = 10
    """Passes over the training set."""
    max_steps: int | None = None
    """Stop after so many optimizer steps, with the schedule fitted to them; None: all epochs."""
    batch_size: int = 128
    """Samples a step."""
    label_smoothing: float = 0.0
    """Label smoothing of the cross-entropy."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """auto: bfloat16 autocast on a GPU that has it, else float32."""
    seed: int = 0
    """Seed of every random number of the run."""

    def __post_init__(self) -> None:
        _check_types(self)
        _require(bool(re.fullmatch(r"[\w+-][\w.+-]*|", self.name)), "a recipe's name has letters, digits, _ . + -", self.name)
        _require(0 <= self.seed < 2**63, "seed is from 0 to 2**63 - 1", self.seed)
        for name in ("epochs", "batch_size"):
            _require(getattr(self, name) >= 1, f"{name} must be at least 1", getattr(self, name))
        _require(self.max_steps is None or self.max_steps >= 1, "max_steps must be at least 1", self.max_steps)
        _require(0 <= self.data.validation < 1, "data.validation is a share in [0, 1)", self.data.validation)
        _require(0 <= self.label_smoothing < 1, "label_smoothing is in [0, 1)", self.label_smoothing)
        _require(0 < self.optim.lr < math.inf, "optim.lr must be positive and finite", self.optim.lr)
        _require(0 <= self.optim.momentum < 1, "optim.momentum is in [0, 1)", self.optim.momentum)
        _require(0 <= self.optim.min_lr <= self.optim.lr, "optim.min_lr is from 0 to optim.lr", self.optim.min_lr)
        _require(self.optim.clip is None or self.optim.clip > 0, "optim.clip must be positive", self.optim.clip)
        _require(self.optim.warmup_epochs >= 0, "optim.warmup_epochs can't be negative", self.optim.warmup_epochs)
        _require(0 <= self.optim.weight_decay < math.inf, "optim.weight_decay is finite, from 0 on", self.optim.weight_decay)
        _require(self.model.steps is None or self.model.steps >= 1, "model.steps must be at least 1", self.model.steps)
        _require(self.model.width > 0, "model.width must be positive", self.model.width)


def to_json(recipe: Recipe) -> str:
    """The recipe as JSON text, every field written out."""
    return json.dumps(dataclasses.asdict(recipe), indent=2) + "\n"


def from_json(text: str) -> Recipe:
    """The recipe of such a text; a field it lacks, as one of an older version may, takes its default.

    Raises ValueError naming a field that is unknown, a part that is missing, or what is no JSON.
    """
    values = json.loads(text)  # JSONDecodeError is a ValueError
    for name, part in {"data": Data, "model": Model, "optim": Optim}.items():
        if not isinstance(values, dict) or not isinstance(values.get(name), dict):
            raise ValueError(f"this is no recipe: it has no {name!r}")
        values[name] = _filled(part, values[name], f"{name}.")
    return _filled(Recipe, values, "")


def differences(a: Recipe, b: Recipe) -> list[str]:
    """The fields in which two recipes differ, as 'field: a's, b's'; texts about the recipe do not count."""
    flat_a, flat_b = _flat(a), _flat(b)
    return [f"{k}: {flat_a[k]!r}, {flat_b[k]!r}" for k in flat_a if flat_a[k] != flat_b[k]]


def _flat(recipe: Recipe) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in dataclasses.asdict(recipe).items():
        if isinstance(value, dict):
            flat |= {f"{key}.{k}": v for k, v in value.items()}
        elif key not in ("summary", "source", "expect"):
            flat[key] = value
    return flat


def _filled(kind: Any, values: dict[str, Any], prefix: str) -> Any:
    unknown = values.keys() - {f.name for f in dataclasses.fields(kind)}
    if unknown:
        raise ValueError(f"this recipe is of another version of staa: unknown {', '.join(prefix + k for k in sorted(unknown))}")
    return kind(**values)


def _check_types(values: Any, prefix: str = "") -> None:
    """Raises ValueError for a field whose value is not of its annotated type; a whole number passes for a float."""
    for name, hint in get_type_hints(type(values)).items():
        value, allowed = getattr(values, name), _alternatives(hint)
        if type(value) in allowed or (isinstance(value, str) and value in allowed) or (float in allowed and type(value) is int):
            continue
        names = ", ".join("None" if a is type(None) else a.__name__ if isinstance(a, type) else repr(a) for a in allowed)
        raise ValueError(f"{prefix}{name} must be {names}; got {value!r}")


def _alternatives(hint: Any) -> list[Any]:
    """The types and literal values an annotation allows."""
    if get_origin(hint) is Literal:
        return list(get_args(hint))
    if get_origin(hint) in (types.UnionType, Union):
        return [a for part in get_args(hint) for a in _alternatives(part)]
    return [hint]


def _require(fine: bool, rule: str, given: Any) -> None:
    if not fine:
        raise ValueError(f"{rule}, got {given}")
