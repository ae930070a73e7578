"""Neurons: Neuron(channels=None, *, options); neuron(x) -> spikes starts from rest and nothing survives the call.

Every neuron takes a current x [T, N, ...] and, optionally, an affine map of it (scale, shift; see `staa.ops.lif`) that
it applies while charging. neuron.scan(x, state) -> (spikes, state) is the explicit form for windows in pieces: state is
the membrane [N, ...], or None for rest. Channels are dimension 2.
"""

import math
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from staa.ops import SURROGATES, Surrogate, arctan, integrate, lif, rectangle, triangle
from staa.ops.scan import Reset, check_numbers
from staa.registry import Registry


def _check(
    channels: int | None,
    surrogate: Surrogate = arctan,
    reset: str = "zero",
    strict: bool = False,
    detach_reset: bool = False,
    **numbers: float,
) -> None:
    """Raise ValueError for an argument of another type or range than a neuron takes."""
    if channels is not None and (isinstance(channels, bool) or not isinstance(channels, int) or channels < 1):
        raise ValueError(
            f"channels must be a whole number of at least 1, or None, got {channels!r}; all else goes by keyword, as decay=0.9"
        )
    check_numbers(**numbers)
    for name, value in (("strict", strict), ("detach_reset", detach_reset)):
        if not isinstance(value, bool):
            raise ValueError(f"{name} must be True or False, got {value!r}")
    if reset not in ("zero", "subtract"):
        raise ValueError(f'reset must be "zero" or "subtract", got {reset!r}')
    if not callable(surrogate):
        raise ValueError(f"surrogate must be a function, as staa.ops.{' or staa.ops.'.join(SURROGATES)}, got {surrogate!r}")


