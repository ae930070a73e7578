"""Recordings that are read, checked, repaired and binned piece by piece, whatever their size."""

import re
import shlex
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_recordings import npz_file, write

from staa.cli import main
from staa.data import event_folder, read_events
from staa.data.events import binning
from staa.data.events.binning import binned
from staa.data.events.check import Check, longest_rise
from staa.data.events.doubt import doubt
from staa.data.events.frames import borders_of, count
from staa.data.events.recording import joined, unchecked
from staa.data.events.repair import Repair


def events_at(t, sensor=(16, 16)):
    i = np.arange(len(t))
    return unchecked(np.asarray(t, np.int64), i % 16, i // 16 % 16, i % 2, sensor)


def cut(events, at):
    return [events._replace(**{c: getattr(events, c)[a:b] for c in "txyp"}) for a, b in zip([0, *at], [*at, None], strict=True)]


@settings(max_examples=80, deadline=None)
@given(st.lists(st.integers(0, 50), min_size=5, max_size=60), st.data())
def test_frames_do_not_depend_on_the_pieces(gaps, data):
    t = np.cumsum(gaps)
    events, steps = events_at(t), data.draw(st.integers(1, 5))
    at = sorted(data.draw(st.lists(st.integers(1, len(t) - 1), max_size=5)))
    pieces = [piece for piece in cut(events, at) if len(piece.t)]
    for more in ({"by": "number"}, {"by": "time"}, {"window": 7}, {"window": 7, "origin": -3}):
        whole = count(events, borders_of(events, steps, **more), size=(8, 8))
        for held in (0, 10, 1000):
            binning.AT_ONCE, before = held, binning.AT_ONCE
            try:
                assert np.array_equal(binned(lambda: iter(pieces), steps, size=8, **more), whole)
            finally:
                binning.AT_ONCE = before


def checked(t, at, how, held):
    repair = Repair(how)
    check = Check(None, repair, held=held)
    found = [check.feed(piece) for piece in cut(events_at(t), at)]
    return joined([*found, check.end()], None).t.tolist(), repair.counts


@settings(max_examples=80, deadline=None)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=40), st.data())
def test_as_few_events_as_possible_are_dropped(t, data):
    at = sorted(data.draw(st.lists(st.integers(0, len(t)), max_size=4)))
    rising, counts = checked(t, at, "drop", held=1000)
    assert rising == sorted(rising)
    assert len(rising) + counts["events back in time"] == len(t)
    longest = [0] * len(t)
    for i, now in enumerate(t):
        longest[i] = 1 + max((longest[k] for k in range(i) if t[k] <= now), default=0)
    assert len(rising) == max(longest) == longest_rise(np.array(t), 0).sum()
    for held in (0, 1, 5):
        found, counts = checked(t, at, "drop", held=held)
        assert found == sorted(found)
        assert len(found) + counts["events back in time"] == len(t)
    assert checked(t, at, "sort", held=0)[0] == sorted(t)


def test_one_event_far_ahead_drops_itself_alone():
    t = [*range(100), 10**6, *range(100, 200)]
    assert checked(t, [50, 101, 150], "drop", held=8)[0] == list(range(200))


def faulty(t, x=None):
    """A recording of 16 × 16 with some events back in time and outside."""
    arrays = {"t": np.array(t), "x": np.arange(len(t)) % 16 if x is None else np.array(x), "y": np.arange(len(t)) % 16}
    return npz_file(**arrays, p=np.arange(len(t)) % 2, height=16, width=16)


def folder(root, **faults):
    for c in "ab":
        (root / c).mkdir(parents=True)
        for i in range(12):
            write(root / c / f"{i}.npz", faulty(np.arange(i, 900 + i) * 500))
    for name, data in faults.items():
        write(root / name[0] / f"{name[1:]}.npz", data)
    return root


def test_data_repair_leaves_out_what_is_wrong_and_says_so(tmp_path):
    t = np.arange(0, 900) * 500
    back, far = t.copy(), np.arange(900) % 16
    back[300] = 0
    far[[5, 700]] = 2047
    root = folder(tmp_path, a3=faulty(back), b4=faulty(t, far))
    options = {"root": root, "validation": 0, "steps": 3}
    with pytest.raises(ValueError, match="2 of the recordings .*time runs backwards .* --repair drop"):
        event_folder(**options)
    dropped = event_folder(**options, repair="drop")
    told = "left out 1 event back in time, 2 events outside the sensor in 2 of 24 recordings (`data.repair=drop`)"
    assert told in dropped.notes
    assert told in event_folder(**options, repair="drop").notes  # from the kept frames
    sorted_ = event_folder(**options, repair="sort")
    assert "left out 2 events outside the sensor; put 1 event that was back in time in order in 2 of 24" in sorted_.notes[-1]
    assert sum(int(part.x.sum()) for part in (sorted_.train, sorted_.test)) == 24 * 900 - 2
    assert sum(int(part.x.sum()) for part in (dropped.train, dropped.test)) == 24 * 900 - 3


