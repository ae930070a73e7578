"""The numbers in a table that pandas wrote as HDF5 (.h5), read by a process of their own (`apart`).

pandas.read_hdf unpickles attributes, which runs code. Here no attribute is unpickled. The child process runs this file, so it
imports nothing of the package at its top.
"""

from collections.abc import Iterator
from typing import Any

PACKAGE = "h5py"
TABLE = "one pandas table"
SECONDS = 60
FILTERS = {1: "gzip", 2: "shuffle", 3: "checksums", 32000: "lzf"}
"""HDF5's number of a way to pack -> its name, for what h5py has."""
PARTS = {"frame": ("axis0", "axis1"), "series": ("index", "values")}
"""What pandas calls a table -> the datasets in its group, beside block0_items, block0_values and so on"""


def read_hdf(data: bytes, what: str, limit: int) -> dict[str, Any]:
    """The datasets of the one pandas table in a file's bytes, by name, and as "about" their few attributes that are text.

    Raises ValueError, saying what to do, for a file that is no such table, is packed in a way that h5py lacks, points to other
    files, or would take more than `limit` bytes, and if h5py is not installed.
    """
    from staa.data.series.apart import read_apart

    return read_apart(__file__, data, what, limit, library="HDF5", seconds=SECONDS)


def table_in(data: bytes, limit: int) -> tuple[dict[str, Any], dict[str, dict[str, str]]]:
    """The datasets of the only pandas table in a file's bytes, and the text attributes of each; those of the table under "".

    To be called where HDF5 may break down. Raises ValueError for what a reader of numbers can't or shouldn't read.
    """
    import h5py

    try:
        with h5py.File(h5py.h5f.open_file_image(data)) as file:
            return _table(file, limit, h5py)
    except MemoryError:
        raise
    except Exception as error:  # h5py has OSError, KeyError, RuntimeError, TypeError …
        text = str(error.args[0]) if error.args else type(error).__name__
        raise ValueError(" ".join(text.split())) from error


def _table(file: Any, limit: int, h5py: Any) -> tuple[dict[str, Any], dict[str, dict[str, str]]]:
    tables = [g for g in _groups(file, h5py) if _text(g, "pandas_type", h5py) is not None]
    if len(tables) != 1:
        raise ValueError(f"it holds {len(tables)} of them; save one alone, with DataFrame.to_hdf(path, key='table')")
    (table,) = tables
    about = {"": _texts(table, ("pandas_type", "encoding", "name"), h5py)}
    kind = about[""]["pandas_type"]
    if kind not in PARTS:
        raise ValueError(
            f"it is a {kind}, whose names are pickled: save it with DataFrame.to_hdf(path, key='table', format='fixed')"
        )
    names = [*PARTS[kind]]
    if kind == "frame":
        count = sum(n.startswith("block") and n.endswith("_values") for n in table)
        names += [f"block{k}_{part}" for k in range(count) for part in ("items", "values")]
    found, needed = {}, 0
    for name in names:
        dataset = _dataset(table, name, h5py)
        needed += dataset.size * dataset.dtype.itemsize
        if max(needed, dataset.dtype.itemsize * _product(dataset.chunks or ())) > limit:
            raise ValueError(f"its arrays take {needed:,} bytes or more, the limit is {limit:,}: raise it with STAA_MAX_BYTES")
        about[name] = _texts(dataset, ("kind", "tz", "value_type"), h5py)
        found[name] = dataset
    return {name: dataset[()].view(dataset.dtype.str) for name, dataset in found.items()}, about  # without h5py's metadata


def _groups(group: Any, h5py: Any, seen: set[int] | None = None) -> Iterator[Any]:
    """Groups below a group that lie in the file itself, each once, whatever circles its links make."""
    seen = set() if seen is None else seen
    for name in group:
        if group.get(name, getclass=True, getlink=True) is not h5py.HardLink:
            continue
        inner = group[name]
        address = h5py.h5o.get_info(inner.id).addr
        if isinstance(inner, h5py.Group) and address not in seen:
            seen.add(address)
            yield inner
            yield from _groups(inner, h5py, seen)


def _dataset(table: Any, name: str, h5py: Any) -> Any:
    if name not in table or table.get(name, getclass=True, getlink=True) is not h5py.HardLink:
        raise ValueError(f"it has no {name} (names of several levels can't be read)")
    dataset = table[name]
    if not isinstance(dataset, h5py.Dataset) or dataset.external or dataset.is_virtual:
        raise ValueError(f"its {name} is not in the file itself: save it there")
    if (
        dataset.dtype.kind not in "iufS"
        or dataset.dtype.itemsize > (8 if dataset.dtype.kind != "S" else 2**16)
        or dataset.ndim > 2
    ):
        raise ValueError(
            f"its {name} holds no plain numbers or text ({dataset.dtype}, {dataset.ndim} axes): make all columns numbers, and "
            f"save it with DataFrame.to_hdf(path, key='table')"
        )
    packing = dataset.id.get_create_plist()
    odd = [n for n in (packing.get_filter(k)[0] for k in range(packing.get_nfilters())) if n not in FILTERS]
    if odd:
        raise ValueError(f"it is packed in a way that h5py lacks (filter {odd[0]}): save it with complib='zlib' or without")
    return dataset


def _texts(of: Any, names: tuple[str, ...], h5py: Any) -> dict[str, str]:
    return {name: text for name in names if (text := _text(of, name, h5py)) is not None}


def _text(of: Any, name: str, h5py: Any) -> str | None:
    """An attribute that is a short text of fixed length; None if there is none. Others are not touched."""
    if name not in of.attrs:
        return None
    attribute = h5py.h5a.open(of.id, name.encode())
    kind = attribute.get_type()
    plain = kind.get_class() == h5py.h5t.STRING and not kind.is_variable_str() and kind.get_size() <= 256
    if not plain or attribute.get_space().get_simple_extent_npoints() != 1:
        return None
    value = of.attrs[name]
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _product(sides: tuple[int, ...]) -> int:
    result = 1
    for side in sides:
        result *= side
    return result
