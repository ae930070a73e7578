"""The script that trains on a machine lent for minutes, on this one."""

import importlib.util
from dataclasses import replace
from pathlib import Path

import pytest
import tiny
import torch

import staa
from staa.runs import run

spec = importlib.util.spec_from_file_location("remote", Path(__file__).parents[1] / "results" / "remote.py")
remote = importlib.util.module_from_spec(spec)
spec.loader.exec_module(remote)


def test_data_travel_in_parts(tmp_path):
    (tmp_path / "set" / "inner").mkdir(parents=True)
    (tmp_path / "set" / "inner" / "numbers").write_bytes(torch.randint(256, (50000,), dtype=torch.uint8).numpy().tobytes())
    parts = remote.pack(tmp_path / "set", tmp_path / "parts", size=20000)
    assert len(parts) == 3
    assert all(p.stat().st_size <= 20000 for p in parts)
    remote.unpack(tmp_path / "parts", tmp_path / "there")
    assert (tmp_path / "there/set/inner/numbers").read_bytes() == (tmp_path / "set/inner/numbers").read_bytes()
    parts[1].unlink()
    with pytest.raises(FileNotFoundError, match="set.01.part"):
        remote.unpack(tmp_path / "parts", tmp_path / "again")


def test_pieces_add_up_to_the_run(tmp_path, monkeypatch):
    monkeypatch.setattr(remote, "WEIGHTS_PART", 1 << 17)
    folder = tmp_path / "runs" / "tiny"
    go = lambda minutes: remote.piece(tiny.recipe, folder, tmp_path, minutes=minutes, total=1, epochs=3)  # noqa: E731
    assert go(0.0) == "at step 1: run it again"
    remote.bring_home(folder, tmp_path / "home")
    assert "not done: epoch 0" in remote.row(tmp_path / "home" / "tiny")
    assert go(5.0) == "done"
    *_, whole = run(replace(tiny.recipe, epochs=3), tmp_path / "whole")
    remote.bring_home(folder, tmp_path / "home")
    line = remote.row(tmp_path / "home" / "tiny")
    assert f"| 3 | {whole['test_accuracy']:.2%} |" in line
    weights = remote.join_weights(tmp_path / "home" / "tiny")
    for name, weight in staa.load(tmp_path / "whole").state_dict().items():
        assert torch.equal(weights[name], weight.to(torch.bfloat16) if weight.is_floating_point() else weight)


def test_epochs_are_chosen_to_fit(tmp_path, monkeypatch):
    monkeypatch.setattr(remote, "seconds_an_epoch", lambda *_: 12.0)
    go = lambda total, name: remote.piece(  # noqa: E731
        tiny.recipe, tmp_path / name, tmp_path, minutes=0, total=total, epochs=None
    )
    for total, epochs in ((28.1, 126), (1, 60), (1000, 200)):
        go(total, f"run{total}")
        assert f'"epochs": {epochs}' in (tmp_path / f"run{total}-plan.json").read_text()
