"""Back-testing, many origins, intervals, recursion, and pandas in and out: the same forecast however it is asked for."""

import csv
import math
import re
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tiny
import torch
from test_forecasting import finish, series_file, small

import staa
from staa.cli import main
from staa.data import SERIES, TimeSeries
from staa.inference.ahead import look_ahead
from staa.inference.forecast import predict
from staa.inference.intervals import needed, reach_of
from staa.inference.prepared import own_data, prepare
from staa.inference.rolling import evaluate_rolling
from staa.recipes import RECIPES
from staa.recipes.parts import Series
from staa.runs import Run
from staa.runs.folder import read_result

MODELS = ("spikestag", "ispikformer", "gru", "linear", "last-value")
BAD_LEVELS = (0, 1, 2, -0.1, math.nan, math.inf)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run of every forecaster, and the file of its series."""
    root = tmp_path_factory.mktemp("runs")
    for model in MODELS:
        finish(replace(small(model), epochs=1), root / model)
    series_file(root / "series.csv")
    return root


def frame_of(series):
    return pd.DataFrame(series.values, pd.DatetimeIndex(series.times), series.names)


def read_table(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_file_that_a_run_can_not_read_so_is_to_be_changed(runs, tmp_path):
    """`predict` has none of the settings that training reads a file with."""
    file = series_file(tmp_path / "text.csv", note=["x"] * len(tiny.series().values))
    with pytest.raises(ValueError, match=r"`series.drop`.*The run reads every file by its own settings: change the file"):
        predict(runs / "gru", file)


def test_a_value_far_from_the_run_s_data_is_named(runs, tmp_path):
    values = tiny.series().values[:, 0].copy()
    assert not predict(runs / "gru", runs / "series.csv").notes
    values[-3] = 1e30
    file = series_file(tmp_path / "far.csv", **{tiny.series().names[0]: values})
    (note,) = predict(runs / "gru", file).notes
    assert f"1 of them, the first 1e+30 in variate {tiny.series().names[0]}, row {len(values) - 3} (" in note
    assert not predict(runs / "gru", file, at=str(len(values) - 4)).notes


def test_a_series_that_is_not_there_is_to_be_named(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["train", "series-linear"]) == 2
    assert capsys.readouterr().err.endswith("; name it with --data\n")


# --- back-testing -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", MODELS)
def test_rolling_forecasts_have_the_figures_of_the_result(model, runs, tmp_path):
    """To the last bit, at stride 1; and each is the forecast that `predict` makes after that row."""
    figures = evaluate_rolling(runs / model, out=tmp_path / "all.csv")
    result = read_result(runs / model)
    names = ("mae", "rmse", "mape", "r2", "rse", "loss")
    assert {name: figures[name] for name in names} == {name: result[f"test_{name}"] for name in names}
    assert figures["horizons"] == result["horizons"]
    assert figures["samples"] == result["test_samples"]
    rows = read_table(tmp_path / "all.csv")
    source = Run(runs / model).data
    assert len(rows) == len(source.test) * 4 * 6
    values, times = tiny.series().values, tiny.series().times
    error = np.array([float(row["forecast"]) - float(row["truth"]) for row in rows])
    assert np.abs(error).mean() == pytest.approx(result["test_mae"], rel=1e-6)
    for k in (0, 57, len(source.test) - 1):
        origin = source.test[k] + 11
        own = rows[k * 24 : (k + 1) * 24]
        assert {row["origin"] for row in own} == {str(times[origin])[:19]}
        assert [row["time"] for row in own[::6]] == [str(time)[:19] for time in times[origin + 1 : origin + 5]]
        assert [row["step"] for row in own[::6]] == ["1", "2", "3", "4"]
        assert [float(row["truth"]) for row in own] == pytest.approx(values[origin + 1 : origin + 5].ravel(), rel=1e-8)
        made = predict(runs / model, runs / "series.csv", at=str(origin))
        assert [float(row["forecast"]) for row in own] == pytest.approx(made.forecast.ravel(), rel=1e-4)


@pytest.mark.parametrize("gaps", ["mask", "interpolate"])
def test_rolling_forecasts_have_the_figures_of_a_result_with_gaps(gaps, tmp_path, monkeypatch):
    """And what is not known stays unknown in the table."""
    series = tiny.series()
    values = series.values.copy()
    values[np.random.default_rng(0).random(values.shape) < 0.1] = np.nan
    monkeypatch.setitem(SERIES, "holed", lambda: replace(series, values=values))
    recipe = small("linear")
    recipe = replace(recipe, data=replace(recipe.data, name="holed"), series=Series(horizon=4, gaps=gaps))
    finish(recipe, tmp_path / "run")
    figures, result = evaluate_rolling(tmp_path / "run", out=tmp_path / "all.csv"), read_result(tmp_path / "run")
    assert (figures["mae"], figures["r2"]) == (result["test_mae"], result["test_r2"])
    assert figures["horizons"] == result["horizons"]
    rows = {(row["time"], row["variate"]): row["truth"] for row in read_table(tmp_path / "all.csv")}
    for (time, name), truth in rows.items():
        row = int((np.datetime64(time) - series.times[0]) / np.timedelta64(1, "h"))
        assert (truth == "") == np.isnan(values[row, "abcdef".index(name)])


def test_a_stride_takes_every_so_many_rows(runs, tmp_path):
    every = evaluate_rolling(runs / "gru", out=tmp_path / "a.csv")
    some = evaluate_rolling(runs / "gru", out=tmp_path / "b.csv", stride=7)
    assert some["samples"] == -(-every["samples"] // 7)
    first = {(row["origin"], row["step"], row["variate"]): row for row in read_table(tmp_path / "a.csv")}
    rows = read_table(tmp_path / "b.csv")
    assert len(rows) == some["samples"] * 24
    for row in rows:
        own = first[row["origin"], row["step"], row["variate"]]
        assert row["truth"] == own["truth"]
        assert float(row["forecast"]) == pytest.approx(float(own["forecast"]), rel=1e-5)


def test_parquet_holds_what_csv_does(runs, tmp_path):
    pytest.importorskip("pyarrow")
    evaluate_rolling(runs / "gru", out=tmp_path / "a.csv", interval=0.8)
    evaluate_rolling(runs / "gru", out=tmp_path / "a.parquet", interval=0.8)
    exact = pd.read_parquet(tmp_path / "a.parquet")
    text = pd.read_csv(tmp_path / "a.csv", parse_dates=["origin", "time"])
    assert list(exact) == list(text) == ["origin", "step", "time", "variate", "forecast", "lower", "upper", "truth"]
    assert exact["variate"].astype(str).tolist() == text["variate"].tolist()
    for name in ("origin", "step", "time"):
        assert (exact[name] == text[name]).all()
    for name in ("forecast", "lower", "upper", "truth"):
        assert np.allclose(exact[name], text[name], rtol=1e-8)


def test_parquet_without_its_library_is_refused_first(runs, tmp_path, monkeypatch):
    def absent(name):
        raise ImportError(name)

    monkeypatch.setattr("staa.inference.table.importlib.import_module", absent)
    with pytest.raises(ValueError, match=r'package pyarrow: pip install "staa-snn\[series\]"'):
        evaluate_rolling(runs / "gru", out=tmp_path / "a.parquet")
    assert not list(tmp_path.iterdir())


def test_another_series_is_measured_whole_and_said_so(runs, tmp_path, capsys):
    series = tiny.series()
    other = replace(series, values=series.values + 0.5, times=series.times + np.timedelta64(365, "D"))
    file = tmp_path / "later.csv"
    frame_of(other).to_csv(file, index_label="time")
    recipe = replace(RECIPES["series-gru"], epochs=1, series=Series(horizon=4))
    own = series_file(tmp_path / "own.csv")
    finish(recipe, tmp_path / "run", data_root=own)
    options = ["--data", str(file), "--rolling", "--out", str(tmp_path / "all.csv"), "--interval", "0.9"]
    assert main(["evaluate", str(tmp_path / "run"), *options]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert f"{file} is not the series that {tmp_path / 'run'} was trained on: all its rows are measured" in told
    rows = read_table(tmp_path / "all.csv")
    windows = 600 - 12 - 4 + 1
    assert len(rows) == windows * 4 * 6
    assert f"on {windows} samples" in told
    error = [abs(float(row["forecast"]) - float(row["truth"])) for row in rows]
    assert f"MAE {np.mean(error):.4g}" in told
    assert main(["evaluate", str(tmp_path / "run"), "--data", str(own), "--rolling", "--out", str(tmp_path / "b.csv")]) == 0
    assert "is not the series" not in capsys.readouterr().out
    short = tmp_path / "short.csv"
    short.write_text("\n".join(file.read_text().splitlines()[:10]))
    assert main(["evaluate", str(tmp_path / "run"), "--data", str(short), "--rolling"]) == 2
    assert "has 9 rows, but 12 that are seen and 4 that follow are needed" in capsys.readouterr().err
    assert not list((tmp_path / "run" / "forecasts").glob("*"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rolling", "--stride", "0"], "--stride must be a whole number, at least 1, got 0"),
        (["--rolling", "--stride", "-3"], "at least 1, got -3"),
        (["--stride", "2"], "--stride is of --rolling"),
        (["--out", "a.csv"], "--out is of --rolling"),
        (["--rolling", "--out", "a.txt"], "is written as .csv or .parquet"),
        (["--rolling", "--out", "there.csv"], "there.csv is there already"),
        (["--interval", "0.9", "--split", "validation"], "--split must be test or train"),
        *((["--interval", str(level)], f"--interval is the share .* got {float(level)}") for level in BAD_LEVELS),
        (["--interval", "0.99999"], "needs 99999 errors on validation for each step ahead, and there are"),
    ],
)
def test_evaluate_says_what_is_wrong(arguments, message, runs, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("there.csv").write_text("kept")
    assert main(["evaluate", str(runs / "gru"), *arguments]) == 2
    assert re.search(message, capsys.readouterr().err)
    assert [path.name for path in tmp_path.iterdir()] == ["there.csv"]
    assert Path("there.csv").read_text() == "kept"


def test_only_forecasts_are_rolled(tmp_path, capsys):
    finish(tiny.recipe, tmp_path / "classes")
    for options in (["--rolling"], ["--interval", "0.9"]):
        assert main(["evaluate", str(tmp_path / "classes"), *options]) == 2
        assert "classifies, it doesn't forecast" in capsys.readouterr().err
    assert not (tmp_path / "classes" / "forecasts").exists()


def test_evaluate_tells_figures_and_coverage_by_step(runs, capsys):
    assert main(["evaluate", str(runs / "linear"), "--rolling", "--interval", "0.9"]) == 0
    text = capsys.readouterr().out
    result = read_result(runs / "linear")
    assert re.search(rf"^test MAE {result['test_mae']:.4g}, .*coverage \d\d\.\d%, mean width 0\.\d+", text, re.MULTILINE)
    assert re.search(r"^ *step +MAE +RMSE +coverage +mean width$", text, re.MULTILINE)
    lines = re.findall(r"^ *(\d) +(\S+) +\S+ +\d\d\.\d% +0\.\d+$", text, re.MULTILINE)
    assert lines == [(str(step["step"]), f"{step['mae']:.4g}") for step in result["horizons"]]
    (table,) = (runs / "linear" / "forecasts").glob("rolling-*/forecasts.csv")
    rows = read_table(table)
    inside = np.mean([float(row["lower"]) <= float(row["truth"]) <= float(row["upper"]) for row in rows])
    assert f"coverage {inside:.1%}" in text


def test_back_testing_takes_little_memory(tmp_path, monkeypatch):
    """What is kept does not grow with the number of forecasts: they are written as they are made."""
    values = np.random.default_rng(0).normal(size=(6000, 8))
    monkeypatch.setitem(SERIES, "noise", lambda: TimeSeries(values, None, tuple("abcdefgh")))
    recipe = small("last-value")
    recipe = replace(recipe, data=replace(recipe.data, name="noise"), series=Series(horizon=24), batch_size=16)
    finish(recipe, tmp_path / "run")
    peaks = []
    for stride in (20, 1):
        tracemalloc.start()
        figures = evaluate_rolling(tmp_path / "run", out=tmp_path / f"{stride}.csv", stride=stride)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    whole = figures["samples"] * 24 * 8 * 8 * 2  # forecasts and truth in float64
    assert peaks[1] - peaks[0] < whole / 4
    assert (tmp_path / "1.csv").stat().st_size > whole


# --- many origins, and further ahead ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["spikestag", "gru"])
def test_each_origin_has_its_own_forecast(model, runs, tmp_path, capsys):
    """As alone, to the last bit, in the order that they are named."""
    file = runs / "series.csv"
    named = ["2024-01-21T04:00", "100", "2024-01-25 23:00"]
    together = predict(runs / model, file, at=named, interval=0.8)
    for k, at in enumerate(named):
        alone = predict(runs / model, file, at=at, interval=0.8)
        for name in ("when", "seen", "forecast", "truth", "lower", "upper"):
            assert np.array_equal(getattr(together, name)[k], getattr(alone, name)[0], equal_nan=name == "truth"), name
    assert np.isnan(together.truth[2]).all()
    one, other, more = (tmp_path / name for name in ("one", "other", "more"))
    command = ["predict", str(runs / model), str(file)]
    assert main([*command, "--at", *named, "--out", str(one)]) == 0
    assert "4 steps after each of 3 origins: 2024-01-21T04:00:00, 2024-01-05T04:00:00, 2024-01-25T23:00:00" in (
        capsys.readouterr().out
    )
    assert main([*command, "--at", named[0], "--out", str(other), f"--at={named[1]}", "--at", named[2]]) == 0
    assert main(["predict", "--at", named[0], "--at", named[1], *command[1:], "--at", named[2], "--out", str(more)]) == 0
    assert (one / "forecast.csv").read_bytes() == (other / "forecast.csv").read_bytes() == (more / "forecast.csv").read_bytes()
    rows = read_table(one / "forecast.csv")
    assert len(rows) == 3 * 4 * 6
    assert list(dict.fromkeys(row["origin"] for row in rows)) == [
        "2024-01-21T04:00:00", "2024-01-05T04:00:00", "2024-01-25T23:00:00",
    ]  # fmt: skip
    assert [float(row["forecast"]) for row in rows] == pytest.approx(together.forecast.ravel(), rel=1e-8)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--at", "100", "--at", "100"], "--at = 100 names row 100 of .* twice: name each row once"),
        (["--at", "100", "2024-01-05T04:30"], "names row 100 of .* twice, once as 100"),
        (["--at", "100", "--at", "600"], "600 is no row of"),
        (["--steps", "0"], "--steps must be a whole number, at least 1, got 0"),
        (["--steps", "-4"], "at least 1, got -4"),
        (["--steps", str(10**15)], "1 forecasts of 1000000000000000 steps would take .* of memory"),
        (["--steps", str(10**7)], "end after the year 2262"),
        *((["--interval", str(level)], f"--interval is the share .* got {float(level)}") for level in BAD_LEVELS),
        (["--data", "x"], "--data is of --interval"),
    ],
)
def test_predict_says_what_is_wrong(arguments, message, runs, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["predict", str(runs / "gru"), str(runs / "series.csv"), "--out", str(out), *arguments]) == 2
    assert re.search(message, capsys.readouterr().err)
    assert not out.exists()


@pytest.mark.parametrize("model", ["spikestag", "gru", "linear"])
@pytest.mark.parametrize("at", ["599", "300"])
def test_steps_beyond_the_horizon_are_fed_back(model, at, runs, capsys):
    """By hand: a file that goes on with the forecasts gives the next ones; the first are those of the horizon."""
    made = predict(runs / model, runs / "series.csv", at=at, steps=11)
    assert np.array_equal(made.forecast[:, :4], predict(runs / model, runs / "series.csv", at=at).forecast)
    assert np.array_equal(made.forecast[:, :3], predict(runs / model, runs / "series.csv", at=at, steps=3).forecast)
    assert any("forecast 4 steps: for the others its own forecasts were fed back" in note for note in made.notes)
    assert made.ahead[0].tolist() == (tiny.series().times[int(at)] + np.arange(1, 12) * np.timedelta64(1, "h")).tolist()
    series = tiny.series()
    values = series.values[: int(at) + 1]
    for begin in (4, 8):
        rows = int(at) + 1 + begin
        seen = np.concatenate([values, made.forecast[0, :begin]])
        times = series.times[0] + np.arange(rows) * np.timedelta64(1, "h")
        frame = frame_of(TimeSeries(seen, times, series.names))
        again = staa.forecast(runs / model, frame).to_numpy()
        assert again[: 11 - begin] == pytest.approx(made.forecast[0, begin : begin + 4], rel=1e-4)


def test_a_file_without_times_goes_on_by_row(tmp_path):
    series = tiny.series()
    file = tmp_path / "plain.csv"
    file.write_text("\n".join([",".join(series.names), *(",".join(map(repr, map(float, row))) for row in series.values)]))
    recipe = replace(RECIPES["series-linear"], series=Series(horizon=4))
    finish(recipe, tmp_path / "run", data_root=file)
    made = predict(tmp_path / "run", file, steps=6, at=["100", "599"])
    assert made.ahead.tolist() == [list(range(101, 107)), list(range(600, 606))]
    frame = pd.DataFrame(series.values, columns=list(series.names))
    assert staa.forecast(tmp_path / "run", frame, steps=6).index.equals(pd.RangeIndex(600, 606))


# --- gaps ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gaps", ["mask", "interpolate"])
def test_gaps_are_filled_from_the_rows_up_to_each_origin(gaps, tmp_path):
    """All origins at once see what each would, were the series cut off after it."""
    recipe = small("linear")
    finish(replace(recipe, series=replace(recipe.series, gaps=gaps)), tmp_path / "run")
    run = Run(tmp_path / "run")
    series = tiny.series()
    values = series.values[:80].copy()
    values[np.random.default_rng(0).random(values.shape) < 0.4] = np.nan
    values[:5, 2] = np.nan
    holed = replace(series, values=values, times=series.times[:80])
    whole = prepare(run, holed, "it", ahead=4)
    origins = np.arange(16, 80)
    whole.check(origins, gaps, "it")
    x = whole.inputs(torch.from_numpy(origins))[0]
    assert x.isfinite().all()
    for k, origin in enumerate(origins):
        cut = replace(holed, values=values[: origin + 1], times=holed.times[: origin + 1])
        alone = prepare(run, cut, "it", ahead=4).inputs(torch.tensor([origin]))[0]
        assert torch.equal(x[k], alone[0]), origin
    late = values.copy()
    late[:20, 4] = np.nan
    with pytest.raises(ValueError, match=r"variate e has no value up to row 16 \(.*\) of it"):
        prepare(run, replace(holed, values=late), "it", ahead=4).check(origins, gaps, "it")


# --- intervals ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", [0.5, 0.8, 0.9, 0.95])
def test_the_quantile_is_the_finite_samples(level):
    """⌈(n + 1) level⌉-th smallest of n; by NumPy's inverse of the distribution on the same ranks."""
    errors = np.random.default_rng(0).gamma(1.0, 1.0, (57, 3, 4))
    errors[::5, 1, 2] = np.nan
    reach, pooled = reach_of(errors, level)
    assert not pooled.any()
    for h in range(3):
        for k in range(4):
            own = errors[~np.isnan(errors[:, h, k]), h, k]
            rank = math.ceil(round((len(own) + 1) * level, 9))
            assert reach[h, k] == np.sort(own)[rank - 1]
            assert (own <= reach[h, k]).sum() == rank
    assert needed(level) == next(n for n in range(1, 100) if math.ceil(round((n + 1) * level, 9)) <= n)


