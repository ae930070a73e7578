"""Recordings of other programs' formats: HDF5, text, EVT 2.1, AEDAT 2.0 of a DAVIS; each read with exact counts."""

import struct
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_recordings import EVENTS, rows, write

from staa.data import read_events
from staa.data.events.decoders import DECODERS
from staa.data.events.ecf import unpacked
from staa.data.events.read import read_pieces
from staa.data.events.recording import joined
from staa.data.events.repair import Repair

h5py = pytest.importorskip("h5py")


def many(n=300, side=200, seed=0, step=40):
    """Events t, x, y, p in the order of time, some at one time or in one row."""
    rng = np.random.default_rng(seed)
    t = 5_000_000_000 + np.cumsum(rng.integers(0, step, n) * (rng.random(n) < 0.5))
    y = np.repeat(rng.integers(0, side, n), rng.integers(1, 30, n))[:n]
    x = np.where(rng.random(n) < 0.7, np.arange(n) % side, rng.integers(0, side, n))
    return list(zip(*(a.tolist() for a in (t, x, y, rng.integers(0, 2, n))), strict=True))


# EVT 2.1, from https://docs.prophesee.ai/stable/data/encoding_formats/evt21.html
def evt21_words(events):
    """Words of 64 bits: neighbours of one time, row and polarity share one."""
    out, high, at = [], None, 0
    while at < len(events):
        t, x, y, p = events[at]
        if t >> 6 != high:
            high = t >> 6
            out.append(0x8 << 60 | (high & 0xFFFFFFF) << 32)
            out.append(0xE << 60 | 0x1234)  # OTHERS
        mask, base = 0, x & ~31
        while at < len(events) and (here := events[at])[0] == t and here[2:] == (y, p) and base <= here[1] < base + 32:
            if mask >> (here[1] - base):  # the order within a word is that of x
                break
            mask |= 1 << here[1] - base
            at += 1
        out.append(p << 60 | (t & 63) << 54 | base << 43 | y << 32 | mask)
    return out


EVT21 = {
    "GenX320": (b"% evt 2.1\n% format EVT21;height=320;width=320\n% end\n", lambda w: w.to_bytes(8, "little")),
    "IMX636": (
        b"% format EVT21;height=320;width=320;endianness=legacy\n% end\n",
        lambda w: (w >> 32).to_bytes(4, "little") + (w & 0xFFFFFFFF).to_bytes(4, "little"),
    ),
    "big": (b"% format EVT21;endianness=big;height=320;width=320\n% end\n", lambda w: w.to_bytes(8, "big")),
}


def evt21_file(events, camera="GenX320"):
    header, laid_out = EVT21[camera]
    return header + b"".join(map(laid_out, evt21_words(events)))


def test_the_bytes_of_evt_21_are_those_of_its_page():
    """0x0102030405060708 is 0807060504030201 of a GenX320 and 0403020108070605 of an IMX636."""
    word = 0x0102030405060708
    assert EVT21["GenX320"][1](word).hex() == "0807060504030201"
    assert EVT21["IMX636"][1](word).hex() == "0403020108070605"


@pytest.mark.parametrize("camera", EVT21)
def test_evt_21_in_every_order_of_bytes(camera):
    events = many()
    data = evt21_file(events, camera)
    for size in (len(data), 7):
        decoder = DECODERS["evt2.1"](Repair())
        pieces = [decoder.feed(data[k : k + size]) for k in range(0, len(data), size)]
        found = joined([*pieces, decoder.end()], decoder.sensor)
        assert rows(found) == events
        assert found.sensor == (320, 320)


# HDF5
def hdf5_file(path, make):
    with h5py.File(path, "w") as file:
        make(file)
    return path


def columns_of(events, **types):
    found = {name: np.array(column) for name, column in zip("txyp", zip(*events, strict=True), strict=True)}
    return {name: found[name].astype(types.get(name, "u2" if name in "xy" else "i8")) for name in "txyp"}


