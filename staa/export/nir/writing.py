"""Modules as nodes and edges of a NIR graph."""

from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from staa.folding import untouched
from staa.layers import PerStep, Site
from staa.models.ms_resnet import MembraneBlock, MSResNet
from staa.models.parts import ConvNorm, Readout
from staa.models.resnet import BasicBlock, PoolShortcut, ResNet, pool2, pool3
from staa.models.vgg import VGGSNN
from staa.neurons import LIF, AdaptiveLIF, Integrator, ParametricLIF

POOLS: dict[Any, tuple[int, int, int]] = {pool2: (2, 2, 0), pool3: (3, 2, 1)}
"""Pooling functions of a ResNet -> kernel, stride, padding."""


class Signal(NamedTuple):
    """What flows between modules: the sum of some nodes' outputs, and the shape of a sample at a step."""

    sources: tuple[str, ...]
    shape: tuple[int, ...]

    def __add__(self, other: "Signal") -> "Signal":  # type: ignore[override]
        return Signal(self.sources + other.sources, self.shape)


class Writer:
    """Nodes and edges so far. write(module, signal) adds a module and returns what comes out of it."""

    def __init__(self, nir: ModuleType, model: nn.Module, dt: float):
        self.nir, self.dt = nir, dt
        self.names = {module: name for name, module in model.named_modules()}
        self.nodes: dict[str, Any] = {}
        self.edges: list[tuple[str, str]] = []

    def write(self, module: nn.Module, signal: Signal) -> Signal:
        writer = WRITERS.get(type(module))
        if writer is None:
            known = "the image models of staa, Sequential, PerStep, Conv2d, Linear, AvgPool2d, Flatten, BatchNorm and neurons"
            raise self.refusal(module, f"it has no counterpart in NIR; written are {known}")
        if not untouched(module):
            raise self.refusal(module, "a hook hangs on it or its forward was replaced, which a graph can't hold: remove it")
        return writer(self, module, signal)

    def chain(self, modules: Sequence[nn.Module] | nn.Sequential, signal: Signal) -> Signal:
        for module in modules:
            signal = self.write(module, signal)
        return signal

    def add(self, module: nn.Module, node: Any, signal: Signal, shape: Sequence[int], suffix: str = "") -> Signal:
        name = node_name(self.names[module]) + suffix
        if name in self.nodes:
            raise self.refusal(module, "it stands in two places of the network, and a node of NIR in one")
        self.nodes[name] = node
        self.edges += [(source, name) for source in signal.sources]
        return Signal((name,), tuple(shape))

    def refusal(self, module: nn.Module, why: str) -> ValueError:
        return ValueError(f"{self.names[module] or 'the model'} ({type(module).__name__}) can't be written to NIR: {why}")

    def pool(self, module: nn.Module, signal: Signal, kernel: Any, stride: Any, padding: Any, *, sums: bool = False) -> Signal:
        pairs = [_pair(value) for value in (kernel, stride, padding)]
        if len(signal.shape) != 3:
            raise self.refusal(module, f"pooling takes [C, H, W], and gets {list(signal.shape)}")
        sides = [_slid(*sizes) for sizes in zip(signal.shape[1:], *pairs, (1, 1), strict=True)]
        make = self.nir.SumPool2d if sums else self.nir.AvgPool2d
        node = make(kernel_size=np.array(pairs[0]), stride=np.array(pairs[1]), padding=np.array(pairs[2]))
        return self.add(module, node, signal, (signal.shape[0], *sides), "_pool")

    def flatten(self, module: nn.Module, signal: Signal, start: int = 0, end: int = -1) -> Signal:
        node = self.nir.Flatten(input_type={"input": np.array(signal.shape)}, start_dim=start, end_dim=end)
        return self.add(module, node, signal, [int(n) for n in node.output_type["output"]], "_flatten")


