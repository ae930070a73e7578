"""Intervals of a forecast: split conformal prediction, by the errors on validation."""

import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import torch
from torch import Tensor, nn

from staa.counting import counted
from staa.data.series.source import SeriesSource
from staa.files import check_bytes
from staa.inference.ahead import look_ahead
from staa.inference.prepared import Prepared


@dataclass(frozen=True)
class Band:
    """How far from a forecast the truth may be, at a level such as 0.9: float64, normalised.

    Shapes:
        reach [steps, K]
    """

    level: float
    reach: Tensor
    notes: tuple[str, ...]

    def around(self, forecast: Tensor, series: Prepared) -> tuple[np.ndarray, np.ndarray]:
        """The lower and the upper end for forecasts [B, steps, K], in real units."""
        ends = (series.normaliser.real(forecast.double() + side * self.reach) for side in (-1, 1))
        lower, upper = (end.numpy() for end in ends)
        return lower, upper


def check_level(level: float | None) -> None:
    """Raises ValueError for what is no level of an interval."""
    if level is not None and not (isinstance(level, int | float) and 0 < level < 1):
        raise ValueError(f"`interval` is the share of values that it shall hold, above 0 and below 1, such as 0.9; got {level}")


def calibrated(
    model: nn.Module, series: Prepared, source: SeriesSource, level: float, steps: int, *, batch_size: int, device: torch.device
) -> Band:
    """The band of a level, by the errors on validation, for each step ahead h and variate k:

        reach_hk = the ⌈(n + 1) · level⌉-th smallest of the n errors |y − ŷ|

    of all variates together at a step, normalised, if one has too few for that. What stands for no measurement, and rows after
    validation's last one, are left out. series, source: the run's own data.

    Were the errors of validation and of a forecast exchangeable, the band would hold the truth with at least this probability.
    Those of a series are not: they depend on each other, and drift.

    Raises ValueError if there is no validation part, or it is too short.

    Source: Vovk, Gammerman and Shafer, 2005; Lei et al., JASA 2018.
    """
    if source.validation is None:
        raise ValueError(
            "an interval is made from the errors on validation, and this run held none out (`data.validation=0`): leave out "
            "`interval`, or train a run with `data.validation=0.1`"
        )
    origins = torch.tensor(source.validation) + series.window - 1
    last = int(origins[-1]) + series.horizon  # that validation is told
    check_bytes(2 * 8 * len(origins) * steps * len(series.names), "the errors on validation")
    errors = np.full((len(origins), steps, len(series.names)), np.nan)
    pieces = origins.split(batch_size)
    for k, some in enumerate(counted(pieces, "looking at validation", len(pieces))):
        truth = series.truth(some.numpy(), steps)
        rows = some.numpy()[:, None] + np.arange(1, steps + 1)
        truth[rows > last] = np.nan
        if source.missing is not None:
            truth[truth == source.missing] = np.nan
        forecast = series.normaliser.clipped(look_ahead(model, series, some, steps, device).double())
        errors[k * batch_size : k * batch_size + len(some)] = (
            (series.normaliser.normalise(torch.from_numpy(truth)) - forecast).abs().numpy()
        )
    reach, pooled = reach_of(errors, level)
    notes = ()
    if pooled.any():
        least = needed(level)
        notes = (
            f"an interval of {level:.4g} needs {least} errors on validation, and {int(pooled.any(0).sum())} of "
            f"{len(series.names)} variates have fewer: theirs is of all variates together",
        )
    return Band(level, torch.from_numpy(reach), notes)


def needed(level: float) -> int:
    """The least n with ⌈(n + 1) · level⌉ ≤ n."""
    share = Fraction(str(level))
    return math.ceil(share / (1 - share))


def reach_of(errors: np.ndarray, level: float) -> tuple[np.ndarray, np.ndarray]:
    """The finite-sample quantile of errors [n, H, K], NaN left out: [H, K], and which are of all variates together [H, K].

    Raises ValueError if all of a step's are too few.
    """
    share = Fraction(str(level))  # as it is written: 0.9 · 10 is 9
    least = needed(level)
    reach = np.empty(errors.shape[1:])
    pooled = np.zeros(reach.shape, bool)
    for h in range(len(reach)):
        ordered = np.sort(errors[:, h], 0)  # NaN comes last
        counts = (~np.isnan(ordered)).sum(0)
        few = counts < least
        if few.any():
            together = np.sort(errors[:, h], None)
            n = int(counts.sum())
            if n < least:
                raise ValueError(
                    f"an interval of {level:.6g} needs {least} errors on validation for each step ahead, and there are {n} at "
                    f"step {h + 1}: ask for a smaller `interval` or fewer steps, or train a run with a larger `data.validation`"
                )
            reach[h] = together[math.ceil((n + 1) * share) - 1]
        ranks = np.array([math.ceil((int(n) + 1) * share) for n in counts])
        own = np.flatnonzero(~few)
        reach[h, own] = ordered[ranks[own] - 1, own]
        pooled[h] = few
    return reach, pooled
