"""A network run through time piece by piece, its neurons' membranes carried along.

Whatever has to do with time is a module with forward(x, …) for a whole window and scan(x, state, …) -> (y, state) for a
piece: the neurons, and the `Window` and `Past` of what counts steps or looks back. For one call of the network each forward
is replaced by the scan, which finds its state by the order of the calls.
"""

from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from staa.causality import check_causal, has_scan, ranks_checked
from staa.layers import Resumed, Window


class StreamState(NamedTuple):
    """Where a stream stands: steps seen, what a frame is like, who scans in this network, and what each scan left behind."""

    steps: int
    frame: tuple[torch.Size, torch.dtype, torch.device]
    scanning: list[str]
    scans: tuple[Any, ...]


def stream(model: nn.Module, chunk: Tensor, state: StreamState | None = None) -> tuple[Tensor, StreamState]:
    """The model's output for the next steps of a window that comes piece by piece: inference, without gradients.

        state = None
        for chunk in chunks:  # [t, N, ...], any t ≥ 1; one frame is frame[None]
            logits, state = stream(model, chunk, state)  # [t, N, classes]

    state: None at the beginning, then what the call before returned; it is all that is kept, so one model serves many
    streams in turns (not in threads: one call at a time). Its size does not grow, but for causal step attention: up to T × N
    numbers. A neuron's scan is bit-equal under any chunking, the network up to the rounding of its convolutions.

    A model built for T steps streams until step T, one built with steps=None for ever. Every module of one's own has to say
    how it stands to time, since nothing else can tell (see `check_causal`).

    Raises ValueError in training mode, for a module that sees the whole window, that is unknown or has no scan for its T steps,
    past step T, without a step, where frames or the network differ from those before, and where the output is not [t, N, ...].
    """
    if chunk.ndim < 2 or chunk.shape[0] == 0:
        raise ValueError(f"a chunk is [t, N, ...] with at least one time step, got shape {list(chunk.shape)}")
    scanning = {}
    for name, module in model.named_modules():
        if module.training:
            raise ValueError(f"{name or 'the model'} is in training mode, which goes by the batch: call model.eval()")
        if has_scan(module):
            scanning[name] = module
    frame = chunk.shape[1:], chunk.dtype, chunk.device
    if state is None:
        check_causal(model)
    elif [*scanning] != state.scanning:
        raise ValueError("this state is of another network: begin anew with state=None")
    elif frame != state.frame:
        raise ValueError(
            f"this stream's frames are {_describe(state.frame)}, this chunk's {_describe(frame)}: begin anew with state=None"
        )
    with torch.no_grad(), ranks_checked(model) if state is None else nullcontext():
        output, *scans = _run(model, [*scanning.values()], chunk, *(() if state is None else state.scans))
    if output.shape[:2] != chunk.shape[:2]:
        raise ValueError(
            f"the model gave {list(output.shape)} for a chunk {list(chunk.shape)}: [t, N, ...] in must give [t, N, ...], so "
            f"average over time outside, and give a frame as frame[None]"
        )
    return output, StreamState(chunk.shape[0] + (state.steps if state else 0), frame, [*scanning], tuple(scans))


def recompute(model: nn.Module, x: Tensor, chunk: int) -> Tensor:
    """model(x) for a long window x [T, N, ...], computed again chunk by chunk in the backward pass.

    What is kept for that pass is x, the membranes at the borders of the chunks, and one chunk's activations at a time: for
    T steps about chunk / T of what model(x) keeps, at the price of a second forward pass. Outputs and gradients are those of
    model(x) but for rounding. Within a neuron nothing needs this: `staa.ops.lif` keeps x alone for any T.

    The network must see each step and those before it alone. Raises ValueError for attention that sees the future, a
    model built for a fixed number of steps (build it with steps=None), BatchNorm in training mode (its statistics are
    the whole window's: put it in evaluation mode, as `freeze_norms` does), and a chunk below 1.
    """
    if chunk < 1:
        raise ValueError(f"a chunk has at least one time step, got {chunk}")
    check_causal(model)
    for name, module in model.named_modules():
        if getattr(module, "steps", None) is not None:
            raise ValueError(
                f"{name or type(model).__name__} was built for a window of T = {module.steps} steps; for pieces of one, build "
                f"the model with steps=None"
            )
        if isinstance(module, _BatchNorm) and module.training:
            raise ValueError(
                f"{name} is a BatchNorm in training mode: its statistics are the whole window's, which is not there at once; "
                f"freeze it with staa.streaming.freeze_norms(model)"
            )
    scanning = [module for module in model.modules() if has_scan(module)]
    states: list[Any] = []
    outputs = []
    for i, part in enumerate(x.split(chunk)):
        with ranks_checked(model) if i == 0 else nullcontext():
            output, *states = checkpoint(_run, model, scanning, part, *states, use_reentrant=False)
        outputs.append(output)
    return torch.cat(outputs)


def allow_fewer_steps(model: nn.Module) -> nn.Module:
    """The model, built for T steps, from now on called with its first steps alone, too: model(x[:t]) is model(x)[:t], but for
    BatchNorm, which in training goes by what it is given.

    That holds if no step sees a later one. Raises ValueError where it does not, or is not known to, as `check_causal` does.
    """
    check_causal(model)
    for module in model.modules():
        if isinstance(module, Window):
            module.partial = True
    return model


def freeze_norms(model: nn.Module) -> nn.Module:
    """The model with every BatchNorm in evaluation mode, until model.train() is called again."""
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            module.eval()
    return model


def _run(model: nn.Module, scanning: list[nn.Module], x: Tensor, *states: Any) -> tuple[Any, ...]:
    """(output, then the state that each scan leaves) of a piece that goes on from such states, or begins without any."""
    last: list[Any] = []

    def forward(module: nn.Module, x: Tensor, *args: Any, **options: Any) -> Any:
        i = len(last)
        last.append(None)
        if module in guarded:
            vars(module).pop("scan")
        y, last[i] = module.scan(x, states[i] if i < len(states) else None, *args, **options)  # type: ignore[operator]
        if module in guarded:
            vars(module)["scan"] = _past_forward
        return y

    # What stands in a scanning module may be scanned by that.
    within = {part for module in scanning for part in module.modules() if part is not module}
    guarded = {module for module in scanning if module not in within and "scan" not in vars(module)}
    try:
        for module in scanning:
            vars(module)["forward"] = Resumed(forward, module)  # past nn.Module's slow __setattr__
        for module in guarded:
            vars(module)["scan"] = _past_forward
        return model(x), *last
    finally:
        for module in scanning:
            vars(module).pop("forward", None)  # the class's own again
        for module in guarded:
            vars(module).pop("scan", None)


def _past_forward(*_: Any, **__: Any) -> None:
    raise ValueError(
        "a scan was called directly, so the stream does not know its state: call the module itself, or give the module that "
        "scans it a scan(x, state) of its own"
    )


def _describe(frame: tuple[torch.Size, torch.dtype, torch.device]) -> str:
    shape, dtype, device = frame
    return f"{list(shape)} {dtype} on {device}"
