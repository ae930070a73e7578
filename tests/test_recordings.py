"""Event recordings: small files written byte by byte in the real formats, hostile ones, and real samples where there are."""

import io
import os
import struct
import sys
import time
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from staa.data.events.decoders import DECODERS
from staa.data.events.read import READERS, read_events
from staa.data.events.recording import Events, joined
from staa.data.events.repair import Repair

pytestmark = pytest.mark.filterwarnings("ignore:.*a part of an event and left out")
SAMPLES = os.environ.get("STAA_EVENT_SAMPLES")
EVENTS = [(1000, 3, 5, 1), (1000, 0, 0, 0), (1007, 127, 1, 1), (5096, 64, 126, 0), (90_000, 12, 127, 1)]  # t, x, y, p


def write(path, data):
    path.write_bytes(data)
    return path


def rows(events):
    return list(zip(*(column.tolist() for column in events[:4]), strict=True))


def check(events):
    """What holds of every result."""
    t, x, y, p, sensor = events
    assert [a.dtype for a in (t, x, y, p)] == [np.int64, np.int32, np.int32, np.uint8]
    assert all(a.ndim == 1 and a.flags.c_contiguous and a.flags.writeable and a.flags.aligned for a in (t, x, y, p))
    assert len(t) == len(x) == len(y) == len(p) > 0
    assert (np.diff(t) >= 0).all()
    assert x.min() >= 0
    assert y.min() >= 0
    assert p.max() <= 1
    if sensor:
        assert x.max() < sensor[1]
        assert y.max() < sensor[0]
    return events


def bin_file(events, overflows=()):
    """5 bytes an event; before the event of each index in overflows, the time's 2**13 are written as an event at y = 240."""
    out, base = b"", 0
    for i, (t, x, y, p) in enumerate(events):
        for _ in range(list(overflows).count(i)):
            out += bytes([0, 240, 0, 0, 0])
            base += 1 << 13
        out += bytes([x, y, p << 7 | (t - base) >> 16, (t - base) >> 8 & 0xFF, (t - base) & 0xFF])
    return out


DAT_HEADER = b"% Data file containing CD events\n% Date 2020-09-14 14:18:29\n% Version 2\n% Width 128\n% Height 128\n"


def dat_file(events, header=DAT_HEADER, kind=12, size=8):
    words = b"".join(struct.pack("<II", t & 0xFFFFFFFF, x | y << 14 | p << 28) for t, x, y, p in events)
    return header + bytes([kind, size]) + words


AEDAT2_HEADER = (
    b"#!AER-DAT2.0\r\n# This is a raw AE data file - do not edit\r\n# Timestamps tick is 1 us\r\n"
    b"# AEChip: ch.unizh.ini.jaer.chip.retina.DVS128\r\n# End Of ASCII Header\r\n"
)


def aedat2_file(events, header=AEDAT2_HEADER):
    return header + b"".join(struct.pack(">II", 127 - x << 8 | 127 - y << 1 | 1 - p, t & 0xFFFFFFFF) for t, x, y, p in events)


AEDAT3_HEADER = (
    b"#!AER-DAT3.1\r\n#Format: RAW\r\n#Source 1: DVS128\r\n#Start-Time: 2017-02-17 10:00:00 (TZ+0100)\r\n#!END-HEADER\r\n"
)


def packet(body, kind=1, size=8, overflow=0, capacity=None, number=None):
    number = len(body) // size if number is None else number
    capacity = len(body) // size if capacity is None else capacity
    return struct.pack("<hhiiiiii", kind, 1, size, 4, overflow, capacity, number, number) + body


def polarity(events, valid=1):
    return b"".join(struct.pack("<Ii", valid | p << 1 | y << 2 | x << 17, t) for t, x, y, p in events)


def aedat3_file(events, header=AEDAT3_HEADER):
    return header + packet(polarity(events[:2])) + packet(polarity(events[2:]))


def aedat4_content(events):
    body = struct.pack("<I4sxxHHHiII", 16, b"EVTS", 6, 8, 4, 6, 4, len(events))
    body += b"".join(struct.pack("<qhhBxxx", *event) for event in events)
    return struct.pack("<I", len(body)) + body


def aedat4_file(events, sizes=((128, 128),), *, compression=0, contents=None, extra="", end=-1):
    """Its flatbuffers laid out by hand; the events are of stream 0, in two packets, or in these contents, packed or not."""
    xml = '<dv version="2.0"><node name="outInfo" path="/mainloop/Recorder/outInfo/">'
    for i, (height, width) in enumerate(sizes):
        xml += (
            f'<node name="{i}" path="/mainloop/Recorder/outInfo/{i}/"><attr key="compression" type="string">NONE</attr>'
            f'<attr key="typeIdentifier" type="string">EVTS</attr>'
            f'<node name="info" path="/mainloop/Recorder/outInfo/{i}/info/">'
            f'<attr key="sizeX" type="int">{width}</attr><attr key="sizeY" type="int">{height}</attr></node></node>'
        )
    text = (xml + extra + "</node></dv>").encode()
    head = (
        struct.pack("<I4sxxxxxxHHHHHiIIqI", 24, b"IOHE", 10, 20, 4, 12, 8, 10, compression, 12, end, len(text)) + text + b"\0"
    )
    out = b"#!AER-DAT4.0\r\n" + struct.pack("<I", len(head)) + head
    for content in contents or map(aedat4_content, (events[:2], events[2:])):
        out += struct.pack("<ii", 0, len(content)) + content
    return out


LZ4 = [
    bytes.fromhex(text)
    for text in (
        "04224d1860408238000000f1143c00000010000000455654530000060008000400060000000400000002000000e803000100570300050001100080"
        "000000000000000000000000",
        "04224d186040824c000000f0124c00000010000000455654530000060008000400060000000400000003000000ef0500d10000007f000100010000"
        "00e8130f00410040007e090020905f1600a000000c007f000100000000000000",
    )
]
"""the contents of EVENTS' two packets as python-lz4 4.4 packs them"""
ZSTD = [
    bytes.fromhex(text)
    for text in (
        "28b52ffd20409d010084023c00000010000000455654530000060008000400060000000400000002000000e8030003000500010300808099a6778127",
        "28b52ffd0000ed010002040c19b0278d01c0922409a445d400b50be500304c148d46b21d3205df54b8a5c92c269cefa63f075e476b108d248af1e1"
        "4704040180a868317f509e",
    )
]
"""the same as zstandard 0.25 packs them, with the size in the header and without"""


