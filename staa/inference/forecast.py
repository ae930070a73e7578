"""Forecasts of a trained run on a series of one's own, after any of its rows."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from staa.counting import counted
from staa.data.series.series import TimeSeries, common_step
from staa.files import check_bytes
from staa.inference.ahead import check_steps, look_ahead
from staa.inference.intervals import Band, calibrated, check_level
from staa.inference.prepared import check_forecasts, moment, own_data, prepare, read_as
from staa.inference.trivial import trivial
from staa.machine import choose_device
from staa.rates import firing_rates
from staa.runs.load import Run, opened


@dataclass(frozen=True)
class Forecasts:
    """Forecasts of N steps of K variates after B origins, in the series' units, each after L steps that were seen."""

    names: tuple[str, ...]
    when: np.ndarray
    """[B, L + N] times (datetime64), or row numbers of a series without times."""
    seen: np.ndarray
    """[B, L, K]"""
    forecast: np.ndarray
    """[B, N, K]"""
    truth: np.ndarray
    """[B, N, K], NaN where the file ends before it, or has a gap."""
    lower: np.ndarray | None
    upper: np.ndarray | None
    """[B, N, K], the ends of the interval; None if none was asked for."""
    trivial: dict[str, np.ndarray]
    """[B, N, K] of each trivial forecast that is possible, by name (`staa.inference.trivial`)."""
    rates: dict[str, float]
    """Firing rate of each layer that fires, at its last call after each origin: spikes per neuron and step."""
    notes: tuple[str, ...]
    """What the user should hear of the file, and of the forecasts."""

    @property
    def ahead(self) -> np.ndarray:
        """[B, N], the part of `when` that is forecast."""
        return self.when[:, self.seen.shape[1] :]

    @property
    def origins(self) -> np.ndarray:
        """[B], the time, or number, of the last row that was seen."""
        return self.when[:, self.seen.shape[1] - 1]


def predict(
    run: Run | str | Path,
    file: Path,
    *,
    at: str | Sequence[str] = (),
    steps: int | None = None,
    interval: float | None = None,
    time: str | None = None,
    time_format: str | None = None,
    weights: Literal["last", "best"] | None = None,
    data_root: Path | None = None,
    device: str | None = None,
    trust: bool = False,
) -> Forecasts:
    """Forecast the steps that follow rows of a file: each is named by its number or its time; none: the last row.

    run: a `staa.Run`, or a folder, opened with `data_root` and `trust`. The file holds the variates that the run was trained
    on, in any order if they are named; it is normalised as the run's data were. steps: how many, None: the run's horizon;
    beyond it, forecasts are fed back. interval: the share of values that an interval shall hold, such as 0.9; it is made from
    the run's own data. time: the file's column of times; time_format: what they are written in (None: as the run's recipe
    says). Raises ValueError or OSError if it has other variates, another time step, too few rows before an origin, or gaps in
    what the network sees that the run's recipe refuses.
    """
    run = opened(run, data_root=data_root, trust=trust)
    check_asked(run, steps, interval)
    series = read_as(run, file, time=time, time_format=time_format)
    return forecast_series(run, series, str(file), at=at, steps=steps, interval=interval, weights=weights, device=device)


def check_asked(run: Run, steps: int | None, interval: float | None) -> int:
    """How many steps to forecast. Raises ValueError for what can't be forecast, before anything is read."""
    check_forecasts(run)
    count = check_steps(steps, run.about["horizon"])
    check_level(interval)
    return count


def forecast_series(
    run: Run,
    series: TimeSeries,
    what: str,
    *,
    at: str | Sequence[str],
    steps: int | None,
    interval: float | None,
    weights: Literal["last", "best"] | None,
    device: str | None,
) -> Forecasts:
    """As `predict`, of a series that is there. what: what messages call it."""
    count, horizon, window = check_asked(run, steps, interval), run.about["horizon"], run.about["window"]
    rows = _rows(series, at, what)
    check_bytes(5 * 8 * len(rows) * (window + count) * len(series.names), f"{len(rows)} forecasts of {count} steps")
    prepared = prepare(run, series, what, ahead=-(-count // horizon) * horizon)
    origins = np.array(rows)
    prepared.check(origins, run.recipe.series.gaps, what)
    chosen = choose_device(device)
    model = run.model(weights).to(chosen)
    made, rates = [], {}
    with torch.inference_mode():
        band = None if interval is None else band_of(run, model, interval, count, chosen)
        with firing_rates(model) as heard:
            # One by one, so that a forecast's last bits don't depend on which others are asked for.
            for origin in counted(torch.from_numpy(origins).split(1), "forecasting", len(origins)):
                made.append(look_ahead(model, prepared, origin, count, chosen).double())
                rates = {name: rates.get(name, 0.0) + float(rate) / len(rows) for name, rate in heard.items()}
    forecast = torch.cat(made)
    lower, upper = (None, None) if band is None else band.around(prepared.normaliser.clipped(forecast), prepared)
    far = () if run.recipe.series.normalise == "none" else prepared.odd(origins, what)
    notes = [*series.notes, *far, *(() if band is None else band.notes)]
    if count > horizon:
        notes.append(
            f"the run was trained to forecast {horizon} steps: for the others its own forecasts were fed back as if they had "
            f"been seen"
        )
    return Forecasts(
        names=prepared.names,
        when=prepared.when[origins[:, None] + np.arange(1 - window, count + 1)],
        seen=prepared.seen(origins),
        forecast=prepared.normaliser.real(forecast).numpy(),
        truth=prepared.truth(origins, count),
        lower=lower,
        upper=upper,
        trivial=trivial(model, prepared, series, origins, count, run.recipe.series.period),
        rates=rates,
        notes=tuple(notes),
    )


def band_of(run: Run, model: torch.nn.Module, level: float, steps: int, device: torch.device) -> Band:
    """The band of a run's forecasts, from its own data."""
    source, own = own_data(run)
    return calibrated(model, own, source, level, steps, batch_size=run.recipe.batch_size, device=device)


def _rows(series: TimeSeries, at: str | Sequence[str], what: str) -> list[int]:
    """The rows that are named, each once; without a name the last."""
    rows: dict[int, str] = {}
    for name in [at] if isinstance(at, str) else at:
        row = _row(series, name, what)
        if row in rows:
            other = "" if rows[row] == name else f", once as {rows[row]}"
            raise ValueError(f"`at` = {name} names row {row} of {what} twice{other}: name each row once")
        rows[row] = name
    return list(rows) or [len(series.values) - 1]


def _row(series: TimeSeries, at: str, what: str) -> int:
    rows = len(series.values)
    if at.removeprefix("-").isdecimal():
        if not 0 <= int(at) < rows:
            raise ValueError(f"`at` = {at} is no row of {what}: its rows are 0 to {rows - 1}")
        return int(at)
    if series.times is None:
        raise ValueError(f"`at` = {at} is a time, but {what} has none: give a row number, 0 to {rows - 1}")
    try:
        if not at[:1].isdecimal():  # now, today, NaT
            raise ValueError("no date")
        time = np.datetime64(at)
    except ValueError as error:
        raise ValueError(f"`at` is a row number or a time such as 2024-05-31T12:00, got {at!r}") from error
    row = int(np.searchsorted(series.times, time, side="right")) - 1
    first, end = series.times[0], series.times[-1]
    if row < 0 or time > end + (common_step(series.times) or np.timedelta64(0, "ns")):
        raise ValueError(f"`at` = {at} is not between the times of {what}, {moment(first)[:19]} to {moment(end)[:19]}")
    return row
