"""A trained network on a recording as if it came from the camera: windows of events in, a running prediction out."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from staa.build.inputs import of_sensor, sensor_of, told_by
from staa.causality import check_causal
from staa.data.events.folder import parse_sensor
from staa.data.events.frames import by_window, count, scaled
from staa.data.events.read import read_told
from staa.data.events.recording import Events
from staa.machine import choose_device
from staa.runs.load import Run, opened
from staa.streaming import stream

TRAIN = "train a recipe that can be streamed, such as nmnist-stream: `model.steps=None` and `data.frames=window`"


def stream_run(
    run: Run | str | Path,
    recording: Path,
    *,
    window: float | None = None,
    sensor: str | None = None,
    weights: Literal["last", "best"] | None = None,
    device: str | None = None,
    trust: bool = False,
) -> Iterator[dict[str, Any]]:
    """Feed a run's model a recording in windows, as if it came from the camera, and tell what it predicts after each.

    Args:
        run: A `staa.Run`, or a run folder, which is opened with `trust`.
        recording: A file that `staa.data.read_events` reads.
        window: Duration of a window, from 0.001 to a billion milliseconds; None: the recipe's.
        sensor: Size of the sensor, "HEIGHTxWIDTH" in pixels; None: the recording's or the recipe's.
        weights: "last" epoch or "best" on validation; None: what the test figure was measured with.
        device: Such as "cpu" or "cuda"; None: the GPU if there is one.
        trust: Let Python files in the run folder run, if the run has parts of its own.

    Returns:
        For each window a "step": its number from 1, the end [s] of the recording seen, events in the window, prediction, class
        and its probability by the mean over time of the logits so far, and the seconds it took from events to prediction. A
        model built for T steps ends after T windows with "full", and how many windows are left.

    Raises:
        ValueError: If the run was trained on images, on a series, or on frames that a stream can't have; if its network is not
            causal; if a setting is out of range; if the recording is broken or of another sensor.
        OSError: If a file is missing or can't be read.
    """
    run = opened(run, trust=trust)
    recipe, about = run.recipe, run.about
    data = recipe.data
    if "channels" not in about:
        raise ValueError(f"{run.folder} forecasts a series, which can't be streamed: use `staa predict`")
    made = run.preparation
    if made.stored is not None and made.takes is not Events:  # digits-events has two channels too, ON before OFF
        raise ValueError(f"{run.folder} was trained on {made.what}, and a stream takes an event camera's recording: {TRAIN}")
    if about["channels"] != 2:
        raise ValueError(f"{run.folder} was trained on {about['channels']} channels, but events have 2, OFF and ON: {TRAIN}")
    if data.values == "normalised":
        raise ValueError(
            f"{run.folder} was trained on counts as a share of the recording's largest, which a stream can't know: train "
            f"with `data.values=sum`"
        )
    length = data.window if window is None else window
    if length is not None and not 1e-3 <= length <= 1e9:
        raise ValueError(f"`window` must be from 0.001 to a billion ms, got {length} ms")
    chosen = choose_device(device)
    model = run.model(weights).to(chosen)
    try:
        check_causal(model)
    except ValueError as error:
        whole = [module for module in model.modules() if not getattr(module, "causal", True)]
        if "sees the whole window" in str(error) and all(type(module).__module__.startswith("staa.") for module in whole):
            raise ValueError(f"{run.folder} can't be streamed: {error}. What to do: {TRAIN}") from error
        raise
    if length is None or (window is None and data.frames != "window"):
        raise ValueError(
            f"{run.folder} was trained on frames by {data.frames}, which depend on the whole recording: say how many ms a "
            f"`window` has, or {TRAIN}"
        )
    microseconds = round(length * 1000)
    side = about["size"]
    events = of_sensor(
        read_told(recording, None, told_by(recipe)), parse_sensor(sensor) or sensor_of(recipe, about), str(recording)
    )
    if data.size is None and data.fit == "stretch" and events.sensor is not None and events.sensor != (side, side):
        there = f"{events.sensor[0]} × {events.sensor[1]}"
        raise ValueError(f"{recording} is of a sensor of {there}, and {run.folder} was trained on one of {side} × {side}")
    borders = by_window(events.t, microseconds)
    names = run.names
    total, state = torch.zeros(about["classes"], device=chosen), None
    for step in range(1, len(borders)):
        if recipe.model.steps is not None and step > recipe.model.steps:
            yield {"event": "full", "steps": recipe.model.steps, "left": len(borders) - step}
            return
        began = time.perf_counter()
        counts = count(events, borders[step - 1 : step + 1], size=(side, side), fit=data.fit).astype(np.float32)
        logits, state = stream(model, torch.from_numpy(scaled(counts, data.values))[:, None].to(chosen), state)
        total += logits[0, 0]
        probability, prediction = (total / step).softmax(0).max(0)
        yield {
            "event": "step",
            "step": step,
            "end": step * microseconds / 1e6,
            "events": int(borders[step] - borders[step - 1]),
            "prediction": names[int(prediction)],
            "probability": float(probability),
            "seconds": time.perf_counter() - began,
        }
