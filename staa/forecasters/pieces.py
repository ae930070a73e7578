"""Layers of many rows, computed piece by piece: what is kept for the backward pass is their input, spikes as bits."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

from staa.folding import Passive, untouched
from staa.ops.bits import _packed, _unpack
from staa.ops.switch import reference_chosen

LARGE = 1 << 24  # numbers in a layer's output from which on it is computed in pieces
PIECE = 1 << 20  # numbers of a piece


@dataclass(frozen=True)
class Layer:
    """spikes = neuron(norm(current(*inputs))), rows independent of each other but for the norm's statistics.

    Args:
        current: Of inputs [t, m, ·] -> [t, m, d], for any m that `group` divides.
        norm: BatchNorm over steps and rows; None without.
        neuron: Of currents [T, m, d] -> spikes [T, m, d].
        modules: Those whose weights `current` uses.
        steps: T, over which a current of one step is repeated; None: the current has them.
        group: Rows that `current` needs together.
    """

    current: Callable[..., Tensor]
    norm: nn.BatchNorm1d | None
    neuron: nn.Module
    modules: tuple[nn.Module, ...] = ()
    steps: int | None = None
    group: int = 1

    def __call__(self, *inputs: Tensor) -> Tensor:
        """The layer at once."""
        current = self.current(*inputs)
        if self.norm is not None:
            current = self.norm(current.flatten(0, 1)).unflatten(0, current.shape[:2])
        return self.neuron(self.over_steps(current))

    def over_steps(self, current: Tensor) -> Tensor:
        return current if self.steps is None else current.expand(self.steps, -1, -1)

    def in_pieces(self, width: int, *inputs: Tensor) -> Tensor:
        """The layer, piece by piece if its output, `width` numbers a row, is large and nobody would notice."""
        steps, rows = self.steps or inputs[0].shape[0], inputs[0].shape[1]
        if steps * rows * width < LARGE or not self._plain(inputs[0]):
            return self(*inputs)
        size = max(1, PIECE // (steps * width * self.group)) * self.group
        spikes = _Pieces.apply(self, size, len(inputs), *inputs, *self.weights())
        for hook in self.neuron._forward_hooks.values():  # it was called on the pieces without them
            hook(self.neuron, (), spikes)
        return spikes

    def _plain(self, x: Tensor) -> bool:
        if reference_chosen() or torch.compiler.is_compiling() or torch.is_autocast_enabled(x.device.type):
            return False
        norm, neuron = self.norm, self.neuron
        called = [*self.modules, *([] if norm is None else [norm])]
        parts = [part for module in called for part in module.modules()]
        return (
            (norm is None or (type(norm) is nn.BatchNorm1d and norm.affine))
            and all(untouched(part) and not part._forward_hooks and not part._forward_pre_hooks for part in parts)
            and all(untouched(part) and not part._forward_pre_hooks for part in neuron.modules())
            and all(type(hook) is Passive for hook in neuron._forward_hooks.values())
            and not any(part._forward_hooks for part in neuron.modules() if part is not neuron)
        )

    def weights(self) -> list[Tensor]:
        own, norm = [p for module in self.modules for p in module.parameters()], self.norm
        return [*own, *([] if norm is None else norm.parameters()), *self.neuron.parameters()]


class _Pieces(torch.autograd.Function):
    """A `Layer`. Statistics of BatchNorm are taken over all pieces before one fires, and going back, sums of its gradients."""

    @staticmethod
    def forward(ctx: Any, layer: Layer, size: int, count: int, *tensors: Tensor) -> Tensor:
        inputs, weights = tensors[:count], tensors[count:]
        statistics, batch = _statistics(layer, size, inputs) if layer.norm is not None else ((), False)
        spikes = None
        for at in _slices(inputs, size):
            current, _ = _current(layer, [x[:, at] for x in inputs], statistics)
            fired = layer.neuron.forward(layer.over_steps(current))
            if spikes is None:
                spikes = fired.new_empty(len(fired), inputs[0].shape[1], fired.shape[2])
            spikes[:, at] = fired
        packed = [_packed(x) for x in inputs]
        ctx.layer, ctx.size, ctx.batch = layer, size, batch
        ctx.how = [how for _, *how in packed]
        ctx.save_for_backward(*(kept for kept, *_ in packed), *statistics, *weights)
        return spikes  # type: ignore[return-value]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        layer, size, how = ctx.layer, ctx.size, ctx.how
        norm, neuron, saved = layer.norm, layer.neuron, ctx.saved_tensors
        inputs = [x if len(form) == 1 else _unpack((x, *form)) for x, form in zip(saved, how, strict=False)]
        statistics: Sequence[Tensor] = () if norm is None else saved[len(how) : len(how) + 2]
        wanted = [k for k, needed in enumerate(ctx.needs_input_grad[3 : 3 + len(inputs)]) if needed]
        of_neuron, of_current = (
            [p for m in part for p in m.parameters() if p.requires_grad] for part in ((neuron,), layer.modules)
        )
        grads = {id(p): torch.zeros_like(p) for p in (*of_neuron, *of_current)}
        to_weight = to_bias = grad.new_zeros(())
        slopes: list[Tensor] = []  # kept if they are no more than the inputs, else computed again

        def backwards(at: slice) -> tuple[Tensor, Tensor | None, list[Tensor]]:
            current, unit = _current(layer, [x[:, at] for x in inputs], statistics)
            with torch.enable_grad():
                fired = neuron.forward(layer.over_steps(current.requires_grad_()))
                slope, *others = torch.autograd.grad(fired, [current, *of_neuron], grad[:, at])
            return slope, unit, others

        for at in _slices(inputs, size):
            slope, unit, others = backwards(at)
            if slope.shape[2] <= sum(x.shape[2] for x in inputs):
                slopes.append(slope)
            if unit is not None:
                to_weight, to_bias = to_weight + (slope * unit).sum((0, 1)), to_bias + slope.sum((0, 1))
            for p, g in zip(of_neuron, others, strict=True):
                grads[id(p)] += g
        numbers = (1 if layer.steps else len(grad)) * grad.shape[1]
        # What was unpacked here is read once more, piece by piece, and takes the gradient of the piece in its place.
        to_inputs = {k: torch.empty_like(inputs[k]) if len(how[k]) == 1 else inputs[k] for k in wanted}
        for number, at in enumerate(_slices(inputs, size) if wanted or of_current else ()):
            slope = slopes[number] if slopes else backwards(at)[0]
            with torch.enable_grad():
                own = [x[:, at].detach().clone().requires_grad_(k in wanted) for k, x in enumerate(inputs)]
                current = layer.current(*own)
            if norm is not None:
                mean, scale = saved[len(how)], saved[len(how) + 1]
                if ctx.batch:
                    slope = slope - to_bias / numbers - (current.detach() - mean) * (scale * to_weight / numbers)
                slope = slope * (scale * norm.weight)
            found = torch.autograd.grad(current, [*(own[k] for k in wanted), *of_current], slope)
            for k, part in zip(wanted, found, strict=False):
                to_inputs[k][:, at] = part
            for p, g in zip(of_current, found[len(wanted) :], strict=True):
                grads[id(p)] += g
        if norm is not None:
            grads |= {id(norm.weight): to_weight, id(norm.bias): to_bias}
        to_weights = (grads[id(p)] if p.requires_grad else None for p in layer.weights())
        return (None, None, None, *(to_inputs.get(k) for k in range(len(inputs))), *to_weights)


def _slices(inputs: Sequence[Tensor], size: int) -> Iterator[slice]:
    rows = inputs[0].shape[1]
    return (slice(begin, min(begin + size, rows)) for begin in range(0, rows, size))


def _current(layer: Layer, inputs: Sequence[Tensor], statistics: Sequence[Tensor]) -> tuple[Tensor, Tensor | None]:
    """The current of a piece, without a graph, and before BatchNorm's weight and bias."""
    with torch.no_grad():
        current = layer.current(*inputs)
        if layer.norm is None:
            return current.detach(), None
        mean, scale = statistics
        unit = (current - mean) * scale
        return unit * layer.norm.weight + layer.norm.bias, unit


