"""`staa.Stream.watch`: the same decisions from files, pipes, sockets and standard input; silence, and dropped windows."""

import os
import socket
import sys
import threading
import time
from contextlib import ExitStack

import numpy as np
import pytest
from test_events import some_events
from test_recordings import evt3_file, evt3_words, rows
from test_stream import Holds, Known, Sides, at

from staa import Stream
from staa.data.events.decoders import DECODERS
from staa.data.events.windows import Window
from staa.inference.backlog import Backlog
from staa.inference.live import format_of

HEADER = b"% evt 3.0\n% format EVT3;height=8;width=8\n% end\n"
EVENTS = some_events(300, (8, 8), span=150_000)
BYTES = evt3_file(evt3_words(rows(EVENTS)), HEADER)
QUICK = 60  # ms


def stream(**options):
    return Stream(Known(Holds()), **options)


def told(decisions):
    return [d[:8] for d in decisions]


@pytest.fixture(scope="module")
def expected():
    made = stream()
    return told(made.push(EVENTS) + made.end())


@pytest.fixture
def closing_later():
    with ExitStack() as stack:
        yield stack


def serve(connection, data):
    """Sends bytes in pieces and hangs up."""

    def run():
        for start in range(0, len(data), 100):
            connection.sendall(data[start : start + 100])
        connection.close()

    threading.Thread(target=run, daemon=True).start()


def listening(server, data):
    server.listen()
    threading.Thread(target=lambda: serve(server.accept()[0], data), daemon=True).start()


def through_pipe(path, data):
    """A named pipe that another thread writes to."""
    os.mkfifo(path)

    def run():
        with open(path, "wb") as file:
            for start in range(0, len(data), 1000):
                file.write(data[start : start + 1000])
                file.flush()

    threading.Thread(target=run, daemon=True).start()
    return path


SOURCES = "file", "format", "pipe", "no header", "unix", "tcp", "stdin", "redirected", "follow", "arrays"


@pytest.mark.parametrize("how", SOURCES)
def test_every_source_gives_the_same_decisions(how, tmp_path, expected, monkeypatch, closing_later):
    path, options = tmp_path / "a.raw", {"lag": None}
    if how == "no header":
        path, options = through_pipe(tmp_path / "pipe", BYTES[len(HEADER) :]), {"format": "evt3"}
    elif how == "pipe":
        path = through_pipe(tmp_path / "pipe", BYTES)
    elif how == "unix":
        server = closing_later.enter_context(socket.socket(socket.AF_UNIX))
        server.bind(str(tmp_path / "socket"))
        listening(server, BYTES)
        path = f"unix:{tmp_path}/socket"
    elif how == "tcp":
        server = closing_later.enter_context(socket.create_server(("127.0.0.1", 0)))
        listening(server, BYTES)
        path = f"tcp:localhost:{server.getsockname()[1]}"
    elif how in ("stdin", "redirected"):
        if how == "stdin":
            through_pipe(tmp_path / "in", BYTES)
        else:
            (tmp_path / "in").write_bytes(BYTES)
        path = "-"
        monkeypatch.setattr(sys, "stdin", closing_later.enter_context((tmp_path / "in").open("rb")))
    elif how == "arrays":
        dtype = [("t", "<i8"), ("x", "<u2"), ("y", "<u2"), ("p", "u1")]
        path = through_pipe(tmp_path / "pipe", np.array(rows(EVENTS), dtype).tobytes())
        options["format"] = "txyp"
    else:
        path.write_bytes(BYTES[:500] if how == "follow" else BYTES)
        options |= {"format": "evt3"} if how == "format" else {}
    if how != "follow":
        assert told(stream().watch(path, **options)) == expected
        return
    decisions = stream().watch(path, follow=True, **options)
    found = [next(decisions)]
    with open(path, "ab") as file:
        file.write(BYTES[500:])
    found += [next(decisions) for _ in expected[2:]]
    decisions.close()  # its end is never known: the last window stays open
    assert told(found) == expected[:-1]


def test_a_generator_and_a_recording_of_ones_own(tmp_path, expected):
    pieces = (EVENTS._replace(**{k: getattr(EVENTS, k)[i : i + 30] for k in "txyp"}) for i in range(0, 300, 30))
    assert told(stream().watch(pieces)) == expected
    np.savez(tmp_path / "a.npz", **EVENTS._asdict() | {"sensor": (8, 8)})
    assert told(stream().watch(tmp_path / "a.npz")) == expected


