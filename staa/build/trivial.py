"""Forecasts that need no network: what any has to beat, on the same windows."""

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from staa.counting import counted
from staa.data import Normaliser, SeriesSource, WindowBatches
from staa.data.batches import spread
from staa.data.series.season import Kind, latest_known, naive_name, rows_before
from staa.forecasters import FORECASTERS
from staa.forecasters.seasonal import Seasonal
from staa.training.evaluate import Measure, call

ROWS = 200_000  # windows × nodes that a linear model is fitted on, spread evenly
BATCH = 256
AVERAGES: tuple[Kind, ...] = ("day+weekend", "day")
"""Seasons of the historical average, the first one that is possible."""
NAIVE: dict[Kind, int] = {"day": 1, "week": 7}
"""Seasons that seasonal naive goes back by, in days."""
SEASONS: tuple[Kind, ...] = ("none", "day", "day+weekend", "week")  # from coarse to fine
WORTH = 0.05  # share of the error by which a finer season must be better: its means are of fewer rows


def in_season(forecaster: nn.Module, facts: Mapping[str, Any], source: SeriesSource | None = None) -> nn.Module:
    """A forecaster of what is left without the season of these facts, if they have a clock. The profile is the data's, or 0
    without data."""
    if facts.get("clock") is None:
        return forecaster
    model = Seasonal(forecaster, facts["nodes"], kind=facts["season"], slots=facts["clock"][0])
    if source is not None and source.phase is not None:
        model.fit_season(source.measured, source.phase[: source.told])
    return model


def best_season(source: SeriesSource) -> SeriesSource:
    """The data with the season whose profile leaves a linear model the least absolute error on validation, but a coarser one if
    that is within 5 %; and a note of it.

    Raises ValueError without validation.
    """
    possible: list[Kind] = [kind for kind in SEASONS if source.why_no_season(kind) is None]
    if possible == ["none"]:
        return source
    if source.validation is None:
        raise ValueError(
            f"`series.season=auto` chooses on validation, and there is none: give `data.validation` a share, or name the "
            f"season ({', '.join(possible)})"
        )
    chosen = thinned(source.validation, source)
    errors: dict[Kind, float] = {}
    for kind in counted(possible, "choosing the season", len(possible)):
        told = source.with_season(kind)
        model = linear(told)
        errors[kind] = math.inf if model is None else _error(model, windows_of(told, chosen), source.normaliser)
    best: Kind = next(kind for kind in possible if errors[kind] <= (1 + WORTH) * min(errors.values()))
    listed = ", ".join(f"{kind} {error:.4g}" for kind, error in errors.items())
    note = f"season: {best}, chosen by a linear model's mean absolute error on validation ({listed})"
    return replace(source.with_season(best), notes=(*source.notes, note))


def _error(model: nn.Module, batches: Any, normaliser: Normaliser) -> float:
    """Mean absolute error in the series' units; infinite if nothing is known."""
    total = known = 0.0
    for inputs, y in batches:
        error = normaliser.real(call(model, inputs)) - normaliser.real(y)
        total, known = total + float(error.abs().nansum()), known + float((~y.isnan()).sum())
    return total / known if known else math.inf


def linear(source: SeriesSource) -> nn.Module | None:
    """Least squares on a node's own window and the time features, shared by the nodes, beside the data's season; None if the
    window is too long for it, or no window is without gaps."""
    facts = source.facts
    batches = windows_of(source, thinned(source.train, source))
    try:
        model = FORECASTERS["linear"](facts["nodes"], facts["window"], facts["horizon"], time_features=facts["features"])
        whole = in_season(model, facts, source)
        cast(Any, model).fit(whole.rest(batches) if isinstance(whole, Seasonal) else batches)
    except ValueError:
        return None
    return whole


