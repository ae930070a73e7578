"""Files that this process reads and writes: bounded when it reads, whole and never through a link when it writes.

A file is data, and nothing in it is believed before it is checked: what is no regular file is refused at once (a pipe would
hang), and no more memory is allocated on a file's word than `max_bytes` allows.
"""

import errno
import io
import math
import os
import re
import reprlib
import secrets
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

FORMAT = 1
"""Number of the format of what a run writes. A file without one is older than the number, and is read as format 0. It goes up
if an older version could not read a file, or would read it wrongly; tests/versions then takes run folders of the one before."""
LIMIT = "STAA_MAX_BYTES"
"""Environment variable with the limit of `max_bytes`, so that worker processes have it too."""
UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
NO_LINK = getattr(os, "O_NOFOLLOW", 0)  # flags that not every system has
AT_ONCE = getattr(os, "O_NONBLOCK", 0)
LEFT_OVER = re.compile(r"\.[^/]+\.[0-9a-f]{16}\.tmp")


def max_bytes() -> int:
    """Bytes that one file may make this process allocate: STAA_MAX_BYTES (such as 8G), else half of the machine's memory.

    Raises ValueError for a limit that is no size.
    """
    told = os.environ.get(LIMIT)
    if told is not None:
        return parse_bytes(told)
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    except (AttributeError, ValueError, OSError):  # not POSIX
        return 4 * 2**30


def parse_bytes(text: str) -> int:
    """A size such as 500M, 8G, 8GiB or 1000000. Raises ValueError for any other text."""
    match = re.fullmatch(r"(\d{1,15})\s*([KMGT]?)(?:i?B)?", text.strip(), re.IGNORECASE)
    if match is None or int(match[1]) == 0:
        raise ValueError(f"a limit of memory must be a size such as 500M or 8G, got {text!r}")
    return int(match[1]) * UNITS[match[2].upper()]


def check_no_file(path: Path, expected: str) -> None:
    """Raises ValueError if a file is in the place of a folder. expected: what that folder holds."""
    if path.exists() and not path.is_dir():
        packed = path.name.lower().endswith((".zip", ".tar", ".gz", ".tgz"))
        what = "unpack it, and give the folder that comes out" if packed else "give a folder"
        raise ValueError(f"{path} is a file, not a folder: {what}, which holds {expected}")


def check_bytes(needed: int, what: str) -> None:
    """Raises ValueError if `what` would take more than `max_bytes`."""
    limit = max_bytes()
    if needed > limit:
        raise ValueError(
            f"{what} would take {_size(needed)} of memory, the limit is {_size(limit)}: if you trust it, raise the limit with "
            f"{LIMIT}={_size(needed, up=True).replace(' ', '')}"
        )


def open_regular(path: Path) -> IO[bytes]:
    """A regular file, open to read. Raises OSError if it is not there, ValueError for a folder, a pipe or a device."""
    descriptor = os.open(path, os.O_RDONLY | AT_ONCE | getattr(os, "O_BINARY", 0))
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        kind = "a folder" if stat.S_ISDIR(mode) else "a pipe" if stat.S_ISFIFO(mode) else "a device or a socket"
        raise ValueError(f"{path} is no regular file but {kind}: give a file")
    return open(descriptor, "rb")


def read_bytes(path: Path) -> bytes:
    """A file's content. Raises what `open_regular` does, and ValueError for a file larger than `max_bytes`."""
    with open_regular(path) as file:
        check_bytes(os.fstat(file.fileno()).st_size, str(path))
        return _read(file, -1, path)


def pieces_of(path: Path, size: int) -> Iterator[bytes]:
    """A file's content, so many bytes at a time. Raises what `open_regular` does."""
    with open_regular(path) as file:
        while piece := _read(file, size, path):
            yield piece


def _read(file: IO[bytes], size: int, path: Path) -> bytes:
    try:
        return file.read(size)
    except OSError as error:  # which names no file
        raise OSError(error.errno, error.strerror, str(path)) from error


def read_text(path: Path) -> str:
    """A UTF-8 text file's content. Raises what `read_bytes` does, and ValueError for what is no such text."""
    try:
        return read_bytes(path).decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no text in UTF-8 ({error.reason} at byte {error.start}): save it as UTF-8") from error


def naming(what: object, error: Exception) -> str:
    """What an error says, after the name of what it is of, unless it begins with that."""
    return str(error) if str(error).startswith(str(what)) else f"{what}: {error}"


def check_format(found: Any, what: Path | str) -> None:
    """Raises ValueError for a format that is newer than `FORMAT`, or no number."""
    if type(found) is not int or found < 0:
        raise ValueError(f"{what} is broken: its format must be a whole number, got {reprlib.repr(found)}")
    if found > FORMAT:
        raise ValueError(
            f"{what} was written by a newer version of staa: its format is {found if found < 10**9 else 'far higher'}, this "
            f"one reads up to {FORMAT}; upgrade staa"
        )


