"""What every data set becomes: three parts, and what the run's records say of them; for images and events, a `Source`."""

from collections.abc import Callable, Sized
from dataclasses import Field, dataclass
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from staa.data.content import Content


@dataclass(frozen=True)
class Samples:
    """Inputs as stored (uint8 [N, ...], or what reads them from disk) and labels [N] int64."""

    x: "Tensor | Reader"
    y: Tensor

    def __post_init__(self) -> None:
        if len(self.x) != len(self.y):
            raise ValueError(f"{len(self.x)} inputs but {len(self.y)} labels")

    def __len__(self) -> int:
        return len(self.y)

    def take(self, chosen: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """The chosen inputs as stored; the generator says that they are read for training."""
        return self.x[chosen.to(self.x.device)] if isinstance(self.x, Tensor) else self.x.read(chosen, generator)


class Reader(Protocol):
    """Samples that are read when they are needed: uint8 [N, ...], with random cuts from the generator in training."""

    def __len__(self) -> int: ...

    def read(self, chosen: Tensor, generator: torch.Generator | None = None) -> Tensor: ...


class SplitData(Protocol):
    """Data of any kind of job, split; a frozen dataclass. test is touched once, at the end of a run.

    split: a digest of which sample is in which part. names: of the classes or variates, if they are known. notes: what the user
    should hear about the data. content: of their files. facts: what a network for them must know, and what others go by.
    """

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]

    @property
    def train(self) -> Sized: ...
    @property
    def validation(self) -> Sized | None: ...
    @property
    def test(self) -> Sized: ...
    @property
    def split(self) -> str: ...
    @property
    def names(self) -> tuple[str, ...] | None: ...
    @property
    def notes(self) -> tuple[str, ...]: ...
    @property
    def content(self) -> Content | None: ...
    @property
    def facts(self) -> dict[str, Any]: ...


@dataclass(frozen=True)
class Source:
    """A data set, split: test is touched once, at the end of a run.

    classes, channels, size: of the labels and the input's C and H = W. prepare: a stored batch -> the network's input.
    split: a digest of which sample is in which part. names: of the classes, where they are known. notes: what the user
    should hear about it. content: of its files, unless they are checked against published sums whenever they are read.
    Raises ValueError for a label that is no class.
    """

    train: Samples
    validation: Samples | None
    test: Samples
    classes: int
    channels: int
    size: int
    prepare: Callable[[Tensor], Tensor]
    split: str
    names: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()
    content: Content | None = None

    def __post_init__(self) -> None:
        for part in ("train", "validation", "test"):
            y = torch.empty(0) if getattr(self, part) is None else getattr(self, part).y
            wrong = ((y < 0) | (y >= self.classes)).nonzero().flatten().tolist()
            if wrong:
                raise ValueError(
                    f"label {int(y[wrong[0]])} of sample {wrong[0]} of {part} is out of range: there are "
                    f"{self.classes} classes, labelled from 0 ({len(wrong)} such labels)"
                )

    @property
    def facts(self) -> dict[str, Any]:
        """What a network for these data must know, and the classes' names: for a run's records."""
        return {"classes": self.classes, "channels": self.channels, "size": self.size, "names": self.names}
