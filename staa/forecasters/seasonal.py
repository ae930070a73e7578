"""A forecaster of what is left of a series without its season."""

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

DAYS = {"day": 1, "week": 7, "day+weekend": 2}
"""Days that a profile tells apart, by the kind of its season."""


class Seasonal(nn.Module):
    """forecast = season ahead + forecaster(x − season of the window): the season is a profile, the mean of the training rows.

        season of row r = profile[cell of r],   cell: slot of the day ("day"), weekday · slots + slot ("week"), or slot, and
        slots later on Saturday and Sunday ("day+weekend")

    The profile is in the state dict, and does not learn. With "none" there is none, and the forecaster's forecast is all.

    Args:
        forecaster: Forecasts the rest; if it has a `day` (`DayEmbedding`), it is given the window's phases too, as `phase`.
        nodes: K, the series that are forecast together.
        kind: What the profile tells apart.
        slots: Slots of a day.

    Shapes:
        x [B, L, K], time [B, L, F] if the forecaster takes any, phase int64 [B, L + P, 2] -> forecast [B, P, K]
    """

    batch_first = True

    def __init__(self, forecaster: nn.Module, nodes: int, *, kind: str, slots: int):
        super().__init__()
        self.forecaster, self.kind, self.slots = forecaster, kind, slots
        self.profile: Tensor | None
        self.register_buffer("profile", None if kind == "none" else torch.zeros(DAYS[kind] * slots, nodes))

    def forward(self, x: Tensor, *rest: Tensor) -> Tensor:
        *time, phase = rest
        seen = x.shape[1]
        told = {"phase": phase[:, :seen]} if getattr(self.forecaster, "day", None) is not None else {}
        season = self.season(phase)
        if season is None:
            return self.forecaster(x, *time, **told)
        return self.forecaster(x - season[:, :seen], *time, **told) + season[:, seen:]

    @torch.no_grad()
    def fit_season(self, values: Tensor, phase: Tensor) -> None:
        """Set the profile to the mean of the values in each cell. A cell without one has the mean of its slot on all days, a
        slot without one that of the node.

        Args:
            values: Rows to train on, NaN if a value is not known.
            phase: Their phases.

        Shapes:
            values [n, K], phase [n, 2]
        """
        if self.profile is None:
            return
        whole = values.double().nanmean(0).nan_to_num().expand(self.slots, -1)
        by_slot = _means(values, phase[:, 0], whole)
        self.profile.copy_(_means(values, self._cell(phase), by_slot.repeat(DAYS[self.kind], 1)))

    def season(self, phase: Tensor) -> Tensor | None:
        """The profile at each phase; None without one.

        Args:
            phase: Slot of the day and weekday, int64.

        Shapes:
            phase [..., 2] -> [..., K]
        """
        return None if self.profile is None else self.profile[self._cell(phase)]

    def _cell(self, phase: Tensor) -> Tensor:
        slot, weekday = phase.unbind(-1)
        if self.kind == "week":
            return weekday * self.slots + slot
        return torch.where(weekday >= 5, slot + self.slots, slot) if self.kind == "day+weekend" else slot

    def rest(self, batches: Iterable[tuple[tuple[Tensor, ...], Tensor]]) -> Iterator[tuple[tuple[Tensor, ...], Tensor]]:
        """Batches of what the forecaster is to learn: windows and targets without their season.

        Args:
            batches: Of (inputs, y), inputs as `forward` takes them.

        Shapes:
            x [B, L, K], y [B, P, K]
        """
        for (x, *time, phase), y in batches:
            season = self.season(phase)
            if season is not None:
                x, y = x - season[:, : x.shape[1]], y - season[:, x.shape[1] :]
            yield (x, *time), y


def _means(values: Tensor, cell: Tensor, otherwise: Tensor) -> Tensor:
    """Mean of the values [n, K] in each cell, or what stands otherwise [cells, K]."""
    known = ~values.isnan()
    sums, counts = torch.zeros_like(otherwise), torch.zeros_like(otherwise)
    sums.index_add_(0, cell, values.double().where(known, 0.0))
    counts.index_add_(0, cell, known.double())
    return torch.where(counts > 0, sums / counts.clamp(min=1), otherwise)


def forecaster_of(model: nn.Module) -> Any:
    """The forecaster in a network of a season, or the network itself."""
    return model.forecaster if isinstance(model, Seasonal) else model
