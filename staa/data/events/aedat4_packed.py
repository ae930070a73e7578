"""Packets of AEDAT 4.0 that are packed with LZ4 or ZSTD.

They are unpacked by the package aedat. It believes the header of its file, and one flipped bit there aborts the process. So it
never sees the file: it is given the packets of events alone, of known lengths, behind a header written here.
"""

import struct
import tempfile
from collections.abc import Iterator

import numpy as np

from staa.data.events.recording import AGAIN
from staa.files import check_bytes

MAGIC = b"#!AER-DAT4.0\r\n"
UNPACKED = np.dtype([("t", "i8"), ("x", "i2"), ("y", "i2"), ("on", "u1")])  # as the package gives them, without its titles
NONE, LZ4, LZ4_HIGH, ZSTD, ZSTD_HIGH = range(5)
XML = (
    b'<dv version="2.0"><node name="outInfo"><node name="0"><attr key="typeIdentifier" type="string">EVTS</attr>'
    b'<node name="info"><attr key="sizeX" type="int">1</attr><attr key="sizeY" type="int">1</attr></node></node></node></dv>'
)
BATCH = 1 << 24  # bytes of packets that are unpacked at a time
WINDOW = 1 << 27  # bytes that ZSTD looks back at most, by default

Packets = list[memoryview]


def broken(problem: str) -> ValueError:
    return ValueError(f"can't be decoded as AEDAT 4 ({problem}): {AGAIN}")


def number(form: str, data: memoryview, at: int) -> int:
    """A little-endian number, by its letter in struct."""
    if not 0 <= at <= len(data) - struct.calcsize(form):
        raise broken("a length or an offset points out of it")
    return struct.unpack_from(f"<{form}", data, at)[0]


def unpacked(packets: Packets, compression: int) -> Iterator[np.ndarray]:
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
                raise broken(str(error)) from error
        if count != len(batch):
            raise broken(f"only {count} of {len(batch)} packets could be unpacked")


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
    magic, flags, sizes = (number(form, frame, at) for form, at in (("I", 0), ("B", 4), ("B", 5)))
    if magic != 0x184D2204 or flags >> 6 != 1 or not 4 <= sizes >> 4 <= 7:
        raise broken("a packet is no frame of LZ4")
    block = 1 << 8 + 2 * (sizes >> 4)
    at, largest = 7 + 8 * (flags >> 3 & 1) + 4 * (flags & 1), 0
    while size := number("I", frame, at):
        packed, size = not size >> 31, size & 0x7FFFFFFF
        largest += min(block, 255 * size) if packed else size
        at += 4 + size + 4 * (flags >> 4 & 1)
    if at + 4 + 4 * (flags >> 2 & 1) != len(frame):
        raise broken("a packet is not exactly one frame of LZ4")
    return largest


def _zstd_size(frame: memoryview) -> int:
    """Bytes that one frame of ZSTD unpacks to at most, with what is kept to look back at. Raises as `_lz4_size` does.

    Source: RFC 8878, 3.1.1.
    """
    magic, flags = number("I", frame, 0), number("B", frame, 4)
    if magic != 0xFD2FB528:
        raise broken("a packet is no frame of ZSTD")
    single, at = flags >> 5 & 1, 5
    if not single:
        window = number("B", frame, at)
        window = (8 + (window & 7)) << 7 + (window >> 3)
    at += (1 - single) + (0, 1, 2, 4)[flags & 3]
    length = (single, 2, 4, 8)[flags >> 6]
    if single:
        window = number(" BHIQ"[length.bit_length()], frame, at) + 256 * (length == 2)
    at, largest, last = at + length, 0, 0
    while not last:
        head = number("H", frame, at) | number("B", frame, at + 2) << 16
        last, kind, size = head & 1, head >> 1 & 3, head >> 3
        largest += min(window, 1 << 17) if kind == 2 else size
        at += 3 + (1 if kind == 1 else size)
    if at + 4 * (flags >> 2 & 1) != len(frame):
        raise broken("a packet is not exactly one frame of ZSTD")
    return largest + min(window, WINDOW)
