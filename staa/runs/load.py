"""A run's model and data, loaded again, and measured."""

import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

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
from staa.runs.folder import ENVIRONMENT, RECIPE, RESULT, check_origin, check_split, read_environment, read_recipe
from staa.training.checkpoint import BEST, LAST, load_checkpoint, read_origin
from staa.training.evaluate import evaluate
from staa.training.weights import load_weights, measured_weights, read_weights


def source_of(run_folder: Path, data_root: Path | None = None, *, trust: bool = False) -> Source | SeriesSource:
    """The data that a run was trained on; data_root: None is where it found them. trust: see `load`. Raises ValueError if they
    are others."""
    recipe = read_recipe(run_folder, trusted=trust)
    root = data_root or read_environment(run_folder).get("data_root")
    if root is None and needs_files(recipe):
        raise ValueError(f"{run_folder} doesn't say where its data are, as no shared run does: give `data_root`")
    try:
        source = build_source(recipe, Path(root or ""), check=False)
    except (OSError, ValueError) as error:
        if data_root is not None or root is None or isinstance(error, UntrustedCodeError) or str(root) not in str(error):
            raise
        kind = FileNotFoundError if isinstance(error, FileNotFoundError) else ValueError
        raise kind(f"{error}; {run_folder} found its data at {root}: if they moved, give `data_root`") from error
    return replace(source, notes=(*source.notes, *check_split(run_folder, source)))


def load(run_folder: str | Path, *, weights: Literal["last", "best"] | None = None, trust: bool = False) -> nn.Module:
    """The trained model of a run folder, on the CPU in evaluation mode.

    weights: "last" epoch or "best" on validation, of the moving average if the run keeps one; None: what the test figure
    was measured with. trust: the Python files in the folder may run, where the run has parts of its own; the process that
    trained it needs no flag. Raises `staa.recipes.code.UntrustedCodeError` for such a file, and FileNotFoundError or ValueError
    if the folder, its recipe or its weights are missing, broken, of another network or larger than `staa.files.max_bytes`.
    Warns if no checkpoint is there to compare the recipe with.
    """
    folder = Path(run_folder)
    recipe = read_recipe(folder, trusted=trust)
    about = read_environment(folder)["data"]
    weights = weights or recipe.weights
    if weights not in ("last", "best"):
        raise ValueError(f'weights must be "last" or "best", got {weights!r}')
    if weights == "best":
        path, state = folder / BEST, read_weights(folder / BEST)
        if (origin := read_origin(folder)) is not None:
            check_origin(origin[1], recipe, origin[0])
        else:
            warnings.warn(f"{folder} has no checkpoint: whether {RECIPE} is the recipe of {BEST} is not known", stacklevel=2)
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
    return model.eval()


def _model_of(recipe: Recipe, about: dict[str, Any], folder: Path, state: Mapping[str, Any]) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        if recipe.series.horizon is None:
            return build_model(recipe, classes=about["classes"], channels=about["channels"], size=about["size"], state=state)
        given = recipe.forecast.graph == "given"  # it comes with the weights
        check_bytes(4 * about["nodes"] ** 2 if given else 0, f"the graph of {folder}")
        return build_forecaster(recipe, **shape_of(about), graph=torch.eye(about["nodes"]) if given else None, state=state)


def evaluate_run(
    run_folder: Path,
    *,
    split: Literal["train", "validation", "test"] | None = None,
    weights: Literal["last", "best"] | None = None,
    data_root: Path | None = None,
    device: str | None = None,
    workers: int | None = None,
    trust: bool = False,
) -> dict[str, Any]:
    """Figures of a run's model on a part of its data, in the precision the recipe has on this device.

    weights: None is what the test figure was measured with. split: None is the test set for a finished run; before that it
    is validation, since the test set is touched once, at the end. data_root: None is where the run found its data. "notes" in
    what it returns: what the user should hear of these data.
    trust: as in `staa.load`.
    """
    recipe, model = read_recipe(run_folder), load(run_folder, weights=weights, trust=trust)
    chosen = choose_device(device)
    split = split or ("test" if (run_folder / RESULT).is_file() else "validation")
    source = source_of(run_folder, data_root)
    if getattr(source, split) is None:
        raise ValueError(f"{run_folder} held out no validation samples (data.validation = 0): its split is train or test")
    batches = build_batches(recipe, source, split, chosen, workers=choose_workers(workers, chosen))
    precision, measure = choose_precision(recipe.precision, chosen), build_measure(recipe, source, chosen)
    figures = evaluate(model.to(chosen), batches, measure=measure, precision=precision)
    return {
        "split": split, "weights": weights or recipe.weights, "samples": len(getattr(source, split)),
        "protocol": recipe.protocol, "notes": source.notes, **figures,
    }  # fmt: skip
