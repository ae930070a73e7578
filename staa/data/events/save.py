"""Recordings written as .npz, piece by piece."""

import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from shutil import copyfileobj
from typing import IO, NamedTuple

import numpy as np

from staa.data.events.recording import Events, Sensor, between
from staa.files import writing

COLUMNS = {"t": np.int64, "x": np.int16, "y": np.int16, "p": np.uint8}


class Saved(NamedTuple):
    """How many events, from which time to which, in µs, of which sensor."""

    count: int
    first: int
    last: int
    sensor: Sensor | None


def save_pieces(path: Path, pieces: Iterator[Events]) -> Saved:
    """Write a recording as a .npz with t (µs), x, y, p and, if they are known, height and width: what `numpy.load` and
    `staa.data.read_events` read. What is held is a piece; the columns go through files of the system's temporary folder.

    Raises what the pieces raise, ValueError if there are no events, RuntimeError if it can't be written; then nothing is there.
    """
    try:
        return _save(path, pieces)
    except OSError as error:
        if error.filename is not None:  # of what is read
            raise
        why = f"{error.strerror or error}; its columns go through {tempfile.gettempdir()}, name a larger folder with TMPDIR"
        raise RuntimeError(f"could not write {path}: {why}") from error


def _save(path: Path, pieces: Iterator[Events]) -> Saved:
    count, first, last, sensor = 0, 0, 0, None
    with ExitStack() as opened:
        columns: dict[str, IO[bytes]] = {name: opened.enter_context(tempfile.TemporaryFile()) for name in COLUMNS}
        for piece in pieces:
            if len(piece.t):
                first, last, sensor = int(piece.t[0]) if not count else first, int(piece.t[-1]), piece.sensor
                count += len(piece.t)
                for name, dtype in COLUMNS.items():
                    columns[name].write(getattr(piece, name).astype(dtype).tobytes())
        if not count:
            raise ValueError("no events are left of it")
        path.parent.mkdir(parents=True, exist_ok=True)
        with writing(path, new=True) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
            for name, dtype in COLUMNS.items():
                columns[name].seek(0)
                with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                    header = {"descr": np.lib.format.dtype_to_descr(np.dtype(dtype)), "fortran_order": False, "shape": (count,)}
                    np.lib.format.write_array_header_1_0(member, header)
                    copyfileobj(columns[name], member, 1 << 20)
            for name, side in zip(("height", "width"), sensor or (), strict=False):
                with archive.open(f"{name}.npy", "w") as member:
                    np.lib.format.write_array(member, np.array(side))
    return Saved(count, first, last, sensor)


def cut(pieces: Iterator[Events], start: float, end: float) -> Iterator[Events]:
    """The events from `start` to before `end` seconds after the first one. What comes later is not read."""
    borders = None
    for piece in pieces:
        if borders is None:
            borders = [int(piece.t[0]) + round(1e6 * at) for at in (start, end)]
        yield between(piece, *borders)
        if piece.t[-1] >= borders[1]:
            return
