"""Ways to break a file that know its format, and keep its checksums and lengths right where it has any.

As those of `benchmarks.mutators`, they are f(data, random) -> data.
"""

import gzip
import io
import pickle
import re
import struct
import zipfile
import zlib
from random import Random
from typing import Any

import numpy as np

from benchmarks.mutators import BLIND, BOMB, HOSTILE_NAMES, Mutator, Payload, flip_bits


def npy(array: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=True)
    return file.getvalue()


def in_npy(data: bytes, random: Random) -> bytes:
    """Another header over the same bytes, another array, or pickled objects."""
    what = random.random()
    if what < 0.25:
        return npy(np.array([Payload(), {"a": 1}], dtype=object))
    if what < 0.5:
        odd = (
            np.zeros(0), np.zeros((0, 4)), np.array(3.0), np.zeros((2, 3, 4)), np.array([1 + 2j]), np.array(["a\x1b", "b"]),
            np.array([np.nan] * 9), np.array([b"x"]), np.full((3, 3), np.inf), np.array(["NaT"], "datetime64[ns]"),
            np.zeros(3, "f2,i1"), np.full(5, -(2**63)), np.full((3, 3), 1e300), np.ones((3, 3), bool), np.zeros((1, 1), "V0"),
            np.array([2**64 - 1], np.uint64), np.zeros(2, "S0"),
        )  # fmt: skip
        return npy(random.choice(odd))
    header, end = _npy_header(data)
    if header is None:
        return data
    shapes = [
        "()", "(0,)", "(-1,)", "(1, -1)", f"({BOMB},)", f"({2**62}, 4)", f"({2**40}, 0)", "(3)", "None", "(1.5,)", "(True,)",
        "(" * 300 + ")" * 300,
    ]  # fmt: skip
    dtypes = [
        "'<f8'", "'>i4'", "'O'", "'|O'", "'<U9'", "'V0'", "'S0'", f"'<U{2**28}'", "[('t', '<i8'), ('x', 'O')]", "'<M8[ns]'",
        "'c16'", "'nonsense'", "3",
    ]  # fmt: skip
    text = random.choice(
        (
            re.sub(r"'shape': \([^)]*\)", lambda _: "'shape': " + random.choice(shapes), header),
            re.sub(r"'descr': (?:'[^']*'|\[.*?\])", lambda _: "'descr': " + random.choice(dtypes), header),
            header.replace("False", "True"),
            header.replace("{", "{'a': __import__('os').system('true'), "),
            header[: len(header) // 2],
            "[" * 5000,
        )
    )
    body = text.encode("latin-1")
    version = random.choice((1, 1, 1, 2, 3, 9))
    length = struct.pack("<H", len(body) % 65536) if version == 1 else struct.pack("<I", len(body))
    return b"\x93NUMPY" + bytes([version, 0]) + length + body + data[end:]


def _npy_header(data: bytes) -> tuple[str | None, int]:
    if not data.startswith(b"\x93NUMPY\x01") or len(data) < 10:
        return None, 0
    end = 10 + struct.unpack_from("<H", data, 8)[0]
    return data[10:end].decode("latin-1"), end


def in_zip(inner: Mutator) -> Mutator:
    """A member of another content (its checksum right), name, packing or promised length; members lost, twice, or a bomb."""

    def mutate(data: bytes, random: Random) -> bytes:
        try:
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                members = [(info.filename, archive.read(info)) for info in archive.infolist()]
        except Exception:  # zipfile raises BadZipFile, zlib.error, struct.error, NotImplementedError …
            members = []
        if not members:
            return data
        k, packing = random.randrange(len(members)), zipfile.ZIP_STORED
        name, content = members[k]
        what = random.random()
        if what < 0.5:
            members[k] = name, random.choice((inner, inner, *BLIND))(content, random)
        elif what < 0.6:
            members[k] = random.choice(HOSTILE_NAMES[:-1]).replace("\0", "?") or "?", content
        elif what < 0.67:
            del members[k]
        elif what < 0.74:
            members.append((random.choice(members)[0], content))
        elif what < 0.745:
            members[k] = name, _zeros(content)
            packing = zipfile.ZIP_DEFLATED
        else:
            packing = random.choice((zipfile.ZIP_DEFLATED,) * 4 + (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA))
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w", compresslevel=1) as archive:
            for name, content in members:  # with no date, so that the mutant is the same at any time
                archive.writestr(zipfile.ZipInfo(name), content, compress_type=packing)
        out = bytearray(file.getvalue())
        if what > 0.9:  # lengths that lie, in the local header and in the table of contents
            for mark, offset in ((b"PK\x01\x02", 24), (b"PK\x03\x04", 22)):
                at = out.find(mark)
                if random.random() < 0.7:
                    out[at + offset : at + offset + 4] = struct.pack("<I", random.choice((0, 1, BOMB, 2**32 - 1)))
        return bytes(out)

    return mutate


def _zeros(content: bytes) -> bytes:
    """Many zeros, after the header that says so if there is one."""
    return (npy(np.zeros(0))[:10] + content[10:128] if content.startswith(b"\x93NUMPY") else b"") + bytes(BOMB >> 3)


def pickled(data: bytes, random: Random) -> bytes:
    """A pickle that would run code, or an odd object."""
    deep: Any = []
    for _ in range(100):
        deep = [deep]
    objects = (
        Payload(),
        {"model": Payload(), "step": 1},
        deep,
        3,
        {"model": 1, "step": 2},
        {"model": {}, "step": "x"},
        {1: 2},
        b"x",
        None,
    )
    return pickle.dumps(random.choice(objects), protocol=2)


def in_gzip(inner: Mutator) -> Mutator:
    """The text within, compressed again; or a bomb."""

    def mutate(data: bytes, random: Random) -> bytes:
        if random.random() < 0.005:
            return gzip.compress(bytes(BOMB >> 3), 1, mtime=0)
        try:
            text = gzip.decompress(data)
        except Exception:
            return data
        return gzip.compress(random.choice((inner, *BLIND))(text, random), 1, mtime=0)

    return mutate


def in_safetensors(inner: Mutator) -> Mutator:
    """Another JSON header, with the length that fits it."""

    def mutate(data: bytes, random: Random) -> bytes:
        if len(data) < 8:
            return data
        (length,) = struct.unpack_from("<Q", data)
        header = inner(data[8 : 8 + length], random)
        return struct.pack("<Q", random.choice((len(header),) * 6 + (2**63, 0))) + header + data[8 + length :]

    return mutate


def in_png(data: bytes, random: Random) -> bytes:
    """A chunk of another content with the right checksum; another size of the picture; chunks lost, twice or new."""
    chunks, at = [], 8
    while at + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, at)
        chunks.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + length]))
        at += 12 + length
    if not chunks:
        return data
    k = random.randrange(len(chunks))
    name, body = chunks[k]
    what = random.random()
    if what < 0.35:
        width, height = (random.choice((0, 1, 20_000, 30_000, 2**31 - 1, 2**32 - 1, 7)) for _ in range(2))
        chunks[0] = (
            b"IHDR",
            struct.pack(">II", width, height)
            + bytes([random.choice((1, 8, 16, 3)), random.choice((0, 2, 3, 4, 6, 9)), 0, 0, 0]),
        )
    elif what < 0.6:
        chunks[k] = name, random.choice(BLIND)(body, random)
    elif what < 0.7:
        del chunks[k]
    elif what < 0.8:
        chunks.insert(k, chunks[k])
    else:
        text = b"a\0\0" + zlib.compress(bytes(1 << 24), 1)
        new = (
            (b"zTXt", text),
            (b"iCCP", text),
            (b"tRNS", b"\0" * 6),
            (b"PLTE", b"\1" * 768),
            (b"acTL", b"\xff" * 8),
            (b"eXIf", b"MM\0*\0\0\0\x08" * 9),
        )
        chunks.insert(min(1, k), random.choice(new))
    out = data[:8]
    for name, body in chunks:
        out += struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
    return out


