"""How often the neurons of a network fire, by hooks that are gone afterwards, and what to say of it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from staa.folding import Passive

SILENT, SATURATED = 0.001, 0.95
TO_DO = (
    "To change a rate, give the network a neuron of your own (`model.neuron=my_file.py:make`): with a lower threshold it fires "
    "more, with a higher one less. A forecaster's attention also fires more with fewer and so wider heads (`forecast.heads`)"
)


def fires(module: nn.Module) -> bool:
    """Whether a module is a spiking neuron: it says so, fires = True or False, or else scans over time and has a threshold.

    Args:
        module: Any module.
    """
    return bool(getattr(module, "fires", hasattr(module, "scan") and hasattr(module, "threshold")))


@contextmanager
def neurons_heard(model: nn.Module, hear: Callable[[str, nn.Module, Any, Tensor], None]) -> Iterator[int]:
    """Within the block, hear(name, module, inputs, spikes) at each call of a spiking neuron, named as the layer that it fires
    for. Gives how many neurons there are.

    Args:
        model: Any module; its hooks are gone afterwards.
        hear: What is called.
    """
    handles = [
        module.register_forward_hook(Passive(partial(hear, name.removesuffix(".neuron"))))
        for name, module in model.named_modules()
        if fires(module)
    ]
    try:
        yield len(handles)
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def firing_rates(model: nn.Module, *, detach: bool = True) -> Iterator[dict[str, Tensor]]:
    """Within the block, each call of the model fills the dict: neuron's name -> mean of its last spikes.

        with firing_rates(model) as rates:
            model(x)

    A neuron of your own that does not scan or has no threshold says fires = True.

    Args:
        model: Any module; its hooks are gone afterwards.
        detach: False keeps the rates differentiable, for a penalty on them.

    Shapes:
        -> {name: scalar tensor}, at least float32

    Raises:
        ValueError: If detach is False and no spiking neuron is known.
    """
    rates: dict[str, Tensor] = {}

    def measure(name: str, module: nn.Module, inputs: Any, spikes: Tensor) -> None:
        rate = spikes.mean(dtype=torch.promote_types(spikes.dtype, torch.float32))
        rates[name] = rate.detach() if detach else rate

    with neurons_heard(model, measure) as count:
        if not count and not detach:
            raise ValueError(
                f"no spiking neuron is known in this {type(model).__name__}: one of your own must say fires = True"
            )
        yield rates


def summary(rates: dict[str, list[float]]) -> dict[str, float]:
    """Mean, lowest and highest firing rate over the layers; nothing without layers.

    Args:
        rates: {layer: (sum of its rates, how many were added)}.
    """
    means = [total / count for total, count in rates.values()]
    return {"mean": sum(means) / len(means), "lowest": min(means), "highest": max(means)} if means else {}


def rate_warnings(rates: dict[str, list[float]]) -> list[str]:
    """A line for each layer that is silent (below 0.1 %) or saturated (above 95 %); the last one says what to do.

    Args:
        rates: {layer: (sum of its rates, how many were added)}.
    """
    texts = []
    for name, (total, count) in rates.items():
        rate = total / count
        if rate < SILENT:
            texts.append(f"{name} is silent: it fires at {rate:.2%} of its steps, so little can be learned through it")
        elif rate > SATURATED:
            texts.append(f"{name} is saturated: it fires at {rate:.1%} of its steps, so it tells little")
    return [*texts[:-1], f"{texts[-1]}. {TO_DO}"] if texts else []
