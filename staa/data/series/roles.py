"""What a column of numbers is: a measurement, or a label of the rows, or a time written as a number."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np

from staa.data.series.table import Asked, Table, left_out, listed, place_of

EARLIEST, LATEST = 3e8, 5e9  # seconds since 1970, from 1979 to 2128
PER_SECOND = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}
ENOUGH = 10  # rows, from which equal steps are no chance
REGULAR = 0.5  # share of the steps that are the commonest one
IDS = ("id", "uniqueid", "item", "itemid", "sensor", "sensorid", "station", "stationid", "node", "nodeid", "detector")
IDS += ("detectorid", "series", "seriesid", "variable", "name", "key", "location", "locationid", "tag", "channel")
"""What columns that name variates are called."""
CLOCKS = ("time", "date", "datetime", "timestamp", "epoch", "ts", "ds", "year", "yyyymm", "yyyymmdd")
PARTS = {
    **dict.fromkeys(("year", "yr"), (1500, 2200)),
    **dict.fromkeys(("month", "mo"), (1, 12)),
    **dict.fromkeys(("day", "dayofmonth"), (1, 31)),
    **dict.fromkeys(("hour", "hr"), (0, 24)),
    **dict.fromkeys(("minute", "second"), (0, 60)),
    **dict.fromkeys(("weekday", "dayofweek", "dow"), (0, 7)),
    **dict.fromkeys(("dayofyear", "doy"), (0, 366)),
    **dict.fromkeys(("week", "weekofyear"), (0, 53)),
}
"""Names of parts of a time -> the whole numbers they are."""


def measurements(table: Table, asked: Asked, path: Path) -> tuple[np.ndarray, tuple[str, ...]]:
    """The values and names of the columns that are variates; what is left out is added to the table's notes.

    A column that the user names (`series.columns`) is one, whatever it holds. Raises ValueError for numbers that look like
    times where no times are known, for a name that no column has, and if no column is left.
    """
    chosen, drop = listed(asked.columns), listed(asked.drop)
    for setting, names in (("series.columns", chosen), ("series.drop", drop)):
        for name in names:
            place_of(name, table.names, path, setting)
    skipped = left_out(table.names, asked)
    kept = [j for j, place in enumerate(table.places) if place not in skipped]
    open_to_question = [j for j in kept if table.names[table.places[j]] not in (*chosen, *asked.expected)]
    parts = [j for j in open_to_question if _is_part(table.names[table.places[j]], table.values[:, j])]
    odd: dict[int, str] = {}
    for j in open_to_question:
        found = clock_of(table.values[:, j], sure=table.places[j] == 0 or _called(table, j) in CLOCKS)
        if found and table.times is None and j not in (parts if len(parts) > 1 else []):
            raise _is_clock(table, j, found, path)
        if found:
            odd[j] = f"holds numbers that look like times ({found})"
        elif table.named and table.names[table.places[j]] == "":
            odd[j] = _unnamed(table, j, path)
        elif _called(table, j) in IDS and _whole(table.values[:, j]):
            odd[j] = "is called as ids are, and holds whole numbers"
        elif _called(table, j) in CLOCKS and j not in parts and _grows(table.values[:, j]):
            odd[j] = "is called as times are, and grows"
    parts = [j for j in parts if j not in odd]
    if parts and table.times is None:
        raise _are_parts([table.names[table.places[j]] for j in parts], path)
    odd |= dict.fromkeys(parts, "is a part of the time")
    odd |= _counters(table, [j for j in kept if j not in odd], set(open_to_question))
    left = [j for j in kept if j not in odd]
    if not left:
        beside = f" beside its times {table.names[table.time]!r}" if table.time is not None else ""
        raise ValueError(f"{path} has no column{beside} that is a measurement: expected one for each variate")
    for j, why in odd.items():
        what = f"column {_told(table, j)}"
        keeps = "" if table.names[table.places[j]] == "" else "; `series.columns` can name it as a variate"
        table.notes.append(f"{what} {why}, so it is left out{keeps}")
    values = table.values if left == list(range(table.values.shape[1])) else table.values[:, left]
    return values, tuple(table.names[table.places[j]] for j in left)


def _called(table: Table, j: int) -> str:
    return re.sub(r"[\W_]", "", table.names[table.places[j]].lower())


def _told(table: Table, j: int) -> str:
    return table.names[table.places[j]] or "without a name"


def _unnamed(table: Table, j: int, path: Path) -> str:
    place = table.places[j]
    if np.isnan(table.values[:, j]).all():
        return "is empty"
    if all(table.names[before] == "" for before in range(place)):
        return "comes first, as row labels do"
    raise ValueError(
        f"{path}: column {place}, counted from 0, has no name: give it one, or name the others by `series.columns`"
    )


def _counters(table: Table, kept: list[int], open_to_question: set[int]) -> dict[int, str]:
    """Columns that count the rows, unless nothing else is there."""
    steps = {j: _progression(table.values[:, j]) for j in kept}
    rows, others = len(table.values), [j for j in kept if steps[j] is None]
    found: dict[int, str] = {}
    for j in kept:
        if steps[j] is None or j not in open_to_question:
            continue
        begin, step = table.values[0, j], steps[j]
        first = table.places[j] == 0 and step == 1 and begin in (0, 1) and rows >= 3 and len(kept) > 1
        if first or (others and rows >= ENOUGH):
            found[j] = f"counts the rows from {begin:g} in steps of {step:g}"
    return found


def _progression(x: np.ndarray) -> float | None:
    """The step of numbers that grow or fall by the same one each time."""
    if (
        len(x) < 3
        or not np.isfinite(x[:3]).all()
        or x[1] == x[0]
        or abs((x[2] - x[1]) - (x[1] - x[0])) > 1e-6 * abs(x[1] - x[0])
    ):
        return None
    step = (x[-1] - x[0]) / (len(x) - 1)
    even = np.abs(x - (x[0] + step * np.arange(len(x)))) <= 1e-6 * abs(step) + 1e-9 * abs(x)
    return float(step) if step and even.all() else None


def _grows(x: np.ndarray) -> bool:
    """Whether numbers grow from row to row, but not as those that count the rows."""
    return len(x) > 1 and bool((np.diff(x) > 0).all()) and _progression(x) is None


def _whole(x: np.ndarray) -> bool:
    return bool(np.isfinite(x).all() and (np.floor(x) == x).all())


def _is_part(name: str, x: np.ndarray) -> bool:
    low, high = PARTS.get(re.sub(r"[\W_]", "", name.lower()), (1, 0))
    return low <= high and _whole(x) and bool(x.min() >= low and x.max() <= high)


def clock_of(x: np.ndarray, *, sure: bool) -> str | None:
    """What numbers [n] look like as times: a word or a format of `series.time_format`, None if they are none.

    sure: it is where times are, or is called so: then they need not grow in regular steps.
    """
    if len(x) < 3 or not np.isfinite(x).all() or x.min() < 1500 or x.max() == x.min():
        return None
    steps = np.diff(x)
    if not sure and ((steps <= 0).any() or np.unique(steps, return_counts=True)[1].max() < REGULAR * len(steps)):
        return None
    if _whole(x) and x.max() < 2**53:
        numbers = x.astype(np.int64)
        for form, fits in FORMATS.items():
            if fits(numbers) and (form != "%Y" or (steps >= 0).all()):
                return form
    for unit, factor in PER_SECOND.items():
        if EARLIEST * factor <= x.min() and x.max() <= LATEST * factor and len(np.unique(x[:1000])) > 1:
            return f"unix-{unit}" if unit == "s" or _whole(x) else None
    return None


def _parts(numbers: np.ndarray, *sizes: int) -> list[np.ndarray]:
    """Groups of two digits from the right, of so many, and what is left of them: (rest, first group, second group …)."""
    groups = []
    for size in reversed(sizes):
        numbers, group = np.divmod(numbers, 10**size)
        groups.append(group)
    return [numbers, *reversed(groups)]


def _fits(*bounds: tuple[int, int]) -> Callable[[np.ndarray], bool]:
    def fits(numbers: np.ndarray) -> bool:
        year, *groups = _parts(numbers, *(2 for _ in bounds))
        whole = [(year, (1500, 2200)), *zip(groups, bounds, strict=True)]
        return all(bool(group.min() >= low and group.max() <= high) for group, (low, high) in whole)

    return fits


MONTH, DAY, HOUR, SIXTY = (1, 12), (1, 31), (0, 23), (0, 59)
FORMATS: dict[str, Callable[[np.ndarray], bool]] = {
    "%Y": _fits(),
    "%Y%m": _fits(MONTH),
    "%Y%m%d": _fits(MONTH, DAY),
    "%Y%m%d%H": _fits(MONTH, DAY, HOUR),
    "%Y%m%d%H%M": _fits(MONTH, DAY, HOUR, SIXTY),
    "%Y%m%d%H%M%S": _fits(MONTH, DAY, HOUR, SIXTY, SIXTY),
}
"""A format -> whether whole numbers could be times of it."""


def _is_clock(table: Table, j: int, form: str, path: Path) -> ValueError:
    name = table.names[table.places[j]]
    column = f"`series.time={name}` and " if name and not re.search(r"[\s`]", name) else "`series.time` and " if name else ""
    return ValueError(
        f"{path}, column {_told(table, j)}: {table.values[0, j]:.0f}, {table.values[1, j]:.0f} … look like times: read them "
        f"with {column}`series.time_format={form}`, leave them out with `series.drop`, or name variates by `series.columns`"
    )


def _are_parts(names: list[str], path: Path) -> ValueError:
    one, whole = len(names) == 1, ",".join(names)
    out = f"`series.drop={whole}`" if not re.search(r"[\s`]", whole) else "`series.drop`"
    return ValueError(
        f"{path}: {'column' if one else 'columns'} {', '.join(names)} {'is a part' if one else 'are parts'} of a time, not "
        f"measured: write the time in one column, as 2024-01-31 12:00, or leave {'it' if one else 'them'} out with {out}"
    )
