"""Losses on logits per time step: (logits [T, N, classes], targets) -> scalar; and on forecasts.

Targets are labels [N] int64, or probabilities [N, classes] (soft targets, as MixUp gives).
"""

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.nn import functional as F

from staa.registry import Registry


def mean_cross_entropy(logits: Tensor, targets: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
    """Cross-entropy of the time-mean logits:

        CE(1/T Σ_t logits[t], targets)

    Args:
        logits: The network's outputs at each step.
        targets: Labels, int64, or probabilities (soft targets, as MixUp gives).
        label_smoothing: Share of each target that is spread over all classes, at least 0 and below 1.

    Shapes:
        logits [T, N, classes], targets [N] or [N, classes] -> a scalar
    """
    mean = logits.mean(0, dtype=torch.promote_types(logits.dtype, torch.float32))
    return F.cross_entropy(mean, targets, label_smoothing=label_smoothing)


def mean_binary_cross_entropy(logits: Tensor, targets: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
    """Binary cross-entropy of the time-mean logits, each class for itself:

        z = 1/T Σ_t logits[t],   y = (1 − ε) target + ε / classes
        −mean over N and classes of y log σ(z) + (1 − y) log(1 − σ(z))

    Args:
        logits: The network's outputs at each step.
        targets: Labels, int64, or probabilities (soft targets, as MixUp gives).
        label_smoothing: ε, at least 0 and below 1.

    Shapes:
        logits [T, N, classes], targets [N] or [N, classes] -> a scalar

    Source:
        timm's loss, with which FSTA-SNN (AAAI 2025) trains DVS128 Gesture.
    """
    mean = logits.mean(0, dtype=torch.promote_types(logits.dtype, torch.float32))
    classes = mean.shape[1]
    wanted = F.one_hot(targets, classes) if targets.ndim == 1 else targets
    wanted = (1 - label_smoothing) * wanted.to(mean.dtype) + label_smoothing / classes
    return F.binary_cross_entropy_with_logits(mean, wanted)


def tet(
    logits: Tensor, targets: Tensor, *, label_smoothing: float = 0.0, tet_weight: float = 1e-3, tet_level: float = 1.0
) -> Tensor:
    """Temporal efficient training: every step is trained to be right by itself.

        (1 − λ) · 1/T Σ_t CE(logits[t], targets) + λ · mean over t, N, classes of (logits − φ)²

    Args:
        logits: The network's outputs at each step.
        targets: Labels, int64, or probabilities (soft targets, as MixUp gives).
        label_smoothing: Share of each target that is spread over all classes, at least 0 and below 1.
        tet_weight: λ, from 0 to 1.
        tet_level: φ, the level that all logits are drawn to.

    Shapes:
        logits [T, N, classes], targets [N] or [N, classes] -> a scalar

    Source:
        Deng et al., Temporal efficient training of spiking neural network via gradient re-weighting, ICLR 2022; the defaults
        are those of the authors' code.
    """
    steps = len(logits)
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    repeated = targets.expand(steps, *targets.shape).flatten(0, 1)
    each = F.cross_entropy(logits.flatten(0, 1), repeated, label_smoothing=label_smoothing)
    return (1 - tet_weight) * each + tet_weight * (logits - tet_level).square().mean()


def mean_squared_error(forecast: Tensor, truth: Tensor) -> Tensor:
    """Mean of (forecast − truth)² over all values whose truth is known.

    Args:
        forecast: Forecast of P steps of K variates, normalised.
        truth: What came, normalised; NaN if it is not known.

    Shapes:
        forecast, truth [B, P, K] -> a scalar
    """
    known = ~truth.isnan()
    return (forecast - truth.where(known, forecast)).square().sum() / known.sum().clamp(min=1)


def mean_absolute_error(forecast: Tensor, truth: Tensor) -> Tensor:
    """Mean of |forecast − truth| over all values whose truth is known.

    Args:
        forecast: Forecast of P steps of K variates, normalised.
        truth: What came, normalised; NaN if it is not known.

    Shapes:
        forecast, truth [B, P, K] -> a scalar
    """
    known = ~truth.isnan()
    return (forecast - truth.where(known, forecast)).abs().sum() / known.sum().clamp(min=1)


def rate_penalty(rates: Iterable[Tensor], *, target: float) -> Tensor:
    """How far firing rates are from a target: mean over layers of (rate − target)².

    Args:
        rates: Mean firing rate of each layer, in spikes per neuron and step.
        target: The rate aimed at, from 0 to 1.

    Shapes:
        each rate a scalar -> a scalar

    Raises:
        ValueError: If there are no layers.
    """
    rates = list(rates)
    if not rates:
        raise ValueError(
            "a penalty on firing rates (`loss.rate_weight`) needs spiking neurons, and this network has none: remove it"
        )
    return (torch.stack(rates) - target).square().mean()


LOSSES = Registry("loss", "staa.losses.LOSSES", {"mean": mean_cross_entropy, "bce": mean_binary_cross_entropy, "tet": tet})
FORECAST_LOSSES = Registry("loss", "staa.losses.FORECAST_LOSSES", {"mse": mean_squared_error, "mae": mean_absolute_error})
