"""Recordings and kept frames that are broken or hostile: refused by name, or read; never a crash, a hang or gigabytes."""

import json
import os
import struct
import subprocess
import sys
import time
import tracemalloc
import zipfile

import broken_events
import numpy as np
import pytest
import torch
from test_formats import dsec, evt21_file, hdf5_bytes, hdf5_file, v2e
from test_recordings import (
    AEDAT3_HEADER,
    DAT_HEADER,
    EVENTS,
    EVT3_HEADER,
    LZ4,
    ZSTD,
    aedat2_file,
    aedat4_content,
    aedat4_file,
    bin_file,
    check,
    columns,
    dat_file,
    evt2_file,
    evt2_words,
    evt3_file,
    evt3_words,
    npy_file,
    npz_file,
    packet,
    polarity,
    rows,
    structured,
    write,
)  # fmt: skip

from staa.cli import main
from staa.data import read_events, to_frames
from staa.data.events.cache import EventFiles
from staa.data.events.check import Check
from staa.data.events.decoders import DECODERS
from staa.data.events.read import READERS
from staa.data.events.recording import EVENT_BYTES, joined, unchecked
from staa.data.events.repair import Repair

KINDS = list(broken_events.KINDS)
HUGE = f"{1 << 15}"  # a side of the largest sensor there can be


@pytest.mark.parametrize("kinds", [KINDS[i::3] for i in range(3)], ids=",".join)
def test_a_hundred_mutations_of_every_kind_are_refused_or_read(kinds):
    """In a process of their own, which none of them may end."""
    if any("aedat4-" in kind for kind in kinds):
        pytest.importorskip("aedat")
    command = [sys.executable, broken_events.__file__, ",".join(kinds), "100", "15"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    results = [json.loads(line) for line in done.stdout.splitlines()]
    assert [result["kind"] for result in results] == kinds
    for result in results:
        assert not result["wrong"], result
        assert result["accepted"] + result["refused"] == 100
        assert result["grown"] < 100 << 20, result


@pytest.mark.slow
@pytest.mark.parametrize("kind", broken_events.APART)
def test_forty_mutations_of_hdf5_are_refused_or_read(kind):
    command = [sys.executable, broken_events.__file__, kind, "40", "15"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    (result,) = map(json.loads, done.stdout.splitlines())
    assert not result["wrong"], result
    assert result["refused"] > 0
    assert result["grown"] < 100 << 20, result


def test_a_flipped_high_bit_in_the_description_of_aedat_4(tmp_path):
    """It aborted the process: the package aedat takes the header for UTF-8."""
    for whole in (aedat4_file(EVENTS), aedat4_file(EVENTS, compression=1, contents=LZ4)):
        data = bytearray(whole)
        data[whole.index(b"outInfo") + 1] ^= 0x80
        with pytest.raises(ValueError, match=r"r\.aedat4: can't be decoded as AEDAT 4 .the description is not UTF-8"):
            read_events(write(tmp_path / "r.aedat4", bytes(data)))


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda d: d[:14] + struct.pack("<I", 2**32 - 1) + d[18:], "a header of 4,294,967,295 bytes"),
        (lambda d: d[:14] + struct.pack("<I", 60_000) + d[18:], "ends within its header"),
        (lambda d: d[:18] + struct.pack("<I", 2**31) + d[22:], "points out of it"),
        (lambda d: d.replace(b"IOHE", b"OHNO"), "expected a flatbuffer IOHE, found b'OHNO'"),
        (lambda d: d.replace(b"</dv>", b"</dw>"), "is not XML"),
        (lambda d: d[:36] + struct.pack("<H", 60_000) + d[38:], "points out of it"),
        (lambda d: d[:32] + struct.pack("<H", 8) + d[34:], "it has no description"),
        (lambda d: d.replace(b'name="0"', b'name="x"'), "a stream without a number of its own"),
        (lambda d: d.replace(b"EVTS\0\0", b"EVIL\0\0"), "expected a flatbuffer EVTS, found b'EVIL'"),
        (lambda d: d[:-4], "goes beyond the end of the packets"),
        (lambda d: d + struct.pack("<II", 7, 0), "is of stream 7, which the header does not name"),
        (lambda d: d + struct.pack("<II", 0, 2**32 - 1), "goes beyond the end of the packets"),
        (lambda d: d + struct.pack("<II", 0, 3) + b"abc", "a length or an offset points out of it"),
        (lambda d: d + struct.pack("<II", 0, 64) + b"\xff" * 64, "a packet is shorter than it says"),
    ],
)
def test_aedat_4_that_lies(change, problem, tmp_path):
    with pytest.raises(ValueError, match=rf"r\.aedat4: can't be decoded as AEDAT 4 \(.*{problem}.*copy or download it again"):
        read_events(write(tmp_path / "r.aedat4", change(aedat4_file(EVENTS))))


