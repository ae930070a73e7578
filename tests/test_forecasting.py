"""Forecasting from end to end: figures, runs, early stopping, the best weights, prediction."""

import csv
import json
import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch

import staa
from staa.analysis.energy import estimate_energy
from staa.build import task_of
from staa.cli import main
from staa.forecasters.seasonal import forecaster_of
from staa.inference.drawing import write_csv
from staa.inference.forecast import Forecasts, predict
from staa.losses import mean_absolute_error, mean_squared_error
from staa.recipes import RECIPES
from staa.recipes.parts import Series
from staa.runs import evaluate_run, run
from staa.runs.folder import read_json
from staa.training.checkpoint import load_checkpoint
from staa.training.metrics import forecast_figures, forecast_figures_by_horizon, forecast_sums
from staa.training.progress import Epoch, Interrupted

SERIES = f"{tiny.__file__}:series"


def small(model="spikestag", **changes):
    recipe = RECIPES[f"series-{model}"]
    forecast = replace(recipe.forecast, width=8) if recipe.forecast.width != 64 else recipe.forecast
    model = replace(recipe.model, steps=2)
    recipe = replace(recipe, data=replace(recipe.data, name=SERIES), forecast=forecast, model=model, series=Series(horizon=4))
    return replace(recipe, epochs=2, batch_size=64, **changes)


def finish(recipe, folder, **options):
    return list(run(recipe, folder, **options))


def series_file(path: Path, rows=slice(None), **changes):
    series = tiny.series()
    table = {"time": series.times[rows], **dict(zip(series.names, series.values[rows].T, strict=True))} | changes
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(table)
        writer.writerows(zip(*table.values(), strict=True))
    return path


def test_figures_are_those_of_the_protocol():
    """Against plain numpy, over three batches: R² with one mean, RSE with a mean for each horizon and variate, masked MAE."""
    rng = np.random.default_rng(0)
    truth = rng.gamma(2.0, 20.0, (37, 5, 3))
    truth[rng.random(truth.shape) < 0.1] = 0.0
    unknown = rng.random(truth.shape) < 0.05
    forecast = truth + rng.normal(0, 5, truth.shape)
    offset, scale = np.array([30.0, 40, 50]), np.array([3.0, 4, 5])
    y, f = ((a - offset) / scale for a in (truth, forecast))
    y = np.where(unknown, np.nan, y)
    scales = {"offset": torch.from_numpy(offset), "scale": torch.from_numpy(scale), "missing": 0.0}
    batches = (slice(0, 16), slice(16, 32), slice(32, 37))
    tensors = [(torch.from_numpy(f[b]).float(), torch.from_numpy(y[b]).float()) for b in batches]
    sums = sum(forecast_sums(a, b, **scales) for a, b in tensors)
    error = np.where(unknown, np.nan, forecast - truth)
    e = error / scale
    counted = ~unknown & (truth != 0)
    expected = {
        "mae": np.abs(error[counted]).mean(),
        "rmse": math.sqrt((error[counted] ** 2).mean()),
        "mape": np.abs(error[counted] / truth[counted]).mean(),
        "r2": 1 - np.nansum(e**2) / np.nansum((y - np.nanmean(y)) ** 2),
        "rse": math.sqrt(np.nansum(e**2) / np.nansum((y - np.nanmean(y, 0)) ** 2)),
        "loss": np.nanmean(e**2),
    }
    figures = forecast_figures(sums)
    assert {name: figures[name] for name in expected} == pytest.approx(expected, rel=1e-5)
    assert forecast_figures(sums, loss="mae")["loss"] == pytest.approx(np.nanmean(np.abs(e)), rel=1e-5)
    second = forecast_figures_by_horizon(sums)[1]
    assert second["step"] == 2
    assert second["mae"] == pytest.approx(np.abs(error[:, 1][counted[:, 1]]).mean(), rel=1e-5)
    no_variation = forecast_figures(forecast_sums(torch.ones(2, 1, 1), torch.full((2, 1, 1), 3.0), **ones(1)))
    assert math.isnan(no_variation["r2"])
    assert math.isnan(no_variation["rse"])
    unknown = forecast_figures(forecast_sums(torch.ones(2, 1, 1), torch.full((2, 1, 1), math.nan), **ones(1)))
    assert all(map(math.isnan, unknown.values()))


