"""Time series: files in their real formats, graphs, times, gaps, the protocol's windows and splits."""

import gzip
import hashlib
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from hdf_files import write_hdf

from staa.cli import main
from staa.data import SERIES, TimeSeries, diffusion_ring, forecast_source, read_graph, read_series
from staa.data.series.named import FILES
from staa.data.series.prepare import calendar_features, fill_gaps, fit_normaliser
from staa.data.series.windows import WindowBatches


def hours(rows, start="2024-01-01", step="h"):
    return np.asarray(pd.date_range(start, periods=rows, freq=step), "datetime64[ns]")


def series(rows=100, nodes=3, **changes):
    values = np.random.default_rng(0).normal(50, 10, (rows, nodes))
    given = dict(values=values, times=hours(rows), names=tuple("abcdefgh"[:nodes])) | changes
    return TimeSeries(**given)


# The protocol


@pytest.mark.parametrize(
    ("rows", "window", "horizon", "train", "validation"),
    [(34_272, 12, 24, 0.7, 0.1), (26_304, 168, 96, 0.6, 0.2), (101, 12, 3, 0.7, 0.1), (61, 5, 2, 0.6, 0.0)],
)
def test_windows_and_borders_are_the_protocol_s(rows, window, horizon, train, validation):
    """Against the protocol written out: every window as a slice, the first and the last int(share) of them."""
    values = np.arange(rows, dtype=float)[:, None] % 1000
    source = forecast_source(
        TimeSeries(values, None, ("x",)), window=window, horizon=horizon, train=train, validation=validation, normalise="none"
    )
    starts = [k for k in range(rows) if k + window + horizon <= rows]
    assert len(starts) == rows - window - horizon + 1
    first, last = int(len(starts) * train), int(len(starts) * round(1 - train - validation, 10))
    if not validation:
        last = len(starts) - first
    assert list(source.train) == starts[:first]
    assert list(source.test) == starts[len(starts) - last :]
    between = starts[first : len(starts) - last]
    assert list(source.validation or ()) == between
    batches = WindowBatches(source, "test", 7)
    (x,), y = batches.take(torch.tensor([0, last - 1]))
    for row, k in enumerate((starts[-last], starts[-1])):
        assert torch.equal(x[row, :, 0], source.values[k : k + window, 0])
        assert torch.equal(y[row, :, 0], source.values[k + window : k + window + horizon, 0])
    assert float(y[1, -1]) == values[-1]  # the very last row is told


def test_the_normaliser_is_of_the_training_rows_unless_the_leak_is_asked_for():
    s = series(200)
    s.values[150:] += 1000  # what only the test windows hold
    source = forecast_source(s, window=6, horizon=2, train=0.6, validation=0.2)
    seen = s.values[: len(source.train) + 7]  # the rows that training windows see or are told
    assert source.normaliser.offset == pytest.approx(np.full(3, seen.mean()))
    assert source.normaliser.scale == pytest.approx(np.full(3, seen.std()))
    back = source.values.double() * source.normaliser.scale + source.normaliser.offset
    assert np.allclose(back, s.values, atol=1e-3)
    assert not source.notes
    leak = forecast_source(s, window=6, horizon=2, train=0.6, validation=0.2, fit_on="all")
    assert leak.normaliser.offset == pytest.approx(np.full(3, s.values.mean()))
    assert "a leak" in leak.notes[0]
    assert leak.split == source.split
    assert forecast_source(s, window=7, horizon=2).split != source.split


def test_normalisers_are_numpy_s():
    values = np.random.default_rng(1).normal(3, [1, 2, 30], (50, 3))
    values[4, 1] = np.nan
    for how, offset, scale in (
        ("none", np.zeros(3), np.ones(3)),
        ("max", np.zeros(3), np.full(3, np.nanmax(np.abs(values)))),
        ("max-per-variate", np.zeros(3), np.nanmax(np.abs(values), 0)),
        ("zscore", np.full(3, np.nanmean(values)), np.full(3, np.nanstd(values))),
        ("zscore-per-variate", np.nanmean(values, 0), np.nanstd(values, 0)),
    ):
        fitted = fit_normaliser(torch.from_numpy(values), how)
        assert np.allclose(fitted.offset, offset), how
        assert np.allclose(fitted.scale, scale), how
    with pytest.raises(ValueError, match="normalise must be none, max"):
        fit_normaliser(torch.from_numpy(values), "minmax")


