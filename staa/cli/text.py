"""What is printed, and how."""

import statistics
from collections.abc import Iterable, Mapping
from typing import Any, NoReturn

import numpy as np
from rich.console import Console
from rich.table import Column, Table

from staa.analysis.compare import Row
from staa.cli.flags import in_flags
from staa.text import for_terminal
from staa.training.progress import Result


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
