"""Images in class folders: ImageNet, Tiny-ImageNet, one's own. Decoded as they are needed, by worker processes."""

import os
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Literal

from staa.counting import counted
from staa.data.class_folders import class_folders
from staa.data.content import content_of_files
from staa.data.images.files import ENDINGS, MEAN, STD, ImageFiles, decode, normalise
from staa.data.source import Samples, Source
from staa.data.splits import Labelled, digest, files_and_labels, paths_in
from staa.files import read_text


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
    """Images in class folders, decoded as they are needed and normalised with ImageNet's mean and standard deviation.

        root/train/CLASS/…  root/val/CLASS/…  root/test/CLASS/…        or        root/CLASS/…

    Without test/, a tenth of the training images are the test set; without val/, a share `validation` of the others is held
    out. Both are stratified and chosen by a hash of the paths. Names that start with a dot are left out. In Tiny-ImageNet,
    val/val_annotations.txt names the classes of val/images.

    Args:
        root: Folder that holds train/, or the class folders.
        validation: Share held out of the training images if there is no val/, at least 0 and below 1.
        size: Height and width of an input, in pixels; None: 224.
        resize: Shorter side of an image before its centre is cut out, in pixels, at least size; None: size.
        scale: Smallest share of an image's area that a random crop takes in training, above 0 and at most 1; None: no such
            crop.
        corrupt: "refuse" and "skip" decode every image once before anything else, and refuse what can't be decoded, or skip and
            count it; "unchecked" does not look, and such a file stops the run when it is met.
        val_is_test: Take val/ as the test set, as published figures on ImageNet do.

    Shapes:
        Inputs are [N, 3, size, size].

    Raises:
        FileNotFoundError: If there is no such folder.
        ValueError: If resize is below size; if it holds no images or fewer than two classes; if parts differ in their classes;
            if a folder looks like another part; if images can't be decoded and are refused.
    """
    size = size or 224
    resize = resize or size
    if resize < size:
        raise ValueError(
            f"data.resize must be at least data.size, {size}, since that is cut out of the resized image; got {resize}"
        )
    parts, notes = class_folders(
        root,
        endings=ENDINGS,
        what="images",
        validation=validation,
        corrupt=corrupt,
        problems=_undecodable,
        val_is_test=val_is_test,
        annotated=_annotated,
    )
    names = list(parts["train"])

    def samples(part: str, scale: float | None = None) -> Samples:
        files, labels = files_and_labels(parts[part], names)
        return Samples(ImageFiles(files, size=size, resize=resize, scale=scale), labels)

    return Source(
        train=samples("train", scale),
        validation=samples("val") if "val" in parts else None,
        test=samples("test"),
        classes=len(names),
        channels=3,
        size=size,
        prepare=partial(normalise, mean=MEAN, std=STD),
        split=digest(root, parts),
        names=tuple(names),
        notes=tuple(notes),
        content=content_of_files(root, paths_in(parts)),
    )


def _annotated(folder: Path) -> Labelled | None:
    """Tiny-ImageNet's val/: lines of file name, class and box, separated by tabs. None if it has no such file."""
    annotations = folder / "val_annotations.txt"
    if not annotations.is_file() or not (folder / "images").is_dir():  # else it has been sorted into class folders
        return None
    found: Labelled = {}
    for i, line in enumerate(read_text(annotations).splitlines(), 1):
        fields = line.split("\t")
        if len(fields) < 2 or Path(fields[0]).name != fields[0]:
            raise ValueError(f"{annotations}, line {i} must be a file name, a class and a box, separated by tabs; got {line!r}")
        found.setdefault(fields[1], []).append(str(folder / "images" / fields[0]))
    return {c: sorted(found[c]) for c in sorted(found)}


def _undecodable(paths: list[str]) -> dict[str, str]:
    """path -> problem of the images that can't be decoded; Pillow lets go of the interpreter while it decodes."""

    def problem(path: str) -> str | None:
        try:
            decode(path)
        except ValueError as error:
            return str(error).removeprefix(f"{path} can't be decoded as an image: ")
        return None

    def problems(some: list[str]) -> list[str | None]:
        return [problem(path) for path in some]

    pool = ThreadPoolExecutor(os.cpu_count())
    try:
        results = pool.map(problems, (paths[i : i + 16] for i in range(0, len(paths), 16)))
        found = zip(paths, chain.from_iterable(results), strict=True)
        return {path: why for path, why in counted(found, "decoding images", len(paths)) if why is not None}
    finally:
        pool.shutdown(wait=False, cancel_futures=True)  # Ctrl-C does not wait for the rest
