"""Counts the multiply-accumulates and additions of a call, operation by operation."""

import math
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

from staa.analysis.products import Products, bytes_of, mean, of_context, of_convolution, of_matrices, rarer
from staa.analysis.provenance import SPIKES, Kinds, tensors_in
from staa.layers import Passive, Site, Window
from staa.neurons import Neuron
from staa.ops.averages import Folded
from staa.rates import fires

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


@dataclass
class Tally:
    """What one module did in a call, all samples together; of them alone weight_bytes, which each would read again."""

    dense: float = 0.0
    additions: float = 0.0
    inside: float = 0.0
    effective: float = 0.0
    once: float = 0.0
    """Dense products of one step."""
    once_inside: float = 0.0
    weight_bytes: float = 0.0
    membrane_bytes: float = 0.0


class Counter(TorchDispatchMode):
    """Notes, by module and whether it reads spikes, what it multiplies and adds.

    Args:
        model: The network that will run.
        free: Operations that multiply nothing.
        steps: T of its inputs, if they are [T, N, …]; else 1.
    """

    def __init__(self, model: nn.Module, free: Collection[str], steps: int):
        super().__init__()
        self.free = frozenset(free)
        self.kinds = Kinds()
        self.running = [""]
        self.steps = [steps]
        self.recurrents = {name for name, module in model.named_modules() if isinstance(module, nn.RNNBase)}
        self.found: dict[tuple[str, bool], Tally] = defaultdict(Tally)
        self.unpriced: dict[str, str] = {}
        self.left_out: dict[tuple[str, str], int] = defaultdict(int)
        self.doubtful: set[tuple[str, str]] = set()
        self.graded: set[str] = set()
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
                    (self._charged, _charges(module)),
                ):
                    if wanted:
                        stack.callback(module.register_forward_hook(Passive(partial(after, name))).remove)
                if _charges(module) and "scan" not in vars(module):
                    vars(module)["scan"] = partial(self._scan, name, module, module.scan)
                    stack.callback(vars(module).pop, "scan")
            yield

    def _begin(self, name: str, module: nn.Module, inputs: Any) -> None:
        self.running.append(name)
        first = inputs[0] if inputs else None
        first = first.x if isinstance(first, Folded) else first
        steps = first.shape[0] if isinstance(first, Tensor) and takes_steps(module, first.ndim) else self.steps[-1]
        if isinstance(module, Window):  # which the module around it asks how many steps there are
            self.steps[-1] = steps
        self.steps.append(steps)

    def _end(self, *_: Any) -> None:
        self.running.pop()
        self.steps.pop()

    def _add(self, name: str, dense: float, rate: float | None, products: Products | None = None) -> None:
        """Note products, all of which are there and none 0 unless it is said."""
        entry, inside = self.found[name, rate is not None], dense if products is None else products.inside
        entry.dense += dense
        entry.additions += dense * (rate or 0.0)
        entry.inside += inside
        entry.effective += dense if products is None else products.effective
        entry.once += dense / self.steps[-1]
        entry.once_inside += inside / self.steps[-1]

    def _read(self, name: str, rate: float | None, weights: Any, times: int | None = None) -> None:
        """Note that weights, if these are some, are read, once a step unless it is said."""
        read = sum(bytes_of(x) for x in tensors_in(weights) if self.kinds.fixed(x))
        self.found[name, rate is not None].weight_bytes += read * (self.steps[-1] if times is None else times)

    def _fired(self, name: str, module: nn.Module, inputs: Any, spikes: Tensor) -> None:
        if bool(((spikes >= 0) & (spikes == spikes.round())).all()):
            self.kinds.mark(spikes, SPIKES)
        else:
            self.graded.add(name)

    def _scan(self, name: str, module: nn.Module, scan: Any, x: Tensor, *args: Any, **kwargs: Any) -> Any:
        """A neuron's scan, which a network may call in the place of its forward."""
        if name in self.running:
            return scan(x, *args, **kwargs)
        self._begin(name, module, (x,))
        out = scan(x, *args, **kwargs)
        self._end()
        if fires(module):
            self._fired(name, module, x, out[0])
        self._charged(name, module, x, out)
        return out

    def _charged(self, name: str, module: nn.Module, inputs: Any, outputs: Any) -> None:
        """A neuron's membranes, read and written at each step, and its parameters, read at each."""
        x = outputs[0] if isinstance(outputs, tuple) else outputs
        entry = self.found[name, False]
        entry.membrane_bytes += 2 * max(4, x.element_size()) * x.numel()  # half precision is charged in float32
        entry.weight_bytes += x.shape[0] * sum(map(bytes_of, module.parameters()))

    def _scaled(self, name: str, module: nn.Module, inputs: Any, spikes: Tensor) -> None:
        """A site's attention scales each of its values once."""
        self.steps.append(spikes.shape[0])  # the site's, which has ended
        self._add(f"{name}.attention", spikes.numel(), None)
        self.steps.pop()

    def _recurrent(self, name: str, module: nn.RNNBase, inputs: Any, outputs: Any) -> None:
        """A recurrent layer, by its weights: what computes it differs from one machine to the next, and hides its products."""
        x = inputs[0]
        if not isinstance(x, Tensor):
            raise ValueError(f"{name or 'the model'} can only be priced with a padded tensor, got a {type(x).__name__}")
        self.running.append(name)  # so that what is computed here is not priced
        spiking, rows = self._is_spikes(x), x.shape[:-1].numel()
        length = x.shape[1 if module.batch_first and x.ndim == 3 else 0]
        for key, weight in module.named_parameters():
            if not key.startswith("weight"):
                continue
            rate, dense = None, rows * weight.numel()
            if key.startswith("weight_ih_l0"):
                rate = mean(x) if spiking else None
                products = of_matrices(x.flatten(0, -2), weight.T, spikes=(spiking, False))
            else:  # of states that nobody sees, none of which is taken for 0
                products = Products(dense, rows * int((weight != 0).sum()))
            self._add(name, dense, rate, products)
            self._read(name, rate, weight, times=length)
        self.running.pop()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        where = self.running[-1]
        if where not in self.recurrents:
            self._price(func, args, kwargs or {}, out, where)
        self.kinds.follow(func, args, kwargs or {}, out)
        return out

    def _price(self, func: Any, args: Any, kwargs: Any, out: Any, where: str) -> None:
        name = func.name().partition(".")[0]
        if all(self.kinds.fixed(x) for x in tensors_in(args)):
            return  # what is made of weights is made once, not for each sample
        if name == "aten::convolution":
            x, weight = args[:2]
            # transposed: each input value meets each weight of its channel
            dense = (x if args[6] else out).numel() * math.prod(weight.shape[1:])
            spiking = self._is_spikes(x)
            rate = mean(x) if spiking else None
            self._add(where, dense, rate, of_convolution(args, spikes=spiking))
            self._read(where, rate, weight)
        elif name in PRODUCTS:
            a, b = args[1:3] if "add" in name else args[:2]
            times = a.shape[0] if name == "aten::addbmm" else 1  # which it adds up
            spiking = self._is_spikes(a), self._is_spikes(b)
            rate = rarer(a, b) if all(spiking) else mean(a) if spiking[0] else mean(b) if spiking[1] else None
            self._add(where, times * out.numel() * a.shape[-1], rate, of_matrices(a, b, spikes=spiking))
            self._read(where, rate, (a, b))
        elif name.startswith("aten::_scaled_dot_product"):  # Q Kᵀ, and its softmax times V, where a kernel was called itself
            query, key, value = args[:3]
            self._add(where, query.shape[:-1].numel() * key.shape[-2] * (query.shape[-1] + value.shape[-1]), None)
        elif name == "staa::context":  # the key's product with each position, and their weighted sum
            self._add(where, 2 * args[0].numel(), None, of_context(*args[:2]))
            self._read(where, None, args[1])
        elif name in LEFT_OUT or name in PAIRED:
            if sum(x.numel() > 1 for x in tensors_in(args)) > (name in PAIRED):
                self.leave_out(name, args, tensors_in(out)[0].numel(), doubtful=name in PAIRED)
        elif name == "aten::_local_scalar_dense":
            if args[0].dtype != torch.bool:  # which decides, and is no number
                self.leave_out("Tensor.item", args, 1, doubtful=True)
        elif name in FREE or name in self.free or func.is_view or torch.Tag.pointwise in func.tags or not tensors_in(out):
            return
        else:
            self.unpriced.setdefault(name, where or "the model")

    def _is_spikes(self, x: Tensor) -> bool:
        return self.kinds.of(x) >= SPIKES

    def leave_out(self, operation: str, args: Any, elements: int, *, doubtful: bool) -> None:
        """Note what is not counted, unless it is of weights alone."""
        name = self.running[-1]
        if not self.neurons.isdisjoint(self.running) or name in self.recurrents or operation in self.free:
            return
        if not all(self.kinds.fixed(x) for x in tensors_in(args)):
            self.left_out[name, operation] += elements
            if doubtful and name not in self.own:
                self.doubtful.add((name, operation))


