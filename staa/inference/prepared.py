"""A series as a run's network wants it, at any of its rows."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from staa.build.forecasting import Forecasting
from staa.data.series import calendar
from staa.data.series.files import TEXT, series_for
from staa.data.series.prepare import Normaliser, calendar_features, check_not_negative, fill_gaps, next_known
from staa.data.series.season import Clock
from staa.data.series.series import TimeSeries, common_step
from staa.data.series.source import SeriesSource
from staa.data.series.times import FormatError
from staa.data.series.windows import Inputs
from staa.recipes.reading import Reading
from staa.recipes.recipe import Recipe
from staa.recipes.values import field_names
from staa.runs.load import Run

FAR = 100  # in normalised units


@dataclass(frozen=True)
class Prepared:
    """A series in a run's own order and units. An origin is the number of the last row that is seen.

    Args:
        values: float64, in real units, NaN if nothing was measured.
        gaps: Which of them are missing, but for what the run's recipe says to be no measurement.
        normal: float32, as the network sees them; in a gap the last known value goes on.
        between: float32, the same with gaps filled in from both sides; None if they are not to be.
        arrives: The row, at or after each, at which its variate is known: from then on, `between` is.
        when: Times (datetime64[ns]), or row numbers, of all rows and of some that follow.
        time: Features of these times; None if the network has none.
        phase: Slot of the day and weekday of these rows; None if the network is told none.
        names: Names of the variates.
        normaliser: How the network's values come back to real units.
        window: Steps L that are seen.
        horizon: Steps P that are forecast at once.

    Shapes:
        values, gaps, normal, between, arrives [n, K], when [m], time [m, F], phase [m, 2], m ≥ n
    """

    values: np.ndarray
    gaps: np.ndarray
    normal: Tensor
    between: Tensor | None
    arrives: Tensor | None
    when: np.ndarray
    time: Tensor | None
    phase: Tensor | None
    names: tuple[str, ...]
    normaliser: Normaliser
    window: int
    horizon: int

    def inputs(self, origins: Tensor, ahead: int = 0, seen: Tensor | None = None) -> Inputs:
        """What the network is called with: x [B, L, K], then time features [B, L, F] and phases [B, L + P, 2] if it has them.

        origins: [B]. ahead: steps after the origins, whose values are in `seen` [B, L, K] then, with what came before them.
        """
        rows = origins[:, None] + ahead + torch.arange(1 - self.window, 1)
        x = self._seen(rows, origins) if seen is None else seen
        inputs = (x,) if self.time is None else (x, self.time[rows])
        if self.phase is None:
            return inputs
        told = origins[:, None] + ahead + torch.arange(1 - self.window, self.horizon + 1)
        return (*inputs, self.phase[told])

    def _seen(self, rows: Tensor, origins: Tensor) -> Tensor:
        """The rows [B, L] up to each origin, as if the series ended there."""
        x = self.normal[rows]
        if self.between is None or self.arrives is None:
            return x
        return torch.where(self.arrives[rows] <= origins[:, None, None], self.between[rows], x)

    def seen(self, origins: np.ndarray) -> np.ndarray:
        """The rows up to each origin in real units, gaps filled: [B, L, K]."""
        rows = origins[:, None] + np.arange(1 - self.window, 1)
        values, (x, *_) = self.values[rows], self.inputs(torch.from_numpy(origins))
        return np.where(np.isnan(values), self.normaliser.real(x).numpy(), values)

    def truth(self, origins: np.ndarray, steps: int) -> np.ndarray:
        """What followed each origin in real units, NaN if it is not known: [B, steps, K]."""
        rows = origins[:, None] + np.arange(1, steps + 1)
        there = rows < len(self.values)
        return np.where(there[:, :, None], self.values[np.where(there, rows, 0)], np.nan)

    def check(self, origins: np.ndarray, gaps: str, what: str) -> None:
        """Raises ValueError if the network can't see what is up to an origin: too few rows, or gaps that are refused."""
        if (short := origins[origins + 1 < self.window]).size:
            raise ValueError(
                f"the network sees {self.window} rows, but {what} has only {short[0] + 1} up to {self.at(short[0])}"
            )
        missing = self.gaps if gaps == "refuse" else np.isnan(self.values)
        if not missing.any():
            return
        before = np.concatenate([np.zeros((1, missing.shape[1]), np.int64), np.cumsum(missing, 0)])
        if gaps == "refuse":
            counts = (before[origins + 1] - before[origins + 1 - self.window]).sum(1)
            if counts.any():
                origin = int(origins[np.flatnonzero(counts)[0]])
                row, k = np.argwhere(missing[origin + 1 - self.window : origin + 1])[0]
                raise ValueError(
                    f"{what} has {counts[counts > 0][0]} gaps in the {self.window} rows that the network sees, the first in "
                    f"variate {self.names[k]}, row {origin + 1 - self.window + row}: fill them, or take a run trained with "
                    f"`series.gaps=mask` or `series.gaps=interpolate`"
                )
            return
        none = np.argwhere(before[origins + 1] == (origins + 1)[:, None])
        if len(none):
            origin, k = int(origins[none[0, 0]]), none[0, 1]
            raise ValueError(f"variate {self.names[k]} has no value up to {self.at(origin)} of {what}: give a later row")

    def odd(self, origins: np.ndarray, what: str) -> tuple[str, ...]:
        """A note of the values that the network sees and that are far from all that the run's scale is of, if there are any."""
        rows = np.unique(origins[:, None] + np.arange(1 - self.window, 1))
        far = (self.normal[torch.from_numpy(rows)].abs() > FAR).numpy() & ~np.isnan(self.values[rows])
        if not far.any():
            return ()
        row, k = np.argwhere(far)[0]
        first = f"{self.values[rows[row], k]:.4g} in variate {self.names[k]}, {self.at(int(rows[row]))}"
        return (
            f"values that the network sees in {what} are over {FAR} times the scale of the run's data, {far.sum():,} of them, "
            f"the first {first}: leave a cell empty if nothing was measured",
        )

    def at(self, row: int) -> str:
        """A row as it is told."""
        return f"row {row}" + (f" ({moment(self.when[row])})" if self.when.dtype.kind == "M" else "")


