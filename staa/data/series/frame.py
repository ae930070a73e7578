"""Tables whose columns have types already: pandas' in HDF5, and Parquet files."""

import re
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np

from staa.data.series.hdf import read_hdf
from staa.data.series.parquet import read_parquet
from staa.data.series.series import by
from staa.data.series.table import Asked, Table, check_names, left_out, listed, place_of
from staa.data.series.times import is_time, parsed, way_of
from staa.files import max_bytes


def hdf_table(data: bytes, path: Path, asked: Asked) -> Table:
    """The pandas table in a HDF5 file's bytes, in pandas' fixed format."""
    import pandas as pd

    found = read_hdf(data, str(path), max_bytes())
    try:
        frame = _frame(found, pd)
    except Exception as error:  # what the datasets hold is anyone's guess: KeyError, IndexError, pandas' own …
        raise ValueError(f"{path} can't be read as one pandas table: {' '.join(str(error).split())}") from error
    times = frame.index if isinstance(frame.index, pd.DatetimeIndex) else None
    return _table([str(name) for name in frame.columns], [frame.iloc[:, k] for k in range(frame.shape[1])], times, asked, path)


def parquet_table(data: bytes, path: Path, asked: Asked) -> Table:
    """The table in a Parquet file's bytes, the index of a pandas frame before its other columns."""
    import pandas as pd

    found = read_parquet(data, str(path), max_bytes())
    about = found["about"]
    index = [about["names"].index(name) for name in about["index"]]
    order = [*index, *(k for k in range(len(about["names"])) if k not in index)]
    names, columns = [], []
    for k in order:
        kind, values = about["kinds"][k], found[f"c{k}"]
        if kind.startswith("time"):
            stamps = pd.Series(values.view("datetime64[ns]"))
            zone = kind.removeprefix("time").strip()
            columns.append(_in_zone(stamps, zone, path) if zone else stamps)
        elif kind == "text":
            texts = found[f"t{k}"].tolist()
            columns.append(pd.Series(pd.Categorical.from_codes(values, texts)))
        else:
            columns.append(pd.Series(values))
        name = about["names"][k]
        names.append("" if re.fullmatch(r"__index_level_\d+__|Unnamed: \d+", name) else name)
    return _table(names, columns, None, asked, path)


def _in_zone(times: Any, zone: str, path: Path) -> Any:
    try:
        return times.dt.tz_localize("UTC").dt.tz_convert(zone)
    except (ValueError, OSError, LookupError) as error:
        raise ValueError(f"{path} has times in the zone {zone!r}, which this machine doesn't know: save them in UTC") from error


def _table(names: list[str], columns: list[Any], times: Any, asked: Asked, path: Path) -> Table:
    import pandas as pd

    if not columns or not len(columns[0]):
        raise ValueError(f"{path} holds no rows")
    check_names(names, path)
    skipped, time = left_out(names, asked), None
    dated = [k for k, column in enumerate(columns) if column.dtype.kind == "M" and names[k] not in listed(asked.drop)]
    if asked.time is not None:
        time = place_of(asked.time, names, path, "time")
    elif times is None:
        way = way_of(asked.time_format)
        texts = [k for k, column in enumerate(columns) if column.dtype == "category" and is_time(column.iloc[0], way)]
        time = next(iter(dated or texts), 0 if asked.time_format else None)
    if asked.time_format is not None and (times is not None if time is None else time in dated):
        raise ValueError(f"{path} holds times, not text: leave out their format {asked.time_format!r} (`time_format`)")
    if time is not None:
        column = columns[time].reset_index(drop=True)
        if time not in dated:
            column = _as_text(column) if column.dtype != "category" else column.astype(object)
            column = parsed(column, asked.time_format, path, zone=asked.zone)
        times = pd.DatetimeIndex(column)
    places = [k for k, c in enumerate(columns) if k not in {time, *skipped, *dated} and c.dtype != "category"]
    values = np.empty((len(columns[0]), len(places)))
    for j, place in enumerate(places):
        values[:, j] = columns[place].to_numpy(np.float64)
    kept = {k: c.array for k, c in enumerate(columns) if c.dtype == "category" and k != time and k not in skipped}
    notes = []
    if kept and names[next(iter(kept))] == "":
        kept.pop(next(iter(kept)))
        notes.append("the column without a name comes first, as row labels do, so it is left out")
    if kept and times is None:
        name = names[next(iter(kept))]
        raise ValueError(f"{path}, column {name}: it holds text, no numbers: leave it out with `series.drop`")
    table = Table(names, values, places, times, time, kept, notes=notes)
    table.notes += [
        f"column {names[k]} holds times as well, so it is left out" for k in dated if k != time and k not in skipped
    ]
    return table


