"""Recordings of event cameras, in the formats of N-MNIST, N-CARS, CIFAR10-DVS, DVS128 Gesture and of one's own camera.

Nothing is allocated on the word of a file alone: one that lies about its size, or whose events would take more memory than
`staa.files.max_bytes`, is refused before it is decoded.
"""

import re
import struct
import warnings
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np

from staa.data.aedat4 import AGAIN, read_aedat4
from staa.files import check_bytes, max_bytes, read_arrays, read_bytes

Sensor = tuple[int, int]
"""(height, width)"""
Columns = tuple[np.ndarray, ...]
State = tuple[int, int, int, int]
PROPHESEE_HEADER = re.compile(rb"(?:% (?!end\r?\n)[^\n]*+\n)*+(?:% end\r?\n)?")
AEDAT2_HEADER = re.compile(rb"(?:#[^\n]*+\n)*+")
AEDAT3_END = re.compile(rb"^#!END-HEADER\r?\n", re.MULTILINE)
AEDAT3_PACKET = struct.Struct("<hhiiiiii")  # type, source, size, time's offset, time's overflow, capacity, number, valid
SENSOR = ("height", "width", "sensor")
COLUMNS = {"t": ("t", "ts", "timestamp"), "x": ("x",), "y": ("y",), "p": ("p", "polarity")}
LARGEST = 1 << 62  # of a time in µs: differences still fit int64
LARGEST_SENSOR = 1 << 15  # the formats' coordinates have 15 bits at most
EVENT_BYTES = 64  # that reading an event takes at most, with all its copies
PACKET_BYTES = 384  # that a packet of AEDAT 3.1 takes beside its events
SAID = 64  # characters of a header's field in a message
SLICE = 1 << 16  # words of EVT 3.0 at a time
NO_ROW, NO_BASE = 0x1000, 2  # EVT 3.0: no row of CD events, no VECT_BASE_X yet
EMPTY = "holds no events: leave the file out"


class Events(NamedTuple):
    """The events of one recording, in order of time; the arrays are contiguous and writeable."""

    t: np.ndarray  # [n] int64, microseconds, never decreasing
    x: np.ndarray  # [n] int32, column, from 0 at the left
    y: np.ndarray  # [n] int32, row, from 0 at the top as the file has it
    p: np.ndarray  # [n] uint8, 1 ON (brighter), 0 OFF
    sensor: Sensor | None  # (height, width) where the file, its format or the caller says it


def read_events(path: Path, sensor: Sensor | None = None) -> Events:
    """The events of a recording, by a reader chosen by the file's ending, and by its header for .aedat and .raw.

        .bin     N-MNIST, N-Caltech101                 .aedat4  iniVation's DV (pip install "staa-snn[events]")
        .dat     Prophesee DAT: N-CARS                 .raw     Prophesee EVT 2.0, EVT 3.0
        .aedat   AEDAT 2.0 of a DVS128: CIFAR10-DVS    .npz     arrays t (µs), x, y, p, or one structured array
                 AEDAT 3.1: DVS128 Gesture             .npy     structured (t in µs), or plain [n, 4]: x, y, p, t in ms

    The plain [n, 4] is tonic's download of DVS128 Gesture, whose times are in milliseconds.

    sensor: (height, width), needed where the file doesn't say; where it does, they must be the same.

    Raises ValueError naming the file: unknown ending, no regular file, truncated or no such format, no events, events
    outside the sensor, another sensor than the given one, time that runs backwards, polarities other than {0, 1} or {-1, 1},
    more events than `staa.files.max_bytes` allows; OSError for one that can't be read; ImportError if the package for packed
    .aedat4 is missing. A part of an event at the end of an AEDAT 2.0 is left out with a warning.
    """
    path = Path(path)
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise ValueError(
            f"{path} is not an event recording that can be read: its name must end in one of {', '.join(READERS)}. "
            f"Convert it, for instance to .npz with arrays t (µs), x, y, p"
        )
    try:
        return _checked(reader(path), sensor)
    except ValueError as error:
        raise ValueError(f"{path}: {str(error).removeprefix(str(path)).lstrip(' ,:')}") from error
    except ImportError as error:
        raise ImportError(f"{path}: {error}") from error


def _afford(events: int) -> None:
    """Raises ValueError if so many events would take more memory than is allowed."""
    check_bytes(events * EVENT_BYTES, f"{events:,} events")


