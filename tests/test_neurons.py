import inspect
import math
import os

import pytest
import torch

import staa.testing as contracts
from staa.attention import DTA
from staa.layers import PerStep, Site, per_step
from staa.models import ms_resnet18, parts, resnet20, vggsnn
from staa.neurons import LIF, NEURONS, AdaptiveLIF, Integrator, ParametricLIF
from staa.ops import checks, cpu, direct, lif_reference, rectangle

ALL = {**NEURONS, "adaptive-layer": lambda c: AdaptiveLIF(c, per="layer"), "integrator": lambda c: Integrator(c, decay=0.5)}
SHAPE = (5, 4, 3, 2, 2)


@pytest.fixture(params=ALL)
def make(request):
    return ALL[request.param]


def test_contracts(make):
    x = contracts.random_input(*SHAPE)
    neuron = contracts.randomised(make(3).double(), 0.02)
    contracts.shape_and_finite(neuron, x, SHAPE)
    contracts.every_parameter_learns(neuron, x)
    contracts.evaluation_is_deterministic(neuron, x)
    contracts.samples_are_independent(neuron, x)
    contracts.causality(neuron, x, causal=True)
    contracts.state_dict_round_trip(neuron, make(3).double(), x)


@pytest.mark.parametrize("steps", [1, 3])
def test_any_number_of_steps_and_any_rank(make, steps):
    for shape in ((steps, 2, 3), (steps, 2, 3, 4), (steps, 2, 3, 2, 2)):
        neuron = make(3)
        neuron.dims = len(shape)
        assert neuron(torch.randn(shape)).shape == shape


def test_chunks_equal_the_whole_bit_for_bit(make):
    x, neuron = torch.randn(7, *SHAPE[1:]), make(3)
    whole, last = neuron.scan(x)
    a, state = neuron.scan(x[:3])
    b, state = neuron.scan(x[3:], state)
    assert torch.equal(torch.cat([a, b]), whole)
    assert torch.equal(state, last)


def test_nothing_survives_a_call(make):
    x, neuron = torch.randn(SHAPE), make(3)
    first = neuron(x)
    neuron(torch.randn(SHAPE) + 3)
    assert torch.equal(neuron(x), first)
    assert set(neuron.state_dict()) == {name for name, _ in neuron.named_parameters()}


def test_spikes_are_binary():
    for name in NEURONS:
        assert set(NEURONS[name](3)(torch.randn(SHAPE)).unique().tolist()) == {0.0, 1.0}


def test_a_fresh_adaptive_neuron_is_its_plain_twin():
    x = torch.randn(SHAPE)
    plain = LIF(decay=0.25, threshold=0.5, surrogate=rectangle)(x)
    assert torch.equal(AdaptiveLIF(3)(x), plain)
    assert torch.equal(AdaptiveLIF(per="layer")(x), plain)
    assert torch.equal(NEURONS["plain"](3)(x), plain)


def test_which_neurons_fire_at_their_threshold():
    """SpikingJelly's do, which SeqSNN takes; those of DTA-SNN, TET and FSTA-SNN fire above."""
    for name in NEURONS:
        neuron = NEURONS[name](3)
        gain = neuron.gain.detach() if isinstance(neuron.gain, torch.Tensor) else torch.tensor(neuron.gain)
        at = neuron(torch.full((1, *SHAPE[1:]), neuron.threshold) / gain.reshape(-1)[0])
        assert at.unique().tolist() == [0.0 if name in ("adaptive", "plain", "dta") else 1.0], name


def test_parameters_of_the_adaptive_neuron():
    assert {k: v.shape for k, v in AdaptiveLIF(7).state_dict().items()} == {"decay": (7,), "gain": (7,)}
    assert {k: v.shape for k, v in AdaptiveLIF(7, per="layer").state_dict().items()} == {"decay": (), "gain": ()}


def test_the_adaptive_neuron_acts_per_channel():
    neuron = AdaptiveLIF(2)
    with torch.no_grad():
        neuron.decay[1] = 0.0
        neuron.gain[1] = 3.0
    x = torch.full((2, 1, 2, 1, 1), 0.3)
    assert neuron(x)[:, 0, 1].flatten().tolist() == [1, 1]  # 3 · 0.3 fires at once
    assert neuron(x)[:, 0, 0].flatten().tolist() == [0, 0]  # 0.3, 0.375


