"""Energy in two conventions: by hand, by brute force, and by other people's counters."""

import itertools
from dataclasses import asdict
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from staa import estimate_energy
from staa.analysis.priced import LayerEnergy, average, by_attention
from staa.analysis.products import bytes_of, of_convolution, of_matrices
from staa.attention import DTA, STAA
from staa.layers import PerStep, Site
from staa.models import FORECASTERS, resnet20, vggsnn
from staa.neurons import LIF, AdaptiveLIF, Integrator

LIVELY = partial(LIF, decay=0.25, threshold=0.5)


def three_layers():
    """A pixel of 1 makes both channels fire, and then the next neuron; nothing else does. One weight of the readout is 0."""
    first, second = (nn.Conv2d(c, k, 3, padding=1, bias=False) for c, k in ((1, 2), (2, 1)))
    readout = nn.Linear(16, 5)
    with torch.no_grad():
        for weight in (first.weight, second.weight):
            weight.fill_(0.001)
            weight[:, 0, 1, 1] = 10
        readout.weight.fill_(1)
        readout.weight[0, 0] = 0
    neuron = partial(LIF, decay=0.0, threshold=1.0)
    return nn.Sequential(PerStep(first), neuron(), PerStep(second), neuron(), PerStep(nn.Flatten(), readout))


def three_pixels(batch=1):
    """T = 2 steps of 4 × 4 pixels, of which a corner, one at the border and one within are 1: of 4, 6 and 9 products."""
    x = torch.zeros(2, batch, 1, 4, 4)
    x[..., 0, 0] = x[..., 0, 2] = x[..., 2, 2] = 1.0
    return x


def values(found):
    """The figures of a layer, or of what is left out."""
    return {name: value for name, value in asdict(found).items() if isinstance(value, int | float)}


def test_three_layers_by_hand():
    """Without a border, 4 corners have 4 products with a kernel, 8 at the sides 6, and 4 within 9: 100 of 144."""
    energy = estimate_energy(three_layers(), three_pixels())
    pj = 1e-12
    by_hand = [
        # dense, rate, inside, effective, once, once_inside, weight_bytes, membrane_bytes
        LayerEnergy("0.module", 2 * 288, None, 2 * 200, 2 * 2 * 19, 288, 200, 2 * 4 * 18, 0),
        LayerEnergy("1", 0, None, 0, 0, 0, 0, 0, 2 * 4 * 64),
        LayerEnergy("2.module", 2 * 288, 6 / 32, 2 * 200, 2 * 2 * 19, 288, 200, 2 * 4 * 18, 0),
        LayerEnergy("3", 0, None, 0, 0, 0, 0, 0, 2 * 4 * 32),
        LayerEnergy("4.module.1", 2 * 80, 3 / 16, 2 * 80, 2 * (3 * 5 - 1), 80, 80, 2 * 4 * 80, 0),
    ]
    for found, expected in zip(energy.layers, by_hand, strict=True):
        assert values(found) == pytest.approx(values(expected), rel=1e-15)
    papers, exact = energy.papers, energy.exact
    assert (papers.macs, papers.sops, papers.ann_macs) == (576, 108 + 30, 656)
    assert (exact.macs, exact.sops, exact.ann_macs) == (76, 76 + 28, 480)
    assert papers.joules == pytest.approx((576 * 4.6 + 138 * 0.9) * pj, rel=1e-15)
    assert exact.joules == pytest.approx((76 * 4.6 + 104 * 0.9) * pj, rel=1e-15)
    assert (papers.ann_joules, exact.ann_joules) == pytest.approx((656 * 4.6 * pj, 480 * 4.6 * pj), rel=1e-15)
    assert (energy.macs, energy.sops, energy.joules) == papers[:3]
    assert (energy.weight_bytes, energy.membrane_bytes) == (144 + 144 + 640, 512 + 256)


