"""`staa sweep`: settings are chosen by validation, whatever stops it, and the test set is left alone."""

import csv
import json
import math
import signal
import subprocess
import sys
from dataclasses import replace

import pytest
import tiny
import torch
from processes import wait_for

from staa.analysis import landscape
from staa.analysis.sweep import Setting, Tried, outcome_of, rank
from staa.cli import main
from staa.cli.draws import drawn
from staa.cli.flags import without
from staa.cli.over import LONGEST, folder_of
from staa.cli.sweep import OWN
from staa.runs import evaluate_run, run

TINY = f"{tiny.__file__}:recipe"
GRID = ["sweep", TINY, "--over", "optim.lr=0.01,0.1", "model.steps=2,3", "--epochs", "1", "--max-steps", "3"]


def table_of(folder):
    with (folder / "sweep.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def figures_of(folder):
    """The table without the times."""
    return [{key: value for key, value in row.items() if key != "seconds"} for row in table_of(folder)]


def weights_of(folder):
    return {path.parent: torch.load(path, weights_only=True)["model"] for path in sorted(folder.glob("*/seed*/last.pt"))}


def events(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """A grid with two seeds; a test set that is looked at ends it."""
    folder = tmp_path_factory.mktemp("swept")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("staa.runs.execute.evaluate_in_detail", None)
        assert main([*GRID, "--seeds", "2", "--out", str(folder)]) == 0
    return folder


def test_settings_are_ranked_by_validation_and_the_test_set_is_left_alone(swept):
    rows = table_of(swept)
    assert {(row["optim.lr"], row["model.steps"]) for row in rows} == {(a, b) for a in ("0.01", "0.1") for b in ("2", "3")}
    for row in rows:
        of_seeds = []
        for seed in (0, 1):
            folder = swept / f"model.steps={row['model.steps']},_optim.lr={row['optim.lr']}" / f"seed{seed}"
            assert not (folder / "result.json").exists()
            assert not any(key.startswith("test") for event in events(folder) for key in event)
            (epoch,) = [event for event in events(folder) if event["event"] == "epoch"]
            assert float(row[f"seed{seed}"]) == epoch["validation_accuracy"]
            of_seeds.append(epoch["validation_accuracy"])
        assert float(row["validation_accuracy"]) == sum(of_seeds) / 2
        assert float(row["spread"]) == pytest.approx(abs(of_seeds[0] - of_seeds[1]) / 2**0.5)
        assert int(row["parameters"]) > 1000
    means = [float(row["validation_accuracy"]) for row in rows]
    assert means == sorted(means, reverse=True)
    assert (swept / "sweep.png").read_bytes().startswith(b"\x89PNG")
    assert (swept / "sweep.md").read_text().count("\n| ") == 5


def test_it_is_added_to_and_nothing_else(swept, capsys):
    """More values and seeds train what is new. What was tried is kept, with the settings that it was tried with."""
    before = {path: path.stat().st_mtime_ns for path in swept.glob("*/seed*/log.jsonl")}
    assert len(before) == 8
    command = [*GRID, "--seeds", "2", "--out", str(swept)]
    assert main(command) == 0
    assert "8 of 8 runs are there" in capsys.readouterr().out
    more = ["sweep", TINY, "--over", "model.steps=2,3", "optim.lr=0.1,0.02,0.01", *command[5:]]
    assert main(more) == 0
    out = capsys.readouterr().out
    assert "8 of 12 runs are there" in out
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert len(table_of(swept)) == 6
    assert main([*more, "--optim.weight-decay", "0.5"]) == 2
    assert "was trained with another recipe (its, yours): optim.weight_decay: " in capsys.readouterr().err
    assert main(command) == 2  # 0.02 was tried
    assert (
        "has runs of other settings, such as model.steps=2,_optim.lr=0.02: a sweep is only added to" in capsys.readouterr().err
    )


def test_the_best_is_measured_and_trained_by_the_commands_that_are_told(tmp_path, capsys):
    out = tmp_path / "a sweep"
    assert main(["sweep", TINY, "--max-steps", "3", "--over", "optim.lr=0.05,0.1", "--epochs=1", "--out", str(out)]) == 0
    told = capsys.readouterr().out
    assert "leave out --max-steps and --epochs=1 there" in told
    best = table_of(out)[0]["optim.lr"]
    run_folder = out / f"optim.lr={best}" / "seed0"
    assert f"  staa train --resume '{run_folder}' --trust-code\n" in told
    assert f"  staa train {TINY} --max-steps 3 --epochs=1 --optim.lr={best} --seed 1 --seeds 1\n" in told
    assert main(["train", "--resume", str(run_folder), "--trust-code"]) == 0
    result = json.loads((run_folder / "result.json").read_text())
    recipe = replace(tiny.recipe, epochs=1, max_steps=3, optim=replace(tiny.recipe.optim, lr=float(best)))
    for _ in run(recipe, tmp_path / "whole"):
        pass
    assert json.loads((tmp_path / "whole" / "result.json").read_text()) == result
    assert outcome_of(run_folder).figures["accuracy"] == float(table_of(out)[0]["validation_accuracy"])


def test_options_of_the_sweep_are_left_out_of_a_training():
    args = ["--over", "a=1,2", "b=3,4", "--epochs", "2", "--seeds=3", "--random", "4", "--sweep_seed", "1", "--data.size", "8"]
    assert without([*args, "--jobs", "2", "--augment.no-flip", "--out", "x", "--debug", "--seed", "5"], OWN) == [
        "--epochs", "2", "--data.size", "8", "--augment.no-flip",
    ]  # fmt: skip


@pytest.mark.slow
def test_killed_or_interrupted_it_goes_on_as_if_nothing_had_been(tmp_path):
    """Two jobs at once, Ctrl-C, then kill -9 of the command: its jobs end by themselves. One job ends with equal weights."""
    args = ["sweep", TINY, "--over", "optim.lr=0.01,0.1", "--epochs", "6", "--out"]
    whole, out = tmp_path / "whole", tmp_path / "out"
    assert main([*args, str(whole)]) == 0
    for number, code in ((signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)):
        before = {path: len(events(path.parent)) for path in out.glob("*/seed0/log.jsonl")}

        def has_ended_an_epoch(path, before=before):
            return any(event["event"] == "epoch" for event in events(path.parent)[before.get(path, 0) :])

        with subprocess.Popen(
            [sys.executable, "-m", "staa", *args, str(out), "--jobs", "2"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, start_new_session=True,
        ) as process:  # fmt: skip
            wait_for(process, lambda: any(map(has_ended_an_epoch, out.glob("*/seed0/log.jsonl"))), every=0.02)
            process.send_signal(number)
            text = process.stdout.read()  # until the last of its jobs has ended, too
        assert process.returncode == code, text
        assert ("go on with the same command" in text) == (number == signal.SIGINT)
    assert not all(outcome_of(path).trained for path in out.glob("*/seed0"))
    assert main([*args, str(out)]) == 0
    assert figures_of(out) == figures_of(whole)
    for (folder, own), (_, other) in zip(weights_of(out).items(), weights_of(whole).items(), strict=True):
        assert all(torch.equal(own[name], other[name]) for name in own), folder
        assert sum(event["event"] == "epoch" for event in events(folder)) == 6


def test_what_fails_is_told_and_stops_no_other(tmp_path, capsys):
    """A loss that is not finite; the whole of a long value is in the table, and its folder's name is short."""
    place = tmp_path / ("long" * 40)
    place.mkdir()
    (place / "own.py").write_text("def broken(logits, targets):\n    return logits.mean() * float('nan')\n")
    name = f"{place}/own.py:broken"
    options = ["--loss.label-smoothing", "0", "--epochs", "1", "--max-steps", "1", "--out", str(tmp_path / "out")]
    command = ["sweep", TINY, "--over", f"loss.name={name},mean", *options]
    for _ in range(2):  # it is not tried again: it would fail again
        assert main(command) == 0
        out = capsys.readouterr().out
        assert f"loss.name={name}: seed 0 failed: the loss is nan at step 1 (epoch 1)\n" in out
        assert "best: loss.name=mean" in out
    assert "2 of 2 runs are there" in out
    first, second = table_of(tmp_path / "out")
    assert (first["loss.name"], second["loss.name"], second["rank"]) == ("mean", name, "")
    assert second["problem"].startswith("seed 0 failed: the loss is nan")
    assert len(folder_of(f"loss.name={name}")) <= LONGEST


def test_random_draws():
    over = ["optim.lr=0.001..0.3:log", "model.steps=2..5:linear", "model.attention=none,staa,gc", "augment.cutout=0..9:linear"]
    made = drawn(over, [], tiny.recipe, count=60, seed=3)
    assert [one.values for one in drawn(over, [], tiny.recipe, count=7, seed=3)] == [one.values for one in made[:7]]
    assert drawn(over, [], tiny.recipe, count=7, seed=4) != made[:7]
    rates = [float(one.values["optim.lr"]) for one in made]
    assert all(0.001 <= rate <= 0.3 and len(one.values["optim.lr"]) <= 9 for rate, one in zip(rates, made, strict=True))
    assert 0.3 < sum(rate < math.sqrt(0.001 * 0.3) for rate in rates) / 60 < 0.7  # as many below the middle as above it
    assert {one.values["model.steps"] for one in made} == set("2345")
    assert {one.values["model.attention"] for one in made} == {"none", "staa", "gc"}
    grid = drawn(["model.steps=2,3", "optim.lr=0.1,0.2,0.3"], [], tiny.recipe, count=6, seed=0)
    assert len({one.label for one in grid}) == 6
    assert {one.values["batch-size"] for one in drawn(["batch-size=1..1000:log"], [], tiny.recipe, count=9, seed=0)} < {
        str(k) for k in range(1, 1001)
    }


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ([], "name what to try: staa sweep RECIPE --over"),
        (["--over", "optim.lr"], "a sweep wants the values of what it tries: --over optim.lr=A,B"),
        (["--over", "optim.lr=0.1"], "--over wants an option and two values or more"),
        (["--over", "optim.lr=0.1,0.2", "--jobs", "0"], "--jobs must be at least 1, got 0"),
        (["--over", "optim.lr=0.1..0.2:log"], "is a range, from which values are drawn: say how many settings with --random"),
        (["--over", "optim.lr=0.1..0.2", "--random", "3"], "from a range: optim.lr=0.1..0.2:log or optim.lr=0.1..0.2:lin"),
        (["--over", "optim.lr=0.2..0.1:log", "--random", "3"], "optim.lr wants a range of two numbers, the lower one first"),
        (["--over", "model.steps=1..2.5:log", "--random", "3"], "model.steps wants a range of two whole numbers"),
        (["--over", "model.steps=0..2:log", "--random", "3"], "model.steps can't be drawn on a logarithmic scale from 0 on"),
        (["--over", "model.attention=1..2:log", "--random", "3"], "model.attention takes no range, since it is no number"),
        (["--over", "model.steps=2,3", "--random", "3"], "--random asks for 3 settings, and 2 different ones were found"),
        (["--over", "optim.lr=0.1,0.2", "--random", "101"], "--random must be at most 100, got 101"),
        (["--over", "optim.lr=0.1,x"], "optim.lr=x: --optim.lr must be a number, got 'x'"),
        (["--over", "optim.lr=0.1,-1"], "optim.lr=-1: 2 settings are wrong: (1) optim.lr must be positive"),
        (["--over", "model.attention=gc,stag"], "model.attention=stag: unknown attention 'stag'; did you mean"),
        (["--over", "optim.lr=0.1,0.2", "--protocol", "paper", "--data.validation", "0"], "(--protocol test-once, --data.val"),
        (["--over", "optim.lr=0.1,0.2", "--data.validation", "0"], "no validation samples to choose by: hold some out (--data"),
        (["--over", f"data.name={tiny.__file__}:events,{tiny.__file__}:three"], "their data sets differ"),
    ],
)  # fmt: skip
def test_bad_input(args, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["sweep", TINY, *args]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def tried(values, *reached, measure="accuracy", problem=""):
    return Tried(dict(values), measure, dict(enumerate(reached)), problem)


@pytest.mark.parametrize(
    ("rows", "scales"),
    [
        ([tried({"optim.lr": lr}, 0.5, 0.7) for lr in ("0.1", "0.001", "0.01", "1")], ["log"]),
        ([tried({"model.steps": k}, 0.5) for k in "2345"], ["linear"]),
        ([tried({"model.attention": k}, 1.0, measure="mae") for k in ("none", "staa")], ["linear"]),
        (
            [tried({"optim.lr": a, "epochs": k}, 0.5) for a, k in (("0.1", "1"), ("0.03", "2"), ("0.01", "3"))],
            ["log", "linear"],
        ),
        ([tried({"optim.lr": lr, "epochs": k}, 0.5, 1.0) for lr in ("0.1", "1") for k in "12"][::-1], None),
    ],
)
def test_the_picture(rows, scales, tmp_path, monkeypatch):
    """A map of a whole grid of two options, else a panel for each option; what failed is left out."""
    figures = []
    monkeypatch.setattr(landscape, "save", lambda figure, path, dpi: figures.append(figure))
    failed = [tried(rows[0].values, problem="seed 0 failed: x")] if scales else []
    landscape.draw([*rows, *failed], tmp_path / "a.png", title="t")
    (figure,) = figures
    if scales is None:
        image = figure.axes[0].images[0].get_array()
        assert image.shape == (2, 2)
        assert [tick.get_text() for tick in figure.axes[0].get_yticklabels()] == ["0.1", "1"]
        return
    assert [axis.get_xscale() for axis in figure.axes] == scales
    option = next(iter(rows[0].values))
    (means,) = [line for line in figure.axes[0].lines if line.get_label().startswith("a setting")]
    unit = 100 if rows[0].measure == "accuracy" else 1
    assert means.get_ydata() == pytest.approx([unit * row.mean for row in rows])
    if option == "optim.lr":
        assert list(means.get_xdata()) == [float(row.values[option]) for row in rows]


def test_forecasts_too_and_data_that_differ(tmp_path, capsys):
    """The lowest error is the best, also of a forecaster that is not trained in epochs."""
    options = ["--data.name", f"{tiny.__file__}:series", "--series.horizon", "3", "--series.window", "12", "--max-steps", "2"]
    over = ["--over", "model.name=gru,last-value,linear"]
    command = ["sweep", "series-last-value", *options, "--epochs", "1", *over, "--out", str(tmp_path)]
    assert main(command) == 0
    errors = {row["model.name"]: float(row["validation_mae"]) for row in table_of(tmp_path)}
    assert list(errors.values()) == sorted(errors.values())
    for name, error in errors.items():
        figures = evaluate_run(tmp_path / f"model.name={name}" / "seed0", split="validation", weights="last", trust=True)
        assert figures["mae"] == pytest.approx(error, rel=1e-6)
    capsys.readouterr()
    about = tmp_path / "model.name=linear" / "seed0" / "environment.json"
    about.write_text(about.read_text().replace('"split": "', '"split": "another '))
    assert main(command) == 2
    assert "the data are split otherwise for model.name=linear than for model.name=gru" in capsys.readouterr().err
    with pytest.raises(ValueError, match="were trained on different data"):
        rank([Setting({}, {0: about.parent, 1: tmp_path / "model.name=gru" / "seed0"})])
