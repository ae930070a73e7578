"""What recipes say they take from a paper's code, against the settings that stand there.

Where a recipe differs on purpose, its source says so; the settings here were read off the code's configurations.
"""

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from staa.data import TimeSeries, forecast_source
from staa.recipes import RECIPES
from staa.recipes.as_json import from_json, to_json
from staa.recipes.parts import Augment
from staa.recipes.recipe import Recipe
from staa.recipes.series import HORIZONS
from staa.training.optim import make_optimizer

CIFAR = {
    "epochs": 600, "batch_size": 128, "optim.name": "sgd", "optim.nesterov": True, "optim.momentum": 0.9, "optim.lr": 0.1,
    "optim.min_lr": 1e-5, "loss.name": "mean", "loss.label_smoothing": 0.1, "augment.shift": 4, "augment.flip": True,
    "augment.policy": "autoaugment-cifar10", "augment.cutout": 16, "data.validation": 0.0,
}  # fmt: skip
FSTA = {
    "cifar10-resnet20-staa": CIFAR | {"optim.weight_decay": 0.0, "optim.warmup_epochs": 10},
    "cifar100-resnet19-staa": CIFAR | {"optim.weight_decay": 1e-4, "optim.warmup_epochs": 0},
    "cifar10dvs-resnet20-staa": {
        "epochs": 500, "batch_size": 32, "optim.name": "sgd", "optim.nesterov": True, "optim.lr": 0.02, "optim.min_lr": 1e-5,
        "optim.weight_decay": 1e-4, "optim.warmup_epochs": 10, "loss.name": "mean", "loss.label_smoothing": 0.0,
        "augment.flip": True, "augment.events": "nda", "augment.mixup": 0.5, "augment.mix_probability": 1.0, "model.steps": 10,
        "data.size": 64, "data.frames": "number", "data.split": None,
    },
    "dvsgesture-resnet20-staa": {
        "epochs": 200, "batch_size": 4, "optim.min_lr": 1e-5, "optim.weight_decay": 0.02, "optim.warmup_epochs": 0,
        "loss.name": "bce", "loss.label_smoothing": 0.1, "model.steps": 16, "data.size": None, "data.frames": "number",
    },
    "imagenet-resnet34-staa": {
        "epochs": 120, "batch_size": 64, "optim.lr": 1.5e-3, "optim.min_lr": 1.5e-5, "optim.weight_decay": 0.01,
        "optim.warmup_epochs": 5, "loss.label_smoothing": 0.1, "augment.scale": 0.2, "augment.mixup": 0.2,
        "augment.cutmix": 1.0, "augment.mix_probability": 0.6, "augment.jitter": 0.4, "data.size": 224,
        "data.resize": round(224 / 0.95),
    },
}  # fmt: skip
OF_DTA = {
    "batch_size": 64, "optim.name": "sgd", "optim.nesterov": False, "optim.momentum": 0.9, "optim.min_lr": 0.0,
    "optim.warmup_epochs": 0.0, "loss.name": "mean", "loss.label_smoothing": 0.0, "model.neuron": "dta",
    "model.attention": "dta",
}  # fmt: skip
OF_CIFAR = OF_DTA | {
    "epochs": 250, "optim.lr": 0.1, "optim.weight_decay": 5e-5, "optim.decay_all": True, "model.steps": 6, "augment.shift": 4,
    "augment.flip": True, "augment.cutmix": 1.0, "augment.mixup": 0.0, "augment.mix_epochs": True,
    "augment.mix_probability": 0.5,
}  # fmt: skip
DTA = {
    "cifar10-msresnet18-dta": OF_CIFAR,
    "cifar100-msresnet18-dta": OF_CIFAR,
    "cifar10dvs-msresnet18-dta": OF_DTA | {
        "epochs": 1000, "optim.lr": 0.05, "optim.weight_decay": 0.0, "model.steps": 10, "data.size": 48, "augment.flip": True,
        "augment.events": "nda", "augment.mixup": 0.5, "augment.mix_probability": 0.5, "augment.mix_epochs": False,
    },
    "imagenet-msresnet34-dta": OF_DTA | {
        "epochs": 200, "batch_size": 128, "optim.lr": 0.1, "optim.weight_decay": 1e-5, "optim.decay_all": True,
        "augment.scale": 0.08, "augment.flip": True, "data.size": 224, "data.resize": 256,
    },
}  # fmt: skip
OF_SEQSNN = {
    "batch_size": 32, "epochs": 1000, "optim.name": "adamw", "optim.weight_decay": 0.0, "optim.lr": 1e-4, "optim.min_lr": 1e-4,
    "optim.warmup_epochs": 0.0, "optim.clip": 1.0, "optim.patience": 20, "weights": "best", "loss.name": "mse",
    "model.steps": 4, "forecast.heads": 8, "forecast.instance_norm": True, "data.validation": 0.2,
}  # fmt: skip
SEQSNN = {  # train share, window, normaliser, times, width, blocks, encoder
    "metr-la": (0.7, 12, "zscore", True, 256, 2, "delta"),
    "pems-bay": (0.7, 12, "max-per-variate", True, 512, 2, "conv"),
    "solar": (0.6, 168, "max", False, 512, 12, "conv"),
    "electricity": (0.6, 168, "zscore", False, 256, 2, "conv"),
}
OF_SERIES, OF_FORECAST = ("train", "window", "normalise", "time_features"), ("width", "blocks", "encoder")
FIELDS = [*(f"series.{name}" for name in OF_SERIES), *(f"forecast.{name}" for name in OF_FORECAST)]
FORECASTS = {
    f"{data}-ispikformer-{horizon}": OF_SEQSNN | dict(zip(FIELDS, values, strict=True)) | {"series.horizon": horizon}
    for data, values in SEQSNN.items()
    for horizon in HORIZONS
}


