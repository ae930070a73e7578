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
from typing import Any

CHUNK = 1 << 18  # bytes that are read at most at a time
GROWS = 0.02  # seconds between two looks at a file that grows
PIPE_BYTES = 1 << 20  # that a pipe holds, where the system allows it
SET_PIPE_SIZE = 1031  # F_SETPIPE_SZ of Linux

STDIN = "-"
REMOTE = re.compile(r"(tcp|unix):(.+)", re.DOTALL)


class ByteSource:
    """Bytes as they come.

    descriptor: open to read. live: whether they come at their own pace. follow: a file's end is not the stream's. path: of a
    file that is followed, if it has one.
    """

    def __init__(self, descriptor: int, *, live: bool, follow: bool = False, path: str | None = None):
        self.live, self.keeps = live, not live or follow
        self._descriptor, self._follow, self._path = descriptor, follow, path
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
        there = os.fstat(self._descriptor)
        if there.st_size < self._read or not self._is_there(there):
            how = "has become shorter" if there.st_size < self._read else "was removed or replaced"
            raise ValueError(f"the file {how} while it was followed: start again with the new one")
        time.sleep(min(seconds, GROWS))
        return b""

    def _is_there(self, about: os.stat_result) -> bool:
        """Whether the path is still that of the file."""
        try:
            return self._path is None or os.path.samestat(os.stat(self._path), about)
        except FileNotFoundError:
            return False


@contextmanager
def opened(source: str, *, follow: bool = False, remote: bool = False) -> Iterator[ByteSource]:
    """A source by its name: "-" for standard input, "tcp:HOST:PORT" or "unix:PATH" for a program that listens there, or the
    path of a pipe or a file.

    follow: of a file, wait for more at its end. remote: let HOST be another machine; else it must be this one.

    Raises ValueError for a name of another form, OSError for what can't be opened.
    """
    if found := REMOTE.fullmatch(source):
        if follow:
            raise ValueError(f"`follow` is for a file that grows, and {source} is none: leave it out")
        with _connected(found[1], found[2], remote=remote) as connection:
            yield ByteSource(connection.fileno(), live=True)
        return
    if source == STDIN:
        if sys.stdin is None:  # it was closed before this process began
            raise ValueError("standard input is closed: pipe a camera's bytes into the command, or name a file")
        yield _of(sys.stdin.fileno(), source, follow=follow)
        return
    descriptor = os.open(source, os.O_RDONLY | getattr(os, "O_BINARY", 0))  # of a pipe: when another process writes to it
    try:
        yield _of(descriptor, source, follow=follow)
    finally:
        os.close(descriptor)


def is_file(source: str) -> bool:
    """Whether it is the name of a file."""
    return source != STDIN and not REMOTE.fullmatch(source) and Path(source).is_file()


def _of(descriptor: int, source: str, *, follow: bool) -> ByteSource:
    mode, what = os.fstat(descriptor).st_mode, "standard input" if source == STDIN else source
    if os.isatty(descriptor):
        raise ValueError(f"{what} is a terminal: pipe a camera's bytes into the command, or name a file")
    if stat.S_ISDIR(mode):
        raise ValueError(f"{what} is a folder: give a recording, a pipe or a socket")
    regular = stat.S_ISREG(mode)
    if follow and not regular:
        raise ValueError(f"`follow` is for a file that grows, and {what} is none: leave it out")
    if stat.S_ISFIFO(mode) and sys.platform == "linux":
        import fcntl

        with suppress(OSError):  # more than this user may have
            fcntl.fcntl(descriptor, SET_PIPE_SIZE, PIPE_BYTES)
    path = source if follow and source != STDIN else None
    return ByteSource(descriptor, live=follow or not regular, follow=follow, path=path)


def _connected(kind: str, address: str, *, remote: bool) -> socket.socket:
    if kind == "unix":
        return _to(socket.AF_UNIX, address, f"unix:{address}")
    host, _, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not re.fullmatch(r"[0-9]{1,5}", port) or not 0 < int(port) < 1 << 16:
        raise ValueError(f"a socket is tcp:HOST:PORT, such as tcp:localhost:7777, or unix:PATH; got tcp:{address}")
    try:
        found = socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        why = getattr(error, "strerror", None) or "it is no name of a host"
        raise OSError(f"{host} is not known ({why}): give a host's name or address") from error
    if not remote and not all(ipaddress.ip_address(str(a[4][0]).partition("%")[0]).is_loopback for a in found):
        raise ValueError(
            f"{host} is another machine, whose bytes anyone on the way can read and change: say `remote=True` if that is meant"
        )
    *others, last = [(family, to) for family, _, _, _, to in found]  # these alone: asked for again, the name may be another's
    for family, to in others:
        with suppress(OSError):
            return _to(family, to, f"tcp:{address}")
    return _to(*last, f"tcp:{address}")


def _to(family: int, address: Any, name: str) -> socket.socket:
    connection = socket.socket(family)
    try:
        connection.connect(address)
    except OSError as error:
        connection.close()
        raise OSError(
            f"{name} can't be connected to ({error.strerror or error}): start the program that serves events there first"
        ) from error
    return connection
