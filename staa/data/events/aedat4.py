"""AEDAT 4.0 of iniVation's DV, checked byte by byte before anything is decoded.

    '#!AER-DAT4.0\\r\\n', uint32 length, header, packets (uint32 stream, uint32 length, content); from data_position an index

Header and contents are flatbuffers: the header holds compression, data_position and streams (as XML), a content of type EVTS a
vector of `EVENT`. Source: the format's page of DV's documentation, and its schemas ioheader.fbs and events.fbs.

LZ4 and ZSTD are unpacked by the package aedat. It believes the header of its file, and one flipped bit there aborts the
process. So it never sees the file: it is given the packets of events alone, of known lengths, behind a header written here.
"""

import re
import struct
import tempfile
from collections.abc import Container, Iterator
from xml.etree import ElementTree

import numpy as np

from staa.data.events.counter import TimeCounter, TimedEvents
from staa.data.events.recording import AGAIN, LARGEST, Events, Sensor, joined
from staa.data.events.repair import Repair
from staa.files import check_bytes

MAGIC = b"#!AER-DAT4.0\r\n"
EVENT = np.dtype(
    {"names": ["t", "x", "y", "on"], "formats": ["<i8", "<i2", "<i2", "u1"], "offsets": [0, 8, 10, 12], "itemsize": 16}
)
UNPACKED = np.dtype([("t", "i8"), ("x", "i2"), ("y", "i2"), ("on", "u1")])  # as the package gives them, without its titles
NONE, LZ4, LZ4_HIGH, ZSTD, ZSTD_HIGH = range(5)
XML = (
    b'<dv version="2.0"><node name="outInfo"><node name="0"><attr key="typeIdentifier" type="string">EVTS</attr>'
    b'<node name="info"><attr key="sizeX" type="int">1</attr><attr key="sizeY" type="int">1</attr></node></node></node></dv>'
)
LONGEST_XML = 1 << 20  # bytes; DV writes a few thousand
LONGEST_HEADER = 2 * LONGEST_XML
BATCH = 1 << 24  # bytes of packets that are unpacked at a time
WINDOW = 1 << 27  # bytes that ZSTD looks back at most, by default

Packets = list[memoryview]


class Aedat4:
    """The one stream of events in such a file, or that of this number. Packed packets need the package aedat: ImportError."""

    def __init__(self, repair: Repair | None = None, *, stream: str | None = None):
        self.sensor: Sensor | None = None
        self._repair, self._stream = repair or Repair(), stream
        self._timed = TimedEvents(TimeCounter(None, 1, self._repair))
        self._bytes, self._at = bytearray(), 0  # what is not taken yet, and where in the file it begins
        self._wanted, self._compression, self._end = (
            -1,
            NONE,
            -1,
        )  # _end: of the packets; -1: where the file ends, if it was cut off
        self._known: Container[int] = ()

    def feed(self, data: bytes) -> Events:
        self._bytes += data
        if self._wanted < 0 and not self._begin():
            return joined([], None)
        packets = list(self._packets())
        pieces = list(map(_events, packets) if self._compression == NONE else _unpacked(packets, self._compression))
        return self._timed_events(np.concatenate(pieces))._replace(sensor=self.sensor) if pieces else joined([], self.sensor)

    def end(self) -> Events:
        length = len(self._bytes)
        if self._wanted < 0:
            raise _broken(
                "it ends within its header" if self._bytes.startswith(MAGIC) else f"it begins with {bytes(self._bytes[:14])!r}"
            )
        if self._end > self._at + length:
            raise _broken(f"its packets go to byte {self._end}, but it has {self._at + length} bytes")
        if length >= 8:
            raise _broken(f"the packet at byte {self._at} goes beyond the end of the packets, {self._at + length}")
        if length >= 4 or 0 <= self._at < self._end:  # fewer bytes may be left of a recording that was cut off
            raise _broken("a length or an offset points out of it")
        return self._timed.end()._replace(sensor=self.sensor)

    def _take(self, count: int) -> bytes:
        taken = bytes(self._bytes[:count])
        del self._bytes[:count]
        self._at += count
        return taken

    def _begin(self) -> bool:
        """Reads the header if it is whole."""
        begin = self._bytes[: len(MAGIC)]
        if not MAGIC.startswith(begin):
            raise _broken(f"it begins with {bytes(begin)!r}")
        if len(self._bytes) < len(MAGIC) + 4:
            return False
        length = int.from_bytes(self._bytes[len(MAGIC) : len(MAGIC) + 4], "little")
        if length > LONGEST_HEADER:
            raise _broken(f"a header of {length:,} bytes")
        if len(self._bytes) < len(MAGIC) + 4 + length:
            return False
        header = memoryview(self._take(len(MAGIC) + 4 + length))[len(MAGIC) + 4 :]
        at = [_field(header, i, b"IOHE") for i in range(3)]
        self._compression = _number("i", header, at[0]) if at[0] else NONE
        self._end = _number("q", header, at[1]) if at[1] else -1
        if not NONE <= self._compression <= ZSTD_HIGH:
            raise _broken(f"compression {self._compression} is unknown")
        if self._end != -1 and self._end < self._at:
            raise _broken(f"its packets go from byte {self._at} to {self._end}")
        if not at[2]:
            raise _broken("it has no description")
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
                raise _broken(f"the packet at byte {at} is of stream {stream}, which the header does not name")
            if 0 <= self._end < at + 8 + length:
                raise _broken(f"the packet at byte {at} goes beyond the end of the packets, {self._end}")
            if len(data) < taken + 8 + length:
                check_bytes(length, "a packet of it")
                break
            if stream == self._wanted:
                yield memoryview(bytes(data[taken + 8 : taken + 8 + length]))
            taken += 8 + length
        self._take(taken)

    def _timed_events(self, found: np.ndarray) -> Events:
        t = found["t"].astype(np.int64)
        far = (t > LARGEST) | (t < -LARGEST)
        if far.any():
            at = int(far.argmax())
            self._repair.found("stray times", int(far.sum()), f"a time of {t[at]} µs is not within ±2**62")
            found, t = found[~far], t[~far]
        return self._timed.feed(t, found["x"], found["y"], found["on"] != 0)


