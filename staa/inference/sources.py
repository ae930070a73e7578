"""Where a live camera's bytes come from: standard input, a pipe, a file that grows, a socket."""

import ipaddress
import os
import re
import select
import socket
import stat
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

CHUNK = 1 << 18  # bytes that are read at most at a time
GROWS = 0.02  # seconds between two looks at a file that grows
PIPE_BYTES = 1 << 20  # that a pipe holds, where the system allows it
SET_PIPE_SIZE = 1031  # F_SETPIPE_SZ of Linux

STDIN = "-"
EXPECTED = "a recording, a named pipe, - for standard input, tcp:HOST:PORT or unix:PATH"
REMOTE = re.compile(r"(tcp|unix):(.+)", re.DOTALL)


class ByteSource:
    """Bytes as they come.

    descriptor: open to read. live: whether they come at their own pace. follow: a file's end is not the stream's.
    """

    def __init__(self, descriptor: int, *, live: bool, follow: bool = False):
        self.live, self.keeps = live, not live or follow
        self._descriptor, self._follow = descriptor, follow
        self._read = 0

    def read(self, seconds: float) -> bytes | None:
        """What is there, as soon as anything is; nothing after so many seconds without; None at the end."""
        if self.live and not self._follow and not select.select([self._descriptor], [], [], seconds)[0]:
            return b""
        data = os.read(self._descriptor, CHUNK)
        self._read += len(data)
        if data:
            return data
        if not self._follow:
            return None
        if os.fstat(self._descriptor).st_size < self._read:
            raise ValueError("the file has become shorter while it was followed: start again with the new one")
        time.sleep(min(seconds, GROWS))
        return b""


@contextmanager
def opened(source: str, *, follow: bool = False, remote: bool = False) -> Iterator[ByteSource]:
    """A source by its name: "-" for standard input, "tcp:HOST:PORT" or "unix:PATH" for a program that listens there, or the
    path of a pipe or a file.

    follow: of a file, wait for more at its end. remote: let HOST be another machine; else it must be this one.

    Raises ValueError for a name of another form, OSError for what can't be opened.
    """
    if found := REMOTE.fullmatch(source):
        with _connected(found[1], found[2], remote=remote) as connection:
            yield ByteSource(connection.fileno(), live=True)
        return
    if source == STDIN:
        descriptor = sys.stdin.fileno()
        if os.isatty(descriptor):
            raise ValueError("standard input is a terminal: pipe a camera's bytes into the command, or name a file")
        yield _of(descriptor, source, follow=follow)
        return
    if not os.path.exists(source):
        raise FileNotFoundError(f"{source} does not exist: expected {EXPECTED}")
    descriptor = os.open(source, os.O_RDONLY | getattr(os, "O_BINARY", 0))  # of a pipe: when another process writes to it
    try:
        yield _of(descriptor, source, follow=follow)
    finally:
        os.close(descriptor)


def is_file(source: str) -> bool:
    """Whether it is the name of a file."""
    return source != STDIN and not REMOTE.fullmatch(source) and Path(source).is_file()


def _of(descriptor: int, source: str, *, follow: bool) -> ByteSource:
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISDIR(mode):
        raise ValueError(f"{source} is a folder: give a recording, a pipe or a socket")
    regular = stat.S_ISREG(mode)
    if follow and not regular:
        raise ValueError(f"`follow` is for a file that grows, and {source} is none: leave it out")
    if stat.S_ISFIFO(mode) and sys.platform == "linux":
        import fcntl

        with suppress(OSError):  # more than this user may have
            fcntl.fcntl(descriptor, SET_PIPE_SIZE, PIPE_BYTES)
    return ByteSource(descriptor, live=follow or not regular, follow=follow)


def _connected(kind: str, address: str, *, remote: bool) -> socket.socket:
    if kind == "unix":
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.connect(address)
        except OSError as error:
            connection.close()
            raise OSError(_nobody(kind, address, error)) from error
        return connection
    host, _, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not re.fullmatch(r"\d{1,5}", port) or not 0 < int(port) < 1 << 16:
        raise ValueError(f"a socket is tcp:HOST:PORT, such as tcp:localhost:7777, or unix:PATH; got tcp:{address}")
    try:
        found = socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM)
    except OSError as error:
        raise OSError(f"{host} is not known ({error.strerror}): give a host's name or address") from error
    if not remote and not all(ipaddress.ip_address(str(a[4][0]).partition("%")[0]).is_loopback for a in found):
        raise ValueError(
            f"{host} is another machine, whose bytes anyone on the way can read and change: say `remote=True` if that is meant"
        )
    try:
        return socket.create_connection((host, int(port)))
    except OSError as error:
        raise OSError(_nobody(kind, address, error)) from error


def _nobody(kind: str, address: str, error: OSError) -> str:
    return f"no program serves events at {kind}:{address} ({error.strerror or error}): start it first"
