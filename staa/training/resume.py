"""Whether training can go on from a checkpoint: each part of it against a fresh one."""

import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import LRScheduler

MOMENTS: dict[type[Optimizer], set[str]] = {AdamW: {"step", "exp_avg", "exp_avg_sq"}, SGD: {"momentum_buffer"}}
"""What an optimizer keeps for a parameter that it has moved."""


def check_resumable(
    state: dict[str, Any], folder: Path, *, model: nn.Module, optimizer: Optimizer, schedule: LRScheduler, average: bool
) -> None:
    """Raises ValueError if a checkpoint lacks a part that training goes on with, or holds one of other sizes or settings.

    optimizer, schedule: fresh ones of the recipe. The checkpoint's have their settings, but for the learning rate and `fused`.
    """
    parts = {"model", "optimizer", "schedule", "step", "best", "best_epoch", "sums", "rates", "report"}
    lacking = (parts | ({"average"} if average else set())) - state.keys()
    if lacking:
        raise ValueError(
            f"the checkpoint for {folder} lacks {', '.join(sorted(lacking))}, so training can't go on from it: take another"
        )
    odd = _odd_optimizer(state["optimizer"], optimizer, state["step"]) or _odd_schedule(state, schedule)
    if odd:
        raise ValueError(
            f"the checkpoint for {folder} is not of this optimizer and schedule ({odd}): take another, or train anew"
        )
    names = {name.removesuffix(".neuron") for name, _ in model.named_modules()}
    sums, best, epoch = state["sums"], state["best"], state["best_epoch"]
    sound = {
        "sums": sums.dtype == torch.float64
        and not sums.requires_grad
        and sums.ndim <= 3
        and bool(sums.isfinite().all())
        and bool(sums.ndim or sums == 0),
        "rates": all(
            name in names and type(total) is float and _amount(total) and _count(n)
            for name, (total, n) in state["rates"].items()
        ),
        "best": math.isfinite(best) if epoch else best == -math.inf,
        "best_epoch": epoch <= state["step"],
    }
    if bad := [name for name, fine in sound.items() if not fine]:
        raise ValueError(f"the checkpoint for {folder} can't be resumed, since its {bad[0]} makes no sense: take another")


def fused_as(optimizer: Optimizer, state: dict[str, Any]) -> dict[str, Any]:
    """An optimizer's state from a checkpoint, fused as this optimizer is: that depends on the device, which may be another."""
    groups = zip(state["param_groups"], optimizer.param_groups, strict=True)
    return {**state, "param_groups": [its | ({"fused": own["fused"]} if "fused" in own else {}) for its, own in groups]}


def _amount(value: Any) -> bool:
    """A finite number that is not negative; a tensor of such."""
    if isinstance(value, Tensor):
        return bool((value.isfinite() & (value >= 0)).all())
    return type(value) in (int, float) and 0 <= value < math.inf


def _count(value: Any) -> bool:
    return type(value) is int and 0 < value < 2**53


def _odd_optimizer(its: dict[str, Any], fresh: Optimizer, step: int) -> str | None:
    """What in an optimizer's state is not as this fresh optimizer's would be after so many steps."""
    groups, moments, own = its.get("param_groups"), its.get("state"), fresh.state_dict()["param_groups"]
    if its.keys() != {"state", "param_groups"}:
        return "its parts"
    if not isinstance(groups, list) or len(groups) != len(own) or not all(isinstance(group, dict) for group in groups):
        return "param_groups"
    for mine, group in zip(own, groups, strict=True):
        if odd := _odd_setting(mine, group, free={"lr", "fused"}):
            return odd
        if type(group.get("fused")) not in (bool, type(None)):
            return "fused"
        if type(group["lr"]) is not float or not _amount(group["lr"]):
            return "lr"
    parameters = [p for group in fresh.param_groups for p in group["params"]]
    if not isinstance(moments, dict) or not all(type(k) is int and 0 <= k < len(parameters) for k in moments):
        return "state"
    needed, known = MOMENTS.get(type(fresh), set()), type(fresh) in MOMENTS
    for k, values in moments.items():
        if not isinstance(values, dict) or (values.keys() != needed if known else not values.keys() >= needed):
            return f"state of parameter {k}"
        for name, value in values.items():
            if not _fits(name, value, parameters[k], step):
                return f"{name} of parameter {k}"
    return None


def _fits(name: str, value: Any, parameter: Tensor, step: int) -> bool:
    """Whether an optimizer can have such a value for a parameter after so many steps."""
    if value is None:
        return name == "momentum_buffer"  # none yet
    if not isinstance(value, Tensor) or value.requires_grad or not bool(value.isfinite().all()):
        return False
    if name == "step":
        return value.ndim == 0 and value.is_floating_point() and 0 < float(value) <= step and float(value) == int(value)
    shapes = (parameter.shape,) if name in ("exp_avg", "exp_avg_sq", "momentum_buffer") else (parameter.shape, ())
    return value.shape in shapes and value.dtype == parameter.dtype and (name != "exp_avg_sq" or _amount(value))


def _odd_schedule(state: dict[str, Any], fresh: LRScheduler) -> str | None:
    """What in a schedule's state is not as this fresh schedule's would be at the checkpoint's step."""
    its, groups = state["schedule"], state["optimizer"]["param_groups"]
    if odd := _odd_setting(fresh.state_dict(), its, free={"last_epoch", "_step_count", "_last_lr"}):
        return odd
    if hidden := [name for name in its.keys() - fresh.state_dict().keys() if hasattr(fresh, str(name))]:
        return str(hidden[0])
    if not _same(state["step"], its["last_epoch"]) or not _same(state["step"] + 1, its["_step_count"]):
        return "its step"
    return None if _same([group["lr"] for group in groups], its["_last_lr"]) else "_last_lr"


def _odd_setting(own: dict[str, Any], its: dict[str, Any], *, free: set[str]) -> str | None:
    """A setting that differs and is not free. A switch (True, False or None) may lack or be added, as by another torch."""
    for name in own.keys() | its.keys():
        if name in own and name in its:
            fine = name in free or _same(own[name], its[name])
        else:
            value = own.get(name, its.get(name))
            fine = value is None or type(value) is bool
        if not fine:
            return str(name)
    return None


def _same(own: Any, its: Any) -> bool:
    """Whether a value from a file, of any kind, is equal to a plain one: True is not 1, but 1 is 1.0."""
    if isinstance(own, list | tuple):
        return type(its) is type(own) and len(its) == len(own) and all(map(_same, own, its))
    kinds = (bool,) if type(own) is bool else (int, float, str, type(None))
    return type(its) in kinds and own == its
