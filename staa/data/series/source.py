"""A time series cut into windows to forecast, split in time order."""

import hashlib
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from staa.data.content import Content
from staa.data.series.prepare import (
    Gaps,
    Normalisation,
    Normaliser,
    Transform,
    calendar_features,
    check_not_negative,
    check_resolved,
    fill_gaps,
    fit_normaliser,
    next_known,
    outweighing,
)
from staa.data.series.season import Clock, Kind, clock_of, why_not
from staa.data.series.series import TimeSeries

UNLIKE = 1000  # times the smallest deviation


@dataclass(frozen=True)
class SeriesSource:
    """A series cut into windows, split in time order: window k sees rows k … k + L − 1 and is told rows k + L … k + L + P − 1.

    Args:
        values: float32, normalised; in a gap the last known value goes on.
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
        tested: A digest of the values, variates and rows that the test windows are told, and of the horizon.
        every: Seconds between rows, if there are times.
        notes: What the user should hear about the data.
        content: A digest of the graph, if there is one.
        between: float32, the values with gaps filled in from both sides, of which a window sees what it can know; None if no
            gap is to be filled in so.
        arrives: int32, the row at or after each at which its variate is known.
        rows: Times of the rows, or their numbers.
        clock: How rows get their phase; None if nothing tells.
        phase: int64, slot of the day and weekday of each row; None without a clock.
        tells_phase: The network is told phases.
        season: What a profile of the training rows tells apart; "none" without one.

    Shapes:
        values, targets, between, arrives [n, K], time [n, F], graph [K, K], rows [n], phase [n, 2]
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
    tested: str = ""
    every: float | None = None
    notes: tuple[str, ...] = ()
    content: Content | None = None
    between: Tensor | None = None
    arrives: Tensor | None = None
    rows: np.ndarray = field(default_factory=lambda: np.arange(0))
    clock: Clock | None = None
    phase: Tensor | None = None
    tells_phase: bool = False
    season: Kind = "none"

    @property
    def told(self) -> int:
        """How many rows training sees or is told, the first ones."""
        return self.train.stop + self.window + self.horizon - 1

    def why_no_season(self, kind: Kind) -> str | None:
        """Why the training rows can't tell a season of this kind; None if they can.

        Args:
            kind: The season.
        """
        return why_not(kind, self.rows[: self.told], self.clock)

    def with_season(self, kind: Kind) -> "SeriesSource":
        """These data, for a network with such a season.

        Args:
            kind: What its profile of the training rows tells apart.

        Raises:
            ValueError: If the training rows can't tell it.
        """
        if (why := self.why_no_season(kind)) is not None:
            raise ValueError(f"`series.season={kind}` is not possible: {why}")
        return replace(self, season=kind)

    @property
    def measured(self) -> Tensor:
        """The rows that training sees or is told, NaN for what is not known or stands for no measurement: [told, K]."""
        rows = self.targets[: self.told]
        if self.missing is None:
            return rows
        real = self.normaliser.real(rows)
        nothing = 1e-6 * (self.normaliser.scale + self.normaliser.offset.abs())
        return rows.where((real - self.missing).abs() > nothing, torch.nan)

    @property
    def facts(self) -> dict[str, Any]:
        """What a network for these data must know, and how to normalise others: for a run's records."""
        return {
            "nodes": len(self.names), "window": self.window, "horizon": self.horizon,
            "features": 0 if self.time is None else self.time.shape[1], "names": list(self.names),
            "offset": self.normaliser.offset.tolist(), "scale": self.normaliser.scale.tolist(), "every": self.every,
            "clock": self.clock.facts if self.clock is not None and self.tells_phase else None,
            "season": self.season,
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
    transform: Transform = "none",
    nonnegative: bool = False,
    gaps: Gaps = "refuse",
    time_features: bool = True,
    season: Kind = "none",
    period: int | None = None,
    phases: bool = False,
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
        transform: "log1p", take log(1 + x) of all values before they are normalised, which is undone on a forecast; "none".
        nonnegative: Values can't be negative: forecasts below 0 become 0.
        gaps: "refuse" missing values; "mask", leave them out of loss and figures, and show a window the last value before them;
            or "interpolate", show it a line between the values on both sides if both came before its end.
        time_features: Tell the network minute (if the step is no whole hours), hour, weekday, day and day of the year, if there
            are times.
        season: What a profile of the training rows tells apart: slots of the "day", of the "week", of weekdays and of weekends
            ("day+weekend"), or "none".
        period: Rows of a day, for a series without times; None: times tell.
        phases: Tell the network slot of the day and weekday too, if they are known; a season needs them.

    Raises:
        ValueError: If window or horizon is below 1; if the shares leave nothing to test on; if the series is too short for a
            window or a part; if there are gaps that are refused; if a part is gaps throughout; if normalising would divide by
            0, or leaves a variate's values closer than float32 can tell; if there are negative values where there can't be.

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
    for setting, wanted in (("series.transform=log1p", transform == "log1p"), ("series.nonnegative=True", nonnegative)):
        if wanted:
            check_not_negative(series.values, series.names, setting)
    known = ~np.isnan(series.values)
    if gaps in ("mask", "interpolate") and not known.any(0).all():
        raise ValueError(f"variate {series.names[int(known.any(0).argmin())]} has no value at all: remove it")
    for name, part in parts.items():
        if not known[part.start + window : part.stop + window + horizon - 1].any():
            raise ValueError(f"the rows that {name} is measured on are gaps throughout: give it another share, or fill them")
    seen = series.values if fit_on == "all" else series.values[: trained + window + horizon - 1]
    seen = np.log1p(seen) if transform == "log1p" else seen
    normaliser = fit_normaliser(torch.from_numpy(seen), normalise, series.names)
    check_resolved(seen, normaliser, series.names, normalise)
    normaliser = normaliser._replace(transform=transform, nonnegative=nonnegative)
    notes = list(series.notes)
    if fit_on == "all":
        notes.append("the normaliser is of the whole series, its test rows too, as in SeqSNN's code: a leak")
    flat = np.flatnonzero([np.unique(v[~np.isnan(v)]).size < 2 for v in seen.T])
    if len(flat):
        which = ", ".join(series.names[k] for k in flat[:5]) + (" …" if len(flat) > 5 else "")
        notes.append(f"{len(flat)} of {nodes} variates are constant, or all gaps, over the normaliser's rows: {which}")
    lone = outweighing(series.values, each=normalise not in ("max", "zscore")) if known.any(0).all() else []
    if lone:
        where = ", ".join(f"{series.values[row, k]:.4g} in {series.names[k]}, row {row}" for row, k in lone[:3])
        notes.append(
            f"one value outweighs all others: {where}{' …' * (len(lone) > 3)}; if it is no measurement, leave it out by "
            f"`series.missing` and `series.gaps=mask`"
        )
    if normalise in ("max", "zscore"):
        spread = np.nanstd(np.delete(seen, flat, 1), 0)
        if len(spread) and spread.max() > UNLIKE * spread.min():
            notes.append(
                f"variates of very different size share one scale (deviations {spread.min():.3g} to {spread.max():.3g}), so "
                f"the small ones hardly count: `series.normalise={normalise}-per-variate` gives each its own"
            )
    about = {"times": series.times, "names": series.names, "start": normaliser.start, "unmeasured": series.unmeasured}
    across = gaps == "interpolate" and not known.all()
    carried, _ = fill_gaps(series.values, "mask" if across else gaps, **about)
    values = normaliser.normalise(torch.from_numpy(carried)).float()
    between = None
    if across:
        between = normaliser.normalise(torch.from_numpy(fill_gaps(series.values, gaps, **about)[0])).float()
    clock = clock_of(series.times, series.every, period)
    points = np.arange(rows) if series.times is None or period is not None else series.times
    times = series.times if time_features else None
    digest = hashlib.sha256(np.ascontiguousarray(series.values).tobytes())
    digest.update(b"" if times is None else times.astype("datetime64[ns]").tobytes())
    digest.update(repr((window, horizon, trained, tested, rows, nodes, series.names)).encode())
    told = series.values[parts["test"].start + window :]
    asked = repr((horizon, len(told), rows, series.names, series.missing)).encode()
    source = SeriesSource(
        values=values,
        targets=values if known.all() else values.where(torch.from_numpy(known), torch.nan),
        time=None if times is None else calendar_features(times, minutes=bool((series.every or 0) % 3600)),
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
        tested=hashlib.sha256(np.ascontiguousarray(told).tobytes() + asked).hexdigest(),
        every=series.every,
        notes=tuple(notes),
        content=None if series.graph is None else Content(partial(_sha256, series.graph)),
        between=between,
        arrives=torch.from_numpy(next_known(known)) if across else None,
        rows=points,
        clock=clock,
        phase=None if clock is None else torch.from_numpy(clock.phase(points)),
        tells_phase=phases and clock is not None,
    )
    return source.with_season(season)


def _sha256(graph: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(graph, np.float32).tobytes()).hexdigest()