def _checked(events: Events, given: Sensor | None) -> Events:
    t, x, y, p, own = events
    for size in (own, given):
        if size is not None and (len(size) != 2 or not 1 <= min(size) <= max(size) <= LARGEST_SENSOR):
            raise ValueError(f"a sensor is (height, width), at most {LARGEST_SENSOR} and both at least 1; found {size}")
    if own and given and tuple(own) != tuple(given):
        raise ValueError(f"wrong sensor size: the file says {_size(own)}, {_size(given)} was given; correct it or leave it out")
    if not len(t):
        raise ValueError(EMPTY)
    back = t[1:] < t[:-1]
    if back.any():
        i = int(back.argmax())
        raise ValueError(
            f"time runs backwards by {t[i] - t[i + 1]} µs at event {i + 1} of {len(t)} ({t[i]} µs, then {t[i + 1]} µs): "
            f"a fault of the recording, or another format than its ending says; sort or cut it and save it as .npz"
        )
    sensor = own or given
    height, width = sensor or (LARGEST_SENSOR, LARGEST_SENSOR)
    if x.min() < 0 or y.min() < 0 or x.max() >= width or y.max() >= height:
        i = int(((x < 0) | (y < 0) | (x >= width) | (y >= height)).argmax())
        where = f"outside the sensor of {_size(sensor)}" if sensor else "at no pixel"
        raise ValueError(f"event {i} lies at x {x[i]}, y {y[i]}, {where}: give the sensor's true size, or remove such events")
    t, x, y, p = (np.require(a, d, ["C", "A", "W"]) for a, d in ((t, np.int64), (x, np.int32), (y, np.int32), (p, np.uint8)))
    return Events(t, x, y, p, (int(height), int(width)) if sensor else None)


def _size(sensor: Sensor) -> str:
    return f"{sensor[0]} × {sensor[1]} (height × width)"


def _bin(path: Path) -> Events:
    """Orchard et al. 2015: 5 bytes an event, x, y, then polarity in bit 23 and time in µs in the others, big-endian.

    An event at y = 240 is none: it adds 2**13 µs to the time of all that follow.
    """
    x, y, high, middle, low = _records(read_bytes(path), 0, np.dtype((np.uint8, 5))).T
    overflow, p = y == 240, high >> 7
    t = ((high & 0x7F).astype(np.int64) << 16) + (middle.astype(np.int64) << 8) + low + (np.cumsum(overflow) << 13)
    return Events(*(column[~overflow] for column in (t, x, y, p)), sensor=None)


def _dat(path: Path) -> Events:
    """Prophesee DAT, version 2: header, event type and size (a byte each), then uint32 t in µs, uint32 x 14, y 14, p 4 bits."""
    data = read_bytes(path)
    header, start = _prophesee_header(data)
    version, event = _said(header, r"^% version (\S+)"), data[start : start + 2]
    if version not in ("", "2") or event not in (b"\x00\x08", b"\x0c\x08"):
        raise ValueError(
            f"expected DAT of version 2 with events of type 0 or 12 and 8 bytes, found version {version or 'unnamed'}, "
            f"type and size {list(event)}: truncated, or no DAT of CD events"
        )
    t, word = _records(data, start + 2, np.dtype(("<u4", 2))).T
    return Events(_unwrap(t, 32), word & 0x3FFF, word >> 14 & 0x3FFF, _polarity(word >> 28), _geometry(header))


def _raw(path: Path) -> Events:
    """Prophesee RAW: header, then words of EVT 2.0 (32 bits) or EVT 3.0 (16 bits), little-endian unless the header differs."""
    data = read_bytes(path)
    header, start = _prophesee_header(data)
    name = _said(header, r"^% format (\w+)").upper() or "EVT" + _said(header, r"^% evt (\S+)")
    decode, word = EVT.get(name.removesuffix(".0"), (None, np.uint8))
    if decode is None:
        raise ValueError(
            f"encoded as {name}; expected EVT 2.0 or 3.0, told by a header line '% evt 3.0' or '% format EVT3;…': "
            f"convert it to DAT with Metavision's metavision_file_to_dat"
        )
    words = _records(data, start, np.dtype(word).newbyteorder(">" if "endianness=big" in header else "<"), "words")
    return decode(words.astype(word, copy=False))._replace(sensor=_geometry(header))


def _evt2(words: np.ndarray) -> Events:
    """Type in bits 28-31. CD_OFF (0), CD_ON (1): time's bits 0-5, x, y in 6, 11, 11 bits. TIME_HIGH (8): time's bits 6-33.

    Other types (triggers, …) are skipped, as are events before the first TIME_HIGH: their time is not known.
    """
    _afford(len(words))
    kind = words >> 28
    is_time = kind == 8
    base = np.append(-1, _unwrap(words[is_time] & 0xFFFFFFF, 28))[np.cumsum(is_time)]
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
        _afford(count)
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
    high = _unwrap(value[is_high], 12)
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


