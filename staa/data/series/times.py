"""Times of a file: ISO 8601, or the format that is said. No other is guessed."""

import re
import warnings
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np

from staa.data.series.roles import clock_of

ISO = "ISO8601"  # pandas' word
UNIX = {f"unix-{unit}": unit for unit in ("s", "ms", "us", "ns")}
"""What a number of such units since 1970 is called."""
DATES = [d.replace("/", between) for between in "/.-" for d in ("%d/%m/%Y", "%m/%d/%Y", "%d/%m/%y", "%m/%d/%y")]
DATES += [d.replace("/", between) for between in "-/ " for d in ("%d/%b/%Y", "%b/%d/%Y")]
PROPOSED = [date + clock for date in DATES for clock in ("", " %H:%M", " %H:%M:%S", " %I:%M %p")]
"""Formats that an error proposes."""
CLOCK = re.compile(r"\d{1,2}:\d{2}(:\d{2}(\.\d+)?)?( ?[AaPp][Mm])?")
EXAMPLE = datetime(2023, 10, 31, 12)


class FormatError(ValueError):
    """A time is not of the format that was given."""


def way_of(form: str | None) -> str:
    """What times are read by: a format, a word of `UNIX`, or ISO 8601. Raises ValueError for what is no format of
    `datetime.strptime`, or says no year."""
    if form is None or form == ISO or form in UNIX:
        return form or ISO
    try:
        some = EXAMPLE.strftime(form)
        if "%" not in form or some == form:
            raise ValueError("it has no code that stands for a part of a time")
        told = datetime.strptime(some, form)
        if told.year != EXAMPLE.year:
            raise ValueError("it says no year: put the date before each time, and %Y-%m-%d before the format")
    except ValueError as error:
        raise ValueError(
            f"`time_format` is a format such as %d/%m/%Y %H:%M, or {', '.join(UNIX)}, got {form!r}: {error}"
        ) from error
    return form


def is_time(cell: Any, way: str) -> bool:
    """Whether a cell holds a time of this format; with ISO 8601 also one of another, which `parsed` then refuses.

    A number is no time of ISO 8601 here, but a time of day without a date is one.
    """
    import pandas as pd

    column = pd.Series([cell]).dropna()
    numbers: Any = pd.to_numeric(column, errors="coerce")
    if column.empty or (way == ISO and numbers.notna().any()):
        return False
    if bool(_stamps(column, way, utc=True).notna().all()):
        return True
    return way == ISO and (CLOCK.fullmatch(str(cell)) is not None or bool(_proposals(column)))


def _proposals(column: Any) -> list[str]:
    """The proposed formats that read all of it."""
    fitting = [form for form in PROPOSED if _stamps(column.iloc[:1], form).notna().all()]
    return [form for form in fitting if _stamps(column, form).notna().all()]


def _stamps(column: Any, way: str, *, utc: bool = False) -> Any:
    """Times, NaT where there is none. Raises ValueError for different offsets from UTC, unless all become UTC."""
    import pandas as pd

    if way in UNIX:
        numbers: Any = pd.to_numeric(column, errors="coerce")
        return pd.to_datetime(numbers, unit=UNIX[way], errors="coerce", utc=utc)
    with warnings.catch_warnings():
        warnings.simplefilter("error", FutureWarning)  # of different offsets, before pandas 3
        try:
            return pd.to_datetime(column, errors="coerce", format=way, utc=utc)
        except (ValueError, FutureWarning) as error:  # errors="coerce" leaves it this one
            raise ValueError(
                f"times have different offsets from UTC, as daylight saving time gives: say `series.zone=UTC`, which reads all "
                f"of them as UTC ({error})"
            ) from error


