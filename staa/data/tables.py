"""Time series from files: a table of values, with times and a graph where there are any."""

import csv
import io
import re
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from zoneinfo import ZoneInfo

import numpy as np

from staa.data.hdf import read_hdf
from staa.files import arrays_in, check_bytes, inflate, max_bytes, read_bytes

CELL = 64  # bytes that pandas takes for a cell of text, beside the text
TEXT = (".csv", ".txt", ".csv.gz", ".txt.gz")
SMALLEST_WEIGHT = 0.1  # of a graph made from distances; DCRNN's threshold


@dataclass(frozen=True)
class TimeSeries:
    """values: [n, K] float64, NaN where nothing was measured. times: [n] datetime64[ns], or None. names: of the K variates.
    graph: weights [K, K] float32, row i those of i's neighbours, or None. missing: a value that stands for no measurement,
    which errors in real units leave out. notes: what the user should hear.

    Raises ValueError for infinite values, times that are unsorted or twice there, and a graph of another size.
    """

    values: np.ndarray
    times: np.ndarray | None
    names: tuple[str, ...]
    graph: np.ndarray | None = None
    missing: float | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.values.ndim != 2 or 0 in self.values.shape:
            raise ValueError(f"a series is a table of rows and variates, got an array of shape {list(self.values.shape)}")
        rows, nodes = self.values.shape
        if np.isinf(self.values).any():
            row, column = np.argwhere(np.isinf(self.values))[0]
            raise ValueError(
                f"variate {self.names[column]} is infinite in row {row}: leave it empty where nothing was measured"
            )
        if len(self.names) != nodes or len(set(self.names)) != nodes:
            raise ValueError(f"{nodes} variates need {nodes} names, each its own; got {len(set(self.names))} different ones")
        if self.times is not None:
            _check_times(self.times, rows)
        if self.graph is not None:
            _check_graph(self.graph, nodes)

    @property
    def every(self) -> float | None:
        """Seconds from most rows to the next; None without times, or for a single row."""
        usual = None if self.times is None else usual_step(self.times)
        return None if usual is None else float(usual / np.timedelta64(1, "s"))


def usual_step(times: np.ndarray) -> np.timedelta64 | None:
    """From most of the times [n] to the next; None for a single one."""
    steps, counts = np.unique(np.diff(times), return_counts=True)
    return steps[counts.argmax()] if len(steps) else None


def read_series(path: Path, *, time: str | None = None, graph: str | None = None, distances: bool = False) -> TimeSeries:
    """A series of one's own from a file.

    .csv, .txt (also .gz): a row each step, a column each variate, commas between; a first row that is not all numbers is a
    header, and a first column that holds dates the times. Without times, a blank line is a step at which nothing was measured,
    but for those above a header and at the end of the file. .npz: `values` [n, K], and `time`, `names`, `graph` if they are
    there. .h5: one pandas table, in its fixed format. time: the column of times. graph: a file for `read_graph`; distances: it
    holds distances.

    Nothing in the file is unpickled. Raises OSError, or ValueError naming row and column of what is no number, and for what
    takes more memory than `staa.files.max_bytes`.
    """
    path = Path(path)
    return series_in(
        _bytes(path, "give a series as .csv, .txt, .npz or .h5"), path, time=time, graph=graph, distances=distances
    )


def series_in(
    data: bytes, path: Path, *, time: str | None = None, graph: str | None = None, distances: bool = False
) -> TimeSeries:
    """The series in a file's bytes; see `read_series`."""
    own: np.ndarray | None = None
    if path.suffix == ".npz":
        values, times, names, own = _from_npz(data, path)
    elif path.suffix in (".h5", ".hdf5"):
        values, times, names = _from_table(_hdf(data, path), time, path)
    elif path.name.lower().endswith(TEXT):
        values, times, names = _from_table(_text(data, path), time, path)
    else:
        raise ValueError(f"{path} is not a series that can be read: its name must end in .csv, .txt (also .gz), .npz or .h5")
    if time is not None and path.suffix == ".npz":
        raise ValueError(f"{path} has its times in the array 'time': leave out the column {time!r} (`time`)")
    if graph is not None:
        own = read_graph(Path(graph), names, distances=distances)
    elif distances:
        raise ValueError("distances are those of a graph: name its file with `series.graph`")
    try:
        notes = () if times is None else _irregular(times)
        return TimeSeries(values, times, names, graph=own, notes=notes)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _bytes(path: Path, expected: str) -> bytes:
    if not path.exists():
        raise FileNotFoundError(f"{path} is not a file: {expected}")
    return read_bytes(path)


