"""Times from a counter that wraps, some of whose words may be wrong."""

from itertools import pairwise

import numpy as np

from staa.data.events.recording import LARGEST, Events, joined, part_of, unchecked
from staa.data.events.repair import Repair

SILENCE = 1 << 22
"""µs between two times that are believed without a third one: 4.2 s, a quarter of EVT 3.0's counter, the shortest. Cameras say
their time every 16 µs to some ms and each of their pixels is noisy; a converted recording may leave out the silence between."""


class TimeCounter:
    """Unwraps the times of a counter of so many bits, over any number of calls, and finds the stray ones.

    Two times agree if they differ by at most `SILENCE`, modulo the counter. The counter has wrapped only if a time agrees with
    the one before it and is a smaller number. A time that agrees with no time beside it is stray: it moves nothing that
    follows. A jump that the next time agrees with is taken as it is, without a wrap.

    bits: of the counter; None for one that does not wrap. tick: µs that it counts.
    """

    def __init__(self, bits: int | None, tick: int, repair: Repair):
        self.bits, self.tick, self.repair = bits, tick, repair
        self.near = SILENCE // tick
        self.last: int | None = None  # in ticks, unwrapped

    def times(self, values: np.ndarray, *, end: bool = False) -> tuple[np.ndarray, np.ndarray | None]:
        """values int64 [n] -> times in µs [m], unwrapped, and which of them are stray, bool [m], or None if none is.

        Of a last time that does not agree with the one before it nothing is known yet: m = n − 1, and the caller gives it again
        with what follows it. A stray time is given as the last one before it. end: nothing follows.

        Raises ValueError for a stray time if it is not to be left out.
        """
        n = len(values)
        if not n:
            return values, None
        if n > 1 and values.max() - values.min() <= self.near:  # so every one agrees with every other
            ahead = self._confirmed(int(values[0])) - int(values[0])
            self.last = int(values[-1]) + ahead
            times = values + ahead if ahead else values
            return times * self.tick if self.tick > 1 else times, None
        steps = self._signed(np.diff(values))
        times, stray = np.zeros(n, np.int64), None
        np.cumsum(steps, out=times[1:])
        far = np.flatnonzero((steps > self.near) | (steps < -self.near)) + 1
        for start, stop in pairwise([0, *far.tolist(), n]):
            value, alone = int(values[start]), stop - start == 1 and not (end and stop == n and self.last is None)
            first = self._agreeing(value) if alone else self._confirmed(value)
            if first is not None:
                times[start:stop] += first - times[start]
                self.last = int(times[stop - 1])
            elif stop == n and not end:
                times = times[:start]
                stray = None if stray is None else stray[:start]
            else:
                before = 0 if self.last is None else self.last
                self._found_stray(value)
                stray = np.zeros(n, bool) if stray is None else stray
                stray[start], times[start] = True, before
        return times * self.tick, stray

    def _signed(self, step):
        """The smallest step that is this one modulo the counter."""
        if self.bits is None:
            return step
        half = 1 << (self.bits - 1)
        return (step + half & 2 * half - 1) - half

    def _agreeing(self, value: int) -> int | None:
        """The unwrapped time of a value that agrees with the last one; None if it does not."""
        if self.last is None:
            return None
        step = self._signed(value - self.last)
        return self.last + step if abs(step) <= self.near else None

    def _confirmed(self, value: int) -> int:
        """The same of one that the next one agrees with."""
        agreeing = self._agreeing(value)
        if agreeing is not None or self.last is None:
            return value if agreeing is None else agreeing
        return self.last + value - (self.last if self.bits is None else self.last & (1 << self.bits) - 1)

    def _found_stray(self, value: int) -> None:
        before = "" if self.last is None else f" after {self.last * self.tick} µs"
        self.repair.found(
            "stray times",
            1,
            f"a time of {value * self.tick} µs{before} agrees with none beside it: that word is wrong",
        )


class TimedEvents:
    """Events that each have a time of the counter: stray ones are left out, and the last one waits while it may be stray."""

    def __init__(self, counter: TimeCounter):
        self._counter = counter
        self._held: tuple[np.ndarray, ...] | None = None

    def feed(self, t: np.ndarray, x: np.ndarray, y: np.ndarray, p: np.ndarray, *, end: bool = False) -> Events:
        """t int64, in the counter's ticks. Those beyond ±2**62 are stray."""
        if len(t) and max(-int(t.min()), int(t.max())) > LARGEST:
            far = (t > LARGEST) | (t < -LARGEST)
            problem = f"a time of {t[far.argmax()]} µs is not within ±2**62"
            self._counter.repair.found("stray times", int(far.sum()), problem)
            t, x, y, p = (column[~far] for column in (t, x, y, p))
        if self._held is not None:
            t, x, y, p = (np.concatenate(both) for both in zip(self._held, (t, x, y, p), strict=True))
        times, stray = self._counter.times(t, end=end)
        n = len(times)
        self._held = tuple(column[n:].copy() for column in (t, x, y, p)) if n < len(t) else None
        events = unchecked(times, x[:n], y[:n], p[:n], None)
        return events if stray is None else part_of(events, ~stray)

    def end(self) -> Events:
        if self._held is None:
            return joined([], None)
        none = np.empty(0, np.int64)
        return self.feed(none, none, none, none, end=True)
