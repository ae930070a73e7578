"""Long recordings as samples: a table of intervals, or pieces of equal duration; a recording is in one part alone."""

from pathlib import Path

import numpy as np
import pytest
import torch
from test_events import some_events

from staa.data import Events, event_folder, to_frames
from staa.data.events.cache import interval_of
from staa.data.events.samples import TABLE, parted, read_samples

HEADER = "file,start,end,class\n"


def save(path, events):
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, t=events.t, x=events.x, y=events.y, p=events.p, sensor=events.sensor)
    return events


def files_of(source, part):
    samples = getattr(source, part)
    return [] if samples is None else list(samples.files)


def recordings_of(source):
    return [{Path(f.rpartition("#")[0]).name for f in files_of(source, part)} for part in ("train", "validation", "test")]


def test_a_table_of_intervals(tmp_path):
    events = {name: save(tmp_path / "day" / f"{name}.npz", some_events(4000, seed=i)) for i, name in enumerate("abcd")}
    rows = [
        (f"day/{name}.npz", start, start + 50_000, "wave" if start % 100_000 else "nod")
        for name in "abcd"
        for start in range(0, 300_000, 50_000)
    ]
    (tmp_path / TABLE).write_text(HEADER + "".join(f"{file},{start},{end},{label}\n" for file, start, end, label in rows))
    source = event_folder(root=tmp_path, validation=0.25, steps=5, frames="window", window=10.0)
    train, val, test = recordings_of(source)
    assert len(train | val | test) == 4
    assert len(train) + len(val) + len(test) == 4
    assert source.names == ("nod", "wave")
    found = files_of(source, "train")
    assert len(found) == 6 * len(train)
    file, _, interval = found[3].rpartition("#")
    start, end = map(int, interval.split("-"))
    one = events[Path(file).stem]
    inside = (one.t >= start) & (one.t < end)
    cut = Events(one.t[inside], one.x[inside], one.y[inside], one.p[inside], one.sensor)
    expected = np.zeros((5, 2, 34, 34), np.float32)
    frames = to_frames(cut, window=10_000, origin=start)  # not from the first event
    expected[: len(frames)] = frames
    assert torch.equal(source.prepare(source.train.take(torch.tensor([3])))[:, 0], torch.from_numpy(expected))
    again = event_folder(root=tmp_path, validation=0.25, steps=5, frames="window", window=10.0)
    assert again.split == source.split
    (tmp_path / TABLE).write_text(
        HEADER.replace("start,end", "start_s, end_s") + "".join(f"{f},{s / 1e6},{e / 1e6},{c}\n" for f, s, e, c in rows)
    )
    assert event_folder(root=tmp_path, validation=0.25, steps=5, frames="window", window=10.0).split == source.split
    fold = event_folder(root=tmp_path, validation=0, steps=5, split="fold-2-of-4")
    assert [len(files) for files in recordings_of(fold)] == [3, 0, 1]
    with pytest.raises(ValueError, match=r"samples.csv says where samples begin and end, so `data.slice` must be None, got 1$"):
        event_folder(root=tmp_path, validation=0, steps=5, slice=1.0)


def test_a_table_that_says_the_parts(tmp_path):
    for name in "abc":
        save(tmp_path / f"{name}.npz", some_events())
    rows = "".join(
        f"{f}.npz,{s},{s + 100_000},{c},{p}\n"
        for f, p in zip("abc", ("train", "test", "val"), strict=True)
        for s, c in ((0, "x"), (100_000, "y"))
    )
    (tmp_path / TABLE).write_text("file,start,end,class,part\n" + rows)
    source = event_folder(root=tmp_path, validation=0.1, steps=5)
    assert recordings_of(source) == [{"a.npz"}, {"c.npz"}, {"b.npz"}]
    (tmp_path / TABLE).write_text("file,start,end,class,part\n" + rows.replace("test", "val"))
    with pytest.raises(ValueError, match="no samples for test in its column part"):
        event_folder(root=tmp_path, validation=0.1, steps=5)


