"""Optimizer and schedule of a recipe."""

import math
from typing import Literal

from torch import nn
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR


def make_optimizer(
    model: nn.Module,
    *,
    name: Literal["sgd", "adamw"],
    lr: float,
    momentum: float = 0.9,
    nesterov: bool = False,
    weight_decay: float = 0.0,
    decay_all: bool = False,
) -> Optimizer:
    """SGD with momentum, Nesterov's if asked for, or AdamW; weight decay on convolution and linear weights alone, or on all.

    These weights are the parameters called `weight` with two dimensions or more. Norms, biases, learned decays and gains and
    position encodings are left out. It is fused, few kernels for all parameters, if all of them are on CUDA.
    """
    decayed, free = [], []
    for key, p in model.named_parameters():
        (decayed if decay_all or (p.ndim >= 2 and key.rpartition(".")[2] == "weight") else free).append(p)
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": free, "weight_decay": 0.0}]
    parameters = [*decayed, *free]
    on_cuda = bool(parameters) and all(p.is_cuda and p.is_floating_point() for p in parameters)
    fused = True if on_cuda else None  # torch's own choice
    if name == "sgd":
        return SGD(groups, lr=lr, momentum=momentum, nesterov=nesterov, fused=fused)
    if name == "adamw":
        return AdamW(groups, lr=lr, fused=fused)
    raise ValueError(f'the optimizer must be "sgd" or "adamw", got {name!r}')


def cosine_schedule(optimizer: Optimizer, *, steps: int, warmup: int, lr: float, min_lr: float) -> LambdaLR:
    """Learning rate of step k: lr (k + 1) / warmup while k < warmup, then half a cosine from lr down to min_lr."""

    def factor(k: int) -> float:
        if k < warmup:
            return (k + 1) / warmup
        progress = min(1.0, (k - warmup) / max(1, steps - warmup))
        return (min_lr + (lr - min_lr) * (1 + math.cos(math.pi * progress)) / 2) / lr

    return LambdaLR(optimizer, factor)
