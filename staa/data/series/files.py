"""Time series from files: a table of values, with times and a graph if there are any."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal

import numpy as np

from staa.arrays import inflate
from staa.data.series.arrays import arrays_table
from staa.data.series.calendar import common_step, months_between
from staa.data.series.dialect import Decimal, Separator
from staa.data.series.frame import hdf_table, parquet_table
from staa.data.series.graph import read_graph
from staa.data.series.long import is_long, widened
from staa.data.series.roles import measurements
from staa.data.series.series import TimeSeries
from staa.data.series.table import Asked, Table, left_out, listed
from staa.data.series.text import read_text
from staa.data.series.times import on_one_clock
from staa.files import open_regular, read_bytes

TEXT = tuple(f"{ending}{packed}" for ending in (".csv", ".txt", ".tsv") for packed in ("", ".gz"))
NUMPY, HDF, PARQUET = (".npz", ".npy"), (".h5", ".hdf5"), (".parquet", ".pq")
ENDINGS = "its name must end in .csv, .txt, .tsv (also .gz), .npz, .npy, .h5 or .parquet"
OF_TEXT = ("header", "separator", "decimal")
OF_TABLES = ("time", "time_format", "zone", "id", "value")
OTHERS = {
    **dict.fromkeys(
        (".xlsx", ".xls", ".xlsm", ".ods"),
        "is a spreadsheet: save its sheet as CSV there, or in Python with pandas.read_excel({name!r}).to_csv('other.csv')",
    ),
    **dict.fromkeys(
        (".pkl", ".pickle", ".p"),
        "is a pickle, which runs its writer's code when it is opened, so it never is here: if you trust it, save its table in "
        "Python with pandas.read_pickle({name!r}).to_csv('other.csv')",
    ),
    ".mat": "is a file of MATLAB: save its array in Python with numpy.savez('other.npz', values=scipy.io.loadmat({name!r})[…])",
    ".feather": "can't be read: save it in Python with pandas.read_feather({name!r}).to_parquet('other.parquet')",
    ".json": "can't be read: save it in Python with pandas.read_json({name!r}).to_csv('other.csv')",
    ".zip": "is an archive: unpack it, and give the file that comes out",
}
"""What can't be read, and the way out."""


def read_series(
    path: Path,
    *,
    time: str | None = None,
    time_format: str | None = None,
    zone: str | None = None,
    header: Literal["yes", "no"] | None = None,
    separator: Separator | None = None,
    decimal: Decimal | None = None,
    columns: str | Sequence[str] | None = None,
    drop: str | Sequence[str] | None = None,
    missing: str | float | Sequence[float] | None = None,
    id: str | None = None,
    value: str | None = None,
    channel: int | None = None,
    graph: str | None = None,
    distances: bool = False,
) -> TimeSeries:
    """A series of one's own from a file; nothing in it is unpickled.

        .csv, .txt, .tsv (also .gz)  a row each step, a column each variate
        .npz, .npy                   values or data [n, K] or [n, K, C], and time, names and graph if a .npz has them
        .h5                          one pandas table, in its fixed format
        .parquet                     columns of numbers, times and texts

    A column that is no measurement is left out, and a note says so: row labels, a step counter, parts of a time beside the
    times. What only the user can know is refused, with the setting that says it: numbers that look like times, a first row that
    may be names or measurements, separators and decimals that can be read in two ways. Texts beside times are the names of the
    variates (long format). Without times, a blank line is a step at which nothing was measured, but for blank lines above a
    header and at the end of the file.

    Args:
        path: The file.
        time: Column of the times; None: the first that holds dates.
        time_format: What the times are written in, such as "%d/%m/%Y %H:%M" (the codes of `datetime.strptime`), or unix-s,
            unix-ms, unix-us, unix-ns; None: ISO 8601, such as 2024-01-31 12:00. No other is guessed.
        zone: Time zone, such as Europe/Berlin, from which times become UTC, so that daylight saving doubles no hour; None: they
            are read as they are written.
        header: Whether the first row names the columns; None: as its cells tell.
        separator: What is between columns: comma, semicolon, tab, bar or space; None: as the rows tell.
        decimal: What is before a fraction: point or comma; None: as the numbers tell.
        columns: The variates, as names or as a text with commas between them, whatever they hold; None: all that are measured.
        drop: Columns to leave out, in the same way; None: none.
        missing: Values that stand for no measurement, as numbers or as a text such as "0,-9999": they become NaN.
        id: Column that names the variates, in long format; None: as the columns tell.
        value: Column of their values, in long format; None: the only one.
        channel: Which channel of values [n, K, C]; None: there is only one.
        graph: File of a graph between the variates, as `staa.data.read_graph` takes it; None: no graph, or a .npz's own.
        distances: The graph's file holds distances, from which weights are made.

    Shapes:
        values [n, K], times [n], graph [K, K]

    Raises:
        OSError: If the file can't be read.
        ValueError: If it is no such table, or can be read in more than one way; if a cell is no number or no time, with its row
            and column; if it takes more memory than `staa.files.max_bytes` allows.
    """
    asked = Asked(time, time_format, zone, header, separator, decimal, columns, drop, missing, id, value, channel)
    return series_in(None, Path(path), asked, graph=graph, distances=distances)