def test_every_wrong_line_of_a_table_is_named(tmp_path):
    save(tmp_path / "a.npz", some_events())
    (tmp_path / "link.npz").symlink_to(tmp_path / "a.npz")
    (tmp_path / TABLE).write_text(
        "file,start,end,class,part\na.npz,0,9,x,train\nb.npz,0,9,x,train\n../a.npz,0,9,x,train\na.npz,9,9,x,train\na.npz,0.5,9,x,train\n"
        "a.npz,0,9,,train\na.npz,0,9,x,other\na.npz,0,9\na.npz,0,9,y,train\nlink.npz,5,9,x,test\na.doc,0,9,x,train\na.npz,-1,9,x,train\n"
    )
    with pytest.raises(ValueError, match="lines that are wrong") as info:
        event_folder(root=tmp_path, validation=0, steps=5)
    problems = (
        "11 lines that are wrong",
        "line 3: file 'b.npz' is not there",
        "line 4: file '../a.npz' must be a path under",
        "line 5: start must be before end, got 9 and 9",
        "line 6: start must be a whole number, got '0.5' (of times in seconds call",
        "line 7: it has no class",
        "line 8: part must be train, val or test, got 'other'",
        "line 9: it has more or fewer fields",
        "line 10: the same interval as line 2",
        "line 11: a.npz is in test, but in train in line 2: a recording must be in one part",
        "; and 2 more",
    )
    for problem in problems:
        assert problem in str(info.value)
    for header in ("file,class", "file,start,end_s,class", "file,start,end,class,other", "start,end,class"):
        (tmp_path / TABLE).write_text(header + "\n")
        with pytest.raises(ValueError, match="expected file, start, end, class .times in µs., or file, start_s"):
            event_folder(root=tmp_path, validation=0, steps=5)
    (tmp_path / TABLE).write_text(HEADER)
    with pytest.raises(ValueError, match="has no samples: expected lines file,start,end,class below the first"):
        event_folder(root=tmp_path, validation=0, steps=5)
    (tmp_path / TABLE).write_text(HEADER + "a.npz,0,100000,x\na.npz,100000,200000,y\n")
    with pytest.raises(ValueError, match="class x, y is in too few recordings to be in test and in the other parts"):
        event_folder(root=tmp_path, validation=0, steps=5)


def test_a_table_whose_interval_has_no_events(tmp_path):
    for name in "ab":
        save(tmp_path / f"{name}.npz", some_events())
    rows = "".join(f"{f}.npz,{s},{s + 100_000},{c}\n" for f in "ab" for s, c in ((0, "x"), (100_000, "y")))
    (tmp_path / TABLE).write_text(HEADER + rows + "a.npz,900000,901000,x\n")
    with pytest.raises(
        ValueError, match=r"a.npz#900000-901000 .it has no events from 900000 to 901000 µs of the recording's time"
    ):
        event_folder(root=tmp_path, validation=0, steps=5)
    source = event_folder(root=tmp_path, validation=0, steps=5, corrupt="skip")
    assert "1 recordings that can't be read are left out" in source.notes[-1]


@pytest.mark.parametrize("seed", range(20))
def test_no_recording_of_a_table_is_in_two_parts(seed, tmp_path):
    rng = np.random.default_rng(seed)
    for k in range(12):
        (tmp_path / f"{k}.npz").touch()
    rows = [(f"{rng.integers(12)}.npz", 10 * i, 10 * i + 5, "abc"[i % 3]) for i in range(200)]
    (tmp_path / TABLE).write_text(HEADER + "".join(f"{f},{s},{e},{c}\n" for f, s, e, c in rows))
    samples = read_samples(tmp_path, (".npz",))
    for split in (None, "fold-1-of-3"):
        parts = parted(samples, split, 0.2, 0.1, tmp_path)
        files = [{r.rpartition("#")[0] for recordings in part.values() for r in recordings} for part in parts.values()]
        assert sum(map(len, files)) == len(set.union(*files)) == 12
        assert sum(len(r) for part in parts.values() for r in part.values()) == 200


