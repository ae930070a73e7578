"""What is printed, and how."""

import statistics
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NoReturn

import numpy as np
from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.table import Column, Table

from staa.analysis.compare import Row
from staa.analysis.figures import figures_in, shown, told, written
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
EASY, LEAST = 20, 6
"""Width to which a cell may be cut before a column is left out, and beyond which none is."""


def say(*lines: object, style: str | None = None) -> None:
    """Print lines, whatever is in them."""
    for line in lines:
        try:
            out.print(for_terminal(line), style=style)
        except BrokenPipeError:
            raise
        except OSError as error:  # which names nothing
            raise OSError(f"standard output can't be written: {error.strerror or error}") from error


def warn(text: str, kind: Any) -> None:
    """Print a warning of the library, for whoever uses the command with these options."""
    say(f"warning: {in_flags(text, kind)}", style="yellow")


def fitted(columns: Mapping[str, Sequence[str]], *, cut: Sequence[str], spare: Sequence[str] = ()) -> dict[str, list[str]]:
    """Columns of cells by their headers, two apart, as they fit the terminal; elsewhere as they are.

    First the columns of `spare` are left out, one after the other, then the cells of `cut` lose their middle: the widest first.
    """
    found = {header: [for_terminal(cell) for cell in cells] for header, cells in columns.items()}
    if not out.is_terminal:
        return found

    def widths() -> dict[str, int]:
        return {header: max(map(cell_len, (header, *cells))) for header, cells in found.items()}

    for header in spare:
        over = sum(wide + 2 for wide in widths().values()) - 2 - out.width
        if over > sum(max(0, widths()[name] - EASY) for name in cut):
            del found[header]
    wide = widths()
    while (
        sum(width + 2 for width in wide.values()) - 2 > out.width
        and wide[most := max(cut, key=lambda name: wide[name])] > LEAST
    ):
        wide[most] -= 1
    return found | {name: [shortened(cell, wide[name]) for cell in found[name]] for name in cut}


def shortened(text: str, width: int) -> str:
    """Text of at most so many columns, without its middle if it is longer: a path is known by its end."""
    if cell_len(text) <= width:
        return text
    begin = (width - 1) // 2
    return f"{set_cell_size(text, begin)}…{set_cell_size(text[::-1], width - 1 - begin)[::-1]}"


def show(table: Table, rows: Iterable[Iterable[object]], *, narrowest: int = 0) -> None:
    """Print a table of such rows."""
    for row in rows:
        table.add_row(*map(for_terminal, row))
    new_console(width=max(out.width, narrowest)).print(table)


def comparison(rows: list[Row], baselines: Mapping[str, float | None], *, title: str = "") -> tuple[Table, list[list[str]]]:
    """The table, and its rows: the recipes', then those of forecasts that need no network. title: what all rows are of."""
    table = Table(Column(for_terminal(title), no_wrap=True), box=None, pad_edge=False)
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
        reached = written(r.test, form) + ("" if r.spread is None else f" ± {written(r.spread, form.replace('4', '2'))}")
        figures = r.parameters / 1e3, r.macs / 1e6, r.sops / 1e6, r.microjoules, r.samples_per_second, r.kept_mib
        cells.append([r.name, reached, *(f"{x:,.3g}" if x < 1000 else f"{x:,.0f}" for x in figures)])
    for name, value in baselines.items():
        cells.append([name, written(value, shown(rows[0].measure).form), *[""] * 6])
    return table, cells


def against(result: Result) -> list[str]:
    """What trivial forecasts reach on the same windows, and whether one of them does better."""
    baselines = result.details.get("baselines")
    if not baselines:
        return []
    name = figures_in(result.test)[0]
    reached = {title: figures[name] for title, figures in baselines.items() if figures is not None}
    cells = (f"{title} {written(reached.get(title), shown(name).form)}" for title in baselines)
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
        worst = f"lowest {written(min(values), form)}" if shown(name).rises else f"highest {written(max(values), form)}"
        parts.append(f"{told(name, statistics.mean(values), form)} ± {written(spread, form.replace('4', '2'))} ({worst})")
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
        table.add_row(*map(for_terminal, [figures["step"], *(written(figures[name], shown(name).form) for name in names)]))
    return table


BRIEFLY_LEFT_OUT = ("mape", "smape", "wmape", "r2_nodes", "rse")
"""Figures that several seeds are not told by."""


def told_first(figures: Mapping[str, float]) -> str:
    """The figure that counts, in short."""
    name = figures_in(figures)[0]
    return told(name, figures[name], shown(name).form.replace("2%", "1%"))
