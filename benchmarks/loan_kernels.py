"""On a machine that is met for the first time: are the neuron's kernels right, how near a copy's speed are they, and what forms
can a training step take."""

import os
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from staa.attention import STAA
from staa.models import resnet20
from staa.neurons import AdaptiveLIF
from staa.ops import lif, lif_reference, rectangle
from staa.ops.switch import reference
from staa.training.evaluate import Inputs, autocast, call
from staa.training.step import Descent, compiled, fast_arithmetic, recorded

SPIKES, GRADIENTS = 1e-4, {torch.float32: 1e-3, torch.bfloat16: 2e-2}
"""Share of spikes that may differ, and relative error of a gradient."""
SHAPES = {
    "T=4 128×128×32×32": (4, 128, 128, 32, 32),
    "T=4 512×128×32×32": (4, 512, 128, 32, 32),
    "T=16 128×128×32×32": (16, 128, 128, 32, 32),
}

TILES = (1, 8, 16), (2, 8, 16), (2, 4, 16), (4, 8, 16), (4, 4, 16), (1, 8, 8), (1, 4, 8), (1, 8, 4)
"""Of the backward pass: times the elements that it holds, warps, steps of a segment."""


def equalities(device: torch.device) -> Iterator[dict[str, Any]]:
    """Each form of the neuron in each dtype and layout, those first that training takes most, and a network. "right" says
    whether it held."""
    yield from _equal_neurons("channels_last", device)
    torch.manual_seed(0)
    model = resnet20(100, width=0.25, neuron=AdaptiveLIF, attention=lambda *a: STAA(*a, dropout=0.0)).to(device)
    images, y = torch.randn(16, 3, 32, 32, device=device), torch.arange(16, device=device)
    losses = []
    for slow in (False, True):
        model.zero_grad()
        with reference() if slow else nullcontext():
            loss = F.cross_entropy(model(images).mean(0), y)
            loss.backward()
        losses.append(loss.item())
    error = abs(losses[0] - losses[1]) / losses[1]
    yield {"case": "resnet20, STAA, float32: the loss", "error": error, "right": error < 0.02}
    yield from _equal_neurons("contiguous", device)


def _equal_neurons(layout: str, device: torch.device) -> Iterator[dict[str, Any]]:
    for dtype in (torch.bfloat16, torch.float32):
        for form in ("attention", "channels", "plain"):
            torch.manual_seed(0)
            x = (torch.randn(4, 8, 72, 16, 16) + 0.3).to(device, dtype)
            if layout == "channels_last":
                x = x.flatten(0, 1).contiguous(memory_format=torch.channels_last).unflatten(0, (4, 8))
            yield {"case": f"{form}, {layout}, {dtype}".replace("torch.", ""), **_compare(x, _constants(form, device))}


def _constants(form: str, device: torch.device) -> dict[str, Any]:
    """As a plain neuron, a learned one behind BatchNorm and one behind attention give them."""
    if form == "plain":
        return dict(decay=0.25, threshold=0.5, surrogate=rectangle)
    uniform = lambda *shape: (torch.rand(shape) + 0.5).to(device)  # noqa: E731
    lead = (1, 1) if form == "channels" else (4, 8)
    return dict(
        decay=torch.rand(72, 1, 1).to(device), gain=uniform(72, 1, 1), threshold=0.7, surrogate=rectangle,
        scale=uniform(*lead, 72, 1, 1), shift=torch.randn(lead[0], 1, 72, 1, 1).to(device),
    )  # fmt: skip


def _compare(x: Tensor, options: dict[str, Any]) -> dict[str, Any]:
    grad = torch.randn_like(x)
    found = []
    for f in (lif, lif_reference):
        leaves = {k: p.clone().requires_grad_() for k, p in options.items() if isinstance(p, Tensor)}
        x_ = x.clone().requires_grad_()
        spikes, _ = f(x_, **{**options, **leaves})
        spikes.backward(grad)
        found.append((spikes.detach(), {"x": x_.grad, **{k: p.grad for k, p in leaves.items()}}))
    flipped = (found[0][0] != found[1][0]).double().mean().item()
    errors = {}
    for name, expected in found[1][1].items():
        given = found[0][1][name]
        errors[name] = ((given.double() - expected.double()).norm() / expected.double().norm().clamp(min=1e-9)).item()
    right = flipped <= SPIKES and all(error <= GRADIENTS[x.dtype] for error in errors.values())  # and none is NaN
    return {"flipped": flipped, "errors": {k: f"{e:.1e}" for k, e in errors.items()}, "right": right}


def step_taker(model: nn.Module, x: Inputs, y: Tensor, form: str, precision: str) -> Callable[[], Tensor]:
    """A function that does one step's forward and backward, as a run takes them, and returns the loss."""
    forward = compiled(model) if form == "compile" else model

    def descend(x: Inputs, y: Tensor, measuring: bool) -> Descent:
        with autocast(y.device, precision):
            logits = call(forward, x)
        loss = F.cross_entropy(logits.float().mean(0), y)
        loss.backward()
        return Descent(loss.detach(), [], [])

    taken = recorded(descend, model) if form == "graph" else descend

    def take() -> Tensor:
        model.zero_grad()
        with fast_arithmetic(y.device), reference() if form == "reference" else nullcontext():
            return taken(x, y, False).loss

    return take


