"""NIR graphs, from anywhere, as networks."""

import math
import sys
from collections.abc import Sequence
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from staa.data.series.apart import read_apart
from staa.export.nir import hdf
from staa.export.nir.making import DIMENSION, MAKERS
from staa.files import check_bytes, max_bytes, read_bytes
from staa.layers import PerStep
from staa.ops.checks import check_input
from staa.training.pickles import brief

DT = 1e-4
"""Seconds of a time step if a graph does not say: what SpikingJelly 2.0 and snnTorch 1.0 take."""
LARGEST = sys.float_info.max


class NIRNetwork(nn.Module):
    """A NIR graph as a network: each node's input is the sum of what its edges bring, and all begins at rest.

    Args:
        nodes: Module of each node by name, in an order in which all that a node needs stands before it.
        sources: Names of the nodes, or "", the input, whose outputs are added for each node.
        output: Names of the nodes whose sum is the network's output.
        input_shape: Shape of a sample at a step.

    Shapes:
        x [T, N, *input_shape] -> the output at each step [T, N, ...]

    Raises:
        ValueError: If x has another shape, dtype or device.
        TypeError: If x is no tensor.
    """

    per_step = True

    def __init__(
        self,
        nodes: dict[str, nn.Module],
        sources: dict[str, tuple[str, ...]],
        output: tuple[str, ...],
        input_shape: tuple[int, ...],
    ):
        super().__init__()
        self.nodes = nn.ModuleDict({f"{k}_{_word(name)}": node for k, (name, node) in enumerate(nodes.items())})
        self.names, self.sources, self.output, self.input_shape = list(nodes), sources, output, input_shape

    def forward(self, x: Tensor) -> Tensor:
        check_input(x, self)
        if x.ndim < 3 or x.shape[2:] != self.input_shape:
            raise ValueError(f"the input must be {['T', 'N', *self.input_shape]}, got shape {list(x.shape)}".replace("'", ""))
        values = {"": x}
        for name, node in zip(self.names, self.nodes.values(), strict=True):
            values[name] = node(_sum([values[source] for source in self.sources[name]]))
        return _sum([values[source] for source in self.output])


def read_nir(path: Path) -> Any:
    """Read a graph that `save_nir` or another library wrote. The file is read as data, in a process of its own.

    Args:
        path: An HDF5 file with a `nir.NIRGraph`.

    Raises:
        OSError: If there is no such file.
        ValueError: If it holds no graph, a broken one or one with parts elsewhere, or would take more memory than
            STAA_MAX_BYTES.
        ImportError: If the extra `export` is not installed.
    """
    nir, path = nir_package(), Path(path)
    found = read_apart(hdf.__file__, read_bytes(path), str(path), max_bytes(), library="HDF5", seconds=hdf.SECONDS)
    about = found.pop("about")
    nodes = {}
    for name, fields in about["nodes"].items():
        if fields["type"] not in MAKERS and fields["type"] not in ("Input", "Output"):
            raise _unknown(name, fields["type"])
        values = {key: _value(found[value["array"]]) if isinstance(value, dict) else value for key, value in fields.items()}
        try:
            nodes[name] = nir.dict2NIRNode(values)
        except Exception as error:  # TypeError, AssertionError, AttributeError …
            raise ValueError(f"{path} is no NIR graph: its node {name!r} is broken ({brief(error)})") from error
    return nir.NIRGraph(nodes, [(a, b) for a, b in about["edges"]], about["metadata"], type_check=False)


def from_nir(graph: Any, *, dt: float | None = None) -> NIRNetwork:
    """A NIR graph as a network, in evaluation mode: its equations in forward Euler steps of dt, from rest.

    Read are Conv2d, Linear, Affine, AvgPool2d, SumPool2d, Flatten, LIF, IF, LI and I, in a chain or with edges that meet.
    Neurons fire above their threshold, and must have v_reset = v_leak, their constants equal within a channel.

    Args:
        graph: A `nir.NIRGraph`, or the path of a file with one.
        dt: Seconds of a time step; None: what the graph's metadata say, or 1e-4.

    Raises:
        OSError: If there is no such file.
        ValueError: If the graph has a circle, a node or a constant that has no exact counterpart here, or shapes that do not
            fit, naming the node; or what `read_nir` raises.
        TypeError: If it is no graph.
        ImportError: If the extra `export` is not installed.
    """
    nir = nir_package()
    graph = read_nir(Path(graph)) if isinstance(graph, str | Path) else graph
    check_graph(graph)
    step: Any = graph.metadata.get("dt", DT) if dt is None else dt
    check_dt(step)
    before, order = _order(graph)
    ends = {kind: [name for name in order if type(graph.nodes[name]) is kind] for kind in (nir.Input, nir.Output)}
    for kind, names in ends.items():
        if len(names) != 1:
            raise ValueError(f"a graph must have one {kind.__name__} node to be a network here, this one has {len(names)}")
    (start,), (end,) = ends.values()
    input_shape = _shape(start, graph.nodes[start].input_type["input"])
    shapes, nodes = {start: input_shape}, {}
    for name in order:
        if name == start:
            continue
        given = {shapes[source] for source in before[name]}
        if len(given) != 1:
            raise ValueError(f"node {name!r} can't add what comes in, of the shapes {sorted(map(list, given))}")
        (shape,) = given
        if name == end:
            continue
        node = graph.nodes[name]
        maker = MAKERS.get(type(node).__name__)
        if maker is None or not isinstance(node, getattr(nir, type(node).__name__, ())):
            raise _unknown(name, type(node).__name__)
        try:
            nodes[name] = maker(node, shape, float(step))
            shapes[name] = _shape(name, _shape_after(nodes[name], shape))
        except (ValueError, TypeError, RuntimeError, AttributeError, IndexError, OverflowError) as error:
            raise ValueError(f"node {name!r} ({type(node).__name__}) can't be read: {brief(error)}") from error
    sources = {name: tuple("" if s == start else s for s in before[name]) for name in [*nodes, end]}
    return NIRNetwork(nodes, sources, sources.pop(end), input_shape).eval()


