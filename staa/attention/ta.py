"""TA-SNN's temporal-wise attention (Yao et al., ICCV 2021): which frames matter."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from staa.attention.gates import Affine, check_shape
from staa.layers import Window


class TemporalAttention(nn.Module):
    """A gate per sample and step from the mean of each frame: TemporalAttention(steps, channels).

        m = mean of x over C, H, W                                          [N, T]
        g = σ(W₂ ReLU(W₁ m + b₁) + b₂)                                      W₁: T → d, W₂: d → T
        y[t] = x[t] ⊙ g[t]

    This is the form of the authors' code. It begins as PyTorch begins linear layers, but with b₁ = 1 if d = 1: a lone ReLU that
    begins shut never learns. maximum=True is the form of SpikingJelly's TemporalWiseAttention, without biases:

        g = σ(W₂ ReLU(W₁ m) + W₂ ReLU(W₁ maximum of x over C, H, W))

    There W₂ begins at 0, our choice: at random, a maximum of 4 or 5 can shut a gate from the first step on, and a silent layer
    learns nothing.

    d = max(1, T // reduction). The default of 4 is our choice; the authors take 16 at T = 30 and 5 at T = 10. It acts on the
    current and sees the whole window, so it is not causal. channels is not needed. Raises ValueError on another T or rank.
    """

    acts_on = "current"

    def __init__(self, steps: int, channels: int | None = None, *, reduction: int = 4, maximum: bool = False):
        super().__init__()
        if steps is None or steps < 1 or reduction < 1:
            raise ValueError(f"temporal attention needs a fixed number of steps, got {steps} (reduction {reduction})")
        hidden = max(1, steps // reduction)
        self.squeeze = nn.Linear(steps, hidden, bias=not maximum)
        self.excite = nn.Linear(hidden, steps, bias=not maximum)
        self.maximum = maximum
        if maximum:
            nn.init.zeros_(self.excite.weight)
        elif hidden == 1:
            nn.init.ones_(self.squeeze.bias)
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
        seen = (flat.mean(2), flat.amax(2)) if self.maximum else (flat.mean(2),)
        logits = sum(self.excite(F.relu(self.squeeze(m.T.to(x.dtype)))) for m in seen)
        return logits.sigmoid().T[:, :, None, None, None]  # type: ignore[union-attr]
