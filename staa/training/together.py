"""A training step of several processes, each with its part of the batch: the same step as one process with all of it."""

import inspect
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from staa.ops.bits import spikes_as_bits
from staa.parallel import Group, Part
from staa.rates import firing_rates
from staa.training.evaluate import Inputs, autocast, call, evaluation_mode
from staa.training.settings import Compile, Settings
from staa.training.step import Descend, Descent


def check_together(compile: Compile, group: Group) -> None:
    """Raises ValueError for what several processes can't do."""
    if compile is not False and not group.alone:
        raise ValueError("`compile` is for one process: leave it out, or train in one")


def descent_together(model: nn.Module, settings: Settings) -> Descend:
    """How a process's part of a batch goes through the network and back: gradients are then those of the whole batch."""
    assert settings.part is not None
    part, shared = settings.part, None

    def descend(x: Inputs, y: Tensor, measuring: bool) -> Descent:
        nonlocal shared
        shared = shared or _shared(model, part.group, lacking=_lacks_gradients(model, settings.loss, x, y))
        return _descend(model, shared, settings, part, x, y, measuring)

    return descend


def _shared(model: nn.Module, group: Group, *, lacking: bool) -> nn.Module:
    """The network, whose gradients are the mean of all processes' after a backward pass. lacking: some parameters get none."""
    from torch.nn.parallel import DistributedDataParallel

    known = inspect.signature(DistributedDataParallel).parameters  # torch 2.14 has given a setting another name
    buffers = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
    # Running statistics are not sent at each step, since training reads none.
    settings: dict[str, Any] = {buffers: False, "find_unused_parameters": group.anywhere(lacking)[0]}
    return DistributedDataParallel(model, **settings)


def _lacks_gradients(model: nn.Module, loss: Callable[[Tensor, Tensor], Tensor], x: Inputs, y: Tensor) -> bool:
    """Whether a trained parameter has no part in the loss of a sample; nothing is changed, and nothing drawn."""
    x = tuple(each[:1] for each in x) if isinstance(x, tuple) else x.narrow(-4, 0, 1)
    with evaluation_mode(model), torch.random.fork_rng(devices=[y.device] if y.is_cuda else []):
        value = loss(call(model, x), y[:1])
    trained = [p for p in model.parameters() if p.requires_grad]
    return any(grad is None for grad in torch.autograd.grad(value, trained, allow_unused=True))


def _descend(
    model: nn.Module, shared: nn.Module, settings: Settings, part: Part, x: Inputs, y: Tensor, measuring: bool
) -> Descent:
    """As `staa.training.step.descend`. shared adds up the processes' gradients and divides by their number, which each loss is
    multiplied by before."""
    s, group, sizes = settings, part.group, part.sizes
    total = torch.zeros((), device=y.device)
    found: list[Tensor] = []
    rates: list[dict[str, Tensor]] = []
    shares = _shares(y, part)
    ys = y.split(sizes)
    xs = zip(*(each.split(sizes) for each in x), strict=True) if isinstance(x, tuple) else x.split(sizes, dim=-4)
    for k, (some_x, some_y) in enumerate(zip(xs, ys, strict=True)):
        mine = part.shares[k]
        rates_of = firing_rates(model, detach=s.penalty is None) if measuring or s.penalty is not None else nullcontext({})
        with shared.no_sync() if k < len(sizes) - 1 else nullcontext():  # type: ignore[operator]
            with autocast(y.device, s.precision), spikes_as_bits() if s.bits else nullcontext(), rates_of as layers:
                outputs = call(shared, some_x)
            value = s.loss(outputs, some_y) * shares[k]
            if s.penalty is not None:
                of_all = _Total.apply(mine * torch.stack(list(layers.values())), group)
                value = value + s.penalty(of_all.unbind()) * (sizes[k] / part.whole)
            (value * group.world).backward()
        total = total + value.detach()
        found.append(s.measure.sums(outputs.detach(), some_y))
        if measuring:
            rates.append({name: rate.detach() * mine for name, rate in layers.items()})
    return _of_all(Descent(total, found, rates), group)


def _shares(y: Tensor, part: Part) -> list[Tensor] | list[float]:
    """The weight of this process's mean loss over its part of each piece in the batch's: by its samples, or in forecasting,
    where the loss is a mean over the values whose truth is known, by these."""
    if y.ndim < 3:
        return [size / part.whole for size in part.sizes]
    known = torch.stack([(~some.isnan()).sum() for some in y.split(part.sizes)]).double()
    of_piece = torch.tensor([size / share / part.whole for size, share in zip(part.sizes, part.shares, strict=True)])
    return list((known / part.group.total(known).clamp(min=1) * of_piece.to(known)).to(y.dtype))


class _Total(torch.autograd.Function):
    """Sum over all processes, each of which goes on with it: its gradient is the sum of all theirs."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, group: Group) -> Tensor:
        ctx.group = group
        return group.total(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        return ctx.group.total(grad), None


def _of_all(mine: Descent, group: Group) -> Descent:
    """The sums of what all processes have found, in one message."""
    tensors = [mine.loss, *mine.sums, *(rate for layers in mine.rates for rate in layers.values())]
    message = group.total(torch.cat([x.double().flatten() for x in tensors]))
    parts = iter(
        [p.view(x.shape).to(x.dtype) for p, x in zip(message.split([x.numel() for x in tensors]), tensors, strict=True)]
    )
    loss, sums = next(parts), [next(parts) for _ in mine.sums]
    return Descent(loss, sums, [{name: next(parts) for name in layers} for layers in mine.rates])
