"""What a stream says after a window, and what it remembers."""

from collections import deque
from typing import NamedTuple

import torch
from torch import Tensor


class Decision(NamedTuple):
    """What a network says at the end of a window.

    Args:
        window: Number of the window, from 1; one that was dropped counts too.
        end: Its end, in seconds since the stream's first event.
        time: Its end on the camera's clock, in microseconds.
        events: Events in it.
        prediction: The class that leads by the mean of the logits over the stream's memory.
        probability: Its probability.
        newest: The class that leads by the logits of this window alone.
        newest_probability: Its probability.
        latency: Seconds from when the window's events were there to this decision.
        dropped: Windows dropped so far, since they waited too long for the network.
        late: Events left out so far, since they came when their window had been ended by the clock.
    """

    window: int
    end: float
    time: int
    events: int
    prediction: str
    probability: float
    newest: str
    newest_probability: float
    latency: float
    dropped: int
    late: int


class Memory:
    """The mean of the logits of the last windows, whatever came before them."""

    def __init__(self, windows: int):
        self.windows = windows
        self._kept: deque[tuple[int, Tensor]] = deque()

    def mean(self, number: int, logits: Tensor) -> Tensor:
        """Of this window's logits and those kept; one that was dropped takes no part, but its time passes."""
        self._kept.append((number, logits))
        while self._kept[0][0] <= number - self.windows:
            self._kept.popleft()
        return torch.stack([kept for _, kept in self._kept]).mean(0)

    def forget(self) -> None:
        self._kept.clear()
