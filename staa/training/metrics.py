"""Figures of merit, as sums that add up over batches (and processes)."""

import math
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F


def classification_sums(logits: Tensor, targets: Tensor) -> Tensor:
    """[samples, correct, summed cross-entropy] of the time-mean logits [T, N, classes], float64.

    targets: labels [N], or probabilities [N, classes], whose likeliest class counts as the right one.
    """
    mean = logits.mean(0, dtype=torch.promote_types(logits.dtype, torch.float32))
    labels = targets if targets.ndim == 1 else targets.argmax(1)
    correct = (mean.argmax(1) == labels).sum()
    loss = F.cross_entropy(mean, targets, reduction="sum")
    return torch.stack([torch.full_like(loss, len(targets)), correct, loss]).double()


def classification_figures(sums: Tensor) -> dict[str, float]:
    """accuracy and loss per sample from the sums of `classification_sums`. Raises ValueError on no samples."""
    samples, correct, loss = sums.tolist()
    if samples == 0:
        raise ValueError("there are no samples to measure on")
    return {"accuracy": correct / samples, "loss": loss / samples}


def running_means(logits: Tensor) -> Tensor:
    """Means of the logits so far, in float32; the last one is bit for bit the mean by which accuracy is measured.

    Args:
        logits: Of each step.

    Shapes:
        logits [T, N, classes] -> [T, N, classes]
    """
    kind = torch.promote_types(logits.dtype, torch.float32)
    steps = torch.arange(1, len(logits) + 1, device=logits.device).view(-1, 1, 1)
    means = logits.cumsum(0, dtype=kind) / steps
    means[-1] = logits.mean(0, dtype=kind)
    return means.float()


def leading(means: Tensor) -> tuple[Tensor, Tensor]:
    """(the class that leads, how far its probability is ahead of the second's).

    Args:
        means: Logits; of a single class the margin is its probability, 1.

    Shapes:
        means [..., classes] -> classes [...], margins [...]
    """
    ahead = means.softmax(-1).topk(min(2, means.shape[-1]), -1).values
    return means.argmax(-1), ahead[..., 0] - ahead[..., 1:].sum(-1)


TINY = 1e-3  # of a variate's scale: what MAPE does not divide by


def forecast_sums(
    forecast: Tensor,
    truth: Tensor,
    *,
    offset: Tensor,
    scale: Tensor,
    missing: float | None = None,
    log1p: bool = False,
    nonnegative: bool = False,
) -> Tensor:
    """What the figures of forecasts are made of, for each horizon and variate: [12, P, K], float64, [13, P, K] with log1p.

    forecast, truth: [B, P, K], normalised; truth is NaN if it is not known, which counts for nothing. offset, scale: [K],
    real = normalised · scale + offset. missing: a real value that stands for no measurement, as 0 does in METR-LA: the errors
    in real units leave it out, R² and RSE do not. log1p: normalised · scale + offset is log(1 + real). nonnegative: a forecast
    below 0 in real units counts as 0.
    """
    y, offset, scale = truth.double(), offset.to(truth.device).double(), scale.to(truth.device).double()
    known = ~y.isnan()
    f = forecast.double()
    f = f.maximum(-offset / scale) if nonnegative else f  # where real units have their 0, with log1p too
    e = (f - y).where(known, 0.0)
    y = y.where(known, 0.0)
    real, nothing = y * scale + offset, 1e-6 * (scale + offset.abs())  # float32 took a zero's last digits
    all_errors = e * scale
    if log1p:
        real, nothing = torch.expm1(real), nothing * torch.exp(real)
        all_errors = torch.expm1(f * scale + offset) - real
    counted = known if missing is None else known & ((real - missing).abs() > nothing)
    error, size = all_errors.where(counted, 0.0), real.abs()
    small = nothing if log1p else torch.maximum(nothing, TINY * scale)
    relative = counted & (size > small)
    share = (error / real.where(relative, 1.0)).where(relative, 0.0)
    both = size + (real + error).abs()
    symmetric = (2 * error.abs() / both.where(both > nothing, 1.0)).where(both > nothing, 0.0)
    z = real.where(known, 0.0) if log1p else y  # what R² and RSE are of
    parts = (known, z, z.square(), e.abs(), e.square(), counted, error.abs(), error.square(), relative, share.abs())
    parts = (*parts, symmetric, size.where(counted, 0.0), *((all_errors.where(known, 0.0).square(),) if log1p else ()))
    return torch.stack([part.double().sum(0) for part in parts])