def test_too_few_errors_are_pooled_then_refused():
    errors = np.random.default_rng(0).gamma(1.0, 1.0, (12, 2, 3))
    errors[3:, 0, 1] = np.nan
    reach, pooled = reach_of(errors, 0.9)
    assert pooled.tolist() == [[False, True, False], [False, False, False]]
    together = np.sort(errors[:, 0][~np.isnan(errors[:, 0])])
    assert reach[0, 1] == together[math.ceil((len(together) + 1) * 0.9) - 1]
    assert reach_of(errors, 0.95)[1].all()
    with pytest.raises(ValueError, match="needs 99 errors on validation for each step ahead, and there are 27 at step 1"):
        reach_of(errors, 0.99)


@pytest.mark.parametrize("level", [0.5, 0.9])
def test_coverage_on_simulated_data_is_what_was_asked(level, tmp_path, monkeypatch):
    """Independent noise, whose forecast errors are exchangeable: within its binomial band, at each step and in all."""
    values = np.random.default_rng(1).normal(10, [1.0, 2, 5, 10], (8000, 4))
    monkeypatch.setitem(SERIES, "noise", lambda: TimeSeries(values, None, tuple("abcd")))
    recipe = small("linear")
    recipe = replace(recipe, data=replace(recipe.data, name="noise", validation=0.2), series=Series(horizon=3, window=24))
    finish(recipe, tmp_path / "run")
    figures = evaluate_rolling(tmp_path / "run", interval=level, out=tmp_path / "all.csv", stride=3)
    source = Run(tmp_path / "run").data
    n, m = len(source.validation), figures["samples"]
    spread = math.sqrt(level * (1 - level) * (1 / n + 1 / m) / 4)
    for step in figures["horizons"]:
        assert abs(step["coverage"] - level) < 4 * spread, step
    assert abs(figures["coverage"] - level) < 4 * spread
    assert np.mean([step["coverage"] for step in figures["horizons"]]) == pytest.approx(figures["coverage"])
    rows = read_table(tmp_path / "all.csv")
    width = np.array([float(row["upper"]) - float(row["lower"]) for row in rows]).reshape(-1, 4)
    assert width.mean() == pytest.approx(figures["width"], rel=1e-6)
    z = {0.5: 0.6745, 0.9: 1.6449}[level]
    assert width.mean(0) == pytest.approx(2 * z * np.array([1.0, 2, 5, 10]), rel=0.1)  # each variate's own