def _broken(problem: str) -> ValueError:
    return ValueError(f"can't be decoded as AEDAT 4 ({problem}): {AGAIN}")


def _number(form: str, data: memoryview, at: int) -> int:
    """A little-endian number, by its letter in struct."""
    if not 0 <= at <= len(data) - struct.calcsize(form):
        raise _broken("a length or an offset points out of it")
    return struct.unpack_from(f"<{form}", data, at)[0]


def _field(buffer: memoryview, index: int, kind: bytes) -> int:
    """Where a field of a flatbuffer's root table begins; 0 if it is left out."""
    if buffer[4:8] != kind:
        raise _broken(f"expected a flatbuffer {kind.decode()}, found {bytes(buffer[4:8])!r}")
    table = _number("I", buffer, 0)
    fields = table - _number("i", buffer, table)
    there = 6 + 2 * index <= _number("H", buffer, fields)
    offset = _number("H", buffer, fields + 4 + 2 * index) if there else 0
    return table + offset if offset else 0


def _text(header: memoryview, at: int) -> str:
    at += _number("I", header, at)
    length = _number("I", header, at)
    if length > min(len(header) - at - 4, LONGEST_XML):
        raise _broken(f"a description of {length} bytes")
    try:
        return bytes(header[at + 4 : at + 4 + length]).decode()
    except UnicodeDecodeError as error:
        raise _broken("the description is not UTF-8") from error


def _streams(xml: str) -> dict[int, tuple[str | None, tuple[int, int] | None]]:
    """id -> type and, if it says so, the sensor's (height, width)."""
    if "<!DOCTYPE" in xml:  # entities that multiply
        raise _broken("the description defines a type of document")
    try:
        nodes = ElementTree.fromstring(xml).findall("./node[@name='outInfo'][1]/node")
    except (ElementTree.ParseError, ValueError) as error:
        raise _broken(f"the description is not XML: {error}") from error
    attributes = lambda node: {a.get("key"): a.text or "" for a in node.findall("attr")}  # noqa: E731
    found = {}
    for node in nodes:
        stream, info = _whole(node.get("name") or ""), node.find("node[@name='info']")
        if stream is None or stream in found:
            raise _broken("a stream without a number of its own")
        about = {} if info is None else attributes(info)
        height, width = (_whole(about.get(key, "")) for key in ("sizeY", "sizeX"))
        found[stream] = attributes(node).get("typeIdentifier"), None if height is None or width is None else (height, width)
    return found


def _whole(text: str) -> int | None:
    return int(text) if re.fullmatch(r"[0-9]{1,9}", text) else None