def read_graph(
    path: Path, names: tuple[str, ...], *, distances: bool = False, others: Literal["refuse", "skip"] = "refuse"
) -> np.ndarray:
    """Weights [K, K] from a file: a matrix (.npy, .npz with one square array, or K rows of K numbers in .csv or .txt), or a
    .csv of edges from, to[, weight] by names or, where it has none of them, by numbers from 0.

    distances=True: weights are exp(−(d / σ)²) of the distances d, σ their standard deviation, and 0 below 0.1 (DCRNN, Li et
    al., ICLR 2018); without an edge there is none. others="skip" leaves out edges of nodes that are not there. Raises
    ValueError for another size and, unless they are skipped, for such nodes.
    """
    import pandas as pd

    data = _bytes(path, "a graph is a matrix (.npy, .npz, .csv) or a .csv of edges from, to, weight")
    nodes, weights, edges = len(names), None, None
    check_bytes(nodes * nodes * 9, f"a graph of {nodes} nodes")
    if path.suffix in (".npy", ".npz"):
        arrays = arrays_in(data, str(path))
        square = {name: a for name, a in arrays.items() if len(arrays) == 1 or (a.ndim == 2 and a.shape[0] == a.shape[1])}
        if len(square) != 1:
            raise ValueError(
                f"{path} has {len(square)} square arrays ({', '.join(square)}); a graph's file has one: save the one alone"
            )
        (weights,) = square.values()
    else:
        table = _cells(data, path, pd).dropna(how="all").reset_index(drop=True)
        numbers = table.apply(pd.to_numeric, errors="coerce")
        ends = table.iloc[:, :2].isin([*names, *map(str, range(nodes))]).all(axis=None)
        few = nodes in (2, 3) and ends  # so many edges look like a matrix
        if table.shape == (nodes, nodes) and not few and not numbers.isna().any(axis=None):
            weights = numbers.to_numpy(float)
        else:
            edges = table
    if edges is not None:
        weights, there = _from_edges(edges, names, path, pd, others)
    else:
        weights = np.asarray(weights)
        if weights.dtype.kind not in "iufb":
            raise ValueError(f"{path}'s weights are numbers, got {weights.dtype}")
        check_bytes(weights.size * 9, f"{path}'s weights")
        weights = weights.astype(np.float64)
        there = weights > 0
    try:
        _check_graph(weights, nodes)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    if others == "skip" and not there.any():
        raise ValueError(f"{path} has no edge between two of the series' variates ({', '.join(names[:3])} …): is it another's?")
    if distances:
        length = weights[there]
        sigma = float(length.std()) if len(length) else 0.0
        if sigma == 0.0:
            raise ValueError(f"{path} needs edges of more than one distance, since weights are exp(−(d / their std)²)")
        weights = np.where(there, np.exp(-((weights / sigma) ** 2)), 0.0)
        weights[weights < SMALLEST_WEIGHT] = 0.0
    return weights.astype(np.float32)


def _from_npz(data: bytes, path: Path) -> tuple[np.ndarray, np.ndarray | None, tuple[str, ...], np.ndarray | None]:
    z = arrays_in(data, str(path))
    if "values" not in z:
        raise ValueError(f"{path} has no array 'values' [rows, variates]; it has {', '.join(z)}")
    values, own, times = z["values"], z.get("graph"), z.get("time")
    if values.ndim != 2 or 0 in values.shape:
        raise ValueError(f"{path}'s values are [rows, variates], got {list(values.shape)}")
    sizes = (
        8 * (values.size + (0 if own is None else own.size)) + 2 * CELL * values.shape[1]
    )  # a name is a str, and is kept twice
    check_bytes(sizes, f"{path}'s values and names")
    names = tuple(map(str, z["names"] if "names" in z and z["names"].ndim else range(values.shape[1])))
    for name, array in (("values", values), ("graph", own)):
        if array is not None and array.dtype.kind not in "iufb":
            raise ValueError(f"{path}'s {name} are numbers, got {array.dtype}")
    if times is not None and times.dtype.kind not in "MUi":  # floating seconds would be read as nanoseconds
        raise ValueError(f"{path}'s time is datetime64, text such as 2024-01-31T12:00 or int64 nanoseconds, got {times.dtype}")
    if times is not None:
        try:
            times = _nanoseconds(times)
        except (ValueError, OverflowError) as error:
            raise ValueError(f"{path}'s time is no time: {error}") from error
    return values.astype(np.float64), times, names, None if own is None else own.astype(np.float32)


