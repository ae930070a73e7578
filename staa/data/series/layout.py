"""How a text file is laid out: its dialect, where its rows begin and end, what its columns are called."""

import csv
import io
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from staa.arrays import inflate
from staa.data.series.dialect import EMPTY, dialect_of, plain
from staa.data.series.header import has_header
from staa.data.series.table import Asked, check_names
from staa.data.series.times import is_time, way_of
from staa.files import check_bytes

BLOCK = 2**20  # bytes read at once
CELL = 64  # bytes of a short text
CELLS = 2**21  # of a piece
ROWS = 3  # rows at least that are looked at before anything is read
LOOKED_AT = 300
SPREADSHEETS = (b"PK\3\4", b"\xd0\xcf\x11\xe0")  # what they begin with


class NotNumbersError(Exception):
    """Some cell of a piece is no number."""


class _Part(io.RawIOBase):
    """A part of a file, below a line of one's own."""

    def __init__(self, top: bytes, file: IO[bytes], start: int, end: int):
        self.top, self.file, self.left = top, file, end - start
        file.seek(start)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if self.top:
            piece, self.top = self.top[: len(buffer)], self.top[len(buffer) :]
        else:
            piece = self.file.read(min(len(buffer), self.left))
            self.left -= len(piece)
        buffer[: len(piece)] = piece
        return len(piece)


