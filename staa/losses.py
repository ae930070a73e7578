"""Losses on logits per time step."""

import torch
from torch import Tensor
from torch.nn import functional as F


def mean_cross_entropy(logits: Tensor, labels: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
    """Cross-entropy of the time-mean logits: CE(1/T Σ_t logits[t], labels). [T, N, classes], [N] -> scalar."""
    mean = logits.mean(0, dtype=torch.promote_types(logits.dtype, torch.float32))
    return F.cross_entropy(mean, labels, label_smoothing=label_smoothing)
