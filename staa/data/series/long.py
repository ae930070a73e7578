"""Tables in long format: a row for each time and variate, which become a row for each time."""

import re
from pathlib import Path
from typing import Any

import numpy as np

from staa.data.series.roles import IDS
from staa.data.series.table import Asked, Table, place_of
from staa.files import check_bytes

REPEATED = 0.75  # different times a row, above which times are there once, but for faults


def is_long(table: Table, asked: Asked, path: Path) -> bool:
    """Whether rows are of one variate each: an id or a value is said, or times come several times beside texts or ids.

    Raises ValueError for a column of texts that names no variates.
    """
    if asked.id is not None or asked.value is not None:
        return True
    repeated = table.times is not None and table.times.nunique() <= REPEATED * len(table.times)
    if table.texts:
        name = table.names[next(iter(table.texts))]
        if repeated or _called(name) in IDS:
            return True
        raise ValueError(
            f"{path}, column {name}: it holds text, no numbers: leave it out with `series.drop`, or if it names the variate of "
            f"each row, say `series.id`"
        )
    return repeated and table.values.shape[1] > 1 and _ids(table) != []


def _called(name: str) -> str:
    return re.sub(r"[\W_]", "", name.lower())


def widened(table: Table, asked: Asked, path: Path) -> Table:
    """A table with a column for each id. Raises ValueError if a time and an id are there twice, or if times, ids or values
    can't be told from each other."""
    if table.times is None:
        raise ValueError(f"{path} is in long format, but has no times: name their column, `series.time`")
    ids, label = _id_column(table, asked, path)
    value = _value_column(table, asked, label, path)
    moments, row = np.unique(table.times.asi8, return_inverse=True)
    names, column = _named(ids, path)
    check_bytes(9 * len(moments) * len(names), f"{path}'s {len(moments):,} times of {len(names):,} variates")
    flat = row * len(names) + column
    counts = np.bincount(flat, minlength=len(moments) * len(names))
    if counts.max() > 1:
        twice = int(np.flatnonzero(np.isin(flat, np.flatnonzero(counts > 1)))[1])
        where = np.flatnonzero(flat == flat[twice])
        raise ValueError(
            f"{path}, row {where[1]}: {names[column[where[1]]]} at {str(table.times[where[1]])[:19]} is there twice (row "
            f"{where[0]}): keep one row of each"
        )
    values = np.full(len(counts), np.nan)
    values[flat] = table.values[:, value]
    used = {label, table.places[value], table.time}
    rest = [name for k, name in enumerate(table.names) if k not in used and name]
    notes = [
        *table.notes,
        f"long format: {len(names)} variates by {table.names[label]}, of values {table.names[table.places[value]]}",
    ]
    if rest:
        notes.append(f"of its columns, {', '.join(rest[:8])}{' …' * (len(rest) > 8)} are left out")
    if lacking := int((counts == 0).sum()):
        notes.append(f"{lacking:,} of {len(counts):,} times and variates have no row: they are gaps")
    times = type(table.times)(moments.view(f"M8[{table.times.unit}]"))
    times = times if table.times.tz is None else times.tz_localize("UTC").tz_convert(table.times.tz)
    return Table(names, values.reshape(len(moments), len(names)), list(range(len(names))), times=times, notes=notes)


def _pairs_are_unique(table: Table, j: int) -> bool:
    x = table.values[:, j]
    if not np.isfinite(x).all() or (np.floor(x) != x).any():
        return False
    pairs = np.stack([table.times.asi8, x.astype(np.int64)], 1)
    return len(np.unique(pairs, axis=0)) == len(pairs)


def _ids(table: Table) -> list[int]:
    """Columns of values that could be ids: whole numbers, each but once at a time, those that are called so before others."""
    fitting = [j for j in range(table.values.shape[1]) if table.names[table.places[j]] and _pairs_are_unique(table, j)]
    called = [j for j in fitting if _called(table.names[table.places[j]]) in IDS]
    return called or fitting


def _id_column(table: Table, asked: Asked, path: Path) -> tuple[Any, int]:
    """(the ids of the rows, which column they are)"""
    if asked.id is not None:
        label = place_of(asked.id, table.names, path, "series.id")
        if label in table.texts:
            return table.texts[label], label
        j = table.number(asked.id)
        if j is None:
            raise ValueError(f"{path}'s column {asked.id} holds times, no ids: name another with `series.id`")
        return table.values[:, j], label
    if table.texts:
        if len(table.texts) > 1:
            several = ", ".join(table.names[k] for k in table.texts)
            raise ValueError(f"{path} has several columns of texts, {several}: say which names the variates with `series.id`")
        ((label, ids),) = table.texts.items()
        return ids, label
    found = _ids(table)
    if len(found) != 1:
        raise ValueError(
            f"{path} has times several times, as long format has: say which column names the variates with `series.id`"
        )
    return table.values[:, found[0]], table.places[found[0]]


def _value_column(table: Table, asked: Asked, label: int, path: Path) -> int:
    if asked.value is not None:
        place_of(asked.value, table.names, path, "series.value")
        found = [j for j, place in enumerate(table.places) if table.names[place] == asked.value]
    else:
        found = [j for j, place in enumerate(table.places) if place != label and table.names[place]]
    if len(found) != 1:
        several = ", ".join(table.names[table.places[j]] for j in found[:8])
        raise ValueError(
            f"{path} is in long format with {len(found)} columns of numbers{': ' + several if found else ''}: say which is to "
            f"be forecast with `series.value`"
        )
    return found[0]


def _named(ids: Any, path: Path) -> tuple[list[str], np.ndarray]:
    """(names in the order of their first rows, which of them each row has)"""
    import pandas as pd

    codes, known = pd.factorize(ids)
    if (codes < 0).any():
        raise ValueError(f"{path}, row {int(np.flatnonzero(codes < 0)[0])}: it has no id: give it one, or remove the row")
    names = [f"{name:.0f}" if isinstance(name, float) and name == int(name) else str(name) for name in known]
    return names, codes
