"""From a recipe to objects: the only place that sees both models and data."""

from pathlib import Path
from typing import Any

import torch

from staa.build.classification import Classification
from staa.build.forecasting import Forecasting
from staa.build.network import check_weights
from staa.build.task import Task
from staa.data import SplitData
from staa.recipes.recipe import Recipe
from staa.recipes.values import rates_in
from staa.training.named import freeze, rates_of

TASKS: list[type[Task[Any]]] = [Classification, Forecasting]


def task_of(recipe: Recipe) -> Task[Any]:
    """The recipe, resolved, as the kind of job that it describes.

    Args:
        recipe: Any recipe.

    Raises:
        ValueError: If it is of no kind that is known.
    """
    for kind in TASKS:
        if kind.takes(recipe):
            return kind(recipe)
    raise ValueError(f"the recipe {recipe.name} is of no kind of job that is known")


def check_recipe(recipe: Recipe, data_root: Path) -> SplitData:
    """Tries all of a recipe but the training: its names and settings, its data, its network.

    Args:
        recipe: Any recipe.
        data_root: Folder or file of the data, for data sets in files.

    Returns:
        The data.

    Raises:
        ValueError: If a name or setting is wrong, or the network does not fit the data.
        OSError: If the data are missing or can't be read.
    """
    task = task_of(recipe)
    task.check()
    source = task.source(data_root)
    with torch.random.fork_rng(devices=[]):
        model = task.model_for(source)
    check_weights(recipe, model)
    freeze(model, recipe.frozen)
    rates_of(model, rates_in(recipe.optim.lr_of))
    task.check_early(source, model)
    return source


__all__ = ["TASKS", "Task", "check_recipe", "check_weights", "task_of"]