def thinned(windows: range, source: SeriesSource) -> Tensor:
    """First rows of windows, so many that they hold `ROWS` rows of a node at most, spread evenly."""
    return windows.start + spread(max(1, ROWS // len(source.names)), windows)


def windows_of(source: SeriesSource, chosen: Tensor) -> Any:
    """Batches of the windows that begin at these rows."""
    batches = WindowBatches(source, "train", 1)
    return (batches.at(some) for some in chosen.split(BATCH))


def naive_error(source: SeriesSource) -> Tensor | None:
    """What MASE divides by: the mean absolute error over the training rows of the value a day before, or of the row before if
    their day is not known or too long; 0 if nothing tells: [K], in the series' units. None for data that nothing trains on."""
    if not source.train:
        return None
    measured = source.normaliser.real(source.measured)
    if source.clock is not None and source.why_no_season("day") is None:
        before = torch.from_numpy(rows_before(source.rows[: source.told], source.clock, 1))
    else:
        before = torch.arange(-1, source.told - 1)
    error = (measured - measured[before]).where((before >= 0)[:, None], torch.nan)
    return error.abs().nanmean(0).nan_to_num()


def trivial_figures(source: SeriesSource, measure: Measure) -> dict[str, dict[str, Any] | None]:
    """Test figures of trivial forecasts, with the absolute error at each step ahead; None for one that is not possible.

        last value              of the window
        seasonal naive (day)    the value of the latest day before, at the same time, that the window's end knows
        seasonal naive (week)   the same of the latest week before; (period) and (7 periods) for rows that go by their number
        historical average      mean of the training rows at this time of the day, on weekdays and on weekends if both are known
        linear                  least squares on a node's own window and the time features
        linear + profile        the same of what is left without the historical average

    Where no such row is known, seasonal naive takes the last value.
    """
    told = replace(source, tells_phase=source.clock is not None)
    average: Kind | None = None
    for kind in AVERAGES:
        average = kind if average is None and source.why_no_season(kind) is None else average
    forecasts: dict[str, Callable[[Tensor], Tensor] | None] = {"last value": _last_value(source)}
    for kind, days in NAIVE.items():
        naive = _seasonal_naive(source, days) if source.why_no_season(kind) is None else None
        forecasts[naive_name(kind, source.clock)] = naive
    profiled = told.with_season(average) if average is not None else None
    forecasts["historical average"] = None if profiled is None else _average(profiled)
    forecasts["linear"] = _of_model(linear(source.with_season("none")), source)
    forecasts["linear + profile"] = None if profiled is None else _of_model(linear(profiled), profiled)
    targets = WindowBatches(source, "test", BATCH)
    sums: dict[str, Any] = {}
    places = torch.arange(len(source.test)).split(BATCH)
    for some in counted(places, "measuring trivial forecasts", len(places)):
        _, y = targets.take(some)
        for name, forecast in forecasts.items():
            if forecast is not None:
                found = measure.sums(forecast(some + source.test.start), y)
                sums[name] = found if name not in sums else sums[name] + found
    return {name: _told(sums[name], measure) if name in sums else None for name in forecasts}


def _told(sums: Tensor, measure: Measure) -> dict[str, Any]:
    return {**measure.figures(sums), "mae_by_step": [point["mae"] for point in measure.details(sums)["horizons"]]}


def _rows_told(first: Tensor, source: SeriesSource) -> tuple[Tensor, Tensor]:
    """(the last row that each window sees [B, 1], the rows that it is told [B, P])"""
    last = first[:, None] + source.window - 1
    return last, last + 1 + torch.arange(source.horizon)


def _last_value(source: SeriesSource) -> Callable[[Tensor], Tensor]:
    return lambda first: source.values[_rows_told(first, source)[0]].expand(-1, source.horizon, -1)


def _seasonal_naive(source: SeriesSource, days: int) -> Callable[[Tensor], Tensor]:
    assert source.clock is not None
    before = rows_before(source.rows, source.clock, days)

    def forecast(first: Tensor) -> Tensor:
        last, rows = _rows_told(first, source)
        return source.values[torch.from_numpy(latest_known(rows.numpy(), last.numpy(), before))]

    return forecast


def _average(source: SeriesSource) -> Callable[[Tensor], Tensor]:
    model = in_season(nn.Identity(), source.facts, source)
    assert source.phase is not None
    phase, season = source.phase, cast(Seasonal, model).season
    return lambda first: cast(Tensor, season(phase[_rows_told(first, source)[1]]))


def _of_model(model: nn.Module | None, source: SeriesSource) -> Callable[[Tensor], Tensor] | None:
    if model is None:
        return None
    batches = WindowBatches(source, "train", 1)
    return lambda first: call(model, batches.at(first)[0])
