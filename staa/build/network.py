"""What every recipe's network is held to: the memory it takes, its BatchNorm, and whether there is anything to train."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from staa.files import check_bytes
from staa.recipes.options import name_of
from staa.recipes.recipe import Recipe


def with_momentum(model: nn.Module, momentum: float | None) -> nn.Module:
    """The network, such a momentum in each BatchNorm; None leaves them. Raises ValueError if there is none."""
    if momentum is None:
        return model
    norms = [layer for layer in model.modules() if isinstance(layer, nn.modules.batchnorm._BatchNorm)]
    if not norms:
        raise ValueError(
            f"this network has no BatchNorm, and takes no `model.norm_momentum`, which is {momentum}: leave it out"
        )
    for norm in norms:
        norm.momentum = momentum
    return model


def check_size(model: Callable[..., nn.Module], state: Mapping[str, Any] | None) -> None:
    """Raises ValueError if a network's weights and gradients need more than `staa.files.max_bytes`, or if its weights are not
    in `state` in their sizes; allocates nothing."""
    try:
        with torch.device("meta"), torch.random.fork_rng(devices=[]):
            own = {name: value for name, value in model().state_dict().items() if isinstance(value, Tensor)}
    except (RuntimeError, TypeError, OverflowError) as error:
        if "verflow" in str(error):  # a number of bytes that is none
            raise ValueError(f"the network can't be built in the recipe's sizes: {str(error).splitlines()[0]}") from error
        return  # registered by somebody else, and not to be built without memory
    check_bytes(2 * sum(t.numel() * t.element_size() for t in own.values()), "the network, in the recipe's sizes,")
    if state is not None:
        odd = [name for name, value in own.items() if getattr(state.get(name), "shape", None) != value.shape]
        if odd:
            raise ValueError(f"the weights are those of another network: {len(odd)} entries do not fit, such as {odd[0]}")


def check_weights(recipe: Recipe, model: nn.Module) -> None:
    """Raises ValueError if the recipe asks for weights that a model without any to train can't have."""
    if any(p.requires_grad for p in model.parameters()):
        return
    name = name_of(recipe.model.name)
    if recipe.init_from is not None:
        raise ValueError(f"{name} is not trained, so it can't start from another run: leave out `init_from`")
    if recipe.weights == "best":
        raise ValueError(f"{name} is not trained in epochs, of which one could be the best: give `weights=last`")
    if recipe.freeze is not None:
        raise ValueError(f"{name} is not trained, so nothing of it can be frozen: leave out `freeze`")
