"""Time series that are named: published sets, and one from an equation."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np

from staa.data.download import Archive, Tell, fetch, is_published, told
from staa.data.series.dialect import Decimal, Separator
from staa.data.series.files import read_series, series_in
from staa.data.series.graph import read_graph
from staa.data.series.series import TimeSeries
from staa.data.series.table import Asked
from staa.files import check_no_file, read_bytes
from staa.registry import Registry


def diffusion_ring(*, rows: int = 4000, seed: int = 0) -> TimeSeries:
    """Values every 20 minutes that diffuse on a ring of 6 nodes with a season of 12 hours, simulated:

        x[t+1] = x[t] + a · L x[t] + b · sin(2π (t / 36 + i / 6)) + noise,      (L x)_i = (x_{i−1} + x_{i+1}) / 2 − x_i

    with a = 0.5, b = 0.15 and noise N(0, 0.03²), independent for each node i and step t. Over 6 steps the last value has an
    R² of about 0.6, least squares on all nodes' last 12 values one of 0.99.

    Args:
        rows: Number of rows, at least 1.
        seed: Seed of the noise.
    """
    random = np.random.default_rng(seed)
    node = np.arange(6)
    x = np.zeros((rows, 6))
    for t in range(rows - 1):
        laplacian = (np.roll(x[t], 1) + np.roll(x[t], -1)) / 2 - x[t]
        drive = 0.15 * np.sin(2 * np.pi * (t / 36 + node / 6))
        x[t + 1] = x[t] + 0.5 * laplacian + drive + random.normal(0, 0.03, 6)
    ring = np.roll(np.eye(6), 1, 0) + np.roll(np.eye(6), -1, 0)
    return TimeSeries(x, _every("2024-01-01", "20min", rows), tuple(f"node {i}" for i in node), graph=ring.astype(np.float32))


def published_file(name: str, root: Path) -> tuple[Path, bytes]:
    """A published set's file, packed or unpacked, and its content.

    Raises FileNotFoundError if it is not there, ValueError for one as it is downloaded that has not the published sum.
    """
    archive = FILES[name]
    file = root / archive.name.removesuffix(".gz")
    path = next((p for p in (file, root / archive.name) if p.is_file()), None)
    if path is None:
        check_no_file(root, file.name)
        raise FileNotFoundError(
            f"{file} is missing: download it into {root} with `staa data {name}`, or give another folder (`data_root`)"
        )
    data = read_bytes(path)
    if path.name == archive.name and not is_published(data, archive.checksum):
        raise ValueError(
            f"{path} is not the published file ({told(archive.checksum)}): remove it and download it again with `staa data "
            f"{name}`, or take it as a file of your own (`data.name=series`)"
        )
    return path, data


def _published(
    name: str, shape: tuple[int, int], *, root: Path, time: tuple[str, str] | None, missing: float | None
) -> TimeSeries:
    """A published set, its file checked against the published sum unless it was unpacked; time: start and step if the file
    doesn't say them."""
    path, data = published_file(name, root)
    series = series_in(data, path, None if path.suffix == ".h5" else Asked(header="no"))
    times = series.times if time is None else _every(*time, len(series.values))
    notes = series.notes
    if series.values.shape != shape:
        (rows, nodes), (known, variates) = series.values.shape, shape
        notes = (*notes, f"{path} has {rows:,} × {nodes:,} values, the published set {known:,} × {variates:,}")
    return replace(series, times=times, missing=missing, notes=notes)


def _with_graph(series: TimeSeries, graph: str | None, distances: bool) -> TimeSeries:
    """The authors' files of distances have sensors that the series has not."""
    if graph is None:
        return series
    return replace(series, graph=read_graph(Path(graph), series.names, distances=distances, others="skip"))


def metr_la(*, root: Path, graph: str | None = None, distances: bool = False) -> TimeSeries:
    """METR-LA: speed in miles an hour at 207 sensors of Los Angeles, every 5 minutes, 34,272 rows; 0 is no measurement.

    Args:
        root: Folder that holds metr-la.h5.
        graph: File of a graph between the sensors, as `staa.data.read_graph` takes it; None: no graph. Edges of sensors that
            the series lacks are skipped.
        distances: The graph's file holds distances, from which weights are made.

    Raises:
        FileNotFoundError: If the file is not there.
        ValueError: If it is broken, or the graph is none of these sensors.

    Source:
        Li et al., ICLR 2018.
    """
    series = _published("metr-la", (34_272, 207), root=root, time=None, missing=0.0)
    return _with_graph(series, graph, distances)


