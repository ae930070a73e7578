"""Trained networks from elsewhere: the few in this package, and runs on a hub, which huggingface_hub reads and writes."""

import hashlib
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from staa.export.card import check_licence, model_card
from staa.export.share import shared_files
from staa.files import check_bytes, read_bytes, read_text, write
from staa.recipes.code import CODE
from staa.registry import unknown
from staa.runs.folder import ENVIRONMENT, RECIPE, RESULT
from staa.runs.load import Run, opened
from staa.runs.log import LOG
from staa.training.checkpoint import BEST, MODEL

WEIGHTS = Path(__file__).parent / "weights"
SUMS = "SHA256SUMS"
"""In a folder of weights/: the sha256 of each of its files, as `sha256sum` writes and checks them."""
NAME = re.compile(r"\w[\w.-]*/\w[\w.-]*", re.ASCII)
NEEDED = (RECIPE, ENVIRONMENT, MODEL)
TAKEN = (*NEEDED, RESULT, LOG, BEST, f"{CODE}/*.py", "graph/*")
"""The files of a published run: no other is downloaded."""
MOST = 64  # files


def pretrained(name: str) -> Run:
    """A trained network of this package, as the run that trained it: no download, no network.

        run = staa.pretrained("digits-events")
        run.predict("three.png"), run.result["test_accuracy"], run.model()

    Args:
        name: Such as "digits-events"; `staa.hub.pretrained_names()` lists them.

    Raises:
        ValueError: If there is none of this name, or a file of it is not what was installed.
    """
    if name not in pretrained_names():
        raise ValueError(unknown("pretrained network", name, pretrained_names()))
    folder = WEIGHTS / name
    for line in read_text(folder / SUMS).splitlines():
        digest, _, file = line.partition("  ")
        if not (folder / file).is_file() or hashlib.sha256(read_bytes(folder / file)).hexdigest() != digest:
            raise ValueError(f"{folder / file} is missing or damaged: install staa anew")
    return Run(folder)


def pretrained_names() -> list[str]:
    """What `pretrained` takes."""
    return sorted(path.parent.name for path in WEIGHTS.glob(f"*/{SUMS}"))


def from_pretrained(
    name: str | Path, *, revision: str | None = None, data_root: Path | None = None, trust: bool = False
) -> Run:
    """A run that was pushed to a hub, or one in a folder.

        run = staa.from_pretrained("org/name", revision="v1")

    What has been downloaded is kept in huggingface_hub's cache, and taken from there if the hub can't be reached. A folder of
    this name comes first. Only the files of a published run are downloaded, and none larger than `staa.files.max_bytes`.

    Args:
        name: The repository, or a run folder.
        revision: A branch, a tag or a commit of the repository; None: its main branch as it is now.
        data_root: Where the run's data are, if they lie in files.
        trust: Let Python files in the run's folder run, if the run has parts of its own. Read them first.

    Raises:
        ImportError: If the package huggingface_hub is missing.
        FileNotFoundError: If there is no such folder, repository or revision.
        ConnectionError: If the hub can't be reached and the run is not in the cache.
        PermissionError: If the hub lets others alone read it.
        ValueError: If it is no run that was pushed, or is broken or too large.
    """
    if isinstance(name, Path) or Path(name).is_dir() or not NAME.fullmatch(name):
        if not Path(name).exists():
            raise FileNotFoundError(f"{name} is no folder here, and no name of a repository such as org/name")
        if revision is not None:
            raise ValueError(f"`revision` is of a repository, and {name} is a folder here: leave it out")
        return Run(name, data_root=data_root, trust=trust)
    return Run(_downloaded(name, revision), data_root=data_root, trust=trust)


