"""Optimizer and schedule of a recipe."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from torch import nn
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from staa.training.named import rates_of


def make_optimizer(
    model: nn.Module,
    *,
    name: Literal["sgd", "adamw"],
    lr: float,
    momentum: float = 0.9,
    nesterov: bool = False,
    weight_decay: float = 0.0,
    decay_all: bool = False,
    lr_of: Mapping[str, float] | None = None,
) -> Optimizer:
    """SGD with momentum, Nesterov's if asked for, or AdamW; weight decay on convolution and linear weights alone, or on all.

    These weights are the parameters called `weight` with two dimensions or more. Norms, biases, learned decays and gains and
    position encodings are left out. lr_of: learning rates of some parts (`staa.training.named`). The optimizer is fused, few
    kernels for all parameters, if all of them are on CUDA.
    """
    own, rates = rates_of(model, lr_of or {}), lr_of or {}
    groups: list[dict[str, Any]] = []
    for part in (None, *rates):
        decayed, free = [], []
        for key, p in model.named_parameters():
            if own.get(key) == part:
                (decayed if decay_all or (p.ndim >= 2 and key.rpartition(".")[2] == "weight") else free).append(p)
        rate = {} if part is None else {"lr": rates[part]}
        groups += [{"params": decayed, "weight_decay": weight_decay, **rate}, {"params": free, "weight_decay": 0.0, **rate}]
    parameters = list(model.parameters())
    on_cuda = bool(parameters) and all(p.is_cuda and p.is_floating_point() for p in parameters)
    fused = True if on_cuda else None  # torch's own choice
    if name == "sgd":
        return SGD(groups, lr=lr, momentum=momentum, nesterov=nesterov, fused=fused)
    if name == "adamw":
        return AdamW(groups, lr=lr, fused=fused)
    raise ValueError(f'the optimizer must be "sgd" or "adamw", got {name!r}')


def cosine_schedule(
    optimizer: Optimizer, *, steps: int, warmup: int, lr: float, min_lr: float, more: Sequence[int] = ()
) -> LambdaLR:
    """Learning rate of step k: lr (k + 1) / warmup while k < warmup, then half a cosine from lr down to min_lr.

    more: steps of each time that the run was prolonged; each goes down half a cosine from lr to min_lr anew. A group of the
    optimizer with a rate of its own has this times its rate / lr.
    """

    def factor(k: int) -> float:
        if k < warmup:
            return (k + 1) / warmup
        k, length = k - warmup, steps - warmup
        for added in more:
            if k < length:
                break
            k, length = k - length, added
        progress = min(1.0, k / max(1, length))
        return (min_lr + (lr - min_lr) * (1 + math.cos(math.pi * progress)) / 2) / lr

    return LambdaLR(optimizer, factor)