def test_intervals_hold_their_own_calibration(runs, tmp_path):
    """On validation itself exactly ⌈(n + 1) level⌉ errors of each step and variate are within reach."""
    run = Run(runs / "gru")
    source, series = own_data(run)
    made = predict(run, runs / "series.csv", interval=0.9)
    reach = (made.upper - made.lower)[0] / 2 / source.normaliser.scale.numpy()
    origins = torch.tensor(source.validation) + 11
    with torch.inference_mode():
        forecast = torch.cat(
            [look_ahead(run.model(), series, some, 4, torch.device("cpu")).double() for some in origins.split(64)]
        )
    truth = source.normaliser.normalise(torch.from_numpy(series.truth(origins.numpy(), 4)))
    n = len(origins)
    inside = ((truth - forecast).abs().numpy() <= reach * (1 + 1e-9)).sum(0)
    assert (inside == math.ceil((n + 1) * 0.9)).all()


def test_an_interval_further_ahead_is_of_forecasts_that_far(runs):
    """Made by recursion on validation too, from what its rows tell alone; for a forecast's own errors grow."""
    near = predict(runs / "last-value", runs / "series.csv", interval=0.8)
    far = predict(runs / "last-value", runs / "series.csv", interval=0.8, steps=10)
    assert np.array_equal(near.lower, far.lower[:, :4])
    widths = (far.upper - far.lower)[0].mean(1)
    assert widths[9] > 2 * widths[0]  # of a wave of 24 hours, ten hours on
    with pytest.raises(ValueError, match=r"there are \d+ at step \d+: ask for a smaller `interval` or fewer steps"):
        predict(runs / "last-value", runs / "series.csv", interval=0.8, steps=80)


