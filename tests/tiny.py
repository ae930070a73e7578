"""A data set and a recipe small enough for tests; also what `my_file.py:name` is tested with."""

from dataclasses import replace
from functools import partial

import torch

from staa import RECIPES
from staa.data import Samples, Source
from staa.data.digits import as_frames, random_shift
from staa.neurons import LIF


def events(*, root, steps, validation, augment):
    """Forty samples of two classes: events in the upper or the lower half."""
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(56) % 2
    x = (torch.rand(56, steps, 2, 16, 16, generator=generator) < 0.1).to(torch.uint8)
    x[y == 0, :, :, :8] += 1
    x[y == 1, :, :, 8:] += 1
    part = lambda a, b: Samples(x[a:b], y[a:b])  # noqa: E731
    return Source(
        train=part(0, 40), validation=part(40, 48) if validation else None, test=part(48, 56), classes=2, channels=2, size=16,
        prepare=as_frames, augment=partial(random_shift, padding=1) if augment else None, split="tiny",
    )  # fmt: skip


def steep(channels):
    return LIF(decay=0.9, threshold=0.3)


_base = RECIPES["digits-events"]
recipe = replace(
    _base,
    name="tiny",
    epochs=2,
    batch_size=8,
    data=replace(_base.data, name=f"{__file__}:events"),
    model=replace(_base.model, steps=3, width=0.05),
    optim=replace(_base.optim, warmup_epochs=0.5),
)
own_neuron = replace(recipe, model=replace(recipe.model, neuron=f"{__file__}:steep"))
not_a_recipe = 3
