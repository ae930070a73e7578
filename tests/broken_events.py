"""Broken recordings, made from whole ones by chance, read in a process that may die of them.

    python tests/broken_events.py KIND COUNT SEED

reads COUNT mutations of each of some KINDs, separated by commas, and prints as JSON how many were accepted and refused, which
went wrong, and by how many bytes the peak of memory rose. Allocating more than `ROOM` fails, used or not. A kind is what makes
a whole file, and what reads a path; `KINDS` has them by name.
"""

import json
import os
import random
import resource
import shutil
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from test_formats import TEXTS, davis_file, dsec, evt21_file, hdf5_bytes, many, metavision
from test_recordings import EVENTS, FILES, LZ4, ZSTD, aedat4_file, bin_file

from staa.data.events.cache import EventFiles

LIMIT = "64M"  # of STAA_MAX_BYTES
ROOM = 256 << 20  # bytes of address space beyond what the process has when it begins
NUMBERS = [0, 1, 2, 127, 128, 240, 255, 32767, 32768, 65535, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**62, 2**63 - 1, 2**64 - 1]


class Kind(NamedTuple):
    make: Callable[[], bytes]
    read: Callable[[Path], object]  # raises nothing but ValueError and OSError, whose message names the path
    ending: str


def bin_frames(path: Path, sensor: tuple[int, int] | None) -> np.ndarray:
    """The frames of a recording, binned anew."""
    cache = path.parent / "cache"
    shutil.rmtree(cache, ignore_errors=True)
    return EventFiles([str(path)], root=path.parent, cache=cache, steps=4, by="time", sensor=sensor, fit="keep").frames(
        str(path)
    )


def kept_frames() -> bytes:
    """The file that keeps the frames of EVENTS."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "r.bin")
        path.write_bytes(bin_file(EVENTS))
        bin_frames(path, (128, 128))
        (kept,) = (path.parent / "cache").iterdir()
        return kept.read_bytes()


def read_kept(path: Path) -> None:
    """Frames whose file in the cache is the broken one: always those of the recording."""
    recording = path.with_name("recording.bin")
    recording.write_bytes(bin_file(EVENTS))
    right = bin_frames(recording, (128, 128))
    (kept,) = (path.parent / "cache").iterdir()
    kept.write_bytes(path.read_bytes())
    files = EventFiles(
        [str(recording)], root=path.parent, cache=path.parent / "cache", steps=4, by="time", sensor=(128, 128), fit="keep"
    )
    assert np.array_equal(files.read(torch.tensor([0]))[0].numpy(), right)


def recording(data: bytes, ending: str, sensor: tuple[int, int] | None = None) -> Kind:
    return Kind(lambda: data, partial(bin_frames, sensor=sensor), ending)


SENSOR = (128, 128)
SCENE = [(t - 4_999_000_000, x, y, p) for t, x, y, p in many(side=128)]
KINDS = {
    "bin": recording(FILES[".bin"], ".bin", SENSOR),
    "dat": recording(FILES[".dat"], ".dat"),
    "aedat2": recording(FILES["2.aedat"], ".aedat"),
    "aedat3": recording(FILES["3.aedat"], ".aedat"),
    "aedat4": recording(aedat4_file(EVENTS), ".aedat4"),
    "aedat4-lz4": recording(aedat4_file(EVENTS, compression=1, contents=LZ4), ".aedat4"),
    "aedat4-zstd": recording(aedat4_file(EVENTS, compression=3, contents=ZSTD), ".aedat4"),
    "evt2": recording(FILES["2.raw"], ".raw"),
    "evt3": recording(FILES["3.raw"], ".raw"),
    "npz": recording(FILES[".npz"], ".npz"),
    "npz-packed": recording(FILES["c.npz"], ".npz", SENSOR),
    "npy": recording(FILES[".npy"], ".npy", SENSOR),
    "evt2.1": recording(evt21_file(SCENE), ".raw"),
    "davis": recording(davis_file(SCENE), ".aedat"),
    "txt": recording(TEXTS["E2VID"][0].encode(), ".txt"),
    "csv": recording(TEXTS["names"][0].encode(), ".csv", SENSOR),
    "frames": Kind(kept_frames, read_kept, ".npy"),
}


APART = {
    "dsec": recording(hdf5_bytes(dsec(SCENE, 0)), ".h5", SENSOR),
    "ecf": recording(hdf5_bytes(metavision(SCENE, 0)), ".hdf5"),
}
"""Kinds that are read in a process of their own, which takes a third of a second"""


def mutate(data: bytes, chance: random.Random) -> bytes:
    """One to three changes: bits, bytes, numbers of up to 8 bytes, digits; pieces cut out, doubled, put in; the end cut off."""
    out = bytearray(data)
    for _ in range(chance.randint(1, 3)):
        at = chance.randrange(len(out) + 1)
        piece = slice(at, at + chance.choice([1, 2, 4, 8, 16, 100]))
        match chance.randrange(8):
            case 0 | 1 if at < len(out):
                out[at] ^= 1 << chance.randrange(8)
            case 2 if at < len(out):
                out[at] = chance.choice([0, 1, 127, 128, 255, chance.randrange(256)])
            case 3:
                width, order = chance.choice([1, 2, 4, 8]), chance.choice(["little", "big"])
                number = (chance.choice(NUMBERS) % (1 << 8 * width)).to_bytes(width, order)
                out[at : at + width] = number
            case 4:
                digits = [i for i, byte in enumerate(out) if chr(byte).isdigit()]
                if digits:
                    i = chance.choice(digits)
                    out[i : i + 1] = chance.choice([b"0", b"9", b"32768", b"30000", b"99999999999", b"-1", b""])
            case 5:
                out[at:at] = chance.choice([bytes(out[piece]), chance.randbytes(chance.randint(1, 20))])
            case 6:
                del out[piece]
            case 7:
                del out[chance.randrange(len(out) + 1) :]
        if not out:
            break
    return bytes(out)


def try_all(name: str, count: int, seed: int, folder: Path) -> dict[str, object]:
    kind = (KINDS | APART)[name]
    whole, path = kind.make(), folder / f"broken{kind.ending}"
    path.write_bytes(whole)
    kind.read(path)  # a whole one is accepted, or nothing is proved
    found, wrong = {"accepted": 0, "refused": 0}, []
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if os.path.exists("/proc/self/statm"):
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + ROOM, resource.getrlimit(resource.RLIMIT_AS)[1]))
    for i in range(count):
        data = mutate(whole, random.Random(f"{name} {seed} {i}"))
        path.write_bytes(data)
        try:
            kind.read(path)
        except (ValueError, OSError) as error:
            if str(path) in str(error) and len(str(error)) < 2000:
                found["refused"] += 1
                continue
            wrong.append([i, str(error)])
        except Exception:
            wrong.append([i, traceback.format_exc()])
        else:
            found["accepted"] += 1
    grown = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    return {"kind": name, **found, "wrong": wrong, "grown": grown}


if __name__ == "__main__":
    os.environ["STAA_MAX_BYTES"] = LIMIT
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        for name in sys.argv[1].split(","):
            print(json.dumps(try_all(name, int(sys.argv[2]), int(sys.argv[3]), Path(scratch))), flush=True)