class Text:
    """A text file's layout: its dialect, where its rows begin and end, what its columns are called."""

    def __init__(self, file: IO[bytes], path: Path, asked: Asked):
        self.file, self.path, self.asked = file, path, asked
        lines, start = self._head()
        self.dialect, self.notes = dialect_of(lines, path, asked.separator, asked.decimal)
        way = way_of(asked.time_format)
        try:
            rows, ends = self._rows(lines)
        except csv.Error as error:
            raise ValueError(f"{path} can't be read as a table of text: {error}") from error
        filled = [k for k, row in enumerate(rows) if any(cell not in EMPTY for cell in row)]
        if not filled:
            raise ValueError(f"{path} holds no rows")
        first, looked_at = filled[0], [rows[k] for k in filled]
        self.named = has_header(
            looked_at,
            path,
            said=asked.header,
            expected=asked.expected,
            is_time=lambda cell: is_time(cell, way),
            is_number=self.dialect.is_number,
            decimal=self.dialect.decimal,
        )
        top = rows[first]
        self.names = ["" if re.fullmatch(r"(Unnamed: \d+)?", name) else name for name in top] if self.named else []
        width = max(len(top), next(len(row) for row in rows if len(row) > 1 or any(row)))
        self.names += [""] * (width - len(top)) if self.named else [str(k) for k in range(width)]
        check_names(self.names, path)
        self.start = start + (sum(len(line.encode()) for line in lines[: ends[first]]) if self.named else 0)
        self.end = self._end()
        self.examples = self._examples(looked_at[1 if self.named else 0 :])

    def _head(self) -> tuple[list[str], int]:
        """The first lines, as many as are whole, and where they begin."""
        self.file.seek(0)
        head = bytearray()
        while piece := self.file.read(BLOCK):
            head += piece
            if max(head.count(b"\n"), head.count(b"\r")) > ROWS:
                break
        else:
            piece = b""
        if head.startswith(SPREADSHEETS):
            raise ValueError(f"{self.path} is a spreadsheet or an archive, no text: save its sheet as CSV, or unpack it")
        start = 3 if head.startswith(b"\xef\xbb\xbf") else 0
        if not head[start:].strip():
            raise ValueError(f"{self.path} is empty: expected rows of cells, with commas between them")
        whole = len(head) if not piece else 1 + max(head.rfind(b"\n"), head.rfind(b"\r"))
        try:
            text = bytes(head[start:whole]).decode()
        except UnicodeDecodeError as error:
            raise self._no_text(error) from error
        lines = []
        for line in io.StringIO(text, newline=""):
            lines.append(line)
            if len(lines) >= LOOKED_AT and any(map(str.strip, lines)):
                break
        return lines, start

    def _rows(self, lines: list[str]) -> tuple[list[list[str]], list[int]]:
        """The cells of each row, and up to which line it goes."""
        if self.dialect.separator == " ":
            return [line.split() for line in lines], list(range(1, len(lines) + 1))
        reader = csv.reader(lines, delimiter=self.dialect.separator, skipinitialspace=True)
        rows, ends = [], []
        for row in reader:
            rows.append([cell.strip() for cell in row])
            ends.append(reader.line_num)
        return rows, ends

    def _examples(self, rows: list[list[str]]) -> list[str]:
        """A cell of each column that is not empty, if there is one among the first."""
        found = [""] * len(self.names)
        for row in rows:
            for k, cell in enumerate(row[: len(found)]):
                if found[k] == "" and cell not in EMPTY:
                    found[k] = cell
        return found

    def _end(self) -> int:
        """Where the last line that is not blank ends."""
        blank = b" \r\n" if self.dialect.separator == "\t" else b" \t\r\n"
        end = self.file.seek(0, os.SEEK_END)
        while end > self.start:
            begin = max(self.start, end - BLOCK)
            self.file.seek(begin)
            kept = len(self.file.read(end - begin).rstrip(blank))
            if kept:
                return begin + kept
            end = begin
        raise ValueError(f"{self.path} holds no rows")

    def lines(self) -> int:
        """How many lines there are at most, from start to end."""
        self.file.seek(self.start)
        lines, left = 1, self.end - self.start
        while left > 0 and (piece := self.file.read(min(BLOCK, left))):
            lines += piece.count(b"\n") + piece.count(b"\r") - piece.count(b"\r\n")
            left -= len(piece)
        return lines

    def _no_text(self, error: Exception) -> ValueError:
        return ValueError(f"{self.path} can't be read as text: {error}; save it as UTF-8")

    def pieces(self, kinds: Any) -> Iterator[Any]:
        """The rows in pieces, each column of the given kind. Raises ValueError for a row of more columns than the first."""
        import pandas as pd

        sign = self.dialect.separator
        top = sign.join("0" * len(self.names)).encode() + b"\n"  # it says how many columns there are
        body = io.BufferedReader(_Part(top, self.file, self.start, self.end), BLOCK)
        try:
            with pd.read_csv(
                body,
                header=None,
                sep=r"\s+" if sign == " " else sign,
                decimal=self.dialect.decimal,
                dtype=kinds,
                chunksize=max(16, CELLS // len(self.names)),
                skipinitialspace=True,
                skip_blank_lines=False,
            ) as reader:
                for k, piece in enumerate(reader):
                    yield piece.iloc[1:] if k == 0 else piece
        except UnicodeDecodeError as error:
            raise self._no_text(error) from error
        except pd.errors.ParserError as error:
            why = " ".join(str(error).split())
            if uneven := re.search(r"Expected (\d+) fields in line (\d+), saw (\d+)", why):
                row = int(uneven[2]) - (1 if self.named else 2)
                why = (
                    f"row {row} has {uneven[3]} columns, those above it {uneven[1]}; a number's fraction follows a point, as "
                    f"in 1.5, unless `series.separator` and `series.decimal` say otherwise"
                )
            raise ValueError(f"{self.path} can't be read as a table of text: {why}") from error
        except ValueError as error:  # of pandas' parser, which says neither row nor column
            raise NotNumbersError from error


def cells_in(data: bytes, path: Path) -> list[list[str]]:
    """The cells of a small table of text, such as a graph's, without blank rows; numbers with a point before their fraction.

    Raises ValueError for what is no such text, or inflates past `max_bytes`.
    """
    if path.name.lower().endswith(".gz"):
        data = inflate(data, str(path))
    check_bytes(CELL * (data.count(b",") + data.count(b"\n")), str(path))
    try:
        lines = list(io.StringIO(data.decode("utf-8-sig"), newline=""))
        dialect, _ = dialect_of(lines, path, None, None)
        rows = [row for row in dialect.rows(lines) if any(row)]
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} can't be read as text: {error}; save it as UTF-8") from error
    except csv.Error as error:
        raise ValueError(f"{path} can't be read as a table of text: {error}") from error
    if not rows:
        raise ValueError(f"{path} is empty: expected rows of cells, with commas between them")
    is_number = dialect.is_number
    return [[plain(cell, dialect.decimal) if is_number(cell) else cell for cell in row] for row in rows]
