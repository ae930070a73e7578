"""Weights of other libraries and of papers' code, renamed for the same network here.

    model = staa.models.ms_resnet18(10, steps=6, neuron=NEURONS["dta"], attention=staa.attention.DTA)
    staa.convert.load_converted(model, "model.pth", source="dta-snn")

Each converter takes a state dict and returns one for `load_state_dict`. The neurons' constants are no weights: each converter
says which neuron the network must be built with. A key that is not known is refused by name, and by `load_converted` one that
is missing, or has another shape, too.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load as from_safetensors
from torch import Tensor, nn

from staa.convert.papers import dta_snn, fsta_snn, seqsnn_ispikformer
from staa.convert.renaming import State
from staa.convert.spikingjelly import spikingjelly_ms_resnet, spikingjelly_vgg
from staa.files import read_bytes
from staa.registry import Registry
from staa.training.checkpoint import check_tensors, shape_of, unpickled
from staa.training.pickles import brief
from staa.training.weights import load_weights

__all__ = [
    "CONVERTERS", "dta_snn", "fsta_snn", "load_converted", "read_state", "seqsnn_ispikformer", "spikingjelly_ms_resnet",
    "spikingjelly_vgg",
]  # fmt: skip

WRAPPED = ("state_dict", "model", "net", "model_state_dict")
"""What a checkpoint calls the state dict in it."""
PICKLED = (".pt", ".pth", ".pkl", ".tar", ".bin")

CONVERTERS: Registry[Callable[[State], dict[str, Tensor]]] = Registry(
    "source of weights",
    "staa.convert.CONVERTERS",
    {
        "dta-snn": dta_snn,
        "fsta-snn": fsta_snn,
        "seqsnn-ispikformer": seqsnn_ispikformer,
        "spikingjelly-ms-resnet": spikingjelly_ms_resnet,
        "spikingjelly-vgg": spikingjelly_vgg,
    },
)


def load_converted(model: nn.Module, weights: str | Path | State, *, source: str) -> nn.Module:
    """Load weights from elsewhere into the same network here, and return it.

    Args:
        model: Network that was built as the converter's text says.
        weights: A file that `read_state` takes, or a state dict.
        source: Name of the converter in CONVERTERS, such as "spikingjelly-ms-resnet".

    Shapes:
        -> the model

    Raises:
        OSError: If there is no such file.
        KeyError: If the source is unknown.
        ValueError: If a key is unknown or missing, a shape does not fit or a number is not finite; nothing is loaded then.
    """
    convert = CONVERTERS[source]
    named = isinstance(weights, str | Path)
    origin = Path(weights) if named else Path("the state dict")
    found, own = convert(read_state(origin) if named else _checked(weights, origin)), model.state_dict()
    for key in sorted(own.keys() | found.keys()):
        if key not in found or key not in own:
            where = f"this {type(model).__name__} has no such weight" if key in found else "no weight of it becomes this"
            raise ValueError(f"{origin} does not fit: {key}: {where}; was the network built alike?")
        if found[key].shape != own[key].shape:
            given, wanted = shape_of(found[key]), shape_of(own[key])
            raise ValueError(f"{origin} does not fit: {key} is {given}, in this {type(model).__name__} {wanted}")
    load_weights(model, {key: value.to(own[key].dtype) for key, value in found.items()}, origin)
    return model


def read_state(path: str | Path) -> dict[str, Tensor]:
    """The state dict in a .safetensors file, or in one that torch.save wrote (.pt, .pth, .pkl, .tar, .bin). No code is run.

    A state dict within a checkpoint (as "state_dict", "model", "net" or "model_state_dict") is taken out, and the "module." of
    nn.DataParallel before each name is dropped.

    Args:
        path: The file.

    Shapes:
        -> tensors by name, on the CPU

    Raises:
        OSError: If there is no such file.
        ValueError: If it holds anything else, is broken or too large, or was written by a torch older than 1.6.
    """
    path = Path(path)
    state: Any
    if path.suffix == ".safetensors":
        try:
            state = from_safetensors(read_bytes(path))
        except (OSError, ValueError):
            raise
        except Exception as error:  # SafetensorError, and KeyError for a type that torch lacks
            raise ValueError(f"{path} is truncated or corrupt: {brief(error)}") from error
    elif path.suffix in PICKLED:
        state = unpickled(path, "no file of weights")
    else:
        raise ValueError(f"{path} must be a .safetensors file, or one of torch.save ({', '.join(PICKLED)})")
    inner = [state[name] for name in WRAPPED if isinstance(state, dict) and isinstance(state.get(name), dict)]
    state = _checked(inner[0] if inner else state, path)
    check_tensors(state, path, "no file of weights")
    if all(key.startswith("module.") for key in state):
        state = {key.removeprefix("module."): value for key, value in state.items()}
    return state


def _checked(state: Any, origin: Path) -> State:
    """A state dict. Raises ValueError for anything else."""
    if not isinstance(state, Mapping):
        raise ValueError(f"{origin} is no state dict: it is of type {type(state).__name__}, and not tensors by name")
    for key, value in state.items():
        if not (isinstance(key, str) and isinstance(value, Tensor)):
            raise ValueError(f"{origin} is no state dict: {key} is no tensor with a name")
    return state
