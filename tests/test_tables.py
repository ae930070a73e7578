"""Tables as users have them: each is read right, or refused in one line that says what to do."""

import io
import json
import re

import numpy as np
import pandas as pd
import pytest
import torch
from hdf_files import write_hdf
from hypothesis import given, settings
from hypothesis import strategies as st
from test_series import publish

from staa.cli import main
from staa.cli.flags import flags_of
from staa.cli.options import DescribeOptions
from staa.data import SERIES, describe, forecast_source, read_graph, read_series
from staa.data.series.calendar import following
from staa.data.series.files import series_for
from staa.inference.forecast import predict
from staa.losses import mean_absolute_error
from staa.training.metrics import forecast_figures, forecast_sums

ROWS = 40
VALUES = np.random.default_rng(0).normal(50, 10, (ROWS, 3)).round(3)
NAMES = ("north", "south", "west")
HOURS = pd.date_range("2024-01-01", periods=ROWS, freq="h")
FRAME = pd.DataFrame(VALUES, columns=list(NAMES))
DATED = FRAME.set_axis(HOURS.rename("time"))
PLAIN = FRAME.set_axis([0, 1, 2], axis=1)
LONG = DATED.reset_index().melt("time", var_name="id").sort_values(["time", "id"])
COUNTS = pd.DataFrame(np.random.default_rng(1).integers(0, 4, (ROWS, 3)))


def numbered(times):
    """The table with a column of times that are numbers."""
    return FRAME.assign(when=np.asarray(times)).set_index("when")


def csv(frame, **options):
    return frame.to_csv(**options).encode()


def parquet(frame):
    pytest.importorskip("pyarrow")
    file = io.BytesIO()
    frame.to_parquet(file)
    return file.getvalue()


def npz(**arrays):
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


SECONDS = HOURS.as_unit("s").asi8
AUTUMN = pd.date_range("2024-10-26", periods=ROWS, freq="h", tz="Europe/Berlin", name="t")
IN_UTC = pd.date_range("2024-10-25 22:00", periods=ROWS, freq="h")
LABELS = "column without a name comes first, as row labels do"
NO_IDS = "it holds text, no numbers: leave it out with `series.drop`, or .* `series.id`"
COUNTED = r"column 0 counts the rows from 0 in steps of 1, so it is left out"

