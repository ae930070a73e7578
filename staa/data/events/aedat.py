"""AEDAT 2.0 and 3.1, of iniVation's cameras."""

import re
import struct
import warnings

import numpy as np

from staa.data.events.counter import TimeCounter, TimedEvents
from staa.data.events.header import Header
from staa.data.events.recording import AGAIN, Events, Sensor, joined, said
from staa.data.events.records import Records
from staa.data.events.repair import Repair

PACKET = struct.Struct("<hhiiiiii")  # type, source, size, time's offset, time's overflow, capacity, number, valid
DVS128 = (128, 128)
DAVIS = {"128": (128, 128), "208": (192, 208), "240": (180, 240), "346": (260, 346), "640": (480, 640)}
"""(height, width) by the number in the camera's name"""


class Aedat2:
    """AEDAT 2.0: header lines starting with #, then big-endian uint32 address, uint32 time stamp in µs.

    Of a DVS128, bit 0 of an address is the polarity (0 is ON), bits 1-7 and 8-14 the pixel; bits 15 and 31 mark what is no
    pixel's event. x = 127 - bits 8-14, y = 127 - bits 1-7, as SpikingJelly reads the authors' CIFAR10-DVS: what published
    figures were measured on. jAER, which wrote the files, shows x = 127 - bits 1-7 and y = bits 8-14 from the bottom: this
    picture transposed. upright: as jAER shows it.

    Of a DAVIS of height H and width W, bit 11 is the polarity (1 is ON), x = W - 1 - bits 12-21, y = H - 1 - bits 22-30, which
    is upright; bit 31 marks samples of frames and of the IMU, bit 10 external events. What is no pixel's event is skipped.

    sensor: of a file that does not say its camera, as v2e's.

    Source: jAER's DavisBaseCamera and DVS128, and v2e's AEDat2Output
    """

    def __init__(self, repair: Repair | None = None, *, upright: bool = False, sensor: Sensor | None = None):
        self.sensor: Sensor | None = None
        self._repair, self._upright, self._given = repair or Repair(), upright, sensor
        self._header = Header(b"#", b"#!END-HEADER")
        self._begun = self._davis = False
        self._records = Records(np.dtype((">u4", 2)))
        self._timed = TimedEvents(TimeCounter(32, 1, self._repair))

    def feed(self, data: bytes, *, end: bool = False) -> Events:
        if not self._begun:
            data = self._header.feed(data, end=end)
            if not self._header.done:
                return joined([], None)
        address, t = self._records.feed(data).astype(np.uint32).T
        if not self._begun and (len(address) or end):
            self.sensor, self._begun = self._camera(address), True
        height, width = self.sensor or DVS128
        if self.sensor == DVS128 and not self._davis:
            address, t = _of_pixels(address & 0x80008000 == 0, address, t)
            self._check_dvs128(address)
            x, y = ((127 - (address >> bits & 0x7F)).view(np.int32) for bits in (8, 1))
            p = (1 - (address & 1)).astype(np.uint8)
            if self._upright:
                x, y = y, x
        else:
            address, t = _of_pixels(address & 0x80000400 == 0, address, t)
            address = address.astype(np.int64)
            x, y, p = width - 1 - (address >> 12 & 0x3FF), height - 1 - (address >> 22 & 0x1FF), address >> 11 & 1
        return self._timed.feed(t.astype(np.int64), x, y, p)._replace(sensor=self.sensor)

    def end(self) -> Events:
        events = joined([], self.sensor) if self._begun else self.feed(b"", end=True)
        if self._repair.how != "refuse":
            self._records.end(self._repair)
        elif rest := len(self._records.rest):  # recorders are stopped at any byte, and no file says how long it should be
            of = f"{self._repair.path}: " if self._repair.path else ""
            warnings.warn(f"{of}the last {rest} bytes are a part of an event and left out", stacklevel=2)
        return joined([events, self._timed.end()], self.sensor)

    def _camera(self, address: np.ndarray) -> Sensor:
        """The sensor, and whether it is a DAVIS's, by the header or the first addresses. Raises ValueError for another one."""
        chip = said(self._header.text, r"^# *AEChip: *(\S+)").rpartition(".")[2]
        davis = re.match(r"davis(\d+)", chip, re.IGNORECASE)
        if davis and davis[1] in DAVIS:
            self._davis = True
            return DAVIS[davis[1]]
        if chip and not chip.startswith("DVS128"):
            raise ValueError(
                f"AEDAT 2.0 can be read from a DVS128 or a DAVIS, found a {chip}: convert it to AEDAT 4 with iniVation's DV"
            )
        wide = bool((address[address >> 31 == 0] >> 16).any())
        self._davis = not chip and (wide or self._given not in (None, DVS128))
        if self._davis and self._given is None:
            raise ValueError("it has addresses of a DAVIS, but doesn't say which one: give `sensor`, such as 260x346")
        return (self._given if self._davis else None) or DVS128

    def _check_dvs128(self, address: np.ndarray) -> None:
        if self._header.text.find("AEChip") < 0 and (address >> 16).any():
            raise ValueError("it begins as of a DVS128, but has addresses of a DAVIS: give `sensor`, such as 260x346")


