"""A shared run tells nothing of the machine it was trained on, and works on another."""

import getpass
import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch

import staa
from staa.cli import main
from staa.export.share import cleaner, share
from staa.recipes import RECIPES
from staa.recipes.as_json import to_json
from staa.runs import evaluate_run, run
from staa.training.checkpoint import load_checkpoint, save_checkpoint


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
    assert figures["loss"] == pytest.approx(events[-1].test["loss"])
    assert all(torch.equal(a, b) for a, b in zip(*(staa.load(f).parameters() for f in (out, somebody / "gone")), strict=True))
    assert json.loads((out / "result.json").read_text())["test_loss"] == events[-1].test["loss"]
    assert evaluate_run(out) == figures  # its data set takes no folder


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
    with pytest.raises(ValueError, match="doesn't say where its data are.*give `data_root`"):
        evaluate_run(tmp_path / "out")
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
    assert "is there already: choose another --out" in capsys.readouterr().err
    assert main(["share", str(somebody / "run")]) == 0
    assert (somebody / "run-shared" / "last.pt").is_file()
    assert not (somebody / "run-shared" / "previous.pt").exists()


@pytest.fixture(scope="module")
def embedded(tmp_path_factory):
    """Runs on data that need no files, shared as folder and as .zip."""
    root = tmp_path_factory.mktemp("embedded")
    small = ["--max-steps", "1", "--model.width", "0.05", "--model.steps", "2"]
    assert main(["train", "digits-events", *small, "--batch-size", "16", "--out", str(root / "digits-events")]) == 0
    ring = ["--max-steps", "1", "--forecast.width", "8", "--forecast.heads", "2"]
    assert main(["train", "ring-spikestag", *ring, "--out", str(root / "ring-spikestag")]) == 0
    return root


@pytest.mark.parametrize("name", ["digits-events", "ring-spikestag"])
def test_a_shared_run_asks_for_no_data_that_needs_none(embedded, name, tmp_path, capsys):
    assert main(["share", str(embedded / name), "--out", str(tmp_path / "shared")]) == 0
    assert capsys.readouterr().out.rstrip().endswith("they measure it with: staa evaluate FOLDER")
    shutil.copytree(tmp_path / "shared", tmp_path / "there")
    assert main(["evaluate", str(tmp_path / "there")]) == 0
    theirs = capsys.readouterr().out.split(", ")[0]
    assert main(["evaluate", str(embedded / name)]) == 0
    assert capsys.readouterr().out.split(", ")[0] == theirs