def dsec(events, offset=4_000_000_000, **packing):
    def make(file):
        columns = columns_of(events, p="u1")
        columns["t"] = (columns["t"] - offset).astype("u4")
        for name, column in columns.items():
            file.create_dataset(f"events/{name}", data=column, **packing)
        file["t_offset"] = offset
        file["ms_to_idx"] = np.searchsorted(columns["t"], 1000 * np.arange(columns["t"][-1] // 1000 + 1)).astype("u8")

    return make


def v2e(events):
    return lambda file: file.create_dataset("events", data=np.array(events, "u4"), maxshape=(None, 4), compression="gzip")


def mvsec(events):
    def make(file):
        rows = np.array([(x, y, t / 1e6, 2 * p - 1) for t, x, y, p in events])
        for side in ("left", "right"):
            file[f"davis/{side}/events"] = rows[: len(rows) if side == "left" else 9]
        file["davis/left/image_raw"] = np.zeros((2, 260, 346), "u1")

    return make


def e2vid(events):
    def make(file):
        columns = columns_of(events, p=bool)
        for name, column in columns.items():
            file[f"events/{name}s"] = column / 1e6 if name == "t" else column
        file.attrs["sensor_resolution"] = (200, 240)

    return make


CD = np.dtype({"names": ["x", "y", "p", "t"], "formats": ["<u2", "<u2", "<i2", "<i8"], "offsets": [0, 2, 4, 8], "itemsize": 16})
INDEX = np.dtype([("id", "u8"), ("ts", "i8")])


def ecf(events, packing):
    """A chunk as Prophesee's encoder writes it; packing: 2, rows packed too; 1, x and p; 0, all by runs."""
    t, x, y, p = (list(column) for column in zip(*events, strict=True))
    n, out, now, i = len(events), b"", t[0], 0
    head = struct.pack("<IQ", n << 2 | packing, t[0])
    while i < n:
        if t[i] >= now + 15:
            step, now = t[i] - now, t[i]
            while step:
                out, step = out + bytes([0xF0 | step & 15]), step >> 4
        count = next((k for k in range(1, n - i) if t[i + k] != t[i]), n - i)
        long = count >= 15
        out += bytes([t[i] - now << 4 | (15 if long else count)]) + (struct.pack("<H", count) if long else b"")
        now, i = t[i], i + count
    if packing == 2:
        values = [b << 12 | a << 1 | c for a, b, c in zip(x, y, p, strict=True)] + [0] * 3
        for i in range(0, n, 4):
            a, b, c, d = values[i : i + 4]
            out += struct.pack("<III", a << 8 | b & 0xFF, b >> 8 << 16 | c & 0xFFFF, c >> 16 << 24 | d)
        return head + out
    out += ecf_runs(y, 5, "<H", "<H")
    if packing == 1:
        values = [a << 1 | c for a, c in zip(x, p, strict=True)] + [0] * 3
        for i in range(0, n, 4):
            a, b, c, d = values[i : i + 4]
            out += struct.pack("<HHH", a << 4 | b & 15, b >> 4 << 8 | c & 0xFF, c >> 8 << 12 | d)
        return head + out
    i = 0
    while i < n:
        first, i, mask = x[i], i + 1, 0
        for j in range(5):
            if i < n and x[i] == first + j + 1:
                mask, i = mask | 1 << 4 - j, i + 1
        out += struct.pack("<H", first << 5 | mask)
    return head + out + ecf_runs(p, 7, "<B", "<H")


def ecf_runs(values, shift, code, wide):
    out, i, most = b"", 0, (1 << shift) - 1
    while i < len(values):
        count = next((k for k in range(1, len(values) - i) if values[i + k] != values[i]), len(values) - i)
        long = count >= most
        out += struct.pack(code, values[i] << shift | (most if long else count)) + (struct.pack(wide, count) if long else b"")
        i += count
    return out


def metavision(events, packing=None, chunk=64):
    """As Metavision's HDF5EventFileWriter: chunks of ECF written as they are; packing None: plain."""

    def make(file):
        space = h5py.h5s.create_simple((len(events),), (h5py.h5s.UNLIMITED,))
        plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plist.set_chunk((chunk,))
        if packing is not None:
            plist.set_filter(0x8ECF, h5py.h5z.FLAG_OPTIONAL, ())
        group = file.create_group("CD")
        dataset = h5py.h5d.create(group.id, b"events", h5py.h5t.py_create(CD), space, plist)
        for k in range(0, len(events), chunk):
            some = events[k : k + chunk]
            plain = np.zeros(chunk, CD)
            plain[: len(some)] = [(x, y, p, t) for t, x, y, p in some]
            dataset.write_direct_chunk((k,), plain.tobytes() if packing is None else ecf(some, packing))
        file["CD/indexes"] = np.zeros(3, INDEX)
        file["EXT_TRIGGER/events"] = np.zeros(2, np.dtype([("p", "i2"), ("t", "i8"), ("id", "i2")]))
        file.attrs["geometry"] = "320x240"

    return make


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 400), st.sampled_from([1, 40, 10**9]), st.sampled_from([0, 1, 2]))
def test_ecf(seed, n, step, packing):
    events = many(n, seed=seed, step=step)
    found = unpacked(ecf(events, packing))
    assert [list(column) for column in found] == [list(column) for column in zip(*events, strict=True)]
    data = ecf(events, packing)
    rng = np.random.default_rng(seed)
    for broken in (data[: rng.integers(len(data))], bytes(rng.permuted(np.frombuffer(data, "u1")))):
        with suppress(ValueError):  # and nothing else
            t, x, y, p = unpacked(broken)
            assert len(t) == len(x) == len(y) == len(p) <= 65535


