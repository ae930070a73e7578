"""The cells of a table in a text or HDF5 file, before they are numbers."""

import csv
import io
import re
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np

from staa.arrays import inflate
from staa.data.series.hdf import read_hdf
from staa.data.series.series import by
from staa.files import check_bytes, max_bytes, read_bytes

CELL = 64  # bytes that pandas takes for a cell of text, beside the text


def content_of(path: Path, expected: str) -> bytes:
    if path.is_dir():
        raise ValueError(f"{path} is a folder: {expected}")
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist: {expected}")
    return read_bytes(path)


def hdf_table(data: bytes, path: Path) -> Any:
    """The pandas table in a HDF5 file's bytes, in pandas' fixed format."""
    import pandas as pd

    found = read_hdf(data, str(path), max_bytes())
    try:
        return _frame(found, pd)
    except Exception as error:  # what the datasets hold is anyone's guess: KeyError, IndexError, pandas' own …
        raise ValueError(f"{path} can't be read as one pandas table: {' '.join(str(error).split())}") from error


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
    """Rows' or columns' labels: numbers, text, or times, of which the time of the clock there is meant."""
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
        return times if zone is None else times.tz_localize("UTC").tz_convert(ZoneInfo(zone)).tz_localize(None)
    raise ValueError(f"{name} must hold labels that are numbers, text or times, at least one; got the kind {kind or 'unknown'}")


def _unit(kind: str) -> str:
    """The dtype that pandas means by datetime64, datetime64[us] and so on."""
    unit = re.fullmatch(r"datetime64(?:\[(s|ms|us|ns)[^\]]*\])?", kind)
    if unit is None:
        raise ValueError(f"times must be datetime64 in s, ms, us or ns, got {kind}")
    return f"datetime64[{unit[1] or 'ns'}]"


def cells_of(data: bytes, path: Path, pd: Any) -> Any:
    """A text file's cells as strings, NaN in a blank line, but for blank lines at its end, which are left out.

    Raises ValueError for what is no such text, or inflates past `max_bytes`.
    """
    if path.name.lower().endswith(".gz"):
        data = inflate(data, str(path))
    if not data.strip():
        raise ValueError(f"{path} is empty: expected rows with commas between their columns")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} can't be read as text: {error}; save it as UTF-8") from error
    _check_separator(text, path)
    try:
        rows = csv.reader(io.StringIO(text, newline=""))
        columns = next((len(row) for row in rows if len(row) > 1 or "".join(row).strip()), 0)  # short rows are filled up
        check_bytes(columns * (1 + data.count(b"\n") + data.count(b"\r")) * CELL + 4 * len(data), str(path))
        body = re.sub(r"\A(?:[ \t]*(?:\r\n?|\n))+", "", text)  # pandas counts the columns of the first line
        lines = io.StringIO(body.rstrip())
        table = pd.read_csv(lines, header=None, dtype=str, skipinitialspace=True, skip_blank_lines=False)
        top = len(text[: len(text) - len(body)].splitlines())
        return table.set_axis(range(top, top + len(table))).reindex(range(top + len(table)))
    except Exception as error:  # pandas' parser and csv each have their own
        why = " ".join(str(error).split())
        if uneven := re.search(r"Expected (\d+) fields in line (\d+), saw (\d+)", why):  # pandas counts from its first line
            why = (
                f"row {int(uneven[2]) - 1} has {uneven[3]} columns, those above it {uneven[1]}; a number's fraction follows a "
                f"point, as in 1.5"
            )
        raise ValueError(f"{path} can't be read as text with commas between its columns: {why}") from error


def _check_separator(text: str, path: Path) -> None:
    """Raises ValueError where semicolons or tabs separate the columns: as many in each of the first lines, beside no commas
    or beside numbers alone."""
    first = [line for line in text[:1_000_000].splitlines() if line.strip()][:5]
    for sign, name in ((";", "semicolons"), ("\t", "tabs")):
        counts = {line.count(sign) for line in first}
        if len(counts) != 1 or counts == {0} or ("," in first[0] and not re.fullmatch(rf"[-+\d.,:/ TZ{sign}]+", first[-1])):
            continue
        given, wanted, option = "", "commas", ""
        if any("," in line for line in first):
            given, wanted, option = (
                " and commas in its numbers",
                "commas between columns and points in numbers",
                ", decimal=','",
            )
        raise ValueError(
            f"{path} has {name} between its columns{given}: write it with {wanted}, in Python with "
            f"pandas.read_csv({path.name!r}, sep={sign!r}{option}).to_csv('other.csv', index=False)"
        )
