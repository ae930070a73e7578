"""A recording's events, by the reader of its format."""

import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

from staa.data.events.aedat import Aedat2
from staa.data.events.aedat4 import Aedat4
from staa.data.events.arrays import numpy_pieces
from staa.data.events.check import Check
from staa.data.events.decoders import DECODERS, Decoder, aedat_format, raw_format
from staa.data.events.packages import bag_pieces, es_pieces, hdf5_pieces
from staa.data.events.recording import EMPTY, Events, Sensor, Told, Unit, afford, check_unit, joined
from staa.data.events.repair import How, Repair
from staa.data.events.text import text_pieces
from staa.files import naming, pieces_of

Reader = Callable[[Path, Repair, Told], Iterator[Events]]
SEVERAL = (".aedat4", ".h5", ".hdf5", ".bag")
"""Endings of files that may hold several recordings"""
PIECE = 1 << 19  # bytes of a file at a time


def read_events(
    path: Path,
    sensor: Sensor | None = None,
    *,
    repair: How = "refuse",
    unit: Unit | None = None,
    stream: str | None = None,
    upright: bool = False,
) -> Events:
    """The events of a recording, by a reader chosen by the file's ending, and by its header for .aedat and .raw.

        .bin     N-MNIST, N-Caltech101                     .aedat4    iniVation's DV
        .dat     Prophesee DAT: N-CARS                     .h5 .hdf5  Metavision, DSEC, MVSEC, E2VID, v2e
        .raw     Prophesee EVT 2.0, 2.1, 3.0               .txt .csv  t, x, y, p in each line
        .aedat   AEDAT 2.0 of a DVS128, a DAVIS or v2e:    .npz       arrays t (µs), x, y, p, or one structured array
                 CIFAR10-DVS; 3.1: DVS128 Gesture          .npy       structured (t in µs), or plain [n, 4]: x, y, p, t in ms

        .bag     ROS 1: dvs_msgs, prophesee_event_msgs     .es        Event Stream of a DVS or ATIS

    HDF5, ROS bags, Event Stream and packed .aedat4 need packages: pip install "staa-snn[events]". The plain [n, 4] is tonic's
    download of DVS128 Gesture, whose times are in milliseconds. A part of an event at the end of an AEDAT 2.0 is left out with
    a warning.

    A counter of time that falls has wrapped only if it is less than 4.2 s on since the word before; a time that agrees with
    none beside it is stray.

    Args:
        path: The recording's file.
        sensor: (height, width) in pixels, needed if the file doesn't say it; if it does, both must be the same.
        repair: "refuse" raises for what is wrong; "drop" leaves out stray times, events outside the sensor or of unknown
            polarity, and as few events as possible of those back in time; "sort" puts the latter in their place. A warning says
            what was left out or moved.
        unit: Of the times, "us", "ms", "ns" or "s", of text, arrays and HDF5. Text and some HDF5 need it unless they say it;
            arrays are in µs, a plain [n, 4] in ms.
        stream: Which of a file's recordings: of .aedat4 a number, of HDF5 a name such as davis/left/events, of a bag a topic.
        upright: Turn an AEDAT 2.0 of a DVS128 upright, as jAER shows it. Without it, it is as in published work on CIFAR10-DVS:
            transposed. Other formats are upright anyway.

    Raises:
        ValueError: If the file's ending is unknown; if its unit or stream must be told; if it is no regular file, truncated, or
            not of its format; if it has no events or more than `staa.files.max_bytes` allows; and, unless that is repaired, if
            it has events outside the sensor, time that runs backwards, stray times or polarities other than {0, 1} or {-1, 1}.
            The file is named.
        OSError: If it can't be read.
        ImportError: If a package that the file needs is missing.
    """
    return read_told(Path(path), sensor, Told(unit, stream, upright, repair=repair))


def read_told(path: Path, sensor: Sensor | None, told: Told) -> Events:
    """What `read_events` gives, with what it is told in one."""
    count, pieces = 0, []
    repair = Repair(told.repair, path)
    for piece in read_pieces(path, sensor, repair, told):
        count += len(piece.t)
        try:
            afford(count)
        except ValueError as error:
            raise ValueError(naming(path, error)) from error
        pieces.append(piece)
    if repair.repaired():
        warnings.warn(f"{path}: {repair.told()}", stacklevel=3)
    return joined(pieces, pieces[-1].sensor)


def read_pieces(path: Path, sensor: Sensor | None, repair: Repair, told: Told | None = None) -> Iterator[Events]:
    """The events piece by piece, as `read_events` gives them; about a quarter of a million at a time, unless they are sorted.

    Raises as `read_events` does.
    """
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise ValueError(
            f"{path} is not an event recording that can be read: its name must end in one of {', '.join(READERS)}. "
            f"Convert it, for instance to .npz with arrays t (µs), x, y, p"
        )
    told = told or Told()
    check_unit(told.unit)
    try:
        if told.stream is not None and path.suffix.lower() not in SEVERAL:
            raise ValueError(f"it holds one recording, so `stream` must be None, got {told.stream!r}")
        check, any_event = Check(sensor, repair), False
        for piece in reader(path, repair, told._replace(sensor=sensor or told.sensor)):
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


def _decoded(choose: Callable[[bytes], str]) -> Reader:
    """Reads a file through the decoder that is chosen by its first bytes."""

    def pieces(path: Path, repair: Repair, told: Told) -> Iterator[Events]:
        decoder = None
        for data in pieces_of(path, PIECE):
            decoder = decoder or decoder_of(choose(data), repair, told)
            yield decoder.feed(data)
        decoder = decoder or decoder_of(choose(b""), repair, told)
        yield decoder.end()

    return pieces


def decoder_of(name: str, repair: Repair, told: Told) -> Decoder:
    """The decoder of a format in `DECODERS`, with what it is told."""
    if name == "aedat2":
        return Aedat2(repair, upright=told.upright, sensor=told.sensor)
    return Aedat4(repair, stream=told.stream) if name == "aedat4" else DECODERS[name](repair)


READERS: dict[str, Reader] = {
    ".bin": _decoded(lambda _: "bin"), ".dat": _decoded(lambda _: "dat"), ".aedat": _decoded(aedat_format),
    ".aedat4": _decoded(lambda _: "aedat4"), ".raw": _decoded(raw_format), ".npz": numpy_pieces, ".npy": numpy_pieces,
    ".h5": hdf5_pieces, ".hdf5": hdf5_pieces, ".txt": text_pieces, ".csv": text_pieces,
    ".bag": bag_pieces, ".es": es_pieces,
}  # fmt: skip
"""By the file's ending: the events of its pieces, as they are."""