def _conv(graph: Writer, conv: nn.Conv2d, signal: Signal, stride: Any = None) -> Signal:
    stride = _pair(conv.stride if stride is None else stride)
    kernel, dilation = conv.kernel_size, _pair(conv.dilation)
    if conv.padding_mode != "zeros" or conv.groups != 1 or kernel[0] != kernel[1] or isinstance(conv.padding, str):
        raise graph.refusal(
            conv, "NIR's readers take convolutions in one group, with a square kernel and numbers of zeros around"
        )
    padding = _pair(conv.padding)
    if len(signal.shape) != 3 or signal.shape[0] != conv.in_channels:
        raise graph.refusal(conv, f"it takes [{conv.in_channels}, H, W], and gets {list(signal.shape)}: mend input_shape")
    sides = [_slid(*sizes) for sizes in zip(signal.shape[1:], kernel, stride, padding, dilation, strict=True)]
    bias = np.zeros(conv.out_channels, np.float32) if conv.bias is None else _numbers(conv.bias)
    node = graph.nir.Conv2d(signal.shape[1:], _numbers(conv.weight), stride, padding, dilation, 1, bias)
    return graph.add(conv, node, signal, (conv.out_channels, *sides))


def _linear(graph: Writer, linear: nn.Linear, signal: Signal) -> Signal:
    if signal.shape != (linear.in_features,):
        raise graph.refusal(
            linear, f"it takes [{linear.in_features}], and gets {list(signal.shape)}: flatten, or mend input_shape"
        )
    weight = _numbers(linear.weight)
    node = graph.nir.Linear(weight) if linear.bias is None else graph.nir.Affine(weight, _numbers(linear.bias))
    return graph.add(linear, node, signal, (linear.out_features,))


def _norm(graph: Writer, norm: Any, signal: Signal) -> Signal:
    """weight ← weight · s, bias ← (bias − mean) · s + β with s = γ / √(variance + eps), in the node before."""
    name = signal.sources[0]
    node, nir = graph.nodes[name], graph.nir
    alone = len(signal.sources) == 1 and all(source != name for source, _ in graph.edges)
    if not alone or not isinstance(node, nir.Conv2d | nir.Linear | nir.Affine):
        raise graph.refusal(norm, "no Conv2d or Linear stands right before it, whose weights could take it")
    if norm.training or norm.running_mean is None or norm.running_var is None:
        raise graph.refusal(norm, "it goes by the batch: it must be in evaluation mode and have running statistics")
    if norm.num_features != signal.shape[0]:
        raise graph.refusal(norm, f"it takes {norm.num_features} channels, and gets {signal.shape[0]}")
    one, zero = torch.ones(()), torch.zeros(())
    gamma, beta = (one if norm.weight is None else norm.weight), (zero if norm.bias is None else norm.bias)
    scale = gamma.double() / (norm.running_var.double() + norm.eps).sqrt()
    bias = torch.from_numpy(getattr(node, "bias", np.zeros(()))).double()
    bias = (bias - norm.running_mean.double()) * scale + beta.double()
    weight = node.weight * scale.view(-1, *[1] * (node.weight.ndim - 1)).numpy()
    if isinstance(node, nir.Linear):
        graph.nodes[name] = nir.Affine(weight.astype(np.float32), _numbers(bias))
    else:
        node.weight, node.bias = weight.astype(np.float32), _numbers(bias)
    return signal


def _dropout(graph: Writer, dropout: nn.Module, signal: Signal) -> Signal:
    if dropout.training:
        raise graph.refusal(dropout, "it goes by chance: it must be in evaluation mode")
    return signal


def _avg_pool(graph: Writer, pool: nn.AvgPool2d, signal: Signal) -> Signal:
    kernel, stride, padding = _pair(pool.kernel_size), _pair(pool.stride), _pair(pool.padding)
    sums = pool.divisor_override == 1
    if (pool.divisor_override and not sums) or (any(padding) and not (pool.count_include_pad or sums)):
        raise graph.refusal(pool, "NIR's average counts the padding and divides by the size of the kernel")
    if pool.ceil_mode and not _fits(signal, kernel, stride, padding):
        raise graph.refusal(pool, "NIR has no ceil_mode, and the input's sides are no multiple of the stride")
    return graph.pool(pool, signal, kernel, stride, padding, sums=sums)