EVT2_HEADER = b"% Date 2020-09-14 09:03:25\n% integrator_name Prophesee\n% system_ID 21\n% evt 2.0\n% geometry 128x128\n% end\n"
EVT3_HEADER = b"% camera_integrator_name Prophesee\n% evt 3.0\n% format EVT3;height=128;width=128\n% geometry 128x128\n% end\n"


def evt2_words(events):
    words, high = [], None
    for t, x, y, p in events:
        if t >> 6 != high:
            high = t >> 6
            words.append(8 << 28 | high & 0xFFFFFFF)
        words.append(p << 28 | (t & 0x3F) << 22 | x << 11 | y)
    return words


def evt3_words(events):
    words, high = [], None
    for t, x, y, p in events:
        if t >> 12 != high:
            high = t >> 12
            words.append(0x8000 | high & 0xFFF)
        words += [0x6000 | t & 0xFFF, y, 0x2000 | p << 11 | x]
    return words


def evt2_file(words, header=EVT2_HEADER, order="<"):
    return header + np.array(words, order + "u4").tobytes()


def evt3_file(words, header=EVT3_HEADER, order="<"):
    return header + np.array(words, order + "u2").tobytes()


def npz_file(save=np.savez, **arrays):
    file = io.BytesIO()
    save(file, **arrays)
    return file.getvalue()


