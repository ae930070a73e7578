"""Events in HDF5 files, by the layout that is found in them.

    NAME, compound with t, x, y, p            Metavision's CD/events: µs; ECF is unpacked by `ecf`
    NAME/{t, x, y, p}, or ts, xs, ys, ps …    DSEC: µs, t_offset is added, ms_to_idx must agree; E2VID's, in seconds
    NAME [n, 4] of uint32                     v2e: t in µs, x, y, p
    NAME [n, 4] of float64                    MVSEC: x, y, t in seconds, p of a DAVIS346

Only links that stay in the file are followed, and no attribute is unpickled. It runs in a process of its own (`apart`), so it
imports nothing of the package.
"""

import re
import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

PACKAGES = ("h5py", "numpy")
PIECE = 1 << 20
ECF = 0x8ECF
BUILT_IN = {1, 2, 3, 32000}  # gzip, shuffle, checksums, lzf
PLUGINS = {32008: "bitshuffle", 32001: "blosc", 32026: "blosc2", 307: "bzip2", 32004: "lz4", 32015: "zstd"}
"""HDF5's number of a way to pack -> its name, of those in hdf5plugin"""
NAMED = runpy.run_path(str(Path(__file__).with_name("named.py")))
MOST_LINKS = 10_000
DEEPEST = 32  # groups in groups


class Found(NamedTuple):
    """One recording in a file: its name, and of each column the dataset and, in it, the field or the column; unit of its times;
    sensor; group that says more of it."""

    name: str
    columns: tuple[tuple[Any, str | int | None], ...]
    unit: str | None
    sensor: tuple[int, int] | None
    group: Any


def pieces_in(path: str, stream: str | None, limit: int) -> Iterator[tuple[dict, list[Any]]]:
    """{"unit", "sensor"}, then t, x, y, p of at most PIECE events. Raises ValueError for what can't or shouldn't be read."""
    import h5py

    try:
        with h5py.File(path, "r") as file:
            yield from _pieces(file, stream, limit, h5py)
    except (ValueError, MemoryError, ImportError):
        raise
    except Exception as error:  # h5py has OSError, KeyError, RuntimeError, TypeError …
        text = str(error.args[0]) if error.args else type(error).__name__
        raise ValueError(f"it can't be read as HDF5: {' '.join(text.split())[:300]}; copy or download it again") from error


def _pieces(file: Any, stream: str | None, limit: int, h5py: Any) -> Iterator[tuple[dict, list[Any]]]:
    found = list(_recordings(file, h5py))
    if not found:
        raise ValueError(
            "it has no events of a known layout: expected CD/events (Metavision), events/t, x, y, p (DSEC, E2VID), "
            "events [n, 4] (v2e) or davis/left/events (MVSEC); save t [µs], x, y, p as .npz"
        )
    one = found[NAMED["choose"]([one.name for one in found], stream)]
    for dataset in {dataset.id: dataset for dataset, _ in one.columns}.values():
        _check_packing(dataset, one.name, limit)
        _check_stored(dataset, one.name)
    yield from _read(one, h5py)


def _read(one: Found, h5py: Any) -> Iterator[tuple[dict, list[Any]]]:
    import numpy as np

    first = one.columns[0][0]
    offset, index = _offset(one.group, h5py), _index(one.group, h5py)
    about = {"unit": one.unit, "sensor": one.sensor}
    packed = _filters(first)
    pieces = _from_chunks(first) if packed == [ECF] else _from_slices(one, len(first))
    start, before = 0, None
    for t, x, y, p in pieces:
        if t.dtype.kind in "iu":
            if len(t) and max(-int(t.min()), int(t.max())) > 1 << 62:
                raise ValueError(f"its times must be within ±2**62, found {t.min()} to {t.max()}")
            t = t.astype(np.int64)
            if index is not None:
                _check_index(index, t, start, before)
            before = t[-1] if len(t) else before
            t = t + offset
        start += len(t)
        yield about, [np.ascontiguousarray(column) for column in (t, x, y, p)]


def _from_slices(one: Found, count: int) -> Iterator[list[Any]]:
    for start in range(0, count, PIECE):
        read = {}
        for dataset, _ in one.columns:
            if dataset.id not in read:
                read[dataset.id] = dataset[start : start + PIECE]
        yield [
            values if part is None else values[part] if isinstance(part, str) else values[:, part]
            for values, part in ((read[dataset.id], part) for dataset, part in one.columns)
        ]


