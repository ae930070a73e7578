"""Images in class folders: ImageNet, Tiny-ImageNet, one's own. Decoded as they are needed, by worker processes."""

import hashlib
import io
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from staa.data.augment import drawing_from
from staa.data.images import normalise
from staa.data.source import Samples, Source, split_by_hash

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's training images
ENDINGS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
TEST_SHARE = 0.1  # of the training images, where there is no test/
SPLITS = {"training", "val", "valid", "validation", "test", "testing"}
NAMED = 5  # files or classes in a message
Labelled = dict[str, list[str]]
"""class -> paths of its images"""


class ImageFiles:
    """Images on disk, cut to size × size when they are read.

    Read for training (with a generator) at a `scale`: a random part of the image of at least that share of its area, in a
    ratio of 3/4 to 4/3, resized. Otherwise: the shorter side resized to `resize`, the centre cut out. Bilinear, antialiased.
    """

    def __init__(self, paths: Sequence[str], *, size: int, resize: int, scale: float | None = None):
        self.paths = np.array([os.fsencode(p) for p in paths], dtype=np.bytes_)  # one buffer, which workers share
        from torchvision.transforms import v2

        cut = [v2.Resize(resize, antialias=True), v2.CenterCrop(size)]  # bilinear by default
        self.plain = self.random = v2.Compose([*cut, v2.PILToTensor()])
        if scale is not None:
            self.random = v2.Compose([v2.RandomResizedCrop(size, scale=(scale, 1.0), antialias=True), v2.PILToTensor()])

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, chosen: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """The chosen images [N, 3, size, size], uint8. Raises ValueError naming one that can't be decoded."""
        paths = [os.fsdecode(bytes(self.paths[i])) for i in chosen.tolist()]
        if generator is None:
            return torch.stack([self.plain(decode(path)) for path in paths])
        with drawing_from(generator):
            return torch.stack([self.random(decode(path)) for path in paths])


def decode(path: str) -> Image.Image:
    """An image file as RGB, its transparency dropped; a grey one of 16 bits is scaled to 8.

    Raises ValueError naming a file that is no whole image, one of 32 bits, whose range is not known, and a link that
    points nowhere; OSError for one that can't be read.
    """
    try:
        data = Path(path).read_bytes()
    except FileNotFoundError as error:
        raise ValueError(f"{path} can't be decoded as an image: {error.strerror}") from error
    try:
        with Image.open(io.BytesIO(data)) as image:
            if image.mode == "F" or (image.mode == "I" and image.format != "PNG"):  # Pillow has called PNG's 16 bits I
                raise ValueError("32 bits a pixel, black and white unknown: store it with 8 or 16")
            if image.mode.startswith("I"):  # convert() would clip these to white
                return Image.fromarray((np.asarray(image) / 256).clip(0, 255).astype(np.uint8)).convert("RGB")
            image = _middle(image)
            if (
                image.mode == "P" and "transparency" in image.info
            ):  # else Pillow warns; silencing it would not be safe in threads
                return image.convert("RGBA").convert("RGB")
            return image.convert("RGB")
    except MemoryError:
        raise
    except UnidentifiedImageError as error:  # its text names a buffer in memory
        raise ValueError(f"{path} can't be decoded as an image: no known format") from error
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, struct.error, IndexError …
        raise ValueError(f"{path} can't be decoded as an image: {error}") from error


def _middle(image: Image.Image) -> Image.Image:
    """A strip more than eight times as long as it is wide, cut to that: resized by its shorter side it would fill memory."""
    width, height = image.size
    long = 8 * min(width, height)
    if max(width, height) <= long:
        return image
    left, top = max(0, width - long) // 2, max(0, height - long) // 2
    return image.crop((left, top, left + min(width, long), top + min(height, long)))


