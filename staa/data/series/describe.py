"""What was understood of a series, in lines to read."""

from collections.abc import Iterable

import numpy as np

from staa.data.series.calendar import common_step, months_between
from staa.data.series.season import DAY
from staa.data.series.series import TimeSeries

FIRST = 6  # names that are told
FAR = 100  # times the middle half's width beyond which a value is far from the others
LINE = "{:<10}{}"


def describe(series: TimeSeries) -> tuple[str, ...]:
    """What was understood of a series: its size, names, times, gaps, scale, outliers and seasons, and what was left out of it.

    A season is told as the share of the variance that a mean for each node and time of day, or time of day and weekday, takes
    away: 1 − (Σ (x − profile)² / (n − p)) / (Σ (x − mean)² / (n − K)), for n values of K nodes and p means. An outlier lies
    beyond the quartiles by more than 100 times their distance.

    Args:
        series: As `staa.data.read_series` gives it.

    Returns:
        A line for each property.
    """
    values, names = series.values, series.names
    known = ~np.isnan(values)
    rows, nodes = values.shape
    more = f" and {nodes - FIRST} more" if nodes > FIRST else ""
    lines = [("size", f"{rows:,} rows of {nodes:,} variates: {', '.join(names[:FIRST])}{more}")]
    lines += [("times", text) for text in _times(series)]
    gaps = int((~known).sum())
    unmeasured = 0 if series.unmeasured is None else int(series.unmeasured.sum())
    said = f", {unmeasured:,} of them values that stand for none" if unmeasured else ""
    lines.append(("gaps", f"{gaps:,} of {values.size:,} values ({gaps / values.size:.2%}){said}"))
    zeros = int((values == 0).sum())
    lines.append(("zeros", f"{zeros:,} ({zeros / values.size:.2%})"))
    there = values[known]
    if there.size:
        lines.append(
            ("scale", f"mean {there.mean():.4g}, deviation {there.std():.4g}, from {there.min():.4g} to {there.max():.4g}")
        )
    flat = [names[k] for k in range(nodes) if np.ptp(there_k := values[known[:, k], k]) == 0 if there_k.size]
    if flat:
        lines.append(("constant", _some(flat)))
    lines.append(("outliers", _outliers(series)))
    lines += [("season", text) for text in _seasons(series)]
    if series.graph is not None:
        edges = int((series.graph > 0).sum())
        lines.append(("graph", f"{edges:,} edges, {edges / nodes:.1f} of each node"))
    lines += [("note", note) for note in series.notes]
    return tuple(LINE.format(name, text) for name, text in lines)


def _some(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names[:FIRST]) + (f" and {len(names) - FIRST} more" if len(names) > FIRST else "")


def _times(series: TimeSeries) -> list[str]:
    if series.times is None:
        return ["none"]
    first, last = (str(series.times[k]).removesuffix(".000000000").replace("T", " ") for k in (0, -1))
    if len(series.times) == 1:
        return [f"{first} alone"]
    import pandas as pd

    months, common = months_between(series.times), common_step(series.times)
    steps = np.diff(series.times.astype("datetime64[M]").astype(np.int64)) if months else np.diff(series.times)
    odd = int((steps != (months or common)).sum())
    step = f"{months} month{'s' * (months > 1)}" if months else str(pd.Timedelta(common)).replace("0 days ", "")
    return [f"{first} to {last}, a row every {step}" + (f", but for {odd:,} other steps" if odd else "")]


def _outliers(series: TimeSeries) -> str:
    found = []
    for k, x in enumerate(series.values.T):
        there = np.flatnonzero(~np.isnan(x))
        if not len(there):
            continue
        low, high = np.percentile(x[there], [25, 75])
        reach = FAR * (high - low) if high > low else np.inf
        found += [(k, int(row)) for row in there[(x[there] < low - reach) | (x[there] > high + reach)]]
    if not found:
        return "none"
    told = [f"{series.values[row, k]:.4g} in {series.names[k]}, row {row}" for k, row in found[:3]]
    return f"{len(found):,} far from the others: {', '.join(told)}" + (" …" if len(found) > 3 else "")


def _seasons(series: TimeSeries) -> list[str]:
    """Shares of the variance that daily and weekly profiles explain, if there are times and several days."""
    if series.times is None:
        return ["not known, without times"]
    since = (series.times - series.times[0].astype("datetime64[W]")).astype("timedelta64[s]").astype(np.int64)
    step = int(series.every or 0)
    if not 0 < step < DAY:
        return ["none within a day, at this step"]
    span = int(since[-1] - since[0]) + step
    told = []
    for name, period in (("day", DAY), ("week", 7 * DAY)):
        if span < 2 * period:
            told.append(f"{name} n/a, of {span / period:.1f} {name}s")
            continue
        share = explained(series.values, since % period // step)
        told.append(f"{name} n/a, with as many means as values" if share is None else f"{name} {max(share, 0):.1%}")
    return [f"share of the variance by time of {', '.join(told)}"]


def explained(values: np.ndarray, slot: np.ndarray) -> float | None:
    """Share of the variance [n, K] that a mean for each node and slot [n] takes away, for as many means; None if there are as
    many means as values."""
    known = ~np.isnan(values)
    x = np.where(known, values - np.nanmean(np.where(known.any(0), values, 0), 0), 0)
    slots, place = np.unique(slot, return_inverse=True)
    sums, counts = (np.zeros((len(slots), values.shape[1])) for _ in range(2))
    np.add.at(sums, place, x)
    np.add.at(counts, place, known)
    left = ((x - (sums / np.maximum(counts, 1))[place]) ** 2)[known].sum()
    free, whole = int(known.sum()) - int((counts > 0).sum()), int(known.sum()) - int(known.any(0).sum())
    total = float((x**2).sum())
    if free <= 0 or whole <= 0 or total == 0:
        return None
    return float(1 - (left / free) / (total / whole))
