"""Pure functions on tensors whose dimension 0 is time."""

from staa.ops.encode import direct, latency, rate
from staa.ops.scan import integrate, lif, lif_reference
from staa.ops.spike import SURROGATES, Surrogate, arctan, fast_sigmoid, fire, rectangle, sigmoid, triangle

__all__ = [
    "SURROGATES",
    "Surrogate",
    "arctan",
    "direct",
    "fast_sigmoid",
    "fire",
    "integrate",
    "latency",
    "lif",
    "lif_reference",
    "rate",
    "rectangle",
    "sigmoid",
    "triangle",
]
