"""What every data set becomes: three parts, and what the run's records say of them; for images and events, a `Source`."""

from collections.abc import Callable, Sequence, Sized
from dataclasses import Field, dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from torch import Tensor

from staa.data.content import Content


@dataclass(frozen=True)
class Samples:
    """Inputs as they are stored, each with its label.

    Args:
        x: uint8 inputs in memory, or a reader that takes them from disk.
        y: The class of each, int64.
        files: Where inputs that are held in memory were read from, one file each; None if that is not known, or the reader says
            it.

    Shapes:
        x [N, ...], y [N]

    Raises:
        ValueError: If there are more or fewer inputs than labels.
    """

    x: "Tensor | Reader"
    y: Tensor
    files: Sequence[str] | None = None

    def __post_init__(self) -> None:
        if len(self.x) != len(self.y):
            raise ValueError(f"each input needs one label, got {len(self.x)} inputs and {len(self.y)} labels")

    def origin(self) -> Sequence[str] | None:
        """The file of each sample; None if that is not known."""
        return getattr(self.x, "files", None) if self.files is None else self.files

    def __len__(self) -> int:
        """How many samples there are."""
        return len(self.y)

    def take(self, chosen: Tensor, keys: np.ndarray | None = None) -> Tensor:
        """The chosen inputs, as they are stored.

        Args:
            chosen: Their indices, from 0 to N - 1.
            keys: Given for training: a reader draws its random cuts by the samples' keys (`staa.data.draws`). None reads them
                for evaluation.

        Shapes:
            chosen [n], keys [n] -> inputs [n, ...]
        """
        return self.x[chosen.to(self.x.device)] if isinstance(self.x, Tensor) else self.x.read(chosen, keys)


class Reader(Protocol):
    """Samples that are read when they are needed: uint8 [N, ...], in training with random cuts by the samples' keys. One may
    have `files`, that of each sample."""

    def __len__(self) -> int: ...

    def read(self, chosen: Tensor, keys: np.ndarray | None = None) -> Tensor: ...


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
    """A data set, split into parts. The test part is touched once, at the end of a run.

    Args:
        train: Samples to train on.
        validation: Samples held out of training to choose by; None without any.
        test: Samples to test on.
        classes: Number of classes; labels are from 0 to classes - 1.
        channels: Channels C of an input: 3 for colour images, 2 (OFF, ON) for event frames.
        size: Height and width of an input, in pixels.
        prepare: Turns a stored batch into the network's input.
        split: A digest of which sample is in which part: equal digests, equal parts.
        names: Names of the classes, if they are known.
        notes: What the user should hear about the data.
        content: A digest of the files; None if they are checked against published sums whenever they are read.

    Shapes:
        prepare: uint8 [N, ...] -> float32 [N, C, H, W] of images, [T, N, C, H, W] of event frames

    Raises:
        ValueError: If a label is no class.
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
