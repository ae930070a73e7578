"""The events of a run, as it goes on: what `train` and `run` yield, and what the log keeps of each.

step: the steps taken so far; epoch: the one they are in, from 1.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from torch import nn

Figures = dict[str, float]
"""What a `Measure` gives, by name, with "loss" among them."""


@dataclass(frozen=True)
class Start:
    """Training begins, or goes on from a checkpoint. `run` adds the last five, which the log leaves out."""

    step: int
    epoch: int
    steps: int
    """Of the whole run."""
    epoch_steps: int
    """Of an epoch."""
    data: Mapping[str, Any] = field(default_factory=dict)
    """What the run recorded of its data."""
    parameters: int | None = None
    trained: int | None = None
    """How many of the parameters are trained, and not frozen."""
    model: nn.Module | None = None
    """The network that is measured, to look at between two events: whoever changes it changes the run."""
    samples: Callable[[int], Any] | None = None
    """Inputs of so many training samples, the same ones at each call."""


@dataclass(frozen=True)
class Reading:
    """What is read from the device: the figures of the epoch so far, and the last batch's loss, with its penalty."""

    figures: Figures
    loss: float
    samples: int
    """Since the last reading, as are the seconds."""
    seconds: float
    rates: dict[str, float]
    """Mean, lowest and highest firing rate over the layers."""


@dataclass(frozen=True)
class Step:
    """A step was taken, with this learning rate."""

    step: int
    epoch: int
    lr: float
    read: Reading | None = None
    """None if nothing was read from the device."""


@dataclass(frozen=True)
class Warned:
    """What the user should hear."""

    step: int
    epoch: int
    text: str


@dataclass(frozen=True)
class Epoch:
    """An epoch has ended, and its checkpoint is written."""

    step: int
    epoch: int
    figures: Figures
    """On the training samples, as they were met."""
    rates: dict[str, float]
    """Firing rate by layer."""
    seconds: float
    waited: float
    """Seconds of these in which the loop waited for data."""
    measured_on: Literal["validation", "test"] | None = None
    measured: Figures = field(default_factory=dict)
    """After the epoch, on these samples; empty without them."""
    best: bool = False
    """Whether no epoch before was as good."""
    best_epoch: int = 0


@dataclass(frozen=True)
class Interrupted:
    """`stop` was true, and a checkpoint is written."""

    step: int
    epoch: int


@dataclass(frozen=True)
class End:
    """All steps are taken. best: the best epoch's score on validation; None, and epoch 0, without validation."""

    step: int
    epoch: int
    best: float | None
    best_epoch: int


@dataclass(frozen=True)
class Transfer:
    """A network took over weights of another run: texts that name the entries loaded, changed to fit, left out and fresh."""

    folder: str
    recipe: str
    step: int
    """Of the other run, as is the split of its data."""
    split: str
    same_split: bool
    loaded: list[str]
    changed: list[str]
    left_out: list[str]
    fresh: list[str]
    why: list[str] = field(default_factory=list)
    """Causes of what was left out, in few words."""


@dataclass(frozen=True)
class Result:
    """The run is finished: what its weights reach on the test set."""

    test: Figures
    samples: int
    weights: str
    recipe: str
    seed: int
    protocol: str
    best_epoch: int
    details: dict[str, Any]
    """What else the measure tells, such as the errors of a forecast by `horizons`."""
    best_test_accuracy: float | None = None
    """With protocol "paper": of the best epoch, chosen on the test set."""
    best_test_epoch: int | None = None

    def values(self) -> dict[str, Any]:
        """As result.json has it: test_accuracy …, test_samples, weights, …"""
        values = {f"test_{name}": value for name, value in self.test.items()}
        values |= {"test_samples": self.samples, "weights": self.weights, "recipe": self.recipe, "seed": self.seed}
        values |= {"protocol": self.protocol, "best_epoch": self.best_epoch, **self.details}
        if self.best_test_epoch is not None:
            values |= {"best_test_accuracy": self.best_test_accuracy, "best_test_epoch": self.best_test_epoch}
        return values

    @staticmethod
    def of(values: Mapping[str, Any]) -> "Result":
        """The result that such values tell; what no field is for is a detail."""
        known = ("weights", "recipe", "seed", "protocol", "best_epoch", "best_test_accuracy", "best_test_epoch")
        others = {name: value for name, value in values.items() if name not in (*known, "test_samples", "event")}
        test = {name.removeprefix("test_"): others.pop(name) for name in list(others) if name.startswith("test_")}
        fields = {name: values[name] for name in known if name in values}
        return Result(test=test, samples=values["test_samples"], details=others, **fields)


Event = Start | Step | Warned | Epoch | Interrupted | End | Transfer | Result


def for_log(event: Event) -> dict[str, Any]:
    """An event as a line of the log has it: plain values, with its name as "event"."""
    match event:
        case Result():
            return {"event": "result", **event.values()}
        case Transfer(folder=folder, recipe=recipe, step=step, split=split):
            other = {"from": folder, "from_recipe": recipe, "from_step": step, "from_split": split}
            own = {name: value for name, value in asdict(event).items() if name not in ("folder", "recipe", "step", "split")}
            return {"event": "transfer", "step": 0, "epoch": 1, **other, **own}
    at = {"step": event.step, "epoch": event.epoch}
    match event:
        case Start():
            return {"event": "start", **at, "steps": event.steps, "epoch_steps": event.epoch_steps}
        case Step(read=None):
            return {"event": "step", **at, "lr": event.lr}
        case Step(read=Reading() as read):
            told = {"loss": read.loss, "samples": read.samples, "seconds": read.seconds, "rates": read.rates}
            return {"event": "step", **at, "lr": event.lr, **read.figures, **told}
        case Warned():
            return {"event": "warning", **at, "text": event.text}
        case Epoch(measured_on=part):
            told = {"event": "epoch", **at, **event.figures, "rates": event.rates}
            if part is not None:
                told |= {f"{part}_{name}": value for name, value in event.measured.items()}
                told |= {"best": event.best, "best_epoch": event.best_epoch}
            return {**told, "seconds": event.seconds, "waited": event.waited}
        case Interrupted():
            return {"event": "interrupted", **at}
        case End():
            return {"event": "end", **at, "best": event.best, "best_epoch": event.best_epoch}
    raise TypeError(f"no event: {event!r}")
