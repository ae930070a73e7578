"""A run folder, opened: its records, model and data, and what they measure."""

import warnings
from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn

from staa.build import build_batches, build_measure, shape_of
from staa.build.data import build_source, needs_files
from staa.build.network import build_forecaster, build_model
from staa.data import SeriesSource, Source
from staa.files import check_bytes
from staa.machine import choose_device, choose_precision, choose_workers
from staa.recipes.code import UntrustedCodeError
from staa.recipes.recipe import Recipe
from staa.runs.folder import (
    ENVIRONMENT,
    RECIPE,
    RESULT,
    check_origin,
    check_split,
    read_environment,
    read_recipe,
    read_result,
)
from staa.runs.log import read_log
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

    data_root: where its data are; None is where the run found them. trust: the Python files in the folder may run, where the
    run has parts of its own; the process that trained it needs no flag.

    Raises FileNotFoundError or ValueError for what is no run folder, or whose recipe is broken; and each of its parts for what
    is missing, broken, or of another run.
    """

    def __init__(self, folder: str | Path, *, data_root: Path | None = None, trust: bool = False):
        self.folder, self.data_root = Path(folder), data_root
        self.recipe = read_recipe(self.folder, trusted=trust)
        self._models: dict[str, nn.Module] = {}

    def __repr__(self) -> str:
        return f"Run({str(self.folder)!r}, {self.recipe.name})"

    @cached_property
    def environment(self) -> dict[str, Any]:
        """What the run recorded of its machine, versions and data."""
        return read_environment(self.folder, self.recipe)

    @property
    def about(self) -> dict[str, Any]:
        """What it recorded of its data."""
        return self.environment["data"]

    @property
    def finished(self) -> bool:
        return (self.folder / RESULT).is_file()

    @cached_property
    def result(self) -> dict[str, Any]:
        """The test figures of a finished run."""
        return read_result(self.folder, self.recipe)

    @cached_property
    def log(self) -> "pandas.DataFrame":
        """What happened while it trained: a row for each event, with the columns that any of them has."""
        import pandas

        return pandas.DataFrame(read_log(self.folder))

    @cached_property
    def data(self) -> Source | SeriesSource:
        """The data that it was trained on, split as they were then. Raises ValueError if they are others."""
        root = self.data_root or self.environment.get("data_root")
        if root is None and needs_files(self.recipe):
            raise ValueError(f"{self.folder} doesn't say where its data are, as no shared run does: give `data_root`")
        try:
            source = build_source(self.recipe, Path(root or ""), check=False)
        except (OSError, ValueError) as error:
            told = self.data_root is not None or root is None or isinstance(error, UntrustedCodeError)
            if told or str(root) not in str(error):
                raise
            kind = FileNotFoundError if isinstance(error, FileNotFoundError) else ValueError
            raise kind(f"{error}; {self.folder} found its data at {root}: if they moved, give `data_root`") from error
        return replace(source, notes=(*source.notes, *check_split(self.folder, source, self.about)))

    def model(self, weights: Weights | None = None) -> nn.Module:
        """The trained model, in evaluation mode, on the CPU when it is first asked for; then the same one.

        weights: "last" epoch or "best" on validation, of the moving average if the run keeps one; None: what the test figure
        was measured with. Raises FileNotFoundError or ValueError if the weights are missing, broken, of another network or
        larger than `staa.files.max_bytes`. Warns if no checkpoint is there to compare the recipe with.
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
        if ("nodes" in about) != (recipe.series.horizon is not None):
            raise ValueError(f"{folder / ENVIRONMENT} is of other data than the recipe's: one is of a series, the other is not")
        try:
            model = _model_of(recipe, about, folder, state)
        except UntrustedCodeError:
            raise
        except ValueError as error:
            raise ValueError(f"the network of {folder} can't be built: {error}") from error
        load_weights(model, state, path)
        return model


def opened(run: Run | str | Path, *, data_root: Path | None = None, trust: bool = False) -> Run:
    """The run, opened if it is a folder's path."""
    return run if isinstance(run, Run) else Run(run, data_root=data_root, trust=trust)


def load(run_folder: str | Path, *, weights: Weights | None = None, trust: bool = False) -> nn.Module:
    """The trained model of a run folder, on the CPU in evaluation mode: `Run(run_folder, trust=trust).model(weights)`.

    Raises what these do, and `staa.recipes.code.UntrustedCodeError` for a run that has Python files of its own, which nobody
    has said may run.
    """
    return Run(run_folder, trust=trust).model(weights)


def _model_of(recipe: Recipe, about: dict[str, Any], folder: Path, state: Mapping[str, Any]) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        if recipe.series.horizon is None:
            return build_model(recipe, classes=about["classes"], channels=about["channels"], size=about["size"], state=state)
        given = recipe.forecast.graph == "given"  # it comes with the weights
        check_bytes(4 * about["nodes"] ** 2 if given else 0, f"the graph of {folder}")
        return build_forecaster(recipe, **shape_of(about), graph=torch.eye(about["nodes"]) if given else None, state=state)


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
    """Figures of a run's model on a part of its data, in the precision the recipe has on this device.

    run: a `Run`, or a folder, which is opened with data_root and trust. weights: None is what the test figure was measured
    with. split: None is the test set for a finished run; before that it is validation, since the test set is touched once, at
    the end. "notes" in what it returns: what the user should hear of these data.
    """
    run = opened(run, data_root=data_root, trust=trust)
    model, chosen = run.model(weights), choose_device(device)
    split = split or ("test" if run.finished else "validation")
    source = run.data
    if getattr(source, split) is None:
        raise ValueError(f"{run.folder} held out no validation samples (data.validation = 0): its split is train or test")
    precision, measure = choose_precision(run.recipe.precision, chosen), build_measure(run.recipe, source, chosen)
    with closing(build_batches(run.recipe, source, split, chosen, workers=choose_workers(workers, chosen))) as batches:
        figures = evaluate(model.to(chosen), batches, measure=measure, precision=precision)
    return {
        "split": split, "weights": weights or run.recipe.weights, "samples": len(getattr(source, split)),
        "protocol": run.recipe.protocol, "notes": source.notes, **figures,
    }  # fmt: skip
