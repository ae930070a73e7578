"""What an inference would cost on neuromorphic hardware: multiply-accumulates and additions, counted as the network runs."""

import math
import warnings
from collections import defaultdict
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from staa.evaluate import evaluation_mode
from staa.layers import Passive, Site
from staa.provenance import SPIKES, Kinds, tensors_in
from staa.recording import fires

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
    """The cost of an inference, by the field's model: E = 4.6 pJ · MACs + 0.9 pJ · SOPs, a sample over all its T steps.

        SOPs = Σ over layers that read spikes of (mean input) · (dense multiply-accumulates)
        MACs = Σ over all others

    inputs: what the model is called with, such as a batch of images [N, C, H, W]; rates are of this batch, so give a fair
    one. The model runs once, in evaluation mode, and every convolution and matrix product is counted where it happens. The
    parts of an attention are counted too, and one multiplication for each value that it scales.

    A product adds and does not multiply where one side is made of spikes, whatever their values in this batch: what a spiking
    neuron puts out (`staa.recording.fires`) or a comparison, and their copies, maxima, sums and products. An average of
    spikes, graded spikes and images multiply. events: the first input is counts of events, whole numbers from 0 up, which the
    first layer adds.

    samples: how many the inputs hold. None: the second dimension of what is called with [T, N, …] (a neuron, `PerStep`, a
    network of such, what says per_step or acts_on), the first of a forecaster's windows [B, L, K], of images [N, C, H, W] for
    a network that says frame_rank = 3, and of what PyTorch's own layers take; a module says batch_first for itself.

    Left out, as is usual: the arithmetic inside neurons, BatchNorm and what scales by a single number (they fold into the
    weights), additions, activations, and all memory traffic, which on real hardware is the larger part: compare by it, don't
    pay by it. Not counted either, but named in `Energy.left_out`: elementwise products, quotients and powers of activations
    (also torch.outer), norms other than BatchNorm, softmax, and tensors that leave PyTorch, as for NumPy. A sum may make a
    matrix product of an elementwise one, and NumPy may compute anything: outside this library's own modules, whose published
    figures leave these out, they are warned of.

    Raises ValueError where the number of samples can't be told, events are no counts, or an operation has no price: then
    free= takes the names of those that do not multiply, such as "aten::fft_fft".
    """
    if samples is None:
        samples = _samples(model, inputs[0])
    if isinstance(samples, bool) or not isinstance(samples, int) or samples < 1:
        raise ValueError(f"samples is a whole number of at least 1, got {samples!r}")
    counter = _Counter(model, free)
    if events:
        _check_counts(inputs[0])
        counter.kinds.mark(inputs[0], SPIKES)
    for weight in (*model.parameters(), *model.buffers()):
        counter.kinds.fix(weight)
    departures = _Departures(counter)
    with evaluation_mode(model), torch.no_grad(), counter.watching(model), _without_fast_path(), departures, counter:
        model(*inputs)
    if counter.unpriced:
        raise ValueError(
            f"no price is known for {', '.join(f'{op} in {where}' for op, where in counter.unpriced.items())}: name what "
            f"multiplies nothing in free=, and write the rest as convolutions and matrix products"
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


class _Counter(TorchDispatchMode):
    """Notes, by module and whether it reads spikes, dense multiply-accumulates and the additions they come to."""

    def __init__(self, model: nn.Module, free: Collection[str]):
        super().__init__()
        self.free = frozenset(free)
        self.kinds = Kinds()
        self.running = [""]
        self.recurrents = {name for name, module in model.named_modules() if isinstance(module, nn.RNNBase)}
        self.found: dict[tuple[str, bool], list[float]] = defaultdict(lambda: [0.0, 0.0])
        self.unpriced: dict[str, str] = {}
        self.left_out: dict[tuple[str, str], int] = defaultdict(int)
        self.doubtful: set[tuple[str, str]] = set()
        self.neurons = {name for name, module in model.named_modules() if fires(module)}
        self.own = {name for name, module in model.named_modules() if _is_own(module)}

    @contextmanager
    def watching(self, model: nn.Module) -> Iterator[None]:
        """Within, it knows which module is running."""
        with ExitStack() as stack:
            for name, module in model.named_modules():
                begin = module.register_forward_pre_hook(Passive(partial(self._begin, name)), prepend=True)
                end = module.register_forward_hook(Passive(self._end), always_call=True)
                stack.callback(begin.remove)
                stack.callback(end.remove)
                for after, wanted in (
                    (self._scaled, isinstance(module, Site) and module.attention is not None),
                    (self._recurrent, isinstance(module, nn.RNNBase)),
                    (self._fired, fires(module)),
                ):
                    if wanted:
                        stack.callback(module.register_forward_hook(Passive(partial(after, name))).remove)
            yield

    def _begin(self, name: str, *_: Any) -> None:
        self.running.append(name)

    def _end(self, *_: Any) -> None:
        self.running.pop()

    def _add(self, name: str, dense: float, rate: float | None) -> None:
        entry = self.found[name, rate is not None]
        entry[0] += dense
        entry[1] += dense * (rate or 0.0)

    def _fired(self, name: str, module: nn.Module, inputs: Any, spikes: Tensor) -> None:
        if bool(((spikes >= 0) & (spikes == spikes.round())).all()):  # others are graded
            self.kinds.mark(spikes, SPIKES)

    def _scaled(self, name: str, module: nn.Module, inputs: Any, spikes: Tensor) -> None:
        """A site's attention scales each of its values once."""
        self._add(f"{name}.attention", spikes.numel(), None)

    def _recurrent(self, name: str, module: nn.RNNBase, inputs: Any, outputs: Any) -> None:
        """A recurrent layer, by its weights: what computes it differs from one machine to the next, and hides its products."""
        x = inputs[0]
        if not isinstance(x, Tensor):
            raise ValueError(f"{name or 'the model'} takes a {type(x).__name__}: give it a padded tensor to be priced")
        rate, steps = self._rate(x), x.shape[:-1].numel()
        for key, weight in module.named_parameters():
            if key.startswith("weight"):
                self._add(name, steps * weight.numel(), rate if key.startswith("weight_ih_l0") else None)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        where = self.running[-1]
        if where not in self.recurrents:
            self._price(func, args, kwargs or {}, out, where)
        self.kinds.follow(func, args, kwargs or {}, out)
        return out

    def _price(self, func: Any, args: Any, kwargs: Any, out: Any, where: str) -> None:
        name = func.name().partition(".")[0]
        if name == "aten::convolution":
            x, weight = args[:2]
            # transposed: each input value meets each weight of its channel
            self._add(where, (x if args[6] else out).numel() * math.prod(weight.shape[1:]), self._rate(x))
        elif name in PRODUCTS:
            a, b = args[1:3] if "add" in name else args[:2]
            rates = [rate for rate in (self._rate(a), self._rate(b)) if rate is not None]
            times = a.shape[0] if name == "aten::addbmm" else 1  # which it adds up
            self._add(where, times * out.numel() * a.shape[-1], min(rates, default=None))
        elif name.startswith("aten::_scaled_dot_product"):  # Q Kᵀ, and its softmax times V
            query, key, value = args[:3]
            self._add(where, query.shape[:-1].numel() * key.shape[-2] * (query.shape[-1] + value.shape[-1]), None)
        elif name == "staa::context":  # the key's product with each position, and their weighted sum
            self._add(where, 2 * args[0].numel(), None)
        elif name in LEFT_OUT or name in PAIRED:
            if sum(x.numel() > 1 for x in tensors_in(args)) > (name in PAIRED):
                self.leave_out(name, args, tensors_in(out)[0].numel(), doubtful=name in PAIRED)
        elif name == "aten::_local_scalar_dense":
            if args[0].dtype != torch.bool:  # which decides, and is no number
                self.leave_out("Tensor.item", args, 1, doubtful=True)
        elif name in FREE or name in self.free or func.is_view or torch.Tag.pointwise in func.tags or not tensors_in(out):
            return
        elif not all(self.kinds.fixed(x) for x in tensors_in(args)):  # what is made of weights is made once
            self.unpriced.setdefault(name, where or "the model")

    def leave_out(self, operation: str, args: Any, elements: int, *, doubtful: bool) -> None:
        """Note what is not counted, unless it is of weights alone."""
        name = self.running[-1]
        if not self.neurons.isdisjoint(self.running) or name in self.recurrents or operation in self.free:
            return
        if not all(self.kinds.fixed(x) for x in tensors_in(args)):
            self.left_out[name, operation] += elements
            if doubtful and name not in self.own:
                self.doubtful.add((name, operation))

    def _rate(self, x: Tensor) -> float | None:
        """Mean of a tensor made of spikes; None for any other."""
        return float(x.double().mean()) if self.kinds.of(x) >= SPIKES else None


class _Departures(TorchFunctionMode):
    """Tells the counter of tensors that leave PyTorch, which no operation shows."""

    def __init__(self, counter: _Counter):
        super().__init__()
        self.counter = counter

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in DEPARTURES:
            self.counter.leave_out(f"Tensor.{func.__name__}", args, args[0].numel(), doubtful=True)
        return func(*args, **(kwargs or {}))


def _is_own(module: nn.Module) -> bool:
    """Whether all that it computes itself is this library's: a site folds its attention and neuron without calling them."""
    inside = [*module.modules()][1:] if isinstance(module, Site) else []
    return all(type(part).__module__.startswith(("staa.", "torch.nn.")) for part in inside) and (
        type(module).__module__.startswith("staa.")
    )


DEPARTURES = {Tensor.numpy, Tensor.__array__, Tensor.__dlpack__, Tensor.tolist}
PAIRED = {
    f"aten::{name}"
    for name in [
        "mul", "mul_", "div", "div_", "addcmul", "addcmul_", "addcdiv", "addcdiv_", "addr", "addr_", "linalg_cross",
        "xlogy", "hypot", "polar",
    ]
}  # fmt: skip
"""What multiplies or divides tensors element by element, not by a single number."""
LEFT_OUT = {
    f"aten::{name}"
    for name in [
        "pow", "pow_", "prod", "cumprod", "lerp", "lerp_", "native_layer_norm", "native_group_norm",
        "_fused_rms_norm", "norm", "linalg_vector_norm", "var", "var_mean", "std", "std_mean", "_softmax",
        "_log_softmax", "_safe_softmax", "logsumexp", "glu",
    ]
}  # fmt: skip
"""What else multiplies, and is no product of two tensors."""
PRODUCTS = {f"aten::{name}" for name in ("mm", "bmm", "addmm", "baddbmm", "addbmm", "mv", "addmv", "dot", "vdot")}
FREE = {"staa::lif", "staa::batch_norm"} | {
    f"aten::{name}"
    for name in [
        "native_batch_norm", "_native_batch_norm_legit", "_native_batch_norm_legit_no_training", "cudnn_batch_norm",
        "miopen_batch_norm", "avg_pool2d", "avg_pool3d", "_adaptive_avg_pool2d", "_adaptive_avg_pool3d",
        "max_pool2d_with_indices", "max_pool3d_with_indices", "adaptive_max_pool2d", "adaptive_max_pool3d", "mean",
        "sum", "nansum", "amax", "amin", "aminmax", "max", "min", "argmax", "argmin", "cumsum", "cummax", "cummin",
        "logcumsumexp", "sort", "topk", "kthvalue", "median", "any", "all", "count_nonzero", "clone", "copy", "copy_",
        "_to_copy", "_reshape_copy", "cat", "stack", "index", "index_select", "index_put", "index_put_", "_unsafe_index",
        "gather", "scatter", "scatter_", "scatter_add", "scatter_add_", "masked_select", "masked_scatter", "nonzero",
        "roll", "flip", "repeat", "repeat_interleave", "embedding", "constant_pad_nd", "reflection_pad1d",
        "reflection_pad2d", "replication_pad1d", "replication_pad2d", "tril", "triu", "diag_embed",
        "upsample_nearest1d", "upsample_nearest2d", "pixel_shuffle", "pixel_unshuffle", "channel_shuffle",
        "native_channel_shuffle", "im2col", "col2im", "empty", "empty_like", "empty_strided", "new_empty",
        "new_empty_strided", "zeros", "zeros_like", "new_zeros", "ones", "ones_like", "new_ones", "full", "full_like",
        "new_full", "scalar_tensor", "arange", "linspace", "eye", "rand", "rand_like", "randn", "randn_like",
        "randint", "randperm", "bernoulli", "bernoulli_", "uniform_", "normal_", "native_dropout", "lift_fresh",
        "lift_fresh_copy", "equal", "fill_", "zero_", "_assert_async", "alias", "set_", "_unsafe_view", "unfold_copy",
        "bucketize", "searchsorted", "histc", "bincount", "rsub",
    ]
}  # fmt: skip
"""What multiplies nothing, beside what PyTorch itself calls pointwise."""


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
        raise ValueError("events=True, but the first input is no count of events: it holds others than whole numbers from 0 up")


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