def test_times_that_no_camera_sends_are_doubted(tmp_path):
    rng = np.random.default_rng(0)
    root = tmp_path / "long"
    for c in "ab":
        (root / c).mkdir(parents=True)
        for i in range(10):
            write(root / c / f"{i}.npz", faulty(np.sort(rng.integers(0, 300_000_000, 4000))))
    source = event_folder(root=root, validation=0, steps=10, frames="window", window=1)
    assert any("a recording is 299.9 s long, and its 10 windows are 0.01 s: are its times in µs?" in n for n in source.notes)
    assert "in ms or s, and not in µs?" in doubt(5000, 0, 300, (16, 16))
    assert "in ns, and not in µs?" in doubt(5000, 0, 3_000_000_000, (16, 16))
    assert not doubt(5000, 0, 300_000, (34, 34))


def test_the_advice_of_an_error_can_be_followed(tmp_path, capsys):
    t = np.arange(500) * 100
    t[100] = 7
    path = write(tmp_path / "a b.npz", faulty(t))
    with pytest.raises(ValueError, match="time runs backwards by 9893 µs at event 100 ") as error:
        read_events(path)
    (command,) = re.findall(r"'(staa data convert .*? --repair drop)' leaves", str(error.value))
    assert main(shlex.split(command)[1:]) == 0
    told = capsys.readouterr().out.replace("\n", " ")
    assert "left out 1 event back in time" in told
    new = tmp_path / "a b-repaired.npz"
    assert np.array_equal(read_events(new).t, np.delete(t, 100))
    assert read_events(new).sensor == (16, 16)
    assert main(shlex.split(command)[1:]) == 2
    assert "is there already" in capsys.readouterr().err
    cut = ["data", "convert", str(path), str(tmp_path / "c.npz"), "--repair", "sort", "--cut", "0.01", "0.02"]
    assert main(cut) == 0
    assert read_events(tmp_path / "c.npz").t.tolist() == [100 * k for k in range(101, 200)]  # the first event is at 0
    for wrong, problem in (
        (["--cut", "2", "1"], "--cut takes the first and the last second"),
        (["--cut", "8", "9", "--repair", "drop"], "no events are left"),
        (["--sensor", "8x8"], "wrong sensor size"),
    ):
        assert main(["data", "convert", str(path), str(tmp_path / "d.npz"), *wrong]) == 2
        assert problem in capsys.readouterr().err.replace("\n", " ")
        assert not (tmp_path / "d.npz").exists()


@pytest.mark.slow
def test_fifty_million_events_take_little_memory(tmp_path):
    """Two files of them, by two threads: what the process holds more than before, and the frames."""
    program = f"""
import resource, sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
import numpy as np
from staa.data.events.cache import EventFiles
paths = [Path({str(tmp_path)!r}, f"{{k}}.dat") for k in range(2)]
for path in paths:
    with open(path, "wb") as file:
        file.write(b"% Version 2\\n% Height 128\\n% Width 128\\n% end\\n\\x0c\\x08")
        for k in range(50):
            words = np.empty((1_000_000, 2), "<u4")
            words[:, 0] = np.arange(1_000_000 * k, 1_000_000 * (k + 1))
            words[:, 1] = np.arange(1_000_000) % (1 << 14) % 128 | (np.arange(1_000_000) // 128 % 128) << 14
            file.write(words.tobytes())
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
files = EventFiles(list(map(str, paths)), root=paths[0].parent, cache=paths[0].parent / "cache", steps=10)
with ThreadPoolExecutor(2) as pool:
    frames = list(pool.map(files.frames, files.recordings))
assert all((f.sum(axis=(1, 2, 3)) == 5_000_000).all() for f in frames)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10, before >> 10)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr[-2000:]
    grown, before = map(int, done.stdout.split())
    assert grown < 200, f"{grown} MiB beyond {before}"


def test_what_a_conversion_lacks_is_told(tmp_path, capsys):
    """A file that is not there, a unit that must be said, a sensor that nobody knows."""
    events = np.zeros(9, [("t", "<f8"), ("x", "<u2"), ("y", "<u2"), ("p", "u1")])
    events["t"] = np.arange(9) / 8
    np.save(tmp_path / "s.npy", events)
    convert = ["data", "convert", str(tmp_path / "s.npy"), str(tmp_path / "s.npz")]
    assert main(["data", "convert", str(tmp_path / "none.raw"), str(tmp_path / "n.npz")]) == 2
    assert capsys.readouterr().err.endswith(f"staa: error: {tmp_path / 'none.raw'}: no such file or directory\n")
    assert main(convert) == 2
    assert (
        "t must be whole, finite numbers of µs, found 0.125 at event 1: give --unit, such as s or ms" in capsys.readouterr().err
    )
    assert main([*convert, "--unit", "s"]) == 0
    assert "neither the file nor --sensor says the size of the sensor" in capsys.readouterr().out
    with np.load(tmp_path / "s.npz") as saved:
        assert set(saved) == {"t", "x", "y", "p"}
        assert saved["t"].tolist() == [125_000 * k for k in range(9)]
