"""The phase of each row of a series, and which seasons its training rows can tell."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from staa.data.series.calendar import weekday

Kind = Literal["none", "day", "week", "day+weekend"]
DAY = 86_400  # seconds
DAY_APART = np.timedelta64(DAY + 3600, "s")  # with the hour by which clocks are set back
WEEK = 7
NO_CLOCK = "give the series times, or the rows of a period (`series.period`)"


@dataclass(frozen=True)
class Clock:
    """How rows get their phase, (slot of the day, day of the week): by their times, or by their number.

    Args:
        slots: Slots of a day, at least 1.
        seconds: Seconds of a slot; None: a slot is a row, and a day is `slots` rows.
        first: Time of the first row, ISO 8601, if rows with times go by their number.
    """

    slots: int
    seconds: float | None = None
    first: str | None = None

    @property
    def facts(self) -> list[Any]:
        """Its fields in order, for a run's records."""
        return [self.slots, self.seconds, self.first]

    def phase(self, rows: np.ndarray) -> np.ndarray:
        """Phases of rows: slot ⌊seconds since midnight / seconds of a slot⌋ and weekday from Monday, 0, or, without times,
        row mod slots and ⌊row / slots⌋ mod 7.

        Args:
            rows: Times, datetime64, or numbers of rows, as `points` gives them.

        Shapes:
            rows [n] -> int64 [n, 2]
        """
        if self.seconds is None:
            return np.stack([rows % self.slots, rows // self.slots % WEEK], 1).astype(np.int64)
        days = rows.astype("datetime64[D]")
        since = (rows - days) / np.timedelta64(1, "s")
        return np.stack([np.minimum(since // self.seconds, self.slots - 1), weekday(days)], 1).astype(np.int64)

    def points(self, times: np.ndarray | None, count: int, every: float | None) -> np.ndarray:
        """What `phase` takes for the rows of another file: their times, or their numbers from the clock's first row on.

        Args:
            times: Their times, datetime64; None without any.
            count: How many rows there are.
            every: Seconds from a row to the next, if there are times.

        Shapes:
            times [n] -> [n]

        Raises:
            ValueError: If the clock goes by times, and there are none.
        """
        if self.seconds is not None:
            if times is None:
                raise ValueError("the run goes by the time of the day, and these rows have no times: name their column")
            return times
        if times is None or self.first is None or not every:
            return np.arange(count)
        return np.arange(count) + _steps(np.datetime64(self.first), times[0], every)


def _steps(start: np.datetime64, end: np.datetime64, every: float) -> int:
    """Rows from one time to another; rows a month or more apart are counted in whole months."""
    if every >= 28 * DAY:
        months = (end.astype("datetime64[M]") - start.astype("datetime64[M]")).astype(int)
        return round(months / round(every / (30.44 * DAY)))
    return round(float((end - start) / np.timedelta64(1, "s")) / every)


def clock_of(times: np.ndarray | None, every: float | None, period: int | None) -> Clock | None:
    """The clock of a series with a row every so many seconds, or with so many rows a day; None if nothing tells. Times tell
    more than the number of rows that a day has by them: weekends."""
    if period is not None and (every is None or abs(period * every - DAY) > 1e-6 * DAY):
        return Clock(period, first=None if times is None else str(times[0]))
    return None if every is None else Clock(max(1, int(np.ceil(DAY / every - 1e-9))), min(every, DAY))


def why_not(kind: Kind, rows: np.ndarray, clock: Clock | None) -> str | None:
    """Why the training rows can't tell a season of this kind; None if they can: each phase is to be seen twice.

    Args:
        kind: The season.
        rows: Times of the training rows, datetime64, or their numbers.
        clock: How they get their phases; None if nothing tells.
    """
    if kind == "none":
        return None
    if clock is None:
        return f"nothing tells what a day is: {NO_CLOCK}"
    if (why := why_never(kind, rows, clock)) is not None:
        return why
    if clock.seconds is None:
        days = len(rows) / clock.slots
    else:
        days = float((rows[-1] - rows[0]) / np.timedelta64(1, "s") + clock.seconds) / DAY
    needed = 2 * (WEEK if kind == "week" else 1)
    if days < needed:
        return f"it needs {needed} days to train on, and there are {days:.3g}"
    if kind == "day+weekend":
        weekend = weekday(np.unique(rows.astype("datetime64[D]"))) >= 5
        if min(weekend.sum(), (~weekend).sum()) < 2:
            return "it needs two days of a weekend and two others to train on"
    return None


def why_never(kind: Kind, rows: np.ndarray, clock: Clock) -> str | None:
    """Why rows that get their phases so have no season of this kind, however many there are; None if they may have it.

    Args:
        kind: The season.
        rows: Times of the rows, datetime64, or their numbers.
        clock: How they get their phases.
    """
    if kind == "day" and clock.slots < 2:
        return "a day is a single row"
    if kind == "week" and clock.seconds is None and clock.first is not None:
        return "a period of the rows (`series.period`) that is no day makes no week"
    if kind == "day+weekend" and clock.seconds is None:
        return "rows that go by their number have no weekend"
    if kind in ("week", "day+weekend") and clock.seconds == DAY and np.diff(rows).min(initial=rows[-1] - rows[0]) > DAY_APART:
        return "rows are more than a day apart"
    return None


def naive_name(kind: Kind, clock: Clock | None) -> str:
    """What the value a season before is called. A clock that goes by numbers of rows has periods, which may be no days.

    Args:
        kind: "day" or "week".
        clock: How rows get their phases; None if nothing tells.
    """
    if clock is not None and clock.seconds is None:
        return "seasonal naive (period)" if kind == "day" else f"seasonal naive ({WEEK} periods)"
    return f"seasonal naive ({kind})"


def rows_before(rows: np.ndarray, clock: Clock, days: int) -> np.ndarray:
    """Which row is so many days before each row; −1 if none is.

    Args:
        rows: Times, datetime64 and growing, or numbers of rows from 0.
        clock: How they get their phases.
        days: How many days.

    Shapes:
        rows [n] -> int64 [n]
    """
    if clock.seconds is None:
        return np.maximum(rows - days * clock.slots, -1).astype(np.int64)
    wanted = rows - np.timedelta64(days * DAY, "s")
    found = np.searchsorted(rows, wanted)
    return np.where(rows[np.minimum(found, len(rows) - 1)] == wanted, found, -1).astype(np.int64)


def latest_known(rows: np.ndarray, last: np.ndarray, before: np.ndarray) -> np.ndarray:
    """The row of the same phase that is known at the end of each window: as many periods back as it takes; if there is none,
    the window's last row.

    Args:
        rows: Rows that are forecast.
        last: The last row that each window sees.
        before: The row a period before each row, −1 if there is none.

    Shapes:
        rows [B, P], last [B, 1], before [n] -> [B, P]
    """
    before = np.append(before, -1)  # −1 leads to −1
    while (rows > last).any():
        rows = np.where(rows > last, before[rows], rows)
    return np.where(rows < 0, last, rows)
