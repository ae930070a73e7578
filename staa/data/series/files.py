"""Time series from files: a table of values, with times and a graph if there are any."""

from pathlib import Path
from typing import Any

import numpy as np

from staa.arrays import arrays_in
from staa.data.series.cells import CELL, cells_of, content_of, hdf_table
from staa.data.series.graph import read_graph
from staa.data.series.series import TimeSeries, common_step
from staa.data.series.times import is_time, parsed, way_of
from staa.files import check_bytes

TEXT = (".csv", ".txt", ".csv.gz", ".txt.gz")


def read_series(
    path: Path,
    *,
    time: str | None = None,
    time_format: str | None = None,
    graph: str | None = None,
    distances: bool = False,
) -> TimeSeries:
    """A series of one's own from a file; nothing in it is unpickled.

        .csv, .txt (also .gz)  a row each step, a column each variate, commas between
        .npz                   values [n, K], and time, names and graph if they are there
        .h5                    one pandas table, in its fixed format

    In text, a first row that is not all numbers is a header, and a first column that holds dates the times. Without times, a
    blank line is a step at which nothing was measured, but for blank lines above a header and at the end of the file.

    Args:
        path: The file.
        time: Column of the times; None: the first one, if it holds dates.
        time_format: What the times are written in, such as "%d/%m/%Y %H:%M" (the codes of `datetime.strptime`); None: ISO 8601,
            such as 2024-01-31 12:00. No other is guessed.
        graph: File of a graph between the variates, as `staa.data.read_graph` takes it; None: no graph, or a .npz's own.
        distances: The graph's file holds distances, from which weights are made.

    Shapes:
        values [n, K], times [n], graph [K, K]

    Raises:
        OSError: If the file can't be read.
        ValueError: If it is no such table; if a cell is no number or no time, with its row and column; if it takes more memory
            than `staa.files.max_bytes` allows.
    """
    path = Path(path)
    return series_in(
        content_of(path, "give a series as .csv, .txt, .npz or .h5"),
        path,
        time=time,
        time_format=time_format,
        graph=graph,
        distances=distances,
    )


def series_in(
    data: bytes,
    path: Path,
    *,
    time: str | None = None,
    time_format: str | None = None,
    graph: str | None = None,
    distances: bool = False,
) -> TimeSeries:
    """The series in a file's bytes; see `read_series`."""
    own: np.ndarray | None = None
    if path.suffix == ".npz":
        values, times, names, own = _from_npz(data, path)
    elif path.suffix in (".h5", ".hdf5"):
        values, times, names = _from_table(hdf_table(data, path), time, time_format, path)
    elif path.name.lower().endswith(TEXT):
        values, times, names = _from_table(_text(data, path, way_of(time_format)), time, time_format, path)
    else:
        raise ValueError(f"{path} is not a series that can be read: its name must end in .csv, .txt (also .gz), .npz or .h5")
    if path.suffix == ".npz":
        for name, given in (("time", time), ("time_format", time_format)):
            if given is not None:
                raise ValueError(f"`{name}={given}` is not supported by {path}, whose times are in its array 'time'; remove it")
    if graph is not None:
        own = read_graph(Path(graph), names, distances=distances)
    elif distances:
        raise ValueError("`series.distances` needs a graph: name its file with `series.graph`")
    try:
        notes = () if times is None else _irregular(times)
        return TimeSeries(values, times, names, graph=own, notes=notes)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _from_npz(data: bytes, path: Path) -> tuple[np.ndarray, np.ndarray | None, tuple[str, ...], np.ndarray | None]:
    z = arrays_in(data, str(path))
    if "values" not in z:
        raise ValueError(f"{path} must have an array 'values' [rows, variates]; it has {', '.join(z) or 'no arrays'}")
    values, own, times = z["values"], z.get("graph"), z.get("time")
    if values.ndim != 2 or 0 in values.shape:
        raise ValueError(f"{path}'s values must be [rows, variates], got {list(values.shape)}")
    sizes = (
        8 * (values.size + (0 if own is None else own.size)) + 2 * CELL * values.shape[1]
    )  # a name is a str, and is kept twice
    check_bytes(sizes, f"{path}'s values and names")
    names = tuple(map(str, z["names"] if "names" in z and z["names"].ndim else range(values.shape[1])))
    for name, array in (("values", values), ("graph", own)):
        if array is not None and array.dtype.kind not in "iufb":
            raise ValueError(f"{path}'s {name} must be numbers, got {array.dtype}")
    if times is not None and times.dtype.kind not in "MUi":  # floating seconds would be read as nanoseconds
        raise ValueError(
            f"{path}'s time must be datetime64, text such as 2024-01-31T12:00, or int64 nanoseconds; got {times.dtype}"
        )
    if times is not None:
        try:
            times = _nanoseconds(times)
        except (ValueError, OverflowError) as error:
            raise ValueError(f"{path}'s time can't be read: {error}") from error
    return values.astype(np.float64), times, names, None if own is None else own.astype(np.float32)


