"""How large a recipe's network is, before its data are there."""

import torch

from staa.build.classification import Classification
from staa.data.shapes import SHAPES
from staa.recipes.options import name_of
from staa.recipes.recipe import Recipe


def parameters_of(recipe: Recipe) -> int | None:
    """How many parameters a recipe's network has; None if that follows from data that were not read. No weight is made.

    Args:
        recipe: Any recipe.

    Raises:
        ValueError: If a name or setting of the recipe is wrong.
    """
    shape = SHAPES.get(name_of(recipe.data.name))
    if shape is None or not Classification.takes(recipe):
        return None
    classes, channels, size = shape
    facts = {"classes": classes, "channels": channels, "size": recipe.data.size or size}
    try:
        with torch.device("meta"), torch.random.fork_rng(devices=[]):
            model = Classification(recipe).network(facts)
    except (RuntimeError, NotImplementedError):  # one of the user's own, which needs values
        return None
    return sum(p.numel() for p in model.parameters())
