"""Recordings of event cameras, in the formats of N-MNIST, N-CARS, CIFAR10-DVS, DVS128 Gesture and of one's own camera.

Nothing is allocated on the word of a file alone: one that lies about its size, or whose events would take more memory than
`staa.files.max_bytes`, is refused before it is decoded.
"""

import re
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from staa.data.events.repair import How, Repair
from staa.files import check_bytes

Sensor = tuple[int, int]
"""(height, width)"""

Columns = tuple[np.ndarray, ...]

Unit = Literal["s", "ms", "us", "ns"]
"""Of times"""
TICKS: dict[str, int] = {"s": 1_000_000, "ms": 1000, "us": 1}
"""µs"""


class Told(NamedTuple):
    """What a file may leave open, from the caller: the unit of its times, which one of its recordings, whether an AEDAT 2.0 of
    a DVS128 is turned upright, and the sensor; and what is done about wrong events."""

    unit: Unit | None = None
    stream: str | None = None
    upright: bool = False
    sensor: Sensor | None = None
    repair: How = "refuse"


LARGEST = (1 << 62) - 1  # of a time in µs: differences still fit int64
LARGEST_SENSOR = 1 << 15  # the formats' coordinates have 15 bits at most
EVENT_BYTES = 64  # that reading an event takes at most, with all its copies
SAID = 64  # characters of a header's field in a message
AGAIN = "copy or download it again"
EMPTY = "it holds no events; leave the file out"


class _Columns(NamedTuple):
    t: np.ndarray
    x: np.ndarray
    y: np.ndarray
    p: np.ndarray
    sensor: Sensor | None


class Events(_Columns):
    """The events of one recording, in order of time; the arrays are contiguous and writeable.

    A call checks them and converts them to the types below, without a copy if they have them. Readers, whose pieces are checked
    later, take `unchecked`.

    Args:
        t: int64, microseconds, never decreasing.
        x: int32, column, from 0 at the left.
        y: int32, row, from 0 at the top as the file has it.
        p: uint8, 1 ON (brighter), 0 OFF; given as 0 and 1, -1 and 1, or bool.
        sensor: (height, width) if the file, its format or the caller says it, else None.

    Shapes:
        t, x, y, p [n]; n may be 0

    Raises:
        ValueError: If they are no lists of so many whole numbers each, if time runs backwards, if polarities are others, or if
            events lie outside the sensor.
    """

    __slots__ = ()

    def __new__(cls, t: ArrayLike, x: ArrayLike, y: ArrayLike, p: ArrayLike, sensor: Sensor | None = None) -> "Events":
        columns = [_whole(name, np.asarray(values)) for name, values in zip("txyp", (t, x, y, p), strict=True)]
        if len({len(column) for column in columns}) > 1:
            found = ", ".join(f"{name} {len(column)}" for name, column in zip("txyp", columns, strict=True))
            raise ValueError(f"t, x, y and p must have one entry for each event, and differ in length: {found}")
        from staa.data.events.check import Check

        return Check(sensor, Repair()).feed(unchecked(*columns, sensor=None))


def unchecked(t: np.ndarray, x: np.ndarray, y: np.ndarray, p: np.ndarray, sensor: Sensor | None) -> Events:
    """Events as they are, for readers: nothing is looked at. (`_make` and `_replace` don't look either.)"""
    return Events._make((t, x, y, p, sensor))


NOTHING = unchecked(np.zeros(0, np.int64), np.zeros(0, np.int32), np.zeros(0, np.int32), np.zeros(0, np.uint8), None)


def afford(events: int) -> None:
    """Raises ValueError if so many events would take more memory than is allowed."""
    check_bytes(events * EVENT_BYTES, f"{events:,} events")


def _whole(name: str, values: np.ndarray) -> np.ndarray:
    """What `integers` gives, without a copy of what is small and whole already."""
    small = values.ndim == 1 and values.dtype.kind in "iu" and values.dtype.itemsize <= 4
    return values if small else integers(name, values)