def test_parametric_gain_can_be_tied_to_the_decay():
    neuron = ParametricLIF(decay=0.8, gain=None, threshold=0.5)
    _, v = neuron.scan(torch.ones(1, 1))
    assert v.item() == pytest.approx(0.2, abs=1e-6)
    with pytest.raises(ValueError, match="decay must be within"):
        ParametricLIF(decay=1.0)


def test_integrator_adds_up():
    assert Integrator()(torch.ones(4, 1, 2))[:, 0, 0].tolist() == [1, 2, 3, 4]
    assert Integrator(decay=0.5, gain=2.0)(torch.ones(2, 1))[:, 0].tolist() == [2, 3]


def test_adaptive_errors():
    with pytest.raises(ValueError, match="channels must be given"):
        AdaptiveLIF()
    with pytest.raises(ValueError, match='"channel" or "layer"'):
        AdaptiveLIF(3, per="pixel")
    with pytest.raises(ValueError, match="AdaptiveLIF.s 3 channels"):
        AdaptiveLIF(3)(torch.randn(2, 2, 4, 1, 1))


def test_per_step_equals_a_loop_over_steps():
    conv, x = torch.nn.Conv2d(3, 4, 3), torch.randn(5, 2, 3, 6, 6)
    looped = torch.stack([conv(frame) for frame in x])
    torch.testing.assert_close(PerStep(conv)(x), looped)
    torch.testing.assert_close(per_step(conv, x), looped)
    with pytest.raises(ValueError, match="at least 3 dimensions"):
        PerStep(conv)(torch.randn(3, 4))


def test_time_is_never_taken_for_the_batch():
    """A neuron inside PerStep would leak state across samples; it is refused. (QKFormer issue 14.)"""
    with pytest.raises(ValueError, match="scans over time"):
        PerStep(torch.nn.Conv2d(3, 3, 1), LIF())


@pytest.fixture
def unwarned():
    """Each warning that is given once has not been given yet, before and after."""
    for once in (checks._warn_of_dims, parts._warn_of_frames):
        once.cache_clear()
    yield
    for once in (checks._warn_of_dims, parts._warn_of_frames):
        once.cache_clear()


def test_a_batch_of_images_is_never_taken_for_a_window_silently(make, unwarned):
    """[N, C, H, W] has a batch where [T, N, ...] has time: spikes would leak from image to image."""
    images, neuron = torch.rand(4, 2, 3, 2), make(3)  # so that an AdaptiveLIF takes the third for channels
    with pytest.warns(UserWarning, match=r"staa\.ops\.direct\(x, steps=T\).*\(dims=4\)") as told:
        neuron(images)
    neuron(images)  # a second warning would be an error
    assert len(told) == 1
    assert told[0].filename == __file__  # the caller's own line
    neuron(torch.rand(3, 3, 3)), neuron(torch.rand(SHAPE))  # and no other rank warns
    window = type(neuron)(3, dims=4) if isinstance(neuron, AdaptiveLIF) else type(neuron)(dims=4)
    window(images)
    for wrong in (images[0], images[None]):
        with pytest.raises(ValueError, match=r"4 dimensions, time first"):
            window(wrong)


def test_the_neurons_of_a_network_take_windows_alone():
    images = torch.rand(4, 4, 8, 8)
    for model in (resnet20(3, width=0.1), vggsnn(3, width=0.1), ms_resnet18(3, width=0.1, attention=DTA)):
        sites = [module for module in model.modules() if isinstance(module, Site)]
        assert sites
        for site in sites:
            with pytest.raises(ValueError, match=r"\[T, N, C, H, W\].*staa\.ops\.direct"):
                site.neuron(images)
    with pytest.raises(ValueError, match=r"5 dimensions.*staa\.ops\.direct"):
        PerStep(torch.nn.Conv2d(4, 4, 1))(images)  # as one sample of four channels, the batch
    PerStep(torch.nn.Conv1d(8, 4, 1))(torch.rand(4, 4, 8, 8))


