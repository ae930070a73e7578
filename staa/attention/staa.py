"""STAA: the spatial-temporal attention aggregator of STAA-SNN (Zhang et al., CVPR 2025).

An independent reconstruction from the abstract and secondary sources: the paper's equations were not available to us and
no official code is public. What is our own is marked as our choice, in the parts too.

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

from staa.attention.gates import Affine, ChannelGate, check_shape
from staa.attention.parts import GlobalContext, PositionEncoding, StepAttention
from staa.folding import fold_of
from staa.layers import Window
from staa.ops.averages import Folded
from staa.ops.checks import check_input


class STAA(nn.Module):
    """Position encoding → global context → step attention, skipped at random in training (time-step random dropout).

        x₃ = step(context(position(x)))
        y[t] = x[t] if u[t] else x₃[t],    u[t] ~ Bernoulli(dropout) in training, one draw a step, shared by the batch
        y = x₃                             in evaluation, without rescaling

    It acts on the current before the neuron charges, so the spikes stay binary.

    Args:
        steps: T; None: any T, without position encoding and with `staa.attention.ChannelGate` for step attention.
        channels: C.
        reduction: Of the default context and of the channel gate, whose hidden layer has max(8, C // reduction) units.
        dropout: Chance in [0, 1] that training skips a step.
        causal: The gate of step t sees steps ≤ t only.
        position: Makes the first part, position(steps, channels), a module with forward(x) and affine(x, scale, shift); None
            leaves it out.
        context: Makes the second, context(channels); None leaves it out.
        step: Makes the third, step(steps); None leaves it out.

    Shapes:
        x [T, N, C, H, W] -> y of the same shape

    Raises:
        ValueError: If x has another rank, dtype, T or C, dropout leaves [0, 1], or a part of your own does not go with
            causal=True or steps=None.

    Source:
        STAA-SNN, Zhang et al., CVPR 2025: order and parts are the paper's. A reconstruction from its abstract and secondary
        sources, since its equations and code were not available; that it acts on the current is our choice.
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
            raise ValueError(f"dropout must be a probability in [0, 1], got {dropout}")
        if steps is None and (position not in (None, PositionEncoding) or step not in (None, StepAttention)):
            raise ValueError("with steps=None, position and step must not be your own, which would need a number of steps")
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
                raise ValueError(f"{type(part).__name__} needs affine(x, scale, shift) beside forward(x) to be a part of STAA")
        self.causal = all(getattr(part, "causal", False) for part in self.parts())
        if causal and not self.causal:
            raise ValueError("with causal=True, a part of your own must say causal = True in its class")

    def forward(self, x: Tensor) -> Tensor:
        check_input(x, self)
        self._check(x)
        y = x
        for part in self.parts():
            y = part(y)
        skip = self._skip(x)
        return y if skip is None else torch.where(skip, x, y)

    def affine(self, x: Tensor, scale: Tensor | None = None, shift: Tensor | None = None) -> Affine:
        """(scale', shift') such that self(scale · x + shift) = scale' · x + shift'.

        Args:
            x: Current.
            scale: Factor it comes with, constant over H × W; None: 1.
            shift: Shift it comes with, constant over H × W; None: 0.

        Shapes:
            x [T, N, C, H, W]; scale, shift broadcast with it -> two tensors that do, or None

        Raises:
            ValueError: If x has another rank, T or C.
        """
        folded = self.fold(Folded(x, scale, shift))
        return folded.scale, folded.shift

    def fold(self, current: Folded) -> Folded:
        """The `staa.ops.averages.Folded` current with the attention in its scale and shift; each average hands x on."""
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


def _choose(skip: Tensor, before: Tensor | None, after: Tensor | None, neutral: int) -> Tensor | None:
    if after is None:
        return None
    return torch.where(skip, neutral if before is None else before, after)
