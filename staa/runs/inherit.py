"""A recipe that starts from a run: with its weights come its network and the preparation of its inputs."""

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

from staa.build import task_of
from staa.recipes.as_json import flat
from staa.recipes.code import UntrustedCodeError, comparable, split
from staa.recipes.code import trust as vouch_for
from staa.recipes.options import name_of, options_of
from staa.recipes.parts import Model
from staa.recipes.recipe import Recipe
from staa.runs.folder import read_environment, read_recipe


def starting_from(recipe: Recipe, run: str | Path, *, own: Collection[str] = (), trust: bool = False) -> Recipe:
    """The recipe, made to start from a run's weights: `init_from`, the run's network, and inputs prepared as the run's were.

        recipe = starting_from(RECIPES["events-folder-vggsnn-staa"], "runs/nmnist")
        recipe = dataclasses.replace(recipe, epochs=5)

    The network is all of `model`, and of a forecaster `forecast`. The preparation is size, crop, frames, window, values, sensor
    and steps of images and recordings; window, horizon, normalisation, transform, season and time features of a series, each
    as far as the recipe's data set takes it. All else is the recipe's: data, augmentation, loss, optimizer, epochs.

    Args:
        recipe: What to train.
        run: The run folder.
        own: Parts of the network that stay the recipe's: "name", "neuron" or "attention".
        trust: Let Python files in the run folder run, if its network has parts of its own that the recipe does not name.

    Raises:
        FileNotFoundError: If there is no such run.
        ValueError: If it is broken or of another kind of job, or if the recipe can't have its settings; as
            `staa.recipes.code.UntrustedCodeError`, if its network has parts of its own and nobody has said that they may run.
    """
    folder = Path(run)
    other = read_recipe(folder)
    task = task_of(recipe)
    if type(task_of(other)) is not type(task):
        raise ValueError(
            f"{folder} was trained to {task_of(other).verb}, and {recipe.name} is to {task.verb}: give another run"
        )
    about = read_environment(folder, other)["data"]
    try:
        made = task.like(replace(other, model=_network_of(recipe, other, folder, own=own, trust=trust)), about)
        return replace(made, init_from=str(folder.resolve()))
    except UntrustedCodeError:
        raise
    except ValueError as error:
        raise ValueError(f"{recipe.name} can't have the network and the inputs of {folder}: {error}") from error


def inherited(recipe: Recipe, made: Recipe, final: Recipe | None = None) -> str:
    """What `starting_from` changed in a recipe and is so in the final one still, in words; empty if that is nothing."""
    before, after, now = (flat(one) for one in (recipe, made, final or made))
    names = (name for name in dict.fromkeys((*after, *before)) if name != "init_from")
    changed = [name for name in names if before.get(name, ...) != after.get(name, ...) == now.get(name, ...)]
    return ", ".join(f"{name} {after.get(name, 'not set')} (was {before.get(name, 'not set')})" for name in changed)


def _network_of(recipe: Recipe, other: Recipe, folder: Path, *, own: Collection[str], trust: bool) -> Model:
    """The other recipe's network, each part of the run's own code called as the recipe calls the same code, or by its place."""
    same, model = comparable(recipe).model, other.model
    for key in ("name", "neuron", "attention"):
        part = getattr(other.model, key)
        file, attribute = (None, "") if part is None else split(name_of(part))
        if file is None and key not in own:
            continue
        if key in own or getattr(comparable(other).model, key) == getattr(same, key):
            model = replace(model, **{key: getattr(recipe.model, key)})
            continue
        assert file is not None
        if not trust or recipe.folder is not None:
            raise UntrustedCodeError(
                f"the network of {folder} has code of its own, {attribute!r} of {folder / file}; it was not run: name the part "
                f"yourself in the recipe (`model.{key}`), or read that file, and if you trust it, say so with `trust=True`"
            )
        vouch_for(other)
        model = replace(model, **{key: (f"{(folder / file).resolve()}:{attribute}", options_of(part))})
    return model
