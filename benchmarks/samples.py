"""A small valid file of every kind that staa reads, how it is read, and which mutators know its format."""

import gzip
import io
import os
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from PIL import Image

import staa
from benchmarks.formats import in_gzip, in_hdf, in_npy, in_png, in_safetensors, in_zip, npy, pickled
from benchmarks.mutators import CANARY, Mutator, in_json, in_lines, in_table, names_in_json, numbers_in_text, replaced_by
from staa.data.events.cache import EventFiles
from staa.data.events.read import read_events
from staa.data.images.files import ENDINGS, decode
from staa.data.series import files as files_module
from staa.data.series import frame, hdf
from staa.data.series.files import read_series
from staa.data.series.graph import read_graph
from staa.data.series.series import TimeSeries
from staa.recipes import RECIPES
from staa.runs import evaluate_run, run
from staa.runs.folder import read_recipe
from staa.runs.log import log_once

EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n(true) (r) file closefile showpage\n%%EOF\n"
NAMES = ("north", "south", "east", "west")


class WrongError(Exception):
    """A file that was read without a word, but not as it is."""


@dataclass(frozen=True)
class Sample:
    """name: of the file that is mutated; read: takes its path; beside: files that lie with it, by their names."""

    name: str
    data: bytes
    read: Callable[[Path], object]
    mutators: tuple[Mutator, ...]
    beside: Mapping[str, bytes] = field(default_factory=dict)


def samples(folder: Path) -> dict[str, list[Sample]]:
    """Kind of file -> samples of it. What is trained for them is trained in the folder."""
    return run_samples(folder) | table_samples() | event_samples() | image_samples() | cache_samples(folder)


# --- run folders --------------------------------------------------------------------------------------------------------------


def run_samples(folder: Path) -> dict[str, list[Sample]]:
    """Every file of a run that forecasts and of one that classifies. The first finds its data in data.csv in its folder."""
    (folder / "forecast").mkdir(parents=True)
    (folder / "data.csv").write_bytes(table(rows=80))
    base = RECIPES["series-ispikformer"]
    forecast = replace(
        base, name="forecast", epochs=1, batch_size=16, weights="best", model=replace(base.model, steps=2),
        forecast=replace(base.forecast, width=8), series=replace(base.series, window=4, horizon=2),
    )  # fmt: skip
    base = RECIPES["digits-events"]
    classes = replace(
        base, name="classes", epochs=1, max_steps=1, model=replace(base.model, steps=2, width=0.05), weights="best",
        optim=replace(base.optim, name="sgd", warmup_epochs=0),
    )  # fmt: skip
    list(run(forecast, folder / "forecast", data_root=folder / "data.csv"))
    list(run(classes, folder / "classes"))
    found = {}
    for file, mutators in {
        "recipe.json": (in_json(CODE), names_in_json(CODE)),
        "environment.json": (in_json(CODE),),
        "result.json": (in_json(()),),
        "log.jsonl": (in_lines(in_json(())),),
        "last.pt": (in_zip(pickled), in_zip(_recipe_within), pickled),
        "best.safetensors": (in_safetensors(in_json(["F64", "F8", [2**62, 2], [-1, 5], [0, 2**63]])),),
    }.items():
        found[f"run/{file}"] = [
            Sample(
                file,
                _rooted((folder / name / file).read_bytes(), folder),
                partial(READ_RUN[file], name),
                mutators,
                {f.name: _rooted(f.read_bytes(), folder) for f in (folder / name).iterdir()}
                | {"data.csv": table(rows=80), CANARY: CANARY_CODE},
            )
            for name in ("forecast", "classes")
        ]
    return found


CANARY_CODE = b"""import sys
sys.audit("canary")
def n(*args, **kwargs):
    sys.audit("canary")
"""
CODE = (f"@here@/{CANARY}:n", f"{CANARY}:n", f"@here@/../x/{CANARY}:n", f"{os.__file__}:getpid")
HERE = "@here@"
"""Stands for the folder that the samples lie in when they are read, where a mutant names it."""


def _rooted(data: bytes, folder: Path) -> bytes:
    return data.replace(str(folder.resolve()).encode(), HERE.encode()) if data.startswith((b"{", b"[")) else data


def _recipe_within(data: bytes, random: Any) -> bytes:
    """The recipe within a checkpoint's pickle, of the same length."""
    return (
        data.replace(b'"lif"', b'"x:y"').replace(b"collections", b"posix\nxxxxx")
        if random.random() < 0.5
        else pickled(data, random)
    )


def _load(name: str, path: Path) -> None:
    staa.load(path.parent)
    staa.load(path.parent, weights="last")


