"""Prophesee's EVT 2.1, whose words tell of 32 pixels of a row at once."""

import numpy as np

from staa.data.events.evt import Evt
from staa.data.events.recording import Events, unchecked


class Evt21(Evt):
    """Words of 64 bits, their type in bits 60-63.

    NEG (0), POS (1): time's bits 0-5, x, y in 6, 11, 11 bits, then a bit for each pixel of x … x + 31, the lowest for x.
    TIME_HIGH (8): time's bits 6-33 in bits 32-59. Others are skipped.

    A GenX320 writes a word as 8 bytes, little-endian. An IMX636, whose header says "endianness=legacy", writes its upper half
    first: each half is little-endian.

    Source: https://docs.prophesee.ai/stable/data/encoding_formats/evt21.html
    """

    word, bits, tick = np.uint64, 28, 64

    def _high(self, words: np.ndarray) -> np.ndarray:
        return words >> 32 & 0xFFFFFFF

    def _events(self, words: np.ndarray, at: np.ndarray, times: np.ndarray, lost: np.ndarray | None) -> Events:
        is_event = words < 2 << 60
        if lost is not None:
            self._repair.found("events of unknown time", len(_set_bits(words[is_event & lost])), "")
            is_event &= ~lost
        time = np.repeat(times, np.diff(at, prepend=0, append=len(words)))[is_event]
        word = words[is_event]
        pixels = _set_bits(word)
        i, head = pixels >> 5, (word >> 32).astype(np.int64)
        time, x, y, p = time + (head >> 22 & 0x3F), head >> 11 & 0x7FF, head & 0x7FF, head >> 28
        return unchecked(time[i], x[i] + (pixels & 31), y[i], p[i], None)


def _set_bits(words: np.ndarray) -> np.ndarray:
    """Of the lower halves of words, 32 bits each, those that are 1."""
    bits = (words & 0xFFFFFFFF).astype("<u4")
    return np.flatnonzero(np.unpackbits(bits.view(np.uint8), bitorder="little").view(bool))
