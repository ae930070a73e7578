"""`staa.Stream.watch`: the same decisions from a file, a pipe, a socket, standard input and a file that grows; silence, drops."""

import io
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest
from test_events import some_events
from test_recordings import bin_file, evt2_file, evt3_file, evt3_words, rows
from test_stream import SMALL, Holds, Known, Sides, at

from staa import Stream
from staa.data.events.decoders import DECODERS
from staa.data.events.windows import Window
from staa.inference.backlog import Backlog
from staa.inference.live import format_of
from staa.inference.sources import opened

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


def through_pipe(path, data, pause=0.0):
    """A named pipe that another thread writes to."""
    os.mkfifo(path)

    def run():
        with open(path, "wb") as file:
            for start in range(0, len(data), 1000):
                file.write(data[start : start + 1000])
                file.flush()
                time.sleep(pause)

    threading.Thread(target=run, daemon=True).start()
    return path


def test_a_file_a_pipe_sockets_and_a_generator_give_the_same(tmp_path, expected, monkeypatch):
    (tmp_path / "a.raw").write_bytes(BYTES)
    assert told(stream().watch(tmp_path / "a.raw")) == expected
    assert told(stream().watch(tmp_path / "a.raw", format="evt3")) == expected
    assert told(stream().watch(through_pipe(tmp_path / "pipe", BYTES))) == expected
    assert told(stream().watch(str(tmp_path / "pipe2")) if through_pipe(tmp_path / "pipe2", BYTES[len(HEADER) :]) else ()) == []
