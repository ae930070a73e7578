"""The columns of a Parquet file, read by a process of their own (`apart`), which runs this file."""

import importlib
from typing import Any

PACKAGE = "pyarrow"
TABLE = "a table"
SECONDS = 60
ROWS = 2**16  # of a batch


def read_parquet(data: bytes, what: str, limit: int) -> dict[str, Any]:
    """The columns in a Parquet file's bytes, c0, c1 …, of texts t0 … too, and as "about" their names and kinds.

    Raises ValueError, saying what to do, for a broken file, for one that would take more than `limit` bytes, and if pyarrow is
    not installed.
    """
    from staa.data.series.apart import read_apart

    return read_apart(__file__, data, what, limit, library="pyarrow", seconds=SECONDS)


def table_in(data: bytes, limit: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """(arrays, what they are): numbers float64, times int64 nanoseconds, texts as codes int64 (−1: none) of texts.

    To be called where the library may break down. Raises ValueError for what is no table of such columns.
    """
    pa, pq = importlib.import_module("pyarrow"), importlib.import_module("pyarrow.parquet")
    try:
        file = pq.ParquetFile(pa.BufferReader(data))
        schema, rows = file.schema_arrow, file.metadata.num_rows
        names = [str(name) for name in schema.names]
        kinds = [_kind(field, pa) for field in schema]
        if 8 * rows * max(1, len(names)) > limit:
            raise ValueError(
                f"its {rows:,} rows of {len(names):,} columns take more than the limit of {limit:,} bytes: raise it with "
                f"STAA_MAX_BYTES"
            )
        pieces: list[list[Any]] = [[] for _ in names]
        taken = 0
        for batch in file.iter_batches(ROWS, use_threads=False):
            for k, kind in enumerate(kinds):
                piece = _piece(batch.column(k), kind, pa)
                taken += piece.nbytes
                pieces[k].append(piece)
            if taken > 2 * limit:
                raise ValueError(f"it takes more than the limit of {limit:,} bytes: raise it with STAA_MAX_BYTES")
        found: dict[str, Any] = {}
        for k, kind in enumerate(kinds):
            found |= _joined(k, kind, pieces[k], pa)
        about = {"names": names, "kinds": kinds, "index": _index(schema, names)}
    except (MemoryError, ValueError):  # pyarrow's own are of these too
        raise
    except Exception as error:  # pyarrow has OSError, KeyError, NotImplementedError …
        raise ValueError(" ".join(str(error).split())[:300]) from error
    return found, about


def _kind(field: Any, pa: Any) -> str:
    """number, time, time ZONE or text."""
    t, is_a = field.type, pa.types
    if is_a.is_integer(t) or is_a.is_floating(t) or is_a.is_boolean(t) or is_a.is_decimal(t) or is_a.is_null(t):
        return "number"
    if is_a.is_timestamp(t):
        return f"time {t.tz}" if t.tz else "time"
    if is_a.is_date(t):
        return "time"
    text = t.value_type if is_a.is_dictionary(t) else t
    if is_a.is_string(text) or is_a.is_large_string(text):
        return "text"
    raise ValueError(f"its column {field.name!r} holds {t}, which is no number, time or text: leave it out of the file")


def _piece(column: Any, kind: str, pa: Any) -> Any:
    if kind == "number":
        return column.cast(pa.float64(), safe=False)
    if kind == "text":
        return column.cast(pa.large_string())
    return column.cast(pa.timestamp("ns", column.type.tz if pa.types.is_timestamp(column.type) else None))


def _joined(k: int, kind: str, pieces: list[Any], pa: Any) -> dict[str, Any]:
    import numpy as np

    types = {"number": pa.float64(), "text": pa.large_string()}
    whole = pa.chunked_array(pieces, types.get(kind, pieces[0].type if pieces else pa.timestamp("ns")))
    if kind == "number":
        return {f"c{k}": whole.to_numpy().astype(np.float64)}
    if kind == "text":
        coded = whole.dictionary_encode().combine_chunks()
        coded = coded.chunk(0) if isinstance(coded, pa.ChunkedArray) else coded
        texts = np.array(coded.dictionary.to_pylist() or [""], dtype=str)
        return {f"c{k}": coded.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64), f"t{k}": texts}
    least = np.iinfo(np.int64).min  # NaT
    return {f"c{k}": whole.cast(pa.int64()).fill_null(least).to_numpy().astype(np.int64)}


def _index(schema: Any, names: list[str]) -> list[str]:
    """Names of the columns that were a frame's index."""
    about = schema.pandas_metadata or {}
    columns = about.get("index_columns", []) if isinstance(about, dict) else []
    return [name for name in columns if isinstance(name, str) and name in names]
