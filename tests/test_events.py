"""Event recordings: binning that conserves every event, the cache, the data sets in their real layouts, the named splits."""

import os
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from zipfile import ZipFile

import numpy as np
import pytest
import tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_recordings import aedat2_file, aedat3_file, bin_file, rows

from staa.build import task_of
from staa.data import DATASETS, Events, cifar10dvs, dvsgesture, event_folder, nmnist, read_events, to_frames
from staa.data.download import Archive, fetch, unpack
from staa.data.events import folder as folder_module
from staa.data.events import frames as frames_module
from staa.data.events import published as published_module
from staa.data.events.cache import EventFiles
from staa.data.events.frames import UnsuitedError, borders_of, by_number, by_time, by_window, count
from staa.recipes import RECIPES

GESTURE_CSV = "class,startTime_usec,endTime_usec\n"


def some_events(n=200, sensor=(34, 34), seed=0, span=300_000):
    rng = np.random.default_rng(seed)
    height, width = sensor
    t = np.sort(rng.integers(0, span, n)).astype(np.int64)
    x, y = rng.integers(0, width, n).astype(np.int32), rng.integers(0, height, n).astype(np.int32)
    return Events(t, x, y, rng.integers(0, 2, n).astype(np.uint8), sensor)


def write_file(make, path, events):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(make(rows(events)))


write_nmnist, write_aedat2, write_aedat3 = (partial(write_file, make) for make in (bin_file, aedat2_file, aedat3_file))


recordings = st.builds(
    some_events,
    n=st.integers(1, 400),
    sensor=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    seed=st.integers(0, 99),
    span=st.sampled_from([1, 2, 1000, 1 << 40]),
)


@settings(deadline=None, max_examples=80)
@given(
    recordings,
    st.integers(1, 12),
    st.sampled_from(["number", "time", "window"]),
    st.tuples(st.integers(1, 40), st.integers(1, 40)),
)
def test_binning_conserves_every_event(events, steps, by, size):
    size = tuple(min(a, b) for a, b in zip(size, events.sensor, strict=True))
    steps = min(steps, len(events.t))
    window = (int(events.t[-1]) - int(events.t[0])) // steps + 1 if by == "window" else None
    borders = borders_of(events, None if window else steps, by="number" if window else by, window=window)
    frames = count(events, borders, size=size)
    assert len(frames) <= steps
    assert frames.shape[1:] == (2, *size)
    for p in (0, 1):
        assert frames[:, p].sum() == (events.p == p).sum()
    frame = np.repeat(np.arange(len(frames)), np.diff(borders))
    expected = np.zeros_like(frames)
    y, x = (
        v.astype(np.int64) * small // large for v, small, large in zip((events.y, events.x), size, events.sensor, strict=True)
    )
    np.add.at(expected, (frame, events.p, y, x), 1)
    assert (frames == expected).all()


