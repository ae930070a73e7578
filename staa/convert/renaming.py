"""Keys of state dicts by rules: a pattern and what takes its place."""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

State = Mapping[str, Tensor]
Rules = tuple[tuple[str, str], ...]

NORM = r"(weight|bias|running_mean|running_var|num_batches_tracked)"


def renamed(state: State, rules: Rules, what: str) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for key, value in state.items():
        match = next(((m, name) for rule, name in rules if (m := re.fullmatch(rule, key, re.ASCII))), None)
        if match is None:
            raise ValueError(f"{key!r} is no weight of {what}: is it another network?")
        name = match[0].expand(match[1])
        value = -value if name.endswith(".decay_logit") else value
        if name in found and not torch.equal(found[name], value):
            raise ValueError(f"{key!r} holds other numbers than another name of the same weight, {name}: the file is broken")
        found[name] = value
    return found


def stages(state: State, first: int) -> dict[str, Tensor]:
    """layer1.… as stages.0.…, first being the number of the first layer."""
    return {re.sub(r"^layer(\d)\.", lambda m: f"stages.{int(m[1]) - first}.", key): value for key, value in state.items()}
