"""What a network does inside: firing rates, by hooks that are gone when the block ends."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn


@contextmanager
def firing_rates(model: nn.Module) -> Iterator[dict[str, Tensor]]:
    """Within the block, each call of the model fills the dict: neuron's name -> mean of its last spikes (a scalar tensor).

        with firing_rates(model) as rates:
            model(x)

    Every module that scans over time and has a threshold counts as a spiking neuron.
    """
    rates: dict[str, Tensor] = {}
    handles = []
    for name, module in model.named_modules():
        if hasattr(module, "scan") and hasattr(module, "threshold"):
            name = name.removesuffix(".neuron")
            hook = lambda _, __, spikes, name=name: rates.update({name: spikes.detach().mean()})  # noqa: E731
            handles.append(module.register_forward_hook(hook))
    try:
        yield rates
    finally:
        for handle in handles:
            handle.remove()
