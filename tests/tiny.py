"""A data set and a recipe small enough for tests; also what `my_file.py:name` is tested with."""

from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
import torch

from staa import RECIPES, Augment, Data, Loss, Model
from staa.data import Samples, Source
from staa.data.events.frames import as_frames
from staa.data.images.files import normalise
from staa.data.series.series import TimeSeries
from staa.layers import PerStep, Site
from staa.models import MSResNet
from staa.models.parts import ConvNorm
from staa.neurons import LIF
from staa.recipes.parts import Early


def events(*, steps, validation):
    """Forty samples of two classes: events in the upper or the lower half."""
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(56) % 2
    x = (torch.rand(56, steps, 2, 16, 16, generator=generator) < 0.1).to(torch.uint8)
    x[y == 0, :, :, :8] += 1
    x[y == 1, :, :, 8:] += 1
    part = lambda a, b: Samples(x[a:b], y[a:b])  # noqa: E731
    return Source(
        train=part(0, 40), validation=part(40, 48) if validation else None, test=part(48, 56), classes=2, channels=2, size=16,
        prepare=as_frames, split="tiny",
    )  # fmt: skip


def images(*, validation, size=None, resize=None, scale=None, corrupt="refuse"):
    """Forty-eight noisy images of three classes, each with its own colour; takes the settings that folders take."""
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(48) % 3
    x = torch.randint(0, 128, (48, 3, 16, 16), generator=generator, dtype=torch.uint8)
    x[torch.arange(48), y] += 96
    part = lambda a, b: Samples(x[a:b], y[a:b])  # noqa: E731
    return Source(
        train=part(0, 32), validation=part(32, 40) if validation else None, test=part(40, 48), classes=3, channels=3, size=16,
        prepare=partial(normalise, mean=(0.5,) * 3, std=(0.3,) * 3), split="tiny images", names=("red", "green", "blue"),
    )  # fmt: skip


def series():
    """Six hundred hours of six nodes, each a wave of its own phase with noise."""
    hours = np.arange(600)
    noise = 0.1 * np.random.default_rng(0).standard_normal((600, 6))
    values = 10 + np.sin(2 * np.pi * (hours[:, None] / 24 + np.arange(6) / 6)) + noise
    times = np.datetime64("2024-01-01", "ns") + hours * np.timedelta64(1, "h")
    ring = (np.roll(np.eye(6), 1, 0) + np.roll(np.eye(6), -1, 0)).astype(np.float32)
    return TimeSeries(values, times=times, names=tuple("abcdef"), graph=ring)


def long_names():
    """`series` of nodes whose names no line holds."""
    return replace(series(), names=tuple(letter * 400 for letter in "abcdef"))


def three(*, steps, validation):
    """`events` with a third class."""
    source = events(steps=steps, validation=validation)
    return replace(source, classes=3)


def hostile(*, steps, validation):
    """`events` of classes whose names want to be something else on a page, in a terminal and in a figure."""
    names = ("<script>alert(1)</script>", "</style>\u202e\x1b[31m$x^2$ \udc80" + "w" * 300)
    return replace(events(steps=steps, validation=validation), names=names)


def other_images(*, validation):
    return replace(images(validation=validation), names=("cat", "dog", "cow"), split="other images")


def another_split(*, validation):
    return replace(images(validation=validation), split="another split")


def no_neurons(num_classes, *, in_channels, steps, neuron, attention, sites, width):
    """A network that does not spike."""
    return PerStep(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(in_channels, num_classes))


def shallow(num_classes, *, in_channels, steps, neuron, attention, sites, width):
    """Two layers, the first with all that folds, the second with random parts."""
    return torch.nn.Sequential(
        ConvNorm(in_channels, 4, 3),
        Site(neuron(4), attention(steps, 4) if attention else None),
        PerStep(torch.nn.AdaptiveAvgPool2d(2), torch.nn.Flatten(), torch.nn.Dropout(), torch.nn.Linear(16, num_classes)),
    )


