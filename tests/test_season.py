"""The season: phases, profiles, what they are subtracted from, and what trivial forecasts reach; against pandas and loops."""

import csv
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tiny
import torch
from tiny import times, weekly
from torch import nn

import staa
from staa.build import task_of
from staa.build.trivial import trivial_figures
from staa.cli import main
from staa.data import WindowBatches, forecast_source
from staa.data.series.season import Clock, clock_of, rows_before, why_not
from staa.forecasters.baselines import LastValue
from staa.forecasters.seasonal import Seasonal
from staa.inference.forecast import predict
from staa.recipes import RECIPES
from staa.recipes.parts import Series
from staa.runs import Run, evaluate_run, run
from staa.training.metrics import forecast_figures, forecast_sums


def recipe_of(model="linear", **series):
    recipe = RECIPES[f"series-{model}"]
    data = replace(recipe.data, name=f"{tiny.__file__}:weekly")
    return replace(recipe, data=data, series=Series(horizon=4, **series), epochs=1)


@pytest.mark.parametrize(("every", "slots"), [("10min", 144), ("h", 24), ("7min", 206), ("D", 1), ("2D", 1), ("45min", 32)])
def test_phases_are_pandas(every, slots):
    when = times(3000, "2023-12-28", every)
    clock = clock_of(when, float(pd.Timedelta(np.diff(when)[0]).total_seconds()), None)
    assert clock.slots == slots
    phase = clock.phase(when)
    index = pd.DatetimeIndex(when)
    seconds = index.hour * 3600 + index.minute * 60 + index.second
    assert np.array_equal(phase[:, 0], np.minimum(seconds // clock.seconds, slots - 1))
    assert np.array_equal(phase[:, 1], index.day_of_week)


@pytest.mark.parametrize(("kind", "keys"), [("day", ["slot"]), ("week", ["weekday", "slot"]), ("day+weekend", ["end", "slot"])])
def test_a_profile_is_a_mean_by_group(kind, keys):
    """An empty cell has the mean of its slot on all days, a slot without any the mean of the node, a node without any 0."""
    series = weekly(24 * 21)
    series.values[np.random.default_rng(1).random(series.values.shape) < 0.2] = np.nan
    index = pd.DatetimeIndex(series.times)
    series.values[(index.hour == 3) & (index.day_of_week >= 5), 0] = np.nan
    series.values[index.hour == 5, 1] = np.nan
    series.values[:, 2] = np.nan
    phase = torch.from_numpy(Clock(24, 3600.0).phase(series.times))
    model = Seasonal(nn.Identity(), 3, kind=kind, slots=24).double()
    model.fit_season(torch.from_numpy(series.values), phase)
    table = pd.DataFrame(series.values)
    groups = {"slot": index.hour, "weekday": index.day_of_week, "end": index.day_of_week >= 5}
    fine = table.groupby([groups[key] for key in keys]).transform("mean")
    rough = table.groupby(index.hour).transform("mean")
    expected = fine.fillna(rough).fillna(table.mean()).fillna(0.0)
    assert np.allclose(model.season(phase).numpy(), expected.to_numpy())


@pytest.mark.parametrize("kind", ["none", "day", "week", "day+weekend"])
def test_a_season_is_subtracted_and_added_back(kind):
    source = forecast_source(weekly(), window=6, horizon=4, season=kind, phases=True)
    model = Seasonal(LastValue(3, 6, 4, time_features=4), 3, kind=kind, slots=24)
    model.fit_season(source.measured, source.phase[: source.told])
    (x, time, phase), _ = WindowBatches(source, "test", 1).take(torch.arange(5))
    assert phase.shape == (5, 10, 2)
    season = 0 if kind == "none" else model.season(phase)
    expected = x[:, -1:].expand(-1, 4, -1) if kind == "none" else (x - season[:, :6])[:, -1:] + season[:, 6:]
    assert torch.allclose(model(x, time, phase), expected)
    again = Seasonal(LastValue(3, 6, 4, time_features=4), 3, kind=kind, slots=24)
    again.load_state_dict(model.state_dict())
    assert torch.equal(again(x, time, phase), model(x, time, phase))
    [((rest, _), y)] = model.rest([((x, time, phase), torch.zeros(5, 4, 3))])
    if kind != "none":
        assert torch.allclose(rest, x - season[:, :6])
        assert torch.allclose(y, -season[:, 6:])


def test_the_season_is_of_the_training_rows():
    series = weekly()
    a = forecast_source(series, window=6, horizon=4, season="day", phases=True)
    series.values[a.told :] += 1000
    b = forecast_source(series, window=6, horizon=4, season="day", phases=True)
    assert torch.equal(a.measured, b.measured)
    assert a.told == a.train.stop + 9
    missing = replace(series, missing=float(series.values[3, 1]))
    assert forecast_source(missing, window=6, horizon=4).measured[3].isnan().tolist() == [False, True, False]


@pytest.mark.parametrize(
    ("kind", "rows", "start", "clock", "why"),
    [
        ("day", 48, "2024-01-01", Clock(24, 3600.0), None),
        ("day", 47, "2024-01-01", Clock(24, 3600.0), "it needs 2 days to train on, and there are 1.96"),
        ("week", 24 * 14, "2024-01-01", Clock(24, 3600.0), None),
        ("week", 24 * 14 - 1, "2024-01-01", Clock(24, 3600.0), "it needs 14 days"),
        ("day+weekend", 24 * 4, "2024-01-04", Clock(24, 3600.0), None),
        ("day+weekend", 24 * 5, "2024-01-01", Clock(24, 3600.0), "two days of a weekend"),
        ("day", 100, "2024-01-01", Clock(1, 86400.0), "a day is a single row"),
        ("day", 100, "2024-01-01", None, "nothing tells what a day is"),
        ("none", 1, "2024-01-01", None, None),
    ],
)
def test_a_season_must_be_seen_twice(kind, rows, start, clock, why):
    found = why_not(kind, times(rows, start), clock)
    assert found is None if why is None else why in found


def test_months_and_other_periods_have_no_week():
    begins = np.datetime64("2020-01") + np.arange(61)
    ends = begins[1:].astype("datetime64[D]") - 1
    for rows in (begins.astype("datetime64[ns]"), ends.astype("datetime64[ns]"), times(60, "2020-01-01", "2D")):
        clock = clock_of(rows, float((rows[1] - rows[0]) / np.timedelta64(1, "s")), None)
        assert {kind: why_not(kind, rows, clock) for kind in ("week", "day+weekend")} == dict.fromkeys(
            ("week", "day+weekend"), "rows are more than a day apart"
        )
    for every in ("D", "B"):
        rows = times(60, "2020-01-01", every)
        assert why_not("week", rows, clock_of(rows, 86400.0, None)) is None
    assert "is no day" in why_not("week", np.arange(600), clock_of(times(600), 3600.0, 7))
    assert why_not("week", np.arange(600), clock_of(None, None, 7)) is None  # nobody knows


def test_a_season_that_is_not_possible_is_refused_before_training(tmp_path):
    with pytest.raises(ValueError, match="`series.season=week` is not possible: it needs 14 days"):
        forecast_source(weekly(24 * 15), window=6, horizon=4, season="week")
    with pytest.raises(ValueError, match="`series.season=day` is not possible: nothing tells what a day is.*series.period"):
        forecast_source(replace(weekly(), times=None), window=6, horizon=4, season="day")
    with pytest.raises(
        ValueError, match="`series.season=day.weekend` is not possible: rows that go by their number have no weekend"
    ):
        forecast_source(replace(weekly(), times=None), window=6, horizon=4, season="day+weekend", period=24)
    recipe = replace(recipe_of(season="auto"), data=replace(recipe_of().data, validation=0.0))
    with pytest.raises(ValueError, match="chooses on validation, and there is none.*none, day, day.weekend, week"):
        task_of(recipe).source(Path("data"))


def test_a_period_of_rows_serves_a_series_without_times():
    dated, undated = weekly(), replace(weekly(), times=None)
    a = forecast_source(dated, window=6, horizon=4, season="week", phases=True, time_features=False)
    b = forecast_source(undated, window=6, horizon=4, season="week", period=24, phases=True)
    assert torch.equal(a.phase, b.phase)  # it begins on a Monday, at midnight
    assert b.facts["clock"] == [24, None, None]


def test_rows_of_another_file_go_on_with_the_clock():
    months = times(40, "2020-01-01", "MS")
    clock = clock_of(months, 31 * 86400.0, 12)
    later = clock.points(months[30:], 10, 31 * 86400.0)
    assert later.tolist() == list(range(30, 40))
    hours = times(100)
    clock = clock_of(hours, 3600.0, 25)
    assert clock.points(hours[55:], 45, 3600.0).tolist() == list(range(55, 100))
    assert clock_of(hours, 3600.0, 24) == clock_of(hours, 3600.0, None)  # a day by its times, which tell weekends too
    assert Clock(24).points(None, 3, None).tolist() == [0, 1, 2]
    with pytest.raises(ValueError, match="these rows have no times"):
        Clock(24, 3600.0).points(None, 3, None)


def test_rows_a_day_before():
    when = np.delete(times(100), [30, 31, 60])
    before = rows_before(when, Clock(24, 3600.0), 1)
    for row, at in enumerate(when):
        wanted = np.flatnonzero(when == at - np.timedelta64(1, "D"))
        assert before[row] == (wanted[0] if len(wanted) else -1)
    assert rows_before(np.arange(5), Clock(3), 1).tolist() == [-1, -1, -1, 0, 1]


def test_trivial_forecasts_are_loops():
    """Each value of each window of the test part, from the real series."""
    series = weekly(24 * 30)
    task = task_of(recipe_of())
    source = forecast_source(series, window=6, horizon=30, season="none")
    found = trivial_figures(source, task.measure(source, torch.device("cpu")))
    values, index = series.values, pd.DatetimeIndex(series.times)
    end, train = index.day_of_week >= 5, np.arange(len(values)) < source.told
    errors = {"last value": [], "seasonal naive (day)": [], "seasonal naive (week)": [], "historical average": []}
    for first in source.test:
        last = first + 5
        for ahead in range(1, 31):
            row = last + ahead
            same = train & (index.hour == index.hour[row]) & (end == end[row])
            forecast = {
                "last value": values[last],
                "seasonal naive (day)": values[row - 24 * math.ceil(ahead / 24)],
                "seasonal naive (week)": values[row - 168],
                "historical average": values[same].mean(0),
            }
            for name, value in forecast.items():
                errors[name].append(np.abs(value - values[row]))
    for name, values in errors.items():
        assert found[name]["mae"] == pytest.approx(np.mean(values), rel=1e-5), name
        assert np.mean(found[name]["mae_by_step"]) == pytest.approx(found[name]["mae"])
    assert found["linear + profile"]["mae"] < found["linear"]["mae"]
    assert list(found) == [*errors, "linear", "linear + profile"]


def test_what_is_not_possible_is_told_as_such():
    source = forecast_source(weekly(24 * 12), window=6, horizon=4)
    found = trivial_figures(source, task_of(recipe_of()).measure(source, torch.device("cpu")))
    assert found["seasonal naive (week)"] is None
    undated = forecast_source(replace(weekly(), times=None), window=6, horizon=4)
    found = trivial_figures(undated, task_of(recipe_of()).measure(undated, torch.device("cpu")))
    assert [name for name, figures in found.items() if figures is not None] == ["last value", "linear"]


def test_a_result_does_not_need_a_linear_model(tmp_path):
    """Each window ahead has a gap, so that none can be fitted; nor can a season be chosen by one."""
    recipe = recipe_of("last-value", season="auto", gaps="mask")
    recipe = replace(recipe, data=replace(recipe.data, name=f"{tiny.__file__}:holes"))
    result = list(run(recipe, tmp_path / "run"))[-1]
    assert result.details["baselines"]["linear"] is None
    assert result.details["baselines"]["last value"]["mae"] == pytest.approx(result.test["mae"])
    assert Run(tmp_path / "run").about["season"] == "none"


def test_values_too_large_to_normalise_are_not_called_constant():
    values = weekly().values.copy()
    values[5, 1] = 1e300
    with pytest.raises(ValueError, match=r"values up to 1e\+300 are too large to normalise"):
        forecast_source(replace(weekly(), values=values), window=6, horizon=4)


@pytest.mark.parametrize("normalise", ["zscore", "zscore-per-variate"])
def test_a_value_that_outweighs_all_others_is_named(normalise):
    options = dict(window=6, horizon=4, train=0.7, validation=0.1, normalise=normalise)
    usual = weekly()
    assert not any("outweighs" in note for note in forecast_source(usual, **options).notes)
    for value, row in ((1e6, 100), (-1e300, 950), (1e9, 3)):  # the last rows are the test's
        values = usual.values.copy()
        values[row, 1] = value
        (note,) = [n for n in forecast_source(replace(usual, values=values), **options).notes if "outweighs" in n]
        assert f"{value:.4g} in b, row {row};" in note


@pytest.mark.parametrize("normalise", ["zscore", "zscore-per-variate"])
def test_values_that_float32_can_not_tell_apart_are_refused(normalise):
    options = dict(window=6, horizon=4, train=0.7, validation=0.1, normalise=normalise)
    usual, values = weekly(), weekly().values.copy()
    values[[100, 101], 1] = 1e30
    message = rf"normalised, `series.normalise={normalise}`: the largest value is 1e\+30, in b, row 100\..*`series.missing`"
    with pytest.raises(ValueError, match=message):
        forecast_source(replace(usual, values=values), **options)
    values[[100, 101], 1] = np.nan
    forecast_source(replace(usual, values=values), gaps="mask", **options)
    values = usual.values * np.where(np.array(usual.names) == "b", 1e-9, 1.0)
    if normalise == "zscore-per-variate":
        forecast_source(replace(usual, values=values), **options)
    else:
        with pytest.raises(ValueError, match="variate b's values, .* take `series.normalise=zscore-per-variate`"):
            forecast_source(replace(usual, values=values), **options)


def test_seasonal_naive_is_called_after_what_it_goes_back_by():
    undated = replace(weekly(), times=None)
    source = forecast_source(undated, window=6, horizon=4, period=24, phases=True)
    task = task_of(recipe_of("last-value"))
    found = trivial_figures(source, task.measure(source, torch.device("cpu")))
    dated = forecast_source(weekly(), window=6, horizon=4, phases=True)
    expected = trivial_figures(dated, task.measure(dated, torch.device("cpu")))
    for name, same in (
        ("seasonal naive (period)", "seasonal naive (day)"),
        ("seasonal naive (7 periods)", "seasonal naive (week)"),
    ):
        assert name not in expected
        assert same not in found
        assert found[name]["mae"] == pytest.approx(expected[same]["mae"])


def test_a_season_is_chosen_once(tmp_path, monkeypatch):
    recipe = recipe_of("gru", season="auto")
    asked = iter(range(10**6))
    list(run(recipe, tmp_path / "run", stop=lambda: next(asked) > 3))

    def again(source):
        raise AssertionError("chosen anew")

    monkeypatch.setattr("staa.build.forecasting.best_season", again)
    result = list(run(recipe, tmp_path / "run", resume=tmp_path / "run"))[-1]
    assert evaluate_run(tmp_path / "run")["mae"] == pytest.approx(result.test["mae"], rel=1e-6)
    assert Run(tmp_path / "run").data.season == "day+weekend"


def test_a_run_that_has_lost_its_season_is_broken(tmp_path):
    list(run(recipe_of("linear", season="auto"), tmp_path / "run"))
    path = tmp_path / "run" / "environment.json"
    about = json.loads(path.read_text())
    del about["data"]["season"]
    path.write_text(json.dumps(about))
    with pytest.raises(ValueError, match=r"environment.json is broken: its data.season is missing or makes no sense"):
        evaluate_run(tmp_path / "run")


def test_auto_takes_the_season_that_is_there():
    source = task_of(recipe_of(season="auto")).source(Path("data"))
    assert source.season == "day+weekend"
    assert any(note.startswith("season: day+weekend, chosen by") for note in source.notes)
    recipe = recipe_of(season="auto")
    same = replace(recipe, data=replace(recipe.data, name=f"{tiny.__file__}:series"))  # each day like the other
    assert task_of(same).source(Path("data")).season == "day"  # a finer one is within 5 %


@pytest.mark.parametrize("model", ["spikestag", "ispikformer", "gru"])
def test_a_window_keeps_its_level_beside_a_season_of_weekdays(model):
    for season, usual in (("none", True), ("day", True), ("week", False), ("day+weekend", False), ("auto", False)):
        for asked, found in ((None, usual), (True, True), (False, False)):
            recipe = recipe_of(model, season=season)
            task = task_of(replace(recipe, forecast=replace(recipe.forecast, instance_norm=asked)))
            network = task.model_for(task.source(Path("data")))
            assert getattr(network, "forecaster", network).instance_norm == found


def test_recipes_of_older_versions_say_true_where_nothing_is_normalised():
    recipe = recipe_of("linear")
    task_of(replace(recipe, forecast=replace(recipe.forecast, instance_norm=True))).model_for(
        task_of(recipe).source(Path("data"))
    )
    with pytest.raises(ValueError, match="`forecast.instance_norm=False` is not supported by the forecaster linear"):
        _ = task_of(replace(recipe, forecast=replace(recipe.forecast, instance_norm=False))).backbone


@pytest.mark.parametrize("model", ["spikestag", "ispikformer", "gru", "linear", "last-value"])
def test_every_forecaster_takes_a_season(model, tmp_path, capsys):
    recipe = recipe_of(model, season="auto")
    recipe = replace(recipe, forecast=replace(recipe.forecast, width=8)) if recipe.forecast.width != 64 else recipe
    result = list(run(recipe, tmp_path / "run"))[-1]
    assert Run(tmp_path / "run").about["season"] == "day+weekend"
    assert evaluate_run(tmp_path / "run")["mae"] == pytest.approx(result.test["mae"], rel=1e-6)
    plain = list(run(recipe_of(model, season="none") if model == "last-value" else recipe, tmp_path / "other"))[-1]
    if model == "last-value":
        assert result.test["mae"] < 0.7 * plain.test["mae"]
    assert result.details["baselines"]["historical average"]["mae"] < 1
    made = predict(tmp_path / "run", written(tmp_path), at="2024-02-01T07:00")
    source = task_of(recipe).source(Path("data"))
    row = 31 * 24 + 7
    inputs, _ = WindowBatches(source, "train", 1).at(torch.tensor([row - 11]))
    forecast = staa.load(tmp_path / "run")(*inputs)[0].detach().double()
    expected = forecast * source.normaliser.scale + source.normaliser.offset
    assert np.allclose(made.forecast, expected.numpy(), rtol=1e-4)
    values, profile = weekly().values, forecast_profile(row)
    assert np.allclose(made.trivial["last value"][0], values[row])
    assert np.allclose(made.trivial["seasonal naive (day)"][0], values[row - 23 : row - 19])
    assert np.allclose(made.trivial["seasonal naive (week)"][0], values[row - 167 : row - 163])
    assert np.allclose(made.trivial["historical average"][0], profile, rtol=1e-4)
    assert predict(tmp_path / "run", tmp_path / "weekly.csv", at="30").trivial.keys() == {
        "last value", "seasonal naive (day)", "historical average",
    }  # fmt: skip
    assert main(["compare", str(tmp_path / "run"), str(tmp_path / "other"), "--out", str(tmp_path / "compare")]) == 0
    assert "historical average" in capsys.readouterr().out
    with (tmp_path / "compare" / "compare.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert float(rows[2]["test_mae"]) == result.details["baselines"]["last value"]["mae"]
    assert rows[2]["seeds"] == ""
    assert main(["compare", str(tmp_path / "run"), str(tmp_path / "other"), "--out", str(tmp_path / "compare")]) == 0


def forecast_profile(row):
    """Means of the training rows at the hours of the four rows that follow, on weekdays or on weekends."""
    series = weekly()
    index, told = pd.DatetimeIndex(series.times), forecast_source(series, window=12, horizon=4).told
    end, train = index.day_of_week >= 5, np.arange(len(index)) < told
    return [series.values[train & (index.hour == index.hour[k]) & (end == end[k])].mean(0) for k in range(row + 1, row + 5)]


def written(folder):
    series = weekly()
    frame = pd.DataFrame(series.values, columns=list(series.names), index=pd.DatetimeIndex(series.times, name="time"))
    frame.to_csv(folder / "weekly.csv")
    return folder / "weekly.csv"


def test_training_says_what_trivial_forecasts_reach(tmp_path, capsys):
    file = written(tmp_path)
    assert main(["train", "series-last-value", "--data", str(file), "--out", str(tmp_path / "run")]) == 0
    text = capsys.readouterr().out
    assert "on the same windows, MAE: last value " in text
    assert "historical average does better than this network" in text


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"clock": [0, 3600.0, None]}, "clock"),
        ({"clock": "noon"}, "clock"),
        ({"clock": [24, -1, None]}, "clock"),
        ({"season": "year"}, "season"),
    ],
)
def test_records_that_make_no_sense(changes, told, tmp_path):
    list(run(recipe_of("last-value", season="day"), tmp_path / "run"))
    path = tmp_path / "run" / "environment.json"
    values = json.loads(path.read_text())
    values["data"] |= changes
    path.write_text(json.dumps(values))
    with pytest.raises(ValueError, match=f"its data.{told} is missing or makes no sense"):
        staa.load(tmp_path / "run")


