"""A trained network as a program of torch.export, which PyTorch loads without this package."""

import io
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from staa.export.facts import KEY, as_text, facts_of
from staa.export.network import Form, StepNetwork, WindowNetwork, program_of
from staa.export.proof import prove, split_of
from staa.export.running import Stepped, Whole, running
from staa.files import check_new, write
from staa.runs.classify import sees_the_whole
from staa.runs.load import Run, Weights, opened

OLDEST_TORCH = (2, 10)  # 2.9 writes checks of a variable number of inputs that it can't run
EXAMPLES = 2  # samples to trace with: one would be taken for a constant


class Traced(NamedTuple):
    """A run's network on its way out."""

    run: Run
    network: WindowNetwork | StepNetwork
    program: torch.export.ExportedProgram


def exportable(
    run: Run | str | Path, out: Path, *, suffix: str, weights: Weights | None, verify: bool, trust: bool
) -> tuple[Run, nn.Module]:
    """The run and its model, on the CPU, after all that can be refused before that takes time.

    Raises ValueError if the run forecasts, the file's name has another ending or is taken, or the samples to verify with are
    missing.
    """
    run = opened(run, trust=trust)
    if run.task.verb != "classify":
        raise ValueError(
            f"{run.folder} forecasts a series, and only networks that classify can be exported: give a run that was trained to "
            f"classify"
        )
    if out.suffix != suffix:
        raise ValueError(f"`out` must end in {suffix}, got {out}")
    check_new(out, "`out`")
    model = run.model(weights).cpu()
    if verify:
        split_of(run)
    return run, model


def traced(
    run: Run | str | Path, out: Path, form: Form, *, suffix: str, weights: Weights | None, verify: bool, trust: bool
) -> Traced:
    """The network of a run as a program. Raises ValueError as `exportable` does, if the network has no such form, and if torch
    is older than 2.10."""
    if tuple(map(int, torch.__version__.split(".")[:2])) < OLDEST_TORCH:
        raise ValueError(f"an export needs torch 2.10 or newer, this is {torch.__version__}: upgrade torch, or export to NIR")
    if form not in ("window", "step"):
        raise ValueError(f'form must be "window" or "step", got {form!r}')
    run, model = exportable(run, out, suffix=suffix, weights=weights, verify=verify, trust=trust)
    if form == "step" and (why := sees_the_whole(model)) is not None:
        raise ValueError(
            f"{run.folder} can't be exported step by step: {why.partition(', so it')[0]}. Train with attention that looks back "
            f"alone, such as `model.attention=gc-pe`, or export `form=window`"
        )
    shape = run.input_shape
    x = torch.zeros(EXAMPLES, *shape) if len(shape) == 3 else torch.zeros(shape[0], EXAMPLES, *shape[1:])
    frame = x[0] if x.ndim == 5 else x
    network = StepNetwork(model, frame) if form == "step" else WindowNetwork(model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what torch says of itself
        program = program_of(network.eval(), frame if form == "step" else x)
    return Traced(run, network, program)


def to_program(
    run: Run | str | Path,
    out: str | Path,
    *,
    form: Form = "window",
    weights: Weights | None = None,
    verify: bool = True,
    trust: bool = False,
) -> dict[str, Any]:
    """Write a run's network as an archive of torch.export, which PyTorch alone loads and runs.

        program = torch.export.load("digits.pt2").module()
        logits, mean = program(x)                               # form "window"
        logits, *state = program(frame, *state)                 # form "step"; at rest the state is 0

    What the file says of itself is in it as the extra file staa.json.

    Args:
        run: A `staa.Run`, or a run folder, which is opened with trust.
        out: File to write, ending in .pt2.
        form: "window", the whole window at once, or "step", one time step of a network that looks back alone.
        weights: "last" epoch or "best" on validation; None: what the test figure was measured with.
        verify: Hold the file against the run on samples of its data before it is written.
        trust: Let Python files in the run folder run, if the run has parts of its own.

    Returns:
        What the file says of itself, with the proof.

    Raises:
        FileNotFoundError: If the run or its weights are missing.
        ValueError: If the run forecasts or is broken; if `out` is there already; if the network sees the whole window and form
            is "step"; if the data to verify with are missing, or the exported network is not the run's.
    """
    out = Path(out)
    found = traced(run, out, form, suffix=".pt2", weights=weights, verify=verify, trust=trust)
    proof = prove(found.run, _loaded(_saved(found.program, "{}"), found.network), weights=weights) if verify else None
    told = facts_of(found.run, form, found.network.state, weights=weights, proof=proof)
    out.parent.mkdir(parents=True, exist_ok=True)
    write(out, _saved(found.program, as_text(told)), new=True)
    return told


def _saved(program: torch.export.ExportedProgram, text: str) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.export.save(program, buffer, extra_files={f"{KEY}.json": text})
    return buffer.getvalue()


def _loaded(saved: bytes, network: WindowNetwork | StepNetwork) -> Whole | Stepped:
    """A program that was saved here, loaded anew."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.load(io.BytesIO(saved)).module()
    return running(program, network.form, network.state, network.steps)


def check_parameters(network: nn.Module, limit: int, what: str) -> None:
    """Raises ValueError if a network's tensors take more bytes than a kind of file can hold."""
    size = sum(p.numel() * p.element_size() for p in (*network.parameters(), *network.buffers()))
    if size > limit:
        raise ValueError(f"the network takes {size / 2**30:.1f} GiB, and {what} holds {limit / 2**30:g} GiB at most")
