"""Long recordings cut into pieces of equal duration, each of them a sample."""

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from staa.data.events.cache import CACHE_VERSION, keep_array, kept_array
from staa.data.events.read import read_events
from staa.data.splits import Labelled

MOST = 1_000_000  # pieces of a recording


class Cutter:
    """Cuts recordings into pieces of `width` µs, "PATH#START-END", counted from the first event.

    A piece without events is left out, and so is a last one that is shorter than half of the others, unless it is the only one.
    Where the pieces are is kept in the folder `cache`, so a recording is read once for it.
    """

    def __init__(self, width: int, *, root: Path, cache: Path, sensor: tuple[int, int] | None):
        self.width, self.root, self.cache, self.sensor = width, root, cache, sensor

    def pieces(self, recording: str) -> list[str]:
        """Raises ValueError naming a recording that can't be read or cut."""
        try:
            about = os.stat(recording)
            name = os.path.relpath(recording, self.root)
            which = ["pieces", name, about.st_size, about.st_mtime_ns, CACHE_VERSION, self.width, self.sensor]
            key = hashlib.sha256(json.dumps(which).encode(errors="surrogateescape")).hexdigest()[:40]
            found = kept_array(self.cache / f"{key}.npy")
            if found is None or found.dtype != np.int64 or found.ndim != 1:
                found = self._cut(recording)
                keep_array(self.cache / f"{key}.npy", found)
        except OSError as error:
            raise ValueError(f"{recording}: it can't be opened: {error.strerror or error}") from error
        return [f"{recording}#{start}-{start + self.width}" for start in found.tolist()]

    def all(self, parts: dict[str, Labelled]) -> dict[str, Labelled]:
        """The pieces of each recording in the recording's part and class."""
        return {
            part: {c: [piece for file in files for piece in self.pieces(file)] for c, files in classes.items()}
            for part, classes in parts.items()
        }

    def _cut(self, recording: str) -> np.ndarray:
        """Where the pieces begin."""
        t = read_events(Path(recording), self.sensor).t
        if t[0] < 0:
            raise ValueError(
                f"{recording}: its first event is at {t[0]} µs; a recording is cut only if it begins at 0 or later"
            )
        numbers = np.unique((t - t[0]) // self.width)
        last = int(numbers[-1]) * self.width + int(t[0])
        if len(numbers) > 1 and 2 * (int(t[-1]) - last + 1) < self.width:
            numbers = numbers[:-1]
        if len(numbers) > MOST:
            raise ValueError(f"{recording} makes {len(numbers):,} pieces: make `data.slice` longer")
        return numbers * self.width + t[0]


def note(parts: dict[str, Labelled], cut: dict[str, Labelled], seconds: float) -> str:
    """What the user should hear."""
    count: Callable[[dict[str, Labelled]], int] = lambda all: sum(len(f) for part in all.values() for f in part.values())  # noqa: E731
    return f"{count(cut)} pieces of {seconds:g} s, of {count(parts)} recordings; those of one recording are all in one part"