def ones(k):
    return {"offset": torch.zeros(k), "scale": torch.ones(k)}


def test_losses_leave_out_what_is_not_known():
    forecast = torch.tensor([[[1.0, 2.0]], [[3.0, 4.0]]], requires_grad=True)
    truth = torch.tensor([[[0.0, math.nan]], [[5.0, 4.5]]])
    squared, absolute = mean_squared_error(forecast, truth), mean_absolute_error(forecast, truth)
    assert squared.item() == pytest.approx((1 + 4 + 0.25) / 3)
    assert absolute.item() == pytest.approx((1 + 2 + 0.5) / 3)
    (squared + absolute).backward()
    assert forecast.grad is not None
    assert forecast.grad.isfinite().all()
    assert forecast.grad[0, 0, 1] == 0


@pytest.mark.parametrize("model", ["spikestag", "ispikformer", "gru", "linear", "last-value"])
def test_a_run_of_every_forecaster(model, tmp_path):
    recipe = small(model)
    result = finish(recipe, tmp_path / "run")[-1]
    assert result.test.keys() == {"mae", "rmse", "mape", "smape", "wmape", "mase", "r2", "r2_nodes", "rse", "loss"}
    assert [h["step"] for h in result.details["horizons"]] == [1, 2, 3, 4]
    assert np.mean([h["mae"] for h in result.details["horizons"]]) == pytest.approx(result.test["mae"])
    again = evaluate_run(tmp_path / "run")
    assert again["mae"] == pytest.approx(result.test["mae"], rel=1e-6)
    source = task_of(recipe).source(Path("data"))
    x, _ = task_of(recipe).take(source, "train", torch.arange(64), torch.device("cpu"))
    forecaster = staa.load(tmp_path / "run")
    assert forecaster(*x).shape == (64, 4, 6)
    energy = estimate_energy(forecaster, *x)
    assert (energy.sops > 0) == (model in ("spikestag", "ispikformer"))
    if model == "linear":
        assert result.test["mae"] < 0.2  # of noise 0.1 on a wave of 1


def test_last_value_is_what_it_says(tmp_path):
    result = finish(small("last-value"), tmp_path / "run")[-1]
    values = tiny.series().values
    windows = len(values) - 12 - 4 + 1
    first = windows - int(windows * 0.2)
    errors = [np.abs(values[k + 12 : k + 16] - values[k + 11]) for k in range(first, windows)]
    assert result.test["mae"] == pytest.approx(np.mean(errors), rel=1e-5)
    assert result.samples == windows - first


def test_the_best_epoch_is_what_is_tested_and_patience_ends_a_run(tmp_path):
    """A learning rate far too high: later epochs get worse, the first good one is kept, and the run stops early."""
    recipe = small("gru")
    recipe = replace(recipe, epochs=30, optim=replace(recipe.optim, lr=0.5, min_lr=0.5, warmup_epochs=0, patience=2))
    events = finish(recipe, tmp_path / "run")
    epochs = [e for e in events if isinstance(e, Epoch)]
    result = events[-1]
    losses = [e.measured["loss"] for e in epochs]
    assert result.best_epoch == losses.index(min(losses)) + 1
    assert len(epochs) == result.best_epoch + 2 < 30
    assert result.weights == "best"
    assert evaluate_run(tmp_path / "run", split="validation")["loss"] == pytest.approx(min(losses), rel=1e-5)
    last = evaluate_run(tmp_path / "run", split="validation", weights="last")["loss"]
    assert last == pytest.approx(losses[-1], rel=1e-5)
    assert last > min(losses)


def test_a_stopped_forecast_goes_on_bit_for_bit(tmp_path):
    recipe = replace(small(), epochs=4)
    whole = finish(recipe, tmp_path / "whole")[-1]
    count = iter(range(100))
    events = finish(recipe, tmp_path / "parts", stop=lambda: next(count) == 7)
    assert isinstance(events[-1], Interrupted)
    rest = finish(recipe, tmp_path / "parts", resume=tmp_path / "parts")[-1]
    assert rest == whole
    a, b = (load_checkpoint(tmp_path / name)["model"] for name in ("whole", "parts"))
    assert all(torch.equal(a[key], b[key]) for key in a)