@settings(deadline=None)
@given(recordings, st.integers(1, 12))
def test_frames_are_those_of_the_formulas(events, steps):
    n, t = len(events.t), [int(v) for v in events.t]
    of = lambda borders: np.repeat(np.arange(len(borders) - 1), np.diff(borders)).tolist()  # noqa: E731
    assert of(by_number(n, steps)) == [i * steps // n for i in range(n)]
    assert of(by_time(events.t, steps)) == [(v - t[0]) * steps // (t[-1] - t[0] + 1) for v in t]
    window = (t[-1] - t[0]) // steps + 1
    assert of(by_window(events.t, window)) == [(v - t[0]) // window for v in t]


def test_values_of_frames():
    events = some_events(500, sensor=(4, 4))
    counts = to_frames(events, 3)
    assert counts.dtype == np.float32
    assert counts.sum() == 500
    assert (to_frames(events, 3, values="binary") == (counts > 0)).all()
    assert (to_frames(events, 3, values="normalised") == counts / counts.max()).all()
    assert len(to_frames(events, window=100_000)) == 3
    for values in ("sum", "binary", "normalised"):  # what a source makes of stored counts
        x = torch.from_numpy(counts).to(torch.uint8).unsqueeze(0)
        assert torch.equal(frames_module.as_values(x, values)[:, 0], torch.from_numpy(to_frames(events, 3, values=values)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": None}, "either steps or window"),
        ({"window": 5}, "either steps or window"),
        ({"steps": 201}, "200 events, too few for 201 frames"),
        ({"steps": 0}, "at least 1"),
        ({"by": "space"}, 'by must be "number" or "time"'),
        ({"size": (35, 34)}, "can't be larger than the sensor"),
        ({"sensor": None}, "give height and width"),
        ({"sensor": (34, 20)}, "outside the sensor of 34 × 20"),
        ({"steps": None, "window": 1, "t": np.array([0] * 199 + [1 << 50])}, "make the window longer"),
        ({"t": np.arange(200)[::-1]}, r"time runs backwards by 1 µs at event 1 \(199 µs, then 198 µs\)"),
        ({"t": np.arange(200, dtype=np.uint32) - np.uint32(9)}, "time runs backwards by 4294967295 µs at event 9"),
        ({"t": np.arange(200) / 1e6}, "t must be whole, finite numbers of µs, found 1e-06 at event 1: multiply seconds by 1e6"),
        ({"t": np.arange(199)}, "differ in length: t 199, x 200, y 200, p 200"),
        ({"origin": 0}, "give it with window"),
        (
            {"steps": None, "window": 9, "origin": 9**6, "t": np.arange(200)},
            "first event is at 0 µs, before the origin of 531441",
        ),
        ({"fit": "crop"}, 'fit must be "stretch" or "keep"'),
        ({"size": (36, 40), "fit": "keep"}, "can't be larger than the sensor"),
    ],
)
def test_binning_refuses(change, message):
    change = dict(change)
    events = some_events()._replace(**{k: change.pop(k) for k in ("sensor", "t") if k in change})
    with pytest.raises(ValueError, match=message):
        to_frames(events, **{"steps": 5, **change})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"t": [3, 2]}, "time runs backwards by 1 µs at event 1"),
        ({"t": [0.5, 1]}, "t must be whole, finite numbers of µs, found 0.5 at event 0: multiply seconds"),
        ({"t": np.array([1, 2**63], np.uint64)}, r"t must be within ±2\*\*62"),
        ({"t": [[1, 2]]}, r"t must have one number for each event; found shape \[1, 2\]"),
        ({"x": [1]}, "differ in length: t 2, x 1, y 2, p 2"),
        ({"x": [1, 9]}, r"event 1 lies at x 9, y 1, outside the sensor of 8 × 9 \(height × width\)"),
        ({"x": [-1, 0], "sensor": None}, "event 0 lies at x -1, y 1, at no pixel"),
        ({"p": [0, 2]}, "polarities must be 0 and 1, or -1 and 1; found 0, 2"),
        ({"p": ["on", "off"]}, "p must have one number for each event"),
        ({"sensor": (8, 0)}, "a sensor must be .height, width., each from 1"),
    ],
)
def test_events_of_ones_own_are_checked(change, message):
    given = {"t": [1, 2], "x": [0, 1], "y": [1, 1], "p": [1, 0], "sensor": (8, 9)}
    with pytest.raises(ValueError, match=message):
        Events(**given | change)


def test_events_of_ones_own_are_of_the_documented_types():
    events = Events(t=[1, 2], x=np.array([0.0, 1.0]), y=np.array([1, 1], np.uint16), p=[True, False])
    assert [a.dtype for a in events[:4]] == [np.int64, np.int32, np.int32, np.uint8]
    assert rows(events) == [(1, 0, 1, 1), (2, 1, 1, 0)]
    assert events.sensor is None
    assert Events([1], [1], [1], [-1], [4, 5]).sensor == (4, 5)
    assert Events(*[[]] * 4).t.dtype == np.int64
    t, x, y, p, sensor = right = some_events()
    assert Events(t, x, y, p, sensor).t is t
    assert isinstance(right._replace(t=t[::-1]), Events)  # the way for readers, whose events are checked later