def test_no_interval_without_validation(tmp_path):
    recipe = small("linear")
    finish(replace(recipe, data=replace(recipe.data, validation=0.0)), tmp_path / "run")
    file = series_file(tmp_path / "series.csv")
    for make in (
        lambda: predict(tmp_path / "run", file, interval=0.9),
        lambda: evaluate_rolling(tmp_path / "run", interval=0.9),
        lambda: staa.forecast(tmp_path / "run", frame_of(tiny.series()), interval=0.9),
    ):
        with pytest.raises(ValueError, match=r"held none out .*: leave out `interval`, or train .*`data.validation=0.1`"):
            make()


@pytest.mark.parametrize("transform", ["none", "log1p"])
def test_what_can_not_be_negative_is_not(transform, tmp_path, monkeypatch):
    """In forecasts, intervals, what is fed back and figures alike."""
    wave = np.exp(1.5 * np.sin(2 * np.pi * (np.arange(800)[:, None] / 24 + np.arange(3) / 3)))
    values = np.random.default_rng(0).poisson(wave).astype(float)
    times = np.datetime64("2024-01-01", "ns") + np.arange(800) * np.timedelta64(1, "h")
    series = TimeSeries(values, times, ("a", "b", "c"))
    monkeypatch.setitem(SERIES, "counts", lambda: series)
    recipe = small("linear")
    recipe = replace(recipe, data=replace(recipe.data, name="counts"))
    made = {}
    for nonnegative in (False, True):
        own = replace(recipe, series=Series(horizon=4, transform=transform, nonnegative=nonnegative))
        folder = tmp_path / f"{nonnegative}"
        result = finish(own, folder)[-1]
        figures = evaluate_rolling(folder, out=tmp_path / f"{nonnegative}.csv", interval=0.9)
        assert figures["mae"] == result.test["mae"]
        rows = read_table(tmp_path / f"{nonnegative}.csv")
        error = [float(row["forecast"]) - float(row["truth"]) for row in rows]
        assert np.abs(error).mean() == pytest.approx(figures["mae"], rel=1e-6)
        assert abs(figures["coverage"] - 0.9) < 0.06
        made[nonnegative] = [[float(row[name]) for row in rows] for name in ("forecast", "lower", "upper")]
        table = staa.forecast(folder, frame_of(series), steps=40, interval=0.9)
        assert (table.min().min() >= 0) or not nonnegative
    low = np.min(made[False], 1)
    assert (low[:2] < 0).all()  # else the rest would show nothing
    assert np.min(made[True]) == 0
    assert made[True][0] == pytest.approx(np.maximum(made[False][0], 0), abs=1e-6)
    frame = frame_of(series)
    frame.iloc[30, 1] = -1.0
    if transform == "log1p":
        with pytest.raises(ValueError, match=r"`series.transform=log1p` is for .* variate b is -1 in row 30"):
            staa.forecast(tmp_path / "True", frame)