def test_predict(tmp_path, capsys):
    folder = tmp_path / "run"
    finish(small(), folder)
    file = series_file(tmp_path / "series.csv")
    made = predict(folder, file, at=["2024-01-21T04:00"])
    values = tiny.series().values
    row = 20 * 24 + 4
    assert made.names == tuple("abcdef")
    assert np.allclose(made.seen[0], values[row - 11 : row + 1])
    assert np.allclose(made.truth[0], values[row + 1 : row + 5])
    assert made.ahead[0, 0] == np.datetime64("2024-01-21T05:00")
    source = task_of(small()).source(Path("data"))
    forecast = staa.load(folder)(source.values[row - 11 : row + 1][None], source.time[row - 11 : row + 1][None])
    expected = forecast[0].detach().double() * source.normaliser.scale + source.normaliser.offset
    assert np.allclose(made.forecast, expected.numpy(), rtol=1e-5)
    turned = tmp_path / "turned.csv"  # the same variates in another order
    lines = [line.split(",") for line in file.read_text().splitlines()]
    turned.write_text("\n".join(",".join([line[0], *line[:0:-1]]) for line in lines))
    assert np.allclose(predict(folder, turned, at=[str(row)]).forecast, made.forecast)
    out = tmp_path / "out"
    assert main(["predict", str(folder), str(file), "--out", str(out), "--nodes", "c", "a"]) == 0
    text = capsys.readouterr().out
    assert "6 variates, 4 steps from 2024-01-26T00:00:00 to 2024-01-26T03:00:00" in text
    with (out / "forecast.csv").open() as table:
        rows = list(csv.DictReader(table))
    assert len(rows) == 4 * 6
    assert rows[0]["time"] == "2024-01-26T00:00:00"
    assert rows[0]["truth"] == ""
    assert all(math.isfinite(float(r["forecast"])) for r in rows)
    for name in ("forecast", "horizons", "rates", "adjacency"):
        assert (out / f"{name}.png").read_bytes().startswith(b"\x89PNG"), name
    assert main(["predict", str(folder), str(file), "--at", "100"]) == 0
    assert "where the file goes on; last value " in capsys.readouterr().out
    assert len(list((folder / "forecasts").glob("series-*/forecast.csv"))) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--at", "5"], r"sees 12 rows, but .* has only 6 up to row 5 \(2024-01-01T05:00:00\)"),
        (["--at", "600"], "600 is no row of .* rows are 0 to 599"),
        (["--at", "-5"], "-5 is no row of"),
        (["--at", "1999-01-01"], "not between the times of .*, 2024-01-01T00:00:00 to 2024-01-25T23:00:00"),
        (["--at", "2030-01-01"], "not between the times of"),
        (["--at", "noon"], "row number or a time"),
        (["--at", "now"], "row number or a time"),
        (["--at", "NaT"], "row number or a time"),
        (["--nodes", "z"], "no variate is called z; there are a, b"),
    ],
)
def test_predict_says_what_is_wrong(arguments, message, tmp_path, capsys):
    finish(small("last-value"), tmp_path / "run")
    file = series_file(tmp_path / "series.csv")
    command = ["predict", str(tmp_path / "run"), str(file), "--out"]
    assert main([*command, str(tmp_path / "out"), *arguments]) == 2
    assert re.search(message, capsys.readouterr().err)
    assert not (tmp_path / "out").exists()
    assert main([*command, str(tmp_path)]) == 2
    assert "is there already" in capsys.readouterr().err


