"""Trained networks from elsewhere: those of the package, and runs on a hub."""

import json
import shutil
from dataclasses import replace

import pytest
import tiny
import torch

import staa
from staa import hub
from staa.cli import main
from staa.export.share import share, shared_files
from staa.runs import evaluate_run, run
from staa.training.checkpoint import load_checkpoint

NAMES = hub.pretrained_names()


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "tiny"
    for _ in run(replace(tiny.recipe, epochs=1), folder):
        pass
    return folder


@pytest.fixture
def published(trained, tmp_path):
    """What others find of `trained`."""
    for name, data in shared_files(staa.Run(trained), pickled=False).items():
        path = tmp_path / "published" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return tmp_path / "published"


def test_pretrained_networks_are_small_and_tell_nothing_of_a_machine():
    assert "digits-events" in NAMES
    files = [path for path in hub.WEIGHTS.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 3e6
    for name in NAMES:
        network = staa.pretrained(name)
        assert network.environment.keys().isdisjoint({"command", "data_root"})
        assert {line.split("  ")[1] for line in (network.folder / hub.SUMS).read_text().splitlines()} == {
            path.name for path in network.folder.iterdir() if path.name != hub.SUMS
        }
        assert network.finished
        assert network.result["protocol"] == "test-once"
        assert not network.environment["commit"].endswith("+")
        assert sum(p.numel() for p in network.model().parameters()) == network.environment["parameters"]


@pytest.mark.slow
def test_the_figure_of_the_embedded_default_is_measured_again():
    """Another machine's last bits may turn one sample of 450, which are 0.22 %."""
    network = staa.pretrained("digits-events")
    found = evaluate_run(network, split="test")
    assert found["accuracy"] == pytest.approx(network.result["test_accuracy"], abs=1.5 / 450)


def test_a_pretrained_network_that_is_unknown_or_damaged_is_refused(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="unknown pretrained network 'digit-events'; did you mean digits-events?"):
        staa.pretrained("digit-events")
    with pytest.raises(ValueError, match="unknown pretrained network '../weights/digits-events'"):
        staa.pretrained("../weights/digits-events")
    shutil.copytree(hub.WEIGHTS, tmp_path / "weights")
    monkeypatch.setattr(hub, "WEIGHTS", tmp_path / "weights")
    path = tmp_path / "weights" / "digits-events" / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match="model.safetensors is missing or damaged: install staa anew"):
        staa.pretrained("digits-events")
    path.unlink()
    with pytest.raises(ValueError, match="model.safetensors is missing or damaged: install staa anew"):
        staa.pretrained("digits-events")


def test_a_published_run_is_the_run_without_a_pickle(trained, published, tmp_path):
    assert {path.suffix for path in published.iterdir()} == {".json", ".jsonl", ".safetensors", ""}
    assert [path.suffix for path in (published / "code").iterdir()] == [".py"]
    for weights in ("last", "best"):
        ours, others = (staa.load(folder, weights=weights).state_dict() for folder in (trained, published))
        assert all(torch.equal(value, others[key]) for key, value in ours.items())
    assert evaluate_run(published) == evaluate_run(trained)
    out = share(published, tmp_path / "shared")
    assert load_checkpoint(out)["step"] == load_checkpoint(trained)["step"]


def test_a_published_run_can_be_begun_from_and_not_gone_on_with(published, tmp_path, capsys):
    start = replace(tiny.recipe, max_steps=1, init_from=str(published))
    assert all(event is not None for event in run(start, tmp_path / "next"))
    (published / "result.json").unlink()
    assert main(["train", "--resume", str(published), "--trust-code"]) == 2
    assert "is a published run and can't be gone on with: begin a new one from its weights (--init-from)" in (
        capsys.readouterr().err
    )


@pytest.mark.parametrize("broken", ["other recipe", "no recipe", "cut off"])
def test_weights_of_another_recipe_are_refused(published, broken):
    path = published / "model.safetensors"
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    if broken == "other recipe":
        header["__metadata__"]["staa.recipe"] = header["__metadata__"]["staa.recipe"].replace("0.05", "0.06")
    elif broken == "no recipe":
        del header["__metadata__"]["staa.recipe"]
    text = json.dumps(header).encode()
    path.write_bytes(data[:-9] if broken == "cut off" else len(text).to_bytes(8, "little") + text + data[8 + length :])
    told = {"other recipe": "belongs to another recipe", "no recipe": "its recipe makes no sense", "cut off": "truncated"}
    for weights in ("last", "best"):
        with pytest.raises(ValueError, match=told[broken]):
            staa.load(published, weights=weights)
