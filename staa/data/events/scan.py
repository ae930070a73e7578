"""Intervals of a long recording, read one after the other without holding it."""

import os
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from staa.data.events.read import read_pieces
from staa.data.events.recording import Events, Sensor, Told, afford, between, joined
from staa.data.events.repair import Repair

KEPT = 4  # lengths of an interval that are kept before it, for threads that come a little late


class Scan:
    """Goes through a recording once for any number of intervals, asked for in order of time, or nearly so."""

    def __init__(self, path: str, sensor: Sensor | None, told: Told):
        self._path, self._sensor, self._told = Path(path), sensor, told
        self._lock = threading.Lock()
        self._modified = -1
        self._pieces: Iterator[Events] = iter(())
        self._kept: list[Events] = []
        self._from = 0  # events from this time on are kept
        self.repair = Repair()

    def interval(self, start: int, end: int) -> tuple[Events, Counter[str]]:
        """The events from start to before end, in µs, and what was repaired on the way. Raises as `read_events` does."""
        with self._lock:
            before = Counter(self.repair.counts)
            modified = os.stat(self._path).st_mtime_ns
            if start < self._from or modified != self._modified:
                self.repair = Repair(self._told.repair, self._path)
                self._pieces, self._kept, self._from = read_pieces(self._path, self._sensor, self.repair, self._told), [], 0
                self._modified, before = modified, Counter()
            try:
                while not self._kept or self._kept[-1].t[-1] < end:
                    piece = next(self._pieces, None)
                    if piece is None:
                        break
                    self._kept.append(piece)
                    self._drop_before(start - KEPT * (end - start))
            except Exception:
                self._modified = -1  # what failed is read anew
                raise
            inside = [between(piece, start, end) for piece in self._kept]
            afford(sum(len(piece.t) for piece in inside))
            events = joined(inside, self._kept[0].sensor if self._kept else None)
            return events, self.repair.counts - before

    def _drop_before(self, time: int) -> None:
        while len(self._kept) > 1 and self._kept[0].t[-1] < time:
            self._from = max(self._from, int(self._kept.pop(0).t[-1]) + 1)
