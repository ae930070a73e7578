"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009), read from the official files and checked against their published md5."""

import codecs
import io
import pickle
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from staa.data.download import Archive, Tell, fetch, is_published, unpack
from staa.data.images.cifar_names import CIFAR10, CIFAR100
from staa.data.images.files import normalise
from staa.data.source import Samples, Source
from staa.data.splits import split_by_hash, split_digest
from staa.files import check_no_file, read_bytes

IMAGE = (3, 32, 32)
IMAGE_BYTES = 3 * 32 * 32


@dataclass(frozen=True)
class Cifar:
    """Where the files of one CIFAR are, what they hold, and how their pixels are normalised (per channel, of [0, 1])."""

    classes: int
    url: str
    archive_md5: str
    folder: str
    train: dict[str, str]
    """binary file -> md5"""
    test: dict[str, str]
    label_bytes: int
    """label bytes in a record; the last one is the class"""
    images_per_file: tuple[int, int]
    """in a file of train, of test"""
    python_folder: str
    """what torchvision unpacks"""
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    names: tuple[str, ...]
    """of its classes, in the order of their numbers"""


CIFAR = {
    "cifar10": Cifar(
        classes=10,
        url="https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
        archive_md5="c32a1d4ab5d03f1284b67883e8d87530",
        folder="cifar-10-batches-bin",
        train={
            "data_batch_1.bin": "5dd7e06a14cb22eb9f671a540d1b7c25",
            "data_batch_2.bin": "5ea93a67294ea407fff1d09f752e9692",
            "data_batch_3.bin": "942cd6a4bcdd0dd3c604fbe906cb4421",
            "data_batch_4.bin": "ae636b3ba5c66a11e91e8cb52e771fcb",
            "data_batch_5.bin": "53f37980c15c3d472c316c40844f3f0d",
        },
        test={"test_batch.bin": "803d5f7f4d78ea53de84dbe85f74fb6d"},
        label_bytes=1,
        images_per_file=(10_000, 10_000),
        python_folder="cifar-10-batches-py",
        mean=(0.4914, 0.4822, 0.4465),
        std=(0.2023, 0.1994, 0.2010),
        names=CIFAR10,
    ),
    "cifar100": Cifar(
        classes=100,
        url="https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz",
        archive_md5="03b5dce01913d631647c71ecec9e9cb8",
        folder="cifar-100-binary",
        train={"train.bin": "6172c7755cfe09b2fe270c85cebc1b15"},
        test={"test.bin": "4499cfba6c016c1be1438163640a0898"},
        label_bytes=2,
        images_per_file=(50_000, 10_000),
        python_folder="cifar-100-python",
        mean=(0.5071, 0.4867, 0.4408),
        std=(0.2675, 0.2565, 0.2761),
        names=CIFAR100,
    ),
}


def cifar(name: str, *, root: Path, validation: float) -> Source:
    """CIFAR-10 or CIFAR-100 as images that are normalised per channel; a network repeats them at each time step.

    Validation is chosen among the training images, stratified, by a fixed hash.

    Args:
        name: "cifar10" or "cifar100".
        root: Folder that holds cifar-10-batches-bin, cifar-100-binary, or the folder that torchvision unpacks.
        validation: Share of the training images held out, at least 0 and below 1.

    Shapes:
        Inputs are [N, 3, 32, 32]; 50,000 images train and validate, 10,000 test.

    Raises:
        FileNotFoundError: If the files are not there.
        ValueError: If a file is truncated, corrupt, or not the published one.

    Source:
        Krizhevsky, Learning multiple layers of features from tiny images, 2009.
    """
    spec = CIFAR[name]
    train_all, test = load_cifar(name, root)
    count = round(validation * len(train_all))
    held_out, train = split_by_hash(train_all.y, count, f"{name} validation")
    return Source(
        train=Samples(train_all.take(train), train_all.y[train]),
        validation=Samples(train_all.take(held_out), train_all.y[held_out]) if count else None,
        test=test,
        classes=spec.classes,
        channels=3,
        size=32,
        prepare=partial(normalise, mean=spec.mean, std=spec.std),
        names=spec.names,
        split=split_digest(train=train, validation=held_out, test=torch.arange(len(test))),
    )