def moment(time: Any) -> str:
    """A time or a row number as text."""
    return str(time).removesuffix(".000000000")


def prepare(run: Run, series: TimeSeries, what: str, *, ahead: int) -> Prepared:
    """A series as a run's network wants it, and the times of `ahead` rows that follow. what: its file, for messages.

    Variates are put into the run's order and normalised as the run's data were. Gaps are filled as the run's recipe says, at
    each origin from the rows up to it alone. Raises ValueError if variates, time step or features are not the run's.
    """
    check_forecasts(run)
    recipe, about = run.recipe, run.about
    names = tuple(about["names"])
    order = _order(series, names, what)
    values = series.values[:, order]
    if None not in (series.every, about["every"]) and series.every != about["every"]:
        raise ValueError(f"the run was trained on a row every {about['every']:g} s, {what} has one every {series.every:g} s")
    if about["features"] and series.times is None:
        raise ValueError(f"the run was trained with time features, but {what} has no times: name their column, `time`")
    normaliser = normaliser_of(recipe, about)
    if normaliser.transform == "log1p":
        check_not_negative(values, names, "series.transform=log1p")
    when = np.concatenate([np.arange(len(values)) if series.times is None else series.times, following(series, ahead)])
    time = None
    if about["features"]:
        time = calendar_features(when, minutes=about["features"] == 5)
    phase = None
    if about.get("clock") is not None:
        clock = Clock(*about["clock"])
        points = clock.points(None if series.times is None else when, len(when), series.every)
        phase = torch.from_numpy(clock.phase(points))
    carried, _ = fill_gaps(values, "mask", start=normaliser.start)  # what is refused is never seen
    between = arrives = None
    if recipe.series.gaps == "interpolate" and np.isnan(values).any():
        between = normaliser.normalise(torch.from_numpy(fill_gaps(values, "interpolate", start=normaliser.start)[0])).float()
        arrives = torch.from_numpy(next_known(~np.isnan(values)))
    unmeasured = False if series.unmeasured is None else series.unmeasured[:, order]
    return Prepared(
        values=values,
        gaps=np.isnan(values) & ~np.asarray(unmeasured),
        normal=normaliser.normalise(torch.from_numpy(carried)).float(),
        between=between,
        arrives=arrives,
        when=when,
        time=time,
        phase=phase,
        names=names,
        normaliser=normaliser,
        window=about["window"],
        horizon=about["horizon"],
    )


