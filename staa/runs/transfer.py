"""What a network takes over from another run's weights."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from staa.attention import PositionEncoding
from staa.build import task_of
from staa.data import SplitData
from staa.recipes.code import comparable
from staa.recipes.recipe import Recipe
from staa.runs.folder import check_origin, read_environment, read_recipe
from staa.training.checkpoint import load_measured, shape_of
from staa.training.progress import Transfer
from staa.training.weights import measured_weights


def start_from(recipe: Recipe, source: SplitData, model: nn.Module) -> Transfer:
    """Take over what fits of the run that the recipe starts from, and tell; what is of a class or a node alone only where they
    are the same, and never a graph, which is data."""
    folder = Path(recipe.init_from or "")
    other, about, state = origin_of(folder)
    names = about.get("names")
    known = names is not None and source.names is not None
    same = names == list(source.names or ()) if known else comparable(other).data.name == comparable(recipe).data.name
    related = bool(set(names or ()) & set(source.names or ())) if known else same  # a class may have been added
    leave = task_of(recipe).own_weights(same=same)
    found = transfer_weights(model, measured_weights(state), folder, leave=leave)
    return Transfer(
        folder=str(folder),
        recipe=other.name,
        step=state["step"],
        split=about["split"],
        same_split=not related or about["split"] == source.split,
        **asdict(found),
    )


def origin_of(folder: Path) -> tuple[Recipe, dict[str, Any], dict[str, Any]]:
    """The recipe, what is recorded of the data, and the checkpoint of a run that another one starts from. Raises OSError or
    ValueError for a run that none can start from."""
    other = read_recipe(folder)
    about = read_environment(folder, other)["data"]
    path, state = load_measured(folder)
    check_origin(state, other, path)
    return other, about, state


def check_frozen(transfer: Transfer, parameters: Iterable[str]) -> None:
    """Raises ValueError if one of these parameters, which are frozen, did not come from the other run."""
    given = {text.partition(" (")[0] for text in (*transfer.loaded, *transfer.changed)}
    if fresh := [name for name in parameters if name not in given]:
        why = "; ".join(transfer.why) or "it has no such entry"
        raise ValueError(
            f"`freeze` holds {some(fresh)}, which {transfer.folder} does not give ({why}): freeze only what comes from there, "
            f"since it would stay as it was drawn"
        )


@dataclass(frozen=True)
class Taken:
    """What of another network's weights came into a network, as texts that name each entry; why: causes of what did not, the
    readout first."""

    loaded: list[str]
    changed: list[str]
    left_out: list[str]
    fresh: list[str]
    why: list[str]


def transfer_weights(
    model: nn.Module, state: dict[str, Tensor], origin: Path, *, leave: Mapping[str, str] | None = None
) -> Taken:
    """Load the entries of another run's state dict that fit a model; the others keep the model's own fresh values.

    An entry fits by name and shape, and a bias if its weight does. A position encoding learned for another number of
    steps is interpolated, linearly in time, with the first step on the first and the last on the last. leave: entries
    and modules that are left out, each with why. Raises ValueError, with the model untouched, if no convolution or linear
    weight fits, or if one that fits is not finite or of another type.
    """
    own = model.state_dict()
    found = Taken([], [], [], [], [])
    new: dict[str, Tensor] = {}
    left: dict[str, str] = {}
    encodings = {f"{name}.encoding" for name, module in model.named_modules() if isinstance(module, PositionEncoding)}
    for key, value in own.items():
        other = state.get(key)
        if not isinstance(value, Tensor) or not isinstance(other, Tensor):
            found.fresh.append(key)
        elif other.shape != value.shape and key in encodings and other.shape[1:] == value.shape[1:]:
            new[key] = F.interpolate(other.T[None], len(value), mode="linear", align_corners=True)[0].T
            found.changed.append(f"{key} (T = {len(other)} to {len(value)})")
        elif other.shape != value.shape:
            left[key] = f"{shape_of(other)} there, {shape_of(value)} here"
        elif why := next((why for part, why in (leave or {}).items() if f"{key}.".startswith(f"{part}.")), None):
            left[key] = why
        elif (weight := key.removesuffix("bias") + "weight") in own and key.endswith(".bias") and weight not in new:
            left[key] = "as its weight"
        else:
            new[key] = other
            found.loaded.append(key)
    left |= dict.fromkeys((key for key in state if key not in own), "not in this network")
    found.left_out.extend(f"{key} ({why})" for key, why in left.items())
    found.why.extend(causes(own, state, left))
    if not any(key.endswith("weight") and new[key].ndim >= 2 for key in found.loaded):
        raise ValueError(
            f"{origin} has nothing in common with this network: none of its convolution and linear weights fits "
            f"({'; '.join(found.why)}); there the first is {_first(state)}, here {_first(own)}"
        )
    odd = [key for key, value in new.items() if value.dtype != own[key].dtype or not bool(value.isfinite().all())]
    if odd:
        raise ValueError(
            f"{origin} holds weights that are not finite, or of another type than here, such as {odd[0]}: it is damaged"
        )
    model.load_state_dict(own | new)
    return found


def causes(own: Mapping[str, Tensor], state: Mapping[str, Tensor], left: Mapping[str, str]) -> list[str]:
    """Why entries were left out, a text for each cause: the readout's first, then shapes, then what one side does not have."""
    readout, others = [], dict[str, list[str]]()
    shapes: dict[str, str] = {}
    for key, why in left.items():
        module, _, last = key.rpartition(".")
        both = key in own and key in state
        if last == "bias" and key.removesuffix("bias") + "weight" in left:
            continue
        if both and "readout" in key.split("."):
            mine, its = len(own[key]), len(state[key])
            named = "" if module == "readout" else f" {module}"
            readout.append(f"the readout{named}: {why if its == mine else f'{its} classes there, {mine} here'}")
        elif both and own[key].shape != state[key].shape:
            unlike = [(a, b) for a, b in zip(state[key].shape[:2], own[key].shape[:2], strict=False) if a != b]
            filters = own[key].ndim == state[key].ndim > 2 and unlike
            shapes[key] = f"width: {unlike[0][0]} channels there, {unlike[0][1]} here" if filters else f"shape: {why}"
        else:
            others.setdefault(why, []).append(key)
    told = next((text for text in shapes.values() if text.startswith("width")), None) or next(iter(shapes.values()), "")
    those = [key for key, text in shapes.items() if text == told] + [key for key, text in shapes.items() if text != told]
    shaped = [f"{told}, in {some(those)}"] if told else []
    return readout + shaped + [f"{some(keys)} ({why})" for why, keys in others.items()]


def some(keys: Sequence[str]) -> str:
    """The first one, and how many more."""
    return keys[0] if len(keys) == 1 else f"{keys[0]} and {len(keys) - 1} more"


def _first(state: Mapping[str, Tensor]) -> str:
    """The first convolution or linear weight in a state dict, with its shape."""
    found = (key for key, value in state.items() if isinstance(value, Tensor) and value.ndim >= 2 and key.endswith("weight"))
    key = next(found, "")
    return f"{key} ({shape_of(state[key])})" if key else "no such weight"