def value(recipe, field):
    part, _, name = field.rpartition(".")
    return getattr(getattr(recipe, part) if part else recipe, name)


@pytest.mark.parametrize(("name", "settings"), [*FSTA.items(), *DTA.items(), *FORECASTS.items()])
def test_a_recipe_has_the_settings_of_the_code_it_names(name, settings):
    assert {field: value(RECIPES[name], field) for field in settings} == settings
    if name in FSTA and "optim.name" not in settings:
        assert RECIPES[name].optim.name == "adamw"
        assert "LAMB" in RECIPES[name].source
    if name in FORECASTS:
        assert RECIPES[name].series.fit_on == "train"
        assert "the normaliser is fitted on the training rows alone" in RECIPES[name].source


def test_every_recipe_that_names_such_code_is_compared():
    families = {"FSTA-SNN": FSTA, "DTA-SNN": DTA, "SeqSNN (Lv": FORECASTS}
    for recipe in RECIPES.values():
        for paper, compared in families.items():
            if paper in recipe.source and recipe.name not in compared and not recipe.name.startswith(("series-", "cifar")):
                raise AssertionError(f"{recipe.name} names {paper} and isn't compared with it")
    for name in RECIPES:  # the other networks and rows on CIFAR train as the one that is compared
        data, *rest = name.split("-")
        if data in ("cifar10", "cifar100") and rest[0] in ("resnet19", "resnet20") and rest[1] != "tiny":
            like = RECIPES["cifar10-resnet20-staa" if data == "cifar10" else "cifar100-resnet19-staa"]
            assert (RECIPES[name].optim, RECIPES[name].augment, RECIPES[name].loss) == (like.optim, like.augment, like.loss)


@pytest.mark.parametrize(
    ("data", "rows", "windows"),
    [
        ("metr-la", 34_272, (23_965, 6_849, 3_423)),
        ("pems-bay", 52_116, (36_456, 10_417, 5_208)),
        ("solar", 52_560, (31_421, 10_475, 10_473)),
        ("electricity", 26_304, (15_667, 5_224, 5_222)),
    ],
)
def test_the_windows_of_train_validation_and_test(data, rows, windows):
    for model in ("ispikformer", "spikestag"):
        recipe = RECIPES[f"{data}-{model}-24"]
        values = np.random.default_rng(0).normal(5, 1, (rows, 1))
        source = forecast_source(
            TimeSeries(values, None, ("x",)),
            window=recipe.series.window,
            horizon=24,
            train=recipe.series.train,
            validation=recipe.data.validation,
            normalise=recipe.series.normalise,
        )
        assert (len(source.train), len(source.validation), len(source.test)) == windows


def test_nesterovs_momentum_by_hand():
    """g = 1 always: v = 1, 1.9; a step is lr (g + 0.9 v)."""
    module = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(module.weight)
    optimizer = make_optimizer(module, name="sgd", lr=0.1, nesterov=True)
    for expected in (-0.19, -0.19 - 0.271):
        optimizer.zero_grad()
        module(torch.ones(1, 1)).sum().backward()
        optimizer.step()
        assert module.weight.item() == pytest.approx(expected)
    with pytest.raises(ValueError, match=r"optim.nesterov needs momentum: optim.momentum must be above 0, got 0"):
        dataclasses.replace(Recipe(), optim=dataclasses.replace(Recipe().optim, nesterov=True, momentum=0.0))
    assert from_json(to_json(Recipe())).augment == Augment()
