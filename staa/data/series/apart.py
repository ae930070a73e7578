"""Files that a large library in C reads, such as HDF5 and Parquet: in a process of their own, with bounded memory and time.

Such a library inflates a file however large it becomes, and may crash on a broken one. The child process runs this file as a
script, and in it the reader's file, so neither imports anything of the package.
"""

import io
import json
import os
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

CHILD = str(Path(__file__).parents[1] / "child.py")
BYTES_A_SECOND = 2**20
ARROW = {"ARROW_DEFAULT_MEMORY_POOL": "system"}  # others reserve memory that they don't take


def read_apart(reader: str, data: bytes, what: str, limit: int, *, library: str, seconds: float) -> dict[str, Any]:
    """What a reader finds in a file's bytes: its arrays by name, and as "about" what else it says of them.

    reader: a Python file with PACKAGE, the package that it needs, TABLE, what it reads, and table_in(data, limit) -> (arrays,
    about). library: what reads, in words; seconds: how long it may take, and longer for a large file.

    Raises ValueError, saying what to do, for a file that the reader refuses or would take more than `limit` bytes, and if its
    package is not installed.
    """
    from staa.arrays import arrays_in
    from staa.data.child import ENVIRONMENT, REFUSED

    try:
        child = subprocess.run(
            [sys.executable, "-P", __file__, reader, str(limit)],
            input=data,
            capture_output=True,
            timeout=seconds + len(data) / BYTES_A_SECOND,
            env={**os.environ, **ENVIRONMENT, **ARROW},
        )
    except subprocess.TimeoutExpired as error:
        raise ValueError(f"{what} can't be read: {library} took too long; copy or save it again") from error
    if child.returncode == REFUSED:
        raise ValueError(f"{what} {' '.join(child.stderr.decode(errors='replace').split())}")
    if child.returncode:
        raise ValueError(f"{what} can't be read: {library} crashed on it (status {child.returncode}); copy or save it again")
    found: dict[str, Any] = arrays_in(child.stdout, what)
    found["about"] = json.loads(found["about"].tobytes())
    return found


def _main() -> None:
    """Bytes of a file on stdin, a .npz of its table on stdout."""
    reader, limit = runpy.run_path(sys.argv[1]), int(sys.argv[2])
    child = runpy.run_path(CHILD)
    try:
        __import__(reader["PACKAGE"])
        import numpy as np
    except ImportError:
        _refuse(f'is read by the package {reader["PACKAGE"]}: pip install "staa-snn[series]"')
    data = sys.stdin.buffer.read()
    child["bound"](len(data) + 3 * limit + child["OVERHEAD"])
    try:
        found, about = reader["table_in"](data, limit)
    except MemoryError:
        _refuse(f"would take more memory than the limit of {limit:,} bytes")
    except ValueError as error:
        _refuse(f"can't be read as {reader['TABLE']}: {error}")
    buffer = io.BytesIO()
    np.savez(buffer, about=np.frombuffer(json.dumps(about).encode(), np.uint8), **found)
    sys.stdout.buffer.write(buffer.getbuffer())


def _refuse(text: str) -> None:
    print(text, file=sys.stderr)
    raise SystemExit(runpy.run_path(CHILD)["REFUSED"])


if __name__ == "__main__":
    _main()
