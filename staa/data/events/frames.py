"""Events to frames: pure functions from a recording's arrays to counts [T, 2, H, W]. No event is lost or counted twice."""

from typing import Literal

import numpy as np
from torch import Tensor

from staa.data.events.recording import Events
from staa.files import check_bytes

Values = Literal["sum", "binary", "normalised"]
LONGEST = (1 << 63) - 1  # of a time in µs
COUNT_BYTES = 12  # of each count: int32, as float32, and that scaled
BINCOUNT_BYTES = 8  # of each count of the frame at work


class UnsuitedError(ValueError):
    """A setting does not suit a recording that is whole."""


def by_number(n: int, steps: int) -> np.ndarray:
    """Where the frames begin and end among n events, [steps + 1]: event i is in frame ⌊i · T / n⌋.

    Most papers cut by number, many of them with SpikingJelly, whose last frame takes what n // T leaves over too.
    """
    return -(-np.arange(steps + 1, dtype=np.int64) * n // steps)


def by_time(t: np.ndarray, steps: int) -> np.ndarray:
    """The same for frames of equal duration: an event at t [µs] is in frame ⌊(t − t₀) · T / (t₁ − t₀ + 1)⌋, t₁ the last."""
    whole, rest = divmod(int(t[-1]) - int(t[0]) + 1, steps)
    k = np.arange(steps, dtype=np.int64)
    begins = int(t[0]) + k * whole - (-k * rest // steps)  # ⌈k · span / T⌉, in numbers that can't overflow
    return np.append(np.searchsorted(t, begins), len(t))


def by_window(t: np.ndarray, window: int, steps: int | None = None) -> np.ndarray:
    """The same for as many windows of `window` µs as it takes: an event at t is in frame ⌊(t − t₀) / window⌋.

    steps: exactly so many, what comes later left out. Raises UnsuitedError for more than a million, and than events.
    """
    count = (int(t[-1]) - int(t[0])) // window + 1 if steps is None else steps
    if count > max(1_000_000, len(t)):
        raise UnsuitedError(f"{count:,} windows of {window} µs for {len(t):,} events: make the window longer")
    ends = np.arange(1, count + 1, dtype=np.int64) * min(window, LONGEST // count)
    return np.append(0, np.searchsorted(t - t[0], ends))


def count(events: Events, borders: np.ndarray, *, size: tuple[int, int] | None = None) -> np.ndarray:
    """Events of each polarity and pixel, frame by frame: counts [T, 2, H, W] int32; channel 0 is OFF, channel 1 ON.

    borders [T + 1]: frame k holds events borders[k] … borders[k + 1] − 1. size (h, w): pixel (y, x) of the sensor H × W is
    counted in (⌊y · h / H⌋, ⌊x · w / W⌋), so a smaller frame sums up areas of the sensor and conserves every event.

    Raises UnsuitedError if the sensor is not known or smaller than the frame, ValueError for an event outside it, and for
    frames that would take more memory than `staa.files.max_bytes` allows.
    """
    if events.sensor is None:
        raise UnsuitedError(
            "the recording does not say the size of its sensor: give height and width, such as `data.sensor=260x346`"
        )
    height, width = events.sensor
    h, w = size or (height, width)
    if not (1 <= h <= height and 1 <= w <= width):
        raise UnsuitedError(f"frames of {h} × {w} can't be made from a sensor of {height} × {width}: only smaller ones can")
    steps = len(borders) - 1
    check_bytes(2 * h * w * (steps * COUNT_BYTES + BINCOUNT_BYTES), f"{steps} frames of 2 × {h} × {w}")
    row, column = np.arange(height) * h // height * w, np.arange(width) * w // width
    frames = np.empty((steps, 2 * h * w), np.int32)
    for k in range(steps):  # frame by frame it all stays in the cache
        y, x, p = (values[borders[k] : borders[k + 1]] for values in (events.y, events.x, events.p))
        for name, values, limit in (("y", y, height), ("x", x, width), ("p", p, 2)):
            if len(values) and not (values.min() >= 0 and values.max() < limit):
                found = f"{name} from {values.min()} to {values.max()}"
                raise ValueError(f"{found} is outside 0 … {limit - 1} (sensor {height} × {width})")
        pixel = np.multiply(p, h * w, dtype=np.intp)
        pixel += y * np.intp(w) + x if (h, w) == (height, width) else row[y] + column[x]
        frames[k] = np.bincount(pixel, minlength=2 * h * w)
    return frames.reshape(-1, 2, h, w)


def to_frames(
    events: Events,
    steps: int | None = None,
    *,
    by: Literal["number", "time"] = "number",
    window: int | None = None,
    size: tuple[int, int] | None = None,
    values: Values = "sum",
) -> np.ndarray:
    """A recording as frames [T, 2, H, W] float32, from `read_events` to what a network takes.

        to_frames(read_events(path, sensor=(34, 34)), 10)

    steps: T frames of equal numbers of events (`by_number`) or of equal duration (`by_time`); or window: as many of so many µs
    as it takes (`by_window`). size: as in `count`. values: counts, 1 where there is an event, or counts as a share of the
    recording's largest. Raises ValueError for no events, fewer events than steps, or not exactly one of steps and window.
    """
    if (steps is None) == (window is None):
        raise ValueError(f"give either steps or window, got steps={steps} and window={window}")
    if by not in ("number", "time") or values not in ("sum", "binary", "normalised"):
        raise ValueError(f'by is "number" or "time" and values "sum", "binary" or "normalised"; got {by!r} and {values!r}')
    return scaled(count(events, borders_of(events, steps, by=by, window=window), size=size).astype(np.float32), values)


def borders_of(events: Events, steps: int | None, *, by: str = "number", window: int | None = None) -> np.ndarray:
    """`by_window` where a window is given, else `by_number` or `by_time`. Raises ValueError where frames would be empty."""
    n = len(events.t)
    if (steps is not None and steps < 1) or (window is not None and window < 1):
        raise ValueError(f"steps and window must be at least 1, got {steps} and {window}")
    if n < (steps or 1 if window is None and by == "number" else 1):
        raise ValueError(f"the recording has {n} events, too few for {steps or 1} frames")
    if window is not None:
        return by_window(events.t, window, steps)
    return by_number(n, steps or 1) if by == "number" else by_time(events.t, steps or 1)


def scaled(frames: np.ndarray, values: Values) -> np.ndarray:
    if values == "binary":
        return (frames > 0).astype(frames.dtype)
    return frames / max(frames.max(initial=0), 1) if values == "normalised" else frames


def as_frames(x: Tensor) -> Tensor:
    """Event counts [N, T, 2, H, W] uint8 -> float frames [T, N, 2, H, W]."""
    return x.movedim(1, 0).float()


def as_values(x: Tensor, values: Values) -> Tensor:
    """Event counts [N, T, 2, H, W] -> float frames [T, N, 2, H, W]: as they are, 1 where any, or ÷ the sample's largest."""
    x = as_frames(x)
    if values == "binary":
        return (x > 0).float()
    return x / x.amax((0, 2, 3, 4), keepdim=True).clamp(min=1) if values == "normalised" else x
