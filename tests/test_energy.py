"""Multiply-accumulates and additions, counted by hand."""

import numpy as np
import pytest
import torch
from torch import nn

from staa import estimate_energy
from staa.attention import ATTENTIONS, DTA, STAA
from staa.layers import PerStep, Site
from staa.models import FORECASTERS, MODELS, ms_resnet18, resnet20
from staa.neurons import LIF, AdaptiveLIF
from staa.rates import firing_rates


def only(energy):
    """The one layer that has products."""
    (layer,) = (layer for layer in energy.layers if layer.dense)
    return layer


def test_one_convolution_by_hand():
    """3 × 3 from 2 to 4 channels on 8 × 8, twice: 4·64·2·9 products a step."""
    conv = PerStep(nn.Conv2d(2, 4, 3, padding=1))
    spikes = torch.zeros(2, 5, 2, 8, 8)
    spikes[0] = 1.0
    layer = only(estimate_energy(conv, spikes, events=True))
    assert layer.name == "module"
    assert layer.dense == 2 * 4 * 64 * 18
    assert layer.rate == 0.5
    assert layer.joules == pytest.approx(0.9e-12 * 4 * 64 * 18)
    layer = only(estimate_energy(conv, spikes * 0.5))  # graded spikes are multiplied
    assert layer.rate is None
    assert layer.joules == pytest.approx(4.6e-12 * 2 * 4 * 64 * 18)


def test_a_sum_of_spikes_is_as_many_additions():
    layer = only(estimate_energy(nn.Linear(3, 5), torch.tensor([[2.0, 0.0, 1.0]]), events=True))
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
    spiking, real = sorted(estimate_energy(layer, torch.ones(3, 5, 8), events=True).layers, key=lambda found: found.dense)
    assert (spiking.dense, spiking.rate) == (5 * gates * 16 * 8, 1.0)
    assert (real.dense, real.rate) == (5 * gates * 16 * 16, None)


def test_a_product_of_two_activations_reads_the_rarer_spikes():
    class Scores(nn.Module):
        def __init__(self):
            super().__init__()
            self.q, self.k = LIF(threshold=0.5), LIF(threshold=0.5)

        def forward(self, q, k):
            return self.q(q) @ self.k(k).mT

    q, k = torch.zeros(2, 4, 8), torch.ones(2, 4, 8)
    q[..., 0] = 1
    layer = only(estimate_energy(Scores(), q, k, samples=2))
    assert (layer.dense, layer.rate) == (4 * 4 * 8, 1 / 8)
    with pytest.raises(ValueError, match=r"which dimension of an input \[2, 4, 8\] counts the samples of a Scores.*samples="):
        estimate_energy(Scores(), q, k)


# What a tensor is made of.


class Chain(nn.Module):
    """A neuron, a function of its spikes, a layer."""

    per_step = True

    def __init__(self, f, neuron=None):
        super().__init__()
        self.neuron, self.f, self.layer = neuron or LIF(threshold=0.5), f, nn.Linear(8, 3)

    def forward(self, x):
        return self.layer(self.f(self.neuron(x)))


class Graded(LIF):
    def forward(self, x):
        return 0.5 * super().forward(x)

    fires = False


def written_into_zeros(s):
    out = torch.zeros(s.shape)
    for t in range(len(s)):
        out[t] = s[t]
    return out


def real_in_a_corner(s):
    out = torch.zeros(s.shape)
    out[0] = 2.0 * s[0].mean()  # 0 or a whole number in a batch of extremes
    return out