def image_folder(
    *,
    root: Path,
    validation: float,
    size: int | None = None,
    resize: int | None = None,
    scale: float | None = None,
    corrupt: Literal["refuse", "skip", "unchecked"] = "refuse",
    val_is_test: bool = False,
) -> Source:
    """Images in class folders under root, as a Source of images [3, size, size], normalised with ImageNet's mean and std.

        root/train/CLASS/…  root/val/CLASS/…  root/test/CLASS/…        or        root/CLASS/…

    Images may lie at any depth under their class; names starting with a dot, links to folders there, and files that are
    no images by their ending, are left out. Without test/, a tenth of the training images are the test set, and without
    val/ a share `validation` of the others is held out, both stratified and chosen by a hash of their paths: neither
    depends on the other. val_is_test: val/ is the test set, as in published figures on ImageNet; test/ is not looked at.
    val/val_annotations.txt (Tiny-ImageNet) names the classes of val/images.

    size: 224 where None; resize: the shorter side before the centre is cut out, size where None; scale: of the random
    resized crop in training (`ImageFiles`), None for none. corrupt: every image is decoded once before anything else, and
    those that can't be are refused, or skipped and counted; "unchecked" skips this, and such a file stops the run
    when it is met.

    Raises FileNotFoundError where there is no folder, ValueError for one without images or classes, a class without
    images, one that validation or test lacks or has alone, folders that look like other parts, and corrupt images.
    """
    size = size or 224
    resize = resize or size
    if resize < size:
        raise ValueError(f"images are resized to {resize} and then cut to {size}: data.resize can't be below data.size")
    folders = _parts(root, val_is_test=val_is_test)
    parts = {name: _classes(folder) for name, folder in folders.items()}
    beside = [f for f in _folders(root) if folders["train"] != root and f not in ("train", "val", "test")]
    notes = [f"folders beside train/ that are left out: {_some(beside)}"] if beside else []
    if corrupt != "unchecked":
        broken = _undecodable(list(chain.from_iterable(chain.from_iterable(part.values() for part in parts.values()))))
        if broken and corrupt == "refuse":
            first = next(iter(broken.values()))
            raise ValueError(
                f"{len(broken)} of the images under {root} can't be decoded: {_some(list(broken))} ({first}); "
                f"mend or remove them, or leave them out with --data.corrupt skip"
            )
        if broken:
            notes.append(f"{len(broken)} images that can't be decoded are left out: {_some(list(broken))}")
            parts = {p: {c: [f for f in files if f not in broken] for c, files in part.items()} for p, part in parts.items()}
    for name, part in parts.items():
        empty = [c for c, files in part.items() if not files]
        if empty:
            raise ValueError(f"no images for class {_some(empty)} in {folders[name]}: remove the class's folder or fill it")
    train = parts.pop("train")
    names = list(train)
    if len(names) < 2:
        raise ValueError(f"expected at least two classes under {root}, got {names}: one folder for each class, images within")
    for name, part in parts.items():
        if part.keys() != train.keys():
            lacking, alone = [c for c in train if c not in part], [c for c in part if c not in train]
            text = f"has no images of class {_some(lacking)}" if lacking else f"has class {_some(alone)}, which train/ lacks"
            raise ValueError(f"{name}/ of {root} {text}; it must have the same {len(names)} classes as train/")
    for name, share in (("test", TEST_SHARE), ("val", validation)):
        if name not in parts and share:
            parts[name], train = _hold_out(train, share, name, root)
    transform = partial(ImageFiles, size=size, resize=resize)

    def samples(part: Labelled, make: Callable[[Sequence[str]], ImageFiles] = transform) -> Samples:
        labels = torch.repeat_interleave(torch.tensor([len(part[c]) for c in names]))
        return Samples(make(list(chain.from_iterable(part[c] for c in names))), labels)

    return Source(
        train=samples(train, partial(transform, scale=scale)),
        validation=samples(parts["val"]) if "val" in parts else None,
        test=samples(parts["test"]),
        classes=len(names),
        channels=3,
        size=size,
        prepare=partial(normalise, mean=MEAN, std=STD),
        split=_digest(root, {"train": train, **parts}),
        names=tuple(names),
        notes=tuple(notes),
    )


def _parts(root: Path, *, val_is_test: bool) -> dict[str, Path]:
    """The parts that have a folder: "train" and, where there are any, "val" and "test"; a class may be called train."""
    if not root.is_dir():
        raise FileNotFoundError(f"no folder {root}: give --data the folder that holds train/, or the class folders")
    folders = {name: root / name for name in ("train", "val", "test") if (root / name).is_dir()}
    if "train" not in folders or not _folders(folders["train"]):  # or train/ is itself a class among others
        folders = {"train": root}
    odd = [
        str(at / f)
        for at in sorted({root, folders["train"]})
        for f in _folders(at)
        if f.lower() in SPLITS and at / f not in folders.values()
    ]
    if odd:
        raise ValueError(
            f"{_some(odd)}: not a class by its name, and not a part of the data where it stands; expected train/ (and val/, "
            f"test/) with class folders in them, or class folders alone: rename or move it"
        )
    if val_is_test:
        if "val" not in folders:
            raise FileNotFoundError(f"no folder {root / 'val'}: this data set is measured on it; expected train/ and val/")
        folders = {"train": folders["train"], "test": folders["val"]}
    return folders


