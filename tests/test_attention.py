from functools import partial

import numpy as np
import pytest
import torch

import staa.testing as contracts
from staa.attention import ATTENTIONS, STAA, ChannelGate, GlobalContext, PositionEncoding, StepAttention
from staa.neurons import AdaptiveLIF
from staa.ops.averages import Folded

SHAPE = (5, 4, 6, 3, 3)
STEPS, CHANNELS = 5, 6
PARTS = {
    "position": PositionEncoding,
    "context": lambda steps, channels: GlobalContext(channels),
    "step": lambda steps, channels: StepAttention(steps),
    "step-causal": lambda steps, channels: StepAttention(steps, causal=True),
    "channel": lambda steps, channels: ChannelGate(channels),
}
ALL = {**ATTENTIONS, **PARTS, "staa-any": lambda steps, channels: STAA(None, channels)}


@pytest.fixture(params=ALL)
def make(request):
    def made(steps, channels):
        return contracts.on_one_input(ALL[request.param](steps, channels))

    return made


def test_contracts(make):
    x = contracts.random_input(*SHAPE)
    module = contracts.randomised(make(STEPS, CHANNELS).double())
    module.dropout = 0.0
    contracts.shape_and_finite(module, x, SHAPE)
    contracts.every_parameter_learns(module, x)
    contracts.evaluation_is_deterministic(module, x)
    contracts.samples_are_independent(module, x)
    contracts.causality(module, x, causal=module.causal)
    contracts.state_dict_round_trip(module, make(STEPS, CHANNELS).double(), x)


def test_only_full_step_attention_sees_the_future():
    causal = {name: make(STEPS, CHANNELS).causal for name, make in ALL.items()}
    assert {name for name, c in causal.items() if not c} == {
        "staa", "gc-pe-sa", "step", "dta", "dta-txa", "dta-tna", "dta-ltca", "dta-gtca", "ta", "ta-max",
    }  # fmt: skip


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", [name for name in ALL if not name.startswith("dta")])
def test_affine_equals_forward(name, training):
    """The folded form and the plain form, values and every gradient, with the same draws of dropout."""
    x = contracts.random_input(*SHAPE).requires_grad_()
    module = contracts.randomised(ALL[name](STEPS, CHANNELS).double()).train(training)
    torch.manual_seed(1)
    plain = module(x)
    torch.manual_seed(1)
    scale, shift = module.affine(x)
    folded = x if scale is None else x * scale
    folded = folded if shift is None else folded + shift
    torch.testing.assert_close(folded, plain, rtol=1e-10, atol=1e-10)
    weight = torch.randn_like(plain)
    wanted = [x, *module.parameters()]
    for a, b in zip(
        *(torch.autograd.grad((y * weight).sum(), wanted, allow_unused=True) for y in (folded, plain)), strict=True
    ):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("name", PARTS)
