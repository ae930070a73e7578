"""A copy of a run for others: what it says of this machine, its user and its folders is left out."""

import getpass
import io
import json
import os
import re
import socket
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from staa.checkpoint import BEST, LAST, load_checkpoint, measured_weights, read_weights
from staa.config import parse_json, to_json
from staa.files import read_bytes, read_text, write
from staa.find import for_folder
from staa.runfolder import ENVIRONMENT, LOG, RECIPE, RESULT, check_origin, read_environment, read_recipe, read_result

GONE = "removed"
PATH = re.compile(r"(?<![\w.:/\\])(?:~?/|[A-Za-z]:\\)[^\s'\"`,;()\[\]{}<>|]+")
ORDINARY = {"", "root", "user", "localhost", "removed"}
"""Names of users and machines that say nothing of anybody."""


def share(run_folder: Path, out: Path | None = None) -> Path:
    """Copy a run to a new folder, or to a .zip if `out` ends so, and return where it is; out: None is NAME-shared here.

    It holds recipe.json, environment.json without command and data root, result.json, log.jsonl, best.safetensors, last.pt
    without what only a resumed run needs, the run's own code and its graph. In texts, absolute paths give way to their last
    part, and user and host to "removed". `staa.load`, `evaluate_run` and the others take it, with data_root said.

    Raises FileNotFoundError or ValueError for what is no run or is broken, an `out` that is there already, and code or a graph
    that names the user, the machine or their folders, which can't be taken out of it. Nothing is run.
    """
    root = run_folder.resolve()
    out = Path(f"{root.name}-shared") if out is None else out
    if out.exists() or out.is_symlink():
        raise ValueError(f"{out} is there already: choose another")
    recipe, environment = read_recipe(run_folder), read_environment(run_folder)
    clean = _cleaner(root, environment)
    files: dict[str, bytes] = {}
    kept, code = for_folder(recipe)
    files |= code
    fields = parse_json(to_json(kept))
    graph = recipe.series.graph
    if graph is not None:
        path = Path(recipe.folder or "", graph)
        files[f"graph/{path.name}"] = read_bytes(path)
        fields["series"]["graph"] = f"graph/{path.name}"
    text = _json(clean(fields))
    files[RECIPE] = text
    files[ENVIRONMENT] = _json(clean({k: v for k, v in environment.items() if k not in ("data_root", "command")}))
    if (run_folder / RESULT).is_file():
        files[RESULT] = _json(clean(read_result(run_folder)))
    if (run_folder / LOG).is_file():
        files[LOG] = b"".join(map(_line(clean), read_text(run_folder / LOG).splitlines()))
    checkpoint = load_checkpoint(run_folder)
    check_origin(checkpoint, recipe, run_folder / LAST)
    buffer = io.BytesIO()
    torch.save({"recipe": text.decode(), "step": checkpoint["step"], "model": measured_weights(checkpoint)}, buffer)
    files[LAST] = buffer.getvalue()
    if (run_folder / BEST).is_file():
        read_weights(run_folder / BEST)
        files[BEST] = read_bytes(run_folder / BEST)
    for name, data in files.items():
        found = _private(root, environment, data)
        if found:
            raise ValueError(
                f"{run_folder / name if name in code else name} names {found!r}, which is not for others: take it out"
            )
    out.parent.mkdir(parents=True, exist_ok=True)
    if out.suffix == ".zip":
        return _zip(files, out)
    for name, data in files.items():
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        write(out / name, data)
    return out


def _zip(files: dict[str, bytes], out: Path) -> Path:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(f"{out.stem}/{name}"), data)  # with no date and no user
    return write(out, buffer.getvalue())


def _json(values: Any) -> bytes:
    return (json.dumps(values, indent=2) + "\n").encode()


def _line(clean: Callable[[Any], Any]) -> Callable[[str], bytes]:
    def cleaned(line: str) -> bytes:
        try:
            event = parse_json(line)
        except ValueError:  # cut off by a crash
            return b""
        if not isinstance(event, dict):
            return b""
        return (json.dumps(clean({k: v for k, v in event.items() if k not in ("data_root", "command")})) + "\n").encode()

    return cleaned


def _folders(root: Path, environment: dict[str, Any]) -> list[str]:
    """Folders of this machine and user, the longest first."""
    told = [str(Path.home()), os.getcwd(), str(root), str(root.parent), environment.get("data_root") or ""]
    return sorted({path for path in told if len(path) > 1}, key=len, reverse=True)


def _names() -> set[str]:
    """What user and machine are called."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # a container without an entry for the user
        user = ""
    return {user, Path.home().name, socket.gethostname(), socket.gethostname().partition(".")[0]} - ORDINARY


def _cleaner(root: Path, environment: dict[str, Any]) -> Callable[[Any], Any]:
    folders, names = _folders(root, environment), _names()
    words = re.compile("|".join(rf"(?<![A-Za-z0-9]){re.escape(name)}(?![A-Za-z0-9])" for name in names)) if names else None

    def clean(value: Any) -> Any:
        if isinstance(value, dict):
            return {clean(k): clean(v) for k, v in value.items()}
        if isinstance(value, list | tuple):
            return [clean(v) for v in value]
        if not isinstance(value, str):
            return value
        for folder in folders:
            value = re.sub(re.escape(folder) + r"(?=$|[^\w.-])[/\\]?", "", value)
        value = PATH.sub(lambda found: re.split(r"[/\\]", found[0].rstrip("/\\"))[-1], value)
        return value if words is None else words.sub(GONE, value)

    return clean


def _private(root: Path, environment: dict[str, Any], data: bytes) -> str | None:
    """What of this machine or its user is in a file, as a path or a word of its own."""
    for text in [*_folders(root, environment), *_names()]:
        if re.search(rb"(?<![A-Za-z0-9])" + re.escape(text.encode()) + rb"(?![A-Za-z0-9])", data):
            return text
    return None