def _nanoseconds(times: np.ndarray) -> np.ndarray:
    """Times as datetime64[ns]. Raises ValueError for those before 1678 or after 2262, which these can't tell."""
    if times.dtype.kind == "i":
        return times.astype("datetime64[ns]")
    days = times.astype("datetime64[D]")
    odd = np.abs(days.astype(np.int64)) > 106_000  # more of them overflow, and come out as others
    if (odd & ~np.isnat(days)).any():
        raise ValueError(f"{times[odd & ~np.isnat(days)].flat[0]} is not between 1680 and 2260")
    return times.astype("datetime64[ns]")


def _hdf(data: bytes, path: Path) -> Any:
    """The pandas table in a HDF5 file's bytes, in pandas' fixed format."""
    import pandas as pd

    found = read_hdf(data, str(path), max_bytes())
    try:
        return _frame(found, pd)
    except Exception as error:  # what the datasets hold is anyone's guess: KeyError, IndexError, pandas' own …
        raise ValueError(f"{path} can't be read as one pandas table: {' '.join(str(error).split())}") from error


def _frame(found: dict[str, Any], pd: Any) -> Any:
    about = found["about"]
    encoding = about[""].get("encoding") or "utf-8"
    if "values" in found:  # a Series; a name that is no text is pickled, and a pickle ends with a dot
        name = about[""].get("name", "0")
        return pd.DataFrame({"0" if name.endswith(".") else name: found["values"]}, index=_index(found, "index", encoding, pd))
    columns, index = (_index(found, axis, encoding, pd) for axis in ("axis0", "axis1"))
    if not columns.is_unique:
        raise ValueError(f"it has two columns called {columns[columns.duplicated()][0]!r}: give each its own name")
    parts: dict[int, Any] = {}
    for name in found:
        if not name.endswith("_values"):
            continue
        items, values = _index(found, name.removesuffix("values") + "items", encoding, pd), found[name]
        if values.shape != (len(index), len(items)):
            raise ValueError(f"{name} is {_by(values.shape)}, not {_by((len(index), len(items)))}")
        kind = about[name].get("value_type", "")
        if kind.startswith("datetime64"):
            values = values.view(_unit(kind))
        parts |= {columns.get_loc(item): values[:, k] for k, item in enumerate(items)}
    if len(parts) != len(columns):
        raise ValueError(f"it has {len(columns)} columns, and values for {len(parts)}")
    return pd.DataFrame({k: parts[k] for k in range(len(columns))}, index=index).set_axis(columns, axis=1)


def _index(found: dict[str, Any], name: str, encoding: str, pd: Any) -> Any:
    """Rows' or columns' labels: numbers, text, or times, of which the time of the clock there is meant."""
    labels, about = found[name], found["about"][name]
    kind = about.get("kind", "")
    if labels.ndim != 1:
        raise ValueError(f"{name} is no row of labels")
    if kind == "string" and labels.dtype.kind == "S":
        return pd.Index([label.decode(encoding) for label in labels.tolist()])
    if kind in ("integer", "float", "bool") and labels.dtype.kind in "iuf":
        return pd.Index(labels)
    if kind.startswith("datetime64") and labels.dtype == np.int64:
        times = pd.DatetimeIndex(labels.view(_unit(kind)))
        zone = about.get("tz")
        if zone is not None and not re.fullmatch(r"[\w+-]+(/[\w+-]+)*", zone):
            raise ValueError(
                f"{name} has a time zone that is pickled: save the table with times without one (tz_localize(None))"
            )
        return times if zone is None else times.tz_localize("UTC").tz_convert(ZoneInfo(zone)).tz_localize(None)
    raise ValueError(f"{name} holds labels of the kind {kind or 'unknown'}: expected numbers, text or times, one at least")


def _unit(kind: str) -> str:
    """The dtype that pandas means by datetime64, datetime64[us] and so on."""
    unit = re.fullmatch(r"datetime64(?:\[(s|ms|us|ns)[^\]]*\])?", kind)
    if unit is None:
        raise ValueError(f"times of the kind {kind} are unknown")
    return f"datetime64[{unit[1] or 'ns'}]"


