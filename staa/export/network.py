"""A trained network in the two forms that leave: its whole window, and one step with the state told as tensors."""

import copy
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from staa.causality import has_scan
from staa.folding import Passive
from staa.layers import Past, Window
from staa.neurons import Neuron
from staa.ops.switch import reference
from staa.streaming import run_piece, stream

Form = Literal["window", "step"]
STEP = "state.step"
"""The state's step counter."""


class State(NamedTuple):
    """A tensor that a network carries from step to step; at rest it is 0.

    Args:
        name: Such as "state.stem.1.neuron.v".
        shape: Its sizes, None for N.
        dtype: "float32" or "int64".
    """

    name: str
    shape: tuple[int | None, ...]
    dtype: str

    @property
    def next(self) -> str:
        """The output that is its value for the step after."""
        return self.name.replace("state.", "next.", 1)

    def rest(self, batch: int) -> Tensor:
        """Its value before the first step, for so many samples."""
        return torch.zeros([batch if size is None else size for size in self.shape], dtype=getattr(torch, self.dtype))


class WindowNetwork(nn.Module):
    """The network on its whole window: (logits of each step, their mean over time, by which the run predicts).

    Args:
        model: A classifier in evaluation mode.

    Shapes:
        x [T, N, C, H, W] or [N, C, H, W] -> ([T, N, classes], [N, classes])
    """

    form: Form = "window"
    state: tuple[State, ...] = ()
    steps = None

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = without_slopes(copy.deepcopy(model))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.model(x)
        return logits, logits.mean(0)


