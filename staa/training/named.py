"""Parts of a network by name or pattern: what of it is frozen, and what learns at which rate."""

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import NamedTuple

from torch import nn

from staa.registry import did_you_mean, nearest


class Frozen(NamedTuple):
    """What of a network stays as it is: names of its parameters, and the BatchNorms that stay in evaluation mode."""

    parameters: list[str]
    norms: list[nn.Module]


def freeze(model: nn.Module, patterns: Iterable[str]) -> Frozen:
    """Let the parameters that a pattern names, or that lie in a module that it names, have no gradient.

    Args:
        model: The network, which is changed.
        patterns: Names of modules and parameters, in which * stands for any text, dots included.

    Returns:
        What is frozen. A BatchNorm is if it lies in such a module, or all of its parameters are: it then uses its running
        statistics and keeps them, once it is set to evaluation mode.

    Raises:
        ValueError: If a pattern names nothing, or nothing that is trained, or if nothing is left to train.
    """
    names: set[str] = set()
    for pattern in patterns:
        found = named(model, pattern, "freeze")
        if not _within(model, found):
            raise ValueError(f"`freeze={pattern}` names what has no weights in this network: leave it out")
        names |= found
    if not names:
        return Frozen([], [])
    frozen = _within(model, names)
    for parameter in frozen.values():
        parameter.requires_grad_(False)
    if not any(p.requires_grad for p in model.parameters()):
        raise ValueError(f"`freeze={','.join(patterns)}` leaves nothing to train: freeze less, such as all but the readout")
    norms = []
    for name, module in model.named_modules():
        own = [p.requires_grad for p in module.parameters()]
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and (_is_in(name, names) or (own and not any(own))):
            norms.append(module)
    return Frozen(list(frozen), norms)


def set_training(model: nn.Module, still: Iterable[nn.Module]) -> None:
    """Put a network into training mode, but for what stays still."""
    model.train()
    for module in still:
        module.eval()


def rates_of(model: nn.Module, rates: Mapping[str, float]) -> dict[str, str]:
    """The pattern that each parameter has its learning rate from; the others have none. Raises ValueError for a pattern that
    names nothing, or nothing that learns and no pattern before it names.

    Args:
        model: The network.
        rates: By name or pattern, as for `freeze`; of several that fit the first counts.
    """
    found: dict[str, str] = {}
    for pattern in rates:
        learning = {name for name, p in _within(model, named(model, pattern, "optim.lr_of")).items() if p.requires_grad}
        if not (new := learning - found.keys()):
            raise ValueError(f"`optim.lr_of={pattern}` names nothing that is trained and not named before it: leave it out")
        found |= dict.fromkeys(new, pattern)
    return found


def named(model: nn.Module, pattern: str, setting: str) -> set[str]:
    """The modules and parameters that a pattern names. setting: whose it is, for the message. Raises ValueError if there are
    none."""
    names = [name for name, _ in (*model.named_modules(), *model.named_parameters(remove_duplicate=False)) if name]
    found = {name for name in names if fnmatchcase(name, pattern)}
    if not found:
        children = ", ".join(name for name, _ in model.named_children())
        hint = did_you_mean(nearest(pattern, names)) or f"its parts are {children}, and those in them"
        raise ValueError(f"`{setting}` names {pattern}, which is no module and no parameter of this network; {hint}")
    return found


def _within(model: nn.Module, names: set[str]) -> dict[str, nn.Parameter]:
    """The parameters of these names, and in modules of these names."""
    return {name: p for name, p in model.named_parameters(remove_duplicate=False) if _is_in(name, names)}


def _is_in(name: str, names: set[str]) -> bool:
    parts = name.split(".")
    return any(".".join(parts[:k]) in names for k in range(1, len(parts) + 1))
