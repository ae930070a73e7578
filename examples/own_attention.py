"""An attention of one's own in a network of ours, against none and against STAA, for a few steps on digits-events.

python examples/own_attention.py
"""

import torch
from torch import Tensor, nn

from staa.attention import STAA
from staa.data import Batches, digits_events
from staa.losses import mean_cross_entropy
from staa.models import vggsnn
from staa.neurons import AdaptiveLIF
from staa.training.evaluate import evaluate


class Novelty(nn.Module):
    """y[t] = x[t] ⊙ σ(a + b · (m[t] − m[t−1])), m the mean over space: a channel whose activity changes is heard better.

    At the first step nothing has changed: m[−1] = m[0].
    """

    acts_on, causal = "current", True  # before the neuron charges; step t sees no later one

    def __init__(self, steps: int | None, channels: int):
        super().__init__()
        self.a = nn.Parameter(torch.full((channels,), 2.0))
        self.b = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:  # [T, N, C, H, W]
        return self.scan(x)[0]

    def scan(self, x: Tensor, before: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(y, the last mean [N, C]): the same for a piece of a window, as staa.stream asks for it."""
        mean = x.mean((3, 4))
        earlier = mean[:1] if before is None else before[None]
        change = mean - torch.cat([earlier, mean[:-1]])
        return x * torch.sigmoid(self.a + self.b * change)[..., None, None], mean[-1]


def accuracy(attention, steps: int = 80) -> float:
    torch.manual_seed(0)
    source = digits_events(steps=5, validation=0.1)
    model = vggsnn(10, in_channels=2, steps=5, neuron=AdaptiveLIF, attention=attention, width=0.125, size=16)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    batches = Batches(source.train, 32, prepare=source.prepare, seed=0)
    for step in range(steps):
        x, y = next(batches.epoch(*divmod(step, len(batches))))
        loss = mean_cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert source.validation is not None
    return evaluate(model, Batches(source.validation, 64, prepare=source.prepare))["accuracy"]


if __name__ == "__main__":
    for name, attention in {"none": None, "Novelty": Novelty, "STAA": STAA}.items():
        print(f"{name:<8} validation accuracy after 80 steps {accuracy(attention):.1%}")
