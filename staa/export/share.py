"""A copy of a run for others: what it says of this machine, its user and its folders is left out."""

import getpass
import io
import json
import os
import re
import socket
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from staa.data import read_graph
from staa.files import FORMAT, read_bytes, write
from staa.recipes.as_json import parse_json, to_json
from staa.recipes.code import COPY, for_folder, named_files
from staa.recipes.recipe import Recipe
from staa.runs.folder import ENVIRONMENT, RECIPE, RESULT, check_origin
from staa.runs.load import Run, opened
from staa.runs.log import LOG, lines
from staa.training.checkpoint import BEST, LAST, MODEL, checkpoint_bytes, load_measured, published_bytes
from staa.training.weights import measured_weights, read_weights

GONE = "removed"
PATH = re.compile(
    r"""(?: (?<!\w) [A-Za-z]:[/\\]                            # C:\x, C:/x
          | (?<![\w./\\]) ~[\w.-]*[/\\]                       # ~/x, ~user/x
          | (?<![\w.]) \.\.[/\\]                             # ../x
          | (?<![\w./\\]) (?<!http:) (?<!https:) [/\\](?=\S)  # /x, \\host\x, file:///x
        ) .*""",
    re.VERBOSE | re.DOTALL,
)
"""A path that leads somewhere on a machine, and all after it: a name in it may hold spaces, so that none says where it ends."""
PRIVATE = ("data_root", "command", "job")
SHARED_GRAPHS = ("metr-la", "pems-bay")
"""Series whose graph is published in a file with edges of other nodes too."""
ORDINARY = {"", "root", "user", "localhost", "removed"}
"""Names of users and machines that say nothing of anybody."""


def share(run: Run | str | Path, out: Path | None = None) -> Path:
    """Copy a run to a new folder, or a .zip, for others, without what it says of this machine, and return where it is.

    The copy holds recipe.json, environment.json without command and data root, result.json, log.jsonl, best.safetensors,
    last.pt without what only a resumed run needs, the run's own code and its graph. In texts, "removed" stands for the user,
    the host, and an absolute path with all that follows it; of a path to the data or the run, what lies in their folder is
    kept. `staa.load`, `evaluate_run` and the others take it, with data_root if its data lie in files. Nothing is run.

    Args:
        run: A `staa.Run`, or a run folder, your own or a stranger's.
        out: Folder to make, or a file that ends in .zip; None: NAME-shared here.

    Raises:
        FileNotFoundError: If there is no such run.
        ValueError: If the run is broken; if `out` is there already; if its code or graph names the user, the machine or their
            folders; if a file of it is reached through a link, its code lies outside the folder, or its graph is none.
    """
    run = opened(run)
    out = Path(f"{run.folder.resolve().name}-shared") if out is None else out
    if out.exists() or out.is_symlink():
        raise ValueError(f"{out} is there already: choose another `out`")
    files = shared_files(run)
    out.parent.mkdir(parents=True, exist_ok=True)
    if out.suffix == ".zip":
        return _zip(files, out)
    out.mkdir()
    for name, data in files.items():
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        write(out / name, data)
    return out


def shared_files(run: Run, *, pickled: bool = True) -> dict[str, bytes]:
    """The files of a shared run, by their names in its folder. pickled: with last.pt; else model.safetensors stands for it, as
    in a published run. Raises ValueError as `share` does."""
    run_folder = run.folder
    root = run_folder.resolve()
    for name in (RECIPE, ENVIRONMENT, RESULT, LOG, LAST, BEST, MODEL):
        _inside(root, name)
    recipe, environment = run.recipe, run.environment
    for name in named_files(recipe):
        if COPY.fullmatch(name) is None:
            raise ValueError(
                f"{run_folder} names code outside it, {name}, as runs of older versions do, and only what is in a run folder "
                f"is copied: train the run anew to share it"
            )
    clean = cleaner(root, environment)
    kept, code = for_folder(recipe)
    files = dict(code)
    fields = parse_json(to_json(kept))
    if recipe.series.graph is not None:
        name, graph = _graph(root, recipe, environment)
        files[name], fields["series"]["graph"] = graph, name
    files[RECIPE] = text = _json(clean, fields, root / RECIPE)
    about = {k: v for k, v in environment.items() if k not in PRIVATE}
    files[ENVIRONMENT] = _json(clean, {"format": FORMAT, **about}, root / ENVIRONMENT)
    if (root / RESULT).is_file():
        files[RESULT] = _json(clean, {"format": FORMAT, **run.result}, root / RESULT)
    if (root / LOG).is_file():
        files[LOG] = b"".join(_lines(clean, root / LOG))
    path, checkpoint = load_measured(run_folder)
    check_origin(checkpoint, recipe, path)
    kept = {"recipe": text.decode(), "step": checkpoint["step"], "model": measured_weights(checkpoint)}
    last = LAST if pickled else MODEL
    files[last] = bytes(checkpoint_bytes(kept)) if pickled else published_bytes(kept)
    if (run_folder / BEST).is_file():
        read_weights(run_folder / BEST)
        files[BEST] = read_bytes(run_folder / BEST)
    # A short name of a machine occurs by chance among the bytes of weights, which hold no text but their names.
    weights = {last: "\n".join(measured_weights(checkpoint)).encode(), BEST: b""}
    for name, data in files.items():
        found = _private(root, environment, weights.get(name, data))
        if found:
            raise ValueError(
                f"{run_folder / name if name in code else name} names {found!r}, which is not for others: take it out"
            )
    return files