def parsed(column: Any, form: str | None, path: Path, *, zone: str | None = None) -> Any:
    """The times of a column, with their offset if they have one: in UTC if a zone is said and the first has one.

    Raises ValueError naming the row that is none, or with the formats that would read the column.
    """
    way = way_of(form)
    try:
        stamps = _stamps(column, way, utc=zone is not None and _has_offset(column, way))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    if stamps.notna().all():
        return stamps
    place = int(np.flatnonzero(stamps.isna())[0])
    cell = column.iloc[place]
    told = f"{path}, row {column.index[place]}: {cell!r}"
    if form is not None:
        raise FormatError(f"{told} is no time of the format {form!r} (`time_format`)")
    if CLOCK.fullmatch(str(cell)):
        raise ValueError(f"{told} is a time of day without a date: write the date before it, as 2024-01-31 {cell}")
    clock = _clock(column)
    proposals = [clock] if clock else _proposals(column)
    if not proposals:
        raise ValueError(
            f"{told} is no time of ISO 8601, as 2024-01-31 12:00: write it so, or say the format of all with `time_format`, "
            f'such as "%d/%m/%Y %H:%M"'
        )
    formats = " or ".join(f'"{proposal}"' for proposal in proposals)
    raise ValueError(f"{told} is no time of ISO 8601, as 2024-01-31 12:00: say its format with `time_format`, here {formats}")


def _clock(column: Any) -> str | None:
    """What numbers look like as times."""
    import pandas as pd

    numbers: Any = pd.to_numeric(column, errors="coerce")
    return clock_of(numbers.to_numpy(np.float64), sure=True)


def _has_offset(column: Any, way: str) -> bool:
    return len(column) > 0 and _stamps(column.iloc[:1], way).dt.tz is not None


def on_one_clock(times: Any, zone: str | None) -> tuple[np.ndarray, tuple[str, ...]]:
    """Times (a DatetimeIndex) as datetime64[ns], and what to tell of their offset from UTC.

    Without a zone they are read as they are written. With one they become UTC: those without an offset are taken as of the
    zone. Raises ValueError for a zone that is unknown, or a time that it doesn't have or has twice.
    """
    if zone is None:
        if times.tz is None:
            return nanoseconds(np.asarray(times)), ()
        told, local = str(times.tz), times.tz_localize(None)
        if not local.is_monotonic_increasing and times.is_monotonic_increasing:
            raise ValueError(f"the clock of {told} is set back within it: say `series.zone=UTC`, which reads its times as UTC")
        offset = "in UTC" if told == "UTC" else f"read as they are written, in {told}, and their offset from UTC is left out"
        return nanoseconds(np.asarray(local)), (f"times are {offset}",)
    try:
        known = ZoneInfo(zone)
    except (ValueError, OSError, LookupError) as error:  # ZoneInfoNotFoundError is a KeyError
        raise ValueError(f"`series.zone` is the name of a time zone, such as UTC or Europe/Berlin, got {zone!r}") from error
    if times.tz is None:
        import pandas as pd

        try:
            times = times.tz_localize(known, ambiguous="infer")
        except (ValueError, pd.errors.OutOfBoundsDatetime) as error:
            why = " ".join(str(error).split())
            raise ValueError(
                f"times don't fit the zone {zone}, in which the clock is set back and forth: {why}; write them in UTC, or "
                f"leave out `series.zone`"
            ) from error
    return nanoseconds(np.asarray(times.tz_convert("UTC").tz_localize(None))), (f"times are read as UTC, from {zone}",)


def nanoseconds(times: np.ndarray) -> np.ndarray:
    """Times as datetime64[ns]. Raises ValueError for times before 1678 or after 2262, which can't be told so."""
    if times.dtype.kind == "i":
        return times.astype("datetime64[ns]")
    days = times.astype("datetime64[D]")
    odd = np.abs(days.astype(np.int64)) > 106_000  # more of them overflow, and come out as others
    if (odd & ~np.isnat(days)).any():
        raise ValueError(f"{times[odd & ~np.isnat(days)].flat[0]} is not between 1680 and 2260")
    return times.astype("datetime64[ns]")
