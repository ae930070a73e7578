"""TA-SNN's temporal-wise attention (Yao et al., ICCV 2021): which frames matter."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from staa.attention.staa import Affine, check_shape
from staa.layers import Window


class TemporalAttention(nn.Module):
    """A gate per sample and step from the mean and the maximum of each frame: TemporalAttention(steps, channels).

        m_avg, m_max = mean and maximum of x over C, H, W                   [N, T]
        g = σ(W₂ ReLU(W₁ m_avg) + W₂ ReLU(W₁ m_max))                       W₁: T → d, W₂: d → T, no bias
        y[t] = x[t] ⊙ g[t]

    d = max(1, T // reduction); the default of 4 is our choice, and so is W₂ = 0 at the start, every gate at σ(0) = ½: with
    random weights a maximum of 4 or 5 can shut a gate from the first step on, and a silent layer learns nothing. It acts on
    the current and sees the whole window, so it is not causal. channels is not needed. Raises ValueError on another T or rank.
    """

    acts_on = "current"

    def __init__(self, steps: int, channels: int | None = None, *, reduction: int = 4):
        super().__init__()
        if steps is None or steps < 1 or reduction < 1:
            raise ValueError(f"temporal attention needs a fixed number of steps, got {steps} (reduction {reduction})")
        hidden = max(1, steps // reduction)
        self.squeeze = nn.Linear(steps, hidden, bias=False)
        self.excite = nn.Linear(hidden, steps, bias=False)
        nn.init.zeros_(self.excite.weight)
        self.window = Window(steps, "TemporalAttention")
        self.causal = self.per_step = steps == 1

    def forward(self, x: Tensor) -> Tensor:
        return x * self._gate(x)

    def affine(self, x: Tensor, scale: Tensor | None = None, shift: Tensor | None = None) -> Affine:
        """As a part of STAA: (scale, shift) of the gated current, given those it comes with."""
        current = x if scale is None else x * scale
        gate = self._gate(current if shift is None else current + shift)
        return gate if scale is None else gate * scale, None if shift is None else gate * shift

    def _gate(self, x: Tensor) -> Tensor:
        check_shape(self, x)
        self.window(x)
        flat = x.flatten(2).to(torch.promote_types(x.dtype, torch.float32))
        logits = sum(self.excite(F.relu(self.squeeze(m.T.to(x.dtype)))) for m in (flat.mean(2), flat.amax(2)))
        return logits.sigmoid().T[:, :, None, None, None]  # type: ignore[union-attr]
