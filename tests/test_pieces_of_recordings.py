"""Recordings that are read, checked, repaired and binned piece by piece, whatever their size."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from staa.data.events import binning
from staa.data.events.binning import binned
from staa.data.events.check import Check, longest_rise
from staa.data.events.frames import borders_of, count
from staa.data.events.recording import joined, unchecked
from staa.data.events.repair import Repair


def events_at(t, sensor=(16, 16)):
    i = np.arange(len(t))
    return unchecked(np.asarray(t, np.int64), i % 16, i // 16 % 16, i % 2, sensor)


def cut(events, at):
    return [events._replace(**{c: getattr(events, c)[a:b] for c in "txyp"}) for a, b in zip([0, *at], [*at, None], strict=True)]


@settings(max_examples=80, deadline=None)
@given(st.lists(st.integers(0, 50), min_size=5, max_size=60), st.data())
def test_frames_do_not_depend_on_the_pieces(gaps, data):
    t = np.cumsum(gaps)
    events, steps = events_at(t), data.draw(st.integers(1, 5))
    at = sorted(data.draw(st.lists(st.integers(1, len(t) - 1), max_size=5)))
    pieces = [piece for piece in cut(events, at) if len(piece.t)]
    for more in ({"by": "number"}, {"by": "time"}, {"window": 7}, {"window": 7, "origin": -3}):
        whole = count(events, borders_of(events, steps, **more), size=(8, 8))
        for held in (0, 10, 1000):
            binning.AT_ONCE, before = held, binning.AT_ONCE
            try:
                assert np.array_equal(binned(lambda: iter(pieces), steps, size=8, **more), whole)
            finally:
                binning.AT_ONCE = before


def checked(t, at, how, held):
    repair = Repair(how)
    check = Check(None, repair, held=held)
    found = [check.feed(piece) for piece in cut(events_at(t), at)]
    return joined([*found, check.end()], None).t.tolist(), repair.counts


@settings(max_examples=80, deadline=None)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=40), st.data())
def test_as_few_events_as_possible_are_dropped(t, data):
    at = sorted(data.draw(st.lists(st.integers(0, len(t)), max_size=4)))
    rising, counts = checked(t, at, "drop", held=1000)
    assert rising == sorted(rising)
    assert len(rising) + counts["events back in time"] == len(t)
    longest = [0] * len(t)
    for i, now in enumerate(t):
        longest[i] = 1 + max((longest[k] for k in range(i) if t[k] <= now), default=0)
    assert len(rising) == max(longest) == longest_rise(np.array(t), 0).sum()
    for held in (0, 1, 5):
        found, counts = checked(t, at, "drop", held=held)
        assert found == sorted(found)
        assert len(found) + counts["events back in time"] == len(t)
    assert checked(t, at, "sort", held=0)[0] == sorted(t)


def test_one_event_far_ahead_drops_itself_alone():
    t = [*range(100), 10**6, *range(100, 200)]
    assert checked(t, [50, 101, 150], "drop", held=8)[0] == list(range(200))