def _statistics(layer: Layer, size: int, inputs: Sequence[Tensor]) -> tuple[tuple[Tensor, Tensor], bool]:
    """((mean, 1/√(variance + ε)) of the current, whether they are the batch's); running ones are updated as BatchNorm does."""
    norm: Any = layer.norm
    if not norm.training and norm.running_mean is not None:
        return (norm.running_mean.clone(), (norm.running_var + norm.eps).rsqrt()), False
    mean = squares = torch.zeros((), dtype=torch.float64)
    count = 0
    for at in _slices(inputs, size):  # the pieces' moments put together, Chan et al.
        current = layer.current(*(x[:, at] for x in inputs))
        more = current.shape[0] * current.shape[1]
        variance, own = (part.double() for part in torch.var_mean(current, (0, 1), correction=0))
        if count == 0:
            mean, squares = torch.zeros_like(own), torch.zeros_like(own)
        apart = own - mean
        squares = squares + variance * more + apart.square() * (count * more / (count + more))
        mean = mean + apart * (more / (count + more))
        count += more
    kind = norm.weight.dtype
    if norm.training and norm.running_mean is not None:
        norm.num_batches_tracked += 1
        share = 1 / float(norm.num_batches_tracked) if norm.momentum is None else norm.momentum
        norm.running_mean.lerp_(mean.to(kind), share)
        norm.running_var.lerp_((squares / (count - 1)).to(kind), share)
    return (mean.to(kind), (squares / count + norm.eps).rsqrt().to(kind)), True


def sequences_in_pieces(lstm: nn.LSTM, x: Tensor) -> Tensor:
    """The hidden states of an LSTM [M, L, d] along each row of x; if they are many, computed again for the backward pass."""
    numbers = x.shape[0] * x.shape[1] * 4 * lstm.hidden_size  # its four gates
    if numbers < LARGE or torch.compiler.is_compiling() or not torch.is_grad_enabled():
        return lstm(x)[0]
    size = max(1, 8 * PIECE * x.shape[0] // numbers)
    return torch.cat([checkpoint(_hidden, lstm, piece, use_reentrant=False) for piece in x.split(size)])


def _hidden(lstm: nn.LSTM, x: Tensor) -> Tensor:
    return lstm(x)[0]
