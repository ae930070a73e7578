"""A trained classifier on new inputs: what it says of each, and after how many steps."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from staa.build.inputs import Preparation
from staa.causality import check_causal
from staa.counting import counted
from staa.data.class_folders import files_in
from staa.data.events.recording import Events
from staa.streaming import stream
from staa.training.evaluate import autocast, evaluation_mode
from staa.training.metrics import leading, running_means

AT_ONCE = 32  # inputs of a batch, if they are small
BATCH_BYTES = 2**28
SINGLE = (str, Path, Image.Image, np.ndarray, Tensor, Events)


class Answer(NamedTuple):
    """What a network says of an input.

    Args:
        input: Its file, or "input 3" for the third without one.
        top: The likeliest classes, each with its probability, the likeliest first.
        steps: Time steps that the network was given.
        settled: The first step from which on the class that leads stayed the same.
    """

    input: str
    top: tuple[tuple[str, float], ...]
    steps: int
    settled: int

    @property
    def label(self) -> str:
        """The likeliest class."""
        return self.top[0][0]

    @property
    def probability(self) -> float:
        """Its probability."""
        return self.top[0][1]


class Refused(NamedTuple):
    """An input that can't be taken, and why.

    Args:
        input: What it is called, as in an `Answer`.
        error: A ValueError, OSError, TypeError or ImportError.
    """

    input: str
    error: Exception


def classify(
    model: nn.Module,
    preparation: Preparation,
    names: tuple[str, ...],
    inputs: Any,
    *,
    top: int = 5,
    steps: int | None = None,
    margin: float | None = None,
    device: torch.device | str = "cpu",
    precision: str = "float32",
) -> Iterator[Answer | Refused]:
    """What a network says of each input, in order, as `staa.runs.Run.predict` describes it; what can't be taken stops nothing.

    Args:
        model: A classifier, on the device.
        preparation: How its inputs are made.
        names: Of its classes.
        inputs: One input, or an iterable of them.
        top: Classes that are told, at least 1.
        steps: Time steps that the network is given; None: all.
        margin: The margin at which it stops; None: none.
        device: Where the model is.
        precision: "float32", or "bfloat16" autocast.

    Raises:
        ValueError: If an option is out of range, or this network can't be stopped early.
    """
    check_asked(preparation, top=top, steps=steps, margin=margin)
    most = preparation.steps
    early = margin is not None or steps not in (None, most)
    if early:
        check_can_stop(model, preparation)
    stop = _Stop(steps or most or 1, margin, early)
    size = 4 * int(np.prod(preparation.shape))
    at_once = 1 if margin is not None else max(1, min(AT_ONCE, BATCH_BYTES // size))
    device = torch.device(device)
    return _answers(model, preparation, stop, names, inputs, min(top, len(names)), at_once, device, precision)


def check_asked(preparation: Preparation, *, top: int, steps: int | None, margin: float | None) -> None:
    """Raises ValueError for what no network answers, as `classify` does, which takes the same."""
    if top < 1:
        raise ValueError(f"`top` must be at least 1, got {top}")
    if margin is not None and not 0 < margin <= 1:
        raise ValueError(f"`margin` must be above 0 and at most 1, a difference of two probabilities; got {margin}")
    most = preparation.steps
    if steps is not None and not 1 <= steps <= (most or steps):
        raise ValueError(f"`steps` must be from 1 to {most}, the steps that the network was trained with; got {steps}")
    if margin is not None and steps is None and most is None:
        raise ValueError("this network has no number of steps of its own: give `steps` beside `margin`")


def check_can_stop(model: nn.Module, preparation: Preparation) -> None:
    """Raises ValueError if what a network says after some steps of this kind of input rests on the later ones."""
    if preparation.whole is not None:
        raise ValueError(f"{preparation.whole}: leave out `steps` and `margin`")
    if not preparation.frames and (why := sees_the_whole(model)) is not None:
        raise ValueError(
            f"of a still image, this network can't be stopped early: {why.partition(', so it')[0]}. What it says at a step "
            f"would rest on steps that it had not made: leave out `steps` and `margin`, or train with attention that looks "
            f"back alone, such as `model.attention=gc-pe`"
        )


def sees_the_whole(model: nn.Module) -> str | None:
    """Why a network can't be given one step after the other; None if it can.

    Args:
        model: Any module.
    """
    try:
        check_causal(model)
    except ValueError as error:
        return str(error)
    return None


def by_step(model: nn.Module, x: Tensor, *, frames: bool, steps: int) -> Iterator[Tensor]:
    """The mean logits of the steps so far, after each step, of a network that knows no more than those steps.

    A causal network is given one step after the other: what is not asked for is not computed. Any other is given the frames so
    far with empty ones after them, anew at each step.

    Args:
        model: In evaluation mode.
        x: Frames, or still images, which only a causal network takes.
        frames: Whether x are frames.
        steps: How many steps at most.

    Shapes:
        x [T, N, C, H, W] or [N, C, H, W] -> [N, classes], `steps` times
    """
    if sees_the_whole(model) is None:
        total, state = torch.zeros((), device=x.device), None
        for t in range(steps):
            logits, state = stream(model, x[t : t + 1] if frames else x[None], state)
            total = total + logits[0].float()
            yield total / (t + 1)
        return
    seen = torch.zeros_like(x)
    for t in range(steps):
        seen[t] = x[t]
        yield model(seen)[: t + 1].mean(0, dtype=torch.float32)


class _Stop(NamedTuple):
    """How many steps are made at most, the margin at which there are fewer, and whether any are left out."""

    steps: int
    margin: float | None
    early: bool


def _decide(model: nn.Module, x: Tensor, stop: _Stop, *, frames: bool) -> tuple[Tensor, Tensor]:
    """(the mean logits [N, classes] at the end, the class that leads after each step [t, N]); with a margin, of one input."""
    if stop.margin is not None:
        leaders = []
        for means in by_step(model, x, frames=frames, steps=stop.steps):
            leader, ahead = leading(means)
            leaders.append(leader)
            if float(ahead) >= stop.margin:
                break
        return means, torch.stack(leaders)
    if not stop.early:
        logits = model(x)
    elif sees_the_whole(model) is None:
        logits, _ = stream(model, x[: stop.steps] if frames else x.expand(stop.steps, *x.shape))
    else:
        seen = torch.zeros_like(x)
        seen[: stop.steps] = x[: stop.steps]
        logits = model(seen)[: stop.steps]
    means = running_means(logits)
    return means[-1], leading(means)[0]


def settled_at(leaders: Tensor) -> Tensor:
    """The first step, from 1, from which on the class that leads stays the same.

    Args:
        leaders: The class that leads after each step.

    Shapes:
        leaders [T, N] -> [N]
    """
    return len(leaders) + 1 - (leaders == leaders[-1]).flip(0).cumprod(0).sum(0)


def _answers(
    model: nn.Module, preparation: Preparation, stop: _Stop, names: tuple[str, ...], inputs: Any, top: int, at_once: int,
    device: torch.device, precision: str,
) -> Iterator[Answer | Refused]:  # fmt: skip
    def answer(batch: list[tuple[str, Tensor]]) -> list[Answer]:
        if not batch:
            return []
        x = preparation.together([x for _, x in batch]).to(device)
        with evaluation_mode(model), torch.inference_mode(), autocast(device, precision):
            means, leaders = _decide(model, x, stop, frames=preparation.frames)
            found = means.float().softmax(-1).topk(top, -1)
            each = zip(batch, found.values.tolist(), found.indices.tolist(), settled_at(leaders).tolist(), strict=True)
        return [
            Answer(name, tuple((names[c], p) for p, c in zip(shares, classes, strict=True)), len(leaders), at)
            for (name, _), shares, classes, at in each
        ]

    given = _each(inputs, preparation)
    if isinstance(inputs, Sequence):
        given = list(given)  # how many files are in its folders
    waiting: list[tuple[str, Tensor] | Refused] = []
    for name, one in counted(given, "classifying", len(given) if isinstance(given, list) else None):
        waiting.append(one if isinstance(one, Refused) else _taken(one, name, preparation))
        if len(waiting) == at_once:
            yield from _in_order(waiting, answer([one for one in waiting if not isinstance(one, Refused)]))
            waiting = []
    yield from _in_order(waiting, answer([one for one in waiting if not isinstance(one, Refused)]))


def _in_order(waiting: list[tuple[str, Tensor] | Refused], answers: list[Answer]) -> Iterator[Answer | Refused]:
    rest = iter(answers)
    for one in waiting:
        yield one if isinstance(one, Refused) else next(rest)


def _taken(one: Any, name: str, preparation: Preparation) -> tuple[str, Tensor] | Refused:
    try:
        return name, preparation.read(one) if isinstance(one, Path) else preparation.take(one, name)
    except (ValueError, OSError, TypeError, ImportError) as error:
        return Refused(name, error)


def passed_over(inputs: Iterable[Any], preparation: Preparation) -> int:
    """How many files in the folders among these inputs are none of the inputs, by the endings of their names."""
    folders = [Path(one) for one in inputs if isinstance(one, str | Path) and Path(one).is_dir()]
    counts = [(len(files_in(folder, preparation.endings)), len(files_in(folder))) for folder in folders]
    return sum(every - taken for taken, every in counts if taken)  # a folder that holds none is refused


def _each(inputs: Any, preparation: Preparation) -> Iterator[tuple[str, Any]]:
    """(what it is called, the input) of each, the files of folders among them."""
    if not isinstance(inputs, SINGLE) and not isinstance(inputs, Iterable):
        raise TypeError(f"`inputs` must be an input or an iterable of them, got {type(inputs).__name__}")
    for i, one in enumerate([inputs] if isinstance(inputs, SINGLE) else inputs, 1):
        if not isinstance(one, str | Path):
            yield f"input {i}", one
            continue
        path = Path(one)
        if not path.is_dir():
            yield str(path), path
            continue
        files = sorted(files_in(path, preparation.endings)) if preparation.endings else []
        yield from ((file, Path(file)) for file in files)
        if not files:
            told = f"{path} holds no {preparation.what}" + f" ({', '.join(preparation.endings)})" * bool(preparation.endings)
            yield str(path), Refused(str(path), ValueError(told))