def test_time_features():
    """Each from −½ to ½: midnight on Monday, 1 January, and the last hour of Sunday, 31 December of a leap year."""
    f = calendar_features(np.array(["2024-01-01T00:00", "2028-12-31T23:00"], "datetime64[ns]"), minutes=False)
    assert torch.equal(f, torch.tensor([[-0.5] * 4, [0.5] * 4]))
    f = calendar_features(hours(300, step="5min"), minutes=True)
    assert f.shape == (300, 5)
    assert f[:, 0].unique().tolist() == pytest.approx([m / 59 - 0.5 for m in range(0, 60, 5)])
    assert f.abs().max() <= 0.5


def test_batches_can_be_entered_anywhere_and_hold_every_window_once():
    source = forecast_source(series(120), window=5, horizon=3)
    training = WindowBatches(source, "train", 16, seed=3)
    assert len(training) == len(source.train) // 16
    whole = list(training.epoch(2))
    for k, ((x, time), y) in enumerate(training.epoch(2, start=2), 2):
        assert torch.equal(x, whole[k][0][0])
        assert torch.equal(time, whole[k][0][1])
        assert torch.equal(y, whole[k][1])
    assert not torch.equal(whole[0][1], next(training.epoch(3))[1])
    assert not torch.equal(whole[0][1], next(WindowBatches(source, "train", 16, seed=4).epoch(2))[1])
    ordered = WindowBatches(source, "test", 10)
    x = torch.cat([x for (x, _), _ in ordered.epoch()])
    assert torch.equal(x, torch.stack([source.values[k : k + 5] for k in source.test]))
    assert len(ordered) == -(-len(source.test) // 10)
    assert WindowBatches(source, "test", 10_000).batch_size == len(source.test)


def test_a_diffusion_on_a_ring_is_hard_for_the_last_value_and_easy_for_least_squares():
    ring = diffusion_ring()
    a, b = 0.5, 0.15
    t = np.arange(len(ring.values) - 1)
    x = ring.values
    laplacian = (np.roll(x, 1, 1) + np.roll(x, -1, 1)) / 2 - x
    drive = b * np.sin(2 * np.pi * (t[:, None] / 36 + np.arange(6) / 6))
    noise = x[1:] - (x[:-1] + a * laplacian[:-1] + drive)
    assert noise.std() == pytest.approx(0.03, rel=0.02)  # what the equation leaves
    assert abs(np.corrcoef(noise.T) - np.eye(6)).max() < 0.06
    source = forecast_source(ring, window=12, horizon=6)
    part = {name: next(WindowBatches(source, name, 10_000).epoch()) for name in ("train", "test")}
    y = part["test"][1]
    total = (y - y.mean()).square().sum()
    last = part["test"][0][0][:, -1:]
    assert 0.5 < 1 - (y - last).square().sum() / total < 0.7
    inputs = {name: torch.cat([x[0].flatten(1), torch.ones(len(x[0]), 1)], 1) for name, (x, _) in part.items()}
    fitted = torch.linalg.lstsq(inputs["train"], part["train"][1].flatten(1)).solution
    assert 1 - ((inputs["test"] @ fitted).view(y.shape) - y).square().sum() / total > 0.95


# Files


def test_a_csv_with_times_and_gaps(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("date,north,south\n2024-01-01 00:00,1,2.5\n2024-01-01 01:00,,3\n2024-01-01 02:00,4,nan\n")
    s = read_series(path)
    assert s.names == ("north", "south")
    assert np.array_equal(s.values, [[1, 2.5], [np.nan, 3], [4, np.nan]], equal_nan=True)
    assert s.times is not None
    assert s.times[2] == np.datetime64("2024-01-01T02:00")
    (tmp_path / "b.csv").write_text("north,when\n1,2024-01-01\n2,2024-01-02\n")
    s = read_series(tmp_path / "b.csv", time="when")
    assert s.names == ("north",)
    assert s.times is not None
    with gzip.open(tmp_path / "c.txt.gz", "wt") as file:  # as Solar and Electricity come: no header, no times
        file.write("1.5,2\n3,4\n5,6\n")
    s = read_series(tmp_path / "c.txt.gz")
    assert s.values.tolist() == [[1.5, 2], [3, 4], [5, 6]]
    assert s.times is None
    assert s.names == ("0", "1")


def test_a_gap_in_the_first_row_is_no_header(tmp_path):
    path = tmp_path / "a.csv"
    for text in ("1,,3\n4,5,6\n", "1,nan,3\n4,5,6\n", "2024-01-01,1,,3\n2024-01-02,4,5,6\n"):
        path.write_text(text)
        assert np.array_equal(read_series(path).values, [[1, np.nan, 3], [4, 5, 6]], equal_nan=True), text


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("columns", [1, 3])
@pytest.mark.parametrize("header", [True, False])
def test_a_blank_line_is_a_step_without_a_measurement(tmp_path, header, columns, end):
    rows = [",".join([str(row + 1.5)] * columns) for row in range(100)]
    for gap, line in zip((0, 17, 18, 60), ("", "", "  ", ""), strict=True):
        rows[gap] = line
    top = ["", ",".join("abc"[:columns])] if header else []
    path = tmp_path / "a.csv"
    path.write_bytes(end.join([*top, *rows, "", " ", ""]).encode())
    values = read_series(path).values
    assert values.shape == (100, columns)
    assert [*np.flatnonzero(np.isnan(values).all(1))] == [0, 17, 18, 60]
    assert (values[99] == 100.5).all()


def test_a_blank_line_between_times_or_edges_says_nothing(tmp_path):
    (tmp_path / "a.csv").write_text("\nt,x\n\n2024-01-01,1\n\n2024-01-02,2\n\n")
    series = read_series(tmp_path / "a.csv")
    assert series.values.tolist() == [[1], [2]]
    assert series.times is not None
    assert len(series.times) == 2
    (tmp_path / "edges.csv").write_text("from,to\n\na,b\n\n")
    assert read_graph(tmp_path / "edges.csv", ("a", "b", "c")).sum() == 1


def test_sensor_numbers_over_dates_are_a_header(tmp_path):
    """As METR-LA comes as .csv: an empty cell, then the sensors."""
    path = tmp_path / "a.csv"
    path.write_text(",773869,767541\n2012-03-01 00:00:00,64.3,67.6\n2012-03-01 00:05:00,62,68\n")
    s = read_series(path)
    assert s.names == ("773869", "767541")
    assert s.values.tolist() == [[64.3, 67.6], [62, 68]]


@pytest.mark.parametrize("header", ["t,x\n", ""])
@pytest.mark.parametrize("form", ["%d/%m/%Y", "%m/%d/%Y", "%d.%m.%Y %H:%M", "%d %b %Y", "%m/%d/%y %I:%M %p", "%Y%m%d"])
def test_times_that_are_not_iso_need_their_format(tmp_path, form, header):
    """The error proposes those that read the whole column; with one, no row is lost to a header."""
    path, days = tmp_path / "a.csv", pd.date_range("2024-02-01", periods=20)
    path.write_text(header + "".join(f"{d.strftime(form)},{k}\n" for k, d in enumerate(days)))
    series = read_series(path, time_format=form)
    assert np.array_equal(series.times, days.to_numpy())
    assert series.values[:, 0].tolist() == list(range(20))
    if form != "%Y%m%d":  # these are numbers: a variate, unless a format is said
        with pytest.raises(
            ValueError, match=rf"row 0: '{days[0].strftime(form)}' is no time of ISO 8601.*`time_format`"
        ) as told:
            read_series(path)
        assert str(told.value).endswith(f'here "{form}"')


def test_days_and_months_are_not_confused(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("t,x\n01/02/2024,1\n02/02/2024,2\n")
    with pytest.raises(ValueError, match='here "%d/%m/%Y" or "%m/%d/%Y"'):
        read_series(path)


@pytest.mark.parametrize(
    "form",
    ["%Y-%m-%d", "%Y-%m-%d %H:%M", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%MZ", "%Y-%m-%d %H:%M:%S.5", "%Y-%m-%dT%H:%M+02:00"],
)
def test_iso_times_are_read_as_they_are(tmp_path, form):
    path, days = tmp_path / "a.csv", pd.date_range("2024-02-01", periods=20)
    path.write_text("t,x\n" + "".join(f"{d.strftime(form)},{k}\n" for k, d in enumerate(days)))
    times = read_series(path).times
    assert times is not None
    assert np.array_equal(times.astype("datetime64[s]"), days.to_numpy().astype("datetime64[s]"))


@pytest.mark.parametrize(
    ("file", "form", "message"),
    [
        ("a.csv", "%d.%m.%Y", r"row 0: '01/02/2024' is no time of the format '%d.%m.%Y' \(`time_format`\)"),
        ("a.csv", "%Q", "`time_format` is a format such as %d/%m/%Y %H:%M, or unix-s, .*, got '%Q'"),
        ("a.csv", "mixed", "`time_format` is a format such as %d/%m/%Y %H:%M, or unix-s, .*, got 'mixed'"),
        ("a.npz", "%d/%m/%Y", r"`time_format=%d/%m/%Y` is not supported by .*whose times are in its array 'time'"),
        ("a.h5", "%d/%m/%Y", "holds times, not text: leave out their format"),
    ],
)
def test_a_format_that_does_not_fit(tmp_path, file, form, message):
    (tmp_path / "a.csv").write_text("t,x\n01/02/2024,1\n02/02/2024,2\n")
    np.savez(tmp_path / "a.npz", values=np.ones((2, 2)))
    write_hdf(tmp_path / "a.h5", np.ones((2, 2)), times=hours(2), names=["a", "b"], packed=False)
    with pytest.raises(ValueError, match=message):
        read_series(tmp_path / file, time_format=form)


def test_npz_and_hdf(tmp_path):
    values = np.arange(12).reshape(6, 2)
    times = hours(6)
    np.savez(tmp_path / "a.npz", values=values, time=times.astype(np.int64), names=["x", "y"], graph=np.eye(2))
    s = read_series(tmp_path / "a.npz")
    assert s.names == ("x", "y")
    assert np.array_equal(s.times, times)
    assert np.array_equal(s.graph, np.eye(2))
    for names, packed in (([773869, 767541], False), (["773869", "767541"], True)):
        write_hdf(tmp_path / "a.h5", values, times=times, names=names, packed=packed)
        s = read_series(tmp_path / "a.h5")
        assert s.names == ("773869", "767541")
        assert np.array_equal(s.times, times)
        assert np.array_equal(s.values, values)


def publish(monkeypatch, name, path):
    """This file in the place of the published one."""
    kind = {32: "md5", 64: "sha256"}[len(FILES[name].checksum)]
    checksum = hashlib.new(kind, path.read_bytes()).hexdigest()
    monkeypatch.setitem(FILES, name, replace(FILES[name], checksum=checksum))


def test_published_sets_in_their_formats(tmp_path, monkeypatch):
    values = np.random.default_rng(0).uniform(0, 70, (50, 4)).round(3)
    for name, file in (("metr-la", "metr-la.h5"), ("pems-bay", "pems-bay.h5")):
        write_hdf(
            tmp_path / file, values, times=hours(50, "2012-03-01", "5min"), names=["773869", "767541", "767542", "717447"],
            key="df" if name == "metr-la" else "speed",
        )  # fmt: skip
        with pytest.raises(ValueError, match=rf"{file} is not the published file \(sha256 {FILES[name].checksum}\)"):
            SERIES[name](root=tmp_path)
        publish(monkeypatch, name, tmp_path / file)
        s = SERIES[name](root=tmp_path)
        assert np.array_equal(s.values, values)
        assert s.missing == 0.0
        assert "has 50 × 4 values, the published set" in s.notes[0]
        edges = tmp_path / "distances.csv"  # DCRNN's
        edges.write_text("from,to,cost\n773869,773869,0\n773869,767541,1000.0\n767541,767542,3000.0\n1,767541,9\n")
        graph = SERIES[name](root=tmp_path, graph=str(edges), distances=True).graph
        sigma = np.std([0, 1000, 3000])
        assert graph[0, 1] == pytest.approx(np.exp(-((1000 / sigma) ** 2)))
        assert graph[1, 2] == 0  # below 0.1
        assert graph[0, 0] == 1
        assert graph[3, 3] == 0
    for name, file, start, step in (
        ("solar", "solar_AL.txt", "2006-01-01", "10min"),
        ("electricity", "electricity.txt.gz", "2012-01-01", "1h"),
    ):
        text = "\n".join(",".join(f"{v:.3f}" for v in row) for row in values).encode()
        (tmp_path / file).write_bytes(gzip.compress(text) if file.endswith("gz") else text)
        if file.endswith("gz"):
            with pytest.raises(ValueError, match=rf"{file} is not the published file \(md5 {FILES[name].checksum}\)"):
                SERIES[name](root=tmp_path)
            publish(monkeypatch, name, tmp_path / file)
        s = SERIES[name](root=tmp_path)
        assert np.array_equal(s.values, values)
        assert np.array_equal(s.times, hours(50, start, step))
        source = forecast_source(s, window=6, horizon=2)
        assert source.time.shape == (50, 5 if name == "solar" else 4)
    with pytest.raises(FileNotFoundError, match="metr-la.h5 is missing: download it into .* with `staa data metr-la`"):
        SERIES["metr-la"](root=tmp_path / "nowhere")


def test_graphs(tmp_path):
    names = ("a", "b", "c", "d")
    matrix = np.random.default_rng(0).random((4, 4)).round(3)
    np.save(tmp_path / "m.npy", matrix)
    np.savez(tmp_path / "m.npz", adj=matrix, latlon=np.ones((4, 2)))
    np.savetxt(tmp_path / "m.csv", matrix, delimiter=",")
    for file in ("m.npy", "m.npz", "m.csv"):
        assert np.allclose(read_graph(tmp_path / file, names), matrix), file
    (tmp_path / "named.csv").write_text("from,to,weight\na,b,0.5\nd,a,2\n")
    (tmp_path / "numbered.csv").write_text("0,1,0.5\n3,0,2\n")
    (tmp_path / "plain.csv").write_text("source,target\na,b\n")
    expected = np.zeros((4, 4))
    expected[0, 1], expected[3, 0] = 0.5, 2
    for file in ("named.csv", "numbered.csv"):
        assert np.array_equal(read_graph(tmp_path / file, names), expected), file
    assert read_graph(tmp_path / "plain.csv", names)[0, 1] == 1


# What is wrong is said


@pytest.mark.parametrize(
    ("times", "message"),
    [
        (["2024-01-02", "2024-01-01", "2024-01-03"], r"row 1: its time 2024-01-01T00:00:00 is before the one above it"),
        (["2024-01-01", "2024-01-01", "2024-01-03"], r"row 1: its time 2024-01-01T00:00:00 is there twice"),
        (["2024-01-01", "2024-01-02"], "times must be one for each of 3 rows, got 2"),
        (["2024-01-01", "NaT", "2024-01-03"], "row 1 has no time"),
    ],
)
def test_times_out_of_order(times, message):
    with pytest.raises(ValueError, match=message):
        series(3, times=np.array(times, "datetime64[ns]"))


def test_missing_rows_are_noted(tmp_path):
    path = tmp_path / "a.csv"
    lines = [f"{str(t)[:19]},{k}" for k, t in enumerate(hours(30)) if k not in (7, 8, 20)]
    path.write_text("time,x\n" + "\n".join(lines))
    (note,) = read_series(path).notes
    assert note.startswith(
        "the step between rows is 01:00:00, but another one 2 times, first 03:00:00 after 2024-01-01T06:00:00"
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(window=60, horizon=50), "has 100 rows; a window of 60 and a horizon of 50 need 110"),
        (dict(window=90, horizon=10), "validation gets none of the series' 1 windows|train gets none"),
        (dict(horizon=0), "horizon must be at least 1, got 0"),
        (dict(train=0.9, validation=0.1), "must leave a share of the windows to test"),
    ],
)
def test_a_series_too_short(changes, message):
    with pytest.raises(ValueError, match=message):
        forecast_source(series(), **(dict(window=12, horizon=4) | changes))


def test_constant_variates():
    s = series()
    s.values[:, 1] = 7.0
    (note,) = forecast_source(s, window=6, horizon=2).notes  # one scale for all: nothing to divide by 0
    assert note == "1 of 3 variates are constant, or all gaps, over the normaliser's rows: b"
    for how in ("zscore-per-variate", "max-per-variate"):
        s.values[:, 1] = 7.0 if how.startswith("z") else 0.0
        with pytest.raises(ValueError, match="^b is constant.*`series.normalise=zscore`"):
            forecast_source(s, window=6, horizon=2, normalise=how)
    with pytest.raises(ValueError, match="the series is constant.*nothing to forecast"):
        forecast_source(series(values=np.full((100, 3), 2.0)), window=6, horizon=2)


def test_variates_of_unlike_size_are_noted():
    s = series()
    s.values[:, 1] *= 1e6
    (note,) = forecast_source(s, window=6, horizon=2).notes
    assert "share one scale" in note
    assert "`series.normalise=zscore-per-variate`" in note
    assert forecast_source(s, window=6, horizon=2, normalise="zscore-per-variate").notes == ()


def test_a_part_that_is_all_gaps():
    s = series()
    s.values[-19:] = np.nan
    with pytest.raises(ValueError, match="the rows that test is measured on are gaps throughout"):
        forecast_source(s, window=6, horizon=2, gaps="mask")


def test_gaps_are_refused_masked_or_filled():
    s = series()
    truth = s.values.copy()
    s.values[0:2, 0] = s.values[10:13, 1] = s.values[98:, 2] = np.nan
    with pytest.raises(
        ValueError, match=r"has 7 gaps, the first in variate a, row 0 \(2024-01-01T00:00:00\).*mask.*interpolate"
    ):
        forecast_source(s, window=6, horizon=2)
    masked = forecast_source(s, window=6, horizon=2, gaps="mask")
    back = (masked.values.double() * masked.normaliser.scale + masked.normaliser.offset).numpy()
    assert np.allclose(back[10:13, 1], truth[9, 1], atol=1e-4)  # the last known one goes on
    assert np.allclose(back[:2, 0], masked.normaliser.offset[0])  # before the first, the mean: the first is not known yet
    assert np.array_equal(masked.targets.isnan().numpy(), np.isnan(s.values))
    filled = forecast_source(s, window=6, horizon=2, gaps="interpolate")
    assert torch.equal(filled.targets.isnan(), masked.targets.isnan())  # what is filled in is no truth
    for source, how in ((masked, "mask"), (filled, "interpolate")):
        batches = WindowBatches(source, "train", 1)
        for first in range(len(s.values) - 7):
            (x, _), _ = batches.at(torch.tensor([first]))
            start = source.normaliser.offset.numpy()
            expected, _ = fill_gaps(s.values[: first + 6], how, start=start)
            back = x[0].double() * source.normaliser.scale + source.normaliser.offset
            assert np.allclose(back.numpy(), expected[-6:], atol=1e-4), (how, first)
    line = np.interp([10, 11, 12], [9, 13], truth[[9, 13], 1])
    assert np.allclose(fill_gaps(s.values, "interpolate")[0][10:13, 1], line)
    s.values[:, 0] = np.nan
    with pytest.raises(ValueError, match="variate a has no value at all"):
        fill_gaps(s.values, "mask", names=s.names)


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("a.csv", "t,x\n2024-01-01,1\n2024-01-02,high\n", r"row 1, column x: 'high' is no number"),
        ("a.csv", " \n", "a.csv is empty: expected rows"),
        ("a.csv", "x,y\n", "holds no rows"),
        ("a.csv", "t,x\n2024-01-01,1\n2024-01-02,inf\n", "variate x is infinite in row 1"),
        ("a.csv", "x,x\n1,2\n", "two columns called 'x'"),
        ("a.csv", "t,x\n2024-03-31T01:00+01:00,1\n2024-03-31T03:00+02:00,2\n", "different offsets from UTC"),
        ("a.csv", "x\n1,5\n2,5\n", "row 1 has 2 columns, those above it 1; a number's fraction follows a point"),
        ("a.csv", "x,y\n1,2\n1,2,3\n", "row 2 has 3 columns, those above it 2"),
        ("a.csv", "t\n2024-01-01\n2024-01-02\n", "no column beside its times 't'"),
        ("a.npz", "no zip", "can't be read"),
        ("a.h5", "no hdf", "can't be read as one pandas table"),
        ("a.ods.txt2", "", "its name must end in .csv"),
    ],
)
def test_files_that_are_none(file, text, message, tmp_path):
    (tmp_path / file).write_text(text)
    with pytest.raises(ValueError, match=message):
        read_series(tmp_path / file)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (dict(x=np.ones((5, 2))), "a.npz must have an array 'values'"),
        (dict(values=np.ones(5)), r"a.npz's values must be \[rows, variates\], got \[5\]"),
        (dict(values=np.array([["a", "b"]])), "a.npz's values must be numbers"),
        (dict(values=np.array([[1, None]])), "a.npz, array 'values' holds Python objects"),
        (dict(values=np.ones((0, 10**12))), "a.npz's values must be"),
        (dict(values=np.ones((2, 2)), time=np.array(["3024-01-01", "3024-01-02"])), "3024-01-01 is not between 1680 and 2260"),
        (dict(values=np.ones((2, 2)), time=np.arange(2.0)), "a.npz's time must be datetime64"),
        (dict(values=np.ones((2, 2)), time=hours(2)[:, None]), "times must be datetime64, one for each row"),
        (dict(values=np.ones((2, 2)), graph=np.array([["a", "b"], ["c", "d"]])), "a.npz's graph must be numbers"),
        (dict(values=np.ones((2, 2)), graph=np.ones((3, 3))), "the graph is 3 × 3, the series has 2"),
    ],
)
def test_npz_files_that_are_none(arrays, message, tmp_path):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(ValueError, match=message):
        read_series(tmp_path / "a.npz")


