"""Neurons: make(channels=None, dims=None, *, options); neuron(x) -> spikes starts from rest and nothing survives the call.

neuron.scan(x, state) -> (spikes, state) goes on from a state. Currents and membranes have no unit; a decay is per time step.
"""

import math
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from staa.ops import SURROGATES, Surrogate, arctan, integrate, lif, rectangle, triangle
from staa.ops.checks import Reset, check_counts, check_dims, check_neuron, check_options, check_tensor
from staa.registry import Registry

Term = Tensor | None


class Neuron(nn.Module):
    """Abstract: what all neurons share, a call that starts from rest. A subclass gives scan(x, state, scale, shift).

    dims: dimensions of every current, such as 5 for [T, N, C, H, W]; None: any, with one warning at 4, which may be images
    without time.
    """

    def __init__(self, dims: int | None = None):
        super().__init__()
        if dims is not None:
            check_counts(least=2, dims=dims)
        self.dims = dims

    def forward(self, x: Tensor, scale: Term = None, shift: Term = None) -> Tensor:
        """The neuron's output at each step of a window that starts from rest (membrane 0).

        Args:
            x: Current, of floats. Half precision is charged in float32.
            scale: Factor of the current, applied while charging, such as an attention gate; None: 1.
            shift: Added to scale · x; None: 0.

        Shapes:
            x [T, N, C, ...]; scale and shift broadcast with it -> the shape and dtype of x

        Raises:
            ValueError: If x is not of floats, has no time step, other channels or dimensions, or scale or shift do not fit.
            TypeError: If x, scale or shift is no tensor.
        """
        check_dims(x, self.dims, type(self).__name__)
        return self.scan(x, None, scale, shift)[0]

    def scan(self, x: Tensor, state: Term = None, scale: Term = None, shift: Term = None) -> tuple[Tensor, Tensor]:
        """The neuron's output for a piece of a window, from the membrane before it. Pieces of any length give the same bits.

        Args:
            x: Current, of floats. Half precision is charged in float32.
            state: Membrane after the step before x, as the last scan returned it; None: rest.
            scale: Factor of the current, applied while charging; None: 1.
            shift: Added to scale · x; None: 0.

        Shapes:
            x [t, N, C, ...], state [N, C, ...] -> (output like x, membrane [N, C, ...], at least float32)

        Raises:
            ValueError: If x is not of floats, has no time step or other channels, or state, scale or shift do not fit it.
            TypeError: If one of them is no tensor.
        """
        raise NotImplementedError


class LIF(Neuron):
    """Leaky integrate-and-fire with fixed constants, from rest, h = 0:

        v[t] = decay · h[t−1] + gain · x[t]
        s[t] = 1 if v[t] ≥ threshold, else 0
        h[t] = (1 − s[t]) · v[t]                reset="subtract": v[t] − threshold · s[t]

    Args:
        channels: Not needed; taken so that all neurons are built alike.
        dims: Dimensions of every current, such as 5 for [T, N, C, H, W]; None: any, with one warning if there are 4.
        decay: Share of the membrane that a step keeps, in [0, 1]; 1 never leaks.
        gain: Factor of the current.
        threshold: Membrane at which it fires, above 0.
        strict: Fire only above the threshold, not at it.
        surrogate: Smooth step whose slope at v − threshold is the spike's gradient, such as `staa.ops.triangle`.
        reset: Membrane after a spike: "zero", or "subtract" to keep what exceeds the threshold.
        detach_reset: Keep the reset out of the backward pass.

    Shapes:
        x [T, N, ...] -> spikes of the same shape and dtype, 0 or 1

    Raises:
        ValueError: If an argument has another type or range.
    """

    def __init__(
        self, channels: int | None = None, dims: int | None = None, *, decay: float = 0.5, gain: float = 1.0,
        threshold: float = 1.0, strict: bool = False, surrogate: Surrogate = arctan,
        reset: Reset = "zero", detach_reset: bool = False,
    ):  # fmt: skip
        super().__init__(dims)
        check_neuron(channels, decay=decay, gain=gain, threshold=threshold)
        check_options(strict, detach_reset, reset, surrogate)
        if not 0 <= decay <= 1:
            raise ValueError(f"decay must be in [0, 1], got {decay}")
        self.decay, self.gain = decay, gain
        self.threshold, self.strict, self.detach_reset = threshold, strict, detach_reset
        self.surrogate, self.reset = surrogate, reset

    def scan(self, x: Tensor, state: Term = None, scale: Term = None, shift: Term = None) -> tuple[Tensor, Tensor]:
        return _scan(self, x, state, scale, shift, self.decay, self.gain)

    def extra_repr(self) -> str:
        return f"decay={self.decay}, gain={self.gain}, threshold={self.threshold}, {_name(self.surrogate)}"