def test_joules_of_an_operation_are_ones_own():
    energy = estimate_energy(three_layers(), three_pixels(), mac_pj=2, ac_pj=0.5)
    assert energy.papers.joules == pytest.approx((576 * 2 + 138 * 0.5) * 1e-12)
    assert energy.exact.ann_joules == pytest.approx(480 * 2e-12)
    for odd in (-1, float("nan"), float("inf"), "2", True):
        with pytest.raises(ValueError, match="`ac_pj` must be a finite number of at least 0, got"):
            estimate_energy(three_layers(), three_pixels(), ac_pj=odd)


# A sample's figures, whatever the batch.

BATCHED = {
    "T N F": (lambda: nn.Sequential(PerStep(nn.Linear(8, 6)), LIVELY(), PerStep(nn.Linear(6, 3))), (3, None, 8)),
    "T N C L": (lambda: nn.Sequential(PerStep(nn.Conv1d(2, 4, 3, padding=1)), LIVELY(dims=4), PerStep(nn.Conv1d(4, 2, 3))), (3, None, 2, 9)),  # noqa: E501
    "T N F, layers bare": (lambda: nn.Sequential(nn.Linear(8, 6), LIVELY(), nn.Linear(6, 3)), (3, None, 8)),
    "a recurrent layer": (lambda: nn.LSTM(4, 3, batch_first=True), (None, 5, 4)),
    "a transformer": (lambda: nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), (None, 5, 8)),
    "images": (partial(resnet20, 3, steps=2, width=0.05, neuron=LIVELY), (-6, 3, 8, 8)),
    "attention": (lambda: nn.Sequential(Site(LIVELY(), STAA(2, 4)), PerStep(nn.Conv2d(4, 3, 3))), (2, None, 4, 5, 5)),
    "frames": (partial(vggsnn, 3, in_channels=2, steps=2, width=0.05, size=16, neuron=LIVELY), (2, -6, 2, 16, 16)),
    "windows": (partial(FORECASTERS["spikestag"], 4, 6, 2, width=8, steps=2), (-6, 6, 4)),
    "windows, attention": (partial(FORECASTERS["ispikformer"], 4, 6, 2, width=8, steps=2), (-6, 6, 4)),
}  # fmt: skip


@pytest.mark.parametrize("case", BATCHED)
def test_a_samples_figures_do_not_depend_on_the_batch(case):
    """All samples at once, 64 or for a whole network 6, and in batches of 5 and of 1."""
    make, shape = BATCHED[case]
    dimension, count = next((k, 64 if n is None else -n) for k, n in enumerate(shape) if n is None or n < 0)
    torch.manual_seed(0)
    model = make().double().eval()
    x = 2 * torch.randn([*shape[:dimension], count, *shape[dimension + 1 :]], dtype=torch.float64)
    whole = estimate_energy(model, x, samples=count)
    assert whole.samples == count
    assert 0 < whole.exact.joules <= whole.joules
    for batch in (1, 5):
        parts = [estimate_energy(model, part, samples=part.shape[dimension]) for part in x.split(batch, dimension)]
        for part in parts:
            assert [fixed(layer) for layer in part.layers] == [fixed(layer) for layer in whole.layers]
        together = average(parts)
        assert together.samples == count
        for a, b in zip(together.layers + together.left_out, whole.layers + whole.left_out, strict=True):
            assert a.name == b.name
            assert values(a) == pytest.approx(values(b), rel=1e-12)


def fixed(layer):
    """What does not hang on firing rates."""
    sizes = layer.dense, layer.inside, layer.once, layer.once_inside, layer.weight_bytes, layer.membrane_bytes
    return layer.name, layer.rate is None, *sizes


def test_a_black_image_costs_what_any_image_does():
    """As papers count. A layer is of the same kind in a batch of one and of five, silent or not."""
    model = vggsnn(3, steps=2, width=0.05, size=16, neuron=LIVELY)
    kinds = [
        [(layer.name, layer.rate is None) for layer in estimate_energy(model, x).layers]
        for x in (torch.zeros(1, 3, 16, 16), torch.ones(1, 3, 16, 16), torch.randn(5, 3, 16, 16))
    ]
    assert kinds[0] == kinds[1] == kinds[2]
    black, any_image = (estimate_energy(model, x) for x in (torch.zeros(1, 3, 16, 16), torch.randn(5, 3, 16, 16)))
    assert black.macs == any_image.macs > 0
    assert black.layers[0].effective == 0


