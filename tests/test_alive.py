"""Every layer of a forecast recipe's network fires at the first step of training, and every parameter has a gradient.

But for the recipes that have SeqSNN's own settings, with which some layers are silent at first.
"""

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from staa.build import task_of
from staa.data import TimeSeries
from staa.rates import fires
from staa.recipes import RECIPES

FORECASTS = [
    name
    for name, recipe in RECIPES.items()
    if recipe.series.horizon is not None and recipe.model.name not in ("linear", "last-value")  # which have no weights to train
]
FEW, MANY = 0.01, 0.4  # of its steps that a layer fires at


def traffic(*, nodes=207, minutes=5, solar=False):
    """Three weeks in which each node has its own level, season of the day and noise, with jams; or sun, clouds and nights."""
    rng = np.random.default_rng(0)
    times = np.datetime64("2024-01-01", "ns") + np.arange(21 * 1440 // minutes) * np.timedelta64(minutes, "m")
    hour = np.arange(len(times))[:, None] * minutes / 60
    shift, level, size = (rng.uniform(low, high, nodes) for low, high in ((-2, 2), (30, 70), (2, 12)))
    wave = np.sin(2 * np.pi * (hour - 8 + shift) / 24)
    noise = np.cumsum(rng.standard_normal((len(times), nodes)), 0)
    noise -= np.cumsum(noise, 0) / np.arange(1, len(times) + 1)[:, None]
    noise = rng.standard_normal((len(times), nodes)) + 3 * noise / noise.std()
    clouds = np.repeat(rng.beta(1.5, 1.5, (21, nodes)), len(times) // 21, 0)
    values = size * clouds * np.maximum(wave, 0) if solar else level + size * (wave - 2 * (wave > 0.8)) + noise
    return TimeSeries(values, times=times, names=tuple(map(str, range(nodes))))


def pems_bay():
    return traffic(nodes=325)


def solar():
    return traffic(nodes=137, minutes=10, solar=True)


def electricity():
    return traffic(nodes=321, minutes=60)


def few():
    return traffic(nodes=7, minutes=60)


LIKE = {"metr-la": "traffic", "pems-bay": "pems_bay", "solar": "solar", "electricity": "electricity"}
ALIKE = {name: name.replace(name.rpartition("-")[2], "24") for name in FORECASTS if RECIPES[name].data.name in LIKE}
"""A recipe of a published set -> that at horizon 24, whose network differs in the head's size alone."""
CASES = [
    (name, like)
    for name in FORECASTS
    if ALIKE.get(name, name) == name and not (name in ALIKE and RECIPES[name].model.name == "ispikformer")  # SeqSNN's settings
    for like in ([LIKE[RECIPES[name].data.name]] if name in ALIKE else ["traffic", "solar", "few"])
]


def test_the_other_horizons_are_alike():
    assert len(ALIKE) == 32
    for name, other in ALIKE.items():
        one, two = RECIPES[name], RECIPES[other]
        assert one.model == two.model
        assert one.forecast == two.forecast
        assert replace(one.series, horizon=24) == two.series


@cache
def source_of(series, data, like):
    recipe = replace(RECIPES["series-last-value"], series=series, data=replace(data, name=f"{__file__}:{like}"))
    return task_of(recipe).source(Path())


@pytest.mark.parametrize(("name", "like"), CASES)
def test_every_layer_fires_and_every_parameter_has_a_gradient(name, like):
    recipe = RECIPES[name]
    source = source_of(recipe.series, recipe.data, like)
    recipe = replace(recipe, batch_size=min(recipe.batch_size, 2), data=replace(recipe.data, name=f"{__file__}:{like}"))
    task = task_of(recipe)
    x, y = next(iter(task.batches(source, "train", torch.device("cpu"), workers=0, training=True).epoch(0)))
    torch.manual_seed(0)
    model = task.model_for(source).train()
    rates: dict[str, torch.Tensor] = {}
    for layer, part in model.named_modules():
        if fires(part):
            part.register_forward_hook(
                lambda _, __, s, layer=layer: rates.__setitem__(layer, s.detach().flatten(0, -2).mean(0))
            )
    task.loss(model(*x), y).backward()
    odd = {layer: rate.mean().item() for layer, rate in rates.items() if not FEW < rate.mean() < MANY}
    assert odd == {}
    if recipe.model.name == "spikestag":
        assert [layer for layer, rate in rates.items() if not (rate > 0).all()] == [], "each neuron of a layer"
    assert [key for key, p in model.named_parameters() if p.grad is None or not p.grad.norm() > 0] == []