def test_event_frames_without_a_batch_are_not_taken_for_images_silently(unwarned):
    model = resnet20(3, in_channels=2, steps=2, width=0.1)
    with pytest.warns(UserWarning, match=r"frames\[:, None\]") as told:
        model(torch.rand(4, 2, 8, 8))
    model(torch.rand(4, 2, 8, 8))
    assert len(told) == 1
    assert told[0].filename == __file__
    model(direct(torch.rand(4, 2, 8, 8), steps=2))
    resnet20(3, steps=2, width=0.1)(torch.rand(4, 3, 8, 8))


def test_a_site_asks_attention_what_it_acts_on():
    class Halve(torch.nn.Module):
        acts_on = "current"

        def forward(self, x):
            return x / 2

    class Grade(torch.nn.Module):
        acts_on = "spikes"

        def forward(self, current, spikes):
            return spikes * current

    x = torch.randn(SHAPE)
    assert torch.equal(Site(LIF(), Halve())(x), LIF()(x / 2))
    assert torch.equal(Site(LIF(), Grade())(x), LIF()(x) * x)
    with pytest.raises(ValueError, match="acts_on"):
        Site(LIF(), torch.nn.Identity())


@pytest.mark.parametrize("neuron", [LIF, ParametricLIF, AdaptiveLIF, Integrator])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(channels=0.9), r"channels must be a whole number.*got 0.9; all else goes by keyword"),
        (dict(channels=0), "channels must be"),
        (dict(channels=True), "channels must be"),
        (dict(decay=math.nan), "decay must be a finite number, got nan"),
        (dict(decay="0.5"), "decay must be a finite number, got '0.5'"),
        (dict(gain=math.inf), "gain must be a finite number"),
        (dict(threshold=math.nan), "threshold must be a finite number"),
        (dict(threshold=0.0), "threshold must be positive"),
        (dict(strict=1), "strict must be True or False"),
        (dict(detach_reset="no"), "detach_reset must be True or False"),
        (dict(reset="none"), 'reset must be "zero" or "subtract", got \'none\''),
        (dict(reset=None), "reset must be"),
        (
            dict(surrogate="arctan"),
            "surrogate must be a function such as staa.ops.arctan, got 'arctan'; staa.ops has rectangle, tri",
        ),
    ],
)
def test_bad_arguments_are_named_at_construction(neuron, options, message):
    taken = inspect.signature(neuron).parameters
    if options.keys() <= taken.keys():
        with pytest.raises(ValueError, match=message):
            neuron(**{"channels": 3, **options})


@pytest.mark.parametrize("neuron", [LIF, Integrator])
@pytest.mark.parametrize("decay", [-0.1, 1.1])
def test_a_fixed_decay_neither_grows_nor_alternates(neuron, decay):
    with pytest.raises(ValueError, match=r"decay must be in \[0, 1\]"):
        neuron(decay=decay)


@pytest.mark.parametrize("neuron", [LIF, ParametricLIF, lambda **options: AdaptiveLIF(3, **options)])
@pytest.mark.parametrize("reset", ["zero", "subtract"])
@pytest.mark.parametrize("detach_reset", [False, True])
@pytest.mark.parametrize("strict", [False, True])
def test_every_firing_neuron_takes_every_option(neuron, reset, detach_reset, strict):
    options = dict(decay=0.5, threshold=0.75, reset=reset, detach_reset=detach_reset, strict=strict, surrogate=rectangle)
    x = ((4 * torch.randn(SHAPE)).round() / 4).requires_grad_()
    spikes, expected = neuron(**options)(x), lif_reference(x, **options)[0]
    assert torch.equal(spikes, expected)
    up = torch.randn(SHAPE)
    torch.testing.assert_close(*(torch.autograd.grad(y, x, up)[0] for y in (spikes, expected)))


def test_the_kernels_are_there():
    """Else most tests of them are skipped, and the rest takes the reference path. STAA_WITHOUT_KERNELS=1: no compiler."""
    if os.environ.get("STAA_WITHOUT_KERNELS") == "1":
        pytest.skip("STAA_WITHOUT_KERNELS=1")
    assert cpu.LIBRARY is not None, cpu.WHY_NOT
