"""Arrays and packed text in the bytes of a file: checked before anything is allocated, and nothing is unpickled."""

import io
import math
import zipfile
import zlib
from collections.abc import Callable, Container
from typing import IO

import numpy as np

from staa.files import check_bytes, max_bytes

HEADER = 1 << 17  # bytes that hold any header of a .npy file which NumPy accepts
SAID = 200  # characters of another library's error, or of a file's word, in a message


def arrays_in(data: bytes, what: str) -> dict[str, np.ndarray]:
    """The arrays in the bytes of a .npz by name, or the one of a .npy under ""; `what` is their name in messages. Nothing is
    unpickled, and nothing inflates past `max_bytes`.

    Raises ValueError for what is truncated, no such file, too large, or holds Python objects.
    """
    if not data.startswith(b"PK"):
        return {"": parse_array(data, what)}
    archive, members = check_members(io.BytesIO(data), what)
    check_bytes(sum(member.file_size for member in members.values()), what)
    try:
        # With a length: else zipfile inflates all there is, whatever length it is said to have.
        unpacked = {name: archive.open(member).read(member.file_size) for name, member in members.items()}
    except Exception as error:  # … zlib.error, RuntimeError of an encrypted one
        raise _broken(what, error) from error
    return {name: parse_array(content, f"{what}, array {name!r}") for name, content in unpacked.items()}


def check_members(
    file: IO[bytes], what: str, choose: Callable[[list[str]], Container[str]] | None = None
) -> tuple[zipfile.ZipFile, dict[str, zipfile.ZipInfo]]:
    """The archive of a .npz, and the chosen arrays in it by name. Raises ValueError for what NumPy would not write."""
    try:
        archive = zipfile.ZipFile(file)
    except Exception as error:  # zipfile raises BadZipFile, struct.error, UnicodeDecodeError, NotImplementedError …
        raise _broken(what, error) from error
    members = {member.filename.removesuffix(".npy"): member for member in archive.infolist()}
    if len(members) < len(archive.infolist()):
        raise ValueError(f"{what} holds several arrays of one name: save it again")
    if choose is not None:
        chosen = choose(list(members))
        members = {name: member for name, member in members.items() if name in chosen}
    if not {member.compress_type for member in members.values()} <= {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
        raise ValueError(f"{what} is not packed as numpy does it: save it again with numpy.savez_compressed")
    return archive, members


def _broken(what: str, error: Exception) -> ValueError:
    return ValueError(f"{what} can't be read as .npz ({str(error)[:SAID]}): copy or save it again")


def parse_array(data: bytes | memoryview, what: str) -> np.ndarray:
    """The array in the bytes of a .npy file, as a view of them. Raises ValueError, naming `what`, as `arrays_in` does."""
    shape, by_columns, dtype, start = check_array(data[:HEADER], len(data), what)
    if len(data) == start:
        try:
            return np.empty(shape, dtype)
        except (ValueError, OverflowError, MemoryError) as error:
            raise ValueError(f"{what} is no NumPy array: {error}") from error
    return np.frombuffer(data, dtype, offset=start).reshape(shape, order="F" if by_columns else "C")


def check_array(head: bytes | memoryview, size: int, what: str) -> tuple[tuple[int, ...], bool, np.dtype, int]:
    """(shape, whether it lies by columns, dtype, where it begins) of the array in a .npy file of so many bytes, by its first
    `HEADER`. Raises ValueError, naming `what`, for what is no such file, of another length, or holds Python objects."""
    file = io.BytesIO(head)
    try:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, by_columns, dtype = read(file)
    except Exception as error:  # the header is parsed as Python: ValueError, SyntaxError, TokenError, RecursionError …
        raise ValueError(f"{what} can't be read as a NumPy array ({str(error)[:SAID]}): copy or save it again") from error
    if dtype.hasobject:
        raise ValueError(f"{what} holds Python objects, which are never unpickled: save plain arrays of numbers")
    expected, found = math.prod(shape) * dtype.itemsize, size - file.tell()
    if not all(type(n) is int for n in shape):  # NumPy takes True for 1
        raise ValueError(f"{what} is no NumPy array: its shape is {str(shape)[:SAID]}")
    if expected != found or min(shape, default=1) < 0:
        told = expected if expected < 1 << 63 else "far more"  # which may have more digits than Python prints
        raise ValueError(
            f"{what} is truncated or no NumPy array: expected {told} bytes for shape {str(shape)[:SAID]}, found {found}"
        )
    return shape, by_columns, dtype, file.tell()


def inflate(data: bytes, what: str) -> bytes:
    """What gzip packed into the bytes. Raises ValueError for what is broken, or takes more than `max_bytes` unpacked."""
    limit, pieces = max_bytes(), []
    try:
        while data:
            unpacker = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
            pieces.append(unpacker.decompress(data, limit + 1))
            limit -= len(pieces[-1])
            if limit < 0:
                check_bytes(max_bytes() + 1, f"{what}, unpacked,")
            if not unpacker.eof:
                raise zlib.error("it ends too early")
            data = unpacker.unused_data.lstrip(b"\0")  # another member, or what fills a block up
    except zlib.error as error:
        raise ValueError(f"{what} can't be unpacked ({error}): copy or save it again") from error
    return b"".join(pieces)
