"""What the names in a recipe stand for, and which of its settings they take."""

import inspect
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from staa.attention import ATTENTIONS
from staa.data import DATASETS, SERIES, forecast_source
from staa.forecasters import FORECASTERS
from staa.models import MODELS
from staa.neurons import NEURONS
from staa.recipes.find import find
from staa.recipes.parts import Augment, Data, Early, Forecast, Loss, Model, Optim, Series
from staa.recipes.recipe import Recipe
from staa.training.losses import FORECAST_LOSSES, LOSSES


def registries(recipe: Recipe) -> dict[str, tuple[str, Mapping[str, Any]]]:
    """(kind, registry) for each field that names a part."""
    forecasts = recipe.series.horizon is not None
    return {
        "data.name": ("series", SERIES) if forecasts else ("data set", DATASETS),
        "model.name": ("forecaster", FORECASTERS) if forecasts else ("model", MODELS),
        "model.neuron": ("neuron", NEURONS),
        "model.attention": ("attention", ATTENTIONS),
        "loss.name": ("loss", FORECAST_LOSSES if forecasts else LOSSES),
    }


def settings_taken(recipe: Recipe) -> set[str]:
    """The settings of a recipe that have an effect on it, by the signatures of its data set, network and loss.

    Raises what `staa.recipes.find.find` does.
    """
    asked: dict[str, set[str]] = {}
    for section in ("data", "model", "loss"):
        what, registry = registries(recipe)[f"{section}.name"]
        part = find(getattr(recipe, section).name, registry, what, folder=recipe.folder)
        asked[section] = set(inspect.signature(part).parameters)
    data, model, loss = asked["data"], asked["model"], asked["loss"]
    spiking = {"rate_weight", "rate_target"} if recipe.series.horizon is None or "neuron" in model else set()
    taken = {
        "": _names(Recipe) - (set() if recipe.series.horizon is None else {"protocol"}),
        "optim": _names(Optim),
        "loss": {"name"} | (_names(Loss) & loss) | spiking,
    }
    if recipe.series.horizon is not None:
        taken["data"] = {"name", "validation"}
        taken["series"] = _names(Series) & (data | set(inspect.signature(forecast_source).parameters))
        taken["model"] = {"name", "norm_momentum"} | (_names(Model) & model - _names(Forecast))
        taken["forecast"] = _names(Forecast) & model
    else:
        frames = "steps" in data  # else it has still images, which are the same at each step
        of_images, of_frames = {"policy", "magnitude", "jitter"}, {"events"}
        taken["data"] = {"name"} | (_names(Data) & data - (set() if recipe.model.steps is None else {"steps"}))
        taken["augment"] = _names(Augment) - ({"scale"} - data) - (of_images if frames else of_frames)
        taken["model"] = _names(Model) - ({"residual_init"} - model)
        taken["early"] = set() if frames else _names(Early)
    return {f"{section}.{name}".lstrip(".") for section, names in taken.items() for name in names}


def check_settings(recipe: Recipe) -> None:
    """Raises ValueError for settings of a forecast in a recipe that is none."""
    if recipe.series.horizon is not None:
        return
    for section, values, usual in (("series", recipe.series, Series()), ("forecast", recipe.forecast, Forecast())):
        for name in _names(type(values)):
            if (value := getattr(values, name)) != (default := getattr(usual, name)):
                raise ValueError(
                    f"{recipe.data.name} is not forecast, so it takes no `{section}.{name}`, which is {value}: leave it out "
                    f"(at {default}), or say how many steps to forecast with `series.horizon`"
                )


def _names(kind: Any) -> set[str]:
    return {field.name for field in fields(kind)}
