"""Run folders of every version so far are read, gone on with and shared, and one of a later version is refused."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import staa
from staa.runfolder import read_recipe
from staa.runs import evaluate_run, run
from staa.share import share

HERE = Path(__file__).parent / "versions"
FINISHED = sorted(path.parent for path in HERE.glob("*/*/answers.npz"))
INTERRUPTED = sorted(HERE.glob("*/*-interrupted"))
OWN = {"images": HERE / "images", "recordings": HERE / "recordings"}


def named(folders):
    return pytest.mark.parametrize("kept", folders, ids=[f"{folder.parent.name}-{folder.name}" for folder in folders])


@pytest.fixture
def folder(kept, tmp_path, monkeypatch):
    """A copy, beside which nothing is written."""
    monkeypatch.setenv("STAA_FRAMES", str(tmp_path / "frames"))
    return Path(shutil.copytree(kept, tmp_path / kept.name))


def data_of(folder):
    return OWN.get(folder.name.partition("-")[0], HERE)


def test_there_is_a_run_of_each_kind():
    kinds = {folder.name for folder in FINISHED}
    assert kinds == {"images", "recordings", "digits", "ring"}
    assert {folder.name for folder in INTERRUPTED} == {f"{kind}-interrupted" for kind in kinds}


@named(FINISHED)
def test_a_finished_run_answers_as_it_did(folder):
    answers = np.load(folder / "answers.npz")
    inputs = [torch.from_numpy(answers[name]) for name in sorted(answers.files) if name.startswith("x")]
    with torch.no_grad():
        y = staa.load(folder).double()(*inputs)
    np.testing.assert_allclose(y.numpy(), answers["y"], rtol=1e-6, atol=1e-8)


@named(FINISHED)
def test_a_finished_run_is_measured_and_shared(folder, tmp_path):
    result = json.loads((folder / "result.json").read_text())
    figures = evaluate_run(folder, data_root=data_of(folder), device="cpu", workers=0)
    assert figures["samples"] == result["test_samples"]
    assert figures["loss"] == pytest.approx(result["test_loss"], rel=0.1)  # rounding may move a spike
    staa.load(share(folder, tmp_path / "shared"))
    *_, event = run(read_recipe(folder), folder, resume=folder, data_root=data_of(folder), device="cpu", workers=0)
    assert {**event, "event": None} == {**result, "event": None}


@named(INTERRUPTED)
def test_an_interrupted_run_goes_on(folder):
    events = list(run(read_recipe(folder), folder, resume=folder, data_root=data_of(folder), device="cpu", workers=0))
    assert events[-1]["event"] == "result"
    assert next(event["step"] for event in events if event["event"] == "epoch") > 9