def write(path: Path, data: bytes | memoryview, *, keep: Path | None = None, sync: bool = True, new: bool = False) -> Path:
    """Write a file atomically, through a new file of an unguessable name beside it: a link at `path` is replaced, not followed.

    keep: where the file that was there goes. sync: wait until the disk has it; a cache that checks itself need not. new:
    replace nothing, not even what another process has just put there.
    Raises RuntimeError, with what was there untouched, if the disk is full or not writable, or if new and a file is there.
    """
    temporary = _beside(path)
    try:
        with open(temporary, "xb", opener=_new) as file:
            file.write(data)
            if sync:
                file.flush()
                os.fsync(file.fileno())
        if keep is not None and path.exists():
            _copy(path, keep)
        if new:
            _place(temporary, path)
        else:
            os.replace(temporary, path)
        if sync:
            _sync_folder(path.parent)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        kept = f"; the {path.name} there is untouched" if path.exists() else ""
        raise RuntimeError(f"could not write {path}: {error.strerror or error}{kept}") from error
    return path


def check_new(path: Path, what: str = "name") -> None:
    """Raises ValueError for a file that is there, and what `check_writable` does. what: what to choose another one of."""
    if path.exists() or path.is_symlink():
        raise ValueError(f"{path} is there already: choose another {what}")
    check_writable(path)


def check_writable(path: Path) -> None:
    """Raises ValueError if a file at `path` could not be written or replaced, its folder made if need be; OSError for a name
    that is too long. Nothing is left there."""
    if path.is_dir():
        raise ValueError(f"{path} is a folder: a file goes there, so move it or choose another place")
    parent = next(folder for folder in path.absolute().parents if folder.exists() or folder.is_symlink())
    try:
        with tempfile.TemporaryFile(dir=parent):
            pass
    except OSError as error:
        raise ValueError(f"{path} can't be written: {parent}: {error.strerror or error}; choose another place") from error


def save_text(path: Path, text: str, *, new: bool = False) -> Path:
    """Write a text file in UTF-8, as `write` does."""
    return write(path, text.encode(), new=new)


def save_with(path: Path, save: Callable[[IO[bytes]], object]) -> Path:
    """Write, as `write` does, what a function such as a figure's savefig writes into an open file."""
    buffer = io.BytesIO()
    save(buffer)
    return write(path, buffer.getbuffer())


@contextmanager
def writing(path: Path, *, new: bool = False) -> Iterator[IO[bytes]]:
    """A new file that is written piece by piece within the block, and is at `path` once the block has come to its end. new:
    replace nothing. Raises RuntimeError, with what was there untouched, if the disk is full or not writable, or if new and a
    file is there."""
    temporary = _beside(path)
    try:
        with open(temporary, "xb", opener=_new) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if new:
            _place(temporary, path)
        else:
            os.replace(temporary, path)
        _sync_folder(path.parent)
    except OSError as error:
        raise RuntimeError(f"could not write {path}: {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)


def append_text(path: Path, text: str) -> None:
    """Add text to the end of a file, on a line of its own. Raises OSError, also for a link or a pipe in the file's place."""
    with open(path, "ab+", opener=_new_or_regular) as file:
        if file.tell():
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":  # a full disk cut the last line off
                file.write(b"\n")
        file.write(text.encode())


def inside(folder: Path, name: str) -> Path:
    """A folder in a folder. Raises ValueError for a link in its place, which could lead anywhere."""
    path = folder / name
    if path.is_symlink():
        raise ValueError(f"{path} is a link, through which nothing is written: remove it")
    return path


def _new(path: str, flags: int) -> int:
    return os.open(path, flags | NO_LINK, 0o666)


def _new_or_regular(path: str, flags: int) -> int:
    descriptor = _new(path, flags | AT_ONCE)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "it is no regular file", path)
    return descriptor


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name[:40]}.{secrets.token_hex(8)}.tmp")


def _copy(source: Path, target: Path) -> None:
    temporary = _beside(target)
    try:
        os.link(source, temporary, follow_symlinks=False)
    except OSError:  # a file system without hard links
        with open_regular(source) as old, open(temporary, "xb", opener=_new) as new:
            shutil.copyfileobj(old, new)
    os.replace(temporary, target)


def _place(temporary: Path, path: Path) -> None:
    """Give a file a name that nothing has. Raises FileExistsError."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
        os.replace(temporary, path)
    else:
        temporary.unlink()


def _sync_folder(folder: Path) -> None:
    if os.name != "posix":  # elsewhere a folder can't be opened
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _size(count: int, *, up: bool = False) -> str:
    """Such as 64 GiB; up: rounded up to a whole number of the unit."""
    power = min((max(count, 1).bit_length() - 1) // 10, 4)
    value, unit = count / 1024**power, ("bytes", "KiB", "MiB", "GiB", "TiB")[power]
    return f"{math.ceil(value)} {unit[0] if power else ''}".strip() if up else f"{value:.4g} {unit}"
