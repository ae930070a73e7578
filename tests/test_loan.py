"""What is done on a machine that is lent for minutes: its parts here, all of it on this one if slow tests are wanted."""

import argparse
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from safetensors.torch import load_file

import staa
from benchmarks import cargo, loan_home, loan_kernels, loan_process
from benchmarks.loan_process import Journal, Outcome, marks, run_stages
from benchmarks.loan_training import AGAIN, ENDING, LEAST_EPOCHS, SLACK, fastest, go_on, how_many, train
from staa.runs import run

HERE = Path(__file__).resolve().parents[1]


@pytest.fixture
def packed(tmp_path):
    """A made-up set in parts: the folder of its files, and that of its parts."""
    loan_home.made_up(tmp_path / "set", train=130, test=45)
    return tmp_path / "set", cargo.pack(tmp_path / "set", tmp_path / "parts", size=220_000, block=40)


def test_data_travel_in_parts_without_loss(tmp_path, packed):
    folder, parts = packed
    assert len(parts) > 1
    assert all(part.stat().st_size <= 220_000 for part in parts)
    found = cargo.unpack(tmp_path / "parts", tmp_path / "data")
    assert found == {"test": (45, 45), "train": (130, 130), "whole": True}
    for name in ("train", "test"):
        there = sorted((tmp_path / "data" / cargo.PARTS).glob(f"{name}.[0-9]*"))
        assert b"".join(p.read_bytes() for p in there) == (folder / f"{name}.bin").read_bytes()


