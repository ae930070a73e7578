"""Windows of a time series for forecasting: split in time order, normalised, in batches."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from staa.data.batches import generator_of
from staa.data.content import Content
from staa.data.series.series import TimeSeries

Normalisation = Literal["none", "max", "max-per-variate", "zscore", "zscore-per-variate"]
Gaps = Literal["refuse", "mask", "interpolate"]
Inputs = tuple[Tensor, ...]
"""(x [B, L, K],) or (x, time features [B, L, F])"""
UNLIKE = 1000  # times the smallest deviation


class Normaliser(NamedTuple):
    """normalised = (x − offset) / scale; both [K], float64."""

    offset: Tensor
    scale: Tensor


@dataclass(frozen=True)
class SeriesSource:
    """A series cut into windows, split in time order: window k sees rows k … k + L − 1 and is told rows k + L … k + L + P − 1.

    values: [n, K] float32, normalised, without gaps; targets: the same, NaN where a value is not known; time: [n, F] or None.
    train, validation, test: which windows. missing: a real value that stands for no measurement. split: a digest of the values,
    names, times and borders. every: seconds between rows, where there are times. notes: what the user should hear.
    content: of the graph, if there is one.
    """

    values: Tensor
    targets: Tensor
    time: Tensor | None
    window: int
    horizon: int
    train: range
    validation: range | None
    test: range
    normaliser: Normaliser
    missing: float | None
    graph: Tensor | None
    names: tuple[str, ...]
    split: str
    every: float | None = None
    notes: tuple[str, ...] = ()
    content: Content | None = None

    @property
    def facts(self) -> dict[str, Any]:
        """What a network for these data must know, and how to normalise others: for a run's records."""
        return {
            "nodes": len(self.names), "window": self.window, "horizon": self.horizon,
            "features": 0 if self.time is None else self.time.shape[1], "names": list(self.names),
            "offset": self.normaliser.offset.tolist(), "scale": self.normaliser.scale.tolist(), "every": self.every,
        }  # fmt: skip


