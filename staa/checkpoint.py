"""Checkpoints and weights that survive a crash; the checkpoint before the last is kept."""

import io
import pickle
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as to_safetensors
from torch import Tensor, nn
from torch.nn import functional as F

from staa.attention import PositionEncoding
from staa.files import write

LAST, PREVIOUS, BEST = "last.pt", "previous.pt", "best.safetensors"


def save_checkpoint(folder: Path, state: dict[str, Any]) -> Path:
    """Write state to folder/last.pt; what was there becomes previous.pt. At any moment last.pt is a whole checkpoint.

    Raises RuntimeError, with the old checkpoint untouched, where the disk is full or not writable.
    """
    buffer = io.BytesIO()  # a full disk then meets a plain write, not a serializer half-way
    torch.save(state, buffer)
    return write(folder / LAST, buffer.getbuffer(), keep=folder / PREVIOUS)


def save_weights(path: Path, model: nn.Module) -> Path:
    """Write a model's state dict as safetensors, atomically. Raises RuntimeError as `save_checkpoint` does."""
    return write(path, to_safetensors({k: v.detach().contiguous().cpu() for k, v in model.state_dict().items()}))


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


def measured_weights(state: dict[str, Any]) -> dict[str, Tensor]:
    """The weights in a checkpoint that the run is measured with: their moving average where it keeps one."""
    if "average" not in state:
        return state["model"]
    return {k.removeprefix("module."): v for k, v in state["average"].items() if k != "n_averaged"}


def load_weights(model: nn.Module, state: dict[str, Tensor], origin: Path) -> None:
    """Load a state dict into a model of the same recipe. Raises ValueError naming the first entries that do not fit."""
    own = model.state_dict()
    odd = [k for k in own.keys() | state.keys() if k not in own or k not in state or own[k].shape != state[k].shape]
    if odd:
        names = ", ".join(sorted(odd)[:3])
        raise ValueError(f"{origin} holds weights of another network: {len(odd)} entries do not fit, such as {names}")
    model.load_state_dict(state)


@dataclass(frozen=True)
class Transfer:
    """What of another network's weights came into a network, as texts that name each entry."""

    loaded: list[str]
    changed: list[str]
    left_out: list[str]
    fresh: list[str]


def transfer_weights(
    model: nn.Module, state: dict[str, Tensor], origin: Path, *, leave: Mapping[str, str] | None = None
) -> Transfer:
    """Load the entries of another run's state dict that fit a model; the others keep the model's own fresh values.

    An entry fits by name and shape, and a bias where its weight does. A position encoding learned for another number of
    steps is interpolated, linearly in time, with the first step on the first and the last on the last. leave: entries
    and modules that are left out, each with why. Raises ValueError, with the model untouched, where no convolution or
    linear weight fits.
    """
    own = model.state_dict()
    found = Transfer([], [], [], [])
    new: dict[str, Tensor] = {}
    encodings = {f"{name}.encoding" for name, module in model.named_modules() if isinstance(module, PositionEncoding)}
    for key, value in own.items():
        other = state.get(key)
        if other is None:
            found.fresh.append(key)
        elif other.shape != value.shape and key in encodings and other.shape[1:] == value.shape[1:]:
            new[key] = F.interpolate(other.T[None], len(value), mode="linear", align_corners=True)[0].T
            found.changed.append(f"{key} (T = {len(other)} to {len(value)})")
        elif other.shape != value.shape:
            found.left_out.append(f"{key} ({_shape(other)} there, {_shape(value)} here)")
        elif why := next((why for part, why in (leave or {}).items() if f"{key}.".startswith(f"{part}.")), None):
            found.left_out.append(f"{key} ({why})")
        elif (weight := key.removesuffix("bias") + "weight") in own and key.endswith(".bias") and weight not in new:
            found.left_out.append(f"{key} (as its weight)")
        else:
            new[key] = other
            found.loaded.append(key)
    found.left_out.extend(f"{key} (not in this network)" for key in state if key not in own)
    if not any(key.endswith("weight") and new[key].ndim >= 2 for key in found.loaded):
        raise ValueError(
            f"{origin} has nothing in common with this network: none of its convolution and linear weights fits; its "
            f"entries are such as {', '.join(sorted(state)[:2])}, here {', '.join(sorted(own)[:2])}"
        )
    model.load_state_dict(own | new)
    return found


def _shape(tensor: Tensor) -> str:
    return " × ".join(map(str, tensor.shape)) or "scalar"


def read_weights(path: Path) -> dict[str, Tensor]:
    """The weights that `save_weights` wrote. Raises FileNotFoundError or ValueError where they are missing or broken."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not path.is_file():
        raise FileNotFoundError(
            f"{path} is missing: it is written after an epoch that ends with validation, which needs data.validation above 0"
        )
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is truncated or corrupt: {error}") from error
