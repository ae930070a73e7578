"""Prophesee's formats: DAT, EVT 2.0 and EVT 3.0."""

import re
from pathlib import Path

import numpy as np

from staa.data.events.recording import Events, Sensor, afford, polarity, records, said, unwrap
from staa.files import read_bytes

Columns = tuple[np.ndarray, ...]
State = tuple[int, int, int, int]
PROPHESEE_HEADER = re.compile(rb"(?:% (?!end\r?\n)[^\n]*+\n)*+(?:% end\r?\n)?")
SLICE = 1 << 16  # words of EVT 3.0 at a time
NO_ROW, NO_BASE = 0x1000, 2  # EVT 3.0: no row of CD events, no VECT_BASE_X yet


def read_dat(path: Path) -> Events:
    """Prophesee DAT, version 2: header, event type and size (a byte each), then uint32 t in µs, uint32 x 14, y 14, p 4 bits."""
    data = read_bytes(path)
    header, start = _prophesee_header(data)
    version, event = said(header, r"^% version (\S+)"), data[start : start + 2]
    if version not in ("", "2") or event not in (b"\x00\x08", b"\x0c\x08"):
        raise ValueError(
            f"expected DAT of version 2 with events of type 0 or 12 and 8 bytes, found version {version or 'unnamed'}, "
            f"type and size {list(event)}: truncated, or no DAT of CD events"
        )
    t, word = records(data, start + 2, np.dtype(("<u4", 2))).T
    return Events(unwrap(t, 32), word & 0x3FFF, word >> 14 & 0x3FFF, polarity(word >> 28), _geometry(header))


def read_raw(path: Path) -> Events:
    """Prophesee RAW: header, then words of EVT 2.0 (32 bits) or EVT 3.0 (16 bits), little-endian unless the header differs."""
    data = read_bytes(path)
    header, start = _prophesee_header(data)
    name = said(header, r"^% format (\w+)").upper() or "EVT" + said(header, r"^% evt (\S+)")
    decode, word = EVT.get(name.removesuffix(".0"), (None, np.uint8))
    if decode is None:
        raise ValueError(
            f"it is encoded as {name}; expected EVT 2.0 or 3.0, told by a header line '% evt 3.0' or '% format EVT3;…': "
            f"convert it to DAT with Metavision's metavision_file_to_dat"
        )
    words = records(data, start, np.dtype(word).newbyteorder(">" if "endianness=big" in header else "<"), "words")
    return decode(words.astype(word, copy=False))._replace(sensor=_geometry(header))


def _evt2(words: np.ndarray) -> Events:
    """Type in bits 28-31. CD_OFF (0), CD_ON (1): time's bits 0-5, x, y in 6, 11, 11 bits. TIME_HIGH (8): time's bits 6-33.

    Other types (triggers, …) are skipped, as are events before the first TIME_HIGH: their time is not known.
    """
    afford(len(words))
    kind = words >> 28
    is_time = kind == 8
    base = np.append(-1, unwrap(words[is_time] & 0xFFFFFFF, 28))[np.cumsum(is_time)]
    at = np.flatnonzero((kind <= 1) & (base >= 0))
    word = words[at]
    return Events((base[at] << 6) + (word >> 22 & 0x3F), word >> 11 & 0x7FF, word & 0x7FF, kind[at], None)


def _evt3(words: np.ndarray) -> Events:
    """Type in bits 12-15; each word changes what holds from there on, or emits events with what holds.

        0 ADDR_Y       y (1: a row of no CD events)    6 TIME_LOW   time's bits 0-11
        3 VECT_BASE_X  x (11 bits) and polarity        8 TIME_HIGH  time's bits 12-23; TIME_LOW is 0 until the next one
        2 ADDR_X       an event at x (11 bits) with polarity
        4 VECT_12      events at x + i of VECT_BASE_X for each set bit i of 12, then that x += 12; 5 VECT_8: the same of 8

    Other types are skipped, as are events before the first word of time, row or VECT_BASE_X that they need.
    """
    is_high = words >> 12 == 8
    words = words[is_high.argmax() :] if is_high.any() else words[:0]
    pieces: list[Columns] = [(np.zeros(0, np.uint16),) * 4]
    state, count = (0, NO_ROW, 0, NO_BASE), 0
    for start in range(0, len(words), SLICE):  # in slices that stay in the processor's cache, twice as fast
        piece, state = _evt3_slice(words[start : start + SLICE], *state)
        pieces.append(piece)
        count += len(piece[0])
        afford(count)
    return Events(*(np.concatenate(column) for column in zip(*pieces, strict=True)), sensor=None)


