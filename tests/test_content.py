"""Data that changed after a run was trained on them are noticed; data that were moved or touched are not refused."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import staa.data.content
from staa import RECIPES, Data, Model
from staa.analysis.compare import compare
from staa.data.content import PIECE, PIECES, content_of_files
from staa.recipes.parts import Forecast, Series
from staa.runs import evaluate_run, run
from staa.training.progress import Warned

CHANGED = "the data have changed since .* was trained: .* Bring back what was there"


def test_a_content_is_of_names_sizes_and_bytes_and_not_of_order(tmp_path):
    paths = [tmp_path / "a", tmp_path / "b"]
    for path in paths:
        path.write_bytes(b"1")
    first = content_of_files(tmp_path, map(str, paths)).facts()
    assert content_of_files(tmp_path, map(str, reversed(paths))).facts() == first
    os.utime(paths[0], (1, 1))
    touched = content_of_files(tmp_path, map(str, paths)).facts()
    assert touched["sha256"] == first["sha256"]
    assert touched["stamp"] != first["stamp"]
    for change in (
        lambda: paths[0].write_bytes(b"2"),
        lambda: paths[0].write_bytes(b"11"),
        lambda: paths[0].rename(tmp_path / "c"),
    ):
        change()
        now = [str(p) for p in tmp_path.iterdir()]
        assert content_of_files(tmp_path, now).sha256 != first["sha256"]
        shutil.rmtree(tmp_path)
        tmp_path.mkdir()
        for path in paths:
            path.write_bytes(b"1")


def test_a_large_file_is_sampled_from_its_first_byte_to_its_last(tmp_path):
    path, size = tmp_path / "large", PIECE * PIECES * 10
    sums = set()
    for at in (None, 0, PIECE - 1, (size - PIECE) // (PIECES - 1), size - 1):
        data = bytearray(size)
        if at is not None:
            data[at] = 1
        path.write_bytes(data)
        sums.add(content_of_files(tmp_path, [str(path)]).sha256)
    assert len(sums) == 5
    small = tmp_path / "small"  # whole
    sums = set()
    for at in range(0, PIECE * PIECES, PIECE // 2):
        data = bytearray(PIECE * PIECES)
        data[at] = 1
        small.write_bytes(data)
        sums.add(content_of_files(tmp_path, [str(small)]).sha256)
    assert len(sums) == 2 * PIECES


def test_files_that_look_untouched_are_not_read(tmp_path, monkeypatch):
    (tmp_path / "a").write_bytes(b"1")
    kept = content_of_files(tmp_path, [str(tmp_path / "a")]).facts()
    monkeypatch.setattr(staa.data.content, "_sample", None)
    again = content_of_files(tmp_path, [str(tmp_path / "a")])
    assert again.is_that(kept)
    assert again.facts() == kept


def images(folder: Path) -> Path:
    rng = np.random.default_rng(0)
    for name, colour in (("blue", (20, 30, 200)), ("red", (200, 20, 30))):
        (folder / name).mkdir(parents=True)
        for k in range(20):
            pixels = np.clip(rng.normal(colour, 30, (16, 16, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{k:02}.png")
    return folder


def recordings(folder: Path) -> Path:
    rng = np.random.default_rng(0)
    for name in ("left", "right"):
        (folder / name).mkdir(parents=True)
        for k in range(20):
            x = rng.integers(0, 8, 200) + 8 * (name == "right")
            t = np.sort(rng.integers(0, 10_000, 200))
            np.savez(folder / name / f"{k:02}.npz", t=t, x=x, y=rng.integers(0, 16, 200), p=rng.integers(0, 2, 200))
    return folder


IMAGES = replace(
    RECIPES["folder-resnet18-staa"], epochs=1, max_steps=1, batch_size=8, data=Data(name="folder", size=16, validation=0.2),
    model=Model(name="resnet18", steps=2, width=0.1),
)  # fmt: skip
RECORDINGS = replace(
    RECIPES["events-folder-vggsnn-staa"], epochs=1, max_steps=1, batch_size=8,
    data=Data(name="events-folder", size=16, validation=0.2, sensor="16x16"), model=Model(name="resnet20", steps=2, width=0.1),
)  # fmt: skip


@pytest.mark.parametrize(("make", "recipe"), [(images, IMAGES), (recordings, RECORDINGS)])
def test_a_class_replaced_under_the_same_names_is_noticed(make, recipe, tmp_path):
    root, folder = make(tmp_path / "data"), tmp_path / "run"
    first = list(run(recipe, folder, data_root=root, workers=0, stop=iter([False, True]).__next__))
    assert first
    result = list(run(recipe, folder, data_root=root, workers=0, resume=folder))[-1]
    assert evaluate_run(folder, workers=0)["loss"] == result.test["loss"]
    for path in root.rglob("*.*"):  # copied, or written again as it was
        os.utime(path, (1, 1))
    figures = evaluate_run(folder, workers=0)
    assert figures["loss"] == result.test["loss"]
    assert not any("digest" in note for note in figures["notes"])
    shutil.copytree(root, tmp_path / "moved")
    assert evaluate_run(folder, data_root=tmp_path / "moved", workers=0)["loss"] == result.test["loss"]

    one, other = sorted(p for p in root.iterdir() if not p.name.startswith("."))
    for path in one.iterdir():
        shutil.copy(other / path.name, path)
    for use in (
        lambda: evaluate_run(folder, workers=0),
        lambda: compare({"it": [folder]}, data_root=root, device="cpu"),
        lambda: _resume(recipe, folder, root),
    ):
        with pytest.raises(ValueError, match=CHANGED):
            use()


def _resume(recipe, folder, root):
    (folder / "result.json").unlink()
    list(run(recipe, folder, data_root=root, workers=0, resume=folder))


def test_a_run_of_an_older_version_is_read_with_a_note(tmp_path):
    root, folder = images(tmp_path / "data"), tmp_path / "run"
    list(run(IMAGES, folder, data_root=root, workers=0))
    environment = json.loads((folder / "environment.json").read_text())
    assert environment["data"]["content"].keys() == {"stamp", "sha256"}
    del environment["data"]["content"]
    (folder / "environment.json").write_text(json.dumps(environment))
    (note,) = evaluate_run(folder, workers=0)["notes"]
    assert "kept no digest of its data" in note
    (folder / "result.json").unlink()
    events = list(run(IMAGES, folder, data_root=root, workers=0, resume=folder))
    assert note in [event.text for event in events if isinstance(event, Warned)]
    for broken in ("text", {"stamp": "1"}, {"stamp": "1", "sha256": 3}):
        environment["data"]["content"] = broken
        (folder / "environment.json").write_text(json.dumps(environment))
        with pytest.raises(ValueError, match="environment.json is broken: it does not say what its data held"):
            evaluate_run(folder, workers=0)


def test_a_graph_that_changed_is_noticed(tmp_path):
    values, graph = np.random.default_rng(0).normal(5, 1, (120, 3)), np.eye(3) + 0.5
    path, folder = tmp_path / "a.npz", tmp_path / "run"
    np.savez(path, values=values, graph=graph)
    recipe = replace(
        RECIPES["series-ispikformer"], epochs=1, max_steps=1, batch_size=8, data=Data(name="series", validation=0.2),
        series=Series(horizon=2, window=6), forecast=Forecast(),
        model=replace(RECIPES["series-ispikformer"].model, name="linear", neuron="seqsnn"), weights="last",
    )  # fmt: skip
    list(run(recipe, folder, data_root=path))
    assert not evaluate_run(folder)["notes"]
    np.savez(path, values=values, graph=graph + 1)
    with pytest.raises(ValueError, match=CHANGED):
        evaluate_run(folder)
    np.savez(path, values=values + 1, graph=graph)
    with pytest.raises(ValueError, match="split differs"):
        evaluate_run(folder)
