"""A recording's events, by the reader of its format."""

import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

from staa.data.events.arrays import numpy_pieces
from staa.data.events.check import Check
from staa.data.events.decoders import DECODERS, aedat_format, raw_format
from staa.data.events.recording import EMPTY, Events, Sensor, afford, joined
from staa.data.events.repair import How, Repair
from staa.files import naming, pieces_of

PIECE = 1 << 18  # bytes of a file at a time


def read_events(path: Path, sensor: Sensor | None = None, *, repair: How = "refuse") -> Events:
    """The events of a recording, by a reader chosen by the file's ending, and by its header for .aedat and .raw.

        .bin     N-MNIST, N-Caltech101                 .aedat4  iniVation's DV (pip install "staa-snn[events]")
        .dat     Prophesee DAT: N-CARS                 .raw     Prophesee EVT 2.0, EVT 3.0
        .aedat   AEDAT 2.0 of a DVS128: CIFAR10-DVS    .npz     arrays t (µs), x, y, p, or one structured array
                 AEDAT 3.1: DVS128 Gesture             .npy     structured (t in µs), or plain [n, 4]: x, y, p, t in ms

    The plain [n, 4] is tonic's download of DVS128 Gesture, whose times are in milliseconds. A part of an event at the end of an
    AEDAT 2.0 is left out with a warning.

    A counter of time that falls has wrapped only if it is less than 4.2 s on since the word before; a time that agrees with
    none beside it is stray.

    Args:
        path: The recording's file.
        sensor: (height, width) in pixels, needed if the file doesn't say it; if it does, both must be the same.
        repair: "refuse" raises for what is wrong; "drop" leaves out stray times, events outside the sensor or of unknown
            polarity, and as few events as possible of those back in time; "sort" puts the latter in their place. A warning says
            what was left out or moved.

    Raises:
        ValueError: If the file's ending is unknown; if it is no regular file, truncated, or not of its format; if it has no
            events or more than `staa.files.max_bytes` allows; and, unless that is repaired, if it has events outside the
            sensor, time that runs backwards, stray times or polarities other than {0, 1} or {-1, 1}. The file is named.
        OSError: If it can't be read.
        ImportError: If the package for packed .aedat4 is missing.
    """
    path, count, pieces = Path(path), 0, []
    how = Repair(repair, path)
    for piece in read_pieces(path, sensor, how):
        count += len(piece.t)
        try:
            afford(count)
        except ValueError as error:
            raise ValueError(naming(path, error)) from error
        pieces.append(piece)
    if str(how):
        warnings.warn(f"{path}: {how.told()}", stacklevel=2)
    return joined(pieces, pieces[-1].sensor)


def read_pieces(path: Path, sensor: Sensor | None, repair: Repair) -> Iterator[Events]:
    """The events piece by piece, as `read_events` gives them; about a quarter of a million at a time, unless they are sorted.

    Raises as `read_events` does.
    """
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise ValueError(
            f"{path} is not an event recording that can be read: its name must end in one of {', '.join(READERS)}. "
            f"Convert it, for instance to .npz with arrays t (µs), x, y, p"
        )
    try:
        check, any_event = Check(sensor, repair), False
        for piece in reader(path, repair):
            events = check.feed(piece)
            if len(events.t):
                any_event = True
                yield events
        events = check.end()
        if len(events.t):
            yield events
        elif not any_event:
            raise ValueError(EMPTY)
    except ValueError as error:
        raise ValueError(naming(path, error)) from error
    except ImportError as error:
        raise ImportError(f"{path}: {error}") from error


def _decoded(choose: Callable[[bytes], str]) -> Callable[[Path, Repair], Iterator[Events]]:
    """Reads a file through the decoder that is chosen by its first bytes."""

    def pieces(path: Path, repair: Repair) -> Iterator[Events]:
        decoder = None
        for data in pieces_of(path, PIECE):
            decoder = decoder or DECODERS[choose(data)](repair)
            yield decoder.feed(data)
        decoder = decoder or DECODERS[choose(b"")](repair)
        yield decoder.end()

    return pieces


READERS: dict[str, Callable[[Path, Repair], Iterator[Events]]] = {
    ".bin": _decoded(lambda _: "bin"), ".dat": _decoded(lambda _: "dat"), ".aedat": _decoded(aedat_format),
    ".aedat4": _decoded(lambda _: "aedat4"), ".raw": _decoded(raw_format), ".npz": numpy_pieces, ".npy": numpy_pieces,
}  # fmt: skip
"""By the file's ending: the events of its pieces, as they are."""
