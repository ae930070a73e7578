"""The losses of `staa.training.losses`, under the name they have always had."""

from staa.training.losses import (
    FORECAST_LOSSES,
    LOSSES,
    mean_absolute_error,
    mean_binary_cross_entropy,
    mean_cross_entropy,
    mean_squared_error,
    rate_penalty,
    tet,
)

__all__ = [
    "FORECAST_LOSSES",
    "LOSSES",
    "mean_absolute_error",
    "mean_binary_cross_entropy",
    "mean_cross_entropy",
    "mean_squared_error",
    "rate_penalty",
    "tet",
]
