"""What is printed, and how."""

import statistics
import sys
from collections.abc import Iterable, Mapping
from typing import Any, NoReturn

import numpy as np
from rich.console import Console
from rich.table import Column, Table

from staa.analysis.compare import Row
from staa.analysis.figures import figures_in, shown, told
from staa.cli.flags import in_flags
from staa.text import for_terminal
from staa.training.progress import Result


def new_console(**options: Any) -> Console:
    # A path may hold [brackets] and :colons:. A notebook says that it is a terminal, but moves no cursor.
    lines = {"force_jupyter": False, "force_terminal": False if in_notebook() else None}
    console = Console(highlight=False, markup=False, emoji=False, **lines, **options)
    console.on_broken_pipe = _cut_off  # else it ends the process itself
    return console


def in_notebook() -> bool:
    """Whether this process is the kernel of a notebook."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    return hasattr(shell, "kernel")


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


def comparison(rows: list[Row], baselines: Mapping[str, float | None]) -> tuple[Table, list[list[str]]]:
    """The table, and its rows: the recipes', then those of forecasts that need no network."""
    table = Table(Column("", no_wrap=True), box=None, pad_edge=False)
    for header in (
        f"test\n{shown(rows[0].measure).name}",
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
        form = shown(r.measure).form
        reached = f"{r.test:{form}}" + ("" if r.spread is None else f" ± {r.spread:{form.replace('4', '2')}}")
        figures = r.parameters / 1e3, r.macs / 1e6, r.sops / 1e6, r.microjoules, r.samples_per_second, r.kept_mib
        cells.append([r.name, reached, *(f"{x:,.3g}" if x < 1000 else f"{x:,.0f}" for x in figures)])
    for name, value in baselines.items():
        reached = "n/a" if value is None else f"{value:{shown(rows[0].measure).form}}"
        cells.append([name, reached, *[""] * 6])
    return table, cells


def against(result: Result) -> list[str]:
    """What trivial forecasts reach on the same windows, and whether one of them does better."""
    baselines = result.details.get("baselines")
    if not baselines:
        return []
    name = figures_in(result.test)[0]
    reached = {title: figures[name] for title, figures in baselines.items() if figures is not None}
    cells = (f"{title} {reached[title]:{shown(name).form}}" if title in reached else f"{title} n/a" for title in baselines)
    lines = [f"on the same windows, {shown(name).name}: {', '.join(cells)}"]
    best = min(reached, key=lambda title: reached[title])
    if reached[best] < result.test[name]:
        lines.append(f"warning: {best} does better than this network")
    return lines


def over_seeds(results: list[Result]) -> str:
    """Mean ± standard deviation, and the worst."""
    parts = []
    for name in (name for name in figures_in(results[0].test) if name not in BRIEFLY_LEFT_OUT):
        form = ".2%" if "%" in shown(name).form else ".4g"
        values = [result.test[name] for result in results]
        spread = float(np.std(values, ddof=1))  # statistics.stdev takes no NaN
        worst = f"lowest {min(values):{form}}" if shown(name).rises else f"highest {max(values):{form}}"
        parts.append(f"{told(name, statistics.mean(values), form)} ± {spread:{form.replace('4', '2')}} ({worst})")
    return ", ".join(parts)


def reached(figures: Mapping[str, Any]) -> str:
    """What a part of the data gives: its figures, and the loss beside a single one."""
    names = figures_in(figures)
    return ", ".join(told(name, figures[name]) for name in (names if len(names) > 1 else [*names, "loss"]))


def horizons(curve: list[dict[str, float]]) -> Table:
    """A table of the figures of each step ahead, those of an interval among them."""
    names = [name for name in ("mae", "rmse", "coverage", "width") if name in curve[0]]
    table = Table(box=None, pad_edge=False)
    for header in ("step", *(shown(name).name for name in names)):
        table.add_column(header, justify="right", no_wrap=True)
    for figures in curve:
        table.add_row(*map(for_terminal, [figures["step"], *(f"{figures[name]:{shown(name).form}}" for name in names)]))
    return table


BRIEFLY_LEFT_OUT = ("mape", "smape", "wmape", "r2_nodes", "rse")
"""Figures that several seeds are not told by."""


def told_first(figures: Mapping[str, float]) -> str:
    """The figure that counts, in short."""
    name = figures_in(figures)[0]
    return told(name, figures[name], shown(name).form.replace("2%", "1%"))