class ParametricLIF(Neuron):
    """Leaky integrate-and-fire with one learned decay for the layer, from rest, h = 0:

        decay = σ(decay_logit)
        v[t] = decay · h[t−1] + gain · x[t]
        s[t] = 1 if v[t] ≥ threshold, else 0
        h[t] = (1 − s[t]) · v[t]                reset="subtract": v[t] − threshold · s[t]

    Args:
        channels: Not needed; taken so that all neurons are built alike.
        dims: Dimensions of every current, such as 5 for [T, N, C, H, W]; None: any, with one warning if there are 4.
        decay: Initial share of the membrane that a step keeps, within (0, 1).
        gain: Factor of the current; None ties it to the decay as in the paper, gain = 1 − decay (its k = 1/τ).
        threshold: Membrane at which it fires, above 0.
        strict: Fire only above the threshold, not at it.
        surrogate: Smooth step whose slope at v − threshold is the spike's gradient, such as `staa.ops.triangle`.
        reset: Membrane after a spike: "zero", or "subtract" to keep what exceeds the threshold.
        detach_reset: Keep the reset out of the backward pass.

    Shapes:
        x [T, N, ...] -> spikes of the same shape and dtype, 0 or 1

    Raises:
        ValueError: If an argument has another type or range.

    Source:
        PLIF, Fang et al., ICCV 2021.
    """

    def __init__(
        self, channels: int | None = None, dims: int | None = None, *, decay: float = 0.5, gain: float | None = 1.0,
        threshold: float = 1.0, strict: bool = False, surrogate: Surrogate = arctan,
        reset: Reset = "zero", detach_reset: bool = False,
    ):  # fmt: skip
        super().__init__(dims)
        check_neuron(channels, decay=decay, threshold=threshold, gain=1.0 if gain is None else gain)
        check_options(strict, detach_reset, reset, surrogate)
        if not 0 < decay < 1:
            raise ValueError(f"decay must be within (0, 1) for a ParametricLIF to begin with, got {decay}")
        self.decay_logit = nn.Parameter(torch.tensor(math.log(decay / (1 - decay))))
        self.gain, self.threshold, self.strict, self.detach_reset = gain, threshold, strict, detach_reset
        self.surrogate, self.reset = surrogate, reset

    def scan(self, x: Tensor, state: Term = None, scale: Term = None, shift: Term = None) -> tuple[Tensor, Tensor]:
        decay = self.decay_logit.sigmoid()
        gain = 1 - decay if self.gain is None else self.gain
        return _scan(self, x, state, scale, shift, decay, gain)

    def extra_repr(self) -> str:
        gain, decay = "1 - decay" if self.gain is None else self.gain, self.decay_logit.sigmoid().item()
        return f"decay={decay:.3f}, gain={gain}, threshold={self.threshold}"


