"""A recording that comes in pieces as frames: in one go if it is short, else piece by piece."""

from collections.abc import Callable, Iterator
from itertools import chain

import numpy as np

from staa.data.events.frames import Counts, Fit, UnsuitedError, borders_of, by_number, check_steps, count, time_begins
from staa.data.events.recording import Events, Sensor, joined

AT_ONCE = 1 << 20  # events that are held


def binned(
    read: Callable[[], Iterator[Events]],
    steps: int,
    *,
    by: str = "number",
    window: int | None = None,
    size: int | None = None,
    fit: Fit = "stretch",
    origin: int | None = None,
) -> np.ndarray:
    """Counts [T, 2, size, size] of a recording, uint8 if they fit, else int32; the same, however it is cut into pieces.

    read: gives the pieces, in order of time. They are read once if they are few events or cut by windows, else twice: their
    number and last time must be known first.

    Raises ValueError if there are too few events, UnsuitedError if a setting doesn't suit the recording.
    """
    pieces, held = read(), []
    for piece in pieces:
        held.append(piece)
        if sum(len(piece.t) for piece in held) > AT_ONCE:
            break
    else:
        events = joined(held, held[-1].sensor if held else None)
        shape = _shape(events.sensor, size, fit)
        return _packed(count(events, borders_of(events, steps, by=by, window=window, origin=origin), size=shape, fit=fit))
    counts = Counts(held[0].sensor, steps, size=_shape(held[0].sensor, size, fit), fit=fit)
    first = int(held[0].t[0])
    pieces = chain(held, pieces)
    del held
    if window is not None:
        start = first if origin is None else origin
        for piece in pieces:
            counts.add(piece, borders_of(piece, steps, window=window, origin=start))
        return _packed(counts.frames())
    n = 0
    for piece in pieces:
        n, last = n + len(piece.t), int(piece.t[-1])
    check_steps(n, steps, by=by)
    at, borders, begins = 0, by_number(n, steps), time_begins(first, last, steps)
    for piece in read():
        m = len(piece.t)
        inside = np.clip(borders - at, 0, m) if by == "number" else np.append(np.searchsorted(piece.t, begins), m)
        counts.add(piece, inside)
        at += m
    return _packed(counts.frames())


def _shape(sensor: Sensor | None, size: int | None, fit: Fit) -> tuple[int, int] | None:
    if size is None and sensor is not None and fit == "keep":
        size = max(sensor)
    if size is None and sensor is not None and sensor[0] != sensor[1]:
        raise UnsuitedError(
            f"frames must be square, but the sensor is {sensor[0]} × {sensor[1]}: give the frames a size with `data.size`, or "
            f"let them keep its shape with `data.fit=keep`"
        )
    return None if size is None else (size, size)


def _packed(frames: np.ndarray) -> np.ndarray:
    return frames.astype(np.uint8) if frames.max() < 256 else frames
