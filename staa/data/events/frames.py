"""Events to frames: pure functions from a recording's arrays to counts [T, 2, H, W]. No event is lost or counted twice."""

from typing import Literal

import numpy as np
from torch import Tensor

from staa.data.events.recording import Events, Sensor
from staa.files import check_bytes

Values = Literal["sum", "binary", "normalised"]
Fit = Literal["stretch", "keep"]
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


def by_window(t: np.ndarray, window: int, steps: int | None = None, origin: int | None = None) -> np.ndarray:
    """The same for as many windows of `window` µs as it takes: an event at t is in frame ⌊(t − t₀) / window⌋, or, with an
    origin, ⌊(t − origin) / window⌋.

    steps: exactly so many, what comes later left out. Raises UnsuitedError for more than a million, and than there are events;
    ValueError for an event before the origin.
    """
    start = int(t[0]) if origin is None else origin
    if t[0] < start:
        raise ValueError(
            f"the first event is at {t[0]} µs, before the origin of {origin} µs: give an earlier origin, or cut it off"
        )
    count = (int(t[-1]) - start) // window + 1 if steps is None else steps
    if count > max(1_000_000, len(t)):
        raise UnsuitedError(f"{count:,} windows of {window} µs for {len(t):,} events: make the window longer")
    ends = np.arange(1, count + 1, dtype=np.int64) * min(window, LONGEST // count)
    return np.append(0, np.searchsorted(t - start, ends))


def placed(sensor: Sensor, size: tuple[int, int], fit: Fit) -> tuple[tuple[int, int], tuple[int, int]]:
    """The height and width that the sensor takes within frames of this size, and the row and column where it begins: all of
    them, or, of its own shape, as much as goes in, in the middle."""
    (height, width), (h, w) = sensor, size
    if fit == "stretch":
        return size, (0, 0)
    inner = (
        (h, (2 * h * width + height) // (2 * height))
        if h * width <= w * height
        else ((2 * w * height + width) // (2 * width), w)
    )
    inner = max(inner[0], 1), max(inner[1], 1)
    return inner, ((h - inner[0]) // 2, (w - inner[1]) // 2)


def count(events: Events, borders: np.ndarray, *, size: tuple[int, int] | None = None, fit: Fit = "stretch") -> np.ndarray:
    """Events of each polarity and pixel, frame by frame: counts [T, 2, H, W] int32; channel 0 is OFF, channel 1 ON.

    borders [T + 1]: frame k holds events borders[k] … borders[k + 1] − 1. size (h, w): pixel (y, x) of the sensor H × W is
    counted in (⌊y · h / H⌋, ⌊x · w / W⌋), so a smaller frame sums up areas of the sensor and conserves every event. fit: "keep"
    takes as much of h × w as keeps the sensor's shape, in the middle, and leaves the rest empty.

    Raises UnsuitedError if the sensor is not known or smaller than the frame, ValueError for an event outside it, and for
    frames that would take more memory than `staa.files.max_bytes` allows.
    """
    if events.sensor is None:
        raise UnsuitedError(
            "the recording does not say the size of its sensor: give height and width, such as `data.sensor=260x346`"
        )
    height, width = events.sensor
    h, w = size or (height, width)
    inner, (top, left) = placed((height, width), (h, w), fit)
    if not (min(h, w) >= 1 and inner[0] <= height and inner[1] <= width):
        raise UnsuitedError(f"frames can't be larger than the sensor of {height} × {width}, got {h} × {w}: lower `data.size`")
    steps = len(borders) - 1
    check_bytes(2 * h * w * (steps * COUNT_BYTES + BINCOUNT_BYTES), f"{steps} frames of 2 × {h} × {w}")
    row = (np.arange(height) * inner[0] // height + top) * w
    column = np.arange(width) * inner[1] // width + left
    frames = np.empty((steps, 2 * h * w), np.int32)
    for k in range(steps):  # frame by frame it all stays in the cache
        y, x, p = (values[borders[k] : borders[k + 1]] for values in (events.y, events.x, events.p))
        for name, values, limit in (("y", y, height), ("x", x, width), ("p", p, 2)):
            if len(values) and not (values.min() >= 0 and values.max() < limit):
                found = f"{values.min()} to {values.max()}"
                raise ValueError(f"{name} must be from 0 to {limit - 1} (sensor {height} × {width}), got {found}")
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
    origin: int | None = None,
    size: tuple[int, int] | None = None,
    fit: Fit = "stretch",
    values: Values = "sum",
) -> np.ndarray:
    """A recording as frames of counted events, from what `staa.data.read_events` gives to what a network takes.

        to_frames(read_events(path, sensor=(34, 34)), 10)

    With steps, event i of n is in frame ⌊i · T / n⌋ by number, and an event at t in frame ⌊(t − t₀) · T / (t₁ − t₀ + 1)⌋ by
    time, from the first event's t₀ to the last one's t₁; with window, in frame ⌊(t − t₀) / window⌋, t₀ being the origin if
    there is one. No event is lost or counted twice. The events are checked as `staa.data.Events` checks them.

    Args:
        events: A recording that has events, and whose sensor is known.
        steps: Number of frames T, at least 1; None with window.
        by: "number", frames of equal numbers of events, or "time", of equal duration.
        window: Duration of a frame, in microseconds, at least 1: as many frames as it takes; None with steps.
        origin: Time from which windows are counted, in microseconds, not after the first event; None: the first event's.
        size: Height and width (h, w) of the frames, at most the sensor's: pixel (y, x) of a sensor H × W is counted in
            (⌊y · h / H⌋, ⌊x · w / W⌋). None: the sensor's.
        fit: "stretch", the sensor fills a frame of another shape; or "keep", it keeps its shape, in the middle of the frame,
            and the rest is empty.
        values: "sum", counts of events; "binary", 1 if there is an event; or "normalised", counts as a share of the recording's
            largest.

    Shapes:
        Frames are float32 [T, 2, h, w], channel 0 OFF and channel 1 ON.

    Raises:
        ValueError: If not exactly one of steps and window is given, or origin without window; if there are no events, or fewer
            than frames; if they are no such events, such as unsorted times, or begin before the origin; if the sensor is not
            known or smaller than size; if the frames would take more memory than `staa.files.max_bytes` allows.
    """
    if (steps is None) == (window is None):
        raise ValueError(f"give either steps or window, got steps={steps} and window={window}")
    if origin is not None and window is None:
        raise ValueError(f"`origin` is where windows are counted from: give it with window, got origin={origin}")
    if fit not in ("stretch", "keep"):
        raise ValueError(f'fit must be "stretch" or "keep", got {fit!r}')
    if by not in ("number", "time") or values not in ("sum", "binary", "normalised"):
        rule = 'by must be "number" or "time", and values "sum", "binary" or "normalised"'
        raise ValueError(f"{rule}; got {by!r} and {values!r}")
    events = Events(*events)
    borders = borders_of(events, steps, by=by, window=window, origin=origin)
    return scaled(count(events, borders, size=size, fit=fit).astype(np.float32), values)


def borders_of(
    events: Events, steps: int | None, *, by: str = "number", window: int | None = None, origin: int | None = None
) -> np.ndarray:
    """`by_window` if a window is given, else `by_number` or `by_time`. Raises ValueError if frames would be empty."""
    n = len(events.t)
    if (steps is not None and steps < 1) or (window is not None and window < 1):
        raise ValueError(f"steps and window must be at least 1, got {steps} and {window}")
    if n < (steps or 1 if window is None and by == "number" else 1):
        raise ValueError(f"the recording has {n} events, too few for {steps or 1} frames")
    if window is not None:
        return by_window(events.t, window, steps, origin)
    return by_number(n, steps or 1) if by == "number" else by_time(events.t, steps or 1)


def scaled(frames: np.ndarray, values: Values) -> np.ndarray:
    if values == "binary":
        return (frames > 0).astype(frames.dtype)
    return frames / max(frames.max(initial=0), 1) if values == "normalised" else frames


def as_frames(x: Tensor) -> Tensor:
    """Event counts [N, T, 2, H, W] uint8 -> float frames [T, N, 2, H, W]."""
    return x.movedim(1, 0).float()


def as_values(x: Tensor, values: Values) -> Tensor:
    """Event counts [N, T, 2, H, W] -> float frames [T, N, 2, H, W]: as they are, 1 if any, or ÷ the sample's largest."""
    x = as_frames(x)
    if values == "binary":
        return (x > 0).float()
    return x / x.amax((0, 2, 3, 4), keepdim=True).clamp(min=1) if values == "normalised" else x