def forecast_source(
    series: TimeSeries,
    *,
    window: int,
    horizon: int,
    train: float = 0.7,
    validation: float = 0.1,
    normalise: Normalisation = "zscore",
    fit_on: Literal["train", "all"] = "train",
    gaps: Gaps = "refuse",
    time_features: bool = True,
) -> SeriesSource:
    """A series as windows of `window` steps in and `horizon` steps out, by SeqSNN's protocol (Lv et al., ICML 2024):

        windows = rows − window − horizon + 1, at a stride of 1
        train the first ⌊windows · train⌋, test the last ⌊windows · (1 − train − validation)⌋, validation between

    so parts that follow each other share rows. The default shares are ours; SeqSNN's traffic sets have 0.2 for validation and
    0.1 to test. Without validation all after train is test. fit_on: the normaliser is of the
    rows that training windows see or are told, or of the whole series, as in that code (a leak, which is noted).

    Raises ValueError for a series too short for a window or for any part, gaps that are refused, shares out of range, and what
    `fit_normaliser` raises.
    """
    rows, nodes = series.values.shape
    for name, value in (("window", window), ("horizon", horizon)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    share = round(1 - train - validation, 10)
    if not (0 < train < 1 and 0 <= validation < 1 and share > 0):
        raise ValueError(f"train and validation leave a share to test: got {train} and {validation} of the windows")
    windows = rows - window - horizon + 1
    if windows < 1:
        raise ValueError(
            f"the series has {rows} rows; a window of {window} and a horizon of {horizon} need {window + horizon}: shorten them"
        )
    trained = int(windows * train)
    tested = int(windows * share) if validation else windows - trained
    parts = {"train": range(trained), "validation": range(trained, windows - tested), "test": range(windows - tested, windows)}
    if not validation:
        del parts["validation"]
    for name, part in parts.items():
        if len(part) == 0:
            raise ValueError(
                f"{name} gets none of the series' {windows} windows ({rows} rows): shorten window or horizon, or give it a "
                f"larger share"
            )
    if fit_on not in ("train", "all"):
        raise ValueError(f"fit_on must be train or all, got {fit_on!r}")
    values, known = fill_gaps(series.values, gaps, times=series.times, names=series.names)
    for name, part in parts.items():
        if not known[part.start + window : part.stop + window + horizon - 1].any():
            raise ValueError(f"the rows that {name} is measured on are gaps throughout: give it another share, or fill them")
    seen = series.values if fit_on == "all" else series.values[: trained + window + horizon - 1]
    normaliser = fit_normaliser(torch.from_numpy(seen), normalise, series.names)
    notes = list(series.notes)
    if fit_on == "all":
        notes.append("the normaliser is of the whole series, its test rows too, as in SeqSNN's code: a leak")
    flat = np.flatnonzero([np.unique(v[~np.isnan(v)]).size < 2 for v in seen.T])
    if len(flat):
        which = ", ".join(series.names[k] for k in flat[:5]) + (" …" if len(flat) > 5 else "")
        notes.append(f"{len(flat)} of {nodes} variates are constant, or all gaps, over the normaliser's rows: {which}")
    if normalise in ("max", "zscore"):
        spread = np.nanstd(np.delete(seen, flat, 1), 0)
        if len(spread) and spread.max() > UNLIKE * spread.min():
            notes.append(
                f"variates of very different size share one scale (deviations {spread.min():.3g} to {spread.max():.3g}), so "
                f"the small ones hardly count: `series.normalise={normalise}-per-variate` gives each its own"
            )
    normal = ((torch.from_numpy(values) - normaliser.offset) / normaliser.scale).float()
    times = series.times if time_features else None
    digest = hashlib.sha256(np.ascontiguousarray(series.values).tobytes())
    digest.update(b"" if times is None else times.astype("datetime64[ns]").tobytes())
    digest.update(repr((window, horizon, trained, tested, rows, nodes, series.names)).encode())
    return SeriesSource(
        values=normal,
        targets=normal if known.all() else normal.where(torch.from_numpy(known), torch.nan),
        time=None if times is None else calendar_features(times),
        window=window,
        horizon=horizon,
        train=parts["train"],
        validation=parts.get("validation"),
        test=parts["test"],
        normaliser=normaliser,
        missing=series.missing,
        graph=None if series.graph is None else torch.from_numpy(series.graph).float(),
        names=series.names,
        split=digest.hexdigest(),
        every=series.every,
        notes=tuple(notes),
        content=None if series.graph is None else Content(partial(_sha256, series.graph)),
    )


def _sha256(graph: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(graph, np.float32).tobytes()).hexdigest()


def fit_normaliser(values: Tensor, how: Normalisation, names: tuple[str, ...] | None = None) -> Normaliser:
    """Offset and scale of values [n, K], NaN left out: the largest absolute value, or mean and (population) standard deviation,
    of all variates together or of each.

    Raises ValueError where what is to be divided by is 0: a constant series, or a constant variate.
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
            + ("leave it out, or take `series.normalise=zscore`" if each else "there is nothing to forecast")
        )
    return Normaliser(offset, scale)


def fill_gaps(
    values: np.ndarray, how: Gaps, *, times: np.ndarray | None = None, names: tuple[str, ...] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """(values without NaN, which of them count as known), both [n, K].

    refuse: raise ValueError where there is a NaN. interpolate: along time, from both sides, and all count as known. mask: the
    last known value goes on, at the beginning the first known one, and only what was there counts as known.
    """
    if how not in ("refuse", "mask", "interpolate"):
        raise ValueError(f"gaps must be refuse, mask or interpolate, got {how!r}")
    known = ~np.isnan(values)
    if known.all():
        return values, known
    row, column = np.argwhere(~known)[0]
    where = f"variate {names[column] if names else column}, row {row}" + ("" if times is None else f" ({str(times[row])[:19]})")
    if how == "refuse":
        raise ValueError(
            f"the series has {(~known).sum()} gaps, the first in {where}: `series.gaps=mask` leaves them out of loss and "
            f"figures, `series.gaps=interpolate` fills them in"
        )
    if not known.any(0).all():
        empty = int(np.flatnonzero(~known.any(0))[0])
        raise ValueError(f"variate {names[empty] if names else empty} has no value at all: leave it out")
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
    """Minute (where the step is below an hour), hour, weekday, day and day of the year of times [n], each from −½ to ½: [n, F].

    F = 5, or 4 where no minute differs. As in SeqSNN's code (Lv et al., ICML 2024), which keeps such a minute.
    """
    import pandas as pd

    t = pd.DatetimeIndex(times)
    columns = [(t.hour, 23), (t.day_of_week, 6), (t.day - 1, 30), (t.day_of_year - 1, 365)]
    if len(t.minute.unique()) > 1:
        columns.insert(0, (t.minute, 59))
    return torch.from_numpy(np.stack([np.asarray(c, np.float64) / top - 0.5 for c, top in columns], 1)).float()


class WindowBatches:
    """Batches of windows of one part, as (inputs, y [B, P, K]), on a device; the order of epoch e depends on (seed, e) alone,
    so that an epoch can be entered anywhere. seed=None: in order, all of them; else the last batch is dropped when not full.
    Once an epoch has begun, no batch makes the host wait for a GPU.

    Raises ValueError where the part has no windows.
    """

    def __init__(
        self,
        source: SeriesSource,
        part: Literal["train", "validation", "test"],
        batch_size: int,
        *,
        seed: int | None = None,
        device: torch.device | str = "cpu",
    ):
        windows = getattr(source, part)
        if not windows or batch_size < 1:
            raise ValueError(f"need windows to {part} on and a batch size of at least 1, got {windows} and {batch_size}")
        self.windows: range = windows
        self.batch_size, self.seed, self.device = min(batch_size, len(windows)), seed, torch.device(device)
        self.window, self.horizon = source.window, source.horizon
        self.values, self.targets = source.values.to(device), source.targets.to(device)
        self.time = None if source.time is None else source.time.to(device)

    def __len__(self) -> int:
        count = len(self.windows)
        return count // self.batch_size if self.seed is not None else -(-count // self.batch_size)

    def epoch(self, epoch: int = 0, start: int = 0) -> Iterator[tuple[Inputs, Tensor]]:
        order = torch.arange(len(self.windows))
        if self.seed is not None:
            order = torch.randperm(len(order), generator=generator_of(self.seed, "cpu", "order", epoch))
        order = order.to(self.device)
        for k in range(start, len(self)):
            yield self.take(order[k * self.batch_size : (k + 1) * self.batch_size])

    def close(self) -> None:
        """There is nothing to end: these batches have no worker processes."""

    def take(self, chosen: Tensor) -> tuple[Inputs, Tensor]:
        """The windows at these places of the part, as (inputs, y)."""
        first = (chosen + self.windows.start).to(self.device)[:, None]
        seen = first + torch.arange(self.window, device=self.device)
        told = first + self.window + torch.arange(self.horizon, device=self.device)
        inputs = (self.values[seen],) if self.time is None else (self.values[seen], self.time[seen])
        return inputs, self.targets[told]
