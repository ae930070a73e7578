"""The neurons and networks that are compared, each library's written as its documentation writes them.

One equation for all: v[t] = 0.5 v[t−1] + 0.5 x[t], a spike at 1, reset to 0, arctan surrogate (Norse: its own "super").
A neuron maps a current [T, N, ...] to spikes; a network maps frames [T, N, C, H, W] to logits [N, 10].
"""

import warnings
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from staa.layers import Site, per_step
from staa.models.parts import ConvNorm, run_folded
from staa.neurons import LIF
from staa.ops import lif, lif_reference

Plan = tuple[int | str, ...]  # channels of each convolution, and "P" for an average pool of 2

EQUATION = {"decay": 0.5, "gain": 0.5, "threshold": 1.0}
VGG6 = (64, 64, "P", 128, 128, "P", 256, 256)
EVENTS = (16, "P", 32, "P", 64)


def staa_neuron(x: Tensor) -> Tensor:
    return lif(x, **EQUATION)[0]


def reference_neuron(x: Tensor) -> Tensor:
    return lif_reference(x, **EQUATION)[0]


@cache
def _spikingjelly():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from spikingjelly.activation_based import functional, layer, neuron, surrogate
    return functional, layer, neuron, surrogate


def spikingjelly_node() -> nn.Module:
    _, _, neuron, surrogate = _spikingjelly()
    return neuron.LIFNode(tau=2.0, surrogate_function=surrogate.ATan(), step_mode="m")


def spikingjelly_neuron(compiled: bool = False) -> Callable[[Tensor], Tensor]:
    functional, *_ = _spikingjelly()
    node = spikingjelly_node()
    call = torch.compile(node) if compiled else node

    def run(x: Tensor) -> Tensor:
        functional.reset_net(node)
        return call(x)

    return run


def snntorch_cell() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import snntorch
    options = {"spike_grad": snntorch.surrogate.atan(), "reset_mechanism": "zero"}
    return snntorch.Leaky(beta=0.5, threshold=2.0, **options)  # it has no gain of 0.5, so twice the threshold


def snntorch_neuron(x: Tensor) -> Tensor:
    cell = snntorch_cell()
    membrane, spikes = cell.init_leaky(), []
    for current in x:
        spike, membrane = cell(current, membrane)
        spikes.append(spike)
    return torch.stack(spikes)


def norse_cell() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import norse.torch as norse
    return norse.LIFBoxCell(p=norse.LIFBoxParameters(tau_mem_inv=torch.tensor(500.0)))  # half of the way in a step of 1 ms


def norse_neuron(x: Tensor) -> Tensor:
    cell = norse_cell()
    state, spikes = None, []
    for current in x:
        spike, state = cell(current, state)
        spikes.append(spike)
    return torch.stack(spikes)


NEURONS: dict[str, Callable[[], Callable[[Tensor], Tensor]]] = {
    "staa": lambda: staa_neuron,
    "reference": lambda: reference_neuron,
    "reference compiled": lambda: torch.compile(reference_neuron),
    "spikingjelly": spikingjelly_neuron,
    "spikingjelly compiled": partial(spikingjelly_neuron, compiled=True),
    "snntorch": lambda: snntorch_neuron,
    "norse": lambda: norse_neuron,
}


class Readout(nn.Module):
    """Means over space and time, then a linear layer: [T, N, C, H, W] -> [N, 10]."""

    def __init__(self, channels: int):
        super().__init__()
        self.linear = nn.Linear(channels, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x.mean((3, 4)).mean(0))


