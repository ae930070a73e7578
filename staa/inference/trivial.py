"""What a forecast has to beat on a file of its own, for which nothing is fitted."""

from typing import cast

import numpy as np
import torch
from torch import nn

from staa.build.trivial import NAIVE
from staa.data.series.season import clock_of, latest_known, naive_name, rows_before, why_never
from staa.data.series.series import TimeSeries
from staa.forecasters.seasonal import Seasonal
from staa.inference.prepared import Prepared


def trivial(
    model: nn.Module, prepared: Prepared, series: TimeSeries, origins: np.ndarray, steps: int, period: int | None
) -> dict[str, np.ndarray]:
    """Trivial forecasts of the steps after each origin in real units, by name, each [B, steps, K].

    The last value; that of the same time a day and a week before, if there is such a season and the file reaches back so far
    from each origin; and the profile of the rows that the run was trained on, if it has a season.
    """
    last = origins[:, None]
    rows = last + np.arange(1, steps + 1)
    values = prepared.normaliser.real(prepared.normal).numpy()
    found = {"last value": values[np.broadcast_to(last, rows.shape)]}
    clock = clock_of(series.times, series.every, period)
    if clock is not None:
        points = prepared.when if clock.seconds is not None else np.arange(len(prepared.when))
        for kind, days in NAIVE.items():
            before = rows_before(points, clock, days)
            if why_never(kind, points, clock) is None and (before[last] >= 0).all():
                found[naive_name(kind, clock)] = values[latest_known(rows, last, before)]
    if isinstance(model, Seasonal) and model.profile is not None and prepared.phase is not None:
        season = cast(torch.Tensor, model.season(prepared.phase[torch.from_numpy(rows)].to(model.profile.device)))
        found["historical average"] = prepared.normaliser.real(season.cpu()).numpy()
    return found
