"""Whenever a command prepares for long, something is shown; the library says nothing unless it is asked."""

import io
import os
import re
import shutil
import threading
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from rich.console import Console
from test_content import IMAGES, RECORDINGS, images, recordings

from staa.build import task_of
from staa.cli import main, waiting
from staa.counting import counted, telling
from staa.data import content
from staa.data.events.cache import EventFiles
from staa.data.images import files as image_files
from staa.data.images import folder as image_folder

HERE = Path(__file__).parent / "versions" / "unnumbered"


def test_counting_is_silent_and_tells_whoever_asked():
    assert list(counted("abc", "letters")) == ["a", "b", "c"]
    told = []
    with telling(lambda *now: told.append(now)):
        assert list(counted(range(2), "numbers", 2)) == [0, 1]
        with closing(counted("abc", "letters")) as given_up:
            next(given_up)
        assert list(counted([], "nothing", 0)) == []
    list(counted(range(3), "afterwards"))
    assert told == [
        ("numbers", 0, 2), ("numbers", 1, 2), ("numbers", 2, 2), ("letters", 0, None), ("letters", 0, 0), ("nothing", 0, 0)
    ]  # fmt: skip


def test_of_loops_within_loops_the_outer_one_is_shown():
    work = waiting.Work("preparing")
    assert work.told() == ("preparing …", 0, None)
    with telling(work.tell):
        for k in counted(range(2000), "measuring", 2000):
            for _ in counted(range(3), "reading recordings", 3):
                assert work.told() == (f"measuring: {k:,} of 2,000", k, 2000)
        assert work.told()[0] == "preparing …"
        for _ in counted(iter("ab"), "unpacking"):
            pass
    work.tell_bytes("a.zip", 1_234_567, 170_000_000)
    assert work.told() == ("a.zip: 1.2 of 170.0 MB", 1_234_567, 170_000_000)


@pytest.mark.parametrize(
    ("make", "recipe", "looks"), [(images, IMAGES, "decoding images"), (recordings, RECORDINGS, "binning recordings")]
)
def test_every_look_at_all_files_is_counted(make, recipe, looks, tmp_path):
    """Whether they can be read, and what they hold: each file once, by name of what is done."""
    root, told = make(tmp_path / "data"), []
    with telling(lambda *now: told.append(now)):
        facts = task_of(recipe).source(root).content.facts()
    for what in (looks, "hashing files", "looking at files"):
        assert [now for now in told if now[0] == what] == [(what, k, 40) for k in range(41)]
    assert ("listing class folders", 2, 2) in told
    files = [str(path) for path in root.glob("[!.]*/*.*")]
    assert content.content_of_files(root, files).facts() == facts  # silently the same


def test_a_line_is_told_once(monkeypatch, capsys):
    monkeypatch.setattr(waiting, "PATIENCE", 0.001)
    monkeypatch.setattr(waiting, "EVERY", 0.001)
    with waiting.waiting() as work:
        time.sleep(0.1)
        work.tell("reading", 1, 2)
        time.sleep(0.1)
    assert capsys.readouterr().err.splitlines() == ["preparing …", "reading: 1 of 2"]


@pytest.fixture
def slow(monkeypatch):
    """Every file takes a while to read, and a command a tenth of that while to lose its patience."""
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    monkeypatch.setattr(content, "AT_ONCE", 4)
    monkeypatch.setattr(waiting, "PATIENCE", 0.001)
    monkeypatch.setattr(waiting, "EVERY", 0.01)

    def late(f):
        return lambda *args, **options: time.sleep(0.01) or f(*args, **options)

    for module, name in ((image_folder, "decode"), (image_files, "decode"), (EventFiles, "frames"), (content, "_sample")):
        monkeypatch.setattr(module, name, late(getattr(module, name)))


