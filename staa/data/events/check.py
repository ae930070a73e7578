"""What holds of every recording, checked and, if asked for, repaired piece by piece: the same for a file and a live stream."""

from bisect import bisect_right

import numpy as np

from staa.data.events.counter import SILENCE
from staa.data.events.recording import EMPTY, LARGEST, LARGEST_SENSOR, Events, Sensor, joined, part_of, unchecked
from staa.data.events.repair import MOVED, Repair
from staa.files import check_bytes

HELD = 1 << 16  # events that wait, so that those which are out of time among them are told from the others
SORTED_BYTES = 64  # that sorting an event takes


class Check:
    """Events of one sensor, in order of time, of known polarities: what is not is refused, left out, or put in order.

    given: the sensor's (height, width) if the recording does not say it; if it does, both must be the same. held: events that
    wait before "drop" decides about their times. Of these it leaves out as few as possible.
    """

    def __init__(self, given: Sensor | None, repair: Repair, *, held: int = HELD):
        self._given, self._repair, self._hold = given, repair, held
        self.sensor = _sensor(given)
        self.count = 0  # of events that came
        self._own: Sensor | None = None
        self._polarities: set[int] = set()  # 0 and -1 so far, which exclude each other
        self._last: int | None = None  # time of the last event that was given
        self._waiting: list[Events] = []

    def feed(self, events: Events) -> Events:
        """The events that are right, as `Events` says. Raises ValueError for what is refused."""
        self._know_sensor(events.sensor)
        first, self.count = self.count, self.count + len(events.t)
        if not len(events.t):
            return joined([], self.sensor)
        t, x, y, p, _ = self._of_known_polarity(self._inside(events, first))
        t, x, y, p = _as(np.int64, t), _as(np.int32, x), _as(np.int32, y), _as(np.uint8, p)
        events = unchecked(t, x, y, p, self.sensor)
        if self._repair.how == "refuse":
            self._refuse_falls(events.t, first)
            return events
        self._waiting.append(events)
        if self._repair.how == "sort":
            check_bytes(sum(len(piece.t) for piece in self._waiting) * SORTED_BYTES, "the events, which are sorted,")
            return joined([], self.sensor)
        return self._without_falls(end=False)

    def end(self) -> Events:
        """The events that waited."""
        if self._repair.how == "refuse":
            return joined([], self.sensor)
        return self._in_order() if self._repair.how == "sort" else self._without_falls(end=True)

    def _know_sensor(self, own: Sensor | None) -> None:
        if own is None or own == self._own:
            return
        if self._own is not None:
            raise ValueError(
                f"its sensor changes from {_size(self._own)} to {_size(own)}: save each part as a recording of its own"
            )
        self._own, self.sensor = own, _sensor(own)
        if self._given and self.sensor != tuple(self._given):
            raise ValueError(
                f"wrong sensor size: the file says {_size(own)}, {_size(self._given)} was given; correct it or remove `sensor`"
            )

    def _inside(self, events: Events, first: int) -> Events:
        _, x, y, *_ = events
        height, width = self.sensor or (LARGEST_SENSOR, LARGEST_SENSOR)
        if _within(x, width) and _within(y, height):
            return events
        outside = (x < 0) | (y < 0) | (x >= width) | (y >= height)
        i = int(outside.argmax())
        where = f"outside the sensor of {_size(self.sensor)}: give the sensor's true size" if self.sensor else "at no pixel"
        self._repair.found(
            "events outside the sensor", int(outside.sum()), f"event {first + i} lies at x {x[i]}, y {y[i]}, {where}"
        )
        return part_of(events, ~outside)

    def _of_known_polarity(self, events: Events) -> Events:
        """{0, 1} or {-1, 1} as {0, 1}."""
        p = events.p
        if not len(p) or p.dtype == bool:
            return events
        low, high = int(p.min()), int(p.max())
        if low < -1 or high > 1:
            unknown = (p < -1) | (p > 1)
            found = ", ".join(map(str, np.unique(p)[:5]))
            problem = f"polarities must be 0 and 1, or -1 and 1; found {found}"
            self._repair.found("events of unknown polarity", int(unknown.sum()), problem)
            return self._of_known_polarity(part_of(events, ~unknown))
        if low == 0 or (low < 0 and not p.all()):
            self._polarities.add(0)
        if low < 0:
            self._polarities.add(-1)
        if len(self._polarities) > 1:
            raise ValueError("polarities must be 0 and 1, or -1 and 1; found -1, 0, 1")
        return events if p.dtype == np.uint8 else events._replace(p=p > 0)

    def _refuse_falls(self, t: np.ndarray, first: int) -> None:
        before = t[0] if self._last is None else self._last
        back = t[1:] < t[:-1]
        if t[0] < before or back.any():
            i = 0 if t[0] < before else int(back.argmax()) + 1
            before = before if i == 0 else t[i - 1]
            raise ValueError(
                f"time runs backwards by {before - t[i]} µs at event {first + i} ({before} µs, then {t[i]} µs): the recording "
                f"is faulty, or of another format than its ending says{self._repair.advice(order=True)}"
            )
        self._last = int(t[-1])

    def _without_falls(self, *, end: bool) -> Events:
        """The fewest events left out so that time never falls; the last `held` wait."""
        if not end and sum(len(piece.t) for piece in self._waiting) < 4 * self._hold:
            return joined([], self.sensor)
        events = joined(self._waiting, self.sensor)
        t, n = events.t, len(events.t)
        cut = n if end else n - self._hold
        given, self._waiting = part_of(events, slice(cut)), [part_of(events, slice(cut, None))]
        if n and ((self._last is not None and t[0] < self._last) or (t[1:] < t[:-1]).any()):
            lowest = -LARGEST if self._last is None else self._last
            back = int((np.maximum.accumulate(np.append(lowest, t))[:-1] - t).max())
            if not self._hold and back > SILENCE:  # until time comes here again, all would be left out
                raise ValueError(
                    f"time goes back by {back / 1e6:,.4g} s, as of a camera that began anew: start the stream again"
                )
            rising = longest_rise(t, lowest)[:cut]
            self._repair.found("events back in time", cut - int(rising.sum()), "")
            given = part_of(given, rising)
        if len(given.t):
            self._last = int(given.t[-1])
        return given

    def _in_order(self) -> Events:
        events, self._waiting = joined(self._waiting, self.sensor), []
        behind = int((events.t < np.maximum.accumulate(events.t)).sum())
        if not behind:
            return events
        self._repair.found(MOVED, behind, "")
        return part_of(events, np.argsort(events.t, kind="stable"))


