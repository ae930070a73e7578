"""Multiply-accumulates and additions, counted by hand."""

import pytest
import torch
from torch import nn

from staa import estimate_energy
from staa.attention import DTA, STAA
from staa.layers import PerStep
from staa.models import ms_resnet18, resnet20
from staa.neurons import LIF, AdaptiveLIF


def only(energy):
    (layer,) = energy.layers
    return layer


def test_one_convolution_by_hand():
    """3 × 3 from 2 to 4 channels on 8 × 8, twice: 4·64·2·9 products a step."""
    conv = PerStep(nn.Conv2d(2, 4, 3, padding=1))
    spikes = torch.zeros(2, 5, 2, 8, 8)
    spikes[0] = 1.0
    layer = only(estimate_energy(conv, spikes))
    assert layer.name == "module"
    assert layer.dense == 2 * 4 * 64 * 18
    assert layer.rate == 0.5
    assert layer.joules == pytest.approx(0.9e-12 * 4 * 64 * 18)
    layer = only(estimate_energy(conv, spikes * 0.5))  # graded spikes are multiplied
    assert layer.rate is None
    assert layer.joules == pytest.approx(4.6e-12 * 2 * 4 * 64 * 18)


def test_a_sum_of_spikes_is_as_many_additions():
    layer = only(estimate_energy(nn.Linear(3, 5), torch.tensor([[2.0, 0.0, 1.0]])))
    assert (layer.dense, layer.rate) == (15, 1.0)


def test_depthwise_strided_and_transposed_convolutions():
    assert only(estimate_energy(nn.Conv2d(6, 6, 5, padding=2, groups=6), torch.randn(2, 6, 7, 7))).dense == 6 * 49 * 25
    assert only(estimate_energy(nn.Conv2d(6, 4, 3, stride=2, padding=1), torch.randn(2, 6, 8, 8))).dense == 4 * 16 * 54
    assert only(estimate_energy(nn.ConvTranspose2d(6, 4, 2, stride=2), torch.randn(2, 6, 8, 8))).dense == 6 * 64 * 16


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_a_recurrent_layer_by_its_weights(kind):
    layer = kind(8, 16, batch_first=True)
    gates = {nn.LSTM: 4, nn.GRU: 3}[kind]
    assert only(estimate_energy(layer, torch.randn(3, 5, 8))).dense == 5 * gates * 16 * (8 + 16)
    spiking, real = sorted(estimate_energy(layer, torch.ones(3, 5, 8)).layers, key=lambda found: found.dense)
    assert (spiking.dense, spiking.rate) == (5 * gates * 16 * 8, 1.0)
    assert (real.dense, real.rate) == (5 * gates * 16 * 16, None)


def test_a_product_of_two_activations_reads_the_rarer_spikes():
    class Scores(nn.Module):
        def forward(self, q, k):
            return q @ k.mT

    q, k = torch.zeros(2, 4, 8), torch.ones(2, 4, 8)
    q[..., 0] = 1
    layer = only(estimate_energy(Scores(), q, k))
    assert (layer.dense, layer.rate) == (4 * 4 * 8, 1 / 8)


@pytest.mark.parametrize(("steps", "giga"), [(4, 0.208), (6, 0.463)])
def test_dta_costs_what_its_paper_says(steps, giga):
    shape = (steps, 1, 64, 32, 32)
    energy = estimate_energy(DTA(steps, 64), torch.randn(shape), torch.ones(shape))
    assert round(energy.macs / 1e9, 3) == giga
    assert energy.sops == 0
    if steps == 6:
        assert round(energy.joules * 1e3, 2) == 2.13


def test_a_networks_layers():
    """The first convolution and the attention multiply, what reads spikes adds; the model is left as it was."""
    model = resnet20(10, steps=2, width=0.25, neuron=AdaptiveLIF, attention=STAA)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    energy = estimate_energy(model, torch.randn(4, 3, 16, 16))
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    found = {layer.name: layer for layer in energy.layers}
    stem = model.stem[0].conv.out_channels
    assert found["stem.0.conv"].rate is None
    assert found["stem.0.conv"].dense == 2 * 256 * stem * 27
    assert 0 < found["stem.2.conv"].rate < 1
    assert found["stem.1.attention"].dense == 2 * 256 * stem
    assert found["stem.1"].dense == 2 * 2 * 256 * stem  # global context: the key's products and the weighted sum
    assert energy.joules == pytest.approx(4.6e-12 * energy.macs + 0.9e-12 * energy.sops)
    one = estimate_energy(model, torch.randn(1, 3, 16, 16))
    assert one.macs == energy.macs  # a sample's, whatever the batch


def test_the_same_without_kernels(monkeypatch):
    """Products are counted by what is computed, whichever path computes it."""
    from staa.ops import scan_fused

    model = resnet20(10, steps=2, width=0.25, neuron=AdaptiveLIF, attention=STAA)
    x = torch.randn(2, 3, 16, 16)
    a = estimate_energy(model, x)
    monkeypatch.setattr(scan_fused, "KERNELS", {})
    monkeypatch.setattr("staa.ops.fold.KERNELS", {})
    b = estimate_energy(model, x)
    assert sum(layer.dense for layer in a.layers) == sum(layer.dense for layer in b.layers)
    assert a.sops == pytest.approx(b.sops, rel=1e-3)


def test_the_whole_of_ms_resnet18():
    """The paper's file gives no figure: its dense products by hand, a stage's blocks being 2 convolutions and a shortcut."""
    model = ms_resnet18(10, steps=2, neuron=LIF)
    dense = sum(layer.dense for layer in estimate_energy(model, torch.randn(1, 3, 32, 32)).layers)
    by_hand = 64 * 27 * 1024
    inputs = 64
    for outputs, blocks, pixels in ((128, 3, 1024), (256, 3, 256), (512, 2, 64)):
        for _ in range(blocks):
            by_hand += pixels * outputs * 9 * (inputs + outputs) + (pixels * outputs * inputs if inputs != outputs else 0)
            inputs = outputs
    assert dense == 2 * (by_hand + 512 * 10)
