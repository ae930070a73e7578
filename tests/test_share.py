"""A shared run tells nothing of the machine it was trained on, and works on another."""

import getpass
import json
import os
import socket
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch

import staa
from staa.cli import main
from staa.runs import evaluate_run, run
from staa.share import share


@pytest.fixture
def somebody(tmp_path, monkeypatch):
    """A user with a home, who trains there: a graph of his own, a run that starts from another, a file of his own."""
    home = tmp_path / "homes" / "jane-doe"
    (home / "data of mine").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setattr(getpass, "getuser", lambda: "jdoe")
    monkeypatch.setattr(socket, "gethostname", lambda: "lab-box-17.example.org")
    monkeypatch.chdir(home)
    monkeypatch.setattr("sys.argv", ["staa", "train", "--data", str(home / "data of mine"), "--user=jdoe"])
    return home


def everything(folder):
    for path in folder.rglob("*"):
        yield str(path.relative_to(folder)).encode()
        if path.is_file():
            yield path.read_bytes()
    if folder.suffix == ".zip":
        with zipfile.ZipFile(folder) as archive:
            for member in archive.infolist():
                yield member.filename.encode() + archive.read(member)


def private(home):
    return [str(home), "jane-doe", "jdoe", "lab-box-17", "data of mine", str(home.parent), os.getcwd(), "--user"]


@pytest.mark.parametrize("target", ["folder", "file.zip"])
def test_nothing_of_the_user_is_in_a_shared_run(somebody, target, tmp_path):
    root = somebody / "data of mine"
    note = f"2 files of {root} are corrupt, such as {root}/jdoe.jpg on lab-box-17"
    (somebody / "own.py").write_text("from staa.neurons import LIF\ndef make(channels):\n    return LIF(decay=0.25)\n")
    for _ in run(replace(tiny.recipe, epochs=1), somebody / "base", data_root=root):
        pass
    recipe = replace(
        tiny.recipe,
        epochs=1,
        init_from="base",
        summary=f"what jdoe made in {somebody}",
        model=replace(tiny.recipe.model, neuron="own.py:make", attention=None),
    )
    events = list(run(recipe, somebody / "run", data_root=root))
    with open(somebody / "run" / "log.jsonl", "a") as log:
        log.write(json.dumps({"event": "warning", "step": 0, "text": note}) + "\n")
    assert any(str(somebody).encode() in data for data in everything(somebody / "run"))
    out = share(somebody / "run", tmp_path / "out" / target)
    for data in everything(out):
        for text in private(somebody):
            assert text.encode() not in data, text
    if target == "file.zip":
        with zipfile.ZipFile(out) as archive:
            archive.extractall(tmp_path / "there")
        out = tmp_path / "there" / "file"
    log = (out / "log.jsonl").read_text()
    assert "2 files of  are corrupt, such as removed.jpg on removed" in log
    (somebody / "run").rename(somebody / "gone")
    figures = evaluate_run(out, data_root=tmp_path)
    assert figures["loss"] == pytest.approx(events[-1]["test_loss"])
    assert all(torch.equal(a, b) for a, b in zip(*(staa.load(f).parameters() for f in (out, somebody / "gone")), strict=True))
    assert json.loads((out / "result.json").read_text())["test_loss"] == events[-1]["test_loss"]
    with pytest.raises(ValueError, match="doesn't say where its data are.*give data_root"):
        evaluate_run(out)


def test_a_graph_goes_along(somebody, tmp_path):
    values = tiny.series().values
    np.savetxt("series.csv", values, delimiter=",", header="a,b,c,d,e,f", comments="")
    np.savetxt("graph.csv", tiny.series().graph, delimiter=",")
    options = ["--data", "series.csv", "--series.graph", "graph.csv", "--forecast.graph", "given", "--series.horizon", "3"]
    small = ["--forecast.width", "8", "--forecast.heads", "2", "--max-steps", "2", "--out", "run"]
    assert main(["train", "series-spikestag", *options, *small]) == 0
    share(Path("run"), tmp_path / "out")
    (somebody / "graph.csv").unlink()
    assert not any(text.encode() in data for data in everything(tmp_path / "out") for text in private(somebody))
    assert "mae" in evaluate_run(tmp_path / "out", data_root=somebody / "series.csv", split="test")
    assert json.loads((tmp_path / "out" / "recipe.json").read_text())["series"]["graph"] == "graph/graph.csv"


def test_code_that_names_its_user_is_not_shared(somebody, tmp_path):
    (somebody / "own.py").write_text(
        f"from staa.neurons import LIF\nDATA = {str(somebody)!r}\ndef make(channels):\n    return LIF()\n"
    )
    for _ in run(replace(tiny.recipe, epochs=1, model=replace(tiny.recipe.model, neuron="own.py:make")), somebody / "run"):
        pass
    with pytest.raises(ValueError, match=r"own-\w+.py names '.*jane-doe', which is not for others: take it out"):
        share(somebody / "run", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_is_there_is_left_alone(somebody, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    for _ in run(replace(tiny.recipe, epochs=1), somebody / "run"):
        pass
    assert main(["share", str(somebody / "run"), "--out", str(tmp_path / "out")]) == 2
    assert "is there already" in capsys.readouterr().err
    assert main(["share", str(somebody / "run")]) == 0
    assert (somebody / "run-shared" / "last.pt").is_file()
    assert not (somebody / "run-shared" / "previous.pt").exists()