def nir_package() -> ModuleType:
    """The package nir. Raises ImportError, saying what to do, if the extra `export` is not installed."""
    try:
        import nir
    except ImportError as error:
        raise ImportError('NIR graphs need the package nir: pip install "staa-snn[export]"') from error
    return nir


def check_graph(graph: Any) -> None:
    """Raises TypeError for what is no `nir.NIRGraph`."""
    if not isinstance(graph, nir_package().NIRGraph):
        raise TypeError(f"a graph must be a nir.NIRGraph, got {type(graph).__name__}")


def check_dt(dt: Any) -> None:
    """Raises ValueError for a time step that is no finite number above 0."""
    if isinstance(dt, bool) or not isinstance(dt, int | float | np.floating) or not 0 < dt <= LARGEST:
        raise ValueError(f"dt must be the seconds of a time step, a finite number above 0, got {str(dt)[:80]}")


def _order(graph: Any) -> tuple[dict[str, list[str]], list[str]]:
    """The nodes whose outputs each node adds, and the nodes in an order to compute them in."""
    before: dict[str, list[str]] = {name: [] for name in graph.nodes}
    for source, target in graph.edges:
        if source not in before or target not in before or source in before[target]:
            raise ValueError(f"the edge from {source!r} to {target!r} is there twice, or joins a node that is not there")
        before[target].append(source)
    try:
        order = list(TopologicalSorter(before).static_order())
    except CycleError as error:
        raise ValueError(
            f"the graph runs in a circle through node {error.args[1][0]!r}, and only networks without are read"
        ) from error
    used = {source for source, _ in graph.edges}
    for name, node in graph.nodes.items():
        kind = type(node).__name__
        if (not before[name]) != (kind == "Input") or (name not in used) != (kind == "Output"):
            raise ValueError(f"node {name!r} ({kind}) must have edges in and out, an Input out alone and an Output in alone")
    return before, order


def _unknown(name: str, kind: str) -> ValueError:
    return ValueError(f"node {name!r} is a {kind}, which has no exact counterpart here; read are {', '.join(MAKERS)}")


def _shape(name: str, shape: Any) -> tuple[int, ...]:
    sizes = tuple(int(n) for n in np.asarray(shape).flatten())
    if not 1 <= len(sizes) <= 3 or not all(0 < n < DIMENSION for n in sizes):
        raise ValueError(f"node {name!r} must have 1 to 3 dimensions of sizes from 1 on, got {list(sizes)}")
    check_bytes(4 * math.prod(sizes), f"what node {name!r} puts out")
    return sizes


def _shape_after(module: nn.Module, shape: tuple[int, ...]) -> tuple[int, ...]:
    """What a module makes of a shape, without computing it."""
    if not isinstance(module, PerStep):
        return shape
    weights = {name: p.detach().to("meta") for name, p in module.named_parameters()}
    return tuple(functional_call(module, weights, torch.empty(1, 1, *shape, device="meta")).shape[2:])


def _value(array: np.ndarray) -> Any:
    """As nir.read gives it: what is a whole number as one, for nodes that ask for an int."""
    return array.item() if array.shape == () and array.dtype.kind in "biu" else array


def _sum(values: Sequence[Tensor]) -> Tensor:
    total = values[0]
    for value in values[1:]:
        total = total + value
    return total


def _word(name: str) -> str:
    """A name with nothing but letters, digits and _, which a module's name must be."""
    return "".join(c if c.isascii() and c.isalnum() else "_" for c in name)[:60]
