"""What the forecasters share: the shape of their job, spike encoders, spiking attention."""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from staa.forecasters.pieces import Layer
from staa.ops.checks import check_counts, check_floats, check_input
from staa.ops.notes import listened_to, note

NeuronFactory = Callable[..., nn.Module]
EPS = 1e-5


@runtime_checkable
class ClosedForm(Protocol):
    """A forecaster that is not trained step by step: `fit` sets its weights from batches of (inputs, y [B, P, K])."""

    def fit(self, batches: Iterable[tuple[tuple[Tensor, ...], Tensor]]) -> None: ...


@runtime_checkable
class LearnsGraph(Protocol):
    """A forecaster that tells which nodes it takes for neighbours."""

    def adjacency(self) -> Tensor:
        """[K, K], row k the weights of node k's neighbours."""
        ...


class Forecaster(nn.Module):
    """Abstract: a window of a series in, the steps that follow out."""

    batch_first = True

    def forward(self, x: Tensor, time: Tensor | None = None) -> Tensor:
        """The forecast of each window.

        Args:
            x: Windows of the series, floats of the network's dtype, without gaps.
            time: Time features of their steps; None if the forecaster was built without any.

        Shapes:
            x [B, L, K], time [B, L, F] -> forecast [B, P, K]

        Raises:
            ValueError: If x or time has another shape than the forecaster was built for, or another dtype or device than its
                weights.
            TypeError: If one of them is no tensor.
        """
        raise NotImplementedError


class LinearNeuron(nn.Module):
    """spikes = neuron(BatchNorm(Linear([parts]))) of parts [T, M, ·], side by side, -> [T, M, out], BatchNorm over T and M.

    Called with steps=T, they have one step, and the current is the same at each of the T.
    """

    per_step = True

    def __init__(self, inputs: int, outputs: int, neuron: NeuronFactory):
        super().__init__()
        self.linear = nn.Linear(inputs, outputs)
        self.norm = nn.BatchNorm1d(outputs)
        self.neuron = neuron(outputs)

    def forward(self, *parts: Tensor, steps: int | None = None) -> Tensor:
        layer = Layer(self._current, self.norm, self.neuron, (self.linear,), steps)
        return layer.in_pieces(self.linear.out_features, *parts)

    def _current(self, *parts: Tensor) -> Tensor:
        x = parts[0] if len(parts) == 1 else torch.cat(parts, 2)
        return self.linear(x.flatten(0, 1)).unflatten(0, x.shape[:2])


class StepLinear(nn.Linear):
    """nn.Linear of what has T steps first, [T, B, ..., in] -> [T, B, ..., out], which its class alone can say."""

    per_step = True


class SpikeEncoder(nn.Module):
    """c = BatchNorm(Conv(z)): a series [B, L, K] as T currents [T, B, K, L], each a convolution over three steps of its own.

    SeqSNN's convolutional encoder (Lv et al., ICML 2024) without its neuron.
    """

    def __init__(self, steps: int):
        super().__init__()
        self.conv = nn.Conv2d(1, steps, (1, 3), padding=(0, 1))
        self.norm = nn.BatchNorm2d(steps)

    def forward(self, z: Tensor) -> Tensor:
        return self.norm(self.conv(z.transpose(1, 2)[:, None])).transpose(0, 1)


class DeltaEncoder(nn.Module):
    """c_t[l] = w_t BatchNorm(z[l] − z[l − 1]) + b_t: a series [B, L, K] as T currents [T, B, K, L]; the first change is 0.

    SeqSNN's delta encoder without its neuron. BatchNorm is over all changes. w begins at …, −2, 2, b at 0: a rise fires at the
    last step and every other, a fall between. With SeqSNN's w from N(0, 0.02²) no neuron of the network would fire.
    """

    def __init__(self, steps: int):
        super().__init__()
        self.norm = nn.BatchNorm2d(1)
        self.linear = nn.Linear(1, steps)
        with torch.no_grad():
            self.linear.weight.copy_(2 - 4 * (torch.arange(steps).flip(0)[:, None] % 2))
            self.linear.bias.zero_()

    def forward(self, z: Tensor) -> Tensor:
        change = nn.functional.pad(z.diff(dim=1), (0, 0, 1, 0)).transpose(1, 2)
        return self.linear(self.norm(change[:, None]).movedim(1, -1)).movedim(-1, 0)


class RepeatEncoder(nn.Module):
    """c_t = z: a series [B, L, K] as T equal currents [T, B, K, L]. SeqSNN's repeat encoder without its neuron."""

    def __init__(self, steps: int):
        super().__init__()
        self.steps = steps

    def forward(self, z: Tensor) -> Tensor:
        return z.transpose(1, 2).expand(self.steps, -1, -1, -1)


ENCODERS = {"conv": SpikeEncoder, "delta": DeltaEncoder, "repeat": RepeatEncoder}


