"""The parts of a NIR graph's file, read by a process of their own (`staa.data.series.apart`): nothing of staa is imported.

nir.read believes a file: it follows links into other files and in circles, and inflates whatever it says.
"""

from typing import Any

PACKAGE = "h5py"
TABLE = "a NIR graph"
SECONDS = 60
NODES, EDGES, FIELDS, NAME = 10_000, 100_000, 20, 200
"""How many nodes and edges a graph, fields a node and characters a name may have."""
FILTERS = {1: "gzip", 2: "shuffle", 3: "checksums", 32000: "lzf"}
"""HDF5's number of a way to pack -> its name, for what h5py has."""


def table_in(data: bytes, limit: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """The arrays of a graph's nodes, and its nodes, edges and metadata, in which an array is named as {"array": its name}.

    To be called where HDF5 may break down. Raises ValueError for what is no graph, or points out of the file.
    """
    import h5py

    try:
        with h5py.File(h5py.h5f.open_file_image(data)) as file:
            return _Reader(h5py, limit).graph(file)
    except MemoryError:
        raise
    except Exception as error:  # h5py has OSError, KeyError, RuntimeError, TypeError …
        text = str(error.args[0]) if error.args else type(error).__name__
        raise ValueError(" ".join(text.split())) from error


class _Reader:
    def __init__(self, h5py: Any, limit: int):
        self.h5py, self.limit, self.needed = h5py, limit, 0
        self.arrays: dict[str, Any] = {}

    def graph(self, file: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        root = self.group(file, "node")
        if self.text(root, "type") != "NIRGraph":
            raise ValueError("its node is no NIRGraph")
        nodes = self.group(root, "nodes")
        if len(nodes) > NODES or any(len(name) > NAME for name in nodes):
            raise ValueError(f"a graph may have {NODES:,} nodes with names of {NAME} characters, it has {len(nodes):,}")
        edges = self.dataset(root, "edges")
        if edges.ndim != 2 or edges.shape[1] != 2 or len(edges) > EDGES:
            raise ValueError(f"its edges must be pairs, at most {EDGES:,}, got shape {list(edges.shape)}")
        about = {
            "nodes": {name: self.node(self.group(nodes, name)) for name in nodes},
            "edges": [[_decoded(end) for end in edge] for edge in edges[()]],
            "metadata": self.metadata(root),
        }
        return self.arrays, about

    def node(self, group: Any) -> dict[str, Any]:
        if len(group) > FIELDS:
            raise ValueError(f"a node may have {FIELDS} fields, {group.name} has {len(group)}")
        kind = self.text(group, "type")
        if kind == "NIRGraph":
            return {"type": kind}
        return {"type": kind, **{name: self.field(group, name) for name in group if name not in ("type", "metadata")}}

    def field(self, group: Any, name: str) -> Any:
        dataset = self.dataset(group, name)
        if self.h5py.check_string_dtype(dataset.dtype) is not None:
            return self.text(group, name)
        key = f"array{len(self.arrays)}"
        self.arrays[key] = dataset[()]
        return {"array": key}

    def metadata(self, root: Any) -> dict[str, Any]:
        """Its numbers and short texts; what else it may hold is for others."""
        if "metadata" not in root:
            return {}
        group, found = self.group(root, "metadata"), {}
        for name in list(group)[:FIELDS]:
            if group.get(name, getclass=True, getlink=True) is self.h5py.HardLink and not isinstance(
                group[name], self.h5py.Group
            ):
                dataset = self.dataset(group, name)
                if dataset.shape == ():
                    texts = self.h5py.check_string_dtype(dataset.dtype) is not None
                    found[name[:NAME]] = _decoded(dataset[()]) if texts else dataset[()].item()
        return found

    def group(self, parent: Any, name: str) -> Any:
        found = self.own(parent, name)
        if not isinstance(found, self.h5py.Group):
            raise ValueError(f"its {name[:NAME]} is no group")
        return found

    def text(self, group: Any, name: str) -> str:
        dataset = self.dataset(group, name)
        if dataset.shape != () or self.h5py.check_string_dtype(dataset.dtype) is None:
            raise ValueError(f"its {name[:NAME]} is no text")
        return _decoded(dataset[()])[:NAME]

    def dataset(self, group: Any, name: str) -> Any:
        dataset = self.own(group, name)
        if not isinstance(dataset, self.h5py.Dataset) or dataset.external or dataset.is_virtual:
            raise ValueError(f"its {name[:NAME]} is not in the file itself")
        kind = dataset.dtype.kind
        if not (kind in "biuf" or self.h5py.check_string_dtype(dataset.dtype) is not None) or dataset.dtype.itemsize > 4096:
            raise ValueError(f"its {name[:NAME]} holds no plain numbers or text ({dataset.dtype})")
        packing = dataset.id.get_create_plist()
        odd = [n for n in (packing.get_filter(k)[0] for k in range(packing.get_nfilters())) if n not in FILTERS]
        if odd:
            raise ValueError(f"it is packed in a way that h5py lacks (filter {odd[0]}): save it with gzip or without")
        self.needed += dataset.size * dataset.dtype.itemsize
        chunk = dataset.dtype.itemsize
        for side in dataset.chunks or ():
            chunk *= side
        if max(self.needed, chunk) > self.limit:
            raise ValueError(
                f"its arrays take {self.needed:,} bytes or more, the limit is {self.limit:,}: raise it with STAA_MAX_BYTES"
            )
        return dataset

    def own(self, group: Any, name: str) -> Any:
        """What a group holds itself, not by a link to elsewhere."""
        if name not in group or group.get(name, getclass=True, getlink=True) is not self.h5py.HardLink:
            raise ValueError(f"it has no {name[:NAME]}")
        return group[name]


def _decoded(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