@pytest.mark.parametrize(
    "command",
    [
        "evaluate RUN", "stream RUN r.bin", "predict RUN r.csv", "share RUN", "compare RUN", "train --resume RUN",
        "train tiny.py:recipe --init-from RUN",
    ],
)  # fmt: skip
def test_a_zip_of_a_run_is_to_be_unpacked_first(embedded, command, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    out = tmp_path / "for others.zip"
    assert main(["share", str(embedded / "ring-spikestag"), "--out", str(out)]) == 0
    shutil.copy(tiny.__file__, tmp_path / "tiny.py")
    capsys.readouterr()
    assert main([{"RUN": str(out)}.get(word, word) for word in command.split()]) == 2
    told = capsys.readouterr().err
    how = re.search(r"unpack it first, with `python (-m zipfile -e .* \.)`", told)
    assert how is not None, told
    subprocess.run([sys.executable, *shlex.split(how[1])], check=True)
    assert main(["evaluate", "for others"]) == 0


def test_a_file_of_a_run_is_no_run(embedded, capsys):
    assert main(["evaluate", str(embedded / "digits-events" / "last.pt")]) == 2
    assert f"is a file, and a run is a folder: give {embedded / 'digits-events'}" in capsys.readouterr().err


@pytest.fixture(scope="module")
def series(tmp_path_factory):
    """A shared run with a graph of its own, and what nobody else should have."""
    root = tmp_path_factory.mktemp("series")
    np.savetxt(root / "series.csv", tiny.series().values, delimiter=",", header="a,b,c,d,e,f", comments="")
    np.savetxt(root / "g.csv", tiny.series().graph, delimiter=",")
    options = ["--data", str(root / "series.csv"), "--series.graph", str(root / "g.csv"), "--forecast.graph", "given"]
    small = ["--series.horizon", "3", "--forecast.width", "8", "--forecast.heads", "2", "--max-steps", "2"]
    assert main(["train", "series-spikestag", *options, *small, "--out", str(root / "run")]) == 0
    share(root / "run", root / "shared")
    (root / "secret.txt").write_text("the password is 1234\n")
    return root


def name_graph(folder, name):
    """As a stranger would: in the recipe and in the checkpoint's."""
    fields = json.loads((folder / "recipe.json").read_text())
    fields["series"]["graph"] = name
    (folder / "recipe.json").write_text(json.dumps(fields))
    state = torch.load(folder / "last.pt", weights_only=True)
    torch.save(state | {"recipe": (folder / "recipe.json").read_text()}, folder / "last.pt")


@pytest.mark.parametrize("name", ["../secret.txt", "graph/../../secret.txt", "{root}/secret.txt", "../g.csv", "graph/link.csv"])
def test_a_strangers_run_can_not_name_a_file_to_give_away(series, name, tmp_path):
    shutil.copytree(series / "shared", series / tmp_path.name)
    folder = series / tmp_path.name
    (folder / "graph" / "link.csv").symlink_to(series / "g.csv")
    name_graph(folder, name.format(root=series))
    with pytest.raises(ValueError, match="is a link or lies outside the run folder|is no graph of the run's variates"):
        share(folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "name",
    ["recipe.json", "environment.json", "result.json", "log.jsonl", "last.pt", "best.safetensors", "graph/g.csv", "graph"],
)
def test_nothing_that_is_a_link_is_shared(series, name, tmp_path):
    shutil.copytree(series / "shared", tmp_path / "run")
    shutil.move(tmp_path / "run" / name, tmp_path / "elsewhere")
    (tmp_path / "run" / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match="is a link or lies outside the run folder"):
        share(tmp_path / "run", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_code_outside_a_strangers_run_is_not_shared(series, tmp_path):
    shutil.copytree(series / "shared", tmp_path / "run")
    (tmp_path / "private.py").write_text("KEY = 'abc'\n")
    fields = json.loads((tmp_path / "run" / "recipe.json").read_text())
    fields["model"]["neuron"] = f"{tmp_path}/private.py:KEY"
    (tmp_path / "run" / "recipe.json").write_text(json.dumps(fields))
    with pytest.raises(ValueError, match="names code outside it, .*private.py"):
        share(tmp_path / "run", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["log.jsonl", "environment.json", "result.json"])
def test_deep_records_are_refused_in_a_line(series, name, tmp_path):
    shutil.copytree(series / "shared", tmp_path / "run")
    path, depth = tmp_path / "run" / name, sys.getrecursionlimit()  # torch.compile raises the limit of the whole process
    path.write_text(
        json.dumps((json.loads(path.read_text()) if name != "log.jsonl" else {}) | {"x": 0}).replace(
            '"x": 0', '"x": ' + depth * "[" + depth * "]"
        )
    )
    with pytest.raises(ValueError, match=f"{name} .*nested too deeply"):
        share(tmp_path / "run", tmp_path / "out")


FOREIGN = [
    "/mnt/Big Disk/Alice Miller/x.png", "/home/Alice Miller", "file:///mnt/Alice/Miller", "C:/Users/Alice/Miller.txt",
    r"D:\Alice Miller\x", r"\\srv\Alice\Miller", "//srv/Alice/Miller", "~Alice/Miller", "~/Alice", "../../Alice/Miller x",
    "error:/mnt/Alice",
    "(/mnt/Alice)", "'/mnt/o'Alice/x'", "--data=/mnt/Alice", "/mnt/a\nAlice",
]  # fmt: skip


@pytest.mark.parametrize("text", FOREIGN)
def test_no_part_of_a_foreign_path_is_shared(text, tmp_path):
    clean = cleaner(tmp_path, {})
    for whole in (text, f"3 files of {text} and others"):
        cleaned = clean({"text": [whole]})["text"][0]
        assert not {"Alice", "Miller", "mnt", "srv"} & set(re.split(r"\W", cleaned))
        assert "removed" in cleaned


def test_what_is_no_path_is_kept(tmp_path):
    clean = cleaner(tmp_path, {})
    for recipe in RECIPES.values():
        assert clean(json.loads(to_json(recipe))) == json.loads(to_json(recipe))
    for text in ("images/s", "see https://example.org/a/b", "graph/g.csv", "code/own-00.py:make", "3 / 4", "a ~ b"):
        assert clean(text) == text


def test_two_letters_in_the_weights_are_no_name(tmp_path, monkeypatch):
    """A machine called vm: the letters stand by chance among the bytes of weights."""
    folder = tmp_path / "run"
    for _ in run(replace(tiny.recipe, epochs=1), folder):
        pass
    monkeypatch.setattr("socket.gethostname", lambda: "vm")
    with torch.no_grad():
        state = load_checkpoint(folder)
        weight = next(w for w in state["model"].values() if w.dtype == torch.float32 and w.numel() > 1)
        weight[(0,) * weight.ndim] = torch.frombuffer(bytearray(b" vm "), dtype=torch.float32)[0]
        save_checkpoint(folder, state)
    assert b" vm " in (share(folder, tmp_path / "shared") / "last.pt").read_bytes()
