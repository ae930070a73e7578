"""Recordings of event cameras, in the formats of N-MNIST, N-CARS, CIFAR10-DVS, DVS128 Gesture and of one's own camera.

Nothing is allocated on the word of a file alone: one that lies about its size, or whose events would take more memory than
`staa.files.max_bytes`, is refused before it is decoded.
"""

import re
from typing import NamedTuple

import numpy as np

from staa.data.events.aedat4 import AGAIN
from staa.files import check_bytes

Sensor = tuple[int, int]
"""(height, width)"""

LARGEST = 1 << 62  # of a time in µs: differences still fit int64
LARGEST_SENSOR = 1 << 15  # the formats' coordinates have 15 bits at most
EVENT_BYTES = 64  # that reading an event takes at most, with all its copies
SAID = 64  # characters of a header's field in a message
EMPTY = "it holds no events; leave the file out"


class Events(NamedTuple):
    """The events of one recording, in order of time; the arrays are contiguous and writeable.

    Args:
        t: int64, microseconds, never decreasing.
        x: int32, column, from 0 at the left.
        y: int32, row, from 0 at the top as the file has it.
        p: uint8, 1 ON (brighter), 0 OFF.
        sensor: (height, width) if the file, its format or the caller says it, else None.

    Shapes:
        t, x, y, p [n]
    """

    t: np.ndarray
    x: np.ndarray
    y: np.ndarray
    p: np.ndarray
    sensor: Sensor | None


NOTHING = Events(np.zeros(0, np.int64), np.zeros(0, np.int32), np.zeros(0, np.int32), np.zeros(0, np.uint8), None)


def afford(events: int) -> None:
    """Raises ValueError if so many events would take more memory than is allowed."""
    check_bytes(events * EVENT_BYTES, f"{events:,} events")


def checked(events: Events, given: Sensor | None) -> Events:
    t, x, y, p, own = events
    for size in (own, given):
        if size is not None and (len(size) != 2 or not 1 <= min(size) <= max(size) <= LARGEST_SENSOR):
            raise ValueError(f"a sensor must be (height, width), each from 1 to {LARGEST_SENSOR}; found {size}")
    if own and given and tuple(own) != tuple(given):
        raise ValueError(
            f"wrong sensor size: the file says {_size(own)}, {_size(given)} was given; correct it or remove `sensor`"
        )
    if not len(t):
        raise ValueError(EMPTY)
    back = t[1:] < t[:-1]
    if back.any():
        i = int(back.argmax())
        raise ValueError(
            f"time runs backwards by {t[i] - t[i + 1]} µs at event {i + 1} of {len(t)} ({t[i]} µs, then {t[i + 1]} µs): "
            f"the recording is faulty, or of another format than its ending says; sort or cut it, and save it as .npz"
        )
    sensor = own or given
    height, width = sensor or (LARGEST_SENSOR, LARGEST_SENSOR)
    if x.min() < 0 or y.min() < 0 or x.max() >= width or y.max() >= height:
        i = int(((x < 0) | (y < 0) | (x >= width) | (y >= height)).argmax())
        where = f"outside the sensor of {_size(sensor)}" if sensor else "at no pixel"
        raise ValueError(f"event {i} lies at x {x[i]}, y {y[i]}, {where}: give the sensor's true size, or remove such events")
    t, x, y, p = (np.require(a, d, ["C", "A", "W"]) for a, d in ((t, np.int64), (x, np.int32), (y, np.int32), (p, np.uint8)))
    return Events(t, x, y, p, (int(height), int(width)) if sensor else None)


def _size(sensor: Sensor) -> str:
    return f"{sensor[0]} × {sensor[1]} (height × width)"


def polarity(p: np.ndarray) -> np.ndarray:
    """{0, 1} or {-1, 1} as {0, 1}."""
    if p.size and (p.min() < -1 or p.max() > 1 or (p.min() < 0 and not p.all())):
        raise ValueError(f"polarities must be 0 and 1, or -1 and 1; found {', '.join(map(str, np.unique(p)[:5]))}")
    return (p > 0).astype(np.uint8)


def unwrap(t: np.ndarray, bits: int) -> np.ndarray:
    """The times of a counter of so many bits, int64: if it falls by more than half its range it has wrapped."""
    t = t.astype(np.int64)
    wrapped = t[:-1] - t[1:] > 1 << (bits - 1)
    if wrapped.any():
        t[1:] += np.cumsum(wrapped) << bits
    return t


def joined(pieces: list[Events], sensor: Sensor | None) -> Events:
    """The events of pieces that follow one another."""
    if len(pieces) == 1:
        return pieces[0]._replace(sensor=sensor)
    if not pieces:
        return Events(np.empty(0, np.int64), np.empty(0, np.int32), np.empty(0, np.int32), np.empty(0, np.uint8), sensor)
    t, x, y, p = (np.concatenate(column) for column in list(zip(*pieces, strict=True))[:4])
    return Events(t, x, y, p, sensor)


def truncated(rest: int, what: str, size: int) -> str:
    """The message for bytes at the end that are not whole."""
    return f"truncated: the {rest} bytes at its end hold no whole number of {what} of {size} bytes; {AGAIN}"


def records(data: bytes, start: int, dtype: np.dtype, what: str = "events") -> np.ndarray:
    rest = len(data) - start
    if rest % dtype.itemsize:
        raise ValueError(f"truncated: {rest} bytes hold no whole number of {what} of {dtype.itemsize} bytes; {AGAIN}")
    afford(rest // dtype.itemsize if what == "events" else 0)
    return np.frombuffer(data, dtype, rest // dtype.itemsize, start)


def said(header: str, pattern: str) -> str:
    """The first group of the first match, or nothing; of a long one the beginning."""
    match = re.search(pattern, header, re.MULTILINE | re.IGNORECASE)
    return match[1][:SAID] if match else ""