class SpikingAttention(nn.Module):
    """Self-attention of spikes, without softmax, and an MLP, each added to what comes in (SeqSNN):

        Q, K, V = LIF(BN(Linear(x)));    O = LIF_½(scale · (Q Kᵀ) V) for each head;    x' = x + LIF(BN(Linear(O)))
        y = x' + LIF(BN(Linear(LIF(BN(Linear(x'))))))                                  width → 4 width → width

    [T, G, S, d] -> the same: attention among the S tokens of each of G groups. LIF_½ fires at ½. A sum of spikes is a small
    whole number, not a spike. Q Kᵀ V is taken from the side that costs less. Its size goes by the number of tokens and the
    width of a head: with scale None a BatchNorm takes the scale's place, so that it reaches ½ with few tokens and does not
    always with many.
    """

    per_step = True

    def __init__(self, width: int, heads: int, neuron: NeuronFactory, *, scale: float | None):
        super().__init__()
        if width % heads:
            raise ValueError(f"heads must divide the width, got {heads} heads and a width of {width}")
        if scale is not None and not 0 < scale < float("inf"):
            raise ValueError(f"attention_scale must be a finite number above 0, or None for a BatchNorm, got {scale}")
        self.heads, self.scale = heads, scale
        self.norm = nn.BatchNorm1d(width) if scale is None else None
        self.query, self.key, self.value = (LinearNeuron(width, width, neuron) for _ in range(3))
        self.neuron = neuron(width, threshold=0.5)
        self.out = LinearNeuron(width, width, neuron)
        self.up, self.down = LinearNeuron(width, 4 * width, neuron), LinearNeuron(4 * width, width, neuron)

    def forward(self, x: Tensor) -> Tensor:
        steps, groups, tokens, width = x.shape
        flat = x.reshape(steps, groups * tokens, width)

        mix = Layer(partial(self._mixed, tokens), self.norm, self.neuron, group=tokens)
        # No name for what is large and not needed again: it would live as long as this call.
        flat = flat + self.out(mix.in_pieces(width, *self._parts(tokens, flat)))
        return (flat + self.down(self.up(flat))).view(x.shape)

    def _parts(self, tokens: int, flat: Tensor) -> tuple[Tensor, ...]:
        parts = self.query(flat), self.key(flat), self.value(flat)
        if listened_to():  # else Q Kᵀ is not always taken
            q, k = (self._by_head(tokens, part) for part in parts[:2])
            note(self, scores=q @ k.mT)
        return parts

    def _by_head(self, tokens: int, x: Tensor) -> Tensor:
        """[T, G·S, d] as [T, G, heads, S, d / heads]."""
        return x.unflatten(1, (-1, tokens)).unflatten(3, (self.heads, -1)).transpose(2, 3)

    def _mixed(self, tokens: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """(Q Kᵀ) V of each head, and its scale, for [T, G·S, d] with S tokens side by side."""
        width = q.shape[2]
        q, k, v = (self._by_head(tokens, part) for part in (q, k, v))
        seen = q @ (k.mT @ v) if tokens > width // self.heads else (q @ k.mT) @ v
        return (seen if self.scale is None else self.scale * seen).transpose(2, 3).flatten(1, 2).flatten(2)


class NormedNeuron(nn.Module):
    """spikes = neuron(BatchNorm(x)) of x [T, M, d]."""

    per_step = True

    def __init__(self, width: int, neuron: NeuronFactory):
        super().__init__()
        self.norm, self.neuron = nn.BatchNorm1d(width), neuron(width)

    def forward(self, x: Tensor) -> Tensor:
        return Layer(lambda x: x, self.norm, self.neuron).in_pieces(x.shape[2], x)


class Shape:
    """Sizes of a forecaster, checked; and a check of what it is called with."""

    def __init__(self, nodes: int, window: int, horizon: int, time_features: int, **more: int):
        check_counts(nodes=nodes, window=window, horizon=horizon, **more)
        check_counts(least=0, time_features=time_features)
        self.nodes, self.window, self.horizon, self.time_features = nodes, window, horizon, time_features

    def check(self, module: nn.Module, x: Tensor, time: Tensor | None) -> None:
        """Raises ValueError for windows or time features of another shape, dtype or device, TypeError for what is no tensor."""
        check_input(x, module, "x")
        if x.ndim != 3 or len(x) == 0 or x.shape[1:] != (self.window, self.nodes):
            raise ValueError(f"x must be [B, {self.window}, {self.nodes}], windows by nodes, got shape {list(x.shape)}")
        if time is not None:
            check_floats(time, "time")
            if time.device != x.device or (time.dtype != x.dtype and not torch.is_autocast_enabled(x.device.type)):
                raise ValueError(f"time must be {x.dtype} on {x.device}, as x is, got {time.dtype} on {time.device}")
        expected = [len(x), self.window, self.time_features] if self.time_features else None
        given = None if time is None else list(time.shape)
        if given != expected:
            raise ValueError(f"time must be {expected}, the time features of each step, got {given}")


def normalised(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(z, mean, deviation) of each window and node: z = (x − mean) / deviation, deviation = √(variance + 1e-5)."""
    variance, mean = torch.var_mean(x, 1, correction=0, keepdim=True)
    deviation = (variance + EPS).sqrt()
    return (x - mean) / deviation, mean, deviation