class LIF(nn.Module):
    """Leaky integrate-and-fire with fixed constants: v[t] = decay · h[t−1] + gain · x[t], a spike where v ≥ threshold,
    or v > threshold if strict.

    `channels` is accepted and not needed, so that all neurons are built alike. Equations: `staa.ops.lif`.
    """

    def __init__(
        self,
        channels: int | None = None,
        *,
        decay: float = 0.5,
        gain: float = 1.0,
        threshold: float = 1.0,
        strict: bool = False,
        surrogate: Surrogate = arctan,
        reset: Reset = "zero",
        detach_reset: bool = False,
    ):
        super().__init__()
        _check(channels, surrogate, reset, strict, detach_reset, decay=decay, gain=gain, threshold=threshold)
        if not 0 <= decay <= 1:
            raise ValueError(f"decay must be in [0, 1], got {decay}")
        self.decay, self.gain, self.threshold, self.strict = decay, gain, threshold, strict
        self.surrogate: Surrogate = surrogate
        self.reset: Reset = reset
        self.detach_reset = detach_reset

    def forward(self, x: Tensor, scale: Tensor | None = None, shift: Tensor | None = None) -> Tensor:
        return self.scan(x, None, scale, shift)[0]

    def scan(
        self, x: Tensor, state: Tensor | None = None, scale: Tensor | None = None, shift: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        return lif(
            x,
            state,
            decay=self.decay,
            gain=self.gain,
            threshold=self.threshold,
            strict=self.strict,
            surrogate=self.surrogate,
            reset=self.reset,
            detach_reset=self.detach_reset,
            scale=scale,
            shift=shift,
        )

    def extra_repr(self) -> str:
        return f"decay={self.decay}, gain={self.gain}, threshold={self.threshold}, {_name(self.surrogate)}"


class ParametricLIF(nn.Module):
    """LIF with one learned decay for the layer, decay = σ(decay_logit) in (0, 1) (PLIF, Fang et al., ICCV 2021).

    decay: its initial value. gain=None ties the gain to the decay as the paper does, gain = 1 − decay (its k = 1/τ).
    """

    def __init__(
        self,
        channels: int | None = None,
        *,
        decay: float = 0.5,
        gain: float | None = 1.0,
        threshold: float = 1.0,
        strict: bool = False,
        surrogate: Surrogate = arctan,
        reset: Reset = "zero",
        detach_reset: bool = False,
    ):
        super().__init__()
        numbers = {"decay": decay, "threshold": threshold} | ({} if gain is None else {"gain": gain})
        _check(channels, surrogate, reset, strict, detach_reset, **numbers)
        if not 0 < decay < 1:
            raise ValueError(f"ParametricLIF needs an initial decay in (0, 1), got {decay}")
        self.decay_logit = nn.Parameter(torch.tensor(math.log(decay / (1 - decay))))
        self.gain, self.threshold, self.strict = gain, threshold, strict
        self.surrogate: Surrogate = surrogate
        self.reset: Reset = reset
        self.detach_reset = detach_reset

    def forward(self, x: Tensor, scale: Tensor | None = None, shift: Tensor | None = None) -> Tensor:
        return self.scan(x, None, scale, shift)[0]

    def scan(
        self, x: Tensor, state: Tensor | None = None, scale: Tensor | None = None, shift: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        decay = self.decay_logit.sigmoid()
        gain = 1 - decay if self.gain is None else self.gain
        return lif(
            x,
            state,
            decay=decay,
            gain=gain,
            threshold=self.threshold,
            strict=self.strict,
            surrogate=self.surrogate,
            reset=self.reset,
            detach_reset=self.detach_reset,
            scale=scale,
            shift=shift,
        )

    def extra_repr(self) -> str:
        gain = "1 - decay" if self.gain is None else self.gain
        return f"decay={self.decay_logit.sigmoid().item():.3f}, gain={gain}, threshold={self.threshold}"


class AdaptiveLIF(nn.Module):
    """STAA-SNN's neuron: v[t] = M ⊙ h[t−1] + G ⊙ x[t] with learned leak M (`decay`) and input gain G (`gain`).

    One M and G per channel (`per="channel"`, shape (C,)) or one pair for the layer (`per="layer"`, shape ()); neither
    is constrained. decay, gain: initial values. A fresh layer is exactly LIF(decay=0.25, threshold=0.5,
    surrogate=rectangle), the plain twin. The paper resets to zero. The shapes are our choice: the paper's text was not
    available.

    Raises ValueError when per="channel" comes without `channels`, or x has another number of channels.
    """

    def __init__(
        self,
        channels: int | None = None,
        *,
        decay: float = 0.25,
        gain: float = 1.0,
        threshold: float = 0.5,
        strict: bool = False,
        surrogate: Surrogate = rectangle,
        reset: Reset = "zero",
        detach_reset: bool = False,
        per: Literal["channel", "layer"] = "channel",
    ):
        super().__init__()
        _check(channels, surrogate, reset, strict, detach_reset, decay=decay, gain=gain, threshold=threshold)
        if per not in ("channel", "layer"):
            raise ValueError(f'per must be "channel" or "layer", got {per!r}')
        if per == "channel" and channels is None:
            raise ValueError('AdaptiveLIF learns one decay per channel: give channels, or per="layer"')
        shape = (channels,) if per == "channel" and channels is not None else ()
        self.decay = nn.Parameter(torch.full(shape, float(decay)))
        self.gain = nn.Parameter(torch.full(shape, float(gain)))
        self.threshold, self.strict = threshold, strict
        self.surrogate: Surrogate = surrogate
        self.reset: Reset = reset
        self.detach_reset = detach_reset

    def forward(self, x: Tensor, scale: Tensor | None = None, shift: Tensor | None = None) -> Tensor:
        return self.scan(x, None, scale, shift)[0]

    def scan(
        self, x: Tensor, state: Tensor | None = None, scale: Tensor | None = None, shift: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        decay, gain = (self._over_space(p, x) for p in (self.decay, self.gain))
        return lif(
            x,
            state,
            decay=decay,
            gain=gain,
            threshold=self.threshold,
            strict=self.strict,
            surrogate=self.surrogate,
            reset=self.reset,
            detach_reset=self.detach_reset,
            scale=scale,
            shift=shift,
        )

    def extra_repr(self) -> str:
        return f"shape={tuple(self.decay.shape)}, threshold={self.threshold}, {_name(self.surrogate)}"

    @staticmethod
    def _over_space(p: Tensor, x: Tensor) -> Tensor:
        if p.ndim == 0:
            return p
        if x.ndim < 3 or x.shape[2] != len(p):
            raise ValueError(f"this AdaptiveLIF has {len(p)} channels (dimension 2), got a current {list(x.shape)}")
        return p.view(-1, *[1] * (x.ndim - 3))


class Integrator(nn.Module):
    """A readout that never fires: v[t] = decay · v[t−1] + gain · x[t], returned at each step [T, N, ...].

    decay=1 adds the currents up; decay < 1 forgets. Its last step, or its mean over time, serves as logits.
    """

    def __init__(self, channels: int | None = None, *, decay: float = 1.0, gain: float = 1.0):
        super().__init__()
        _check(channels, decay=decay, gain=gain)
        if not 0 <= decay <= 1:
            raise ValueError(f"decay must be in [0, 1], got {decay}")
        self.decay, self.gain = decay, gain

    def forward(self, x: Tensor, scale: Tensor | None = None, shift: Tensor | None = None) -> Tensor:
        return self.scan(x, None, scale, shift)[0]

    def scan(
        self, x: Tensor, state: Tensor | None = None, scale: Tensor | None = None, shift: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        return integrate(x, state, decay=self.decay, gain=self.gain, scale=scale, shift=shift)

    def extra_repr(self) -> str:
        return f"decay={self.decay}, gain={self.gain}"


def _name(f: Surrogate) -> str:
    return getattr(f, "__name__", repr(f))


NEURONS = Registry(
    "neuron",
    "staa.neurons.NEURONS",
    {
        "lif": LIF,
        "parametric": ParametricLIF,
        # Whether STAA-SNN's fires at its threshold is not known to us; its authors' FSTA-SNN fires above.
        "adaptive": partial(AdaptiveLIF, strict=True),
        "plain": partial(LIF, decay=0.25, threshold=0.5, strict=True, surrogate=rectangle),  # its twin, FSTA-SNN's neuron
        "seqsnn": partial(LIF, decay=0.5, gain=0.5, threshold=1.0, surrogate=arctan, detach_reset=True),  # Lv et al., ICML 2024
        "dta": partial(LIF, decay=0.5, threshold=1.0, strict=True, surrogate=triangle),  # DTA-SNN's, and TET's
    },
    functions={"surrogate": SURROGATES},
)
