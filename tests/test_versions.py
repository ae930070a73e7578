"""Run folders of every version so far are read, gone on with and shared, and one of a later version is refused."""

import json
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import staa
from staa.export.share import share
from staa.files import FORMAT, check_format
from staa.runs import evaluate_run, run
from staa.runs.folder import draws, read_recipe
from staa.training.progress import Epoch, Result, Warned

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
    result.pop("format", None)  # of the file, and no figure
    figures = evaluate_run(folder, data_root=data_of(folder), device="cpu", workers=0)
    assert figures["samples"] == result["test_samples"]
    assert figures["loss"] == pytest.approx(result["test_loss"], rel=0.1)  # rounding may move a spike
    staa.load(share(folder, tmp_path / "shared"))
    *_, event = run(read_recipe(folder), folder, resume=folder, data_root=data_of(folder), device="cpu", workers=0)
    assert event.values() == result


def forms_of(folder):
    """By kind of event, what a line of the log tells, in its order."""
    events = map(json.loads, (folder / "log.jsonl").read_text().splitlines())
    return {event["event"]: list(event) for event in events if event["event"] != "environment"}


@named(INTERRUPTED)
def test_an_interrupted_run_goes_on(folder, kept):
    """And its log goes on in the form it had; figures that are new come beside. Where augmentation is drawn in another way than
    it was, that is said."""
    events = list(run(read_recipe(folder), folder, resume=folder, data_root=data_of(folder), device="cpu", workers=0))
    assert isinstance(events[-1], Result)
    assert next(event.step for event in events if isinstance(event, Epoch)) > 9
    drawn = "augmentation" in json.loads((kept / "environment.json").read_text()) or not draws(read_recipe(kept))
    assert drawn != any("drew augmentation by the batch" in event.text for event in events if isinstance(event, Warned))
    told, once = forms_of(folder), forms_of(kept.with_name(kept.name.removesuffix("-interrupted")))
    assert {"start", "epoch", "end", "result"} <= told.keys() & once.keys()
    assert all([key for key in told[kind] if key in form] == form for kind, form in once.items() if kind in told)


def newer_json(path):
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": FORMAT + 1}))


def newer_checkpoint(path):
    torch.save(torch.load(path) | {"format": FORMAT + 1}, path)


def newer_weights(path):
    save_file(load_file(path), path, {"staa.format": str(FORMAT + 1)})


def newer_log(path):
    path.write_text(json.dumps({"event": "environment", "format": FORMAT + 1}) + "\n")


@pytest.mark.parametrize(
    ("name", "make_newer", "use"),
    [
        ("recipe.json", newer_json, staa.load),
        ("environment.json", newer_json, staa.load),
        ("last.pt", newer_checkpoint, partial(staa.load, weights="last")),
        ("last.pt", newer_checkpoint, partial(staa.load, weights="best")),
        ("best.safetensors", newer_weights, partial(staa.load, weights="best")),
        ("result.json", newer_json, share),
        ("log.jsonl", newer_log, share),
        ("log.jsonl", newer_log, lambda folder: list(run(read_recipe(folder), folder, resume=folder))),
    ],
)
def test_a_file_of_a_later_version_is_refused(tmp_path, name, make_newer, use):
    folder = Path(shutil.copytree(FINISHED[0], tmp_path / "run"))
    make_newer(folder / name)
    with pytest.raises(ValueError, match=f"{name}.* newer version of staa: its format is {FORMAT + 1}.*upgrade staa"):
        use(folder)


def test_every_file_of_a_run_tells_its_format(tmp_path):
    list(run(tiny.recipe, tmp_path / "run"))
    for folder in (tmp_path / "run", share(tmp_path / "run", tmp_path / "shared")):
        assert {
            json.loads((folder / f"{name}.json").read_text())["format"] for name in ("recipe", "environment", "result")
        } == {FORMAT}
        assert torch.load(folder / "last.pt")["format"] == FORMAT
        with safe_open(folder / "best.safetensors", "pt") as file:
            assert file.metadata() == {"staa.format": str(FORMAT)}
        assert json.loads((folder / "log.jsonl").read_text().partition("\n")[0])["format"] == FORMAT


@pytest.mark.parametrize("number", [-1, 1.5, "1", None, True])
def test_a_format_is_a_number(number):
    with pytest.raises(ValueError, match="its format must be a whole number"):
        check_format(number, "x")
