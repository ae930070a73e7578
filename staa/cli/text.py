"""What is printed, and how."""

import statistics
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column, Table

from staa.analysis.compare import Row
from staa.cli.flags import in_flags
from staa.cli.options import TrainOptions
from staa.cli.signals import Signals
from staa.runs.execute import LOG_EVERY
from staa.text import for_terminal
from staa.training.progress import Epoch, Event, Interrupted, Reading, Result, Start, Step, Transfer, Warned


def new_console(**options: Any) -> Console:
    console = Console(highlight=False, markup=False, emoji=False, **options)  # a path may hold [brackets] and :colons:
    console.on_broken_pipe = _cut_off  # else it ends the process itself
    return console


def _cut_off() -> NoReturn:
    raise BrokenPipeError


out = new_console(soft_wrap=True)


def say(*lines: object, style: str | None = None) -> None:
    """Print lines, whatever is in them."""
    for line in lines:
        out.print(for_terminal(line), style=style)


def warn(text: str, kind: Any) -> None:
    """Print a warning of the library, for whoever uses the command with these options."""
    say(f"warning: {in_flags(text, kind)}", style="yellow")


def show(table: Table, rows: Iterable[Iterable[object]], *, narrowest: int = 0) -> None:
    """Print a table of such rows."""
    for row in rows:
        table.add_row(*map(for_terminal, row))
    new_console(width=max(out.width, narrowest)).print(table)


def comparison(rows: list[Row]) -> tuple[Table, list[list[str]]]:
    table = Table(Column("", no_wrap=True), box=None, pad_edge=False)
    for header in (
        "test\naccuracy" if rows[0].measure == "accuracy" else "test\nMAE",
        "thousand\nparameters",
        "MACs\n[M]",
        "SOPs\n[M]",
        "energy\n[µJ]",
        "training\n[1/s]",
        "kept\n[MiB]",
    ):
        table.add_column(header, justify="right", no_wrap=True)
    cells = []
    for r in rows:
        form = ".2%" if r.measure == "accuracy" else ".4g"
        reached = f"{r.test:{form}}" + ("" if r.spread is None else f" ± {r.spread:{form.replace('4', '2')}}")
        figures = r.parameters / 1e3, r.macs / 1e6, r.sops / 1e6, r.microjoules, r.samples_per_second, r.kept_mib
        cells.append([r.name, reached, *(f"{x:,.3g}" if x < 1000 else f"{x:,.0f}" for x in figures)])
    return table, cells


def render(events: Iterator[Event], title: str, folder: Path, signals: Signals) -> Result | None:
    """Show a run's events; returns its result."""
    steps = 0
    texts = (TextColumn(text, markup=False) for text in ("{task.fields[at]} ETA", "{task.fields[figures]}"))
    columns = (BarColumn(12), next(texts), TimeRemainingColumn(), next(texts))
    speed = None
    began = time.perf_counter()
    with Progress(*columns, console=out, transient=True, disable=not out.is_terminal) as progress:
        bar = progress.add_task("", total=None, at="preparing …", figures="")
        for event in events:
            match event:
                case Start(step=step, steps=steps, data=data):
                    signals.training = True
                    say(f"{title} → {folder}" + (f", from step {step}" if step else ""))
                    what = f"{data['classes']} classes; samples" if "classes" in data else f"{data['nodes']} nodes; windows"
                    say(
                        f"{what}: {data['train']} to train, {data['validation']} to validate, {data['test']} to test; "
                        f"{event.parameters:,} parameters"
                    )
                    progress.update(bar, total=steps, completed=step, at=f"{step}/{steps}")
                case Step(step=step, read=None):
                    progress.update(bar, completed=step, at=f"{step}/{steps}")
                case Step(step=step, read=Reading() as read):
                    now = read.samples / read.seconds
                    speed = now if speed is None else 0.9 * speed + 0.1 * now
                    own, rates = read.figures, read.rates
                    main = f"acc {own['accuracy']:.1%}" if "accuracy" in own else f"MAE {own['mae']:.4g}"
                    figures = f"loss {read.loss:.3f} {main} {speed:.0f}/s"
                    firing = f" firing {rates['mean']:.1%} ({rates['lowest']:.1%}–{rates['highest']:.1%})" if rates else ""
                    shown = figures + (firing if out.width >= 100 else "")
                    progress.update(bar, completed=step, at=f"{step}/{steps}", figures=shown)
                    if step % LOG_EVERY == 0:
                        say(f"  step {step:>5}  {figures}{firing}")
                case Transfer():
                    say(*_transfer_lines(event))
                case Warned(text=text):
                    warn(text, TrainOptions)
                case Epoch():
                    say(_epoch_line(event))
                case Interrupted(step=step):
                    say(f"interrupted at step {step}: saved. Go on with: staa train --resume {folder}")
                case Result():
                    took = f" ({time.perf_counter() - began:.0f} s)" if signals.training else ""
                    done = "" if signals.training else f"{title} was already finished, nothing was trained: "
                    say(f"{done}{_result_line(event)}{took} → {folder}", style="bold")
                    if event.protocol == "paper":
                        say(
                            f"best test epoch {event.best_test_accuracy:.2%} (epoch {event.best_test_epoch}), chosen by "
                            f"looking at the test set, as the papers do"
                        )
                    return event
    return None