# Exact counts, by brute force: each input with each weight, and whether their product has a place.


def counted_by_hand(x, weight, stride, padding, dilation, transposed, extra, groups):
    """(products inside, those of two sides that are not 0), image by image in one dimension."""
    inside = effective = 0
    outputs = weight.shape[1] * groups if transposed else weight.shape[0]
    length, kernel = x.shape[2], weight.shape[2]
    if transposed:
        size = (length - 1) * stride - 2 * padding + dilation * (kernel - 1) + extra + 1
    else:
        size = (length + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
    for n, c, o, i, k in itertools.product(*map(range, (len(x), x.shape[1], outputs, length, kernel))):
        if c // (x.shape[1] // groups) != o // (outputs // groups):
            continue
        if transposed:
            at, w = i * stride - padding + k * dilation, weight[c, o % weight.shape[1], k]
        else:
            at, w = i + padding - k * dilation, weight[o, c % weight.shape[1], k]
            if at % stride:
                continue
            at //= stride
        if 0 <= at < size:
            inside += 1
            effective += int(x[n, c, i]) * int(w != 0)
    return inside, effective


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize(("stride", "padding", "dilation"), [(1, 0, 1), (1, 1, 1), (2, 1, 1), (2, 2, 2), (3, 0, 1), (1, 3, 2)])
def test_exact_products_of_a_convolution(stride, padding, dilation, transposed, groups):
    generator = torch.Generator().manual_seed(stride + 10 * padding)
    x = torch.randint(0, 3, (2, 4, 7), generator=generator).float()  # two spikes are two additions
    weight = torch.randn(4, 4 // groups, 3, generator=generator)
    weight[torch.rand(weight.shape, generator=generator) < 0.3] = 0
    extra = int(transposed and stride > 1)
    args = x, weight, None, [stride], [padding], [dilation], transposed, [extra], groups
    expected = counted_by_hand(x, weight, stride, padding, dilation, transposed, extra, groups)
    assert of_convolution(args, spikes=True) == expected
    real = of_convolution((x - 1, *args[1:]), spikes=False)
    assert real == counted_by_hand(x != 1, weight, stride, padding, dilation, transposed, extra, groups)


def test_exact_products_in_two_dimensions():
    """Separable: the products of a row with a kernel's row, times those of the column."""
    row, column = counted_by_hand(torch.ones(1, 1, 6), torch.ones(1, 1, 3), 2, 1, 1, False, 0, 1)[0], 5 * 5
    args = torch.ones(1, 1, 6, 5), torch.ones(1, 1, 3, 5), None, [2, 1], [1, 4], [1, 1], False, [0, 0], 1
    assert of_convolution(args, spikes=True) == (row * column, row * column)


@pytest.mark.parametrize("spikes", [*itertools.product([False, True], repeat=2)])
def test_exact_products_of_matrices(spikes):
    generator = np.random.default_rng(0)
    a, b = (torch.from_numpy(generator.integers(0, 3, shape) * 1.0) for shape in ((2, 3, 5), (2, 5, 4)))
    left, right = (x.numpy() if of else (x != 0).numpy() * 1.0 for x, of in zip((a, b), spikes, strict=True))
    assert of_matrices(a, b, spikes=spikes) == (2 * 3 * 5 * 4, np.einsum("bmk,bkn->", left, right))
    assert of_matrices(a[0, 0], b[0, :, 0], spikes=spikes)[1] == left[0, 0] @ right[0, :, 0]


# Other people's counters. They tell a binary layer by its values, which here is the same.


def networks():
    torch.manual_seed(0)
    yield resnet20(10, steps=4, width=0.25, neuron=LIVELY).eval(), torch.randn(2, 3, 32, 32)
    model = vggsnn(5, in_channels=2, steps=3, width=0.1, size=16, neuron=LIVELY).eval()
    with torch.no_grad():
        for layer in model.modules():
            if isinstance(layer, nn.Conv2d):
                layer.weight[layer.weight.abs() < 0.3 * layer.weight.std()] = 0  # pruned
    yield model, torch.randn(3, 4, 2, 16, 16)


def test_spikingjelly_counts_the_same():
    """Its synaptic operations, of networks without weights of 0, which it counts."""
    from spikingjelly.activation_based.op_counter import DispatchCounterMode, SynOpCounter

    for model, x in networks():
        with torch.no_grad():
            for parameter in model.parameters():
                parameter[parameter == 0] = 1e-6
        counter = SynOpCounter()
        with DispatchCounterMode([counter]), torch.no_grad():
            model(x)
        energy = estimate_energy(model, x)
        assert counter.get_total() == round(energy.exact.sops * energy.samples)
        assert energy.exact.sops < energy.sops


@pytest.mark.filterwarnings("ignore")
def test_neurobench_counts_the_same():
    """Effective MACs and ACs, and the dense ones, exactly. It is no dependency: `pip install neurobench` to run this."""
    try:
        from neurobench.metrics.workload import synaptic_operations as benchmark
        from neurobench.models import TorchModel
    except ImportError:
        pytest.skip("neurobench is not installed")

    for model, x in networks():
        energy = estimate_energy(model, x)
        wrapped, metric = TorchModel(model), benchmark.SynapticOperations()
        wrapped.register_hooks()
        with torch.no_grad():
            outputs = wrapped(x)
        told = metric(wrapped, outputs, (torch.zeros(energy.samples), None))
        wrapped.cleanup_hooks()
        assert told["Effective_MACs"] == energy.exact.macs
        assert told["Effective_ACs"] == energy.exact.sops
        assert told["Dense"] == sum(layer.inside for layer in energy.layers)


# Memory traffic, and how many steps a layer has.


def test_weights_are_read_once_a_step_and_membranes_twice():
    model = nn.Sequential(PerStep(nn.Linear(8, 6, bias=False)), AdaptiveLIF(6), PerStep(nn.Linear(6, 3)), Integrator())
    layers = estimate_energy(model, torch.randn(5, 7, 8)).layers
    assert [layer.weight_bytes for layer in layers] == [5 * 4 * 48, 5 * 4 * 12, 5 * 4 * 18, 0]
    assert [layer.membrane_bytes for layer in layers] == [0, 2 * 5 * 4 * 6, 0, 2 * 5 * 4 * 3]
    half = estimate_energy(model.bfloat16(), torch.randn(5, 7, 8, dtype=torch.bfloat16)).layers
    assert [layer.weight_bytes for layer in half[:3]] == [5 * 2 * 48, 5 * 2 * 12, 5 * 2 * 18]
    assert half[1].membrane_bytes == 2 * 5 * 4 * 6  # in 32 bits
    assert estimate_energy(nn.GRU(4, 3), torch.randn(6, 2, 4)).weight_bytes == 6 * 4 * (9 * 4 + 9 * 3)


def test_a_neuron_that_is_scanned_is_a_neuron():
    class Scans(nn.Module):
        per_step = True

        def __init__(self):
            super().__init__()
            self.neuron, self.layer = LIVELY(), nn.Linear(8, 3)

        def forward(self, x):
            state, spikes = None, []
            for step in x:
                fired, state = self.neuron.scan(step[None], state)
                spikes.append(fired)
            return self.layer(torch.cat(spikes))

    model, x = Scans(), torch.randn(4, 2, 8)
    by_name = {layer.name: layer for layer in estimate_energy(model, x).layers}
    assert by_name["neuron"].membrane_bytes == 2 * 4 * 4 * 8
    assert by_name["layer"].rate is not None
    assert by_name["layer"].once == 8 * 3
    assert "scan" not in vars(model.neuron)


@pytest.mark.parametrize("attention", [None, STAA, DTA])
def test_every_layer_of_a_network_has_its_steps(attention):
    """Folded or called, from images or frames."""
    model = resnet20(3, steps=4, width=0.05, neuron=LIVELY, attention=attention)
    for x in (torch.randn(2, 3, 8, 8), torch.randn(4, 2, 3, 8, 8)):
        layers = estimate_energy(model, x).layers
        assert [layer.name for layer in layers if layer.dense != 4 * layer.once] == []


def test_a_forecasters_layers_have_their_steps():
    """Those after the mean over T run once, all others T times."""
    for name, once in (
        ("spikestag", {"encoder.conv", "lstm", "recall.linear", "head"}),
        ("ispikformer", {"encoder.conv", "head"}),
    ):
        model = FORECASTERS[name](4, 6, 2, width=8, steps=3)
        layers = [layer for layer in estimate_energy(model, torch.randn(2, 6, 4)).layers if layer.dense]
        assert {layer.name for layer in layers if layer.dense == layer.once} == once
        assert all(layer.dense in (layer.once, 3 * layer.once) for layer in layers)


def test_what_is_made_of_weights_alone_costs_nothing():
    class Hyper(nn.Module):
        per_step = True

        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Parameter(torch.randn(8, 5)), nn.Parameter(torch.randn(5, 3))

        def forward(self, x):
            return x @ (self.a @ self.b)

    (layer,) = estimate_energy(Hyper(), torch.randn(4, 2, 8)).layers
    assert layer.dense == 4 * 8 * 3
    assert layer.weight_bytes == 4 * 4 * 8 * 3  # the product, as it would be stored


def test_the_rarer_spikes_are_each_samples_own():
    class Scores(nn.Module):
        def __init__(self):
            super().__init__()
            self.q, self.k = LIF(dims=4, threshold=0.5), LIF(dims=4, threshold=0.5)

        def forward(self, q, k):
            return self.q(q) @ self.k(k).mT

    q, k = torch.zeros(1, 2, 4, 8), torch.ones(1, 2, 4, 8)
    q[0, 0, :, 0] = q[0, 1] = 1
    k[0, 1, :, 2:] = 0
    both = average([estimate_energy(Scores(), q[:, i : i + 1], k[:, i : i + 1], samples=1) for i in range(2)])
    at_once = estimate_energy(Scores(), q, k, samples=2)
    assert at_once.sops == both.sops == 4 * 4 * 8 * (1 / 8 + 2 / 8) / 2
    assert at_once.exact.sops == (4 * 4 + 4 * 4 * 2) / 2


def test_graded_spikes_of_a_spiking_neuron_are_warned_of():
    class Graded(nn.Module):
        fires = True

        def forward(self, x):
            return 0.5 * x.relu()

    model = nn.Sequential(Graded(), PerStep(nn.Linear(8, 3)))
    with pytest.warns(UserWarning, match="0 counts as a spiking neuron, and puts out other numbers.*fires = False"):
        assert estimate_energy(model, torch.randn(4, 2, 8)).sops == 0


def test_what_is_repeated_without_a_copy_is_read_once():
    assert bytes_of(torch.zeros(3, 1).expand(3, 7)) == 12


def test_an_attention_is_one_row():
    energy = estimate_energy(Site(LIVELY(), STAA(2, 4)), torch.randn(2, 3, 4, 5, 5))
    model = estimate_energy(nn.Sequential(Site(LIVELY(), STAA(2, 4))), torch.randn(2, 3, 4, 5, 5))
    rows = by_attention(model.layers)
    assert {row.name for row in rows} == {"0.attention", "0.neuron"}
    assert sum(row.dense for row in rows) == sum(layer.dense for layer in model.layers) == energy.macs
    assert sum(row.memory_bytes for row in rows) == model.weight_bytes + model.membrane_bytes
