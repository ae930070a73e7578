"""Several processes train one network as one process does; and what becomes of them if some are stopped or killed."""

import multiprocessing
import os
import re
import signal
import socket
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import tiny
import together
import torch
from processes import wait_for
from torch import nn

from staa import parallel
from staa.cli import main, train
from staa.data.augment import make_mix
from staa.models.parts import ConvNorm
from staa.norms import SyncNorm, sync
from staa.parallel import ALONE, Group, Part
from staa.runs import run
from staa.runs.folder import read_environment
from staa.training.checkpoint import load_checkpoint
from staa.training.progress import Step

TINY = f"{tiny.__file__}:recipe"
LAUNCHED = [sys.executable, "-m", "staa", "train"]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


def one_of(rank, port, out):
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    for kept in (parallel.joined, parallel._store, parallel._launcher):
        kept.cache_clear()
    together.main(out)


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What one process finds, and what two do."""
    out = tmp_path_factory.mktemp("together")
    one = {"images": together.images(ALONE, out / "images"), "forecasts": together.forecasts(ALONE, out / "forecasts")}
    one["measured"] = together.measured_whole(ALONE, one["images"]["weights"])
    torch.save(one, out / "one.pt")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    fork = multiprocessing.get_context("fork")
    pair = [fork.Process(target=one_of, args=(rank, port, out)) for rank in range(2)]
    for process in pair:
        process.start()
    for process in pair:
        process.join(120)
    assert [process.exitcode for process in pair] == [0, 0]
    return one, torch.load(out / "two.pt", weights_only=True)


@pytest.mark.parametrize("kind", ["images", "forecasts"])
def test_two_processes_take_the_steps_of_one(kind, found):
    one, two = (which[kind] for which in found)
    assert len(one["losses"]) == together.STEPS
    assert two["losses"] == pytest.approx(one["losses"], rel=1e-9)
    for name, weight in one["weights"].items():
        torch.testing.assert_close(two["weights"][name], weight, rtol=1e-9, atol=1e-12)
    for a, b in zip(one["epochs"], two["epochs"], strict=True):
        assert b == pytest.approx(a, rel=1e-9)
    assert not torch.equal(*(one["weights"][k] for k in list(one["weights"])[:2])) or kind == "forecasts"


def test_figures_that_count_are_equal_to_the_last_bit(found):
    one, two = (which["measured"] for which in found)
    assert two["accuracy"] == one["accuracy"]
    assert two["loss"] == pytest.approx(one["loss"], rel=1e-12)
    assert one["accuracy"] > 0


def test_statistics_of_parts_make_another_network(found):
    one, two = found[0]["images"], found[1]["apart"]
    assert max(abs(a - b) for a, b in zip(one["losses"], two["losses"], strict=True)) > 1e-3


@pytest.mark.parametrize(("whole", "pieces", "world"), [(8, 1, 2), (10, 2, 3), (7, 2, 3), (128, 4, 5)])
def test_parts_are_the_batch_once_and_by_piece(whole, pieces, world):
    parts = [Part(Group(rank, world), whole, pieces) for rank in range(world)]
    assert torch.equal(torch.cat([part.places() for part in parts]).sort().values, torch.arange(whole))
    for k, piece in enumerate(torch.arange(whole).chunk(pieces)):
        assert torch.equal(torch.cat([part.by_piece[k] for part in parts]), piece)
        assert sum(part.shares[k] for part in parts) == pytest.approx(1)
    before = parts[1].places(with_before=True)
    assert torch.equal(before[parts[1].kept()], parts[1].places())
    assert torch.equal(before[:1], (parts[1].places()[:1] - 1) % whole)


def test_mixing_with_the_one_before_is_mixing_the_batch():
    """torchvision mixes a batch with itself, moved on by one."""
    x, y = torch.rand(10, 3, 8, 8), torch.arange(10) % 3
    for options in ({"mixup": 0.5}, {"cutmix": 1.0}):
        mix = partial(make_mix(classes=3, **options), of_epoch=torch.Generator())
        drawn = lambda: torch.Generator().manual_seed(1)  # noqa: E731
        whole = mix(x, y, drawn())
        part = Part(Group(1, 3), 10, 2)
        at = part.places(with_before=True)
        mine = mix(x[at], y[at], drawn())
        for all_of, some in zip(whole, mine, strict=True):
            torch.testing.assert_close(some[part.kept()], all_of[part.places()])


def test_what_can_not_be_shared_is_refused(monkeypatch, capsys, tmp_path):
    with pytest.raises(ValueError, match="`batch_size` 10 in 4 pieces gives some of 2 processes no sample: make it at least 8"):
        Part(Group(0, 2), 10, 4)
    with pytest.raises(ValueError, match="has no BatchNorm, and takes no `sync_norm`"):
        sync(nn.Linear(2, 2), ALONE)
    own = type("Own", (nn.BatchNorm2d,), {})
    with pytest.raises(ValueError, match="1 is a Own, whose statistics `sync_norm` can't take over all processes"):
        sync(nn.Sequential(nn.BatchNorm2d(2), own(2)), Group(0, 2))
    model = nn.Sequential(ConvNorm(2, 2, 3))
    sync(model, ALONE)
    assert type(model[0].norm) is nn.BatchNorm2d
    sync(model, Group(0, 2))
    assert type(model[0].norm) is SyncNorm
    for args, told in (
        (["--devices", "0"], "--devices must be at least 1, got 0"),
        (["--devices", "2", "--device", "cuda:1"], "--device must be cuda or cpu"),
        (["--requeue"], "--requeue is for a job of SLURM"),
    ):
        assert main(["train", TINY, *args]) == 2
        assert told in capsys.readouterr().err
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main(["doctor"]) == 2
    assert "staa doctor runs in one process: start it without torchrun" in capsys.readouterr().err
    parallel.joined.cache_clear()
    assert main(["train", TINY, "--out", str(tmp_path / "run")]) == 2
    assert "WORLD_SIZE is set, but the processes can't meet" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def interrupt_at(step, number, monkeypatch):
    """As a signal that comes while that step is taken."""

    def events(*args, **options):
        for event in run(*args, **options):
            yield event
            if isinstance(event, Step) and event.step == step:
                os.kill(os.getpid(), number)

    monkeypatch.setattr(train, "run", events)


def test_a_termination_saves_and_is_no_failure(tmp_path, monkeypatch, capsys):
    interrupt_at(3, signal.SIGTERM, monkeypatch)
    assert main(["train", TINY, "--out", str(tmp_path / "run")]) == 0
    assert f"saved. Go on with: staa train --resume {tmp_path / 'run'}" in capsys.readouterr().out
    assert load_checkpoint(tmp_path / "run")["step"] == 3


def test_a_job_is_queued_again_and_goes_on(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bin").mkdir()
    scontrol = tmp_path / "bin" / "scontrol"
    scontrol.write_text(
        f"#!/bin/sh\necho $@ >> {tmp_path}/asked\n[ ! -e {tmp_path}/no ] || {{ echo invalid job >&2; exit 1; }}\n"
    )
    command = ["train", TINY, "--requeue"]
    monkeypatch.setenv("SLURM_JOB_ID", "41")
    monkeypatch.setenv("PATH", "")
    assert main(command) == 2
    assert "--requeue needs SLURM's scontrol on the PATH" in capsys.readouterr().err
    scontrol.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:/bin:/usr/bin")
    folder = Path("runs/tiny/job41-seed0")
    for step, number in ((3, signal.SIGUSR1), (6, signal.SIGTERM)):
        with monkeypatch.context() as patch:
            interrupt_at(step, number, patch)
            assert main(command) == 0
        assert "job 41 is queued again" in capsys.readouterr().out
        assert load_checkpoint(folder)["step"] == step
    assert (tmp_path / "asked").read_text() == "requeue 41\nrequeue 41\n"
    assert read_environment(folder)["job"] == "41"
    with monkeypatch.context() as patch:
        interrupt_at(8, signal.SIGTERM, patch)
        (tmp_path / "no").touch()
        assert main(command) == 1
    assert "the run is saved, but job 41 could not be queued again: invalid job" in capsys.readouterr().err
    assert main(command) == 0
    assert "from step 8" in capsys.readouterr().out
    monkeypatch.setenv("SLURM_JOB_ID", "42")
    assert main([*command, "--out", str(folder)]) == 2  # another job's
    assert "holds a run already: resume it" in capsys.readouterr().err
    whole = tmp_path / "whole"
    list(run(tiny.recipe, whole))
    a, b = (load_checkpoint(which)["model"] for which in (whole, folder))
    assert all(torch.equal(a[name], b[name]) for name in a)


def start(command, cwd, **more):
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=cwd, env={**os.environ, **more}
    )


def steps_of(folder):
    return load_checkpoint(folder)["step"] if (folder / "last.pt").is_file() else 0


@pytest.mark.slow
def test_a_run_goes_on_in_another_number_of_processes(tmp_path):
    """Two are terminated, one goes on and is terminated, two end it; the options between are the first command's."""
    out = tmp_path / "run"
    process = start([*LAUNCHED, TINY, "--epochs", "12", "--sync-norm", "--devices", "2", "--out", str(out)], tmp_path)
    wait_for(process, lambda: steps_of(out) >= 5, every=0.1)
    process.send_signal(signal.SIGTERM)
    told, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert f"saved. Go on with: staa train --resume {out} --devices 2" in told
    assert told.count("epoch   1") == 1
    assert errors.strip() in ("", "preparing …")
    assert read_environment(out)["processes"] == 2
    recipe = replace(tiny.recipe, epochs=12, sync_norm=True)
    step = steps_of(out)
    *_, last = run(recipe, out, resume=out, stop=lambda: True)
    assert last.step == steps_of(out) == step + 1
    with pytest.raises(ValueError, match="sync_norm: True, False"):
        next(run(replace(recipe, sync_norm=False), out, resume=out))
    process = start([*LAUNCHED, "--resume", str(out), "--trust-code", "--devices", "2"], tmp_path)
    told, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    assert f"from step {step + 1}" in told
    assert "processes 2, now" not in told
    assert re.search(r"^test accuracy .* on 8 samples", told, re.MULTILINE)


