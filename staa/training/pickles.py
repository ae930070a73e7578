"""A checkpoint's pickle, followed without calling anything in it."""

import io
import pickle
import pickletools
import re
import zipfile
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from typing import Any

ITEM = {
    "Double": 8, "Float": 4, "Half": 2, "BFloat16": 2, "Long": 8, "Int": 4, "Short": 2, "Char": 1, "Byte": 1, "Bool": 1,
    "ComplexDouble": 16, "ComplexFloat": 8,
}  # fmt: skip
"""Bytes of one number in each kind of storage that a checkpoint may have."""
TENSORS = re.compile(rf"collections OrderedDict|torch\._utils _rebuild_tensor_v2|torch ({'|'.join(ITEM)})Storage")
"""What a checkpoint's pickle may name: with these alone nothing is called that could allocate by itself."""
PICKLE = "data.pkl"
PARTS = re.compile(
    r"data\.pkl|byteorder|version|\.format_version|\.storage_alignment|\.data/serialization_id|data/\d+", re.ASCII
)
"""What torch.save puts into an archive."""
ATOMS = {
    "NONE", "NEWTRUE", "NEWFALSE", "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "GLOBAL", "EMPTY_DICT",
    "EMPTY_LIST", "EMPTY_TUPLE",
}  # fmt: skip
TAKES: dict[str, int | None] = {
    "APPEND": 1, "APPENDS": None, "SETITEM": 2, "SETITEMS": None, "BUILD": 1, "TUPLE": None, "TUPLE1": 1, "TUPLE2": 2,
    "TUPLE3": 3, "REDUCE": 2, "BINPERSID": 1,
}  # fmt: skip
"""Opcodes of a checkpoint's pickle: those that add a value, and how many values the others take (None: down to the mark)."""
DEEPEST = 4  # a tensor's arguments hold its storage's tuple and its sizes
PER_OPCODE = 64  # bytes of memory that one byte of a pickle can ask for: an empty dict's


def repacked(data: bytes) -> io.BytesIO:
    """A checkpoint's members, checked and written anew. torch reads these bytes, so it can't find others than were checked.

    Raises BadZipFile for what `torch.save` does not write, UnpicklingError as `check_pickle` does.
    """
    sound = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as archive, zipfile.ZipFile(sound, "w") as copy:
        members = archive.infolist()
        if not data.startswith(b"PK\x03\x04") or min((m.header_offset for m in members), default=0) != 0:
            raise zipfile.BadZipFile("something lies before its first part")
        if any(m.compress_type != zipfile.ZIP_STORED for m in members) or sum(m.file_size for m in members) > len(data):
            raise zipfile.BadZipFile("it is packed, which no checkpoint is")
        parts = {m.filename.partition("/")[2]: m for m in members}
        if len(parts) < len(members):
            raise zipfile.BadZipFile("two parts have one name")
        if odd := [name for name in parts if not PARTS.fullmatch(name)]:
            raise zipfile.BadZipFile(f"it has a part {odd[0]!r}")
        check_pickle(archive.read(parts[PICKLE]), {name: m.file_size for name, m in parts.items()})
        for name, member in parts.items():
            copy.writestr(f"archive/{name}", archive.read(member))  # which compares the checksum
    sound.seek(0)
    return sound


def check_pickle(data: bytes, sizes: Mapping[str, int]) -> Any:
    """Follow a checkpoint's pickle and return its plain values, with None for tensors and lists. Nothing in it is called.

    sizes: bytes of the archive's members, by name.

    Raises UnpicklingError for an opcode or a name that no checkpoint has, and for tuples that nest deeper than one's do: to
    hash a tuple nested deep enough overflows the stack. Raises BadZipFile for a tensor that claims more or fewer bytes than
    its member has: some versions of torch read past the end.
    """
    stack: list[tuple[Any, int]] = []  # values, as far as they are atoms and tuples, each with how deep its tuples nest
    below: list[list[tuple[Any, int]]] = []
    memo: dict[Any, tuple[Any, int]] = {}
    for op, arg, _ in pickletools.genops(data):
        name = op.name
        if name == "GLOBAL" and not TENSORS.fullmatch(str(arg)):
            raise pickle.UnpicklingError(f"it names {arg}")
        if name in ATOMS:
            stack.append(({} if name == "EMPTY_DICT" else arg, 0))
        elif name in ("BINPUT", "LONG_BINPUT"):
            memo[arg] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(memo[arg])
        elif name == "MARK":
            below.append(stack)
            stack = []
        elif name in TAKES:
            taken = stack if TAKES[name] is None else [stack.pop() for _ in range(TAKES[name] or 0)][::-1]
            stack = below.pop() if TAKES[name] is None else stack
            if name.startswith("TUPLE"):
                depth = 1 + max((depth for _, depth in taken), default=0)
                if depth > DEEPEST:
                    raise pickle.UnpicklingError("it nests tuples too deep")
                stack.append((tuple(value for value, _ in taken), depth))
            elif name == "BINPERSID":
                ((_, kind, key, _, numel), _) = taken[0]
                if sizes.get(f"data/{key}") != numel * ITEM[kind.removeprefix("torch ").removesuffix("Storage")]:
                    raise zipfile.BadZipFile(f"a tensor's bytes, data/{key}, are not as many as it says")
                stack.append((None, 0))
            elif name == "REDUCE":
                stack.append((None, 0))
            elif name.startswith("SETITEM"):
                keys, values = taken[::2], taken[1::2]
                if any(type(key) not in (str, int) for key, _ in keys):
                    raise pickle.UnpicklingError("a key is neither text nor a whole number")
                if isinstance(stack[-1][0], dict):
                    stack[-1][0].update((key, value) for (key, _), (value, _) in zip(keys, values, strict=True))
        elif name not in ("PROTO", "STOP"):
            raise pickle.UnpicklingError(f"it has the opcode {name}")
    return stack[-1][0]


def plain(state: Any) -> Any:
    """A state whose ordered dicts are plain ones, without the attributes that a pickle can give them (even `items`).

    Raises UnpicklingError for keys that are neither text nor a whole number.
    """
    holder = [state]
    made: dict[int, tuple[Any, dict[Any, Any]]] = {}  # the old ones too, so that no id is taken twice
    for value in walk(holder):
        if isinstance(value, dict) and any(type(key) not in (str, int) for key in value):
            raise pickle.UnpicklingError("a key is neither text nor a whole number")
        if not isinstance(value, dict | list | tuple):
            continue
        for key, inner in list(value.items() if isinstance(value, dict) else enumerate(value)):
            if isinstance(inner, OrderedDict):
                if isinstance(value, tuple):
                    raise pickle.UnpicklingError("a tuple holds a dict")
                value[key] = made.setdefault(id(inner), (inner, dict.copy(inner)))[1]
    return holder[0]


def walk(state: Any) -> Iterator[Any]:
    """A state and all that it holds, each once, outer before inner: what is yielded may be given other content on the spot.

    Not recursive, since a file can nest as deep as it likes.
    """
    waiting: list[Any] = [state]
    seen: set[int] = set()
    while waiting:
        value = waiting.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        yield value
        if isinstance(value, dict):
            waiting += [*value.keys(), *value.values()]
        elif isinstance(value, list | tuple | set):
            waiting += value


def brief(error: Exception) -> str:
    """The first line of what a library says, which may quote a file at length."""
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
