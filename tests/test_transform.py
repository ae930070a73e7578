"""Targets that can't be negative: logarithms for the network, real units in every figure and forecast."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from test_forecasting import finish, small

from staa.build import task_of
from staa.build.taken import settings_taken
from staa.data import TimeSeries, forecast_source
from staa.recipes.parts import Series
from staa.runs import evaluate_run
from staa.runs.folder import read_result
from staa.training.metrics import forecast_figures, forecast_sums


def counts(rows=400):
    """Counts of three nodes, many of them 0."""
    wave = np.exp(1 + np.sin(2 * np.pi * (np.arange(rows)[:, None] / 24 + np.arange(3) / 3)))
    values = np.random.default_rng(0).poisson(wave).astype(float)
    values[17, 1] = math.nan
    return TimeSeries(values, None, ("a", "b", "c"))


@pytest.mark.parametrize("normalise", ["none", "max", "zscore", "zscore-per-variate"])
def test_a_logarithm_is_undone_exactly(normalise):
    series = counts()
    source = forecast_source(series, window=6, horizon=2, normalise=normalise, transform="log1p", gaps="mask")
    known = ~np.isnan(series.values)
    assert np.allclose(source.normaliser.real(source.values).numpy()[known], series.values[known], rtol=1e-5, atol=1e-5)
    seen = np.log1p(series.values[: len(source.train) + 6 + 2 - 1])
    if normalise == "zscore-per-variate":
        assert source.normaliser.offset.numpy() == pytest.approx(np.nanmean(seen, 0))
        assert source.normaliser.scale.numpy() == pytest.approx(np.nanstd(seen, 0))


@pytest.mark.parametrize("log1p", [False, True])
@pytest.mark.parametrize("nonnegative", [False, True])
def test_figures_are_in_real_units(log1p, nonnegative):
    """Against plain numpy, forecasts below 0 among them, in two batches."""
    rng = np.random.default_rng(0)
    truth = rng.poisson(3.0, (40, 4, 3)).astype(float)
    unknown = rng.random(truth.shape) < 0.05
    offset, scale = np.array([0.5, 1.0, 1.5]), np.array([1.0, 2.0, 0.5])
    into = np.log1p if log1p else np.array
    back = np.expm1 if log1p else np.array
    y = np.where(unknown, np.nan, (into(truth) - offset) / scale)
    f = np.where(unknown, 0.0, y) + rng.normal(0, 0.8, truth.shape)
    real = back(f * scale + offset)
    assert (real < 0).any()
    if nonnegative:
        real = np.maximum(real, 0)
    how = {"offset": torch.from_numpy(offset), "scale": torch.from_numpy(scale), "missing": 0.0, "log1p": log1p}
    parts = [(torch.from_numpy(f[b]), torch.from_numpy(y[b])) for b in (slice(0, 16), slice(16, 40))]
    figures = forecast_figures(sum(forecast_sums(a, b, nonnegative=nonnegative, **how) for a, b in parts))
    counted = ~unknown & (truth != 0)
    error = (real - truth)[counted]
    assert figures["mae"] == pytest.approx(np.abs(error).mean())
    assert figures["rmse"] == pytest.approx(math.sqrt((error**2).mean()))
    assert figures["mape"] == pytest.approx(np.abs(error / truth[counted]).mean())
    normalised = (into(real) - offset) / scale
    assert figures["loss"] == pytest.approx(np.nanmean((normalised - y) ** 2))
    z, ez = (truth, real - truth) if log1p else (y, normalised - y)
    z, ez = np.where(unknown, np.nan, z), np.where(unknown, np.nan, ez)
    assert figures["r2"] == pytest.approx(1 - np.nansum(ez**2) / np.nansum((z - np.nanmean(z)) ** 2))
    assert figures["rse"] == pytest.approx(math.sqrt(np.nansum(ez**2) / np.nansum((z - np.nanmean(z, 0)) ** 2)))


def test_a_run_on_logarithms_tells_its_figures_in_real_units(tmp_path):
    recipe = small("linear")
    plain = finish(recipe, tmp_path / "plain")[-1]
    logs = replace(recipe, series=replace(recipe.series, transform="log1p", nonnegative=True))
    made = finish(logs, tmp_path / "logs")[-1]
    assert made.details["normaliser"].endswith("after log1p")
    assert made.test["mae"] == pytest.approx(plain.test["mae"], rel=0.1)  # values near 10 with noise 0.1: hardly bent
    assert made.test["mae"] != plain.test["mae"]
    assert evaluate_run(tmp_path / "logs")["mae"] == read_result(tmp_path / "logs")["test_mae"]
    taken = settings_taken(task_of(logs))
    assert {"series.transform", "series.nonnegative"} <= taken


@pytest.mark.parametrize("change", [{"transform": "log1p"}, {"nonnegative": True}])
def test_negative_values_are_refused_first(change):
    series = counts()
    values = series.values.copy()
    values[5, 2] = -3
    ((name, value),) = change.items()
    with pytest.raises(ValueError, match=rf"`series\.{name}={value}` is for values .* variate c is -3 in row 5"):
        forecast_source(replace(series, values=values), window=6, horizon=2, gaps="mask", **change)


def test_an_unknown_transform_is_refused():
    with pytest.raises(ValueError, match=r"series\.transform"):
        Series(horizon=2, transform="sqrt")  # type: ignore[arg-type]