def over_seeds(results: list[Result]) -> str:
    """Mean ± standard deviation, and the worst."""

    def spread(name: str) -> tuple[float, float, list[float]]:
        values = [result.test[name] for result in results]
        return statistics.mean(values), float(np.std(values, ddof=1)), values  # statistics.stdev takes no NaN

    if "accuracy" in results[0].test:
        mean, deviation, values = spread("accuracy")
        return f"accuracy {mean:.2%} ± {deviation:.2%}, lowest {min(values):.2%}"
    parts = []
    for name, title in (("mae", "MAE"), ("rmse", "RMSE"), ("r2", "R²")):
        mean, deviation, values = spread(name)
        worst = f"lowest {min(values):.4g}" if name == "r2" else f"highest {max(values):.4g}"
        parts.append(f"{title} {mean:.4g} ± {deviation:.2g} ({worst})")
    return ", ".join(parts)


def reached(v: Mapping[str, Any]) -> str:
    """What a part of the data gives: accuracy and loss, or the errors of a forecast, in the series' units and without."""
    if "accuracy" in v:
        return f"accuracy {v['accuracy']:.2%}, loss {v['loss']:.4f}"
    return f"MAE {v['mae']:.4g}, RMSE {v['rmse']:.4g}, MAPE {v['mape']:.1%}, R² {v['r2']:.3f}, RSE {v['rse']:.3f}"


def _transfer_lines(event: Transfer) -> list[str]:
    lines = [f"weights from {event.folder} ({event.recipe}, step {event.step}): {len(event.loaded)} entries loaded"]
    for entries, text in ((event.changed, "changed"), (event.left_out, "left out"), (event.fresh, "new here, starting fresh")):
        if entries:
            lines.append(f"  {text}: {', '.join(entries[:6])}" + (" …" if len(entries) > 6 else ""))
    if not event.same_split:
        lines.append("  it was trained on another split of these data: it may have seen what is validation or test here")
    return lines


def _epoch_line(event: Epoch) -> str:
    def brief(figures: Mapping[str, float]) -> str:
        main = f"accuracy {figures['accuracy']:.1%}" if "accuracy" in figures else f"MAE {figures['mae']:.4g}"
        return f"loss {figures['loss']:.4f}  {main}"

    line = f"epoch {event.epoch:>3}  {brief(event.figures)}"
    if event.measured_on is not None:
        line += f"  {event.measured_on} {brief(event.measured)}" + (" (best)" if event.best else "")
    rates = event.rates.values()
    if rates:
        line += f"  firing {statistics.mean(rates):.1%} ({min(rates):.1%}–{max(rates):.1%})"
    waited = event.waited / event.seconds
    return f"{line}  {event.seconds:.1f} s" + (f", {waited:.0%} waiting for data" if waited >= 0.01 else "")


def _result_line(event: Result) -> str:
    which = f"best weights, epoch {event.best_epoch}" if event.weights == "best" else "last weights"
    return f"test {reached(event.test)} on {event.samples} samples, {which}"