def test_times_of_another_format_are_said_once_and_predict_follows_the_run(tmp_path, capsys):
    day_first = "%d/%m/%Y %H:%M"
    times = [moment.strftime(day_first) for moment in tiny.series().times.astype("datetime64[s]").tolist()]
    iso, file = series_file(tmp_path / "iso.csv"), series_file(tmp_path / "days.csv", time=times)
    train = ["train", "series-last-value", "--data", str(file), "--out", str(tmp_path / "run")]
    assert main(train) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert f"'{times[0]}' is no time of ISO 8601" in said
    assert f'say its format with --series.time-format, here "{day_first}"' in said
    assert not (tmp_path / "run").exists()
    assert main([*train, "--series.time-format", day_first]) == 0
    made = predict(tmp_path / "run", file)
    assert made.ahead[0, 0] == np.datetime64("2024-01-26T00:00")
    assert np.array_equal(predict(tmp_path / "run", iso, time_format="%Y-%m-%dT%H:%M:%S.%f").forecast, made.forecast)
    capsys.readouterr()
    assert main(["predict", str(tmp_path / "run"), str(iso)]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "is no time of the format '%d/%m/%Y %H:%M' (--time-format): the run's data had it" in said
    assert np.array_equal(predict(tmp_path / "run", iso, time_format="ISO8601").forecast, made.forecast)


def test_predict_refuses_another_series_and_a_classifier(tmp_path, capsys):
    finish(small("gru"), tmp_path / "run")
    other = tmp_path / "other.csv"
    other.write_text("time,a,b\n" + "\n".join(f"2024-01-01T{h:02}:00,1,{h % 5}" for h in range(24)))
    with pytest.raises(ValueError, match=r"forecasts 6 variates, a, b, c, d …; .* has 2 and lacks c, d, e, f"):
        predict(tmp_path / "run", other)
    no_times = series_file(tmp_path / "plain.csv")
    no_times.write_text("\n".join(line.partition(",")[2] for line in no_times.read_text().splitlines()))
    with pytest.raises(ValueError, match="trained with time features, but .* has no times"):
        predict(tmp_path / "run", no_times)
    slower = series_file(tmp_path / "slower.csv")
    slower.write_text("".join(line for k, line in enumerate(slower.read_text().splitlines(keepends=True)) if k == 0 or k % 2))
    with pytest.raises(ValueError, match="a row every 3600 s, .* has one every 7200 s"):
        predict(tmp_path / "run", slower)
    finish(tiny.recipe, tmp_path / "classes")
    with pytest.raises(ValueError, match="classifies"):
        predict(tmp_path / "classes", other)


def test_predict_minds_gaps_in_its_window_alone(tmp_path):
    finish(small("gru"), tmp_path / "run")
    file = series_file(tmp_path / "series.csv")
    whole = predict(tmp_path / "run", file)
    lines = file.read_text().splitlines()

    def without(row):
        cells = lines[1 + row].split(",")
        file.write_text("\n".join([*lines[: 1 + row], ",".join([cells[0], "", *cells[2:]]), *lines[2 + row :]]) + "\n")

    without(20)
    assert np.array_equal(predict(tmp_path / "run", file).forecast, whole.forecast)
    without(595)
    with pytest.raises(ValueError, match="1 gaps in the 12 rows that the network sees, the first in variate a, row 595"):
        predict(tmp_path / "run", file)


def test_forecasts_are_written_in_full(tmp_path):
    seen, forecast, truth = (np.full((1, 1, 1), value) for value in (1.0, 123457169.0, 123457209.0))
    made = Forecasts(("a",), np.arange(2)[None], seen, forecast, truth, None, None, {}, {}, ())
    write_csv(made, tmp_path / "f.csv")
    assert (tmp_path / "f.csv").read_text().splitlines()[1] == "0,1,1,a,123457169,123457209"


def test_start_from_another_run(tmp_path, capsys):
    """A graph is the data's own, and a node's embedding is its alone; what is not trained starts from nothing."""
    graphs = {name: tmp_path / f"{name}.npy" for name in ("one", "other")}
    for name, path in graphs.items():
        np.save(path, np.roll(np.eye(6), 1 if name == "one" else 2, 0))
    file = series_file(tmp_path / "series.csv")
    renamed = tmp_path / "renamed.csv"
    renamed.write_text(file.read_text().replace("time,a,b,c,d,e,f", "time,u,v,w,x,y,z", 1))
    options = ["series-spikestag", "--epochs", "1", "--forecast.width", "8", "--model.steps", "2", "--forecast.graph", "given"]
    first = ["--data", str(file), "--series.graph", str(graphs["one"]), "--out", str(tmp_path / "first")]
    assert main(["train", *options, *first]) == 0
    second = ["--series.graph", str(graphs["other"]), "--init-from", str(tmp_path / "first"), "--out", str(tmp_path / "second")]
    assert main(["train", *options, "--data", str(file), *second]) == 0
    assert forecaster_of(staa.load(tmp_path / "second")).adjacency().equal(torch.roll(torch.eye(6), 2, 0))
    text = capsys.readouterr().out
    assert "(the data's own)" in text.partition("left out")[2].splitlines()[0]
    assert "node" not in text.partition("left out")[2].splitlines()[0]
    assert main(["train", *options, "--data", str(renamed), *second[:-1], str(tmp_path / "third")]) == 0
    assert "(of other variates)" in capsys.readouterr().out
    assert main(["train", "series-linear", "--data", str(file), "--out", str(tmp_path / "linear")]) == 0
    assert main(["train", "series-gru", "--data", str(file), "--init-from", str(tmp_path / "linear")]) == 2
    assert "it can't start from another run" in capsys.readouterr().err


def test_other_times_are_other_data(tmp_path, capsys):
    file = series_file(tmp_path / "series.csv")
    run = tmp_path / "run"
    assert main(["train", "series-gru", "--epochs", "1", "--data", str(file), "--out", str(run)]) == 0
    assert main(["evaluate", str(run)]) == 0
    later, renamed = tmp_path / "later.csv", tmp_path / "renamed.csv"
    later.write_text(file.read_text().replace("2024-", "2023-"))
    renamed.write_text(file.read_text().replace("time,a,", "time,q,", 1))
    for other in (later, renamed):
        assert main(["evaluate", str(run), "--data", str(other)]) == 2
        assert "split differs" in capsys.readouterr().err


def test_seeds_can_be_added_and_some_figures_unknown(tmp_path, capsys):
    """R² of a series that does not vary is NaN; a seed that is new finds the data of the others."""
    file = tmp_path / "flat.csv"
    file.write_text("x,y\n" + "2,0\n" * 60 + "2,2\n" * 140)
    options = ["series-last-value", "--series.normalise", "none", "--data", str(file), "--out", str(tmp_path / "out")]
    assert main(["train", *options, "--seeds", "2"]) == 0
    assert "R² n/a ± n/a" in capsys.readouterr().out
    assert main(["train", "--resume", str(tmp_path / "out"), "--seeds", "3"]) == 0
    assert (tmp_path / "out" / "seed2" / "result.json").is_file()


def test_settings_that_do_not_fit(tmp_path):
    for change, message in (
        (dict(series=Series()), "is a forecaster: say how many steps to forecast with `series.horizon`"),
        (dict(model=replace(small().model, attention="staa")), "has its own attention"),
        (dict(model=replace(small().model, name="resnet20")), "unknown forecaster 'resnet20'"),
        (dict(loss=replace(small().loss, name="tet")), "unknown loss 'tet'"),
        (dict(augment=replace(small().augment, flip=True)), "takes no settings of augment"),
        (
            dict(forecast=replace(small().forecast, blocks=3)),
            "`forecast.blocks=3` is not supported by the forecaster spikestag",
        ),
        (
            dict(model=replace(small().model, residual_init=0.2)),
            "`model.residual_init=0.2` is not supported by the forecaster spikestag",
        ),
        (dict(series=Series(horizon=4, graph="g.csv")), r"can't|missing|g.csv"),
        (
            dict(model=replace(small("gru").model, neuron=("lif", {"decay": 0.3})), forecast=small("gru").forecast),
            "gru has no spiking neuron, so it takes no `model.neuron.decay=0.3`",
        ),
        (dict(series=Series(horizon=590)), "horizon"),
    ):
        with pytest.raises((ValueError, OSError), match=message):
            print(change, finish(replace(small(), **change), tmp_path / "run"))
        assert not list((tmp_path / "run").glob("*.json"))
    for change, message in (
        (dict(protocol="paper"), "tested once"),
        (dict(data=replace(small().data, validation=0.0)), 'weights="best" needs validation samples'),
    ):
        with pytest.raises(ValueError, match=message):
            replace(small(), **change)


def test_seeds_give_mean_and_spread(tmp_path, capsys):
    """From the command line, on a file of one's own, with a graph."""
    file = series_file(tmp_path / "series.csv")
    graph = tmp_path / "graph.csv"
    graph.write_text("from,to\n" + "\n".join(f"{a},{b}" for a, b in zip("abcdef", "bcdefa", strict=True)))
    out = tmp_path / "out"
    options = ["--data", str(file), "--series.graph", str(graph), "--forecast.graph", "given", "--series.horizon", "3"]
    small = ["--epochs", "1", "--forecast.width", "8", "--model.steps", "2", "--batch-size", "64"]
    assert main(["train", "series-spikestag", *options, *small, "--seeds", "2", "--out", str(out)]) == 0
    line = (out / "summary.txt").read_text()
    maes = [read_json(out / f"seed{s}" / "result.json")["test_mae"] for s in range(2)]
    assert f"MAE {np.mean(maes):.4g} ± {np.std(maes, ddof=1):.2g}" in line
    assert "MAE" in capsys.readouterr().out
    given = forecaster_of(staa.load(out / "seed0")).adjacency()
    assert given.shape == (6, 6)
    assert (given > 0).sum() == 6
    assert json.loads((out / "seed0" / "environment.json").read_text())["data"]["nodes"] == 6


def test_compare_forecasters(tmp_path, capsys):
    file = series_file(tmp_path / "series.csv")
    options = ["--data", str(file), "--out", str(tmp_path / "out"), "--epochs", "1"]
    assert main(["compare", "series-gru", "series-last-value", "series-linear", *options]) == 0
    assert "MAE" in capsys.readouterr().out
    with (tmp_path / "out" / "compare.csv").open() as table:
        rows = [row for row in csv.DictReader(table) if row["seeds"]]  # the others are trivial forecasts
    assert [float(r["test_mae"]) for r in rows] == [
        read_json(tmp_path / "out" / r["name"] / "result.json")["test_mae"] for r in rows
    ]


def test_compare_says_first_what_does_not_go_together(tmp_path, capsys):
    file = series_file(tmp_path / "series.csv")
    options = ["--data", str(file), "--out", str(tmp_path / "out"), "--epochs", "1"]
    for names, message in (
        (["series-gru", "digits-events"], "to forecast: series-gru; to classify: digits-events"),
        (["series-gru", "series-linear", "--weights", "best"], "linear is not trained in epochs"),
    ):
        assert main(["compare", *names, *options]) == 2
        assert message in capsys.readouterr().err
        assert not (tmp_path / "out").exists()
    finish(small("gru"), tmp_path / "run")
    assert main(["compare", "series-last-value", str(tmp_path / "run"), "--data", str(file), "--epochs", "1"]) == 2
    finish(small("last-value"), tmp_path / "one")
    finish(replace(small("last-value"), series=replace(small().series, horizon=2)), tmp_path / "two")
    assert main(["compare", str(tmp_path / "one"), str(tmp_path / "two"), "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert "is not that of" in error
    assert "series.horizon: " in error
    over = ["series-linear", "--data", str(file), "--out", str(tmp_path / "out")]
    assert main(["compare", *over, "--over", "series.horizon=2,3"]) == 2
    assert "the test set of series.horizon=2 is not that of series.horizon=3" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert main(["compare", *over, "--over", "series.season=none,day"]) == 0
    with (tmp_path / "out" / "compare.csv").open() as table:
        assert [row["name"] for row in csv.DictReader(table)][:2] == ["series.season=none", "series.season=day"]


def test_the_measure_of_a_series_is_in_its_units():
    source = task_of(small()).source(Path("data"))
    measure = task_of(small()).measure(source, torch.device("cpu"))
    y = source.targets[:4][None]
    figures = measure.figures(measure.sums(y + 1, y))
    assert figures["mae"] == pytest.approx(source.normaliser.scale.mean().item(), rel=1e-5)


@pytest.mark.slow
def test_three_epochs_learn_to_diffuse_on_a_ring(tmp_path):
    """What a neighbour's value tells: R² ≥ 0.9 where the last value has less than 0.7."""
    recipe = replace(RECIPES["ring-spikestag"], epochs=3)
    assert finish(recipe, tmp_path / "spikestag")[-1].test["r2"] >= 0.9
    last = replace(RECIPES["series-last-value"], data=recipe.data, series=recipe.series)
    assert finish(last, tmp_path / "last")[-1].test["r2"] < 0.7


@pytest.mark.parametrize(
    ("root", "told"), [(".", r"\. is a folder: give a series"), ("x" * 5000, "name too long"), ("gone.csv", "gone.csv")]
)
def test_data_that_are_not_where_a_run_found_them(root, told, tmp_path):
    """Whatever is the matter with the place, the message tells who named it and how to name another."""
    file = series_file(tmp_path / "mine.csv")
    recipe = replace(RECIPES["series-linear"], series=Series(horizon=4))
    finish(recipe, tmp_path / "run", data_root=file)
    path = tmp_path / "run" / "environment.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"data_root": root}))
    with pytest.raises((ValueError, OSError), match=f"{told}.*run found its data at {re.escape(root)}: .*give `data_root`"):
        evaluate_run(tmp_path / "run")
    assert evaluate_run(tmp_path / "run", data_root=file)
