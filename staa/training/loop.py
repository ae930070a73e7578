"""The training loop. It prints nothing: it yields events as it goes."""

import math
import random
import time
from collections.abc import Callable, Generator, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from staa.rates import rate_warnings, summary
from staa.training.checkpoint import BEST
from staa.training.evaluate import Epochs, Inputs, evaluate
from staa.training.learner import Learner
from staa.training.named import set_training
from staa.training.progress import End, Epoch, Event, Interrupted, Reading, Start, Step, Warned, for_log
from staa.training.settings import Settings
from staa.training.step import Descend, check_compile, descent, fast_arithmetic
from staa.training.together import check_together, descent_together
from staa.training.weights import check_savable, save_weights

RATE_EVERY = 10  # steps between measurements of the firing rates, and between looks at whether the gradients were finite


def train(
    learner: Learner,
    batches: Epochs,
    *,
    settings: Settings,
    validation: Epochs | None = None,
    state: dict[str, Any] | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> Iterator[Event]:
    """Train, yielding an event after each step and epoch (`staa.training.progress`).

    Every random number of step k follows from (seed, k), and every batch from its own seed, so a run resumed from a
    checkpoint is bit-equal on the CPU to one that never stopped. A checkpoint is written at the start, after each epoch
    (validation first), when the last one is `save_every` seconds old, and when stop() says so after a step.
    best.safetensors holds the weights of the epoch with the best validation by the measure's score.

    state: a loaded checkpoint of the same network and settings to go on from.

    In several processes (`Settings.part`, `Learner.group`) each takes its part of a batch, and all decide alike: gradients,
    losses, figures and firing rates are of the whole batch. When to stop or save is looked at after each step; any may ask to
    stop, and the first one's clock counts.

    A step reads nothing from the device but every `read_every` steps, at an epoch's end and before a checkpoint. Each loss is
    looked at when it is read, the gradients every ten steps and before each checkpoint. Nothing that is not finite is saved,
    so a run resumes from its last good checkpoint. On CUDA, `fast_arithmetic` holds in a step.

    Raises FloatingPointError if the loss, a gradient or a weight is not finite, ValueError for another network's checkpoint, a
    network that a checkpoint can't hold and what `check_compile` refuses, and RuntimeError if a checkpoint can't be written or
    a step not be recorded; the last good checkpoint is kept in each case.
    """
    check_savable(learner.model)
    check_compile(settings.compile, learner.device, penalty=settings.penalty is not None)
    check_together(settings.compile, learner.group)
    if state is not None and state["step"] > settings.steps:
        raise ValueError(
            f"the checkpoint for {learner.folder} is of step {state['step']}, training ends at step {settings.steps}: take "
            f"another"
        )
    if state is None:
        learner.save()
    else:
        learner.load(state)
    together = settings.part is not None and settings.steps > 0
    descend = descent_together(learner.model, settings) if together else descent(learner.model, settings)

    yield Start(learner.step, learner.step // len(batches) + 1, settings.steps, len(batches))
    while not is_over(learner, batches, settings):
        if not (yield from epoch(learner, batches, descend, settings, validation, stop)):
            return
        if not is_over(learner, batches, settings) and learner.group.anywhere(stop())[0]:
            yield Interrupted(learner.step, learner.epoch)
            return
    best = learner.best if learner.best_epoch else None
    yield End(learner.step, math.ceil(learner.step / len(batches)), best, learner.best_epoch)


def is_over(learner: Learner, batches: Epochs, settings: Settings) -> bool:
    """Whether all steps are taken, or patience has run out at an epoch's end."""
    epochs, more = divmod(learner.step, len(batches))
    patience = math.inf if settings.patience is None or more else settings.patience
    return learner.step >= settings.steps or epochs - learner.best_epoch >= patience


def epoch(
    learner: Learner,
    batches: Epochs,
    descend: Descend,
    settings: Settings,
    validation: Epochs | None,
    stop: Callable[[], bool],
) -> Generator[Event, None, bool]:
    """What is left of an epoch, step by step, then its figures. Returns whether it came to its end and was not stopped."""
    number, done = divmod(learner.step, len(batches))
    learner.epoch, end = number + 1, min(settings.steps, (number + 1) * len(batches))
    read_every = settings.read_every or (1 if learner.device.type == "cpu" else RATE_EVERY)
    started = saved = began = time.perf_counter()
    waited = seconds = 0.0
    samples = 0
    set_training(learner.model, learner.still)
    for x, y in batches.epoch(number, done):
        waited += time.perf_counter() - began
        lr = step(learner, x, y, descend, settings)
        loss = learner.read() if learner.step == end or learner.step % read_every == 0 else None
        if learner.step % RATE_EVERY == 0:
            learner.check_gradients()
        samples += len(y) if settings.part is None else settings.part.whole
        seconds += time.perf_counter() - began
        if loss is None:
            yield Step(learner.step, learner.epoch, lr)
        else:
            read = Reading(figures(learner, settings), loss, samples, seconds, summary(learner.rates))
            yield Step(learner.step, learner.epoch, lr, read)
            samples, seconds = 0, 0.0
        if number == 0 and learner.step == min(end, 10 * RATE_EVERY):
            for text in rate_warnings(learner.rates):
                yield Warned(learner.step, learner.epoch, text)
        if learner.step == end:
            break
        due = learner.group.first and time.perf_counter() - saved >= settings.save_every
        stopped, due = learner.group.anywhere(stop(), due)
        if stopped:
            learner.save()
            yield Interrupted(learner.step, learner.epoch)
            return False
        if due:
            learner.save()
            saved = time.perf_counter()
        began = time.perf_counter()
    yield close_epoch(learner, settings, validation, started=started, waited=waited)
    return True


def step(learner: Learner, x: Inputs, y: Tensor, descend: Descend, settings: Settings) -> float:
    """A step of the optimizer on a batch; returns its learning rate. Nothing is read from the device."""
    torch.manual_seed(random.Random(f"{settings.seed} step {learner.step}").getrandbits(63))
    learner.optimizer.zero_grad()
    with fast_arithmetic(learner.device):
        found = descend(x, y, learner.step % RATE_EVERY == 0)
    if settings.clip is None:
        gradients = [p.grad for p in learner.model.parameters() if p.grad is not None]
        norm = nn.utils.get_total_norm(gradients, math.inf)
    else:
        norm = nn.utils.clip_grad_norm_(learner.model.parameters(), settings.clip)
    lr = float(learner.schedule.get_last_lr()[0])
    learner.advance(found, norm)
    return lr


def close_epoch(learner: Learner, settings: Settings, validation: Epochs | None, *, started: float, waited: float) -> Epoch:
    """Measure, keep the best weights and write a checkpoint."""
    learner.check_finite()
    measured, best = {}, False
    if validation is not None:
        learner.align()
        measured = evaluate(
            learner.measured, validation, measure=settings.measure, precision=settings.precision, group=learner.group
        )
        best = settings.measure.score(measured) > learner.best
    if best:
        learner.best, learner.best_epoch = settings.measure.score(measured), learner.epoch
        if learner.group.first:
            save_weights(learner.folder / BEST, learner.measured)
    ended = Epoch(
        learner.step,
        learner.epoch,
        figures(learner, settings),
        {name: total / count for name, (total, count) in learner.rates.items()},
        seconds=time.perf_counter() - started,
        waited=waited,
        measured_on=None if validation is None else settings.measured_on,
        measured=measured,
        best=best,
        best_epoch=learner.best_epoch,
    )
    learner.report = for_log(ended)
    learner.begin_epoch()
    learner.save()
    return ended


def figures(learner: Learner, settings: Settings) -> dict[str, float]:
    """The epoch's so far, read from the device."""
    return settings.measure.figures(learner.sums.cpu())
