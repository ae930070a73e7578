"""Prophesee's EVT 2.0, word by word; and what all EVT have in common: a header, and words of a type each."""

from typing import ClassVar

import numpy as np

from staa.data.events.counter import TimeCounter
from staa.data.events.header import geometry, prophesee_header
from staa.data.events.recording import Events, Sensor, joined, unchecked
from staa.data.events.records import Records
from staa.data.events.repair import Repair

SLICE = 1 << 17  # bytes at a time, which stay in the processor's cache: twice as fast
HELD = 1 << 20  # words that wait for a word of time at most
TIME_HIGH = 8


class Evt:
    """Abstract: a header, if there is one, then words, little-endian unless it differs, among them words of time.

    Of what follows a time that may be stray (`TimeCounter`) the events are given once the next word of time is there. Events
    before the first time, and after a stray one up to the next, are left out: their time is not known.

    A subclass says word, the type of a word, whose own type is in its highest four bits; bits and tick of the counter that
    TIME_HIGH tells (`TimeCounter`); and gives _high and _events.
    """

    word: ClassVar[type[np.unsignedinteger]]
    bits: ClassVar[int]
    tick: ClassVar[int]

    def __init__(self, repair: Repair | None = None):
        self.sensor: Sensor | None = None
        self._repair = repair or Repair()
        self._counter = TimeCounter(self.bits, self.tick, self._repair)
        self._header = prophesee_header(optional=True)
        self._words = Records(np.dtype(self.word).newbyteorder("<"), "words")
        self._type_at = 8 * np.dtype(self.word).itemsize - 4
        self._held = np.empty(0, self.word)
        self._halves = False  # EVT 2.1: the upper half of a word comes first
        self._begun, self._time, self._lost = False, 0, False  # lost: after a stray time

    @property
    def clock(self) -> int | None:
        """Time in µs of the last word of time: all events before it have been given, even if there are none."""
        return self._time if self._begun else None

    def feed(self, data: bytes) -> Events:
        if not self._header.done:
            data = self._after_header(data)
        pieces = [self._piece(data[start : start + SLICE]) for start in range(0, len(data), SLICE)]
        return joined(pieces, self.sensor)

    def end(self) -> Events:
        data = b"" if self._header.done else self._after_header(b"", end=True)
        events = self._piece(data, end=True)
        self._words.end(self._repair)
        return events._replace(sensor=self.sensor)

    def _high(self, words: np.ndarray) -> np.ndarray:
        """The counter in words TIME_HIGH."""
        raise NotImplementedError

    def _events(self, words: np.ndarray, at: np.ndarray, times: np.ndarray, lost: np.ndarray | None) -> Events:
        """The events of words. at: where words TIME_HIGH are among them. times: the time before them, and these times. lost: of
        which words the time is not known; None: of all it is."""
        raise NotImplementedError

    def _after_header(self, data: bytes, *, end: bool = False) -> bytes:
        data = self._header.feed(data, end=end)
        if self._header.done:
            self.sensor = geometry(self._header.text)
            self._halves = "endianness=legacy" in self._header.text
            if "endianness=big" in self._header.text:
                self._words = Records(np.dtype(self.word).newbyteorder(">"), "words")
        return data

    def _piece(self, data: bytes, *, end: bool = False) -> Events:
        words = self._words.feed(data).astype(self.word, copy=False)
        if self._halves:
            words = words << 32 | words >> 32
        if len(self._held):
            words = np.concatenate([self._held, words])
        at = np.flatnonzero(words >> self._type_at == TIME_HIGH)
        values = self._high(words[at]).astype(np.int64)
        if not self._begun:  # what is before the first word of time changes nothing
            begin = int(at[0]) if len(at) else len(words)
            words, at, self._begun = words[begin:], at - begin, len(at) > 0
        times, stray = self._counter.times(values, end=end or len(words) > HELD)
        decided = len(times)
        stop = len(words) if decided == len(values) else int(at[decided])
        self._held, words, at = words[stop:].copy(), words[:stop], at[:decided]
        times, lost = np.append(self._time, times), None
        if stray is not None or self._lost:
            none = np.append(self._lost, np.zeros(decided, bool) if stray is None else stray)
            lost = np.repeat(none, np.diff(at, prepend=0, append=len(words)))
            self._lost = bool(none[-1])
        self._time = int(times[-1])
        return self._events(words, at, times, lost)


class Evt2(Evt):
    """Prophesee EVT 2.0: words of 32 bits, their type in bits 28-31.

    CD_OFF (0), CD_ON (1): time's bits 0-5, x, y in 6, 11, 11 bits. TIME_HIGH (8): time's bits 6-33. Others are skipped.
    """

    word, bits, tick = np.uint32, 28, 64

    def _high(self, words: np.ndarray) -> np.ndarray:
        return words & 0xFFFFFFF

    def _events(self, words: np.ndarray, at: np.ndarray, times: np.ndarray, lost: np.ndarray | None) -> Events:
        is_event = words < 2 << 28
        if lost is not None:
            self._repair.found("events of unknown time", int((is_event & lost).sum()), "")
            is_event &= ~lost
        time = np.repeat(times, np.diff(at, prepend=0, append=len(words)))[is_event]
        word = words[is_event]
        x, y = (word >> 11 & 0x7FF).view(np.int32), (word & 0x7FF).view(np.int32)
        return unchecked(time + (word >> 22 & 0x3F), x, y, (word >> 28).astype(np.uint8), None)
