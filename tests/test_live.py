"""`staa stream` and `staa data show` on small recordings, as a user would run them."""

import numpy as np
import pytest
import torch
from test_events import nmnist_set, some_events, write_nmnist

import staa
from staa.cli import main
from staa.data import read_events, to_frames
from staa.inference.camera import stream_run


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Run folders: "any" for any number of steps in windows, "number" on frames by number, T = 3."""
    root = tmp_path_factory.mktemp("runs")
    nmnist_set(root, per_class=5)
    common = ["--data", str(root), "--epochs", "1", "--batch-size", "16", "--optim.warmup-epochs", "0", "--model.width", "0.05"]
    assert main(["train", "nmnist-stream", "--out", str(root / "any"), *common]) == 0
    steps = ["--model.steps", "3", "--model.attention", "None"]
    assert main(["train", "nmnist-vggsnn-plain", "--out", str(root / "number"), *common, *steps]) == 0
    return root


def test_a_recording_as_it_comes(trained, capsys):
    path = trained / "0.bin"
    write_nmnist(path, events := some_events(span=500_000))  # longer than what it was trained on
    steps = list(stream_run(trained / "any", path))
    assert [s["step"] for s in steps] == list(range(1, len(steps) + 1))
    assert len(steps) == (int(events.t[-1]) - int(events.t[0])) // 30_000 + 1
    assert sum(s["events"] for s in steps) == 200
    model = staa.load(trained / "any")
    with torch.no_grad():
        logits = model(torch.from_numpy(to_frames(events, window=30_000))[:, None]).mean(0)[0]
    shares = logits.softmax(0)
    assert steps[-1]["probability"] == pytest.approx(float(shares.max()), rel=1e-4)
    assert steps[-1]["probability"] == pytest.approx(float(shares[int(steps[-1]["prediction"])]), rel=1e-4)
    assert all(0 < s["seconds"] < 60 for s in steps)
    capsys.readouterr()
    assert main(["stream", str(trained / "any"), str(path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) >= len(steps) + 1
    assert "windows of 30 ms; from events to prediction" in " ".join(lines[-2:])


def test_a_model_of_three_steps_stops_at_three(trained, capsys):
    write_nmnist(trained / "1.bin", some_events(span=300_000))
    steps = list(stream_run(trained / "number", trained / "1.bin", window=50.0))
    assert [s["event"] for s in steps] == ["step"] * 3 + ["full"]
    assert steps[-1] == {"event": "full", "steps": 3, "left": 3}
    assert main(["stream", str(trained / "number"), str(trained / "1.bin"), "--window", "50"]) == 0
    assert "has seen them all; 3 windows are left out" in " ".join(capsys.readouterr().out.split())


def test_what_a_stream_can_not_have(trained, tmp_path, capsys):
    write_nmnist(tmp_path / "1.bin", some_events())
    complain = lambda *args: (main(["stream", *map(str, args)]), capsys.readouterr().err)  # noqa: E731
    text = complain(trained / "number", tmp_path / "1.bin")[1]
    assert "say how many ms a --window has" in text
    assert "such as nmnist-stream" in text
    for window in ("0", "-3", "nan"):
        code, text = complain(trained / "any", tmp_path / "1.bin", "--window", window)
        assert code == 2
        assert f"got {float(window)} ms" in text
    (tmp_path / "2.bin").write_bytes(b"123")
    code, text = complain(trained / "any", tmp_path / "2.bin")
    assert code == 2
    assert "2.bin" in text


def test_a_run_on_simulated_events_is_not_fed_a_camera(tmp_path, capsys):
    """Its frames have ON before OFF, and a recording's have OFF before ON."""
    small = ["--max-steps", "1", "--model.width", "0.05", "--model.steps", "2", "--model.attention", "None"]
    assert main(["train", "digits-events", "--out", str(tmp_path / "run"), *small]) == 0
    write_nmnist(tmp_path / "1.bin", some_events())
    capsys.readouterr()
    assert main(["stream", str(tmp_path / "run"), str(tmp_path / "1.bin"), "--window", "30"]) == 2
    text = " ".join(capsys.readouterr().err.split())
    assert "was trained on images of a digit, bright on dark, and a stream takes an event camera's recording" in text
    assert "such as nmnist-stream" in text


def test_attention_that_sees_the_future_is_refused(tmp_path, capsys):
    nmnist_set(tmp_path, per_class=5)
    options = ["--data", str(tmp_path), "--epochs", "1", "--max-steps", "1", "--model.width", "0.05", "--model.steps", "4"]
    assert main(["train", "nmnist-vggsnn-staa", "--out", str(tmp_path / "run"), *options]) == 0
    write_nmnist(tmp_path / "1.bin", some_events())
    capsys.readouterr()
    assert main(["stream", str(tmp_path / "run"), str(tmp_path / "1.bin")]) == 2  # whose frames depend on the whole, too
    text = capsys.readouterr().err
    assert "sees the whole window" in text
    assert "such as nmnist-stream: --model.steps None" in text
    (tmp_path / "own.py").write_text(
        "from torch import nn\nclass Own(nn.Module):\n    acts_on = 'current'\n"
        "    def __init__(self, steps, channels):\n        super().__init__()\n    def forward(self, x):\n        return x\n"
    )
    own = ["--model.attention", f"{tmp_path}/own.py:Own"]
    assert main(["train", "nmnist-vggsnn-staa", "--out", str(tmp_path / "own"), *options, *own]) == 0
    capsys.readouterr()
    assert main(["stream", str(tmp_path / "own"), str(tmp_path / "1.bin"), "--window", "30"]) == 2
    text = capsys.readouterr().err
    assert "Own) is not known to run in pieces" in text
    assert "nmnist-stream" not in text


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("n", [1, 2, 500])
def test_a_picture_of_a_recording(tmp_path, monkeypatch, capsys, n):
    from PIL import Image

    monkeypatch.chdir(tmp_path)
    events = some_events(n, sensor=(30, 40))
    np.savez(tmp_path / "few.npz", t=events.t, x=events.x, y=events.y, p=events.p)
    assert main(["data", "show", "few.npz"]) == 0
    assert "taken as" in capsys.readouterr().out
    assert main(["data", "show", "few.npz", "--sensor", "30x40", "--out", "other.png"]) == 0
    for name in ("few.png", "other.png"):
        with Image.open(tmp_path / name) as image:
            assert min(image.size) > 500
            assert len(image.convert("RGB").getcolors(1 << 20)) > 10
    assert read_events(tmp_path / "few.npz").sensor is None
    assert main(["data", "show", "missing.npz"]) == 2
    assert main(["data", "show", "few.npz", "--sensor", "5x5"]) == 2


def test_a_picture_never_takes_the_place_of_a_recording(tmp_path, capsys):
    path = tmp_path / "a.npz"
    events = some_events()
    np.savez(path, t=events.t, x=events.x, y=events.y, p=events.p)
    before = path.read_bytes()
    (tmp_path / "folder.png").mkdir()
    for out in (path, tmp_path / "three", tmp_path / "folder.png"):
        assert main(["data", "show", str(path), "--out", str(out)]) == 2
        assert "--out is a PNG to write" in capsys.readouterr().err
    assert path.read_bytes() == before
