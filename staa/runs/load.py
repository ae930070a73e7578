"""A run folder, opened: its records, model and data, and what they measure."""

import warnings
from contextlib import closing
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn

from staa.build import Task, task_of
from staa.data import SplitData
from staa.machine import choose_device, choose_precision, choose_workers
from staa.recipes.code import UntrustedCodeError
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
from staa.training.checkpoint import BEST, LAST, load_checkpoint, read_origin
from staa.training.evaluate import evaluate
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
            path, checkpoint = folder / LAST, load_checkpoint(folder)
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


def evaluate_run(
    run: Run | str | Path,
    *,
    split: Literal["train", "validation", "test"] | None = None,
    weights: Weights | None = None,
    data_root: Path | None = None,
    device: str | None = None,
    workers: int | None = None,
    trust: bool = False,
) -> dict[str, Any]:
    """Figures of a run's model on a part of its data, in the precision that the recipe has on this device.

    Args:
        run: A `staa.Run`, or a run folder, which is opened with data_root and trust.
        split: "train", "validation" or "test". None: the test set of a finished run, else validation, since the test set is
            touched once, at the end.
        weights: "last" epoch or "best" on validation; None: what the test figure was measured with.
        data_root: Where its data are; None: where the run found them.
        device: Such as "cpu" or "cuda"; None: the GPU if there is one.
        workers: Processes that read and augment, at least 0; None: as many as suit the machine.
        trust: Let Python files in the run folder run, if the run has parts of its own.

    Returns:
        The figures by name, with split, weights, samples, protocol, and "notes", what the user should hear of these data.

    Raises:
        FileNotFoundError: If the run, its weights or its data are missing.
        ValueError: If the run is broken, its data have changed, or it has no validation samples to measure on.
    """
    run = opened(run, data_root=data_root, trust=trust)
    model, chosen = run.model(weights), choose_device(device)
    split = split or ("test" if run.finished else "validation")
    source = run.data
    if getattr(source, split) is None:
        raise ValueError(f"{run.folder} held out no validation samples (data.validation = 0): split must be train or test")
    precision, measure = choose_precision(run.recipe.precision, chosen), run.task.measure(source, chosen)
    with closing(run.task.batches(source, split, chosen, workers=choose_workers(workers, chosen))) as batches:
        figures = evaluate(model.to(chosen), batches, measure=measure, precision=precision)
    return {
        "split": split, "weights": weights or run.recipe.weights, "samples": len(getattr(source, split)),
        "protocol": run.recipe.protocol, "notes": source.notes, **figures,
    }  # fmt: skip
