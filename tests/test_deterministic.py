"""Runs that are bit-equal each time on a machine."""

import json
import os
from dataclasses import replace

import pytest
import tiny
import torch

from staa.cli import main
from staa.losses import LOSSES
from staa.runs import run
from staa.training.checkpoint import load_checkpoint
from staa.training.deterministic import FIXED, WORKSPACE, deterministic_algorithms, fix_workspace
from staa.training.progress import Step, Warned

SHALLOW = replace(tiny.recipe.model, name=f"{tiny.__file__}:shallow", attention=None)
RECIPE = replace(tiny.recipe, max_steps=3, precision="float32", model=SHALLOW)


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def bits(folder):
    state = load_checkpoint(folder)
    tensors = {**state["model"], **{f"average {name}": x for name, x in (state.get("average") or {}).items()}}
    return {name: x.numpy().tobytes() if isinstance(x, torch.Tensor) else x for name, x in tensors.items()}


def trained(recipe, folder, device="cpu"):
    """Weights and losses; meanwhile whoever takes the events is outside of the setting."""
    found = []
    for event in run(recipe, folder, device=device, workers=0, deterministic=True):
        assert not torch.are_deterministic_algorithms_enabled()
        if isinstance(event, Step) and event.read is not None:
            found.append(event.read.loss)
    return bits(folder), found


@pytest.mark.parametrize("count", [1, 2])
def test_two_runs_are_bit_equal(count, tmp_path, threads):
    threads(count)
    first, second = (trained(RECIPE, tmp_path / each) for each in "ab")
    assert first == second
    assert len(set(first[1])) == 3


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("recipe", [replace(tiny.recipe, max_steps=5), replace(tiny.pictures, max_steps=5)])
def test_two_runs_on_a_gpu_are_bit_equal(recipe, tmp_path):
    if os.environ.get(WORKSPACE) not in FIXED:
        pytest.skip(f"needs {WORKSPACE}={FIXED[0]}, since other tests begin CUDA")
    first, second = (trained(recipe, tmp_path / each, "cuda") for each in "ab")
    assert first == second


def test_it_holds_in_every_step_and_is_recorded(tmp_path, monkeypatch):
    """And a run that goes on without it says so."""
    seen = []

    def watching(logits, labels, *, label_smoothing=0.0):
        seen.append((torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark))
        return torch.nn.functional.cross_entropy(logits.mean(0), labels)

    monkeypatch.setitem(LOSSES, "mean", watching)
    asked = iter(range(10))
    folder, recipe = tmp_path / "run", RECIPE
    list(run(recipe, folder, device="cpu", deterministic=True, stop=lambda: next(asked) == 1))
    assert set(seen) == {(True, False)}
    assert json.loads((folder / "environment.json").read_text())["deterministic"] is True
    told = [event.text for event in run(recipe, folder, device="cpu", resume=folder) if isinstance(event, Warned)]
    assert [text for text in told if "deterministic True, now False" in text] == told != []


class Backward(torch.autograd.Function):
    """Its gradient is made by an operation that has no deterministic form."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, grad):
        return grad.clone().put_(torch.tensor([0]), grad.new_zeros(1))


@pytest.mark.parametrize("way", ["forward", "backward"])
def test_an_operation_without_a_deterministic_form_is_named_before_anything_is_written(way, tmp_path, monkeypatch, capsys):
    def losing(logits, labels, *, label_smoothing=0.0):
        logits = Backward.apply(logits) if way == "backward" else logits.put(torch.tensor([0]), torch.zeros(1))
        return torch.nn.functional.cross_entropy(logits.mean(0), labels)

    monkeypatch.setitem(LOSSES, "mean", losing)
    args = ["train", f"{tiny.__file__}:recipe", "--max-steps", "2", "--device", "cpu", "--out", str(tmp_path / "run")]
    assert main([*args, "--deterministic"]) != 0
    (line,) = capsys.readouterr().err.splitlines()
    assert "put_, an operation of this network or its loss, has no deterministic form on this device" in line
    assert "without --deterministic" in line
    assert not (tmp_path / "run" / "recipe.json").exists()
    assert main(args) == 0


def test_settings_are_as_they_were():
    before = torch.get_deterministic_debug_mode()
    with pytest.raises(KeyError), deterministic_algorithms():
        assert torch.are_deterministic_algorithms_enabled()
        raise KeyError
    assert torch.get_deterministic_debug_mode() == before
    with pytest.raises(RuntimeError, match="^of something else$"), deterministic_algorithms():
        raise RuntimeError("of something else")


@pytest.mark.parametrize(
    ("given", "begun", "message"),
    [
        (None, False, None),
        (":16:8", True, None),
        (None, True, "this process has used CUDA already"),
        (":0:0", False, "':0:0'"),
    ],
)
def test_cublas_has_a_fixed_workspace(given, begun, message, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: begun)
    monkeypatch.setenv(WORKSPACE, given or "")
    if given is None:
        monkeypatch.delenv(WORKSPACE)
    if message is None:
        fix_workspace()
        assert os.environ[WORKSPACE] == (given or FIXED[0])
    else:
        with pytest.raises(ValueError, match=f"needs {WORKSPACE}=:4096:8 in the environment .*{message}.* start Python anew"):
            fix_workspace()
