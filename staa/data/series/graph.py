"""The graph of a series' variates, from a matrix or a list of edges."""

from pathlib import Path
from typing import Any, Literal

import numpy as np

from staa.arrays import arrays_in
from staa.data.series.cells import cells_of, content_of
from staa.data.series.series import by, check_graph
from staa.files import check_bytes

SMALLEST_WEIGHT = 0.1  # of a graph made from distances; DCRNN's threshold


def read_graph(
    path: Path, names: tuple[str, ...], *, distances: bool = False, others: Literal["refuse", "skip"] = "refuse"
) -> np.ndarray:
    """Weights of a graph from a file: a matrix (.npy, .npz with one square array, or K rows of K numbers in .csv or .txt), or a
    .csv of edges from, to[, weight], by names or, if it has none of the names, by numbers from 0.

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
    import pandas as pd

    data = content_of(path, "give a graph as a matrix (.npy, .npz, .csv) or a .csv of edges from, to, weight")
    nodes, weights, edges = len(names), None, None
    check_bytes(nodes * nodes * 9, f"a graph of {nodes} nodes")
    if path.suffix in (".npy", ".npz"):
        arrays = arrays_in(data, str(path))
        square = {name: a for name, a in arrays.items() if len(arrays) == 1 or (a.ndim == 2 and a.shape[0] == a.shape[1])}
        if len(square) != 1:
            raise ValueError(
                f"{path} must have one square array, got {len(square)} ({', '.join(square)}): save the graph's array alone"
            )
        (weights,) = square.values()
    else:
        table = cells_of(data, path, pd).dropna(how="all").reset_index(drop=True)
        numbers = table.apply(pd.to_numeric, errors="coerce")
        ends = table.iloc[:, :2].isin([*names, *map(str, range(nodes))]).all(axis=None)
        few = nodes in (2, 3) and ends  # so many edges look like a matrix
        if table.shape == (nodes, nodes) and not few and not numbers.isna().any(axis=None):
            weights = numbers.to_numpy(float)
        else:
            edges = table
    if edges is not None:
        weights, there = _from_edges(edges, names, path, pd, others)
    else:
        weights = np.asarray(weights)
        if weights.dtype.kind not in "iufb":
            raise ValueError(f"{path}'s weights must be numbers, got {weights.dtype}")
        check_bytes(weights.size * 9, f"{path}'s weights")
        weights = weights.astype(np.float64)
        there = weights > 0
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


def _from_edges(table: Any, names: tuple[str, ...], path: Path, pd: Any, others: str) -> tuple[np.ndarray, np.ndarray]:
    nodes = len(names)
    if table.shape[1] not in (2, 3):
        raise ValueError(
            f"{path} must hold {by((nodes, nodes))} numbers, or edges from, to[, weight], for a graph of {nodes} nodes; got "
            f"{len(table)} rows of {table.shape[1]}"
        )
    place = {name: k for k, name in enumerate(names)}
    if not table.iloc[:, :2].isin(list(place)).any(axis=None):
        place = {str(k): k for k in range(nodes)}
    weights, there = np.zeros((nodes, nodes)), np.zeros((nodes, nodes), bool)
    lengths = pd.to_numeric(table.iloc[:, 2], errors="coerce").to_numpy() if table.shape[1] == 3 else np.ones(len(table))
    for row, (a, b) in enumerate(table.iloc[:, :2].itertuples(index=False)):
        begin, end = place.get(str(a)), place.get(str(b))
        if row == 0 and begin is None and end is None and (table.shape[1] == 2 or np.isnan(lengths[0])):  # a header
            continue
        if others == "skip" and (begin is None or end is None):
            continue
        if begin is None or end is None or np.isnan(lengths[row]):
            raise ValueError(
                f"{path}, row {row}: {str(a)!r}, {str(b)!r} is no edge between two of the {nodes} variates, or has no weight"
            )
        weights[begin, end], there[begin, end] = lengths[row], True
    return weights, there
