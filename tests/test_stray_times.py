"""One wrong word in a recording: it moves no time of the events beyond the next word of time, or the recording is refused."""

import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from test_recordings import (
    AEDAT2_HEADER,
    AEDAT3_HEADER,
    DAT_HEADER,
    EVT2_HEADER,
    EVT3_HEADER,
    aedat2_file,
    aedat3_file,
    aedat4_file,
    bin_file,
    dat_file,
    evt2_file,
    evt2_words,
    evt3_file,
    evt3_words,
    rows,
)

from staa.data.events.check import Check
from staa.data.events.decoders import DECODERS
from staa.data.events.recording import joined
from staa.data.events.repair import Repair

REAL = os.environ.get("STAA_EVENT_SAMPLES")


def recording(number=0):
    """A real recording of N-MNIST if there is one, else one that is as dense: three saccades of 100 ms."""
    if REAL:
        x, y, high, middle, low = (
            np.frombuffer(sorted(Path(REAL).rglob("*.bin"))[number].read_bytes(), np.uint8).reshape(-1, 5).T.astype(int)
        )
        events = [((h & 127) << 16 | m << 8 | w, a, b, h >> 7) for a, b, h, m, w in zip(x, y, high, middle, low, strict=True)]
        return [tuple(map(int, event)) for event in events]
    rng = np.random.default_rng(number)
    t = np.sort(np.concatenate([100_000 * k + rng.normal(50_000, 18_000, 1400).clip(0, 99_999) for k in range(3)]))
    return [(int(t), *map(int, rng.integers(0, 34, 2)), int(rng.integers(2))) for t in t]


def words_of_events(words, is_event):
    """For each word how many events come before it."""
    return np.cumsum([0, *map(is_event, words)])[:-1]


def evt2_parts(events):
    words = np.array(evt2_words(events), "<u4")
    return EVT2_HEADER, words, words >> 28 == 8, words >> 28 <= 1


def evt3_parts(events):
    words = np.array(evt3_words(events), "<u2")
    return EVT3_HEADER, words, words >> 12 == 8, words >> 12 == 2


def record_parts(header, file, dtype):
    def parts(events):
        words = np.frombuffer(file(events)[len(header) :], dtype)
        each = np.ones(len(words), bool)
        return header, words, each, each

    return parts


FORMATS = {
    "evt2": evt2_parts,
    "evt3": evt3_parts,
    "dat": record_parts(DAT_HEADER + b"\x0c\x08", dat_file, "V8"),
    "aedat2": record_parts(AEDAT2_HEADER, aedat2_file, "V8"),
    "bin": record_parts(b"", bin_file, "V5"),
}
"""events -> header, words, which of them say the time, which are events"""


def corrupted(words, at, rng):
    """The words with one of them another: one bit flipped, or drawn anew."""
    data = bytearray(words.tobytes())
    size = words.dtype.itemsize
    before = bytes(data[at * size : (at + 1) * size])
    while data[at * size : (at + 1) * size] == before:
        if rng.random() < 0.5:
            data[at * size + int(rng.integers(size))] ^= 1 << int(rng.integers(8))
        else:
            data[at * size : (at + 1) * size] = rng.bytes(size)
    return bytes(data)


def decoded(name, data, how):
    repair = Repair(how)
    decoder, check = DECODERS[name](repair), Check((128, 128), repair)
    pieces = [check.feed(decoder.feed(data)), check.feed(decoder.end()), check.end()]
    return joined(pieces, None), repair


def try_all(name, events, tries, how, seed=0):
    """How often one wrong word was refused, changed nothing beyond its neighbourhood, or moved what follows."""
    header, words, is_time, is_event = FORMATS[name](events)
    assert rows(decoded(name, header + words.tobytes(), "refuse")[0]) == events
    t, rng, found = np.array([event[0] for event in events]), np.random.default_rng(seed), Counter()
    before = np.cumsum(is_event) - is_event  # events before each word
    for _ in range(tries):
        at = int(rng.integers(len(words)))
        later = np.flatnonzero(is_time[at + 1 :])
        stop = at + 1 + int(later[0]) if len(later) else len(words)
        first, last = before[at], before[stop] if stop < len(words) else len(t)  # events first … last - 1 are its neighbours
        try:
            got, repair = decoded(name, header + corrupted(words, at, rng), how)
        except ValueError:
            found["refused"] += 1
            continue
        kept = got.t[:first].tolist() == t[:first].tolist() and got.t[len(got.t) - (len(t) - last) :].tolist() == t[last:].tolist()
        if how == "drop":  # some may be missing, none is moved
            lost = Counter(t.tolist()) - Counter(got.t.tolist())
            moved = Counter(got.t.tolist()) - Counter(t.tolist())
            kept = moved.total() <= max(last - first, 12) and lost.total() <= repair.counts.total() + max(last - first, 12)
            found["lost"] += lost.total()
        found["right" if kept else "wrong"] += 1
    return found


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("how", ["refuse", "drop"])
def test_a_wrong_word_moves_nothing_silently(name, how):
    found = try_all(name, recording()[:1500], 40, how)
    assert not found["wrong"], found
    assert found["right"]
    assert found["refused"] > 0 or how == "drop"
    assert how == "refuse" or found["refused"] <= 4
