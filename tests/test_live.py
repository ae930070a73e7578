"""`staa stream` and `staa data show` on small recordings, as a user would run them."""

import json
import math
import re
import signal
import socket
import subprocess
import sys
from contextlib import suppress

import numpy as np
import pytest
import torch
from test_events import nmnist_set, some_events, write_nmnist

import staa
from staa import Stream
from staa.cli import main
from staa.cli.signals import CUT_OFF
from staa.data import read_events, to_frames
from staa.inference.decision import Decision


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


def lines_of(capsys, *args):
    assert main(["stream", *map(str, args)]) == 0
    return capsys.readouterr().out.splitlines()


def test_a_recording_as_it_comes(trained, capsys):
    path = trained / "0.bin"
    write_nmnist(path, events := some_events(span=500_000))  # longer than what it was trained on
    stream = Stream(trained / "any", memory=1e5, reset_every=math.inf)
    made = list(stream.watch(path))
    assert [d.window for d in made] == list(range(1, len(made) + 1))
    assert len(made) == (int(events.t[-1]) - int(events.t[0])) // 30_000 + 1
    assert sum(d.events for d in made) == 200
    with torch.no_grad():
        logits = staa.load(trained / "any")(torch.from_numpy(to_frames(events, window=30_000))[:, None])[:, 0]
    for d, newest, mean in zip(made, logits, logits.cumsum(0) / torch.arange(1, len(logits) + 1)[:, None], strict=True):
        assert d.newest_probability == pytest.approx(float(newest.softmax(0).max()), rel=1e-4)
        assert d.probability == pytest.approx(float(mean.softmax(0).max()), rel=1e-4)
    capsys.readouterr()
    lines = lines_of(capsys, trained / "any", path)
    assert len(lines) == len(made) + 1
    assert re.fullmatch(r" +0\.030 s +\d+ events  \d \(\d+\.\d%\)  newest window \d \(\d+\.\d%\) +[\d.]+ ms", lines[0])
    assert re.fullmatch(
        r"\d+ windows of 30 ms; from events to prediction [\d.]+ ms in the median, [\d.]+ ms in 99 of 100, [\d.]+ ms at most",
        lines[-1],
    )


def test_json_lines(trained, capsys):
    write_nmnist(trained / "2.bin", some_events(span=100_000))
    options = ["--json", "--memory", "60", "--reset-every", "30", "--reset-silent", "90"]
    *windows, end = map(json.loads, lines_of(capsys, trained / "any", trained / "2.bin", *options))
    assert [list(w) for w in windows] == [["event", *Decision._fields]] * 4
    assert {w["event"] for w in windows} == {"window"}
    assert list(end) == [
        "event", "windows", "end", "dropped", "late", "repaired", "latency_median", "latency_99", "latency_longest",
    ]  # fmt: skip
    assert (end["event"], end["windows"], end["dropped"], end["repaired"]) == ("end", 4, 0, {})


def test_a_model_of_three_steps_begins_anew_after_three(trained, capsys):
    write_nmnist(trained / "1.bin", some_events(span=300_000))
    assert len(lines_of(capsys, trained / "number", trained / "1.bin", "--window", "50")) == 7
    assert main(["stream", str(trained / "number"), str(trained / "1.bin"), "--window", "50", "--reset-every", "200"]) == 2
    assert "built for 3 windows of 50 ms: --reset-every must be at most 150 ms, got 200" in capsys.readouterr().err


def test_what_was_dropped_is_told(trained, capsys, monkeypatch):
    write_nmnist(trained / "3.bin", some_events(span=100_000))
    decide = Stream.decide

    def slow(self, window):
        self.dropped = self.windows.late = window.number
        self.repair.counts["stray times"] = 2
        return decide(self, window._replace(number=2 * window.number))

    monkeypatch.setattr(Stream, "decide", slow)
    text = " ".join(lines_of(capsys, trained / "any", trained / "3.bin")[-4:])
    assert text.startswith("4 windows of 30 ms")
    assert "4 windows (50.0%) were dropped, since the network was too slow for them" in text
    assert "4 events came when their window had been ended by the clock, and were left out" in text
    assert "left out 2 stray times" in text


