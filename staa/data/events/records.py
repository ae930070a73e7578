"""Formats whose every event is one record of some bytes: Prophesee's DAT, N-MNIST's .bin, and NumPy's structured arrays."""

import numpy as np

from staa.data.events.counter import TimeCounter, TimedEvents
from staa.data.events.header import geometry, prophesee_header
from staa.data.events.recording import Columns, Events, Sensor, said, truncated
from staa.data.events.repair import Repair

OVERFLOW = 1 << 13  # µs that an overflow of a .bin adds


class Records:
    """Bytes that come in any pieces, as whole records."""

    def __init__(self, dtype: np.dtype, what: str = "events"):
        self._dtype, self._what, self.rest = dtype, what, b""

    def feed(self, data: bytes) -> np.ndarray:
        data = self.rest + data if self.rest else data
        count = len(data) // self._dtype.itemsize
        self.rest = data[count * self._dtype.itemsize :]
        return np.frombuffer(data, self._dtype, count)

    def end(self, repair: Repair) -> None:
        """Raises ValueError if a part of a record is left, or leaves it out."""
        if self.rest:
            problem = truncated(len(self.rest), self._what, self._dtype.itemsize)
            repair.found("bytes of a part of an event", len(self.rest), problem)


class Dat:
    """Prophesee DAT, version 2: header, event type and size (a byte each), then uint32 t in µs, uint32 x 14, y 14, p 4 bits.

    A header may be missing. Of p the lowest bit is the polarity, as Prophesee's toolbox reads it; some cameras use the others.
    """

    def __init__(self, repair: Repair | None = None):
        self.sensor: Sensor | None = None
        self._repair = repair or Repair()
        self._header, self._kind = prophesee_header(optional=True), b""
        self._records = Records(np.dtype((np.uint32, 2)).newbyteorder("<"))
        self._timed = TimedEvents(TimeCounter(32, 1, self._repair))

    def feed(self, data: bytes) -> Events:
        if len(self._kind) < 2:
            data = self._begin(data)
        t, word = self._records.feed(data).T
        x, y = (word & 0x3FFF).view(np.int32), (word >> 14 & 0x3FFF).view(np.int32)
        events = self._timed.feed(t.astype(np.int64), x, y, (word >> 28 & 1).astype(np.uint8))
        return events._replace(sensor=self.sensor)

    def end(self) -> Events:
        if len(self._kind) < 2:
            self._begin(b"", end=True)
        self._records.end(self._repair)
        return self._timed.end()._replace(sensor=self.sensor)

    def _begin(self, data: bytes, *, end: bool = False) -> bytes:
        data = self._header.feed(self._kind + data if self._header.done else data, end=end)
        if not self._header.done:
            return b""
        self._kind = data[:2]
        if len(data) >= 2 or end:
            self.sensor = geometry(self._header.text)
            version = said(self._header.text, r"^% version (\S+)")
            if version not in ("", "2") or self._kind not in (b"\x00\x08", b"\x0c\x08"):
                raise ValueError(
                    f"expected DAT of version 2 with events of type 0 or 12 and 8 bytes, found version {version or 'unnamed'}, "
                    f"type and size {list(self._kind)}: truncated, or no DAT of CD events"
                )
        return data[2:]


class Bin:
    """Orchard et al. 2015: 5 bytes an event, x, y, then polarity in bit 23 and time in µs in the others, big-endian.

    An event at y = 240 is none: it says that a time of 13 bits has wrapped, and adds 2**13 µs to all that follow. So a
    recording has such events, or times of more than 13 bits: if it has both, the rarer are wrong.
    """

    def __init__(self, repair: Repair | None = None):
        self.sensor: Sensor | None = None
        self._repair = repair or Repair()
        self._records = Records(np.dtype((np.uint8, 5)))
        self._timed = TimedEvents(TimeCounter(None, 1, self._repair))
        self._wraps: bool | None = None
        self._overflows = 0

    def feed(self, data: bytes) -> Events:
        x, y, high, middle, low = self._records.feed(data).T
        p = high >> 7
        t = ((high & 0x7F).astype(np.int64) << 16) + (middle.astype(np.int64) << 8) + low
        overflow = y == 240
        if self._wraps or overflow.any():
            x, y, p, t = self._after_overflows(overflow, x, y, p, t)
        elif self._wraps is None and t.max(initial=0) >= OVERFLOW:
            self._wraps = False
        return self._timed.feed(t, x, y, p)

    def end(self) -> Events:
        self._records.end(self._repair)
        return self._timed.end()

    def _after_overflows(self, overflow: np.ndarray, x: np.ndarray, y: np.ndarray, p: np.ndarray, t: np.ndarray) -> Columns:
        long = (t >= OVERFLOW) & ~overflow
        if self._wraps is None:
            self._wraps = bool(overflow.sum() > long.sum())
        wrong = long if self._wraps else overflow
        if wrong.any():
            self._repair.found(
                "stray times",
                int(wrong.sum()),
                "it has an overflow of the time (an event at y 240) and times beyond 8191 µs, which a counter that overflows "
                "does not reach: one of them is wrong",
            )
        if self._wraps:
            t = t + (np.cumsum(overflow) + self._overflows) * OVERFLOW
            self._overflows += int(overflow.sum())
        right = ~(overflow | wrong)
        return x[right], y[right], p[right], t[right]


class Txyp:
    """Records of t int64 in µs, x and y uint16, p uint8, little-endian without padding, 13 bytes each: what `tobytes()` of a
    structured array of NumPy gives, so that a script of one's own can write them."""

    def __init__(self, repair: Repair | None = None):
        self.sensor: Sensor | None = None
        self._repair = repair or Repair()
        self._records = Records(np.dtype([("t", "<i8"), ("x", "<u2"), ("y", "<u2"), ("p", "u1")]))
        self._timed = TimedEvents(TimeCounter(None, 1, self._repair))

    def feed(self, data: bytes) -> Events:
        found = self._records.feed(data)
        return self._timed.feed(found["t"].astype(np.int64), found["x"], found["y"], found["p"])

    def end(self) -> Events:
        self._records.end(self._repair)
        return self._timed.end()
