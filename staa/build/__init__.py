"""From names to objects: the only place that sees both models and data."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from staa.build.data import build_batches, build_source, needs_files, shrink_of, some_inputs, steps_of_run
from staa.build.network import build_forecaster, build_model, check_weights
from staa.build.parts import check_settings
from staa.build.settings import asked_for
from staa.data import SeriesSource, Source
from staa.recipes.find import find
from staa.recipes.options import name_of
from staa.recipes.parts import Loss
from staa.recipes.recipe import Recipe
from staa.streaming import allow_fewer_steps
from staa.training.evaluate import CLASSIFICATION, Measure, device_of, evaluation_mode
from staa.training.losses import FORECAST_LOSSES, LOSSES
from staa.training.metrics import forecast_figures, forecast_figures_by_horizon, forecast_sums


def build_loss(recipe: Recipe) -> Callable[[Tensor, Tensor], Tensor]:
    """The recipe's loss of (outputs, targets). Raises ValueError for a setting of the recipe that it does not take."""
    loss = find(recipe.loss.name, LOSSES if recipe.series.horizon is None else FORECAST_LOSSES, "loss", folder=recipe.folder)
    names = ("label_smoothing", "tet_weight", "tet_level")
    given, usual = ({f"loss.{name}": getattr(c, name) for name in names} for c in (recipe.loss, Loss()))
    return partial(loss, **asked_for(loss, f"the loss {name_of(recipe.loss.name)}", given, usual))


def check_early(recipe: Recipe, source: Source | SeriesSource, model: nn.Module) -> None:
    """Tries on the network what the recipe makes smaller early in training, and lets it have fewer steps if it says so.

    Raises ValueError if these data or this network have no such form.
    """
    shrink = None if isinstance(source, SeriesSource) else shrink_of(recipe, source, total := 10_000)
    if shrink is None:
        return
    x, _ = some_inputs(source, 1, device_of(model))
    if not isinstance(x, Tensor) or x.ndim != 4:
        raise ValueError(
            f"`early.steps` and `early.size` are for still images, repeated at each step; {recipe.data.name} has a frame for "
            f"each: leave them out"
        )
    if recipe.early.steps is not None:
        try:
            allow_fewer_steps(model)
        except ValueError as error:
            raise ValueError(
                f"`early.steps` needs a network in which no step sees a later one ({error}): leave it out, or take another "
                f"attention, such as `model.attention=gc-pe`"
            ) from error
    for small in (shrink(x, k) for k in shrink.changes() if k < total):
        try:
            with torch.no_grad(), torch.random.fork_rng(devices=[]), evaluation_mode(model):
                model(small)
        except (ValueError, RuntimeError) as error:
            raise ValueError(
                f"the network can't take what `early.steps` and `early.size` make of an image, {list(small.shape)}: "
                f"{str(error).splitlines()[0]}"
            ) from error


def model_for(recipe: Recipe, source: Source | SeriesSource) -> nn.Module:
    """The recipe's network for this data, with fresh weights."""
    if isinstance(source, SeriesSource):
        return build_forecaster(recipe, **shape_of(source.facts), graph=source.graph)
    return build_model(recipe, classes=source.classes, channels=source.channels, size=source.size)


def build_measure(recipe: Recipe, source: Source | SeriesSource, device: torch.device | str = "cpu") -> Measure:
    """What is measured on such data: accuracy, or the errors of a forecast in the series' own units. device: the outputs'."""
    if isinstance(source, Source):
        return CLASSIFICATION
    fitted = "the training rows" if recipe.series.fit_on == "train" else "all rows"
    offset, scale = (part.to(device) for part in source.normaliser)
    return Measure(
        partial(forecast_sums, offset=offset, scale=scale, missing=source.missing),
        partial(forecast_figures, loss="mae" if recipe.loss.name == "mae" else "mse"),
        score=lambda figures: -figures["loss"],
        details=lambda sums: {
            "normaliser": f"{recipe.series.normalise} of {fitted}",
            "horizons": forecast_figures_by_horizon(sums),
        },
    )


def check_recipe(recipe: Recipe, data_root: Path) -> None:
    """Raises ValueError or OSError where its data are not there, or its network can't be built for them."""
    check_settings(recipe)
    source = build_source(recipe, data_root)
    with torch.random.fork_rng(devices=[]):
        model = model_for(recipe, source)
    check_weights(recipe, model)
    check_early(recipe, source, model)


def shape_of(facts: Mapping[str, Any]) -> dict[str, Any]:
    return {name: facts[name] for name in ("nodes", "window", "horizon", "features")}


__all__ = [
    "build_batches",
    "build_forecaster",
    "build_loss",
    "build_measure",
    "build_model",
    "build_source",
    "check_recipe",
    "check_settings",
    "check_weights",
    "model_for",
    "needs_files",
    "some_inputs",
    "steps_of_run",
]