def _events(packet: memoryview) -> np.ndarray:
    """The events of a content that is not packed, as a view of it."""
    size = _number("I", packet, 0)
    body = packet[4 : 4 + size]
    if len(body) < size:
        raise _broken("a packet is shorter than it says")
    at = _field(body, 0, b"EVTS")
    if not at:
        return np.empty(0, EVENT)
    at += _number("I", body, at)
    count = _number("I", body, at)
    if count * EVENT.itemsize > len(body) - at - 4:
        raise _broken(f"a packet is too short for {count} events")
    return np.frombuffer(body, EVENT, count, at + 4)


def _unpacked(packets: Packets, compression: int) -> Iterator[np.ndarray]:
    """The events of packed contents. Raises ImportError without the package aedat, ValueError for what it can't unpack."""
    try:
        import aedat
    except ImportError as error:
        raise ImportError('packed AEDAT 4 is read by the package aedat: pip install "staa-snn[events]"') from error
    largest = _lz4_size if compression in (LZ4, LZ4_HIGH) else _zstd_size
    head = struct.pack("<I4s6xHHHHHiiIqI", 24, b"IOHE", 10, 20, 4, 12, 8, 10, compression, 12, -1, len(XML)) + XML + b"\0"
    head = MAGIC + struct.pack("<I", len(head)) + head
    for batch in _batches(packets):
        check_bytes(max(map(largest, batch)), "a packet of it")
        with tempfile.NamedTemporaryFile(suffix=".aedat4") as file:
            file.write(b"".join([head, *(part for p in batch for part in (struct.pack("<II", 0, len(p)), p))]))
            file.flush()
            count = 0
            try:
                for found in aedat.Decoder(file.name):
                    yield found["events"].view(UNPACKED)
                    count += 1
            except BaseException as error:
                if (
                    not isinstance(error, Exception) and type(error).__name__ != "PanicException"
                ):  # Rust's, for a corrupt packet
                    raise
                raise _broken(str(error)) from error
        if count != len(batch):
            raise _broken(f"only {count} of {len(batch)} packets could be unpacked")


def _batches(packets: Packets) -> Iterator[Packets]:
    """The packets, so many at a time that they fill about `BATCH` bytes."""
    batch, size = [], 0
    for packet in packets:
        batch.append(packet)
        size += len(packet)
        if size >= BATCH:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _lz4_size(frame: memoryview) -> int:
    """Bytes that one frame of LZ4 unpacks to at most. Raises ValueError for what is not exactly one frame.

    Source: lz4_Frame_format.md, version 1.6.3. A byte of a block unpacks to 255 bytes at most.
    """
    magic, flags, sizes = (_number(form, frame, at) for form, at in (("I", 0), ("B", 4), ("B", 5)))
    if magic != 0x184D2204 or flags >> 6 != 1 or not 4 <= sizes >> 4 <= 7:
        raise _broken("a packet is no frame of LZ4")
    block = 1 << 8 + 2 * (sizes >> 4)
    at, largest = 7 + 8 * (flags >> 3 & 1) + 4 * (flags & 1), 0
    while size := _number("I", frame, at):
        packed, size = not size >> 31, size & 0x7FFFFFFF
        largest += min(block, 255 * size) if packed else size
        at += 4 + size + 4 * (flags >> 4 & 1)
    if at + 4 + 4 * (flags >> 2 & 1) != len(frame):
        raise _broken("a packet is not exactly one frame of LZ4")
    return largest


def _zstd_size(frame: memoryview) -> int:
    """Bytes that one frame of ZSTD unpacks to at most, with what is kept to look back at. Raises as `_lz4_size` does.

    Source: RFC 8878, 3.1.1.
    """
    magic, flags = _number("I", frame, 0), _number("B", frame, 4)
    if magic != 0xFD2FB528:
        raise _broken("a packet is no frame of ZSTD")
    single, at = flags >> 5 & 1, 5
    if not single:
        window = _number("B", frame, at)
        window = (8 + (window & 7)) << 7 + (window >> 3)
    at += (1 - single) + (0, 1, 2, 4)[flags & 3]
    length = (single, 2, 4, 8)[flags >> 6]
    if single:
        window = _number(" BHIQ"[length.bit_length()], frame, at) + 256 * (length == 2)
    at, largest, last = at + length, 0, 0
    while not last:
        head = _number("H", frame, at) | _number("B", frame, at + 2) << 16
        last, kind, size = head & 1, head >> 1 & 3, head >> 3
        largest += min(window, 1 << 17) if kind == 2 else size
        at += 3 + (1 if kind == 1 else size)
    if at + 4 * (flags >> 2 & 1) != len(frame):
        raise _broken("a packet is not exactly one frame of ZSTD")
    return largest + min(window, WINDOW)
