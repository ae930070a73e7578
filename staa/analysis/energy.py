"""What an inference would cost on neuromorphic hardware: multiply-accumulates and additions, counted as the network runs."""

import math
import warnings
from collections.abc import Collection, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from staa.analysis.counter import Counter, Departures, takes_steps
from staa.analysis.priced import AC, MAC, Energy, LayerEnergy, LeftOut
from staa.analysis.provenance import SPIKES
from staa.training.evaluate import evaluation_mode


def estimate_energy(
    model: nn.Module,
    *inputs: Tensor,
    events: bool = False,
    samples: int | None = None,
    free: Collection[str] = (),
    mac_pj: float = MAC * 1e12,
    ac_pj: float = AC * 1e12,
) -> Energy:
    """What an inference would cost, a sample over all its T steps, counted while the model runs once in evaluation mode:

        E = 4.6 pJ · MACs + 0.9 pJ · SOPs

    in two conventions, `Energy.papers` and `Energy.exact`:

                 SOPs, of layers that read spikes                 MACs, of all others
        papers   (mean input) · (dense multiply-accumulates)      dense multiply-accumulates
        exact    a spike and a weight that is not 0               an input and a weight that are not 0

    Dense products have those of a zero-padded border among them, exact ones do not: they are NeuroBench's effective operations.
    `Energy.macs`, `sops` and `joules` are the papers'.

    Every convolution and matrix product is counted where it happens, so are the parts of an attention, and one multiplication
    for each value that it scales. A product adds and does not multiply if one side is made of spikes, whatever their values in
    this batch: what a spiking neuron puts out (`staa.rates.fires`) or a comparison, and their copies, maxima, sums and
    products. An average of spikes, graded spikes and images multiply. Of spikes with spikes, papers count the rarer ones, of
    each pair of matrices. Products of weights alone cost nothing: they are made once.

    Not counted, as papers do: the arithmetic inside neurons, BatchNorm and what scales by a single number (they fold into the
    weights), additions and activations. Not counted either, but named in `Energy.left_out`: elementwise products, quotients and
    powers of activations (also torch.outer), norms other than BatchNorm, softmax, and tensors that leave PyTorch, as for NumPy.
    A sum may make a matrix product of an elementwise one, and NumPy may compute anything: outside this library's own modules,
    whose published figures leave these out, a warning names them.

    Memory traffic is told beside, in bytes, and is in no sum: on real hardware it is the larger part. For a sample that runs
    alone, each weight of a product and each parameter of a neuron is read once a step, and each membrane is read and written
    once a step, in at least 32 bits. That is the least: without a store near the arithmetic, each operation reads its weight.
    Biases, what BatchNorm and position encodings add or scale by, and activations are left out.

    The same network without spikes, `Account.ann_macs` and `ann_joules`, runs each layer for one step, and every product is a
    multiply-accumulate. T of a layer is that of the innermost module around it whose input is [T, N, …], or 1. A module that
    calls its layers step by step is to say so: per_step, or scan; else each turn counts for the ANN too.

    Args:
        model: The network.
        *inputs: What it is called with, such as a batch of images; firing rates are of this batch, so give a fair one.
        events: The first input is counts of events, whole numbers from 0 up, which the first layer adds.
        samples: How many samples the inputs hold, at least 1. None: the second dimension of what is called with [T, N, …] (a
            neuron, `PerStep`, a network of such, what says per_step or acts_on), the first of a forecaster's windows [B, L, K],
            of images [N, C, H, W] for a network that says frame_rank = 3, and of what PyTorch's own layers take; a module says
            batch_first for itself.
        free: Names of operations that multiply nothing, such as "aten::fft_fft", if they have no price.
        mac_pj: Energy of a multiply-accumulate in picojoules, at least 0.
        ac_pj: Energy of an addition in picojoules, at least 0.

    Shapes:
        inputs [N, C, H, W], [T, N, ...] or [B, L, K], as the model takes them

    Raises:
        ValueError: If samples is below 1 or can't be told; if events are no counts; if an operation has no price; if an energy
            is negative or not finite.

    Source:
        The field's model, with energies of 32-bit arithmetic in 45 nm: Horowitz, ISSCC 2014. Exact operations: NeuroBench,
        Yik et al., Nature Communications 2025. Membranes read and written at each step: Lemaire et al., ICONIP 2022.
    """
    for name, value in (("mac_pj", mac_pj), ("ac_pj", ac_pj)):
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
            raise ValueError(f"`{name}` must be a finite number of at least 0, got {value!r}")
    if samples is None:
        samples = _samples(model, inputs[0])
    if isinstance(samples, bool) or not isinstance(samples, int) or samples < 1:
        raise ValueError(f"samples must be a whole number of at least 1, got {samples!r}")
    counter = Counter(model, free, inputs[0].shape[0] if _batch_dimension(model, inputs[0].ndim) == 1 else 1)
    if events:
        _check_counts(inputs[0])
        counter.kinds.mark(inputs[0], SPIKES)
    for weight in (*model.parameters(), *model.buffers()):
        counter.kinds.fix(weight)
    departures = Departures(counter)
    with evaluation_mode(model), torch.no_grad(), counter.watching(model), _in_parts(), departures, counter:
        model(*inputs)
    if counter.unpriced:
        raise ValueError(
            f"no price is known for {', '.join(f'{op} in {where}' for op, where in counter.unpriced.items())}: name in free= "
            f"what multiplies nothing, and write the rest as convolutions and matrix products"
        )
    layers = []
    for (name, spiking), found in counter.found.items():
        rate = found.additions / found.dense if spiking and found.dense else 0.0 if spiking else None
        layers.append(
            LayerEnergy(
                name,
                found.dense / samples,
                rate,
                inside=found.inside / samples,
                effective=found.effective / samples,
                once=found.once / samples,
                once_inside=found.once_inside / samples,
                weight_bytes=found.weight_bytes,
                membrane_bytes=found.membrane_bytes / samples,
                mac_joules=mac_pj / 1e12,
                ac_joules=ac_pj / 1e12,
            )
        )
    for name in sorted(counter.graded):
        warnings.warn(
            f"{name or 'the model'} counts as a spiking neuron, and puts out other numbers than whole ones from 0 up: what "
            f"reads them multiplies. Let its class say fires = False",
            stacklevel=2,
        )
    left_out = tuple(LeftOut(*key, elements / samples) for key, elements in counter.left_out.items())
    doubtful = [str(found) for found in left_out if (found.name, found.operation) in counter.doubtful]
    if doubtful:
        warnings.warn(
            f"not counted: {'; '.join(doubtful)} (a sample). Write products as matrix products, in PyTorch, to have them "
            f"counted; name what is no product in free=",
            stacklevel=2,
        )
    return Energy(tuple(layers), left_out, samples)