def test_windows_from_an_origin():
    events = Events(t=[1200, 1999, 2000, 5100], x=[0] * 4, y=[0] * 4, p=[1] * 4, sensor=(1, 1))
    assert to_frames(events, window=1000).sum((1, 2, 3)).tolist() == [3, 0, 0, 1]
    assert to_frames(events, window=1000, origin=1000).sum((1, 2, 3)).tolist() == [2, 1, 0, 0, 1]
    assert to_frames(events, window=1000, origin=0).sum((1, 2, 3)).tolist() == [0, 2, 1, 0, 0, 1]
    assert to_frames(events, window=1000, origin=-500).sum((1, 2, 3)).tolist() == [0, 1, 2, 0, 0, 1]


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 40), st.integers(1, 40))
def test_a_frame_that_keeps_the_sensors_shape(height, width, h, w):
    y, x = (axis.ravel() for axis in np.mgrid[:height, :width])
    events = Events(np.arange(height * width), x, y, np.ones(height * width, np.int8), (height, width))
    scale = min(h / height, w / width)
    if scale > 1:
        with pytest.raises(UnsuitedError, match="can't be larger than the sensor"):
            to_frames(events, 1, size=(h, w), fit="keep")
        return
    frame = to_frames(events, 1, size=(h, w), fit="keep")[0, 1]
    assert frame.sum() == height * width
    rows_used, columns_used = np.flatnonzero(frame.sum(1)), np.flatnonzero(frame.sum(0))
    for used, side, room in ((rows_used, height * scale, h), (columns_used, width * scale, w)):
        assert abs(len(used) - side) <= 0.5 or len(used) == 1
        assert len(used) == used[-1] - used[0] + 1  # no gap
        assert used[0] == (room - len(used)) // 2


def files_of(folder, **options):
    options = {"root": folder, "cache": folder / "cache", "steps": 4, "sensor": (34, 34), **options}
    options["cache"].mkdir(exist_ok=True)
    paths = sorted(str(p) for p in folder.glob("*.bin"))
    return EventFiles(paths, **options)


def test_frames_are_kept(tmp_path, monkeypatch):
    for i in range(3):
        write_nmnist(tmp_path / f"{i}.bin", some_events(seed=i))
    files = files_of(tmp_path)
    first = files.read(torch.tensor([2, 0]))
    assert first.dtype == torch.uint8
    assert first.shape == (2, 4, 2, 34, 34)
    assert torch.equal(first[1].float(), torch.from_numpy(to_frames(some_events(seed=0), 4)))
    assert len(list((tmp_path / "cache").iterdir())) == 2
    with monkeypatch.context() as patch:
        patch.setattr("staa.data.events.cache.read_pieces", None)  # nothing is read again
        assert torch.equal(files.read(torch.tensor([2, 0])), first)
    kept = next((tmp_path / "cache").iterdir())
    kept.write_bytes(kept.read_bytes()[:99])  # broken, as after a full disk: made anew
    assert torch.equal(files.read(torch.tensor([2, 0])), first)
    before = len(list((tmp_path / "cache").iterdir()))
    for options in ({"steps": 5}, {"by": "time"}, {"by": "window", "window": 100_000}, {"size": 17}):
        assert files_of(tmp_path, **options).read(torch.tensor([0])).shape[1:3] == (options.get("steps", 4), 2)
    assert len(list((tmp_path / "cache").iterdir())) == before + 4
    write_nmnist(tmp_path / "0.bin", some_events(seed=9))  # another recording of the same name and length
    os.utime(tmp_path / "0.bin", ns=(0, 0))
    assert not torch.equal(files.read(torch.tensor([0]))[0], first[1])


def test_windows_are_cut_and_filled_up_to_steps(tmp_path):
    write_nmnist(tmp_path / "0.bin", events := some_events(span=100_000))
    short = files_of(tmp_path, by="window", window=20_000, steps=8).read(torch.tensor([0]))[0]
    assert short.sum() == 200
    assert short[5:].sum() == 0
    long = files_of(tmp_path, by="window", window=20_000, steps=2).read(torch.tensor([0]))[0]
    assert long.sum() == (events.t - events.t[0] < 40_000).sum()


