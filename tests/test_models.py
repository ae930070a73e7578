import itertools
import math
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import staa.testing as contracts
from staa.attention import ATTENTIONS, STAA, GlobalContext, PositionEncoding, StepAttention
from staa.layers import Site
from staa.models import MODELS, resnet9, resnet18, resnet19, resnet20, resnet34, vggsnn
from staa.models.parts import ConvNorm
from staa.neurons import LIF, NEURONS, AdaptiveLIF
from staa.rates import firing_rates

pytestmark = pytest.mark.filterwarnings("ignore:an input .N, 2, H, W. is taken as N images")
SIZE = {"vggsnn": 16}
PLAIN = partial(LIF, decay=0.25, threshold=0.5)


def build(name, classes=5, **options):
    options = {"width": 0.125, "in_channels": 2, "steps": 3, **options}
    if name in SIZE:
        options = {"size": SIZE[name], **options}
    return MODELS[name](classes, **options)


def parameters(model):
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(
    ("make", "classes", "count"),
    [
        (resnet9, 10, 4_968_522),
        (resnet19, 10, 12_569_226),
        (resnet19, 100, 12_615_396),
        (resnet20, 10, 11_247_946),
        (resnet20, 100, 11_294_116),
        (resnet18, 1000, 11_689_512),
        (resnet34, 1000, 21_797_672),
        (partial(resnet20, attention=STAA), 100, 12_024_556),
        (partial(resnet20, attention=STAA, neuron=AdaptiveLIF), 100, 12_032_620),
    ],
)
def test_parameter_counts(make, classes, count):
    with torch.device("meta"):
        assert parameters(make(classes)) == count


def test_what_attention_and_the_neuron_add():
    with torch.device("meta"):
        plain, attended = parameters(resnet20(100)), parameters(resnet20(100, attention=STAA))
        assert attended - plain == 730_440
        assert parameters(resnet20(100, neuron=AdaptiveLIF)) - plain == 8_064
        widths = [2, 64, 128, 256, 256, 512, 512, 512, 512]
        convolutions = sum(9 * a * b for a, b in itertools.pairwise(widths))
        assert parameters(vggsnn(10, in_channels=2, steps=10)) == convolutions + 2 * sum(widths[1:]) + 512 * 9 * 10 + 10


@pytest.mark.parametrize("attention", [None, "staa"])
@pytest.mark.parametrize("name", MODELS)
def test_contracts(name, attention):
    options = {"attention": ATTENTIONS[attention] if attention else None, "neuron": AdaptiveLIF}
    model = contracts.randomised(build(name, **options).double(), 0.05)
    for module in model.modules():
        if isinstance(module, STAA):
            module.dropout = 0.0
    x = contracts.random_input(3, 3, 2, 16, 16)
    model.train()(x)  # running statistics that are not those of a fresh norm
    contracts.shape_and_finite(model, x, (3, 3, 5))
    contracts.evaluation_is_deterministic(model, x)
    contracts.samples_are_independent(model, x)
    contracts.state_dict_round_trip(model, build(name, **options).double(), x)


@pytest.mark.parametrize("name", MODELS)
def test_every_parameter_learns(name):
    """Frames so large that the last stage is not 1 × 1, where the softmax over positions has nothing to choose."""
    model = build(name, attention=partial(STAA, dropout=0.0), neuron=AdaptiveLIF, **({"size": 32} if name in SIZE else {}))
    size = 64 if name in ("resnet18", "resnet34") else 32
    contracts.every_parameter_learns(model, 2 * torch.randn(3, 4, 2, size, size))


@pytest.mark.parametrize(("attention", "causal"), [(None, True), ("staa", False), ("staa-causal", True), ("gc-pe", True)])
def test_causality_by_gradient(attention, causal):
    """A wide surrogate, so that gradients reach through every layer; every parameter random, so that no gate is constant."""
    neuron = partial(LIF, decay=0.5, threshold=0.5)
    model = build("resnet20", attention=ATTENTIONS[attention] if attention else None, neuron=neuron)
    contracts.causality(contracts.randomised(model, 0.1), contracts.random_input(3, 2, 2, 8, 8), causal)


@pytest.mark.parametrize("neuron", NEURONS)
def test_any_neuron(neuron):
    assert build("resnet20", neuron=NEURONS[neuron])(torch.randn(2, 2, 8, 8)).shape == (3, 2, 5)


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_an_image_is_repeated_over_time(steps):
    model = build("resnet19", steps=steps, attention=STAA).eval()
    x = torch.randn(2, 2, 8, 8)
    with torch.no_grad():
        assert torch.equal(model(x), model(x.expand(steps, *x.shape)))


@pytest.mark.parametrize("size", [5, 7, 9, 16])
@pytest.mark.parametrize("name", ["resnet9", "resnet18", "resnet19", "resnet20", "resnet34"])
def test_any_input_size(name, size):
    assert build(name)(torch.randn(2, 2, size, size + 2)).shape == (3, 2, 5)


