"""What runs there are."""

import csv
import io
from collections import Counter
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from rich.cells import cell_len, set_cell_size

from staa.cli.options import RunsOptions
from staa.cli.parse import parse
from staa.cli.text import figures_in, fitted, say, shown, told
from staa.cli.waiting import waiting
from staa.files import check_new, save_text
from staa.runs.listing import Listed, runs_in
from staa.text import for_csv

HEADER = ("run", "recipe", "seed", "state", "epoch", "result", "time", "last event")


def runs(args: list[str]) -> int:
    """list run folders"""
    options = parse(RunsOptions, args, "staa runs")
    if options.csv is not None:
        check_new(options.csv)
    folders = options.folders or tuple(folder for folder in [Path("runs")] if folder.exists())
    with waiting("looking for runs"):
        found = sorted(runs_in(folders), key=KEYS[options.sort])
    rows = [row_of(run) for run in found if run.recipe is not None]
    if rows:
        columns = fitted(
            dict(zip(HEADER, zip(*rows, strict=True), strict=True)), cut=HEADER[:2], spare=("last event", "time", "seed")
        )
        lines = [[header, *cells] for header, cells in columns.items()]
        padded = [[set_cell_size(cell, max(map(cell_len, cells))) for cell in cells] for cells in lines]
        for k, row in enumerate(zip(*padded, strict=True)):
            say("  ".join(row).rstrip(), style=None if k else "bold")
    for run in found:
        if run.state == "broken":
            say(f"{run.folder} is broken: {run.problem}", style="yellow")
        elif run.problem:
            say(f"warning: {run.problem}", style="yellow")
    where = ", ".join(map(str, folders)) or "runs, which does not exist"
    counts = [f"{count} {state}" for state, count in Counter(run.state for run in found).items()]
    say(f"{len(found)} runs in {where}: {', '.join(counts)}" if found else f"no run in {where}. First try: staa train")
    if options.csv is not None:
        options.csv.parent.mkdir(parents=True, exist_ok=True)
        save_text(options.csv, table_of(found), new=True)
        say(f"table → {options.csv}")
    return 0


def row_of(found: Listed) -> list[str]:
    """What is shown of a run that is not broken."""
    recipe = found.recipe
    assert recipe is not None
    result = "–" if found.problem else ""
    if names := figures_in(found.figures):
        best = "" if found.state == "finished" else f"best {found.measured_on} "
        result = best + told(names[0], found.figures[names[0]])
    took = "" if found.seconds is None else str(timedelta(seconds=round(found.seconds)))
    when = "" if found.when is None else datetime.fromtimestamp(found.when).strftime("%Y-%m-%d %H:%M")
    epoch = f"{found.epoch}/{recipe.all_epochs}"
    return [str(found.folder), recipe.name, str(recipe.seed), found.state, epoch, result, took, when]


def table_of(found: list[Listed]) -> str:
    """The same as CSV: seconds for the time, the figure with its name, and what is wrong."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    header = ["run", "recipe", "seed", "state", "epoch", "epochs"]
    header += ["measured_on", "figure", "value", "seconds", "last_event", "problem"]
    writer.writerow(map(for_csv, header))
    for run in found:
        name = next(iter(figures_in(run.figures)), "")
        when = "" if run.when is None else datetime.fromtimestamp(run.when).astimezone().isoformat(timespec="seconds")
        cells = [run.folder, "", "", run.state, run.epoch, "", run.measured_on, name, run.figures.get(name, "")]
        if (recipe := run.recipe) is not None:
            cells[1], cells[2], cells[5] = recipe.name, recipe.seed, recipe.all_epochs
        writer.writerow(map(for_csv, [*cells, "" if run.seconds is None else round(run.seconds, 3), when, run.problem]))
    return text.getvalue()


def _result(run: Listed) -> tuple[Any, ...]:
    """By figure, the best one last."""
    name = next(iter(figures_in(run.figures)), "")
    value = run.figures.get(name, 0.0)
    return name, value if shown(name).rises else -value


KEYS: dict[str, Callable[[Listed], Any]] = {
    "last": lambda run: (run.when is not None, run.when or 0.0, str(run.folder)),
    "run": lambda run: str(run.folder),
    "recipe": lambda run: ("", 0) if run.recipe is None else (run.recipe.name, run.recipe.seed),
    "seed": lambda run: -1 if run.recipe is None else run.recipe.seed,
    "state": lambda run: (run.state, run.when or 0.0),
    "result": _result,
    "time": lambda run: run.seconds or 0.0,
}