MADE_OF_SPIKES = {
    "themselves": lambda s: s,
    "reshaped": lambda s: s.flatten(0, 1).permute(1, 0).contiguous().mT.view(s.shape),
    "summed": lambda s: s + s.roll(1, 0),
    "added up over time": lambda s: s.cumsum(0),
    "joined": lambda s: torch.cat([s[..., :4], torch.zeros_like(s[..., 4:])], -1),
    "padded": lambda s: nn.functional.pad(s[..., :7], (0, 1)),
    "the larger": lambda s: torch.maximum(s, s.flip(0)),
    "pooled by their maximum": lambda s: nn.functional.max_pool1d(s, 3, 1, 1),
    "both": lambda s: s * s.roll(1, -1),
    "written": written_into_zeros,
    "compared": lambda s: ((s - 0.3).sin() > 0.1).float(),
    "a product of spikes": lambda s: (s @ s.mT) @ s,
}
REAL = {
    "averaged": lambda s: nn.functional.avg_pool1d(s, 3, 1, 1),
    "scaled": lambda s: 1.0 * s,
    "shifted": lambda s: s + 1,
    "a mean": lambda s: s.mean(0, keepdim=True).expand(s.shape),
    "their rounding": lambda s: (3 * s.sin()).round(),
    "padded with ones": lambda s: nn.functional.pad(s[..., :7], (0, 1), value=1.0),
    "written beside": real_in_a_corner,
    "a layer's": nn.Linear(8, 8),
}


@pytest.mark.filterwarnings("ignore:not counted")
@pytest.mark.parametrize("x", [torch.zeros(4, 2, 8), torch.ones(4, 2, 8), torch.randn(4, 2, 8)], ids=["silent", "all", "some"])
@pytest.mark.parametrize("case", [*MADE_OF_SPIKES, *REAL])
def test_what_is_made_of_spikes_is_known_by_where_it_comes_from(case, x):
    """And not by its values: a silent layer and one that always fires are of the same class as any."""
    made_of_spikes = case in MADE_OF_SPIKES
    f = {**MADE_OF_SPIKES, **REAL}[case]
    found = {layer.name: layer for layer in estimate_energy(Chain(f), x).layers}
    assert (found["layer"].rate is not None) == made_of_spikes
    assert found["layer"].dense == 4 * 8 * 3  # a sample's, over the four steps of [T, N, F]


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_an_image_of_zeros_or_ones_is_an_image(value):
    conv, x = nn.Conv2d(1, 2, 3), torch.full((2, 1, 5, 5), value)
    assert only(estimate_energy(conv, x)).rate is None
    assert only(estimate_energy(conv, x, events=True)).rate == value
    with pytest.raises(ValueError, match="events=True needs counts of events"):
        estimate_energy(conv, x - 0.5, events=True)


def test_graded_spikes_are_multiplied():
    assert only(estimate_energy(Chain(lambda s: s, Graded(threshold=0.5)), torch.ones(4, 2, 8))).rate is None


@pytest.mark.parametrize(
    ("make", "shape", "samples"),
    [
        (lambda: PerStep(nn.Linear(8, 3)), (4, 2, 8), 2),
        (lambda: nn.Sequential(nn.Identity(), PerStep(nn.Linear(8, 3)), LIF()), (4, 2, 8), 2),
        (lambda: nn.Sequential(nn.Linear(8, 3), LIF()), (4, 2, 8), 2),
        (lambda: nn.Sequential(nn.Linear(8, 3), nn.ReLU()), (4, 8), 4),
        (lambda: nn.LSTM(8, 3), (4, 2, 8), 2),
        (lambda: nn.LSTM(8, 3, batch_first=True), (4, 2, 8), 4),
        (lambda: resnet20(3, steps=4, width=0.1), (4, 2, 3, 8, 8), 2),
        (lambda: resnet20(3, steps=4, width=0.1), (4, 3, 8, 8), 4),
        (lambda: FORECASTERS["ispikformer"](6, 12, 3, width=8), (5, 12, 6), 5),
        (lambda: FORECASTERS["spikestag"](6, 12, 3, width=8), (5, 12, 6), 5),
    ],
)
def test_samples_are_counted_by_what_the_model_says(make, shape, samples):
    torch.manual_seed(0)
    model, x = make(), torch.randn(shape)
    a, b = estimate_energy(model, x), estimate_energy(model, x, samples=1)
    assert a.joules > 0
    assert a.joules * samples == pytest.approx(b.joules)


