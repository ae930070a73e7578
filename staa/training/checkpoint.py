"""Checkpoints that survive a crash; the one before the last is kept."""

import io
import json
import pickle
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from staa.files import FORMAT, check_bytes, check_format, max_bytes, open_regular, read_bytes, write
from staa.training.pickles import PER_OPCODE, PICKLE, brief, check_pickle, plain, repacked, walk
from staa.training.weights import measured_weights, read_weights, weights_bytes

LAST, PREVIOUS, BEST = "last.pt", "previous.pt", "best.safetensors"
MODEL = "model.safetensors"
"""The last weights of a published run, which holds no pickle: what its last.pt held but for what only a resumed run needs."""
ABOUT = {"recipe": "staa.recipe", "step": "staa.step"}
"""What stands with those weights: plain values of a checkpoint, and their names there."""


def save_checkpoint(folder: Path, state: dict[str, Any]) -> Path:
    """Write state to folder/last.pt; what was there becomes previous.pt. At any moment last.pt is a whole checkpoint.

    Raises RuntimeError, with the old checkpoint untouched, if the disk is full or not writable.
    """
    return write(folder / LAST, checkpoint_bytes(state), keep=folder / PREVIOUS)


def replace_broken(folder: Path, whole: Path) -> None:
    """Put a whole checkpoint in the place of a last one that is lost or broken, lest a save keep that as the previous one."""
    if whole == folder / LAST:
        return
    try:
        load_checkpoint(folder / LAST)
    except (ValueError, OSError):
        write(folder / LAST, read_bytes(whole))


