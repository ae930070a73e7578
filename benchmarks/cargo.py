"""What travels to a machine that is lent, and what comes home: data in parts without loss, run folders as archives.

A part is a zip of blocks of CIFAR records (label bytes, then 3 × 32 × 32 bytes), each compressed by itself. A pixel is guessed
from its neighbours by the median predictor of LOCO-I (Weinberger et al. 2000), red and blue as differences from green; what the
guesses miss goes through LZMA. All of CIFAR-100 takes 95.1 MiB so; in lossless WebP mosaics by Pillow it takes 95.8.
"""

import hashlib
import io
import json
import lzma
import os
import tarfile
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save

from staa.data import Samples, Source
from staa.data.images.cifar import CIFAR
from staa.data.images.files import normalise
from staa.data.splits import split_by_hash, split_digest
from staa.files import read_bytes, write
from staa.training.checkpoint import load_checkpoint
from staa.training.weights import measured_weights

SET = CIFAR["cifar100"]
RECORD = SET.label_bytes + 3 * 32 * 32
FILTERS = [{"id": lzma.FILTER_LZMA2, "preset": 6, "lc": 4, "lp": 0, "pb": 0}]
MANIFEST, WHOLE, PARTS = "manifest.json", SET.folder, "cifar-100-parts"
RECORDS = ("recipe.json", "environment.json", "log.jsonl", "result.json")
Bytes = NDArray[np.uint8]


def encode(records: Bytes) -> bytes:
    """Records [N, 2 + 3072] compressed."""
    planes = records[:, SET.label_bytes :].reshape(-1, 3, 32, 32).astype(np.int16)
    green = planes[:, 1]
    signals = np.stack([green, planes[:, 0] - green, planes[:, 2] - green])  # [3, N, 32, 32]
    left, up, corner = (np.zeros_like(signals) for _ in range(3))
    left[..., 1:], up[..., 1:, :], corner[..., 1:, 1:] = signals[..., :-1], signals[..., :-1, :], signals[..., :-1, :-1]
    missed = (signals - _median(left, up, corner)).astype(np.uint8)
    labels = np.ascontiguousarray(records[:, : SET.label_bytes].T)
    return lzma.compress(labels.tobytes() + missed.tobytes(), lzma.FORMAT_RAW, filters=FILTERS)


def decode(data: bytes) -> Bytes:
    """The records again, bit for bit."""
    raw = np.frombuffer(lzma.decompress(data, lzma.FORMAT_RAW, filters=FILTERS), np.uint8).reshape(RECORD, -1)
    count = raw.shape[1]
    missed = raw[SET.label_bytes :].reshape(3, count, 32, 32).transpose(2, 3, 0, 1).astype(np.int16)  # [32, 32, 3, N]
    signals, pixels = np.zeros((33, 33, 3, count), np.int16), np.empty((32, 32, 3, count), np.int16)  # a border of zeros
    for i in range(32):
        for j in range(32):
            guess = _median(signals[i + 1, j], signals[i, j + 1], signals[i, j])
            green = (missed[i, j, 0] + guess[0]) & 255
            others = (missed[i, j, 1:] + guess[1:] + green) & 255
            signals[i + 1, j + 1, 0], signals[i + 1, j + 1, 1:] = green, others - green
            pixels[i, j, 1], pixels[i, j, ::2] = green, others
    images = pixels.transpose(3, 2, 0, 1).astype(np.uint8).reshape(count, -1)
    return np.concatenate([raw[: SET.label_bytes].reshape(SET.label_bytes, count).T, images], 1)


def _median(left: Any, up: Any, corner: Any) -> Any:
    """Of left, up, and left + up − corner."""
    return np.maximum(np.minimum(left, up), np.minimum(np.maximum(left, up), left + up - corner))