def _cells(data: bytes, path: Path, pd: Any) -> Any:
    """A text file's cells as strings, NaN in a blank line, but for blank lines at its end, which are left out.

    Raises ValueError for what is no such text, or inflates past `max_bytes`.
    """
    if path.name.lower().endswith(".gz"):
        data = inflate(data, str(path))
    try:
        text = data.decode("utf-8-sig")
        rows = csv.reader(io.StringIO(text, newline=""))
        columns = next((len(row) for row in rows if len(row) > 1 or "".join(row).strip()), 0)  # short rows are filled up
        check_bytes(columns * (1 + data.count(b"\n") + data.count(b"\r")) * CELL + 4 * len(data), str(path))
        body = re.sub(r"\A(?:[ \t]*(?:\r\n?|\n))+", "", text)  # pandas counts the columns of the first line
        lines = io.StringIO(body.rstrip())
        table = pd.read_csv(lines, header=None, dtype=str, skipinitialspace=True, skip_blank_lines=False)
        top = len(text[: len(text) - len(body)].splitlines())
        return table.set_axis(range(top, top + len(table))).reindex(range(top + len(table)))
    except Exception as error:  # pandas' parser, csv and the decoder each have their own
        raise ValueError(
            f"{path} can't be read as text with commas between its columns: {' '.join(str(error).split())}"
        ) from error


def _text(data: bytes, path: Path) -> Any:
    """The cells of a series, its header in `columns` if it has one, else numbers from 0."""
    import pandas as pd

    table = _cells(data, path, pd)
    filled = table.dropna(how="all")
    dated = _dates(filled.iloc[:1, 0], pd, path)
    first: Any = filled.iloc[0, 1:] if dated else filled.iloc[0]
    numbers: Any = pd.to_numeric(first, errors="coerce")
    text = first.notna() & numbers.isna()  # an empty cell is a gap, not a name
    # A header, or names that are numbers, over dates.
    if text.any() or (not dated and len(filled) > 1 and _dates(filled.iloc[1:2, 0], pd, path)):
        table.columns = [str(name) for name in filled.iloc[0]]
        table = table.iloc[filled.index[0] + 1 :].reset_index(drop=True)
    return table


def _dates(column: Any, pd: Any, path: Path) -> bool:
    """Whether a column of strings holds dates; numbers are none, and rows of them with other separators neither."""
    if pd.to_numeric(column, errors="coerce").notna().any() or not column.astype(str).str.contains(r"[-/.:]|[A-Za-z]{3}").all():
        return False
    ways = [_stamps(column, pd, path, day_first=first) for first in (False, True)]
    return bool((ways[0].notna() | ways[1].notna()).all())


def _stamps(column: Any, pd: Any, path: Path, *, day_first: bool) -> Any:
    """Times, NaT where there is none: of ISO 8601, else all of the form that the first one has."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that the first one is not in the order which is tried
        warnings.simplefilter("error", FutureWarning)  # of different offsets, before pandas 3
        try:
            iso = pd.to_datetime(column, errors="coerce", format="ISO8601")
            return iso if iso.notna().all() else pd.to_datetime(column, errors="coerce", dayfirst=day_first)
        except (ValueError, FutureWarning) as error:  # errors="coerce" leaves it this one
            raise ValueError(f"{path}: times have different offsets from UTC: write all with the same one ({error})") from error


def _parsed(column: Any, pd: Any, path: Path) -> Any:
    """The times of a column. Raises ValueError naming the row that is none, or where day and month can't be told apart."""
    ways = [_stamps(column, pd, path, day_first=first) for first in (False, True)]
    whole = [way for way in ways if way.notna().all()]
    if not whole:
        best = max(ways, key=lambda way: way.notna().sum())
        row = int(np.flatnonzero(best.isna())[0])
        raise ValueError(f"{path}, row {row}: {column.iloc[row]!r} is no time")
    if len(whole) == 2 and not whole[0].equals(whole[1]):
        raise ValueError(
            f"{path}: times such as {column.iloc[0]!r} may begin with the day or with the month: write them as 2024-01-31 12:00"
        )
    return whole[0]