READ = {
    "row labels are texts": ("a.csv", lambda: csv(FRAME.set_axis([f"r{k}" for k in range(ROWS)])), {}, NAMES, None, LABELS),
    "parquet, row labels are texts": (
        "a.parquet",
        lambda: parquet(FRAME.set_axis([f"r{k}" for k in range(ROWS)])),
        {},
        NAMES,
        None,
        LABELS,
    ),
    "an id": ("a.csv", lambda: csv(DATED.assign(sensor_id=773869)), {}, NAMES, HOURS, "sensor_id is called as ids are"),
    "uneven seconds": (
        "a.csv",
        lambda: csv(FRAME.assign(time=np.arange(ROWS) ** 1.1)[["time", *NAMES]], index=False),
        {},
        NAMES,
        None,
        "time is called as times are, and grows",
    ),
    "two columns of times": (
        "a.csv",
        lambda: csv(DATED.reset_index(names="start").assign(end=HOURS)[["start", "end", *NAMES]], index=False),
        {"drop": "start"},
        NAMES,
        HOURS,
        None,
    ),
    "the times among the columns": ("a.csv", lambda: csv(DATED), {"columns": "time,north,south,west"}, NAMES, HOURS, None),
    "pandas, an index without a name": ("a.csv", lambda: csv(FRAME), {}, NAMES, None, LABELS),
    "pandas, names and rows are numbers": ("a.csv", lambda: csv(PLAIN), {}, ("0", "1", "2"), None, LABELS),
    "pandas, names are numbers, without rows": ("a.csv", lambda: csv(PLAIN, index=False), {}, ("0", "1", "2"), None, None),
    "pandas, no header": ("a.csv", lambda: csv(FRAME, header=False), {}, ("1", "2", "3"), None, COUNTED),
    "pandas, saved twice": ("a.csv", lambda: csv(pd.read_csv(io.BytesIO(csv(FRAME)))), {}, NAMES, None, LABELS),
    "pandas, rows left out": ("a.csv", lambda: csv(FRAME.set_axis(np.arange(ROWS) * 7 % 41)), {}, NAMES, None, LABELS),
    "pandas, an index of times": ("a.csv", lambda: csv(DATED.rename_axis(None)), {}, NAMES, HOURS, None),
    "a step counter from 1": (
        "a.csv",
        lambda: csv(FRAME.assign(step=range(1, ROWS + 1))[["step", *NAMES]], index=False),
        {},
        NAMES,
        None,
        "column step counts the rows from 1",
    ),
    "a step counter after the times": (
        "a.csv",
        lambda: csv(DATED.assign(step=range(ROWS))),
        {},
        NAMES,
        HOURS,
        "column step counts",
    ),
    "seconds since the start": (
        "a.csv",
        lambda: csv(FRAME.assign(s=np.arange(ROWS) * 0.1)[["s", *NAMES]], index=False),
        {},
        NAMES,
        None,
        "column s counts the rows from 0 in steps of 0.1",
    ),
    "unix seconds, said": ("a.csv", lambda: csv(numbered(SECONDS)), {"time_format": "unix-s"}, NAMES, HOURS, None),
    "unix milliseconds, said": (
        "a.csv",
        lambda: csv(numbered(SECONDS * 1000)),
        {"time": "when", "time_format": "unix-ms"},
        NAMES,
        HOURS,
        None,
    ),
    "rows and unix seconds, said": (
        "a.csv",
        lambda: csv(numbered(SECONDS).reset_index()),
        {"time_format": "unix-s"},
        NAMES,
        HOURS,
        LABELS,
    ),
    "YYYYMMDD, said": (
        "a.csv",
        lambda: csv(numbered(pd.date_range("2024-01-01", periods=ROWS).strftime("%Y%m%d"))),
        {"time_format": "%Y%m%d"},
        NAMES,
        pd.date_range("2024-01-01", periods=ROWS),
        None,
    ),
    "years, said": (
        "a.csv",
        lambda: csv(numbered(range(1980, 1980 + ROWS))),
        {"time_format": "%Y"},
        NAMES,
        pd.date_range("1980-01-01", periods=ROWS, freq=pd.offsets.YearBegin()),
        None,
    ),
    "unix seconds beside times": (
        "a.csv",
        lambda: csv(DATED.assign(ts=SECONDS)),
        {},
        NAMES,
        HOURS,
        r"column ts .*\(unix-s\), so it",
    ),
    "hour and weekday beside times": (
        "a.csv",
        lambda: csv(DATED.assign(hour=HOURS.hour, weekday=HOURS.day_of_week)),
        {},
        NAMES,
        HOURS,
        "hour is a part of the time",
    ),
    "semicolons": ("a.csv", lambda: csv(DATED, sep=";", float_format="%.2f"), {}, NAMES, HOURS, "with semicolons between"),
    "semicolons, decimal commas": ("a.csv", lambda: csv(DATED, sep=";", decimal=","), {}, NAMES, HOURS, "with a decimal comma"),
    "thousands points": (
        "a.csv",
        lambda: re.sub(r";(\d\d),", r";1.2\1,", csv(DATED, sep=";", decimal=",", float_format="%.3f").decode()).encode(),
        {},
        NAMES,
        HOURS,
        "with a decimal comma",
        VALUES + 1200,
    ),
    "tabs": ("a.tsv", lambda: csv(DATED, sep="\t"), {}, NAMES, HOURS, "with tabs between"),
    "bars": ("a.txt", lambda: csv(DATED, sep="|"), {}, NAMES, HOURS, "with bars between"),
    "spaces, as numpy.savetxt": (
        "a.txt",
        lambda: csv(FRAME, sep=" ", header=False, index=False),
        {},
        ("0", "1", "2"),
        None,
        "spaces",
    ),
    "a byte order mark, CR LF": ("a.csv", lambda: b"\xef\xbb\xbf" + csv(DATED, lineterminator="\r\n"), {}, NAMES, HOURS, None),
    "quoted names with commas": (
        "a.csv",
        lambda: csv(DATED.set_axis(["a,b", "c\nd", 'e"f'], axis=1)),
        {},
        ("a,b", "c\nd", 'e"f'),
        HOURS,
        None,
    ),
    "long format": (
        "a.csv",
        lambda: csv(LONG, index=False),
        {},
        NAMES,
        HOURS,
        "long format: 3 variates by id, of values value",
    ),
    "long format, ids are numbers": (
        "a.csv",
        lambda: csv(LONG.assign(id=LONG["id"].map({n: 7 + k for k, n in enumerate(NAMES)})), index=False),
        {},
        ("7", "8", "9"),
        HOURS,
        "long format: 3 variates by id",
    ),
    "long format, more columns": (
        "a.csv",
        lambda: csv(LONG.assign(lat=1.5, lon=2.5), index=False),
        {"value": "value"},
        NAMES,
        HOURS,
        "lat, lon are left out",
    ),
    "columns": ("a.csv", lambda: csv(DATED), {"columns": "west,north"}, ("north", "west"), HOURS, None, VALUES[:, [0, 2]]),
    "columns that are texts": (
        "a.csv",
        lambda: csv(DATED.assign(remark="fine")),
        {"drop": "remark, south"},
        ("north", "west"),
        HOURS,
        None,
        VALUES[:, [0, 2]],
    ),
    "a counter that is named": (
        "a.csv",
        lambda: csv(COUNTS.assign(n=range(ROWS)).set_axis(list("abcn"), axis=1), index=False),
        {"columns": "b,n"},
        ("b", "n"),
        None,
        None,
        np.stack([COUNTS[1], np.arange(ROWS)], 1),
    ),
    "an empty column at the end": (
        "a.csv",
        lambda: b"\n".join(line + b"," for line in csv(DATED).splitlines()),
        {},
        NAMES,
        HOURS,
        "is empty, so it is left out",
    ),
    "missing": (
        "a.csv",
        lambda: csv(FRAME.mask(FRAME < 40, -9999), index=False),
        {"missing": "-9999,0"},
        NAMES,
        None,
        "are -9999 or 0",
        np.where(VALUES < 40, np.nan, VALUES),
    ),
    "header said": (
        "a.csv",
        lambda: csv(COUNTS.iloc[:, :2], index=False),
        {"header": "yes"},
        ("0", "1"),
        None,
        None,
        COUNTS.to_numpy()[:, :2],
    ),
    "monthly": (
        "a.csv",
        lambda: csv(FRAME.set_axis(pd.date_range("2020-01-31", periods=ROWS, freq=pd.offsets.MonthEnd()).rename("t"))),
        {},
        NAMES,
        pd.date_range("2020-01-31", periods=ROWS, freq=pd.offsets.MonthEnd()),
        None,
    ),
    "one offset": (
        "a.csv",
        lambda: csv(DATED.tz_localize("Etc/GMT-2")),
        {},
        NAMES,
        HOURS,
        r"read as they are written, in UTC\+02:00",
    ),
    "daylight saving, offsets": (
        "a.csv",
        lambda: csv(FRAME.set_axis(AUTUMN)),
        {"zone": "UTC"},
        NAMES,
        IN_UTC,
        "read as UTC",
    ),
    "daylight saving, a clock": (
        "a.csv",
        lambda: csv(FRAME.set_axis(AUTUMN.tz_localize(None))),
        {"zone": "Europe/Berlin"},
        NAMES,
        IN_UTC,
        "read as UTC, from Europe/Berlin",
    ),
    "parquet, an index of times": ("a.parquet", lambda: parquet(DATED), {}, NAMES, HOURS, None),
    "parquet, rows": ("a.parquet", lambda: parquet(FRAME.set_axis(np.arange(ROWS) + 5)), {}, NAMES, None, LABELS),
    "parquet, a column of times": ("a.pq", lambda: parquet(FRAME.assign(t=HOURS)), {}, NAMES, HOURS, None),
    "parquet, times are text": ("a.parquet", lambda: parquet(FRAME.assign(t=HOURS.astype(str))), {}, NAMES, HOURS, None),
    "parquet, unix seconds": (
        "a.parquet",
        lambda: parquet(numbered(SECONDS).reset_index()),
        {"time_format": "unix-s"},
        NAMES,
        HOURS,
        None,
    ),
    "parquet, a zone": (
        "a.parquet",
        lambda: parquet(DATED.tz_localize("UTC").tz_convert("Europe/Berlin")),
        {"zone": "UTC"},
        NAMES,
        HOURS,
        "read as UTC",
    ),
    "parquet, long format": ("a.parquet", lambda: parquet(LONG.reset_index(drop=True)), {}, NAMES, HOURS, "long format"),
    ".npy": ("a.npy", lambda: npy(VALUES), {}, ("0", "1", "2"), None, None),
    "PEMS, one channel": ("a.npz", lambda: npz(data=VALUES[:, :, None]), {}, ("0", "1", "2"), None, None),
    "PEMS, a channel": (
        "a.npz",
        lambda: npz(data=np.stack([VALUES, -VALUES], 2)),
        {"channel": 1},
        ("0", "1", "2"),
        None,
        "channel 1 of 2",
        -VALUES,
    ),
}


