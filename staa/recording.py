"""What a network does inside, by hooks that are gone afterwards: firing rates, memory."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn

from staa.layers import Passive
from staa.ops import bits


def fires(module: nn.Module) -> bool:
    """Whether a module is a spiking neuron: it says so, fires = True or False, or scans over time and has a threshold."""
    return bool(getattr(module, "fires", hasattr(module, "scan") and hasattr(module, "threshold")))


@contextmanager
def firing_rates(model: nn.Module, *, detach: bool = True) -> Iterator[dict[str, Tensor]]:
    """Within the block, each call of the model fills the dict: neuron's name -> mean of its last spikes (a scalar tensor).

    detach=False keeps the rates differentiable, for a penalty on them.

        with firing_rates(model) as rates:
            model(x)

    Which modules are spiking neurons, `fires` says. Raises ValueError where none is and a penalty is wanted.
    """
    rates: dict[str, Tensor] = {}
    handles = []

    def measure(name: str, module: nn.Module, inputs: tuple[Tensor, ...], spikes: Tensor) -> None:
        rate = spikes.mean(dtype=torch.promote_types(spikes.dtype, torch.float32))
        rates[name] = rate.detach() if detach else rate

    for name, module in model.named_modules():
        if fires(module):
            name = name.removesuffix(".neuron")
            handles.append(module.register_forward_hook(Passive(partial(measure, name))))
    if not handles and not detach:
        raise ValueError(f"no spiking neuron is known in this {type(model).__name__}: one of your own says fires = True")
    try:
        yield rates
    finally:
        for handle in handles:
            handle.remove()


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
