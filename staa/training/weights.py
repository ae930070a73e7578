"""Weights alone: saved, read and loaded into a network of the same recipe."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load as from_safetensors
from safetensors.torch import save as to_safetensors
from torch import Tensor, nn

from staa.files import FORMAT, check_format, read_bytes, write
from staa.training.pickles import brief

NUMBER = "staa.format"  # where weights have the number of their format


def save_weights(path: Path, model: nn.Module) -> Path:
    """Write a model's state dict as safetensors, atomically; what is no tensor in it, as plain values. Weights that modules
    share are written for each. Raises RuntimeError as `save_checkpoint` does."""
    return write(path, weights_bytes(model.state_dict()))


def weights_bytes(state: dict[str, Any], about: dict[str, Any] | None = None) -> bytes:
    """A state dict as safetensors. about: plain values that stand with it, by names that begin with "staa."."""
    tensors, plain = {}, dict(about or {})
    for key, value in state.items():
        if isinstance(value, Tensor):
            tensors[key] = (
                value.detach().cpu().clone(memory_format=torch.contiguous_format)
            )  # safetensors refuses shared memory
        else:
            plain[key] = value
    return to_safetensors(tensors, {key: json.dumps(value) for key, value in plain.items()} | {NUMBER: str(FORMAT)})


def check_savable(model: nn.Module) -> None:
    """Raises ValueError for a state that a checkpoint can't hold: more than tensors and, from get_extra_state, plain values."""
    for key, value in model.state_dict().items():
        try:
            if not isinstance(value, Tensor) and json.loads(json.dumps(value)) != value:
                raise TypeError("it does not come back the same")
        except (TypeError, ValueError, RecursionError) as error:
            raise ValueError(
                f"{key} can't be saved ({error}): get_extra_state must give a tensor, or plain values as JSON has them"
            ) from error


def measured_weights(state: dict[str, Any]) -> dict[str, Tensor]:
    """The weights in a checkpoint that the run is measured with: their moving average if it keeps one."""
    if "average" not in state:
        return state["model"]
    return {k.removeprefix("module."): v for k, v in state["average"].items() if k != "n_averaged"}


def load_weights(model: nn.Module, state: dict[str, Any], origin: Path) -> None:
    """Load a state dict into a model of the same recipe. Raises ValueError naming the first entries that do not fit, or that
    are not finite."""
    own = model.state_dict()
    odd = [k for k in own.keys() | state.keys() if k not in own or k not in state or not _same_form(own[k], state[k])]
    if odd:
        names = ", ".join(sorted(odd)[:3])
        raise ValueError(f"{origin} holds weights of another network: {len(odd)} entries do not fit, such as {names}")
    bad = sorted(k for k, v in state.items() if isinstance(v, Tensor) and not bool(v.isfinite().all()))
    if bad:
        raise ValueError(f"{origin} holds weights that are not finite, such as {bad[0]}: it is damaged")
    try:
        model.load_state_dict(state)
    except Exception as error:  # what set_extra_state of a module of one's own says
        raise ValueError(f"{origin} holds weights that do not fit: {error}") from error


def _same_form(own: Any, other: Any) -> bool:
    """Tensors of one shape and type; of what is no tensor, the module judges."""
    if not isinstance(own, Tensor) or not isinstance(other, Tensor):
        return isinstance(own, Tensor) == isinstance(other, Tensor)
    return own.shape == other.shape and own.dtype == other.dtype


def read_weights(path: Path) -> dict[str, Any]:
    """The weights that `save_weights` wrote. Raises FileNotFoundError, or ValueError if they are broken or too large."""
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} is missing: it is written after each epoch that ends with validation. Resume the run if it stopped "
            f"before; with data.validation = 0 there are only the last weights"
        )
    data = read_bytes(path)
    try:
        weights: dict[str, Any] = from_safetensors(data)
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        plain = {key: json.loads(value) for key, value in header.get("__metadata__", {}).items()}
    except Exception as error:  # SafetensorError, and KeyError for a type that torch lacks
        raise ValueError(f"{path} is truncated or corrupt: {brief(error)}") from error
    check_format(plain.pop(NUMBER, 0), path)
    return weights | plain
