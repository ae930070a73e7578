"""Whether the first row of a text file names its columns. Names may be numbers, so numbers alone do not say."""

import re
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import numpy as np

from staa.data.series.dialect import EMPTY, plain

WHOLE = re.compile(r"\d+")
UNLIKELY = 1e-3  # probability, under which whole numbers above others are no measurement
FAR = 10  # times the largest number below
FEW = 4  # columns; fewer may be 0, 1, 2 by measurement


def has_header(
    rows: Sequence[list[str]],
    path: Path,
    *,
    said: str | None,
    expected: Collection[str],
    is_time: Callable[[str], bool],
    is_number: Callable[[str], bool],
    decimal: str,
) -> bool:
    """Whether the first of a text file's rows, all of them without blank ones, is a header.

        not all numbers                                    a header, but for a time before numbers
        numbers, and the next row begins with a time       a header: names that are numbers
        an empty cell, then 0, 1, 2 …                      a header, as pandas writes one; other whole numbers too, if the rows
                                                           below are counted
        0, 1, 2 … over what is not like it                 a header
        whole numbers over what is not like them           can't be known

    Raises ValueError, naming `series.header`, for what can't be known.
    """
    if said is not None:
        return said == "yes"
    first, below = rows[0], rows[1:]
    if expected and set(expected) <= set(first):
        return True
    dated = is_time(first[0])
    cells = first[1:] if dated else first
    if any(cell not in EMPTY and not is_number(cell) for cell in cells):
        return True
    if dated or not below:
        return False
    if is_time(below[0][0]):
        return True
    unnamed = first[0] == "" and len(first) > 1
    names = first[1:] if unnamed else first
    if not all(map(WHOLE.fullmatch, names)) or len(set(names)) < len(names):
        return _progresses(names, below, decimal, path) if len(names) > FEW else False
    counted = names == [str(k) for k in range(len(names))]
    numbers = [[_number(cell, decimal) for cell in row[unnamed : len(first)]] for row in below]
    if unnamed:
        if below[0][0] == "":
            return False
        if counted or _counts([row[0] for row in below]):
            return True
        raise _undecided(path, names)
    if counted:
        if len(names) >= FEW or not _among(names, below, numbers):
            return True
        raise _undecided(path, names)
    known = [x for row in numbers for x in row if np.isfinite(x)]
    if not known:
        return False
    shares = [cell for row in below for cell in row if cell not in EMPTY]
    whole = (1 + sum(WHOLE.fullmatch(cell) is not None for cell in shares)) / (2 + len(shares))
    if whole ** len(names) < UNLIKELY or min(map(int, names)) > FAR * max(map(abs, known)):
        raise _undecided(path, names)
    return False


def _number(cell: str, decimal: str) -> float:
    try:
        return float(plain(cell, decimal))
    except ValueError:
        return float("nan")


def _counts(cells: list[str]) -> bool:
    return any(cells == [str(k + start) for k in range(len(cells))] for start in (0, 1))


def _among(names: list[str], below: Sequence[list[str]], numbers: list[list[float]]) -> bool:
    """Whether 0, 1, 2 could have been measured: all below are whole, and each column comes as low and as high."""
    if not all(WHOLE.fullmatch(cell) for row in below for cell in row if cell not in EMPTY):
        return len(names) == 1
    columns = zip(*(row[: len(names)] for row in numbers if len(row) >= len(names)), strict=True)
    return all(min(column) <= int(name) <= max(column) for name, column in zip(names, columns, strict=False)) or len(names) == 1


def _progresses(names: list[str], below: Sequence[list[str]], decimal: str, path: Path) -> bool:
    """Raises ValueError for a first row of numbers in equal steps, as wavelengths are, over rows that are not. Else False."""
    steps = [np.diff([_number(cell, decimal) for cell in row]) for row in (names, *below[:5])]
    even = [bool(len(s)) and bool(np.isfinite(s).all()) and bool(np.ptp(s) <= 1e-6 * abs(s[0]) and s[0] != 0) for s in steps]
    if even[0] and not any(even[1:]):
        raise _undecided(path, names)
    return False


def _undecided(path: Path, names: list[str]) -> ValueError:
    return ValueError(
        f"{path} begins with {', '.join(names[:3])}{' …' * (len(names) > 3)}, which may be names or measurements: say it with "
        f"`series.header=yes` or no"
    )