@pytest.mark.slow
def test_a_killed_process_is_started_again_and_the_run_goes_on(tmp_path):
    """Nobody says where the run is: torchrun remembers what the processes before have begun."""
    process = start([*TORCHRUN, "--max-restarts", "2", "-m", "staa", "train", TINY, "--epochs", "12"], tmp_path)
    folder = lambda: next(iter(tmp_path.glob("runs/tiny/*")), tmp_path)  # noqa: E731
    wait_for(process, lambda: steps_of(folder()) >= 5, every=0.1)
    workers = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=True).stdout.split()
    os.kill(int(workers[-1]), signal.SIGKILL)
    told, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    assert len(list(tmp_path.glob("runs/tiny/*"))) == 1
    assert re.findall(r"seed 0 → \S+(?:, from step \d+)?$", told, re.MULTILINE)[1].partition("from step ")[2]
    assert [line for line in errors.splitlines() if line.startswith("staa: ")] in (
        [],  # it was terminated before it could tell
        ["staa: failed: another process of this run has ended; the last checkpoint is kept, from which the run goes on with "
         "--resume (STAA_DEBUG=1 shows where)"],
    )  # fmt: skip
    assert re.search(r"^test accuracy", told, re.MULTILINE)


@pytest.mark.slow
def test_an_error_in_one_process_ends_all_with_one_line(tmp_path):
    (tmp_path / "own.py").write_text(
        "import os\nfrom dataclasses import replace\nimport tiny\nfrom staa import Loss\n"
        "from staa.losses import mean_cross_entropy\ncalls = []\n"
        "def loss(logits, targets):\n    calls.append(1)\n    if os.environ.get('RANK') == '1' and len(calls) > 3:\n"
        "        raise ValueError('my loss is lost')\n    return mean_cross_entropy(logits, targets)\n"
        "recipe = replace(tiny.recipe, loss=Loss(name=f'{__file__}:loss'))\n"
    )
    where = {"PYTHONPATH": os.pathsep.join([*sys.path, str(Path(tiny.__file__).parent)])}
    process = start([*LAUNCHED, "own.py:recipe", "--devices", "2", "--out", "run"], tmp_path, **where)
    told, errors = process.communicate(timeout=120)
    assert process.returncode == 2, (told, errors)
    assert [line for line in errors.splitlines() if line != "preparing …"] == ["staa: error: my loss is lost"]
    assert steps_of(tmp_path / "run") == 0
