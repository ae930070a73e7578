"""Events as they come, in pieces of any size, as frames of windows of a fixed duration."""

import time
from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from staa.data.events.frames import Fit, count
from staa.data.events.recording import Events

LONGEST_GAP = 1_000_000  # windows without an event
MOST = (1 << 31) - 1  # events of a window, so that no pixel's count overflows


class Window(NamedTuple):
    """A window of a stream that is over.

    Args:
        number: From 1.
        end: Its end on the camera's clock, in microseconds.
        counts: Its events by polarity and pixel, int32; None if there are none.
        events: How many there are.
        arrived: When the events that ended it were there, by `time.perf_counter`.

    Shapes:
        counts [2, h, w], channel 0 OFF and channel 1 ON
    """

    number: int
    end: int
    counts: np.ndarray | None
    events: int
    arrived: float


class Windows:
    """Makes windows of events: an event at t [µs] is in window 1 + ⌊(t − t₀) / window⌋, t₀ the first one's.

    A window is over when an event comes that is after it, or when the clock says so; then one that is silent is over too.

    Args:
        window: Duration of a window in microseconds, at least 1.
        size: Height and width (h, w) of the frames, at most the sensor's, as for `staa.data.to_frames`.
        fit: "stretch" or "keep", as there.
    """

    def __init__(self, window: int, size: tuple[int, int], fit: Fit = "stretch"):
        self.window, self.size = window, size
        self.fit: Fit = fit
        self.late = 0
        """Events left out so far, since the clock had ended their window before they came."""
        self.begin: int | None = None
        """Time of the first event, in microseconds."""
        self._over = 0  # windows
        self._counts: np.ndarray | None = None
        self._events = 0

    def push(self, events: Events, *, until: int | None = None, arrived: float | None = None) -> Iterator[Window]:
        """The windows that are over with these events, which follow those before.

        Args:
            events: In order of time, inside the sensor, whose size they say; may be none.
            until: Time up to which the camera has told all events, in microseconds: what ends before is over.
            arrived: When they were there, by `time.perf_counter`; None: for each window, when its events are asked for.

        Raises:
            ValueError: If more than a million windows would have no event, before any is given, or one has too many.
        """
        t = events.t
        begin = int(t[0]) if self.begin is None and len(t) else self.begin
        if begin is None:
            return
        number = (t - begin) // self.window
        late = int(np.searchsorted(number, self._over))
        self._check_gaps(number[late:], None if until is None else (until - begin) // self.window)
        self.begin = begin
        self.late += late
        cuts = [late, *(np.flatnonzero(np.diff(number[late:])) + late + 1).tolist(), len(t)]
        for start, stop in pairwise(cuts) if late < len(t) else ():
            now = time.perf_counter() if arrived is None else arrived
            yield from self._until(int(number[start]), now)
            if self._events + stop - start > MOST:
                raise ValueError(f"a window of {self.window} µs has more than {MOST:,} events: make the window shorter")
            counts = count(events, np.array([start, stop]), size=self.size, fit=self.fit)[0]
            self._counts = counts if self._counts is None else self._counts + counts
            self._events += stop - start
        if until is not None:
            yield from self._until((until - self.begin) // self.window, time.perf_counter() if arrived is None else arrived)

    def end(self) -> Iterator[Window]:
        """The window that has begun, as if it were over."""
        if self._events:
            yield self._closed(time.perf_counter())

    def _check_gaps(self, numbers: np.ndarray, until: int | None) -> None:
        gap = int(np.diff(numbers, prepend=self._over).max(initial=0))
        if until is not None:
            gap = max(gap, until - (int(numbers[-1]) if len(numbers) else self._over))
        if gap > LONGEST_GAP:
            raise ValueError(
                f"time jumps by {gap:,} windows of {self.window} µs without an event: make the window longer, or repair the "
                f"stream"
            )

    def _until(self, number: int, arrived: float) -> Iterator[Window]:
        """The windows before that of this number (from 0)."""
        while self._over < number:
            yield self._closed(arrived)

    def _closed(self, arrived: float) -> Window:
        assert self.begin is not None
        self._over += 1
        over = Window(self._over, self.begin + self._over * self.window, self._counts, self._events, arrived)
        self._counts, self._events = None, 0
        return over
