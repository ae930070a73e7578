"""Recordings on disk, binned once and kept as frames beside them."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from staa.counting import counted, tell
from staa.data.events.binning import binned
from staa.data.events.doubt import doubt
from staa.data.events.frames import Fit, UnsuitedError
from staa.data.events.kept import keep, kept, key_of
from staa.data.events.read import read_pieces
from staa.data.events.recording import Events, Told
from staa.data.events.repair import KINDS, Repair
from staa.data.events.scan import Scan
from staa.files import check_bytes, naming

Frames = Literal["number", "time", "window"]

CACHE_VERSION = 3  # of how recordings are read and binned, and of the files that keep their frames
FACTS = 3 + len(KINDS)
LOOKED_AT = 16  # recordings


class EventFiles:
    """Recordings on disk as counts [N, T, 2, size, size], uint8 if they fit, else int32.

    recordings: paths, "PATH#START-END" being the events of a file from START to before END, in µs.
    by: "number", "time" or "window" of so many µs; of windows there are always `steps`: a longer recording is cut off there, a
    shorter one ends in empty frames. sensor: (height, width) of recordings that don't say it, and what the others must have.
    size: None keeps the sensor's, which must be square. fit: "keep" keeps the sensor's shape, in the middle of the frame.
    from_start: windows of an interval are counted from its start, not from its first event. told: what files don't say, and how
    they are repaired; what was repaired is kept beside the frames.

    What was binned once is read from `cache` afterwards: one file per recording and setting, named by a hash of both (path
    under root, length and time of the file), with facts of the recording. A file is written whole or not at
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
        told: Told | None = None,
    ):
        self.recordings, self.root, self.cache = list(recordings), root, cache
        self.steps, self.by, self.window, self.size, self.sensor = steps, by, window, size, sensor
        self.fit: Fit = fit
        self.from_start, self.told = from_start, told or Told()

    def __len__(self) -> int:
        return len(self.recordings)

    @property
    def files(self) -> list[str]:
        return self.recordings

    @property
    def how(self) -> tuple[object, ...]:
        """What frames follow from, beside the recording."""
        return CACHE_VERSION, self.steps, self.by, self.window, self.size, self.sensor, self.fit, self.from_start, self.told

    def notes(self) -> list[str]:
        """What the user should hear about these settings."""
        notes = []
        if self.window is not None:
            length = f"{self.steps * self.window / 1000:g} ms ({self.steps} windows)"
            notes.append(f"of a recording longer than {length} the rest is left out; a shorter one ends empty")
        return [*notes, *self._repairs(), *self._doubts()]

    def read(self, chosen: Tensor, keys: np.ndarray | None = None) -> Tensor:
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
            frames, facts = self._bin(recording)
        except OSError as error:
            raise ValueError(f"{recording}: it can't be opened: {error.strerror or error}") from error
        keep(file, frames, facts)
        return frames

    def _repairs(self) -> list[str]:
        """What was left out of the recordings or moved, as far as their frames are kept."""
        found, count = Repair(self.told.repair), 0
        for recording in self.recordings if self.told.repair != "refuse" else ():
            counts = self._facts(recording)[3:]
            found.counts.update(dict(zip(KINDS, counts, strict=False)))
            count += any(counts)
        text = f"{found.told()} in {count} of {len(self)} recordings (`data.repair={self.told.repair}`)"
        return [text] if found.repaired() else []

    def _doubts(self) -> list[str]:
        """Whether some of the recordings have times in another unit, or are far longer than their windows."""
        some = [self._facts(recording) for recording in self.recordings[:: max(1, len(self) // LOOKED_AT)]]
        doubts = [found for facts in some if facts and (found := doubt(facts[0], facts[1], facts[2], self.sensor))]
        told = [f"of {len(some)} recordings looked at, {len(doubts)} are doubtful: {doubts[0]}"] if doubts else []
        seconds = sorted((facts[2] - facts[1]) / 1e6 for facts in some if facts)
        windows = self.steps * (self.window or 0) / 1e6
        if windows and seconds and (middle := seconds[len(seconds) // 2]) > 10 * windows:
            told.append(
                f"a recording is {middle:,.4g} s long, and its {self.steps} windows are {windows:g} s: are its times in µs?"
            )
        return told

    def _facts(self, recording: str) -> list[int]:
        """How many events of which the frames are kept, the first and the last time, and what was repaired, by `KINDS`."""
        found = kept(self.cache / f"{self._key(recording)}.npy", FACTS)
        return found[1] if found else []

    def _kept(self, file: Path) -> np.ndarray | None:
        """Frames from the cache; None if they are not there, not whole, or not such frames."""
        found = kept(file, FACTS)
        if found is None:
            return None
        frames = found[0]
        fits = frames.dtype in (np.uint8, np.int32) and frames.shape[:2] == (self.steps, 2)
        size = self.size or (frames.shape[-1] if fits else 0)
        return frames if fits and frames.shape[2:] == (size, size) else None

    def _bin(self, recording: str) -> tuple[np.ndarray, list[int]]:
        """The frames, and their facts."""
        path, interval = interval_of(recording)
        times, repaired = [0, 0, 0], Counter[str]()

        def read() -> Iterator[Events]:
            repair = Repair(self.told.repair, Path(path))
            times[0] = 0
            for piece in telling(read_pieces(Path(path), self.sensor, repair, self.told), Path(path).name):
                times[:] = times[0] + len(piece.t), int(piece.t[0]) if not times[0] else times[1], int(piece.t[-1])
                yield piece
            repaired.clear()
            repaired.update(repair.counts)

        try:
            if interval is not None:
                events, found = scan_of(path, self.sensor, self.told).interval(*interval)
                if not len(events.t):
                    raise ValueError(f"it has no events from {interval[0]} to {interval[1]} µs of the recording's time")
                times[:] = len(events.t), int(events.t[0]), int(events.t[-1])
                repaired.update(found)
                read = lambda: iter([events])  # noqa: E731
            origin = interval[0] if self.from_start and interval is not None and self.window is not None else None
            frames = binned(read, self.steps, by=self.by, window=self.window, size=self.size, fit=self.fit, origin=origin)
        except ValueError as error:
            raise type(error)(naming(recording, error)) from error
        return frames, [*times, *(repaired[kind] for kind in KINDS)]

    def _key(self, recording: str) -> str:
        return key_of(recording, interval_of(recording)[0], self.root, self.how)


def interval_of(recording: str) -> tuple[str, tuple[int, int] | None]:
    """(path, (start, end)) of "path#start-end"."""
    found = re.fullmatch(r"(.*)#([0-9]{1,19})-([0-9]{1,19})", recording, re.DOTALL)
    return (found[1], (int(found[2]), int(found[3]))) if found else (recording, None)


def telling(pieces: Iterator[Events], name: str) -> Iterator[Events]:
    """The pieces, telling how many events of that recording have come."""
    count, what = 0, f"events of {name}"
    for piece in pieces:
        count += len(piece.t)
        tell(what, count, None)
        yield piece
    tell(what, count, count)


@lru_cache(8)
def scan_of(path: str, sensor: tuple[int, int] | None, told: Told) -> Scan:
    return Scan(path, sensor, told)
