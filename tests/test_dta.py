"""DTA-SNN's block against numpy written from its equations, its parameter counts, and what it must refuse."""

from functools import partial

import numpy as np
import pytest
import torch
from dta_numpy import block_in_numpy, sigmoid

import staa.testing as contracts
from staa import stream
from staa.attention import ATTENTIONS, DTA, STAA, TNA, TXA, TemporalAttention
from staa.models import ms_resnet18, ms_resnet34, resnet20
from staa.neurons import LIF, NEURONS, AdaptiveLIF


def numbers(module):
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(("steps", "count"), [(2, 81_806), (4, 237_362), (6, 491_246), (10, 1_293_998)])
def test_parameters_of_the_block(steps, count):
    with torch.device("meta"):
        assert numbers(DTA(steps, 64)) == count


@pytest.mark.parametrize(
    ("make", "count"),
    [
        (partial(ms_resnet18, 10, steps=2, attention=DTA), 12_583_896),
        (partial(ms_resnet18, 100, steps=2, attention=DTA), 12_630_066),
        (partial(ms_resnet18, 10, steps=4, attention=DTA), 12_739_452),
        (partial(ms_resnet18, 100, steps=4, attention=DTA), 12_785_622),
        (partial(ms_resnet18, 10, steps=6, attention=DTA), 12_993_336),
        (partial(ms_resnet18, 100, steps=6, attention=DTA), 13_039_506),
        (partial(ms_resnet18, 10, steps=10, in_channels=2, attention=DTA), 13_795_512),
        (partial(ms_resnet18, 10), 12_502_090),
        (partial(ms_resnet18, 10, in_channels=2), 12_501_514),
        (partial(ms_resnet34, 1000, steps=4, attention=DTA), 22_035_034),
        (partial(ms_resnet34, 1000, steps=6, attention=DTA), 22_288_918),
        (partial(ms_resnet34, 1000, steps=4, attention=DTA, stage_strides=(2, 2, 2, 2)), 22_035_034 + 64 * 64 + 128),
    ],
)
def test_parameters_of_the_networks(make, count):
    with torch.device("meta"):
        assert numbers(make()) == count


@pytest.mark.parametrize(("kernel", "dilation"), [(7, 3), (21, 3), (9, 2), (3, 1)])
@pytest.mark.parametrize(("steps", "channels"), [(1, 4), (2, 8), (5, 6)])
def test_the_block_is_the_equations(steps, channels, kernel, dilation):
    block = contracts.randomised(DTA(steps, channels, kernel=kernel, dilation=dilation))
    x = torch.randn(steps, 3, channels, 7, 6)
    spikes = (torch.rand_like(x) < 0.4).float()
    found = block(x, spikes).detach().numpy()
    p = {name: value.double().numpy() for name, value in block.state_dict().items()}
    for n in range(3):
        expected = block_in_numpy(p, x[:, n].double().numpy(), spikes[:, n].double().numpy(), dilation)
        np.testing.assert_allclose(found[:, n], expected, rtol=1e-5, atol=1e-5)
    near, far = block.merged.ltca[0].kernel_size[0], block.merged.ltca[1].kernel_size[0]
    assert (near, far) == {(7, 3): (5, 1), (21, 3): (5, 7), (9, 2): (3, 3), (3, 1): (1, 3)}[kernel, dilation]


@pytest.mark.parametrize("name", ["dta", "dta-txa", "dta-tna", "dta-ltca", "dta-gtca"])
def test_gradients_of_the_block(name):
    block = contracts.randomised(ATTENTIONS[name](2, 4).double())
    x = torch.randn(2, 2, 4, 3, 3, dtype=torch.float64, requires_grad=True)
    spikes = (torch.rand_like(x) < 0.5).double()
    assert torch.autograd.gradcheck(lambda x: block(x, spikes), (x,))
    for p in block.parameters():
        assert torch.autograd.gradcheck(lambda _: block(x.detach(), spikes), (p,), atol=1e-6)


def test_the_input_stays_and_nothing_is_remembered():
    block = contracts.randomised(DTA(3, 8))
    x, spikes = torch.randn(3, 2, 8, 5, 5), (torch.rand(3, 2, 8, 5, 5) < 0.5).float()
    kept = x.clone(), spikes.clone()
    first = block(x, spikes)
    assert torch.equal(block(x, spikes), first)
    assert torch.equal(x, kept[0])
    assert torch.equal(spikes, kept[1])
    assert ((first > 0) == (spikes > 0)).all()
    assert first.max() <= 1


@pytest.mark.parametrize("make", [DTA, TXA, TNA, TemporalAttention])
def test_another_window_is_refused(make):
    module = make(4, 8)
    args = lambda *shape: [torch.randn(shape)] * (2 if make is DTA else 1)  # noqa: E731
    with pytest.raises(ValueError, match="was built for T = 4 steps, got 3"):
        module(*args(3, 2, 8, 5, 5))
    with pytest.raises(ValueError, match=r"must be \[T, N, C, H, W\]"):
        module(*args(4, 2, 8))
    if make is not TemporalAttention:
        with pytest.raises(ValueError, match="was built for 8 channels, got 6"):
            module(*args(4, 2, 6, 5, 5))
    for steps, told in ((None, "needs a fixed number of steps"), (0, "whole number of at least 1"), (4.0, "whole number")):
        with pytest.raises(ValueError, match=told):
            make(steps, 8)