def test_a_format_is_known_by_its_header_or_the_files_name():
    assert format_of("-", HEADER.partition(b"% end")[0]) is None  # one more line may follow
    assert format_of("-", HEADER) == format_of("x.raw", HEADER) == "evt3"
    assert format_of("-", b"% evt 2.0\n% end\n1") == "evt2"
    assert format_of("-", b"% Data file\n% Version 2\n% end\n1") == "dat"
    assert format_of("-", b"#!AER-DAT3.") is None
    assert [format_of("-", b"#!AER-DAT%s\r\n" % version) for version in (b"2.0", b"3.1", b"4.0")] == [
        "aedat2", "aedat3", "aedat4",
    ]  # fmt: skip
    assert format_of("a.bin", b"123") == "bin"
    for begun, told_ in ((b"123", "`format` must be one of bin, dat,"), (b"#!AER-DAT9.9", "expected a first line")):
        with pytest.raises(ValueError, match=told_):
            format_of("-", begun)
    assert {"evt2", "evt3", "aedat4", "txyp"} <= DECODERS.keys()


@pytest.mark.parametrize(
    ("source", "options", "error", "told_"),
    [
        ("missing.raw", {}, FileNotFoundError, "missing.raw"),
        (".", {}, ValueError, "is a folder"),
        ("tcp:192.0.2.1:7", {}, ValueError, "192.0.2.1 is another machine.*`remote=True`"),
        ("unix:" + 200 * "a", {}, OSError, "can't be connected to .*too long"),
        ("tcp:a..b:7", {}, OSError, "a..b is not known"),
        ("tcp:localhost:7", {"follow": True}, ValueError, "`follow` is for a file that grows"),
        ("tcp:localhost", {}, ValueError, "a socket is tcp:HOST:PORT"),
        ("tcp:localhost:70000", {}, ValueError, "a socket is tcp:HOST:PORT"),
        ("unix:nowhere", {}, OSError, "nowhere"),
        ("x", {"format": "evt4"}, ValueError, "unknown format 'evt4'; did you mean evt"),
        ("x", {"lag": 0}, ValueError, "`lag` must be from 1"),
        ("x", {"lag": float("nan")}, ValueError, "`lag` must be from 1"),
        ("half.raw", {"format": "evt3"}, ValueError, "half.raw: truncated"),
        ("none.raw", {"format": "evt3"}, ValueError, "none.raw: it ended without an event"),
        ("empty", {"format": "evt3"}, ValueError, "empty: it ended without an event"),
        ("began.raw", {"follow": False, "format": None, "lag": 5}, ValueError, "began.raw"),
    ],
)
def test_what_can_not_be_watched(source, options, error, told_, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "half.raw").write_bytes(BYTES + b"1")
    (tmp_path / "none.raw").write_bytes(HEADER)
    (tmp_path / "began.raw").write_bytes(HEADER[:20])
    (tmp_path / "empty").write_bytes(b"")
    with pytest.raises(error, match=told_):
        list(stream().watch(source, **options))


def test_what_comes_before_an_end_within_an_event_is_told(tmp_path, expected):
    found = []
    with pytest.raises(ValueError, match="truncated: the 1 bytes at its end"):
        for decision in stream().watch(through_pipe(tmp_path / "pipe", BYTES + b"1"), lag=None):
            found.append(decision)
    assert told(found) == expected


def test_wrong_events_end_a_stream_or_are_left_out_and_counted(tmp_path, expected):
    wrong = [*rows(EVENTS)[:150], (int(EVENTS.t[149]), 9, 1, 1), *rows(EVENTS)[150:]]
    (tmp_path / "a.raw").write_bytes(evt3_file(evt3_words(wrong), HEADER))
    with pytest.raises(ValueError, match=r"a.raw: event 150 lies at x 9.*`repair=drop`"):
        list(stream().watch(tmp_path / "a.raw", format="evt3"))
    made = stream()
    assert told(made.watch(tmp_path / "a.raw", format="evt3", repair="drop")) == expected
    assert made.repair.told() == "left out 1 event outside the sensor"


def test_silence_is_seen_by_the_words_of_time_and_by_this_machines_clock(tmp_path):
    """The camera says its time at 30 ms and then nothing at all; 5 ms of events come when their windows are over."""
    reading, writing = os.pipe()
    made = stream()
    path = f"/dev/fd/{reading}"
    decisions = made.watch(path, lag=QUICK, format="evt3")
    os.write(writing, np.array([0x8000, 0x6000, 1, 0x2001, 0x8001, *(0x8000 | k for k in range(2, 9))], "<u2").tobytes())
    by_words = [next(decisions) for _ in range(3)]
    assert [(d.window, d.events) for d in by_words] == [(1, 1), (2, 0), (3, 0)]
    began = time.perf_counter()
    by_clock = [next(decisions) for _ in range(2)]
    assert time.perf_counter() - began > QUICK / 1000
    assert [(d.window, d.events) for d in by_clock] == [(4, 0), (5, 0)]
    os.write(writing, np.array([0x6000 | 300, 1, 0x2001, 0x2002], "<u2").tobytes())  # at 33 ms
    os.close(writing)
    rest = list(decisions)
    os.close(reading)
    assert made.windows.late == 2
    assert all(d.events == 0 for d in rest)


