"""Augmentation: against hand computations, and of each sample as a function of its key alone."""

import math
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from torchvision.transforms import v2

from staa.build import task_of
from staa.data import Batches, Samples
from staa.data.augment import GREY, blank, erase, event_drop, make_augment, make_mix, nda, random_crop, warp
from staa.data.draws import keys_of, seeds
from staa.recipes.parts import Augment


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def keyed(x, seed=0, epoch=0):
    return keys_of(seed, epoch, np.arange(len(x)))


def test_random_crop_cuts_windows_of_the_padded_image():
    x = torch.arange(1, 2 * 3 * 4 * 4 + 1, dtype=torch.uint8).view(2, 3, 4, 4)
    padded = torch.nn.functional.pad(x, [1] * 4)
    windows = {
        (n, i, j, flip): (padded[n, :, i : i + 4, j : j + 4].flip(2) if flip else padded[n, :, i : i + 4, j : j + 4])
        for n in range(2) for i in range(3) for j in range(3) for flip in (False, True)
    }  # fmt: skip
    met = set()
    for epoch in range(200):
        y = random_crop(x, keyed(x, epoch=epoch), padding=1, flip=True)
        for n in range(2):
            hits = [key for key, window in windows.items() if key[0] == n and torch.equal(window, y[n])]
            assert len(hits) == 1
            met.add(hits[0])
    assert met == set(windows)


def test_all_frames_of_a_sample_shift_alike():
    x = torch.randint(0, 9, (8, 5, 2, 6, 6), dtype=torch.uint8)
    augment = make_augment(shift=1)
    y = augment(x, keyed(x))
    assert y.shape == x.shape
    one = x[:, :1].expand_as(x)
    moved = augment(one, keyed(one))
    assert torch.equal(moved, moved[:, :1].expand_as(moved))


def test_nothing_asked_for_is_nothing_done():
    assert make_augment() is None
    assert make_mix(classes=3) is None


@pytest.mark.parametrize("policy", ["autoaugment-cifar10", "autoaugment-imagenet", "randaugment", None])
def test_image_operations_follow_from_the_keys_alone(policy):
    x = torch.randint(0, 256, (16, 3, 12, 12), dtype=torch.uint8)
    augment = make_augment(policy=policy, jitter=0.3 if policy is None else 0.0)
    torch.manual_seed(1)
    y = augment(x, keyed(x))
    assert y.shape == x.shape
    assert y.dtype == torch.uint8
    state = torch.get_rng_state()
    torch.manual_seed(2)
    assert torch.equal(augment(x, keyed(x)), y)
    torch.manual_seed(1)
    assert torch.equal(torch.get_rng_state(), state)  # the caller's random numbers are as they were
    assert not torch.equal(augment(x, keyed(x, 1)), y)
    assert not torch.equal(y, x)


def test_autoaugment_is_torchvisions_image_by_image():
    x = torch.randint(0, 256, (8, 3, 12, 12), dtype=torch.uint8)
    y = make_augment(policy="autoaugment-cifar10")(x, keyed(x))
    transform = v2.AutoAugment(v2.AutoAugmentPolicy.CIFAR10, fill=GREY)
    for image, expected, seed in zip(x, y, seeds(keyed(x), "image"), strict=True):
        torch.manual_seed(seed)
        assert torch.equal(v2.functional.pil_to_tensor(transform(v2.functional.to_pil_image(image))), expected)


def test_cutout_blanks_a_square_that_may_hang_over_the_border():
    n, size, side = 4000, 4, 6
    x = torch.full((n, 2, side, side), 200, dtype=torch.uint8)
    y = blank(x, keyed(x), size=size)
    assert torch.equal(y[:, 0], y[:, 1])
    holes = y[:, 0] == 0
    # a hole is a product of rows and columns; 2 to 4 long: its centre is any of the 6 pixels, first = centre − 2
    lengths = torch.tensor([2, 3, 4, 4, 4, 3])
    for axis in (1, 2):
        covered = holes.any(axis).sum(1)
        share = torch.bincount(covered, minlength=5) / n
        for length in range(5):
            assert share[length].item() == pytest.approx((lengths == length).float().mean().item(), abs=0.03)
    assert torch.equal(holes, holes.any(2)[:, :, None] & holes.any(1)[:, None, :])
    assert x.min() == 200  # the input is as it was