def test_descriptions_of_aedat_4_that_nobody_writes(tmp_path):
    for extra, problem in (
        ('<!DOCTYPE dv [<!ENTITY a "aa">]>', "defines a type of document"),
        ("<a>" * 200_000 + "</a>" * 200_000, "a description of"),
        ("<a>" * 100_000 + "</a>" * 100_000, None),
        ('<node name="0"/>', "a stream without a number of its own"),
        ('<node name="99999999999999"/>', "a stream without a number of its own"),
        ("<a>", "is not XML"),
    ):
        path = write(tmp_path / "r.aedat4", aedat4_file(EVENTS, extra=extra))
        if problem is None:
            assert rows(read_events(path)) == EVENTS
        else:
            with pytest.raises(ValueError, match=problem):
                read_events(path)
    for compression, end in ((5, -1), (2**31 - 1, -1), (0, 10), (0, 1 << 40), (0, -2)):
        with pytest.raises(ValueError, match=r"compression .* is unknown|its packets go "):
            read_events(write(tmp_path / "r.aedat4", aedat4_file(EVENTS, compression=compression, end=end)))


@pytest.mark.parametrize(("compression", "contents"), [(1, LZ4), (2, LZ4), (3, ZSTD), (4, ZSTD)])
def test_packed_aedat_4(compression, contents, tmp_path):
    pytest.importorskip("aedat")
    whole = aedat4_file(EVENTS, compression=compression, contents=contents)
    events = check(read_events(write(tmp_path / "r.aedat4", whole)))
    assert rows(events) == EVENTS
    assert events.sensor == (128, 128)
    others = aedat4_file(EVENTS, compression=compression, contents=contents, extra='<node name="1"></node>')
    assert rows(read_events(write(tmp_path / "r.aedat4", others + struct.pack("<II", 1, 3) + b"odd"))) == EVENTS
    for content in (contents[1][:-1], contents[1] + b"\0", contents[1] * 2, b"", b"\0" * 40, contents[1][:4] + b"\xff" * 40):
        broken = aedat4_file(EVENTS, compression=compression, contents=[contents[0], content])
        with pytest.raises(ValueError, match=r"r\.aedat4: can't be decoded as AEDAT 4 \("):
            read_events(write(tmp_path / "r.aedat4", broken))


