"""How a training step is taken: as it is written, compiled, or recorded as a CUDA graph; and the arithmetic of a GPU."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from torch.utils._pytree import tree_map_only

from staa.ops.bits import spikes_as_bits
from staa.rates import firing_rates
from staa.training.evaluate import Inputs, autocast, call
from staa.training.settings import Compile, Settings

WARM_UP = 3  # steps before one is recorded, in which kernels are compiled and chosen


class Descent(NamedTuple):
    """What a batch's forward and backward pass give, beside gradients: its loss, and of each piece that it is taken in the
    figures' sums and, where they are measured, the firing rates by neuron."""

    loss: Tensor
    sums: list[Tensor]
    rates: list[dict[str, Tensor]]


Descend = Callable[[Inputs, Tensor, bool], Descent]
"""Of inputs, targets and whether firing rates are measured; it leaves gradients in the model."""


def descent(model: nn.Module, settings: Settings) -> Descend:
    """How a batch goes through the network and back: as it is written, compiled or recorded."""
    plainly = partial(descend, model, settings, model)
    if settings.compile == "graph":
        return recorded(plainly, model)
    if settings.compile is False:
        return plainly
    quickly = partial(descend, model, settings, compiled(model))  # which knows no hooks
    return lambda x, y, measuring: (plainly if measuring else quickly)(x, y, measuring)


def descend(model: nn.Module, settings: Settings, forward: nn.Module, x: Inputs, y: Tensor, measuring: bool) -> Descent:
    """Forward and backward pass of a batch in its pieces; forward: the model itself, or what stands for it."""
    s, device = settings, y.device
    result = Descent(torch.zeros((), device=device), [], [])
    for some_x, some_y in pieces_of(x, y, s.accumulate):
        share = len(some_y) / len(y)
        rates_of = firing_rates(model, detach=s.penalty is None) if measuring or s.penalty is not None else nullcontext({})
        with autocast(device, s.precision), spikes_as_bits() if s.bits else nullcontext(), rates_of as layers:
            outputs = call(forward, some_x)
        value = s.loss(outputs, some_y)
        if s.penalty is not None:
            value = value + s.penalty(layers.values())
        (value * share).backward()
        result = result._replace(loss=result.loss + value.detach() * share)
        result.sums.append(s.measure.sums(outputs.detach(), some_y))
        if measuring:
            result.rates.append({name: rate.detach() for name, rate in layers.items()})
    return result


def check_compile(compile: Compile, device: torch.device, *, penalty: bool) -> None:
    """Raises ValueError if a step can't be taken in this way on this device: a small function is compiled to find out.

    penalty: the loss has one on firing rates, which are measured by hooks.
    """
    if not (compile is True or compile is False or compile == "graph"):
        raise ValueError(f'`compile` must be True, False or "graph", got {compile!r}')
    if compile == "graph" and device.type != "cuda":
        raise ValueError(f"`compile=graph` needs a CUDA device, and this run is on {device.type}: leave it out")
    if compile is True and penalty:
        raise ValueError(
            "a penalty on firing rates (`loss.rate_weight`) measures them in each step, which `compile` leaves out: give up one"
        )
    if compile is True:
        try:
            torch.compile(lambda x: 2 * x + 1, dynamic=False)(torch.zeros(8, device=device))
        except Exception as error:  # each backend has its own kinds
            raise ValueError(f"`compile` can't be used here, leave it out: {_first_line(error)}") from error


@contextmanager
def fast_arithmetic(device: torch.device) -> Iterator[None]:
    """Within, on CUDA: products of float32 tensors in TF32 (ten bits of mantissa, summed in float32), and convolutions by the
    algorithm that is measured to be the fastest, unless they must be deterministic. Elsewhere nothing changes."""
    if device.type != "cuda":
        yield
        return
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.benchmark
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.benchmark = not torch.are_deterministic_algorithms_enabled()
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.benchmark = before[1]


def compiled(model: nn.Module) -> nn.Module:
    """The network, compiled, with the random numbers that it draws as it is written."""
    return cast(nn.Module, torch.compile(model, dynamic=False, options={"fallback_random": True}))


