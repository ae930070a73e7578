"""Files that survive a crash: written to a temporary file, synced, renamed; the checkpoint before the last is kept."""

import io
import os
import pickle
import shutil
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as to_safetensors
from torch import Tensor, nn

try:
    import fcntl
except ImportError:
    fcntl = None

LAST, PREVIOUS, BEST = "last.pt", "previous.pt", "best.safetensors"


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Hold a run folder, made if need be, for this process alone; folders made and left empty are removed again.

    The lock dies with the process. Raises ValueError where another process holds the folder.
    """
    made = [p for p in (folder, *folder.parents) if not p.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = None
    if fcntl is not None:  # a system without such locks goes without
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(descriptor)
            raise ValueError(f"{folder} is in use by another process: wait for it, or choose another --out") from error
    try:
        yield
    finally:
        if descriptor is not None:
            os.close(descriptor)
        with suppress(OSError):  # the first that is not empty ends it
            for path in made:
                path.rmdir()


def save_checkpoint(folder: Path, state: dict[str, Any]) -> Path:
    """Write state to folder/last.pt; what was there becomes previous.pt. At any moment last.pt is a whole checkpoint.

    Raises RuntimeError, with the old checkpoint untouched, where the disk is full or not writable.
    """
    buffer = io.BytesIO()  # a full disk then meets a plain write, not a serializer half-way
    torch.save(state, buffer)
    return _write(folder / LAST, buffer.getbuffer(), keep=folder / PREVIOUS)


def save_weights(path: Path, model: nn.Module) -> Path:
    """Write a model's state dict as safetensors, atomically. Raises RuntimeError as `save_checkpoint` does."""
    return _write(path, to_safetensors({k: v.detach().contiguous().cpu() for k, v in model.state_dict().items()}))


def save_text(path: Path, text: str) -> Path:
    """Write a text file, atomically. Raises RuntimeError as `save_checkpoint` does."""
    return _write(path, text.encode())


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint (tensors and plain values only, no code), or the last one of a run folder, onto the CPU.

    Raises FileNotFoundError where there is none, ValueError where it is truncated or corrupt (every byte is checked).
    """
    path = path / LAST if path.is_dir() else path
    before = path.with_name(PREVIOUS)
    advice = f"; the checkpoint before it is there: --resume {before}" if before != path and before.is_file() else ""
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint at {path}{advice or ': give a run folder, or a checkpoint in one'}")
    try:
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()
        if broken is not None:
            raise zipfile.BadZipFile(f"bad checksum of {broken}")
        state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:  # whole, but it would run code
        raise ValueError(f"{path} is no checkpoint of staa: it holds more than tensors and plain values") from error
    except (zipfile.BadZipFile, EOFError, RuntimeError) as error:
        raise ValueError(f"{path} is truncated or corrupt ({error}){advice}") from error
    if not isinstance(state, dict) or "model" not in state or "step" not in state:
        raise ValueError(f"{path} is no checkpoint of staa: it has no model and step")
    return state


def has_checkpoint(folder: Path) -> bool:
    """Whether a run folder ever had a checkpoint, be it lost since."""
    return any((folder / name).exists() for name in (LAST, PREVIOUS, BEST))


def load_weights(model: nn.Module, state: dict[str, Tensor], origin: Path) -> None:
    """Load a state dict into a model of the same recipe. Raises ValueError naming the first entries that do not fit."""
    own = model.state_dict()
    odd = [k for k in own.keys() | state.keys() if k not in own or k not in state or own[k].shape != state[k].shape]
    if odd:
        names = ", ".join(sorted(odd)[:3])
        raise ValueError(f"{origin} holds weights of another network: {len(odd)} entries do not fit, such as {names}")
    model.load_state_dict(state)


def _write(path: Path, data: bytes | memoryview, *, keep: Path | None = None) -> Path:
    temporary = path.with_name(path.name + ".tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if keep is not None and path.exists():
            _copy(path, keep)
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        kept = f"; the {path.name} there is untouched" if path.exists() else ""
        raise RuntimeError(f"could not write {path}: {error.strerror or error}{kept}") from error
    return path


def _copy(source: Path, target: Path) -> None:
    temporary = target.with_name(target.name + ".tmp")
    temporary.unlink(missing_ok=True)
    try:
        os.link(source, temporary)
    except OSError:  # a file system without hard links
        shutil.copyfile(source, temporary)
    os.replace(temporary, target)


def _sync_folder(folder: Path) -> None:
    if os.name != "posix":  # elsewhere a folder can't be opened
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
