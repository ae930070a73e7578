"""Training that is disturbed: `python -m benchmarks.soak`, briefly here and for minutes in `make test-all`."""

import json
import os
import shutil
import subprocess
import sys

import pytest
import tiny

from benchmarks import soak
from staa.runs import run


def soaked(folder, *args, seconds):
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.soak", str(folder), *args],
        capture_output=True, text=True, timeout=seconds, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    rows = [json.loads(line) for line in (folder / soak.HERE).read_text().splitlines()]
    assert done.returncode == 0, [row for row in rows if row.get("problem") or row.get("differences")] or done.stderr
    return rows


def test_a_disturbed_run_ends_as_if_nothing_had_happened(tmp_path):
    *lives, case, total = soaked(tmp_path / "soak", "--minutes", "0", "--case", "short", "--lives", "5", seconds=300)
    assert case["differences"] == []
    assert total["cases"] == 1
    assert {life["fault"] for life in lives} >= {*soak.ENDS, "disk"}


@pytest.mark.slow
def test_so_do_many(tmp_path):
    *_, total = soaked(tmp_path / "soak", "--minutes", "6", "--seed", "1", seconds=1800)
    assert total["cases"] >= 2
    assert all(total[what] for what in (*soak.ENDS, "disk", *soak.BREAKS))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "run"
    list(run(tiny.recipe, folder))
    return folder


def _another_loss(folder):
    lines = (folder / "log.jsonl").read_text().splitlines()
    k = next(k for k, line in enumerate(lines) if '"epoch", ' in line)
    (folder / "log.jsonl").write_text("\n".join([*lines[:k], lines[k].replace('"loss": ', '"loss": 1'), *lines[k + 1 :]]))


def _an_epoch_twice(folder):
    lines = (folder / "log.jsonl").read_text().splitlines()
    (folder / "log.jsonl").write_text("\n".join([*lines, *(line for line in lines if '"epoch", ' in line)]))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda folder: list(run(tiny.recipe, folder / "again")), "again lies in the run folder"),
        (lambda folder: (folder / ".last.pt.0123.tmp").touch(), "lies in the run folder"),
        (lambda folder: shutil.copy(folder / "previous.pt", folder / "last.pt"), "last.pt differs"),
        (lambda folder: (folder / "result.json").write_text("{}"), "result.json differs"),
        (_another_loss, "in the log alone"),
        (_an_epoch_twice, "twice in the log"),
    ],
)
def test_what_differs_is_told(change, told, whole, tmp_path):
    shutil.copytree(whole, tmp_path / "run")
    assert soak.differences(tmp_path / "run", whole) == []
    change(tmp_path / "run")
    assert any(told in line for line in soak.differences(tmp_path / "run", whole))