def recorded(f: Descend, model: nn.Module) -> Descend:
    """f as a CUDA graph: all its kernels are launched at once, and no Python runs.

    It is recorded at the first call, and again for a batch of another shape and for measuring; the graphs share their memory.
    Its random numbers follow from torch.manual_seed before each call. What f does on the host happens only while it is
    recorded. Raises RuntimeError if f waits for the device, as to look at a value.
    """
    graphs: dict[Any, _Recording] = {}
    parameters, pool = list(model.parameters()), torch.cuda.graph_pool_handle()

    def record(x: Inputs, y: Tensor, measuring: bool) -> _Recording:
        device = y.device
        own = tuple(part.clone() for part in x) if isinstance(x, tuple) else x.clone(), y.clone()
        buffers, random = [b.clone() for b in model.buffers()], torch.cuda.get_rng_state(device)
        graph, beside = torch.cuda.CUDAGraph(), torch.cuda.Stream(device)
        beside.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(beside):
            for _ in range(WARM_UP):
                model.zero_grad()
                f(*own, measuring)
        torch.cuda.current_stream(device).wait_stream(beside)
        model.zero_grad()  # so that the graph has gradients of its own, which each replay overwrites
        with torch.cuda.graph(graph, pool, capture_error_mode="thread_local"):  # a data loader's threads go on meanwhile
            result = f(*own, measuring)
        with torch.no_grad():
            for buffer, before in zip(model.buffers(), buffers, strict=True):
                buffer.copy_(before)
        torch.cuda.set_rng_state(random, device)
        return _Recording(graph, _parts(*own), result, [p.grad for p in parameters])

    def call(x: Inputs, y: Tensor, measuring: bool) -> Descent:
        batch = _parts(x, y)
        form = (measuring, *((part.shape, part.stride(), part.dtype) for part in batch))
        if form not in graphs:
            try:
                graphs[form] = record(x, y, measuring)
            except RuntimeError as error:
                raise RuntimeError(
                    f"a step of this network can't be recorded as a CUDA graph ({_first_line(error)}): train it without "
                    f"`compile=graph`"
                ) from error
        graph, own, result, grads = graphs[form]
        for mine, part in zip(own, batch, strict=True):
            mine.copy_(part)
        graph.replay()
        for p, grad in zip(parameters, grads, strict=True):
            p.grad = grad
        return tree_map_only(Tensor, Tensor.clone, result)  # the next replay overwrites it

    return call


class _Recording(NamedTuple):
    graph: torch.cuda.CUDAGraph
    batch: tuple[Tensor, ...]
    result: Descent
    grads: list[Tensor | None]


def _parts(x: Inputs, y: Tensor) -> tuple[Tensor, ...]:
    return (*x, y) if isinstance(x, tuple) else (x, y)


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def update_average(average: AveragedModel, model: nn.Module, *, first: bool) -> None:
    """`average.update_parameters(model)` for an average of all weights and buffers, by a function of lists, as `run` makes it.

    first: nothing was averaged before. torch's own sends its counter to the device in each step, and so waits for it.
    """
    if average.multi_avg_fn is None or not average.use_buffers:
        average.update_parameters(model)
        return
    groups: dict[Any, tuple[list[Tensor], list[Tensor]]] = {}
    mine, its = ((*m.parameters(), *m.buffers()) for m in (average.module, model))
    for a, b in zip(mine, its, strict=True):
        for group, x in zip(groups.setdefault((a.device, a.dtype), ([], [])), (a, b), strict=True):
            group.append(x.detach())
    for averaged, new in groups.values():
        if not first:
            average.multi_avg_fn(averaged, new, average.n_averaged)
            continue
        for a, b in zip(averaged, new, strict=True):
            a.copy_(b)
    average.n_averaged += 1


def pieces_of(x: Inputs, y: Tensor, count: int) -> Iterator[tuple[Inputs, Tensor]]:
    """A batch in pieces: x is [N, C, H, W] or [T, N, C, H, W], or several tensors [N, ...]."""
    if count == 1:
        return iter([(x, y)])
    pieces = zip(*(part.chunk(count) for part in x), strict=True) if isinstance(x, tuple) else x.chunk(count, dim=-4)
    return zip(pieces, y.chunk(count), strict=True)
