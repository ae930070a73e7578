"""Layers in pieces: values, gradients, running statistics and what hooks see are those of the layers at once."""

import copy
from contextlib import nullcontext

import pytest
import torch
from test_forecast import EVERY, inputs, lively, make, named
from torch import nn

from staa.forecasters import pieces
from staa.forecasters.parts import LinearNeuron
from staa.neurons import AdaptiveLIF, ParametricLIF
from staa.ops import bits
from staa.ops.bits import spikes_as_bits
from staa.rates import firing_rates

SPIKING = [(name, options) for name, options in EVERY if name in ("spikestag", "ispikformer")]
NEURONS = [{"neuron": neuron} for neuron in (AdaptiveLIF, ParametricLIF)]


@pytest.fixture
def small(monkeypatch):
    """Every layer is large, and a piece a few rows, whose number does not divide them."""

    def switch(on):
        monkeypatch.setattr(pieces, "LARGE", 1 if on else 1 << 60)

    monkeypatch.setattr(pieces, "PIECE", 1800)
    calls = []
    apply = pieces._Pieces.apply
    monkeypatch.setattr(pieces._Pieces, "apply", lambda *args: calls.append(args[1]) or apply(*args))
    switch.calls = calls
    return switch


def step(model, x, target):
    x = [part.clone().requires_grad_() for part in x]
    y = model(*x)
    (y * target).sum().backward()
    grads = {key: p.grad for key, p in model.named_parameters()}
    grads |= {f"x{k}": part.grad for k, part in enumerate(x)}
    buffers = dict(model.named_buffers())
    return y.detach(), grads, buffers


def same(one, two):
    torch.testing.assert_close(one[0], two[0], rtol=1e-10, atol=1e-10)
    for a, b in zip(one[1:], two[1:], strict=True):
        assert a.keys() == b.keys()
        for key in a:
            torch.testing.assert_close(a[key], b[key], rtol=1e-8, atol=1e-10, msg=lambda text, key=key: f"{key}: {text}")


@pytest.mark.some(2)
@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize(("name", "options"), SPIKING, ids=[f"{name}-{named(options)}" for name, options in SPIKING])
def test_pieces_are_the_whole(name, options, train, small):
    model, x = lively(make(name, **options)).train(train), inputs()
    with torch.no_grad():
        target = torch.randn_like(copy.deepcopy(model)(*x))
    other = copy.deepcopy(model)
    small(on=False)
    whole = step(model, x, target)
    assert not small.calls
    small(on=True)
    same(step(other, x, target), whole)
    assert len(small.calls) > 4
    assert min(small.calls) < 40
    with torch.no_grad():
        torch.testing.assert_close(other.eval()(*x), model.eval()(*x), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("neuron", [AdaptiveLIF, ParametricLIF])
@pytest.mark.parametrize("momentum", [None, 0.3])
@pytest.mark.parametrize("steps", [None, 3])
def test_a_neuron_with_weights_and_frozen_ones(neuron, momentum, steps, small):
    torch.manual_seed(0)
    model = LinearNeuron(6, 8, neuron).double()
    model.norm.momentum = momentum
    model.linear.bias.requires_grad_(False)
    model.norm.weight.requires_grad_(False)
    other, x = copy.deepcopy(model), torch.randn(1 if steps else 4, 333, 6, dtype=torch.float64)
    found = []
    for on, one in ((False, model), (True, other)):
        small(on=on)
        for _ in range(2):  # running statistics of two steps
            given = x.clone().requires_grad_()
            y = one(given, steps=steps)
            one.zero_grad()
            (y * torch.arange(8)).mean().backward()
        grads = {key: p.grad for key, p in one.named_parameters() if p.grad is not None} | {"x": given.grad}
        found.append((y.detach(), grads, dict(one.named_buffers())))
    assert small.calls
    assert {"linear.bias", "norm.weight"}.isdisjoint(found[0][1])
    same(*found)


def test_rates_are_seen_and_can_be_a_loss(small):
    found, fresh = [], lively(make("spikestag")).train()
    for on in (False, True):
        small(on=on)
        model, x = copy.deepcopy(fresh), inputs()
        with firing_rates(model, detach=False) as rates:
            model(*x)
        sum(rate.square() for rate in rates.values()).backward()
        found.append(
            (
                torch.stack(list(rates.values())).detach(),
                {key: p.grad for key, p in model.named_parameters() if p.grad is not None},
            )
        )
    assert small.calls
    same(*found)


def test_what_waits_for_a_call_is_called(small):
    """A hook that may change something, or on a layer's inside, and a patched forward: then the layer is computed at once."""
    small(on=True)
    for touch in (
        lambda part: part.linear.register_forward_hook(lambda _, __, y: 2 * y),
        lambda part: part.norm.register_forward_pre_hook(lambda *_: None),
        lambda part: part.neuron.register_forward_hook(lambda _, __, s: 0 * s),
        lambda part: setattr(part.linear, "forward", part.linear.forward),
        lambda part: nn.utils.parametrizations.weight_norm(part.linear),
    ):
        model = LinearNeuron(6, 8, AdaptiveLIF)
        x = torch.randn(2, 500, 6)
        model(x)
        assert small.calls
        small.calls.clear()
        touch(model)
        model(x)
        assert not small.calls


@pytest.mark.parametrize("as_bits", [False, True])
def test_spikes_wait_as_bits(as_bits, small, monkeypatch):
    """What a large layer keeps of spikes is bits, with and without `spikes_as_bits`, and the gradients are the same."""
    monkeypatch.setattr(bits, "SMALL", 1)
    grads = []
    for on in (False, True):
        small(on=on)
        torch.manual_seed(0)
        model, x = LinearNeuron(64, 32, AdaptiveLIF), (torch.rand(4, 2048, 64) < 0.2).float()
        kept = []
        with spikes_as_bits() if as_bits else nullcontext():
            y = model(x.requires_grad_())
        if on:
            kept = [t.numel() * t.element_size() for t in y.grad_fn.saved_tensors if t.dtype == torch.int32]
            assert kept == [x.numel() // 8]
        (y * torch.randn(32, generator=torch.manual_seed(1))).mean().backward()
        grads.append({key: p.grad for key, p in model.named_parameters()} | {"x": x.grad})
    assert grads[0].pop("linear.bias").abs().max() < 1e-4, "BatchNorm takes it away"
    for key in grads[0]:
        torch.testing.assert_close(grads[1][key], grads[0][key], rtol=1e-3, atol=1e-6)


def test_a_changed_input_is_said(small):
    small(on=True)
    model, x = LinearNeuron(6, 8, AdaptiveLIF), torch.randn(2, 500, 6)
    y = model(x)
    x.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()
