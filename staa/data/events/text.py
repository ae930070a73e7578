"""Events in text files: a line for each, its numbers separated by commas, semicolons, tabs or blanks."""

import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from staa.data.events.named import COLUMNS
from staa.data.events.recording import (
    SAID,
    Events,
    Sensor,
    Told,
    Unit,
    integers,
    microseconds,
    one_unit,
    unchecked,
)
from staa.data.events.repair import Repair
from staa.files import open_regular

BLOCK = 1 << 17  # bytes at a time; parsing takes some thirty times as much
LONGEST_LINE, LONGEST_HEADER = 1 << 16, 1 << 20
NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)(e[+-]?\d+)?|nan|[+-]?inf", re.IGNORECASE | re.ASCII)
UNITS: dict[str, Unit] = {
    "s": "s", "sec": "s", "second": "s", "seconds": "s", "ms": "ms", "millisecond": "ms", "milliseconds": "ms",
    "us": "us", "µs": "us", "μs": "us", "usec": "us", "microsecond": "us", "microseconds": "us",
    "ns": "ns", "nsec": "ns", "nanosecond": "ns", "nanoseconds": "ns",
}  # fmt: skip
ORDERS = ("txyp", "xytp", "xypt")
"""Of columns without names; the first is that of the RPG's datasets and of v2e."""
FINE = 6  # digits after the point that no camera's times in ms have
EPOCH: dict[Unit, tuple[int, int]] = {"ns": (10**18, 10**19), "us": (10**15, 10**16)}
"""What times since 1970 are like, from 2001 on"""


class Layout(NamedTuple):
    """Where t, x, y and p are in a line, how its fields are separated, and what the file says of unit and sensor."""

    columns: tuple[int, int, int, int]
    separator: str
    unit: Unit | None
    sensor: Sensor | None


def text_pieces(path: Path, _: Repair, told: Told) -> Iterator[Events]:
    """The events of a text file, in pieces.

    Lines that begin with # or % are comments. A first line of words names the columns: t, ts, time or timestamp, x, y, p, pol,
    polarity or on, and the unit of time, as in t_us, time(s) or "timestamp [ns]"; others are left out. A first line of two
    numbers is the sensor's width and height. Without names there are four columns: t x y p, or x y t p or x y p t if only that
    fits.

    The unit of times must be told, unless a name or a comment says it, times have six digits after the point (s), or they count
    from 1970 in µs or ns.

    Raises ValueError for what is no such file, and if the unit is not known.
    """
    with open_regular(path) as file:
        layout, line, carry = None, 0, b""
        while True:
            block = file.read(BLOCK)
            data = carry + block
            cut = data.rfind(b"\n") + 1 if block else len(data)
            if not cut and block:
                _check_line(data, line)
                carry = data
                continue
            data, carry = data[:cut], data[cut:]
            _check_line(carry, line + data.count(b"\n"))
            text = _decoded(data, line)
            if layout is None:
                layout, start = _layout(text, told.unit)
                if layout is None and block:
                    if len(data) > LONGEST_HEADER:
                        raise ValueError(f"it has no events among its first {LONGEST_HEADER:,} bytes")
                    carry = data + carry
                    continue
                if layout is None:
                    return
                line += text[:start].count("\n")
                text = text[start:]
            if text.strip():
                yield _parsed(text, layout, line)
            line += text.count("\n")
            if not block:
                return


def _check_line(data: bytes, line: int) -> None:
    if len(data) > LONGEST_LINE:
        raise ValueError(f"line {line + 1} has more than {LONGEST_LINE:,} bytes: it is no list of events")


def _decoded(data: bytes, line: int) -> str:
    try:
        text = data.decode("utf-8-sig" if not line else "utf-8")
    except UnicodeDecodeError as error:
        at = line + data[: error.start].count(b"\n") + 1
        raise ValueError(f"line {at} is no text: expected a line of numbers for each event") from error
    if "\0" in text:
        raise ValueError(f"line {line + text[: text.index(chr(0))].count(chr(10)) + 1} is no text: expected lines of numbers")
    return text


def _layout(text: str, given: Unit | None) -> tuple[Layout | None, int]:
    """How events are written, from the first lines, and where they begin; None if only comments are there."""
    at, comments, sensor, names = 0, [], None, None
    while at < len(text):
        end = text.find("\n", at) + 1 or len(text)
        line = text[at:end].strip()
        fields = _split(line)
        if not line or line[0] in "#%":
            comments.append(line)
        elif not all(map(NUMBER.fullmatch, fields)):
            if names is not None:
                break
            names = fields
        elif len(fields) == 2 and sensor is None and all(field.isdecimal() and len(field) < 6 for field in fields):
            sensor = int(fields[1]), int(fields[0])
        else:
            break
        at = end
    first = text[at : text.find("\n", at) + 1 or len(text)].strip()
    separator = next((mark for mark in ",;\t" if mark in first), " ")
    if not first:
        return None, at
    said = None
    if names is None and comments and len(named := _split(comments[-1].lstrip("#% "))) == 4:
        names = named if _named(named) is not None else None
    if names is not None:
        found = _named(names)
        if found is None:
            there = ", ".join(name[:SAID] for name in names[:9])
            raise ValueError(f"its first line names columns {there}; expected t, x, y and p, such as t_us,x,y,p")
        columns, said = found
    else:
        columns = _guessed_order(text[at : text.rfind("\n", at, at + (1 << 16)) + 1 or len(text)], separator)
    said = said or _unit_in(comments)
    if said is None and given is None:
        said = _evident(text[at : at + (1 << 16)], columns[0], separator)
    if said is None and given is None:
        raise ValueError(
            f"it doesn't say the unit of its times, which are like {_split(first)[columns[0]][:SAID]}: give `unit` (us, ms, ns "
            f"or s), or name the columns in a first line such as t_us,x,y,p"
        )
    return Layout(columns, separator, one_unit(said, given), sensor), at


