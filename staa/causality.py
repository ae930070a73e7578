"""Whether a network can be run piece by piece: each part says how it treats time, or is refused."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from itertools import chain
from typing import Any

from torch import Tensor, nn
from torch.nn.modules import module as everywhere
from torch.nn.utils.parametrize import is_parametrized, type_before_parametrizations

from staa.folding import Passive
from staa.layers import PerStep

COMPUTES = {"forward", "fold", "affine", "gate"}

STEPS_ALIKE = {
    nn.Sequential, nn.ModuleList, nn.ModuleDict, nn.ParameterList, nn.ParameterDict,
    nn.Identity, nn.Linear, nn.Conv2d, nn.ConvTranspose2d, nn.LayerNorm, nn.RMSNorm, nn.GroupNorm, nn.LocalResponseNorm,
    nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout,
    nn.AvgPool2d, nn.MaxPool2d, nn.LPPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d,
    nn.ZeroPad2d, nn.ConstantPad2d, nn.ReflectionPad2d, nn.ReplicationPad2d, nn.CircularPad2d,
    nn.Upsample, nn.UpsamplingNearest2d, nn.UpsamplingBilinear2d, nn.PixelShuffle, nn.PixelUnshuffle, nn.ChannelShuffle,
    nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.ELU, nn.SELU, nn.CELU, nn.GELU, nn.SiLU, nn.Mish, nn.Sigmoid, nn.Tanh,
    nn.Softplus, nn.Softsign, nn.Softshrink, nn.Hardshrink, nn.Hardtanh, nn.Hardsigmoid, nn.Hardswish, nn.LogSigmoid,
    nn.Tanhshrink, nn.Threshold,
}  # fmt: skip
ALONG_AN_AXIS = {
    nn.Conv1d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose3d,
    nn.AvgPool1d, nn.AvgPool3d, nn.MaxPool1d, nn.MaxPool3d, nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool3d, nn.AdaptiveMaxPool1d,
    nn.AdaptiveMaxPool3d,
}  # fmt: skip
LEAST_RANKS: dict[type[nn.Module], int] = {
    nn.Conv1d: 3, nn.Conv2d: 4, nn.Conv3d: 5, nn.ConvTranspose1d: 3, nn.ConvTranspose2d: 4, nn.ConvTranspose3d: 5,
    nn.PixelShuffle: 4, nn.PixelUnshuffle: 4, nn.ZeroPad2d: 3, nn.ConstantPad2d: 3,
}  # fmt: skip
"""Layers that take an input without a batch, too, and the rank of one with it."""
NORMS = {nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm}
BY_DIMENSION = {nn.Softmax: "dim", nn.LogSoftmax: "dim", nn.Softmin: "dim", nn.GLU: "dim", nn.Flatten: "start_dim"}
"""Modules of an axis of their choice, which must not be the first, and the attribute that holds it."""


def check_causal(model: nn.Module) -> None:
    """Refuse a model that can't run piece by piece, or isn't known to, naming the part and what to do.

    A class says how its forward treats the steps of x [T, N, ...], or is refused:

        scan(x, state) -> (y, state)    it remembers: this is its forward for a piece that goes on from `state` (None: rest)
        per_step = True                 y[t] depends on x[t] alone, but for what the modules in it remember
        causal = False                  it sees the whole window

    causal = True alone is not enough: what looks back without a scan has no past in a piece. A class speaks for its own
    forward and for classes that inherit it; one that changes it says so anew. You may vouch for a single module of somebody
    else's, with all in it: module.per_step = True.

    Of PyTorch, exactly the layers that treat samples alike are known: linear, 2-D convolutions, norms with running
    statistics, pooling, activations (not nn.Softmax2d, whose axis is time in [T, N, C]); 1-D and 3-D convolutions inside
    `staa.layers.PerStep`, since time is no axis of theirs there. That their input has the rank of a batch, so that dimension
    0 is not taken for channels or normalised, shows when the first piece runs. Recurrent layers, nn.MultiheadAttention and
    all other layers are refused, unless they stand in a module with a scan. So is a hook on a forward, unless it is
    `staa.layers.Passive` or PyTorch's own, which makes weights. A module whose scan is called past its forward raises in the
    stream, since its state would be lost.

    Args:
        model: Any module.

    Raises:
        ValueError: If a part sees the whole window, or is not known to run in pieces.
    """
    _check(model, "", vouched=False, in_per_step=False)


def _check(module: nn.Module, name: str, *, vouched: bool, in_per_step: bool) -> None:
    kind = type_before_parametrizations(module)
    who = f"{name or 'the model'} ({kind.__name__})"
    if not getattr(module, "causal", True):
        raise ValueError(f"{who} sees the whole window, so it can't be run in pieces; build it with causal=True or steps=None")
    if getattr(module, "steps", None) is not None and not any(has_scan(part) for part in (module, *module.children())):
        raise ValueError(
            f"{who} was built for T = {module.steps} steps and has no scan(x, state), so it can't be run in pieces; build it "
            f"with steps=None"
        )
    if "forward" in vars(module):
        raise ValueError(f"{who} has a forward of its own in place of its class's, which can't be known to run in pieces")
    if not vars(module).get("per_step", False) and (hook := _looks_on(module)) is not None:
        raise ValueError(
            f"{who} has a hook on its forward, {hook}, which may mix time: remove it, make it a staa.layers.Passive if it only "
            f"takes notes, or vouch for this module with all in it by module.per_step = True"
        )
    if in_per_step and has_scan(module):
        raise ValueError(f"{who} scans over time, so it can't stand inside PerStep")
    vouched = vouched or has_scan(module) or vars(module).get("per_step", False)
    if not vouched and not _treats_steps_alike(module, kind, in_per_step):
        raise ValueError(f"{who} is not known to run in pieces: {_advice(module, kind)}")
    for child_name, child in module.named_children():
        if is_parametrized(module) and child_name == "parametrizations":  # they see weights
            continue
        inside = f"{name}.{child_name}" if name else child_name
        _check(child, inside, vouched=vouched, in_per_step=in_per_step or kind is PerStep)


def _looks_on(module: nn.Module) -> Any:
    """A hook on the module's forward, one of its own or one for all modules, unless it only takes notes or makes weights."""
    hooks = (module._forward_pre_hooks, module._forward_hooks, everywhere._global_forward_pre_hooks)
    for hook in chain(*(kind.values() for kind in hooks), everywhere._global_forward_hooks.values()):
        if type(hook) is not Passive and not type(hook).__module__.startswith("torch.nn.utils."):  # pruning, old weight_norm
            return hook
    return None


