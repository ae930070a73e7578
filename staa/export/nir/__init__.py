"""A network as a graph of the Neuromorphic Intermediate Representation (NIR), which other SNN libraries and chips read.

NIR's neuron is an equation in continuous time, τ v′ = v_leak − v + R i. Read in forward Euler steps of dt, as SpikingJelly and
snnTorch read it, it is exactly ours, with v_leak = v_reset = 0:

    v[t] = (1 − dt/τ) · h[t−1] + (dt R/τ) · i[t]        τ = dt / (1 − decay),   R = gain / (1 − decay)

With decay = 1 it is NIR's IF, v′ = R i, with R = gain / dt. NIR fires above its threshold, not at it: a neuron that fires at
its threshold θ is written with the float32 next below θ. Sums are edges that meet. What NIR can't say exactly is refused.
"""

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from staa.export.nir.reading import DT, check_dt, check_graph, from_nir, nir_package, read_nir
from staa.export.nir.writing import Signal, Writer, node_name
from staa.files import check_new, write
from staa.ops.checks import check_counts
from staa.rates import neurons_heard
from staa.version import __version__

__all__ = ["Parity", "from_nir", "nir_graph", "parity", "read_nir", "save_nir"]


class Parity(NamedTuple):
    """How far a graph is from the network that it was written from, on the same input: all 0 if nowhere.

    Args:
        largest_difference: Largest absolute difference of an output, at any step.
        flipped: Share of the samples whose class is another, by the mean of the outputs over time.
        spikes: Share of all the neurons' outputs that differ.
    """

    largest_difference: float
    flipped: float
    spikes: float


def nir_graph(model: nn.Module, input_shape: Sequence[int], *, dt: float = DT) -> Any:
    """Write a network as a `nir.NIRGraph`, BatchNorm multiplied into the layer before it.

    Convolutions, linear layers, average pooling, flattening, sums and the neurons LIF, ParametricLIF, AdaptiveLIF and
    Integrator are written: image models without attention, and Sequential networks of such parts. The graph's metadata say dt.

    Args:
        model: Network in evaluation mode, float32.
        input_shape: Shape of one sample at one step, such as (2, 48, 48), without time and batch.
        dt: Seconds that a time step stands for. SpikingJelly and snnTorch take 1e-4 if they are told nothing else.

    Raises:
        ValueError: If a module has no exact counterpart, naming it and why; if the model is in training mode or not float32;
            if the shape does not fit it, or dt is no positive number.
        TypeError: If it is no module.
        ImportError: If the extra `export` is not installed.
    """
    nir = nir_package()
    if not isinstance(model, nn.Module):
        raise TypeError(f"the model must be an nn.Module, got {type(model).__name__}")
    check_dt(dt)
    check_counts(**{f"input_shape[{k}]": size for k, size in enumerate(input_shape)})
    if model.training:
        raise ValueError("a graph is what a network is in evaluation mode: call model.eval() first")
    odd = sorted({str(p.dtype) for p in model.parameters() if p.dtype != torch.float32})
    if odd:
        raise ValueError(f"a NIR graph is written in float32, this model has weights of {odd[0]}: call .float() on it")
    graph = Writer(nir, model, dt)
    shape = tuple(input_shape)
    graph.nodes["input"] = nir.Input(input_type={"input": np.array(shape)})
    with torch.no_grad():
        end = graph.write(model, Signal(("input",), shape))
    graph.nodes["output"] = nir.Output(output_type={"output": np.array(end.shape)})
    graph.edges += [(source, "output") for source in end.sources]
    metadata = {"dt": float(dt), "discretisation": "forward Euler", "generator": f"staa {__version__}"}
    return nir.NIRGraph(nodes=graph.nodes, edges=graph.edges, metadata=metadata)


def save_nir(path: str | Path, graph: Any) -> Path:
    """Write a graph as a new HDF5 file, whole or not at all, its folder made if need be, and return its path.

    Args:
        path: The file, such as network.nir.
        graph: A `nir.NIRGraph`. What its metadata hold as text and numbers is written too.

    Raises:
        ValueError: If the file is there already, or could not be written there.
        TypeError: If it is no graph.
        RuntimeError: If the disk is full.
        ImportError: If the extra `export` is not installed.
    """
    nir, path = nir_package(), Path(path)
    check_graph(graph)
    check_new(path, "file")
    buffer = BytesIO()
    nir.write(buffer, graph)
    path.parent.mkdir(parents=True, exist_ok=True)
    return write(path, buffer.getbuffer(), new=True)


def parity(model: nn.Module, graph: Any, x: Tensor) -> Parity:
    """Run a network and the graph that was written from it, imported by `from_nir`, on the same samples.

    Args:
        model: The network that the graph was written from, in evaluation mode.
        graph: A `nir.NIRGraph`, or the path of a file with one.
        x: Samples of float32.

    Shapes:
        x [T, N, ...]

    Raises:
        ValueError: If the graph can't be imported or is of another network, x has no samples or fits one of them not, or the
            network is in training mode.
        ImportError: If the extra `export` is not installed.
    """
    if model.training:
        raise ValueError("a graph is what a network is in evaluation mode: call model.eval() first")
    imported = from_nir(graph)
    theirs, fired = _heard(imported, x, dict(zip(imported.nodes.values(), imported.names, strict=True)))
    mine, expected = _heard(model, x, {module: node_name(name) for name, module in model.named_modules()})
    if missing := expected.keys() - fired.keys():
        raise ValueError(f"the graph is of another network: it has no node {min(missing)}")
    if mine.shape != theirs.shape or not mine.numel():
        raise ValueError(f"outputs to compare must be alike and not empty, got {list(mine.shape)} and {list(theirs.shape)}")
    differing = sum(int((out != fired[name]).sum()) for name, out in expected.items())
    flipped = mine.mean(0).argmax(-1) != theirs.mean(0).argmax(-1)
    return Parity(
        (mine - theirs).abs().max().item(),
        flipped.float().mean().item(),
        differing / max(sum(out.numel() for out in expected.values()), 1),
    )


def _heard(network: nn.Module, x: Tensor, names: dict[nn.Module, str]) -> tuple[Tensor, dict[str, Tensor]]:
    """A network's output, and the spikes of each neuron by the name of its node."""
    spikes: dict[str, Tensor] = {}

    def hear(_: str, module: nn.Module, __: Any, out: Tensor) -> None:
        spikes[names[module]] = out

    with torch.no_grad(), neurons_heard(network, hear):
        return network(x), spikes