def _from_table(table: Any, time: str | None, path: Path) -> tuple[np.ndarray, np.ndarray | None, tuple[str, ...]]:
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
            raise ValueError(f"{path} has no column {time!r}; it has {', '.join(map(str, table.columns[:8]))} …")
    if times is None and (time is not None or _dates(filled[column].head(100).astype(str), pd, path)):
        times = _parsed(filled[column], pd, path)
        table = filled.drop(columns=[column])
        if table.shape[1] == 0:
            raise ValueError(f"{path} has no column beside its times {column!r}: expected one for each variate")
    numbers = table.apply(pd.to_numeric, errors="coerce")
    wrong = np.argwhere((numbers.isna() & table.notna()).to_numpy())  # pandas has read "", nan, NA, … as none already
    if len(wrong):
        row, k = wrong[0]
        raise ValueError(
            f"{path}, row {row}, column {table.columns[k]}: {table.iloc[row, k]!r} is no number; columns have commas between "
            f"them, and if it is a time, name its column (series.time)"
        )
    try:
        stamps = None if times is None else _nanoseconds(np.asarray(pd.DatetimeIndex(times).tz_localize(None)))
    except ValueError as error:
        raise ValueError(f"{path}: a time of {error}") from error
    return numbers.to_numpy(np.float64, copy=True), stamps, tuple(map(str, table.columns))


def _from_edges(table: Any, names: tuple[str, ...], path: Path, pd: Any, others: str) -> tuple[np.ndarray, np.ndarray]:
    nodes = len(names)
    if table.shape[1] not in (2, 3):
        raise ValueError(
            f"{path} has {len(table)} rows of {table.shape[1]}: a graph of {nodes} nodes is {_by((nodes, nodes))} numbers, or "
            f"edges from, to[, weight]"
        )
    place = {name: k for k, name in enumerate(names)}
    if not table.iloc[:, :2].isin(list(place)).any(axis=None):
        place = {str(k): k for k in range(nodes)}
    weights, there = np.zeros((nodes, nodes)), np.zeros((nodes, nodes), bool)
    lengths = pd.to_numeric(table.iloc[:, 2], errors="coerce").to_numpy() if table.shape[1] == 3 else np.ones(len(table))
    for row, (a, b) in enumerate(table.iloc[:, :2].itertuples(index=False)):
        begin, end = place.get(str(a)), place.get(str(b))
        if row == 0 and begin is None and end is None and (table.shape[1] == 2 or np.isnan(lengths[0])):  # a header
            continue
        if others == "skip" and (begin is None or end is None):
            continue
        if begin is None or end is None or np.isnan(lengths[row]):
            raise ValueError(
                f"{path}, row {row}: {str(a)!r}, {str(b)!r} is no edge between two of the {nodes} variates, or has no weight"
            )
        weights[begin, end], there[begin, end] = lengths[row], True
    return weights, there


def _check_times(times: np.ndarray, rows: int) -> None:
    if times.dtype.kind != "M" or times.ndim != 1:
        raise ValueError(f"times are a row of datetime64, one each row; got {times.dtype} of shape {list(times.shape)}")
    if len(times) != rows:
        raise ValueError(f"{rows} rows need as many times, got {len(times)}")
    if np.isnat(times).any():
        raise ValueError(f"row {int(np.flatnonzero(np.isnat(times))[0])} has no time")
    wrong = np.flatnonzero(np.diff(times) <= np.timedelta64(0))
    if len(wrong):
        row = int(wrong[0]) + 1
        what = "is there twice" if times[row] == times[row - 1] else "is before the one above it"
        raise ValueError(
            f"row {row}: its time {str(times[row])[:19]} {what} ({str(times[row - 1])[:19]}): sort the rows by "
            f"time, and keep one of each"
        )


def _check_graph(graph: np.ndarray, nodes: int) -> None:
    if graph.shape != (nodes, nodes):
        raise ValueError(f"the graph is {_by(graph.shape)}, the series has {nodes} variates: it must be {nodes} × {nodes}")
    if not np.isfinite(graph).all() or (graph < 0).any():
        raise ValueError("a graph's weights are finite and not negative")


def _irregular(times: np.ndarray) -> tuple[str, ...]:
    steps, common = np.diff(times), usual_step(times)
    odd = np.flatnonzero(steps != common)
    if not len(odd):
        return ()
    import pandas as pd

    usual, other = (str(pd.Timedelta(step)).replace("0 days ", "") for step in (common, steps[odd[0]]))
    return (
        f"the step between rows is {usual}, but {len(odd)} times another, the first {other} after {str(times[odd[0]])[:19]}: "
        f"windows go across",
    )


def _by(shape: tuple[int, ...]) -> str:
    return " × ".join(f"{n:,}" for n in shape)
