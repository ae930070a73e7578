"""A series' values made ready: normalised, without gaps, with the features of its times."""

from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

Normalisation = Literal["none", "max", "max-per-variate", "zscore", "zscore-per-variate"]
Gaps = Literal["refuse", "mask", "interpolate"]


class Normaliser(NamedTuple):
    """How values were normalised: normalised = (x − offset) / scale.

    Args:
        offset: float64, what is subtracted.
        scale: float64, what it is divided by, above 0.

    Shapes:
        offset, scale [K]
    """

    offset: Tensor
    scale: Tensor


def fit_normaliser(values: Tensor, how: Normalisation, names: tuple[str, ...] | None = None) -> Normaliser:
    """Offset and scale of values [n, K], NaN left out: the largest absolute value, or mean and (population) standard deviation,
    of all variates together or of each.

    Raises ValueError if what is to be divided by is 0: a constant series, or a constant variate.
    """
    values = values.double()
    nodes = values.shape[1]
    offset, scale = torch.zeros(nodes, dtype=torch.float64), torch.ones(nodes, dtype=torch.float64)
    if how == "none":
        return Normaliser(offset, scale)
    kind, _, each = how.partition("-")
    if kind not in ("max", "zscore") or each not in ("", "per-variate"):
        raise ValueError(f"normalise must be none, max, max-per-variate, zscore or zscore-per-variate, got {how!r}")
    groups = values if each else values.reshape(-1, 1)
    if kind == "max":
        scale = groups.abs().nan_to_num(0.0).amax(0).expand(nodes).clone()
    else:
        offset = groups.nanmean(0).expand(nodes).clone()
        scale = (groups - groups.nanmean(0)).square().nanmean(0).sqrt().expand(nodes).clone()
    flat = ((scale <= 1e-12 * offset.abs().clamp(min=1e-300)) | ~scale.isfinite()).nonzero().flatten().tolist()
    if flat:
        which = "the series" if not each else ", ".join(names[k] if names else str(k) for k in flat[:5])
        raise ValueError(
            f"{which} is constant, or all gaps, over the {len(values)} rows the normaliser is of, so {how} would divide by 0: "
            + ("remove it, or take `series.normalise=zscore`" if each else "there is nothing to forecast")
        )
    return Normaliser(offset, scale)


def fill_gaps(
    values: np.ndarray,
    how: Gaps,
    *,
    times: np.ndarray | None = None,
    names: tuple[str, ...] | None = None,
    unmeasured: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """(values without NaN, which of them count as known), both [n, K].

    refuse: raise ValueError if there is a NaN. interpolate: along time, from both sides, and all count as known. mask: the
    last known value goes on, at the beginning the first known one, and only what was there counts as known. unmeasured: gaps
    that the user has said, which are masked where others are refused.
    """
    if how not in ("refuse", "mask", "interpolate"):
        raise ValueError(f"gaps must be refuse, mask or interpolate, got {how!r}")
    known = ~np.isnan(values)
    if known.all():
        return values, known
    if how == "refuse":
        gaps = ~known if unmeasured is None else ~known & ~unmeasured
        if gaps.any():
            row, column = np.argwhere(gaps)[0]
            when = "" if times is None else f" ({str(times[row])[:19]})"
            raise ValueError(
                f"the series has {gaps.sum()} gaps, the first in variate {names[column] if names else column}, row {row}{when}"
                f": `series.gaps=mask` leaves them out of loss and figures, `series.gaps=interpolate` fills them in"
            )
        how = "mask"
    if not known.any(0).all():
        empty = int(np.flatnonzero(~known.any(0))[0])
        raise ValueError(f"variate {names[empty] if names else empty} has no value at all: remove it")
    filled = values.copy()
    rows = np.arange(len(values))
    for k in np.flatnonzero(~known.all(0)):
        there = rows[known[:, k]]
        if how == "interpolate":
            filled[:, k] = np.interp(rows, there, values[there, k])
        else:
            filled[:, k] = values[there[np.maximum(np.searchsorted(there, rows, side="right") - 1, 0)], k]
    return filled, known if how == "mask" else np.ones_like(known)


def calendar_features(times: np.ndarray) -> Tensor:
    """Minute (if the step is below an hour), hour, weekday, day and day of the year of times [n], each from −½ to ½: [n, F].

    F = 5, or 4 if no minute differs. As in SeqSNN's code (Lv et al., ICML 2024), which keeps such a minute.
    """
    import pandas as pd

    t = pd.DatetimeIndex(times)
    columns = [(t.hour, 23), (t.day_of_week, 6), (t.day - 1, 30), (t.day_of_year - 1, 365)]
    if len(t.minute.unique()) > 1:
        columns.insert(0, (t.minute, 59))
    return torch.from_numpy(np.stack([np.asarray(c, np.float64) / top - 0.5 for c, top in columns], 1)).float()