def test_what_a_stream_can_not_have(trained, tmp_path, capsys):
    write_nmnist(tmp_path / "1.bin", some_events())
    complain = lambda *args: (main(["stream", *map(str, args)]), capsys.readouterr().err)  # noqa: E731
    text = complain(trained / "number", tmp_path / "1.bin")[1]
    assert "say how many ms a --window has" in text
    assert "staa train nmnist-vggsnn-plain --data" in text
    for window in ("0", "-3", "nan"):
        code, text = complain(trained / "any", tmp_path / "1.bin", "--window", window)
        assert code == 2
        assert f"got {float(window)} ms" in text
    (tmp_path / "2.bin").write_bytes(b"123")
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    for source, told in (
        ("2.bin", "2.bin: truncated"),
        ("none", "none does not exist: expected a recording, a named pipe"),
        ("tcp:192.0.2.1:1", "say --remote"),
        (f"tcp:127.0.0.1:{port}", f"no program serves events at tcp:127.0.0.1:{port} ("),
        (f"unix:{tmp_path / 'none'}", "start it first"),
    ):
        code, text = complain(trained / "any", source if ":" in source else tmp_path / source)
        assert (code, text.count("staa: ")) == (2, 1)  # a slow machine says "preparing …" before it
        assert told in text


def test_ctrl_c_ends_a_live_stream_with_the_summary_and_a_closed_output_without_a_word(trained):
    """A camera that goes on for ever, and a reader that stops reading."""
    command = [sys.executable, "-m", "staa", "stream", str(trained / "any"), "-", "--format", "txyp", "--window", "5"]
    command += ["--lag", "60000"]  # so that a slow machine drops nothing
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    stopped, cut = (subprocess.Popen(command, **pipes) for _ in range(2))
    events = np.zeros(1000, [("t", "<i8"), ("x", "<u2"), ("y", "<u2"), ("p", "u1")])
    events["t"] = 1000 * np.arange(1000)
    for process in (stopped, cut):
        process.stdin.write(events.tobytes())
        process.stdin.flush()
    assert b"0.005 s" in stopped.stdout.readline()
    assert b"0.005 s" in cut.stdout.readline()
    cut.stdout.close()
    stopped.send_signal(signal.SIGINT)
    out, error = stopped.communicate(timeout=60)
    assert stopped.returncode == 0
    assert b"staa" not in error  # but "preparing …" on a slow machine
    assert b"windows of 5 ms; from events to prediction" in out.splitlines()[-1]
    with suppress(BrokenPipeError):
        cut.stdin.write(events[:0].tobytes())
        cut.stdin.close()
    assert cut.wait(timeout=60) == CUT_OFF
    assert b"staa" not in cut.stderr.read()
    cut.stderr.close()


def test_a_run_on_simulated_events_is_not_fed_a_camera(tmp_path, capsys):
    """Its frames have ON before OFF, and a recording's have OFF before ON."""
    small = ["--max-steps", "1", "--model.width", "0.05", "--model.steps", "2", "--model.attention", "None"]
    assert main(["train", "digits-events", "--out", str(tmp_path / "run"), *small]) == 0
    write_nmnist(tmp_path / "1.bin", some_events())
    capsys.readouterr()
    assert main(["stream", str(tmp_path / "run"), str(tmp_path / "1.bin"), "--window", "30"]) == 2
    text = " ".join(capsys.readouterr().err.split())
    assert "its frames have ON before OFF, as the simulated sensor gives them, and a camera's OFF before ON" in text
    assert "staa train nmnist-stream" in text


def test_attention_that_sees_the_future_is_refused(tmp_path, capsys):
    nmnist_set(tmp_path, per_class=5)
    options = ["--data", str(tmp_path), "--epochs", "1", "--max-steps", "1", "--model.width", "0.05", "--model.steps", "4"]
    assert main(["train", "nmnist-vggsnn-staa", "--out", str(tmp_path / "run"), *options]) == 0
    write_nmnist(tmp_path / "1.bin", some_events())
    capsys.readouterr()
    assert main(["stream", str(tmp_path / "run"), str(tmp_path / "1.bin")]) == 2  # whose frames depend on the whole, too
    text = " ".join(capsys.readouterr().err.split())
    assert "sees the whole window" in text
    assert "its frames are cut by number" in text
    assert re.search(r"staa train nmnist-vggsnn-staa .* --model.steps None .* --data.frames window --data.window 30 ", text)
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
