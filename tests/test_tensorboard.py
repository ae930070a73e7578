"""TensorBoard's files of a run: what log.jsonl has, how neurons fire, and no trace in the run itself."""

import io
import json
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from staa.analysis import tensorboard
from staa.analysis.tensorboard import BINS, Board, spikes_of, to_tensorboard
from staa.cli import main
from staa.export.share import share
from staa.neurons import LIF
from staa.runs import run
from staa.training.progress import Result, Start, Warned
from staa.training.weights import read_weights

LAYERS = [f"stages.{k}.{j}" for k in range(4) for j in (1, 3)]


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plain") / "run"
    list(run(tiny.recipe, folder))
    return folder


@pytest.fixture(scope="module")
def watched(tmp_path_factory):
    folder = tmp_path_factory.mktemp("watched") / "run"
    assert not [event for event in to_tensorboard(run(tiny.recipe, folder), folder) if isinstance(event, Warned)]
    return folder


def read(folder):
    board = EventAccumulator(str(folder / "tensorboard"), size_guidance={"scalars": 0, "images": 0, "histograms": 0})
    return board.Reload()


def logged(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def told(folder):
    """What a run's log says but for when and how fast."""
    changing = ("time", "seconds", "waited", "data_root", "command")
    return [{name: value for name, value in event.items() if name not in changing} for event in logged(folder)]


def same_weights(a, b):
    a, b = (torch.load(folder / "last.pt", weights_only=True)["model"] for folder in (a, b))
    return all(torch.equal(a[name], b[name]) for name in a)


def test_the_run_is_the_same_to_the_last_bit(plain, watched):
    assert same_weights(plain, watched)
    best, also = (read_weights(folder / "best.safetensors") for folder in (plain, watched))
    assert all(torch.equal(best[name], also[name]) for name in best)
    assert told(plain) == told(watched)
    assert (plain / "result.json").read_bytes() == (watched / "result.json").read_bytes()


def test_each_number_of_the_log_is_there_at_its_step(watched):
    board, count = read(watched), 0
    for event in logged(watched):
        step = event.get("step", 10)
        for name, value in event.items():
            if name == "rates":
                values = {f"rates/{layer}": rate for layer, rate in value.items()}
            else:
                values = {name: value} if type(value) in (int, float) else {}
            for tag, number in values.items():
                if event["event"] in ("step", "epoch", "end", "result") and tag not in ("time", "step", "epoch"):
                    found = [s.value for s in board.Scalars(f"{event['event']}/{tag}") if s.step == step]
                    assert found == pytest.approx([number])
                    count += 1
    assert count > 30
    assert {"step/lr", "epoch/validation_accuracy", "result/test_accuracy"} <= set(board.Tags()["scalars"])


def test_each_epoch_has_histograms_of_its_layers_and_a_raster(watched):
    board = read(watched)
    assert board.Tags()["histograms"] == [f"firing/{layer}" for layer in LAYERS]
    for layer in LAYERS:
        histograms = board.Histograms(f"firing/{layer}")
        assert [h.step for h in histograms] == [5, 10]
        value = histograms[-1].histogram_value
        assert sum(value.bucket) == value.num > 10
        assert len(value.bucket) == len(value.bucket_limit) == len(BINS) - 1
        assert 0 <= value.min <= value.sum / value.num <= value.max <= 1
    assert [picture.step for picture in board.Images("raster")] == [5, 10]
    picture = board.Images("raster")[0]
    drawn = Image.open(io.BytesIO(picture.encoded_image_string))
    assert drawn.size == (picture.width, picture.height)
    assert len(np.unique(np.asarray(drawn))) > 2


class Noisy(torch.nn.Module):
    """A network with all that a look could change: a random state, and statistics."""

    def __init__(self):
        super().__init__()
        self.norm, self.lif = torch.nn.BatchNorm1d(3), LIF()

    def forward(self, x):
        spikes = self.lif(self.norm(x) + torch.rand_like(x))
        return torch.stack([spikes, spikes]) if spikes.ndim == 2 else spikes


def test_a_look_changes_nothing():
    model, x = Noisy().train(), torch.rand(4, 3)
    before, state = {name: value.clone() for name, value in model.state_dict().items()}, torch.get_rng_state()
    (spikes,) = spikes_of(model, x).values()
    assert set(spikes.unique().tolist()) <= {0.0, 1.0}
    assert model.training
    assert model.norm.training
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert not model.lif._forward_hooks


def steps_of(board, tag):
    return [scalar.step for scalar in board.Scalars(tag)]


def test_a_resumed_run_doubles_no_step_and_loses_none(plain, tmp_path):
    """Not even those after the checkpoint that it goes on from."""
    folder = tmp_path / "run"
    list(to_tensorboard(run(tiny.recipe, folder), folder))
    (folder / "result.json").unlink()
    assert torch.load(folder / "previous.pt", weights_only=True)["step"] == 5
    list(to_tensorboard(run(tiny.recipe, folder, resume=folder / "previous.pt"), folder))
    board = read(folder)
    assert len(list((folder / "tensorboard").iterdir())) == 2
    assert steps_of(board, "epoch/loss") == [5, 10]
    assert steps_of(board, "step/loss") == steps_of(board, "result/test_loss") == [10]
    assert [h.step for h in board.Histograms("firing/stages.0.1")] == [5, 10]
    assert [picture.step for picture in board.Images("raster")] == [5, 10]
    assert same_weights(plain, folder)


def test_an_interrupted_run_goes_on_in_the_middle_of_an_epoch(plain, tmp_path):
    folder, count = tmp_path / "run", iter(range(100))
    list(to_tensorboard(run(tiny.recipe, folder, stop=lambda: next(count) == 6), folder))
    assert steps_of(read(folder), "epoch/loss") == [5]
    list(to_tensorboard(run(tiny.recipe, folder, resume=folder), folder))
    assert steps_of(read(folder), "epoch/loss") == [5, 10]
    assert same_weights(plain, folder)


def test_a_run_that_began_without_gets_what_its_log_tells(tmp_path):
    folder, count = tmp_path / "run", iter(range(100))
    list(run(tiny.recipe, folder, stop=lambda: next(count) == 6))
    list(to_tensorboard(run(tiny.recipe, folder, resume=folder), folder))
    board = read(folder)
    assert steps_of(board, "epoch/loss") == [5, 10]
    when = next(event["time"] for event in logged(folder) if event["event"] == "epoch")
    assert board.Scalars("epoch/loss")[0].wall_time == when
    assert [h.step for h in board.Histograms("firing/stages.0.1")] == [10]


@pytest.mark.parametrize("at", ["__init__", "write", "_raster"])
def test_what_fails_ends_the_writing_and_not_the_run(at, plain, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Board if hasattr(Board, at) else tensorboard, at, full)
    folder = tmp_path / "run"
    events = list(to_tensorboard(run(tiny.recipe, folder), folder))
    (warning,) = (event.text for event in events if isinstance(event, Warned))
    assert "TensorBoard is not written any more, log.jsonl is: OSError: [Errno 28] No space left" in warning
    assert isinstance(events[-1], Result)
    assert same_weights(plain, folder)
    assert told(plain) == told(folder)


def test_a_file_in_the_place_of_the_folder_is_told_by_the_command(plain, tmp_path, capsys):
    folder = Path(shutil.copytree(plain, tmp_path / "run"))
    (folder / "result.json").unlink()
    (folder / "tensorboard").touch()
    assert main(["train", "--resume", str(folder / "previous.pt"), "--log", "tensorboard"]) == 0
    assert "warning: TensorBoard is not written any more" in capsys.readouterr().out
    assert (folder / "result.json").is_file()


def test_a_link_in_the_place_of_the_folder_is_refused_before_anything_is_done(plain, tmp_path, capsys):
    folder = Path(shutil.copytree(plain, tmp_path / "run"))
    (folder / "result.json").unlink()
    (folder / "tensorboard").symlink_to(tmp_path)
    log = (folder / "log.jsonl").read_bytes()
    assert main(["train", "--resume", str(folder), "--log", "tensorboard"]) == 2
    assert "tensorboard is a link, through which nothing is written" in capsys.readouterr().err
    assert (folder / "log.jsonl").read_bytes() == log


def test_without_the_package_the_command_says_what_to_install(tmp_path, monkeypatch, capsys):
    for name in [name for name in sys.modules if name.split(".")[0] == "tensorboard"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    out = tmp_path / "run"
    assert main(["train", f"{tiny.__file__}:recipe", "--out", str(out), "--log", "tensorboard"]) == 2
    assert 'by the package tensorboard: pip install "staa-snn[logs]"' in capsys.readouterr().err
    assert not out.exists()


def test_nothing_of_it_is_shared(watched, tmp_path):
    (file,) = (watched / "tensorboard").iterdir()
    assert re.fullmatch(r"events\.out\.tfevents\.[\d.]+", file.name), "it may name the machine"
    assert str(watched).encode() not in file.read_bytes()
    out = share(watched, tmp_path / "shared")
    assert {path.name for path in out.iterdir()} == {path.name for path in watched.iterdir()} - {"tensorboard", "previous.pt"}


@pytest.mark.parametrize(
    "recipe",
    [
        replace(tiny.pictures, epochs=1, max_steps=2),
        replace(
            tiny.recipe,
            epochs=1,
            max_steps=1,
            model=replace(tiny.recipe.model, name=f"{tiny.__file__}:no_neurons", attention=None),
        ),
    ],
    ids=["a moving average, images", "no neurons"],
)
def test_any_network_is_written(recipe, tmp_path):
    events = list(to_tensorboard(run(recipe, tmp_path / "run"), tmp_path / "run"))
    assert not [event.text for event in events if isinstance(event, Warned)]
    board = read(tmp_path / "run")
    spiking = any("rates" in tag for tag in board.Tags()["scalars"])
    assert bool(board.Tags()["images"]) == bool(board.Tags()["histograms"]) == (recipe.name == "tiny-pictures")
    assert spiking == (recipe.name == "tiny-pictures")


def test_a_forecaster_is_written(tmp_path):
    from staa import RECIPES

    recipe = replace(RECIPES["ring-spikestag"], max_steps=1, epochs=1)
    folder = tmp_path / "run"
    events = list(to_tensorboard(run(recipe, folder), folder))
    assert isinstance(next(iter(events)), Start)
    assert "not written" not in "".join(event.text for event in events if isinstance(event, Warned))
    board = read(folder)
    assert board.Images("raster")
    assert "result/horizons/6/mae" in board.Tags()["scalars"]
