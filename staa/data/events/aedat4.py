"""AEDAT 4.0 of iniVation's DV, checked byte by byte before anything is decoded.

    '#!AER-DAT4.0\\r\\n', uint32 length, header, packets (uint32 stream, uint32 length, content); from data_position an index

Header and contents are flatbuffers: the header holds compression, data_position and streams (as XML), a content of type EVTS a
vector of `EVENT`. Source: the format's page of DV's documentation, and its schemas ioheader.fbs and events.fbs.
"""

import re
import struct
from collections.abc import Container, Iterator
from xml.etree import ElementTree

import numpy as np

from staa.data.events.aedat4_packed import MAGIC, NONE, ZSTD_HIGH, broken, number, unpacked
from staa.data.events.counter import TimeCounter, TimedEvents
from staa.data.events.recording import Events, Sensor, joined
from staa.data.events.repair import Repair
from staa.files import check_bytes

EVENT = np.dtype(
    {"names": ["t", "x", "y", "on"], "formats": ["<i8", "<i2", "<i2", "u1"], "offsets": [0, 8, 10, 12], "itemsize": 16}
)
LONGEST_XML = 1 << 20  # bytes; DV writes a few thousand
LONGEST_HEADER = 2 * LONGEST_XML


class Aedat4:
    """The one stream of events in such a file, or that of this number. Packed packets need the package aedat: ImportError."""

    def __init__(self, repair: Repair | None = None, *, stream: str | None = None):
        self.sensor: Sensor | None = None
        self._repair, self._stream = repair or Repair(), stream
        self._timed = TimedEvents(TimeCounter(None, 1, self._repair))
        self._bytes, self._at = bytearray(), 0  # what is not taken yet, and where in the file it begins
        self._wanted, self._compression = -1, NONE
        self._end = -1  # of the packets; -1: where the file ends, if it was cut off
        self._known: Container[int] = ()

    def feed(self, data: bytes) -> Events:
        self._bytes += data
        if self._wanted < 0 and not self._begin():
            return joined([], None)
        packets = list(self._packets())
        pieces = list(map(_events, packets) if self._compression == NONE else unpacked(packets, self._compression))
        return self._timed_events(np.concatenate(pieces))._replace(sensor=self.sensor) if pieces else joined([], self.sensor)

    def end(self) -> Events:
        length = len(self._bytes)
        if self._wanted < 0:
            raise broken(
                "it ends within its header" if self._bytes.startswith(MAGIC) else f"it begins with {bytes(self._bytes[:14])!r}"
            )
        if self._end > self._at + length:
            self._left_out(f"its packets go to byte {self._end}, but it has {self._at + length} bytes")
        elif length >= 8:
            self._left_out(f"the packet at byte {self._at} goes beyond the end of the packets, {self._at + length}")
        elif length >= 4 or 0 <= self._at < self._end:  # fewer bytes may be left of a recording that was cut off
            self._left_out("a length or an offset points out of it")
        return self._timed.end()._replace(sensor=self.sensor)

    def _left_out(self, problem: str) -> None:
        """Raises ValueError for the bytes at the end that are no whole packet, or leaves them out."""
        self._repair.found("bytes of a part of an event", len(self._bytes), str(broken(problem)))

    def _take(self, count: int) -> bytes:
        taken = bytes(self._bytes[:count])
        del self._bytes[:count]
        self._at += count
        return taken

    def _begin(self) -> bool:
        """Reads the header if it is whole."""
        begin = self._bytes[: len(MAGIC)]
        if not MAGIC.startswith(begin):
            raise broken(f"it begins with {bytes(begin)!r}")
        if len(self._bytes) < len(MAGIC) + 4:
            return False
        length = int.from_bytes(self._bytes[len(MAGIC) : len(MAGIC) + 4], "little")
        if length > LONGEST_HEADER:
            raise broken(f"a header of {length:,} bytes")
        if len(self._bytes) < len(MAGIC) + 4 + length:
            return False
        header = memoryview(self._take(len(MAGIC) + 4 + length))[len(MAGIC) + 4 :]
        at = [_field(header, i, b"IOHE") for i in range(3)]
        self._compression = number("i", header, at[0]) if at[0] else NONE
        self._end = number("q", header, at[1]) if at[1] else -1
        if not NONE <= self._compression <= ZSTD_HIGH:
            raise broken(f"compression {self._compression} is unknown")
        if self._end != -1 and self._end < self._at:
            raise broken(f"its packets go from byte {self._at} to {self._end}")
        if not at[2]:
            raise broken("it has no description")
        streams = _streams(_text(header, at[2]))
        events = [stream for stream, (kind, _) in streams.items() if kind == "EVTS"]
        told = ", ".join(f"{i} ({' × '.join(map(str, streams[i][1] or ['unknown size']))})" for i in events[:9])
        if self._stream is not None:
            events = [stream for stream in events if str(stream) == self._stream]
            if not events:
                raise ValueError(f"it has no stream of events {self._stream!r}: choose one of {told or 'none'}")
        if len(events) != 1:
            choose = f"choose one with `stream`: {told}" if events else "it is no recording"
            raise ValueError(f"expected one stream of events, found {len(events)}: {choose}")
        self._known, self._wanted, self.sensor = streams.keys(), events[0], streams[events[0]][1]
        return True

    def _packets(self) -> Iterator[memoryview]:
        """The contents of the wanted stream's packets that are whole."""
        taken, start = 0, self._at
        data = self._bytes
        while len(data) - taken >= 8:
            at = start + taken
            if self._end >= 0 and at >= self._end:  # an index follows, which is not needed
                taken = len(data)
                break
            stream, length = struct.unpack_from("<II", data, taken)
            if stream not in self._known:
                raise broken(f"the packet at byte {at} is of stream {stream}, which the header does not name")
            if 0 <= self._end < at + 8 + length:
                raise broken(f"the packet at byte {at} goes beyond the end of the packets, {self._end}")
            if len(data) < taken + 8 + length:
                check_bytes(length, "a packet of it")
                break
            if stream == self._wanted:
                yield memoryview(bytes(data[taken + 8 : taken + 8 + length]))
            taken += 8 + length
        self._take(taken)

    def _timed_events(self, found: np.ndarray) -> Events:
        return self._timed.feed(found["t"].astype(np.int64), found["x"], found["y"], found["on"] != 0)