def _split(line: str) -> list[str]:
    """The fields of a line; a unit in brackets stays with its name."""
    mark = next((mark for mark in ",;\t" if mark in line), None)
    fields = line.split(mark) if mark else re.sub(r" ([\[(])", r"\1", " ".join(line.split())).split()
    return [field.strip().strip("\"'") for field in fields]


def _named(names: list[str]) -> tuple[tuple[int, int, int, int], Unit | None] | None:
    """Which columns are t, x, y and p, and the unit of t if its name says it."""
    plain: list[str] = [name.lower() for name in names]
    unit: Unit | None = None
    for k, name in enumerate(plain):
        parts = re.fullmatch(r"([a-z]+)[ _]*[\[(]?([a-zµμ]*)[\])]?", name) if len(name) <= SAID else None
        if parts and parts[1] in COLUMNS["t"] and (not parts[2] or parts[2] in UNITS):
            plain[k] = parts[1]
            if parts[2]:
                unit = UNITS[parts[2]]
    found = [[k for k, name in enumerate(plain) if name in known] for known in COLUMNS.values()]
    if any(len(at) != 1 for at in found):
        return None
    t, x, y, p = (at[0] for at in found)
    return (t, x, y, p), unit


def _unit_in(comments: list[str]) -> Unit | None:
    """The unit that a comment says, as v2e's "Format is time (float s), x, y, polarity"."""
    plain = "\n".join(" ".join(line.split()) for line in comments)
    said = re.search(r"\b(?:time|timestamp|ts|t)s? ?[\[(] ?(?:float |int |in )?([a-zµμ]{1,16}) ?[\])]", plain, re.IGNORECASE)
    return UNITS.get(said[1].lower()) if said else None


def _guessed_order(text: str, separator: str) -> tuple[int, int, int, int]:
    """Where t, x, y and p are among four columns without names. Raises ValueError unless one known order fits, or the first."""
    rows = [_split(line) for line in text.splitlines()[:2000] if line.strip() and line[0] not in "#%"]
    if any(len(row) != 4 for row in rows):
        odd = next(row for row in rows if len(row) != 4)
        raise ValueError(f"expected four columns t x y p, or a first line that names them; found {len(odd)} columns")
    if not all(NUMBER.fullmatch(field) for row in rows for field in row):
        return 0, 1, 2, 3  # the parser names the line
    table = np.array(rows, np.float64)
    fitting = [order for order in ORDERS if _fits(table, order)]
    if not fitting or (len(fitting) > 1 and fitting[0] != ORDERS[0]):
        raise ValueError(
            f"its columns are in no known order (t x y p, x y t p, x y p t), or in several: name them in a first line such as "
            f"t_us,x,y,p; found {' '.join(rows[0])[:SAID]}"
        )
    t, x, y, p = (fitting[0].index(name) for name in "txyp")
    return t, x, y, p


def _fits(table: np.ndarray, order: str) -> bool:
    t, x, y, p = (table[:, order.index(name)] for name in "txyp")
    whole = all((np.floor(a) == a).all() and (a >= 0).all() for a in (x, y))
    return bool(whole and np.isin(p, (-1, 0, 1)).all() and (len(t) < 2 or np.mean(np.diff(t) >= 0) > 0.9))


def _evident(text: str, column: int, separator: str) -> Unit | None:
    """The unit that times themselves show: s if they have six digits after the point, µs or ns if they count from 1970."""
    times = [fields[column] for line in text.splitlines()[:-1] or [text] if len(fields := _split(line)) > column]
    if any("." in t and len(t.rpartition(".")[2]) >= FINE and t.replace(".", "").isdecimal() for t in times):
        return "s"
    for unit, (least, most) in EPOCH.items():
        if times and all(t.isdecimal() and len(t) <= 19 and least <= int(t) < most for t in times):
            return unit
    return None


def _parsed(text: str, layout: Layout, line: int) -> Events:
    import pandas as pd  # slow, so not at the top

    try:
        table = pd.read_csv(
            io.StringIO(text),
            sep=r"\s+" if layout.separator == " " else layout.separator,
            header=None,
            comment="#",
            skipinitialspace=True,
            na_filter=False,
            low_memory=False,
        )
    except (ValueError, OverflowError) as error:  # pandas' ParserError is one
        raise ValueError(f"{_where(text, layout, line)}: expected a line of numbers for each event") from error
    columns = [table[k].to_numpy() for k in layout.columns if k < table.shape[1]]
    if len(columns) < 4 or any(column.dtype.kind not in "iuf" for column in columns):
        raise ValueError(f"{_where(text, layout, line)}: expected a line of numbers for each event")
    t, x, y, p = columns
    others = (integers(*column) for column in (("x", x), ("y", y), ("p", p)))
    return unchecked(microseconds(t, layout.unit or "us"), *others, sensor=layout.sensor)


def _where(text: str, layout: Layout, line: int) -> str:
    """Which line can't be read, and what it is like."""
    for k, row in enumerate(text.splitlines(), line + 1):
        fields = _split(row)
        if (
            row.strip()
            and row[0] not in "#%"
            and not all(column < len(fields) and NUMBER.fullmatch(fields[column]) for column in layout.columns)
        ):
            return f"line {k} is {row[:SAID]!r}"
    return f"the lines from {line + 1} on differ in their fields, or hold what is no number"