def npy_file(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def columns(events, **dtypes):
    t, x, y, p = (np.array(column) for column in zip(*events, strict=True))
    return {name: a.astype(dtypes.get(name, a.dtype)) for name, a in (("t", t), ("x", x), ("y", y), ("p", p))}


def structured(events, names="txyp"):
    return np.array(events, [(name, d) for name, d in zip(names.split() if " " in names else names, "qhh?", strict=True)])


FILES = {
    ".bin": bin_file(EVENTS),
    ".dat": dat_file(EVENTS),
    "2.aedat": aedat2_file(EVENTS),
    "3.aedat": aedat3_file(EVENTS),
    "2.raw": evt2_file(evt2_words(EVENTS)),
    "3.raw": evt3_file(evt3_words(EVENTS)),
    ".npz": npz_file(**columns(EVENTS), height=128, width=128),
    "c.npz": npz_file(np.savez_compressed, **columns(EVENTS)),
    ".npy": npy_file(structured(EVENTS)),
}
"""ending, with a name where several formats share one -> the same five events"""


@pytest.mark.parametrize(
    ("name", "count", "last", "sensor"),
    [
        ("tonic_sample_nmnist.bin", 4325, 311_175, None),
        ("tonic_sample_ncars_td.dat", 2009, 99_952, None),
        ("expelliarmus_evt2_sample.raw", 539_481, 1_367_888, None),
        ("tonic_sample.aedat4", 111_954, 1_605_537_494_308_262, (240, 320)),
    ],
)
@pytest.mark.skipif(not SAMPLES, reason="STAA_EVENT_SAMPLES names no folder")
def test_real_samples_have_the_events_they_are_known_to_have(name, count, last, sensor):
    if name.endswith("aedat4"):
        pytest.importorskip("aedat")
    events = check(read_events(Path(SAMPLES) / name))
    assert (len(events.t), events.t[-1], events.sensor) == (count, last, sensor)


@pytest.mark.skipif(not SAMPLES, reason="STAA_EVENT_SAMPLES names no folder")
def test_the_aedat_2_sample_has_four_events_and_six_stray_bytes(tmp_path):
    """Its header is a real one of jAER; its data are 36 dollar signs and a line's end."""
    data = (Path(SAMPLES) / "aedatrs_header_test_128.aedat_test").read_bytes()
    with pytest.warns(UserWarning, match="the last 6 bytes are a part of an event and left out"):
        events = check(read_events(write(tmp_path / "x.aedat", data)))
    assert rows(events) == [(0x24242424, 127 - 0x24, 127 - 0x12, 1)] * 4
    assert events.sensor == (128, 128)


@pytest.mark.parametrize("name", FILES)
def test_every_format_gives_back_the_events(name, tmp_path):
    events = check(read_events(write(tmp_path / f"r{name}", FILES[name])))
    assert rows(events) == EVENTS
    assert events.sensor == (None if name in (".bin", "c.npz", ".npy") else (128, 128))
    assert read_events(tmp_path / f"r{name}", (128, 128)).sensor == (128, 128)
    assert rows(read_events(write(tmp_path / f"r{name.upper()}", FILES[name]))) == EVENTS


def test_aedat_4_gives_back_the_events(tmp_path):
    pytest.importorskip("aedat")
    events = check(read_events(write(tmp_path / "r.aedat4", aedat4_file(EVENTS))))
    assert rows(events) == EVENTS
    assert events.sensor == (128, 128)
    assert rows(read_events(write(tmp_path / "r.aedat", aedat4_file(EVENTS)))) == EVENTS
    with pytest.raises(ValueError, match=r"r\.aedat4: expected one stream of events, found 2"):
        read_events(write(tmp_path / "r.aedat4", aedat4_file(EVENTS, ((128, 128), (64, 64)))))
    with pytest.raises(ValueError, match="lies at x 127, y 1, outside the sensor of 128 × 100"):
        read_events(write(tmp_path / "r.aedat4", aedat4_file(EVENTS, ((128, 100),))))
    with pytest.raises(ValueError, match="holds no events"):
        read_events(write(tmp_path / "r.aedat4", aedat4_file([])))
    for data in (b"", b"no AEDAT", aedat4_file(EVENTS)[:-5], aedat4_file(EVENTS)[:100]):
        with pytest.raises(ValueError, match=r"r\.aedat4: can't be decoded as AEDAT 4 \(.*copy or download it again"):
            read_events(write(tmp_path / "r.aedat4", data))


def test_aedat_4_needs_its_package(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "aedat", None)
    with pytest.raises(ImportError, match=r'r\.aedat4: packed AEDAT 4 .*pip install "staa-snn\[events\]"'):
        read_events(write(tmp_path / "r.aedat4", aedat4_file(EVENTS, compression=1, contents=LZ4)))
    assert rows(read_events(write(tmp_path / "r.aedat4", aedat4_file(EVENTS)))) == EVENTS  # what is not packed does not


def test_a_panic_in_the_decoder_of_aedat_4_is_an_error_of_the_file(tmp_path, monkeypatch):
    """Rust's panics reach Python as a BaseException; Ctrl-C is one too, and passes."""

    class PanicException(BaseException):
        pass

    def raises(error):
        def decode(path):
            raise error

        monkeypatch.setitem(sys.modules, "aedat", type(sys)("aedat"))
        sys.modules["aedat"].Decoder = decode

    raises(PanicException("range end index"))
    with pytest.raises(ValueError, match="can't be decoded as AEDAT 4 .range end index"):
        read_events(write(tmp_path / "r.aedat4", aedat4_file(EVENTS, compression=1, contents=LZ4)))
    raises(KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        read_events(tmp_path / "r.aedat4")


def test_the_address_of_nmnist_is_read_bit_for_bit(tmp_path):
    data = bytes([33, 7, 0x80 | 0x42, 0x34, 0x56, 1, 239, 0x7F, 0xFF, 0xFF])
    assert rows(read_events(write(tmp_path / "r.bin", data))) == [(0x423456, 33, 7, 1), (0x7FFFFF, 1, 239, 0)]


def test_time_overflows_of_nmnist(tmp_path):
    events = [(8000, 1, 2, 0), (8200, 2, 3, 1), (8300, 3, 4, 1), (8191 * 3, 4, 5, 0)]
    data = bin_file(events, overflows=[1, 3])
    assert len(data) == 6 * 5
    assert rows(read_events(write(tmp_path / "r.bin", data))) == events


@pytest.mark.parametrize(
    ("header", "sensor"),
    [
        (b"% Data file containing N9Chronocam7Event2dE events.\n% Version 2\n% Date 2017-10-31 11:29:21\n", None),
        (b"% Height 240\n% Width 304\n% Version 2\n", (240, 304)),
        (b"% height 240\r\n% width 304\r\n% end\r\n", (240, 304)),
        (b"% \n", None),
    ],
)
def test_headers_of_dat(header, sensor, tmp_path):
    events = check(read_events(write(tmp_path / "r.dat", dat_file(EVENTS, header, kind=0))))
    assert rows(events) == EVENTS
    assert events.sensor == sensor


@pytest.mark.parametrize(("ending", "file"), [("dat", dat_file), ("aedat", aedat2_file)])
def test_a_counter_of_32_bits_that_wraps(ending, file, tmp_path):
    times = [0xFFFFFF00, 0xFFFFFFFF, 1 << 32, (1 << 32) + 5, (2 << 32) - (1 << 23), (2 << 32) - (1 << 22), (2 << 32)]
    events = [(t, 1, 2, 1) for t in times]
    assert read_events(write(tmp_path / f"r.{ending}", file(events))).t.tolist() == times
    falls = [(t, 0, 0, 0) for t in (0x90000000, 0x90000001, 0x10000000, 0x10000001)]
    with pytest.raises(ValueError, match="time runs backwards by 2147483649 µs at event 2 "):
        read_events(write(tmp_path / f"r.{ending}", file(falls)))


def test_the_pixels_of_a_dvs128_as_spikingjelly_reads_cifar10dvs(tmp_path):
    """x = 127 - bits 8-14, y = 127 - bits 1-7, p = 1 - bit 0."""
    address = 0b0000011_0000101_0  # 3 in bits 8-14, 5 in bits 1-7, ON
    data = AEDAT2_HEADER + struct.pack(">IIII", address, 10, address | 1, 20)
    assert rows(read_events(write(tmp_path / "r.aedat", data))) == [(10, 124, 122, 1), (20, 124, 122, 0)]


def test_special_events_of_a_dvs128_are_skipped(tmp_path):
    data = AEDAT2_HEADER + struct.pack(">IIIIIIII", 0x8000, 5, 1 << 8, 7, 0x80000001, 9, 2 << 8, 9)
    assert rows(read_events(write(tmp_path / "r.aedat", data))) == [(7, 126, 127, 1), (9, 125, 127, 1)]
    with pytest.raises(ValueError, match="holds no events"):
        read_events(write(tmp_path / "r.aedat", data[: len(AEDAT2_HEADER) + 8]))


@pytest.mark.parametrize("chip", [None, b"# AEChip: ch.unizh.ini.jaer.chip.retina.DVS128", b"# AEChip: a.b.DVS128Andreas"])
def test_headers_of_aedat_2(chip, tmp_path):
    header = b"#!AER-DAT2.0\r\n# created Wed Feb 24 21:00:20 CST 2016\r\n" + (chip + b"\r\n" if chip else b"")
    assert rows(read_events(write(tmp_path / "r.aedat", aedat2_file(EVENTS, header)))) == EVENTS


def test_other_chips_than_the_dvs128_are_refused(tmp_path):
    header = b"#!AER-DAT2.0\r\n# AEChip: eu.seebetter.ini.chips.davis.Davis346blue\r\n"
    with pytest.raises(
        ValueError, match=r"r\.aedat: AEDAT 2.0 can only be read from a DVS128, found a Davis346blue: convert it"
    ):
        read_events(write(tmp_path / "r.aedat", aedat2_file(EVENTS, header)))
    header = b"#!AER-DAT2.0\r\n"
    with pytest.raises(ValueError, match="found addresses of more than 15 bits"):
        read_events(write(tmp_path / "r.aedat", aedat2_file(EVENTS, header) + struct.pack(">II", 5 << 22 | 7 << 12, 1 << 20)))


def test_packets_of_aedat_3(tmp_path):
    """Other types, invalid events, spare places, overflows of the time, an empty packet; other sources and line ends."""
    stray = [(70, 9, 9, 1)]
    data = AEDAT3_HEADER + b"".join(
        [
            packet(struct.pack("<II", 1, 4), kind=0),
            packet(polarity(EVENTS[:1]) + polarity(stray, valid=0) + polarity(EVENTS[1:2])),
            packet(bytes(3 * 36), kind=3, size=36),
            packet(b""),
            packet(polarity(EVENTS[2:]) + polarity(stray), number=3),
            packet(polarity([(7, 1, 2, 0), (8, 1, 2, 1)]), overflow=1),
            packet(polarity([(0x7FFFFFFE, 3, 4, 1), (0x7FFFFFFF, 3, 4, 1)]), overflow=2),
        ]
    )
    late = [((1 << 31) + 7, 1, 2, 0), ((1 << 31) + 8, 1, 2, 1), ((3 << 31) - 2, 3, 4, 1), ((3 << 31) - 1, 3, 4, 1)]
    events = check(read_events(write(tmp_path / "r.aedat", data)))
    assert rows(events) == EVENTS + late
    other = data.replace(b"Source 1: DVS128", b"Source 0: DAVIS240C").replace(b"\r\n", b"\n", 5)
    events = read_events(write(tmp_path / "r.aedat", other), (180, 240))
    assert rows(events) == EVENTS + late
    assert events.sensor == (180, 240)


@pytest.mark.parametrize(
    ("header", "sensor"),
    [
        (b"% Date 2020-09-14 09:03:25\n% evt 3.0\n", None),
        (b"% evt 3.0\n% format EVT3;height=720;width=1280\n% geometry 1280x720\n% end\n", (720, 1280)),
        (b"% format EVT3;width=1280;height=720\n", (720, 1280)),
        (b"% evt 3.0\r\n% geometry 640x480\r\n% end\r\n", (480, 640)),
        (b"% evt 3.0\n% width 640\n% height 480\n", (480, 640)),
        (b"% evt 3.0\n% width 640\n", None),
    ],
)
@pytest.mark.parametrize("version", [2, 3])
def test_headers_of_raw(version, header, sensor, tmp_path):
    header = header.replace(b"evt 3.0", b"evt %d.0" % version).replace(b"EVT3", b"EVT%d" % version)
    file = evt2_file(evt2_words(EVENTS), header) if version == 2 else evt3_file(evt3_words(EVENTS), header)
    events = check(read_events(write(tmp_path / "r.raw", file)))
    assert rows(events) == EVENTS
    assert events.sensor == sensor


def test_words_that_look_like_a_header_line_come_after_its_end(tmp_path):
    words = [0x2025, 0x0A0A, 0x8000, 0x600A, 5, 0x2009]
    assert np.array(words[:2], "<u2").tobytes() == b"% \n\n"
    assert rows(read_events(write(tmp_path / "r.raw", evt3_file(words, b"% evt 3.0\n% end\n")))) == [(10, 9, 5, 0)]


def test_big_endian_words(tmp_path):
    header = b"% format EVT2;endianness=big;height=128;width=128\n% end\n"
    assert rows(read_events(write(tmp_path / "r.raw", evt2_file(evt2_words(EVENTS), header, ">")))) == EVENTS
    header = header.replace(b"EVT2", b"EVT3")
    assert rows(read_events(write(tmp_path / "r.raw", evt3_file(evt3_words(EVENTS), header, ">")))) == EVENTS


def test_other_words_of_evt2_are_skipped_and_its_time_loops(tmp_path):
    times = [(1 << 34) - 70, (1 << 34) + 3, (2 << 34) - (1 << 23), (2 << 34) - (1 << 22), (2 << 34) - 64]
    events = [(t, 1 + i, 2 + i, i % 2) for i, t in enumerate(times)]
    words = evt2_words(events)
    noise = [0xA0000100, 0xE0000000, 0xF0001234, 0x20000001]
    early = [0x10000000 | 9 << 11 | 9]  # before the first TIME_HIGH: its time is not known
    words = early + [w for word in words for w in (word, *noise)]
    assert rows(read_events(write(tmp_path / "r.raw", evt2_file(words)))) == events
    with pytest.raises(ValueError, match="holds no events"):
        read_events(write(tmp_path / "r.raw", evt2_file(early * 3)))


def test_vectors_of_evt3(tmp_path):
    words = [
        0x8001, 0x6002, 0x0007, 0x3000 | 1 << 11 | 10, 0x4000 | 0b100000000101, 0x4000, 0x5000 | 0b10000001,
        0x2000 | 100, 0x5000 | 0xF02,  # the event alone leaves the vector's base; bits 8-11 of a VECT_8 mean nothing
    ]  # fmt: skip
    t = 0x1002
    expected = [(t, x, 7, 1) for x in (10, 12, 21, 34, 41)] + [(t, 100, 7, 0), (t, 43, 7, 1)]
    assert rows(read_events(write(tmp_path / "r.raw", evt3_file(words)))) == expected


def test_words_of_evt3_that_emit_nothing(tmp_path):
    early = [0x0005, 0x2001, 0x3001, 0x4FFF, 0x6001]  # before the first TIME_HIGH
    words = [
        *early,
        0x8000,
        0x2001,
        0x4FFF,
        0x0006,
        0x4FFF,
        0x2002,
        0x1007,
        0x2003,
        0xA001,
        0x7003,
        0xE000,
        0xF111,
        0x0008,
        0x2004,
    ]
    assert rows(read_events(write(tmp_path / "r.raw", evt3_file(words)))) == [(0, 2, 6, 0), (0, 4, 8, 0)]
    with pytest.raises(ValueError, match="holds no events"):
        read_events(write(tmp_path / "r.raw", evt3_file(early)))


def test_time_low_is_zero_from_a_new_time_high_on(tmp_path):
    words = [0x8001, 0x6FFF, 0x0005, 0x2001, 0x8001, 0x2002, 0x8002, 0x2003, 0x6001, 0x2004]
    assert read_events(write(tmp_path / "r.raw", evt3_file(words))).t.tolist() == [0x1FFF, 0x1FFF, 0x2000, 0x2001]


def plain_evt3(words):
    """The events of EVT 3.0 one word at a time, as its specification tells them."""
    events, high, low, loops, row, base = [], None, 0, 0, None, None
    for word in words:
        kind, value = word >> 12, word & 0xFFF
        if kind == 8:
            if high is not None and value != high:
                low = 0
                loops += high - value > 2048
            high = value
        if high is None:
            continue
        t = loops << 24 | high << 12 | low
        if kind == 6:
            low = value
        elif kind in (0, 1):
            row = value & 0x7FF if kind == 0 else None
        elif kind == 2 and row is not None:
            events.append((t, value & 0x7FF, row, value >> 11))
        elif kind == 3:
            base = (value & 0x7FF, value >> 11)
        elif kind in (4, 5) and base is not None:
            n = 12 if kind == 4 else 8
            events += [(t, base[0] + i, row, base[1]) for i in range(n) if value >> i & 1 and row is not None]
            base = (base[0] + n, base[1])
    return events


def random_evt3(rng, count):
    words, t = [], int(rng.integers(1 << 24))
    for _ in range(count):
        choice = rng.integers(10)
        value = int(rng.integers(4096))
        if choice == 0:
            later = t + int(rng.choice([0, 1, 100, 5000, 1 << 22]))
            if later >> 12 != t >> 12 or rng.random() < 0.3:
                words.append(0x8000 | later >> 12 & 0xFFF)
            words.append(0x6000 | later & 0xFFF)
            t = later
        else:
            words.append(
                int(rng.choice([0x0000, 0x0000, 0x1000, 0x2000, 0x2000, 0x3000, 0x4000, 0x4000, 0x5000, 0xA000])) | value
            )
    return words


@pytest.mark.parametrize("piece", [1, 2, 7, 1 << 16])
def test_evt3_is_what_the_plain_decoder_says(piece):
    """Whatever the words are and wherever a piece ends."""
    found = 0
    for seed in range(30):
        words = random_evt3(np.random.default_rng(seed), 300)
        expected = plain_evt3(words)
        decoder, data = DECODERS["evt3"](Repair()), evt3_file(words, b"% evt 3.0\n")
        pieces = [decoder.feed(data[i : i + piece]) for i in range(0, len(data), piece)]
        assert rows(joined([*pieces, decoder.end()], None)) == expected
        found += len(expected)
    assert found > 5000
    assert expected[-1][0] > 1 << 24  # the last one has looped


@pytest.mark.parametrize("dtype", ["int64", "uint8", "float32", ">i4", "bool", "int8"])
@pytest.mark.parametrize("low", [0, -1])
def test_polarities_of_every_kind_become_0_and_1(dtype, low, tmp_path):
    p = np.array([low, 1, 1, low, 1])
    if low < 0 and dtype in ("uint8", "bool"):
        pytest.skip("no negative numbers")
    data = npz_file(**columns(EVENTS) | {"p": p.astype(dtype)})
    assert check(read_events(write(tmp_path / "r.npz", data))).p.tolist() == [0, 1, 1, 0, 1]


def test_arrays_of_npz_and_npy(tmp_path):
    arrays = columns(EVENTS)
    assert rows(read_events(write(tmp_path / "r.npz", npz_file(np.savez, events=structured(EVENTS))))) == EVENTS
    renamed = npz_file(timestamp=arrays["t"], x=arrays["x"], y=arrays["y"], polarity=arrays["p"], label=np.array(["cat"]))
    assert rows(read_events(write(tmp_path / "r.npz", renamed))) == EVENTS
    objects = npz_file(**arrays, label=np.array([{}], object))  # an array that isn't needed isn't read
    assert rows(read_events(write(tmp_path / "r.npz", objects))) == EVENTS
    for extra in ({"height": 130, "width": 140}, {"sensor": (130, 140)}, {"height": [130], "width": [140.0]}):
        events = read_events(write(tmp_path / "r.npz", npz_file(**arrays, **extra)))
        assert events.sensor == (130, 140)
        assert rows(events) == EVENTS
    for names in ("t x y polarity", "ts x y p", "timestamp x y p"):
        assert rows(read_events(write(tmp_path / "r.npy", npy_file(structured(EVENTS, names))))) == EVENTS
    floats = npz_file(**columns(EVENTS, t="float64", x="float32", y=">f8", p="float16"))
    assert rows(check(read_events(write(tmp_path / "r.npz", floats)))) == EVENTS
    assert rows(check(read_events(write(tmp_path / "r.npy", npy_file(structured(EVENTS)[::-1][::-1]))))) == EVENTS


def test_tonics_layouts(tmp_path):
    """Its structured arrays of x, y, t, p in µs, and its DVSGesture download: plain x, y, p, t in ms."""
    tonic = np.array([(x, y, t, p) for t, x, y, p in EVENTS], [("x", "<i2"), ("y", "<i2"), ("t", "<i8"), ("p", "?")])
    assert rows(check(read_events(write(tmp_path / "r.npy", npy_file(tonic))))) == EVENTS
    plain = np.array([(x, y, p, t) for t, x, y, p in EVENTS])
    in_ms = [(t * 1000, x, y, p) for t, x, y, p in EVENTS]
    for array in (plain, plain.astype(np.float64), np.asfortranarray(plain), plain.astype(">i4")):
        assert rows(check(read_events(write(tmp_path / "r.npy", npy_file(array))))) == in_ms
    assert rows(read_events(write(tmp_path / "r.npz", npz_file(events=plain)))) == in_ms
    fractions = np.array([(1, 2, 1, 0.001), (1, 2, 1, 12.345), (1, 2, 0, 12.3456)])
    assert read_events(write(tmp_path / "r.npy", npy_file(fractions))).t.tolist() == [1, 12345, 12346]


@pytest.mark.parametrize("name", ["r.txt", "r", "r.hdf5", "r.aedat_test", ".npz"])
def test_unknown_endings(name, tmp_path):
    with pytest.raises(ValueError, match=r"is not an event recording that can be read: .* end in one of \.bin, .*Convert it"):
        read_events(tmp_path / name)


@pytest.mark.parametrize("ending", READERS)
def test_files_that_are_not_there_and_folders(ending, tmp_path):
    if ending == ".aedat4":
        pytest.importorskip("aedat")
    with pytest.raises(FileNotFoundError, match="nothing"):
        read_events(tmp_path / f"nothing{ending}")
    (tmp_path / f"folder{ending}").mkdir()
    with pytest.raises(ValueError, match=rf"folder{ending} is no regular file"):
        read_events(tmp_path / f"folder{ending}")


@pytest.mark.parametrize(
    ("ending", "data", "problem"),
    [
        ("bin", b"", "it holds no events; leave the file out"),
        ("bin", bytes([0, 240, 0, 0, 0]), "holds no events"),
        ("bin", FILES[".bin"][:-1], "truncated: the 4 bytes at its end hold no whole number of events of 5 bytes; copy or "),
        ("dat", b"", "expected header lines starting with '% ', found b''"),
        ("dat", b"\x00\x08" + bytes(80), "expected header lines starting with '% '"),
        ("dat", DAT_HEADER, r"type and size \[\]: truncated"),
        ("dat", dat_file([]), "holds no events"),
        ("dat", FILES[".dat"][:-3], "truncated: the 5 bytes at its end hold no whole number of events of 8 bytes"),
        ("dat", dat_file(EVENTS, b"% Version 1\n"), "expected DAT of version 2 .*, found version 1"),
        ("dat", dat_file(EVENTS, kind=14), r"found version 2, type and size \[14, 8\]"),
        ("dat", dat_file(EVENTS, size=16), r"found version 2, type and size \[12, 16\]"),
        ("dat", dat_file([(1, 2, 3, 2)]), "polarities must be 0 and 1, or -1 and 1; found 2"),
        ("aedat", b"", "expected a first line '#!AER-DAT2.0'.*found b''"),
        ("aedat", b"#!AER-DAT1.0\r\n", "expected a first line .*found b'#!AER-DAT1.0'"),
        ("aedat", b"#!AER-DAT3.0\r\n", "expected a first line .*found b'#!AER-DAT3.0'"),
        ("aedat", AEDAT2_HEADER, "holds no events"),
        ("aedat", AEDAT3_HEADER, "holds no events"),
        ("aedat", AEDAT3_HEADER[:-4], "the header has no last line '#!END-HEADER'"),
        ("aedat", AEDAT3_HEADER.replace(b"RAW", b"Serial-TS"), "found format Serial-TS, 1 sources: convert it"),
        ("aedat", AEDAT3_HEADER.replace(b"#Start", b"#Source 2: x\r\n#S"), "found format RAW, 2 sources"),
        ("aedat", FILES["3.aedat"][:-1], r"truncated: the packet at byte \d+ goes beyond the last byte"),
        ("aedat", FILES["3.aedat"] + bytes(27), r"truncated: it ends within a packet, at byte \d+"),
        ("aedat", AEDAT3_HEADER + packet(b"", size=0, number=0, capacity=0), r"no packet of AEDAT 3.1 at byte \d+ \(type 1"),
        ("aedat", AEDAT3_HEADER + packet(polarity(EVENTS), number=6), "6 events in 5 places of 8 bytes"),
        ("aedat", AEDAT3_HEADER + packet(polarity(EVENTS), kind=-32767), "no packet of AEDAT 3.1 .*type -32767"),
        ("aedat", AEDAT3_HEADER + packet(polarity(EVENTS), size=4), "no packet of AEDAT 3.1"),
        ("aedat", AEDAT3_HEADER + packet(polarity(EVENTS), overflow=-1), "overflow -1"),
        ("aedat", AEDAT3_HEADER + packet(b"", capacity=2**31 - 1, number=0), "truncated: the packet at byte"),
        ("aedat", AEDAT3_HEADER + packet(polarity([(1, 128, 0, 1)])), "x 128, y 0, outside the sensor of 128 × 128"),
        ("raw", b"", "expected header lines starting with '% ', found b''"),
        ("raw", np.array(evt3_words(EVENTS), "<u2").tobytes(), "expected header lines starting with '% '"),
        ("raw", evt2_file([], b"% Date 2020\n"), "encoded as EVT; expected EVT 2.0 or 3.0, told by a header line"),
        ("raw", evt2_file([], b"% evt 2.1\n"), "encoded as EVT2.1; .*metavision_file_to_dat"),
        ("raw", evt2_file([], b"% evt 2.0\n% format EVT21;height=1;width=1\n"), "encoded as EVT21;"),
        ("raw", EVT2_HEADER, "holds no events"),
        ("raw", FILES["2.raw"][:-2], "truncated: the 2 bytes at its end hold no whole number of words of 4 bytes"),
        ("raw", FILES["3.raw"][:-1], "truncated: the 1 bytes at its end hold no whole number of words of 2 bytes"),
        ("raw", evt3_file([0x8000, 0x0005, 0x307F, 0x4003]), "event 1 lies at x 128, y 5, outside the sensor of 128 × 128"),
        ("raw", evt3_file([0x8000, 0x0005, 0x2001], b"% format EVT3;height=0;width=9\n"), r"from 1 to 32768; found \(0, 9\)"),
        ("npz", b"", "can't be read as a NumPy array .*copy or save it again"),
        ("npz", b"PK\x03\x04 no archive", "can't be read as .npz"),
        ("npz", FILES[".npz"][:-30], "can't be read as .npz"),
        ("npz", npz_file(t=[1], x=[1], y=[1]), "expected one array p or polarity, found t, x, y"),
        ("npz", npz_file(t=[1], ts=[1], x=[1], y=[1], p=[1]), "expected one array t or ts or timestamp, found p, t, ts, x, y"),
        ("npz", npz_file(), "expected one array t or ts or timestamp, found none"),
        ("npz", npz_file(**columns(EVENTS) | {"x": np.arange(4)}), "differ in length: t 5, x 4, y 5, p 5"),
        ("npz", npz_file(**columns(EVENTS), sensor=(1, 2, 3)), r"a sensor must be .*32768; found \(1, 2, 3\)"),
        ("npz", npz_file(**columns(EVENTS), height=5), r"a sensor must be \(height, width\)"),
        ("npz", npz_file(t=np.zeros(0), x=np.zeros(0), y=np.zeros(0), p=np.zeros(0)), "holds no events"),
        ("npz", npz_file(t=[1, 2], x=[1, np.nan], y=[1, 1], p=[1, 1]), "x must be whole, finite .*found nan at event 1"),
        ("npz", npz_file(t=[1, np.inf], x=[1, 1], y=[1, 1], p=[1, 1]), "t must be whole, finite .*found inf at event 1"),
        ("npz", npz_file(t=[1.5, 2], x=[1, 1], y=[1, 1], p=[1, 1]), "t must be whole, finite .*found 1.5 at event 0"),
        ("npz", npz_file(t=[1, 1e300], x=[1, 1], y=[1, 1], p=[1, 1]), r"t must be within .* found 1.0 to 1e\+300"),
        ("npz", npz_file(t=np.array([1 << 63], "u8"), x=[1], y=[1], p=[1]), "t must be within .* found 9223372036854775808"),
        ("npz", npz_file(t=[[1]], x=[1], y=[1], p=[1]), r"t must have one number for each event; found shape \[1, 1\]"),
        ("npz", npz_file(t=["1"], x=[1], y=[1], p=[1]), "t must have one number for each event; .*dtype <U1"),
        ("npz", npz_file(t=[1j], x=[1], y=[1], p=[1]), "t must have one number for each event; .*dtype complex128"),
        ("npz", npz_file(t=[1, 2], x=[1, -1], y=[1, 1], p=[1, 1]), "event 1 lies at x -1, y 1, at no pixel"),
        ("npz", npz_file(t=[1], x=[1 << 31], y=[1], p=[1]), "event 0 lies at x 2147483648, y 1, at no pixel"),
        ("npz", npz_file(t=[1, 2, 3], x=[1] * 3, y=[1] * 3, p=[-1, 0, 1]), "0 and 1, or -1 and 1; found -1, 0, 1"),
        ("npz", npz_file(t=[1, 2], x=[1] * 2, y=[1] * 2, p=[1, 2]), "polarities must be .*found 1, 2"),
        ("npz", npz_file(t=[1], x=[1], y=[1], p=np.array([{}], object)), "Python objects, which are never unpickled"),
        ("npy", b"", "can't be read as a NumPy array"),
        ("npy", b"\x93NUMPY\x01\x00\x10\x00{'descr': '<i8'}\n", "can't be read as a NumPy array"),
        ("npy", FILES[".npy"][:-1], r"is truncated or no NumPy array: expected 65 bytes for shape \(5,\), found 64"),
        ("npy", FILES[".npy"] + b"x", "expected 65 bytes for shape"),
        ("npy", npy_file(np.zeros((3, 5))), r"expected fields t, x, y, p, or an array \[n, 4\] .*found shape \[3, 5\]"),
        ("npy", npy_file(np.zeros(3)), "expected fields t, x, y, p"),
        ("npy", npy_file(np.zeros((0, 4))), "holds no events"),
        ("npy", npy_file(np.zeros(0, structured(EVENTS).dtype)), "holds no events"),
        ("npy", npy_file(np.array([{}], object)), "never unpickled"),
        ("npy", npy_file(structured(EVENTS, "abcd")), "expected one array t or ts or timestamp, found a, b, c, d"),
        ("npy", npy_file(structured(EVENTS)[None]), r"t must have one number for each event; found shape \[1, 5\]"),
        ("npy", npy_file(np.array([(1, 2, 1, np.nan)])), "t must be whole, finite numbers .*found nan"),
        ("npy", npy_file(np.array([(1, 2, 1, 1e300)])), "t must be within"),
    ],
)  # fmt: skip
def test_errors_name_the_file_and_the_problem(ending, data, problem, tmp_path):
    with pytest.raises(ValueError, match=rf"^{tmp_path}/r\.{ending}[:, ].*{problem}"):
        read_events(write(tmp_path / f"r.{ending}", data))


def test_a_part_of_an_event_at_the_end_of_aedat_2_is_left_out(tmp_path):
    with pytest.warns(UserWarning, match=r"r.aedat: the last 4 bytes are a part of an event and left out"):
        assert rows(read_events(write(tmp_path / "r.aedat", aedat2_file(EVENTS)[:-4]))) == EVENTS[:-1]


@pytest.mark.parametrize("name", FILES)
def test_time_that_runs_backwards(name, tmp_path):
    make = {
        ".bin": bin_file,
        ".dat": dat_file,
        "2.aedat": aedat2_file,
        "3.aedat": aedat3_file,
        "2.raw": lambda events: evt2_file(evt2_words(events)),
        "3.raw": lambda events: evt3_file(evt3_words(events)),
        ".npz": lambda events: npz_file(**columns(events)),
        "c.npz": lambda events: npz_file(np.savez_compressed, **columns(events)),
        ".npy": lambda events: npy_file(structured(events)),
    }[name]
    events = [*EVENTS[:3], (600, 1, 1, 1), *EVENTS[3:]]
    text = r"time runs backwards by 407 µs at event 3 \(1007 µs, then 600 µs\): .*'staa data convert .* --repair drop'"
    with pytest.raises(ValueError, match=text):
        read_events(write(tmp_path / f"r{name}", make(events)))


@pytest.mark.parametrize("name", FILES)
def test_the_given_sensor_must_be_the_files_and_hold_the_events(name, tmp_path):
    path = write(tmp_path / f"r{name}", FILES[name])
    if name in (".bin", "c.npz", ".npy"):
        with pytest.raises(ValueError, match="event 2 lies at x 127, y 1, outside the sensor of 128 × 127 .height × width."):
            read_events(path, (128, 127))
        with pytest.raises(ValueError, match="event 4 lies at x 12, y 127, outside the sensor of 127 × 128"):
            read_events(path, (127, 128))
        assert read_events(path).sensor is None
    else:
        with pytest.raises(
            ValueError, match=r"wrong sensor size: the file says 128 × 128 .*, 128 × 127 .* was given; correct it"
        ):
            read_events(path, (128, 127))
    for sensor in ((0, 5), (5,), (128, 128, 2)):
        with pytest.raises(ValueError, match=r"a sensor must be \(height, width\), each from 1 to 32768; found"):
            read_events(path, sensor)


def bomb(shape, dtype="<i8", packed=b"\0" * 200_000):
    """Arrays that say they are large, and members that are, when unpacked."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": dtype, "fortran_order": False, "shape": shape})
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in "txyp":
            archive.writestr(f"{name}.npy", header.getvalue() + packed)
    return header.getvalue(), file.getvalue()


def test_files_that_promise_more_than_they_hold_take_no_memory(tmp_path, monkeypatch):
    monkeypatch.setenv("STAA_MAX_BYTES", "16M")
    huge = [bomb(shape)[0] for shape in [(10**12,), (10**18, 10**18), (2**40, 4), (-5,), (-(10**9), -(10**9))]]
    huge += [bomb((10**15,), "|V0")[0], bomb((10**30, 0))[0], bomb((1,) * 80)[0], bomb((10**12,), "|S1000000")[0]]
    zeros = b"\0" * 100_000_000
    cases = [("npy", data) for data in huge] + [("npz", bomb((10**12,))[1]), ("npz", bomb((12_500_000,), packed=zeros)[1])]
    cases.append(("npz", bomb((12_500_000,), packed=zeros)[1].replace(struct.pack("<I", 100_000_128), struct.pack("<I", 1000))))
    cases.append(("aedat", AEDAT3_HEADER + packet(b"", capacity=2**31 - 1, number=2**31 - 1)))
    cases.append(("aedat", AEDAT3_HEADER + packet(b"", size=2**31 - 1, kind=0, capacity=2**31 - 1, number=0)))
    tracemalloc.start()
    try:
        for ending, data in cases:
            path = write(tmp_path / f"r.{ending}", data)
            with pytest.raises(ValueError, match=rf"^{path}[:, ]"):
                read_events(path)
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
    finally:
        tracemalloc.stop()


def test_hostile_headers_are_read_in_one_go(tmp_path):
    """A million lines, one endless line, a million empty packets."""
    cases = [
        ("dat", b"% \n" * 1_000_000),
        ("raw", b"% evt 3.0\n" + b"% x\n" * 1_000_000),
        ("raw", b"% " * 1_000_000),
        ("aedat", b"#!AER-DAT2.0\r\n" + b"#\n" * 1_000_000),
        ("aedat", b"#!AER-DAT2.0" + b"#" * 1_000_003),
        ("aedat", b"#!AER-DAT3.1\r\n" + b"#!END-HEADER" * 200_000),
        ("aedat", AEDAT3_HEADER + packet(b"") * 200_000),
        ("raw", b"% evt 3.0\n% geometry " + b"9" * 6000 + b"x" + b"9" * 6000 + b"\n"),
    ]
    start = time.perf_counter()
    for ending, data in cases:
        with pytest.raises(ValueError, match=r"r\."):
            read_events(write(tmp_path / f"r.{ending}", data))
    assert time.perf_counter() - start < 20


def attempt(path, data):
    """Events that hold what every result holds, or a ValueError that names the file."""
    path.write_bytes(data)
    try:
        events = read_events(path)
    except ValueError as error:
        message = str(error)
    else:
        assert isinstance(check(events), Events)
        return
    assert message.startswith((f"{path}: ", f"{path} ", f"{path}, "))


HEADERS = {
    ".bin": b"",
    ".dat": DAT_HEADER + b"\x0c\x08",
    "2.aedat": AEDAT2_HEADER,
    "3.aedat": AEDAT3_HEADER,
    "2.raw": EVT2_HEADER,
    "3.raw": EVT3_HEADER,
    "3g.raw": b"% evt 3.0\n",
    ".npz": b"PK\x03\x04",
    ".npy": FILES[".npy"][:128],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz")


@pytest.mark.parametrize("name", HEADERS)
@settings(max_examples=60, deadline=2000)
@given(data=st.binary(max_size=400), random=st.randoms(use_true_random=False))
def test_random_bytes_after_a_header(name, folder, data, random):
    attempt(folder / f"r{name}", HEADERS[name] + data)
    attempt(folder / f"r{name}", HEADERS[name] + random.randbytes(8 * random.randrange(200)))


@pytest.mark.parametrize("name", FILES)
@settings(max_examples=60, deadline=2000)
@given(data=st.data())
def test_files_cut_short_or_with_flipped_bits(name, folder, data):
    whole = FILES[name]
    attempt(folder / f"r{name}", whole[: data.draw(st.integers(0, len(whole)))])
    flipped = bytearray(whole)
    for bit in data.draw(st.lists(st.integers(0, 8 * len(whole) - 1), min_size=1, max_size=4)):
        flipped[bit // 8] ^= 1 << bit % 8
    attempt(folder / f"r{name}", bytes(flipped))
    attempt(folder / f"r{name}", whole[: data.draw(st.integers(0, len(whole)))] + data.draw(st.binary(max_size=40)))


@pytest.mark.parametrize("name", ["2.raw", "3.raw"])
@settings(max_examples=60, deadline=2000)
@given(words=st.lists(st.integers(0, 0xFFFF), max_size=60), high=st.integers(0, 0xFFF))
def test_words_in_random_order(name, folder, words, high):
    """Sorted by type now and then, so that some of them have times that ascend."""
    header = EVT2_HEADER if name == "2.raw" else b"% evt 3.0\n"
    make = evt2_file if name == "2.raw" else evt3_file
    attempt(folder / f"r{name}", make([0x8000 | high if name == "3.raw" else 0x80000000 | high, *words], header))
    some = [word & 0x5FFF if word >> 12 in (0, 1, 2, 3, 4, 5, 10) else 0x2000 | word & 0xFFF for word in words]
    attempt(folder / f"r{name}", make([0x8000 | high if name == "3.raw" else 0x80000000 | high, *some], header))
