"""A run's events, as they are shown."""

import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from itertools import chain, islice
from pathlib import Path

from staa.analysis.figures import percent
from staa.cli.bar import bar
from staa.cli.signals import Signals
from staa.cli.text import against, out, reached, say, told_first
from staa.cli.waiting import waiting
from staa.runs.execute import LOG_EVERY
from staa.runs.transfer import some
from staa.training.progress import Epoch, Event, Interrupted, Reading, Result, Start, Step, Transfer, Warned

MOST_CAUSES = 6
SAMPLES = {"classes": "samples", "nodes": "windows"}
"""What there are many of in the data, by a fact that is told of them."""


def render(
    events: Iterable[Event], title: str, folder: Path, signals: Signals, *, warn: Callable[[str], object], go_on: str
) -> Result | None:
    """Show a run's events; returns its result, or None if it was interrupted.

    warn: what warnings are told by. go_on: how an interrupted run is gone on with, in the words of whoever began it.
    """
    steps, figures, speed = 0, "", None
    began = time.perf_counter()
    events = iter(events)
    with waiting():
        first = list(islice(events, 1))
    with bar() as tell:
        for event in chain(first, events):
            match event:
                case Start(step=step, steps=steps, data=data):
                    signals.training = True
                    say(f"{title} → {folder}" + (f", from step {step}" if step else ""))
                    what = next((f"{data[fact]} {fact}; {each}" for fact, each in SAMPLES.items() if fact in data), "samples")
                    frozen = "" if event.trained in (0, event.parameters) else f", {event.trained:,} of them trained"
                    say(
                        f"{what}: {data['train']} to train, {data['validation']} to validate, {data['test']} to test; "
                        f"{event.parameters:,} parameters{frozen}"
                    )
                    tell(step, steps, figures)
                case Step(step=step, read=None):
                    tell(step, steps, figures)
                case Step(step=step, read=Reading() as read):
                    now = read.samples / read.seconds
                    speed = now if speed is None else 0.9 * speed + 0.1 * now
                    rates = read.rates
                    told = f"loss {read.loss:.3f} {told_first(read.figures)} {speed:.0f}/s"
                    firing = f" {_firing(rates['mean'], rates['lowest'], rates['highest'])}" if rates else ""
                    figures = told + (firing if out.width >= 100 else "")
                    tell(step, steps, figures)
                    if step % LOG_EVERY == 0:
                        say(f"  step {step:>5}  {told}{firing}")
                case Transfer():
                    say(*_transfer_lines(event))
                case Warned(text=text):
                    warn(text)
                case Epoch():
                    say(_epoch_line(event))
                case Interrupted(step=step):
                    say(f"interrupted at step {step}: saved. Go on with: {go_on}")
                case Result():
                    took = f" ({time.perf_counter() - began:.0f} s)" if signals.training else ""
                    done = "" if signals.training else f"{title} was already finished, nothing was trained: "
                    say(f"{done}{_result_line(event)}{took} → {folder}", style="bold")
                    for line in against(event):
                        say(line, style="yellow" if line.startswith("warning") else None)
                    if event.protocol == "paper":
                        say(
                            f"best test epoch {percent(event.best_test_accuracy, 2)} (epoch {event.best_test_epoch}), "
                            f"chosen by looking at the test set, as the papers do"
                        )
                    return event
    return None


def _transfer_lines(event: Transfer) -> list[str]:
    lines = [f"weights from {event.folder} ({event.recipe}, step {event.step}): {len(event.loaded)} entries loaded"]
    for entries, text in (
        (event.changed, "changed: {}"),
        (event.left_out, f"left out: {'; '.join(event.why[:MOST_CAUSES])}"),
        (event.fresh, "new here, starting fresh: {}"),
    ):
        if entries:
            lines.append(f"  {len(entries)} {text.format(some(entries))}")
    if not event.same_split:
        lines.append("  it was trained on another split of these data: it may have seen what is validation or test here")
    return lines


def _epoch_line(event: Epoch) -> str:
    def brief(figures: Mapping[str, float]) -> str:
        return f"loss {figures['loss']:.4f}  {told_first(figures)}"

    line = f"epoch {event.epoch:>3}  {brief(event.figures)}"
    if event.measured_on is not None:
        line += f"  {event.measured_on} {brief(event.measured)}" + (" (best)" if event.best else "")
    rates = event.rates.values()
    if rates:
        line += f"  {_firing(statistics.mean(rates), min(rates), max(rates))}"
    waited = event.waited / event.seconds
    return f"{line}  {event.seconds:.1f} s" + (f", {percent(waited, 0)} waiting for data" if waited >= 0.01 else "")


def _firing(mean: float, lowest: float, highest: float) -> str:
    return f"firing {percent(mean)} ({percent(lowest)}–{percent(highest)})"


def _result_line(event: Result) -> str:
    which = f"best weights, epoch {event.best_epoch}" if event.weights == "best" else "last weights"
    return f"test {reached(event.test)} on {event.samples} samples, {which}"