def _as_text(column: Any) -> Any:
    """Numbers that are times, as a text file would have them."""
    return column.map(lambda x: None if x != x else f"{x:.0f}" if x == int(x) else repr(float(x)))


def _frame(found: dict[str, Any], pd: Any) -> Any:
    about = found["about"]
    encoding = about[""].get("encoding") or "utf-8"
    if "values" in found:  # a Series; a name that is no text is pickled, and a pickle ends with a dot
        name = about[""].get("name", "0")
        return pd.DataFrame({"0" if name.endswith(".") else name: found["values"]}, index=_index(found, "index", encoding, pd))
    columns, index = (_index(found, axis, encoding, pd) for axis in ("axis0", "axis1"))
    if not columns.is_unique:
        raise ValueError(f"it has two columns called {columns[columns.duplicated()][0]!r}: give each its own name")
    parts: dict[int, Any] = {}
    for name in found:
        if not name.endswith("_values"):
            continue
        items, values = _index(found, name.removesuffix("values") + "items", encoding, pd), found[name]
        if values.shape != (len(index), len(items)):
            raise ValueError(f"{name} must be {by((len(index), len(items)))}, got {by(values.shape)}")
        kind = about[name].get("value_type", "")
        if kind.startswith("datetime64"):
            values = values.view(_unit(kind))
        parts |= {columns.get_loc(item): values[:, k] for k, item in enumerate(items)}
    if len(parts) != len(columns):
        raise ValueError(f"it has {len(columns)} columns, but values for {len(parts)}")
    return pd.DataFrame({k: parts[k] for k in range(len(columns))}, index=index).set_axis(columns, axis=1)


def _index(found: dict[str, Any], name: str, encoding: str, pd: Any) -> Any:
    """Rows' or columns' labels: numbers, text, or times, with their zone if they have one."""
    labels, about = found[name], found["about"][name]
    kind = about.get("kind", "")
    if labels.ndim != 1:
        raise ValueError(f"{name} must be one row of labels, got {labels.ndim} axes")
    if kind == "string" and labels.dtype.kind == "S":
        return pd.Index([label.decode(encoding) for label in labels.tolist()])
    if kind in ("integer", "float", "bool") and labels.dtype.kind in "iuf":
        return pd.Index(labels)
    if kind.startswith("datetime64") and labels.dtype == np.int64:
        times = pd.DatetimeIndex(labels.view(_unit(kind)))
        zone = about.get("tz")
        if zone is not None and not re.fullmatch(r"[\w+-]+(/[\w+-]+)*", zone):
            raise ValueError(f"{name} has a time zone that is pickled: save the table without time zones (tz_localize(None))")
        return times if zone is None else times.tz_localize("UTC").tz_convert(ZoneInfo(zone))
    raise ValueError(f"{name} must hold labels that are numbers, text or times, at least one; got the kind {kind or 'unknown'}")


def _unit(kind: str) -> str:
    """The dtype that pandas means by datetime64, datetime64[us] and so on."""
    unit = re.fullmatch(r"datetime64(?:\[(s|ms|us|ns)[^\]]*\])?", kind)
    if unit is None:
        raise ValueError(f"times must be datetime64 in s, ms, us or ns, got {kind}")
    return f"datetime64[{unit[1] or 'ns'}]"