def test_recordings_cut_into_pieces(tmp_path):
    for label in ("x", "y"):
        for k in range(10):
            events = some_events(5000, seed=k, span=1_050_000 if k else 1_300_000)
            save(tmp_path / label / f"{label}{k}.npz", events._replace(t=events.t + 7_000_000 + (events.t > 500_000) * 600_000))
    source = event_folder(root=tmp_path, validation=0.2, steps=5, slice=0.25)
    train, val, test = recordings_of(source)
    assert len(train) + len(val) + len(test) == len(train | val | test) == 20  # no recording in two parts
    found = {Path(f.rpartition("#")[0]).name: 0 for f in files_of(source, "train")}
    for f in files_of(source, "train"):
        found[Path(f.rpartition("#")[0]).name] += 1
    assert set(found.values()) <= {5, 6}  # of 1.65 or 1.9 s: 0.5 s are silent, and 0.15 s at the end are kept, 0.05 s are not
    everything = [source.train, source.validation, source.test]
    pieces = sum(len(samples) for samples in everything)
    assert f"{pieces} pieces of 0.25 s, of 20 recordings; those of one recording are all in one part" in source.notes
    for f in files_of(source, "test"):
        path, _, interval = f.rpartition("#")
        start, end = map(int, interval.split("-"))
        assert end - start == 250_000
        assert (start - np.load(path)["t"][0]) % 250_000 == 0
    (tmp_path / "x" / "x0.npz").write_bytes(b"broken")
    with pytest.raises(ValueError, match="1 of the recordings under .* can't be read: .*x0.npz"):
        event_folder(root=tmp_path, validation=0.2, steps=5, slice=0.25)
    assert (
        len(set.union(*recordings_of(event_folder(root=tmp_path, validation=0.2, steps=5, slice=0.25, corrupt="skip")))) == 19
    )


def test_a_sensor_that_is_not_square(tmp_path):
    for label in "xy":
        for k in range(4):
            save(tmp_path / label / f"{k}.npz", some_events(sensor=(26, 34), seed=k))
    for size, side in ((None, 34), (17, 17)):
        source = event_folder(root=tmp_path, validation=0, steps=3, size=size, fit="keep")
        x = source.prepare(source.train.take(torch.arange(6)))
        assert x.shape == (3, 6, 2, side, side)
        assert x.sum() == 6 * 200
        edge = 4 if size is None else 2
        assert x[..., :edge, :].sum() == x[..., -edge:, :].sum() == 0
    with pytest.raises(ValueError, match="or let them keep its shape with `data.fit=keep`"):
        event_folder(root=tmp_path, validation=0, steps=3)


def test_times_of_a_table_that_python_alone_takes_for_numbers(tmp_path, monkeypatch):
    save(tmp_path / "a.npz", some_events())
    times = ("1_000", "\u0661", "0x10", "1e3", "9" * 400, "9" * 5000, str(1 << 62))
    (tmp_path / TABLE).write_text(HEADER + "".join(f"a.npz,0,{time},x\n" for time in times), encoding="utf-8")
    with pytest.raises(ValueError, match="7 lines that are wrong"):
        read_samples(tmp_path, (".npz",))
    seconds = ("inf", "nan", "1e308", "1_0", "-1")
    (tmp_path / TABLE).write_text("file,start_s,end_s,class\n" + "".join(f"a.npz,0,{time},x\n" for time in seconds))
    with pytest.raises(ValueError, match="5 lines that are wrong"):
        read_samples(tmp_path, (".npz",))
    last = (1 << 62) - 1
    (tmp_path / TABLE).write_text(HEADER + f"a.npz,0,{last},x\n" + "a.npz,0,9,y\n")
    samples = read_samples(tmp_path, (".npz",))
    assert interval_of(samples[0].recording) == (str(tmp_path / "a.npz"), (0, last))
    monkeypatch.setattr("staa.data.events.samples.MOST", 1)
    with pytest.raises(ValueError, match="more than 1 samples"):
        read_samples(tmp_path, (".npz",))
