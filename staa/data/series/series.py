"""What every series becomes: a `TimeSeries`, checked."""

from dataclasses import dataclass

import numpy as np

from staa.data.series.calendar import common_step
from staa.data.series.calendar import following as following  # beside the series that it goes on from

HOUR = np.timedelta64(1, "h")


@dataclass(frozen=True)
class TimeSeries:
    """A table of values in the order of time, with the times of its rows and a graph of its variates if they are known.

    Args:
        values: float64, NaN if nothing was measured.
        times: datetime64[ns], growing; None if they are not known.
        names: Names of the variates, each its own.
        graph: Weights float32, finite and at least 0, row i the weights of i's neighbours; None without a graph.
        missing: A value that stands for no measurement, which errors in real units leave out; None if there is none.
        notes: What the user should hear about the series.
        unmeasured: Where values are NaN since the file has a value that stands for no measurement; None if none does.

    Shapes:
        values, unmeasured [n, K], times [n], names [K], graph [K, K]

    Raises:
        ValueError: If values are no table or infinite, names are not K different ones, times are unsorted or twice there, or
            the graph has another size or a weight that is negative or not finite.
    """

    values: np.ndarray
    times: np.ndarray | None
    names: tuple[str, ...]
    graph: np.ndarray | None = None
    missing: float | None = None
    notes: tuple[str, ...] = ()
    unmeasured: np.ndarray | None = None

    def __post_init__(self) -> None:
        if self.values.ndim != 2 or 0 in self.values.shape:
            raise ValueError(f"a series must be a table [rows, variates], got shape {list(self.values.shape)}")
        rows, nodes = self.values.shape
        if np.isinf(self.values).any():
            row, column = np.argwhere(np.isinf(self.values))[0]
            raise ValueError(f"variate {self.names[column]} is infinite in row {row}: leave it empty if nothing was measured")
        if len(self.names) != nodes or len(set(self.names)) != nodes:
            raise ValueError(f"{nodes} variates need {nodes} different names, got {len(set(self.names))}")
        if self.times is not None:
            _check_times(self.times, rows)
        if self.graph is not None:
            check_graph(self.graph, nodes)

    @property
    def every(self) -> float | None:
        """Seconds from most rows to the next (monthly: of most months); None without times, or for a single row."""
        common = None if self.times is None else common_step(self.times)
        return None if common is None else float(common / np.timedelta64(1, "s"))


def _check_times(times: np.ndarray, rows: int) -> None:
    if times.dtype.kind != "M" or times.ndim != 1:
        raise ValueError(f"times must be datetime64, one for each row; got {times.dtype} of shape {list(times.shape)}")
    if len(times) != rows:
        raise ValueError(f"times must be one for each of {rows} rows, got {len(times)}")
    if np.isnat(times).any():
        raise ValueError(f"row {int(np.flatnonzero(np.isnat(times))[0])} has no time: give it one, or remove the row")
    wrong = np.flatnonzero(np.diff(times) <= np.timedelta64(0, "ns"))
    if len(wrong):
        row = int(wrong[0]) + 1
        what = "is there twice" if times[row] == times[row - 1] else "is before the one above it"
        back = len(wrong) <= 1 + (times[-1] - times[0]) / np.timedelta64(300, "D") and times[row - 1] - times[row] < HOUR
        saving = "; if the clock was set back there, say the zone of all times, `series.zone`" if back else ""
        raise ValueError(
            f"row {row}: its time {str(times[row])[:19]} {what} ({str(times[row - 1])[:19]}): sort the rows by "
            f"time, and keep one row of each{saving}"
        )


def check_graph(graph: np.ndarray, nodes: int) -> None:
    if graph.shape != (nodes, nodes):
        raise ValueError(f"the graph is {by(graph.shape)}, the series has {nodes} variates: it must be {nodes} × {nodes}")
    if not np.isfinite(graph).all() or (graph < 0).any():
        raise ValueError("a graph's weights must be finite and not negative")


def by(shape: tuple[int, ...]) -> str:
    return " × ".join(f"{n:,}" for n in shape)