def check_numbers(name: str, shape: tuple[int, ...], dtype: np.dtype) -> None:
    if len(shape) != 1 or dtype.kind not in "biuf":
        raise ValueError(f"{name} must have one number for each event; found shape {list(shape)}, dtype {dtype}")


def integers(name: str, values: np.ndarray, first: int = 0, *, scale: int = 1) -> np.ndarray:
    """values × scale as int64; with a scale, rounded. first: the number of the first event, for messages.

    Raises ValueError for what is no list of whole, finite numbers.
    """
    check_numbers(name, values.shape, values.dtype)
    kind = values.dtype.kind
    bad = ~np.isfinite(values) if kind == "f" else np.zeros(0, bool)
    if kind == "f" and scale == 1 and not bad.any():
        bad = np.floor(values) != values
    if bad.any():
        i = int(bad.argmax())
        unit = " of µs" if name.startswith("t") else ""
        hint = ": multiply seconds by 1e6 and round them" if unit and np.isfinite(values[i]) else ""
        raise ValueError(f"{name} must be whole, finite numbers{unit}, found {values[i]} at event {first + i}{hint}")
    if values.size and max(-int(values.min()), int(values.max())) > LARGEST // scale:
        raise ValueError(f"{name} must be within ±2**62, found {values.min()} to {values.max()}")
    if scale == 1:
        return values.astype(np.int64, copy=False)
    return np.rint(values.astype(np.float64) * scale).astype(np.int64) if kind == "f" else values.astype(np.int64) * scale


def check_unit(unit: str | None) -> None:
    if unit not in (None, "ns", *TICKS):
        raise ValueError(f"`unit` must be us, ms, ns or s, got {unit!r}")


def one_unit(said: Unit | None, given: Unit | None) -> Unit:
    """The unit of a file's times, from the file or else the caller. Raises ValueError if neither says it, or they differ."""
    unit = said or given
    if unit is None:
        raise ValueError("the file doesn't say the unit of its times: give `unit`, one of us, ms, ns and s")
    if given is not None and given != unit:
        raise ValueError(f"the file's times are in {unit}, and `unit` says {given}: remove `unit`")
    return unit


def microseconds(values: np.ndarray, unit: Unit, first: int = 0) -> np.ndarray:
    """Times as int64 µs: fractions are rounded, and of nanoseconds cut off. first: as for `integers`, which raises."""
    if values.dtype.kind == "f" and unit in ("us", "ns"):
        values = np.rint(values) if unit == "us" else np.floor(values)
    return integers("t", values, first) // 1000 if unit == "ns" else integers("t", values, first, scale=TICKS[unit])


def joined(pieces: list[Events], sensor: Sensor | None) -> Events:
    """The events of pieces that follow one another."""
    pieces = [piece for piece in pieces if len(piece.t)]
    if len(pieces) == 1:
        return pieces[0]._replace(sensor=sensor)
    if not pieces:
        return NOTHING._replace(sensor=sensor)
    t, x, y, p = (np.concatenate(column) for column in list(zip(*pieces, strict=True))[:4])
    return unchecked(t, x, y, p, sensor)


def part_of(events: Events, which: slice | np.ndarray) -> Events:
    """Those of the events that a slice, a mask or numbers choose."""
    return unchecked(*(column[which] for column in events[:4]), sensor=events.sensor)


def between(events: Events, start: int, end: int) -> Events:
    """Those from start to before end, in µs, of events in order of time."""
    return part_of(events, slice(*np.searchsorted(events.t, (start, end))))


def truncated(rest: int, what: str, size: int) -> str:
    """The message for bytes at the end that are not whole."""
    return f"truncated: the {rest} bytes at its end hold no whole number of {what} of {size} bytes; {AGAIN}"


def said(header: str, pattern: str) -> str:
    """The first group of the first match, or nothing; of a long one the beginning."""
    match = re.search(pattern, header, re.MULTILINE | re.IGNORECASE)
    return match[1][:SAID] if match else ""