def series_in(
    data: bytes | None, path: Path, asked: Asked | None = None, *, graph: str | None = None, distances: bool = False
) -> TimeSeries:
    """The series in a file, or in its bytes if they are read already; see `read_series`."""
    asked = asked or Asked()
    _check_path(path, asked)
    if graph is None and distances:
        raise ValueError("`series.distances` needs a graph: name its file with `series.graph`")
    table, own = _table(data, path, asked)
    skipped = left_out(table.names, asked) - {table.time}
    every = tuple(name for k, name in enumerate(table.names) if k in table.places or k in skipped)
    if is_long(table, asked, path):
        table = widened(table, asked, path)
        every = tuple(table.names)
    values, names = measurements(table, asked, path)
    if graph is not None:
        own = _graph(Path(graph), names, every, distances)
    elif own is not None and names != every:
        own = _of(own, names, every) if own.shape == (len(every),) * 2 else own
    try:
        times = None
        if table.times is not None:
            times, told = on_one_clock(table.times, asked.zone)
            table.notes += [*told, *_irregular(times)]
        unmeasured = _unmeasured(values, names, asked, table.notes)
        if unmeasured is not None:
            values[unmeasured] = np.nan
        return TimeSeries(values, times, names, graph=own, notes=tuple(table.notes), unmeasured=unmeasured)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def series_for(
    path: Path, names: Sequence[str], settings: Mapping[str, Any], *, time: str | None = None, time_format: str | None = None
) -> TimeSeries:
    """A series for a network of these variates, read by the settings of its own data as far as this kind of file takes them;
    see `read_series`. Its variates are what they are called, whatever the file holds in them. time, time_format: this file's
    own, in place of the settings'."""
    text = path.name.lower().endswith(TEXT)
    given = {name: value for name, value in settings.items() if name in readable(path)}
    given |= {} if text else dict.fromkeys(("time", "time_format"))  # other kinds have times that need neither
    given |= {name: value for name, value in (("time", time), ("time_format", time_format)) if value is not None}
    return series_in(None, path, Asked(**given, expected=tuple(names)))


def readable(path: Path) -> frozenset[str]:
    """The settings of `read_series` that this kind of file takes."""
    all_of_them = {field.name for field in fields(Asked)} - {"expected"}
    name = path.name.lower()
    if name.endswith(TEXT):
        return frozenset(all_of_them - {"channel"})
    if name.endswith(NUMPY):
        return frozenset(all_of_them - {*OF_TEXT, *OF_TABLES})
    return frozenset(all_of_them - {*OF_TEXT, "channel"})