# --- pandas -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", MODELS)
def test_a_frame_gives_what_a_file_does(model, runs):
    """To the last bit, in the frame's own order and labels."""
    frame = frame_of(tiny.series())[list("fbdace")].rename_axis("hour")
    for at, steps in ((None, None), ("2024-01-21T04:00", 9), (100, 2), (pd.Timestamp("2024-01-05 04:00"), None)):
        named = () if at is None else str(at).replace(" ", "T")
        made = predict(runs / model, runs / "series.csv", at=named, steps=steps)
        table = staa.forecast(runs / model, frame, at=at, steps=steps)
        assert np.array_equal(table[list("abcdef")].to_numpy(), made.forecast[0])
        assert np.array_equal(table.index.to_numpy(), made.ahead[0])
        assert list(table.columns) == list("fbdace")
        assert table.index.name == "hour"


def test_a_frame_with_an_interval(runs):
    frame = frame_of(tiny.series())
    made = predict(runs / "gru", runs / "series.csv", interval=0.9, steps=6)
    table = staa.forecast(runs / "gru", frame, interval=0.9, steps=6)
    assert list(table.columns.levels[0]) == ["forecast", "lower", "upper"]
    for name in ("forecast", "lower", "upper"):
        assert np.array_equal(table[name].to_numpy(), getattr(made, name)[0])
    assert table["forecast"].equals(staa.forecast(runs / "gru", frame, steps=6))


