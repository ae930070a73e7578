"""A trained network as one ONNX file of standard operations, and a loop beside it that runs it step by step."""

import warnings
from pathlib import Path
from typing import Any

import torch

from staa.export.facts import ENDS, KEY, OPSET, as_text, facts_of
from staa.export.network import Form
from staa.export.program import Traced, check_parameters, traced
from staa.export.proof import prove
from staa.export.session import checked_graph, needed, network_in
from staa.files import check_new, write
from staa.runs.load import Run, Weights

LOOP = Path(__file__).with_name("loop.py")  # not imported, since it imports onnxruntime
LARGEST = 2**31 - 2**20  # of one protobuf message


def to_onnx(
    run: Run | str | Path,
    out: str | Path,
    *,
    form: Form = "window",
    weights: Weights | None = None,
    verify: bool = True,
    trust: bool = False,
) -> dict[str, Any]:
    """Write a run's network as one ONNX file of standard operations, for any number of samples.

    Form "window" takes x [T, N, C, H, W], or [N, C, H, W] of still images, and gives logits [T, N, classes] and their mean over
    time. Form "step" takes a frame [N, C, H, W] and the state, one input for each tensor of it, and gives logits
    [N, classes] and the state for the next step; at rest the state is 0. A loop that needs NumPy and onnxruntime alone is
    written beside it, with the ending .py. What the file says of itself is JSON in its metadata, by the key "staa".

    Args:
        run: A `staa.Run`, or a run folder, which is opened with trust.
        out: File to write, ending in .onnx.
        form: "window", the whole window at once, or "step", one time step of a network that looks back alone.
        weights: "last" epoch or "best" on validation; None: what the test figure was measured with.
        verify: Hold the file against the run on samples of its data before it is written.
        trust: Let Python files in the run folder run, if the run has parts of its own.

    Returns:
        What the file says of itself, with the proof.

    Raises:
        FileNotFoundError: If the run or its weights are missing.
        ValueError: If the run forecasts or is broken; if `out`, or the loop beside it, is there already; if the network sees
            the whole window and form is "step"; if the data to verify with are missing, or the exported network is not the
            run's.
        ImportError: If the extra `export` is not installed.
    """
    out = Path(out)
    needed("onnx", "onnxscript", "onnxruntime")
    beside = out.with_suffix(".py") if form == "step" else None
    if beside is not None:
        check_new(beside, "`out`")
    found = traced(run, out, form, suffix=".onnx", weights=weights, verify=verify, trust=trust)
    check_parameters(found.network, LARGEST, "an ONNX file")
    model = _translated(found)
    checked_graph(model, out)
    proof = None
    if verify:
        exported = network_in(model.SerializeToString(), out, form, found.network.state, found.network.steps)
        proof = prove(found.run, exported, weights=weights)
    told = facts_of(found.run, form, found.network.state, weights=weights, proof=proof, opset=OPSET)
    entry = model.metadata_props.add()
    entry.key, entry.value = KEY, as_text(told)
    out.parent.mkdir(parents=True, exist_ok=True)
    if beside is not None:
        write(beside, LOOP.read_bytes(), new=True)
    try:
        write(out, model.SerializeToString(), new=True)
    except BaseException:  # also Ctrl-C
        if beside is not None:
            beside.unlink()
        raise
    return told


def _translated(found: Traced) -> Any:
    """The program as an ONNX model, its inputs and outputs named, without what it says of this machine's files."""
    state = found.network.state
    own = ENDS[found.network.form]
    names = [[own.input, *(s.name for s in state)], [*own.outputs, *(s.next for s in state)]]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            found.program, dynamo=True, opset_version=OPSET, input_names=names[0], output_names=names[1], verbose=False
        )
    assert program is not None
    ends = {id(value) for value in (*program.model.graph.inputs, *program.model.graph.outputs)}
    for value in [value for node in program.model.graph for value in node.outputs]:
        if id(value) not in ends and value.name in (*names[0], *names[1]):  # the exporter names a pooling's value mean, too
            value.name = f"{value.name}.inner"
    model = program.model_proto
    for part in (model, model.graph, *model.graph.node, *model.graph.value_info, *model.graph.input, *model.graph.output):
        del part.metadata_props[:]
        part.doc_string = ""
    return model