def test_all_frames_lose_the_same_square():
    y = blank(torch.ones(7, 5, 2, 8, 8), keyed(range(7)), size=3)
    assert torch.equal(y, y[:, :1].expand_as(y))
    assert not torch.equal(y[0], y[1])
    assert torch.equal(y[:, 0], blank(torch.ones(7, 2, 8, 8), keyed(range(7)), size=3))


def test_a_box_by_hand():
    x = torch.arange(1, 13).view(1, 1, 3, 4).expand(3, 2, 3, 4)
    numbers = [torch.tensor(n)[:, None] for n in ([1, -1, 0], [2, 1, 0], [2, 2, 0], [1, 9, 4])]
    y = erase(x, *numbers)
    assert torch.equal(y[:, 0], y[:, 1])
    assert y[:, 0].tolist() == [
        [[1, 2, 3, 4], [5, 6, 0, 8], [9, 10, 0, 12]],
        [[1, 0, 0, 0], [5, 6, 7, 8], [9, 10, 11, 12]],
        [[1, 2, 3, 4], [5, 6, 7, 8], [9, 10, 11, 12]],
    ]


@pytest.mark.parametrize("size", [(48, 48), (9, 9), (12, 20)])
def test_rotation_and_shear_are_torchvisions(size):
    """Sample by sample, nearest neighbour, zeros from outside; but where a pixel comes from half-way between two, rounding
    decides (2 of 92,160 pixels here). In torchvision a shear is in degrees."""
    x = torch.randint(1, 256, (40, 3, 2, *size), generator=seeded(), dtype=torch.uint8)
    angle = torch.linspace(-90.0, 177.3, 40)
    slant, nearest = angle / 150, v2.InterpolationMode.NEAREST
    rotated, sheared = warp(x, degrees=angle.view(-1, 1, 1)), warp(x, shear=slant.view(-1, 1, 1))
    differ = 0
    for n, (turn, shear) in enumerate(zip(angle.tolist(), slant.rad2deg().tolist(), strict=True)):
        differ += (rotated[n] != v2.functional.rotate(x[n], turn, nearest)).sum()
        differ += (sheared[n] != v2.functional.affine(x[n], 0.0, [0, 0], 1.0, [shear, 0.0], nearest)).sum()
    assert differ <= 1e-4 * x.numel()
    assert torch.equal(warp(x[:1], degrees=33), v2.functional.rotate(x[:1], 33, nearest))


def test_shear_by_hand():
    """tan = 1: a row moves left by as many pixels as it is below the centre."""
    x = torch.tensor([[1, 2, 3], [4, 5, 6], [7, 8, 9]], dtype=torch.uint8)[None, None]
    assert warp(x, shear=torch.pi / 4)[0, 0].tolist() == [[0, 1, 2], [4, 5, 6], [8, 9, 0]]


def test_a_shift_is_torchvisions():
    x = torch.randint(1, 256, (5, 3, 2, 7, 10), dtype=torch.uint8)
    down, right = torch.tensor([0, 3, -2, 7, -11]), torch.tensor([1, 0, -4, 30, 2])
    moved = warp(x, down=down.view(-1, 1, 1), right=right.view(-1, 1, 1))
    for n in range(5):
        official = v2.functional.affine(x[n], 0.0, [int(right[n]), int(down[n])], 1.0, [0.0, 0.0])
        assert torch.equal(moved[n], official)


