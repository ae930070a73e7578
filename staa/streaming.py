"""A network run through time piece by piece, its neurons' membranes carried along.

Whatever has to do with time is a module with forward(x, …) for a whole window and scan(x, state, …) -> (y, state) for a
piece: the neurons, and the `Window` and `Past` of what counts steps or looks back. For one call of the network each forward
is replaced by the scan, which finds its state by the order of the calls.
"""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from numbers import Integral
from threading import Lock, RLock
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from staa.causality import check_causal, has_scan, ranks_checked
from staa.folding import Resumed
from staa.layers import Window
from staa.ops.checks import check_tensor

_turns: WeakKeyDictionary[nn.Module, Any] = WeakKeyDictionary()
_making = Lock()


class StreamState(NamedTuple):
    """Where a stream stands: what `staa.stream` returns and takes again.

    Args:
        steps: Steps seen so far.
        frame: Shape, dtype and device of one step, [N, ...].
        scanning: Names of the modules that scan in this network.
        scans: What each of them left behind, such as a membrane.
    """

    steps: int
    frame: tuple[torch.Size, torch.dtype, torch.device]
    scanning: list[str]
    scans: tuple[Any, ...]


def stream(model: nn.Module, chunk: Tensor, state: StreamState | None = None) -> tuple[Tensor, StreamState]:
    """The model's output for the next steps of a window that comes piece by piece: inference, without gradients.

        state = None
        for chunk in chunks:  # [t, N, ...], any t ≥ 1; one frame is frame[None]
            logits, state = stream(model, chunk, state)

    A neuron gives the same bits under any chunking, the network the same up to the rounding of its convolutions. One model
    serves many streams in turns, for which threads wait: all that is kept is the state, whose size does not grow, but for
    causal step attention, which keeps up to T × N numbers.

    A model built for T steps streams until step T, one built with steps=None for ever. A module of your own has to say how it
    treats time, since nothing else can tell: scan(x, state) -> (y, state) if it looks back, per_step = True if its output at a
    step depends on its input at that step alone, causal = False if it sees the whole window.

    Args:
        model: In evaluation mode.
        chunk: The next steps, on the model's device.
        state: What the call before returned; None begins a new stream.

    Shapes:
        chunk [t, N, ...] -> (output [t, N, ...], such as logits [t, N, classes], state)

    Raises:
        ValueError: If the model is in training mode, sees the whole window, or has a module that is not known to run in pieces;
            past step T; if the chunk has no step, or it or the network differ from those before; if the output is not
            [t, N, ...].
        TypeError: If the chunk is no tensor.
    """
    check_tensor(chunk, "the chunk")
    if chunk.ndim < 2 or chunk.shape[0] == 0:
        raise ValueError(f"a chunk must be [t, N, ...] with at least one time step, got shape {list(chunk.shape)}")
    scanning = {}
    for name, module in model.named_modules():
        if module.training:
            raise ValueError(f"{name or 'the model'} is in training mode, which goes by the batch: call model.eval()")
        if has_scan(module):
            scanning[name] = module
    frame = chunk.shape[1:], chunk.dtype, chunk.device
    if state is not None and [*scanning] != state.scanning:
        raise ValueError("this state is of another network: start again with state=None")
    if state is not None and frame != state.frame:
        raise ValueError(
            f"this stream's frames are {_describe(state.frame)}, this chunk's {_describe(frame)}: start again with state=None"
        )
    with taking_turns(model), torch.no_grad():
        if state is None:
            check_causal(model)
        with ranks_checked(model) if state is None else nullcontext():
            output, *scans = run_piece(model, [*scanning.values()], chunk, *(() if state is None else state.scans))
    if output.shape[:2] != chunk.shape[:2]:
        raise ValueError(
            f"the output for a chunk [t, N, ...] must be [t, N, ...], got {list(output.shape)} for {list(chunk.shape)}: "
            f"average over time outside, and give a frame as frame[None]"
        )
    return output, StreamState(chunk.shape[0] + (state.steps if state else 0), frame, [*scanning], tuple(scans))


def recompute(model: nn.Module, x: Tensor, chunk: int) -> Tensor:
    """model(x) for a long window x, computed again chunk by chunk in the backward pass.

    For that pass it keeps x, the membranes at the borders of the chunks, and one chunk's activations at a time: for T steps
    about chunk / T of what model(x) keeps, at the price of a second forward pass. Outputs and gradients are those of model(x)
    but for rounding. A neuron alone needs no such thing: `staa.ops.lif` keeps only x, for any T.

    Args:
        model: Built with steps=None, each step seeing only itself and those before; each BatchNorm in evaluation mode.
        x: The window.
        chunk: Steps of a chunk, at least 1.

    Shapes:
        x [T, N, ...] -> output [T, N, ...]

    Raises:
        ValueError: If attention sees later steps, the model was built for a fixed number of steps, a module is not known to run
            in pieces, a BatchNorm is in training mode (its statistics would be the whole window's: see
            `staa.streaming.freeze_norms`), or chunk is below 1.
        TypeError: If x is no tensor.
    """
    check_tensor(x, "the window")
    if not isinstance(chunk, Integral) or chunk < 1:
        raise ValueError(f"chunk must be a whole number of at least 1, got {chunk!r}")
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
            output, *states = checkpoint(run_piece, model, scanning, part, *states, use_reentrant=False)
        outputs.append(output)
    return torch.cat(outputs)


def allow_fewer_steps(model: nn.Module) -> nn.Module:
    """The model, built for T steps, from now on called with its first steps alone, too.

    model(x[:t]) is model(x)[:t], but for BatchNorm, which in training goes by what it is given.

    Args:
        model: Changed in place; no step of it may see a later one.

    Raises:
        ValueError: If a step sees later ones, or a module is not known not to.
    """
    check_causal(model)
    for module in model.modules():
        if isinstance(module, Window):
            module.partial = True
    return model


def freeze_norms(model: nn.Module) -> nn.Module:
    """The model with each BatchNorm in evaluation mode, until model.train() is called again.

    Args:
        model: Changed in place.
    """
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            module.eval()
    return model


@contextmanager
def taking_turns(model: nn.Module) -> Iterator[None]:
    """Within, no other thread streams the model: while one does, its modules' forward is another one.

    Args:
        model: Any.
    """
    with _making:
        lock = _turns.setdefault(model, RLock())
    with lock:
        yield


def run_piece(model: nn.Module, scanning: list[nn.Module], x: Tensor, *states: Any) -> tuple[Any, ...]:
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
