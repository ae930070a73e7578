"""What a network takes over from another run's weights."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

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
    other = read_recipe(folder)
    about = read_environment(folder, other)["data"]
    names = about.get("names")
    known = names is not None and source.names is not None
    same = names == list(source.names or ()) if known else comparable(other).data.name == comparable(recipe).data.name
    related = bool(set(names or ()) & set(source.names or ())) if known else same  # a class may have been added
    path, state = load_measured(folder)
    check_origin(state, other, path)
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


@dataclass(frozen=True)
class Taken:
    """What of another network's weights came into a network, as texts that name each entry."""

    loaded: list[str]
    changed: list[str]
    left_out: list[str]
    fresh: list[str]


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
    found = Taken([], [], [], [])
    new: dict[str, Tensor] = {}
    encodings = {f"{name}.encoding" for name, module in model.named_modules() if isinstance(module, PositionEncoding)}
    for key, value in own.items():
        other = state.get(key)
        if not isinstance(value, Tensor) or not isinstance(other, Tensor):
            found.fresh.append(key)
        elif other.shape != value.shape and key in encodings and other.shape[1:] == value.shape[1:]:
            new[key] = F.interpolate(other.T[None], len(value), mode="linear", align_corners=True)[0].T
            found.changed.append(f"{key} (T = {len(other)} to {len(value)})")
        elif other.shape != value.shape:
            found.left_out.append(f"{key} ({shape_of(other)} there, {shape_of(value)} here)")
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
    odd = [key for key, value in new.items() if value.dtype != own[key].dtype or not bool(value.isfinite().all())]
    if odd:
        raise ValueError(
            f"{origin} holds weights that are not finite, or of another type than here, such as {odd[0]}: it is damaged"
        )
    model.load_state_dict(own | new)
    return found