def _evaluate(name: str, path: Path) -> None:
    if name == "forecast":
        evaluate_run(path.parent, split="train")
    else:
        staa.load(path.parent)


def _result(name: str, path: Path) -> None:
    list(run(read_recipe(path.parent), path.parent, data_root=path.parent / "data.csv", resume=path.parent))


READ_RUN: dict[str, Callable[[str, Path], None]] = {
    "recipe.json": _load,
    "environment.json": _evaluate,
    "result.json": _result,
    "log.jsonl": lambda name, path: log_once(path.parent, {"event": "epoch", "step": 10**9}),
    "last.pt": lambda name, path: staa.load(path.parent, weights="last"),
    "best.safetensors": lambda name, path: staa.load(path.parent, weights="best"),
}


# --- tables and graphs --------------------------------------------------------------------------------------------------------


def values(rows: int) -> np.ndarray:
    return np.round(10 + np.sin(np.arange(rows)[:, None] / 4 + np.arange(len(NAMES))), 3)


def table(rows: int = 24) -> bytes:
    times = np.datetime64("2024-01-01T00", "h") + np.arange(rows)
    lines = [
        ",".join(["time", *NAMES]),
        *(",".join([str(t), *map(str, row)]) for t, row in zip(times, values(rows), strict=True)),
    ]
    return "\n".join(lines).encode() + b"\n"


def archive(**arrays: Any) -> bytes:
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    return file.getvalue()


def table_samples() -> dict[str, list[Sample]]:
    read: Callable[[Path], TimeSeries] = read_series
    edges = "from,to,weight\n" + "".join(f"{a},{b},0.5\n" for a, b in pairwise(NAMES))
    graph = np.eye(4)
    times = np.datetime64("2024-01-01T00", "ns") + np.arange(24) * np.timedelta64(1, "h")
    known = archive(values=values(24), time=times, names=np.array(NAMES), graph=graph)
    as_graph = partial(read_graph, names=NAMES)
    found = {
        "csv": [Sample("a.csv", table(), read, (in_table, numbers_in_text))],
        "csv.gz": [Sample("a.csv.gz", gzip.compress(table(), mtime=0), read, (in_gzip(in_table),))],
        "series.npz": [Sample("a.npz", known, read, (in_zip(in_npy),))],
        "graph.npy": [Sample("g.npy", npy(graph), as_graph, (in_npy,))],
        "graph.npz": [Sample("g.npz", archive(g=graph), as_graph, (in_zip(in_npy),))],
        "graph.csv": [
            Sample(
                "g.csv", "\n".join(",".join(map(str, row)) for row in graph).encode(), as_graph, (in_table, numbers_in_text)
            ),
            Sample("g.csv", edges.encode(), as_graph, (in_table, numbers_in_text)),
        ],
    }
    return found | {"h5": [Sample("a.h5", data, read_hdf_here, (in_hdf, in_hdf)) for data in hdf_files()]}


def read_hdf_here(path: Path) -> None:
    """`read_series`, but HDF5 works in this process, where it is watched, and not in a child of the reader's."""

    def here(data: bytes, what: str, limit: int) -> dict[str, Any]:
        try:
            found, about = hdf.table_in(data, limit)
        except (ValueError, MemoryError) as error:
            raise ValueError(f"{what} can't be read as one pandas table: {error}") from error
        return found | {"about": about}

    with mock.patch.object(frame, "read_hdf", here):
        files_module.read_series(path)


def hdf_files() -> list[bytes]:
    """As pandas writes a frame in its fixed format, and METR-LA has it: axis0, axis1, block0_items, block0_values."""
    hour = 3_600_000_000_000
    return [hdf_file(1_700_000_000_000_000_000 + hour * np.arange(24), "datetime64"), hdf_file(np.arange(24), "integer")]


def hdf_file(rows: np.ndarray, kind: str) -> bytes:
    import h5py

    def tell(node: Any, **attributes: Any) -> None:
        for name, value in attributes.items():
            if isinstance(value, str):  # of fixed length, as PyTables has it
                value = np.array(value.encode(), h5py.string_dtype("utf-8", max(len(value), 1)))
            node.attrs[name] = value

    file = io.BytesIO()
    with h5py.File(file, "w") as h5:
        tell(h5, CLASS="GROUP", VERSION="1.0", TITLE="", PYTABLES_FORMAT_VERSION="2.1")
        group = h5.create_group("df")
        tell(group, CLASS="GROUP", VERSION="1.0", TITLE="", pandas_type="frame", pandas_version="0.15.2", encoding="UTF-8")
        tell(group, errors="strict", ndim=np.int64(2), nblocks=np.int64(1), axis0_variety="regular", axis1_variety="regular")
        tell(group, block0_items_variety="regular")
        names = np.array(NAMES, "S5")
        arrays = {"axis0": names, "axis1": rows, "block0_items": names, "block0_values": values(24)}
        for name, array in arrays.items():
            data = group.create_dataset(name, data=array)
            tell(data, CLASS="ARRAY", VERSION="2.4", TITLE="", FLAVOR="numpy", transposed=np.uint8(1))
            if name != "block0_values":
                tell(data, kind=kind if name == "axis1" else "string", name="N.")
    return file.getvalue()


