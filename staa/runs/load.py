"""A run folder, opened: its records, model and data, and what it says of new inputs."""

import warnings
from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn

from staa.build import Task, task_of
from staa.build.inputs import Preparation, preparation_of
from staa.data import SplitData
from staa.data.images.cifar import CIFAR
from staa.machine import choose_device, choose_precision
from staa.recipes.code import UntrustedCodeError
from staa.runs.classify import Answer, Refused, check_asked, classify
from staa.runs.folder import (
    RECIPE,
    RESULT,
    check_origin,
    check_split,
    read_environment,
    read_recipe,
    read_result,
)
from staa.runs.log import events_of
from staa.training.checkpoint import BEST, load_measured, read_origin
from staa.training.weights import load_weights, measured_weights, read_weights

if TYPE_CHECKING:
    import pandas

Weights = Literal["last", "best"]


class Run:
    """A run folder, opened once: each of its records is read and checked when it is first asked for, and kept.

        run = staa.Run("runs/digits-events/…")
        run.recipe.model.name, run.result["test_accuracy"], run.log[run.log.event == "epoch"], run.model()(frames)

    Each of its parts raises FileNotFoundError or ValueError if it is missing, broken, or of another run.

    Args:
        folder: The run folder.
        data_root: Where its data are; None: where the run found them.
        trust: Let Python files in the folder run, if the run has parts of its own; the process that trained it needs no flag.

    Raises:
        FileNotFoundError: If there is no such run folder.
        ValueError: If it is a file, or its recipe is broken.
    """

    def __init__(self, folder: str | Path, *, data_root: Path | None = None, trust: bool = False):
        self.folder, self.data_root = Path(folder), data_root
        self.recipe = read_recipe(self.folder, trusted=trust)
        self.task: Task[Any] = task_of(self.recipe)
        self._models: dict[str, nn.Module] = {}

    def __repr__(self) -> str:
        return f"Run({str(self.folder)!r}, {self.recipe.name})"

    @cached_property
    def environment(self) -> dict[str, Any]:
        """What the run recorded of its machine, versions and data."""
        return read_environment(self.folder, self.recipe)

    @property
    def about(self) -> dict[str, Any]:
        """What the run recorded of its data."""
        return self.environment["data"]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of its classes, or their numbers if they have none; of a series, its variates."""
        about, known = self.about, CIFAR.get(self.recipe.data.name)  # earlier versions did not record CIFAR's
        names = about.get("names") or (known and known.names)
        return tuple(names or map(str, range(about["classes"])))

    @property
    def finished(self) -> bool:
        """Whether it has a result."""
        return (self.folder / RESULT).is_file()

    @cached_property
    def result(self) -> dict[str, Any]:
        """The test figures of a finished run."""
        return read_result(self.folder, self.recipe)

    @cached_property
    def log(self) -> "pandas.DataFrame":
        """What happened while it trained, as `staa.read_log` reads it."""
        return read_log(self)

    @cached_property
    def data(self) -> SplitData:
        """The data that it was trained on, split as they were then. Raises ValueError if they are others, OSError if they are
        missing."""
        root = self.data_root or self.environment.get("data_root")
        if root is None and self.task.needs_files:
            raise ValueError(f"{self.folder} doesn't say where its data are, as a shared run never does: give `data_root`")
        try:
            source = self.task.source(Path(root or ""), check=False, about=self.about)
        except (OSError, ValueError) as error:
            told = self.data_root is not None or root is None or isinstance(error, UntrustedCodeError)
            if told or str(root) not in str(error):
                raise
            kind = FileNotFoundError if isinstance(error, FileNotFoundError) else ValueError
            raise kind(f"{error}; {self.folder} found its data at {root}: if they moved, give `data_root`") from error
        return replace(source, notes=(*source.notes, *check_split(self.folder, source, self.about)))

    def model(self, weights: Weights | None = None) -> nn.Module:
        """The trained model, in evaluation mode, on the CPU when it is first asked for; then the same one.

        Warns if no checkpoint is there to compare the recipe with.

        Args:
            weights: "last" epoch or "best" on validation, of the moving average if the run keeps one; None: what the test
                figure was measured with.

        Raises:
            FileNotFoundError: If the weights are missing.
            ValueError: If they are broken, of another network, or larger than `staa.files.max_bytes`.
        """
        weights = weights or self.recipe.weights
        if weights not in ("last", "best"):
            raise ValueError(f'weights must be "last" or "best", got {weights!r}')
        if weights not in self._models:
            self._models[weights] = self._load(weights)
        return self._models[weights].eval()

    @cached_property
    def preparation(self) -> Preparation:
        """How an input of a run that classifies is made of a file or an array: `run.preparation.read(path)` is what the network
        takes. Raises ValueError for a run that forecasts."""
        check_classifies(self)
        return preparation_of(self.task, self.about)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Of one input of a run that classifies: [C, H, W] of an image, [T, 2, H, W] of a recording's frames."""
        return self.preparation.shape

    def answers(
        self,
        inputs: Any,
        *,
        top: int = 5,
        steps: int | None = None,
        margin: float | None = None,
        weights: Weights | None = None,
        device: str | None = None,
    ) -> Iterator[Answer | Refused]:
        """What the network says of each input, as `predict` does, but that one that can't be taken does not stop the rest.

        Args:
            inputs: An input or an iterable of them, as `predict` takes them.
            top: Classes that are told, at least 1.
            steps: Time steps that the network is given; None: all.
            margin: How far the class that leads must be ahead to stop; None: it never stops before `steps`.
            weights: "last" epoch or "best" on validation; None: what the test figure was measured with.
            device: Such as "cpu" or "cuda"; None: the GPU if there is one.

        Returns:
            An `Answer` for each input, in order, or a `Refused` with its error.

        Raises:
            FileNotFoundError: If the weights are missing.
            ValueError: If the run forecasts or is broken; if an option is out of range, or this network can't be stopped.
        """
        preparation = self.preparation
        check_asked(preparation, top=top, steps=steps, margin=margin)
        chosen, model = choose_device(device), self.model(weights)
        return classify(
            model.to(chosen), preparation, self.names, inputs, top=top, steps=steps, margin=margin, device=chosen,
            precision=choose_precision(self.recipe.precision, chosen),
        )  # fmt: skip

    def predict(
        self,
        inputs: Any,
        *,
        top: int = 5,
        steps: int | None = None,
        margin: float | None = None,
        weights: Weights | None = None,
        device: str | None = None,
    ) -> list[Answer]:
        """What the network of a run that classifies says of each input, prepared as the run's own data were.

        The model is loaded once, and serves every call. After step t the network's logits are the mean of those of the steps so
        far. With a margin it stops after the first step at which the probability of the class that leads is ahead of the
        second's by so much. No answer rests on a step that has not been made: a causal network (`staa.stream`) is given one
        step after the other, and the rest is not computed; a network that sees the whole window is run anew at each step, with
        no events in the frames that have not come, which saves no time, and of a still image it can't be stopped. Frames of
        equal numbers of events or of equal duration end where the whole recording says: only of `data.frames=window` could a
        camera have known them.

        Args:
            inputs: An input or an iterable of them: a file, or a folder with files at any depth; for a run on images a
                `PIL.Image` or uint8 pixels [H, W, 3] or [H, W]; for one on events `staa.data.Events`, or counts of
                `input_shape`; for any run a prepared input, floating-point numbers of `input_shape`. A run on digits-events
                takes images of a digit, bright on dark, which the simulated sensor sees, or frames with ON before OFF.
            top: Classes that are told, at least 1; all of them if there are fewer.
            steps: Time steps that the network is given, from 1 to its T; None: T. All steps of a recording's frames are made.
            margin: How far the class that leads must be ahead, above 0 and at most 1; None: it never stops before `steps`.
            weights: "last" epoch or "best" on validation; None: what the test figure was measured with.
            device: Such as "cpu" or "cuda"; None: the GPU if there is one.

        Raises:
            FileNotFoundError: If the weights are missing.
            ValueError: If the run forecasts or is broken; if an option is out of range, or this network can't be stopped; if an
                input is broken, of another kind, size or sensor, or a folder holds none. `answers` goes on after such an input.
            TypeError: If an input is nothing that can be taken.
        """
        found = []
        for answer in self.answers(inputs, top=top, steps=steps, margin=margin, weights=weights, device=device):
            if isinstance(answer, Refused):
                raise answer.error
            found.append(answer)
        return found

    def _load(self, weights: Weights) -> nn.Module:
        folder, recipe, about = self.folder, self.recipe, self.about
        if weights == "best":
            path, state = folder / BEST, read_weights(folder / BEST)
            if (origin := read_origin(folder)) is not None:
                check_origin(origin[1], recipe, origin[0])
            else:
                warnings.warn(
                    f"{folder} has no checkpoint: whether {RECIPE} is the recipe of {BEST} is not known", stacklevel=4
                )
        else:
            path, checkpoint = load_measured(folder)
            check_origin(checkpoint, recipe, path)
            state = measured_weights(checkpoint)
        try:
            with torch.random.fork_rng(devices=[]):
                model = self.task.network(about, state=state)
        except UntrustedCodeError:
            raise
        except ValueError as error:
            raise ValueError(f"the network of {folder} can't be built: {error}") from error
        load_weights(model, state, path)
        return model