def _inside(root: Path, name: str) -> Path:
    """The path of a file in the run folder. Raises ValueError for a link, and for what lies outside."""
    path = root / name
    if path.resolve() != path:
        raise ValueError(f"{path} is a link or lies outside the run folder: only what is in a run folder is copied")
    return path


def _graph(root: Path, recipe: Recipe, environment: dict[str, Any]) -> tuple[str, bytes]:
    """The run's graph: its name in a shared run, and its content.

    A run that was trained here names its graph by an absolute path, and a stranger's may do so too: only what is a graph of
    the run's variates is copied.
    """
    graph, names = recipe.series.graph or "", environment["data"].get("names")
    path = Path(graph) if Path(graph).is_absolute() else _inside(root, graph)
    if names is None:
        raise ValueError(f"{root / RECIPE} names a graph, {graph}, but {ENVIRONMENT} names no variates that it could be of")
    others = "skip" if recipe.data.name in SHARED_GRAPHS else "refuse"
    try:
        read_graph(path, tuple(names), distances=recipe.series.distances, others=others)
    except ValueError as error:
        raise ValueError(
            f"{path} is not copied, as it is no graph of the run's variates: {' '.join(str(error).split())}"
        ) from error
    return f"graph/{path.name}", read_bytes(path)


def _zip(files: dict[str, bytes], out: Path) -> Path:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(f"{out.stem}/{name}"), data)  # with no date and no user
    return write(out, buffer.getvalue(), new=True)


def _json(clean: Callable[[Any], Any], values: Any, path: Path, indent: int | None = 2) -> bytes:
    try:
        return (json.dumps(clean(values), indent=indent) + "\n").encode()
    except RecursionError as error:
        raise ValueError(f"{path} is nested too deeply to be copied") from error


def _lines(clean: Callable[[Any], Any], path: Path) -> Iterator[bytes]:
    try:
        events = [event for _, event in lines(path)]
    except ValueError as error:
        raise ValueError(f"{path} can't be copied: {error}") from error
    for event in events:
        if isinstance(event, dict):
            yield _json(clean, {k: v for k, v in event.items() if k not in PRIVATE}, path, None)


def _folders(root: Path, environment: dict[str, Any], *, own: bool = False) -> list[str]:
    """Folders of this machine and user, the longest first; own: of the run and its data alone."""
    told = [str(root), environment.get("data_root") or ""]
    told += [] if own else [str(Path.home()), os.getcwd(), str(root.parent)]
    return sorted({path for path in told if len(path) > 1}, key=len, reverse=True)


def _names() -> set[str]:
    """What user and machine are called."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # a container without an entry for the user
        user = ""
    return {user, Path.home().name, socket.gethostname(), socket.gethostname().partition(".")[0]} - ORDINARY


def cleaner(root: Path, environment: dict[str, Any]) -> Callable[[Any], Any]:
    """What takes user, machine and folders of a run at `root` out of the texts of its records."""
    folders, names = _folders(root, environment, own=True), _names()
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
        value = PATH.sub(GONE, value)
        return value if words is None else words.sub(GONE, value)

    return clean


def _private(root: Path, environment: dict[str, Any], data: bytes) -> str | None:
    """What of this machine or its user is in a file, as a path or a word of its own."""
    for text in [*_folders(root, environment), *_names()]:
        if re.search(rb"(?<![A-Za-z0-9])" + re.escape(text.encode()) + rb"(?![A-Za-z0-9])", data):
            return text
    return None