def checked(events: Events, given: Sensor | None) -> Events:
    """The events of a whole recording, as `Events` says. Raises ValueError if there are none, or they are not right."""
    if not len(events.t):
        raise ValueError(EMPTY)
    return Check(given, Repair()).feed(Events(*events))


def longest_rise(t: np.ndarray, lowest: int) -> np.ndarray:
    """Which of the times make the longest sequence that never falls, and begins at `lowest` or later: bool [n]."""
    ends: list[int] = []  # the smallest time at which such a sequence of length k + 1 ends
    at: list[int] = []  # and where
    before = np.empty(len(t), np.int64)
    for i, time in enumerate(t.tolist()):
        if time < lowest:
            continue
        k = len(ends) if not ends or time >= ends[-1] else bisect_right(ends, time)
        before[i] = at[k - 1] if k else -1
        ends[k : k + 1], at[k : k + 1] = [time], [i]
    chosen = np.zeros(len(t), bool)
    i = at[-1] if at else -1
    while i >= 0:
        chosen[i] = True
        i = before[i]
    return chosen


def _within(values: np.ndarray, limit: int) -> bool:
    """Whether all are from 0 to before the limit: as numbers without a sign, those below 0 are large."""
    return bool(values.view(f"{values.dtype.byteorder}u{values.dtype.itemsize}").max() < limit)


def _as(dtype: type[np.generic], values: np.ndarray) -> np.ndarray:
    """Contiguous, aligned and writeable."""
    return values if values.dtype == dtype and values.flags.carray else values.astype(dtype, order="C")


def _sensor(sensor: Sensor | None) -> Sensor | None:
    if sensor is None:
        return None
    if len(sensor) != 2 or not 1 <= min(sensor) <= max(sensor) <= LARGEST_SENSOR:
        raise ValueError(f"a sensor must be (height, width), each from 1 to {LARGEST_SENSOR}; found {sensor}")
    return int(sensor[0]), int(sensor[1])


def _size(sensor: Sensor) -> str:
    return f"{sensor[0]} × {sensor[1]} (height × width)"
