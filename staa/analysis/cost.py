"""What a step costs: time, measured in turns with others, and memory kept for the backward pass."""

import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from staa.counting import counted
from staa.ops import bits


def interleaved(functions: dict[str, Callable[[], object]], rounds: int, device: torch.device) -> dict[str, list[float]]:
    """Seconds of each function in each round; a round runs all of them, after two to warm up."""
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for k in counted(range(rounds + 2), "timing", rounds + 2):
        for name, function in functions.items():
            _wait(device)
            began = time.perf_counter()
            function()
            _wait(device)
            if k > 1:
                seconds[name].append(time.perf_counter() - began)
    return seconds


def ratio(a: list[float], b: list[float]) -> tuple[float, float, float]:
    """The median over rounds of a / b, and the quarter- and three-quarter-points."""
    ratios = [x / y for x, y in zip(a, b, strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4)
    return middle, low, high


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def kept_bytes(model: nn.Module, step: Callable[[], object]) -> int:
    """What a training step's forward pass keeps for its backward pass, in bytes: each storage once, weights left out.

    step: runs the model forward and backward. The same on every machine that takes the same paths, unlike what a process
    holds at its peak. The bits of `spikes_as_bits` are counted. Other hooks on saved tensors that the step sets, as
    torch.utils.checkpoint does, hide what they keep, which is left out.

    Raises ValueError if such hooks, or `spikes_as_bits`, are set around this call.
    """
    if torch._C._autograd._top_saved_tensors_default_hooks(False) is not None:  # type: ignore[attr-defined]
        raise ValueError(
            "hooks on saved tensors, as of spikes_as_bits, are set around kept_bytes, which would count as if there were none: "
            "set them inside step"
        )
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    held, kept = [], {}  # held, so that no address is used twice

    def note(tensor: Tensor) -> None:
        held.append(tensor.detach())
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()

    def pack(tensor: Tensor) -> Tensor:
        note(tensor)
        return tensor

    bits.WATCHERS.append(note)
    try:
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            step()
    finally:
        bits.WATCHERS.remove(note)
    return sum(kept.values())
