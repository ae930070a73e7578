"""Random numbers of samples: what they follow from, that they are spread evenly, and that none tells of another."""

import itertools
import math

import numpy as np
import pytest
import torch
from PIL import Image

from staa.data import Batches, Samples
from staa.data import draws as module
from staa.data.augment import blank, make_augment, random_crop
from staa.data.draws import GAMMA, keys_of, mix, seeds, uniform, whole
from staa.data.images.files import ImageFiles

N = 4096
KEYS = [1720947616691708145, 4433171708781994734, 7227514122710895641]
CROPS = [[6, 5, 0], [7, 0, 1], [1, 0, 0]]
SEEDS = [6284380312563605810, 4254087671394597267, 7589270136946758488]


def test_the_hash_is_splitmix64():
    """The first numbers from 1234567 as published with its C code's ports, and from 0 by Python's integers."""
    states = np.array([1234567], np.uint64) + np.arange(5, dtype=np.uint64) * GAMMA
    assert mix(states).tolist() == [
        6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431, 16408922859458223821
    ]  # fmt: skip
    z = int(GAMMA)
    z = ((z ^ z >> 30) * 0xBF58476D1CE4E5B9) % 2**64
    z = ((z ^ z >> 27) * 0x94D049BB133111EB) % 2**64
    assert mix(np.zeros(1, np.uint64)).tolist() == [z ^ z >> 31]


def test_draws_are_the_same_on_every_machine():
    """They are what a run is resumed with: another release must draw them too."""
    keys = keys_of(3, 5, np.array([0, 1, 49_999]))
    assert keys.tolist() == KEYS
    assert whole(keys, "crop", 9, 9, 2).tolist() == CROPS
    assert seeds(keys, "image") == SEEDS


def series():
    """Numbers of neighbouring samples [M, N], by seed, epoch, operation and place; of their first bits, and of later ones."""
    found = [
        uniform(keys_of(seed, epoch, np.arange(N)), of, 3)
        for seed, epoch, of in itertools.product((0, 1), (0, 1, 2), ("crop", "cutout", "nda"))
    ]
    u = np.concatenate(found)
    return u, (u * 2**40) % 1


def oddness(u):
    """By how many standard deviations the oddest of these differs from what independent uniform numbers give: the counts in 16
    bins; those of pairs in 8 × 8; the correlation of each two series, and of each with itself 1 to 9 samples on."""
    bins = [np.bincount((16 * row).astype(int), minlength=16) for row in u]
    pairs = [np.bincount((8 * a).astype(int) * 8 + (8 * b).astype(int), minlength=64) for a, b in itertools.pairwise(u)]
    counts = [((c - c.mean()) ** 2 / c.mean()).sum() for c in (*bins, *pairs)]
    freedom = np.array([15] * len(bins) + [63] * len(pairs))
    off = u - 0.5
    r = np.abs(np.triu(off @ off.T, 1)).max() * 12 / math.sqrt(N)
    on = max(np.abs((off[:, k:] * off[:, :-k]).sum(1)).max() for k in range(1, 10)) * 12 / math.sqrt(N)
    return max(((np.array(counts) - freedom) / np.sqrt(2 * freedom)).max(), r, on)


def test_numbers_are_even_and_independent():
    for u in series():
        assert u.min() >= 0
        assert u.max() < 1
        assert oddness(u) < 6


@pytest.mark.parametrize(
    "bad",
    [
        lambda x: x,
        lambda x: x * GAMMA,
        lambda x: x ^ (x >> np.uint64(31)),
        lambda x: x * np.uint64(6364136223846793005) + GAMMA,
    ],
)
def test_a_bad_hash_would_be_found(bad, monkeypatch):
    monkeypatch.setattr(module, "mix", bad)
    assert max(map(oddness, series())) > 12


def even(places, kinds):
    """Whether each of so many kinds has its share of all, by χ²."""
    counts = np.bincount(places, minlength=kinds)
    assert len(counts) == kinds
    return ((counts - counts.mean()) ** 2 / counts.mean()).sum() < kinds + 6 * math.sqrt(2 * kinds)


