"""The graph of a series' variates, from a matrix or a list of edges."""

from pathlib import Path
from typing import Literal

import numpy as np

from staa.arrays import arrays_in
from staa.data.series.layout import cells_in
from staa.data.series.series import by, check_graph
from staa.files import check_bytes, read_bytes

PICKLES = (".pkl", ".pickle", ".p")
FROM = ("from", "source", "src", "i", "u", "from_id", "node1", "start")
TO = ("to", "target", "dst", "j", "v", "to_id", "node2", "end")
WEIGHT = ("weight", "cost", "distance", "dist", "w", "value")
SMALLEST_WEIGHT = 0.1  # of a graph made from distances; DCRNN's threshold


def read_graph(
    path: Path, names: tuple[str, ...], *, distances: bool = False, others: Literal["refuse", "skip"] = "refuse"
) -> np.ndarray:
    """Weights of a graph from a file, a matrix or a list of edges:

        .npy, .npz     an array [K, K], the only square one
        .csv, .txt     K rows of K numbers; the same with the nodes' names above them and before them, in any order
        .csv, .txt     edges from, to[, weight], in columns called so if there is a header, by names or, if the file has none
                       of the names, by numbers from 0

    Args:
        path: The graph's file.
        names: Names of the series' K variates.
        distances: The file holds distances d, whose weights are exp(−(d / σ)²), σ their standard deviation, and 0 below 0.1;
            without an edge there is none.
        others: "refuse" edges of nodes that are no variates, or "skip" them.

    Shapes:
        Weights are float32 [K, K], row i the weights of i's neighbours.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no graph of K nodes; if weights are negative or not finite; if an edge's node is no variate and is
            not skipped; if all distances are equal.

    Source:
        Weights of distances: DCRNN, Li et al., ICLR 2018.
    """
    expected = "give a graph as a matrix (.npy, .npz, .csv) or a .csv of edges from, to, weight"
    if path.is_dir():
        raise ValueError(f"{path} is a folder: {expected}")
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist: {expected}")
    if path.suffix.lower() in PICKLES:
        raise ValueError(
            f"{path} is a pickle, which runs its writer's code when it is opened, so it never is here: if you trust it, save "
            f"its matrix in Python, as numpy.save('adj.npy', pickle.load(open({path.name!r}, 'rb'), encoding='latin1')[2])"
        )
    data = read_bytes(path)
    nodes = len(names)
    check_bytes(nodes * nodes * 9, f"a graph of {nodes} nodes")
    if path.suffix in (".npy", ".npz"):
        weights = _from_arrays(data, path)
        there = weights > 0
    else:
        cells = cells_in(data, path)
        ends = set(names) | set(map(str, range(nodes)))
        few = nodes in (2, 3) and all(cell in ends for row in cells for cell in row[:2])  # so many edges look like a matrix
        matrix = None if few else _matrix(cells, names, path)
        weights, there = _from_edges(cells, names, path, others) if matrix is None else (matrix, matrix > 0)
    try:
        check_graph(weights, nodes)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    if others == "skip" and not there.any():
        raise ValueError(
            f"{path} has no edge between two of the series' variates ({', '.join(names[:3])} …): give the graph of this series"
        )
    if distances:
        length = weights[there]
        sigma = float(length.std()) if len(length) else 0.0
        if sigma == 0.0:
            raise ValueError(f"{path} must have edges of more than one distance, since weights are exp(−(d / their std)²)")
        weights = np.where(there, np.exp(-((weights / sigma) ** 2)), 0.0)
        weights[weights < SMALLEST_WEIGHT] = 0.0
    return weights.astype(np.float32)


def _from_arrays(data: bytes, path: Path) -> np.ndarray:
    arrays = arrays_in(data, str(path))
    square = {name: a for name, a in arrays.items() if len(arrays) == 1 or (a.ndim == 2 and a.shape[0] == a.shape[1])}
    if len(square) != 1:
        raise ValueError(
            f"{path} must have one square array, got {len(square)} ({', '.join(square)}): save the graph's array alone"
        )
    (weights,) = square.values()
    if weights.dtype.kind not in "iufb":
        raise ValueError(f"{path}'s weights must be numbers, got {weights.dtype}")
    check_bytes(weights.size * 9, f"{path}'s weights")
    return weights.astype(np.float64)


