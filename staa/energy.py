"""What an inference would cost on neuromorphic hardware: multiply-accumulates and additions, counted as the network runs."""

import math
from collections import defaultdict
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.module_tracker import ModuleTracker

from staa.evaluate import evaluation_mode
from staa.layers import Site

MAC, AC = 4.6e-12, 0.9e-12
"""Joules of a 32-bit multiply-accumulate and of an addition in 45 nm (Horowitz, ISSCC 2014)."""


@dataclass(frozen=True)
class LayerEnergy:
    """What one module multiplies, a sample: over all T steps."""

    name: str
    dense: float
    """Multiply-accumulates of its products, were every input a real number."""
    rate: float | None
    """Spikes an input and step, where its inputs are spikes; None where they are real."""

    @property
    def joules(self) -> float:
        return MAC * self.dense if self.rate is None else AC * self.rate * self.dense


@dataclass(frozen=True)
class Energy:
    """What a network costs, a sample: the sum over its layers."""

    layers: tuple[LayerEnergy, ...]

    @property
    def macs(self) -> float:
        """Multiply-accumulates, of layers that read real numbers."""
        return sum(layer.dense for layer in self.layers if layer.rate is None)

    @property
    def sops(self) -> float:
        """Synaptic operations: additions, of layers that read spikes."""
        return sum(layer.rate * layer.dense for layer in self.layers if layer.rate is not None)

    @property
    def joules(self) -> float:
        return sum(layer.joules for layer in self.layers)


def estimate_energy(model: nn.Module, *inputs: Tensor) -> Energy:
    """The cost of an inference, by the field's model: E = 4.6 pJ · MACs + 0.9 pJ · SOPs, a sample over all its T steps.

        SOPs = Σ over layers that read spikes of (mean input) · (dense multiply-accumulates)
        MACs = Σ over all others

    inputs: what the model is called with, such as a batch of images [N, C, H, W]; rates are of this batch, so give a fair
    one. The model runs once, in evaluation mode, and every convolution and matrix product is counted where it happens. One
    with an operand in whole numbers from 0 up adds and does not multiply: spikes, sums of spikes and events are told from
    their values, and averages of spikes, graded spikes and images count as the real numbers they are. The parts of an attention
    are counted too, and one multiplication for each value that it scales.

    Left out, as is usual: the arithmetic inside neurons, BatchNorm (it folds into the weights), activations, other
    elementwise products, and all memory traffic, which on real hardware is the larger part: compare by it, don't pay by it.
    """
    counter, handles = _Counter(model), []

    for name, module in model.named_modules():
        if isinstance(module, Site) and module.attention is not None:
            handles.append(module.register_forward_hook(partial(counter.scaled, name)))
        if isinstance(module, nn.RNNBase):
            handles.append(module.register_forward_hook(partial(counter.recurrent, name)))
    try:
        with evaluation_mode(model), torch.no_grad(), counter.tracker, counter:
            model(*inputs)
    finally:
        for handle in handles:
            handle.remove()
    x = inputs[0]
    samples = x.shape[-4] if x.ndim > 3 else x.shape[0]
    layers = []
    for (name, spiking), (dense, additions) in counter.found.items():
        layers.append(LayerEnergy(name, dense / samples, additions / dense if spiking and dense else 0.0 if spiking else None))
    return Energy(tuple(layers))


class _Counter(TorchDispatchMode):
    """Notes, by module and whether it reads spikes, dense multiply-accumulates and the additions they come to."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.tracker = ModuleTracker()
        self.root = type(model).__name__
        self.weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
        self.recurrents = {name for name, module in model.named_modules() if isinstance(module, nn.RNNBase)}
        self.found: dict[tuple[str, bool], list[float]] = defaultdict(lambda: [0.0, 0.0])

    def add(self, name: str, dense: float, rate: float | None) -> None:
        entry = self.found[name, rate is not None]
        entry[0] += dense
        entry[1] += dense * (rate or 0.0)

    def scaled(self, name: str, module: nn.Module, inputs: tuple[Tensor, ...], spikes: Tensor) -> None:
        """A site's attention scales each of its values once."""
        self.add(f"{name}.attention", spikes.numel(), None)

    def recurrent(self, name: str, module: nn.RNNBase, inputs: tuple[Tensor, ...], outputs: Any) -> None:
        """A recurrent layer, by its weights: what computes it differs from one machine to the next, and hides its products."""
        x = inputs[0]
        rate, steps = self._rate(x), x.shape[:-1].numel()
        for key, weight in module.named_parameters():
            if key.startswith("weight"):
                self.add(name, steps * weight.numel(), rate if key.startswith("weight_ih_l0") else None)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        name, where = func.name().partition(".")[0], self._where()
        if where in self.recurrents:
            return out
        if name == "aten::convolution":
            x, weight = args[:2]
            # transposed: each input value meets each weight of its channel
            dense = (x if args[6] else out).numel() * math.prod(weight.shape[1:])
            self.add(where, dense, self._rate(x))
        elif name in ("aten::mm", "aten::bmm", "aten::addmm", "aten::baddbmm", "aten::mv", "aten::dot"):
            a, b = args[1:3] if "add" in name else args[:2]
            rates = [rate for rate in (self._rate(a), self._rate(b)) if rate is not None]
            self.add(where, out.numel() * a.shape[-1], min(rates, default=None))
        elif name == "staa::context":  # the key's product with each position, and their weighted sum
            self.add(where, 2 * args[0].numel(), None)
        return out

    def _where(self) -> str:
        """The innermost module that is running, by its name in the model."""
        inside = max(self.tracker.parents - {"Global"}, key=len, default="")
        return inside.removeprefix(self.root).removeprefix(".")

    def _rate(self, x: Tensor) -> float | None:
        """Mean of a tensor of whole numbers from 0 up; None for a weight and for any other."""
        if x.untyped_storage().data_ptr() in self.weights or not bool(((x >= 0) & (x == x.round())).all()):
            return None
        return float(x.double().mean())
