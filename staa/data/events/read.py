"""A recording's events, by the reader of its format."""

from pathlib import Path

import numpy as np

from staa.data.events.aedat import read_aedat, read_packed
from staa.data.events.arrays import read_numpy
from staa.data.events.prophesee import read_dat, read_raw
from staa.data.events.recording import Events, Sensor, checked, records
from staa.files import naming, read_bytes


def read_events(path: Path, sensor: Sensor | None = None) -> Events:
    """The events of a recording, by a reader chosen by the file's ending, and by its header for .aedat and .raw.

        .bin     N-MNIST, N-Caltech101                 .aedat4  iniVation's DV (pip install "staa-snn[events]")
        .dat     Prophesee DAT: N-CARS                 .raw     Prophesee EVT 2.0, EVT 3.0
        .aedat   AEDAT 2.0 of a DVS128: CIFAR10-DVS    .npz     arrays t (µs), x, y, p, or one structured array
                 AEDAT 3.1: DVS128 Gesture             .npy     structured (t in µs), or plain [n, 4]: x, y, p, t in ms

    The plain [n, 4] is tonic's download of DVS128 Gesture, whose times are in milliseconds. A part of an event at the end of an
    AEDAT 2.0 is left out with a warning.

    Args:
        path: The recording's file.
        sensor: (height, width) in pixels, needed if the file doesn't say it; if it does, both must be the same.

    Raises:
        ValueError: If the file's ending is unknown; if it is no regular file, truncated, or not of its format; if it has no
            events, events outside the sensor, time that runs backwards, polarities other than {0, 1} or {-1, 1}, or more events
            than `staa.files.max_bytes` allows. The file is named.
        OSError: If it can't be read.
        ImportError: If the package for packed .aedat4 is missing.
    """
    path = Path(path)
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise ValueError(
            f"{path} is not an event recording that can be read: its name must end in one of {', '.join(READERS)}. "
            f"Convert it, for instance to .npz with arrays t (µs), x, y, p"
        )
    try:
        return checked(reader(path), sensor)
    except ValueError as error:
        raise ValueError(naming(path, error)) from error
    except ImportError as error:
        raise ImportError(f"{path}: {error}") from error


def _bin(path: Path) -> Events:
    """Orchard et al. 2015: 5 bytes an event, x, y, then polarity in bit 23 and time in µs in the others, big-endian.

    An event at y = 240 is none: it adds 2**13 µs to the time of all that follow.
    """
    x, y, high, middle, low = records(read_bytes(path), 0, np.dtype((np.uint8, 5))).T
    overflow, p = y == 240, high >> 7
    t = ((high & 0x7F).astype(np.int64) << 16) + (middle.astype(np.int64) << 8) + low + (np.cumsum(overflow) << 13)
    return Events(*(column[~overflow] for column in (t, x, y, p)), sensor=None)


READERS = {
    ".bin": _bin, ".dat": read_dat, ".aedat": read_aedat, ".aedat4": lambda path: read_packed(read_bytes(path), path),
    ".raw": read_raw, ".npz": read_numpy, ".npy": read_numpy,
}  # fmt: skip