def test_every_shift_and_mirror_image_is_alike_often():
    """Jointly: 5 × 5 places of the one pixel, each as it is or mirrored, which its neighbour tells."""
    x = torch.zeros(20_000, 1, 7, 7, dtype=torch.uint8)
    x[..., 3, 3], x[..., 3, 2] = 2, 1
    y = random_crop(x, keys_of(1, 1, np.arange(len(x))), padding=2, flip=True).flatten(1)
    place = (y == 2).int().argmax(1)
    mirrored = (y == 1).int().argmax(1) > place
    row, column = place // 7 - 1, place % 7 - 1
    assert even(((row * 5 + column) * 2 + mirrored).numpy(), 50)


def test_every_place_of_a_square_is_alike_often():
    x = torch.ones(20_000, 1, 6, 8)
    y = blank(x, keys_of(1, 1, np.arange(len(x))), size=1)
    assert even((y == 0).flatten(1).int().argmax(1).numpy(), 48)


IMAGES = torch.randint(0, 256, (48, 3, 12, 12), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
FRAMES = torch.randint(0, 5, (48, 4, 2, 12, 12), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


class Files:
    """Image files, cut at random when they are read for training."""

    def __init__(self, folder):
        for n, image in enumerate(IMAGES):
            Image.fromarray(image.permute(1, 2, 0).numpy()).save(folder / f"{n:02}.png")
        self.made = ImageFiles([str(p) for p in sorted(folder.iterdir())], size=12, resize=12, scale=0.3)


KINDS = {
    "shift": (IMAGES, dict(shift=3)),
    "flip": (IMAGES, dict(flip=True)),
    "autoaugment": (IMAGES, dict(policy="autoaugment-cifar10")),
    "randaugment": (IMAGES, dict(policy="randaugment")),
    "jitter": (IMAGES, dict(jitter=0.4)),
    "cutout": (IMAGES, dict(cutout=4)),
    "nda": (FRAMES, dict(events="nda")),
    "nda as floats": (FRAMES.float(), dict(events="nda")),
    "event drop": (FRAMES, dict(events="eventdrop")),
    "files": (None, {}),
    "all of images": (IMAGES, dict(shift=2, flip=True, policy="randaugment", jitter=0.2, cutout=4)),
    "all of frames": (FRAMES, dict(shift=2, flip=True, events="eventdrop", cutout=4)),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_sample_is_augmented_by_seed_epoch_and_index_alone(kind, tmp_path):
    """Not by the size or the composition of its batch, where an epoch is entered, or the process; but by each of the three."""
    x, options = KINDS[kind]
    x = Files(tmp_path).made if x is None else x
    samples, augment = Samples(x, torch.arange(48)), make_augment(**options)

    def epoch(size, seed=1, number=2, *, workers=0, start=0):
        made = Batches(samples, size, prepare=lambda x: x, augment=augment, seed=seed, workers=workers)
        found = {}
        for some, labels in made.epoch(number, start):
            found |= dict(zip(labels.tolist(), some, strict=True))
        made.close()
        return found

    whole = epoch(16)
    assert len(whole) == 48
    for other in (epoch(1), epoch(3), epoch(3, start=9), epoch(16, workers=1)):
        assert all(torch.equal(whole[n], one) for n, one in other.items())
    order = torch.randperm(48, generator=torch.Generator().manual_seed(7))
    for size in (5, 48):
        chosen = order[:size]
        keys = keys_of(1, 2, chosen.numpy())
        some = samples.take(chosen, keys)
        some = some if augment is None else augment(some, keys)
        assert all(torch.equal(whole[n], one) for n, one in zip(chosen.tolist(), some, strict=True))
    for other in (epoch(16, seed=2), epoch(16, number=3)):
        assert sum(not torch.equal(whole[n], one) for n, one in other.items()) >= 12


def test_what_one_operation_draws_tells_nothing_of_anothers():
    """Adding one changes no other: the shift of a sample is the same with and without a mirror image or a square."""
    x, keys = IMAGES + 1, keys_of(0, 0, np.arange(48))
    shifted = make_augment(shift=3)(x, keys)
    both = make_augment(shift=3, cutout=5)(x, keys)
    assert torch.equal(torch.where(both == 0, 0, shifted), both)
    names = ("crop", "image", "cutout", "nda", "nda square", "event drop", "events dropped", "random cut")
    assert len({tuple(whole(keys, of, 100)[0]) for of in names}) == len(names)
