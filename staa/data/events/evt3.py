"""Prophesee's EVT 3.0, whose words change what holds from there on, or emit events with what holds."""

import numpy as np

from staa.data.events.evt import TIME_HIGH, Evt
from staa.data.events.recording import Events, unchecked
from staa.data.events.repair import Repair

NO_ROW, NO_BASE = 0x1000, 2  # no row of CD events; no VECT_BASE_X yet


class Evt3(Evt):
    """Words of 16 bits, their type in bits 12-15.

        0 ADDR_Y       y (1: a row of no CD events)    6 TIME_LOW   time's bits 0-11
        3 VECT_BASE_X  x (11 bits) and polarity        8 TIME_HIGH  time's bits 12-23; TIME_LOW is 0 until the next one
        2 ADDR_X       an event at x (11 bits) with polarity
        4 VECT_12      events at x + i of VECT_BASE_X for each set bit i of 12, then that x += 12; 5 VECT_8: the same of 8

    Other types are skipped, as are events before the first word of time, row or VECT_BASE_X that they need.
    """

    word, bits, tick = np.uint16, 12, 1 << 12

    def __init__(self, repair: Repair | None = None):
        super().__init__(repair)
        self._low, self._row, self._x, self._p = 0, NO_ROW, 0, NO_BASE  # TIME_LOW, word of row, VECT_BASE_X

    def _high(self, words: np.ndarray) -> np.ndarray:
        return words & 0xFFF

    def _events(self, words: np.ndarray, highs: np.ndarray, high: np.ndarray, lost: np.ndarray | None) -> Events:
        kind = (words >> 12).astype(np.uint8)
        is_time, is_row, is_vector = (kind == 6) | (kind == TIME_HIGH), kind <= 1, (kind >= 3) & (kind <= 5)
        times, rows = self._times(words[is_time], high), np.append(np.uint16(self._row), words[is_row])
        at = np.flatnonzero((kind == 2) | (kind == 4) | (kind == 5))
        word, kind, t, row = words[at], kind[at], times[np.cumsum(is_time)[at]], rows[np.cumsum(is_row)[at]]
        x, p, bits = (word & 0x7FF).astype(np.int32), word >> 11 & 1, np.ones(len(at), "<u2")
        vector = kind != 2
        x[vector], p[vector] = self._vectors(words[is_vector])
        bits[vector] = word[vector] & np.where(kind[vector] == 4, 0xFFF, 0xFF)
        bits[(row >= NO_ROW) | (p == NO_BASE)] = 0
        if lost is not None:
            self._repair.found("events of unknown time", int(np.unpackbits(bits[lost[at]].view(np.uint8)).sum()), "")
            bits[lost[at]] = 0
        self._row = int(rows[-1])
        on = np.flatnonzero(np.unpackbits(bits.view(np.uint8), bitorder="little").view(bool))  # 16 to a word, in order
        i = on >> 4
        return unchecked(t[i], x[i] + (on & 15).astype(np.int32), row[i] & 0x7FF, p[i], None)

    def _times(self, words: np.ndarray, high: np.ndarray) -> np.ndarray:
        """The time in µs before words of time, and from each of them on. high: the time of TIME_HIGH before, and of each."""
        is_high, value = words >= 0x8000, (words & 0xFFF).astype(np.int64)
        fresh = ~is_high  # TIME_LOW, or a TIME_HIGH that differs from the one before
        fresh[is_high] = np.diff(high) != 0
        value[is_high] = 0
        value, fresh = np.append(self._low, value), np.append(True, fresh)
        low = value[np.maximum.accumulate(np.where(fresh, np.arange(len(value)), 0))]
        self._low = int(low[-1])
        return high[np.append(0, np.cumsum(is_high))] + low

    def _vectors(self, words: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """x of the first bit and polarity of each vector among words of types 3, 4, 5."""
        is_base, long = words >> 12 == 3, words >> 12 == 4
        step = np.where(is_base, 0, np.where(long, 12, 8))
        ahead, count = np.cumsum(step), np.cumsum(is_base)
        x = np.append(self._x, (words[is_base] & 0x7FF) - ahead[is_base])[count] + ahead  # after the word
        p = np.append(self._p, words[is_base] >> 11 & 1)[count]
        if len(x):
            self._x, self._p = int(x[-1]), int(p[-1])
        return (x - step)[~is_base], p[~is_base]