@pytest.mark.parametrize("case", READ)
def test_it_is_read_right(case, tmp_path):
    """Names, numbers to the bit, times, and the line that says what was left out; training and describing take the same."""
    file, content, options, names, times, note, *others = READ[case]
    expected = others[0] if others else VALUES
    (tmp_path / file).write_bytes(content())
    series = read_series(tmp_path / file, **options)
    assert series.names == names
    given = expected if "thousands" not in case else expected.round(3)
    tolerance = 1e-9 if "thousands" in case else 0.006 if case == "semicolons" else 0
    assert np.allclose(series.values, given, rtol=0, atol=tolerance, equal_nan=True)
    assert (series.times is None) == (times is None)
    assert times is None or np.array_equal(series.times, times.to_numpy())
    notes = " ".join(series.notes)
    assert re.search(note, notes) if note else "left out" not in notes
    assert len(describe(series)) > 5


REFUSED = {
    "texts beside one variate": ("a.csv", lambda: csv(DATED[["north"]].assign(remark="fine")), {}, NO_IDS),
    "unix seconds, their column said": (
        "a.csv",
        lambda: csv(numbered(SECONDS)),
        {"time": "when"},
        'say its format with `time_format`, here "unix-s"',
    ),
    "unix seconds": ("a.csv", lambda: csv(numbered(SECONDS)), {}, "`series.time=when` and `series.time_format=unix-s`"),
    "unix milliseconds, unnamed": (
        "a.csv",
        lambda: csv(numbered(SECONDS * 1000).rename_axis(None)),
        {},
        "`series.time_format=unix-ms`",
    ),
    "unix nanoseconds": ("a.csv", lambda: csv(numbered(SECONDS * 10**9)), {}, "`series.time_format=unix-ns`"),
    "unix seconds, not the first": ("a.csv", lambda: csv(FRAME.assign(x=SECONDS), index=False), {}, "`series.time=x` and"),
    "YYYYMMDD": (
        "a.csv",
        lambda: csv(numbered(pd.date_range("2024-01-01", periods=ROWS).strftime("%Y%m%d"))),
        {},
        "format=%Y%m%d`",
    ),
    "YYYYMMDDHH": ("a.csv", lambda: csv(numbered(HOURS.strftime("%Y%m%d%H"))), {}, "`series.time_format=%Y%m%d%H`"),
    "YYYYMM": (
        "a.csv",
        lambda: csv(numbered(pd.date_range("2019-01-01", periods=ROWS, freq="MS").strftime("%Y%m"))),
        {},
        "%Y%m`",
    ),
    "years": ("a.csv", lambda: csv(numbered(range(1980, 1980 + ROWS))), {}, "`series.time_format=%Y`"),
    "parquet, unix seconds": ("a.parquet", lambda: parquet(numbered(SECONDS).reset_index()), {}, "`series.time_format=unix-s`"),
    ".npy, unix seconds": ("a.npy", lambda: npy(np.column_stack([SECONDS, VALUES])), {}, "look like times"),
    "year, month, day, hour": (
        "a.csv",
        lambda: csv(FRAME.assign(year=2024, month=1, day=HOURS.day, hour=HOURS.hour), index=False),
        {},
        "columns year, month, day, hour are parts of a time, .*`series.drop=year,month,day,hour`",
    ),
    "times of day": (
        "a.csv",
        lambda: csv(FRAME.set_axis(HOURS.strftime("%H:%M").rename("t"))),
        {},
        "time of day without a date",
    ),
    "times of day, said": (
        "a.csv",
        lambda: csv(FRAME.set_axis(HOURS.strftime("%H:%M").rename("t"))),
        {"time_format": "%H:%M"},
        "it says no year",
    ),
    "date and time of day": (
        "a.csv",
        lambda: csv(FRAME.assign(c=HOURS.strftime("%H:%M")).set_axis(HOURS.strftime("%Y-%m-%d").rename("t"))),
        {},
        "write a time of day in one column with its date",
    ),
    "one column that begins with 0": ("a.csv", lambda: csv(COUNTS[0], index=False), {}, "`series.header=yes` or no"),
    "0, 1 over counts": (
        "a.csv",
        lambda: csv(COUNTS.iloc[:, :2], index=False),
        {},
        "begins with 0, 1, which may be .*series.header",
    ),
    "ids of sensors over speeds": (
        "a.csv",
        lambda: csv(FRAME.set_axis([773869, 767541, 767542], axis=1), index=False),
        {},
        "773869, .*`series.header=yes` or no",
    ),
    "ids over rows of whole numbers": (
        "a.csv",
        lambda: csv(COUNTS.set_axis([773869, 767541, 767542], axis=1), index=False),
        {},
        "`series.header=yes` or no",
    ),
    "wavelengths": (
        "a.csv",
        lambda: csv(pd.DataFrame(np.random.default_rng(0).normal(size=(ROWS, 6)), columns=np.arange(6) / 2), index=False),
        {},
        "`series.header=yes` or no",
    ),
    "1,234 in quotes": ("a.csv", lambda: b'a,b\n"1,234",2\n"5,678",3\n', {}, "`series.decimal=point` or comma"),
    "1.234 between semicolons": ("a.csv", lambda: b"a;b\n1.234;2\n5.678;3\n", {}, "`series.decimal=point` or comma"),
    "two separators": ("a.csv", lambda: b"a;b\tc\n1;2\t3\n", {}, "semicolons as tabs.*`series.separator=semicolon` or tab"),
    "1 234": ("a.txt", lambda: b"1 234\n2 345\n", {}, "`series.separator=space`"),
    "a late word": (
        "a.csv",
        lambda: csv(DATED).replace(str(VALUES[30, 1]).encode(), b"broken"),
        {},
        "row 30, column south: 'broken'",
    ),
    "a late comma": (
        "a.csv",
        lambda: csv(COUNTS, index=False, sep=";").replace(b"2;", b"2,5;"),
        {"separator": "semicolon", "decimal": "point", "header": "yes"},
        r"column \d: '2,5' is no number: .*`series.decimal=comma`",
    ),
    "another comma": ("a.csv", lambda: csv(DATED) + b"2024-02-20,1,2,3,4\n", {}, "row 41 has 5 columns, those above it 4"),
    "long format, twice": (
        "a.csv",
        lambda: csv(pd.concat([LONG, LONG.iloc[[17]]]), index=False),
        {},
        "row 120: west at 2024-01-01 05:00:00 is there twice",
    ),
    "long format, several values": (
        "a.csv",
        lambda: csv(LONG.assign(lat=1.5), index=False),
        {},
        "2 columns of numbers.*`series.value`",
    ),
    "long format, no times": (
        "a.csv",
        lambda: csv(LONG.drop(columns="time"), index=False),
        {"id": "id"},
        "`series.time`|name their column, `time`",
    ),
    "daylight saving, offsets": (
        "a.csv",
        lambda: csv(FRAME.set_axis(AUTUMN)),
        {},
        "`series.zone=UTC`",
    ),
    "daylight saving, a clock": (
        "a.csv",
        lambda: csv(FRAME.set_axis(AUTUMN.tz_localize(None))),
        {},
        "there twice .*the zone of all times, `series.zone`",
    ),
    "an unknown zone": ("a.csv", lambda: csv(DATED), {"zone": "Europe/Atlantis"}, "such as UTC or Europe/Berlin, got"),
    "no such column": (
        "a.csv",
        lambda: csv(DATED),
        {"columns": "nort"},
        r"no column 'nort' \(`series.columns`\); did you mean north",
    ),
    "nothing to drop": ("a.csv", lambda: csv(DATED), {"drop": "nort"}, r"no column 'nort' \(`series.drop`\)"),
    "missing is a word": ("a.csv", lambda: csv(DATED), {"missing": "none"}, "`series.missing` must be numbers such as 0,-9999"),
    "a column without a name": (
        "a.csv",
        lambda: csv(DATED).replace(b"south", b"", 1),
        {},
        "column 2, counted from 0, has no name",
    ),
    "PEMS, three channels": ("a.npz", lambda: npz(data=np.ones((9, 3, 3))), {}, r"\[9, 3, 3\].*`series.channel`, from 0 to 2"),
    "PEMS, no such channel": ("a.npz", lambda: npz(data=np.ones((9, 3, 3))), {"channel": 3}, "the channels 0 to 2"),
    "a separator for arrays": (
        "a.npy",
        lambda: npy(VALUES),
        {"separator": "tab"},
        "`series.separator=tab` is not supported by",
    ),
    "a spreadsheet": (
        "a.xlsx",
        lambda: b"PK\3\4",
        {},
        r"is a spreadsheet: save its sheet as CSV there, or .*read_excel\('a.xlsx'\)",
    ),
    "a spreadsheet that is called .csv": ("a.csv", lambda: b"PK\3\4\xff\xfe" * 9, {}, "spreadsheet"),
    "a pickle": ("a.pkl", lambda: b"\x80\4.", {}, "is a pickle, which runs its writer's code"),
    "UTF-16": ("a.csv", lambda: csv(DATED).decode().encode("utf-16"), {}, "can't be read as text: .*save it as UTF-8"),
    "parquet, broken": ("a.parquet", lambda: parquet(DATED)[:-40], {}, "a.parquet can't be read as a table"),
    "parquet, lists": ("a.parquet", lambda: parquet(pd.DataFrame({"a": [[1], [2]]})), {}, "'a' holds list<.*leave it out"),
    "only times": ("a.csv", lambda: csv(DATED[[]]), {}, "no column beside its times 'time'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_it_is_refused_in_one_line_that_says_what_to_do(case, tmp_path, capsys):
    file, content, options, message = REFUSED[case]
    (tmp_path / file).write_bytes(content())
    with pytest.raises(ValueError, match=message) as told:
        read_series(tmp_path / file, **options)
    named = {f"series.{name}" for name in re.findall(r"`series\.(\w+)", str(told.value))}
    assert {name.replace("_", "-") for name in named} <= flags_of(DescribeOptions)
    flags = [f"--series.{name.replace('_', '-')}={value}" for name, value in options.items()]
    assert main(["data", "describe", str(tmp_path / file), *flags]) == 2
    said = capsys.readouterr().err.removeprefix("preparing …\n").strip()  # a slow machine says that it prepares
    assert said.count("\n") == 0
    assert str(tmp_path / file) in said or "series." in said
    assert "`series." not in said


def test_there_are_more_than_twenty():
    assert len(READ) > 40
    assert len(REFUSED) > 30
    assert json.dumps(sorted(READ))  # plain names


@settings(max_examples=60, deadline=None)
@given(
    values=st.lists(
        st.lists(st.one_of(st.none(), st.floats(-1e6, 1e6, allow_nan=False, width=32)), min_size=3, max_size=3),
        min_size=12,
        max_size=20,
    ),
    separator=st.sampled_from([";", "\t", "|"]),
    decimal=st.sampled_from([".", ","]),
    dated=st.booleans(),
)
def test_what_pandas_writes_is_read_or_refused(values, separator, decimal, dated, tmp_path_factory):
    """Never read as anything else: with separator and decimal said, every number; recognised, the same or an error."""
    frame = pd.DataFrame(values, columns=["a", "b", "c"], dtype=float)
    if dated:
        frame = frame.set_axis(pd.date_range("2024-01-01", periods=len(frame), freq="h").rename("t"))
    path = tmp_path_factory.mktemp("tables") / "a.csv"
    frame.to_csv(path, sep=separator, decimal=decimal)
    said = {
        "separator": {";": "semicolon", "\t": "tab", "|": "bar"}[separator],
        "decimal": {".": "point", ",": "comma"}[decimal],
    }
    told = read_series(path, columns="a,b,c", **said)
    assert np.allclose(
        told.values, frame.to_numpy(), rtol=1e-12, atol=0, equal_nan=True
    )  # pandas 2.1 drops digits after the 17th
    assert (told.times is not None) == dated
    try:
        found = read_series(path, columns="a,b,c")
    except ValueError as error:
        assert "`series." in str(error)  # noqa: PT017
    else:
        assert np.allclose(found.values, frame.to_numpy(), rtol=1e-12, atol=0, equal_nan=True)


def test_pieces_are_put_together(tmp_path, monkeypatch):
    """A row a piece, and a wrong cell is still told by its row in the file."""
    monkeypatch.setattr("staa.data.series.layout.CELLS", 1)
    path = tmp_path / "a.csv"
    path.write_bytes(csv(DATED))
    series = read_series(path)
    assert np.array_equal(series.values, VALUES)
    assert np.array_equal(series.times, HOURS.to_numpy())
    path.write_bytes(csv(LONG, index=False))
    assert np.array_equal(read_series(path).values, VALUES)
    path.write_bytes(csv(DATED).replace(str(VALUES[30, 1]).encode(), b"broken"))
    with pytest.raises(ValueError, match="row 30, column south: 'broken' is no number"):
        read_series(path)
    path.write_bytes(csv(DATED).replace(b"2024-01-02 06:00:00", b"31/12/2024"))
    with pytest.raises(ValueError, match="row 30: '31/12/2024' is no time of ISO 8601"):
        read_series(path)


def test_values_that_stand_for_none_are_masked_and_other_gaps_refused(tmp_path):
    """Of a frame with zeros: loss, figures and normaliser see none of them, and the network the value before."""
    frame = DATED.copy()
    frame.iloc[5:8, 1] = 0.0
    frame.iloc[20, 0] = -9999
    path = tmp_path / "a.csv"
    path.write_bytes(csv(frame))
    series = read_series(path, missing=(0, -9999))
    source = forecast_source(series, window=4, horizon=2)
    assert source.targets.isnan().sum() == 4
    seen = source.values.double() * source.normaliser.scale + source.normaliser.offset
    assert np.allclose(seen[5:8, 1], frame.iloc[4, 1], atol=1e-4)
    assert source.normaliser.offset[0] == pytest.approx(np.nanmean(series.values[: len(source.train) + 5]))
    frame.iloc[30, 2] = np.nan
    path.write_bytes(csv(frame))
    with pytest.raises(ValueError, match=r"has 1 gaps, the first in variate west, row 30 \(2024-01-02T06:00:00\)"):
        forecast_source(read_series(path, missing="0,-9999"), window=4, horizon=2)


def test_metr_la_as_a_table_scores_as_the_published_set(tmp_path, monkeypatch):
    """The same forecasts of the same rows: MAE, RMSE and MAPE are equal, though the normalisers differ."""
    values = np.random.default_rng(2).uniform(30, 70, (60, 4)).round(3)
    values[np.random.default_rng(3).random(values.shape) < 0.2] = 0.0
    names, times = ["773869", "767541", "767542", "717447"], pd.date_range("2012-03-01", periods=60, freq="5min")
    write_hdf(tmp_path / "metr-la.h5", values, times=times.to_numpy(), names=names, key="df")
    publish(monkeypatch, "metr-la", tmp_path / "metr-la.h5")
    pd.DataFrame(values, times, names).to_csv(tmp_path / "a.csv")
    figures = []
    for series in (SERIES["metr-la"](root=tmp_path), read_series(tmp_path / "a.csv", missing="0")):
        source = forecast_source(series, window=6, horizon=2)
        truth = torch.stack([source.targets[k + 6 : k + 8] for k in source.test])
        forecast = (torch.full_like(truth, 50.0) - source.normaliser.offset) / source.normaliser.scale
        offset, scale = source.normaliser[:2]
        figures.append(forecast_figures(forecast_sums(forecast, truth, offset=offset, scale=scale, missing=source.missing)))
        loss = mean_absolute_error(forecast, truth)
    for name in ("mae", "rmse", "mape"):
        assert figures[0][name] == pytest.approx(figures[1][name], rel=1e-5), name
    assert float(loss * scale[0]) == pytest.approx(figures[1]["mae"], rel=1e-5)  # of the table it leaves the zeros out


def test_a_run_and_its_predictions_read_alike(tmp_path):
    """Semicolons, Unix seconds and values that stand for none: said for training, and known to predict."""
    hours = np.arange(400)
    x = np.stack([np.sin(2 * np.pi * hours / 24 + k) for k in range(3)], 1).round(4)
    x[::50, 1] = x[-3, 0] = -9999
    frame = pd.DataFrame(x, columns=list(NAMES)).assign(ts=hours * 3600 + 1_700_000_000)
    path, run = tmp_path / "a.csv", str(tmp_path / "run")
    frame.to_csv(path, sep=";")
    train = ["train", "series-last-value", "--data", str(path), "--out", run]
    assert main(train) == 2  # numbers that look like times
    assert main([*train, "--series.time-format", "unix-s", "--series.missing", "-9999"]) == 0
    made = predict(run, path)
    assert made.when[0, 0] == np.datetime64(1_700_000_000 + 388 * 3600, "s")
    assert np.allclose(made.forecast[0], [x[-1, 0], x[-1, 1], x[-1, 2]], atol=1e-3)
    assert made.seen.min() > -2


def test_a_file_for_a_run_has_its_variates_whatever_they_hold(tmp_path):
    """Twelve rows of a variate may look like a counter, or its names like numbers."""
    frame = pd.DataFrame({"0": np.arange(12), "1": np.arange(12) * 2 + 1600, "2": 5}).set_axis(HOURS[:12].rename("t"))
    path = tmp_path / "a.csv"
    frame.to_csv(path, sep=";")
    for said in ({"separator": "semicolon", "channel": 2}, {}):
        series = series_for(path, ("0", "1", "2"), said)
        assert series.names == ("0", "1", "2")
        assert np.array_equal(series.values, frame.to_numpy())
    np.savez(tmp_path / "a.npz", values=frame.to_numpy(), time=frame.index.to_numpy())
    assert series_for(tmp_path / "a.npz", ("0", "1", "2"), {"separator": "tab", "time_format": "unix-s"}).names == (
        "0",
        "1",
        "2",
    )


MONTHS = [
    *(pd.offsets.MonthBegin(), pd.offsets.MonthEnd(), pd.offsets.BMonthBegin(), pd.offsets.BMonthEnd()),
    *(pd.offsets.QuarterBegin(startingMonth=1), pd.offsets.QuarterEnd(), pd.offsets.YearBegin(), pd.offsets.YearEnd()),
]


@pytest.mark.parametrize("step", [*MONTHS, "B", "D", "h", "5min", "W", "2D", "7h"])
def test_steps_ahead_keep_to_the_calendar(step):
    """Against pandas' offsets, from every row of two years or more."""
    times = np.asarray(pd.date_range("2023-01-02 06:00", periods=40, freq=step), "datetime64[ns]")
    for end in range(16, 34):
        assert np.array_equal(following(times[:end], 6), times[end : end + 6]), end


def test_steps_ahead_keep_to_the_hours_that_there_are():
    """Hangzhou's metro runs from 6 to 24 o'clock, an exchange on business days."""
    times = pd.date_range("2024-01-01", "2024-03-01", freq="10min")
    for kept in (times[times.hour >= 6], times[(times.hour >= 9) & (times.hour < 17) & (times.day_of_week < 5)]):
        known = np.asarray(kept, "datetime64[ns]")
        for end in (1500, 1507, 1600):
            assert np.array_equal(following(known[:end], 300), known[end : end + 300])
    lacking = np.delete(np.asarray(pd.date_range("2024-01-01", periods=500, freq="h"), "datetime64[ns]"), [7, 8, 90, 300])
    assert np.array_equal(following(lacking, 3), lacking[-1] + np.arange(1, 4) * np.timedelta64(1, "h"))
    with pytest.raises(ValueError, match="one row alone does not tell the time step"):
        following(lacking[:1], 3)


# Graphs


GRAPH = pd.DataFrame([[0, 2, 0], [1, 0, 3], [0, 4, 0.5]], index=list("abc"), columns=list("abc"))
EDGES = GRAPH.stack().rename("weight").rename_axis(["from", "to"]).reset_index().query("weight > 0")


@pytest.mark.parametrize(
    "frame",
    [
        (GRAPH, {}),
        (GRAPH.loc[list("cab"), list("bca")], {}),
        (GRAPH, {"sep": ";", "decimal": ","}),
        (GRAPH, {"index": False}),
        (GRAPH.set_axis(range(3)).set_axis(range(3), axis=1), {}),
        (EDGES, {"index": False}),
        (EDGES, {}),
        (EDGES[["weight", "to", "from"]], {"index": False}),
        (EDGES.rename(columns={"from": "source", "to": "target"}).assign(length=9), {"index": False, "sep": "\t"}),
    ],
)
def test_a_graph_is_read_by_its_names(frame, tmp_path):
    table, options = frame
    path = tmp_path / "g.csv"
    table.to_csv(path, **options)
    assert np.allclose(read_graph(path, ("a", "b", "c")), GRAPH)


def test_graphs_that_are_refused(tmp_path):
    path = tmp_path / "g.csv"
    GRAPH.set_axis(list("abx"), axis=1).to_csv(path)
    with pytest.raises(ValueError, match="a matrix with names, of which 'x' is none of the series' 3 variates, a, b, c"):
        read_graph(path, ("a", "b", "c"))
    (tmp_path / "adj_mx.pkl").write_bytes(b"\x80\4.")
    with pytest.raises(ValueError, match=r"is a pickle, which runs .* as numpy.save\('adj.npy', pickle.load"):
        read_graph(tmp_path / "adj_mx.pkl", ("a", "b", "c"))


def test_a_graph_of_all_columns_serves_some_of_them(tmp_path):
    path, matrix = tmp_path / "a.csv", np.arange(9.0).reshape(3, 3)
    path.write_bytes(csv(DATED))
    np.save(tmp_path / "g.npy", matrix)
    for options in ({"columns": "north,west"}, {"drop": "south"}):
        series = read_series(path, graph=str(tmp_path / "g.npy"), **options)
        assert np.array_equal(series.graph, matrix[np.ix_([0, 2], [0, 2])])
    np.savez(tmp_path / "a.npz", values=VALUES, names=list(NAMES), graph=matrix)
    assert np.array_equal(read_series(tmp_path / "a.npz", drop="south").graph, matrix[np.ix_([0, 2], [0, 2])])


# Describing


def test_describing_says_what_is_there(tmp_path, capsys):
    hours = np.arange(24 * 7 * 6)
    x = np.stack([np.sin(2 * np.pi * hours / 24), np.cos(2 * np.pi * hours / 24)], 1) + np.random.default_rng(0).normal(
        0, 0.1, (len(hours), 2)
    )
    x[50, 1], x[60, 0], x[70:75, 1] = 1e30, np.nan, 0
    frame = pd.DataFrame(x, columns=["a", "b"]).set_axis(pd.date_range("2024-01-01", periods=len(x), freq="h").rename("t"))
    frame.assign(step=np.arange(len(x))).to_csv(tmp_path / "a.csv", sep=";")
    assert main(["data", "describe", str(tmp_path / "a.csv"), "--series.missing", "0"]) == 0
    told = capsys.readouterr().out
    for line in (
        r"size +1,008 rows of 2 variates: a, b",
        r"times +2024-01-01 00:00:00 to 2024-02-11 23:00:00, a row every 01:00:00$",
        r"gaps +6 of 2,016 values \(0.30%\), 5 of them values that stand for none",
        r"outliers +1 far from the others: 1e\+30 in b, row 50",
        r"note +read with semicolons",
        r"note +column step counts the rows.*--series.columns can name it",
    ):
        assert re.search(line, told, re.MULTILINE), line
    series = read_series(tmp_path / "a.csv", missing=0)
    series.values[50, 1] = 0.5
    (season,) = (line for line in describe(series) if line.startswith("season"))
    day, week = (float(share) for share in re.findall(r"([\d.]+)%", season))
    assert 97 < day < 99  # of 1/2 + 0.01, 1/2
    assert abs(day - week) < 0.5  # the weekday says nothing more
    (season,) = (line for line in describe(read_series(tmp_path / "a.csv", columns="a")) if line.startswith("season"))
    assert "day 97.9%" in season