class Departures(TorchFunctionMode):
    """Tells the counter of tensors that leave PyTorch, which no operation shows."""

    def __init__(self, counter: Counter):
        super().__init__()
        self.counter = counter

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in DEPARTURES:
            self.counter.leave_out(f"Tensor.{func.__name__}", args, args[0].numel(), doubtful=True)
        return func(*args, **(kwargs or {}))


def takes_steps(module: nn.Module, rank: int) -> bool:
    """Whether an input of this rank is [T, N, …] to a module: a neuron, `PerStep`, what says per_step or acts_on."""
    if (frame_rank := getattr(module, "frame_rank", None)) is not None:
        return rank == frame_rank + 2
    return any(hasattr(module, said) for said in ("per_step", "scan", "acts_on"))


def _charges(module: nn.Module) -> bool:
    """Whether it has a membrane."""
    return isinstance(module, Neuron) or (hasattr(module, "scan") and hasattr(module, "threshold"))


def _is_own(module: nn.Module) -> bool:
    """Whether all that it computes itself is this library's: a site folds its attention and neuron without calling them."""
    inside = [*module.modules()][1:] if isinstance(module, Site) else []
    return all(type(part).__module__.startswith(("staa.", "torch.nn.")) for part in inside) and (
        type(module).__module__.startswith("staa.")
    )