def _from_chunks(dataset: Any) -> Iterator[list[Any]]:
    """Of ECF: chunks as they lie in the file, unpacked here."""
    import numpy as np

    unpacked = runpy.run_path(str(Path(__file__).with_name("ecf.py")))["unpacked"]
    size, held, count = dataset.chunks[0], [], 0
    for start in range(0, len(dataset), size):
        skipped, data = dataset.id.read_direct_chunk((start,))
        plain: Any = np.frombuffer(data, dataset.dtype) if skipped else None
        events = unpacked(data) if plain is None else [plain[name] for name in ("t", "x", "y", "p")]
        wanted = min(size, len(dataset) - start)
        if len(events[0]) < wanted or len(events[0]) > size:
            raise ValueError(f"a chunk of its events has {len(events[0])} of them, not {wanted}; copy or download it again")
        held.append([column[:wanted].astype(kind) for column, kind in zip(events, ("i8", "u2", "u2", "i2"), strict=True)])
        count += wanted
        if count + size > PIECE:
            yield [np.concatenate(column) for column in zip(*held, strict=True)]
            held, count = [], 0
    if held:
        yield [np.concatenate(column) for column in zip(*held, strict=True)]


def _recordings(file: Any, h5py: Any) -> Iterator[Found]:
    resolution = _sensor_of(file, h5py)
    for name, thing in _things(file, h5py):
        if isinstance(thing, h5py.Dataset):
            if thing.dtype.names and thing.ndim == 1 and name.rpartition("/")[0] != "EXT_TRIGGER":
                fields = _fields(thing.dtype.names)
                if fields is not None and all(thing.dtype[field].kind in "iu" for field in fields):
                    metavision = fields == ("t", "x", "y", "p") and thing.dtype["t"].kind == "i"
                    columns = tuple((thing, field) for field in fields)
                    yield Found(name, columns, "us" if metavision else None, resolution, None)
            elif thing.ndim == 2 and thing.shape[1] == 4 and name.rpartition("/")[2] == "events":
                if thing.dtype.kind == "u":
                    yield Found(name, tuple((thing, k) for k in range(4)), "us", resolution, None)
                elif thing.dtype == "f8" and name.startswith("davis/"):
                    yield Found(name, tuple((thing, k) for k in (2, 0, 1, 3)), "s", (260, 346), None)
        else:
            there = {key: part for key, part in _children(thing, h5py) if isinstance(part, h5py.Dataset) and part.ndim == 1}
            fields = _fields(there)
            if fields is None:
                continue
            columns = tuple((there[field], None) for field in fields)
            if any(dataset.dtype.kind not in "biuf" for dataset, _ in columns):
                continue
            lengths = {len(dataset) for dataset, _ in columns}
            if len(lengths) > 1:
                found = ", ".join(f"{field} {len(there[field])}" for field in fields)
                raise ValueError(f"the columns of {name[:64]} differ in length: {found}")
            dsec = _dataset(file, "ms_to_idx", h5py) is not None
            e2vid = fields[0] == "ts" and columns[0][0].dtype.kind == "f"
            unit = "us" if dsec else "s" if e2vid else None
            yield Found(name, columns, unit, resolution, file if dsec else None)


def _fields(names: Any) -> tuple[str, ...] | None:
    """The names of t, x, y and p; None unless there is one of each."""
    found = [[name for name in known if name in names] for known in NAMED["COLUMNS"].values()]
    return tuple(name for (name,) in found) if all(len(one) == 1 for one in found) else None


def _things(file: Any, h5py: Any) -> Iterator[tuple[str, Any]]:
    """Groups and datasets that lie in the file itself, each once, whatever circles its links make."""
    seen, waiting, links = set(), [("", file)], 0
    yield "/", file
    while waiting:
        at, group = waiting.pop(0)
        for name, inner in _children(group, h5py):
            links += 1
            address = h5py.h5o.get_info(inner.id).addr
            if links > MOST_LINKS:
                raise ValueError(f"it holds more than {MOST_LINKS:,} things: it is no recording")
            if address in seen:
                continue
            seen.add(address)
            path = f"{at}/{name}".strip("/")
            yield path, inner
            if path.count("/") > DEEPEST:
                raise ValueError(f"it holds groups in groups, more than {DEEPEST} deep: it is no recording")
            if isinstance(inner, h5py.Group):
                waiting.append((path, inner))


def _children(group: Any, h5py: Any) -> Iterator[tuple[str, Any]]:
    for name in group:
        if group.get(name, getclass=True, getlink=True) is not h5py.HardLink:
            continue
        inner = group[name]
        if isinstance(inner, h5py.Group) or (isinstance(inner, h5py.Dataset) and not inner.external and not inner.is_virtual):
            yield name, inner


