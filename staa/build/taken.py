"""Which settings of a recipe have an effect."""

import inspect
from typing import Any

from staa.build.task import Task
from staa.recipes.parts import Loss, Optim
from staa.recipes.recipe import Recipe
from staa.recipes.values import field_names


def settings_taken(task: Task[Any]) -> set[str]:
    """All settings that have an effect on a task's recipe, such as "data.size".

    Args:
        task: A recipe, resolved.
    """
    spiking = {"rate_weight", "rate_target"} if "neuron" in inspect.signature(task.backbone).parameters else set()
    loss = field_names(Loss) & set(inspect.signature(task.loss).parameters)
    taken = {"": field_names(Recipe), "optim": field_names(Optim), "loss": {"name"} | loss | spiking, **task.settings()}
    return {f"{part}.{name}".lstrip(".") for part, names in taken.items() for name in names}