def own_data(run: Run) -> tuple[SeriesSource, Prepared]:
    """A run's data as it was measured on them. Raises what `Run.data` does."""
    source = cast(SeriesSource, run.data)
    series = check_forecasts(run).series(Path(run.data_root or run.environment.get("data_root") or ""))
    own = Prepared(
        values=series.values,
        gaps=np.isnan(series.values),
        normal=source.values,
        between=source.between,
        arrives=source.arrives,
        when=np.arange(len(series.values)) if series.times is None else series.times,
        time=source.time,
        phase=source.phase if source.tells_phase else None,
        names=source.names,
        normaliser=source.normaliser,
        window=source.window,
        horizon=source.horizon,
    )
    return source, own


def normaliser_of(recipe: Recipe, about: dict[str, Any]) -> Normaliser:
    """A run's, from its recipe and its record of the data."""
    offset, scale = (torch.tensor(about[key], dtype=torch.float64) for key in ("offset", "scale"))
    return Normaliser(offset, scale, recipe.series.transform, recipe.series.nonnegative)


def following(series: TimeSeries, count: int) -> np.ndarray:
    """Times, or row numbers, of the rows that follow a series. Raises ValueError if its step is not known, or time runs out."""
    if series.times is None:
        return len(series.values) + np.arange(count)
    step, end = common_step(series.times), series.times[-1].astype("datetime64[ns]")
    if step is not None and count * int(step.astype("timedelta64[ns]")) > np.iinfo(np.int64).max - int(end.astype(np.int64)):
        raise ValueError(
            f"{count} steps after {moment(end)} would end after the year 2262, which no time here can tell: take fewer"
        )
    return calendar.following(series.times, count)


def read_as(run: Run, file: Path, *, time: str | None = None, time_format: str | None = None) -> TimeSeries:
    """A series of one's own from a file; its times are written as the run's, if nothing else is said. Raises what
    `read_series` does."""
    own = run.recipe.series.time_format if time_format is None and file.name.lower().endswith(TEXT) else None
    try:
        check_forecasts(run)
        given = {name: getattr(run.recipe.series, name) for name in field_names(Reading)}
        return series_for(file, run.about["names"], given, time=time, time_format=time_format)
    except FormatError as error:
        if own is None:
            raise
        raise FormatError(f"{error}: the run's data had it; give this file's own, or ISO8601 for 2024-01-31 12:00") from error
    except ValueError as error:
        if "`series." not in str(error):
            raise
        raise ValueError(f"{error}. The run reads every file by its own settings: change the file") from error


def check_forecasts(run: Run) -> Forecasting:
    """The run's task. Raises ValueError if it is another one."""
    if not isinstance(run.task, Forecasting):
        raise ValueError(f"{run.folder} classifies, it doesn't forecast: evaluate it, or stream a recording to it")
    return run.task


def _order(series: TimeSeries, names: tuple[str, ...], what: str) -> list[int]:
    if set(series.names) != set(names):
        lacking = [name for name in names if name not in series.names]
        raise ValueError(
            f"the run forecasts {len(names)} variates, {', '.join(names[:4])}{' …' * (len(names) > 4)}; {what} has "
            f"{len(series.names)}" + (f" and lacks {', '.join(lacking[:4])}" if lacking else ", more than those")
        )
    places = {name: k for k, name in enumerate(series.names)}
    return [places[name] for name in names]
