"""A series' values made ready: normalised, without gaps, with the features of its times."""

from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

Normalisation = Literal["none", "max", "max-per-variate", "zscore", "zscore-per-variate"]
Gaps = Literal["refuse", "mask", "interpolate"]
Transform = Literal["none", "log1p"]
RESOLVED, SAMPLED = 8, 2000  # steps of float32 that a variate's values must spread over, and rows that this is told from
LONE = 0.9  # share of the squared deviations that one value makes alone


class Normaliser(NamedTuple):
    """How values were normalised: normalised = (x − offset) / scale, or (log(1 + x) − offset) / scale.

    Args:
        offset: float64, what is subtracted.
        scale: float64, what it is divided by, above 0.
        transform: What comes before: "none", or "log1p", the logarithm of 1 + x.
        nonnegative: Forecasts below 0 in real units become 0.

    Shapes:
        offset, scale [K]
    """

    offset: Tensor
    scale: Tensor
    transform: Transform = "none"
    nonnegative: bool = False

    @property
    def start(self) -> np.ndarray:
        """What stands for a variate in real units before its first known value, normalised 0: [K]."""
        return self.real(torch.zeros_like(self.offset)).numpy()

    def normalise(self, values: Tensor) -> Tensor:
        """Values as the network sees them, in float64.

        Args:
            values: float64, in real units.

        Shapes:
            values [..., K] -> [..., K]
        """
        return ((torch.log1p(values) if self.transform == "log1p" else values) - self.offset) / self.scale

    def clipped(self, forecast: Tensor) -> Tensor:
        """A forecast, at least 0 in real units if it can't be negative.

        Args:
            forecast: Normalised.

        Shapes:
            forecast [..., K] -> [..., K]
        """
        return forecast.maximum((-self.offset / self.scale).to(forecast)) if self.nonnegative else forecast

    def real(self, normalised: Tensor) -> Tensor:
        """Values in real units, in float64; clipped at 0 if they can't be negative.

        Args:
            normalised: As the network sees or forecasts them.

        Shapes:
            normalised [..., K] -> [..., K]
        """
        values = normalised.double() * self.scale + self.offset
        values = torch.expm1(values) if self.transform == "log1p" else values
        return values.clamp(min=0) if self.nonnegative else values


def check_not_negative(values: np.ndarray, names: tuple[str, ...], setting: str) -> None:
    """Raises ValueError for a value [n, K] below 0. setting: what can't be so, such as "series.transform=log1p"."""
    if (values < 0).any():
        row, k = np.argwhere(values < 0)[0]
        raise ValueError(
            f"`{setting}` is for values that can't be negative, but variate {names[k]} is {values[row, k]:g} in row {row}: "
            f"leave the setting out, or the cell empty if nothing was measured"
        )


def fit_normaliser(values: Tensor, how: Normalisation, names: tuple[str, ...] | None = None) -> Normaliser:
    """Offset and scale of values [n, K], NaN left out: the largest absolute value, or mean and (population) standard deviation,
    of all variates together or of each. If they are to be transformed, `values` are so already.

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
    if scale.isinf().any() or offset.isinf().any():
        raise ValueError(
            f"values up to {values.abs().nan_to_num(0.0).max():.4g} are too large to normalise: if they are no measurement, "
            f"leave them out by `series.missing` and `series.gaps=mask`"
        )
    flat = ((scale <= 1e-12 * offset.abs().clamp(min=1e-300)) | ~scale.isfinite()).nonzero().flatten().tolist()
    if flat:
        which = "the series" if not each else ", ".join(names[k] if names else str(k) for k in flat[:5])
        raise ValueError(
            f"{which} is constant, or all gaps, over the {len(values)} rows the normaliser is of, so {how} would divide by 0: "
            + ("remove it, or take `series.normalise=zscore`" if each else "there is nothing to forecast")
        )
    return Normaliser(offset, scale)


def outweighing(values: np.ndarray, *, each: bool) -> list[tuple[int, int]]:
    """(row, variate) of a value that makes LONE of the squared deviations from the mean, of all values [n, K] or with
    `each` of its variate's. NaN is left out; each variate has a value."""
    groups = values if each else values.reshape(-1, 1)
    groups = groups / np.maximum(np.nanmax(np.abs(groups), 0), 1e-300)  # so that no square overflows
    squares = np.nan_to_num(np.square(groups - np.nanmean(groups, 0)))
    at = squares.argmax(0)
    heavy = np.flatnonzero(squares.max(0) > LONE * squares.sum(0))
    return [(int(at[k]), int(k)) if each else divmod(int(at[k]), values.shape[1]) for k in heavy]