def _aedat(path: Path) -> Events:
    data = read_bytes(path)
    reader = {b"#!AER-DAT2.0": _aedat2, b"#!AER-DAT3.1": _aedat3, b"#!AER-DAT4.0": _aedat4}.get(data[:12])
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
    chip = _said(data[:start].decode("latin-1"), r"^# *AEChip: *(\S+)").rpartition(".")[2]
    rest = (len(data) - start) % 8
    if rest:  # recorders are stopped at any byte, and nothing in the file says how long it should be
        warnings.warn(f"{path}: the last {rest} bytes are a part of an event and left out", stacklevel=2)
    address, t = _records(data[: len(data) - rest], start, np.dtype((">u4", 2))).astype(np.uint32).T
    pixel = address & 0x80008000 == 0
    address, t = address[pixel], t[pixel]
    if not chip.startswith("DVS128") and (chip or (address >> 16).any()):
        found = f"a {chip}" if chip else "addresses of more than 15 bits"
        raise ValueError(f"AEDAT 2.0 is read of a DVS128 alone, found {found}: convert it to AEDAT 4 with iniVation's DV")
    return Events(_unwrap(t, 32), 127 - (address >> 8 & 0x7F), 127 - (address >> 1 & 0x7F), 1 - (address & 1), (128, 128))


def _aedat3(data: bytes, _: Path) -> Events:
    """AEDAT 3.1 (RAW): header to '#!END-HEADER', then packets, little-endian: `AEDAT3_PACKET`, then its events.

    Polarity events (type 1): uint32 with bit 0 valid, bit 1 polarity, bits 2-16 y, 17-31 x; int32 time stamp in µs, to which
    the packet's overflow adds 2**31 each. Other types and invalid events are skipped. y counts from the top.
    """
    end = AEDAT3_END.search(data)
    if end is None:
        raise ValueError(f"the header has no last line '#!END-HEADER': truncated or no AEDAT 3.1; {AGAIN}")
    header, at = data[: end.start()].decode("latin-1"), end.end()
    form, sources = _said(header, r"^#Format: *(\S+)"), re.findall(r"^#Source \d+: *(\S*)", header, re.MULTILINE)
    if form not in ("", "RAW") or len(sources) > 1:
        found = f"format {form or 'unnamed'}, {len(sources)} sources"
        raise ValueError(f"expected AEDAT 3.1 of format RAW and one source, found {found}: convert it with iniVation's DV")
    events, overflows, head = [np.empty((0, 2), "<u4")], [0], AEDAT3_PACKET.size
    needed, limit = 0, max_bytes()
    while at < len(data):
        if at + head > len(data):
            raise ValueError(f"truncated: it ends within a packet, at byte {len(data)}; {AGAIN}")
        kind, _, size, _, overflow, capacity, number, _ = AEDAT3_PACKET.unpack_from(data, at)
        if kind < 0 or size < 1 or not 0 <= number <= capacity or overflow < 0 or (kind == 1 and size != 8):
            packet = f"type {kind}, {number} events in {capacity} places of {size} bytes, overflow {overflow}"
            raise ValueError(f"no packet of AEDAT 3.1 at byte {at} ({packet}): {AGAIN}")
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


def _aedat4(data: bytes, _: Path) -> Events:
    events, sensor = read_aedat4(data, EVENT_BYTES)
    return Events(_integers("t", events["t"]), events["x"], events["y"], (events["on"] != 0).astype(np.uint8), sensor)


def _numpy(path: Path) -> Events:
    """.npz: arrays t (or ts, timestamp; µs), x, y, p (or polarity), or one as in .npy; also height and width, or sensor."""
    arrays = read_arrays(path, _of_events)
    sizes = [_integers(name, arrays.pop(name).ravel()[:3]) for name in SENSOR if name in arrays]
    sensor = tuple(np.concatenate(sizes).tolist()) if sizes else None
    events = _from_array(*arrays.values()) if len(arrays) == 1 else _from_columns(arrays)
    return events._replace(sensor=sensor)


def _of_events(names: list[str]) -> set[str]:
    """Those of the names in a .npz that are read: all, or the known ones of more than one beside the sensor."""
    return set(names) if len(set(names).difference(SENSOR)) <= 1 else {*SENSOR, *chain(*COLUMNS.values())}


def _from_array(array: np.ndarray) -> Events:
    """A structured array [n], or [n, 4] of x, y, p and t in milliseconds, as tonic's download of DVS128 Gesture has it.

    Only that plain layout counts in milliseconds (tonic multiplies by 1000 too); times are rounded to whole µs.
    """
    if array.dtype.names:
        return _from_columns({name: array[name] for name in array.dtype.names})
    if array.ndim != 2 or array.shape[1] != 4:
        found = f"shape {list(array.shape)}, dtype {array.dtype}"
        raise ValueError(f"expected fields t, x, y, p, or an array [n, 4] of x, y, p and t in ms; found {found}")
    _afford(len(array))
    x, y, p, t = array.T
    return Events(_integers("t", t, scale=1000), _integers("x", x), _integers("y", y), _polarity(_integers("p", p)), None)


