"""An ONNX file that staa wrote, opened as a network: nothing in it runs but ONNX's own operations."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from staa.export.facts import KEY, Facts, read_facts
from staa.export.network import State
from staa.files import read_bytes
from staa.ops import direct

EXTRA = 'this needs {}: pip install "staa-snn[export]"'
OWN = ("", "ai.onnx")
"""Names of ONNX's own operations' domain."""


def needed(*names: str) -> None:
    """Raises ImportError if a package of the extra `export` is missing."""
    import importlib.util

    for name in names:
        if importlib.util.find_spec(name) is None:
            raise ImportError(EXTRA.format(name))


class OnnxWindow(nn.Module):
    """The whole window in onnxruntime. x [T, N, C, H, W] or [N, C, H, W] -> logits [T, N, classes]"""

    causal = False  # it takes all steps at once

    def __init__(self, session: Any):
        super().__init__()
        self.session = session

    def forward(self, x: Tensor) -> Tensor:
        return _run(self.session, ["logits"], {"x": x})[0]


class OnnxStep(nn.Module):
    """One step in onnxruntime, as a network that `staa.stream` runs.

    x [t, N, C, H, W], or [N, C, H, W] repeated T times -> logits [t, N, classes]
    """

    def __init__(self, session: Any, state: tuple[State, ...], steps: int | None):
        super().__init__()
        self.session, self.state, self.steps = session, state, steps

    def forward(self, x: Tensor) -> Tensor:
        return self.scan(direct(x, self.steps or 1) if x.ndim == 4 else x)[0]

    def scan(self, x: Tensor, state: tuple[int, list[Tensor]] | None = None) -> tuple[Tensor, tuple[int, list[Tensor]]]:
        seen, held = state or (0, [s.rest(x.shape[1]) for s in self.state])
        if self.steps is not None and seen + len(x) > self.steps:
            raise ValueError(f"this network was built for T = {self.steps} steps, got {seen + len(x)}")
        names, logits = [s.name for s in self.state], []
        for frame in x:
            given = {"frame": frame, **dict(zip(names, held, strict=True))}
            now, *held = _run(self.session, ["logits", *(s.next for s in self.state)], given)
            logits.append(now)
        return torch.stack(logits), (seen + len(x), held)


def _run(session: Any, outputs: list[str], inputs: dict[str, Tensor]) -> list[Tensor]:
    given = {name: np.ascontiguousarray(x.numpy()) for name, x in inputs.items()}
    return [torch.from_numpy(y) for y in session.run(outputs, given)]


def open_onnx(path: Path) -> tuple[Facts, OnnxWindow | OnnxStep]:
    """An ONNX file that `staa.export.to_onnx` wrote: what it says of itself, and its network.

    Args:
        path: The file.

    Raises:
        ValueError: If it is larger than `staa.files.max_bytes`, no ONNX, or not staa's; if it has weights in other files, an
            operation that is not ONNX's own, or one that holds a graph; if it is not what it says of itself.
        OSError: If it can't be read.
        ImportError: If the extra `export` is not installed.
    """
    needed("onnx", "onnxruntime")
    data = read_bytes(path)
    facts = read_facts(checked(data, path), path)
    return facts, network_in(data, facts.state, facts.steps, step=facts.form == "step", path=path, facts=facts)


def checked(data: bytes, path: Path) -> str:
    """The metadata of an ONNX file that can be run. Raises ValueError as `open_onnx` does."""
    import onnx
    from google.protobuf.message import DecodeError

    try:
        model = onnx.load_model_from_string(data)
    except (DecodeError, ValueError) as error:
        raise ValueError(f"{path} is no ONNX file, or a broken one") from error
    told = [entry.value for entry in model.metadata_props if entry.key == KEY]
    if len(told) != 1:
        raise ValueError(f"{path} says nothing of staa in its metadata: give a file that `staa export` wrote")
    checked_graph(model, path)
    return told[0]


def checked_graph(model: Any, path: Path) -> None:
    """Raises ValueError for a graph with anything but ONNX's own plain operations and weights in the file itself."""
    import onnx

    foreign = {node.domain for node in model.graph.node} - set(OWN)
    if foreign or len(model.functions):
        raise ValueError(
            f"{path} has operations that are not ONNX's own, which staa never writes: "
            f"{', '.join(sorted(foreign)) or 'functions'}"
        )
    for node in model.graph.node:
        if any(a.HasField("g") or len(a.graphs) for a in node.attribute):
            raise ValueError(f"{path} has a {node.op_type} with a graph of its own in it, which staa never writes")
    if any(tensor.data_location == onnx.TensorProto.EXTERNAL or len(tensor.external_data) for tensor in _tensors(model)):
        raise ValueError(f"{path} has weights in other files, which are not read: staa writes one file")


def _tensors(model: Any) -> Iterator[Any]:
    yield from model.graph.initializer
    for sparse in model.graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    for node in model.graph.node:
        for a in node.attribute:
            yield from (a.t, *a.tensors, a.sparse_tensor.values, a.sparse_tensor.indices)
            for sparse in a.sparse_tensors:
                yield from (sparse.values, sparse.indices)


def network_in(
    data: bytes, state: tuple[State, ...], steps: int | None, *, step: bool, path: Path, facts: Facts | None = None
) -> OnnxWindow | OnnxStep:
    """The network in an ONNX file's content, which was checked. Raises ValueError if it can't be run, or its inputs are not
    those of `facts`."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = torch.get_num_threads()
    try:
        session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its errors share no other base
        raise ValueError(f"{path} can't be run: {str(error).splitlines()[0]}") from error
    if facts is not None:
        found = {i.name: tuple(size if isinstance(size, int) else None for size in i.shape) for i in session.get_inputs()}
        outputs = {o.name for o in session.get_outputs()}
        if found != facts.inputs or not {"logits", *(s.next for s in state)} <= outputs:
            raise ValueError(f"{path} is broken: its inputs and outputs are not what it says of itself; export the run anew")
    return OnnxStep(session, state, steps) if step else OnnxWindow(session)
