"""A recipe's network, in its sizes and with fresh weights."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import fields
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from staa.attention import ATTENTIONS
from staa.build.settings import asked_for
from staa.files import check_bytes
from staa.forecasters import FORECASTERS
from staa.models import MODELS
from staa.neurons import LIF, NEURONS
from staa.recipes.find import find
from staa.recipes.options import name_of
from staa.recipes.parts import Forecast, Model
from staa.recipes.recipe import Recipe


def build_model(recipe: Recipe, *, classes: int, channels: int, size: int, state: Mapping[str, Any] | None = None) -> nn.Module:
    """The recipe's network for such data, with fresh weights drawn from the global random state, channels_last.

    state: a state dict that it is built for; raises ValueError before memory is taken, if one of the library's networks has
    other sizes.
    """
    config = recipe.model
    model = find(config.name, MODELS, "model", folder=recipe.folder)
    neuron = find(config.neuron, NEURONS, "neuron", folder=recipe.folder)
    attention = find(config.attention, ATTENTIONS, "attention", folder=recipe.folder) if config.attention is not None else None
    if "size" in inspect.signature(model).parameters:  # its readout depends on the input's size
        model = partial(model, size=size)
    given, usual = ({"model.residual_init": c.residual_init} for c in (config, Model()))
    model = partial(model, **asked_for(model, f"the model {name_of(config.name)}", given, usual))
    model = partial(model, classes, in_channels=channels, steps=config.steps, sites=config.sites, width=config.width)
    check_bytes(4 * (config.steps or 1) * channels * size * size, "one input of the recipe's sizes")
    if name_of(config.name) in MODELS:  # one of the user's own is not called twice
        registered = config.attention is not None and name_of(config.attention) in ATTENTIONS
        _check_size(partial(model, neuron=LIF, attention=attention if registered else None), state)
    try:
        built = model(neuron=neuron, attention=attention)
    except (TypeError, AttributeError, OverflowError) as error:  # what a function of one's own raises when called otherwise
        raise ValueError(
            f"the network can't be built ({type(error).__name__}: {error}); a model is called with (num_classes, *, "
            f"in_channels, steps, neuron, attention, sites, width), a neuron with (channels), attention with (steps, channels)"
        ) from error
    return _with_momentum(built, config.norm_momentum).to(memory_format=torch.channels_last)


def _with_momentum(model: nn.Module, momentum: float | None) -> nn.Module:
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


def _check_size(model: Callable[..., nn.Module], state: Mapping[str, Any] | None) -> None:
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


def build_forecaster(
    recipe: Recipe,
    *,
    nodes: int,
    window: int,
    horizon: int,
    features: int,
    graph: Tensor | None = None,
    state: Mapping[str, Any] | None = None,
) -> nn.Module:
    """The recipe's forecaster for such a series, with fresh weights. Raises ValueError for a setting that it does not take.

    state: as for `build_model`, unless the graph is given.
    """
    config, own = recipe.model, recipe.forecast
    if config.attention is not None or config.sites is not None or config.width != 1:
        raise ValueError(
            "a forecaster has its own attention and width: `model.attention` and `model.sites` must be None and "
            "`model.width` 1; `forecast.width` is the features'"
        )
    forecaster = find(config.name, FORECASTERS, "forecaster", folder=recipe.folder)
    given, usual = ({f"forecast.{f.name}": getattr(c, f.name) for f in fields(c)} for c in (own, Forecast()))
    given["model.residual_init"], usual["model.residual_init"] = config.residual_init, Model().residual_init
    settings = asked_for(forecaster, f"the forecaster {name_of(config.name)}", given, usual)
    asked = inspect.signature(forecaster).parameters
    if "steps" in asked:
        if config.steps is None:
            raise ValueError(f"the forecaster {name_of(config.name)} needs a number of steps: set `model.steps`, such as 4")
        settings["steps"] = config.steps
    if "neuron" in asked:
        settings["neuron"] = find(config.neuron, NEURONS, "neuron", folder=recipe.folder)
    if settings.get("graph") == "given":
        if graph is None:
            raise ValueError(f"{recipe.data.name} has no graph to be given: name its file with `series.graph`, or take another")
        settings["graph"] = graph
    forecaster = partial(forecaster, nodes, window, horizon, time_features=features)
    if name_of(config.name) in FORECASTERS:
        check_bytes(4 * nodes * nodes if isinstance(settings.get("graph"), Tensor) else 0, "the graph")
        plain = settings | ({"neuron": LIF} if "neuron" in asked else {})
        plain |= {"graph": "adaptive"} if isinstance(settings.get("graph"), Tensor) else {}
        _check_size(partial(forecaster, **plain), None if isinstance(settings.get("graph"), Tensor) else state)
    try:
        return _with_momentum(forecaster(**settings), config.norm_momentum)
    except (TypeError, AttributeError) as error:  # what a function of one's own raises when called otherwise
        raise ValueError(
            f"the forecaster can't be built ({type(error).__name__}: {error}); it is called with (nodes, window, horizon, *, "
            f"time_features) and the settings it has parameters for, a neuron with (channels) and (channels, threshold=0.5)"
        ) from error


def check_weights(recipe: Recipe, model: nn.Module) -> None:
    """Raises ValueError where the recipe asks for weights that a model without any to train can't have."""
    if any(p.requires_grad for p in model.parameters()):
        return
    name = name_of(recipe.model.name)
    if recipe.weights == "best":
        raise ValueError(f"{name} is not trained in epochs, of which one could be the best: give `weights=last`")
    if recipe.init_from is not None:
        raise ValueError(f"{name} is not trained, so it can't start from another run: leave out `init_from`")
