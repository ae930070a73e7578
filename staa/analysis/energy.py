"""What an inference would cost on neuromorphic hardware: multiply-accumulates and additions, counted as the network runs."""

import warnings
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from staa.analysis.counter import Counter, Departures
from staa.analysis.provenance import SPIKES
from staa.training.evaluate import evaluation_mode

MAC, AC = 4.6e-12, 0.9e-12
"""Joules of a 32-bit multiply-accumulate and of an addition in 45 nm (Horowitz, ISSCC 2014)."""


@dataclass(frozen=True)
class LayerEnergy:
    """What one module multiplies, a sample: over all T steps."""

    name: str
    dense: float
    """Multiply-accumulates of its products, were every input a real number."""
    rate: float | None
    """Spikes an input and step, if its inputs are spikes; None if they are real."""

    @property
    def joules(self) -> float:
        return MAC * self.dense if self.rate is None else AC * self.rate * self.dense


@dataclass(frozen=True)
class LeftOut:
    """What multiplies in one module and is not counted, a sample."""

    name: str
    operation: str
    elements: float
    """Numbers that it puts out; for what leaves PyTorch, numbers that leave."""

    def __str__(self) -> str:
        return f"{self.operation} in {self.name or 'the model'}, {self.elements:,.6g} elements"


@dataclass(frozen=True)
class Energy:
    """What a network costs, a sample: the sum over its layers."""

    layers: tuple[LayerEnergy, ...]
    left_out: tuple[LeftOut, ...] = ()
    """What multiplies activations beside the layers, and is in none of the figures."""

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


def estimate_energy(
    model: nn.Module, *inputs: Tensor, events: bool = False, samples: int | None = None, free: Collection[str] = ()
) -> Energy:
    """What an inference would cost, a sample over all its T steps, counted while the model runs once in evaluation mode:

        E = 4.6 pJ · MACs + 0.9 pJ · SOPs
        SOPs = Σ over layers that read spikes of (mean input) · (dense multiply-accumulates)
        MACs = Σ over all others

    Every convolution and matrix product is counted where it happens, so are the parts of an attention, and one multiplication
    for each value that it scales. A product adds and does not multiply if one side is made of spikes, whatever their values in
    this batch: what a spiking neuron puts out (`staa.rates.fires`) or a comparison, and their copies, maxima, sums and
    products. An average of spikes, graded spikes and images multiply.

    Not counted, as papers do: the arithmetic inside neurons, BatchNorm and what scales by a single number (they fold into the
    weights), additions, activations, and all memory traffic, which on real hardware is the larger part: compare by it, don't
    pay by it. Not counted either, but named in `Energy.left_out`: elementwise products, quotients and powers of activations
    (also torch.outer), norms other than BatchNorm, softmax, and tensors that leave PyTorch, as for NumPy. A sum may make a
    matrix product of an elementwise one, and NumPy may compute anything: outside this library's own modules, whose published
    figures leave these out, a warning names them.

    Args:
        model: The network.
        *inputs: What it is called with, such as a batch of images; firing rates are of this batch, so give a fair one.
        events: The first input is counts of events, whole numbers from 0 up, which the first layer adds.
        samples: How many samples the inputs hold, at least 1. None: the second dimension of what is called with [T, N, …] (a
            neuron, `PerStep`, a network of such, what says per_step or acts_on), the first of a forecaster's windows [B, L, K],
            of images [N, C, H, W] for a network that says frame_rank = 3, and of what PyTorch's own layers take; a module says
            batch_first for itself.
        free: Names of operations that multiply nothing, such as "aten::fft_fft", if they have no price.

    Shapes:
        inputs [N, C, H, W], [T, N, ...] or [B, L, K], as the model takes them

    Raises:
        ValueError: If samples is below 1 or can't be told; if events are no counts; if an operation has no price.

    Source:
        The field's model, with energies of 32-bit arithmetic in 45 nm: Horowitz, ISSCC 2014.
    """
    if samples is None:
        samples = _samples(model, inputs[0])
    if isinstance(samples, bool) or not isinstance(samples, int) or samples < 1:
        raise ValueError(f"samples must be a whole number of at least 1, got {samples!r}")
    counter = Counter(model, free)
    if events:
        _check_counts(inputs[0])
        counter.kinds.mark(inputs[0], SPIKES)
    for weight in (*model.parameters(), *model.buffers()):
        counter.kinds.fix(weight)
    departures = Departures(counter)
    with evaluation_mode(model), torch.no_grad(), counter.watching(model), _without_fast_path(), departures, counter:
        model(*inputs)
    if counter.unpriced:
        raise ValueError(
            f"no price is known for {', '.join(f'{op} in {where}' for op, where in counter.unpriced.items())}: name in free= "
            f"what multiplies nothing, and write the rest as convolutions and matrix products"
        )
    layers = []
    for (name, spiking), (dense, additions) in counter.found.items():
        layers.append(LayerEnergy(name, dense / samples, additions / dense if spiking and dense else 0.0 if spiking else None))
    left_out = tuple(LeftOut(*key, elements / samples) for key, elements in counter.left_out.items())
    doubtful = [str(found) for found in left_out if (found.name, found.operation) in counter.doubtful]
    if doubtful:
        warnings.warn(
            f"not counted: {'; '.join(doubtful)} (a sample). Write products as matrix products, in PyTorch, to have them "
            f"counted; name what is no product in free=",
            stacklevel=2,
        )
    return Energy(tuple(layers), left_out)


@contextmanager
def _without_fast_path() -> Iterator[None]:
    """PyTorch's attention from its parts: the fast path of evaluation hides their products in one operation."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def _check_counts(x: Tensor) -> None:
    if not bool(((x >= 0) & (x == x.round())).all()):
        raise ValueError(
            "events=True needs counts of events, whole numbers from 0 up, as the first input; it holds other numbers"
        )


def _samples(model: nn.Module, x: Tensor) -> int:
    dimension = _batch_dimension(model, x.ndim)
    if dimension is None:
        raise ValueError(
            f"which dimension of an input {list(x.shape)} counts the samples of a {type(model).__name__} can't be known: give "
            f"samples="
        )
    return x.shape[dimension]


def _batch_dimension(model: nn.Module, rank: int) -> int | None:
    if (frame_rank := getattr(model, "frame_rank", None)) is not None:
        return {frame_rank + 1: 0, frame_rank + 2: 1}.get(rank)
    if isinstance(first := getattr(model, "batch_first", None), bool):
        return (0 if first else 1) if rank > 2 else None
    if _time_first(model):
        return 1 if rank > 1 else None
    if type(model) is nn.Sequential:
        if any(_time_first(module) for module in model.modules()):
            return 1 if rank > 1 else None
        return _batch_dimension(model[0], rank) if len(model) else None
    return 0 if BATCHED.get(type(model)) == rank else None


def _time_first(module: nn.Module) -> bool:
    """Whether its input is [T, N, …]."""
    return any(hasattr(module, said) for said in ("per_step", "scan", "acts_on"))


BATCHED: dict[type[nn.Module], int] = {
    nn.Linear: 2, nn.Conv1d: 3, nn.Conv2d: 4, nn.Conv3d: 5, nn.ConvTranspose1d: 3, nn.ConvTranspose2d: 4, nn.ConvTranspose3d: 5,
    nn.BatchNorm2d: 4, nn.AvgPool2d: 4, nn.MaxPool2d: 4, nn.AdaptiveAvgPool2d: 4,
}  # fmt: skip
"""The rank of a batch for PyTorch's layers."""
