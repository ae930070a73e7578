"""Forecasts as a table in a file, CSV or Parquet, written in pieces."""

import csv
import importlib
import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from staa.files import writing
from staa.inference.prepared import moment
from staa.text import for_csv

GROUP = 2**17
"""Rows of a piece of a Parquet file, at least."""


class Piece(NamedTuple):
    """Forecasts after some origins: origins [B] and when [B, N], both times or row numbers; forecast, truth, lower and upper
    [B, N, K], the last two None without an interval, truth NaN if it is not known."""

    origins: np.ndarray
    when: np.ndarray
    forecast: np.ndarray
    truth: np.ndarray
    lower: np.ndarray | None
    upper: np.ndarray | None


Write = Callable[[Piece], None]


def check_table(path: Path) -> None:
    """Raises ValueError for what no table of forecasts can be: of another kind, there already, or without its library."""
    if path.suffix not in FORMATS:
        raise ValueError(f"a table of forecasts is written as {' or '.join(FORMATS)}, by its name; got {path}")
    if path.exists() or path.is_symlink():
        raise ValueError(f"{path} is there already: choose another name")
    if path.suffix == ".parquet":
        _parquet()


@contextmanager
def table(path: Path, names: tuple[str, ...], *, interval: bool) -> Iterator[Write]:
    """Within the block, a function that takes pieces; the file is at `path` once the block has come to its end.

    A row for each origin, step ahead and variate: origin, step, time, variate, forecast, lower and upper with an interval, and
    truth (empty if it is not known). In CSV, names of variates are written as `staa.text.for_csv` does; `from_csv` gives them
    back.
    """
    with writing(path) as file, FORMATS[path.suffix](file, names, interval) as write:
        yield write


@contextmanager
def _csv(file: Any, names: tuple[str, ...], interval: bool) -> Iterator[Write]:
    cells = []
    for name in names:
        cell = io.StringIO()
        csv.writer(cell, lineterminator="").writerow([for_csv(name)])
        cells.append(cell.getvalue() or '""')
    ends = "lower,upper," if interval else ""
    file.write(f"origin,step,time,variate,forecast,{ends}truth\n".encode())

    def write(piece: Piece) -> None:
        for b, origin in enumerate(piece.origins):
            lines = []
            for p, time in enumerate(piece.when[b]):
                head = f"{moment(origin)},{p + 1},{moment(time)}"
                columns = [a[b, p].tolist() for a in (piece.forecast, piece.lower, piece.upper) if a is not None]
                for name, truth, *values in zip(cells, piece.truth[b, p].tolist(), *columns, strict=True):
                    known = "" if truth != truth else f"{truth:.9g}"
                    lines.append(f"{head},{name},{','.join(f'{value:.9g}' for value in values)},{known}\n")
            file.write("".join(lines).encode())

    yield write


@contextmanager
def _in_parquet(file: Any, names: tuple[str, ...], interval: bool) -> Iterator[Write]:
    pa, pq = _parquet()
    names = tuple(name.encode("utf-8", "backslashreplace").decode() for name in names)
    waiting: list[Any] = []
    writer: Any = None

    def columns(piece: Piece) -> Any:
        shape = piece.forecast.shape
        count, of_time = np.prod(shape[:2]), np.arange(shape[1], dtype=np.int32) + 1
        ends = {"lower": piece.lower, "upper": piece.upper} if interval else {}
        variates = pa.DictionaryArray.from_arrays(np.tile(np.arange(shape[2], dtype=np.int32), count), list(names))
        return pa.table(
            {
                "origin": np.repeat(piece.origins, shape[1] * shape[2]),
                "step": np.tile(np.repeat(of_time, shape[2]), shape[0]),
                "time": np.repeat(piece.when.ravel(), shape[2]),
                "variate": variates,
                "forecast": piece.forecast.ravel(),
                **{name: end.ravel() for name, end in ends.items() if end is not None},
                "truth": pa.array(piece.truth.ravel(), from_pandas=True),  # NaN: null
            }
        )

    def flush() -> None:
        nonlocal writer
        whole = pa.concat_tables(waiting)
        writer = writer or pq.ParquetWriter(file, whole.schema)
        writer.write_table(whole.combine_chunks())
        waiting.clear()

    def write(piece: Piece) -> None:
        waiting.append(columns(piece))
        if sum(len(part) for part in waiting) >= GROUP:
            flush()

    yield write
    if waiting:
        flush()
    if writer is not None:
        writer.close()


def _parquet() -> tuple[Any, Any]:
    try:
        return importlib.import_module("pyarrow"), importlib.import_module("pyarrow.parquet")
    except ImportError as error:
        raise ValueError('Parquet is written by the package pyarrow: pip install "staa-snn[series]"') from error


FORMATS: dict[str, Callable[..., Any]] = {".csv": _csv, ".parquet": _in_parquet}
