"""Augmentation of training samples, from torchvision's transforms v2; what follows from seeds alone, resumes exactly.

Two moments: `augment(x, keys)` acts on stored samples (N first), in a worker process where it is slow, each by its own key
(`staa.data.draws`); `mix(x, y, generator, of_epoch)` on the network's input and labels, on the device, by the batch's.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor
from torch.nn import functional as F
from torch.utils.dlpack import from_dlpack

from staa.data.draws import seeds, uniform, whole

Transform = Callable[..., Any]
Policy = Literal["autoaugment-cifar10", "autoaugment-imagenet", "randaugment"]
Events = Literal["nda", "eventdrop"]
GREY = [128, 128, 128]  # what a rotated or sheared image leaves empty


def make_augment(
    *,
    shift: int = 0,
    flip: bool = False,
    policy: Policy | None = None,
    magnitude: int = 9,
    jitter: float = 0.0,
    events: Events | None = None,
    cutout: int = 0,
) -> Callable[[Tensor, np.ndarray], Tensor] | None:
    """augment(x [N, ..., H, W], keys [N]) -> the same, each sample by its key alone; or None if nothing is asked for.

    In this order: a random shift of up to `shift` pixels (a random crop of the image padded with zeros) and a mirror image
    of every other; image by image, AutoAugment (Cubuk et al. 2019) or RandAugment (Cubuk et al. 2020; two operations,
    magnitude of 30), and brightness, contrast and saturation each times U(1 − jitter, 1 + jitter); `nda` or `event_drop`;
    then `blank` with squares of side cutout. policy and jitter take colour images [N, 3, H, W] uint8, events takes counts
    [N, T, 2, H, W] of any type. But for two of `event_drop`'s, an operation is the same on all frames of a sample. Raises
    ValueError for another name; augment raises it for events if x has no frames.
    """
    operation = {None: None, "nda": nda, "eventdrop": event_drop}
    if events not in operation:
        raise ValueError(f"events must be nda, eventdrop or None, got {events!r}")
    transform: Transform | None = None
    if policy is not None or jitter:
        from torchvision.transforms import v2  # a second to import, so not with staa

        transforms: list[Transform] = []
        if policy == "randaugment":
            transforms.append(v2.RandAugment(num_ops=2, magnitude=magnitude, fill=GREY))
        elif policy is not None:
            kind = {"autoaugment-cifar10": v2.AutoAugmentPolicy.CIFAR10, "autoaugment-imagenet": v2.AutoAugmentPolicy.IMAGENET}
            transforms.append(v2.AutoAugment(kind[policy], fill=GREY))
        if jitter:
            transforms.append(v2.ColorJitter(brightness=jitter, contrast=jitter, saturation=jitter))
        # as PIL images: at 32 × 32 three times faster than as tensors
        transform = v2.Compose([v2.ToPILImage(), *transforms, v2.PILToTensor()])
    if not (shift or flip or transform or events or cutout):
        return None
    return partial(_augment, shift=shift, flip=flip, transform=transform, events=operation[events], cutout=cutout)


def make_mix(
    *,
    classes: int,
    mixup: float = 0.0,
    cutmix: float = 0.0,
    probability: float = 1.0,
    whole_epochs: bool = False,
    hard: bool = False,
) -> Callable[[Tensor, Tensor, torch.Generator, torch.Generator], tuple[Tensor, Tensor]] | None:
    """mix(x, labels [N], the batch's CPU generator, the epoch's) -> (x, probabilities [N, classes]), or None for no mixing.

    x: images [N, C, H, W] or windows [T, N, C, H, W]. A share `probability` of the batches gets MixUp (Zhang et al. 2018)
    with λ ~ Beta(mixup, mixup), or CutMix (Yun et al. 2019) with Beta(cutmix, cutmix), one of the two at random if
    both are positive, one λ for the batch; the others get their labels as probabilities. whole_epochs: the share is of the
    epochs, each mixed from end to end or not at all. hard: a mixed sample has the label of its larger part alone.
    """
    if not (mixup or cutmix):
        return None
    from torchvision.transforms import v2

    mixers: list[Transform] = []
    if mixup:
        mixers.append(v2.MixUp(alpha=mixup, num_classes=classes))
    if cutmix:
        mixers.append(v2.CutMix(alpha=cutmix, num_classes=classes))
    options = {"probability": probability, "classes": classes, "whole_epochs": whole_epochs, "hard": hard}
    return partial(_mix, mixers=mixers, **options)


def random_crop(x: Tensor, keys: np.ndarray, *, padding: int, flip: bool = False) -> Tensor:
    """Pad each image of [N, C, H, W] with zeros, cut out a random H × W window; flip=True mirrors every other at random.

    All images at once, on the tensor's device.
    """
    n, _, height, width = x.shape
    top, left, mirrored = _beside(x, whole(keys, "crop", 2 * padding + 1, 2 * padding + 1, 2)[..., None])
    rows, columns = torch.arange(height, device=x.device) + top, torch.arange(width, device=x.device) + left
    if flip:
        columns = torch.where(mirrored == 1, columns.flip(1), columns)
    image = torch.arange(n, device=x.device)[:, None, None]
    return F.pad(x, [padding] * 4)[image, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def blank(x: Tensor, keys: np.ndarray, *, size: int) -> Tensor:
    """Cutout (DeVries & Taylor 2017): zero a square of size × size in each sample [N, ..., H, W].

    Its centre is any pixel, so at the border only a part of the square falls on the image. Stored images lose it before
    they are normalised, so it is black, as in the authors' sister code. All frames of a sample lose the same square.
    """
    top, left = _beside(x, whole(keys, "cutout", *x.shape[-2:])[..., None] - size // 2)
    return erase(x, top, left, size, size)


def erase(x: Tensor, top: Tensor, left: Tensor, height: int | Tensor, width: int | Tensor) -> Tensor:
    """Zero a box of height × width from row top and column left on, in each sample [N, ..., H, W]; each number is [N, 1]."""

    def covered(length: int, first: Tensor, many: int | Tensor) -> Tensor:
        position = torch.arange(length, device=x.device)
        return (position >= first) & (position < first + many)

    hole = covered(x.shape[-2], top, height)[:, :, None] & covered(x.shape[-1], left, width)[:, None, :]
    return torch.where(hole.view(len(x), *[1] * (x.ndim - 3), *hole.shape[1:]), 0, x)


def warp(
    x: Tensor,
    *,
    degrees: ArrayLike = 0.0,
    shear: ArrayLike = 0.0,
    down: ArrayLike = 0,
    right: ArrayLike = 0,
) -> Tensor:
    """Each sample [N, ..., H, W] sheared along x, rotated counterclockwise, then moved by whole pixels, all frames alike.

    shear is an angle [rad]: a row y pixels below the centre moves y tan(shear) to the left. Each pixel takes the value nearest
    to where it comes from, so counts stay counts, or 0 from outside. Each argument is a number, or [N, 1, 1], each sample its
    own.
    """
    height, width = x.shape[-2:]
    turn = np.deg2rad(np.asarray(degrees, np.float64))
    # in float64 and rounded then, since the last bit of a sine can depend on how many are taken at once
    numbers = np.broadcast_arrays(np.sin(turn), np.cos(turn), np.tan(np.asarray(shear, np.float64)), down, right)
    sine, cosine, slant, down, right = _beside(x, np.stack(numbers).astype(np.float32))
    # from the centre, and backwards: the output's pixels, where they were before the move, the rotation and the shear
    i = torch.arange(height, device=x.device)[:, None] - down - (height - 1) / 2
    j = torch.arange(width, device=x.device) - right - (width - 1) / 2
    y, j = sine * j + cosine * i, cosine * j - sine * i
    row = (y + (height - 1) / 2).round().long()
    column = (j + slant * y + (width - 1) / 2).round().long()
    outside = (row < 0) | (row >= height) | (column < 0) | (column >= width)
    pixel = row.clamp(0, height - 1) * width + column.clamp(0, width - 1)
    frames = x.reshape(len(x), -1, height * width)
    moved = frames.gather(2, pixel.expand(len(x), -1, -1).reshape(len(x), 1, -1).expand_as(frames)).view(x.shape)
    return torch.where(outside.expand(len(x), -1, -1).view(len(x), *[1] * (x.ndim - 3), height, width), 0, moved)


def nda(x: Tensor, keys: np.ndarray) -> Tensor:
    """NDA (Li et al., ECCV 2022) in the form of FSTA-SNN's and DTA-SNN's code: in each sample [N, T, 2, H, W] one of six
    operations, the same on all frames, what comes from outside 0.

    Nothing; a shift by −5 … 5 pixels along x, or along y; a rotation by −30° … 30°; a shear along x by −0.3 … 0.3 rad; a square
    of U(0.001, 0.11) of the area, wholly inside, that is zeroed. A range has 31 values at equal distances, the shift's rounded
    towards 0. NDA's own code for CIFAR10-DVS has three: a roll along both axes, a rotation, and a shear by up to 30°.
    """
    height, width = x.shape[-2:]
    kind, part = whole(keys, "nda", 6, 31)
    part -= 15  # of fifteen
    pixels = np.fix(part / 3)

    def only(of: int, value: np.ndarray) -> np.ndarray:
        return np.where(kind == of, value, 0)[:, None, None]  # 0 changes nothing

    x = warp(x, right=only(1, pixels), down=only(2, pixels), degrees=only(3, 2 * part), shear=only(4, part / 50))
    area, *at = uniform(keys, "nda square", 3)
    side = np.sqrt((0.001 + 0.109 * area) * height * width).round().clip(max=min(height, width))
    side = np.where(kind == 5, side, 0)
    top, left = (u * (length - side + 1) for u, length in zip(at, (height, width), strict=True))
    top, left, side = _beside(x, np.stack([top, left, side])[..., None].astype(np.int64))
    return erase(x, top, left, side, side)


def event_drop(x: Tensor, keys: np.ndarray) -> Tensor:
    """EventDrop (Gu et al., IJCAI 2021) of counts [N, T, 2, H, W]: in each sample drop nothing, by time, by area or at random.

    By time: ⌊ρT⌋ frames from any one on, at most to the end, ρ one of 0.1, 0.2 … 0.9. By area: a box of ⌊ρH⌋ + 1 rows and
    ⌊ρW⌋ + 1 columns, ρ one of 0.05, 0.1 … 0.25, around any pixel, moved in if it would begin outside. At random: each event
    with probability ρ, as by time. The ranges are those of the authors' code; a sample that would lose every event is left as
    it is, as there. By area that code drops all events in the box's rows and all in its columns; the paper speaks of the box.
    """
    steps, (height, width) = x.shape[1], x.shape[-2:]
    kind, tenths, first, twentieths, *at = whole(keys, "event drop", 4, 9, steps, 5, height, width)
    tenths, twentieths = tenths + 1, twentieths + 1
    last = np.where(kind == 1, first + tenths * steps // 10, 0)
    rows, columns = (twentieths * length // 20 + 1 for length in (height, width))
    top, left = ((centre - twentieths * length // 40).clip(min=0) for centre, length in zip(at, (height, width), strict=True))
    first, last, top, left, rows, columns = _beside(
        x, np.stack([first, last, top, left, np.where(kind == 2, rows, 0), columns])[..., None]
    )
    frame = torch.arange(steps, device=x.device)
    blind = (frame >= first) & (frame < last)
    kept = erase(torch.where(blind.view(*x.shape[:2], 1, 1, 1), 0, x), top, left, rows, columns)
    generator, of = torch.Generator(x.device), seeds(keys, "events dropped")
    for n in np.flatnonzero(kind == 3).tolist():
        count = x[n].float().contiguous()
        share = torch.full_like(count, 1 - tenths[n] / 10)
        kept[n] = torch.binomial(count, share, generator=generator.manual_seed(of[n])).to(x.dtype)
    return torch.where(kept.bool().flatten(1).any(1).view(-1, 1, 1, 1, 1), kept, x)


def one_by_one(f: Callable[[Any], Tensor], inputs: Iterable[Any], seeds: Iterable[int]) -> Tensor:
    """f of each input, stacked. torch's global random numbers, which torchvision draws from, follow in each call from its seed;
    then they are as before."""
    made = []
    with torch.random.fork_rng(devices=[]):
        for each, seed in zip(inputs, seeds, strict=True):
            torch.default_generator.manual_seed(seed)
            made.append(f(each))
    return torch.stack(made)


def _beside(x: Tensor, numbers: np.ndarray) -> Tensor:
    """The numbers on the device of x, which is not waited for."""
    sent = from_dlpack(np.ascontiguousarray(numbers))  # from_numpy makes what is lifted, as a number of Python's is
    return (sent.pin_memory() if x.device.type == "cuda" else sent).to(x.device, non_blocking=True)


def _augment(
    x: Tensor,
    keys: np.ndarray,
    *,
    shift: int,
    flip: bool,
    transform: Transform | None,
    events: Callable[[Tensor, np.ndarray], Tensor] | None,
    cutout: int,
) -> Tensor:
    if events is not None and x.ndim != 5:
        raise ValueError(f"`augment.events` needs event frames [N, T, 2, H, W], got {list(x.shape)}; remove it")
    if shift or flip:
        x = random_crop(x.flatten(1, -3), keys, padding=shift, flip=flip).unflatten(1, x.shape[1:-2])
    if transform is not None:
        x = one_by_one(transform, x, seeds(keys, "image"))
    if events is not None:
        x = events(x, keys)
    return blank(x, keys, size=cutout) if cutout else x


def _mix(
    x: Tensor,
    y: Tensor,
    generator: torch.Generator,
    of_epoch: torch.Generator,
    *,
    mixers: Sequence[Transform],
    probability: float,
    classes: int,
    whole_epochs: bool,
    hard: bool,
) -> tuple[Tensor, Tensor]:
    if torch.rand((), generator=of_epoch if whole_epochs else generator) >= probability:
        return x, F.one_hot(y, classes).float()
    with torch.random.fork_rng(devices=[]):  # which the mixers draw from
        torch.default_generator.manual_seed(int(torch.randint(2**62, (), generator=generator)))
        mixer = mixers[int(torch.randint(len(mixers), ()))]
        mixed, targets = mixer(x if x.ndim == 4 else x.transpose(0, 1).flatten(1, 2), y)  # all frames alike
    if x.ndim == 5:
        mixed = mixed.unflatten(1, (x.shape[0], x.shape[2])).transpose(0, 1)
    return mixed, F.one_hot(targets.argmax(1), classes).float() if hard else targets
