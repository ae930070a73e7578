"""An ONNX file that staa wrote, opened as a network: nothing in it runs but ONNX's own operations."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from staa.export.facts import ENDS, KEY, Facts, read_facts
from staa.export.network import Form, State
from staa.export.running import Stepped, Whole, running
from staa.files import read_bytes
from staa.training.pickles import brief

EXTRA = 'this needs {}: pip install "staa-snn[export]"'
OWN = ("", "ai.onnx")
"""Names of ONNX's own operations' domain."""
TYPES = {"tensor(float)": "float32", "tensor(int64)": "int64"}


def needed(*names: str) -> None:
    """Raises ImportError if a package of the extra `export` is missing."""
    import importlib.util

    for name in names:
        if importlib.util.find_spec(name) is None:
            raise ImportError(EXTRA.format(name))


def open_onnx(path: Path) -> tuple[Facts, Whole | Stepped]:
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
    return facts, network_in(data, path, facts.form, facts.state, facts.steps, facts=facts)


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
    data: bytes, path: Path, form: Form, state: tuple[State, ...], steps: int | None, *, facts: Facts | None = None
) -> Whole | Stepped:
    """The network in an ONNX file's content, which was checked. Raises ValueError if it can't be run, or its inputs and outputs
    are not those of `facts`."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = torch.get_num_threads()
    try:
        session: Any = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its errors share no other base
        raise ValueError(f"{path} can't be run: {brief(error)}") from error
    inputs, outputs = [ENDS[form].input, *(s.name for s in state)], ["logits", *(s.next for s in state)]
    if facts is not None:
        given, made = _ends(session.get_inputs()), {name: dtype for name, (_, dtype) in _ends(session.get_outputs()).items()}
        wanted = {"logits": "float32", **{s.next: s.dtype for s in state}}
        if given != facts.inputs or not wanted.items() <= made.items():
            raise ValueError(f"{path} is broken: its inputs and outputs are not what it says of itself; export the run anew")

    def call(*given: Tensor) -> list[Tensor]:
        try:
            found = session.run(outputs, {k: np.ascontiguousarray(x.numpy()) for k, x in zip(inputs, given, strict=True)})
        except Exception as error:
            raise ValueError(f"{path} can't be run: {brief(error)}") from error
        if facts is not None:
            _check_logits(found[0], given[0].shape[-4], facts, path)
        return [torch.from_numpy(y) for y in found]

    return running(call, form, state, steps)


def _check_logits(logits: np.ndarray, samples: int, facts: Facts, path: Path) -> None:
    steps = () if facts.form == "step" else (facts.steps or 1,)
    wanted = (*steps, samples, len(facts.names))
    if logits.shape != wanted or not np.isfinite(logits).all():
        given = list(logits.shape) if logits.shape != wanted else "not"
        raise ValueError(f"{path} is broken: its logits must be finite, of shape {list(wanted)}, and are {given}")


def _ends(ends: list[Any]) -> dict[str, tuple[tuple[int | None, ...], str | None]]:
    """The shape, None for N, and the type of each of a session's inputs or outputs."""
    sizes = ([size if isinstance(size, int) else None for size in end.shape] for end in ends)
    return {end.name: (tuple(shape), TYPES.get(end.type)) for end, shape in zip(ends, sizes, strict=True)}
