"""What a neuron, an attention and a network must hold, one's own like the library's.

Each contract takes a built module and raises AssertionError, in words, if it is broken. `check` builds a module and holds it
against all contracts of its kind:

    for finding in check(MyAttention):
        print(finding)

`staa check my_file.py:MyAttention` does so from the command line.
"""

import copy
import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from staa.attention import PositionEncoding
from staa.layers import Site
from staa.neurons import LIF
from staa.testing.calls import (
    causality,
    chunks_equal_the_whole,
    evaluation_is_deterministic,
    nothing_survives_a_call,
    samples_are_independent,
    sees_later_steps,
)
from staa.testing.contracts import (
    FLIPPED,
    ROUNDING,
    an_affine_current_is_one,
    every_parameter_learns,
    folding_changes_nothing,
    it_fires,
    on_one_input,
    random_input,
    randomised,
    shape_and_finite,
    silence_and_noise_are_finite,
    state_dict_round_trip,
)

Kind = Literal["neuron", "attention", "model"]
CALLS = {
    "neuron": "(channels) -> module, x [T, N, C, H, W] -> spikes of the same shape",
    "attention": "(steps, channels) -> module, x [T, N, C, H, W] -> the same shape; on spikes, (current, spikes) -> spikes",
    "model": "(num_classes, *, in_channels, steps, neuron, attention, sites, width) -> module, x -> logits [T, N, classes]",
}
"""How each kind is called."""
STEPS, SAMPLES, CHANNELS, SIZE, CLASSES = 4, 3, 6, 8, 5
SPREAD = {"neuron": 0.02, "attention": 0.2, "model": 0.05}


@dataclass(frozen=True)
class Finding:
    """What a contract found.

    Args:
        contract: Its name, such as "gradient".
        holds: True if it holds, False if it is broken, None if it does not apply.
        text: Why.
    """

    contract: str
    holds: bool | None
    text: str

    def __str__(self) -> str:
        return f"{ {True: 'ok', False: 'BROKEN', None: '-'}[self.holds]:<7} {self.contract}: {self.text}"


def kind_of(make: Callable[..., Any]) -> Kind:
    """What a function or class makes, by the names of its parameters.

    Args:
        make: Builds a neuron, an attention or a model.

    Raises:
        ValueError: If its parameters don't tell.
    """
    try:
        names = list(inspect.signature(make).parameters)
    except (TypeError, ValueError):
        names = []
    if {"num_classes", "in_channels"} & set(names):
        return "model"
    if {"steps", "channels"} <= set(names):
        return "attention"
    if names[:1] == ["channels"]:
        return "neuron"
    calls = "; ".join(f"{kind}: {call}" for kind, call in CALLS.items())
    raise ValueError(f"its parameters ({', '.join(names)}) don't tell what it is: give its `kind`. {calls}")