DTYPES = [torch.uint8, torch.int16, torch.int32, torch.float32]


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_warp_by_nothing_is_the_identity(dtype):
    x = torch.randint(0, 256, (4, 3, 2, 6, 7)).to(dtype)
    for y in (warp(x), warp(x, degrees=torch.zeros(4, 1, 1), shear=torch.zeros(4, 1, 1))):
        assert y.dtype == dtype
        assert torch.equal(y, x)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("events", ["nda", "eventdrop"])
def test_events_follow_from_the_keys_alone(events, dtype):
    x = torch.randint(0, 5, (32, 4, 2, 12, 12)).to(dtype)
    given, augment = x.clone(), make_augment(shift=1, flip=True, events=events, cutout=2)
    y = augment(x, keyed(x))
    assert y.dtype == dtype
    assert y.shape == x.shape
    assert torch.equal(augment(x, keyed(x)), y)
    assert not torch.equal(augment(x, keyed(x, 1)), y)
    assert torch.equal(x, given)
    assert set(y.long().unique().tolist()) <= set(range(5))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.float32])
@pytest.mark.parametrize("events", ["nda", "eventdrop"])
def test_events_are_augmented_where_they_are(events, dtype):
    x = torch.randint(0, 5, (32, 4, 2, 12, 12)).to("cuda", dtype)
    augment = make_augment(shift=1, flip=True, events=events, cutout=2)
    y, again = (augment(x, keyed(x)) for _ in range(2))
    assert y.device == x.device
    assert y.dtype == dtype
    assert torch.equal(y, again)
    assert not torch.equal(y, x)


@pytest.mark.parametrize("events", ["nda", "eventdrop"])
def test_events_follow_from_seed_epoch_and_sample_alone(events):
    samples = Samples(torch.randint(0, 5, (24, 3, 2, 8, 8), dtype=torch.uint8), torch.arange(24))
    batches = Batches(samples, 8, prepare=lambda x: x, augment=make_augment(events=events), seed=3)
    whole, rest, other = list(batches.epoch(1)), list(batches.epoch(1, start=2)), list(batches.epoch(2))
    assert torch.equal(whole[2][0], rest[0][0])
    changed = [x != samples.x[y] for x, y in (*whole, *other)]
    assert all(c.any() for c in changed)
    assert len({str(c.flatten(1).sum(1).tolist()) for c in changed}) == 6


def test_nda_does_the_same_to_all_frames_and_another_thing_to_each_sample():
    frame = torch.randint(1, 9, (64, 1, 1, 20, 20), dtype=torch.uint8)
    y = nda(frame.expand(-1, 5, 2, -1, -1), keyed(frame))
    assert torch.equal(y, y[:, :1, :1].expand_as(y))
    same = nda(frame[:1].expand(64, 5, 2, -1, -1), keyed(frame))
    assert len(same.unique(dim=0)) > 30  # 38 in the mean: some shifts and turns are of nothing, or alike


def official_outcomes(x):
    """kind -> (probability, what becomes of an image [1, H, W]), by FSTA-SNN's and DTA-SNN's code, all but the cutout."""
    move = lambda shift, shear=0.0: v2.functional.affine(x, 0.0, shift, 1.0, [math.degrees(shear), 0.0])  # noqa: E731
    bins = torch.linspace(-1, 1, 31, dtype=torch.float64).tolist()
    shifts = Counter(int(round(5 * bin, 6)) for bin in bins).items()
    return {
        "nothing": [(1, x)],
        "right": [(share / 31, move([k, 0])) for k, share in shifts],
        "down": [(share / 31, move([0, k])) for k, share in shifts],
        "shear": [(1 / 31, move([0, 0], 0.3 * bin)) for bin in bins],
        "rotate": [(1 / 31, v2.functional.rotate(x, 30 * bin)) for bin in bins],
    }


