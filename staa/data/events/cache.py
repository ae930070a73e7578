"""Recordings on disk, binned once and kept as frames beside them."""

import hashlib
import io
import json
import os
import re
import zlib
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from staa.arrays import parse_array
from staa.counting import counted
from staa.data.events.frames import Fit, UnsuitedError, borders_of, count
from staa.data.events.read import read_events
from staa.data.events.recording import Events
from staa.files import check_bytes, read_bytes, write

Frames = Literal["number", "time", "window"]

CACHE_VERSION = 2  # of how recordings are read and binned, and of the files that keep their frames
CHECKSUM = 4  # bytes after the array


class EventFiles:
    """Recordings on disk as counts [N, T, 2, size, size], uint8 if they fit, else int32.

    recordings: paths, "PATH#START-END" being the events of a file from START to before END, in µs.
    by: "number", "time" or "window" of so many µs; of windows there are always `steps`: a longer recording is cut off there, a
    shorter one ends in empty frames. sensor: (height, width) of recordings that don't say it, and what the others must have.
    size: None keeps the sensor's, which must be square. fit: "keep" keeps the sensor's shape, in the middle of the frame.
    from_start: windows of an interval are counted from its start, not from its first event.

    What was binned once is read from `cache` afterwards: one file per recording and setting, named by a hash of both (path
    under root, length and time of the file): a .npy and its CRC-32, 4 bytes, little-endian. A file is written whole or not at
    all, so processes may share the folder; one that is broken is made anew.
    """

    def __init__(
        self,
        recordings: Sequence[str],
        *,
        root: Path,
        cache: Path,
        steps: int,
        by: Frames = "number",
        window: int | None = None,
        size: int | None = None,
        sensor: tuple[int, int] | None = None,
        fit: Fit = "stretch",
        from_start: bool = False,
    ):
        self.recordings, self.root, self.cache = list(recordings), root, cache
        self.steps, self.by, self.window, self.size, self.sensor = steps, by, window, size, sensor
        self.fit: Fit = fit
        self.from_start = from_start

    def __len__(self) -> int:
        return len(self.recordings)

    @property
    def files(self) -> list[str]:
        return self.recordings

    @property
    def how(self) -> tuple[object, ...]:
        """What frames follow from, beside the recording."""
        return CACHE_VERSION, self.steps, self.by, self.window, self.size, self.sensor, self.fit, self.from_start

    def notes(self) -> list[str]:
        """What the user should hear about these settings."""
        if self.window is None:
            return []
        length = self.steps * self.window / 1000
        return [
            f"of a recording longer than {length:g} ms ({self.steps} windows) the rest is left out; a shorter one ends empty"
        ]

    def read(self, chosen: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """The chosen recordings' frames, which must be of one size.

        Raises what `frames` does, UnsuitedError if sizes differ, ValueError if all would take more than `staa.files.max_bytes`.
        """
        found: dict[str, np.ndarray] = {}
        for recording in counted((self.recordings[i] for i in chosen.tolist()), "reading recordings", len(chosen)):
            frames = found[recording] = self.frames(recording)
            first, other = next(iter(found.items()))
            if frames.shape != other.shape:
                here, there = (f"{f.shape[2]} × {f.shape[3]}" for f in (frames, other))
                raise UnsuitedError(
                    f"{recording} has frames of {here}, but {first} of {there}: give all one size with `data.size`"
                )
            check_bytes(2 * len(chosen) * frames.nbytes, f"{len(chosen)} recordings with frames such as those of {recording}")
        return torch.from_numpy(np.stack([found[self.recordings[i]] for i in chosen.tolist()]))

    def frames(self, recording: str) -> np.ndarray:
        """Counts [T, 2, size, size] of one recording, from the cache if they are there.

        Raises ValueError naming a recording that can't be read, UnsuitedError if a setting doesn't suit it, OSError if the
        cache can't be written.
        """
        try:
            file = self.cache / f"{self._key(recording)}.npy"
            kept = self._kept(file)
            if kept is not None:
                return kept
            frames = self._bin(recording)
        except OSError as error:
            raise ValueError(f"{recording}: it can't be opened: {error.strerror or error}") from error
        keep_array(file, frames)
        return frames

    def _kept(self, file: Path) -> np.ndarray | None:
        """Frames from the cache; None if they are not there, not whole, or not such frames."""
        frames = kept_array(file)
        if frames is None:
            return None
        fits = frames.dtype in (np.uint8, np.int32) and frames.shape[:2] == (self.steps, 2)
        size = self.size or (frames.shape[-1] if fits else 0)
        return frames if fits and frames.shape[2:] == (size, size) else None

    def _bin(self, recording: str) -> np.ndarray:
        path, interval = interval_of(recording)
        events = (
            read_events(Path(path), self.sensor)
            if interval is None
            else _read_again(path, self.sensor, os.stat(path).st_mtime_ns)
        )
        try:
            if interval is not None:
                inside = slice(*np.searchsorted(events.t, interval))
                events = events._replace(**{name: getattr(events, name)[inside] for name in "txyp"})
                if not len(events.t):
                    raise ValueError(f"it has no events from {interval[0]} to {interval[1]} µs of the recording's time")
            origin = interval[0] if self.from_start and interval is not None and self.window is not None else None
            return binned(events, self.steps, by=self.by, window=self.window, size=self.size, fit=self.fit, origin=origin)
        except ValueError as error:
            raise type(error)(f"{recording}: {error}") from error

    def _key(self, recording: str) -> str:
        about = os.stat(interval_of(recording)[0])
        which = [os.path.relpath(recording, self.root), about.st_size, about.st_mtime_ns]
        return hashlib.sha256(json.dumps([which, self.how]).encode(errors="surrogateescape")).hexdigest()[:40]


def binned(
    events: Events,
    steps: int,
    *,
    by: str = "number",
    window: int | None = None,
    size: int | None = None,
    fit: Fit = "stretch",
    origin: int | None = None,
) -> np.ndarray:
    """A recording as `EventFiles` has it: counts [T, 2, size, size], uint8 if they fit, else int32.

    Raises ValueError if there are too few events, UnsuitedError if a setting doesn't suit the recording.
    """
    if size is None and events.sensor is not None and fit == "keep":
        size = max(events.sensor)
    if size is None and events.sensor is not None and events.sensor[0] != events.sensor[1]:
        raise UnsuitedError(
            f"frames must be square, but the sensor is {events.sensor[0]} × {events.sensor[1]}: give the frames a size "
            f"with `data.size`, or let them keep its shape with `data.fit=keep`"
        )
    borders = borders_of(events, steps, by=by, window=window, origin=origin)
    frames = count(events, borders, size=None if size is None else (size, size), fit=fit)
    return frames.astype(np.uint8) if frames.max() < 256 else frames


def kept_array(file: Path) -> np.ndarray | None:
    """What `keep_array` has written; None if it is not there or not whole."""
    try:
        data = memoryview(read_bytes(file))
        array, checksum = data[:-CHECKSUM], data[-CHECKSUM:]
        if zlib.crc32(array) != int.from_bytes(checksum, "little"):
            return None
        return parse_array(array, str(file))
    except (OSError, ValueError):
        return None


def keep_array(file: Path, array: np.ndarray) -> None:
    """Write an array and its checksum. Raises OSError if it can't be written."""
    out = io.BytesIO()
    np.save(out, array, allow_pickle=False)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        out.write(zlib.crc32(out.getbuffer()).to_bytes(CHECKSUM, "little"))
        write(file, out.getbuffer(), sync=False)
    except (OSError, RuntimeError) as error:
        text = f"frames can't be kept in {file.parent} ({error}): set STAA_FRAMES to a folder that can be written to"
        raise OSError(text) from error


def interval_of(recording: str) -> tuple[str, tuple[int, int] | None]:
    """(path, (start, end)) of "path#start-end"."""
    found = re.fullmatch(r"(.*)#(\d{1,18})-(\d{1,18})", recording, re.DOTALL)
    return (found[1], (int(found[2]), int(found[3]))) if found else (recording, None)


@lru_cache(4)  # some threads read at once
def _read_again(path: str, sensor: tuple[int, int] | None, modified: int) -> Events:
    """A file of several recordings, which are binned one after the other."""
    return read_events(Path(path), sensor)
