"""What a trained classifier says of images, recordings and arrays."""

from pathlib import Path
from typing import Any

from staa.runs.classify import Answer
from staa.runs.load import Run, Weights, opened


def predict(
    run: Run | str | Path,
    inputs: Any,
    *,
    top: int = 5,
    steps: int | None = None,
    margin: float | None = None,
    weights: Weights | None = None,
    device: str | None = None,
    trust: bool = False,
) -> list[Answer]:
    """What the network of a run that classifies says of each input, prepared as the run's own data were: `Run.predict`.

        staa.predict("runs/…", ["a.png", "folder"])[0].label

        run = staa.Run("runs/…")                       # the model is loaded once
        for picture in pictures:
            answer = run.predict(picture)[0]           # answer.top, answer.steps, answer.settled

    Args:
        run: A `staa.Run`, or a run folder, which is opened with trust.
        inputs: An input or an iterable of them: a file, or a folder with files at any depth; for a run on images a `PIL.Image`
            or uint8 pixels [H, W, 3] or [H, W]; for one on events `staa.data.Events`, or counts of `run.input_shape`; for any
            run a prepared input, floating-point numbers of `run.input_shape`.
        top: Classes that are told, at least 1; all of them if there are fewer.
        steps: Time steps that the network is given, from 1 to its T; None: T.
        margin: It stops after the first step at which the probability of the class that leads is ahead of the second's by so
            much, above 0 and at most 1; None: it never stops before `steps`.
        weights: "last" epoch or "best" on validation; None: what the test figure was measured with.
        device: Such as "cpu" or "cuda"; None: the GPU if there is one.
        trust: Let Python files in the run folder run, if the run has parts of its own.

    Raises:
        FileNotFoundError: If the run or its weights are missing.
        ValueError: If the run forecasts or is broken; if an option is out of range, or this network can't be stopped; if an
            input is broken, of another kind, size or sensor, or a folder holds none.
        TypeError: If an input is nothing that can be taken.
    """
    return opened(run, trust=trust).predict(inputs, top=top, steps=steps, margin=margin, weights=weights, device=device)
