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
    """Images in class folders under root, as a Source of images [3, size, size], normalised with ImageNet's mean and std.

    The folders are those of `class_folders`; val/val_annotations.txt (Tiny-ImageNet) names the classes of val/images.
    val_is_test: val/ is the test set, as in published figures on ImageNet. size: 224 where None; resize: the shorter side
    before the centre is cut out, size where None; scale: of the random resized crop in training (`ImageFiles`), None for
    none. corrupt: every image is decoded once before anything else, and those that can't be are refused, or skipped and
    counted; "unchecked" skips this, and such a file stops the run when it is met.

    Raises what `class_folders` does, and ValueError for a resize below size.
    """
    size = size or 224
    resize = resize or size
    if resize < size:
        raise ValueError(f"images are resized to {resize} and then cut to {size}: data.resize can't be below data.size")
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
    """Tiny-ImageNet's val/: lines of file name, class and box, separated by tabs. None where there are none of these."""
    annotations = folder / "val_annotations.txt"
    if not annotations.is_file() or not (folder / "images").is_dir():  # else it has been sorted into class folders
        return None
    found: Labelled = {}
    for i, line in enumerate(read_text(annotations).splitlines(), 1):
        fields = line.split("\t")
        if len(fields) < 2 or Path(fields[0]).name != fields[0]:
            raise ValueError(f"line {i} of {annotations} is {line!r}: expected file name, class and box, separated by tabs")
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