def test_where_attention_goes():
    def sites(where, name="resnet20", attention=STAA):
        model = build(name, attention=attention, sites=where)
        return [site.attention is not None for site in model.modules() if isinstance(site, Site)]

    assert sites(None) == sites("all") == [True] * 19
    assert sites("stem") == [False, False, True] + [False] * 16
    assert sites("last-of-stage") == [False] * 3 + [False, False, False, True] * 4
    assert sites("stem", "vggsnn") == [True] + [False] * 7
    assert sites("last-of-stage", "vggsnn") == [False, True] * 4
    assert sum(sites("all", attention=None)) == 0

    class AtTheStem(STAA):
        default_sites = "stem"

    assert sites(None, attention=AtTheStem) == sites("stem")
    with pytest.raises(ValueError, match="sites must be"):
        sites("everywhere")


@pytest.mark.parametrize("part", [PositionEncoding, lambda steps, c: GlobalContext(c), lambda steps, c: StepAttention(steps)])
def test_a_part_of_the_attention_serves_alone(part):
    model = contracts.randomised(build("resnet20", attention=part))
    assert sum(isinstance(m, Site) and m.attention is not None for m in model.modules()) == 19
    assert model(torch.randn(2, 2, 8, 8)).isfinite().all()


def test_a_model_with_any_number_of_steps():
    model = build("resnet20", steps=None, attention=STAA)
    for steps in (1, 4):
        assert model(torch.randn(steps, 2, 2, 8, 8)).shape == (steps, 2, 5)
    with pytest.raises(ValueError, match="give a window"):
        model(torch.randn(2, 2, 8, 8))


def test_neutral_staa_is_the_plain_network():
    """PE = 0, gates = 1, M = 0.25, G = 1: bit-equal logits; and so is training with dropout = 1."""
    plain = build("resnet20", neuron=NEURONS["plain"]).eval()
    model = build("resnet20", neuron=AdaptiveLIF, attention=partial(STAA, dropout=1.0))
    model.load_state_dict(plain.state_dict(), strict=False)
    x = torch.randn(3, 2, 2, 8, 8)
    batch = torch.randn(3, 4, 2, 8, 8)
    with torch.no_grad():
        assert not torch.equal(model.eval()(x), plain(x))
        assert torch.equal(model.train()(batch), plain.train()(batch))
        model.load_state_dict(plain.state_dict(), strict=False)
        for module in model.modules():
            if isinstance(module, STAA):
                module.position.encoding.zero_()
                module.context.value.bias.fill_(1e4)
                module.step.excite.bias.fill_(1e4)
        assert torch.equal(model.eval()(x), plain.eval()(x))


def test_channels_last_reaches_every_layer():
    model = build("resnet20", attention=STAA, neuron=AdaptiveLIF).to(memory_format=torch.channels_last)
    seen = []
    for module in model.modules():
        if isinstance(module, Site):
            module.register_forward_hook(
                lambda _, __, y: seen.append(y.flatten(0, 1).is_contiguous(memory_format=torch.channels_last))
            )
    model(torch.randn(2, 2, 16, 16))
    assert seen == [True] * 19


def test_spikes_are_binary_everywhere_and_rates_are_their_means():
    model, spikes = build("resnet20", attention=STAA, neuron=AdaptiveLIF), {}
    for name, module in model.named_modules():
        if isinstance(module, AdaptiveLIF):
            module.register_forward_hook(lambda _, __, y, name=name: spikes.update({name.removesuffix(".neuron"): y}))
    with firing_rates(model) as rates:
        model(torch.randn(2, 2, 16, 16))
    assert rates.keys() == spikes.keys()
    assert len(rates) == 19
    for name, s in spikes.items():
        assert set(s.unique().tolist()) <= {0.0, 1.0}
        assert rates[name] == s.mean()
    rates.clear()
    model(torch.randn(2, 2, 16, 16))
    assert not rates  # the hooks are gone


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((2, 2), r"must be \[T, N, C, H, W\] or \[N, C, H, W\]"),
        ((4, 2, 2, 8, 8), "built for T = 3 steps, got 4"),
        ((3, 2, 3, 8, 8), "must have the model's 2 channels, got 3"),
    ],
)
@pytest.mark.parametrize("name", ["resnet20", "vggsnn"])
def test_what_does_not_fit_is_named(name, shape, message):
    with pytest.raises(ValueError, match=message):
        build(name)(torch.randn(shape))


def test_vggsnn_names_the_size_it_needs():
    with pytest.raises(ValueError, match="built for size=16"):
        build("vggsnn")(torch.randn(2, 2, 20, 20))
    with pytest.raises(ValueError, match="at least 16"):
        vggsnn(10, size=8)


@pytest.mark.parametrize("make", [resnet20, vggsnn])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(width=0), "width must be a number above 0"),
        (dict(width=float("nan")), "width must be a number above 0"),
        (dict(steps=0), "steps must be a whole number"),
        (dict(in_channels=2.5), "in_channels must be a whole number"),
        (dict(num_classes=0), "num_classes must be a whole number"),
        (dict(neuron="lif"), "neuron must be a factory"),
        (dict(neuron=LIF()), "neuron must be a factory"),
        (dict(attention=STAA(4, 8)), "attention must be a factory"),
    ],
)
def test_arguments_that_make_no_network(make, options, message):
    with pytest.raises(ValueError, match=message):
        make(**{"num_classes": 10, **options})


