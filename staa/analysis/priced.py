"""What a network costs, as it was counted: two conventions side by side, memory traffic beside them, and a network that does
not spike to compare with."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

MAC, AC = 4.6e-12, 0.9e-12
"""Joules of a 32-bit multiply-accumulate and of an addition in 45 nm (Horowitz, ISSCC 2014)."""


@dataclass(frozen=True)
class LayerEnergy:
    """What one module costs, a sample: over all T steps. A neuron has a membrane and no products."""

    name: str
    dense: float
    """Multiply-accumulates of its products, were every input a real number; over a zero-padded border too."""
    rate: float | None
    """Spikes an input and step, if its inputs are spikes; None if they are real, or if it has none."""
    inside: float
    """Its products without those of a zero-padded border."""
    effective: float
    """Of these, those with no input and no weight of 0: additions, one a spike, if its inputs are spikes, else
    multiply-accumulates."""
    once: float
    """The dense products of one step."""
    once_inside: float
    """Those of them without a border."""
    weight_bytes: float
    """Weights of its products, or a neuron's parameters, read once a step."""
    membrane_bytes: float
    """A neuron's membranes, read and written once a step."""
    mac_joules: float = MAC
    ac_joules: float = AC

    @property
    def operations(self) -> float:
        """As papers count them: rate · dense additions, or dense multiply-accumulates."""
        return self.dense if self.rate is None else self.rate * self.dense

    @property
    def joules(self) -> float:
        """Of these operations."""
        return self.operations * self._price

    @property
    def joules_exact(self) -> float:
        """Of the effective operations alone."""
        return self.effective * self._price

    @property
    def memory_bytes(self) -> float:
        return self.weight_bytes + self.membrane_bytes

    @property
    def _price(self) -> float:
        return self.mac_joules if self.rate is None else self.ac_joules


@dataclass(frozen=True)
class LeftOut:
    """What multiplies in one module and is not counted, a sample."""

    name: str
    operation: str
    elements: float
    """Numbers that it puts out; for what leaves PyTorch, numbers that leave."""

    def __str__(self) -> str:
        return f"{self.operation} in {self.name or 'the model'}, {self.elements:,.6g} elements"


class Account(NamedTuple):
    """The sums over the layers in one convention, a sample."""

    macs: float
    """Multiply-accumulates, of layers that read real numbers."""
    sops: float
    """Synaptic operations: additions, of layers that read spikes."""
    joules: float
    ann_macs: float
    """Multiply-accumulates of the same network without spikes: each layer runs for one step, and every product is one."""
    ann_joules: float


@dataclass(frozen=True)
class Energy:
    """What a network costs, a sample: the sum over its layers, without their memory traffic."""

    layers: tuple[LayerEnergy, ...]
    """In the order in which they first ran, neurons among them."""
    left_out: tuple[LeftOut, ...] = ()
    """What multiplies activations beside the layers, and is in none of the figures."""
    samples: int = 1
    """How many samples the rates are the means of."""

    @property
    def papers(self) -> Account:
        """As papers count: a layer's rate times all its products, those of a zero-padded border among them."""
        return self._account(lambda layer: layer.operations, lambda layer: layer.once)

    @property
    def exact(self) -> Account:
        """What really happens: a border, an input of 0 and a weight of 0 cost nothing."""
        return self._account(lambda layer: layer.effective, lambda layer: layer.once_inside)

    @property
    def macs(self) -> float:
        """As papers count: see `papers`."""
        return self.papers.macs

    @property
    def sops(self) -> float:
        """As papers count: see `papers`."""
        return self.papers.sops

    @property
    def joules(self) -> float:
        """As papers count: see `papers`."""
        return self.papers.joules

    @property
    def weight_bytes(self) -> float:
        return sum(layer.weight_bytes for layer in self.layers)

    @property
    def membrane_bytes(self) -> float:
        return sum(layer.membrane_bytes for layer in self.layers)

    def _account(self, operations: Callable[[LayerEnergy], float], once: Callable[[LayerEnergy], float]) -> Account:
        real = [layer for layer in self.layers if layer.rate is None]
        spiking = [layer for layer in self.layers if layer.rate is not None]
        macs, sops = sum(map(operations, real)), sum(map(operations, spiking))
        joules = sum(operations(layer) * layer.mac_joules for layer in real) + sum(
            operations(layer) * layer.ac_joules for layer in spiking
        )
        ann_joules = sum(once(layer) * layer.mac_joules for layer in self.layers)
        return Account(macs, sops, joules, sum(map(once, self.layers)), ann_joules)


def average(parts: Sequence[Energy]) -> Energy:
    """The mean over samples that ran in several batches.

    Args:
        parts: What each batch cost, of one network at the same joules an operation.
    """
    samples = sum(part.samples for part in parts)
    layers: dict[tuple[str, bool], list[tuple[LayerEnergy, int]]] = defaultdict(list)
    left_out: dict[tuple[str, str], float] = defaultdict(float)
    for part in parts:
        for layer in part.layers:
            layers[layer.name, layer.rate is not None].append((layer, part.samples))
        for found in part.left_out:
            left_out[found.name, found.operation] += found.elements * part.samples
    return Energy(
        tuple(_together(name, some, samples) for (name, _), some in layers.items()),
        tuple(LeftOut(*key, elements / samples) for key, elements in left_out.items()),
        samples,
    )


def by_attention(layers: Sequence[LayerEnergy]) -> list[LayerEnergy]:
    """The same layers, all that multiplies in the attention of one `staa.layers.Site` put together.

    Args:
        layers: Those of an `Energy`.
    """
    scaled = [layer.name for layer in layers if layer.name.endswith(".attention") and layer.rate is None]
    of = {part: name for name in scaled for part in (name, name.removesuffix(".attention"))}
    rows: dict[tuple[str, bool], list[tuple[LayerEnergy, int]]] = defaultdict(list)
    for layer in layers:
        inside = next((name for name in scaled if layer.name.startswith(f"{name}.")), None)
        name = layer.name if layer.rate is not None else inside or of.get(layer.name, layer.name)
        rows[name, layer.rate is not None].append((layer, 1))
    return [_together(name, some) for (name, _), some in rows.items()]


def _together(name: str, some: Sequence[tuple[LayerEnergy, int]], samples: int = 1) -> LayerEnergy:
    """The sum of layers that all read spikes or all do not, each times the samples that it is the mean of, over all samples."""
    first = some[0][0]
    added = {part: sum(getattr(layer, part) * of for layer, of in some) / samples for part in ADDED}
    rate = None
    if first.rate is not None:
        additions = sum(layer.operations * of for layer, of in some) / samples
        rate = additions / added["dense"] if added["dense"] else 0.0
    return replace(first, name=name, rate=rate, **added)


ADDED = "dense", "inside", "effective", "once", "once_inside", "weight_bytes", "membrane_bytes"
