"""Calling a forecaster: as many steps ahead as are asked for."""

import torch
from torch import Tensor, nn

from staa.inference.prepared import Prepared
from staa.training.evaluate import call


def look_ahead(model: nn.Module, series: Prepared, origins: Tensor, steps: int, device: torch.device) -> Tensor:
    """The steps that follow each origin, as the network tells them: [B, steps, K], on the CPU.

    Beyond its horizon P a forecast is fed back as if it had been seen: the network sees the last L of all steps before, clipped
    at 0 if they can't be negative, and forecasts the next P.
    """
    told: list[Tensor] = []
    seen = None
    for ahead in range(0, steps, series.horizon):
        inputs = series.inputs(origins, ahead, seen)
        made = call(model, tuple(x.to(device) for x in inputs)).cpu()
        told.append(made)
        seen = torch.cat([inputs[0], series.normaliser.clipped(made.float())], 1)[:, -series.window :]
    return torch.cat(told, 1)[:, :steps]


def check_steps(steps: int | None, horizon: int) -> int:
    """How many steps to forecast; None: the horizon. Raises ValueError for what is no number of them."""
    if steps is None:
        return horizon
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise ValueError(f"`steps` must be a whole number, at least 1, got {steps!r}")
    return steps
