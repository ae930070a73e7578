"""What the files of a data set hold, by a digest that is cheap: whether a run was trained on the same."""

import hashlib
import os
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property, partial
from itertools import chain
from pathlib import Path

from staa.counting import counted
from staa.files import open_regular

PIECE, PIECES = 8192, 8
"""A file of up to PIECES pieces is hashed whole; of a larger one so many, the first, the last and some evenly between."""
AT_ONCE = 256  # files for a thread

_digests: dict[tuple[Path, str], str] = {}
"""By root and stamp: several seeds and recipes of a process share one reading."""


class Content:
    """Two digests of data: `sha256` of what they hold, and `stamp` of what tells without a look into them that they are the
    same, or "". Each is made if it is asked for."""

    def __init__(self, digest: Callable[[], str], stamp: Callable[[], str] = str):
        self._digest, self._stamp = digest, stamp

    @cached_property
    def sha256(self) -> str:
        return self._digest()

    @cached_property
    def stamp(self) -> str:
        return self._stamp()

    def facts(self) -> dict[str, str]:
        """For a run's records."""
        return {"stamp": self.stamp, "sha256": self.sha256}

    def is_that(self, kept: Mapping[str, str]) -> bool:
        """Whether the data are those whose `facts` were kept."""
        if self.stamp and self.stamp == kept["stamp"]:
            self.sha256 = kept["sha256"]
        return self.sha256 == kept["sha256"]


def as_it_is(path: str) -> tuple[object, ...] | None:
    """What differs once a file is changed, whatever its times are set to; None for one that is not there."""
    try:
        about = os.stat(path)
    except OSError:
        return None
    return path, about.st_dev, about.st_ino, about.st_size, about.st_mtime_ns, about.st_ctime_ns


def content_of_files(root: Path, files: Iterable[str]) -> Content:
    """The content of files under root, whatever their order.

    stamp: sha256 of each one's path under root, size and time of change; while that is the same, none is read. sha256: of each
    one's path, size and a sample of its bytes (`PIECES`): a change between the samples of a large file is not seen.
    """
    paths = sorted({os.path.relpath(path, root) for path in files})

    def digest() -> str:
        key = root.resolve(), content.stamp
        if key not in _digests:
            _digests[key] = _sampled(root, paths)
        return _digests[key]

    content = Content(digest, partial(_stamped, root, paths))
    return content


def _stamped(root: Path, paths: list[str]) -> str:
    digest = hashlib.sha256()
    for path in counted(paths, "looking at files", len(paths)):
        about = os.stat(root / path)
        digest.update(_line(path, about.st_size, about.st_mtime_ns))
    return digest.hexdigest()


def _sampled(root: Path, paths: list[str]) -> str:
    def lines(some: list[str]) -> list[bytes]:
        return [_line(path, *_sample(root / path)) for path in some]

    digest = hashlib.sha256()
    pool = ThreadPoolExecutor(os.cpu_count())
    try:
        made = pool.map(lines, (paths[k : k + AT_ONCE] for k in range(0, len(paths), AT_ONCE)))
        for line in counted(chain.from_iterable(made), "hashing files", len(paths)):
            digest.update(line)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)  # Ctrl-C does not wait for the rest
    return digest.hexdigest()


def _sample(path: Path) -> tuple[int, str]:
    """A file's size, and sha256 of its sampled bytes."""
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size <= PIECE * PIECES:
            return size, hashlib.sha256(file.read(PIECE * PIECES)).hexdigest()
        digest = hashlib.sha256()
        for k in range(PIECES):
            file.seek((size - PIECE) * k // (PIECES - 1))
            digest.update(file.read(PIECE))
        return size, digest.hexdigest()


def _line(path: str, *about: object) -> bytes:
    return f"{path}\0{about}\n".encode(errors="surrogateescape")