@contextmanager
def _in_parts() -> Iterator[None]:
    """PyTorch's attention from its parts: its kernels, and the fast path of evaluation, hide products in one operation."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
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
    if (frame_rank := getattr(model, "frame_rank", None)) is not None and rank == frame_rank + 1:
        return 0
    if isinstance(first := getattr(model, "batch_first", None), bool):
        return (0 if first else 1) if rank > 2 else None
    if takes_steps(model, rank):
        return 1 if rank > 1 else None
    if type(model) is nn.Sequential:
        if any(takes_steps(module, rank) for module in model.modules()):
            return 1 if rank > 1 else None
        return _batch_dimension(model[0], rank) if len(model) else None
    return 0 if BATCHED.get(type(model)) == rank else None


BATCHED: dict[type[nn.Module], int] = {
    nn.Linear: 2, nn.Conv1d: 3, nn.Conv2d: 4, nn.Conv3d: 5, nn.ConvTranspose1d: 3, nn.ConvTranspose2d: 4, nn.ConvTranspose3d: 5,
    nn.BatchNorm2d: 4, nn.AvgPool2d: 4, nn.MaxPool2d: 4, nn.AdaptiveAvgPool2d: 4,
}  # fmt: skip
"""The rank of a batch for PyTorch's layers."""
