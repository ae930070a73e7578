"""Worker processes: they stay from epoch to epoch, change nothing, and are gone when the run is."""

import gc
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import tiny
import torch

import staa
from staa.data import Batches, Samples
from staa.data.draws import whole
from staa.losses import mean_cross_entropy
from staa.runs import evaluate_run, run
from staa.training.progress import Epoch, Interrupted, Result


def workers():
    """Of this process, by their ids; a helper of a start method is none."""
    return {process.pid for process in multiprocessing.active_children()}


@pytest.fixture(autouse=True)
def nothing_is_left():
    assert not workers()
    yield
    gc.collect()
    assert not workers()


def random_noise(x, keys):
    return x + torch.from_numpy(whole(keys, "noise", 9)).view(-1, 1)


def batches_of(workers, seed=1, augment=random_noise):
    samples = Samples(torch.arange(40)[:, None].expand(40, 3), torch.arange(40))
    return Batches(samples, 4, prepare=lambda x: x, augment=augment, seed=seed, workers=workers)


def same(a, b):
    return len(a) == len(b) and all(torch.equal(x, u) and torch.equal(y, v) for (x, y), (u, v) in zip(a, b, strict=True))


@pytest.mark.parametrize(("method", "count"), [("fork", 2), ("spawn", 1), ("forkserver", 1)])
def test_the_same_processes_make_every_epoch(method, count, monkeypatch):
    """Entered anywhere, given up in the middle, and begun again; with each way to start a process."""
    monkeypatch.setattr(multiprocessing.context._default_context, "_actual_context", multiprocessing.get_context(method))
    assert multiprocessing.get_start_method() == method
    made, plain = batches_of(count), batches_of(0)
    seen = []
    for epoch, start in ((0, 0), (1, 3), (7, 0), (1, 9)):
        assert same(list(made.epoch(epoch, start)), list(plain.epoch(epoch, start)))
        seen.append(workers())
        given_up = made.epoch(2)
        assert torch.equal(next(given_up)[0], next(plain.epoch(2))[0])
    assert len(seen[0]) == count
    assert all(ids == seen[0] for ids in seen)
    made.close()
    assert not workers()
    assert same(list(made.epoch(5)), list(plain.epoch(5)))  # new ones
    assert len(workers()) == count
    assert not workers() & seen[0]


def test_two_epochs_are_not_taken_at_once():
    made, plain = batches_of(1), batches_of(0)
    first = made.epoch(0)
    next(first)
    second = made.epoch(1)
    entered = [next(second)]
    with pytest.raises(RuntimeError, match="take one epoch at a time"):
        next(first)
    assert same(entered + list(second), list(plain.epoch(1)))  # which goes on
    third = made.epoch(2)
    next(third)
    made.close()
    with pytest.raises(RuntimeError, match="or they were closed"):
        next(third)


def broken(x, keys):
    raise OSError("this image is broken")


def dying(x, keys):
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize(
    ("augment", "message"), [(broken, "this image is broken"), (dying, "exited unexpectedly|is killed by")]
)
def test_after_an_error_no_process_is_left_though_it_is_kept(augment, message):
    made = batches_of(2, augment=augment)
    with pytest.raises((OSError, RuntimeError), match=message) as kept:
        list(made.epoch())
    assert not workers()
    assert kept.tb is not None  # it holds what it came through


def test_processes_end_with_the_last_reference():
    made = batches_of(2)
    unfinished = made.epoch()
    next(unfinished)
    assert len(workers()) == 2
    del made, unfinished
    assert not workers()


def test_a_script_need_not_close_them(tmp_path):
    """Nor leave a word behind when it ends."""
    script = tmp_path / "script.py"
    script.write_text(
        "import torch\nfrom staa.data import Batches, Samples\nfrom multiprocessing import active_children\n"
        "samples = Samples(torch.zeros(8, 1), torch.zeros(8))\n"
        "batches = Batches(samples, 2, prepare=lambda x: x, workers=2)\nunfinished = batches.epoch()\nnext(unfinished)\n"
        "print(*(child.pid for child in active_children()))\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=100)
    assert (done.returncode, done.stderr) == (0, "")
    ids = list(map(int, done.stdout.split()))
    assert len(ids) == 2
    assert not any(Path(f"/proc/{pid}").exists() for pid in ids)


def test_workers_leave_signals_alone():
    """Ctrl-C reaches them too, between epochs as within; the main process ends them."""
    made = batches_of(2)
    whole = list(made.epoch(0))
    ids = workers()
    for pid in ids:
        os.kill(pid, signal.SIGINT)
    time.sleep(0.2)
    assert workers() == ids
    assert same(list(made.epoch(0)), whole)


def test_a_run_keeps_its_workers_and_ends_them(tmp_path):
    """Over two epochs and their validations; when it is finished, and when it is interrupted."""
    slow = replace(tiny.pictures, epochs=2)  # read and augmented by workers
    seen = []
    for event in run(slow, tmp_path / "run", workers=2):
        if isinstance(event, Epoch):
            seen.append(workers())
    assert isinstance(event, Result)
    assert not workers()
    assert len(seen[0]) == 2
    assert all(ids == seen[0] for ids in seen)
    for event in run(slow, tmp_path / "stopped", workers=2, stop=iter([False, True]).__next__):
        if not isinstance(event, Interrupted):
            kept = workers()
    assert isinstance(event, Interrupted)
    assert len(kept) == 2
    assert not workers()
    unfinished = run(slow, tmp_path / "closed", workers=1)
    while not workers():
        next(unfinished)
    unfinished.close()
    assert not workers()
    assert evaluate_run(tmp_path / "run", split="train", workers=2)["samples"] == 32
    assert not workers()


def test_a_run_that_fails_ends_its_workers(tmp_path, monkeypatch):
    calls = iter(range(10))

    def fails(logits, labels, **_):
        if next(calls) == 3:
            assert len(workers()) == 1
            raise ZeroDivisionError("of the loss")
        return mean_cross_entropy(logits, labels)

    monkeypatch.setitem(staa.losses.LOSSES, "tet", partial(fails))
    with pytest.raises(ZeroDivisionError) as kept:
        list(run(replace(tiny.pictures, loss=replace(tiny.pictures.loss, label_smoothing=0.0)), tmp_path / "run", workers=1))
    assert not workers()
    assert kept.tb is not None
