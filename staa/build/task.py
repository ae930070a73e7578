"""What a kind of job needs of a recipe: its data, network, loss and measure. A kind is one subclass of `Task`."""

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from functools import cached_property, partial
from pathlib import Path
from typing import Any, ClassVar, Generic, Literal, TypeVar

import torch
from torch import Tensor, nn

from staa.attention import ATTENTIONS
from staa.build.settings import settings_for
from staa.data.source import SplitData
from staa.neurons import NEURONS
from staa.parallel import ALONE, Group
from staa.recipes.code import UntrustedCodeError
from staa.recipes.find import find
from staa.recipes.options import name_of
from staa.recipes.recipe import Recipe
from staa.recipes.values import raise_all
from staa.training.evaluate import Epochs, Inputs, Loader, Measure

Part = Literal["train", "validation", "test"]
S = TypeVar("S", bound=SplitData)


class Task(ABC, Generic[S]):
    """A recipe, resolved: its names are objects, and each setting is given to the part that takes it.

    Abstract; a kind of job is a subclass. Each name is looked up once, if it is needed; `check` looks at all.

    Args:
        recipe: A recipe of this kind.

    Raises:
        ValueError: When a part is asked for, if its name is unknown or it does not take a setting of the recipe.
        FileNotFoundError: When a part is asked for, if the file that the recipe names is missing.
        UntrustedCodeError: When a part is asked for, if it is code of a run folder and nobody has said that it may run.
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
        """Whether a recipe is of this kind.

        Args:
            recipe: Any recipe.
        """

    def check(self) -> None:
        """Looks up every name and gives every setting.

        Raises:
            ValueError: With all that is wrong with the recipe's names and settings.
        """
        errors = []
        for part in self.parts:
            try:
                getattr(self, part)
            except UntrustedCodeError:
                raise
            except ValueError as error:
                errors.append(str(error))
        raise_all(errors or self.odd_settings())

    @cached_property
    def dataset(self) -> Callable[..., Any]:
        return self.named("data.name")

    @property
    def needs_files(self) -> bool:
        """Whether its data lie in files, and are not made or come with a package."""
        return "root" in inspect.signature(self.dataset).parameters

    @cached_property
    @abstractmethod
    def read(self) -> Callable[..., Any]:
        """The data set with the recipe's settings."""

    @abstractmethod
    def source(self, root: Path, *, check: bool = True, about: Mapping[str, Any] | None = None) -> S:
        """The recipe's data, split.

        Args:
            root: Folder or file of the data, for data sets in files.
            check: Look for files that can't be read; else such a file is named when it is met.
            about: What a run recorded of them; what it chose is not chosen anew.
        """

    @abstractmethod
    def batches(
        self, source: S, part: Part, device: torch.device, *, workers: int, training: bool = False, group: Group = ALONE
    ) -> Loader:
        """A part of the data: for training shuffled and augmented as the recipe says, else in order and plain.

        Args:
            source: The data, as `source` gives them.
            part: Which part of them.
            device: Where the batches are.
            workers: Processes that read and augment, if samples are read from files or augmented one by one.
            training: For training.
            group: The processes that share them.
        """

    @abstractmethod
    def take(self, source: S, part: Part, chosen: Tensor, device: torch.device) -> tuple[Inputs, Tensor]:
        """Inputs of some samples, plain, and their targets in the form that training has.

        Args:
            source: The data, as `source` gives them.
            part: Which part of them.
            chosen: Places in the part, from 0.
            device: Where they are.

        Shapes:
            chosen [N] -> as the batches of `batches`
        """

    @cached_property
    @abstractmethod
    def backbone(self) -> Callable[..., nn.Module]:
        """What makes the network, with the recipe's settings."""

    @cached_property
    def neuron(self) -> Callable[..., nn.Module]:
        return self.named("model.neuron")

    @abstractmethod
    def network(
        self, facts: Mapping[str, Any], *, source: S | None = None, state: Mapping[str, Any] | None = None
    ) -> nn.Module:
        """The recipe's network for data of such facts, with fresh weights drawn from the global random state.

        Args:
            facts: What a network for the data must know, as `source.facts` or a run's records tell it.
            source: The data, for what of them is a part of the network, as a graph is.
            state: A state dict that it is built for.

        Raises:
            ValueError: If it can't be built; before memory is taken, if one of the library's networks has other sizes than the
                state dict.
        """

    def model_for(self, source: S) -> nn.Module:
        """The recipe's network for these data, with fresh weights drawn from the global random state.

        Args:
            source: The data, as `source` gives them.
        """
        return self.network(source.facts, source=source)

    @cached_property
    def loss(self) -> Callable[[Tensor, Tensor], Tensor]:
        """The recipe's loss of (outputs, targets)."""
        loss, own = self.named("loss.name"), self.recipe.loss
        names = "label_smoothing", "tet_weight", "tet_level"
        return partial(loss, **settings_for(loss, f"the loss {name_of(own.name)}", ("loss", own, names)))

    @abstractmethod
    def measure(self, source: S, device: torch.device) -> Measure:
        """What is measured of a network's outputs.

        Args:
            source: The data, as `source` gives them.
            device: Where the outputs are.
        """

    @abstractmethod
    def tested(self, source: S) -> str:
        """A digest of what the test part asks: equal digests, the same test. How inputs are prepared is not in it.

        Args:
            source: The data, as `source` gives them.
        """

    @abstractmethod
    def conditions(self) -> dict[str, Any]:
        """The settings under which the test is taken, by name: what there is to learn from, and what is seen of a sample."""

    @abstractmethod
    def like(self, other: Recipe, about: Mapping[str, Any]) -> Recipe:
        """This recipe with another one's network, and with inputs prepared as that one's were, as far as these data can be.

        Args:
            other: The recipe of a run of this kind.
            about: What the run recorded of its data.
        """

    @abstractmethod
    def odd_facts(self, about: Mapping[str, Any]) -> list[str]:
        """The facts that a run's record of its data lacks, or that can't be right.

        Args:
            about: The record.
        """

    def odd_settings(self) -> list[str]:
        """What else of the recipe has no effect on this kind of job, as messages."""
        return []

    def settings(self) -> dict[str, set[str]]:
        """The settings of each section of a recipe that have an effect on it; no sections that are the same for every kind."""
        return {}

    def registries(self) -> dict[str, tuple[str, Mapping[str, Any]]]:
        """What an entry is called, and the registry, for each field of a recipe that names a part."""
        return {
            "data.name": (self.words[0], self.datasets),
            "model.name": (self.words[1], self.networks),
            "model.neuron": ("neuron", NEURONS),
            "model.attention": ("attention", ATTENTIONS),
            "loss.name": ("loss", self.losses),
        }

    def named(self, field: str) -> Any:
        """What the recipe names in a field of `registries`, such as "model.neuron", with its options."""
        what, known = self.registries()[field]
        section, _, key = field.partition(".")
        return find(getattr(getattr(self.recipe, section), key), known, what, folder=self.recipe.folder)

    def told_facts(self) -> dict[str, Any]:
        """Facts that the recipe tells too."""
        return {}

    def odd_details(self, result: Mapping[str, Any]) -> list[str]:
        """The details that a result lacks, or that can't be right, beside its figures.

        Args:
            result: What result.json holds.
        """
        return []

    def own_weights(self, *, same: bool) -> dict[str, str]:
        """Entries and modules that another run's network never gives this one, each with why.

        Args:
            same: The other run was trained on the same data.
        """
        return {}

    def check_early(self, source: S, model: nn.Module) -> None:
        """Tries on the network what the recipe makes smaller early in training.

        Args:
            source: The data, as `source` gives them.
            model: The network, which is left as it is but for the steps that it takes.

        Raises:
            ValueError: If the data or the network have no such form.
        """

    def fit(self, model: nn.Module, batches: Epochs) -> None:
        """Fits a network that has nothing to descend on.

        Args:
            model: The network.
            batches: Its training data, in order.
        """

    def beside(self, source: S, measure: Measure) -> dict[str, Any]:
        """What a result tells beside the network's figures and their details.

        Args:
            source: The data, as `source` gives them.
            measure: Theirs, as `measure` gives it.
        """
        return {}

    def norm_values(self, source: S) -> int:
        """How many values of a channel a sample gives BatchNorm at one step, at least.

        Args:
            source: The data, as `source` gives them.
        """
        return 1

    def counts_events(self, source: S) -> bool:
        """Whether the inputs are counts of events, which cost an addition each.

        Args:
            source: The data, as `source` gives them.
        """
        return False