def push(run: Run | str | Path, name: str, *, public: bool = False, licence: str | None = None, update: bool = False) -> str:
    """Copy a finished run to a hub, with a model card, and return the address of the commit.

    What goes there is what `staa.export.share` copies, with safetensors in the place of checkpoints: nothing of this machine,
    no pickle. The token is huggingface_hub's own: `hf auth login`, or HF_TOKEN.

    Args:
        run: A `staa.Run`, or a run folder.
        name: The repository, such as "org/name", which is made if need be.
        public: Let all read it, and not its owner alone.
        licence: A licence's name on the hub, such as "apache-2.0"; None: the card says that it is not known.
        update: Replace a run that is there already, in a new commit.

    Raises:
        ImportError: If the package huggingface_hub is missing.
        ValueError: If an argument is out of range, the run can't be shared or is not finished, or one is there already.
        FileNotFoundError: If there is no such run.
        PermissionError: If there is no token, or it may not write there.
        ConnectionError: If the hub can't be reached.
    """
    if not NAME.fullmatch(name):
        raise ValueError(f"a repository is called org/name, got {name!r}")
    check_licence(licence)
    run = opened(run)
    if not run.finished:
        raise ValueError(f"{run.folder} is not finished, and so has no figures to publish: resume it first")
    files = shared_files(run, pickled=False) | {"README.md": model_card(run, name, licence=licence).encode()}
    hub = _hub()
    if hub.get_token() is None:
        raise PermissionError("there is no token of the hub: call `hf auth login`, or set HF_TOKEN")
    api = hub.HfApi()
    with _asking(name):
        try:
            there = api.model_info(name)
        except hub.errors.RepositoryNotFoundError:
            there = None
        held = set() if there is None else {file.rfilename for file in there.siblings or ()}
        if RECIPE in held and not update:
            raise ValueError(f"{name} holds a run already: choose another name, or say `update=True` for a new commit")
        if there is None:
            api.create_repo(name, private=not public)
        elif bool(there.private) == public:
            what = "private: leave `public` out" if public else "public: say so with `public`"
            raise ValueError(f"{name} is there and {what}, or choose another name")
        gone = [file for file in held - files.keys() if any(fnmatch(file, pattern) for pattern in TAKEN)]
        operations: list[Any] = [hub.CommitOperationAdd(file, data) for file, data in files.items()]
        operations += [hub.CommitOperationDelete(file) for file in gone]
        about = {"commit_message": f"A run of staa: {len(files)} files", "parent_commit": there.sha if there else None}
        return str(api.create_commit(name, operations, **about).commit_url)


def _downloaded(name: str, revision: str | None) -> Path:
    """The folder of a repository's run in the cache."""
    hub, where = _hub(), {"repo_id": name, "revision": revision}
    try:
        with _asking(name, revision):
            info = hub.HfApi().model_info(name, revision=revision, files_metadata=True)
    except ConnectionError as error:
        try:
            folder = Path(hub.snapshot_download(**where, allow_patterns=list(TAKEN), local_files_only=True))
        except Exception as missing:  # as huggingface_hub has them, in versions
            raise ConnectionError(f"{error}; in the cache there is no whole {name}") from missing
        if not hub.constants.HF_HUB_OFFLINE:  # else it was asked for
            warnings.warn(f"{error}: {name} is as it was when it was last downloaded", stacklevel=3)
        return folder
    sizes = {file.rfilename: file.size for file in info.siblings or ()}
    sizes = {file: size for file, size in sizes.items() if any(fnmatch(file, pattern) for pattern in TAKEN)}
    missing = [file for file in NEEDED if file not in sizes]
    if missing:
        raise ValueError(f"{name} is no run that staa has pushed: it has no {', '.join(missing)}")
    if len(sizes) > MOST or any(type(size) is not int or size < 0 for size in sizes.values()):
        raise ValueError(
            f"{name} is no run that staa has pushed: it has {len(sizes)} files, or does not say how large they are"
        )
    for file, size in sizes.items():
        check_bytes(size, f"{file} of {name}")
    with _asking(name, revision):
        folder = Path(hub.snapshot_download(**where, allow_patterns=list(sizes)))
    if folder.name != info.sha:
        raise ValueError(f"{name} was changed while it was downloaded: try again")
    for path in folder.glob(f"{CODE}/*.py"):  # the cache has links, through which no code is read
        if path.is_symlink():
            write(path, read_bytes(path))
    return folder


def _hub() -> Any:
    try:
        import huggingface_hub
    except ImportError as error:
        raise ImportError('a hub is read and written by the package huggingface_hub: pip install "staa-snn[hub]"') from error
    return huggingface_hub


@contextmanager
def _asking(name: str, revision: str | None = None) -> Iterator[None]:
    """What a hub answers, as errors of Python that say it in a line."""
    from huggingface_hub import constants, errors

    try:
        yield
    except errors.RevisionNotFoundError as error:
        raise FileNotFoundError(f"{name} has no branch, tag or commit {revision!r}") from error
    except errors.GatedRepoError as error:
        raise PermissionError(f"{name} asks you to agree to its terms first, at {constants.ENDPOINT}/{name}") from error
    except errors.RepositoryNotFoundError as error:
        raise FileNotFoundError(
            f"there is no {name} at {constants.ENDPOINT} that your token may read, and no such folder here"
        ) from error
    except errors.HfHubHTTPError as error:
        status, told = error.response.status_code, " ".join(str(error.server_message or error).split())[:200]
        if status in (401, 403):
            raise PermissionError(f"the hub does not let this token work on {name}: {told}") from error
        raise ConnectionError(f"{constants.ENDPOINT} answered {status}: {told}") from error
    except (ValueError, PermissionError, FileNotFoundError):
        raise
    except Exception as error:  # such as httpx's ConnectError, which is no OSError
        told = " ".join(str(error).split())[:200]
        raise ConnectionError(f"{constants.ENDPOINT} can't be reached ({told})") from error
