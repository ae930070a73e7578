"""Ways to break a file: blind ones for any bytes, and those for text, tables and JSON.

A mutator is f(data, random) -> data. Everything follows from the random generator that it is given.
"""

import json
import re
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

Mutator = Callable[[bytes, Random], bytes]

INTEGERS = [
    0, 1, -1, 2, 127, 128, 255, 256, 32767, 32768, 65535, 65536, 2**31 - 1, 2**31, 2**32 - 1, 2**62, 2**63 - 1, -(2**31),
    -(2**63),
]  # fmt: skip
TWO_LINES = "a\nb"
"""A name whose newline an error may quote: the command makes one line of it."""
HOSTILE_NAMES = [
    "../../../tmp/x", "/etc/passwd", "\x1b[31mred", TWO_LINES, "\u202egnp", "x" * 5000, "", "\0", "=1+1", "__class__", "C:\\x",
]  # fmt: skip
CANARY = "canary.py"
"""A file of Python beside the mutated one, which nothing may run."""
BOMB = 1 << 30  # bytes that some mutants promise, or unpack to


class Payload:
    """What unpickles to a call of os.system."""

    def __reduce__(self) -> tuple[Any, ...]:
        import os

        return os.system, ("true",)


def flip_bits(data: bytes, random: Random) -> bytes:
    out = bytearray(data)
    for _ in range(random.choice((1, 1, 1, 2, 4, 16))):
        if out:
            out[_place(out, random)] ^= 1 << random.randrange(8)
    return bytes(out)


def set_run(data: bytes, random: Random) -> bytes:
    at, length = _place(data, random), random.choice((1, 2, 4, 8, 64, 512))
    run = random.choice((b"\0" * length, b"\xff" * length, random.randbytes(length)))
    return data[:at] + run + data[at + length :]


def set_integer(data: bytes, random: Random) -> bytes:
    at, size = _place(data, random), random.choice((1, 2, 4, 8))
    value = random.choice(INTEGERS) & ((1 << 8 * size) - 1)
    return data[:at] + value.to_bytes(size, random.choice(("little", "big"))) + data[at + size :]


def truncate(data: bytes, random: Random) -> bytes:
    return data[: _place(data, random)] if random.random() < 0.9 else b""


def insert(data: bytes, random: Random) -> bytes:
    at = _place(data, random)
    return data[:at] + random.randbytes(random.choice((1, 2, 3, 8, 100))) + data[at:]


def duplicate(data: bytes, random: Random) -> bytes:
    a, b = sorted((_place(data, random), _place(data, random)))
    return data[:b] + data[a:b] * random.choice((1, 1, 3)) + data[b:]


def remove(data: bytes, random: Random) -> bytes:
    a = _place(data, random)
    return data[:a] + data[a + random.choice((1, 2, 4, 8, 64, 1024)) :]


def swap(data: bytes, random: Random) -> bytes:
    a, b = sorted((_place(data, random), _place(data, random)))
    c = min(len(data), b + max(1, b - a))
    return data[:a] + data[b:c] + data[a:b] + data[c:]


BLIND: tuple[Mutator, ...] = (
    flip_bits,
    flip_bits,
    set_run,
    set_integer,
    set_integer,
    truncate,
    insert,
    duplicate,
    remove,
    swap,
)


def _place(data: bytes | bytearray, random: Random) -> int:
    """A place in the file: half of them in its first or last 200 bytes, which hold headers and tables of contents."""
    size = max(len(data), 1)
    near = min(size, 200)
    return random.choice(
        (random.randrange(size), random.randrange(size), random.randrange(near), size - 1 - random.randrange(near))
    )


def numbers_in_text(data: bytes, random: Random) -> bytes:
    """Another number in the text of a header."""
    found = list(re.finditer(rb"\d+", data[:4000]))
    if not found:
        return data
    where = random.choice(found)
    value = str(random.choice((*INTEGERS, 10**30, random.randrange(10**6))))
    if random.random() < 0.5:  # as long as it was, so that the lengths around it hold
        value = value.lstrip("-")[: len(where[0])].rjust(len(where[0]), "9")
    return data[: where.start()] + value.encode() + data[where.end() :]


