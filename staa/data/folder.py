"""Images in class folders: ImageNet, Tiny-ImageNet, one's own. Decoded as they are needed, by worker processes."""

import io
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from staa.data.augment import drawing_from
from staa.data.content import content_of_files
from staa.data.images import normalise
from staa.data.layout import Labelled, class_folders, digest, files_and_labels, paths_in
from staa.data.source import Samples, Source
from staa.files import check_bytes, read_bytes, read_text

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's training images
ENDINGS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
FORMATS = ("JPEG", "PNG", "PPM", "BMP", "TIFF", "WEBP")
"""What a file of one of these endings may hold, whichever it has: ImageNet has a PNG called .JPEG. Pillow goes by content, and
starts Ghostscript for EPS."""
PIXEL = 18  # bytes that decoding takes for a pixel, at most (measured: WebP with transparency)


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

    Raises ValueError naming a file that is no whole image of `FORMATS`, one of more pixels than Pillow's MAX_IMAGE_PIXELS or
    `staa.files.max_bytes` allow, before it is decoded, one of 32 bits, whose range is not known, a pipe, and a link that points
    nowhere; OSError for one that can't be read.
    """
    try:
        data = read_bytes(Path(path))
    except FileNotFoundError as error:
        raise ValueError(f"{path} can't be decoded as an image: {error.strerror}") from error
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            size = f"{image.width} × {image.height} pixels"
            if Image.MAX_IMAGE_PIXELS is not None and image.width * image.height > Image.MAX_IMAGE_PIXELS:
                limit = f"{Image.MAX_IMAGE_PIXELS:,} (PIL.Image.MAX_IMAGE_PIXELS)"
                raise ValueError(f"its {size} are more than {limit}: make it smaller, or raise the limit")
            check_bytes(image.width * image.height * PIXEL, f"its {size}")
            if image.mode == "F" or (image.mode == "I" and image.format != "PNG"):  # Pillow has called PNG's 16 bits I
                raise ValueError("32 bits a pixel, black and white unknown: store it with 8 or 16")
            if image.mode.startswith("I"):  # convert() would clip these to white
                return Image.fromarray((np.asarray(image) >> 8).clip(0, 255).astype(np.uint8)).convert("RGB")
            image = _middle(image)
            if (
                image.mode == "P" and "transparency" in image.info
            ):  # else Pillow warns; silencing it would not be safe in threads
                return image.convert("RGBA").convert("RGB")
            return image.convert("RGB")
    except MemoryError:
        raise
    except UnidentifiedImageError as error:  # its text names a buffer in memory
        raise ValueError(f"{path} can't be decoded as an image: its content is none of {', '.join(FORMATS)}") from error
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
