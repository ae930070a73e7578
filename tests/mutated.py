"""Files of each kind that the package reads, and changes to them: none may crash a reader, or fail without naming the file.

    python tests/mutated.py FIRST LAST KIND [KIND …]

reads the mutations of these seeds and prints a line {"kind": …, outcome: count, …} for each kind. A reader that crashes takes
this process with it, so whoever asks runs it in a process of its own, as `outcomes` does.
"""

import collections
import gzip
import json
import os
import random
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

BATCH_SECONDS = 600
MEMORY = 2**31
"""Bytes that a batch may take, in addition to what it has when it begins."""


class Kind(NamedTuple):
    ending: str
    make: Callable[[Path], object]
    """Writes a file that is right."""
    read: Callable[[Path], object]


class Payload:
    """Unpickled, it makes a folder."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


def mutate(data: bytes, seed: int) -> bytes:
    """A file with a few bits, bytes or numbers changed, a piece overwritten by another or by noise, or its end cut off."""
    r, changed = random.Random(seed), bytearray(data)
    for _ in range(r.choice([1, 1, 1, 2, 4, 16])):
        at, length = r.randrange(len(changed)), r.choice([1, 1, 2, 4, 8, 8, r.randrange(1, 64)])
        match r.choice(["bit", "bit", "byte", "number", "number", "copy", "noise", "cut", "insert"]):
            case "bit":
                changed[at] ^= 1 << r.randrange(8)
            case "byte":
                changed[at] = r.choice([0, 1, 0x7F, 0x80, 0xFF, r.randrange(256)])
            case "number":  # such as a length or an offset
                value = r.choice([0, 2**15, 2**16 - 1, 2**31 - 1, 2**32 - 1, 2**40, 2**63 - 1, 2**64 - 1, len(data)])
                width = r.choice([2, 4, 8])
                changed[at : at + width] = (value % 256**width).to_bytes(width, r.choice(["little", "big"]))
            case "copy":
                other = r.randrange(len(changed))
                changed[at : at + length] = changed[other : other + length]
            case "noise":
                changed[at : at + length] = r.randbytes(length)
            case "insert":
                changed[at:at] = r.randbytes(length)
            case "cut" if len(changed) > 1 and r.random() < 0.3:
                del changed[max(1, at) :]
    return bytes(changed)


def outcomes(first: int, last: int, kinds: Iterable[str]) -> dict[str, dict[str, int]]:
    """What came of the mutations of these seeds, by kind, in a process of its own. Raises AssertionError if it did not live."""
    child = subprocess.run(
        [sys.executable, __file__, str(first), str(last), *kinds], capture_output=True, text=True, timeout=BATCH_SECONDS
    )
    assert child.returncode == 0, f"{child.stdout}\nthen a reader broke down ({child.returncode}): {child.stderr[-2000:]}"
    return {counts.pop("kind"): counts for counts in map(json.loads, child.stdout.splitlines())}


def outcome(read: Callable[[Path], object], path: Path) -> str:
    """ "accepted", "clean error" (ValueError or OSError that names the file), or what else was raised."""
    try:
        read(path)
    except (ValueError, OSError) as error:
        return "clean error" if path.name in str(error) else f"nameless: {type(error).__name__}: {error}"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "accepted"


def write_hdf(path: Path, values: np.ndarray, *, times: np.ndarray, names: list, key: str = "df", packed: bool = False) -> None:
    """A table as pandas writes it in its fixed format, the attributes that are pickles among them."""
    import h5py

    labels = np.array([n.encode() for n in names]) if isinstance(names[0], str) else np.array(names)
    named = "string" if isinstance(names[0], str) else "integer"
    datasets = {
        "axis0": (labels, {"kind": named}),
        "axis1": (times.astype("datetime64[ns]").astype(np.int64), {"kind": "datetime64", "freq": "c__main__\nFreq\n."}),
        "block0_items": (labels, {"kind": named}),
        "block0_values": (values, {}),
    }
    packing = {"compression": "gzip", "shuffle": True, "chunks": True} if packed else {}
    with h5py.File(path, "w", libver="earliest") as file:
        group = file.create_group(key)
        for name, text in {
            "CLASS": "GROUP", "pandas_type": "frame", "encoding": "UTF-8", "errors": "strict", "axis0_variety": "regular",
        }.items():  # fmt: skip
            group.attrs[name] = np.bytes_(text)
        group.attrs["nblocks"], group.attrs["ndim"] = np.int64(1), np.int64(2)
        for name, (array, texts) in datasets.items():
            dataset = group.create_dataset(name, data=array, **packing)
            for attribute, text in {"CLASS": "ARRAY", "FLAVOR": "numpy", "name": "N.", **texts}.items():
                dataset.attrs[attribute] = np.bytes_(text)
            dataset.attrs["transposed"] = np.uint8(1)


def _hdf(path: Path, packed: bool) -> None:
    write_hdf(path, VALUES, times=TIMES, names=["773869", "767541", "717447"], packed=packed)


def _read_hdf_here(path: Path) -> object:
    """As `read_series`, with HDF5 in this process and not in one for each file."""
    from staa.data import hdf, tables

    def here(data: bytes, what: str, limit: int) -> dict:
        try:
            found, about = hdf.table_in(data, limit)
        except ValueError as error:
            raise ValueError(f"{what} can't be read as one pandas table: {error}") from error
        return {**found, "about": about}

    tables.read_hdf = here
    return tables.read_series(path)


def _series(path: Path) -> object:
    from staa.data import read_series

    return read_series(path)


def _graph(path: Path) -> object:
    from staa.data import read_graph

    return read_graph(path, ("a", "b", "c"))


def _decode(path: Path) -> object:
    from staa.data.folder import decode

    return decode(str(path))


VALUES = np.random.default_rng(0).uniform(0, 70, (40, 3)).round(2)
TIMES = np.datetime64("2012-03-01", "ns") + np.arange(40) * np.timedelta64(5, "m")
TABLE = "time,a,b,c\n" + "".join(f"{str(t)[:19]},{','.join(map(str, row))}\n" for t, row in zip(TIMES, VALUES, strict=True))
PIXELS = np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8)
KINDS = {
    "h5": Kind(".h5", lambda path: _hdf(path, False), _read_hdf_here),
    "h5 packed": Kind(".h5", lambda path: _hdf(path, True), _read_hdf_here),
    "series npz": Kind(
        ".npz", lambda p: np.savez(p, values=VALUES, time=TIMES, names=["a", "b", "c"], graph=np.eye(3)), _series
    ),
    "series npz packed": Kind(".npz", lambda p: np.savez_compressed(p, values=VALUES, time=TIMES), _series),
    "csv": Kind(".csv", lambda path: path.write_text(TABLE), _series),
    "csv.gz": Kind(".csv.gz", lambda path: path.write_bytes(gzip.compress(TABLE.encode())), _series),
    "graph npy": Kind(".npy", lambda path: np.save(path, np.eye(3)), _graph),
    "graph npz": Kind(".npz", lambda path: np.savez(path, adj=np.eye(3)), _graph),
    "graph csv": Kind(".csv", lambda path: path.write_text("from,to,weight\na,b,0.5\nb,c,2\nc,a,1\n"), _graph),
    **{
        ending: Kind(f".{ending}", lambda path: Image.fromarray(PIXELS).save(path), _decode)
        for ending in ("jpg", "png", "webp", "tif", "bmp", "ppm", "pgm")
    },
    "png palette": Kind(".png", lambda path: Image.fromarray(PIXELS).convert("P").save(path, transparency=3), _decode),
    "png 16 bits": Kind(".png", lambda path: Image.fromarray(PIXELS[..., 0].astype(np.uint16) * 257).save(path), _decode),
    "tif packed": Kind(".tif", lambda path: Image.fromarray(PIXELS).save(path, compression="tiff_lzw"), _decode),
}


def _main(first: int, last: int, kinds: list[str]) -> None:
    _bound_memory()
    for kind in kinds:
        ending, make, read = KINDS[kind]
        counts: collections.Counter[str] = collections.Counter()
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"file{ending}"
            make(path)
            data = path.read_bytes()
            assert outcome(read, path) == "accepted", f"the {kind} that was not changed: {outcome(read, path)}"
            for seed in range(first, last):
                path.write_bytes(mutate(data, seed))
                counts[outcome(read, path)] += 1
        print(json.dumps({"kind": kind, **counts}), flush=True)


def _bound_memory() -> None:
    try:
        import resource

        import staa  # noqa: F401  before it is bounded, what every reader brings along

        there = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (there + MEMORY, there + MEMORY))
    except (ImportError, OSError):
        pass


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    _main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
