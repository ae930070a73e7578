"""What packets of AEDAT 4.0 unpack to, told from their frames of LZ4 and ZSTD before any is unpacked."""

import struct

from staa.data.events.recording import AGAIN

WINDOW = 1 << 27  # bytes that ZSTD looks back at most, by default


def broken(problem: str) -> ValueError:
    return ValueError(f"can't be decoded as AEDAT 4 ({problem}): {AGAIN}")


def number(form: str, data: memoryview, at: int) -> int:
    """A little-endian number, by its letter in struct."""
    if not 0 <= at <= len(data) - struct.calcsize(form):
        raise broken("a length or an offset points out of it")
    return struct.unpack_from(f"<{form}", data, at)[0]


def lz4_size(frame: memoryview) -> int:
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


def zstd_size(frame: memoryview) -> int:
    """Bytes that one frame of ZSTD unpacks to at most, with what is kept to look back at. Raises as `lz4_size` does.

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
