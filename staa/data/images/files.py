"""Images in files, decoded when they are needed, and their normalisation."""

import io
import os
import warnings
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from staa.data.augment import one_by_one
from staa.data.draws import seeds
from staa.files import check_bytes, read_bytes

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's training images
ENDINGS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
FORMATS = ("JPEG", "PNG", "PPM", "BMP", "TIFF", "WEBP")
"""What a file of one of these endings may hold, whichever it has: ImageNet has a PNG called .JPEG. Pillow goes by content, and
starts Ghostscript for EPS."""
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning, append=True)  # `decode` refuses what it is of
PIXEL = 18  # bytes that decoding takes for a pixel, at most (measured: WebP with transparency)


def normalise(x: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """(x / 255 − mean) / std per channel: [N, C, H, W] uint8 -> float32."""
    return (x.float() / 255 - _per_channel(tuple(mean), x.device)) / _per_channel(tuple(std), x.device)


@cache
def _per_channel(values: tuple[float, ...], device: torch.device) -> Tensor:
    """Kept, since to send numbers to a GPU is to wait for it."""
    with torch.inference_mode(False):
        return torch.tensor(values, device=device).view(-1, 1, 1)


class ImageFiles:
    """Images on disk, cut to size × size when they are read.

    Read for training (with the samples' keys) at a `scale`: a random part of the image of at least that share of its area, in a
    ratio of 3/4 to 4/3, resized. Otherwise: the shorter side resized to `resize`, the centre cut out. Bilinear, antialiased.
    """

    def __init__(self, paths: Sequence[str], *, size: int, resize: int, scale: float | None = None):
        self.paths = np.array([os.fsencode(p) for p in paths], dtype=np.bytes_)  # one buffer, which workers share
        self.plain = self.random = cut(size, resize)
        if scale is not None:
            from torchvision.transforms import v2

            self.random = v2.Compose([v2.RandomResizedCrop(size, scale=(scale, 1.0), antialias=True), v2.PILToTensor()])

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def files(self) -> list[str]:
        return [os.fsdecode(bytes(path)) for path in self.paths]

    def read(self, chosen: Tensor, keys: np.ndarray | None = None) -> Tensor:
        """The chosen images [N, 3, size, size], uint8. Raises ValueError naming one that can't be decoded."""
        paths = [os.fsdecode(bytes(self.paths[i])) for i in chosen.tolist()]
        if keys is None:
            return torch.stack([self.plain(decode(path)) for path in paths])
        return one_by_one(lambda path: self.random(decode(path)), paths, seeds(keys, "random cut"))


def cut(size: int, resize: int | None = None, *, by: str = "bilinear") -> Callable[[Image.Image], Tensor]:
    """A function of an image: its shorter side resized to `resize` (None: size), bilinear and antialiased or by "box", the mean
    of an area, and the centre cut out, uint8 [channels, size, size]."""
    from torchvision.transforms import v2

    resized = v2.Resize(resize or size, v2.InterpolationMode(by), antialias=True)
    return v2.Compose([resized, v2.CenterCrop(size), v2.PILToTensor()])


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
            if Image.MAX_IMAGE_PIXELS is not None and image.width * image.height > Image.MAX_IMAGE_PIXELS:
                raise Image.DecompressionBombError
            check_bytes(image.width * image.height * PIXEL, f"its {image.width} × {image.height} pixels")
            return as_rgb(image)
    except MemoryError:
        raise
    except Image.DecompressionBombError as error:  # Pillow's own is of twice as many
        limit = f"{Image.MAX_IMAGE_PIXELS:,} pixels (PIL.Image.MAX_IMAGE_PIXELS)"
        raise ValueError(f"{path} is an image of more than {limit}: make it smaller, or raise the limit") from error
    except UnidentifiedImageError as error:  # its text names a buffer in memory
        raise ValueError(f"{path} can't be decoded as an image: its content is none of {', '.join(FORMATS)}") from error
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, struct.error, IndexError …
        raise ValueError(f"{path} can't be decoded as an image: {error}") from error


def as_rgb(image: Image.Image) -> Image.Image:
    """An image as `decode` gives it. Raises ValueError for one of 32 bits."""
    if image.mode == "F" or (image.mode == "I" and image.format != "PNG"):  # Pillow has called PNG's 16 bits I
        raise ValueError(
            "its pixels have 32 bits, and which values are black and white is not known: store it with 8 or 16 bits"
        )
    if image.mode.startswith("I"):  # convert() would clip these to white
        return Image.fromarray((np.asarray(image) >> 8).clip(0, 255).astype(np.uint8)).convert("RGB")
    image = _middle(image)
    if image.mode == "P" and "transparency" in image.info:  # else Pillow warns; silencing it would not be safe in threads
        return image.convert("RGBA").convert("RGB")
    return image.convert("RGB")


def _middle(image: Image.Image) -> Image.Image:
    """A strip more than eight times as long as it is wide, cut to that: resized by its shorter side it would fill memory."""
    width, height = image.size
    long = 8 * min(width, height)
    if max(width, height) <= long:
        return image
    left, top = max(0, width - long) // 2, max(0, height - long) // 2
    return image.crop((left, top, left + min(width, long), top + min(height, long)))