def _number(cell: str) -> float:
    try:
        return float(cell or "nan")
    except ValueError:
        return float("nan")


def _matrix(cells: list[list[str]], names: tuple[str, ...], path: Path) -> np.ndarray | None:
    """A matrix of all nodes, in their order; with names above it and before it, by these. None for what is no matrix."""
    nodes = len(names)
    above = len(cells) == nodes + 1
    before = above and all(len(row) == nodes + 1 for row in cells[1:]) and len(cells[0]) in (nodes, nodes + 1)
    body = [row[before:] for row in cells[above:]]
    if len(body) != nodes or any(len(row) != nodes for row in body):
        return None
    weights = np.array([[_number(cell) for cell in row] for row in body])
    if np.isnan(weights).any():
        return None
    if not above:
        return weights
    labels = cells[0][-nodes:]
    order = _places(labels, names, path)
    rows = _places([row[0] for row in cells[1:]], names, path) if before else order
    placed = np.empty_like(weights)
    placed[np.ix_(rows, order)] = weights
    return placed


def _places(labels: list[str], names: tuple[str, ...], path: Path) -> list[int]:
    """Which node each label means. Raises ValueError if they are not the nodes' names, nor their numbers."""
    known = names if set(labels) & set(names) else tuple(map(str, range(len(names))))
    if sorted(labels) != sorted(known):
        odd = next((label for label in labels if label not in known), labels[0])
        raise ValueError(
            f"{path} is a matrix with names, of which {odd!r} is none of the series' {len(names)} variates, "
            f"{', '.join(names[:3])} …, or is there twice: give the graph of this series"
        )
    return [known.index(label) for label in labels]


def _edge_columns(header: list[str] | None, width: int, path: Path) -> list[int]:
    """The columns of from, to and, if there is one, weight."""
    if header is None:
        if width not in (2, 3):
            raise ValueError(f"got rows of {width}")
        return list(range(width))
    called = [name.lower().strip() for name in header]
    found = [next((k for k, name in enumerate(called) if name in some), None) for some in (FROM, TO, WEIGHT)]
    if found[0] is not None and found[1] is not None:
        return [k for k in found if k is not None]
    labels = int(called[0] in ("", "unnamed: 0", "index"))  # of the rows
    if width - labels not in (2, 3):
        raise ValueError(f"columns {', '.join(header[:6])}: call them from, to and weight")
    return list(range(labels, width))


def _from_edges(cells: list[list[str]], names: tuple[str, ...], path: Path, others: str) -> tuple[np.ndarray, np.ndarray]:
    nodes, width = len(names), max(len(row) for row in cells)
    place = {name: k for k, name in enumerate(names)}
    ends = {cell for row in cells for cell in row}
    named = bool(ends & set(place))
    if not named:
        place = {str(k): k for k in range(nodes)}
    header = cells[0] if all(cell not in place and np.isnan(_number(cell)) for cell in cells[0] if cell) else None
    try:
        columns = _edge_columns(header, width, path)
    except ValueError as error:
        raise ValueError(
            f"{path} must hold {by((nodes, nodes))} numbers, or edges from, to[, weight], for a graph of {nodes} nodes; "
            f"{error}, {len(cells)} rows"
        ) from error
    weights, there = np.zeros((nodes, nodes)), np.zeros((nodes, nodes), bool)
    for row, line in enumerate(cells[header is not None :], start=int(header is not None)):
        a, b, *weight = [line[k] if k < len(line) else "" for k in columns]
        begin, end = place.get(a), place.get(b)
        length = _number(weight[0]) if weight else 1.0
        if others == "skip" and (begin is None or end is None):
            continue
        if np.isnan(length):
            raise ValueError(f"{path}, row {row}: the edge {a!r}, {b!r} has no weight, but {weight[0]!r}: give a number")
        if begin is None or end is None:
            odd, told = (a if begin is None else b), f"{', '.join(names[:3])}{' …' * (nodes > 3)}"
            known = told if named else f"{told}, or their numbers from 0 to {nodes - 1}"
            raise ValueError(
                f"{path}, row {row}: the edge {a!r}, {b!r} must be between two of the series' {nodes} variates ({known}), and "
                f"{odd!r} is none: give the graph of this series"
            )
        weights[begin, end], there[begin, end] = length, True
    return weights, there