def test_hot_pixels_need_more_than_a_byte(tmp_path):
    events = some_events(3000)
    write_nmnist(tmp_path / "0.bin", events._replace(x=events.x * 0, y=events.y * 0))
    write_nmnist(tmp_path / "1.bin", events)
    x = files_of(tmp_path).read(torch.tensor([0, 1]))
    assert x.dtype == torch.int32
    assert x.sum() == 6000


def test_frames_of_very_long_recordings():
    t = np.linspace(0, 2**61, 1000).astype(np.int64)
    assert np.diff(by_time(t, 10)).tolist() == [100] * 10
    assert np.diff(by_time(np.array([-(2**61), 2**61]), 3)).tolist() == [1, 0, 1]
    assert by_window(t, 10**9, 4).tolist() == [0, 1, 1, 1, 1]
    assert by_window(t, 2**60, 5).tolist() == [0, 500, 999, 1000, 1000, 1000]
    with pytest.raises(UnsuitedError, match="make the window longer"):
        by_window(t, 1)


def test_frames_of_another_shape_are_not_believed(tmp_path):
    write_nmnist(tmp_path / "0.bin", some_events())
    files = files_of(tmp_path)
    right = files.read(torch.tensor([0]))
    (kept,) = (tmp_path / "cache").iterdir()
    for wrong in (np.zeros((4, 2, 9, 8), np.uint8), np.zeros((4, 2, 34, 34)), np.zeros((3, 2, 34, 34), np.uint8)):
        np.save(kept, wrong)
        assert torch.equal(files.read(torch.tensor([0])), right)


def test_a_cache_that_can_not_be_written_says_what_to_do(tmp_path, monkeypatch):
    class_folder(tmp_path)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("STAA_FRAMES", str(tmp_path / "file"))
    with pytest.raises(OSError, match="set STAA_FRAMES to a folder that can be written"):
        event_folder(root=tmp_path, validation=0.2, steps=4, sensor="34x34")
    monkeypatch.setenv("STAA_FRAMES", str(tmp_path / "elsewhere"))
    event_folder(root=tmp_path, validation=0.2, steps=4, sensor="34x34")
    assert len(list((tmp_path / "elsewhere").glob("*/*.npy"))) == 20
    assert not (tmp_path / ".staa-frames").exists()


def test_a_setting_that_suits_no_recording_is_named_not_the_recording(tmp_path):
    class_folder(tmp_path)
    for options, message in (
        ({}, r"does not say the size of its sensor: .* `data.sensor=260x346`$"),
        (
            {"sensor": "34x34", "size": 64},
            r"frames can't be larger than the sensor of 34 × 34, got 64 × 64: lower `data.size`$",
        ),
        ({"sensor": "34x36"}, r"give the frames a size with `data.size`, or let them keep"),
    ):
        for corrupt in ("refuse", "skip"):
            with pytest.raises(UnsuitedError, match=message):
                event_folder(root=tmp_path, validation=0.2, steps=4, corrupt=corrupt, **options)
    t, x, y, p, _ = some_events(sensor=(20, 20))
    np.savez(tmp_path / "left" / "small.npz", t=t, x=x, y=y, p=p, sensor=(20, 20))
    np.savez(tmp_path / "left" / "large.npz", t=t, x=x, y=y, p=p, sensor=(30, 30))
    for f in tmp_path.glob("*/*.bin"):
        f.rename(f.with_suffix(".off"))
    np.savez(tmp_path / "right" / "a.npz", t=t, x=x, y=y, p=p, sensor=(30, 30))
    np.savez(tmp_path / "right" / "b.npz", t=t, x=x, y=y, p=p, sensor=(30, 30))
    with pytest.raises(UnsuitedError, match=r"frames of \d+ × \d+, .* give all one size with `data.size`"):
        event_folder(root=tmp_path, validation=0.0, steps=4)