class AdaptiveLIF(Neuron):
    """STAA-SNN's neuron, with a learned leak M (`decay`) and input gain G (`gain`), from rest, h = 0:

        v[t] = M ⊙ h[t−1] + G ⊙ x[t]
        s[t] = 1 if v[t] ≥ threshold, else 0
        h[t] = (1 − s[t]) · v[t]                reset="subtract": v[t] − threshold · s[t]

    M and G are not constrained. A fresh layer equals its plain twin, LIF(decay=0.25, threshold=0.5, surrogate=rectangle).

    Args:
        channels: C, dimension 2 of x; needed for per="channel".
        dims: Dimensions of every current, such as 5 for [T, N, C, H, W]; None: any, with one warning if there are 4.
        decay: Initial leak M, the share of the membrane that a step keeps.
        gain: Initial input gain G, the factor of the current.
        threshold: Membrane at which it fires, above 0.
        strict: Fire only above the threshold, not at it.
        surrogate: Smooth step whose slope at v − threshold is the spike's gradient, such as `staa.ops.triangle`.
        reset: Membrane after a spike: "zero", or "subtract" to keep what exceeds the threshold.
        detach_reset: Keep the reset out of the backward pass.
        per: One M and G for each "channel", of shape [C], or one pair for the "layer".

    Shapes:
        x [T, N, C, ...] -> spikes of the same shape and dtype, 0 or 1

    Raises:
        ValueError: If an argument has another type or range, per="channel" comes without channels, or x has others.

    Source:
        STAA-SNN, Zhang et al., CVPR 2025, which resets to zero. The shapes of M and G are ours: its text was not available.
    """

    def __init__(
        self, channels: int | None = None, dims: int | None = None, *, decay: float = 0.25, gain: float = 1.0,
        threshold: float = 0.5, strict: bool = False, surrogate: Surrogate = rectangle,
        reset: Reset = "zero", detach_reset: bool = False, per: Literal["channel", "layer"] = "channel",
    ):  # fmt: skip
        super().__init__(dims)
        check_neuron(channels, decay=decay, gain=gain, threshold=threshold)
        check_options(strict, detach_reset, reset, surrogate)
        if per not in ("channel", "layer"):
            raise ValueError(f'per must be "channel" or "layer", got {per!r}')
        if per == "channel" and channels is None:
            raise ValueError('channels must be given for an AdaptiveLIF with per="channel"; or take per="layer"')
        shape = (channels,) if per == "channel" and channels is not None else ()
        self.decay = nn.Parameter(torch.full(shape, float(decay)))
        self.gain = nn.Parameter(torch.full(shape, float(gain)))
        self.threshold, self.strict, self.detach_reset = threshold, strict, detach_reset
        self.surrogate, self.reset = surrogate, reset

    def scan(self, x: Tensor, state: Term = None, scale: Term = None, shift: Term = None) -> tuple[Tensor, Tensor]:
        decay, gain = (self._over_space(p, x) for p in (self.decay, self.gain))
        return _scan(self, x, state, scale, shift, decay, gain)

    def extra_repr(self) -> str:
        return f"shape={tuple(self.decay.shape)}, threshold={self.threshold}, {_name(self.surrogate)}"

    @staticmethod
    def _over_space(p: Tensor, x: Tensor) -> Tensor:
        check_tensor(x, "the current")
        if p.ndim == 0:
            return p
        if x.ndim < 3 or x.shape[2] != len(p):
            raise ValueError(f"the current must have this AdaptiveLIF's {len(p)} channels (dimension 2), got {list(x.shape)}")
        return p.view(-1, *[1] * (x.ndim - 3))


class Integrator(Neuron):
    """A readout that never fires: v[t] = decay · v[t−1] + gain · x[t] from rest, v = 0, given out at each step.

    Its last step, or its mean over time, serves as logits.

    Args:
        channels: Not needed; taken so that all neurons are built alike.
        dims: Dimensions of every current, such as 5 for [T, N, C, H, W]; None: any, with one warning if there are 4.
        decay: Share of the membrane that a step keeps, in [0, 1]; 1 adds the currents up.
        gain: Factor of the current.

    Shapes:
        x [T, N, ...] -> membranes of the same shape, at least float32

    Raises:
        ValueError: If an argument has another type or range.
    """

    def __init__(self, channels: int | None = None, dims: int | None = None, *, decay: float = 1.0, gain: float = 1.0):
        super().__init__(dims)
        check_neuron(channels, decay=decay, gain=gain)
        if not 0 <= decay <= 1:
            raise ValueError(f"decay must be in [0, 1], got {decay}")
        self.decay, self.gain = decay, gain

    def scan(self, x: Tensor, state: Term = None, scale: Term = None, shift: Term = None) -> tuple[Tensor, Tensor]:
        return integrate(x, state, decay=self.decay, gain=self.gain, scale=scale, shift=shift)

    def extra_repr(self) -> str:
        return f"decay={self.decay}, gain={self.gain}"


def _scan(neuron: Any, x: Tensor, v: Term, scale: Term, shift: Term, decay: Any, gain: Any) -> tuple[Tensor, Tensor]:
    same = {name: getattr(neuron, name) for name in ("threshold", "strict", "surrogate", "reset", "detach_reset")}
    return lif(x, v, decay=decay, gain=gain, scale=scale, shift=shift, **same)


def _name(f: Surrogate) -> str:
    return getattr(f, "__name__", repr(f))


NEURONS = Registry("neuron", "staa.neurons.NEURONS", {}, functions={"surrogate": SURROGATES})
NEURONS |= {
    "lif": LIF,
    "parametric": ParametricLIF,
    # Whether STAA-SNN's fires at its threshold is not known to us; its authors' FSTA-SNN fires above.
    "adaptive": partial(AdaptiveLIF, strict=True),
    "plain": partial(LIF, decay=0.25, threshold=0.5, strict=True, surrogate=rectangle),  # its twin, FSTA-SNN's neuron
    "seqsnn": partial(LIF, decay=0.5, gain=0.5, threshold=1.0, surrogate=arctan, detach_reset=True),  # Lv et al., ICML 2024
    "dta": partial(LIF, decay=0.5, threshold=1.0, strict=True, surrogate=triangle),  # DTA-SNN's, and TET's
}