def checkpoint_bytes(state: dict[str, Any]) -> memoryview:
    """A checkpoint's file: a full disk then meets a plain write, not a serializer half-way."""
    buffer = io.BytesIO()
    torch.save({"format": FORMAT, **state}, buffer)
    return buffer.getbuffer()


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint (tensors and plain values only, no code), or the last one of a run folder, onto the CPU.

    Raises FileNotFoundError if there is none, ValueError if it is truncated or corrupt (every byte is checked), holds anything
    else, or would take more memory than `staa.files.max_bytes`.
    """
    path = path / LAST if path.is_dir() else path
    before = path.with_name(PREVIOUS)
    advice = f"; the checkpoint before it is there: resume {before}" if before != path and before.is_file() else ""
    if not path.is_file():
        if path.with_name(MODEL).is_file():
            raise FileNotFoundError(
                f"{path.parent} is a published run and can't be gone on with: begin a new one from its weights (`init_from`)"
            )
        raise FileNotFoundError(f"no checkpoint at {path}{advice or ': give a run folder, or a checkpoint in one'}")
    with open_regular(path) as file:
        begin = file.read(2)
    if not begin:
        raise ValueError(f"{path} is empty{advice}")
    if path.suffix != ".pt" and begin != b"PK":
        raise ValueError(f"{path} is no checkpoint of staa: give a run folder, or {LAST} or {PREVIOUS} in one")
    state = unpickled(path, "no checkpoint of staa", advice)
    if type(state) is dict:
        check_format(state.pop("format", 0), path)
    if type(state) is not dict or "model" not in state or "step" not in state:
        raise ValueError(f"{path} is no checkpoint of staa: it has no model and step")
    _check_values(state, path)
    return state


def published_bytes(state: dict[str, Any]) -> bytes:
    """A checkpoint as model.safetensors: the weights that it is measured with, its recipe and its step."""
    return weights_bytes(measured_weights(state), {ABOUT[name]: state[name] for name in ABOUT})


def load_measured(folder: Path) -> tuple[Path, dict[str, Any]]:
    """Where a run folder has the weights of its last epoch, and a checkpoint with those, recipe and step: last.pt, or
    model.safetensors if it is a published run. Raises what `load_checkpoint` does."""
    path = folder / MODEL
    if (folder / LAST).exists() or not path.is_file():
        return folder / LAST, load_checkpoint(folder)
    model = read_weights(path)
    state = {"model": model} | {name: model.pop(ABOUT[name], None) for name in ABOUT}
    _check_values(state, path)
    return path, state


def unpickled(path: Path, what: str, advice: str = "") -> Any:
    """What torch.save wrote, tensors and plain values only, on the CPU; nothing in it is called.

    what: what it is not if it holds anything else, in words. Raises ValueError as `load_checkpoint` does.
    """
    data, pickled = read_bytes(path), 0
    with suppress(Exception), zipfile.ZipFile(io.BytesIO(data)) as archive:
        pickled = max(m.file_size for m in archive.infolist() if m.filename.endswith(PICKLE))
    check_bytes(PER_OPCODE * pickled, f"what {path} says of its tensors")
    try:
        sound = repacked(data)
        del data
        return plain(torch.load(sound, map_location="cpu", weights_only=True))
    except pickle.UnpicklingError as error:  # whole, but it would run code
        raise ValueError(f"{path} is {what}: it holds more than tensors and plain values") from error
    except Exception as error:  # zipfile and torch raise whatever they stumble over
        raise ValueError(f"{path} is truncated or corrupt ({brief(error)}){advice}") from error


def read_origin(folder: Path) -> tuple[Path, dict[str, Any]] | None:
    """A run's last checkpoint, or the one before if that is lost, and its plain values: but for a published run, its tensors
    are not read. None if there is no checkpoint. Raises ValueError for a broken one, or one of a newer version."""
    path = next((folder / name for name in (LAST, PREVIOUS, MODEL) if (folder / name).is_file()), None)
    if path is None:
        return None
    if path.name == MODEL:
        return load_measured(folder)
    with open_regular(path) as file:
        try:
            with zipfile.ZipFile(file) as archive:
                parts = {m.filename.partition("/")[2]: m for m in archive.infolist()}
                if parts[PICKLE].compress_type != zipfile.ZIP_STORED:
                    raise zipfile.BadZipFile("it is packed, which no checkpoint is")
                size = parts[PICKLE].file_size
                values = (
                    {}
                    if PER_OPCODE * size > max_bytes()
                    else check_pickle(archive.read(parts[PICKLE]), {name: m.file_size for name, m in parts.items()})
                )
        except pickle.UnpicklingError as error:
            raise ValueError(f"{path} is no checkpoint of staa: it holds more than tensors and plain values") from error
        except Exception as error:
            raise ValueError(f"{path} is truncated or corrupt ({brief(error)})") from error
    check_bytes(PER_OPCODE * size, f"what {path} says of its tensors")
    values = values if isinstance(values, dict) else {}
    check_format(values.pop("format", 0), path)
    return path, values


def _check_values(state: dict[str, Any], path: Path) -> None:
    """Raises ValueError for a checkpoint whose parts are not what they should be, or whose tensors say more than they hold."""
    kinds = {
        "model": dict, "average": dict, "optimizer": dict, "schedule": dict, "rates": dict, "report": dict, "step": int,
        "best_epoch": int, "best": float, "sums": Tensor, "recipe": str,
    }  # fmt: skip
    odd = [name for name, kind in kinds.items() if name in state and type(state[name]) is not kind]
    odd = [name for name in odd if not (kinds[name] is dict and isinstance(state[name], dict))]  # an OrderedDict
    odd += [name for name in ("step", "best_epoch") if name in state and name not in odd and not 0 <= state[name] < 2**62]
    odd += [
        name
        for name in ("model", "average")
        if name in state and name not in odd and not all(isinstance(key, str) for key in state[name])
    ]
    rates = [] if "rates" in odd else list(state.get("rates", {}).values())
    if not all(isinstance(r, list) and len(r) == 2 and all(type(n) in (int, float) for n in r) and r[1] > 0 for r in rates):
        odd.append("rates")
    report = {} if "report" in odd else state.get("report", {})
    if report and not (type(report.get("event")) is str and type(report.get("step")) is int and _is_plain(report)):
        odd.append("report")
    if odd:
        raise ValueError(f"{path} is no checkpoint of staa: its {odd[0]} makes no sense")
    check_tensors(state, path, "no checkpoint of staa")


def check_tensors(state: Any, path: Path, what: str) -> None:
    """Raises ValueError for a tensor that says more than it holds."""
    for value in walk(state):
        if isinstance(value, Tensor) and (
            value.layout != torch.strided or value.untyped_storage().nbytes() < value.numel() * value.element_size()
        ):
            raise ValueError(f"{path} is {what}: a tensor of {shape_of(value)} holds fewer numbers than it says")


def _is_plain(value: Any) -> bool:
    try:
        json.dumps(value)
    except (TypeError, ValueError, RecursionError):
        return False
    return True


def has_checkpoint(folder: Path) -> bool:
    """Whether a run folder ever had a checkpoint, be it lost since."""
    return any((folder / name).exists() for name in (LAST, PREVIOUS, BEST))


def shape_of(tensor: Tensor) -> str:
    return " × ".join(map(str, tensor.shape)) or "scalar"