def _of_pixels(pixel: np.ndarray, address: np.ndarray, t: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return (address, t) if pixel.all() else (address[pixel], t[pixel])


class Aedat3:
    """AEDAT 3.1 (RAW): header to '#!END-HEADER', then packets, little-endian: `PACKET`, then its events.

    Polarity events (type 1): uint32 with bit 0 valid, bit 1 polarity, bits 2-16 y, 17-31 x; int32 time stamp in µs, to which
    the packet's overflow adds 2**31 each. Other types and invalid events are skipped. y counts from the top.
    """

    def __init__(self, repair: Repair | None = None):
        self.sensor: Sensor | None = None
        self._repair = repair or Repair()
        self._header = Header(b"#", b"#!END-HEADER")
        self._timed = TimedEvents(TimeCounter(None, 1, self._repair))
        self._rest, self._at, self._packet = b"", 0, 0  # where the rest begins, and the packet at work
        self._events, self._others, self._overflow = 0, 0, 0  # bytes that are left of it, and its overflow

    def feed(self, data: bytes, *, end: bool = False) -> Events:
        if not self._header.done:
            self._at += len(data)
            data = self._header.feed(data, end=end)
            if not self._header.done:
                return joined([], None)
            self._at -= len(data)
            self._begin()
        word, t = self._polarity_events(data)
        valid = word & 1 == 1
        if not valid.all():
            word, t = word[valid], t[valid]
        x, y, p = (word >> 17).view(np.int32), (word >> 2 & 0x7FFF).view(np.int32), (word >> 1 & 1).astype(np.uint8)
        return self._timed.feed(t, x, y, p)._replace(sensor=self.sensor)

    def end(self) -> Events:
        if not self._header.done:
            self.feed(b"", end=True)
        if self._events or self._others or self._rest:
            inside = f"the packet at byte {self._packet} goes beyond the last byte"
            problem = (
                inside if self._events or self._others else f"it ends within a packet, at byte {self._at + len(self._rest)}"
            )
            self._repair.found("bytes of a part of an event", len(self._rest), f"truncated: {problem}; {AGAIN}")
        return self._timed.end()._replace(sensor=self.sensor)

    def _begin(self) -> None:
        header = self._header.text
        if not self._header.ended:
            raise ValueError(f"the header has no last line '#!END-HEADER': it is truncated or no AEDAT 3.1; {AGAIN}")
        form, sources = said(header, r"^#Format: *(\S+)"), re.findall(r"^#Source \d+: *(\S*)", header, re.MULTILINE)
        if form not in ("", "RAW") or len(sources) > 1:
            found = f"format {form or 'unnamed'}, {len(sources)} sources"
            raise ValueError(f"expected AEDAT 3.1 of format RAW with one source, found {found}: convert it with iniVation's DV")
        self.sensor = DVS128 if sources and sources[0].startswith("DVS128") else None

    def _polarity_events(self, data: bytes) -> tuple[np.ndarray, np.ndarray]:
        """The words of the packets' polarity events, as far as they are there, and their times."""
        data, at = self._rest + data, 0
        found, overflows = [np.empty((0, 2), "<u4")], [0]
        while at < len(data):
            if self._events:
                count = min(self._events, len(data) - at) // 8
                if not count:
                    break
                found.append(np.frombuffer(data, "<u4", 2 * count, at).reshape(-1, 2))
                overflows.append(self._overflow)
                self._events -= 8 * count
                at += 8 * count
            elif self._others:
                skipped = min(self._others, len(data) - at)
                self._others -= skipped
                at += skipped
            elif len(data) - at >= PACKET.size:
                self._next_packet(data, at)
                at += PACKET.size
            else:
                break
        self._rest = data[at:]
        self._at += at
        word, t = np.concatenate(found).T
        return word, t.astype(np.int32) + (np.repeat(np.array(overflows, np.int64), [len(packet) for packet in found]) << 31)

    def _next_packet(self, data: bytes, at: int) -> None:
        self._packet = self._at + at
        kind, _, size, _, overflow, capacity, number, _ = PACKET.unpack_from(data, at)
        if kind < 0 or size < 1 or not 0 <= number <= capacity or overflow < 0 or (kind == 1 and size != 8):
            packet = f"type {kind}, {number} events in {capacity} places of {size} bytes, overflow {overflow}"
            raise ValueError(f"corrupt: there is no packet of AEDAT 3.1 at byte {self._packet} ({packet}); {AGAIN}")
        self._events, self._overflow = (number * size if kind == 1 else 0), overflow
        self._others = capacity * size - self._events