def replaced_by(*others: bytes) -> Mutator:
    """Another file under this one's name."""
    return lambda data, random: random.choice(others)


def in_json(odd: Sequence[Any]) -> Mutator:
    """A value of another type or size, a name that is lost, changed or new."""
    values = [
        None, True, False, 0, -1, 1, 2.5, 1e308, -1e-320, 2**31, 2**63, 10**40, float("nan"), float("inf"), "", "1", "None", [],
        {}, [[]], "x" * 100_000, list(range(1000)), {"a": 1}, "\ud800", *HOSTILE_NAMES, *INTEGERS, *odd,
    ]  # fmt: skip

    def mutate(data: bytes, random: Random) -> bytes:
        tree = json.loads(data)
        spots = _spots(tree)
        if not spots or random.random() < 0.03:
            return json.dumps(random.choice(values)).encode()
        for _ in range(random.choice((1, 1, 1, 2, 3))):
            node, key = random.choice(spots)
            what = random.random()
            if what < 0.08 and isinstance(node, dict):
                node.pop(key, None)
            elif what < 0.14 and isinstance(node, dict):
                node[random.choice(HOSTILE_NAMES)] = node.pop(key, None)
            elif what < 0.2:
                node[key] = "@deep@"
            elif isinstance(node, dict) or key < len(node):
                node[key] = random.choice(values)
        depth = random.choice((50, 5000, 200_000))
        return json.dumps(tree).replace('"@deep@"', "[" * depth + "]" * depth).encode()

    return _unless_broken(mutate)


def names_in_json(names: Sequence[str]) -> Mutator:
    """One of these names in the place of one or two texts or nulls."""

    def mutate(data: bytes, random: Random) -> bytes:
        tree = json.loads(data)
        named = [(node, key) for node, key in _spots(tree) if isinstance(node[key], (str, type(None)))]
        for node, key in random.sample(named, k=min(len(named), random.choice((1, 1, 2)))):
            node[key] = random.choice(names)
        return json.dumps(tree).encode()

    return _unless_broken(mutate)


def _spots(tree: Any) -> list[tuple[Any, Any]]:
    """(object or list, key) of every value."""
    spots = []
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in items:
        spots += [(tree, key), *_spots(value)]
    return spots


def _unless_broken(mutate: Mutator) -> Mutator:
    """Leave alone what an earlier mutation made no JSON of."""

    def mutate_or_not(data: bytes, random: Random) -> bytes:
        try:
            return mutate(data, random)
        except (ValueError, RecursionError):
            return data

    return mutate_or_not


def in_lines(inner: Mutator) -> Mutator:
    """One line of several."""

    def mutate(data: bytes, random: Random) -> bytes:
        lines = data.splitlines(keepends=True)
        if not lines:
            return data
        k = random.randrange(len(lines))
        lines[k] = inner(lines[k], random) + b"\n"
        return b"".join(lines)

    return mutate


def in_table(data: bytes, random: Random) -> bytes:
    """A cell, a row or the encoding of a text table."""
    rows = [line.split(b",") for line in data.split(b"\n")]
    k = random.randrange(len(rows))
    cells = [
        b"", b"nan", b"inf", b"-inf", b"1e999", b"9" * 400, b"x", b'"', b'"a\nb"', b"=1+1", b"\0", b"\xff", b"2024-13-45",
        b"NaT", b"0x10", b"1_000", b"1;2", b"\x1b[31m", b"," * 50, b"x" * 100_000, b"True", b"2024-01-01T00:00+05:00", b"None",
        b"-999999999-01-01",
    ]  # fmt: skip
    what = random.random()
    if what < 0.6:
        rows[k][random.randrange(len(rows[k]))] = random.choice(cells)
    elif what < 0.7:
        rows[k] = rows[k][:-1]
    elif what < 0.8:
        rows.insert(k, random.choice(rows))
    elif what < 0.85:
        del rows[k]
    elif what < 0.9:
        rows[0] = [rows[0][0]] * len(rows[0])
    else:
        return random.choice(
            (
                data.decode(errors="replace").encode("utf-16"),
                b"\xef\xbb\xbf" + data,
                data.replace(b",", b";"),
                data.replace(b"\n", b"\r"),
            )
        )
    return b"\n".join(map(b",".join, rows))