SMALL = [(t - 4_999_000_000, *rest) for t, *rest in many()]  # that fit in uint32
LAYOUTS = {
    "DSEC": (dsec(many()), many(), None),
    "v2e": (v2e(SMALL), SMALL, None),
    "E2VID": (e2vid(many()), many(), (200, 240)),
    "Metavision": (metavision(many()), many(), (240, 320)),
    **{f"Metavision, ECF {k}": (metavision(many(), k), many(), (240, 320)) for k in range(3)},
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_hdf5(layout, tmp_path):
    make, events, sensor = LAYOUTS[layout]
    found = read_events(hdf5_file(tmp_path / "r.h5", make))
    assert rows(found) == events
    assert found.sensor == sensor


def test_hdf5_of_several_recordings(tmp_path):
    path = hdf5_file(tmp_path / "r.h5", mvsec(SMALL))
    with pytest.raises(ValueError, match="2 recordings: choose one with `stream`: davis/left/events, davis/right/events"):
        read_events(path)
    with pytest.raises(ValueError, match="no recording 'middle': choose one of davis/left/events, davis/right/events"):
        read_events(path, stream="middle")
    found = read_events(path, stream="davis/left/events")
    assert rows(found) == SMALL
    assert found.sensor == (260, 346)
    assert rows(read_events(path, stream="/davis/right/events")) == SMALL[:9]


def test_hdf5_packed_by_a_plugin(tmp_path, monkeypatch):
    hdf5plugin = pytest.importorskip("hdf5plugin")
    path = hdf5_file(tmp_path / "r.h5", dsec(many(), **hdf5plugin.Blosc(cname="zstd")))
    assert rows(read_events(path)) == many()
    (tmp_path / "hdf5plugin.py").write_text("raise ImportError")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(ImportError, match=r'packed by blosc, .* hdf5plugin unpacks: pip install "staa-snn\[events\]"'):
        read_events(path)
    (tmp_path / "h5py.py").write_text("raise ImportError")
    with pytest.raises(ImportError, match=r'read by the package h5py: pip install "staa-snn\[events\]"'):
        read_events(path)


def links(file):
    file["away"] = h5py.ExternalLink("other.h5", "/events")
    file["soft"] = h5py.SoftLink("/nowhere")
    file["round"] = file["/"]


def outside(file):
    for name in "txyp":
        file.create_dataset(f"events/{name}", (9,), "i4", external=[("/etc/passwd", 0, 36)])


def wrong_index(file):
    dsec(many())(file)
    file["ms_to_idx"][...] = file["ms_to_idx"][()] + 1


def uneven(file):
    dsec(many())(file)
    del file["events/x"]
    file["events/x"] = np.zeros(9, "u2")


def without_unit(file):
    for name, column in columns_of(EVENTS).items():
        file[name] = column


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (links, "no events of a known layout: expected CD/events"),
        (outside, "no events of a known layout"),
        (wrong_index, "ms_to_idx and its times disagree at 0 ms"),
        (uneven, "columns of events differ in length: t 300, x 9, y 300, p 300"),
        (without_unit, "doesn't say the unit of its times: give `unit`, one of us, ms, ns and s"),
        (metavision([(1, 2, 3, 4)] * 9), "polarities must be 0 and 1"),
    ],
)
def test_hdf5_that_is_refused(make, problem, tmp_path):
    path = hdf5_file(tmp_path / "r.h5", make)
    with pytest.raises(ValueError, match=problem):
        read_events(path)


def test_hdf5_that_is_broken(tmp_path):
    for data in (b"", b"\x89HDF\r\n\x1a\n" + bytes(100), b"no HDF5"):
        with pytest.raises(ValueError, match="it can't be read as HDF5: .*copy or download it again"):
            read_events(write(tmp_path / "r.h5", data))
    for packing in range(3):
        path = hdf5_file(tmp_path / "r.h5", metavision(many(), packing))
        data = path.read_bytes()
        at = data.index(ecf(many()[:64], packing))
        with pytest.raises(ValueError, match="a chunk of it is no ECF|a chunk of its events has"):
            read_events(write(path, data[:at] + b"\xff" * 40 + data[at + 40 :]))