def kernels_of(take: Callable[[], object], *, steps: int = 3, most: int = 15) -> list[tuple[str, float, int]]:
    """(name, milliseconds, launches) a step of the kernels that take longest on a CUDA device, and of all together."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        for _ in range(steps):
            take()
        torch.cuda.synchronize()
    found = [(e.key[:90], e.self_device_time_total / 1e3 / steps, e.count // steps) for e in profile.key_averages()]
    found.sort(key=lambda kernel: -kernel[1])
    whole = ("all", sum(ms for _, ms, _ in found), sum(count for *_, count in found))
    return [(name, round(ms, 3), count) for name, ms, count in [whole, *found[:most]]]


def copy_bandwidth(device: torch.device) -> float:
    """GB a second, bytes read and bytes written."""
    source = torch.empty((1 << 30) if device.type == "cuda" else (1 << 24), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return round(2 * source.numel() / milliseconds(lambda: target.copy_(source), device) / 1e6, 1)


def speeds(device: torch.device, *, small: bool) -> Iterator[dict[str, Any]]:
    """Milliseconds forward and backward, and the share of the copy's bandwidth that the bytes which must move make of it: the
    current in, spikes out; current and gradient in, gradient out. What else a library moves is not counted."""
    bandwidth = copy_bandwidth(device)
    for name in SHAPES:
        shape = _shape(name, small)
        for dtype in (torch.bfloat16, torch.float32):
            torch.manual_seed(0)
            x = torch.randn(shape, device=device).to(dtype).requires_grad_()
            grad = torch.randn_like(x)
            for library, neuron in (("staa", _ours), ("spikingjelly", _spikingjelly(device))):
                row: dict[str, Any] = {"shape": name, "dtype": str(dtype).removeprefix("torch."), "library": library}
                try:
                    forward = milliseconds(lambda: neuron(x), device)  # noqa: B023
                    spikes = neuron(x)
                    backward = milliseconds(lambda: torch.autograd.grad(spikes, x, grad, retain_graph=True), device)  # noqa: B023
                except Exception as error:
                    yield {**row, "failed": f"{type(error).__name__}: {error}"[:300]}
                    continue
                moved = x.numel() * x.element_size() / 1e6 / bandwidth  # milliseconds a copy takes to read or write it once
                share = {"forward_share": 2 * moved / forward, "backward_share": 3 * moved / backward}
                yield {**row, "forward_ms": forward, "backward_ms": backward, **{k: round(s, 3) for k, s in share.items()}}


def tilings(device: torch.device, *, small: bool) -> Iterator[dict[str, Any]]:
    """Milliseconds of the backward pass at T = 16 with other tiles: a thread that has one element loads two bytes at a time."""
    from staa.ops import lif_triton

    shape = _shape("T=16 128×128×32×32", small)
    usual = lif_triton.HELD, lif_triton.WARPS, lif_triton.SEGMENT
    for dtype in (torch.bfloat16, torch.float32):
        x = torch.randn(shape, device=device).to(dtype).requires_grad_()
        grad, spikes = torch.randn_like(x), _ours(x)
        for held, warps, segment in TILES:
            lif_triton.HELD, lif_triton.WARPS, lif_triton.SEGMENT = held * usual[0], warps, segment
            try:
                ms = milliseconds(lambda: torch.autograd.grad(spikes, x, grad, retain_graph=True), device)  # noqa: B023
                yield {"dtype": str(dtype).removeprefix("torch."), "tile": [held, warps, segment], "backward_ms": ms}
            finally:
                lif_triton.HELD, lif_triton.WARPS, lif_triton.SEGMENT = usual


def _shape(name: str, small: bool) -> tuple[int, ...]:
    shape = SHAPES[name]
    return (shape[0], *(max(1, n // 8) for n in shape[1:])) if small else shape


def _ours(x: Tensor) -> Tensor:
    return lif(x, decay=0.5, gain=0.5)[0]


def _spikingjelly(device: torch.device) -> Callable[[Tensor], Tensor]:
    """Its Triton path, on CUDA; a machine that lacks the library says so when it is called."""
    if device.type == "cuda":
        os.environ["SJ_LIF_CUDA_IMPLEMENTATION"] = "triton"

    @cache
    def neuron() -> Callable[[Tensor], Tensor]:
        from benchmarks.nets import spikingjelly_neuron

        return spikingjelly_neuron()

    return lambda x: neuron()(x)


def milliseconds(f: Callable[[], object], device: torch.device, *, least: float = 0.15) -> float:
    """The median of as many rounds as take `least` seconds, five at least, after two calls to warm up. On CUDA a round is of
    many calls without a wait between them, so that what Python takes for a call is hidden, as it is in training."""
    f()
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    wait()

    def seconds_of(calls: int) -> float:
        began = time.perf_counter()
        for _ in range(calls):
            f()
        wait()
        return time.perf_counter() - began

    calls = max(1, min(50, int(0.01 / seconds_of(1)))) if device.type == "cuda" else 1
    taken: list[float] = []
    while len(taken) < 5 or sum(taken) < least:
        taken.append(seconds_of(calls))
    return round(statistics.median(taken) / calls * 1e3, 4)
