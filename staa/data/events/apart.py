"""Recordings that a large library reads, such as HDF5: piece by piece, in a process of its own, with bounded memory.

Such a library may crash on a broken file, or inflate it however large it becomes. The child process runs this file as a script,
and in it the reader's file, so neither imports anything of the package at its top.

    child -> parent: a line of JSON; then, for each piece, uint32 n, and t, x, y, p as n numbers each; then uint32 2³² − 1
"""

import json
import os
import runpy
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

CHILD = str(Path(__file__).parents[1] / "child.py")
MISSING = 4  # exit status of a child that says on stderr which package is not installed
SECONDS = 120  # for a piece
PIECE = 1 << 20  # events at most
LAST = 2**32 - 1
LINE = 1 << 16  # bytes of the first line at most
UNLOCKED = {"HDF5_USE_FILE_LOCKING": "FALSE"}


def pieces_apart(reader: str, path: Path, *, library: str, stream: str | None = None) -> Iterator[tuple[dict, list[Any]]]:
    """What a reader finds in a file, piece by piece: what it says of the recording, and t, x, y, p as it has them.

    reader: a Python file with pieces_in(path, stream, limit) -> an iterator that gives a dictionary for JSON, then columns.
    library: what reads, in words. stream: which one of the file's recordings.

    Raises ValueError, saying what to do, for a file that the reader refuses or that takes too much time or memory, ImportError
    if it needs a package that is not there.
    """
    import numpy as np

    from staa.data.child import ENVIRONMENT, REFUSED
    from staa.files import max_bytes, open_regular

    open_regular(path).close()
    with tempfile.TemporaryFile() as says:
        child = subprocess.Popen(
            [sys.executable, "-P", __file__, reader, str(path), stream or "", str(max_bytes())],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=says,
            env={**os.environ, **ENVIRONMENT, **UNLOCKED},
        )
        assert child.stdout is not None
        try:
            about = json.loads(_in_time(child, child.stdout.readline, LINE) or "{}")
            types = [np.dtype(name) for name in about.get("types", ())]
            while about:
                head = _in_time(child, child.stdout.read, 4)
                if len(head) < 4:
                    break
                (count,) = struct.unpack("<I", head)
                if count == LAST:
                    return
                if count > PIECE or len(types) != 4 or any(kind.kind not in "biuf" for kind in types):
                    raise ValueError(f"it can't be read: {library} gave no events")
                columns = []
                for kind in types:
                    data = _in_time(child, child.stdout.read, count * kind.itemsize)
                    if len(data) < count * kind.itemsize:
                        break
                    columns.append(np.frombuffer(data, kind))
                if len(columns) < 4:
                    break
                yield about, columns
            status = child.wait()
            says.seek(0)
            text = " ".join(says.read(4000).decode(errors="replace").split())
            if status == MISSING:
                raise ImportError(text)
            if status == REFUSED:
                raise ValueError(text)
            raise ValueError(f"it can't be read: {library} crashed on it (status {status}); copy or download it again")
        finally:
            child.kill()
            child.stdout.close()
            child.wait()


def _in_time(child: subprocess.Popen[bytes], read: Any, size: int) -> bytes:
    """What `read` gives, unless it takes too long. Raises ValueError then."""
    late = threading.Event()

    def stop() -> None:
        late.set()
        child.kill()

    timer = threading.Timer(SECONDS, stop)
    timer.start()
    try:
        data = read(size)
    finally:
        timer.cancel()
    if late.is_set():
        raise ValueError("it can't be read: a piece of it took too long; copy or download it again")
    return data


def _main() -> None:
    _, file, path, stream, limit = sys.argv
    out, reader, child = sys.stdout.buffer, runpy.run_path(file), runpy.run_path(CHILD)
    try:
        for package in reader["PACKAGES"]:
            __import__(package)
    except ImportError:
        _refuse(f'it is read by the package {package}: pip install "staa-snn[events]"', MISSING)
    child["bound"](int(limit) + child["OVERHEAD"])
    try:
        pieces = reader["pieces_in"](path, stream or None, int(limit))
        types = None
        for about, columns in pieces:
            if types is None:
                types = [column.dtype.str for column in columns]
                out.write(json.dumps(about | {"types": types}).encode() + b"\n")
            if types != [column.dtype.str for column in columns]:
                raise ValueError("its pieces are of different types of numbers")
            out.write(struct.pack("<I", len(columns[0])))
            for column in columns:
                out.write(memoryview(column).cast("B") if len(column) else b"")
        out.write((b'{"types": []}\n' if types is None else b"") + struct.pack("<I", LAST))
        out.flush()
    except ImportError as error:
        _refuse(str(error), MISSING)
    except MemoryError:
        _refuse(f"it would take more memory than the limit of {int(limit):,} bytes: raise it with STAA_MAX_BYTES")
    except BrokenPipeError:
        os._exit(0)
    except ValueError as error:
        _refuse(str(error))


def _refuse(text: str, status: int | None = None) -> None:
    print(text, file=sys.stderr)
    raise SystemExit(status or runpy.run_path(CHILD)["REFUSED"])


if __name__ == "__main__":
    _main()