def check_classifies(run: Run) -> None:
    """Raises ValueError if a run has no classes."""
    if run.task.verb != "classify":
        raise ValueError(f"{run.folder} forecasts a series, so it has no classes: give a run that was trained to classify")


def opened(run: Run | str | Path, *, data_root: Path | None = None, trust: bool = False) -> Run:
    """The run, opened if it is a folder's path."""
    return run if isinstance(run, Run) else Run(run, data_root=data_root, trust=trust)


def read_log(run: Run | str | Path) -> "pandas.DataFrame":
    """What happened while a run trained, read anew: a row for each event, with the columns that any of them has.

    The column `event` says what it is: "step" (of these, every fiftieth), "epoch", "warning", "result" …

        epochs = staa.read_log(run).query("event == 'epoch'").set_index("epoch")
        epochs[["loss", "validation_loss"]].plot()

    Args:
        run: A `staa.Run`, or a run folder; the run may be going on.

    Raises:
        FileNotFoundError: If there is no such run, or it has no log.
        ValueError: If the log has a line that is no event, or that a newer version has written.
    """
    import pandas

    return pandas.DataFrame(events_of(opened(run).folder))


def load(run_folder: str | Path, *, weights: Weights | None = None, trust: bool = False) -> nn.Module:
    """The trained model of a run folder, on the CPU in evaluation mode: `staa.Run(run_folder, trust=trust).model(weights)`.

    Args:
        run_folder: The run folder.
        weights: "last" epoch or "best" on validation, of the moving average if the run keeps one; None: what the test figure
            was measured with.
        trust: Let Python files in the folder run, if the run has parts of its own.

    Raises:
        FileNotFoundError: If there is no such run folder, or its weights are missing.
        ValueError: If its recipe or its weights are broken; as `staa.recipes.code.UntrustedCodeError`, if it has Python files
            of its own and nobody has said that they may run.
    """
    return Run(run_folder, trust=trust).model(weights)
