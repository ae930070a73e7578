"""Events in NumPy's files, and whole numbers from such arrays."""

import math
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import numpy as np

from staa.data.events.named import COLUMNS
from staa.data.events.recording import (
    SAID,
    Columns,
    Events,
    Told,
    Unit,
    check_numbers,
    integers,
    joined,
    microseconds,
    unchecked,
)
from staa.data.events.repair import Repair
from staa.data.events.slices import Slices, open_slices

SLICE = 1 << 17  # events at a time
SENSOR = ("height", "width", "sensor")


def numpy_pieces(path: Path, _: Repair, told: Told) -> Iterator[Events]:
    """.npz: arrays t, x, y, p by one of their names (`COLUMNS`), or one as in .npy; also height and width, or sensor.

    One array is a structured one [n], or [n, 4] of x, y, p and t in milliseconds, as tonic's download of DVS128 Gesture has it.
    Only that plain layout counts in milliseconds (tonic multiplies by 1000 too), all others in µs, unless told otherwise.
    """
    with open_slices(path, _of_events) as arrays:
        sizes = [_sides(name, arrays.pop(name)) for name in SENSOR if name in arrays]
        sensor = tuple(np.concatenate(sizes).tolist()) if sizes else None
        yield joined([], sensor)
        pieces = _by_array(next(iter(arrays.values())), told) if len(arrays) == 1 else _by_columns(arrays, told)
        for t, x, y, p in pieces:
            yield unchecked(t, x, y, p, sensor)


def _sides(name: str, array: Slices) -> np.ndarray:
    if len(array.shape) > 2 or not 1 <= math.prod(array.shape) <= 3:
        raise ValueError(f"{name} must be one number, or height and width, found shape {str(list(array.shape))[:SAID]}")
    return integers(name, array.take(3).ravel())


def _of_events(names: list[str]) -> set[str]:
    """Those of the names in a .npz that are read: all, or the known ones of more than one beside the sensor."""
    return set(names) if len(set(names).difference(SENSOR)) <= 1 else {*SENSOR, *chain(*COLUMNS.values())}


def _by_array(array: Slices, told: Told) -> Iterator[Columns]:
    names = array.dtype.names
    if names:
        chosen = _chosen({name: (array.shape, array.dtype[name]) for name in names})
    elif len(array.shape) != 2 or array.shape[1] != 4:
        found = f"shape {list(array.shape)}, dtype {array.dtype}"
        raise ValueError(f"expected fields t, x, y, p, or an array [n, 4] of x, y, p and t in ms; found {found}")
    for first in range(0, array.length, SLICE):
        part = array.take(SLICE)
        if names:
            yield _whole(chosen, {name: part[name] for name in chosen.values()}, first, told.unit)
        else:
            x, y, p, t = part.T
            yield (
                microseconds(t, told.unit or "ms", first),
                *(integers(*column, first) for column in (("x", x), ("y", y), ("p", p))),
            )


def _by_columns(arrays: dict[str, Slices], told: Told) -> Iterator[Columns]:
    chosen = _chosen({name: (array.shape, array.dtype) for name, array in arrays.items()})
    lengths = {name: arrays[here].length for name, here in chosen.items()}
    if len(set(lengths.values())) > 1:
        each = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise ValueError(f"its arrays must have one entry for each event, and differ in length: {each}")
    for first in range(0, lengths["t"], SLICE):
        yield _whole(chosen, {name: arrays[name].take(SLICE) for name in chosen.values()}, first, told.unit)


def _whole(chosen: dict[str, str], columns: dict[str, np.ndarray], first: int, unit: Unit | None) -> Columns:
    """t, x, y, p, whole; t is in µs unless a unit is told."""
    t, *others = (columns[name] for name in chosen.values())
    name, *names = chosen.values()
    t = integers(name, t, first) if unit is None else microseconds(t, unit, first)
    return t, *(integers(*column, first) for column in zip(names, others, strict=True))


def _chosen(columns: dict[str, tuple[tuple[int, ...], np.dtype]]) -> dict[str, str]:
    """t, x, y, p -> the name of the column, of names with their shapes and types."""
    found = {}
    for name, names in COLUMNS.items():
        present = [n for n in names if n in columns]
        if len(present) != 1:
            others = ", ".join(name[:SAID] for name in sorted(columns)[:9]) or "none"
            raise ValueError(f"expected one array {' or '.join(names)}, found {others}")
        found[name] = present[0]
    for name in found.values():
        check_numbers(name, *columns[name])
    return found