def test_affine_of_an_affine_current(name):
    """A part sees through a scale and shift before it: what lets parts be chained in any order."""
    x = contracts.random_input(*SHAPE)
    part = contracts.randomised(PARTS[name](STEPS, CHANNELS).double())
    scale, shift = torch.rand(STEPS, 4, CHANNELS, 1, 1).double(), torch.randn(STEPS, 1, CHANNELS, 1, 1).double()
    a, b = part.affine(x, scale, shift)
    torch.testing.assert_close(x * a + b, part(x * scale + shift), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("causal", [False, True])
def test_any_window_it_is_built_for(steps, causal):
    module = contracts.randomised(STAA(steps, 3, causal=causal))
    assert module(torch.randn(steps, 2, 3, 4, 4)).shape == (steps, 2, 3, 4, 4)
    assert module(torch.randn(steps, 1, 3, 1, 1)).isfinite().all()


def test_a_numpy_reference_of_the_whole_aggregator():
    """The equations of the reconstruction, written out with loops."""
    x = contracts.random_input(*SHAPE)
    module = contracts.randomised(STAA(STEPS, CHANNELS).double()).eval()
    w = {k: v.detach().numpy() for k, v in module.state_dict().items()}

    def sigmoid(z):
        return 1 / (1 + np.exp(-z))

    a = x.numpy() + w["position.encoding"][:, None, :, None, None]
    gated = np.empty_like(a)
    for t, n in np.ndindex(a.shape[:2]):
        frame = a[t, n].reshape(CHANNELS, -1)
        key = w["context.key.weight"][0] @ frame
        weights = np.exp(key - key.max())
        weights /= weights.sum()
        context = (frame * weights).sum(1)
        hidden = w["context.query.weight"] @ context + w["context.query.bias"]
        hidden = (hidden - hidden.mean()) / np.sqrt(hidden.var() + 1e-5)
        hidden = np.maximum(0, hidden * w["context.norm.weight"] + w["context.norm.bias"])
        gate = sigmoid(w["context.value.weight"] @ hidden + w["context.value.bias"])
        gated[t, n] = a[t, n] * gate[:, None, None]
    p = gated.mean((2, 3, 4)).T
    hidden = np.maximum(0, p @ w["step.squeeze.weight"].T + w["step.squeeze.bias"])
    q = sigmoid(hidden @ w["step.excite.weight"].T + w["step.excite.bias"]).T
    torch.testing.assert_close(module(x), torch.from_numpy(gated * q[:, :, None, None, None]), rtol=1e-9, atol=1e-9)


def test_dropout_one_in_training_is_no_attention_and_evaluation_ignores_it():
    x = torch.randn(SHAPE)
    module = contracts.randomised(STAA(STEPS, CHANNELS, dropout=1.0))
    neuron = AdaptiveLIF(CHANNELS)
    assert torch.equal(module(x), x)
    assert torch.equal(neuron(x, *module.affine(x)), neuron(x))
    module.eval()
    always = STAA(STEPS, CHANNELS, dropout=0.0)
    always.load_state_dict(module.state_dict())
    assert torch.equal(module(x), always.train()(x))
    assert not torch.equal(module(x), x)


def test_dropout_skips_whole_steps_for_the_whole_batch():
    module = contracts.randomised(STAA(400, 2, dropout=0.3))
    x = torch.randn(400, 3, 2, 2, 2)
    skipped = (module(x) == x).flatten(1)
    assert torch.equal(skipped.all(1), skipped.any(1))
    assert skipped.all(1).float().mean().item() == pytest.approx(0.3, abs=0.08)


def test_neutral_attention_is_the_plain_neuron():
    """PE = 0, gates = 1, M = 0.25, G = 1."""
    module = STAA(STEPS, CHANNELS, dropout=0.0)
    with torch.no_grad():
        module.position.encoding.zero_()
        module.context.value.bias.fill_(1e4)
        module.step.excite.bias.fill_(1e4)
    x, neuron = torch.randn(SHAPE), AdaptiveLIF(CHANNELS)
    assert torch.equal(neuron(x, *module.affine(x)), neuron(x))
    assert torch.equal(module(x), x)


def test_a_fresh_gate_stands_open():
    gate = torch.sigmoid(torch.tensor(2.0)).item()
    for part in (GlobalContext(CHANNELS), StepAttention(STEPS), ChannelGate(CHANNELS)):
        assert torch.allclose(part.gate(Folded(torch.randn(SHAPE)))[1], torch.tensor(gate))


def test_parts_can_be_left_out_and_replaced():
    bare = STAA(STEPS, CHANNELS, position=None, context=None, step=None, dropout=0.0)
    x = torch.randn(SHAPE)
    assert bare.affine(x) == (None, None)
    assert torch.equal(bare(x), x)
    swapped = STAA(STEPS, CHANNELS, context=ChannelGate, step=partial(StepAttention, causal=True))
    assert isinstance(swapped.context, ChannelGate)
    assert swapped.causal
    with pytest.raises(ValueError, match="must say causal"):
        STAA(STEPS, CHANNELS, causal=True, step=lambda steps: StepAttention(steps))
    with pytest.raises(ValueError, match="would need a number of steps"):
        STAA(None, CHANNELS, step=lambda steps: StepAttention(steps))
    with pytest.raises(ValueError, match=r"Identity needs affine\(x, scale, shift\)"):
        STAA(STEPS, CHANNELS, context=lambda channels: torch.nn.Identity())


def test_any_steps():
    module = STAA(None, CHANNELS)
    assert module.position is None
    assert isinstance(module.step, ChannelGate)
    for steps in (1, 2, 9):
        assert module(torch.randn(steps, 2, CHANNELS, 3, 3)).shape[0] == steps


def test_channels_last_and_bfloat16():
    module = contracts.randomised(STAA(STEPS, CHANNELS)).eval()
    x = torch.randn(SHAPE)
    last = x.flatten(0, 1).contiguous(memory_format=torch.channels_last).unflatten(0, SHAPE[:2])
    torch.testing.assert_close(module(last), module(x))
    with torch.autocast("cpu", torch.bfloat16):
        half = module(x.bfloat16())
        scale, shift = module.affine(x.bfloat16())
    torch.testing.assert_close(half.float(), module(x), rtol=0.05, atol=0.05)
    torch.testing.assert_close(scale.float() * x + shift.float(), module(x), rtol=0.05, atol=0.05)
    module.to(memory_format=torch.channels_last)  # a rank-5 parameter would make this fail


@pytest.mark.parametrize("module", [STAA(5, 6), PositionEncoding(5, 6), GlobalContext(6), StepAttention(5), ChannelGate(6)])
def test_what_does_not_fit_is_named(module):
    name = type(module).__name__
    with pytest.raises(ValueError, match=rf"the current of {name} must be \[T, N, C, H, W\], got shape \[5, 6\]"):
        module(torch.randn(5, 6))
    if name in ("STAA", "PositionEncoding", "StepAttention"):
        with pytest.raises(ValueError, match="built for T = 5 steps, got 4"):
            module(torch.randn(4, 2, 6, 2, 2))
    if name != "StepAttention":
        with pytest.raises(ValueError, match="built for 6 channels, got 7"):
            module(torch.randn(5, 2, 7, 2, 2))


def test_bad_arguments():
    with pytest.raises(ValueError, match="probability"):
        STAA(4, 4, dropout=1.5)
    with pytest.raises(ValueError, match="fixed number of steps"):
        PositionEncoding(None, 4)
    with pytest.raises(ValueError, match="at least 1"):
        GlobalContext(4, reduction=0)