def _nanoseconds(times: np.ndarray) -> np.ndarray:
    """Times as datetime64[ns]. Raises ValueError for times before 1678 or after 2262, which can't be told so."""
    if times.dtype.kind == "i":
        return times.astype("datetime64[ns]")
    days = times.astype("datetime64[D]")
    odd = np.abs(days.astype(np.int64)) > 106_000  # more of them overflow, and come out as others
    if (odd & ~np.isnat(days)).any():
        raise ValueError(f"{times[odd & ~np.isnat(days)].flat[0]} is not between 1680 and 2260")
    return times.astype("datetime64[ns]")


def _text(data: bytes, path: Path, way: str) -> Any:
    """The cells of a series, its header in `columns` if it has one, else numbers from 0. way: see `is_time`."""
    import pandas as pd

    table = cells_of(data, path, pd)
    filled = table.dropna(how="all")
    dated = is_time(filled.iloc[0, 0], way)
    first: Any = filled.iloc[0, 1:] if dated else filled.iloc[0]
    numbers: Any = pd.to_numeric(first, errors="coerce")
    text = first.notna() & numbers.isna()  # an empty cell is a gap, not a name
    # A header, or names that are numbers, over dates.
    if text.any() or (not dated and len(filled) > 1 and is_time(filled.iloc[1, 0], way)):
        table.columns = [str(name) for name in filled.iloc[0]]
        table = table.iloc[filled.index[0] + 1 :].reset_index(drop=True)
    return table


def _from_table(
    table: Any, time: str | None, form: str | None, path: Path
) -> tuple[np.ndarray, np.ndarray | None, tuple[str, ...]]:
    import pandas as pd

    if len(table) == 0 or table.shape[1] == 0:
        raise ValueError(f"{path} holds no rows")
    if not table.columns.is_unique:
        raise ValueError(
            f"{path} has two columns called {table.columns[table.columns.duplicated()][0]!r}: give each its own name"
        )
    times = table.index if isinstance(table.index, pd.DatetimeIndex) else None
    column: Any = table.columns[0]
    filled = table.dropna(how="all")  # beside times, an empty row says nothing
    if time is not None:
        column = next((c for c in table.columns if str(c) == time), None)
        if column is None:
            raise ValueError(
                f"{path} has no column {time!r}; it has {', '.join(map(str, table.columns[:8]))}{' …' * (table.shape[1] > 8)}"
            )
    if times is not None and form is not None:
        raise ValueError(f"{path} holds times, not text: leave out their format {form!r} (`time_format`)")
    if times is None and (time is not None or form is not None or is_time(filled[column].iloc[0], way_of(None))):
        times = parsed(filled[column], form, path)
        table = filled.drop(columns=[column])
        if table.shape[1] == 0:
            raise ValueError(f"{path} has no column beside its times {column!r}: expected one for each variate")
    numbers = table.apply(pd.to_numeric, errors="coerce")
    wrong = np.argwhere((numbers.isna() & table.notna()).to_numpy())  # pandas has read "", nan, NA, … as none already
    if len(wrong):
        row, k = wrong[0]
        raise ValueError(
            f"{path}, row {row}, column {table.columns[k]}: {table.iloc[row, k]!r} is no number: separate columns by commas; "
            f"if it is a time, name its column and its format (`series.time`, `series.time_format`)"
        )
    try:
        stamps = None if times is None else _nanoseconds(np.asarray(pd.DatetimeIndex(times).tz_localize(None)))
    except ValueError as error:
        raise ValueError(f"{path}: a time of {error}") from error
    return numbers.to_numpy(np.float64, copy=True), stamps, tuple(map(str, table.columns))


def _irregular(times: np.ndarray) -> tuple[str, ...]:
    steps, common = np.diff(times), common_step(times)
    odd = np.flatnonzero(steps != common)
    if not len(odd):
        return ()
    import pandas as pd

    step, other = (str(pd.Timedelta(step)).replace("0 days ", "") for step in (common, steps[odd[0]]))
    return (
        f"the step between rows is {step}, but another one {len(odd)} times, first {other} after {str(times[odd[0]])[:19]}: "
        f"windows go across",
    )
