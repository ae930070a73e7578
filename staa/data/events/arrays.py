"""Events in NumPy's files, and whole numbers from such arrays."""

from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import numpy as np

from staa.data.events.recording import LARGEST, SAID, Columns, Events, joined
from staa.data.events.repair import Repair
from staa.data.events.slices import Slices, open_slices

SLICE = 1 << 16  # events at a time
SENSOR = ("height", "width", "sensor")
COLUMNS = {"t": ("t", "ts", "timestamp"), "x": ("x",), "y": ("y",), "p": ("p", "polarity")}


def numpy_pieces(path: Path, _: Repair) -> Iterator[Events]:
    """.npz: arrays t (or ts, timestamp; µs), x, y, p (or polarity), or one as in .npy; also height and width, or sensor.

    One array is a structured one [n], or [n, 4] of x, y, p and t in milliseconds, as tonic's download of DVS128 Gesture has it.
    Only that plain layout counts in milliseconds (tonic multiplies by 1000 too); times are rounded to whole µs.
    """
    with open_slices(path, _of_events) as arrays:
        sizes = [integers(name, arrays.pop(name).take(3).ravel()[:3]) for name in SENSOR if name in arrays]
        sensor = tuple(np.concatenate(sizes).tolist()) if sizes else None
        yield joined([], sensor)
        pieces = _by_array(next(iter(arrays.values()))) if len(arrays) == 1 else _by_columns(arrays)
        for t, x, y, p in pieces:
            yield Events(t, x, y, p, sensor)


def _of_events(names: list[str]) -> set[str]:
    """Those of the names in a .npz that are read: all, or the known ones of more than one beside the sensor."""
    return set(names) if len(set(names).difference(SENSOR)) <= 1 else {*SENSOR, *chain(*COLUMNS.values())}


def _by_array(array: Slices) -> Iterator[Columns]:
    names = array.dtype.names
    if names:
        chosen = _chosen({name: (array.shape, array.dtype[name]) for name in names})
    elif len(array.shape) != 2 or array.shape[1] != 4:
        found = f"shape {list(array.shape)}, dtype {array.dtype}"
        raise ValueError(f"expected fields t, x, y, p, or an array [n, 4] of x, y, p and t in ms; found {found}")
    for first in range(0, array.length, SLICE):
        part = array.take(SLICE)
        if names:
            yield tuple(integers(name, part[name], first) for name in chosen.values())
        else:
            x, y, p, t = part.T
            yield integers("t", t, first, scale=1000), *(integers(*column, first) for column in (("x", x), ("y", y), ("p", p)))


def _by_columns(arrays: dict[str, Slices]) -> Iterator[Columns]:
    chosen = _chosen({name: (array.shape, array.dtype) for name, array in arrays.items()})
    lengths = {name: arrays[here].length for name, here in chosen.items()}
    if len(set(lengths.values())) > 1:
        told = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise ValueError(f"its arrays must have one entry for each event, and differ in length: {told}")
    for first in range(0, lengths["t"], SLICE):
        yield tuple(integers(name, arrays[name].take(SLICE), first) for name in chosen.values())


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
        _check_numbers(name, *columns[name])
    return found


def _check_numbers(name: str, shape: tuple[int, ...], dtype: np.dtype) -> None:
    if len(shape) != 1 or dtype.kind not in "biuf":
        raise ValueError(f"{name} must have one number for each event; found shape {list(shape)}, dtype {dtype}")


def integers(name: str, values: np.ndarray, first: int = 0, *, scale: int = 1) -> np.ndarray:
    """values × scale as int64; with a scale, rounded. first: the number of the first event, for messages.

    Raises ValueError for what is no list of whole, finite numbers.
    """
    _check_numbers(name, values.shape, values.dtype)
    kind = values.dtype.kind
    bad = ~np.isfinite(values) if kind == "f" else np.zeros(0, bool)
    if kind == "f" and scale == 1 and not bad.any():
        bad = np.floor(values) != values
    if bad.any():
        i = int(bad.argmax())
        raise ValueError(f"{name} must be whole, finite numbers (times in µs), found {values[i]} at event {first + i}")
    if values.size and max(-int(values.min()), int(values.max())) > LARGEST // scale:
        raise ValueError(f"{name} must be within ±2**62, found {values.min()} to {values.max()}")
    if scale == 1:
        return values.astype(np.int64)
    return np.rint(values.astype(np.float64) * scale).astype(np.int64) if kind == "f" else values.astype(np.int64) * scale
