"""Events in NumPy's files, and whole numbers from such arrays."""

from itertools import chain
from pathlib import Path

import numpy as np

from staa.arrays import read_arrays
from staa.data.events.recording import SAID, Events, afford, integers, polarity, unchecked

SENSOR = ("height", "width", "sensor")
COLUMNS = {
    "t": ("t", "ts", "time", "timestamp", "timestamps"), "x": ("x", "xs"), "y": ("y", "ys"),
    "p": ("p", "ps", "pol", "polarity", "on"),
}  # fmt: skip
"""What arrays and columns are called"""


def read_numpy(path: Path) -> Events:
    """.npz: arrays t (or ts, timestamp; µs), x, y, p (or polarity), or one as in .npy; also height and width, or sensor."""
    arrays = read_arrays(path, _of_events)
    sizes = [integers(name, arrays.pop(name).ravel()[:3]) for name in SENSOR if name in arrays]
    sensor = tuple(np.concatenate(sizes).tolist()) if sizes else None
    events = _from_array(*arrays.values()) if len(arrays) == 1 else _from_columns(arrays)
    return events._replace(sensor=sensor)


def _of_events(names: list[str]) -> set[str]:
    """Those of the names in a .npz that are read: all, or the known ones of more than one beside the sensor."""
    return set(names) if len(set(names).difference(SENSOR)) <= 1 else {*SENSOR, *chain(*COLUMNS.values())}


def _from_array(array: np.ndarray) -> Events:
    """A structured array [n], or [n, 4] of x, y, p and t in milliseconds, as tonic's download of DVS128 Gesture has it.

    Only that plain layout counts in milliseconds (tonic multiplies by 1000 too); times are rounded to whole µs.
    """
    if array.dtype.names:
        return _from_columns({name: array[name] for name in array.dtype.names})
    if array.ndim != 2 or array.shape[1] != 4:
        found = f"shape {list(array.shape)}, dtype {array.dtype}"
        raise ValueError(f"expected fields t, x, y, p, or an array [n, 4] of x, y, p and t in ms; found {found}")
    afford(len(array))
    x, y, p, t = array.T
    return unchecked(integers("t", t, scale=1000), integers("x", x), integers("y", y), polarity(integers("p", p)), None)


def _from_columns(columns: dict[str, np.ndarray]) -> Events:
    found = {}
    for name, names in COLUMNS.items():
        present = [n for n in names if n in columns]
        if len(present) != 1:
            others = ", ".join(name[:SAID] for name in sorted(columns)[:9]) or "none"
            raise ValueError(f"expected one array {' or '.join(names)}, found {others}")
        found[name] = integers(present[0], columns[present[0]])
    afford(max(map(len, found.values())))
    if len({len(a) for a in found.values()}) > 1:
        lengths = ", ".join(f"{name} {len(a)}" for name, a in found.items())
        raise ValueError(f"its arrays must have one entry for each event, and differ in length: {lengths}")
    return unchecked(found["t"], found["x"], found["y"], polarity(found["p"]), None)
