"""The parts of STAA: position encoding, global context, step attention. staa.attention.staa puts them together."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from staa.attention.gates import (
    Affine,
    Gate,
    applied,
    as_gate,
    check_fixed,
    check_shape,
    hidden_width,
    mean_of,
    open_gate,
)
from staa.folding import plain
from staa.layers import Past, Window
from staa.ops.averages import Folded, context, context_weights, without_autocast
from staa.ops.checks import check_input
from staa.ops.notes import listened_to, note


class PositionEncoding(nn.Module):
    """x[t] + E[t] with E learned, one value for each step and channel, constant over space.

    At first E is from a normal distribution of standard deviation 0.02, truncated at ±2.

    Args:
        steps: T.
        channels: C.

    Shapes:
        x [T, N, C, H, W] -> the same; its parameter `encoding` is [T, C]

    Raises:
        ValueError: If x has another rank, T or C, or steps or channels is no whole number of at least 1.

    Source:
        STAA-SNN, Zhang et al., CVPR 2025, has a position encoding; that it is learned and constant over space is our choice.
    """

    acts_on = "current"
    causal = per_step = True

    def __init__(self, steps: int, channels: int):
        super().__init__()
        check_fixed(self, steps, channels=channels)
        # Of rank 5, model.to(memory_format=torch.channels_last) would fail.
        self.encoding = nn.Parameter(nn.init.trunc_normal_(torch.empty(steps, channels), std=0.02))
        self.window = Window(steps, "PositionEncoding")

    def forward(self, x: Tensor) -> Tensor:
        check_input(x, self)
        return x + self._encoding(x)

    def affine(self, x: Tensor, scale: Tensor | None = None, shift: Tensor | None = None) -> Affine:
        """(scale, shift + E), of which the encoding of scale · x + shift is made.

        Args:
            x: Current.
            scale: Factor it comes with, constant over H × W; None: 1.
            shift: Shift it comes with, constant over H × W; None: 0.

        Shapes:
            x [T, N, C, H, W]; scale, shift broadcast with it -> two tensors that do, or None
        """
        return scale, self._encoding(x) if shift is None else shift + self._encoding(x)

    def fold(self, current: Folded) -> Folded:
        """The `staa.ops.averages.Folded` current with E in its shift."""
        return current._replace(shift=self.affine(*current[:3])[1])

    def _encoding(self, x: Tensor) -> Tensor:
        check_shape(self, x, self.encoding.shape[1])
        encoding = self.encoding[self.window(x)]
        note(self, encoding=encoding)
        return encoding[:, None, :, None, None]


class GlobalContext(Gate):
    """Spike-driven self-attention as a gate on channels, at each step, with weights shared over steps.

        k = W_k x                       a 1×1 convolution C → 1                             `key`
        a = softmax(k)                  over the H·W positions
        c = Σ_j a_j x_j                 the context of the frame, [T, N, C]
        g = σ(W_v ReLU(LN(W_q c)))      W_q: C → d, W_v: d → C, d = max(8, C // reduction)     `query`, `norm`, `value`
        y = x ⊙ g

    At first W_v = 0 with a bias of 2, so that g = σ(2) ≈ 0.88; W_k and W_q are Kaiming normal (our choice).

    Args:
        channels: C.
        reduction: Sets d; 4 is the paper's best.

    Shapes:
        x [T, N, C, H, W] -> y of the same shape

    Raises:
        ValueError: If x has another rank, dtype or number of channels, or an argument is below 1.

    Source:
        STAA-SNN, Zhang et al., CVPR 2025, built on GCNet's block (Cao et al. 2019). A reconstruction: the paper's equations
        were not available.
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
            weights = context_weights(current.x, key) if listened_to() else None
            current, pooled = current._replace(x=x, mean=mean), applied(pooled, current)
        else:
            pooled, weights = _pooled(current.written_out(), self.key)
        if weights is not None:
            note(self, softmax=weights.unflatten(2, current.x.shape[3:]))
        hidden = F.relu(self.norm(self.query(pooled.to(current.x.dtype))))
        return current, as_gate(self.value(hidden))


class StepAttention(Gate):
    """Which time steps matter: one gate for each sample and step, from the whole window.

        p = mean of x over C, H, W              [T, N]
        q = σ(U₂ ReLU(U₁ p))                    U₁: T → T_h, U₂: T_h → T     `squeeze`, `excite`
        y[t] = x[t] ⊙ q[t]

    T_h = T up to 4 steps, else max(1, T // 4). At first U₁ has a bias of 1, since a dead ReLU would freeze the gate if T_h = 1,
    and U₂ = 0 with a bias of 2, so that q = σ(2) ≈ 0.88 (our choices).

    Args:
        steps: T.
        causal: The gate of step t sees steps ≤ t only: U₁ and U₂ are T × T, and masked (ours, beyond the paper).

    Shapes:
        x [T, N, C, H, W] -> y of the same shape

    Raises:
        ValueError: If x has another rank, dtype or T, or steps is no whole number of at least 1.

    Source:
        STAA-SNN, Zhang et al., CVPR 2025. A reconstruction: the paper's equations were not available.
    """

    per_step = True

    def __init__(self, steps: int, *, causal: bool = False):
        super().__init__()
        check_fixed(self, steps)
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
        now = self.window(current.x)
        p = self.past(mean_of(current).mean(2))  # [T, N]; in a stream from its beginning
        if not self.causal:
            q = self.excite(F.relu(self.squeeze(p.T))).sigmoid()
        elif plain(self.squeeze, nn.Linear) and plain(self.excite, nn.Linear):
            seen = slice(0, len(p))
            hidden = F.relu(F.linear(p.T, self.squeeze.weight.tril()[seen, seen], self.squeeze.bias[seen]))
            q = F.linear(hidden, self.excite.weight.tril()[now, seen], self.excite.bias[now]).sigmoid()
        else:
            hidden = F.relu(self._as_seen_at(slice(0, len(p)), self.squeeze, p))
            q = self._as_seen_at(now, self.excite, hidden.T).sigmoid()
        return current, q.T[:, :, None, None, None]

    def _as_seen_at(self, at: slice, layer: nn.Module, p: Tensor) -> Tensor:
        """[N, t]: output t of the layer for each step in `at`, called with p [up to T, N] in which what comes after t is 0."""
        total = self.window.steps
        assert total is not None
        seen = p.new_ones(total, total).tril()[at, None] * F.pad(p.T, (0, total - len(p)))  # [t, N, T]
        return layer(seen)[:, :, at].diagonal(dim1=0, dim2=2)


def _pooled(x: Tensor, key: nn.Module) -> tuple[Tensor, Tensor]:
    """The context [T, N, C] of x [T, N, C, H, W] by a key that is called, as `staa.ops.averages.context`, and its softmax
    [T, N, H·W]; at least float32."""
    flat = x.flatten(3)
    keys = key(flat.mT)  # [T, N, H·W, 1]
    with without_autocast(x):
        wide = torch.promote_types(x.dtype, torch.float32)
        weights = keys.to(wide).softmax(2)
        return (flat.to(wide) @ weights).squeeze(-1), weights.squeeze(-1)
