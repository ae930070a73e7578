"""What the time of day and the weekday mean to each node."""

import torch
from torch import Tensor, nn

from staa.ops.checks import check_tensor

RANK = 10  # of the table of nodes and times


class DayEmbedding(nn.Module):
    """Linear(N ⊙ (S[slot of the day] + W[weekday])): phase [B, L', 2] -> [B, K, L', width], of rank 10.

    N [K, 10], S [slots, 10] and W [7, 10] begin at N(0, 1). A table of each node and slot would have K · slots · width numbers.
    """

    def __init__(self, nodes: int, slots: int, width: int):
        super().__init__()
        self.node = nn.Parameter(torch.randn(nodes, RANK))
        self.slot, self.weekday = nn.Embedding(slots, RANK), nn.Embedding(7, RANK)
        self.linear = nn.Linear(RANK, width)

    def forward(self, phase: Tensor) -> Tensor:
        when = self.slot(phase[..., 0]) + self.weekday(phase[..., 1])  # [B, L', 10]
        return self.linear(self.node[:, None] * when[:, None])


def check_phase(phase: Tensor | None, x: Tensor, day: DayEmbedding | None) -> None:
    """Raises ValueError for a phase of another shape, dtype, device or range than day takes, TypeError for no tensor."""
    if phase is None and day is None:
        return
    if phase is not None:
        check_tensor(phase, "phase")
    expected = "None, without day_slots" if day is None else f"int64 [{len(x)}, {x.shape[1]} or more, 2] on {x.device}"
    given = "None" if phase is None else f"{str(phase.dtype).removeprefix('torch.')} {list(phase.shape)} on {phase.device}"
    if (
        phase is None
        or day is None
        or phase.dtype != torch.int64
        or phase.device != x.device
        or phase.ndim != 3
        or (len(phase), phase.shape[2]) != (len(x), 2)
        or phase.shape[1] < x.shape[1]
    ):
        raise ValueError(f"phase must be {expected}, got {given}")
    if phase.device.type == "cpu":  # elsewhere a look at a value would wait for the device
        for of, part, size in (("slot of the day", phase[..., 0], day.slot.num_embeddings), ("weekday", phase[..., 1], 7)):
            low, high = part.amin(), part.amax()
            if low < 0 or high >= size:
                raise ValueError(f"phase must have a {of} from 0 to {size - 1}, got {int(low if low < 0 else high)}")
