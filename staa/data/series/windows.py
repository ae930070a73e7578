"""Windows of a time series for forecasting: split in time order, in batches."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from staa.data.batches import order_of
from staa.data.content import Content
from staa.data.series.prepare import Gaps, Normalisation, Normaliser, calendar_features, fill_gaps, fit_normaliser
from staa.data.series.series import TimeSeries

Inputs = tuple[Tensor, ...]
"""(x [B, L, K],) or (x, time features [B, L, F])"""
UNLIKE = 1000  # times the smallest deviation


@dataclass(frozen=True)
class SeriesSource:
    """A series cut into windows, split in time order: window k sees rows k … k + L − 1 and is told rows k + L … k + L + P − 1.

    Args:
        values: float32, normalised, without gaps.
        targets: float32, the values, NaN if a value is not known.
        time: Features of each row's time, from −½ to ½; None without times.
        window: Steps L that are seen.
        horizon: Steps P that are forecast.
        train: Windows to train on.
        validation: Windows held out to choose by; None without any.
        test: Windows to test on.
        normaliser: How the values were normalised.
        missing: A real value that stands for no measurement; None if there is none.
        graph: Weights between variates; None without a graph.
        names: Names of the variates.
        split: A digest of values, names, times and parts: equal digests, equal parts.
        every: Seconds between rows, if there are times.
        notes: What the user should hear about the data.
        content: A digest of the graph, if there is one.

    Shapes:
        values, targets [n, K], time [n, F], graph [K, K]
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
    """A series as windows of `window` steps in and `horizon` steps out, split in time order:

        windows = rows − window − horizon + 1, at a stride of 1
        train the first ⌊windows · train⌋, test the last ⌊windows · (1 − train − validation)⌋, validation between

    so parts that follow each other share rows. The default shares are ours; SeqSNN's traffic sets have 0.2 for validation.

    Args:
        series: The series, with or without gaps, times and a graph.
        window: Steps L that a window sees, at least 1.
        horizon: Steps P that are forecast, at least 1.
        train: Share of the windows to train on, above 0.
        validation: Share for validation, at least 0; without it, all windows after training's are the test set.
        normalise: "none"; "max", divide by the largest absolute value; or "zscore", subtract the mean and divide by the
            standard deviation: of all variates together, or of each with "-per-variate".
        fit_on: What that is taken of: "train", the rows that training sees or is told, or "all" rows, a leak that is noted.
        gaps: "refuse" missing values; "mask", leave them out of loss and figures; or "interpolate" along time.
        time_features: Tell the network minute, hour, weekday, day and day of the year, if there are times.

    Raises:
        ValueError: If window or horizon is below 1; if the shares leave nothing to test on; if the series is too short for a
            window or a part; if there are gaps that are refused; if a part is gaps throughout; if normalising would divide by
            0.

    Source:
        SeqSNN, Lv et al., ICML 2024; fit_on="all" is as in its code.
    """
    rows, nodes = series.values.shape
    for name, value in (("window", window), ("horizon", horizon)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    share = round(1 - train - validation, 10)
    if not (0 < train < 1 and 0 <= validation < 1 and share > 0):
        raise ValueError(f"train and validation must leave a share of the windows to test, got {train} and {validation}")
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
    values, known = fill_gaps(series.values, gaps, times=series.times, names=series.names, unmeasured=series.unmeasured)
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


class WindowBatches:
    """Batches of windows of one part, on a device. The order of epoch e depends on (seed, e) alone, so an epoch can be entered
    anywhere. Once an epoch has begun, no batch makes the host wait for a GPU.

    Args:
        source: The series, cut into windows.
        part: Which of its parts.
        batch_size: Windows of a batch, at least 1.
        seed: Shuffles the windows and drops the last batch if it is not full; None: all windows in order.
        device: Where the batches are.

    Shapes:
        A batch is (inputs, y [B, P, K]), inputs (x [B, L, K],) or (x, time features [B, L, F]).

    Raises:
        ValueError: If the part has no windows, or batch_size is below 1.
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
        """Batches start, start + 1, … of an epoch, as (inputs, y).

        Args:
            epoch: Number of the epoch, from 0.
            start: Number of the first batch, from 0.

        Shapes:
            x [B, L, K], time features [B, L, F], y [B, P, K]
        """
        order = order_of(len(self.windows), self.seed, epoch).to(self.device)
        for k in range(start, len(self)):
            yield self.take(order[k * self.batch_size : (k + 1) * self.batch_size])

    def close(self) -> None:
        """There is nothing to end: these batches have no worker processes."""

    def take(self, chosen: Tensor) -> tuple[Inputs, Tensor]:
        """The windows at these places of the part, as (inputs, y).

        Args:
            chosen: Places in the part, from 0.

        Shapes:
            chosen [B] -> x [B, L, K], time features [B, L, F], y [B, P, K]
        """
        first = (chosen + self.windows.start).to(self.device)[:, None]
        seen = first + torch.arange(self.window, device=self.device)
        told = first + self.window + torch.arange(self.horizon, device=self.device)
        inputs = (self.values[seen],) if self.time is None else (self.values[seen], self.time[seen])
        return inputs, self.targets[told]
