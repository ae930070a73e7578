"""STAA: the spatial-temporal attention aggregator of STAA-SNN (Zhang et al., CVPR 2025).

An independent reconstruction from the abstract and secondary sources: the paper's equations were not available to us and
no official code is public. What is our own choice is marked "our choice" below.

Each part maps the current [T, N, C, H, W] to the same shape and is affine over space:

    forward(x)                          the plain form
    affine(x, scale, shift)             -> (scale', shift') such that forward(scale · x + shift) = scale' · x + shift'
    fold(current) -> current            the same of a `Folded` current, whose x carries the gradients of the averages

so a chain of parts, and the neuron behind it, needs averages of x and no rewrite of it. scale and shift broadcast with
x and are constant over H × W; None stands for 1 and 0. A part of one's own needs forward and affine alone; one that counts
steps or looks back takes them from a `Window` and a `Past` of its own, which go on where they were in a stream, and any part
that says causal = True says per_step = True too, or has a scan (see `staa.stream`).

Folded or not, the modules inside behave as if each were called. One with a hook or a forward of its own, one that another
module has replaced, and a layer whose weight a parametrization, pruning or an adapter has changed is called.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from staa.attention.gates import Affine, ChannelGate, Gate, applied, as_gate, check_shape, hidden_width, mean_of, open_gate
from staa.layers import Past, Window, fold_of, plain
from staa.ops.averages import Folded, context, without_autocast


class PositionEncoding(nn.Module):
    """x[t] + E[t] with E learned, one value per step and channel, constant over space (our choice).

    Truncated normal, std 0.02. `encoding` is stored as (T, C) and used as (T, 1, C, 1, 1): a parameter of rank 5 would
    make model.to(memory_format=torch.channels_last) fail. Raises ValueError where T or C differ from what it was built for.
    """

    acts_on = "current"
    causal = per_step = True

    def __init__(self, steps: int, channels: int):
        super().__init__()
        if steps is None or steps < 1 or channels < 1:
            raise ValueError(f"a position encoding needs a fixed number of steps and channels, got {steps} and {channels}")
        self.encoding = nn.Parameter(nn.init.trunc_normal_(torch.empty(steps, channels), std=0.02))
        self.window = Window(steps, "PositionEncoding")

    def forward(self, x: Tensor) -> Tensor:
        return x + self._encoding(x)

    def affine(self, x: Tensor, scale: Tensor | None = None, shift: Tensor | None = None) -> Affine:
        return scale, self._encoding(x) if shift is None else shift + self._encoding(x)

    def fold(self, current: Folded) -> Folded:
        return current._replace(shift=self.affine(*current[:3])[1])

    def _encoding(self, x: Tensor) -> Tensor:
        check_shape(self, x, self.encoding.shape[1])
        return self.encoding[self.window(x), None, :, None, None]


class GlobalContext(Gate):
    """Spike-driven self-attention as a global-context gate, at each step with weights shared over steps.

        k = W_k x               a 1×1 convolution C → 1                         `key`
        a = softmax(k)          over the H·W positions
        c = Σ_j a_j x_j         the context of the frame, [T, N, C]
        g = σ(W_v ReLU(LN(W_q c)))      W_q: C → d, W_v: d → C, d = max(8, C // reduction)     `query`, `norm`, `value`
        y = x ⊙ g

    Built on GCNet's block (Cao et al. 2019); reduction = 4 is the paper's best. Kaiming for W_k and W_q, W_v = 0 with
    bias +2 (our choice). Raises ValueError on another number of channels or a rank other than 5.
    """

    causal = per_step = True

    def __init__(self, channels: int, reduction: int = 4):
        super().__init__()
        self.channels, hidden = channels, hidden_width(channels, reduction)
        self.key = nn.Linear(channels, 1, bias=False)  # the softmax can't see a bias
        self.query = nn.Linear(channels, hidden)
        self.norm = nn.LayerNorm(hidden)
        self.value = nn.Linear(hidden, channels)
        nn.init.kaiming_normal_(self.key.weight)
        nn.init.kaiming_normal_(self.query.weight)
        nn.init.zeros_(self.query.bias)
        open_gate(self.value)

    def gate(self, current: Folded) -> tuple[Folded, Tensor]:
        """g is [T, N, C, 1, 1]. A shift moves every position's key alike, so the softmax drops it."""
        check_shape(self, current.x, self.channels)
        if plain(self.key, nn.Linear):
            key = self.key.weight[None] if current.scale is None else self.key.weight * current.scale.flatten(2)
            x, pooled, mean = context(current.x, key)
            current, pooled = current._replace(x=x, mean=mean), applied(pooled, current)
        else:
            pooled = _pooled(current.written_out(), self.key)
        hidden = F.relu(self.norm(self.query(pooled.to(current.x.dtype))))
        return current, as_gate(self.value(hidden))


class StepAttention(Gate):
    """Which time steps matter: one gate per sample and step, from the whole window.

        p = mean of x over C, H, W              [T, N]
        q = σ(U2 ReLU(U1 p))                    U1: T → T_h, U2: T_h → T     `squeeze`, `excite`
        y[t] = x[t] ⊙ q[t]

    T_h = T up to 4 steps, else max(1, T // 4). U1 has bias 1, since a dead ReLU would freeze the gate where T_h = 1; U2 = 0
    with bias +2 (our choices). It sees the whole window, so it is not causal. causal=True (ours, beyond the paper): U1 and
    U2 are T × T, masked to steps ≤ t.

    Raises ValueError on another number of steps or a rank other than 5.
    """

    per_step = True

    def __init__(self, steps: int, *, causal: bool = False):
        super().__init__()
        if steps is None or steps < 1:
            raise ValueError(f"step attention needs a fixed number of steps, got {steps}")
        hidden = steps if causal or steps <= 4 else max(1, steps // 4)
        self.causal = causal or steps == 1  # one step has no future
        self.squeeze = nn.Linear(steps, hidden)
        self.excite = nn.Linear(hidden, steps)
        nn.init.kaiming_normal_(self.squeeze.weight)
        nn.init.ones_(self.squeeze.bias)
        open_gate(self.excite)
        self.window, self.past = Window(steps, "StepAttention"), Past()

    def gate(self, current: Folded) -> tuple[Folded, Tensor]:
        """q is [T, N, 1, 1, 1]."""
        check_shape(self, current.x)
        steps = self.window(current.x)
        p = self.past(mean_of(current).mean(2))  # [T, N]; in a stream from its beginning
        if not self.causal:
            q = self.excite(F.relu(self.squeeze(p.T))).sigmoid()
        elif plain(self.squeeze, nn.Linear) and plain(self.excite, nn.Linear):
            seen = slice(0, steps.stop)
            hidden = F.relu(F.linear(p.T, self.squeeze.weight.tril()[seen, seen], self.squeeze.bias[seen]))
            q = F.linear(hidden, self.excite.weight.tril()[steps, seen], self.excite.bias[steps]).sigmoid()
        else:
            hidden = F.relu(self._as_seen_at(slice(0, steps.stop), self.squeeze, p))
            q = self._as_seen_at(steps, self.excite, hidden.T).sigmoid()
        return current, q.T[:, :, None, None, None]

    def _as_seen_at(self, steps: slice, layer: nn.Module, p: Tensor) -> Tensor:
        """[N, steps]: output t of the layer, called with p [up to T, N] in which what comes after step t is 0."""
        total = self.window.steps
        assert total is not None
        seen = p.new_ones(total, total).tril()[steps, None] * F.pad(p.T, (0, total - len(p)))  # [steps, N, T]
        return layer(seen)[:, :, steps].diagonal(dim1=0, dim2=2)


class STAA(nn.Module):
    """Position encoding → global context → step attention, skipped at random in training (time-step random dropout).

        x3 = step(context(position(x)))
        y[t] = x[t] if u[t] else x3[t],    u[t] ~ Bernoulli(dropout) in training, one draw per step shared by the batch
        y = x3                             in evaluation (no rescaling)

    It acts on the current before the neuron charges, so the spikes stay binary (our choice; order and parts are the
    paper's). `forward(x)` is the plain form; `affine(x)` -> (scale, shift) and fold(current) say the same for the neuron.

    position: factory (steps, channels), context: factory (channels), step: factory (steps) of a module with forward(x)
    and affine(x, scale, shift); None leaves the part out (the ablations). reduction is the default context's. causal=True:
    the gate of step t sees steps ≤ t only. steps=None: any T; position encoding left out, step attention replaced by a
    per-step ChannelGate.

    x: [T, N, C, H, W]. Raises ValueError where T, C or the rank do not fit, dropout leaves [0, 1], or a
    part of one's own does not go with causal=True or steps=None.
    """

    acts_on = "current"
    default_sites = "all"
    per_step = True  # but for what its parts remember

    def __init__(
        self,
        steps: int | None,
        channels: int,
        *,
        reduction: int = 4,
        dropout: float = 0.1,
        causal: bool = False,
        position: Callable[[int, int], nn.Module] | None = PositionEncoding,
        context: Callable[[int], nn.Module] | None = GlobalContext,
        step: Callable[[int], nn.Module] | None = StepAttention,
    ):
        super().__init__()
        if not 0 <= dropout <= 1:
            raise ValueError(f"dropout is a probability in [0, 1], got {dropout}")
        if steps is None and (position not in (None, PositionEncoding) or step not in (None, StepAttention)):
            raise ValueError("steps=None takes no position= or step= of your own: they would need a number of steps")
        self.steps, self.channels, self.dropout = steps, channels, dropout
        self.window = Window(steps, type(self).__name__)
        self.position: nn.Module | None = None
        self.context: nn.Module | None = None
        self.step: nn.Module | None = None
        if position is not None and steps is not None:
            self.position = position(steps, channels)
        if context is not None:
            self.context = GlobalContext(channels, reduction) if context is GlobalContext else context(channels)
        if step is not None and steps is None:
            self.step = ChannelGate(channels, reduction)
        elif step is not None and steps is not None:
            self.step = StepAttention(steps, causal=causal) if step is StepAttention else step(steps)
        for part in self.parts():
            if not hasattr(part, "affine"):
                raise ValueError(f"{type(part).__name__} needs affine(x, scale, shift) beside forward(x) to stand in STAA")
        self.causal = all(getattr(part, "causal", False) for part in self.parts())
        if causal and not self.causal:
            raise ValueError("causal=True, but a part of your own does not say causal = True")

    def forward(self, x: Tensor) -> Tensor:
        self._check(x)
        y = x
        for part in self.parts():
            y = part(y)
        skip = self._skip(x)
        return y if skip is None else torch.where(skip, x, y)

    def affine(self, x: Tensor, scale: Tensor | None = None, shift: Tensor | None = None) -> Affine:
        folded = self.fold(Folded(x, scale, shift))
        return folded.scale, folded.shift

    def fold(self, current: Folded) -> Folded:
        self._check(current.x)
        before, called = current, False
        for part in self.parts():
            how = fold_of(part)
            if how == "fold":
                current = part.fold(current)
            elif how == "affine":
                scale, shift = part.affine(*current[:3])
                current = current._replace(scale=scale, shift=shift)
            else:
                current, called = Folded(part(current.written_out())), True
        skip = self._skip(current.x)
        if skip is None:
            return current
        if called:  # then there is no scale and shift of the x that came
            return Folded(torch.where(skip, before.written_out(), current.written_out()))
        scale, shift = _choose(skip, before.scale, current.scale, 1), _choose(skip, before.shift, current.shift, 0)
        return current._replace(scale=scale, shift=shift)

    def parts(self) -> list[Any]:
        """The parts that are there, in the order they apply."""
        return [part for part in (self.position, self.context, self.step) if part is not None]

    def _check(self, x: Tensor) -> None:
        check_shape(self, x, self.channels)
        self.window(x)

    def _skip(self, x: Tensor) -> Tensor | None:
        if not self.training or self.dropout == 0:
            return None
        return torch.rand(len(x), 1, 1, 1, 1, device=x.device) < self.dropout

    def extra_repr(self) -> str:
        return f"steps={self.steps}, channels={self.channels}, dropout={self.dropout}, causal={self.causal}"


def _pooled(x: Tensor, key: nn.Module) -> Tensor:
    """The context [T, N, C] of x [T, N, C, H, W] by a key that is called, as `staa.ops.averages.context`; at least float32."""
    flat = x.flatten(3)
    keys = key(flat.mT)  # [T, N, H·W, 1]
    with without_autocast(x):
        wide = torch.promote_types(x.dtype, torch.float32)
        return (flat.to(wide) @ keys.to(wide).softmax(2)).squeeze(-1)


def _choose(skip: Tensor, before: Tensor | None, after: Tensor | None, neutral: int) -> Tensor | None:
    if after is None:
        return None
    return torch.where(skip, neutral if before is None else before, after)