@pytest.mark.parametrize(("model", "shape"), [(nn.Linear(8, 3), (4, 2, 8)), (nn.ReLU(), (4, 8)), (nn.Sequential(), (4, 8))])
def test_samples_that_can_not_be_known_are_asked_for(model, shape):
    with pytest.raises(ValueError, match="give samples="):
        estimate_energy(model, torch.randn(shape))
    estimate_energy(model, torch.randn(shape), samples=2)
    with pytest.raises(ValueError, match="at least 1, got 0"):
        estimate_energy(model, torch.randn(shape), samples=0)


# No silent zero.


@pytest.mark.parametrize(
    "layer", [nn.MultiheadAttention(8, 2, batch_first=True), nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)]
)
def test_fused_attention_is_priced(layer):
    """Projections 4·L·d², scores and sums 2·L²·d, and the MLP's 2·L·d·16."""
    inputs = [torch.randn(3, 5, 8)] * (3 if isinstance(layer, nn.MultiheadAttention) else 1)
    attention, mlp = 4 * 5 * 8 * 8 + 2 * 5 * 5 * 8, 2 * 5 * 8 * 16
    dense = attention + (mlp if len(inputs) == 1 else 0)
    assert estimate_energy(layer, *inputs, samples=3).macs == dense
    assert torch.backends.mha.get_fastpath_enabled()


def test_scaled_dot_products_are_priced():
    class Attends(nn.Module):
        def forward(self, x):
            return nn.functional.scaled_dot_product_attention(x, x, x[..., :4])

    assert estimate_energy(Attends(), torch.randn(3, 2, 5, 8), samples=3).macs == 2 * 5 * 5 * (8 + 4)


@pytest.mark.parametrize("samples", [1.5, 2.0, True, "2", -1])
def test_samples_are_a_whole_number(samples):
    with pytest.raises(ValueError, match="samples must be a whole number of at least 1, got"):
        estimate_energy(nn.Linear(3, 5), torch.randn(2, 3), samples=samples)


def weighted(x):
    return (x[..., None] * torch.ones(8, 3)).sum(-2)


def in_place(x):
    y = x.clone()
    return y.mul_(x)


def by_numpy(x):
    return torch.from_numpy(np.asarray(x) @ np.ones((8, 3), np.float32))


def by_lists(x):
    return torch.tensor([sum(row) for row in x.flatten(0, 1).tolist()])


NOT_COUNTED = {  # the operation, and its elements in one sample of two
    "a product and its sum": (weighted, "aten::mul", 4 * 8 * 3),
    "two activations": (lambda x: (x * x.relu()).sum(-1), "aten::mul", 4 * 8),
    "outer": (lambda x: torch.outer(x.flatten(), x[0, 0]), "aten::mul", 4 * 8 * 8),
    "in place": (in_place, "aten::mul_", 4 * 8),
    "quotients": (lambda x: x / x.exp(), "aten::div", 4 * 8),
    "added up": (lambda x: torch.addcmul(x, x, torch.ones(8)), "aten::addcmul", 4 * 8),
    "NumPy": (by_numpy, "Tensor.__array__", 4 * 8),
    "NumPy, asked": (lambda x: torch.from_numpy(x.numpy() ** 2), "Tensor.numpy", 4 * 8),
    "NumPy, shared": (lambda x: torch.from_numpy(np.from_dlpack(x) ** 2), "Tensor.__dlpack__", 4 * 8),
    "lists": (by_lists, "Tensor.tolist", 4 * 8),
    "numbers": (lambda x: x + x.max().item(), "Tensor.item", 0.5),
}


class Computes(nn.Module):
    per_step = True

    def __init__(self, f):
        super().__init__()
        self.f = f

    def forward(self, x):
        return self.f(x)


@pytest.mark.parametrize("case", NOT_COUNTED)
def test_products_that_are_not_counted_are_named(case):
    f, operation, elements = NOT_COUNTED[case]
    model, x = nn.Sequential(PerStep(nn.Linear(8, 8)), Computes(f)), torch.randn(4, 2, 8)
    with pytest.warns(UserWarning, match=rf"not counted: {operation} in 1, {elements:g} elements"):
        energy = estimate_energy(model, x)
    assert energy.macs == 4 * 64
    assert [(found.name, found.operation, found.elements) for found in energy.left_out] == [("1", operation, elements)]
    assert not estimate_energy(model, x, free=[operation]).left_out


