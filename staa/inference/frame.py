"""Forecasts from a table of pandas to a table of pandas."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from staa.data.series.series import TimeSeries
from staa.inference.forecast import check_asked, forecast_series
from staa.runs.load import Run, Weights, opened

if TYPE_CHECKING:
    import pandas

WHAT = "the frame"


def forecast(
    run: Run | str | Path,
    frame: "pandas.DataFrame",
    at: Any = None,
    steps: int | None = None,
    interval: float | None = None,
    *,
    weights: Weights | None = None,
    device: str | None = None,
    trust: bool = False,
) -> "pandas.DataFrame":
    """The steps that follow a row of a table, as a table: what `staa predict` writes of the same series in a file.

        ahead = staa.forecast("runs/…", frame)                    # ahead["sensor 7"], at the times that follow
        band = staa.forecast("runs/…", frame, interval=0.9)       # band["lower"], band["forecast"], band["upper"]

    Args:
        run: A `staa.Run`, or a run folder, which is opened with trust.
        frame: A column of numbers for each variate that the run was trained on, in any order, NaN if nothing was measured; a
            row for each step, with a DatetimeIndex in the order of time, or with a RangeIndex if there are no times.
        at: The last row that is seen: its number from 0, or its time; None: the last one.
        steps: How many steps; None: as many as the run was trained for. Beyond them, its forecasts are fed back as if they had
            been seen.
        interval: The share of values that an interval shall hold, above 0 and below 1, by the errors on the run's validation
            part; None: no interval.
        weights: "last" epoch or "best" on validation; None: what the test figure was measured with.
        device: Such as "cpu" or "cuda"; None: the GPU if there is one.
        trust: Let Python files in the run folder run, if the run has parts of its own.

    Returns:
        A row for each step ahead, by its time or its label; the frame's columns in their order. With an interval, each of them
        below "forecast", "lower" and "upper".

    Raises:
        FileNotFoundError: If the run, its weights, or for an interval its data are missing.
        TypeError: If the frame is none.
        ValueError: If the frame has other variates, another time step, too few rows, an index or a column that can't be
            placed, or gaps in what the network sees that the run's recipe refuses; if there is no such row; if steps or
            interval are out of range; if the run classifies, or held out too little to make an interval.
    """
    import pandas as pd

    run = opened(run, trust=trust)
    check_asked(run, steps, interval)
    series = _series(frame, pd)
    if series.times is None and run.about["features"]:
        raise ValueError(f"{WHAT} has no times, and the run was trained with them: make them its index, frame.set_index(…)")
    row = () if at is None else _named(at, frame.index, pd)
    made = forecast_series(run, series, WHAT, at=row, steps=steps, interval=interval, weights=weights, device=device)
    index = _labels(made.ahead[0], frame.index, pd)
    order = [made.names.index(str(column)) for column in frame.columns]
    parts = {"forecast": made.forecast, "lower": made.lower, "upper": made.upper}
    tables = {
        name: pd.DataFrame(values[0][:, order], index=index, columns=frame.columns)
        for name, values in parts.items()
        if values is not None
    }
    return tables["forecast"] if interval is None else pd.concat(tables, axis=1)


def _series(frame: Any, pd: Any) -> TimeSeries:
    if not isinstance(frame, pd.DataFrame):
        raise TypeError(f"a frame must be a pandas.DataFrame, a column for each variate; got {type(frame).__name__}")
    if isinstance(frame.index, pd.DatetimeIndex):
        try:
            times = frame.index.tz_localize(None).as_unit("ns").to_numpy()
        except pd.errors.OutOfBoundsDatetime as error:
            raise ValueError(f"{WHAT}'s times must be between 1680 and 2260: {error}") from error
    elif isinstance(frame.index, pd.RangeIndex):
        times = None
    else:
        raise ValueError(
            f"{WHAT} needs a DatetimeIndex, or a RangeIndex if there are no times, got {type(frame.index).__name__}: make one "
            f"with frame.index = pandas.to_datetime(…), PeriodIndex.to_timestamp() or frame.reset_index(drop=True)"
        )
    if 0 in frame.shape:
        raise ValueError(f"{WHAT} must have rows and columns, got {frame.shape[0]} × {frame.shape[1]}")
    for name, kind in zip(frame.columns, frame.dtypes, strict=True):
        if not pd.api.types.is_numeric_dtype(kind) or pd.api.types.is_complex_dtype(kind):
            raise ValueError(f"{WHAT}'s column {name!r} must be numbers, got {kind}: convert it; times are the index")
    try:
        return TimeSeries(frame.to_numpy(np.float64, na_value=np.nan), times, tuple(map(str, frame.columns)))
    except ValueError as error:
        raise ValueError(f"{WHAT}: {error}") from error


def _named(at: Any, index: Any, pd: Any) -> str:
    """A row as the command names it. A time without a zone is one of the frame's."""
    if isinstance(at, int | np.integer) and not isinstance(at, bool):
        return str(int(at))
    if isinstance(at, str) and (at.removeprefix("-").isdecimal() or not isinstance(index, pd.DatetimeIndex)):
        return at
    try:
        time = pd.Timestamp(at)
        if time.tz is not None:
            time = time.tz_convert(getattr(index, "tz", None) or "UTC").tz_localize(None)
    except (ValueError, TypeError) as error:
        raise ValueError(f"`at` is a row number or a time such as 2024-05-31T12:00, got {at!r}") from error
    return time.isoformat()


def _labels(ahead: np.ndarray, index: Any, pd: Any) -> Any:
    """What the frame's index would go on with."""
    if isinstance(index, pd.RangeIndex):
        first = index.start + index.step * int(ahead[0])
        return pd.RangeIndex(first, first + index.step * len(ahead), index.step, name=index.name)
    times = pd.DatetimeIndex(ahead, name=index.name)
    try:
        return times if index.tz is None else times.tz_localize(index.tz)
    except ValueError as error:  # an hour that is not there, or is there twice
        raise ValueError(
            f"the steps ahead can't be told in {index.tz} ({error}): give {WHAT} in UTC, frame.tz_convert('UTC')"
        ) from error
