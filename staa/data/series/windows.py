"""Windows of a time series, in batches."""

from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor

from staa.data.batches import order_of, turns_of
from staa.data.series.source import SeriesSource
from staa.parallel import ALONE, Group

Inputs = tuple[Tensor, ...]
"""(x [B, L, K],), then time features [B, L, F] if there are any, then phases [B, L + P, 2] if they are told"""


class WindowBatches:
    """Batches of windows of one part, on a device. The order of epoch e depends on (seed, e) alone, so an epoch can be entered
    anywhere. Once an epoch has begun, no batch makes the host wait for a GPU.

    Args:
        source: The series, cut into windows.
        part: Which of its parts.
        batch_size: Windows of a batch, at least 1.
        seed: Shuffles the windows and drops the last batch if it is not full; None: all windows in order.
        device: Where the batches are.
        group: The processes that share them, as those of `staa.data.Batches` do.
        pieces: Pieces that a batch is taken in.

    Shapes:
        A batch is (inputs, y [B, P, K]); inputs are x [B, L, K], then time features [B, L, F] if the source has any, then
        phases int64 [B, L + P, 2] of the rows seen and told if it tells them.

    Raises:
        ValueError: If the part has no windows, or batch_size is below 1.
    """

    def __init__(
        self,
        source: SeriesSource,
        part: Literal["train", "validation", "test"],
        batch_size: int,
        *,
        seed: int | None = None,
        device: torch.device | str = "cpu",
        group: Group = ALONE,
        pieces: int = 1,
    ):
        windows = getattr(source, part)
        if not windows or batch_size < 1:
            raise ValueError(f"need windows to {part} on and a batch size of at least 1, got {windows} and {batch_size}")
        self.windows: range = windows
        self.batch_size, self.seed, self.device = min(batch_size, len(windows)), seed, torch.device(device)
        self.group, self.part = group, None if seed is None else group.part(self.batch_size, pieces)
        self.window, self.horizon = source.window, source.horizon
        self.values, self.targets = source.values.to(device), source.targets.to(device)
        self.time = None if source.time is None else source.time.to(device)
        self.phase = source.phase.to(device) if source.tells_phase and source.phase is not None else None
        self.between = None if source.between is None else source.between.to(device)
        self.arrives = None if source.arrives is None else source.arrives.to(device)

    def __len__(self) -> int:
        count = len(self.windows)
        return count // self.batch_size if self.seed is not None else -(-count // self.batch_size)

    def epoch(self, epoch: int = 0, start: int = 0) -> Iterator[tuple[Inputs, Tensor]]:
        """Batches start, start + 1, … of an epoch, as (inputs, y).

        Args:
            epoch: Number of the epoch, from 0.
            start: Number of the first batch, from 0.

        Shapes:
            as `take`'s
        """
        order = order_of(len(self.windows), self.seed, epoch).to(self.device)
        places = None if self.part is None else self.part.places().to(self.device)
        for k in turns_of(self.group, range(start, len(self)), self.part):
            chosen = order[k * self.batch_size : (k + 1) * self.batch_size]
            yield self.take(chosen if places is None else chosen[places])

    def close(self) -> None:
        """There is nothing to end: these batches have no worker processes."""

    def take(self, chosen: Tensor) -> tuple[Inputs, Tensor]:
        """The windows at these places of the part, as (inputs, y).

        Args:
            chosen: Places in the part, from 0.

        Shapes:
            chosen [B] -> x [B, L, K], time features [B, L, F], phases [B, L + P, 2], y [B, P, K]
        """
        return self.at(chosen + self.windows.start)

    def at(self, first: Tensor) -> tuple[Inputs, Tensor]:
        """The windows that begin at these rows of the series, of whatever part, as (inputs, y).

        Args:
            first: The first row that each window sees.

        Shapes:
            first [B] -> as `take`'s
        """
        rows = first.to(self.device)[:, None] + torch.arange(self.window + self.horizon, device=self.device)
        seen, told = rows.split([self.window, self.horizon], 1)
        x = self.values[seen]
        if self.between is not None and self.arrives is not None:
            x = torch.where(self.arrives[seen] <= seen[:, -1:, None], self.between[seen], x)
        inputs = (x,) if self.time is None else (x, self.time[seen])
        if self.phase is not None:
            inputs = (*inputs, self.phase[rows])
        return inputs, self.targets[told]
