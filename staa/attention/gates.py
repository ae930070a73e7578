"""What attention modules share: gates on channels, applied as a scale."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from staa.ops.averages import Folded
from staa.ops.checks import check_counts, check_input, check_tensor
from staa.ops.notes import note

Affine = tuple[Tensor | None, Tensor | None]

GATE_BIAS = 2.0  # σ(2) ≈ 0.88: stacked gates must not shrink the current of a fresh network


class Gate(nn.Module):
    """Abstract: y = x ⊙ gate(x), with a gate that is constant over space. A subclass gives gate(current)."""

    acts_on = "current"

    def forward(self, x: Tensor) -> Tensor:
        check_input(x, self)
        return self.fold(Folded(x)).written_out()

    def affine(self, x: Tensor, scale: Tensor | None = None, shift: Tensor | None = None) -> Affine:
        """(scale', shift') such that self(scale · x + shift) = scale' · x + shift'.

        Args:
            x: Current.
            scale: Factor it comes with, constant over H × W; None: 1.
            shift: Shift it comes with, constant over H × W; None: 0.

        Shapes:
            x [T, N, C, H, W]; scale, shift broadcast with it -> two tensors that do, or None
        """
        folded = self.fold(Folded(x, scale, shift))
        return folded.scale, folded.shift

    def fold(self, current: Folded) -> Folded:
        """The `staa.ops.averages.Folded` current with the gate on its scale and shift, and x left as it is."""
        current, gate = self.gate(current)
        note(self, gate=gate[..., 0, 0])
        scale = gate if current.scale is None else gate * current.scale
        return current._replace(scale=scale, shift=None if current.shift is None else gate * current.shift)

    def gate(self, current: Folded) -> tuple[Folded, Tensor]:
        """The current, its x handed through what averages it, and its gate, which broadcasts with x."""
        raise NotImplementedError


class ChannelGate(Gate):
    """Squeeze-and-excite over channels at each step: causal, for any number of steps.

        y = x ⊙ σ(W₂ ReLU(W₁ mean over H, W of x))      W₁: C → d, W₂: d → C, d = max(8, C // reduction)

    It takes the place of step attention in `staa.attention.STAA` with steps=None. At first the gate is σ(2) ≈ 0.88.

    Args:
        channels: C.
        reduction: Sets d.

    Shapes:
        x [T, N, C, H, W] -> y of the same shape

    Raises:
        ValueError: If x has another rank, dtype or number of channels, or an argument is below 1.

    Source:
        Hu et al. 2018; its place in STAA is ours.
    """

    causal = per_step = True

    def __init__(self, channels: int, reduction: int = 4):
        super().__init__()
        self.channels, hidden = channels, hidden_width(channels, reduction)
        self.squeeze = nn.Linear(channels, hidden)
        self.excite = nn.Linear(hidden, channels)
        nn.init.kaiming_normal_(self.squeeze.weight)
        nn.init.zeros_(self.squeeze.bias)
        open_gate(self.excite)

    def gate(self, current: Folded) -> tuple[Folded, Tensor]:
        """The gate is [T, N, C, 1, 1]."""
        check_shape(self, current.x, self.channels)
        return current, as_gate(self.excite(F.relu(self.squeeze(mean_of(current)))))


def hidden_width(channels: int, reduction: int) -> int:
    check_counts(channels=channels, reduction=reduction)
    return max(8, channels // reduction)


def open_gate(last: nn.Linear) -> None:
    nn.init.zeros_(last.weight)
    nn.init.constant_(last.bias, GATE_BIAS)


def as_gate(logits: Tensor) -> Tensor:
    return logits.sigmoid()[..., None, None]


def applied(average: Tensor, current: Folded) -> Tensor:
    """scale · average + shift for an average of x over space, [T, N, C]."""
    if current.scale is not None:
        average = average * current.scale.flatten(2)
    return average if current.shift is None else average + current.shift.flatten(2)


def mean_of(current: Folded) -> Tensor:
    """The mean of the current over space [T, N, C]."""
    mean = current.mean
    if mean is None:
        mean = current.x.mean((3, 4), dtype=torch.promote_types(current.x.dtype, torch.float32))
    return applied(mean, current).to(current.x.dtype)


def check_fixed(module: nn.Module, steps: int | None, **counts: int) -> None:
    """Raises ValueError if steps, or another size, is no whole number of at least 1."""
    if steps is None:
        raise ValueError(f"{type(module).__name__} needs a fixed number of steps, got None: give the network steps, such as 4")
    check_counts(steps=steps, **counts)


def check_shape(module: nn.Module, x: Tensor, channels: int | None = None) -> None:
    """Raises ValueError if x is not [T, N, C, H, W], or has other channels than the module; TypeError if it is no tensor."""
    name = type(module).__name__
    check_tensor(x, f"the current of {name}")
    if x.ndim != 5:
        raise ValueError(f"the current of {name} must be [T, N, C, H, W], got shape {list(x.shape)}")
    if channels is not None and x.shape[2] != channels:
        raise ValueError(f"this {name} was built for {channels} channels, got {x.shape[2]} (input {list(x.shape)})")