def _evt3_slice(words: np.ndarray, t0: int, row0: int, x0: int, p0: int) -> tuple[Columns, State]:
    """The events (t, x, y, p) of some words, given the state before them: time, word of row, VECT_BASE_X; and that after."""
    kind = (words >> 12).astype(np.uint8)
    is_time, is_row, is_vector = (kind == 6) | (kind == 8), kind <= 1, (kind >= 3) & (kind <= 5)
    times, rows = _evt3_times(words[is_time], t0), np.append(np.uint16(row0), words[is_row])
    at = np.flatnonzero((kind == 2) | (kind == 4) | (kind == 5))
    word, kind, t, row = words[at], kind[at], times[np.cumsum(is_time)[at]], rows[np.cumsum(is_row)[at]]
    x, p, bits = (word & 0x7FF).astype(np.int32), word >> 11 & 1, np.ones(len(at), "<u2")
    vector = kind != 2
    x[vector], p[vector], x0, p0 = _evt3_vectors(words[is_vector], x0, p0)
    bits[vector] = word[vector] & np.where(kind[vector] == 4, 0xFFF, 0xFF)
    bits[(row >= NO_ROW) | (p == NO_BASE)] = 0
    on = np.flatnonzero(np.unpackbits(bits.view(np.uint8), bitorder="little").view(bool))  # 16 to a word, in order
    i = on >> 4
    return (t[i], x[i] + (on & 15).astype(np.int32), row[i] & 0x7FF, p[i]), (int(times[-1]), int(rows[-1]), x0, p0)


def _evt3_times(words: np.ndarray, t0: int) -> np.ndarray:
    """t0, then the time in µs from each word of time on."""
    words = np.append(np.array([0x8000 | t0 >> 12 & 0xFFF, 0x6000 | t0 & 0xFFF], np.uint16), words)
    is_high, value = words >= 0x8000, (words & 0xFFF).astype(np.int64)
    high = unwrap(value[is_high], 12)
    fresh = ~is_high  # TIME_LOW, or a TIME_HIGH that differs from the one before
    fresh[is_high] = np.diff(high, prepend=high[0]) != 0
    value[is_high] = 0
    low = value[np.maximum.accumulate(np.where(fresh, np.arange(len(words)), 0))]
    return ((t0 >> 24 << 24) + (high[np.cumsum(is_high) - 1] << 12) + low)[1:]


def _evt3_vectors(words: np.ndarray, x0: int, p0: int) -> tuple[np.ndarray, np.ndarray, int, int]:
    """x of the first bit and polarity of each vector among words of types 3, 4, 5, given those before them; and those after."""
    is_base, long = words >> 12 == 3, words >> 12 == 4
    step = np.where(is_base, 0, np.where(long, 12, 8))
    ahead, count = np.cumsum(step), np.cumsum(is_base)
    x = np.append(x0, (words[is_base] & 0x7FF) - ahead[is_base])[count] + ahead  # after the word
    p = np.append(p0, words[is_base] >> 11 & 1)[count]
    after = (int(x[-1]), int(p[-1])) if len(x) else (x0, p0)
    return (x - step)[~is_base], p[~is_base], *after


def _prophesee_header(data: bytes) -> tuple[str, int]:
    """The lines '% field value' and where they end: after '% end', or before the first line without '% '."""
    header = PROPHESEE_HEADER.match(data)
    if not header or not header.end():
        raise ValueError(f"expected header lines starting with '% ', found {data[:8]!r}: it is no Prophesee file")
    return header[0].decode("latin-1"), header.end()


def _geometry(header: str) -> Sensor | None:
    """From '% format EVT3;height=720;width=1280', '% geometry 1280x720', or '% height 720' and '% width 1280'."""
    height = said(header, r"^% (?:format \S*;)?height[= ](\d+)") or said(header, r"^% geometry \d+x(\d+)")
    width = said(header, r"^% (?:format \S*;)?width[= ](\d+)") or said(header, r"^% geometry (\d+)x")
    return (int(height), int(width)) if height and width else None


EVT = {"EVT2": (_evt2, np.uint32), "EVT3": (_evt3, np.uint16)}