# --- recordings ---------------------------------------------------------------------------------------------------------------


def some_events(count: int = 60) -> list[tuple[int, int, int, int]]:
    """(t, x, y, p) on 32 × 32."""
    random = np.random.default_rng(0)
    t = np.sort(random.integers(0, 30_000, count))
    x, y, p = *random.integers(0, 32, (2, count)), random.integers(0, 2, count)
    return [tuple(map(int, event)) for event in zip(t, x, y, p, strict=True)]  # type: ignore[misc]


EVENTS = some_events()


def bin_file() -> bytes:
    return b"".join(bytes([x, y, p << 7 | t >> 16, t >> 8 & 255, t & 255]) for t, x, y, p in EVENTS)


def dat_file() -> bytes:
    header = b"% Data file containing CD events\n% Version 2\n% Width 32\n% Height 32\n\x0c\x08"
    return header + b"".join(struct.pack("<II", t, x | y << 14 | p << 28) for t, x, y, p in EVENTS)


def aedat2_file() -> bytes:
    header = b"#!AER-DAT2.0\r\n# Timestamps tick is 1 us\r\n# AEChip: chip.retina.DVS128\r\n# End Of ASCII Header\r\n"
    return header + b"".join(struct.pack(">II", 127 - x << 8 | 127 - y << 1 | 1 - p, t) for t, x, y, p in EVENTS)


def aedat3_file() -> bytes:
    out = b"#!AER-DAT3.1\r\n#Format: RAW\r\n#Source 1: DVS128\r\n#Start-Time: 2017-02-17 10:00:00 (TZ+0100)\r\n#!END-HEADER\r\n"
    for some in (EVENTS[:20], EVENTS[20:]):
        out += struct.pack("<hhiiiiii", 1, 1, 8, 4, 0, len(some), len(some), len(some))
        out += b"".join(struct.pack("<Ii", 1 | p << 1 | y << 2 | x << 17, t) for t, x, y, p in some)
    return out


def aedat4_file(compression: str) -> bytes:
    """Its flatbuffers laid out by hand, its packets as they are or in a frame of LZ4 or ZSTD that stores them."""
    text = (
        f'<dv version="2.0"><node name="outInfo" path="/mainloop/Recorder/outInfo/">'
        f'<node name="0" path="/mainloop/Recorder/outInfo/0/">'
        f'<attr key="compression" type="string">{compression}</attr><attr key="typeIdentifier" type="string">EVTS</attr>'
        f'<node name="info" path="/mainloop/Recorder/outInfo/0/info/"><attr key="sizeX" type="int">32</attr>'
        f'<attr key="sizeY" type="int">32</attr></node></node></node></dv>'
    ).encode()
    which = {"NONE": 0, "LZ4": 1, "ZSTD": 3}[compression]
    head = struct.pack("<I4sxxxxxxHHHHHiIIqI", 24, b"IOHE", 10, 20, 4, 12, 8, 10, which, 12, -1, len(text)) + text + b"\0"
    out = b"#!AER-DAT4.0\r\n" + struct.pack("<I", len(head)) + head
    for some in (EVENTS[:20], EVENTS[20:]):
        body = struct.pack("<I4sxxHHHiII", 16, b"EVTS", 6, 8, 4, 6, 4, len(some))
        body += b"".join(struct.pack("<qhhBxxx", *event) for event in some)
        body = struct.pack("<I", len(body)) + body
        if compression == "LZ4":
            body = bytes.fromhex("04224d18604082") + struct.pack("<I", len(body) | 1 << 31) + body + bytes(4)
        elif compression == "ZSTD":
            body = (
                bytes.fromhex("28b52ffda0") + struct.pack("<I", len(body)) + (len(body) << 3 | 1).to_bytes(3, "little") + body
            )
        out += struct.pack("<ii", 0, len(body)) + body
    return out


