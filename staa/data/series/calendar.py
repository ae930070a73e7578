"""The steps of a calendar: months, business days, hours of the day."""

from collections.abc import Callable

import numpy as np

DAY = np.timedelta64(1, "D")
MONTHS = {1: 31, 3: 92, 6: 184, 12: 365}  # days that so many months have most often
SAME_DAYS = 0.9  # share of a day's slots that the days before must have had as well


def common_step(times: np.ndarray) -> np.timedelta64 | None:
    """From most of the times [n] to the next, for monthly ones in days that most months have; None for a single one."""
    months = months_between(times)
    if months is not None:
        return np.timedelta64(MONTHS.get(months, 31 * months), "D").astype("timedelta64[ns]")
    steps, counts = np.unique(np.diff(times), return_counts=True)
    return steps[counts.argmax()] if len(steps) else None


def months_between(times: np.ndarray) -> int | None:
    """Months from most of the times [n] to the next, if all are at the same time of the same day of a month, such as its last
    business day; None if they are not, or if they are fewer than three."""
    if len(times) < 3 or (np.diff(times[:3]) < 28 * DAY).any():
        return None
    month, day = times.astype("datetime64[M]"), times.astype("datetime64[D]")
    if len(np.unique(times - day)) > 1 or _rule(month, day) is None:
        return None
    steps, counts = np.unique(np.diff(month.astype(np.int64)), return_counts=True)
    common = int(steps[counts.argmax()])
    return common if common > 0 else None


def following(times: np.ndarray, count: int) -> np.ndarray:
    """The next times of a series, by its calendar:

        monthly, quarterly, yearly    the same day of a later month: its 15th, its last one, its first or last business day
        at some slots of some days    the next slot, as of business days, or from 6 to 24 o'clock
        all others                    the commonest step, again and again

    Args:
        times: datetime64[ns], growing, at least two.
        count: How many come after the last one, at least 0.

    Shapes:
        times [n] -> [count]

    Raises:
        ValueError: If there are fewer than two times.
    """
    step = common_step(times)
    if step is None:
        raise ValueError("one row alone does not tell the time step: give two at least")
    months = months_between(times)
    if months is not None:
        return _months_on(times, months, count)
    slots, days = _pattern(times, step)
    if slots is None:
        return times[-1] + step * np.arange(1, count + 1)
    found: list[np.datetime64] = []
    day = times[-1].astype("datetime64[D]")
    while len(found) < count:
        if weekday(day) in days:
            found += [moment for moment in day.astype(times.dtype) + slots if moment > times[-1]]
        day = day + 1
    return np.array(found[:count], times.dtype)


def _rule(month: np.ndarray, day: np.ndarray) -> Callable[[np.ndarray], np.ndarray] | None:
    """What gives these days for these months: the last one, the same one (or the last of a month that is shorter), the last
    or the first business day; None if nothing does."""
    first = lambda m: m.astype("datetime64[D]")  # noqa: E731
    last = lambda m: first(m + 1) - 1  # noqa: E731
    of_month = int((day - first(month)).astype(int).max())
    rules = (
        last,
        lambda m: np.minimum(first(m) + of_month, last(m)),
        lambda m: np.busday_offset(last(m), 0, roll="backward"),
        lambda m: np.busday_offset(first(m), 0, roll="forward"),
    )
    return next((rule for rule in rules if (rule(month) == day).all()), None)


def _months_on(times: np.ndarray, months: int, count: int) -> np.ndarray:
    month, day = times.astype("datetime64[M]"), times.astype("datetime64[D]")
    rule = _rule(month, day)
    assert rule is not None  # else these were no months
    return rule(month[-1] + months * np.arange(1, count + 1)).astype(times.dtype) + (times[-1] - day[-1])


def weekday(times: np.ndarray) -> np.ndarray:
    """The day of the week of times, from Monday, 0: int64."""
    return (times.astype("datetime64[D]").astype(np.int64) + 3) % 7  # 1970 began on a Thursday


def _pattern(times: np.ndarray, step: np.timedelta64) -> tuple[np.ndarray | None, set[int]]:
    """(slots of a day, weekdays) that times keep to, if they leave out others again and again; (None, …) if they don't."""
    day = times.astype("datetime64[D]")
    clock = times - day
    slots, counts = np.unique(clock, return_counts=True)
    seen = np.unique(day)
    weekdays = {int(d) for d in np.unique(weekday(seen))}
    spans_week = seen[-1] - seen[0] >= 7 * DAY
    if not spans_week:
        weekdays = set(range(7))
    within = step < DAY and DAY % step == np.timedelta64(0, "ns")
    if not within:
        left_out = step == DAY and len(slots) == 1 and len(weekdays) < 7
        return (slots if left_out else None), weekdays
    full = len(slots) * step >= DAY
    if (full and len(weekdays) == 7) or len(seen) < 3 or counts[1:-1].min(initial=len(seen)) < SAME_DAYS * (len(seen) - 2):
        return None, weekdays
    return slots, weekdays
