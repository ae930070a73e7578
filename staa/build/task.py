"""What a kind of job needs of a recipe: its data, network, loss and measure. A kind is one subclass of `Task`."""

import inspect
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import fields
from functools import cached_property, partial
from pathlib import Path
from typing import Any, ClassVar, Generic, Literal, Protocol, TypeVar

import torch
from torch import Tensor, nn

from staa.attention import ATTENTIONS
from staa.build.settings import settings_for
from staa.data.source import SplitData
from staa.neurons import NEURONS
from staa.recipes.code import UntrustedCodeError
from staa.recipes.find import find
from staa.recipes.options import name_of
from staa.recipes.parts import Loss, Optim
from staa.recipes.recipe import Recipe
from staa.training.evaluate import Epochs, Inputs, Measure

Part = Literal["train", "validation", "test"]


class Loader(Epochs, Protocol):
    """Batches of a data set; `close` ends the processes that make them."""

    def close(self) -> None: ...


LARGEST = 2**24  # classes, pixels, nodes: what a run's records may say of its data

S = TypeVar("S", bound=SplitData)


class Task(ABC, Generic[S]):
    """A recipe, resolved: its names are objects, and its settings are given to those that take them.

    Each name is looked up once, if it is needed; `check` looks at all. Raises what `staa.recipes.find.find` does, and
    ValueError for a setting that its part does not take.
    """

    verb: ClassVar[str]
    """What such a network does: it classifies, it forecasts."""
    figures: ClassVar[tuple[str, ...]]
    """What is measured beside the loss; the first one counts in a comparison."""
    datasets: ClassVar[Mapping[str, Callable[..., Any]]]
    networks: ClassVar[Mapping[str, Callable[..., nn.Module]]]
    losses: ClassVar[Mapping[str, Callable[..., Tensor]]]
    words: ClassVar[tuple[str, str]]
    """What messages call a data set and a network."""
    parts: ClassVar[tuple[str, ...]] = ("read", "backbone", "neuron", "loss")
    """What `check` looks at."""

    def __init__(self, recipe: Recipe):
        self.recipe = recipe

    @staticmethod
    @abstractmethod
    def takes(recipe: Recipe) -> bool:
        """Whether a recipe is of this kind."""

    def check(self) -> None:
        """Raises ValueError with all that is wrong with the recipe's names and settings."""
        errors = []
        for part in self.parts:
            try:
                getattr(self, part)
            except UntrustedCodeError:
                raise
            except ValueError as error:
                errors.append(str(error))
        errors += self.odd_settings()
        if len(errors) == 1:
            raise ValueError(errors[0])
        if errors:
            raise ValueError(f"{len(errors)} settings are wrong: " + "; ".join(f"({k}) {e}" for k, e in enumerate(errors, 1)))

    @cached_property
    def dataset(self) -> Callable[..., Any]:
        return find(self.recipe.data.name, self.datasets, self.words[0], folder=self.recipe.folder)

    @property
    def needs_files(self) -> bool:
        """Whether its data lie in files, and are not made or come with a package."""
        return "root" in inspect.signature(self.dataset).parameters

    @cached_property
    @abstractmethod
    def read(self) -> Callable[..., Any]:
        """The data set with the recipe's settings."""

    @abstractmethod
    def source(self, root: Path, *, check: bool = True) -> S:
        """The recipe's data, split. check=False does not look for files that can't be read: one is named when it is met."""

    @abstractmethod
    def batches(self, source: S, part: Part, device: torch.device, *, workers: int, training: bool = False) -> Loader:
        """A part of the data: for training shuffled and augmented as the recipe says, else in order and plain.

        workers: processes that read and augment, if samples are read from files or augmented one by one.
        """

    @abstractmethod
    def samples(self, source: S, count: int, device: torch.device) -> tuple[Inputs, Tensor]:
        """Inputs of some training samples, spread over all of them, and their targets in the form that training has."""

    @cached_property
    @abstractmethod
    def backbone(self) -> Callable[..., nn.Module]:
        """What makes the network, with the recipe's settings."""

    @cached_property
    def neuron(self) -> Callable[..., nn.Module]:
        return find(self.recipe.model.neuron, NEURONS, "neuron", folder=self.recipe.folder)

    @abstractmethod
    def network(
        self, facts: Mapping[str, Any], *, source: S | None = None, state: Mapping[str, Any] | None = None
    ) -> nn.Module:
        """The recipe's network for data of such facts, with fresh weights drawn from the global random state.

        source: the data, for what of them is a part of the network. state: a state dict that it is built for; raises ValueError
        before memory is taken, if one of the library's networks has other sizes.
        """

    def model_for(self, source: S) -> nn.Module:
        """The recipe's network for this data, with fresh weights."""
        return self.network(source.facts, source=source)

    @cached_property
    def loss(self) -> Callable[[Tensor, Tensor], Tensor]:
        """The recipe's loss of (outputs, targets)."""
        loss = find(self.recipe.loss.name, self.losses, "loss", folder=self.recipe.folder)
        own = self.recipe.loss
        names = "label_smoothing", "tet_weight", "tet_level"
        return partial(loss, **settings_for(loss, f"the loss {name_of(own.name)}", ("loss", own, names)))

    @abstractmethod
    def measure(self, source: S, device: torch.device) -> Measure:
        """What is measured of outputs on that device."""

    @abstractmethod
    def odd_facts(self, about: Mapping[str, Any]) -> list[str]:
        """What a run's record of its data lacks, or can't be right, of what others go by."""

    def odd_settings(self) -> list[str]:
        """What else of the recipe has no effect on this kind of job, as messages."""
        return []

    def settings(self) -> dict[str, set[str]]:
        """The settings of each part of a recipe that have an effect on it, by the signatures of its data set and network; of
        those that depend on the kind of job."""
        return {}

    def settings_taken(self) -> set[str]:
        """All settings that have an effect on the recipe, such as "data.size"."""
        spiking = {"rate_weight", "rate_target"} if "neuron" in inspect.signature(self.backbone).parameters else set()
        loss = names_of(Loss) & set(inspect.signature(self.loss).parameters)
        taken = {"": names_of(Recipe), "optim": names_of(Optim), "loss": {"name"} | loss | spiking, **self.settings()}
        return {f"{part}.{name}".lstrip(".") for part, names in taken.items() for name in names}

    def registries(self) -> dict[str, tuple[str, Mapping[str, Any]]]:
        """What an entry is called, and the registry, for each field of a recipe that names a part."""
        return {
            "data.name": (self.words[0], self.datasets),
            "model.name": (self.words[1], self.networks),
            "model.neuron": ("neuron", NEURONS),
            "model.attention": ("attention", ATTENTIONS),
            "loss.name": ("loss", self.losses),
        }

    def told_facts(self) -> dict[str, Any]:
        """Facts that the recipe tells too."""
        return {}

    def odd_details(self, result: Mapping[str, Any]) -> list[str]:
        """The same of a result, beside its figures."""
        return []

    def own_weights(self, *, same: bool) -> dict[str, str]:
        """Entries and modules that another run's network never gives this one, each with why. same: their data are the same."""
        return {}

    def check_early(self, source: S, model: nn.Module) -> None:
        """Tries on the network what the recipe makes smaller early in training. Raises ValueError if it has no such form."""

    def fit(self, model: nn.Module, batches: Epochs) -> None:
        """Fits a network that has nothing to descend on."""

    def norm_values(self, source: S) -> int:
        """How many values of a channel a sample gives BatchNorm at one step, at least."""
        return 1

    def counts_events(self, source: S) -> bool:
        """Whether the inputs are counts of events, which cost an addition each."""
        return False

    def steps(self, in_epoch: int) -> int:
        """Optimizer steps of a run with so many batches in an epoch."""
        steps = self.recipe.epochs * in_epoch
        return steps if self.recipe.max_steps is None else min(steps, self.recipe.max_steps)


def names_of(part: Any) -> set[str]:
    return {field.name for field in fields(part)}


def is_whole(value: Any, least: int, most: int = LARGEST) -> bool:
    return type(value) is int and least <= value <= most


def is_real(value: Any) -> bool:
    """A float, be it NaN as R² of constant data is, or a whole number that is no longer than one."""
    return type(value) is float or is_whole(value, -(2**53), 2**53)


def is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) < 1e300 and math.isfinite(value)
