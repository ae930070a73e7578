"""What is read from a file before it is a series: columns of numbers, times and texts, and how to read them."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from staa.data.series.dialect import Decimal, Separator
from staa.registry import did_you_mean, nearest


@dataclass(frozen=True)
class Asked:
    """What the user says of a file, as `staa.data.read_series` takes it."""

    time: str | None = None
    time_format: str | None = None
    zone: str | None = None
    header: Literal["yes", "no"] | None = None
    separator: Separator | None = None
    decimal: Decimal | None = None
    columns: str | Sequence[str] | None = None
    drop: str | Sequence[str] | None = None
    missing: str | float | Sequence[float] | None = None
    id: str | None = None
    value: str | None = None
    channel: int | None = None
    expected: tuple[str, ...] = ()
    """Names that are variates' if the file has them."""


@dataclass
class Table:
    """The columns of a file.

    names: of all columns, "" if one has none; values: the numbers, float64 [n, V]; places: which columns these are; times: a
    DatetimeIndex; time: which column they were, None for a frame's index; texts: others, by column, as categories; named: the
    file names its columns; notes: what to tell.
    """

    names: list[str]
    values: np.ndarray
    places: list[int]
    times: Any = None
    time: int | None = None
    texts: dict[int, Any] = field(default_factory=dict)
    named: bool = True
    notes: list[str] = field(default_factory=list)

    def number(self, name: str) -> int | None:
        """Which column of values is called so."""
        return next((j for j, place in enumerate(self.places) if self.names[place] == name), None)


def listed(names: str | Sequence[str] | None) -> tuple[str, ...]:
    """Names from a text such as north,south, one with a comma in it quoted as in a CSV file; or as they are given."""
    if isinstance(names, str):
        return tuple(name.strip() for name in next(csv.reader([names], skipinitialspace=True), []))
    return tuple(names or ())


def left_out(names: Sequence[str], asked: Asked) -> set[int]:
    """Which columns the user doesn't want. Names that no column has may be those of variates in long format."""
    columns, drop = listed(asked.columns), listed(asked.drop)
    chosen = set(columns) <= set(names)
    return {
        k
        for k, name in enumerate(names)
        if name in drop or (columns and chosen and name not in (*columns, asked.time, asked.id, asked.value))
    }


def place_of(name: str, names: Sequence[str], path: Path, setting: str) -> int:
    """Which column is called so. Raises ValueError with the nearest ones."""
    if name in names:
        return list(names).index(name)
    hint = did_you_mean(nearest(name, names)) or f"it has {', '.join(names[:8])}{' …' * (len(names) > 8)}"
    raise ValueError(f"{path} has no column {name!r} (`{setting}`); {hint}")


def check_names(names: Sequence[str], path: Path) -> None:
    """Raises ValueError for two columns of one name."""
    seen: set[str] = set()
    for name in names:
        if name and name in seen:
            raise ValueError(f"{path} has two columns called {name!r}: give each its own name")
        seen.add(name)
