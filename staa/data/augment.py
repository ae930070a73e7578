"""Augmentation of training samples, from torchvision's transforms v2; what follows a batch's seed alone, resumes exactly.

Two moments: `augment(x, generator)` acts on stored samples (N first), in a worker process where it is slow;
`mix(x, y, generator, of_epoch)` on the network's input and labels, on the device.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

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
) -> Callable[[Tensor, torch.Generator], Tensor] | None:
    """augment(x [N, ..., H, W], generator) -> the same, or None if nothing is asked for.

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
    transforms: list[Transform] = []
    if policy is not None or jitter:
        from torchvision.transforms import v2  # a second to import, so not with staa

        if policy == "randaugment":
            transforms.append(v2.RandAugment(num_ops=2, magnitude=magnitude, fill=GREY))
        elif policy is not None:
            kind = {"autoaugment-cifar10": v2.AutoAugmentPolicy.CIFAR10, "autoaugment-imagenet": v2.AutoAugmentPolicy.IMAGENET}
            transforms.append(v2.AutoAugment(kind[policy], fill=GREY))
        if jitter:
            transforms.append(v2.ColorJitter(brightness=jitter, contrast=jitter, saturation=jitter))
        # as PIL images: at 32 × 32 three times faster than as tensors
        transforms = [v2.Compose([v2.ToPILImage(), *transforms, v2.PILToTensor()])]
    if not (shift or flip or transforms or events or cutout):
        return None
    return partial(_augment, shift=shift, flip=flip, transforms=transforms, events=operation[events], cutout=cutout)


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


def random_crop(x: Tensor, generator: torch.Generator, *, padding: int, flip: bool = False) -> Tensor:
    """Pad each image of [N, C, H, W] with zeros, cut out a random H × W window; flip=True mirrors every other at random.

    One draw per image, all images at once, on the tensor's device.
    """
    n, _, height, width = x.shape

    def draw(high: int) -> Tensor:
        return torch.randint(high, (n, 1), generator=generator, device=x.device)

    rows = torch.arange(height, device=x.device) + draw(2 * padding + 1)
    columns = torch.arange(width, device=x.device) + draw(2 * padding + 1)
    if flip:
        columns = torch.where(draw(2) == 1, columns.flip(1), columns)
    image = torch.arange(n, device=x.device)[:, None, None]
    return F.pad(x, [padding] * 4)[image, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def blank(x: Tensor, generator: torch.Generator, *, size: int) -> Tensor:
    """Cutout (DeVries & Taylor 2017): zero a square of size × size in each sample [N, ..., H, W].

    Its centre is any pixel, so at the border only a part of the square falls on the image. Stored images lose it before
    they are normalised, so it is black, as in the authors' sister code. All frames of a sample lose the same square.
    """

    def first(length: int) -> Tensor:
        return torch.randint(length, (len(x), 1), generator=generator, device=x.device) - size // 2

    return erase(x, first(x.shape[-2]), first(x.shape[-1]), size, size)


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
    degrees: float | Tensor = 0.0,
    shear: float | Tensor = 0.0,
    down: int | Tensor = 0,
    right: int | Tensor = 0,
) -> Tensor:
    """Each sample [N, ..., H, W] sheared along x, rotated counterclockwise, then moved by whole pixels, all frames alike.

    shear is an angle [rad]: a row y pixels below the centre moves y tan(shear) to the left. Each pixel takes the value nearest
    to where it comes from, so counts stay counts, or 0 from outside. Each argument is a number, or [N, 1, 1], each sample its
    own.
    """
    height, width = x.shape[-2:]
    turn, slant = torch.as_tensor(degrees, device=x.device).deg2rad(), torch.as_tensor(shear, device=x.device).tan()
    sine, cosine = turn.sin(), turn.cos()
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