def _flatten(graph: Writer, flatten: nn.Flatten, signal: Signal) -> Signal:
    rank = 1 + len(signal.shape)  # with the batch, which NIR leaves out
    start, end = (k % rank for k in (flatten.start_dim, flatten.end_dim))
    if not 1 <= start <= end:
        raise graph.refusal(flatten, f"it must leave the batch alone: start_dim=1 or more, got {flatten.start_dim}")
    return graph.flatten(flatten, signal, start - 1, end - 1)


def _neuron(graph: Writer, neuron: Any, signal: Signal) -> Signal:
    if neuron.reset != "zero":
        raise graph.refusal(neuron, f'NIR sets the membrane to v_reset after a spike, this neuron has reset="{neuron.reset}"')
    decay, gain = neuron.decay if not isinstance(neuron, ParametricLIF) else neuron.decay_logit.sigmoid(), neuron.gain
    gain = 1 - decay if gain is None else gain
    threshold = np.float32(neuron.threshold)
    above = threshold if neuron.strict else np.nextafter(threshold, np.float32(0))
    more = {"v_threshold": np.full(signal.shape, float(above)), "v_reset": np.zeros(signal.shape)}
    return _charge(graph, neuron, signal, decay, gain, (graph.nir.LIF, graph.nir.IF), **more)


def _integrator(graph: Writer, neuron: Integrator, signal: Signal) -> Signal:
    return _charge(graph, neuron, signal, neuron.decay, neuron.gain, (graph.nir.LI, graph.nir.I))


def _charge(graph: Writer, neuron: nn.Module, signal: Signal, decay: Any, gain: Any, kinds: Any, **more: Any) -> Signal:
    """τ = dt / (1 − decay) and R = gain / (1 − decay); of what does not leak, R = gain / dt."""
    decay, gain = (_everywhere(graph, neuron, value, signal.shape) for value in (decay, gain))
    leaky, perfect = kinds
    if (decay == 1).all():
        node = perfect(r=gain / graph.dt, **more)
    elif ((decay >= 0) & (decay < 1)).all():
        node = leaky(tau=graph.dt / (1 - decay), r=gain / (1 - decay), v_leak=np.zeros(signal.shape), **more)
    else:
        low, high = decay.min(), decay.max()
        raise graph.refusal(neuron, f"NIR's leak is a decay from 0 to below 1, or 1 throughout, got {low:.4g} to {high:.4g}")
    return graph.add(neuron, node, signal, signal.shape)


def _everywhere(graph: Writer, neuron: nn.Module, value: Any, shape: tuple[int, ...]) -> np.ndarray:
    """A constant, or one for each channel, as float32 has it, for each neuron."""
    value = np.float32(value.numpy(force=True) if isinstance(value, Tensor) else value).astype(np.float64)
    if value.ndim and value.shape != shape[:1]:
        raise graph.refusal(neuron, f"it has {value.shape[0]} channels, and gets {list(shape)}")
    return np.broadcast_to(value.reshape(value.shape + (1,) * (len(shape) - 1) if value.ndim else ()), shape).copy()


def _conv_norm(graph: Writer, layer: ConvNorm, signal: Signal) -> Signal:
    if not (type(layer.conv) is nn.Conv2d and untouched(layer.conv)):
        raise graph.refusal(layer.conv, "it is no plain Conv2d")
    signal = _conv(graph, layer.conv, signal, layer.conv.stride if layer.skip == 1 else layer.skip)
    return graph.write(layer.norm, signal)


def _site(graph: Writer, site: Site, signal: Signal) -> Signal:
    if site.attention is not None:
        raise graph.refusal(site.attention, "NIR has no attention: train without it (`model.attention=None`) to export to NIR")
    return graph.write(site.neuron, signal)


def _readout(graph: Writer, readout: Readout, signal: Signal) -> Signal:
    pooled = graph.pool(readout, signal, signal.shape[1:], signal.shape[1:], 0)
    return graph.write(readout.linear, graph.flatten(readout, pooled))