def _from_columns(columns: dict[str, np.ndarray]) -> Events:
    found = {}
    for name, names in COLUMNS.items():
        present = [n for n in names if n in columns]
        if len(present) != 1:
            others = ", ".join(name[:SAID] for name in sorted(columns)[:9]) or "none"
            raise ValueError(f"expected one array {' or '.join(names)}, found {others}")
        found[name] = _integers(present[0], columns[present[0]])
    _afford(max(map(len, found.values())))
    if len({len(a) for a in found.values()}) > 1:
        lengths = ", ".join(f"{name} {len(a)}" for name, a in found.items())
        raise ValueError(f"arrays of different length: {lengths}; expected one entry an event in each")
    return Events(found["t"], found["x"], found["y"], _polarity(found["p"]), None)


def _integers(name: str, values: np.ndarray, scale: int = 1) -> np.ndarray:
    """values × scale as int64; with a scale, rounded. Raises ValueError for what is no list of whole, finite numbers."""
    kind = values.dtype.kind
    if values.ndim != 1 or kind not in "biuf":
        raise ValueError(f"{name} must be one number an event; found shape {list(values.shape)}, dtype {values.dtype}")
    bad = ~np.isfinite(values) if kind == "f" else np.zeros(0, bool)
    if kind == "f" and scale == 1 and not bad.any():
        bad = np.floor(values) != values
    if bad.any():
        i = int(bad.argmax())
        raise ValueError(f"{name} must be whole, finite numbers (times in µs), found {values[i]} at event {i}")
    if values.size and max(-int(values.min()), int(values.max())) > LARGEST // scale:
        raise ValueError(f"{name} goes from {values.min()} to {values.max()}, beyond ±2**62: no such time or pixel")
    if scale == 1:
        return values.astype(np.int64)
    return np.rint(values.astype(np.float64) * scale).astype(np.int64) if kind == "f" else values.astype(np.int64) * scale


def _polarity(p: np.ndarray) -> np.ndarray:
    """{0, 1} or {-1, 1} as {0, 1}."""
    if p.size and (p.min() < -1 or p.max() > 1 or (p.min() < 0 and not p.all())):
        raise ValueError(f"polarities must be 0 and 1, or -1 and 1; found {', '.join(map(str, np.unique(p)[:5]))}")
    return (p > 0).astype(np.uint8)


def _unwrap(t: np.ndarray, bits: int) -> np.ndarray:
    """The times of a counter of so many bits, int64: where it falls by more than half its range it has wrapped."""
    t = t.astype(np.int64)
    wrapped = t[:-1] - t[1:] > 1 << (bits - 1)
    if wrapped.any():
        t[1:] += np.cumsum(wrapped) << bits
    return t


def _records(data: bytes, start: int, dtype: np.dtype, what: str = "events") -> np.ndarray:
    rest = len(data) - start
    if rest % dtype.itemsize:
        raise ValueError(f"truncated: {rest} bytes hold no whole number of {what} of {dtype.itemsize} bytes; {AGAIN}")
    _afford(rest // dtype.itemsize if what == "events" else 0)
    return np.frombuffer(data, dtype, rest // dtype.itemsize, start)


def _prophesee_header(data: bytes) -> tuple[str, int]:
    """The lines '% field value' and where they end: after '% end', or before the first line without '% '."""
    header = PROPHESEE_HEADER.match(data)
    if not header or not header.end():
        raise ValueError(f"expected header lines starting with '% ', found {data[:8]!r}: no Prophesee file")
    return header[0].decode("latin-1"), header.end()


def _geometry(header: str) -> Sensor | None:
    """From '% format EVT3;height=720;width=1280', '% geometry 1280x720', or '% height 720' and '% width 1280'."""
    height = _said(header, r"^% (?:format \S*;)?height[= ](\d+)") or _said(header, r"^% geometry \d+x(\d+)")
    width = _said(header, r"^% (?:format \S*;)?width[= ](\d+)") or _said(header, r"^% geometry (\d+)x")
    return (int(height), int(width)) if height and width else None


def _said(header: str, pattern: str) -> str:
    """The first group of the first match, or nothing; of a long one the beginning."""
    match = re.search(pattern, header, re.MULTILINE | re.IGNORECASE)
    return match[1][:SAID] if match else ""


EVT = {"EVT2": (_evt2, np.uint32), "EVT3": (_evt3, np.uint16)}
READERS = {
    ".bin": _bin, ".dat": _dat, ".aedat": _aedat, ".aedat4": lambda path: _aedat4(read_bytes(path), path), ".raw": _raw,
    ".npz": _numpy, ".npy": _numpy,
}  # fmt: skip
