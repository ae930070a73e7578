"""Recordings of event cameras, in the formats of N-MNIST, N-CARS, CIFAR10-DVS, DVS128 Gesture and of one's own camera.

Nothing is allocated on the word of a file alone: one that lies about its size, or whose events would take more memory than
`staa.files.max_bytes`, is refused before it is decoded.
"""

import re
from typing import NamedTuple

import numpy as np

from staa.files import check_bytes

Sensor = tuple[int, int]
"""(height, width)"""

Columns = tuple[np.ndarray, ...]

LARGEST = 1 << 62  # of a time in µs: differences still fit int64
LARGEST_SENSOR = 1 << 15  # the formats' coordinates have 15 bits at most
EVENT_BYTES = 64  # that reading an event takes at most, with all its copies
SAID = 64  # characters of a header's field in a message
AGAIN = "copy or download it again"
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


def joined(pieces: list[Events], sensor: Sensor | None) -> Events:
    """The events of pieces that follow one another."""
    pieces = [piece for piece in pieces if len(piece.t)]
    if len(pieces) == 1:
        return pieces[0]._replace(sensor=sensor)
    if not pieces:
        return Events(np.empty(0, np.int64), np.empty(0, np.int32), np.empty(0, np.int32), np.empty(0, np.uint8), sensor)
    t, x, y, p = (np.concatenate(column) for column in list(zip(*pieces, strict=True))[:4])
    return Events(t, x, y, p, sensor)


def truncated(rest: int, what: str, size: int) -> str:
    """The message for bytes at the end that are not whole."""
    return f"truncated: the {rest} bytes at its end hold no whole number of {what} of {size} bytes; {AGAIN}"


def said(header: str, pattern: str) -> str:
    """The first group of the first match, or nothing; of a long one the beginning."""
    match = re.search(pattern, header, re.MULTILINE | re.IGNORECASE)
    return match[1][:SAID] if match else ""