def _treats_steps_alike(module: nn.Module, kind: type[nn.Module], in_per_step: bool) -> bool:
    declared = vars(module).get("per_step", _declared(kind))
    if declared is not None:
        return bool(declared)
    if kind in ALONG_AN_AXIS:
        return in_per_step
    if kind in NORMS:  # without running statistics, a norm goes by the piece
        return module.running_mean is not None
    if kind in BY_DIMENSION:
        dimension = getattr(module, BY_DIMENSION[kind])
        return isinstance(dimension, int) and (dimension >= 1 or dimension == -1)
    return kind in STEPS_ALIKE


def _declared(kind: type[nn.Module]) -> bool | None:
    """What a class says of the forward that it has; a base's word counts no more once a subclass computes otherwise."""
    for base in kind.__mro__:
        if "per_step" in vars(base):
            return vars(base)["per_step"]
        if not COMPUTES.isdisjoint(vars(base)):
            return None
    return None


def _advice(module: nn.Module, kind: type[nn.Module]) -> str:
    if kind in ALONG_AN_AXIS:
        return "along which axis it runs can't be told; put it inside staa.layers.PerStep if time is none of its axes"
    if kind in NORMS:
        return "without running statistics it goes by the piece"
    if isinstance(module, nn.RNNBase | nn.RNNCellBase | nn.MultiheadAttention):
        return "give the module that calls it a scan(x, state), in which it goes on from its last state"
    return (
        "say per_step = True in its class if its output at a step depends on its input at that step alone, but for what "
        "modules in it remember; give it scan(x, state) -> (y, state) if it looks back; or say causal = False"
    )


@contextmanager
def ranks_checked(model: nn.Module) -> Iterator[None]:
    """Within, layers of PyTorch raise ValueError for an input of so few dimensions that they would take time for another."""
    handles = [
        module.register_forward_pre_hook(Passive(partial(_check_rank, name, least)), with_kwargs=True)
        for name, module in _unvouched(model, "")
        if (least := _least_rank(module)) is not None
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _unvouched(module: nn.Module, name: str) -> Iterator[tuple[str, nn.Module]]:
    if has_scan(module) or vars(module).get("per_step", False):
        return
    yield name, module
    for child_name, child in module.named_children():
        yield from _unvouched(child, f"{name}.{child_name}" if name else child_name)


def _least_rank(module: nn.Module) -> int | None:
    kind = type_before_parametrizations(module)
    if kind in (nn.LayerNorm, nn.RMSNorm):
        return len(module.normalized_shape) + 1  # type: ignore[arg-type]
    return LEAST_RANKS.get(kind)


def _check_rank(name: str, least: int, module: nn.Module, inputs: tuple[Any, ...], options: dict[str, Any]) -> None:
    x = inputs[0] if inputs else options.get("input")
    if isinstance(x, Tensor) and x.ndim < least:
        raise ValueError(
            f"{name or 'the model'} ({type(module).__name__}) is given {list(x.shape)} and would take the first "
            f"dimension, time, for another: it needs {least} dimensions to treat steps alike. Put it inside "
            f"staa.layers.PerStep, give it another dimension, or vouch for it by module.per_step = True if none is time"
        )


def has_scan(module: nn.Module) -> bool:
    """Whether its class has a scan, and no subclass another forward, which the scan would go round."""
    for base in type(module).__mro__:
        if "scan" in vars(base):
            return True
        if "forward" in vars(base):
            return False
    return False