def _dataset(group: Any, name: str, h5py: Any) -> Any:
    found: Any = dict(_children(group, h5py)).get(name) if group is not None else None
    return found if isinstance(found, h5py.Dataset) and found.dtype.kind in "iu" else None


def _filters(dataset: Any) -> list[int]:
    packing = dataset.id.get_create_plist()
    return [packing.get_filter(k)[0] for k in range(packing.get_nfilters())]


def _check_packing(dataset: Any, name: str, limit: int) -> None:
    """Raises ValueError if a chunk is too large or packed in an unknown way, ImportError without the package for it."""
    chunk = dataset.dtype.itemsize
    for side in dataset.chunks or ():
        chunk *= side
    if chunk > limit:
        raise ValueError(f"a chunk of {name[:64]} takes {chunk:,} bytes, the limit is {limit:,}: raise it with STAA_MAX_BYTES")
    odd = [number for number in _filters(dataset) if number not in BUILT_IN]
    if not odd or odd == [ECF]:
        if odd and (_filters(dataset) != [ECF] or dataset.dtype.itemsize != 16):
            raise ValueError("it is packed by ECF and something else: write it again with Metavision's metavision_file_to_hdf5")
        return
    if odd[0] not in PLUGINS:
        raise ValueError(f"it is packed in an unknown way (HDF5 filter {odd[0]}): save it with compression='gzip'")
    try:
        __import__("hdf5plugin")
    except ImportError as error:
        raise ImportError(
            f'it is packed by {PLUGINS[odd[0]]}, which the package hdf5plugin unpacks: pip install "staa-snn[events]"'
        ) from error


def _check_stored(dataset: Any, name: str) -> None:
    """Raises ValueError if the file lacks a part of what it says it holds: HDF5 gives zeros for it, however many."""
    if dataset.chunks is None:
        wanted, there = dataset.size * dataset.dtype.itemsize, dataset.id.get_storage_size()
    else:
        wanted, there = 1, dataset.id.get_num_chunks()
        for side, chunk in zip(dataset.shape, dataset.chunks, strict=True):
            wanted *= -(-side // chunk)
    if there < wanted:
        raise ValueError(
            f"not all of {name[:64]} is in the file, which should have {len(dataset):,} events: copy or download it again"
        )


def _sensor_of(file: Any, h5py: Any) -> tuple[int, int] | None:
    """(height, width) of the attribute geometry, "WIDTHxHEIGHT", or sensor_resolution, two numbers."""
    if "geometry" in file.attrs:
        attribute = h5py.h5a.open(file.id, b"geometry")
        if attribute.get_type().get_class() == h5py.h5t.STRING and attribute.get_space().get_simple_extent_npoints() == 1:
            value = file.attrs["geometry"]
            text = value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
            if said := re.fullmatch(r"(\d{1,5})x(\d{1,5})", text):
                return int(said[2]), int(said[1])
    if "sensor_resolution" in file.attrs:
        attribute = h5py.h5a.open(file.id, b"sensor_resolution")
        if attribute.dtype.kind in "iu" and attribute.shape == (2,):
            height, width = file.attrs["sensor_resolution"]
            return int(height), int(width)
    return None


def _offset(group: Any, h5py: Any) -> int:
    """DSEC: what is added to every time, in µs."""
    dataset = _dataset(group, "t_offset", h5py)
    if dataset is None:
        return 0
    if dataset.size != 1 or abs(value := int(dataset[()].ravel()[0] if dataset.ndim else dataset[()])) > 1 << 61:
        raise ValueError("its t_offset is no time in µs; copy or download it again")
    return value


def _index(group: Any, h5py: Any) -> Any:
    dataset = _dataset(group, "ms_to_idx", h5py)
    return dataset[()].astype("int64") if dataset is not None and dataset.ndim == 1 else None


def _check_index(index: Any, t: Any, start: int, before: Any) -> None:
    """DSEC: the event index[ms] is the first one from ms on, before t_offset is added. Raises ValueError otherwise."""
    import numpy as np

    ms = np.flatnonzero((index >= start) & (index < start + len(t)))
    at = index[ms] - start
    earlier = np.where(at > 0, t[np.maximum(at - 1, 0)], -1 if before is None else before)
    wrong = (t[at] < ms * 1000) | ((earlier >= ms * 1000) & (index[ms] > 0))
    if wrong.any():
        k = int(wrong.argmax())
        raise ValueError(
            f"its ms_to_idx and its times disagree at {ms[k]} ms (event {index[ms[k]]}, at {t[at[k]]} µs): copy or download it "
            f"again"
        )