def _field(buffer: memoryview, index: int, kind: bytes) -> int:
    """Where a field of a flatbuffer's root table begins; 0 if it is left out."""
    if buffer[4:8] != kind:
        raise broken(f"expected a flatbuffer {kind.decode()}, found {bytes(buffer[4:8])!r}")
    table = number("I", buffer, 0)
    fields = table - number("i", buffer, table)
    there = 6 + 2 * index <= number("H", buffer, fields)
    offset = number("H", buffer, fields + 4 + 2 * index) if there else 0
    return table + offset if offset else 0


def _text(header: memoryview, at: int) -> str:
    at += number("I", header, at)
    length = number("I", header, at)
    if length > min(len(header) - at - 4, LONGEST_XML):
        raise broken(f"a description of {length} bytes")
    try:
        return bytes(header[at + 4 : at + 4 + length]).decode()
    except UnicodeDecodeError as error:
        raise broken("the description is not UTF-8") from error


def _streams(xml: str) -> dict[int, tuple[str | None, tuple[int, int] | None]]:
    """id -> type and, if it says so, the sensor's (height, width)."""
    if "<!DOCTYPE" in xml:  # entities that multiply
        raise broken("the description defines a type of document")
    try:
        nodes = ElementTree.fromstring(xml).findall("./node[@name='outInfo'][1]/node")
    except (ElementTree.ParseError, ValueError) as error:
        raise broken(f"the description is not XML: {error}") from error
    attributes = lambda node: {a.get("key"): a.text or "" for a in node.findall("attr")}  # noqa: E731
    found = {}
    for node in nodes:
        stream, info = _whole(node.get("name") or ""), node.find("node[@name='info']")
        if stream is None or stream in found:
            raise broken("a stream without a number of its own")
        about = {} if info is None else attributes(info)
        height, width = (_whole(about.get(key, "")) for key in ("sizeY", "sizeX"))
        found[stream] = attributes(node).get("typeIdentifier"), None if height is None or width is None else (height, width)
    return found


def _whole(text: str) -> int | None:
    return int(text) if re.fullmatch(r"[0-9]{1,9}", text) else None


def _events(packet: memoryview) -> np.ndarray:
    """The events of a content that is not packed, as a view of it."""
    size = number("I", packet, 0)
    body = packet[4 : 4 + size]
    if len(body) < size:
        raise broken("a packet is shorter than it says")
    at = _field(body, 0, b"EVTS")
    if not at:
        return np.empty(0, EVENT)
    at += number("I", body, at)
    count = number("I", body, at)
    if count * EVENT.itemsize > len(body) - at - 4:
        raise broken(f"a packet is too short for {count} events")
    return np.frombuffer(body, EVENT, count, at + 4)
