"""A quick look at how fast this machine runs: the short form of the repository's benchmarks/."""

import statistics
from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from staa.analysis.cost import interleaved, ratio
from staa.attention import STAA
from staa.models import resnet20
from staa.models.parts import fuse_norms
from staa.neurons import NEURONS, AdaptiveLIF
from staa.ops import lif, lif_reference

Row = tuple[str, float, float, float, float]
"""What, median milliseconds, and its ratio to the first row of its group: median, quarter- and three-quarter-point."""


def bench(device: torch.device, *, inference: bool = False, rounds: int = 9) -> Iterator[tuple[str, list[Row]]]:
    """Yield (title, rows). All rows of a group are run in turns, so that they see the same load."""
    if inference:
        yield from _inference(device, rounds)
        return
    for shape in ((4, 16, 64, 32, 32), (100, 10240)):
        x, grad = torch.randn(shape, device=device).requires_grad_(), torch.randn(shape, device=device)
        moved = torch.empty(int(x.numel() * 2.5), device=device)  # a copy reads and writes 20 bytes for each element of x
        room = torch.empty_like(moved)
        title = f"one neuron, {' × '.join(map(str, shape))}, forward and backward"
        functions: dict[str, Callable[[], object]] = {
            "a copy of the bytes that must move": partial(room.copy_, moved),
            "lif": partial(_backward, lif, x, grad),
            "lif_reference": partial(_backward, lif_reference, x, grad),
        }
        yield title, _rows(functions, rounds, device)
    steps: dict[str, Callable[[], object]] = {
        "plain LIF": _training_step(resnet20(100, width=0.5, neuron=NEURONS["plain"]), device),
        "STAA": _training_step(resnet20(100, width=0.5, neuron=AdaptiveLIF, attention=STAA), device),
    }
    yield "training step, resnet20 at half width, T = 4, 32 images", _rows(steps, rounds, device)


def _inference(device: torch.device, rounds: int) -> Iterator[tuple[str, list[Row]]]:
    x = torch.rand(32, 3, 32, 32, device=device)
    model = resnet20(100, width=0.5, neuron=AdaptiveLIF, attention=STAA).to(device).to(memory_format=torch.channels_last).eval()
    fused = fuse_norms(model)

    def run(network: nn.Module) -> None:
        with torch.inference_mode():
            network(x)

    def with_autograd() -> None:
        model(x)

    functions: dict[str, Callable[[], object]] = {
        "fused, inference mode": partial(run, fused),
        "as trained, inference mode": partial(run, model),
        "as trained, with what autograd keeps": with_autograd,
    }
    yield "inference, resnet20 with STAA at half width, T = 4, 32 images", _rows(functions, rounds, device)


def _rows(functions: dict[str, Callable[[], object]], rounds: int, device: torch.device) -> list[Row]:
    seconds = interleaved(functions, rounds, device)
    first = next(iter(seconds.values()))
    return [(name, statistics.median(times) * 1e3, *ratio(times, first)) for name, times in seconds.items()]


def _backward(f: Callable[..., tuple[Tensor, Tensor]], x: Tensor, grad: Tensor) -> None:
    x.grad = None
    f(x, decay=0.5)[0].backward(grad)


def _training_step(network: nn.Module, device: torch.device) -> Callable[[], None]:
    network = network.to(device).to(memory_format=torch.channels_last)
    x, y = torch.rand(32, 3, 32, 32, device=device), torch.randint(100, (32,), device=device)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01)

    def step() -> None:
        optimizer.zero_grad()
        F.cross_entropy(network(x).mean(0), y).backward()
        optimizer.step()

    return step
