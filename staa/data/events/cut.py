"""Long recordings cut into pieces of equal duration, each of them a sample."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from staa.data.events.cache import CACHE_VERSION, telling
from staa.data.events.kept import keep, kept, key_of
from staa.data.events.read import read_pieces
from staa.data.events.recording import Told
from staa.data.events.repair import Repair
from staa.data.splits import Labelled

MOST = 1_000_000  # pieces of a recording


class Cutter:
    """Cuts recordings into pieces of `width` µs, "PATH#START-END", counted from the first event.

    A piece without events is left out, and so is a last one that is shorter than half of the others, unless it is the only one.
    Where the pieces are is kept in the folder `cache`, so a recording is read once for it.
    """

    def __init__(self, width: int, *, root: Path, cache: Path, sensor: tuple[int, int] | None, told: Told):
        self.width, self.root, self.cache, self.sensor, self.told = width, root, cache, sensor, told

    @property
    def how(self) -> tuple[object, ...]:
        """What the pieces follow from, beside the recording."""
        return "pieces", CACHE_VERSION, self.width, self.sensor, self.told

    def pieces(self, recording: str) -> list[str]:
        """Raises ValueError naming a recording that can't be read or cut."""
        try:
            file = self.cache / f"{key_of(recording, recording, self.root, self.how)}.npy"
            before = kept(file)
            if before is not None and before[0].dtype == np.int64 and before[0].ndim == 1:
                found = before[0]
            else:
                found = self._cut(recording)
                keep(file, found)
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
        path, first, end, found = Path(recording), None, 0, []
        for piece in telling(read_pieces(path, self.sensor, Repair(self.told.repair, path), self.told), path.name):
            first, end = int(piece.t[0]) if first is None else first, int(piece.t[-1])
            if first < 0:
                raise ValueError(
                    f"{recording}: its first event is at {first} µs; a recording is cut only if it begins at 0 or later"
                )
            found.append(np.unique((piece.t - first) // self.width))
        numbers, first = np.unique(np.concatenate(found)), first or 0
        last = int(numbers[-1]) * self.width + first
        if len(numbers) > 1 and 2 * (end - last + 1) < self.width:
            numbers = numbers[:-1]
        if len(numbers) > MOST:
            raise ValueError(f"{recording} makes {len(numbers):,} pieces: make `data.slice` longer")
        return numbers * self.width + first


def note(parts: dict[str, Labelled], cut: dict[str, Labelled], seconds: float) -> str:
    """What the user should hear."""
    count: Callable[[dict[str, Labelled]], int] = lambda all: sum(len(f) for part in all.values() for f in part.values())  # noqa: E731
    return f"{count(cut)} pieces of {seconds:g} s, of {count(parts)} recordings; those of one recording are all in one part"
