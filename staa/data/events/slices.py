"""Arrays of NumPy's .npy and .npz, some entries at a time: checked before anything is read, and nothing is unpickled."""

import os
from collections.abc import Callable, Container, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

import numpy as np

from staa.arrays import HEADER, SAID, check_array, check_members
from staa.files import check_bytes, open_regular


class Slices:
    """An array whose entries are read from the first on, so many at a time. An array of two dimensions that lies by columns has
    a reader for each.

    open: the bytes of a .npy file, from the beginning. size: how many there are. what: its name in messages.
    """

    def __init__(self, opened: ExitStack, open: Callable[[], IO[bytes]], size: int, what: str):
        self._opened, self._open, self._what = opened, open, what
        with self._opened_anew() as file:
            self.shape, self._by_columns, self.dtype, self._start = check_array(self._read(file, min(HEADER, size)), size, what)
        self.length = self._left = self.shape[0] if self.shape else 1
        self._files: list[IO[bytes]] = []

    def take(self, count: int) -> np.ndarray:
        """The next entries, or those that are left."""
        count, size = min(count, self._left), self.dtype.itemsize
        columns = self.shape[1] if self._by_columns and len(self.shape) > 1 else 1
        width = 1 if columns > 1 else int(np.prod(self.shape[1:], dtype=np.int64))
        check_bytes(count * columns * width * size, f"{self._what}, {count:,} entries at a time,")
        if not self._files:
            self._files = [self._opened.enter_context(self._opened_anew(i * self.length * size)) for i in range(columns)]
        self._left -= count
        read = [np.frombuffer(self._read(file, count * width * size), self.dtype) for file in self._files]
        return np.stack(read, 1) if columns > 1 else read[0].reshape(count, *self.shape[1:])

    def _opened_anew(self, at: int | None = None) -> IO[bytes]:
        """The file; at: from a byte after its header on."""
        try:
            file = self._open()
            if at is not None:
                file.seek(self._start + at)
        except Exception as error:  # zipfile raises BadZipFile, zlib.error, RuntimeError of an encrypted one …
            raise self._broken(error) from error
        return file

    def _broken(self, error: Exception) -> ValueError:
        return ValueError(f"{self._what} can't be read ({str(error)[:SAID]}): copy or save it again")

    def _read(self, file: IO[bytes], count: int) -> bytes:
        try:
            data = file.read(count)
        except Exception as error:
            raise self._broken(error) from error
        if len(data) < count:
            raise ValueError(f"{self._what} is truncated: copy or save it again")
        return data


@contextmanager
def open_slices(path: Path, choose: Callable[[list[str]], Container[str]]) -> Iterator[dict[str, Slices]]:
    """The arrays of a .npz by name, those that `choose` takes of its names; or the one of a .npy under "".

    Raises OSError, or ValueError for what is truncated, no such file, or holds Python objects.
    """
    with ExitStack() as opened:
        file = opened.enter_context(open_regular(path))
        begin = file.read(2)
        file.seek(0)
        if begin != b"PK":
            size = os.fstat(file.fileno()).st_size
            yield {"": Slices(opened, lambda: open_regular(path), size, str(path))}
            return
        archive, members = check_members(file, str(path), choose)
        opened.enter_context(archive)
        yield {
            name: Slices(opened, lambda member=member: archive.open(member), member.file_size, f"{path}, array {name!r}")
            for name, member in members.items()
        }