def test_a_frame_in_a_time_zone_keeps_it(runs):
    frame = frame_of(tiny.series())
    there = frame.tz_localize("Europe/Berlin")
    table = staa.forecast(runs / "gru", there)
    assert str(table.index.tz) == "Europe/Berlin"
    assert table.tz_localize(None).equals(staa.forecast(runs / "gru", frame))
    at = pd.Timestamp("2024-01-21T03:00", tz="UTC")  # 4 o'clock in Berlin
    own = staa.forecast(runs / "gru", there, at=at).tz_localize(None)
    assert own.equals(staa.forecast(runs / "gru", frame, at="2024-01-21T04:00"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f.drop(columns="c"), "forecasts 6 variates, .* the frame has 5 and lacks c"),
        (lambda f: f.assign(more=1.0), "the frame has 7, more than those"),
        (lambda f: f.assign(a="x"), "column 'a' must be numbers"),
        (lambda f: f.assign(a=np.inf), "variate a is infinite in row 0"),
        (lambda f: f.iloc[:5], "sees 12 rows, but the frame has only 5 up to row 4"),
        (lambda f: f.iloc[:0], "must have rows and columns"),
        (lambda f: f.iloc[::-1], "sort the rows by time"),
        (lambda f: f.iloc[::2], "a row every 3600 s, the frame has one every 7200 s"),
        (lambda f: f.set_axis(list("abcdea"), axis=1), "6 variates need 6 different names, got 5"),
        (lambda f: f.reset_index(drop=True), "the frame has no times"),
        (lambda f: f.set_axis(f.index.astype(str)), "needs a DatetimeIndex, or a RangeIndex"),
        (lambda f: f.set_axis(f.index.to_period("h")), "needs a DatetimeIndex, or a RangeIndex .* got PeriodIndex"),
        (
            lambda f: f.mask(f.index.to_numpy()[:, None] == np.full(6, f.index[-3].to_datetime64())),
            "6 gaps in the 12 rows that the network sees",
        ),
    ],
)
def test_a_frame_that_does_not_fit_is_refused(change, message, runs):
    with pytest.raises(ValueError, match=message):
        staa.forecast(runs / "gru", change(frame_of(tiny.series())))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(at=600), "600 is no row of the frame"),
        (dict(at=-1), "-1 is no row of the frame"),
        (dict(at="2030-01-01"), "is not between the times of the frame"),
        (dict(at=pd.NaT), "`at` is a row number or a time"),
        (dict(at=True), "`at` is a row number or a time"),
        (dict(at=["100"]), "`at` is a row number or a time"),
        (dict(at="noon"), "`at` is a row number or a time"),
        (dict(steps=0), "`steps` must be a whole number, at least 1, got 0"),
        (dict(steps=2.5), "`steps` must be a whole number"),
        (dict(steps=True), "`steps` must be a whole number"),
        *((dict(interval=level), "`interval` is the share of values") for level in BAD_LEVELS),
    ],
)
def test_arguments_that_can_not_be(arguments, message, runs):
    with pytest.raises(ValueError, match=message):
        staa.forecast(runs / "gru", frame_of(tiny.series()), **arguments)


def test_a_table_of_another_kind_is_refused(runs):
    with pytest.raises(TypeError, match=r"a frame must be a pandas.DataFrame, .* got ndarray"):
        staa.forecast(runs / "gru", tiny.series().values)  # type: ignore[arg-type]
