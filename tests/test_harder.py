"""The harder digits of the study are what they say, and the same at each call."""

import pytest
import torch

from benchmarks.harder import RATE, gaps, noisy, somewhen
from staa.data.events.digits import digits_events


@pytest.mark.parametrize("make", [noisy, gaps, somewhen])
def test_harder_digits(make):
    steps = 12
    first, again = make(steps=steps, validation=0.1), make(steps=steps, validation=0.1)
    plain = digits_events(steps=4 if make is somewhen else steps, validation=0.1)
    for name in ("train", "validation", "test"):
        part = getattr(first, name)
        assert torch.equal(part.x, getattr(again, name).x)
        assert torch.equal(part.y, getattr(plain, name).y)
        assert part.x.dtype == torch.uint8
        assert part.x.shape == (len(part.y), steps, 2, 16, 16)
        x, clean = part.x.float(), getattr(plain, name).x.float()
        signal = {noisy: clean.sum(), gaps: clean.sum() / 2, somewhen: clean.sum()}[make]
        assert x.sum().item() == pytest.approx((signal + RATE * x.numel()).item(), rel=0.03)
        loud = (x.mean((2, 3, 4)) > 1.5 * RATE).float()
        held = {noisy: 1.0, gaps: 0.5, somewhen: 1 / 3}[make]
        assert loud.mean().item() == pytest.approx(held, abs=0.06)
        if make is somewhen:
            assert (loud.diff(dim=1).abs().sum(1) <= 2).float().mean() > 0.9  # one piece
            assert loud.mean(0).min() > 0  # anywhere
