"""Run folders broken by chance: `make` trains one, `mutate` breaks a file of it, `check` sees that all who read it either take
it or refuse it in one line that names it."""

import copy
import io
import json
import math
import os
import pickle
import random
import shutil
import zipfile
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import tiny
import torch

from staa import Model, load
from staa.cli import main
from staa.export.share import share
from staa.recipes import RECIPES
from staa.runs import evaluate_run, run
from staa.runs.folder import read_recipe

FILES = ("recipe.json", "environment.json", "result.json", "log.jsonl", "last.pt", "best.safetensors")
JUNK: list[Any] = [
    None, True, -1, 0, 3, 2**40, 10**400, 0.5, -1e308, math.nan, math.inf, "", "x", "last", "\0", "\x1b[31m", "x.py:f", "/etc",
    [], [1], {}, {"a": 1}, "y" * 10_000,
]  # fmt: skip
recipe = replace(
    tiny.recipe,
    name="broken",
    epochs=2,
    model=Model(name="resnet20", steps=2, width=0.02, neuron="lif", attention=None),
    optim=replace(RECIPES["digits-events"].optim, ema=0.5),
)
forecast = replace(
    RECIPES["series-linear"], name="broken", data=replace(RECIPES["series-linear"].data, name=f"{tiny.__file__}:series")
)


def make(folder: Path, *, series: bool = False) -> Path:
    """A finished run, of images or of a series, whose files this process knows."""
    for _ in run(forecast if series else recipe, folder):
        pass
    return folder


def mutate(folder: Path, name: str, chance: random.Random, marker: Path | None = None) -> None:
    """Break a file of a run: its bytes, or what they mean, checksums right. marker: a folder that code in it would make."""
    path = folder / name
    data = path.read_bytes()
    deep = {".json": _json, ".jsonl": _lines, ".pt": _checkpoint, ".safetensors": _safetensors}[path.suffix]
    broken = deep(data, chance, marker) if chance.random() < 0.6 else _bytes(data, chance)
    path.write_bytes(broken)


def check(folder: Path, name: str | None = None) -> Literal["accepted", "refused"]:
    """Have those who read a file of a run folder read it, or all of it: AssertionError if one raises what is no clear error, or
    does not name the folder."""
    fresh = folder.with_name(folder.name + "-resumed")
    outcomes = set()

    def resume() -> None:
        shutil.rmtree(fresh, ignore_errors=True)
        shutil.copytree(folder, fresh)
        (fresh / "result.json").unlink(missing_ok=True)
        for _ in run(read_recipe(fresh), fresh, resume=fresh, stop=lambda: True):
            pass

    def out() -> None:
        shutil.rmtree(folder.with_name("shared"), ignore_errors=True)
        share(folder, folder.with_name("shared"))

    readers: dict[Callable[[], object], tuple[str, ...]] = {
        lambda: load(folder, weights="last"): ("recipe.json", "last.pt"),
        lambda: load(folder, weights="best"): ("best.safetensors",),
        lambda: evaluate_run(folder): ("environment.json",),
        resume: ("recipe.json", "environment.json", "log.jsonl", "last.pt"),
        out: ("environment.json", "log.jsonl", "result.json"),
        lambda: list(run(read_recipe(folder), folder, resume=folder)): ("result.json",),
    }
    for reader, files in readers.items():
        if name is not None and name not in files:
            continue
        try:
            reader()
            outcomes.add("accepted")
        except (ValueError, OSError, FloatingPointError) as error:
            complaint = error
            outcomes.add("refused")
        else:
            continue
        text = str(complaint)
        assert len(text) < 2000, text
        assert str(folder) in text or isinstance(complaint, FloatingPointError) or _of_a_setting(text), text
    if name in (None, "result.json"):
        with open(os.devnull, "w") as quiet, redirect_stderr(quiet), redirect_stdout(quiet):
            code = main(["train", "--resume", str(folder)])
        assert code in (0, 2), code
    return "refused" if "refused" in outcomes else "accepted"


def _of_a_setting(text: str) -> bool:
    """Settings of a sound recipe that a changed one may have, and that do not fit each other, are named instead of the file."""
    return any(f"{part}" in text for part in ("data.", "model.", "optim.", "loss.", "augment.", "series.", "unknown ", "steps"))


