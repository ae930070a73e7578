"""Decoders of event cameras' bytes: any pieces give what the whole gives, and a stray time moves nothing that follows."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_recordings import (
    EVENTS,
    EVT2_HEADER,
    EVT3_HEADER,
    evt2_file,
    evt2_words,
    evt3_file,
    evt3_words,
    random_evt3,
    rows,
)

from staa.data.events.decoders import DECODERS
from staa.data.events.recording import joined
from staa.data.events.repair import Repair

WHOLE = {"evt2": evt2_file(evt2_words(EVENTS)), "evt3": evt3_file(evt3_words(EVENTS))}


def decoded(name, pieces, repair=None):
    decoder = DECODERS[name](repair or Repair())
    events = [decoder.feed(piece) for piece in pieces]
    events.append(decoder.end())
    return joined(events, decoder.sensor)


@pytest.mark.parametrize("name", WHOLE)
def test_byte_by_byte(name):
    data = WHOLE[name]
    for events in (decoded(name, [data]), decoded(name, [data[i : i + 1] for i in range(len(data))])):
        assert rows(events) == EVENTS
        assert events.sensor == (128, 128)


@pytest.mark.parametrize("name", WHOLE)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_pieces_give_what_the_whole_gives(name, data):
    seed = data.draw(st.integers(0, 10**6))
    rng = np.random.default_rng(seed)
    if name == "evt3":
        whole = evt3_file(random_evt3(rng, 200), rng.choice([b"", b"% evt 3.0\n", EVT3_HEADER]))
    else:
        t = np.cumsum(rng.integers(0, 500, 100)) + 2**34 - 20_000
        events = [(int(t[i]), *map(int, rng.integers(0, 128, 2)), int(rng.integers(2))) for i in range(100)]
        whole = evt2_file(evt2_words(events), rng.choice([b"", b"% evt 2.0\n", EVT2_HEADER]))
    expected = decoded(name, [whole])
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=12)))
    pieces = [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    assert rows(decoded(name, pieces)) == rows(expected)
    if name == "evt2":
        assert rows(expected) == events


@pytest.mark.parametrize(
    ("name", "kind", "word", "tick"),
    [("evt2", "<u4", 8 << 28, 64), ("evt2.1", "<u8", 8 << 60, 64), ("evt3", "<u2", 8 << 12, 4096)],
)
def test_words_of_time_tell_the_clock_without_an_event(name, kind, word, tick):
    decoder, shift = DECODERS[name](Repair()), 32 if name == "evt2.1" else 0
    assert decoder.clock is None
    for time in (5, 6):
        assert not len(decoder.feed(np.array([word | time << shift], kind).tobytes()).t)
    assert decoder.clock == 6 * tick