# text
TEXTS = {
    "RPG": ("".join(f"{t / 1e6:.9f} {x} {y} {p}\n" for t, x, y, p in EVENTS), {}),
    "E2VID": ("128 128\n" + "".join(f"{t / 1e6:.6f} {x} {y} {p}\n" for t, x, y, p in EVENTS), {}),
    "v2e": (
        "#!events.txt\n# Format is time (float s), x, y, polarity (0=off, 1=on) as specified at http\n"
        + "".join(f"{t / 1e6} {x} {y} {p}\n" for t, x, y, p in EVENTS),
        {},
    ),
    "names": ("p,y,x,t_us\n" + "".join(f"{p},{y},{x},{t}\n" for t, x, y, p in EVENTS), {}),
    "more": ("id;timestamp [ns];x;y;pol\n" + "".join(f"9;{t}000;{x};{y};{2 * p - 1}\r\n" for t, x, y, p in EVENTS), {}),
    "commented names": ("# x y polarity time_ms\n" + "".join(f"{x} {y} {p} {t / 1000}\n" for t, x, y, p in EVENTS), {}),
    "tabs, no end": ("\n".join(f"{t}\t{x}\t{y}\t{p}" for t, x, y, p in EVENTS), {"unit": "us"}),
    "x y t p": ("".join(f"{x},{y},{t},{p}\n" for t, x, y, p in EVENTS), {"unit": "us"}),
    "x y p t": ("".join(f"{x}, {y}, {p}, {t}\n" for t, x, y, p in EVENTS), {"unit": "us"}),
}


@pytest.mark.parametrize("name", TEXTS)
def test_text(name, tmp_path):
    text, options = TEXTS[name]
    found = read_events(write(tmp_path / "r.txt", text.encode()), **options)
    assert rows(found) == EVENTS
    assert found.sensor == ((128, 128) if name == "E2VID" else None)


def test_text_in_pieces(tmp_path, monkeypatch):
    monkeypatch.setattr("staa.data.events.text.BLOCK", 64)
    events = many()
    text = "# comment\n" * 9 + "t_us x y p\n" + "".join(f"{t} {x} {y} {p}\n" for t, x, y, p in events)
    pieces = list(read_pieces(write(tmp_path / "r.csv", text.encode()), None, Repair()))
    assert len(pieces) > 50
    assert rows(joined(pieces, None)) == events
    with pytest.raises(ValueError, match="line 205 is '7 8 nine 1': expected a line of numbers"):
        read_events(write(tmp_path / "r.csv", text.replace(text.splitlines()[204], "7 8 nine 1").encode()))


def test_times_since_1970(tmp_path):
    for unit, factor in (("us", 1), ("ns", 1000)):
        text = "".join(f"{(1_700_000_000_000_000 + t) * factor},{x},{y},{p}\n" for t, x, y, p in EVENTS)
        found = read_events(write(tmp_path / "r.csv", text.encode()))
        assert [t - 1_700_000_000_000_000 for t in found.t.tolist()] == [t for t, *_ in EVENTS], unit


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("1 2 3 1\n2 2 3 1\n", "doesn't say the unit of its times, which are like 1: give `unit` .us, ms, ns or s., or name"),
        ("0.5 2 3 1\n", "doesn't say the unit of its times, which are like 0.5"),
        ("a,b,c,d\n1,2,3,1\n", "first line names columns a, b, c, d; expected t, x, y and p, such as t_us,x,y,p"),
        ("t,ts,x,y,p\n1,1,2,3,1\n", "first line names columns t, ts, x, y, p"),
        ("1 2 3\n", "expected four columns t x y p, or a first line that names them; found 3 columns"),
        ("5 900 7 900\n5 900 7 901\n", "its columns are in no known order"),
        ("t_us x y p\n1 2 3 1\n1 2\n", "line 3 is '1 2': expected a line of numbers for each event"),
        ("t_us x y p\n1 2 3 1\n1 2 3 1 4\n", "expected a line of numbers for each event"),
        ("t_us x y p\n1 2.5 3 1\n", "x must be whole, finite numbers, found 2.5 at event 0"),
        ("t_us x y p\n1 2 3 7\n", "polarities must be 0 and 1, or -1 and 1; found 7"),
        ("t_us x y p\nnan 2 3 1\n", "line of numbers|finite"),
        ("t_us x y p\n99999999999999999999 2 3 1\n", "line of numbers|within"),
        ("\xff\xfe", "line 1 is no text"),
        ("t_us x y p\n1 2 3 1\n\0\0\0\0\n", "line 3 is no text"),
        ("1" * 100_000, "line 1 has more than 65,536 bytes"),
    ],
)
def test_text_that_is_refused(text, problem, tmp_path):
    path = write(tmp_path / "r.txt", text.encode("latin-1"))
    with pytest.raises(ValueError, match=problem):
        read_events(path)
    with pytest.raises(ValueError, match="`unit` must be us, ms, ns or s, got 'h'"):
        read_events(path, unit="h")


def test_a_unit_that_the_file_contradicts(tmp_path):
    path = write(tmp_path / "r.csv", b"t_us,x,y,p\n1,2,3,1\n")
    with pytest.raises(ValueError, match="the file's times are in us, and `unit` says ms: remove `unit`"):
        read_events(path, unit="ms")