def _bytes(data: bytes, chance: random.Random) -> bytes:
    at, length = chance.randrange(len(data)), chance.choice([1, 2, 8, 100])
    kind = chance.randrange(7)
    if kind == 0:
        return data[:at]
    if kind == 1:
        return data[:at] + chance.randbytes(length) + data[at + length :]
    if kind == 2:
        return data[:at] + chance.randbytes(length) + data[at:]
    if kind == 3:
        return data[:at] + data[at + length :]
    if kind == 4:
        return data[:at] + bytes([data[at] ^ 1 << chance.randrange(8)]) + data[at + 1 :]
    if kind == 5:
        return chance.choice([b"", b"\0" * 100, b"[" * 100_000, chance.randbytes(100), b"{}", b"null", b'{"a": ' * 5000])
    return data[: at // 2] + data[at:]


def _places(value: Any) -> list[tuple[Any, Any]]:
    """(container, key) of everything in nested lists and dicts."""
    here = list(value.items()) if isinstance(value, dict) else list(enumerate(value)) if isinstance(value, list) else []
    return [(value, key) for key, _ in here] + [place for _, inner in here for place in _places(inner)]


def _change(value: Any, chance: random.Random, junk: list[Any]) -> Any:
    value = copy.deepcopy(value)
    for _ in range(chance.choice([1, 1, 1, 3])):
        places = _places(value)
        if not places:
            break
        container, key = chance.choice(places)
        kind = chance.randrange(6)
        if kind == 0:
            del container[key]
        elif kind == 1 and isinstance(container, dict):
            container[chance.choice(["folder", "x", "step", "__class__"])] = chance.choice(junk)
        elif kind == 2:
            other, name = chance.choice(places)
            container[key] = copy.deepcopy(other[name])
        else:
            container[key] = chance.choice(junk)
    return value


def _json(data: bytes, chance: random.Random, _: Path | None) -> bytes:
    return json.dumps(_change(json.loads(data), chance, JUNK)).encode()


def _lines(data: bytes, chance: random.Random, marker: Path | None) -> bytes:
    lines = data.splitlines()
    k = chance.randrange(len(lines))
    lines[k] = _json(lines[k], chance, marker)
    return b"\n".join(lines)


def _checkpoint(data: bytes, chance: random.Random, marker: Path | None) -> bytes:
    if marker is not None and chance.random() < 0.2:
        return _with_code(data, chance, marker)
    junk = [
        *JUNK,
        torch.zeros(3),
        torch.zeros(()),
        torch.zeros(1).expand(2**40),
        torch.tensor([math.nan]),
        torch.zeros(2, 3).long(),
    ]
    state = _change(torch.load(io.BytesIO(data), weights_only=True), chance, junk)
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


class _Code:
    def __init__(self, marker: Path):
        self.marker = marker

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.marker),)


def _with_code(data: bytes, chance: random.Random, marker: Path) -> bytes:
    """The checkpoint with another pickle, or packed."""
    pickled = chance.choice(
        [
            pickle.dumps({"model": {}, "step": _Code(marker)}, protocol=2),
            b"\x80\x02c__builtin__\nbytearray\nJ\xff\xff\xff\x7f\x85R.",
            b"\x80\x02ctorch\nTensor\nJ\xff\xff\xff\x7f\x85R.",
            b"\x80\x02" + b"]" * 50_000 + b"a" * 49_999 + b".",
        ]
    )
    buffer = io.BytesIO()
    packed = chance.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(buffer, "w", packed) as new:
        for member in old.infolist():
            new.writestr(member.filename, pickled if member.filename.endswith("data.pkl") else old.read(member))
    return buffer.getvalue()


def _safetensors(data: bytes, chance: random.Random, _: Path | None) -> bytes:
    length = int.from_bytes(data[:8], "little")
    header = _change(json.loads(data[8 : 8 + length]), chance, [*JUNK, "F16", "I32", "F8_E4M3", "F4", [2**62, 4], [0, 2**63]])
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data[8 + length :]