def pack(folder: Path, to: Path, *, size: int, block: int) -> list[Path]:
    """{test,train}.bin of a folder as part-1.zip, part-2.zip, … of at most `size` bytes, the test images first.

    block: records that are compressed together. Raises ValueError if one block alone is larger.
    """
    files = {name: read_bytes(folder / f"{name}.bin") for name in ("test", "train")}
    odd = [name for name, data in files.items() if not data or len(data) % RECORD]
    if odd:
        raise ValueError(f"{folder / odd[0]}.bin is no file of CIFAR-100, whose records have {RECORD} bytes")
    records = {name: np.frombuffer(data, np.uint8).reshape(-1, RECORD) for name, data in files.items()}
    manifest = {name: {"records": len(records[name]), "sha256": _sha256(data)} for name, data in files.items()}
    starts = [(name, first) for name in records for first in range(0, len(records[name]), block)]
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        blocks = list(pool.map(lambda start: encode(records[start[0]][start[1] : start[1] + block]), starts))
    needed = [len(data) + 256 for data in blocks]  # with the block's entry in the zip
    most = size - 4096  # less the manifest
    if max(needed) > most:
        raise ValueError(f"{block} records take {max(needed)} bytes, a part at most {most}: pack fewer records a block")
    parts: list[list[int]] = [[]]
    for k in range(len(blocks)):
        if sum(needed[i] for i in parts[-1]) + needed[k] > most:
            parts.append([])
        parts[-1].append(k)
    written = []
    for number, chosen in enumerate(parts, 1):
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as file:
            file.writestr(MANIFEST, json.dumps(manifest))
            for k in chosen:
                file.writestr("{}.{:05}".format(*starts[k]), blocks[k])
        written.append(_put(to / f"part-{number}.zip", buffer.getvalue()))
    return written


