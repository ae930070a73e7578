"""digits-events: the 1,797 handwritten digits of scikit-learn seen by a simulated event camera. The events are simulated.

N-MNIST (Orchard et al. 2015) showed images to an event sensor moving along three saccades. `saccade_events` does the
same in a simulation: a real digit (8 × 8; the test part of UCI's optical recognition of handwritten digits, by 13 writers)
moves along the three sides of a triangle before a sensor that reports changes of log intensity. Our split is by sample, so
the same writers are in the training and the test part.
"""

from typing import Any

import numpy as np
import torch

from staa.data.events.frames import as_frames
from staa.data.source import Samples, Source
from staa.data.splits import split_by_hash, split_digest

TEST_SAMPLES = 450


def saccade_events(
    images: np.ndarray,
    *,
    steps: int = 10,
    size: int = 16,
    digit: int = 11,
    amplitude: float = 2.0,
    threshold: float = 0.3,
    samples: int = 90,
) -> np.ndarray:
    """Counts of the events that a simulated event sensor sends before moving images. The events are simulated.

    The image, resized (bilinearly) to digit × digit pixels at the centre of a dark field, moves at constant speed along
    the three sides of an equilateral triangle with corners `amplitude` pixels from the centre, and ends where it began.
    At each of `samples` moments every pixel compares L = log(0.05 + I) with the level L0 it last reported, and sends

        n = ⌊|L − L0| / threshold⌋ events of the sign of L − L0,     L0 ← L0 ± n · threshold

    Moments are binned into T = steps frames of equal duration. There is no noise: the same image gives the same events.

    Args:
        images: Intensities I in [0, 1].
        steps: Frames T, from 1 to samples.
        size: Height and width of the sensor, in pixels.
        digit: Height and width of the image on the sensor, in pixels.
        amplitude: Distance of the triangle's corners from the centre, in pixels.
        threshold: Change of log intensity that sends an event, in natural-log units, above 0.
        samples: Moments that are simulated.

    Shapes:
        images [N, h, w] -> counts uint8 [N, T, 2, size, size], channel 0 ON (brighter) and channel 1 OFF

    Raises:
        ValueError: If images have another rank or range; if steps is not from 1 to samples; if threshold is not positive, or so
            low that a frame's pixel would hold more than 255 events.

    Source:
        The motion is that of N-MNIST (Orchard et al. 2015).
    """
    if images.ndim != 3 or images.min() < 0 or images.max() > 1:
        raise ValueError(
            f"images must be [N, h, w] with values from 0 to 1, got {list(images.shape)}, {images.min()} to {images.max()}"
        )
    if threshold <= 0:
        raise ValueError(f"threshold must be positive, got {threshold}")
    if not 1 <= steps <= samples:
        raise ValueError(f"steps must be from 1 to {samples}, the moments that are simulated; got {steps}")
    times = np.linspace(0, 3, samples + 1)
    angles = np.pi / 2 + np.arange(4) * 2 * np.pi / 3
    path_x = np.interp(times, range(4), amplitude * np.cos(angles))
    path_y = np.interp(times, range(4), amplitude * np.sin(angles))
    level = np.log(0.05 + _look(images, size, digit, path_x[0], path_y[0]))
    frames = np.zeros((len(images), steps, 2, size, size), np.int32)
    for i in range(1, samples + 1):
        change = np.log(0.05 + _look(images, size, digit, path_x[i], path_y[i])) - level
        count = np.trunc(change / threshold)
        level += count * threshold
        frame = frames[:, (i - 1) * steps // samples]
        frame[:, 0] += np.maximum(count, 0).astype(np.int32)
        frame[:, 1] += np.maximum(-count, 0).astype(np.int32)
    if frames.max(initial=0) > 255:
        raise ValueError(
            f"a pixel of a frame can hold 255 events, and threshold={threshold} gives up to {frames.max()}: raise it, or steps"
        )
    return frames.astype(np.uint8)


def _look(images: np.ndarray, size: int, digit: int, dx: float, dy: float) -> np.ndarray:
    """What the sensor sees with the image moved by (dx, dy) pixels: bilinear in rows, then in columns."""
    rows = _interpolation(images.shape[1], size, digit, dy)
    columns = _interpolation(images.shape[2], size, digit, dx)
    return np.matmul(np.matmul(rows, images), columns.T)


def _interpolation(source: int, size: int, digit: int, offset: float) -> np.ndarray:
    """Weights [size, source]: sensor pixel -> source pixels, zero (dark) outside the image."""
    centre = np.arange(size) - (size - 1) / 2 - offset
    position = centre * source / digit + (source - 1) / 2
    return np.maximum(0, 1 - np.abs(position[:, None] - np.arange(source)))


def digits_events(*, steps: int | None, validation: float) -> Source:
    """The data set `digits-events`: 1,797 handwritten digits of scikit-learn before a simulated event camera; 450 of them test.

    The test digits are chosen once and for all by a hash, validation by another one among the rest, both stratified. The split
    is by sample, so the same writers are in every part.

    Args:
        steps: Frames T, from 1 to 90; None: 10.
        validation: Share of the other 1,347 digits held out for validation, at least 0 and below 1.

    Shapes:
        Inputs are [T, N, 2, 16, 16], channel 0 ON (brighter) and channel 1 OFF.

    Raises:
        ValueError: If steps is out of range.

    Source:
        The test part of UCI's optical recognition of handwritten digits, 8 × 8 pixels, by 13 writers.
    """
    from sklearn.datasets import load_digits

    digits: Any = load_digits()
    labels = torch.from_numpy(digits.target.astype(np.int64))
    events = torch.from_numpy(saccade_events(digits.images / 16, steps=steps or 10))
    test, rest = split_by_hash(labels, TEST_SAMPLES, "digits-events test")
    held_out, train = split_by_hash(labels, round(validation * len(rest)), "digits-events validation", among=rest)
    return Source(
        train=Samples(events[train], labels[train]),
        validation=Samples(events[held_out], labels[held_out]) if len(held_out) else None,
        test=Samples(events[test], labels[test]),
        classes=10,
        channels=2,
        size=events.shape[-1],
        prepare=as_frames,
        split=split_digest(train=train, validation=held_out, test=test),
        names=tuple("0123456789"),
    )
