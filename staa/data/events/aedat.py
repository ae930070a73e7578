"""AEDAT 2.0, 3.1 and 4.0, of iniVation's cameras."""

import re
import struct
import warnings
from pathlib import Path

import numpy as np

from staa.data.events.aedat4 import AGAIN, read_aedat4
from staa.data.events.arrays import integers
from staa.data.events.recording import EVENT_BYTES, Events, records, said, unwrap
from staa.files import check_bytes, max_bytes, read_bytes

AEDAT2_HEADER = re.compile(rb"(?:#[^\n]*+\n)*+")
AEDAT3_END = re.compile(rb"^#!END-HEADER\r?\n", re.MULTILINE)
AEDAT3_PACKET = struct.Struct("<hhiiiiii")  # type, source, size, time's offset, time's overflow, capacity, number, valid
PACKET_BYTES = 384  # that a packet of AEDAT 3.1 takes beside its events


def read_aedat(path: Path) -> Events:
    data = read_bytes(path)
    reader = {b"#!AER-DAT2.0": _aedat2, b"#!AER-DAT3.1": _aedat3, b"#!AER-DAT4.0": read_packed}.get(data[:12])
    if reader is None:
        raise ValueError(f"expected a first line '#!AER-DAT2.0', '#!AER-DAT3.1' or '#!AER-DAT4.0', found {data[:12]!r}")
    return reader(data, path)


def _aedat2(data: bytes, path: Path) -> Events:
    """AEDAT 2.0 of a DVS128: header lines starting with #, then big-endian uint32 address, uint32 time stamp in µs.

    Address: bit 0 polarity (0 is ON), bits 1-7 and 8-14 the pixel; bits 15 and 31 mark what is no pixel's event, and it is
    skipped. x = 127 - bits 8-14, y = 127 - bits 1-7, p = 1 - bit 0, as SpikingJelly reads the authors' CIFAR10-DVS: what
    published figures were measured on. jAER, which wrote the files, shows x = 127 - bits 1-7 and y = bits 8-14 from the
    bottom: the same polarity, and this picture transposed.
    """
    header = AEDAT2_HEADER.match(data)
    start = header.end() if header else 0
    chip = said(data[:start].decode("latin-1"), r"^# *AEChip: *(\S+)").rpartition(".")[2]
    rest = (len(data) - start) % 8
    if rest:  # recorders are stopped at any byte, and nothing in the file says how long it should be
        warnings.warn(f"{path}: the last {rest} bytes are a part of an event and left out", stacklevel=2)
    address, t = records(data[: len(data) - rest], start, np.dtype((">u4", 2))).astype(np.uint32).T
    pixel = address & 0x80008000 == 0
    address, t = address[pixel], t[pixel]
    if not chip.startswith("DVS128") and (chip or (address >> 16).any()):
        found = f"a {chip}" if chip else "addresses of more than 15 bits"
        raise ValueError(f"AEDAT 2.0 can only be read from a DVS128, found {found}: convert it to AEDAT 4 with iniVation's DV")
    return Events(unwrap(t, 32), 127 - (address >> 8 & 0x7F), 127 - (address >> 1 & 0x7F), 1 - (address & 1), (128, 128))


def _aedat3(data: bytes, _: Path) -> Events:
    """AEDAT 3.1 (RAW): header to '#!END-HEADER', then packets, little-endian: `AEDAT3_PACKET`, then its events.

    Polarity events (type 1): uint32 with bit 0 valid, bit 1 polarity, bits 2-16 y, 17-31 x; int32 time stamp in µs, to which
    the packet's overflow adds 2**31 each. Other types and invalid events are skipped. y counts from the top.
    """
    end = AEDAT3_END.search(data)
    if end is None:
        raise ValueError(f"the header has no last line '#!END-HEADER': it is truncated or no AEDAT 3.1; {AGAIN}")
    header, at = data[: end.start()].decode("latin-1"), end.end()
    form, sources = said(header, r"^#Format: *(\S+)"), re.findall(r"^#Source \d+: *(\S*)", header, re.MULTILINE)
    if form not in ("", "RAW") or len(sources) > 1:
        found = f"format {form or 'unnamed'}, {len(sources)} sources"
        raise ValueError(f"expected AEDAT 3.1 of format RAW with one source, found {found}: convert it with iniVation's DV")
    events, overflows, head = [np.empty((0, 2), "<u4")], [0], AEDAT3_PACKET.size
    needed, limit = 0, max_bytes()
    while at < len(data):
        if at + head > len(data):
            raise ValueError(f"truncated: it ends within a packet, at byte {len(data)}; {AGAIN}")
        kind, _, size, _, overflow, capacity, number, _ = AEDAT3_PACKET.unpack_from(data, at)
        if kind < 0 or size < 1 or not 0 <= number <= capacity or overflow < 0 or (kind == 1 and size != 8):
            packet = f"type {kind}, {number} events in {capacity} places of {size} bytes, overflow {overflow}"
            raise ValueError(f"corrupt: there is no packet of AEDAT 3.1 at byte {at} ({packet}); {AGAIN}")
        if at + head + capacity * size > len(data):
            raise ValueError(f"truncated: the packet at byte {at} goes beyond the last byte, {len(data)}; {AGAIN}")
        if kind == 1 and number:
            needed += number * EVENT_BYTES + PACKET_BYTES
            if needed > limit:
                check_bytes(needed, "its events")
            events.append(np.frombuffer(data, "<u4", 2 * number, at + head).reshape(-1, 2))
            overflows.append(overflow)
        at += head + capacity * size
    word, t = np.concatenate(events).T
    t = t.astype(np.int32) + (np.repeat(np.array(overflows, np.int64), [len(packet) for packet in events]) << 31)
    valid = word & 1 == 1
    word = word[valid]
    sensor = (128, 128) if sources and sources[0].startswith("DVS128") else None
    return Events(t[valid], word >> 17, word >> 2 & 0x7FFF, word >> 1 & 1, sensor)


def read_packed(data: bytes, _: Path) -> Events:
    events, sensor = read_aedat4(data, EVENT_BYTES)
    return Events(integers("t", events["t"]), events["x"], events["y"], (events["on"] != 0).astype(np.uint8), sensor)