def test_options_are_checked():
    with pytest.raises(ValueError, match="must not both be None"):
        DTA(4, 8, crossed=None, merged=None)
    with pytest.raises(ValueError, match="dilation must be"):
        DTA(4, 8, kernel=2, dilation=3)
    with pytest.raises(ValueError, match="stage_strides must be one for each of 3 stages"):
        ms_resnet18(10, stage_strides=(1, 2))


def test_streaming_refuses_what_sees_the_window():
    model = ms_resnet18(5, steps=4, width=0.125, attention=DTA).eval()
    with pytest.raises(ValueError, match=r"fire.attention.*sees the whole window"):
        stream(model, torch.rand(1, 1, 3, 8, 8))
    plain = ms_resnet18(5, steps=None, width=0.125).eval()
    assert stream(plain, torch.rand(1, 1, 3, 8, 8))[0].shape == (1, 1, 5)


@pytest.mark.parametrize("maximum", [False, True])
def test_temporal_attention_is_the_equations(maximum):
    module = contracts.randomised(TemporalAttention(5, reduction=2, maximum=maximum))
    x = torch.randn(5, 3, 4, 6, 7)
    w1, w2 = module.squeeze.weight.detach().numpy(), module.excite.weight.detach().numpy()
    flat = x.numpy().reshape(5, 3, -1)
    if maximum:
        assert module.squeeze.bias is None
        assert module.excite.bias is None
        logits = sum(w2 @ np.maximum(w1 @ m, 0) for m in (flat.mean(2), flat.max(2)))
    else:
        b1, b2 = (part.bias.detach().numpy()[:, None] for part in (module.squeeze, module.excite))
        logits = w2 @ np.maximum(w1 @ flat.mean(2) + b1, 0) + b2
    expected = x.numpy() * sigmoid(logits)[:, :, None, None, None]
    np.testing.assert_allclose(module(x).detach().numpy(), expected, rtol=1e-5, atol=1e-6)
    scale, shift = torch.rand(1, 1, 4, 1, 1), torch.randn(1, 1, 4, 1, 1)
    a, b = module.affine(x, scale, shift)
    torch.testing.assert_close(a * x + b, module(x * scale + shift))


def test_temporal_attention_with_the_maximum_is_spikingjellys():
    layer = pytest.importorskip("spikingjelly.activation_based.layer")
    official, ours = layer.TemporalWiseAttention(8, reduction=4), TemporalAttention(8, reduction=4, maximum=True)
    ours.squeeze.weight, ours.excite.weight = official.sharedMLP[0].weight, official.sharedMLP[2].weight
    x = torch.randn(8, 3, 4, 6, 7)
    torch.testing.assert_close(ours(x), official(x))


def test_temporal_attention_begins_as_its_code_does():
    torch.manual_seed(0)
    for part in (TemporalAttention(400, reduction=2).squeeze, TemporalAttention(400, reduction=2).excite):
        bound = 1 / part.in_features**0.5
        for p in (part.weight, part.bias):
            assert p.std().item() == pytest.approx(bound / 3**0.5, rel=0.1)
            assert p.abs().max() <= bound
    assert TemporalAttention(7).squeeze.bias.tolist() == [1.0]
    assert (TemporalAttention(4, maximum=True).excite.weight == 0).all()


@pytest.mark.some(2)
@pytest.mark.parametrize("attention", ["dta", "dta-txa", "dta-tna", "dta-ltca", "dta-gtca", "ta", "ta-max", "se", "staa", "gc"])
@pytest.mark.parametrize("make", [ms_resnet18, resnet20])
def test_any_attention_stands_in_any_network(make, attention):
    torch.manual_seed(0)
    model = make(5, steps=3, width=0.125, in_channels=2, neuron=AdaptiveLIF, attention=ATTENTIONS[attention])
    x = torch.randn(3, 4, 2, 16, 16)
    logits = model(x)
    assert logits.shape == (3, 4, 5)
    torch.nn.functional.cross_entropy(logits.mean(0), torch.arange(4)).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    for sites in ("all", "last-of-stage", "stem"):
        assert make(5, steps=3, width=0.125, attention=ATTENTIONS[attention], sites=sites)(torch.rand(2, 3, 16, 16)).shape == (
            3,
            2,
            5,
        )


def test_the_neuron_of_dta():
    neuron = NEURONS["dta"]()
    x = torch.tensor([0.9, 0.5, 2.0, 0.0]).view(4, 1)
    v, spikes = 0.0, []
    for i in x[:, 0].tolist():
        v = 0.5 * v + i
        spikes.append(float(v > 1))
        v *= 1 - spikes[-1]
    assert neuron(x)[:, 0].tolist() == spikes
    assert isinstance(neuron, LIF)
    assert STAA.acts_on == "current"