def windows(count, arrived):
    return [Window(k, 0, None, 0, arrived) for k in range(1, count + 1)]


def test_a_backlog_drops_the_oldest_only_if_it_has_waited_too_long():
    now = time.perf_counter()
    late = Backlog(3, 0.05)
    for window in windows(10, now - 1):
        late.put(window)
    assert late.dropped == 7  # as many as wait, if nobody takes them
    assert (late.get().number, late.dropped) == (10, 9)
    keeps, got = Backlog(3, None), []
    thread = threading.Thread(target=lambda: [keeps.put(w) for w in windows(10, now - 1)] and keeps.close())
    thread.start()
    while (window := keeps.get()) is not None:
        got.append(window.number)
    thread.join()
    assert (got, keeps.dropped) == (list(range(1, 11)), 0)
    early = Backlog(1, 60.0)
    early.put(windows(1, now)[0])
    thread = threading.Thread(target=early.put, args=(windows(2, now)[1],))
    thread.start()
    assert early.get().number == 1  # that makes room
    thread.join()
    assert (early.get().number, early.dropped) == (2, 0)
    early.close(ValueError("ended"))
    with pytest.raises(ValueError, match="ended"):
        early.get()


def test_a_network_that_is_too_slow_loses_the_oldest_windows_and_says_how_many(tmp_path):
    """Three hundred windows of 1 ms, each of which takes the network 5 ms."""

    class Slow(Sides):
        per_step = True

        def forward(self, x):
            time.sleep(0.005)
            return super().forward(x)

    made = Stream(Known(Slow()), window=1)
    events = at(np.arange(0, 300_000, 1000))
    data = evt3_file(evt3_words(rows(events)), HEADER)
    found = list(made.watch(through_pipe(tmp_path / "pipe", data), lag=20))
    numbers = [d.window for d in found]
    assert numbers == sorted(numbers)
    assert numbers[-1] == 300
    assert 0 < made.dropped == 300 - len(found)
    assert [d.dropped for d in found] == sorted(d.dropped for d in found)
    made = Stream(Known(Slow()), window=1)
    assert len(list(made.watch(through_pipe(tmp_path / "again", data), lag=None))) == 300
    assert made.dropped == 0


def test_a_file_that_is_followed_and_replaced_is_told(tmp_path):
    """As a log that is rotated: what was in the old one has been seen, and the new one is another stream."""
    path = tmp_path / "a.raw"
    for change in (lambda: os.replace(tmp_path / "b.raw", path), path.unlink, lambda: os.truncate(path, 100)):
        path.write_bytes(BYTES)
        (tmp_path / "b.raw").write_bytes(BYTES)
        decisions = stream().watch(path, follow=True, lag=None)
        found = [next(decisions)]
        change()
        with pytest.raises(ValueError, match=r"a\.raw: the file (was removed or replaced|has become shorter) while it was"):
            found += decisions
        assert len(found) > 10


def test_a_terminal_or_a_closed_input_is_no_camera(monkeypatch):
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(ValueError, match="standard input is closed"):
        list(stream().watch("-", format="evt3"))
    leader, follower = os.openpty()
    try:
        with pytest.raises(ValueError, match="is a terminal"):
            list(stream().watch(os.ttyname(follower), format="evt3"))
    finally:
        os.close(leader)
        os.close(follower)


def records(t):
    made = np.zeros(len(t), [("t", "<i8"), ("x", "<u2"), ("y", "<u2"), ("p", "u1")])
    made["t"] = t
    return made.tobytes()


def test_one_wrong_time_moves_nothing_and_a_clock_that_begins_anew_is_told(tmp_path):
    """A stray time made all events after it late for ever, and times 2**64 apart were taken for neighbours."""
    times = np.arange(0, 200_000, 1000)
    for stray in (1 << 40, (1 << 63) - 1, -(1 << 63)):
        path = tmp_path / "a.txyp"
        path.write_bytes(records(np.insert(times, 100, stray)))
        with pytest.raises(ValueError, match="a time of .* µs"):
            list(stream(sensor="8x8").watch(path, format="txyp"))
        made = stream(sensor="8x8")
        assert sum(d.events for d in made.watch(path, format="txyp", repair="drop")) == 200
        assert made.repair.told() == "left out 1 stray time"
    path.write_bytes(records(np.append(times + 10_000_000, times)))
    with pytest.raises(ValueError, match="time goes back by 10.2 s, as of a camera that began anew"):
        list(stream(sensor="8x8").watch(path, format="txyp", repair="drop"))