@pytest.mark.parametrize(
    "f",
    [lambda x: 0.5 * x, lambda x: x * torch.tensor(0.5), lambda x: 1 - x if (x > 0).any() else x, lambda x: x[: len(x)]],
    ids=["a number", "a tensor of one", "a decision", "a size"],
)
def test_what_is_no_product_of_activations_is_not_named(f):
    layer = nn.utils.parametrizations.weight_norm(nn.Linear(8, 3))  # a product of weights
    assert not estimate_energy(nn.Sequential(PerStep(layer), Computes(f), LIF()), torch.randn(4, 2, 8)).left_out


def test_an_attention_of_ones_own_is_warned_of_and_ours_is_named():
    class Own(Computes):
        acts_on = "current"

    x = torch.randn(2, 2, 4, 5, 5)
    with pytest.warns(UserWarning, match="not counted: aten::mul in attention, 200 elements"):
        estimate_energy(Site(LIF(), Own(lambda x: x * x.sigmoid())), x)
    energy = estimate_energy(Site(LIF(), DTA(2, 4)), x)
    assert {found.operation for found in energy.left_out} == {"aten::mul"}


def test_norms_that_do_not_fold_are_named():
    model = nn.Sequential(nn.Linear(8, 8), nn.LayerNorm(8), LIF())
    assert [str(found) for found in estimate_energy(model, torch.randn(4, 2, 8)).left_out] == [
        "aten::native_layer_norm in 1, 32 elements"
    ]


def test_what_has_no_price_is_an_error():
    class Fourier(nn.Module):
        def forward(self, x):
            return torch.fft.fft(x).real

    model = nn.Sequential(PerStep(nn.Linear(8, 8)), Fourier())
    with pytest.raises(ValueError, match=r"no price is known for aten::_fft_r2c in 1: name in free= what multiplies nothing"):
        estimate_energy(model, torch.randn(4, 2, 8))
    free = ("aten::_fft_r2c", "aten::_conj_physical")
    assert estimate_energy(model, torch.randn(4, 2, 8), free=free).macs == 4 * 64


@pytest.mark.some(2)
@pytest.mark.parametrize("attention", [None, *ATTENTIONS])
@pytest.mark.parametrize("name", MODELS)
def test_every_network_is_priced(name, attention):
    size = {"size": 16} if name == "vggsnn" else {}
    make = ATTENTIONS[attention] if attention else None
    model = MODELS[name](3, in_channels=2, steps=2, width=0.05, neuron=AdaptiveLIF, attention=make, **size)
    energy = estimate_energy(model, torch.randn(2, 2, 2, 16, 16))
    assert energy.macs > 0
    assert any(layer.rate is not None for layer in energy.layers)


def test_firing_rates_of_what_says_so():
    class Own(nn.Module):
        fires = True

        def forward(self, x):
            return (x > 0).float()

    with firing_rates(nn.Sequential(Own(), Graded())) as rates:
        pass
    model = nn.Sequential(Own(), Graded())
    with firing_rates(model) as rates:
        model(torch.randn(4, 2, 8))
    assert list(rates) == ["0"]
    with (
        pytest.raises(ValueError, match=r"no spiking neuron is known in this Linear.*fires = True"),
        firing_rates(nn.Linear(2, 2), detach=False),
    ):
        pass


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
    from staa.ops import memory

    model = resnet20(10, steps=2, width=0.25, neuron=AdaptiveLIF, attention=STAA)
    x = torch.randn(2, 3, 16, 16)
    a = estimate_energy(model, x)
    monkeypatch.setattr(memory, "KERNELS", {})
    b = estimate_energy(model, x)
    assert sum(layer.dense for layer in a.layers) == sum(layer.dense for layer in b.layers)
    assert a.sops == pytest.approx(b.sops, rel=1e-3)
    assert a.exact == pytest.approx(b.exact, rel=1e-3)
    assert (a.weight_bytes, a.membrane_bytes) == (b.weight_bytes, b.membrane_bytes)


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
