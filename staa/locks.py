"""A run folder is held by one process at a time."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from staa.files import LEFT_OVER

fcntl: Any
try:
    import fcntl
except ImportError:
    fcntl = None

LOOKING = 0.1  # seconds for which another process that only looks at a folder is waited for

_held: set[int] = set()  # descriptors of the folders that this process holds
if hasattr(os, "register_at_fork"):  # else worker processes, which outlive a killed parent for a while, would hold them too
    os.register_at_fork(after_in_child=lambda: [os.close(d) for d in _held])


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Hold a run folder, made if need be, for this process alone; folders made and left empty are removed again.

    The lock dies with the process. What a killed process left half-written is removed. Raises ValueError if another process
    holds the folder, or a file is in its place; OSError if it can't be made.
    """
    made = [p for p in (folder, *folder.parents) if not p.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        file = next(p for p in (folder, *folder.parents) if p.exists())
        raise ValueError(f"{folder} can't be made, since {file} is a file: choose another folder") from error
    descriptor = None
    if fcntl is not None:  # a system without such locks goes without
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            _lock(descriptor)
        except OSError as error:
            os.close(descriptor)
            raise ValueError(f"{folder} is in use by another process: wait for it, or choose another folder") from error
        _held.add(descriptor)
        for path in folder.iterdir():
            if LEFT_OVER.fullmatch(path.name):
                path.unlink(missing_ok=True)
    try:
        yield
    finally:
        if descriptor is not None:
            _held.remove(descriptor)
            os.close(descriptor)
        with suppress(OSError):  # the first that is not empty ends it
            for path in made:
                path.rmdir()


def is_held(folder: Path) -> bool | None:
    """Whether a process holds a folder by `exclusive`; None on a system that can't tell. Raises OSError if it can't be read."""
    if fcntl is None:
        return None
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _lock(descriptor: int) -> None:
    """Take the lock of a folder; `is_held` of another process has it for a moment too."""
    until = time.monotonic() + LOOKING
    while True:
        try:
            return fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > until:
                raise
            time.sleep(LOOKING / 10)