def test_what_can_not_be_opened_is_skipped_too(tmp_path):
    class_folder(tmp_path)
    (tmp_path / "left" / "link.bin").symlink_to(tmp_path / "nowhere")
    folder = partial(event_folder, root=tmp_path, steps=4, sensor="34x34", validation=0.2)
    with pytest.raises(ValueError, match=r"link.bin.*can't be opened"):
        folder()
    assert "link.bin" in folder(corrupt="skip").notes[0]


def nmnist_set(root, per_class=10):
    for d in range(10):
        for i in range(per_class):
            part = "Test" if i % 5 == 4 else "Train"
            write_nmnist(root / "NMNIST" / part / str(d) / f"{d * 100 + i:05d}.bin", some_events(seed=100 * d + i))


def members(source):
    """Every sample of each part as bytes, to see that no recording is in two."""
    return {
        part: [
            source.prepare(getattr(source, part).take(torch.tensor([i]))).numpy().tobytes()
            for i in range(len(getattr(source, part)))
        ]
        for part in ("train", "validation", "test")
        if getattr(source, part) is not None
    }


def disjoint(source, total):
    found = [m for part in members(source).values() for m in part]
    assert len(found) == len(set(found)) == total


def test_nmnist(tmp_path):
    nmnist_set(tmp_path)
    source = nmnist(root=tmp_path, validation=0.25, steps=6)
    assert (len(source.train), len(source.validation), len(source.test)) == (60, 20, 20)
    disjoint(source, 100)
    assert source.size == 34
    assert source.channels == 2
    assert source.classes == 10
    assert source.prepare(source.test.take(torch.tensor([3]))).shape == (6, 1, 2, 34, 34)
    assert "100 of the 70,000" in source.notes[0]
    folds = [nmnist(root=tmp_path, validation=0.1, steps=6, split=f"fold-{k}-of-5") for k in range(1, 6)]
    tests = [m for fold in folds for m in members(fold)["test"]]
    assert len(tests) == len(set(tests)) == 100
    for fold in folds:
        disjoint(fold, 100)
        assert fold.test.y.bincount().tolist() == [2] * 10
    assert len({fold.split for fold in folds} | {source.split}) == 6


def test_an_incomplete_data_set_says_what_to_do(tmp_path):
    for name in ("nmnist", "cifar10dvs", "dvsgesture"):
        with pytest.raises(FileNotFoundError, match=f"download it with 'staa data {name}'"):
            DATASETS[name](root=tmp_path, validation=0.0, steps=4)


def cifar_set(root, per_class=20):
    for k, c in enumerate(published_module.CIFAR_CLASSES):
        for i in range(per_class):
            write_aedat2(root / "CIFAR10DVS" / c / f"cifar10_{c}_{i}.aedat", some_events(40, (128, 128), seed=100 * k + i))


def test_cifar10dvs_in_the_authors_files_and_its_splits(tmp_path):
    cifar_set(tmp_path)
    kwargs = {"root": tmp_path, "steps": 2, "size": 16}
    source = cifar10dvs(validation=0.0, **kwargs)
    assert (len(source.train), source.validation, len(source.test), source.size) == (180, None, 20, 16)
    expected = to_frames(some_events(40, (128, 128), seed=2), 2, size=(16, 16))
    assert (source.prepare(source.train.take(torch.tensor([2])))[:, 0].numpy() == expected).all()  # 2 before 10
    assert (
        source.prepare(source.test.take(torch.tensor([0])))[:, 0].numpy()
        == to_frames(some_events(40, (128, 128), seed=18), 2, size=(16, 16))
    ).all()
    digests = {source.split}
    for split, parts in (("stratified", (162, 18, 20)), ("train-val-test", (160, 20, 20)), ("fold-2-of-4", (135, 15, 50))):
        found = cifar10dvs(validation=0.1, split=split, **kwargs)
        assert (len(found.train), len(found.validation), len(found.test)) == parts
        disjoint(found, 200)
        digests.add(found.split)
    assert len(digests) == 4
    assert cifar10dvs(validation=0.0, **kwargs).split == source.split
    with pytest.raises(ValueError, match=r"unknown split 'nine'; known: first-90"):
        cifar10dvs(validation=0.0, split="nine", **kwargs)
    with pytest.raises(ValueError, match=r"train-val-test holds out a tenth .* must be 0.1, got 0.2"):
        cifar10dvs(validation=0.2, split="train-val-test", **kwargs)
    (tmp_path / "CIFAR10DVS" / "cat" / "cifar10_cat_0.aedat4").write_bytes(b"")
    with pytest.raises(ValueError, match="the same recordings twice"):
        cifar10dvs(validation=0.0, **kwargs)


