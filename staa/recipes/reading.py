"""The part of a recipe that says how a file of one's own is read."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Reading:
    """How a series of one's own is read from its file; see `staa.data.read_series`."""

    graph: str | None = None
    """File of the graph of a series of one's own: a matrix, or a list of edges."""
    distances: bool = False
    """That graph holds distances: its weights become exp(−(d / std)²)."""
    time: str | None = None
    """Column of the times in a file of one's own; None: the first that holds dates."""
    time_format: str | None = None
    """What the times are written in, such as %d/%m/%Y %H:%M, or unix-s, unix-ms, unix-us, unix-ns; None: ISO 8601, such as
    2024-01-31 12:00."""
    zone: str | None = None
    """Time zone, such as Europe/Berlin, from which times become UTC; None: they are read as they are written."""
    header: Literal["yes", "no"] | None = None
    """Whether the first row of a text file names the columns; None: as its cells tell."""
    separator: Literal["comma", "semicolon", "tab", "bar", "space"] | None = None
    """What is between the columns of a text file; None: as its rows tell."""
    decimal: Literal["point", "comma"] | None = None
    """What is before a number's fraction in a text file; None: as the numbers tell."""
    columns: str | None = None
    """Variates to take, such as north,south; None: all columns that are measured."""
    drop: str | None = None
    """Columns to leave out, such as north,south."""
    missing: str | None = None
    """Values that stand for no measurement, such as 0,-9999: loss and figures leave them out, and the network sees the last
    known value in their place."""
    id: str | None = None
    """Column that names the variates, in a file of long format (id, time, value); None: as the columns tell."""
    value: str | None = None
    """Column of the values in such a file; None: the only one."""
    channel: int | None = None
    """Which channel of a .npz's or .npy's values [rows, variates, channels]."""