def _classes(folder: Path) -> Labelled:
    """The images of each class folder, sorted. Raises ValueError where there is none."""
    annotations = folder / "val_annotations.txt"
    if annotations.is_file() and (folder / "images").is_dir():  # else it has been sorted into class folders
        return _annotated(folder, annotations)
    found = {c: sorted(_images(folder / c)) for c in _folders(folder)}
    if not any(found.values()):
        loose = sum(_is_image(entry.name) for entry in os.scandir(folder))
        what = f"{loose} images but no class folders: sort them into one for each class" if loose else "no images"
        raise ValueError(f"{folder} holds {what} (expected {folder}/CLASS/*.jpg or another of {', '.join(ENDINGS)})")
    return found


def _annotated(folder: Path, annotations: Path) -> Labelled:
    """Tiny-ImageNet's val/: lines of file name, class and box, separated by tabs."""
    found: Labelled = {}
    for i, line in enumerate(annotations.read_text().splitlines(), 1):
        fields = line.split("\t")
        if len(fields) < 2:
            raise ValueError(f"line {i} of {annotations} is {line!r}: expected file name, class and box, separated by tabs")
        found.setdefault(fields[1], []).append(str(folder / "images" / fields[0]))
    return {c: sorted(found[c]) for c in sorted(found)}


def _folders(folder: Path) -> list[str]:
    return sorted(entry.name for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith("."))


def _images(folder: Path) -> list[str]:
    found = []
    for at, folders, files in os.walk(folder):
        folders[:] = [f for f in folders if not f.startswith(".")]
        found += [p for f in files if _is_image(f) and not _is_special(p := os.path.join(at, f))]
    return found


def _is_image(name: str) -> bool:
    return name.lower().endswith(ENDINGS) and not name.startswith(".")


def _is_special(path: str) -> bool:
    """A pipe, a socket, a device: reading one could wait for ever. A link that points nowhere is a file that can't be read."""
    return os.path.exists(path) and not os.path.isfile(path)


def _hold_out(train: Labelled, share: float, name: str, root: Path) -> tuple[Labelled, Labelled]:
    """A stratified share of the training images: (held out, the rest). Raises ValueError where a class would be missing."""
    files = list(chain.from_iterable(train.values()))
    labels = torch.repeat_interleave(torch.tensor([len(f) for f in train.values()]))
    paths = [os.path.relpath(f, root) for f in files]
    chosen, rest = split_by_hash(labels, round(share * len(files)), f"folder {name}", names=paths)
    held_out, kept = (
        {c: [files[i] for i in indices[labels[indices] == k].tolist()] for k, c in enumerate(train)}
        for indices in (chosen, rest)
    )
    few = [c for c in train if not held_out[c] or not kept[c]]
    if few:
        raise ValueError(
            f"{root} has no {name}/, and holding out {share:.0%} of {len(files)} images for it leaves class {_some(few)} "
            f"without images there or in training: give it more images, or make a {name}/ folder"
        )
    return held_out, kept


def _undecodable(paths: list[str]) -> dict[str, str]:
    """path -> problem of the images that can't be decoded; Pillow lets go of the interpreter while it decodes."""

    def problems(some: list[str]) -> dict[str, str]:
        found = {}
        for path in some:
            try:
                decode(path)
            except ValueError as error:
                found[path] = str(error).removeprefix(f"{path} can't be decoded as an image: ")
        return found

    pool = ThreadPoolExecutor(os.cpu_count())
    try:
        results = pool.map(problems, (paths[i : i + 16] for i in range(0, len(paths), 16)))
        return {path: problem for result in results for path, problem in result.items()}
    finally:
        pool.shutdown(wait=False, cancel_futures=True)  # Ctrl-C does not wait for the rest


def _digest(root: Path, parts: dict[str, Labelled]) -> str:
    digest = hashlib.sha256()
    for name in sorted(parts):
        for c, files in parts[name].items():
            digest.update("\n".join([name, c, *(os.path.relpath(f, root) for f in files), ""]).encode(errors="surrogateescape"))
    return digest.hexdigest()


def _some(names: list[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more
