"""An exported network at work: whatever computes one call of it, it is called and streams as the run's own."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from staa.export.network import Form, State
from staa.ops import direct

Call = Callable[..., Sequence[Tensor]]
"""One call of a file's network: its inputs, in order -> its outputs, in order."""


def running(call: Call, form: Form, state: tuple[State, ...], steps: int | None) -> "Whole | Stepped":
    """The network that `call` computes in a form.

    Args:
        call: (x) -> (logits, …) of form "window"; (frame, *state) -> (logits, *state) of form "step".
        form: The file's.
        state: What is carried from step to step, of form "step".
        steps: T that it was built for; None: any.
    """
    return Stepped(call, state, steps) if form == "step" else Whole(call)


class Whole(nn.Module):
    """The whole window. x [T, N, C, H, W] or [N, C, H, W] -> logits [T, N, classes]"""

    causal = False  # it takes all steps at once

    def __init__(self, call: Call):
        super().__init__()
        self.call = call

    def forward(self, x: Tensor) -> Tensor:
        return self.call(x)[0]


class Stepped(nn.Module):
    """One step, as a network that `staa.stream` runs.

    x [t, N, C, H, W], or [N, C, H, W] repeated T times -> logits [t, N, classes]
    """

    def __init__(self, call: Call, state: tuple[State, ...], steps: int | None):
        super().__init__()
        self.call, self.state, self.steps = call, state, steps

    def forward(self, x: Tensor) -> Tensor:
        return self.scan(direct(x, self.steps or 1) if x.ndim == 4 else x)[0]

    def scan(self, x: Tensor, state: tuple[int, list[Tensor]] | None = None) -> tuple[Tensor, tuple[int, list[Tensor]]]:
        if not len(x):
            raise ValueError(f"a window must have at least one step, got shape {list(x.shape)}")
        seen, held = state or (0, [s.rest(x.shape[1]) for s in self.state])
        if self.steps is not None and seen + len(x) > self.steps:
            raise ValueError(f"this network was built for T = {self.steps} steps, got {seen + len(x)}")
        logits = []
        for frame in x:
            now, *held = self.call(frame, *held)
            logits.append(now)
        return torch.stack(logits), (seen + len(x), held)