def nda(x: Tensor, generator: torch.Generator) -> Tensor:
    """NDA (Li et al., ECCV 2022) in the form of FSTA-SNN's and DTA-SNN's code: in each sample [N, T, 2, H, W] one of six
    operations, the same on all frames, what comes from outside 0.

    Nothing; a shift by −5 … 5 pixels along x, or along y; a rotation by −30° … 30°; a shear along x by −0.3 … 0.3 rad; a square
    of U(0.001, 0.11) of the area, wholly inside, that is zeroed. A range has 31 values at equal distances, the shift's rounded
    towards 0. NDA's own code for CIFAR10-DVS has three: a roll along both axes, a rotation, and a shear by up to 30°.
    """
    n, (height, width) = len(x), x.shape[-2:]

    def draw(low: int, high: int) -> Tensor:
        return torch.randint(low, high, (n, 1), generator=generator, device=x.device)

    kind, part = draw(0, 6), draw(-15, 16)  # of fifteen
    pixels = torch.div(part, 3, rounding_mode="trunc")

    def only(of: int, value: Tensor) -> Tensor:
        return torch.where(kind == of, value, 0)[:, :, None]  # 0 changes nothing

    x = warp(x, right=only(1, pixels), down=only(2, pixels), degrees=only(3, 2 * part), shear=only(4, part / 50))
    area, *at = torch.rand((3, n, 1), generator=generator, device=x.device)
    side = ((0.001 + 0.109 * area) * height * width).sqrt().round().clamp(max=min(height, width))
    side = torch.where(kind == 5, side, 0).long()
    top, left = ((u * (length - side + 1)).long() for u, length in zip(at, (height, width), strict=True))
    return erase(x, top, left, side, side)


def event_drop(x: Tensor, generator: torch.Generator) -> Tensor:
    """EventDrop (Gu et al., IJCAI 2021) of counts [N, T, 2, H, W]: in each sample drop nothing, by time, by area or at random.

    By time: ⌊ρT⌋ frames from any one on, at most to the end, ρ one of 0.1, 0.2 … 0.9. By area: a box of ⌊ρH⌋ + 1 rows and
    ⌊ρW⌋ + 1 columns, ρ one of 0.05, 0.1 … 0.25, around any pixel, moved in if it would begin outside. At random: each event
    with probability ρ, as by time. The ranges are those of the authors' code; a sample that would lose every event is left as
    it is, as there. By area that code drops all events in the box's rows and all in its columns; the paper speaks of the box.
    """
    n, (steps, (height, width)) = len(x), (x.shape[1], x.shape[-2:])

    def draw(low: int, high: int) -> Tensor:
        return torch.randint(low, high, (n, 1), generator=generator, device=x.device)

    kind, tenths, first, twentieths = draw(0, 4), draw(1, 10), draw(0, steps), draw(1, 6)
    frame = torch.arange(steps, device=x.device)
    blind = (kind == 1) & (frame >= first) & (frame < first + tenths * steps // 10)
    kept = torch.where(blind.view(n, steps, 1, 1, 1), 0, x)
    rows, columns = (twentieths * length // 20 + 1 for length in (height, width))
    top, left = ((draw(0, length) - twentieths * length // 40).clamp(min=0) for length in (height, width))
    kept = erase(kept, top, left, torch.where(kind == 2, rows, 0), columns)
    share = torch.where(kind == 3, 1 - tenths / 10, 1.0)
    kept = torch.binomial(kept.float(), share.view(n, 1, 1, 1, 1).expand_as(x), generator=generator).to(x.dtype)
    return torch.where(kept.bool().flatten(1).any(1).view(n, 1, 1, 1, 1), kept, x)


@contextmanager
def drawing_from(generator: torch.Generator) -> Iterator[None]:
    """Within, torch's global random numbers, which torchvision draws from, follow from the generator; then as before."""
    seed = int(torch.randint(2**62, (), generator=generator, device=generator.device))
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


def _augment(
    x: Tensor,
    generator: torch.Generator,
    *,
    shift: int,
    flip: bool,
    transforms: Sequence[Transform],
    events: Callable[[Tensor, torch.Generator], Tensor] | None,
    cutout: int,
) -> Tensor:
    if events is not None and x.ndim != 5:
        raise ValueError(f"`augment.events` needs event frames [N, T, 2, H, W], got {list(x.shape)}; remove it")
    if shift or flip:
        x = random_crop(x.flatten(1, -3), generator, padding=shift, flip=flip).unflatten(1, x.shape[1:-2])
    for each in transforms:
        with drawing_from(generator):
            x = torch.stack([each(image) for image in x])
    if events is not None:
        x = events(x, generator)
    return blank(x, generator, size=cutout) if cutout else x


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
    with drawing_from(generator):
        mixer = mixers[int(torch.randint(len(mixers), ()))]
        mixed, targets = mixer(x if x.ndim == 4 else x.transpose(0, 1).flatten(1, 2), y)  # all frames alike
    if x.ndim == 5:
        mixed = mixed.unflatten(1, (x.shape[0], x.shape[2])).transpose(0, 1)
    return mixed, F.one_hot(targets.argmax(1), classes).float() if hard else targets
