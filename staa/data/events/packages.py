"""Recordings that a package reads, in a process of its own: HDF5."""

from collections.abc import Iterator
from pathlib import Path

from staa.data.events.apart import pieces_apart
from staa.data.events.recording import Events, Unit, integers, microseconds, one_unit, polarity, unchecked


def read_hdf5(path: Path, *, unit: Unit | None = None, stream: str | None = None) -> Iterator[Events]:
    """The events of an HDF5 file, of a layout that `hdf` knows, in pieces.

    unit: of times whose unit the layout doesn't say. stream: which one of several recordings, by its name.

    Raises ValueError for a file that is none, broken, or takes too much memory, and if no unit is known; ImportError if a
    package is missing.
    """
    from staa.data.events import hdf

    for about, (t, x, y, p) in pieces_apart(hdf.__file__, path, library="HDF5", stream=stream):
        t = microseconds(t, one_unit(about.get("unit"), unit))
        sensor = about.get("sensor")
        yield unchecked(t, integers("x", x), integers("y", y), polarity(integers("p", p)), tuple(sensor) if sensor else None)
