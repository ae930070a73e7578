"""What each name in a recipe is looked up in."""

from collections.abc import Mapping
from typing import Any

from staa.attention import ATTENTIONS
from staa.data import DATASETS, SERIES
from staa.forecasters import FORECASTERS
from staa.models import MODELS
from staa.neurons import NEURONS
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
