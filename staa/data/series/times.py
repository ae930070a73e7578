"""Times of a text file: ISO 8601, or the format that is given. No other is guessed."""

import warnings
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

ISO = "ISO8601"  # pandas' word
DATES = [d.replace("/", between) for between in "/.-" for d in ("%d/%m/%Y", "%m/%d/%Y", "%d/%m/%y", "%m/%d/%y")]
DATES += [d.replace("/", between) for between in "-/ " for d in ("%d/%b/%Y", "%b/%d/%Y")]
PROPOSED = [date + clock for date in DATES for clock in ("", " %H:%M", " %H:%M:%S", " %I:%M %p")]
"""Formats that an error proposes."""


class FormatError(ValueError):
    """A time is not of the format that was given."""


def way_of(form: str | None) -> str:
    """What pandas reads times by: a format, or ISO 8601. Raises ValueError for what is no format of `datetime.strptime`."""
    if form is None or form == ISO:
        return ISO
    try:
        some = datetime(2024, 1, 31, 12).strftime(form)
        if "%" not in form or some == form:
            raise ValueError("it has no code that stands for a part of a time")
        datetime.strptime(some, form)
    except ValueError as error:
        raise ValueError(f"`time_format` is a format such as %d/%m/%Y %H:%M, got {form!r}: {error}") from error
    return form


def is_time(cell: Any, way: str) -> bool:
    """Whether a cell holds a time of this format; with ISO 8601 also one of another, which `parsed` then refuses.

    A number is no time of ISO 8601 here.
    """
    import pandas as pd

    column = pd.Series([cell]).dropna()
    numbers: Any = pd.to_numeric(column, errors="coerce")
    if column.empty or (way == ISO and numbers.notna().any()):
        return False
    return bool(_stamps(column, way).notna().all()) or (way == ISO and bool(_proposals(column)))


def _proposals(column: Any) -> list[str]:
    """The proposed formats that read all of it."""
    fitting = [form for form in PROPOSED if _stamps(column.iloc[:1], form).notna().all()]
    return [form for form in fitting if _stamps(column, form).notna().all()]


def _stamps(column: Any, way: str) -> Any:
    """Times, NaT where there is none. Raises ValueError for different offsets from UTC."""
    import pandas as pd

    with warnings.catch_warnings():
        warnings.simplefilter("error", FutureWarning)  # of different offsets, before pandas 3
        try:
            return pd.to_datetime(column, errors="coerce", format=way)
        except (ValueError, FutureWarning) as error:  # errors="coerce" leaves it this one
            raise ValueError(f"times have different offsets from UTC: write all with the same one ({error})") from error


def parsed(column: Any, form: str | None, path: Path) -> Any:
    """The times of a column. Raises ValueError naming the row that is none, or with the formats that would read the column."""
    way = way_of(form)
    try:
        stamps = _stamps(column, way)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    if stamps.notna().all():
        return stamps
    row = int(np.flatnonzero(stamps.isna())[0])
    told = f"{path}, row {row}: {column.iloc[row]!r}"
    if form is not None:
        raise FormatError(f"{told} is no time of the format {form!r} (`time_format`)")
    proposals = _proposals(column)
    if not proposals:
        raise ValueError(
            f"{told} is no time of ISO 8601, as 2024-01-31 12:00: write it so, or say the format of all with `time_format`, "
            f'such as "%d/%m/%Y %H:%M"'
        )
    formats = " or ".join(f'"{proposal}"' for proposal in proposals)
    raise ValueError(f"{told} is no time of ISO 8601, as 2024-01-31 12:00: say its format with `time_format`, here {formats}")
