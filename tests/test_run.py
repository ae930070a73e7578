"""A run folder opened once: what it holds, and that each command reads its recipe and loads its model once."""

import json
import shutil
from collections import Counter
from pathlib import Path

import pytest
import tiny
import torch

import staa
import staa.runs.folder
import staa.runs.load
from staa.analysis.compare import compare
from staa.cli import main
from staa.data import Source
from staa.runs import Run, evaluate_run, run

VERSIONS = Path(__file__).parent / "versions"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained") / "run"
    list(run(tiny.recipe, folder))
    return folder


def test_a_run_is_what_its_folder_holds(trained):
    opened = Run(trained)
    assert repr(opened) == f"Run({str(trained)!r}, tiny)"
    assert opened.recipe.epochs == 2
    assert opened.environment["torch"] == torch.__version__
    assert opened.about["classes"] == 2
    assert opened.finished
    assert opened.result["test_samples"] == 8
    assert isinstance(opened.data, Source)
    epochs = opened.log[opened.log.event == "epoch"]
    assert epochs.epoch.tolist() == [1, 2]
    assert epochs.validation_loss.notna().all()
    x = opened.data.prepare(opened.data.test.take(torch.arange(3)))
    with torch.no_grad():
        assert torch.equal(opened.model()(x), staa.load(trained)(x))
    assert opened.model() is opened.model("last")
    assert opened.model("best") is not opened.model("last")
    assert not opened.model().training
    with pytest.raises(ValueError, match='weights must be "last" or "best", got \'first\''):
        opened.model("first")


def test_a_run_may_be_opened_before_it_is_used(trained):
    opened = Run(trained)
    assert evaluate_run(opened) == evaluate_run(trained)
    assert evaluate_run(opened)["loss"] == opened.result["test_loss"]
    (row,) = compare({"tiny": [opened]})
    assert row.test == opened.result["test_accuracy"]
    with torch.no_grad():
        x = opened.data.prepare(opened.data.test.take(torch.arange(3)))
        assert torch.equal(opened.model()(x), staa.load(trained)(x)), "comparing has trained it"


def test_what_is_no_run_is_told_at_once(tmp_path):
    with pytest.raises(FileNotFoundError, match="is not a run folder: it has no recipe.json"):
        Run(tmp_path)


def test_a_log_is_read_to_where_it_was_cut_off(trained, tmp_path):
    copy = Path(shutil.copytree(trained, tmp_path / "run"))
    events = len(Run(copy).log)
    with (copy / "log.jsonl").open("a") as log:
        log.write('{"time": 1, "ev')
    assert len(Run(copy).log) == events


@pytest.mark.parametrize(
    ("line", "message"), [("3", "is no event"), ('{"event": 3}', "is no event"), ("[" * 100_000, "nested too deeply")]
)
def test_what_is_no_event_is_named(trained, tmp_path, line, message):
    copy = Path(shutil.copytree(trained, tmp_path / "run"))
    number = len((copy / "log.jsonl").read_text().splitlines()) + 1
    with (copy / "log.jsonl").open("a") as log:
        log.write(line + "\n")
    with pytest.raises(ValueError, match=f"log.jsonl, line {number}.*{message}"):
        _ = Run(copy).log


@pytest.fixture
def counted(monkeypatch):
    """How often each file is read, and a model loaded."""
    counts = Counter()
    read_text, load_weights = staa.runs.folder.read_text, staa.runs.load.load_weights

    def reading(path):
        counts[Path(path).name] += 1
        return read_text(path)

    def loading(*args, **options):
        counts["models"] += 1
        return load_weights(*args, **options)

    monkeypatch.setattr(staa.runs.folder, "read_text", reading)
    monkeypatch.setattr(staa.runs.load, "load_weights", loading)
    return counts


@pytest.mark.parametrize("command", ["evaluate", "compare", "share", "predict"])
def test_a_command_reads_a_run_once(command, trained, counted, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = trained
    if command == "predict":
        folder = Path(shutil.copytree(VERSIONS / "unnumbered" / "ring", tmp_path / "ring"))
    table = tmp_path / "series.csv"
    if command == "predict":
        names = json.loads((folder / "environment.json").read_text())["data"]["names"]
        times = (f"2024-01-01 {k // 3:02}:{20 * (k % 3):02}" for k in range(20))
        rows = [",".join([time, *["1.5"] * len(names)]) for time in times]
        table.write_text("\n".join([",".join(["time", *names]), *rows]))
    options = {"predict": [str(table)], "share": ["--out", "shared"]}.get(command, [])
    assert main([command, str(folder), *options]) == 0, capsys.readouterr()
    assert counted["recipe.json"] == 1
    assert counted["environment.json"] <= 1
    assert counted["result.json"] <= 1
    assert counted["models"] == (0 if command == "share" else 1)