def forecast_figures(sums: Tensor, *, loss: Literal["mse", "mae"] = "mse", naive: Tensor | None = None) -> dict[str, float]:
    """Figures of the sums of `forecast_sums`, over all horizons and variates they hold:

        mae, rmse   mean absolute error, root of the mean squared error, in the series' units
        mape        mean of |error / truth|, of values at least a thousandth of the variate's scale
        smape       mean of 2 |error| / (|truth| + |forecast|), from 0 to 2; two zeros count as 0
        wmape       Σ |error| / Σ |truth|
        mase        mean over variates of (their mae / naive), of `naive` [K] above 0 (Hyndman and Koehler, 2006)
        r2          1 − Σ error² / Σ (y − ȳ)²,         ȳ one mean over all values          (SeqSNN, Lv et al., ICML 2024)
        r2_nodes    mean over variates of the same for each, which levels that differ do not flatter
        rse         √(Σ error² / Σ (y − ȳ_pk)²),       ȳ_pk a mean for each horizon and variate   (SeqSNN too)
        loss        mean squared or absolute error of the normalised values

    r2, r2_nodes and rse are of the normalised values; if these are logarithms, of the real ones. NaN if the truth does not
    vary, or none is counted; no mase without `naive`, the mean absolute error of a naive forecast of the training rows.
    """
    sums = sums.cpu()
    n, y, yy, a, ee, counted, absolute, squared, relative, share, symmetric, size = sums[:12].flatten(1)
    squares = sums[12 if len(sums) > 12 else 4]  # in real units with log1p
    total = yy.sum() - y.sum().square() / n.sum()
    each = (yy - y.square() / n.clamp(min=1)).clamp(min=0).sum()
    varies = 1e-12 * yy.sum()  # below it, a difference of such sums is rounding
    r2, rse = 1 - squares.sum() / total, (squares.sum() / each).sqrt()
    values = {
        "mae": absolute.sum() / counted.sum(),
        "rmse": (squared.sum() / counted.sum()).sqrt(),
        "mape": share.sum() / relative.sum(),
        "smape": symmetric.sum() / counted.sum(),
        "wmape": absolute.sum() / size.sum(),
        "r2": r2 if total > varies else torch.tensor(math.nan),
        "r2_nodes": _r2_nodes(sums[:3].sum(1), squares.sum(0)),
        "rse": rse if each > varies else torch.tensor(math.nan),
        "loss": (ee if loss == "mse" else a).sum() / n.sum(),
    }
    if naive is not None:
        counts, by_node = sums[5].sum(0), sums[6].sum(0)
        fine = (counts > 0) & (naive > 0)
        values["mase"] = (by_node / counts / naive)[fine].mean()
    return {name: float(value) for name, value in values.items()}


def _r2_nodes(sums: Tensor, squares: Tensor) -> Tensor:
    """sums [3, K]: of how many values, of them and of their squares; squares [K]: of the errors."""
    n, y, yy = sums
    total = yy - y.square() / n.clamp(min=1)
    varies = total > 1e-12 * yy
    return (1 - squares / total)[varies].mean()


def forecast_figures_by_horizon(sums: Tensor, *, naive: Tensor | None = None) -> list[dict[str, float]]:
    """The figures of each of the P steps ahead, from 1."""
    steps = sums.split(1, 1)
    return [{"step": p + 1, **forecast_figures(at, naive=naive)} for p, at in enumerate(steps) if bool(at[0].any())]