def residual(num_classes, *, in_channels, steps, neuron, attention, sites, width):
    """An image network of one block, which takes still images and averages over space."""
    sizes = {"stem": (4, 3, 2), "stages": [(4, 1)], "stage_strides": (2,)}
    return MSResNet(num_classes, in_channels=in_channels, steps=steps, neuron=neuron, attention=attention, **sizes)


class Keeping(torch.nn.Module):
    """Two layers with one weight, and a state that is no tensor."""

    def __init__(self, channels, num_classes):
        super().__init__()
        self.a, self.b = torch.nn.Linear(channels, num_classes), torch.nn.Linear(channels, num_classes)
        self.b.weight = self.a.weight

    def forward(self, x):
        mean = x.mean((3, 4))
        return self.a(mean) + self.b(mean)

    def get_extra_state(self):
        return {"seen": 3}

    def set_extra_state(self, state):
        if state != {"seen": 3}:
            raise ValueError(f"no such state: {state}")


def keeping(num_classes, *, in_channels, steps, neuron, attention, sites, width):
    return Keeping(in_channels, num_classes)


def each(logits, targets):
    """No loss: one number a sample."""
    return torch.nn.functional.cross_entropy(logits.mean(0), targets, reduction="none")


def squared(logits, targets):
    """A loss of one's own."""
    return (logits.mean(0) - torch.nn.functional.one_hot(targets, logits.shape[-1])).square().mean()


def steep(channels):
    return LIF(decay=0.9, threshold=0.3)


_base = RECIPES["digits-events"]
recipe = replace(
    _base,
    name="tiny",
    epochs=2,
    batch_size=8,
    data=replace(_base.data, name=f"{__file__}:events"),
    augment=Augment(shift=1),
    model=replace(_base.model, steps=3, width=0.05),
    optim=replace(_base.optim, warmup_epochs=0.5),
)
own_neuron = replace(recipe, name="tiny-steep", model=replace(recipe.model, neuron=f"{__file__}:steep"))
pictures = replace(
    recipe,
    name="tiny-pictures",
    data=Data(name=f"{__file__}:images"),
    augment=Augment(shift=2, flip=True, policy="randaugment", jitter=0.2, cutout=4, mixup=0.5, cutmix=1.0, mix_probability=0.7),
    model=Model(name="resnet20", steps=2, width=0.05),
    loss=Loss(name="tet", label_smoothing=0.1, rate_weight=0.1),
    optim=replace(_base.optim, warmup_epochs=0.5, accumulate=2, ema=0.8),
)
_run = RECIPES["cifar10-speedrun"]
speedrun = replace(
    _run,
    name="tiny-speedrun",
    data=replace(pictures.data, validation=0.1),
    augment=replace(_run.augment, shift=2, cutout=4),
    model=replace(_run.model, steps=2, width=0.1),
    optim=replace(_run.optim, lr=0.1, warmup_epochs=0.5, ema=0.8),
    early=Early(steps=1, steps_share=0.5, size=6, size_share=0.75, size_stages=3),
    epochs=3,
    batch_size=8,
)
"""Twelve steps: sizes 6, 10 and 12 of 16 for three steps each, and one time step in the first six."""
not_a_recipe = 3


def times(rows, start="2024-01-01", step="h"):
    return np.asarray(pd.date_range(start, periods=rows, freq=step), "datetime64[ns]")


def weekly(rows=24 * 40, nodes=3, seed=0, **changes):
    """A wave of the day that is another one at weekends, and noise."""
    rng = np.random.default_rng(seed)
    when = pd.DatetimeIndex(times(rows))
    wave = np.sin(2 * np.pi * when.hour / 24) * np.where(when.day_of_week >= 5, 0.2, 1.0)
    values = 50 + np.arange(nodes) * 20 + 10 * np.asarray(wave)[:, None] + rng.normal(0, 1, (rows, nodes))
    return TimeSeries(
        **dict(values=values, times=np.asarray(when, "datetime64[ns]"), names=tuple("abcdefgh"[:nodes])) | changes
    )


def undated():
    """`weekly` without its times."""
    return replace(weekly(), times=None)


def holes():
    """`weekly` with every fourth row missing."""
    whole = weekly()
    whole.values[::4] = np.nan
    return whole