def check_resolved(values: np.ndarray, normaliser: Normaliser, names: tuple[str, ...], how: Normalisation) -> None:
    """Raises ValueError if a variate's values, all but the hundredth at each end, come closer than float32 can tell once they
    are normalised, as those beside a single 1e30 do: nothing can be learned of them, and their errors would be wrong.

    values: [n, K], transformed if they are to be. how: how the normaliser was fitted.
    """
    some = values[:: max(1, len(values) // SAMPLED)]
    there = np.flatnonzero(~np.isnan(some).all(0))
    low, middle, high = np.nanquantile(some[:, there], (0.01, 0.5, 0.99), axis=0)
    scale, offset = normaliser.scale.numpy()[there], normaliser.offset.numpy()[there]
    finest = np.spacing(np.abs((middle - offset) / scale).astype(np.float32))
    lost = np.flatnonzero((high > low) & ((high - low) / scale < RESOLVED * finest))
    if not len(lost):
        return
    k = int(lost[0])
    sizes, together = np.abs(np.nan_to_num(values)), how in ("max", "zscore")
    at = int(sizes.argmax()) if together else int(sizes[:, there[k]].argmax()) * len(names) + int(there[k])
    row, largest = divmod(at, len(names))
    raise ValueError(
        f"variate {names[there[k]]}'s values, mostly {low[k]:.7g} to {high[k]:.7g}, can't be told apart once they are "
        f"normalised, `series.normalise={how}`: the largest value is {values[row, largest]:.4g}, in {names[largest]}, row "
        f"{row}. If that is no measurement, leave it out by `series.missing` and `series.gaps=mask`"
        + ("; if variates are of different size, take `series.normalise=zscore-per-variate`" if together else "")
    )


def fill_gaps(
    values: np.ndarray,
    how: Gaps,
    *,
    times: np.ndarray | None = None,
    names: tuple[str, ...] | None = None,
    start: np.ndarray | None = None,
    unmeasured: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """(values without NaN, which of them are known), both [n, K].

    refuse: raise ValueError if there is a NaN, but mask what the user has said to be unmeasured [n, K]. mask: the last known
    value goes on. interpolate: along time, and after the last known value as mask. start [K]: what stands before a variate's
    first known value; None: that value.
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
                f": `series.gaps=mask` leaves them out of loss and figures, `series.gaps=interpolate` fills them in as well"
            )
        how = "mask"
    if start is None and not known.any(0).all():
        empty = int(np.flatnonzero(~known.any(0))[0])
        raise ValueError(f"variate {names[empty] if names else empty} has no value at all: remove it")
    filled = values.copy()
    rows = np.arange(len(values))
    for k in np.flatnonzero(~known.all(0)):
        there = rows[known[:, k]]
        if not len(there):
            filled[:, k] = start[k]  # type: ignore[index]
        elif how == "interpolate":
            filled[:, k] = np.interp(rows, there, values[there, k])
        else:
            filled[:, k] = values[there[np.maximum(np.searchsorted(there, rows, side="right") - 1, 0)], k]
        if start is not None and len(there):
            filled[: there[0], k] = start[k]
    return filled, known


def next_known(known: np.ndarray) -> np.ndarray:
    """The row, at or after each, at which a variate is known; n if it never is again: [n, K], int32."""
    rows = np.where(known, np.arange(len(known), dtype=np.int32)[:, None], np.int32(len(known)))
    return np.minimum.accumulate(rows[::-1], 0)[::-1].copy()


def calendar_features(times: np.ndarray, *, minutes: bool) -> Tensor:
    """Minute (if it is told), hour, weekday, day and day of the year of times [n], each from −½ to ½: [n, F].

    F = 5, or 4 without minutes. As in SeqSNN's code (Lv et al., ICML 2024), which tells minutes always.
    """
    import pandas as pd

    t = pd.DatetimeIndex(times)
    columns = [(t.minute, 59)] if minutes else []
    columns += [(t.hour, 23), (t.day_of_week, 6), (t.day - 1, 30), (t.day_of_year - 1, 365)]
    return torch.from_numpy(np.stack([np.asarray(c, np.float64) / top - 0.5 for c, top in columns], 1)).float()