def pems_bay(*, root: Path, graph: str | None = None, distances: bool = False) -> TimeSeries:
    """PEMS-BAY: speed in miles an hour at 325 sensors of the Bay Area, every 5 minutes, 52,116 rows; 0 is no measurement.

    Args:
        root: Folder that holds pems-bay.h5.
        graph: File of a graph between the sensors, as `staa.data.read_graph` takes it; None: no graph. Edges of sensors that
            the series lacks are skipped.
        distances: The graph's file holds distances, from which weights are made.

    Raises:
        FileNotFoundError: If the file is not there.
        ValueError: If it is broken, or the graph is none of these sensors.

    Source:
        Li et al., ICLR 2018.
    """
    series = _published("pems-bay", (52_116, 325), root=root, time=None, missing=0.0)
    return _with_graph(series, graph, distances)


def solar(*, root: Path) -> TimeSeries:
    """Solar: power of 137 plants in Alabama, every 10 minutes of 2006, 52,560 rows.

    Args:
        root: Folder that holds solar_AL.txt.gz or solar_AL.txt.

    Raises:
        FileNotFoundError: If the file is not there.
        ValueError: If it is broken, or not the published file.

    Source:
        Lai et al., Modeling long- and short-term temporal patterns with deep neural networks, SIGIR 2018.
    """
    return _published("solar", (52_560, 137), root=root, time=("2006-01-01", "10min"), missing=None)


def electricity(*, root: Path) -> TimeSeries:
    """Electricity: kWh of 321 clients, every hour from 2012, 26,304 rows.

    Args:
        root: Folder that holds electricity.txt.gz or electricity.txt.

    Raises:
        FileNotFoundError: If the file is not there.
        ValueError: If it is broken, or not the published file.

    Source:
        Lai et al., Modeling long- and short-term temporal patterns with deep neural networks, SIGIR 2018.
    """
    return _published("electricity", (26_304, 321), root=root, time=("2012-01-01", "1h"), missing=None)


def series_file(
    *,
    root: Path,
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
    """A series of one's own from a file, as `staa.data.read_series` reads it.

    Args:
        root: The file.
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
    return read_series(
        root,
        time=time,
        time_format=time_format,
        zone=zone,
        header=header,
        separator=separator,
        decimal=decimal,
        columns=columns,
        drop=drop,
        missing=missing,
        id=id,
        value=value,
        channel=channel,
        graph=graph,
        distances=distances,
    )


SERIES: Registry[Callable[..., TimeSeries]] = Registry(
    "series",
    "staa.data.SERIES",
    {
        "ring": diffusion_ring,
        "series": series_file,
        "metr-la": metr_la,
        "pems-bay": pems_bay,
        "solar": solar,
        "electricity": electricity,
    },
)

LAI = "https://raw.githubusercontent.com/laiguokun/multivariate-time-series-data/master"
DCRNN = "https://github.com/liyaguang/DCRNN"  # the page leads to the authors' folder
MIRROR = "https://huggingface.co/datasets/jimmygao3218"
FILES = {
    "metr-la": Archive(
        "metr-la.h5",
        "64784b76d6fb8ec9bff4b6decafb354da2bb37840468fdccee5044e511277c05",
        (f"{MIRROR}/METRLA/resolve/main/metr-la.h5",),
        DCRNN,
    ),
    "pems-bay": Archive(
        "pems-bay.h5",
        "65d69fb0a2323dba9867179eb7af47c8b814186bc459ff0a4937d21614153c8f",
        (f"{MIRROR}/PEMSBAY/resolve/main/PEMS-BAY.h5",),
        DCRNN,
    ),
    "solar": Archive(
        "solar_AL.txt.gz",
        "41ef7fdc958c2ca3fac9cd06d6227073",
        (f"{LAI}/solar-energy/solar_AL.txt.gz",),
        "https://github.com/laiguokun/multivariate-time-series-data",
    ),
    "electricity": Archive(
        "electricity.txt.gz",
        "07d51dc39c404599ead932937985957b",
        (f"{LAI}/electricity/electricity.txt.gz",),
        "https://github.com/laiguokun/multivariate-time-series-data",
    ),
}


def download_series(name: str, root: Path, tell: Tell = lambda *_: None) -> Path:
    """Download a published set's file to a folder; returns the folder. A file that is there and whole is left alone.

    Args:
        name: "metr-la", "pems-bay", "solar" or "electricity".
        root: Folder that the file goes to; it is made if need be.
        tell: Called as tell(name, bytes there, bytes in all or None) while it downloads.

    Raises:
        ValueError: If no address answers, or if what is there or arrives is not the published file.
    """
    fetch(FILES[name], root, tell)
    return root


def _every(start: str, step: str, rows: int) -> np.ndarray:
    import pandas as pd

    return np.asarray(pd.date_range(start, periods=rows, freq=step), "datetime64[ns]")
