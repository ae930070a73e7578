"""Figures of merit, as sums that add up over batches (and processes)."""

import torch
from torch import Tensor
from torch.nn import functional as F


def classification_sums(logits: Tensor, labels: Tensor) -> Tensor:
    """[samples, correct, summed cross-entropy] of the time-mean logits [T, N, classes], float64."""
    mean = logits.mean(0, dtype=torch.promote_types(logits.dtype, torch.float32))
    correct = (mean.argmax(1) == labels).sum()
    loss = F.cross_entropy(mean, labels, reduction="sum")
    return torch.stack([torch.full_like(loss, len(labels)), correct, loss]).double()


def classification_figures(sums: Tensor) -> dict[str, float]:
    """accuracy and loss per sample from such sums. Raises ValueError on no samples."""
    samples, correct, loss = sums.tolist()
    if samples == 0:
        raise ValueError("no samples to measure on")
    return {"accuracy": correct / samples, "loss": loss / samples}