class Folded(nn.Module):
    """Time in the batch for everything but the neuron. kind: "staa", "reference" (BatchNorm and lif_reference), "conv only"."""

    def __init__(self, plan: Plan, channels: int, kind: str):
        super().__init__()
        self.kind, self.stages = kind, nn.ModuleList([nn.Sequential()])
        for what in plan:
            if what == "P":
                self.stages.append(nn.Sequential())
                continue
            self.stages[-1].append(ConvNorm(channels, what, 3))
            self.stages[-1].append(Site(LIF(**EQUATION)))
            channels = what
        self.readout = Readout(channels)

    def forward(self, x: Tensor) -> Tensor:
        for i, stage in enumerate(self.stages):
            x = per_step(lambda frames: F.avg_pool2d(frames, 2), x) if i else x
            if self.kind == "staa":
                x = run_folded(stage, x)
                continue
            for layer in stage[::2]:
                x = per_step(layer.conv, x) if self.kind == "conv only" else reference_neuron(layer(x))
        return self.readout(x)


class SpikingJelly(nn.Module):
    def __init__(self, plan: Plan, channels: int):
        super().__init__()
        functional, layer, *_ = _spikingjelly()
        layers: list[nn.Module] = []
        for what in plan:
            if what == "P":
                layers.append(layer.AvgPool2d(2))
                continue
            layers += [layer.Conv2d(channels, what, 3, padding=1, bias=False), layer.BatchNorm2d(what), spikingjelly_node()]
            channels = what
        self.layers = nn.Sequential(*layers)
        functional.set_step_mode(self.layers, "m")
        self.readout = Readout(channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.readout(self.layers(x))


class Stepwise(nn.Module):
    """One network call a step with the cells' states carried along, as snnTorch and Norse are written."""

    def __init__(self, plan: Plan, channels: int, cell: Callable[[], nn.Module], start: Callable[[nn.Module], Any]):
        super().__init__()
        self.plan, self.start = plan, start
        self.layers, self.cells = nn.ModuleList(), nn.ModuleList()
        for what in plan:
            if what == "P":
                self.layers.append(nn.AvgPool2d(2))
                continue
            self.layers.append(nn.Sequential(nn.Conv2d(channels, what, 3, padding=1, bias=False), nn.BatchNorm2d(what)))
            self.cells.append(cell())
            channels = what
        self.readout = nn.Linear(channels, 10)

    def forward(self, x: Tensor) -> Tensor:
        states, out = [self.start(cell) for cell in self.cells], []
        for frame in x:
            cells = iter(range(len(self.cells)))
            for what, layer in zip(self.plan, self.layers, strict=True):
                frame = layer(frame)
                if what != "P":
                    i = next(cells)
                    frame, states[i] = self.cells[i](frame, states[i])
            out.append(self.readout(frame.mean((2, 3))))
        return torch.stack(out).mean(0)


def _network(plan: Plan, channels: int, column: str) -> nn.Module:
    if column in ("staa", "reference", "conv only"):
        return Folded(plan, channels, column).to(memory_format=torch.channels_last)
    if column.startswith("spikingjelly"):
        network = SpikingJelly(plan, channels)
        return network.to(memory_format=torch.channels_last) if "channels_last" in column else network
    if column == "snntorch":
        return Stepwise(plan, channels, snntorch_cell, lambda cell: cell.init_leaky())
    return Stepwise(plan, channels, norse_cell, lambda cell: None)


NETS = {"vgg6": (VGG6, 3, (4, 32, 3, 32, 32)), "events": (EVENTS, 2, (10, 16, 2, 34, 34))}
COLUMNS = (
    "conv only", "staa", "reference", "spikingjelly", "spikingjelly channels_last", "spikingjelly compiled",
    "spikingjelly channels_last compiled", "snntorch", "norse",
)  # fmt: skip


def training_step(net: str, column: str) -> tuple[Callable[[], None], nn.Module]:
    """A function that takes one SGD step, and the network it trains."""
    plan, channels, shape = NETS[net]
    torch.manual_seed(0)
    network = _network(plan, channels, column)
    x, y = torch.rand(shape), torch.randint(10, shape[1:2])
    if net == "events":
        x = (x < 0.05).float()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01)
    call = torch.compile(network) if column.endswith("compiled") else network

    def step() -> None:
        if column.startswith("spikingjelly"):
            _spikingjelly()[0].reset_net(network)
        optimizer.zero_grad()
        F.cross_entropy(call(x), y).backward()
        optimizer.step()

    return step, network
