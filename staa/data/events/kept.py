"""Files of the cache: an array and some facts, checked by their CRC-32."""

import hashlib
import io
import json
import os
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from staa.arrays import parse_array
from staa.files import read_bytes, write

CHECKSUM = 4  # bytes at the end


def key_of(recording: str, path: str, root: Path, how: object) -> str:
    """The name of what follows from a recording in a file, by the file's path under root, its length and time; how: from what
    else it follows. Raises OSError if the file is not there."""
    about = os.stat(path)
    which = [os.path.relpath(recording, root), about.st_size, about.st_mtime_ns]
    return hashlib.sha256(json.dumps([which, how]).encode(errors="surrogateescape")).hexdigest()[:40]


def kept(file: Path, facts: int = 0) -> tuple[np.ndarray, list[int]] | None:
    """The array and so many facts that `keep` has written; None if they are not there or not whole."""
    try:
        data = memoryview(read_bytes(file))
        content, checksum = data[:-CHECKSUM], data[-CHECKSUM:]
        if zlib.crc32(content) != int.from_bytes(checksum, "little") or len(content) < 8 * facts:
            return None
        end = len(content) - 8 * facts
        return parse_array(content[:end], str(file)), np.frombuffer(content[end:], "<i8").tolist()
    except (OSError, ValueError):
        return None


def keep(file: Path, array: np.ndarray, facts: Sequence[int] = ()) -> None:
    """Write them: a .npy, the facts as int64, little-endian, and the CRC-32 of both. Raises OSError if that can't be done."""
    out = io.BytesIO()
    np.save(out, array, allow_pickle=False)
    out.write(np.array(facts, "<i8").tobytes())
    out.write(zlib.crc32(out.getbuffer()).to_bytes(CHECKSUM, "little"))
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write(file, out.getbuffer(), sync=False)
    except (OSError, RuntimeError) as error:
        text = f"frames can't be kept in {file.parent} ({error}): set STAA_FRAMES to a folder that can be written to"
        raise OSError(text) from error