def test_a_strided_1x1_convolution_is_the_convolution():
    """It is taken of every second pixel, since the CPU library's own backward pass of it corrupts memory."""
    layer = ConvNorm(6, 12, 1, 2).double()
    layer.norm = nn.Identity()
    for size in ((2, 3, 6, 9, 8), (2, 3, 6, 1, 5)):
        x = torch.randn(size, dtype=torch.float64)
        strided = F.conv2d(x.flatten(0, 1), layer.conv.weight, stride=2).unflatten(0, size[:2])
        torch.testing.assert_close(layer(x), strided)


def he(weight):
    return (2 / (len(weight) * weight[0, 0].numel())) ** 0.5


def torchs(weight):
    return 1 / (3 * weight[0].numel()) ** 0.5


def narrow(weight):
    return 1 / weight.shape[1]


# The deviations of convolutions and readout, and whether the readout's bias is 0: FSTA-SNN's, DTA-SNN's and TET's code.
INITIAL = {
    **dict.fromkeys(("resnet9", "resnet18", "resnet19", "resnet20", "resnet34"), (he, narrow, True)),
    **dict.fromkeys(("ms_resnet18", "ms_resnet34"), (torchs, torchs, False)),
    "vggsnn": (he, torchs, False),
}


@pytest.mark.parametrize("name", MODELS)
def test_initialisation_is_the_papers(name):
    torch.manual_seed(0)
    model = build(name, 100, width=0.5, attention=None)
    of_convolution, of_readout, no_bias = INITIAL[name]
    layers = [layer for layer in model.modules() if isinstance(layer, ConvNorm)]
    assert len(layers) >= 8
    for layer in layers:
        weight = layer.conv.weight
        assert weight.std().item() == pytest.approx(of_convolution(weight), rel=4 / weight.numel() ** 0.5)
        if of_convolution is torchs:  # uniform
            assert weight.abs().max() <= 1.001 * 3**0.5 * torchs(weight)
        assert (layer.norm.weight == 1).all()
        assert (layer.norm.bias == 0).all()
    readout = model.readout if isinstance(model.readout, nn.Linear) else model.readout.linear
    assert readout.weight.std().item() == pytest.approx(of_readout(readout.weight), rel=0.03)
    bound = 0.0 if no_bias else 1 / readout.in_features**0.5
    assert readout.bias.abs().max() <= bound
    assert readout.bias.std().item() == pytest.approx(bound / 3**0.5, rel=0.3)


@pytest.mark.parametrize("make", [MODELS["resnet20"], MODELS["ms_resnet18"]])
def test_residual_branches_begin_small(make):
    """Of two networks that differ in residual_init alone, the blocks' last BatchNorms differ, and all learn."""
    torch.manual_seed(0)
    model = make(3, steps=2, width=0.0625, residual_init=0.2)
    torch.manual_seed(0)
    usual = make(3, steps=2, width=0.0625).state_dict()
    small = {f"stages.{i}.{j}.layer2.norm.weight" for i, stage in enumerate(model.stages) for j in range(len(stage))}
    for key, value in model.state_dict().items():
        torch.testing.assert_close(value, 0.2 * usual[key] if key in small else usual[key], rtol=0, atol=0)
    model(torch.randn(2, 8, 3, 16, 16)).pow(2).sum().backward()
    parameters = dict(model.named_parameters())
    assert all(parameters[key].grad.any() for key in small)


def test_odd_residual_init_is_refused():
    for name, value in itertools.product(("resnet20", "ms_resnet18"), (-0.5, math.nan, math.inf, "0.2", True)):
        with pytest.raises(ValueError, match="residual_init must be a number of at least 0"):
            MODELS[name](3, width=0.0625, residual_init=value)
    with pytest.raises(ValueError, match="residual_init must be above 0"):
        MODELS["resnet20"](3, width=0.0625, residual_init=0.0)


@pytest.mark.parametrize("name", MODELS)
def test_an_input_of_another_kind_is_refused(name):
    model, x = build(name), torch.rand(2, 2, 16, 16)
    with pytest.raises(ValueError, match=r"are torch.float32, the input is torch.float64: call .to\(torch.float32\)"):
        model(x.double())
    with pytest.raises(ValueError, match="are torch.bfloat16, the input is torch.float32"):
        build(name).bfloat16()(x)
    with pytest.raises(ValueError, match=r"are on cpu, the input is on meta: call .to\('cpu'\)"):
        model(x.to("meta"))
    with pytest.raises(ValueError, match="must be a float tensor, got torch.uint8; call .float"):
        model(x.byte())
    with pytest.raises(TypeError, match=r"must be a tensor, got a NumPy array \[2, 2, 16, 16\]: call torch.from_numpy"):
        model(x.numpy())
    with torch.autocast("cpu", torch.bfloat16):
        assert model(x.bfloat16()).isfinite().all()
