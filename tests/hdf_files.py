"""Series as pandas writes them in HDF5, and what a pickle in one could do."""

import os
from pathlib import Path

import numpy as np

VALUES = np.random.default_rng(0).uniform(0, 70, (40, 3)).round(2)
TIMES = np.datetime64("2012-03-01", "ns") + np.arange(40) * np.timedelta64(5, "m")


class Payload:
    """Unpickled, it makes a folder."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


def write_hdf(path: Path, values: np.ndarray, *, times: np.ndarray, names: list, key: str = "df", packed: bool = False) -> None:
    """A table as pandas writes it in its fixed format, the attributes that are pickles among them."""
    import h5py

    labels = np.array([n.encode() for n in names]) if isinstance(names[0], str) else np.array(names)
    named = "string" if isinstance(names[0], str) else "integer"
    datasets = {
        "axis0": (labels, {"kind": named}),
        "axis1": (times.astype("datetime64[ns]").astype(np.int64), {"kind": "datetime64", "freq": "c__main__\nFreq\n."}),
        "block0_items": (labels, {"kind": named}),
        "block0_values": (values, {}),
    }
    packing = {"compression": "gzip", "shuffle": True, "chunks": True} if packed else {}
    with h5py.File(path, "w", libver="earliest") as file:
        group = file.create_group(key)
        for name, text in {
            "CLASS": "GROUP", "pandas_type": "frame", "encoding": "UTF-8", "errors": "strict", "axis0_variety": "regular",
        }.items():  # fmt: skip
            group.attrs[name] = np.bytes_(text)
        group.attrs["nblocks"], group.attrs["ndim"] = np.int64(1), np.int64(2)
        for name, (array, texts) in datasets.items():
            dataset = group.create_dataset(name, data=array, **packing)
            for attribute, text in {"CLASS": "ARRAY", "FLAVOR": "numpy", "name": "N.", **texts}.items():
                dataset.attrs[attribute] = np.bytes_(text)
            dataset.attrs["transposed"] = np.uint8(1)