@pytest.mark.parametrize(
    "odd", [3, {"x": 3}, {"x": {"mae": "low"}}, {"x": {"mae": 1.0}}, {"x": {"mae": 1.0, "mae_by_step": ["a"]}}]
)
def test_baselines_that_make_no_sense(odd, tmp_path):
    list(run(recipe_of("last-value"), tmp_path / "run"))
    path = tmp_path / "run" / "result.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"baselines": odd}))
    with pytest.raises(ValueError, match="its baselines is missing or does not go with the recipe"):
        _ = Run(tmp_path / "run").result


def test_a_late_row_does_not_change_the_time_features():
    series = weekly()
    series.times[500] += np.timedelta64(3, "m")
    assert forecast_source(series, window=6, horizon=4).facts["features"] == 4
    assert forecast_source(weekly(times=times(24 * 40, step="10min")), window=6, horizon=4).facts["features"] == 5


def test_figures_by_node_and_in_shares():
    rng = np.random.default_rng(0)
    truth = rng.gamma(2.0, 20.0, (40, 5, 3)) * [1, 10, 100]
    truth[0, 0, 0] = 1e-9  # nothing that MAPE could divide by
    forecast = truth + rng.normal(0, 5, truth.shape)
    offset, scale = torch.tensor([3.0, 4.0, 5.0]), torch.tensor([20.0, 200.0, 2000.0])

    def normal(values):
        return (torch.from_numpy(values) - offset) / scale

    naive = torch.tensor([7.0, 0.0, 9.0])
    found = forecast_figures(forecast_sums(normal(forecast), normal(truth), offset=offset, scale=scale), naive=naive)
    error = np.abs(forecast - truth)
    assert found["wmape"] == pytest.approx(error.sum() / truth.sum())
    assert found["smape"] == pytest.approx(np.mean(2 * error / (np.abs(truth) + np.abs(forecast))))
    large = truth > 1e-3 * scale.numpy()
    assert found["mape"] == pytest.approx(np.mean((error / truth)[large]))
    assert found["mase"] == pytest.approx(np.mean([error[..., 0].mean() / 7, error[..., 2].mean() / 9]))
    nodes = [
        1 - ((forecast - truth)[..., k] ** 2).sum() / ((truth[..., k] - truth[..., k].mean()) ** 2).sum() for k in range(3)
    ]
    assert found["r2_nodes"] == pytest.approx(np.mean(nodes))
    assert found["r2_nodes"] < found["r2"]


def test_spikestag_learns_the_day_of_each_node(tmp_path):
    recipe = recipe_of("spikestag")
    recipe = replace(recipe, forecast=replace(recipe.forecast, width=8, day_embedding=True))
    result = list(run(recipe, tmp_path / "run"))[-1]
    assert Run(tmp_path / "run").about["clock"] == [24, 3600.0, None]
    assert evaluate_run(tmp_path / "run")["mae"] == pytest.approx(result.test["mae"], rel=1e-6)
    assert any(name.startswith("forecaster.day.") for name in staa.load(tmp_path / "run").state_dict())
    undated = replace(recipe, data=replace(recipe.data, name=f"{tiny.__file__}:undated"))
    with pytest.raises(ValueError, match="`forecast.day_embedding` needs to know what a day is: give the series times"):
        list(run(undated, tmp_path / "other"))
    gru = recipe_of("gru")
    with pytest.raises(ValueError, match="`forecast.day_embedding=True` is not supported by the forecaster gru"):
        task_of(replace(gru, forecast=replace(gru.forecast, day_embedding=True))).check()