def gesture_set(root):
    """In tonic's layout."""
    for part, users in (("Train", (1, 2, 3, 4)), ("Test", (24,))):
        for user in users:
            folder = root / "DVSGesture" / f"ibmGesture{part}" / f"user{user:02d}_led"
            folder.mkdir(parents=True)
            for c in range(11):
                t, x, y, p, _ = some_events(50, (128, 128), seed=20 * user + c)
                np.save(folder / f"{c}.npy", np.stack([x, y, p, t // 1000], 1).astype(np.int64))


def test_dvsgesture_in_tonics_layout(tmp_path):
    gesture_set(tmp_path)
    source = dvsgesture(root=tmp_path, validation=0.25, steps=3, size=32)
    assert (len(source.train), len(source.validation), len(source.test), source.classes) == (33, 11, 11, 11)
    disjoint(source, 55)
    assert source.validation.y.tolist() == list(range(11))  # one user, whole
    assert source.names[0] == "hand_clapping"


def test_dvsgesture_in_the_authors_files(tmp_path):
    folder = tmp_path / "DvsGesture"
    folder.mkdir()
    for user, listing in (("user01_led", "train"), ("user24_led", "test")):
        events = some_events(900, (128, 128), seed=ord(user[4]) + ord(user[5]), span=1_100_000)
        write_aedat3(folder / f"{user}.aedat", events)
        table = [f"{c + 1},{c * 100_000},{(c + 1) * 100_000}" for c in range(11)]
        (folder / f"{user}_labels.csv").write_text(GESTURE_CSV + "\n".join(table) + "\n")
        (folder / f"trials_to_{listing}.txt").write_text(f"{user}.aedat\n")
    source = dvsgesture(root=tmp_path, validation=0.0, steps=2)
    assert (len(source.train), len(source.test), source.size) == (11, 11, 128)
    assert source.test.y.tolist() == list(range(11))
    inside = (events.t >= 300_000) & (events.t < 400_000)
    fourth = source.prepare(source.test.take(torch.tensor([3])))
    assert fourth.sum() == inside.sum()
    assert fourth[:, 0, 1].sum() == events.p[inside].sum()
    (folder / "user24_led_labels.csv").write_text(GESTURE_CSV + "12,0,100\n")
    with pytest.raises(ValueError, match=r"user24_led_labels.csv has a row .*class \(1 to 11\)"):
        dvsgesture(root=tmp_path, validation=0.0, steps=2)
    (folder / "user24_led_labels.csv").write_text(GESTURE_CSV + "1,90000000,90000100\n")
    with pytest.raises(ValueError, match=r"user24_led.aedat#90000000-90000100.*no events from"):
        dvsgesture(root=tmp_path, validation=0.0, steps=2)
    for text, message in (
        ("1,0,100000\n2,0,100000\n", "has the interval 0 to 100000 twice"),
        ("1,0,100000,9\n", "has a row"),
        ("", "has no rows"),
    ):
        (folder / "user24_led_labels.csv").write_text(GESTURE_CSV + text)
        with pytest.raises(ValueError, match=f"user24_led_labels.csv {message}"):
            dvsgesture(root=tmp_path, validation=0.0, steps=2)
    (folder / "trials_to_test.txt").write_text("user01_led.aedat\n")
    with pytest.raises(ValueError, match="both to train and to test"):
        dvsgesture(root=tmp_path, validation=0.0, steps=2)
    (folder / "trials_to_test.txt").unlink()
    with pytest.raises(FileNotFoundError, match="lists the files of this part"):
        dvsgesture(root=tmp_path, validation=0.0, steps=2)
    (folder / "trials_to_test.txt").write_text("user24_led.aedat\n")
    (folder / "user24_led_labels.csv").unlink()
    with pytest.raises(FileNotFoundError, match="is missing: it says what"):
        dvsgesture(root=tmp_path, validation=0.0, steps=2)


def class_folder(root, per_class=10):
    for k, c in enumerate(("left", "right")):
        for i in range(per_class):
            write_nmnist(root / c / f"{i}.bin", some_events(seed=100 * k + i))


def test_a_folder_of_ones_own(tmp_path):
    class_folder(tmp_path)
    folder = partial(event_folder, root=tmp_path, steps=4, sensor="34x34")
    source = folder(validation=0.2)
    assert (len(source.train), len(source.validation), len(source.test), source.names) == (14, 4, 2, ("left", "right"))
    disjoint(source, 20)
    disjoint(folder(validation=0.2, split="fold-1-of-5"), 20)
    (tmp_path / "left" / "0.bin").write_bytes(b"\1\2\3")
    with pytest.raises(ValueError, match=r"1 of the recordings .* can't be read: .*left/0.bin .*corrupt=skip"):
        folder(validation=0.2)
    skipped = folder(validation=0.2, corrupt="skip")
    assert "left/0.bin" in skipped.notes[0]
    assert len(skipped.train) + len(skipped.validation) + len(skipped.test) == 19
    with pytest.raises(ValueError, match="left/0.bin"):
        folder(validation=0.2, corrupt="unchecked")
    write_nmnist(tmp_path / "left" / "0.bin", some_events())
    for sensor, message in (
        ("34", "HEIGHTxWIDTH"),
        ("0x34", "HEIGHTxWIDTH"),
        ("20x20", "outside the sensor"),
        (None, "give height and width"),
    ):
        with pytest.raises(ValueError, match=message):
            folder(validation=0.2, sensor=sensor)
    for options in ({"frames": "window"}, {"window": 30.0}):
        with pytest.raises(ValueError, match="`data.window` is needed with"):
            folder(validation=0.2, **options)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="class empty has no recordings"):
        folder(validation=0.2, corrupt="unchecked")


def test_texts_beside_recordings_are_recordings_if_they_list_events(tmp_path):
    class_folder(tmp_path)
    (tmp_path / "left" / "README.txt").write_text("Recorded on a Monday.\nThe camera hung upside down.\n")
    (tmp_path / "left" / "labels.csv").write_text("file,class\n0.bin,3\n")
    (tmp_path / "left" / "s.txt").write_text("t_s,x,y,p\n" + "".join(f"{k},3,4,1\n" for k in range(9)))
    (tmp_path / "right" / "us.csv").write_text("".join(f"{1600000000000000 + k} 3 4 1\n" for k in range(9)))
    source = event_folder(root=tmp_path, steps=4, sensor="34x34", validation=0.0)
    assert len(source.train) + len(source.test) == 22
    left, right = (str(tmp_path / "left" / name) for name in ("README.txt", "labels.csv"))
    assert source.notes[0] == f"files that are no recordings are left out: {left}, {right}"
    for file in (tmp_path / "left").glob("*.bin"):
        file.unlink()
    with pytest.raises(ValueError, match=r"2 of the recordings .* can't be read: .*README.txt"):  # texts alone
        event_folder(root=tmp_path, steps=4, sensor="34x34", validation=0.0)


def test_large_sets_are_read_as_they_are_needed(tmp_path, monkeypatch):
    class_folder(tmp_path)
    whole = event_folder(root=tmp_path, steps=4, sensor="34x34", validation=0.2)
    monkeypatch.setattr(folder_module, "IN_MEMORY", 0)
    source = event_folder(root=tmp_path, steps=4, sensor="34x34", validation=0.2)
    assert isinstance(source.train.x, EventFiles)
    assert isinstance(whole.train.x, torch.Tensor)
    chosen = torch.tensor([3, 1])
    assert torch.equal(source.train.take(chosen), whole.train.take(chosen))


@pytest.mark.parametrize("name", [n for n, r in RECIPES.items() if r.data.name in ("nmnist", "cifar10dvs", "dvsgesture")])
def test_recipes_ask_for_what_their_data_have(name, tmp_path, monkeypatch):
    seen = {}
    recipe = RECIPES[name]

    def source(*, root, validation, steps, size=None, frames="number", window=None, values="sum", split=None, corrupt="refuse"):
        seen.update(locals())
        return tiny.events(steps=2, validation=0.0)

    monkeypatch.setitem(DATASETS, recipe.data.name, source)
    task_of(recipe).source(tmp_path)
    assert seen["steps"] == (recipe.model.steps or recipe.data.steps)
    assert seen["size"] == recipe.data.size


@pytest.fixture
def server(tmp_path):
    """A web server on this machine that serves tmp_path, and goes on in the middle where it is asked to."""

    class Handler(SimpleHTTPRequestHandler):
        def do_GET(self):
            name, _, anew = self.path[1:].partition("?")
            data = (tmp_path / name).read_bytes()
            start = 0 if anew else int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").rstrip("-"))
            asked.append(start)
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(data) - start))
            self.end_headers()
            self.wfile.write(data[start : len(data) // 2 if len(asked) == 1 else None])

        def log_message(self, *_):
            pass

    asked = []
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        Thread(target=httpd.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{httpd.server_port}", asked
        httpd.shutdown()


def test_a_broken_download_goes_on_where_it_was(tmp_path, server):
    import hashlib

    url, asked = server
    with ZipFile(tmp_path / "set.zip", "w") as z:
        z.writestr("Train/0/a.bin", bytes(100_000))
    data = (tmp_path / "set.zip").read_bytes()
    archive = Archive("set.zip", hashlib.md5(data).hexdigest(), (f"{url}/set.zip",), "https://example.org")
    told = []
    with pytest.raises(ValueError, match=r"connection broke after \d+ of \d+ bytes.*By hand: get it from https://example.org"):
        fetch(archive, tmp_path / "data", lambda *what: told.append(what))
    assert (tmp_path / "data" / "set.zip.part").stat().st_size == len(data) // 2
    assert fetch(archive, tmp_path / "data").read_bytes() == data
    assert asked == [0, len(data) // 2]
    assert told[-1] == ("set.zip", len(data) // 2, len(data))
    unpack(tmp_path / "data" / "set.zip", tmp_path / "data")
    assert (tmp_path / "data" / "Train" / "0" / "a.bin").stat().st_size == 100_000
    fetch(archive, tmp_path / "data")
    assert len(asked) == 2  # it is there
    (tmp_path / "data" / "set.zip").write_bytes(b"no archive")
    with pytest.raises(ValueError, match="is not the published archive"):
        fetch(archive, tmp_path / "data")
    with pytest.raises(ValueError, match="can't be unpacked"):
        unpack(tmp_path / "data" / "set.zip", tmp_path / "data")


def test_what_has_arrived_outlives_a_host_that_sends_something_else(tmp_path, server):
    url, asked = server
    (tmp_path / "set.zip").write_bytes(b"please log in" * 1000)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "set.zip.part").write_bytes(b"half of it")
    asked += [0, 0]  # the server then sends all of a file

    archive = Archive("set.zip", "0" * 32, (f"{url}/set.zip?anew",), "https://example.org")
    with pytest.raises(ValueError, match="what it sends is not the published archive"):
        fetch(archive, tmp_path / "data")
    assert (tmp_path / "data" / "set.zip.part").read_bytes() == b"half of it"
    assert [p.name for p in (tmp_path / "data").iterdir()] == ["set.zip.part"]


def test_one_call_from_a_recording_to_frames(tmp_path):
    write_nmnist(tmp_path / "0.bin", some_events())
    frames = to_frames(read_events(tmp_path / "0.bin", sensor=(34, 34)), 10)
    assert frames.shape == (10, 2, 34, 34)
    assert frames.dtype == np.float32
    assert frames.sum() == 200