@pytest.mark.parametrize("kind", ["noise", "black", "white", "stripes"])
def test_any_pixels_come_back_bit_for_bit(kind):
    rng = np.random.default_rng(1)
    records = {
        "noise": rng.integers(0, 256, (7, cargo.RECORD)),
        "black": np.zeros((1, cargo.RECORD)),
        "white": np.full((2, cargo.RECORD), 255),
        "stripes": np.tile([0, 255], (3, cargo.RECORD // 2)),
    }[kind].astype(np.uint8)
    assert np.array_equal(cargo.decode(cargo.encode(records)), records)


def test_what_has_arrived_is_trained_on_and_said(tmp_path, packed):
    _, parts = packed
    first, second = (tmp_path / name for name in ("first", "second"))
    for folder, part in ((first, parts[0]), (second, parts[-1])):
        cargo.unpack(_alone(part, folder), folder)
    source = cargo.some_of_cifar100(root=first, validation=0.1)
    assert len(source.test) == 45
    assert 0 < len(source.train) + len(source.validation) < 130
    assert "not of the test set" not in " ".join(source.notes)
    source = cargo.some_of_cifar100(root=second, validation=0.0)
    here = len(source.train) + len(source.test)
    assert len(source.test) == here // 10
    assert "not of the test set" in " ".join(source.notes)
    with pytest.raises(FileNotFoundError, match="no part of the data"):
        cargo.unpack(tmp_path / "empty", tmp_path / "nowhere")


def _alone(part, folder):
    (folder / "in").mkdir(parents=True)
    (folder / "in" / part.name).write_bytes(part.read_bytes())
    return folder / "in"


def test_a_block_that_was_changed_is_noticed(tmp_path, packed):
    cargo.unpack(tmp_path / "parts", tmp_path / "data")
    block = next((tmp_path / "data" / cargo.PARTS).glob("train.*"))
    data = bytearray(block.read_bytes())
    data[100] ^= 1
    block.write_bytes(data)
    with pytest.raises(ValueError, match=r"train\.bin is not what was packed"):
        cargo.unpack(tmp_path / "parts", tmp_path / "data")


def test_what_would_not_travel_is_refused(tmp_path, packed):
    folder, _ = packed
    with pytest.raises(ValueError, match="pack fewer records a block"):
        cargo.pack(folder, tmp_path / "other", size=20_000, block=40)
    (tmp_path / "odd").mkdir()
    for name in ("train", "test"):
        (tmp_path / "odd" / f"{name}.bin").write_bytes(bytes(3073))
    with pytest.raises(ValueError, match=r"test\.bin is no file of CIFAR-100"):
        cargo.pack(tmp_path / "odd", tmp_path / "other", size=220_000, block=40)
    options = argparse.Namespace(
        source=folder, to=tmp_path / "cargo", part_mib=0.2, call_mib=0.1, no_wheels=True, python="3.12", block=40
    )
    with pytest.raises(ValueError, match="at most 0.1 may go"):
        loan_home.pack(options)
    with pytest.raises(ValueError, match=r"take \d parts"):
        loan_home.pack(argparse.Namespace(**{**vars(options), "part_mib": 0.1, "block": 10}))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained") / "tiny-seed0"
    *_, result = run(tiny.recipe, folder)
    return folder, result


ABOUT = {"commit": "0123456789", "command": "loan call2", "form": "eager", "finished": True}


def test_a_run_comes_home_in_pieces_and_is_told_of(tmp_path, trained, capsys):
    folder, result = trained
    pieces = cargo.bring_home(folder, tmp_path / "home", size=30_000, files=8, about=ABOUT)
    assert 1 < len(pieces) <= 8
    assert all(p.stat().st_size <= 30_000 for p in pieces)
    options = argparse.Namespace(home=[tmp_path / "home"], to=tmp_path / "results", loan=1)
    loan_home.collect(options)
    there = tmp_path / "results" / "1" / "tiny-seed0"
    assert {p.name for p in there.iterdir()} == {*cargo.RECORDS, "loan.json", "weights.safetensors"}
    weights = load_file(there / "weights.safetensors")
    for name, weight in staa.load(folder).state_dict().items():
        assert torch.equal(weights[name], weight.to(torch.bfloat16) if weight.is_floating_point() else weight)
    table = (tmp_path / "results" / "README.md").read_text()
    assert f"| tiny | 0 | 2 of 2 | 40 | {result.test['accuracy']:.2%} |" in table
    assert "| eager |" in table
    assert "| 0123456 | `loan call2` |" in table
    loan_home.collect(options)  # the same again is nothing new
    (there / "log.jsonl").write_text("mine")
    with pytest.raises(ValueError, match="holds something else"):
        loan_home.collect(options)
    assert (there / "log.jsonl").read_text() == "mine"
    pieces[1].unlink()
    with pytest.raises(ValueError, match="a piece is missing"):
        loan_home.collect(argparse.Namespace(home=[tmp_path / "home"], to=tmp_path / "other", loan=1))
    assert not (tmp_path / "other").exists()


def test_further_seeds_come_home_as_records_and_as_paired_differences(tmp_path, trained):
    found = {("a-plain", 0): 0.5, ("a-plain", 1): 0.6, ("a-staa", 0): 0.52, ("a-staa", 1): 0.61, ("a-staa", 2): 0.9}
    folders = {}
    for (name, seed), accuracy in found.items():
        folder = tmp_path / f"{name}-seed{seed}"
        shutil.copytree(trained[0], folder)
        for file, more in (("recipe.json", {"name": name, "seed": seed}), ("result.json", {"test_accuracy": accuracy})):
            (folder / file).write_text(json.dumps(json.loads((folder / file).read_text()) | more))
        folders[folder] = ABOUT
    cargo.bring_records(folders, tmp_path / "home" / "a-more.tar")
    loan_home.collect(argparse.Namespace(home=[tmp_path / "home"], to=tmp_path / "results", loan=1))
    text = (tmp_path / "results" / "README.md").read_text()
    assert "| `a-staa` | plain | 2 | 2 | +1.50 | -4.85 … +7.85 |" in text
    assert text.count("a-staa` | plain") == 1
    assert not list((tmp_path / "results").rglob("*.safetensors"))


@pytest.mark.parametrize("name", ["../elsewhere/log.jsonl", "/tmp/log.jsonl", "deep/er/log.jsonl", "log.jsonl"])
def test_an_archive_writes_nowhere_else(tmp_path, name):
    (tmp_path / "home").mkdir()
    with tarfile.open(tmp_path / "home" / "odd.tar", "w") as archive:
        archive.addfile(tarfile.TarInfo(name), io.BytesIO())
    with pytest.raises(ValueError, match="no file of a run folder"):
        loan_home.collect(argparse.Namespace(home=[tmp_path / "home"], to=tmp_path / "results", loan=1))
    assert not (tmp_path / "results").exists()


def test_weights_stay_where_there_is_no_room_for_them(tmp_path, trained, capsys):
    (piece,) = cargo.bring_home(trained[0], tmp_path, size=30_000, files=1, about=ABOUT)
    ((name, data),) = cargo.archives(tmp_path)
    assert name == "tiny-seed0"
    assert b"weights.safetensors" not in data
    assert piece.name == "tiny-seed0.tar"
    assert "comes home without weights" in capsys.readouterr().out


def test_a_run_that_broke_off_comes_home_too(tmp_path):
    asked = iter(range(10**6))
    list(run(replace(tiny.recipe, epochs=3), tmp_path / "tiny-seed0", stop=lambda: next(asked) > 5))
    cargo.bring_home(tmp_path / "tiny-seed0", tmp_path / "home", size=1 << 20, files=1, about={**ABOUT, "finished": False})
    loan_home.collect(argparse.Namespace(home=[tmp_path / "home"], to=tmp_path / "results", loan=1))
    assert "| 1 of 3 | 40 | not finished |" in (tmp_path / "results" / "README.md").read_text()


def pace(alone, together, steps=100, ready=10.0, saving=0.0):
    return {"alone": alone, "together": together, "epoch_steps": steps, "ready_after": ready, "saving": saving}


def test_as_many_epochs_are_trained_as_fit():
    # no gain from two at once: 100 steps of each take 10 + 20 s by turns, and as much at the same time
    epochs, beside, each = how_many(1000, [pace(10, 5), pace(5, 2.5)])
    assert each == pytest.approx(30 * SLACK)
    assert epochs == int((1000 - 10 - ENDING) / each)  # one start, one ending
    assert beside
    # two at once slow each other down to a third
    epochs, beside, each = how_many(1000, [pace(10, 3), pace(5, 1.5)])
    assert not beside
    assert epochs == int((1000 - 2 * (10 + ENDING)) / (30 * SLACK))
    # together they lose nothing: the slower one alone decides
    epochs, beside, each = how_many(1000, [pace(10, 10), pace(5, 5)])
    assert each == pytest.approx(20 * SLACK)
    assert beside
    # checkpoints take their time
    assert how_many(1000, [pace(10, 10, saving=4.0)])[0] == int((1000 - 10 - ENDING) / (10 * SLACK + 4))
    assert how_many(30, [pace(10, 10)]) == (0, False, pytest.approx(10 * SLACK))


def test_an_unknown_pace_leaves_few_epochs():
    assert how_many(1000, [pace(10, 10), None])[:2] == (5, False)
    assert how_many(10, [None])[0] == 0


def form(name, loss=4.6, norm=1.0, ms=10.0):
    return {"form": name, "loss": loss, "norm": norm, "ms": ms}


@pytest.mark.parametrize(
    ("found", "distrusted", "chosen"),
    [
        ([form("eager", ms=5), form("reference", ms=20)], None, "eager"),
        ([form("eager", ms=5), form("reference", ms=20), form("graph", ms=3), form("compile", ms=4)], None, "graph"),
        ([form("eager", ms=5), form("reference", ms=20), form("graph", loss=4.8, ms=3)], None, "eager"),
        ([form("eager", norm=1.2, ms=5), form("reference", ms=20)], None, "reference"),
        ([form("eager", loss=float("nan"), ms=5), form("reference", ms=20)], None, "reference"),
        ([form("eager", ms=5), form("reference", ms=20)], "the smoke test", "reference"),
        ([form("eager", ms=5), {"form": "reference", "failed": "no memory"}], None, "eager"),
        ([form("eager", ms=5), {"form": "reference", "failed": "no memory"}, form("graph", ms=3)], None, "graph"),
        ([form("eager", ms=5), form("graph", loss=4.8, ms=3)], None, "eager"),
        ([{"form": "eager", "failed": "an illegal address"}], None, "reference"),
        ([form("reference", loss=float("nan"))], None, "reference"),
        ([], None, "eager"),
    ],
)
def test_the_fastest_form_that_is_right_is_taken(found, distrusted, chosen):
    assert fastest(found, distrusted)[0] == chosen


class Scripted:
    """A call whose stages end as they are told to: stage -> what it answers to (jobs, seconds, slow), call by call."""

    def __init__(self, folder, seconds, **script):
        self.options = argparse.Namespace(work=folder, out=folder, files=8, archive_mib=15, epochs=200, seed=0, told="call2")
        self.state, self.commit, self.notes, self.asked = {"form": "eager"}, "0123", [], []
        self.seconds, self.script = seconds, {name: iter(answers) for name, answers in script.items()}

    def left(self):
        return self.seconds

    def note(self, text):
        self.notes.append(text)

    def remember(self, **what):
        self.state |= what

    def together(self, name, seconds, jobs, *, slow=False):
        self.asked.append((name, {job["recipe"]: job for job in jobs}, slow))
        took, answers = next(self.script[name])
        self.seconds -= took
        return [Outcome(name, status, took, results) for status, results in answers]

    def stage(self, name, seconds, **job):
        return self.together(name, seconds, [job])[0]


def test_numbers_that_are_none_are_not_right(monkeypatch):
    good = loan_kernels.lif
    shattered = lambda x, *, decay: (good(x, decay=decay)[0] + 0 * (decay - decay.detach()).sqrt(), None)  # noqa: E731
    for neuron, right in ((good, True), (shattered, False)):
        monkeypatch.setattr(loan_kernels, "lif", neuron)
        found = loan_kernels._compare(torch.rand(2, 2, 72, 3, 3), dict(decay=torch.tensor(0.5)))
        assert found["right"] == right
        assert found["flipped"] == 0


FINE = ("done", [{"event": "epoch"}] * 9 + [{"event": "result"}, {"home": {}}])
QUICK = ("done", [pace(10, 10)])


def test_a_pair_is_trained_at_the_same_time_for_as_long_as_there_is(tmp_path):
    call = Scripted(tmp_path, 500, pace=[(30, [QUICK, QUICK])], train=[(400, [FINE, FINE])])
    epochs = train(call, ("a", "b"))
    assert epochs == int((470 - 10 - ENDING) / (10 * SLACK))
    (_, jobs, slow) = call.asked[-1]
    assert [(job["epochs"], job["resume"], job["home"]["files"]) for job in jobs.values()] == [(epochs, False, 3)] * 2
    assert not slow
    assert call.state["unfinished"] == {}


def test_a_pair_is_trained_on_as_many_seeds_as_leave_enough_epochs(tmp_path):
    for seconds, seeds in ((1000, 4), (330, 2), (200, 1)):
        call = Scripted(tmp_path, seconds, pace=[(30, [QUICK, QUICK])], train=[(400, [FINE, FINE])])
        epochs = train(call, ("a", "b"), seeds=4)
        whole = (seconds - 30 - 10 - ENDING) / (10 * SLACK)
        assert epochs == int(whole / seeds - (seeds - 1) * AGAIN / seeds / (10 * SLACK))
        assert epochs >= LEAST_EPOCHS
        (_, jobs, _) = call.asked[-1]
        assert [(job["seeds"], job["home"]["files"]) for job in jobs.values()] == [(list(range(seeds)), 2 + (seeds == 1))] * 2


def test_runs_that_break_off_go_on_in_a_simpler_form(tmp_path):
    broke = ("failed", [{"event": "epoch"}] * 4)
    script = {"pace": [(30, [QUICK, QUICK])], "train": [(100, [broke, ("failed", [])]), (300, [FINE, FINE])]}
    call = Scripted(tmp_path, 500, **script)
    call.state["ms"] = {"eager": 10.0, "reference": 40.0}
    epochs = train(call, ("a", "b"))
    (_, jobs, slow) = call.asked[-1]
    assert slow  # by the reference path
    assert (jobs["a"]["epochs"], jobs["a"]["resume"]) == (epochs, True)
    assert (jobs["b"]["epochs"], jobs["b"]["resume"]) == (int((370 - ENDING) / (4 * 10 * SLACK)), False)
    assert "a broke off after 4 epochs, b broke off after 0 epochs; in the form reference" in call.notes[-1]


def test_without_a_pace_the_simpler_form_is_taken_and_what_was_stopped_goes_on_later(tmp_path):
    lost = ("failed", [])
    stopped = ("done", [{"event": "epoch"}, {"event": "interrupted"}, {"home": {}}])
    script = {"pace": [(30, [QUICK, lost]), (30, [lost, lost])], "train": [(200, [FINE]), (200, [stopped])]}
    call = Scripted(tmp_path, 500, **script)
    assert train(call, ("a", "b")) == 5
    assert [slow for name, _, slow in call.asked if name == "train"] == [True, True]
    assert call.state["unfinished"] == {"b": (5, "reference", 1)}
    call.seconds, call.script["train"] = 100, iter([(50, [FINE])])
    assert go_on(call)
    assert call.asked[-1][1]["b"]["resume"]
    assert call.state["unfinished"] == {}
    assert not go_on(call)


def test_what_does_not_fit_is_left_out(tmp_path):
    call = Scripted(tmp_path, 60, pace=[(30, [QUICK])])
    assert train(call, ("a",)) == 0
    assert "a: left out, not one epoch fits" in call.notes[-1]
    call = Scripted(tmp_path, 40)
    assert train(call, ("a",)) == 0  # without asking for its pace
    assert "a: left out, 40 s are not worth a start" in call.notes[-1]


PROGRAM = """
import json, os, subprocess, sys, time
call = json.loads(sys.argv[1])
with open(call["journal"], "a") as file:
    file.write(json.dumps({"stage": call["stage"], "mark": call["mark"], "began": os.getpid()}) + "\\n")
print("x" * call.get("chatter", 0))
if call["does"] == "hang":
    subprocess.Popen(["sleep", "600"], start_new_session=True)
    subprocess.run(["sleep", "600"])
sys.exit(call["does"] == "fail")
"""


@pytest.fixture
def stages(tmp_path):
    (tmp_path / "program.py").write_text(PROGRAM)
    journal = Journal(tmp_path, "call1", 10_000)

    def go(seconds, *jobs):
        return run_stages("stage", jobs, seconds, journal, dict(os.environ), [sys.executable, str(tmp_path / "program.py")])

    return go, journal


def test_a_stage_that_hangs_is_killed_with_its_children_and_the_next_goes_on(stages, capsys):
    go, journal = stages
    began = time.monotonic()
    hung, fine = go(10.0, {"does": "hang"}, {"does": "end"})
    assert time.monotonic() - began < 60
    assert (hung.status, fine.status) == ("late", "done")
    assert len(hung.results) == len(fine.results) == 1  # what it had said stays
    assert not [mark for _, mark in marks() if mark.startswith("stage-")]
    assert [o.status for o in go(60.0, {"does": "fail"}) + go(60.0, {"does": "end"})] == ["failed", "done"]
    lines = [json.loads(line) for line in journal.results.read_text().splitlines()]
    assert [line["status"] for line in lines if "status" in line] == ["late", "done", "failed", "done"]


def test_strays_of_a_killed_call_are_ended(tmp_path):
    stray = subprocess.Popen(["sleep", "600"], env={**os.environ, loan_process.MARK: "stage-4194999-0"})  # no such process
    other = subprocess.Popen(["sleep", "600"], env={**os.environ, loan_process.MARK: f"stage-{os.getpid()}-0"})
    try:
        told = []
        loan_process.end_strays(told.append)
        assert stray.wait(10) == -9
        assert other.poll() is None
        assert len(told) == 1
    finally:
        for process in (stray, other):
            process.kill()
            process.wait()


def test_a_long_log_keeps_both_ends(stages, monkeypatch):
    go, journal = stages
    monkeypatch.setattr(loan_process, "GRACE", 2_000)
    go(20.0, {"does": "end", "chatter": 100_000})
    log = journal.log.read_text()
    assert len(log.encode()) < 6_000
    assert log.startswith("\n=== stage-")
    assert "bytes left out" in log


@pytest.mark.slow
def test_a_dry_run_with_a_fault_in_each_stage(tmp_path):
    command = [sys.executable, "-m", "benchmarks.loan", "dry-run", "--folder", str(tmp_path / "dry")]
    command += ["--seconds", "400", "400", "100", "--stage-seconds", "200", "--patience", "6"]
    command += ["--fault=call1=facts:raise,unpack:die,smoke:wrong,speed:die,tests:hang"]
    command += ["--fault=call2=step:hang,train/cifar100-resnet20-plain:break,archive:raise"]
    command += ["--fault=call3=unpack:raise,pace/cifar100-resnet20-gc:die"]
    done = subprocess.run(command, cwd=HERE, capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stderr
    calls = {}
    for call in ("call1", "call2", "call3"):
        files = list((tmp_path / "dry" / call).iterdir())
        assert len(files) <= 8
        calls[call] = [json.loads(line) for line in (tmp_path / "dry" / call / f"{call}.jsonl").read_text().splitlines()]
        assert list(calls[call][-1]) == ["summary", "home_mib"]
    ended = {call: [(line["stage"], line["status"]) for line in lines if "status" in line] for call, lines in calls.items()}
    notes = "\n".join(line["note"] for lines in calls.values() for line in lines if "note" in line)

    assert dict(ended["call1"]) == {"facts": "failed", "unpack": "failed", "smoke": "done", "speed": "failed", "tests": "late"}
    assert "13 cases of the kernels are wrong, first attention, channels_last, bfloat16" in notes
    assert "training runs on what has arrived" in notes  # the first part was lost
    assert "a step is taken in the form reference" in notes
    assert ended["call2"][:2] == [("unpack", "done"), ("step", "late")]
    assert sorted(s for n, s in ended["call2"] if n == "train") == ["done", "failed"]
    assert ("archive", "failed") in ended["call2"]
    assert ended["call3"][:2] == [("unpack", "failed"), ("pace", "failed")]
    table = (tmp_path / "dry" / "results" / "README.md").read_text()
    rows = [line for line in table.splitlines() if line.startswith("| cifar100-resnet20-staa ")]
    assert rows
    assert all("| reference |" in row and "(held out, no test set)" in row for row in rows)
    assert not [mark for _, mark in marks() if mark.startswith(("tests-", "step-"))]
