"""The golden loss curve: float64, the reference path, one thread. `python tests/test_golden.py` writes it anew."""

import json
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from staa.attention import STAA
from staa.models import resnet20
from staa.neurons import AdaptiveLIF
from staa.ops import lif_reference

GOLDEN = Path(__file__).parent / "golden" / "losses.json"


def losses():
    torch.manual_seed(0)
    model = resnet20(4, in_channels=2, steps=5, width=0.125, neuron=AdaptiveLIF, attention=STAA).double()
    torch.manual_seed(0)  # what nn.init draws differs between releases of torch, what randn draws does not
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.copy_(torch.randn(weight.shape, dtype=weight.dtype) / weight[0].numel() ** 0.5)
    y = torch.arange(16) % 4
    x = 2 * torch.randn(4, 2, 12, 12, dtype=torch.float64)[y] + torch.randn(5, 16, 2, 12, 12, dtype=torch.float64)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    curve = []
    for _ in range(12):
        loss = F.cross_entropy(model(x).mean(0), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        curve.append(loss.item())
    return curve


def test_the_loss_curve_is_the_golden_one(monkeypatch):
    monkeypatch.setattr("staa.neurons.lif", lif_reference)
    assert losses() == pytest.approx(json.loads(GOLDEN.read_text()), rel=1e-6)


if __name__ == "__main__":
    torch.set_num_threads(1)
    GOLDEN.parent.mkdir(exist_ok=True)
    GOLDEN.write_text(json.dumps(losses(), indent=1) + "\n")
