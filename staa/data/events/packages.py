"""Recordings that a package reads, in a process of its own: HDF5."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from staa.data.events.apart import pieces_apart
from staa.data.events.recording import Events, Told, integers, microseconds, one_unit, unchecked
from staa.data.events.repair import Repair


def package_pieces(reader: str, library: str, path: Path, _: Repair, told: Told) -> Iterator[Events]:
    """The events of a file, in pieces.

    reader: the module beside this one that runs in the other process (`apart`). library: what it reads with, in words.

    Raises ValueError for a file that is none, broken, or takes too much memory, and if no unit is known; ImportError if a
    package is missing.
    """
    script = str(Path(__file__).with_name(f"{reader}.py"))
    for about, (t, x, y, p) in pieces_apart(script, path, library=library, stream=told.stream):
        t = microseconds(t, one_unit(about.get("unit"), told.unit))
        sensor = about.get("sensor")
        others = (integers(*column) for column in (("x", x), ("y", y), ("p", p)))
        yield unchecked(t, *others, sensor=tuple(sensor) if sensor else None)


hdf5_pieces = partial(package_pieces, "hdf", "HDF5")