@pytest.mark.parametrize(
    ("make", "recipe", "looks"),
    [(images, "folder-resnet18-staa", "decoding images"), (recordings, "events-folder-vggsnn-staa", "binning recordings")],
)
def test_commands_on_files_show_how_far_they_are(make, recipe, looks, slow, tmp_path, capsys):
    root, out = make(tmp_path / "data"), tmp_path / "run"
    more = ["--data", str(root), "--data.size", "16", "--model.width", "0.05", "--model.steps", "2", "--max-steps", "1"]
    more += ["--data.sensor", "16x16"] if make is recordings else []
    assert main(["train", recipe, *more, "--out", str(out), "--workers", "0"]) == 0
    assert re.search(rf"^{looks}: \d+ of 40$", capsys.readouterr().err, re.MULTILINE)
    os.utime(next(root.glob("[!.]*/*.*")), (1, 1))  # so that they are hashed again
    assert main(["evaluate", str(out), "--data", str(root), "--workers", "0"]) == 0
    text = capsys.readouterr().err
    assert re.search(r"^hashing files: \d+ of 40$", text, re.MULTILINE)
    assert re.search(r"^measuring: \d+ of \d+$", text, re.MULTILINE) or make is recordings  # which lie in memory
    assert main(["compare", str(out), "--data", str(root), "--out", str(tmp_path / "cmp")]) == 0
    assert re.search(r"^(measuring what each costs|timing): \d+ of \d+$", capsys.readouterr().err, re.MULTILINE)


def test_a_command_shows_something_whatever_it_does(slow, tmp_path, capsys, monkeypatch):
    """Though nothing of it is counted."""
    monkeypatch.setattr("staa.cli.predict.predict_file", lambda *_, **__: time.sleep(0.1) or pytest.fail("far enough"))
    monkeypatch.setattr("staa.cli.data.DOWNLOADS", {"solar": lambda root, tell: tell("a.gz", 10**6, 4 * 10**6) or 1 / 0})
    series = tmp_path / "series.csv"
    np.savetxt(series, np.zeros((3, 2)), delimiter=",")
    shutil.copytree(HERE / "ring", tmp_path / "ring")
    with pytest.raises(pytest.fail.Exception):
        main(["predict", str(tmp_path / "ring"), str(series)])
    assert "preparing …\n" in capsys.readouterr().err
    monkeypatch.setattr(
        "staa.cli.data.DOWNLOADS", {"solar": lambda root, tell: tell("a.gz", 10**6, 4 * 10**6) or time.sleep(0.1) or root}
    )
    monkeypatch.setattr("staa.cli.data.inventory", lambda name, root: "whole")
    assert main(["data", "solar", "--data", str(tmp_path)]) == 0
    assert "a.gz: 1.0 of 4.0 MB\n" in capsys.readouterr().err


def test_a_quick_command_shows_nothing_and_no_thread_is_left(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(waiting, "PATIENCE", 60.0)
    before = threading.active_count()
    assert main(["train", f"{tiny.__file__}:recipe", "--max-steps", "1", "--out", str(tmp_path / "run")]) == 0
    assert main(["evaluate", str(tmp_path / "nowhere")]) == 2
    assert threading.active_count() == before
    assert "…" not in capsys.readouterr().err


def test_a_terminal_gets_a_bar_that_goes(monkeypatch):
    screen = Console(file=io.StringIO(), force_terminal=True, width=100)
    monkeypatch.setattr(waiting, "out", screen)
    monkeypatch.setattr(waiting, "PATIENCE", 0.001)
    monkeypatch.setattr(waiting, "REFRESH", 0.001)
    with waiting.waiting():
        time.sleep(0.3)
        for _ in counted(torch.arange(3), "decoding images", 3):
            time.sleep(0.3)
    shown = screen.file.getvalue()
    assert "preparing …" in shown
    assert all(f"decoding images: {k} of 3" in shown for k in range(3))
    assert shown.rstrip("\r\n").endswith("\x1b[2K")  # the line is cleared
