"""Series in NumPy's files: an array [rows, variates] or [rows, variates, channels], names, times and a graph beside it."""

from pathlib import Path
from typing import Any

import numpy as np

from staa.arrays import arrays_in
from staa.data.series.table import Asked, Table, check_names
from staa.data.series.times import nanoseconds
from staa.files import check_bytes

NAME_BYTES = 128  # of a name, which is kept twice


def arrays_table(data: bytes, path: Path, asked: Asked) -> tuple[Table, np.ndarray | None]:
    """(the table in the bytes of a .npy or .npz, its graph or None)"""
    import pandas as pd

    z = arrays_in(data, str(path))
    name = next((name for name in ("values", "data", "") if name in z), None)
    if name is None:
        raise ValueError(f"{path} must have an array 'values' [rows, variates]; it has {', '.join(z) or 'no arrays'}")
    what = f"{path}'s {name or 'array'}" + ("" if name == "values" else " values" if not name else "")
    values, own, times = _channel(z[name], what, asked.channel), z.get("graph"), z.get("time")
    check_bytes(
        8 * (values.size + (0 if own is None else own.size)) + NAME_BYTES * values.shape[1], f"{path}'s values and names"
    )
    named = "names" in z and z["names"].ndim > 0
    names = [str(n) for n in (z["names"] if named else range(values.shape[1]))]
    check_names(names, path)
    for array, called in ((values, what), (own, f"{path}'s graph")):
        if array is not None and array.dtype.kind not in "iufb":
            raise ValueError(f"{called} must be numbers, got {array.dtype}")
    if times is not None and times.dtype.kind not in "MUi":  # floating seconds would be read as nanoseconds
        raise ValueError(
            f"{path}'s time must be datetime64, text such as 2024-01-31T12:00, or int64 nanoseconds; got {times.dtype}"
        )
    index = None
    if times is not None:
        if times.shape != values.shape[:1]:
            raise ValueError(f"{path}: times must be datetime64, one for each row of {len(values)}, got {list(times.shape)}")
        try:
            index = pd.DatetimeIndex(nanoseconds(times))
        except (ValueError, OverflowError) as error:
            raise ValueError(f"{path}'s time can't be read: {error}") from error
    if len(names) != values.shape[1]:
        raise ValueError(f"{path}: {values.shape[1]} variates need {values.shape[1]} different names, got {len(names)}")
    table = Table(names, values.astype(np.float64), list(range(len(names))), index, named=named)
    if values.ndim < z[name].ndim and z[name].shape[2] > 1:
        table.notes.append(f"channel {asked.channel} of {z[name].shape[2]} is read")
    return table, None if own is None else own.astype(np.float32)


def _channel(values: Any, what: str, channel: int | None) -> np.ndarray:
    """[rows, variates] of [rows, variates] or of one channel. Raises ValueError for others, or if it is not said which one."""
    if values.ndim == 3 and 0 not in values.shape:
        count = values.shape[2]
        if channel is None and count > 1:
            raise ValueError(
                f"{what} is {list(values.shape)}, rows by variates by channels: say which channel is forecast with "
                f"`series.channel`, from 0 to {count - 1}"
            )
        if not 0 <= (channel or 0) < count:
            raise ValueError(f"{what} has the channels 0 to {count - 1} (`series.channel`), got {channel}")
        return values[:, :, channel or 0]
    if values.ndim != 2 or 0 in values.shape:
        raise ValueError(f"{what} must be [rows, variates], got {list(values.shape)}")
    if channel is not None:
        raise ValueError(f"{what} is {list(values.shape)}, rows by variates, and has no channels: leave out `series.channel`")
    return values