@pytest.mark.parametrize(("height", "width"), [(24, 24), (18, 30)])
def test_nda_takes_one_of_the_six_official_operations_alike_often(height, width):
    n, pixels = 3000, height * width
    image = torch.arange(1, pixels + 1, dtype=torch.int16).view(1, height, width)
    y = nda(image.expand(n, 2, 2, -1, -1), keyed(range(n)))[:, 0, 0]
    left, still = torch.ones(n, dtype=torch.bool), 0.0
    fixed = (y == image[0]).flatten(1).all(1)
    for outcomes in official_outcomes(image).values():
        expected, found = 0.0, 0
        for probability, outcome in outcomes:
            if torch.equal(outcome, image):
                still += probability
                continue
            equal = ((y != outcome[0]).flatten(1).sum(1) <= 2) & ~fixed  # half-way between two pixels, rounding decides
            assert equal.any()
            expected, found = expected + probability, found + int((equal & left).sum())  # small shears come out alike
            left &= ~equal
        assert found == pytest.approx(n / 6 * expected, abs=70)
    assert int(fixed.sum()) == pytest.approx(n / 6 * still, abs=80)
    left &= ~fixed
    cut = y[left]
    assert len(cut) == pytest.approx(n / 6, abs=70)
    hole = cut == 0
    assert torch.equal(cut, torch.where(hole, 0, image))
    rows, columns = hole.any(2), hole.any(1)
    assert torch.equal(hole, rows[:, :, None] & columns[:, None])
    sides = rows.sum(1)
    assert torch.equal(sides, columns.sum(1))  # squares, wholly inside
    assert ((rows.int().diff(dim=1) == 1).sum(1) + rows[:, 0].int() == 1).all()
    assert (sides.min(), sides.max()) == (round((0.001 * pixels) ** 0.5), round((0.11 * pixels) ** 0.5))
    assert (sides**2 / pixels).float().mean().item() == pytest.approx(0.0555, abs=0.006)
    assert rows.any(0).all()
    assert columns.any(0).all()


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_event_drop_takes_one_of_four_alike_often(dtype):
    n, steps, side = 2000, 15, 20
    x = torch.full((n, steps, 2, side, side), 8).to(dtype)
    y = event_drop(x, keyed(x))
    assert y.dtype == dtype
    y = y.long()
    assert y.min() == 0
    assert y.max() == 8
    frames, pixels = (y != 0).flatten(2).any(2), (y != 0).flatten(1, 2).any(1)
    whole = (y == 8) | (y == 0)
    fixed = (y == 8).flatten(1).all(1)
    at_random = ~whole.flatten(1).all(1)
    by_time, by_area = ~frames.all(1), ~pixels.flatten(1).all(1)
    assert (fixed.int() + at_random.int() + by_time.int() + by_area.int() == 1).all()
    for kind in (fixed, at_random, by_time, by_area):
        assert kind.float().mean().item() == pytest.approx(0.25, abs=0.03)

    gone = ~frames[by_time]
    assert torch.equal(y[by_time] == 0, gone[:, :, None, None, None].expand_as(y[by_time]))
    assert (gone.int().diff(dim=1).abs().sum(1) <= 2).all()  # contiguous
    lengths = [1, 3, 4, 6, 7, 9, 10, 12, 13]
    assert set(gone[~gone[:, -1]].sum(1).tolist()) == set(lengths)
    assert all(gone.any(0))
    expected = sum(min(length, steps - first) for length in lengths for first in range(steps)) / (9 * steps)
    assert gone.sum(1).float().mean().item() == pytest.approx(expected, abs=0.5)  # cut off at the end

    hole = ~pixels[by_area]
    assert torch.equal(y[by_area] == 0, hole[:, None, None].expand_as(y[by_area]))
    assert torch.equal(hole, hole.any(2)[:, :, None] & hole.any(1)[:, None])  # boxes
    assert {share * side // 20 + 1 for share in range(1, 6)} == {2, 3, 4, 5, 6}
    for sides in (hole.any(1).sum(1), hole.any(2).sum(1)):
        assert set(sides.tolist()) <= set(range(1, 7))
        assert 2 < sides.float().mean() < 4
    whole = hole[:, 1:-1, 1:-1].flatten(1).sum(1) == hole.flatten(1).sum(1)
    assert set(hole[whole].flatten(1).sum(1).tolist()) == {4, 9, 16, 25, 36}  # ρ of each side, not of the area

    kept = y[at_random].flatten(1).float().mean(1) / 8
    ratio = (kept * 10).round() / 10
    assert (kept - ratio).abs().max() < 0.02
    assert set((10 * ratio).int().tolist()) == set(range(1, 10))
    assert kept.mean().item() == pytest.approx(0.5, abs=0.04)
    for r in ratio.unique().tolist():  # each event by itself: the variance is the binomial's
        assert y[at_random][ratio == r].float().var().item() == pytest.approx(8 * r * (1 - r), rel=0.05)


def test_dropping_never_adds_an_event_nor_takes_the_last():
    x = torch.randint(0, 4, (200, 3, 2, 6, 6), generator=seeded(), dtype=torch.uint8)
    assert (event_drop(x, keyed(x)) <= x).all()
    lone = torch.zeros(400, 3, 2, 6, 6, dtype=torch.uint8)
    lone[:, 1, 0, 2, 3] = 1
    assert torch.equal(event_drop(lone, keyed(lone)), lone)
    one = torch.ones(200, 1, 2, 6, 6)  # the only frame is never dropped
    assert event_drop(one, keyed(one)).flatten(1).any(1).all()


def test_events_are_refused_where_there_are_none():
    with pytest.raises(ValueError, match="events must be nda, eventdrop or None, got 'eventmix'"):
        make_augment(events="eventmix")
    with pytest.raises(ValueError, match=r"needs event frames \[N, T, 2, H, W\], got \[2, 3, 8, 8\]"):
        make_augment(events="nda")(torch.zeros(2, 3, 8, 8), keyed(range(2)))
    with pytest.raises(ValueError, match="augment.events must be 'nda', 'eventdrop', None; got 'x'"):
        Augment(events="x")
    cpu = torch.device("cpu")
    for recipe, message in (
        (replace(tiny.pictures, augment=Augment(events="nda")), "`augment.events` is for event frames, .* has images"),
        (replace(tiny.recipe, augment=Augment(events="nda", jitter=0.1)), "for colour images; .* has 2 channels"),
    ):
        source = task_of(recipe).source(Path())
        with pytest.raises(ValueError, match=message):
            task_of(recipe).batches(source, "train", cpu, workers=0, training=True)
        task_of(recipe).batches(source, "train", cpu, workers=0)  # measuring augments nothing
    recipe = replace(tiny.recipe, augment=Augment(events="eventdrop"))
    source = task_of(recipe).source(Path())
    grey = replace(source, channels=1, train=Samples(source.train.x[:, 0], source.train.y))
    with pytest.raises(ValueError, match="has images"):
        task_of(recipe).batches(grey, "train", cpu, workers=0, training=True)
    plain = task_of(replace(recipe, augment=Augment())).batches(source, "train", cpu, workers=0, training=True)
    batches = task_of(recipe).batches(source, "train", cpu, workers=0, training=True)
    assert any((x < y).any() for (x, _), (y, _) in zip(batches.epoch(), plain.epoch(), strict=True))


def test_cutout_comes_after_the_image_operations():
    """Nothing may fill the square again: each image has all of a black square, or the part of one that falls on it."""
    x = torch.randint(100, 200, (32, 3, 16, 16), dtype=torch.uint8)
    y = make_augment(shift=2, flip=True, policy="randaugment", jitter=0.2, cutout=8)(x, keyed(x))
    holes = (y == 0).all(1)
    assert (holes.flatten(1).sum(1) >= 4 * 4).all()


def test_mixup_by_hand(monkeypatch):
    """λ = 0.3: image n becomes 0.3 of itself and 0.7 of its neighbour n − 1, and so does its label."""
    x = torch.tensor([1.0, 10.0, 100.0]).view(3, 1, 1, 1).expand(3, 1, 2, 2)
    mix = make_mix(classes=4, mixup=0.5)
    monkeypatch.setattr(torch.distributions.Beta, "sample", lambda self, shape=(): torch.tensor([0.3]))
    mixed, targets = mix(x, torch.tensor([0, 3, 1]), seeded(), seeded())
    assert mixed[:, 0, 0, 0].tolist() == pytest.approx([0.3 + 70, 3 + 0.7, 30 + 7])
    expected = [[0.3, 0.7, 0, 0], [0.7, 0, 0, 0.3], [0, 0.3, 0, 0.7]]
    torch.testing.assert_close(targets, torch.tensor(expected))


def test_cutmix_by_area():
    """The share of pixels that come from the neighbour is the weight of the neighbour's label."""
    x = torch.arange(4.0).view(4, 1, 1, 1).expand(4, 3, 8, 8)
    shares = set()
    for seed in range(20):
        mixed, targets = make_mix(classes=4, cutmix=1.0)(x, torch.arange(4), seeded(seed), seeded())
        for n in range(4):
            own, other = (mixed[n] == n).float().mean(), (mixed[n] == (n - 1) % 4).float().mean()
            assert (own + other).item() == pytest.approx(1)
            assert targets[n, n].item() == pytest.approx(own.item(), abs=1e-6)
            assert targets[n, (n - 1) % 4].item() == pytest.approx(other.item(), abs=1e-6)
            shares.add(round(own.item(), 3))
    assert len(shares) > 5


@pytest.mark.parametrize("kind", [dict(mixup=1.0), dict(cutmix=1.0)])
def test_all_frames_of_a_window_are_mixed_alike(kind):
    window = torch.rand(5, 4, 2, 8, 8)
    mix = make_mix(classes=4, **kind)
    mixed, targets = mix(window, torch.arange(4), seeded(3), seeded())
    assert mixed.shape == window.shape
    for t in range(5):
        frame, same = mix(window[t], torch.arange(4), seeded(3), seeded())
        assert torch.equal(mixed[t], frame)
        assert torch.equal(targets, same)


def test_a_share_of_the_batches_is_mixed_by_one_of_the_two():
    x, y = torch.rand(4, 1, 8, 8), torch.arange(4)
    mix = make_mix(classes=4, mixup=1.0, cutmix=1.0, probability=0.5)
    kinds = {"plain": 0, "mixup": 0, "cutmix": 0}
    for seed in range(300):
        mixed, targets = mix(x, y, seeded(seed), seeded())
        assert targets.dtype == torch.float32  # the targets' type does not depend on the draw
        torch.testing.assert_close(targets.sum(1), torch.ones(4))
        if torch.equal(mixed, x):
            kinds["plain"] += 1
        else:
            kinds["cutmix" if ((mixed == x) | (mixed == x.roll(1, 0))).all() else "mixup"] += 1
    assert kinds["plain"] == pytest.approx(150, abs=40)  # some cut nothing out
    assert kinds["mixup"] == pytest.approx(75, abs=30)
    assert kinds["cutmix"] == pytest.approx(75, abs=30)


def test_whole_epochs_are_mixed():
    x, y = torch.rand(4, 1, 8, 8), torch.arange(4)
    mix = make_mix(classes=4, mixup=1.0, probability=0.5, whole_epochs=True)
    mixed = [{bool((mix(x, y, seeded(k), seeded(epoch))[0] != x).any()) for k in range(5)} for epoch in range(60)]
    assert all(len(kinds) == 1 for kinds in mixed)
    assert sum(kinds == {True} for kinds in mixed) == pytest.approx(30, abs=15)


def test_hard_labels_are_those_of_the_larger_part():
    x = torch.arange(4.0).view(4, 1, 1, 1).expand(4, 1, 8, 8)
    for seed in range(20):
        soft, hard = (
            make_mix(classes=4, cutmix=1.0, hard=h)(x, torch.arange(4), seeded(seed), seeded())[1] for h in (False, True)
        )
        assert torch.equal(hard, torch.nn.functional.one_hot(soft.argmax(1), 4).float())