def _pool_shortcut(graph: Writer, shortcut: PoolShortcut, signal: Signal) -> Signal:
    sizes = [_pair(n) for n in (shortcut.stride, shortcut.stride, 0)]
    if not _fits(signal, *sizes):
        raise graph.refusal(
            shortcut, f"NIR has no ceil_mode, and the sides of {list(signal.shape)} are no multiple of the stride"
        )
    signal = graph.pool(shortcut, signal, *sizes) if shortcut.stride > 1 else signal
    return graph.write(shortcut.project, signal)


def _basic_block(graph: Writer, block: BasicBlock, signal: Signal) -> Signal:
    main = graph.chain((block.layer1, block.fire1, block.layer2), signal)
    return graph.write(block.fire2, main + graph.write(block.shortcut, signal))


def _membrane_block(graph: Writer, block: MembraneBlock, signal: Signal) -> Signal:
    main = graph.chain((block.fire1, block.layer1, block.fire2, block.layer2), signal)
    return graph.write(block.shortcut, signal) + main  # in the order in which the network adds, from the stem on


def _vgg(graph: Writer, model: VGGSNN, signal: Signal) -> Signal:
    if signal.shape[1:] != (model.size, model.size):
        raise graph.refusal(model, f"it takes [C, {model.size}, {model.size}], and gets {list(signal.shape)}: mend input_shape")
    for stage in model.stages:
        signal = graph.pool(stage, graph.write(stage, signal), 2, 2, 0)
    return graph.write(model.readout, graph.flatten(model, signal))


def _resnet(graph: Writer, model: ResNet, signal: Signal) -> Signal:
    signal = graph.write(model.stem, signal)
    if model.pool is not None:
        if model.pool not in POOLS:
            raise graph.refusal(model, f"what its pool does is not known: {model.pool!r}")
        signal = graph.pool(model, signal, *POOLS[model.pool])
    return graph.chain((model.stages, model.readout), signal)


def _ms_resnet(graph: Writer, model: MSResNet, signal: Signal) -> Signal:
    first = (model.stem,) if model.fire is None else (model.stem, model.fire)
    return graph.chain((*first, model.stages, model.last, model.readout), signal)


def node_name(path: str) -> str:
    """A module's path as the name of its node; a layer's neuron is named as the layer. Readers split names at dots."""
    return path.removesuffix(".neuron").replace(".", "_") or "model"


def _numbers(tensor: Tensor) -> np.ndarray:
    return tensor.detach().cpu().float().numpy().copy()


def _pair(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (int(value[0]), int(value[1]))


def _slid(size: int, kernel: int, stride: int, padding: int, dilation: int) -> int:
    """How many places a kernel has along a side: ⌊(size + 2 · padding − dilation · (kernel − 1) − 1) / stride⌋ + 1."""
    return (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1


def _fits(signal: Signal, kernel: Any, stride: Any, padding: Any) -> bool:
    return all((n + 2 * p - k) % s == 0 for n, k, s, p in zip(signal.shape[1:], kernel, stride, padding, strict=True))


WRITERS: dict[type[nn.Module], Callable[[Writer, Any, Signal], Signal]] = {
    nn.Sequential: Writer.chain,
    PerStep: lambda graph, layer, signal: graph.write(layer.module, signal),
    nn.Identity: lambda graph, module, signal: signal,
    **dict.fromkeys((nn.Dropout, nn.Dropout1d, nn.Dropout2d), _dropout),
    nn.Conv2d: _conv,
    nn.Linear: _linear,
    nn.BatchNorm1d: _norm,
    nn.BatchNorm2d: _norm,
    nn.AvgPool2d: _avg_pool,
    nn.Flatten: _flatten,
    **dict.fromkeys((LIF, ParametricLIF, AdaptiveLIF), _neuron),
    Integrator: _integrator,
    ConvNorm: _conv_norm,
    Site: _site,
    Readout: _readout,
    BasicBlock: _basic_block,
    PoolShortcut: _pool_shortcut,
    MembraneBlock: _membrane_block,
    VGGSNN: _vgg,
    ResNet: _resnet,
    MSResNet: _ms_resnet,
}
"""What is written, by its exact type: a subclass may do something else."""