def _check_path(path: Path, asked: Asked) -> None:
    """Raises ValueError or OSError for a file that is none, or of a kind that can't be read or doesn't take what is asked."""
    expected = "give a series as .csv, .txt, .tsv, .npz, .npy, .h5 or .parquet"
    if path.is_dir():
        raise ValueError(f"{path} is a folder: {expected}")
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist: {expected}")
    name = path.name.lower()
    if not name.endswith((*TEXT, *NUMPY, *HDF, *PARQUET)):
        told = OTHERS.get(path.suffix.lower(), f"is not a series that can be read: {ENDINGS}")
        raise ValueError(f"{path} {told.format(name=path.name)}")
    for field in fields(Asked):
        given = getattr(asked, field.name)
        if given is not None and field.name not in (*readable(path), "expected"):
            setting = field.name if field.name in ("time", "time_format") else f"series.{field.name}"
            where = ", whose times are in its array 'time'" if name.endswith(NUMPY) and field.name in OF_TABLES[:3] else ""
            raise ValueError(f"`{setting}={given}` is not supported by {path}{where}; remove it")


def _table(data: bytes | None, path: Path, asked: Asked) -> tuple[Table, np.ndarray | None]:
    name = path.name.lower()
    if name.endswith(TEXT):
        if name.endswith(".gz"):
            return read_text(io.BytesIO(inflate(read_bytes(path) if data is None else data, str(path))), path, asked), None
        with open_regular(path) if data is None else io.BytesIO(data) as file:
            return read_text(file, path, asked), None
    data = read_bytes(path) if data is None else data
    if name.endswith(NUMPY):
        return arrays_table(data, path, asked)
    return (hdf_table if name.endswith(HDF) else parquet_table)(data, path, asked), None


def _graph(path: Path, names: tuple[str, ...], every: tuple[str, ...], distances: bool) -> np.ndarray:
    """A graph of the variates, or of all that the file has, of which they are taken."""
    try:
        return read_graph(path, names, distances=distances)
    except ValueError:
        if set(names) == set(every):
            raise
        return _of(read_graph(path, every, distances=distances), names, every)


def _of(graph: np.ndarray, names: tuple[str, ...], every: tuple[str, ...]) -> np.ndarray:
    chosen = [every.index(name) for name in names]
    return graph[np.ix_(chosen, chosen)]


def _unmeasured(values: np.ndarray, names: tuple[str, ...], asked: Asked, notes: list[str]) -> np.ndarray | None:
    """Where the file has a value that stands for no measurement. Raises ValueError for values that are no numbers."""
    if asked.missing is None:
        return None
    try:
        given = [asked.missing] if isinstance(asked.missing, int | float) else asked.missing
        wanted = [float(value) for value in (listed(given) if isinstance(given, str) else given)]
    except (ValueError, TypeError) as error:
        raise ValueError(f"`series.missing` must be numbers such as 0,-9999, got {asked.missing!r}") from error
    found = np.isin(values, wanted)
    told = " or ".join(f"{value:g}" for value in wanted)
    notes.append(f"{int(found.sum()):,} of {values.size:,} values are {told}, no measurement: loss and figures leave them out")
    return found


def _irregular(times: np.ndarray) -> tuple[str, ...]:
    steps, common = np.diff(times), common_step(times)
    months = months_between(times)
    if months is not None:
        at = np.diff(times.astype("datetime64[M]").astype(np.int64))
        odd = np.flatnonzero(at != months)
        what = "a month" if months == 1 else f"{months} months"
        where = f"{len(odd)} times, first after {str(times[odd[0]])[:10]}" if len(odd) else ""
        return (f"the step between rows is {what}, but another one {where}: windows go across",) if len(odd) else ()
    odd = np.flatnonzero(steps != common)
    if not len(odd):
        return ()
    import pandas as pd

    step, other = (str(pd.Timedelta(step)).replace("0 days ", "") for step in (common, steps[odd[0]]))
    hour = np.timedelta64(1, "h")
    years = (times[-1] - times[0]) / np.timedelta64(365, "D") + 1
    saving = (
        len(odd) <= 2 * years and bool((np.abs(steps[odd] - common) == hour).all()) and common is not None and common <= hour
    )
    hint = ", as if the clock were set back and forth, which `series.zone` takes out" if saving else ""
    return (
        f"the step between rows is {step}, but another one {len(odd)} times, first {other} after {str(times[odd[0]])[:19]}"
        f"{hint}: windows go across",
    )