def evt2_file() -> bytes:
    words = [word for t, x, y, p in EVENTS for word in (8 << 28 | t >> 6, p << 28 | (t & 63) << 22 | x << 11 | y)]
    return b"% evt 2.0\n% geometry 32x32\n% end\n" + np.array(words, "<u4").tobytes()


def evt3_file() -> bytes:
    words = [
        w for t, x, y, p in EVENTS for w in (0x8000 | t >> 12, 0x6000 | t & 0xFFF, y, 0x2000 | p << 11 | x, 0x3000 | x, 0x5001)
    ]
    return b"% evt 3.0\n% format EVT3;height=32;width=32\n% end\n" + np.array(words, "<u2").tobytes()


def event_samples() -> dict[str, list[Sample]]:
    columns = {name: np.array(column) for name, column in zip("txyp", zip(*EVENTS, strict=True), strict=True)}
    structured = np.array(EVENTS, "<i8,<i4,<i4,<i4")
    structured.dtype.names = tuple("txyp")
    plain = np.array([(x, y, p, t / 1000) for t, x, y, p in EVENTS])
    both = archive(**columns, sensor=np.array([32, 32]))
    header = (numbers_in_text,)
    return {
        "bin": [Sample("r.bin", bin_file(), read_events, ())],
        "dat": [Sample("r.dat", dat_file(), read_events, header)],
        "aedat2": [Sample("r.aedat", aedat2_file(), read_events, header)],
        "aedat3": [Sample("r.aedat", aedat3_file(), read_events, header)],
        "aedat4": [Sample("r.aedat4", aedat4_file(c), read_events, header) for c in ("NONE", "LZ4", "ZSTD")],
        "raw": [Sample("r.raw", data, read_events, header) for data in (evt2_file(), evt3_file())],
        "events.npz": [Sample("r.npz", both, read_events, (in_zip(in_npy),))],
        "events.npy": [Sample("r.npy", npy(array), read_events, (in_npy,)) for array in (structured, plain)],
    }


def cache_samples(folder: Path) -> dict[str, list[Sample]]:
    """Frames that were binned once: what is read is what was binned, whatever became of the file."""
    (folder / "frames").mkdir()
    recording = folder / "frames" / "r.bin"
    recording.write_bytes(bin_file())
    time = 1_700_000_000

    def reader(at: Path) -> EventFiles:
        os.utime(at / "r.bin", (time, time))
        return EventFiles([str(at / "r.bin")], root=at, cache=at / "cache", steps=2, size=16, sensor=(32, 32))

    truth = reader(recording.parent).read(torch.tensor([0]))
    (kept,) = (p for p in (recording.parent / "cache").iterdir() if p.is_file())

    def read(path: Path) -> None:
        if not torch.equal(reader(path.parent.parent).read(torch.tensor([0])), truth):
            raise WrongError("other frames than the recording's")

    return {"frames cache": [Sample(f"cache/{kept.name}", kept.read_bytes(), read, (in_npy,), {"r.bin": bin_file()})]}


# --- images -------------------------------------------------------------------------------------------------------------------


def image_samples() -> dict[str, list[Sample]]:
    """A picture of every ending that is read; mutants are also other formats under its name, such as one that is a program."""
    random = np.random.default_rng(0)
    colours = Image.fromarray(random.integers(0, 255, (24, 20, 3), dtype=np.uint8))
    formats = {".jpg": "JPEG", ".jpeg": "JPEG", ".tif": "TIFF", ".ppm": "PPM", ".pgm": "PPM"}
    files: dict[str, list[bytes]] = {}
    for ending in ENDINGS:
        pictures = [colours.convert("L")] if ending == ".pgm" else [colours]
        pictures += [colours.convert("P"), colours.convert("RGBA")] if ending in (".png", ".tiff", ".webp") else []
        files[ending] = [encoded(picture, formats.get(ending, ending[1:].upper())) for picture in pictures]
    strange = [
        encoded(colours.convert("L"), name) for name in ("GIF", "TGA", "PCX", "SGI", "ICO", "EPS", "PDF", "SPIDER", "DDS")
    ]
    others = replaced_by(EPS, *strange, *(f[0] for f in files.values()))
    text: tuple[Mutator, ...] = (numbers_in_text, others)
    known = {".png": (in_png, in_png, others), ".ppm": text, ".pgm": text}
    return {
        f"image{ending}": [
            Sample(f"i{ending}", data, lambda path: decode(str(path)), known.get(ending, (others,))) for data in contents
        ]
        for ending, contents in files.items()
    }


def encoded(picture: Image.Image, form: str) -> bytes:
    file = io.BytesIO()
    picture.save(file, form)
    return file.getvalue()
