"""Run folders are listed by what their records say, whatever is wrong with one of them."""

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import tiny

import staa
from staa.cli import main
from staa.cli import text as cli_text
from staa.locks import exclusive
from staa.runs import run
from staa.runs.listing import listed, runs_in
from staa.runs.seeds import first_run
from staa.text import from_csv

VERSIONS = Path(__file__).parent / "versions" / "unnumbered"
SETS = {name: f"{name}-interrupted" for name in ("digits", "images", "recordings", "ring")}


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """Copies of an older version's runs, four finished and four interrupted ones, under ./runs."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(VERSIONS, tmp_path / "runs")
    return tmp_path / "runs"


def show(capsys, *args):
    assert main(["runs", *args]) == 0
    return capsys.readouterr().out


def names(text):
    return [Path(line.split()[0]).name for line in text.splitlines() if line.startswith("runs/")]


def test_all_runs_below_are_listed_the_newest_last(runs, capsys):
    (runs / ".trash").mkdir()
    shutil.copytree(VERSIONS / "digits", runs / ".trash" / "hidden")
    (runs / "link").symlink_to(VERSIONS)
    text = show(capsys)
    assert sorted(names(text)) == sorted(folder.name for folder in VERSIONS.iterdir())
    assert names(text)[0] == "images"
    assert names(text)[-1] == "ring-interrupted"
    assert text.startswith("run ")
    assert text.splitlines()[-1] == "8 runs in runs: 4 finished, 4 stopped"
    assert len(list(runs_in([runs, runs / "ring", runs.parent]))) == 8


def test_what_is_listed_is_what_the_records_say(runs):
    found = {one.folder.name: one for one in runs_in([runs])}
    for finished, interrupted in SETS.items():
        result = json.loads((runs / finished / "result.json").read_text())
        one, other = found[finished], found[interrupted]
        assert (one.state, other.state) == ("finished", "stopped")
        assert one.measured_on == "test"
        assert one.figures["loss"] == result["test_loss"]
        assert one.recipe == staa.Run(runs / finished).recipe
        log = staa.read_log(runs / finished)
        assert one.when == log.time.iloc[-1]
        assert one.seconds == pytest.approx(log.time.iloc[-1] - log.time[log.event == "start"].iloc[0])
        epochs = staa.read_log(runs / interrupted).query("event == 'epoch'")
        assert other.epoch == len(epochs)
        if len(epochs):
            assert other.measured_on == "validation"
            assert other.figures["accuracy"] == epochs.validation_accuracy.max()


def write_log(folder, *events):
    rows = (json.dumps({"time": time, "event": event, **more}) for time, event, more in events)
    (folder / "log.jsonl").write_text("\n".join(rows) + '\n{"time": 9999, "event": "epoch", "st')  # cut off by a crash


def epoch(time, number, accuracy, best):
    figures = {"accuracy": 0.9, "validation_accuracy": accuracy, "validation_loss": 0.5, "best_epoch": best}
    return time, "epoch", {"step": number, "epoch": number, **figures}


def test_the_best_epoch_counts_and_the_night_between_does_not(runs):
    folder = runs / "digits-interrupted"
    at = {"step": 0, "epoch": 1}
    write_log(
        folder, (100.0, "environment", {}), (101.0, "start", at), epoch(111.0, 1, 0.3, 1), epoch(121.0, 2, 0.8, 2),
        (5000.0, "environment", {}), (5001.0, "start", at), epoch(5011.0, 3, 0.7, 2), (5012.5, "step", at),
    )  # fmt: skip
    one = listed(folder)
    assert (one.seconds, one.when, one.epoch) == (20.0 + 11.5, 5012.5, 3)
    assert one.figures == {"accuracy": 0.8, "loss": 0.5}


def test_a_run_goes_on_as_long_as_a_process_holds_it(runs, capsys):
    folder = runs / "ring-interrupted"
    with exclusive(folder):
        assert listed(folder).state == "running"
        assert "running" in show(capsys, str(folder))
    assert listed(folder).state == "stopped"
    code = "import fcntl, os, sys, time; at = os.open(sys.argv[1], os.O_RDONLY); fcntl.flock(at, fcntl.LOCK_EX); print('held', "
    code += "flush=True); time.sleep(60)"
    other = subprocess.Popen([sys.executable, "-c", code, str(folder)], stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout.readline() == "held\n"
        assert listed(folder).state == "running"
    finally:
        other.kill()
        other.wait()
        other.stdout.close()
    assert listed(folder).state == "stopped"


def test_a_look_lets_a_run_begin(runs, monkeypatch):
    """It has the lock for a moment, for which a run waits."""
    folder, looks = runs / "ring-interrupted", iter(range(3))
    import staa.locks

    real = staa.locks.fcntl.flock

    def flock(descriptor, how):
        if next(looks, None) is not None:
            raise BlockingIOError
        real(descriptor, how)

    monkeypatch.setattr(staa.locks.fcntl, "flock", flock)
    with exclusive(folder):
        pass
    assert next(looks, None) is None


def test_a_broken_run_is_named_in_a_line_and_the_others_go_on(runs, capsys):
    (runs / "digits" / "recipe.json").write_text('{"data": 5}')
    (runs / "images" / "result.json").write_text("{}")
    (runs / "ring" / "recipe.json").unlink()
    (runs / "recordings" / "recipe.json").write_text("[" * 100_000)
    text = show(capsys, "--csv", "all.csv")
    lines = {line.split(" is broken: ")[0]: line for line in text.splitlines() if " is broken: " in line}
    assert "can't be read as a recipe" in lines["runs/digits"]
    assert "its test_loss is missing" in lines["runs/images"]
    assert "it has no recipe.json" in lines["runs/ring"]
    assert "nested too deeply" in lines["runs/recordings"]
    assert len(lines) == 4
    assert text.splitlines()[-2] == "8 runs in runs: 4 broken, 4 stopped"
    table = pd.read_csv("all.csv").set_index("run")
    assert table.problem.notna().sum() == 4
    assert sorted(table.index) == sorted(f"runs/{path.name}" for path in runs.iterdir())


def change(path, pattern, value):
    text, count = re.subn(pattern, rf"\g<1>{value}", path.read_text())
    assert count
    path.write_text(text)


def test_a_figure_that_is_no_number_is_said_to_be_none(runs, capsys):
    for value in ("NaN", "1e999", "-Infinity"):
        change(runs / "digits" / "result.json", r'("test_accuracy": )[^,]*', value)
        change(runs / "ring" / "result.json", r'("test_mae": )[^,]*', value)
        change(runs / "recordings-interrupted" / "log.jsonl", r'("validation_accuracy": )[^,]*', value)
        for args in ([], ["--sort", "result"]):
            text = show(capsys, *args)
            assert not re.search(r"\bnan\b|\binf\b", text)
            for file, figure in (
                ("digits/result.json", "test_accuracy"), ("ring/result.json", "test_mae"),
                ("recordings-interrupted/log.jsonl", "validation_accuracy"),
            ):  # fmt: skip
                assert f"warning: the {figure} in runs/{file} is no finite number" in text
                assert re.search(rf"^runs/{Path(file).parent} .* –  ", text, re.MULTILINE)
    show(capsys, "--csv", "all.csv")
    table = pd.read_csv("all.csv").set_index("run")
    assert table.value.isna()[["runs/digits", "runs/ring"]].all()
    assert "no finite number" in table.problem["runs/digits"]


@pytest.mark.parametrize("file", ["recipe.json", "result.json", "log.jsonl"])
def test_a_number_of_many_digits_is_told_in_our_words(file, runs, capsys):
    key = {"recipe.json": "seed", "result.json": "best_epoch", "log.jsonl": "best_epoch"}[file]
    change(runs / "digits" / file, rf'("{key}": )\d+', "9" * 5000)
    text = show(capsys)
    line = next(line for line in text.splitlines() if "broken: " in line)
    assert f"runs/digits/{file} " in line
    assert "it holds a whole number of more than 4,300 digits" in line
    assert "set_int_max" not in text
    if file == "log.jsonl":
        with pytest.raises(ValueError, match=r"log.jsonl, line \d+: it holds a whole number of more than"):
            staa.read_log(runs / "digits")


def test_the_list_fits_a_terminal_and_is_whole_in_a_pipe(runs, capsys, monkeypatch):
    (runs / "digits").rename(runs / ("long" * 12))
    whole = show(capsys)
    assert f"runs/{'long' * 12}  " in whole
    monkeypatch.setattr(cli_text, "out", cli_text.Console(width=80, force_terminal=True, soft_wrap=True, highlight=False))
    lines = re.sub(r"\x1b\[[\d;]*m", "", show(capsys)).splitlines()
    assert max(map(len, lines[:-1])) <= 80
    assert lines[0].split()[:3] == ["run", "recipe", "state"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_may_not_be_read_is_named(runs, capsys):
    (runs / "ring").chmod(0)
    assert "runs/ring is broken: it can't be read: Permission denied" in show(capsys)
    (runs / "ring").chmod(0o700)


def test_they_are_sorted_as_asked(runs, capsys):
    assert names(show(capsys, "--sort", "run")) == sorted(path.name for path in runs.iterdir())
    by_result = [name for name in names(show(capsys, "--sort", "result")) if not name.endswith("interrupted")]
    accuracies = {name: listed(runs / name).figures.get("accuracy") for name in by_result}
    images = [accuracies[name] for name in by_result if accuracies[name] is not None]
    assert images == sorted(images)
    for sort in ("recipe", "seed", "state", "time"):
        assert len(names(show(capsys, "--sort", sort))) == 8


def test_hostile_names_do_nothing(runs, capsys):
    evil = "=1+1\x1b[2J\n"
    (runs / "ring").rename(runs / evil)
    text = show(capsys, "--csv", "all.csv", str(runs / evil))
    assert "\x1b" not in text
    assert "\\x1b[2J\\n" in text
    with open("all.csv", newline="") as file:
        (row,) = csv.DictReader(file)
    assert from_csv(row["run"]) == str(runs / evil)


def test_no_runs_are_no_mistake(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert show(capsys) == "no run in runs, which does not exist. First try: staa train\n"
    (tmp_path / "empty").mkdir()
    assert show(capsys, "empty") == "no run in empty. First try: staa train\n"


def test_checkpoints_are_not_opened(runs):
    for path in [*runs.rglob("*.pt"), *runs.rglob("*.safetensors"), *runs.rglob("environment.json")]:
        path.write_bytes(b"nothing")
    assert "broken" not in {one.state for one in runs_in([runs])}


def test_a_log_is_read_as_a_table_while_the_run_goes_on(tmp_path):
    seen = []
    for _ in run(replace(tiny.recipe, max_steps=5), tmp_path / "run"):
        seen.append(len(staa.read_log(tmp_path / "run")))
    assert seen == sorted(seen)
    assert seen[0] < seen[-1]
    log = staa.read_log(str(tmp_path / "run"))
    assert log.equals(staa.Run(tmp_path / "run").log)
    assert log[log.event == "epoch"].validation_loss.notna().all()
    (tmp_path / "run" / "log.jsonl").unlink()
    with pytest.raises(FileNotFoundError, match=r"log.jsonl"):
        staa.read_log(tmp_path / "run")
    with pytest.raises(FileNotFoundError, match="is not a run folder"):
        staa.read_log(tmp_path)


def test_the_first_of_several_seeds_is_the_smallest_number(tmp_path):
    for name in ("seed10", "seed9", "seed-old"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "recipe.json").touch()
    assert first_run(tmp_path) == tmp_path / "seed9"