def check(make: Callable[..., Any], kind: Kind | None = None) -> Iterator[Finding]:
    """Hold what a function or class makes against the contracts of its kind; one `Finding` each, in a minute or less.

    Draws from a fixed seed and leaves the global random state alone.

    Args:
        make: Builds a neuron, make(channels), an attention, make(steps, channels), or a model, make(num_classes, *,
            in_channels, steps, neuron, attention, sites, width).
        kind: Which of the three; None: by the names of its parameters.

    Raises:
        ValueError: If the kind is unknown, or not told by the parameters.
    """
    kind = kind or kind_of(make)
    if kind not in CALLS:
        raise ValueError(f"kind must be {', '.join(CALLS)}, got {kind!r}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield from _findings(make, kind)


def _findings(make: Callable[..., Any], kind: Kind) -> Iterator[Finding]:
    size = 16 if kind == "model" else SIZE
    channels = 2 if kind == "model" else CHANNELS
    x = random_input(STEPS, SAMPLES, channels, size, size)

    def built() -> nn.Module:
        return on_one_input(_build(make, kind, size))

    try:
        module = built()
    except Exception as error:
        yield Finding("built", False, f"{_brief(error)}; it is called as {CALLS[kind]}")
        return
    yield Finding("built", True, f"{sum(p.numel() for p in module.parameters()):,} parameters")
    shape = (STEPS, SAMPLES, CLASSES) if kind == "model" else tuple(x.shape)
    randomised(module.double(), SPREAD[kind])
    module.train()
    gives = "[T, N, classes]" if kind == "model" else "the same"

    def shapes() -> None:
        for dtype in (torch.float32, torch.float64):
            shape_and_finite(copy.deepcopy(module).to(dtype), x.to(dtype), shape)

    finding = _held("shape", f"[T, N, C, H, W] gives {gives}, finite, in the input's dtype", shapes)
    yield finding
    if not finding.holds:
        return
    module(x)  # running statistics of a norm that are not those of a fresh one
    yield _held("gradient", "it reaches every parameter, and is finite", lambda: every_parameter_learns(module, 2 * x))
    yield _held("values", "no input and a very large one are taken", lambda: silence_and_noise_are_finite(module, x))
    if kind == "neuron":
        yield _held("spikes", "outputs are 0 or 1, and both occur", lambda: it_fires(module, x))
    if kind == "model":
        yield _parts(make, size)
    yield _held("sizes", "it takes a batch of one, and other frames", lambda: _other_sizes(module, x, make, kind, shape))

    def calls() -> None:
        evaluation_is_deterministic(module, x)
        nothing_survives_a_call(module, x)

    yield _held("calls", "nothing survives a call, and the input is left alone", calls)
    modes = _modes(module, x)

    def samples() -> None:
        for training in modes:
            samples_are_independent(module, x, training=training)

    yield _held("samples", f"none sees its neighbours in the batch{'' if True in modes else ' in evaluation'}", samples)
    yield _held(
        "state dict", "it holds all that the output goes by", lambda: state_dict_round_trip(module, built().double(), x)
    )
    yield from _time(module, x, kind, modes)
    yield from _fold(module, x, kind)


def _time(module: nn.Module, x: Tensor, kind: Kind, modes: tuple[bool, ...]) -> Iterator[Finding]:
    try:
        looks = any(sees_later_steps(module, x, training=training) for training in modes)
    except Exception as error:
        yield Finding("time", False, _brief(error))
        return
    said = getattr(module, "causal", None)
    if looks and (kind == "neuron" or said):
        who = "a neuron" if kind == "neuron" else "what says causal = True"
        yield Finding("time", False, f"a step sees later ones, which {who} may not")
    else:
        yield Finding("time", True, "a step sees later ones" if looks else "no step sees later ones")
    try:
        chunks_equal_the_whole(module, x, rounding=ROUNDING, flipped=FLIPPED)
        yield Finding("stream", True, "piece by piece it gives what it gives at once")
    except ValueError as error:
        own = getattr(module, "attention", module)
        yield Finding("stream", None, f"it can't be streamed: {_brief(error).replace('(OnSpikes)', f'({type(own).__name__})')}")
    except Exception as error:
        yield Finding("stream", False, _brief(error))


def _fold(module: nn.Module, x: Tensor, kind: Kind) -> Iterator[Finding]:
    if kind == "neuron":
        if {"scale", "shift"} <= inspect.signature(module.forward).parameters.keys():
            yield _held(
                "fold", "a scale and a shift of its current do what they say", lambda: an_affine_current_is_one(module, x)
            )
        else:
            yield Finding("fold", None, "its forward takes no scale and shift, so nothing is folded into it")
        return
    site = module if kind == "model" else Site(LIF(decay=0.5).double(), getattr(module, "attention", module))

    def folding() -> None:
        for training in (False, True):
            folding_changes_nothing(site, x, training=training)

    yield _held("fold", "folded into the neuron or called, the output is the same", folding)


def _modes(module: nn.Module, x: Tensor) -> tuple[bool, ...]:
    """The modes, training or not, in which samples must not mix: not in training with BatchNorm, or with random parts."""
    if any(isinstance(part, _BatchNorm) for part in module.modules()):
        return (False,)
    drawing, outputs = copy.deepcopy(module).train(), []
    with torch.no_grad():
        for seed in range(3):
            torch.manual_seed(seed)
            outputs.append(drawing(x))
    return (False, True) if all(torch.equal(outputs[0], other) for other in outputs) else (False,)


def _parts(make: Callable[..., Any], size: int) -> Finding:
    made: set[str] = set()

    def neuron(channels: int) -> nn.Module:
        made.add("neuron")
        return LIF(channels)

    def attention(steps: int, channels: int) -> nn.Module:
        made.add("attention")
        return PositionEncoding(steps, channels)

    parts = {"neuron": neuron, "attention": attention}
    built = _held("parts", "they are those it is given", lambda: _build(make, "model", size, **parts))
    lacking = [part for part in parts if part not in made]
    if not lacking or not built.holds:
        return built
    return Finding("parts", None if "neuron" in made else False, f"the {lacking[0]} that it is given is not in it")


def _other_sizes(module: nn.Module, x: Tensor, make: Callable[..., Any], kind: Kind, shape: tuple[int, ...]) -> None:
    module = copy.deepcopy(module).eval()
    fixed = kind == "model" and "size" in inspect.signature(make).parameters
    larger = x if fixed else nn.functional.interpolate(x.flatten(0, 1), scale_factor=1.5).unflatten(0, x.shape[:2])
    for given in (x[:, :1], larger, larger[:, :1]):
        expected = (*shape[:1], given.shape[1], *shape[2:]) if kind == "model" else tuple(given.shape)
        shape_and_finite(module, given, expected)


def _build(make: Callable[..., Any], kind: Kind, size: int, **parts: Any) -> nn.Module:
    if kind == "neuron":
        module = make(CHANNELS)
    elif kind == "attention":
        module = make(STEPS, CHANNELS)
        if getattr(module, "acts_on", None) not in ("current", "spikes"):
            raise ValueError('attention must say acts_on = "current" or "spikes"')
    else:
        own: dict[str, Any] = {"size": size} if "size" in inspect.signature(make).parameters else {}
        own |= {"neuron": LIF, "attention": None, **parts}
        module = make(CLASSES, in_channels=2, steps=STEPS, sites=None, width=0.125, **own)
    if not isinstance(module, nn.Module):
        raise TypeError(f"what it makes must be a torch.nn.Module, got {type(module).__name__}")
    return module


def _held(contract: str, text: str, hold: Callable[[], object]) -> Finding:
    try:
        hold()
    except (Exception, SystemExit) as error:
        return Finding(contract, False, _brief(error))
    return Finding(contract, True, text)


def _brief(error: BaseException) -> str:
    what = " ".join(str(error).split())
    return what if isinstance(error, AssertionError | ValueError) and what else f"{type(error).__name__}: {what}"[:300]


__all__ = [
    "CALLS", "Finding", "Kind", "an_affine_current_is_one", "causality", "check", "chunks_equal_the_whole",
    "evaluation_is_deterministic", "every_parameter_learns", "folding_changes_nothing", "it_fires", "kind_of",
    "nothing_survives_a_call", "on_one_input", "random_input", "randomised", "samples_are_independent", "sees_later_steps",
    "shape_and_finite", "silence_and_noise_are_finite", "state_dict_round_trip",
]  # fmt: skip