def in_hdf(data: bytes, random: Random) -> bytes:
    """Attributes that are pickles, data of another type or shape, links that lead elsewhere: written by h5py."""
    import h5py

    file = io.BytesIO(data)
    try:
        with h5py.File(file, "r+") as h5:
            nodes: list[Any] = [h5]
            h5.visititems(lambda _, node: nodes.append(node))
            node = random.choice(nodes)
            what = random.random()
            if what < 0.3:
                pickles = (
                    pickle.dumps(Payload(), 0),
                    pickle.dumps({"a": Payload()}, 2),
                    b"\x80\x05.",
                    b"cos\nsystem\n(S'true'\ntR.",
                )
                name = random.choice([*node.attrs, "info", "values", "new"])
                node.attrs[name] = (
                    np.bytes_(random.choice(pickles)) if random.random() < 0.6 else np.void(random.choice(pickles))
                )
            elif what < 0.45:
                name = random.choice([*node.attrs, "pandas_type", "encoding"])
                node.attrs[name] = random.choice(
                    (1, -1, 2**62, "x" * 1000, "\x1b[31m", np.zeros(3), "frame", "frame_table", "series", "")
                )
            elif what < 0.55:
                for name in list(node.attrs)[: random.choice((1, 99))]:
                    del node.attrs[name]
            else:
                sets = [n for n in nodes if isinstance(n, h5py.Dataset)]
                path = random.choice(sets).name
                del h5[path]
                if what < 0.65:
                    return_to = (
                        h5py.ExternalLink("/etc/passwd", "/x"),
                        h5py.SoftLink(path),
                        h5py.SoftLink("/"),
                        h5py.HardLink(),
                    )
                    choice = random.choice(return_to)
                    h5[path] = h5["/"] if isinstance(choice, h5py.HardLink) else choice
                elif what < 0.75:  # no byte of it is there
                    h5.create_dataset(path, shape=(random.choice((BOMB, 2**40)), 4), dtype="f8", chunks=(1024, 4))
                elif what < 0.95:
                    odd = (
                        np.zeros(0), np.zeros((2, 3, 4)), np.array(1.0), np.full((4, 4), np.inf), np.array([b"a", b"\x1b"]),
                        np.arange(9), np.zeros((3, 3), "f4"), np.array([(1, 2.0)], "i4,f8"), np.full(60, 2**62),
                        np.array([b"x"] * 60), np.array([1 + 1j] * 4),
                    )  # fmt: skip
                    h5[path] = random.choice(odd)
        return file.getvalue()
    except (OSError, RuntimeError, ValueError, KeyError, TypeError):  # what h5py would not write
        return flip_bits(data, random)
