"""How a text file writes a table: what stands between its columns, and before the fraction of a number."""

import csv
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

Separator = Literal["comma", "semicolon", "tab", "bar", "space"]
Decimal = Literal["point", "comma"]
SEPARATORS: dict[str, str] = {"comma": ",", "semicolon": ";", "tab": "\t", "bar": "|", "space": " "}
PLURAL = {"comma": "commas", "semicolon": "semicolons", "tab": "tabs", "bar": "bars", "space": "spaces"}
EMPTY = {"", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A", "NA"}
EMPTY |= {"NULL", "NaN", "None", "n/a", "nan", "null"}
"""What pandas takes for an empty cell."""
NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?|[-+]?inf(inity)?", re.IGNORECASE)
SNIFFED = 100  # rows that are looked at


class Dialect(NamedTuple):
    separator: str
    decimal: str

    def is_number(self, cell: str) -> bool:
        return NUMBER.fullmatch(plain(cell, self.decimal)) is not None

    def rows(self, lines: Iterable[str]) -> Iterable[list[str]]:
        """The cells of each line, without the spaces around them."""
        if self.separator == " ":
            return (line.split() for line in lines)
        return ([cell.strip() for cell in row] for row in csv.reader(lines, delimiter=self.separator, skipinitialspace=True))


def plain(cell: str, decimal: str) -> str:
    """A number with a point before its fraction and nothing between thousands, if it is written so; else the cell itself."""
    between = "." if decimal == "," else ","
    if in_thousands(cell, between, decimal):
        cell = cell.replace(between, "")
    if decimal == ".":
        return cell
    return cell.replace(",", ".") if "." not in cell else "?"  # 1.5 is no number with a decimal comma


def in_thousands(cell: str, between: str, decimal: str) -> bool:
    """Whether a number is written as 1.234.567 or 1.234,5 is, with these signs."""
    return re.fullmatch(rf"[-+]?[1-9]\d{{0,2}}({re.escape(between)}\d{{3}})+({re.escape(decimal)}\d*)?", cell) is not None


def dialect_of(
    lines: Sequence[str], path: Path, separator: Separator | None, decimal: Decimal | None
) -> tuple[Dialect, tuple[str, ...]]:
    """The dialect of a file's first lines, and what to tell of it. What is said is taken; what is not is recognised only if
    nothing else fits. Raises ValueError, naming `series.separator` or `series.decimal`, if more than one does."""
    lines = [line for line in lines if line.strip()][:SNIFFED]
    between = SEPARATORS[separator] if separator else _separator(lines, path)
    dialect = Dialect(between, ".")
    rows = list(dialect.rows(lines))
    cells = [cell for row in rows for cell in row if any(NUMBER.fullmatch(plain(cell, sign)) for sign in ".,")]
    fraction = {"point": ".", "comma": ","}[decimal] if decimal else _decimal(cells, between, path)
    notes = []
    name = next(word for word, sign in SEPARATORS.items() if sign == between)
    if name != "comma" and separator is None:
        notes.append(f"read with {PLURAL[name]} between its columns")
    if fraction == "," and decimal is None:
        notes.append("numbers are read with a decimal comma, as 1,5 for one and a half")
    return Dialect(between, fraction), tuple(notes)


def _separator(lines: Sequence[str], path: Path) -> str:
    fitting = []
    for name in ("semicolon", "tab", "bar"):
        sign = SEPARATORS[name]
        try:
            counts = {len(row) for row in csv.reader(lines, delimiter=sign) if row}
        except csv.Error:
            continue
        if len(counts) == 1 and counts != {1} and any(sign in line for line in lines):
            fitting.append(name)
    if len(fitting) > 1:
        raise ValueError(
            f"{path} has as many {' as '.join(PLURAL[name] for name in fitting)} in each line: say which are between its "
            f"columns with `series.separator={fitting[0]}` or {fitting[1]}"
        )
    if fitting:
        return SEPARATORS[fitting[0]]
    if any("," in line for line in lines) or not lines:
        return ","
    words = [line.split() for line in lines]
    if len({len(row) for row in words}) == 1 and len(words[0]) > 1 and all(map(NUMBER.fullmatch, words[-1])):
        if all(in_thousands(line.strip(), " ", ".") for line in lines):
            raise ValueError(
                f"{path} holds {lines[0].strip()!r}, one number or several: say it with `series.separator=space`, or write the "
                f"numbers without spaces"
            )
        return " "
    return ","


def _decimal(cells: list[str], between: str, path: Path) -> str:
    commas, points = ([cell for cell in cells if sign in cell] for sign in ",.")
    fits = {sign: all(NUMBER.fullmatch(plain(cell, sign)) for cell in commas + points) for sign in ".,"}
    if fits["."] != fits[","]:
        return "." if fits["."] else ","
    if not commas and (not points or between != ";"):
        return "."
    told = " and ".join(repr(some[0]) for some in (commas, points) if some)
    raise ValueError(
        f"{path} holds {told}: say whether a point or a comma is before the fraction of a number, with "
        f"`series.decimal=point` or comma"
    )