class StepNetwork(nn.Module):
    """One step of a network that looks back alone: (logits of the step, the state for the next one).

    What the network remembers is found by running one step, in the order of its calls: each neuron's membrane, the steps
    that causal step attention looks back on, and a counter where anything goes by the number of the step.

    Args:
        model: A classifier in evaluation mode.
        frame: An example of a step.

    Shapes:
        frame [N, C, H, W], the tensors of `state` -> (logits [N, classes], those tensors anew)

    Raises:
        ValueError: If the network sees the whole window, or remembers what is no tensor of a fixed shape.
    """

    form: Form = "step"

    def __init__(self, model: nn.Module, frame: Tensor):
        super().__init__()
        names, scans = _remembered(model, frame)
        self.model = without_slopes(copy.deepcopy(model))
        self.steps: int | None = getattr(model, "steps", None)
        windows = {name: m for name, m in model.named_modules() if type(m) is Window}
        counts = any(
            window.steps is not None or not _of_staa(model.get_submodule(name.rpartition(".")[0]))
            for name, window in windows.items()
        )
        states = [State(STEP, (1,), "int64")] if counts else []
        self._kinds: list[str] = []
        for name, scan in zip(names, scans, strict=True):
            module = model.get_submodule(name)
            if type(module) is Window:
                self._kinds.append("step" if counts else "none")
                continue
            self._kinds.append("past" if type(module) is Past else "own")
            shape = (_steps_beside(model, name), *scan.shape[1:]) if type(module) is Past else scan.shape
            batch = 1 if type(module) is Past else 0
            sizes = tuple(None if i == batch else size for i, size in enumerate(shape))
            told = f"state.{name}.v" if isinstance(module, Neuron) else f"state.{name}"
            again = sum(state.name.partition("#")[0] == told for state in states)
            states.append(State(f"{told}#{again + 1}" if again else told, sizes, str(scan.dtype).removeprefix("torch.")))
        self.state, self._counts = tuple(states), counts
        for parent in list(self.model.modules()):
            for name, child in parent._modules.items():
                if type(child) is Window and counts:
                    parent._modules[name] = _Now(child.steps)
                elif type(child) is Past:
                    parent._modules[name] = _Kept()
        self._scanning = [module for module in self.model.modules() if has_scan(module)]

    def forward(self, frame: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        step, own = (state[0], state[1:]) if self._counts else (None, state)
        rest = iter(own)
        given = {"step": lambda: step, "none": lambda: None, "past": lambda: (step, next(rest)), "own": lambda: next(rest)}
        logits, *scans = run_piece(self.model, self._scanning, frame[None], *(given[kind]() for kind in self._kinds))
        after = [scan for kind, scan in zip(self._kinds, scans, strict=True) if kind in ("past", "own")]
        return logits[0], *([] if step is None else [step + 1]), *after


class _Now(nn.Module):
    """In the place of a `Window`: the number of the step as an index."""

    def __init__(self, steps: int | None):
        super().__init__()
        self.steps = steps

    def scan(self, x: Tensor, step: Tensor) -> tuple[Tensor, Tensor]:
        return step, step


class _Kept(nn.Module):
    """In the place of a `Past`: all T steps at once, 0 where they have not come."""

    def scan(self, x: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        step, before = state
        here = torch.arange(len(before), device=x.device).view(-1, *[1] * (x.ndim - 1)) == step
        kept = torch.where(here, x, before)
        return kept, kept


def _remembered(model: nn.Module, frame: Tensor) -> tuple[list[str], tuple[Any, ...]]:
    """(name of the module, what it leaves behind) for each scan of a step, in the order of the calls."""
    names: list[str] = []
    handles = [
        module.register_forward_pre_hook(Passive(lambda *_, name=name: names.append(name)))
        for name, module in model.named_modules()
        if has_scan(module)
    ]
    try:
        _, first = stream(model, frame[None])
    finally:
        for handle in handles:
            handle.remove()
    for name, scan in zip(names, first.scans, strict=True):
        known = type(model.get_submodule(name)) in (Window, Past)
        if not known and not (isinstance(scan, Tensor) and scan.shape[:1] == frame.shape[:1]):
            raise ValueError(f"{name} remembers what is no tensor [N, ...], so its step can't be exported: take `form=window`")
    return names, first.scans


def _steps_beside(model: nn.Module, name: str) -> int:
    """T of the module that a `Past` is in."""
    owner = model.get_submodule(name.rpartition(".")[0])
    steps = next((child.steps for child in owner.children() if type(child) is Window), None)
    if steps is None:
        raise ValueError(f"{name} looks back on all steps, and how many there are is not known, so its step can't be exported")
    return steps


def _of_staa(module: nn.Module) -> bool:
    return type(module).__module__.startswith("staa.")


def without_slopes(model: nn.Module) -> nn.Module:
    """The model, its neurons' surrogates gone from the forward pass, where they are exactly 0."""
    for module in model.modules():
        if isinstance(module, Neuron) and "surrogate" in vars(module):
            vars(module)["surrogate"] = _flat
    return model


def _flat(u: Tensor) -> Tensor:
    return u.new_zeros(())


def program_of(network: WindowNetwork | StepNetwork, x: Tensor) -> "torch.export.ExportedProgram":
    """The network as a program of PyTorch's own operations, for any number of samples.

    Args:
        network: What is exported, on the CPU.
        x: An example of its input, of at least two samples.

    Raises:
        ValueError: If an operation of another library is left in it.
    """
    batch, at = torch.export.Dim("batch"), x.ndim - 4
    state = [one.rest(x.shape[at]) for one in network.state]
    sizes = tuple({one.shape.index(None): batch} if None in one.shape else None for one in network.state)
    dynamic = {"frame": {0: batch}, "state": sizes} if isinstance(network, StepNetwork) else {"x": {at: batch}}
    with reference(), torch.no_grad():
        program = torch.export.export(network, (x, *state), dynamic_shapes=dynamic, strict=False)
    foreign = {str(node.target) for node in program.graph.nodes if getattr(node.target, "namespace", "aten") != "aten"}
    if foreign:
        raise ValueError(f"operations that are not PyTorch's own are left in the network: {', '.join(sorted(foreign))}")
    for node in program.graph.nodes:  # which name files of this machine
        for told in ("stack_trace", "nn_module_stack", "source_fn_stack"):
            node.meta.pop(told, None)
    return program