def load_cifar(name: str, root: Path) -> tuple[Samples, Samples]:
    """(train, test) of CIFAR-10 or CIFAR-100, from the official binary files or the folder that torchvision unpacks.

    Args:
        name: "cifar10" or "cifar100".
        root: Folder that holds cifar-10-batches-bin or cifar-10-batches-py, cifar-100-binary or cifar-100-python.

    Shapes:
        Inputs are uint8 [N, 3, 32, 32]; N is 50,000 and 10,000.

    Raises:
        FileNotFoundError: If neither folder is there, or a file in it is missing.
        ValueError: If a file is truncated, corrupt, or not the published one; it is named.

    Source:
        Krizhevsky, Learning multiple layers of features from tiny images, 2009.
    """
    spec = CIFAR[name]
    if (root / spec.folder).is_dir():
        train = [_read(root / spec.folder / f, md5, spec, spec.images_per_file[0]) for f, md5 in spec.train.items()]
        test = [_read(root / spec.folder / f, md5, spec, spec.images_per_file[1]) for f, md5 in spec.test.items()]
        return _join(train), _join(test)
    if (root / spec.python_folder).is_dir():
        return _load_python(name, root, train=True), _load_python(name, root, train=False)
    check_no_file(root, f"{spec.folder} or {spec.python_folder}")
    raise FileNotFoundError(
        f"{name} is not under {root}: expected {root / spec.folder} or {root / spec.python_folder}; "
        f"download it into {root} with `staa data {name}`, or give another folder (`data_root`)"
    )


def download_cifar(name: str, root: Path, tell: Tell = lambda *_: None) -> Path:
    """Download the official binary files, check the archive's md5 and unpack it; returns the folder of the files.

    Files that are there and whole are left alone.

    Args:
        name: "cifar10" or "cifar100".
        root: Folder that the archive and the files go to; it is made if need be.
        tell: Called as tell(name, bytes there, bytes in all or None) while it downloads.

    Raises:
        ValueError: If no address answers, or if what is there or arrives is not the published archive.
    """
    spec = CIFAR[name]
    if (root / spec.folder).is_dir():
        load_cifar(name, root)  # raises if what is there is not whole
        return root / spec.folder
    page = "https://www.cs.toronto.edu/~kriz/cifar.html"
    unpack(fetch(Archive(spec.url.rpartition("/")[2], spec.archive_md5, (spec.url,), page), root, tell), root)
    return root / spec.folder


def _read(path: Path, md5: str, spec: Cifar, images: int) -> tuple[Tensor, Tensor]:
    """Records of label byte(s), then 3 × 32 × 32 bytes, channel first."""
    data = _published(path, md5, images * (spec.label_bytes + IMAGE_BYTES))
    records = np.frombuffer(data, np.uint8).reshape(images, -1)
    x = torch.from_numpy(records[:, spec.label_bytes :].reshape(-1, *IMAGE).copy())
    return x, torch.from_numpy(records[:, spec.label_bytes - 1].astype(np.int64))


def _published(path: Path, md5: str, expected: int | None = None) -> bytes:
    """A file's bytes, which must be the published one's. Raises FileNotFoundError, or ValueError naming the file."""
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing: delete its folder and download it again")
    data = read_bytes(path)
    if expected is not None and len(data) != expected:
        raise ValueError(
            f"{path} is truncated or no CIFAR file: expected {expected} bytes, found {len(data)}; download it again"
        )
    if not is_published(data, md5):
        raise ValueError(f"{path} is corrupt: its md5 is not the published {md5}; download it again")
    return data


def _join(parts: list[tuple[Tensor, Tensor]]) -> Samples:
    return Samples(torch.cat([x for x, _ in parts]), torch.cat([y for _, y in parts]))


def _load_python(name: str, root: Path, *, train: bool) -> Samples:
    """From the pickles that torchvision unpacks: a dictionary each, with the pixels, channel first, and the labels."""
    from torchvision.datasets import CIFAR10, CIFAR100

    kind, folder = {"cifar10": CIFAR10, "cifar100": CIFAR100}[name], root / CIFAR[name].python_folder
    parts = []
    for file, md5 in kind.train_list if train else kind.test_list:
        try:
            found = _Plain(io.BytesIO(_published(folder / file, md5)), encoding="latin1").load()
            x = torch.from_numpy(found["data"].reshape(-1, *IMAGE))
            parts.append((x, torch.tensor(found["labels" if name == "cifar10" else "fine_labels"])))
        except (KeyError, TypeError, AttributeError, pickle.UnpicklingError) as error:
            raise ValueError(f"{folder / file} is no CIFAR file: {error}") from error
    return _join(parts)


class _Plain(pickle.Unpickler):
    """Numbers, text, lists and arrays of them; a pickle that names anything else is refused."""

    def find_class(self, module: str, name: str) -> Any:
        known = {"_reconstruct": np.empty(0).__reduce__()[0], "ndarray": np.ndarray, "dtype": np.dtype, "encode": codecs.encode}
        if name not in known or module not in ("numpy", "numpy.core.multiarray", "numpy._core.multiarray", "_codecs"):
            raise pickle.UnpicklingError(f"it names {module}.{name}, which is no array")
        return known[name]
