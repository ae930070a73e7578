"""digits-events made harder in the three ways that attention over time is for, as data sets of their own:

    staa train digits-events --data.name benchmarks/harder.py:noisy     (or :gaps, :somewhen)

Noise is the background activity of an event sensor: each pixel sends a Poisson number of events of each sign at each step. It
is drawn once for each sample, so that a data set is the same at each call.
"""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from staa.data import Source
from staa.data.events.digits import digits_events

RATE = 0.2  # noise events a pixel, sign and step; the digits send 0.4 in the mean
STEPS = 12


def noisy(*, steps: int | None, validation: float) -> Source:
    """Background activity on all steps."""
    return _changed(digits_events(steps=steps, validation=validation), _with_noise)


def gaps(*, steps: int | None, validation: float) -> Source:
    """Half of a sample's steps, at random, hold noise and nothing else."""

    def change(x: Tensor, generator: torch.Generator) -> Tensor:
        order = torch.rand(x.shape[:2], generator=generator).argsort(1)
        kept = (order < x.shape[1] // 2)[:, :, None, None, None]
        return _with_noise(x * kept, generator)

    return _changed(digits_events(steps=steps, validation=validation), change)


def somewhen(*, steps: int | None, validation: float) -> Source:
    """The whole movement in a random third of the window, at steps that differ from sample to sample; noise throughout."""
    whole = steps or STEPS

    def change(x: Tensor, generator: torch.Generator) -> Tensor:
        starts = torch.randint(whole - x.shape[1] + 1, (len(x),), generator=generator)
        out = x.new_zeros((len(x), whole, *x.shape[2:]))
        at = (torch.arange(len(x))[:, None], starts[:, None] + torch.arange(x.shape[1]))
        out[at] = x
        return _with_noise(out, generator)

    return _changed(digits_events(steps=max(1, whole // 3), validation=validation), change)


def _with_noise(x: Tensor, generator: torch.Generator) -> Tensor:
    noise = torch.poisson(torch.full(x.shape, RATE), generator=generator)
    return (x + noise).clamp(max=255).to(torch.uint8)


def _changed(source: Source, change: Callable[[Tensor, torch.Generator], Tensor]) -> Source:
    parts = {}
    for seed, name in enumerate(("train", "validation", "test")):
        part = getattr(source, name)
        parts[name] = part and replace(part, x=change(part.x, torch.Generator().manual_seed(seed)))
    return replace(source, **parts)
