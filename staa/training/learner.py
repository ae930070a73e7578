"""What learns: a network with all that a checkpoint holds of it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.optim.swa_utils import AveragedModel

from staa.parallel import ALONE, Group
from staa.training.checkpoint import save_checkpoint
from staa.training.evaluate import device_of
from staa.training.finite import check_gradients, check_losses, check_weights
from staa.training.resume import check_resumable, fused_as
from staa.training.step import Descent, update_average
from staa.training.weights import load_weights


@dataclass
class Learner:
    """A network, its optimizer and their progress; in `folder`, from step to step, its checkpoints.

    average: of the model, updated after each step. It is then what validation measures and what the best weights are of.
    still: modules that stay in evaluation mode while the others train.
    about: plain values that every checkpoint keeps.
    group: the processes that train it together, each with a learner. They hold the same, but for running statistics: those of
    the first count. It alone writes.

    What a step gives stays on the device until `read`. Nothing that is not finite is saved.
    """

    model: nn.Module
    optimizer: Optimizer
    schedule: LRScheduler
    folder: Path
    average: AveragedModel | None = None
    about: Mapping[str, Any] = field(default_factory=dict)
    still: Sequence[nn.Module] = ()
    group: Group = ALONE

    device: torch.device = field(init=False)
    step: int = field(default=0, init=False)
    epoch: int = field(default=1, init=False)
    best: float = field(default=-math.inf, init=False)
    best_epoch: int = field(default=0, init=False)
    sums: Tensor = field(init=False)
    """Of the epoch, what its figures are made of."""
    rates: dict[str, list[float]] = field(default_factory=dict, init=False)
    """Of the epoch, by layer: the sum of its firing rates, and how many."""
    report: dict[str, Any] = field(default_factory=dict, init=False)
    """Of the last epoch, as the log has it: a process may die between checkpoint and log."""

    _losses: dict[int, Tensor] = field(default_factory=dict, init=False)
    _rates: list[dict[str, Tensor]] = field(default_factory=list, init=False)
    _finite: dict[int, Tensor] = field(default_factory=dict, init=False)
    """By step, since the last look at them, whether its gradients were."""
    _averaged: bool = field(init=False)

    def __post_init__(self) -> None:
        self.device = device_of(self.model)
        self._averaged = self.average is not None and bool(self.average.n_averaged > 0)
        self.begin_epoch()

    @property
    def measured(self) -> nn.Module:
        """The network that is measured."""
        return self.model if self.average is None else self.average.module

    def align(self) -> None:
        """Give the network that is measured the weights and running statistics of the first process."""
        self.group.align(value for value in self.measured.state_dict().values() if isinstance(value, Tensor))

    def begin_epoch(self) -> None:
        self.sums, self.rates = torch.zeros((), dtype=torch.float64, device=self.device), {}

    def advance(self, found: Descent, norm: Tensor) -> None:
        """Take a step by the gradients that are in the model, of this norm; what was found with them waits for `read`."""
        for more in found.sums:
            if self.sums.ndim == 3 and self.sums.shape[1:] == more.shape[1:] and len(self.sums) < len(more):
                lacking = more.new_full((len(more) - len(self.sums), *more.shape[1:]), math.nan)  # an earlier version's
                self.sums = torch.cat([self.sums, lacking])
            if self.sums.ndim and self.sums.shape != more.shape:
                raise ValueError(f"the checkpoint for {self.folder} has sums of other figures than these: take another")
            self.sums = self.sums + more
        self.optimizer.step()
        self.schedule.step()
        if self.average is not None:
            update_average(self.average, self.model, first=not self._averaged)
            self._averaged = True
        self.step += 1
        self._losses[self.step], self._finite[self.step] = found.loss, norm.isfinite()
        self._rates += found.rates

    def read(self) -> float:
        """Losses and firing rates of the steps since the last reading, from the device; returns the last loss.

        Raises FloatingPointError if one of these losses is not finite.
        """
        names = [name for layers in self._rates for name in layers]
        if names:
            values = torch.stack([rate for layers in self._rates for rate in layers.values()]).tolist()
            for name, value in zip(names, values, strict=True):
                total, count = self.rates.get(name, [0.0, 0])
                self.rates[name] = [total + value, count + 1]
            self._rates.clear()
        if not self._losses:
            return math.nan
        losses = dict(zip(self._losses, torch.stack(list(self._losses.values())).tolist(), strict=True))
        self._losses.clear()
        check_losses(losses, self._finite, epoch=self.epoch, folder=self.folder)
        return losses[self.step]

    def check_gradients(self) -> None:
        """Raises FloatingPointError if those of a step since the last look were not finite."""
        check_gradients(self._finite, folder=self.folder)
        self._finite.clear()

    def check_finite(self) -> None:
        """Raises FloatingPointError if a loss, a gradient or a weight is not finite."""
        self.read()
        self.check_gradients()
        # of an average its network alone: its counter is on the CPU, wherever that is
        averaged = {} if self.average is None else self.average.module.state_dict(prefix="average.module.")
        check_weights({**self.model.state_dict(), **averaged}, step=self.step, folder=self.folder)

    def save(self) -> None:
        """Write a checkpoint. Raises FloatingPointError as `check_finite`, RuntimeError if it can't be written."""
        self.check_finite()
        if not self.group.first:
            return
        save_checkpoint(self.folder, {
            **self.about, "step": self.step, "best": self.best, "best_epoch": self.best_epoch, "sums": self.sums.cpu(),
            "rates": self.rates, "report": self.report, "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(), "schedule": self.schedule.state_dict(),
            **({} if self.average is None else {"average": self.average.state_dict()}),
        })  # fmt: skip

    def load(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint. Raises ValueError if it is of another network, or of other settings."""
        average = self.average
        check_resumable(
            state, self.folder, model=self.model, optimizer=self.optimizer, schedule=self.schedule, average=average is not None
        )
        load_weights(self.model, state["model"], self.folder)
        if average is not None:
            load_weights(average, state["average"], self.folder)
            self._averaged = bool(average.n_averaged > 0)
        self.optimizer.load_state_dict(fused_as(self.optimizer, state["optimizer"]))
        self.schedule.load_state_dict(state["schedule"])
        self.step, self.best, self.best_epoch = state["step"], state["best"], state["best_epoch"]
        self.rates, self.report, self.sums = state["rates"], state["report"], state["sums"].to(self.device)
