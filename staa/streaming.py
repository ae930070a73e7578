"""A network run through a window piece by piece, its neurons' membranes carried along."""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint


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
        if isinstance(module, _BatchNorm) and module.training:
            raise ValueError(
                f"{name} is a BatchNorm in training mode: its statistics are the whole window's, which is not there at once; "
                f"freeze it with staa.streaming.freeze_norms(model)"
            )
    states: Sequence[Tensor | None] = [None] * len(_neurons(model))
    outputs = []
    for part in x.split(chunk):
        output, *states = checkpoint(_run, model, part, *states, use_reentrant=False)
        outputs.append(output)
    return torch.cat(outputs)


def freeze_norms(model: nn.Module) -> nn.Module:
    """The model with every BatchNorm in evaluation mode, until model.train() is called again."""
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            module.eval()
    return model


def check_causal(model: nn.Module) -> None:
    """Raises ValueError where a model can't run piece by piece, naming the part and what to do."""
    for name, module in model.named_modules():
        if not getattr(module, "causal", True):
            raise ValueError(
                f"{name or 'the model'} ({type(module).__name__}) sees the whole window, so it can't be run in pieces; "
                f"build it with causal=True or steps=None"
            )
        if getattr(module, "steps", None) is not None:
            raise ValueError(
                f"{name or type(model).__name__} was built for a window of T = {module.steps} steps; for pieces of one, build "
                f"the model with steps=None"
            )


def _neurons(model: nn.Module) -> list[nn.Module]:
    return [module for module in model.modules() if hasattr(module, "scan")]


def _run(model: nn.Module, x: Tensor, *states: Tensor | None) -> tuple[Tensor, ...]:
    """(output, the neurons' last membranes) of a window that begins with these."""
    neurons, last = _neurons(model), [torch.empty(0)] * len(states)

    def scan(i: int, x: Tensor, scale: Tensor | None = None, shift: Tensor | None = None) -> Tensor:
        out, last[i] = neurons[i].scan(x, states[i], scale, shift)  # type: ignore[operator]
        return out

    try:
        for i, neuron in enumerate(neurons):
            neuron.forward = partial(scan, i)
        return model(x), *last
    finally:
        for neuron in neurons:
            del neuron.forward  # the class's own again
