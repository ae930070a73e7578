"""TA-SNN's temporal-wise attention (Yao et al., ICCV 2021): which frames matter."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from staa.attention.gates import Affine, check_fixed, check_shape
from staa.layers import Window
from staa.ops.checks import check_input
from staa.ops.notes import note


class TemporalAttention(nn.Module):
    """A gate for each sample and step from the mean of each frame: which frames matter.

        m = mean of x over C, H, W                                          [N, T]
        g = σ(W₂ ReLU(W₁ m + b₁) + b₂)                                      W₁: T → d, W₂: d → T
        y[t] = x[t] ⊙ g[t]                                                  d = max(1, T // reduction)

        g = σ(W₂ ReLU(W₁ m) + W₂ ReLU(W₁ maximum of x over C, H, W))        maximum=True

    It sees the whole window, so it is not causal. Weights begin as PyTorch makes them, but b₁ = 1 if d = 1, since a lone ReLU
    that begins shut never learns, and with the maximum W₂ = 0, since a maximum of 4 or 5 can shut a random gate (our choices).

    Args:
        steps: T.
        channels: Not needed; taken so that all attentions are built alike.
        reduction: Sets d. 4 is our choice; the authors take 16 at T = 30 and 5 at T = 10.
        maximum: Add the frame's maximum, without biases.

    Shapes:
        x [T, N, C, H, W] -> y of the same shape

    Raises:
        ValueError: If x has another rank, dtype or T, or steps or reduction is no whole number of at least 1.

    Source:
        TA-SNN, Yao et al., ICCV 2021, as in the authors' code; with the maximum as in SpikingJelly's TemporalWiseAttention.
    """

    acts_on = "current"

    def __init__(self, steps: int, channels: int | None = None, *, reduction: int = 4, maximum: bool = False):
        super().__init__()
        check_fixed(self, steps, reduction=reduction)
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
        check_input(x, self)
        return x * self._gate(x)

    def affine(self, x: Tensor, scale: Tensor | None = None, shift: Tensor | None = None) -> Affine:
        """(scale', shift') such that self(scale · x + shift) = scale' · x + shift'.

        Args:
            x: Current.
            scale: Factor it comes with, constant over H × W; None: 1.
            shift: Shift it comes with, constant over H × W; None: 0.

        Shapes:
            x [T, N, C, H, W]; scale, shift broadcast with it -> two tensors that do, or None
        """
        current = x if scale is None else x * scale
        gate = self._gate(current if shift is None else current + shift)
        return gate if scale is None else gate * scale, None if shift is None else gate * shift

    def _gate(self, x: Tensor) -> Tensor:
        check_shape(self, x)
        self.window(x)
        flat = x.flatten(2).to(torch.promote_types(x.dtype, torch.float32))
        seen = (flat.mean(2), flat.amax(2)) if self.maximum else (flat.mean(2),)
        logits = sum(self.excite(F.relu(self.squeeze(m.T.to(x.dtype)))) for m in seen)
        gate = logits.sigmoid().T[:, :, None]  # type: ignore[union-attr]
        note(self, gate=gate)
        return gate[..., None, None]