def lz4_zeros(blocks):
    """A frame whose blocks of 65,536 zeros take 270 bytes each: a literal 0, then a match of it to the block's end."""
    rest = 65536 - 1 - 4 - 15 - 5
    block = b"\x1f\0\x01\0" + b"\xff" * (rest // 255) + bytes([rest % 255]) + b"\x50" + bytes(5)
    return b"\x04\x22\x4d\x18\x60\x40\x82" + (struct.pack("<I", len(block)) + block) * blocks + bytes(4)


def zstd_zeros(blocks):
    """A frame of blocks that repeat one byte 131,072 times and take 4 bytes each."""
    return (
        b"\x28\xb5\x2f\xfd\x00\x38"
        + struct.pack("<I", 2 | (1 << 17) << 3) * (blocks - 1)
        + struct.pack("<I", 3 | (1 << 17) << 3)
    )


@pytest.mark.parametrize(("compression", "zeros"), [(1, lz4_zeros), (3, zstd_zeros)])
def test_packets_of_aedat_4_that_would_fill_the_memory(compression, zeros, tmp_path, monkeypatch):
    pytest.importorskip("aedat")
    path = tmp_path / "r.aedat4"
    write(path, aedat4_file(EVENTS, compression=compression, contents=[zeros(20_000)]))
    assert path.stat().st_size < 6_000_000
    monkeypatch.setenv("STAA_MAX_BYTES", "256M")
    with pytest.raises(ValueError, match=r"r\.aedat4: a packet of it would take .* GiB of memory, the limit is 256 MiB"):
        read_events(path)
    with pytest.raises(ValueError, match="the stream id and the identifier do not match"):  # it is unpacked, and holds zeros
        read_events(write(path, aedat4_file(EVENTS, compression=compression, contents=[zeros(20)])))


def test_the_events_of_many_packets_are_counted_together(tmp_path, monkeypatch):
    pytest.importorskip("aedat")
    path = write(tmp_path / "r.aedat4", aedat4_file(EVENTS, compression=1, contents=LZ4[:1] * 500))
    monkeypatch.setenv("STAA_MAX_BYTES", str(999 * EVENT_BYTES))
    with pytest.raises(ValueError, match=r"r\.aedat4: 1,000 events would take 62.5 KiB of memory"):
        read_events(path)
    monkeypatch.setenv("STAA_MAX_BYTES", "64M")
    assert len(read_events(path).t) == 1000
    monkeypatch.setattr("staa.data.events.aedat4_packed.BATCH", 100)
    assert len(read_events(path).t) == 1000


def evt3_vectors(count):
    """So many times eleven words, which make 120 events."""
    words = [0x8000, 0x6000, 0, *[0x3000, *[0x4FFF] * 10] * count]
    return EVT3_HEADER + np.array(words, "<u2").tobytes()


@pytest.mark.parametrize(
    ("ending", "data"),
    [
        ("bin", bytes(5 * 20_000)),
        ("dat", dat_file([]) + bytes(8 * 20_000)),
        ("aedat", b"#!AER-DAT2.0\r\n" + bytes(8 * 20_000)),
        ("aedat", AEDAT3_HEADER + packet(polarity([(0, 0, 0, 0)]) * 20_000)),
        ("aedat", AEDAT3_HEADER + packet(polarity([(0, 0, 0, 0)])) * 20_000),
        ("aedat4", aedat4_file([(0, 0, 0, 0)] * 20_000)),
        ("raw", evt2_file([0x80000000] + [0] * 20_000)),
        ("raw", evt3_vectors(1000)),
        ("raw", evt21_file([(1000, i % 256, 5, 1) for i in range(20_000)])),
        ("csv", b"t_us,x,y,p\n" + b"1,2,3,1\n" * 20_000),
        ("h5", hdf5_bytes(v2e([(1, 2, 3, 1)] * 20_000))),
        ("npz", npz_file(np.savez_compressed, **dict.fromkeys("txyp", np.zeros(20_000, np.uint8)))),
        ("npy", npy_file(np.zeros((20_000, 4), np.uint8))),
    ],
)
def test_more_events_than_the_limit_are_not_decoded(ending, data, tmp_path, monkeypatch):
    path = write(tmp_path / f"r.{ending}", data)
    monkeypatch.setenv("STAA_MAX_BYTES", "1M")
    with pytest.raises(ValueError, match=rf"^{path}: (its|[\d,]+) events would take .*raise the limit with STAA_MAX_BYTES="):
        read_events(path)


@pytest.mark.parametrize("ending", ["dat", "raw", "npz", "aedat4"])
def test_a_sensor_is_no_reason_to_allocate(ending, tmp_path, monkeypatch, capsys):
    """A header of 32768 × 32768 took 64 GiB to draw."""
    monkeypatch.setenv("STAA_MAX_BYTES", "2G")
    data = {
        "dat": dat_file(EVENTS, DAT_HEADER.replace(b"128", HUGE.encode())),
        "raw": evt2_file(evt2_words(EVENTS), f"% evt 2.0\n% geometry {HUGE}x{HUGE}\n% end\n".encode()),
        "npz": npz_file(**columns(EVENTS), sensor=(int(HUGE), int(HUGE))),
        "aedat4": aedat4_file(EVENTS, ((int(HUGE), int(HUGE)),)),
    }[ending]
    path = write(tmp_path / f"r.{ending}", data)
    events = read_events(path)
    assert events.sensor == (32768, 32768)
    with pytest.raises(ValueError, match="10 frames of 2 × 32768 × 32768 would take 256 GiB of memory, the limit is 2 GiB"):
        to_frames(events, window=9_000)
    files = EventFiles([str(path)], root=tmp_path, cache=tmp_path / "cache", steps=4)
    with pytest.raises(ValueError, match=rf"^{path}: 4 frames of 2 × 32768 × 32768 would take"):
        files.frames(str(path))
    assert files.__class__([str(path)], root=tmp_path, cache=tmp_path / "cache", steps=4, size=8).frames(str(path)).sum() == 5
    tracemalloc.start()
    try:
        assert main(["data", "show", str(path), "--out", str(tmp_path / "r.png")]) == 0
        assert tracemalloc.get_traced_memory()[1] < 500 << 20
    finally:
        tracemalloc.stop()


def test_a_batch_of_large_frames_is_refused_before_it_is_made(tmp_path, monkeypatch):
    paths = [str(write(tmp_path / f"{i}.npz", npz_file(**columns(EVENTS), sensor=(1024, 1024)))) for i in range(3)]
    files = EventFiles(paths, root=tmp_path, cache=tmp_path / "cache", steps=1)
    monkeypatch.setenv("STAA_MAX_BYTES", "64M")
    assert files.read(torch.tensor([0, 1, 2])).shape == (3, 1, 2, 1024, 1024)
    with pytest.raises(ValueError, match=rf"40 recordings with frames such as those of {paths[0]} would take 160 MiB"):
        files.read(torch.zeros(40, dtype=torch.long))


@pytest.mark.parametrize("ending", READERS)
def test_a_pipe_is_refused_at_once(ending, tmp_path, capsys):
    path = tmp_path / f"r{ending}"
    os.mkfifo(path)
    with pytest.raises(ValueError, match=rf"^{path} is no regular file"):
        read_events(path)
    files = EventFiles([str(path)], root=tmp_path, cache=tmp_path / "cache", steps=4)
    with pytest.raises(ValueError, match=rf"^{path} is no regular file"):
        files.frames(str(path))
    assert main(["data", "show", str(path)]) == 2
    assert "is no regular file" in capsys.readouterr().err


def test_a_pipe_in_the_cache_is_replaced(tmp_path):
    path = str(write(tmp_path / "r.npz", npz_file(**columns(EVENTS), sensor=(128, 128))))
    files = EventFiles([path], root=tmp_path, cache=tmp_path / "cache", steps=4)
    right = files.frames(path)
    (kept,) = (tmp_path / "cache").iterdir()
    kept.unlink()
    os.mkfifo(kept)
    assert np.array_equal(files.frames(path), right)
    assert kept.is_file()


def test_frames_are_never_written_through_a_link(tmp_path):
    path = str(write(tmp_path / "r.npz", npz_file(**columns(EVENTS), sensor=(128, 128))))
    files = EventFiles([path], root=tmp_path, cache=tmp_path / "cache", steps=4)
    files.frames(path)
    (kept,) = (tmp_path / "cache").iterdir()
    kept.unlink()
    victim = write(tmp_path / "victim", b"precious")
    kept.symlink_to(victim)
    files.frames(path)
    assert victim.read_bytes() == b"precious"
    assert not kept.is_symlink()
    assert list(kept.parent.iterdir()) == [kept]


def test_every_flipped_bit_of_kept_frames_is_noticed(tmp_path):
    path = str(write(tmp_path / "r.npz", npz_file(**columns(EVENTS), sensor=(128, 128))))
    files = EventFiles([path], root=tmp_path, cache=tmp_path / "cache", steps=1, size=4)
    right = files.frames(path)
    (kept,) = (tmp_path / "cache").iterdir()
    whole = kept.read_bytes()
    for bit in range(0, 8 * len(whole), 3):
        broken = bytearray(whole)
        broken[bit // 8] ^= 1 << bit % 8
        kept.write_bytes(broken)
        assert np.array_equal(files.frames(path), right)
        assert kept.read_bytes() == whole


N = 400_000
STEP = np.arange(N) // 1000  # of a camera that stamps a thousand events at once
HONEST = {
    "hot pixel": {"t": STEP * 10, "x": np.full(N, 17), "y": np.full(N, 3), "p": np.ones(N, np.int64)},
    "moving bar": {"t": STEP * 10, "x": STEP % 128, "y": np.arange(N) % 1000, "p": np.zeros(N, np.int64)},
}


@pytest.mark.parametrize(("name", "ratio"), [("hot pixel", 600), ("moving bar", 245)])
def test_honest_recordings_that_pack_well_are_read(name, ratio, tmp_path):
    arrays = HONEST[name]
    np.savez_compressed(tmp_path / "r.npz", **arrays)
    assert sum(a.nbytes for a in arrays.values()) > ratio * (tmp_path / "r.npz").stat().st_size
    events = check(read_events(tmp_path / "r.npz", (1000, 128)))
    assert all(np.array_equal(column, arrays[key]) for key, column in zip("txyp", events, strict=False))


@pytest.mark.parametrize(
    ("ending", "make", "packet_bytes"),
    [
        ("bin", bin_file, 0),
        ("dat", dat_file, 0),
        ("aedat", aedat2_file, 0),
        ("aedat", lambda events: AEDAT3_HEADER + packet(polarity(events)), 0),
        ("aedat", lambda events: AEDAT3_HEADER + b"".join(packet(polarity([event])) for event in events), 384),
        ("aedat4", aedat4_file, 0),
        ("aedat4", lambda events: aedat4_file([], compression=1, contents=LZ4[:1] * (len(events) // 2)), 640),
        ("aedat4", lambda events: aedat4_file([], contents=[aedat4_content([event]) for event in events]), 1280),
        ("raw", lambda events: evt2_file(evt2_words(events)), 0),
        ("raw", lambda events: evt3_vectors(len(events) // 120), 0),
        ("raw", lambda events: evt21_file([(1000, i % 32, 5, 1) for i in range(len(events))]), 0),
        ("csv", lambda events: b"t_us,x,y,p\n" + b"1000,3,5,1\n" * len(events), 0),
        ("h5", lambda events: hdf5_bytes(v2e(events)), 0),
        ("npz", lambda events: npz_file(**columns(events)), 0),
        ("npz", lambda events: npz_file(**columns(events, t="f8", x="f4", y="f4", p="f4")), 0),
        ("npy", lambda events: npy_file(structured(events)), 0),
        ("npy", lambda events: npy_file(np.array([(x, y, p, t) for t, x, y, p in events], np.float32)), 0),
    ],
)
def test_an_event_takes_no_more_memory_than_is_reckoned(ending, make, packet_bytes, tmp_path):
    """packet_bytes: what is reckoned for a packet, by the events in it."""
    if ending == "aedat4":
        pytest.importorskip("aedat")
    events = 15_000 if packet_bytes else 60_000
    path = write(tmp_path / f"r.{ending}", make([(1000, 3, 5, 1)] * events))
    read_events(path)  # what is imported and compiled on the way does not count
    tracemalloc.start()
    try:
        count = len(read_events(path).t)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert events - 100 < count <= events
    assert peak < count * EVENT_BYTES + count * packet_bytes + 3 * path.stat().st_size + (1 << 20), f"{peak / count:.0f}"


ENDS = {
    "bin": bin_file(EVENTS),
    "dat": dat_file(EVENTS),
    "evt2": evt2_file(evt2_words(EVENTS)),
    "evt2.1": evt21_file(EVENTS),
    "evt3": evt3_file(evt3_words(EVENTS)),
    "aedat2": aedat2_file(EVENTS),
    "aedat3": AEDAT3_HEADER + packet(polarity(EVENTS)),
    "aedat4": aedat4_file([], contents=[aedat4_content(EVENTS[:2]), aedat4_content(EVENTS[2:])]),
    "txyp": np.array(EVENTS, [("t", "<i8"), ("x", "<u2"), ("y", "<u2"), ("p", "u1")]).tobytes(),
}


@pytest.mark.parametrize("name", ENDS)
def test_the_part_of_an_event_at_the_end_is_left_out_and_counted_in_every_format(name):
    """Of a file and of a stream, whose decoders are the same: whatever is cut off, the events before it are there."""
    assert ENDS.keys() == DECODERS.keys()
    whole = ENDS[name]

    def decoded(data):
        repair = Repair("drop")
        decoder = DECODERS[name](repair)
        return rows(joined([decoder.feed(data), decoder.end()], None)), repair.counts

    expected, counts = decoded(whole)
    assert (len(expected), sum(counts.values())) == (len(EVENTS), 0)
    found = set()
    for cut in range(1, 12):
        events, counts = decoded(whole[:-cut])
        assert events == expected[: len(events)]
        assert len(events) >= len(EVENTS) - 3
        assert {*counts} <= {"bytes of a part of an event"}
        found |= {*counts.elements()}
    assert found


def test_text_that_takes_a_pattern_for_ever_is_read_at_once(tmp_path):
    """Each took a minute or far more: two ways to match a run of characters try all its parts."""
    n, first = 60_000, b"1.000001,1,1,1\n"
    texts = {
        b"1" * n + b"x,1,1,1\n": "no events",
        b"t_us,x,y,p\n" + b"1" * n + b"x,1,1,1\n": "line 2 is '111",
        b"t" + b"a" * n + b"!,x,y,p\n" + first: "its first line names columns taaa",
        b"# t(" + b" " * n + b"1\n" + first: None,
        (b"# a" + b" " * n + b"b\n") * 8 + first: None,
    }
    began = time.process_time()
    for text, problem in texts.items():
        path = write(tmp_path / "a.txt", text)
        if problem is None:
            assert rows(read_events(path)) == [(1_000_001, 1, 1, 1)]
        else:
            with pytest.raises(ValueError, match=problem):
                read_events(path, unit="us")
    assert time.process_time() - began < 20


def test_numbers_of_other_scripts_are_no_numbers(tmp_path):
    for text in ("t_us,x,y,p\n\u0661,1,1,1\n", "t_us,x,y,p\n1_0,1,1,1\n", "t_us,x,y,p\n0x10,1,1,1\n"):
        with pytest.raises(ValueError, match=r"a\.txt: line 2 is"):
            read_events(write(tmp_path / "a.txt", text.encode()))


def test_arrays_whose_size_is_no_reason_to_read_them(tmp_path, monkeypatch):
    """A sensor of 200,000 columns was opened 200,000 times; entries of a megabyte each were read 131,072 at a time."""
    one = dict.fromkeys("txyp", np.zeros(1, np.int64))
    for sensor in (np.zeros((1, 200_000), np.uint8, order="F"), np.zeros((0, 200_000), np.uint8), np.zeros(4, np.uint8)):
        path = write(tmp_path / "a.npz", npz_file(np.savez_compressed, **one, sensor=sensor))
        with pytest.raises(ValueError, match=r"a\.npz: sensor must be one number, or height and width, found shape"):
            read_events(path)
    fat = np.zeros(300, [("t", "i8"), ("x", "i2"), ("y", "i2"), ("p", "u1"), ("more", "V100000")])
    path = write(tmp_path / "b.npz", npz_file(np.savez_compressed, a=fat))
    monkeypatch.setenv("STAA_MAX_BYTES", "16M")
    with pytest.raises(ValueError, match=r"^\S*b\.npz, array 'a', 300 entries at a time, would take 28.61 MiB"):
        read_events(path, (1, 1))
    with zipfile.ZipFile(tmp_path / "c.npz", "w") as archive:
        for name in ("t.npy", "x.npy", "y.npy", "p.npy", "t"):
            archive.writestr(name, npy_file(np.zeros(1, np.int64)))
    with pytest.raises(ValueError, match=r"c\.npz holds several arrays of one name"):
        read_events(tmp_path / "c.npz", (1, 1))


def test_hdf5_that_is_not_written_has_no_events(tmp_path):
    """It gave zeros, ten million million of them, which `staa data convert` wrote until the disk was full."""

    def unwritten(file):
        for name in "txyp":
            file.create_dataset(f"events/{name}", (10**13,), "<i8", chunks=(1000,))
        file["ms_to_idx"] = np.zeros(1, np.uint64)

    def beyond(file):
        dsec(EVENTS)(file)
        del file["events/t"]
        file["events/t"] = np.full(len(EVENTS), (1 << 63) - 1)

    def deep(file):
        for _ in range(40):
            file = file.create_group("a")

    for make, problem in (
        (unwritten, "not all of events is in the file, which should have 10,000,000,000,000 events"),
        (beyond, r"its times must be within ±2\*\*62"),
        (deep, "groups in groups, more than 32 deep"),
    ):
        with pytest.raises(ValueError, match=rf"a\.h5: .*{problem}"):
            read_events(hdf5_file(tmp_path / "a.h5", make))


def test_a_recording_has_one_sensor():
    """As messages of a bag each say one."""
    check, event = Check(None, Repair()), [np.array([9]), np.array([99]), np.array([99]), np.array([1])]
    check.feed(unchecked(*event, sensor=(100, 100)))
    with pytest.raises(ValueError, match="its sensor changes from 100 × 100 .* to 10 × 10"):
        check.feed(unchecked(*event, sensor=(10, 10)))


def test_a_converted_recording_replaces_nothing_that_came_meanwhile(tmp_path, monkeypatch):
    path, out = write(tmp_path / "a.npz", npz_file(**columns(EVENTS), sensor=(128, 128))), tmp_path / "b.npz"
    monkeypatch.setattr("staa.cli.data.check_new", lambda path: out.write_bytes(b"precious"))
    assert main(["data", "convert", str(path), str(out)]) == 1
    assert out.read_bytes() == b"precious"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.npz", "b.npz"]
