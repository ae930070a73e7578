"""Broken and hostile files of every kind: fifty each; `python -m benchmarks.mutations` makes ten thousand."""

import contextlib
import os
import time

import pytest

from benchmarks import mutations
from benchmarks.samples import Sample, samples

COUNT = 50
KINDS = (
    "run/recipe.json", "run/environment.json", "run/result.json", "run/log.jsonl", "run/last.pt", "run/best.safetensors", "csv",
    "csv.gz", "series.npz", "graph.npy", "graph.npz", "graph.csv", "h5", "bin", "dat", "aedat2", "aedat3", "aedat4", "raw",
    "events.npz", "events.npy", "image.jpg", "image.jpeg", "image.png", "image.ppm", "image.bmp", "image.pgm", "image.tif",
    "image.tiff", "image.webp", "frames cache",
)  # fmt: skip


@pytest.fixture(scope="module")
def kinds(tmp_path_factory):
    made = samples(tmp_path_factory.mktemp("samples"))
    mutations.check_samples(made)
    return made


def test_every_kind_is_tried(kinds):
    assert tuple(kinds) == KINDS


@pytest.mark.some(2)
@pytest.mark.parametrize("kind", KINDS)
def test_mutants_are_accepted_or_refused_clearly(kind, kinds):
    row = mutations.measure(kind, kinds[kind], seed=1, count=COUNT)
    assert mutations.is_clean(row), row
    assert row["peak_mib"] < 1000


def stop(path):
    os.kill(os.getpid(), 9)


def sleep(path):
    time.sleep(100)


def run_code(path):
    with contextlib.suppress(PermissionError):
        os.system("true")


def write(path):
    open("/tmp/elsewhere", "w").close()


def fail(error):
    def read(path):
        raise error

    return read


@pytest.mark.parametrize(
    ("read", "outcome"),
    [
        (lambda path: None, "accepted"),
        (lambda path: open(path.parent / "beside", "w").close(), "accepted"),
        (fail(ValueError("file.x is broken")), "clean error"),
        (fail(OSError("file.x\nis broken")), "unclear error"),
        (fail(ValueError("is broken")), "unclear error"),
        (fail(KeyError("file.x")), "traceback"),
        (fail(SystemExit(0)), "traceback"),
        (lambda path: [bytes(1 << 50)], "traceback"),
        (lambda path: os._exit(0), "crash"),
        (lambda path: os.abort(), "crash"),
        (sleep, "hang"),
        (run_code, "code run"),
        (write, "code run"),
    ],
)
def test_what_becomes_of_a_file_is_seen(read, outcome, monkeypatch):
    """And the batch goes on behind it."""
    monkeypatch.setattr(mutations, "SECONDS", 1)
    row = mutations.measure("x", [Sample("file.x", b"1234", read, ())], seed=0, count=3)
    assert row[outcome] == 3
    assert mutations.is_clean(row) == (outcome in mutations.GOOD)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_mutants_follow_from_seed_and_number(kinds):
    for kind in ("run/recipe.json", "events.npz", "image.png", "csv"):
        some = kinds[kind]
        first = [mutations.mutant(kind, some, 0, n)[1] for n in range(20)]
        assert first == [mutations.mutant(kind, some, 0, n)[1] for n in range(20)]
        assert first != [mutations.mutant(kind, some, 1, n)[1] for n in range(20)]
        assert sum(data != sample.data for data, sample in zip(first, some * 20, strict=False)) > 15
