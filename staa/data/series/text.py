"""Tables in text files: read in pieces, so that memory is that of their numbers and not that of their text.

pandas' parser makes numbers of a piece at once. If it meets what is no number, the file is read again with every cell as text,
which takes longer and finds the cell that is wrong.
"""

import re
from pathlib import Path
from typing import IO, Any

import numpy as np

from staa.data.series.dialect import Dialect, plain
from staa.data.series.layout import NotNumbersError, Text
from staa.data.series.roles import EARLIEST, PER_SECOND
from staa.data.series.table import Asked, Table, left_out, listed, place_of
from staa.data.series.times import CLOCK, ISO, UNIX, is_time, parsed, way_of
from staa.files import check_bytes


def read_text(file: IO[bytes], path: Path, asked: Asked) -> Table:
    """The table in a text file. Raises ValueError for what is none, naming the cell that is no number or no time."""
    text = Text(file, path, asked)
    skipped, time = left_out(text.names, asked), _time_of(text)
    labels = _labels(text, time)
    skipped |= labels
    texts = _texts_of(text, skipped, time)
    places = [k for k in range(len(text.names)) if k != time and k not in skipped and k not in texts]
    lines = text.lines()
    check_bytes(
        8 * lines * max(1, len(text.names)),
        f"{path} can't be read in memory: its {lines:,} rows of {len(text.names):,} columns",
    )
    table = Table(text.names, np.empty((lines, len(places))), places, time=time, named=text.named, notes=list(text.notes))
    table.notes += ["the column without a name comes first, as row labels do, so it is left out"] * len(labels)
    try:
        _fill(table, text, texts, whole=True)
    except NotNumbersError:
        _fill(table, text, texts, whole=False)
    return table


def _fill(table: Table, text: Text, texts: set[int], *, whole: bool) -> None:
    """Read all rows into a table. whole: numbers are parsed with their column, or else cell by cell."""
    import pandas as pd
    from pandas.api.types import union_categoricals

    kinds: dict[int, Any] = dict.fromkeys(range(len(table.names)), "category")
    kinds |= dict.fromkeys(table.places, np.float64 if whole else str)
    if table.time is not None:
        kinds[table.time] = str
    rows, times, kept = 0, [], {k: [] for k in sorted(texts)}
    for piece in text.pieces(kinds):
        numbers = piece[table.places]
        values = numbers.to_numpy(np.float64) if whole else _numbers_in(numbers, table, text, rows)
        if table.time is not None:  # beside times, an empty row says nothing
            there = piece[[table.time, *kept]].notna().any(axis=1).to_numpy() | ~np.isnan(values).all(1)
            piece, values = piece[there], values[there]
            column = piece[table.time].set_axis(range(rows, rows + len(piece)))
            times.append(pd.DatetimeIndex(parsed(column, text.asked.time_format, text.path, zone=text.asked.zone)))
        table.values[rows : rows + len(values)] = values
        rows += len(values)
        for k, parts in kept.items():
            parts.append(piece[k].array)
    if rows == 0:
        raise ValueError(f"{text.path} holds no rows")
    table.values = table.values[:rows]
    if times:
        if len({str(part.tz) for part in times}) > 1:
            raise ValueError(
                f"{text.path}: times have different offsets from UTC, as daylight saving time gives: say `series.zone=UTC`, "
                f"which reads all of them as UTC"
            )
        table.times = times[0].append(times[1:])
    table.texts = {k: union_categoricals(parts) for k, parts in kept.items()}


def _numbers_in(cells: Any, table: Table, text: Text, above: int) -> np.ndarray:
    """Numbers of cells that are text. Raises ValueError for the first that is none."""
    import pandas as pd

    dialect, values, wrong = text.dialect, np.full(cells.shape, np.nan), []
    for j, place in enumerate(table.places):
        column = cells[place]
        if dialect.decimal == ".":
            values[:, j] = pd.to_numeric(column, errors="coerce")
        for row in np.flatnonzero(np.isnan(values[:, j]) & column.notna().to_numpy()):
            cell = str(column.iloc[row]).strip()
            if dialect.is_number(cell):
                values[row, j] = float(plain(cell, dialect.decimal))
            elif cell:
                wrong.append((int(row), j, cell))
                break
    if wrong:
        row, j, cell = min(wrong)
        name = table.names[table.places[j]] or str(table.places[j])
        raise ValueError(f"{text.path}, row {above + row}, column {name}: {cell!r} is no number: {_hint(cell, name, dialect)}")
    return values


def _hint(cell: str, name: str, dialect: Dialect) -> str:
    other = "," if dialect.decimal == "." else "."
    if Dialect(dialect.separator, other).is_number(cell):
        return f"say what is before a fraction with `series.decimal={'comma' if other == ',' else 'point'}`"
    if CLOCK.fullmatch(cell):
        return "write a time of day in one column with its date, as 2024-01-31 12:00"
    out = f"`series.drop={name}`" if re.fullmatch(r"[\w.-]+", name) else "`series.drop`"
    return (
        f"leave the column out with {out}; if it is a time, name its column and its format (`series.time`, "
        f"`series.time_format`); if something else than commas is between columns, say it with `series.separator`"
    )


def _time_of(text: Text) -> int | None:
    """Which column holds the times: the one that is named, else the first that holds some."""
    asked, way = text.asked, way_of(text.asked.time_format)
    drop = listed(asked.drop)
    if asked.time is not None:
        return place_of(asked.time, text.names, text.path, "time")
    for k, cell in enumerate(text.examples):
        number = text.dialect.is_number(cell)
        if way in UNIX:
            fits = number and float(plain(cell, text.dialect.decimal)) > EARLIEST * PER_SECOND[UNIX[way]]
        else:
            fits = cell != "" and not (number and way == ISO) and is_time(cell, way)
        if fits and text.names[k] not in drop:
            return k
    return None if way == ISO else 0


def _labels(text: Text, time: int | None) -> set[int]:
    """The first column, if it has no name and holds texts."""
    cell = text.examples[0]
    is_label = text.named and text.names[0] == "" and time != 0 and cell and not text.dialect.is_number(cell)
    return {0} if is_label else set()


def _texts_of(text: Text, skipped: set[int], time: int | None) -> set[int]:
    """The columns that hold names of variates, as in long format: one at most. Raises ValueError for others that hold text."""
    asked = text.asked
    if asked.id is not None:
        return {place_of(asked.id, text.names, text.path, "series.id")}
    found = [
        k
        for k, cell in enumerate(text.examples)
        if k not in skipped
        and k != time
        and cell
        and not text.dialect.is_number(cell)
        and plain(cell, text.dialect.decimal) != "?"
    ]
    numbers = len(text.names) - len(found) - len(skipped) - (time is not None)
    if len(found) == 1 and time is not None and (numbers >= 1 or asked.value) and not CLOCK.fullmatch(text.examples[found[0]]):
        return set(found)
    return set()