def unpack(parts: Path, data: Path) -> dict[str, Any]:
    """Every part that lies in a folder, into data/; once all blocks are there, the whole set as its reader expects it.

    Returns how many records of how many are there, by name, and "whole". Raises ValueError if what was put together is not
    what was packed.
    """
    for part in sorted(parts.rglob("part-*.zip")):
        with zipfile.ZipFile(part) as file:
            manifest = file.read(MANIFEST)
            blocks = {name: file.read(name) for name in file.namelist() if name != MANIFEST}
        new = [name for name in blocks if not (data / PARTS / name).is_file()]
        with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
            for name, records in zip(new, pool.map(decode, map(blocks.__getitem__, new)), strict=True):
                _put(data / PARTS / name, records.tobytes())
        _put(data / PARTS / MANIFEST, manifest)
    if not (data / PARTS / MANIFEST).is_file():
        raise FileNotFoundError(f"no part of the data is in {parts}, and none was unpacked to {data} before")
    manifest = json.loads(read_bytes(data / PARTS / MANIFEST))
    there = {name: b"".join(map(read_bytes, _blocks(data, name))) for name in manifest}
    found = {name: (len(there[name]) // RECORD, about["records"]) for name, about in manifest.items()}
    whole = all(here == of for here, of in found.values())
    if whole:
        odd = [name for name, about in manifest.items() if _sha256(there[name]) != about["sha256"]]
        if odd:
            raise ValueError(f"{odd[0]}.bin is not what was packed: its sha256 differs; delete {data / PARTS} and unpack again")
        for name in manifest if {n: c for n, (c, _) in found.items()} == {"test": 10_000, "train": 50_000} else ():
            _put(data / WHOLE / f"{name}.bin", there[name])
    return {**found, "whole": whole}


def some_of_cifar100(*, root: Path, validation: float) -> Source:
    """What has arrived of CIFAR-100. Without a test image the last tenth of the others stands in, and a note says so."""
    arrived = {name: list(map(read_bytes, _blocks(root, name))) for name in ("train", "test")}
    train, test = (_samples(b"".join(blocks)) for blocks in arrived.values())
    notes = [f"{len(train)} training and {len(test)} test images of CIFAR-100 have arrived"]
    if not len(train):
        raise FileNotFoundError(f"no training image has arrived in {root}")
    if not len(test):
        cut = len(train) - len(train) // 10
        train, test = (Samples(train.take(k), train.y[k]) for k in torch.arange(len(train)).split([cut, len(train) - cut]))
        notes.append(f"the test figures are of {len(test)} training images that were held out, not of the test set")
    held_out, kept = split_by_hash(train.y, round(validation * len(train)), "some of cifar100")
    take = lambda chosen: Samples(train.take(chosen), train.y[chosen])  # noqa: E731
    return Source(
        train=take(kept), validation=take(held_out) if len(held_out) else None, test=test, classes=100, channels=3, size=32,
        prepare=partial(normalise, mean=SET.mean, std=SET.std), notes=tuple(notes),
        split=split_digest(train=kept, validation=held_out, test=torch.arange(len(test))),
    )  # fmt: skip


def _samples(data: bytes) -> Samples:
    records = torch.from_numpy(np.frombuffer(data, np.uint8).reshape(-1, RECORD).copy())
    return Samples(records[:, SET.label_bytes :].reshape(-1, 3, 32, 32), records[:, SET.label_bytes - 1].long())


def _blocks(data: Path, name: str) -> list[Path]:
    return sorted((data / PARTS).glob(f"{name}.[0-9]*"))


def bring_home(folder: Path, out: Path, *, size: int, files: int, about: dict[str, Any]) -> list[Path]:
    """A run folder as NAME.tar, cut into NAME.tar.0, NAME.tar.1, … of at most `size` bytes if it is larger: its records, the
    weights that it is measured with as bfloat16, and `about` as loan.json. Without the weights if it takes more than `files`.
    """
    content = _records(folder, about)
    plain = _tar(content)
    try:
        weights = measured_weights(load_checkpoint(folder))
        half = {k: (w.to(torch.bfloat16) if w.is_floating_point() else w).contiguous() for k, w in weights.items()}
        whole = _tar({**content, f"{folder.name}/weights.safetensors": save(half)})
    except (OSError, ValueError) as error:  # there is no checkpoint, or a broken one
        print(f"{folder.name} comes home without weights: {error}")
        whole = plain
    if -(-len(whole) // size) > files:
        print(f"{folder.name} comes home without weights: with them it takes {-(-len(whole) // size)} files, {files} are left")
        whole = plain
    for old in out.glob(f"{folder.name}.tar*"):
        old.unlink()
    pieces = [whole[k : k + size] for k in range(0, len(whole), size)]
    names = [f"{folder.name}.tar"] if len(pieces) == 1 else [f"{folder.name}.tar.{k}" for k in range(len(pieces))]
    return [_put(out / name, piece) for name, piece in zip(names, pieces, strict=True)]


def bring_records(runs: dict[Path, dict[str, Any]], path: Path) -> Path:
    """The records of several run folders, without weights, each with what is said about it, as one archive."""
    return _put(path, _tar({name: data for folder, about in runs.items() for name, data in _records(folder, about).items()}))


def _records(folder: Path, about: dict[str, Any]) -> dict[str, bytes]:
    content = {f"{folder.name}/{name}": read_bytes(folder / name) for name in RECORDS if (folder / name).is_file()}
    return content | {f"{folder.name}/loan.json": (json.dumps(about, indent=2) + "\n").encode()}


def _tar(content: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, data in content.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


def archives(home: Path) -> Iterator[tuple[str, bytes]]:
    """(run's name, tar) of what came home, pieces joined. Raises ValueError naming a piece that is missing."""
    for first in sorted([*home.rglob("*.tar"), *home.rglob("*.tar.0")]):
        name = first.name.removesuffix(".0").removesuffix(".tar")
        pieces = sorted(first.parent.glob(f"{name}.tar.*"), key=lambda p: int(p.suffix[1:])) or [first]
        data = b"".join(map(read_bytes, pieces))
        try:
            with tarfile.open(fileobj=io.BytesIO(data)) as archive:
                archive.getmembers()
        except tarfile.TarError as error:
            raise ValueError(f"{first.parent / name}.tar is not whole, a piece is missing: {error}") from error
        yield name, data


def _put(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return write(path, data)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