def test_small_matrices_and_distances_that_say_nothing(tmp_path):
    path, three = tmp_path / "g.csv", tuple("abc")
    path.write_text("0,.5,.1\n.5,0,.2\n.1,.2,0\n")
    assert np.allclose(read_graph(path, three), [[0, 0.5, 0.1], [0.5, 0, 0.2], [0.1, 0.2, 0]])
    path.write_text("0,1,5\n1,2,6\n2,0,7\n")  # three edges
    assert np.array_equal(read_graph(path, three), [[0, 5, 0], [0, 0, 6], [7, 0, 0]])
    path.write_text("a,b,1000\n")
    with pytest.raises(ValueError, match="more than one distance"):
        read_graph(path, three, distances=True)
    path.write_text("from,to,cost\n773869,767541,3.0\n")
    with pytest.raises(ValueError, match="no edge between two of the series' variates"):
        read_graph(path, three, distances=True, others="skip")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "1,2,3\n4,5,6\n7,8,9\n",
            "must be between two of the series' 4 variates \\(a, b, c …, or their numbers from 0 to 3\\), and '4' is none",
        ),
        ("1,2,3,4\n5,6,7,8\n", "must hold 4 × 4 numbers, or edges .*, for a graph of 4 nodes"),
        (
            "a,b,1\na,z,1\n",
            r"row 1: the edge 'a', 'z' must be between two of the series' 4 variates \(a, b, c …\), and 'z' is none",
        ),
        ("a,b,1\na,c,x\n", "row 1: the edge 'a', 'c' has no weight, but 'x'"),
        ('a,b,1\na,"z\nz",1\n', r"row 1: the edge 'a', 'z\\nz' must"),
        ("a,b,-1\n", "finite and not negative"),
    ],
)
def test_graphs_that_do_not_fit(text, message, tmp_path):
    (tmp_path / "g.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_graph(tmp_path / "g.csv", tuple("abcd"))
    np.save(tmp_path / "g.npy", np.ones((5, 5)))
    with pytest.raises(ValueError, match="the graph is 5 × 5, the series has 4 variates: it must be 4 × 4"):
        read_graph(tmp_path / "g.npy", tuple("abcd"))
    with pytest.raises(ValueError, match="`series.distances` needs a graph"):
        (tmp_path / "s.csv").write_text("1,2\n3,4\n")
        read_series(tmp_path / "s.csv", distances=True)


def test_downloads_are_checked_by_md5_or_sha256(tmp_path, monkeypatch, capsys):
    """From files in the place of the web: the right one is kept, another is refused and the way by hand is told."""
    text = b"1,2\n3,4\n"
    served = tmp_path / "served"
    served.write_bytes(text)
    monkeypatch.setattr(
        "staa.data.download._download",
        lambda url, part, anew, tell: (part.write_bytes(served.read_bytes()), part)[1],
    )
    for name, kind in (("metr-la", "sha256"), ("electricity", "md5")):
        assert len(FILES[name].checksum) == {"md5": 32, "sha256": 64}[kind]
        monkeypatch.setitem(FILES, name, replace(FILES[name], checksum=hashlib.new(kind, text).hexdigest()))
        assert main(["data", name, "--data", str(tmp_path / name)]) == 0
        assert (tmp_path / name / FILES[name].name).read_bytes() == text
        served.write_bytes(b"something else")
        assert main(["data", name, "--data", str(tmp_path / "other")]) == 2
        said = capsys.readouterr().err
        assert "is not the published archive" in said
        assert f"{kind} {FILES[name].checksum}" in said
        assert not (tmp_path / "other" / FILES[name].name).exists()
        served.write_bytes(text)
