"""What `staa.record` hears of a network, against traces by hand, streams, and every registered neuron and attention."""

import math

import pytest
import torch
from torch import nn

import staa
from staa.attention import ATTENTIONS, DTA, STAA
from staa.forecasters import pieces
from staa.layers import Passive, PerStep, Site, note
from staa.models import MODELS, ispikformer, resnet20, spikestag, vggsnn
from staa.neurons import LIF, NEURONS, AdaptiveLIF, Integrator
from staa.ops import integrate, lif

STEPS = 4
OPEN = {"gate", "time_gate", "channel_gate"}  # in [0, 1]: sigmoids, which rounding can shut
FREE = {"encoding", "local_gate", "global_gate"}


def current(channels=6, batch=2, side=4, steps=STEPS):
    return 2 * torch.randn(steps, batch, channels, side, side)


def network(neuron=LIF, attention=None, **options):
    options = dict(steps=STEPS, width=0.05, neuron=neuron, attention=attention, in_channels=2) | options
    return resnet20(3, **options).eval()


# The membrane


@pytest.mark.parametrize(("reset", "fourth"), [("zero", 0.6), ("subtract", 0.625)])
def test_a_trace_by_hand(reset, fourth):
    """v = ½ h + 0.6: 0.6, 0.9, 1.05, which fires and leaves 0 or 0.05, then 0.6 or 0.625."""
    seen = staa.record(LIF(decay=0.5, threshold=1.0, reset=reset), torch.full((4, 1, 1), 0.6, dtype=torch.float64))
    assert seen["spikes"].flatten().tolist() == [0, 0, 1, 0]
    assert seen["membrane"].flatten().tolist() == pytest.approx([0.6, 0.9, 1.05, fourth])
    assert seen["threshold"].item() == 1.0
    assert torch.equal(seen["output"], seen["spikes"])


def by_the_equation(neuron, x, spikes):
    """v[t] = decay · h[t−1] + gain · x[t] in float64, reset where the neuron fired."""
    with torch.no_grad():
        decay = neuron.decay_logit.sigmoid() if hasattr(neuron, "decay_logit") else torch.as_tensor(neuron.decay)
        gain = 1 - decay if neuron.gain is None else torch.as_tensor(neuron.gain)
    decay, gain = (p.double().view(-1, 1, 1) if p.ndim else p.double() for p in (decay, gain))
    h, trace = torch.zeros_like(x[0], dtype=torch.float64), []
    for i, s in zip(x.double(), spikes.double(), strict=True):
        trace.append(decay * h + gain * i)
        h = trace[-1] * (1 - s) if neuron.reset == "zero" else trace[-1] - neuron.threshold * s
    return torch.stack(trace)


@pytest.mark.parametrize("reset", ["zero", "subtract"])
@pytest.mark.parametrize("reference", [False, True])
@pytest.mark.parametrize("name", NEURONS)
def test_every_neuron_by_its_equation(name, reference, reset):
    neuron, x = NEURONS[name](6, reset=reset), current()
    for p in neuron.parameters():
        nn.init.uniform_(p, 0.2, 0.9)
    if reference:
        with staa.reference():
            seen = staa.record(neuron, x)
    else:
        seen = staa.record(neuron, x)
    assert torch.equal(seen["spikes"], neuron(x))
    assert 0.05 < seen["spikes"].mean() < 0.95
    torch.testing.assert_close(seen["membrane"].double(), by_the_equation(neuron, x, seen["spikes"]), rtol=1e-5, atol=1e-5)
    fired = seen["membrane"] > seen["threshold"] if neuron.strict else seen["membrane"] >= seen["threshold"]
    assert torch.equal(fired, seen["spikes"].bool())


@pytest.mark.parametrize("reset", ["zero", "subtract"])
def test_the_membrane_leaves_what_a_stream_keeps(reset):
    model = network(lambda channels: LIF(decay=0.7, threshold=0.3, reset=reset), steps=None)
    x = torch.rand(STEPS, 2, 2, 16, 16)
    seen = staa.record(model, x)
    _, state = staa.stream(model, x)
    kept = dict(zip(state.scanning, state.scans, strict=True))
    names = [name.removesuffix(".neuron") for name in kept if name.endswith(".neuron")]
    assert len(names) == len(seen) // 3 > 10
    for name in names:
        v, s = seen[f"{name}.membrane"][-1], seen[f"{name}.spikes"][-1]
        assert torch.equal(v * (1 - s) if reset == "zero" else v - 0.3 * s, kept[f"{name}.neuron"])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_precisions(dtype):
    seen = staa.record(AdaptiveLIF(6), current().to(dtype))
    assert seen["spikes"].dtype == dtype
    assert seen["membrane"].dtype == torch.promote_types(dtype, torch.float32)
    assert torch.equal(seen["membrane"] >= 0.5, seen["spikes"].bool())


def test_an_integrator_has_a_membrane_alone():
    model, x = nn.Sequential(LIF(), Integrator(decay=0.5)), current()
    seen = staa.record(model, x)
    assert sorted(seen) == ["0.membrane", "0.spikes", "0.threshold", "1.membrane", "output"]
    assert torch.equal(seen["1.membrane"], integrate(seen["0.spikes"], decay=0.5)[0])


# A neuron of one's own


class Own(nn.Module):
    """Fires by itself, without a membrane that anybody knows."""

    fires = True

    def forward(self, x):
        return (x > 0.5).to(x.dtype)


class Thresholds(nn.Module):
    """A threshold for each channel."""

    fires = True

    def __init__(self, change=lambda spikes: spikes):
        super().__init__()
        self.threshold, self.change = torch.tensor([0.25, 4.0]).view(2, 1, 1), change

    def forward(self, x):
        return self.change(lif(x, decay=0.5, threshold=self.threshold)[0])


def test_a_neuron_of_ones_own_has_spikes_at_least():
    x = current(2)
    seen = staa.record(PerStep(Own()), x)
    assert sorted(seen) == ["module.spikes", "output"]
    seen = staa.record(Thresholds(), x)
    assert torch.equal(seen["membrane"] >= seen["threshold"], seen["spikes"].bool())
    assert seen["threshold"].flatten().tolist() == [0.25, 4.0]
    assert "membrane" not in staa.record(Thresholds(lambda spikes: 2 * spikes), x), "whose spikes these are is not known"


def test_spikes_that_are_changed_afterwards_are_told_of():
    with pytest.warns(UserWarning, match=r"the neuron puts out [\d,]+ of 128 spikes otherwise than its membrane crosses"):
        staa.record(Thresholds(lambda spikes: spikes.zero_()), current(2, batch=1))


def test_a_neuron_whose_output_is_no_tensor():
    class Pair(Own):
        def forward(self, x):
            return x, x

    with pytest.raises(ValueError, match=r"0 says that it fires, so it must put out a tensor of spikes, got tuple"):
        staa.record(nn.Sequential(Pair()), current())


def test_a_surrogate_of_ones_own_takes_the_reference_path():
    neuron = LIF(surrogate=lambda u: u.sigmoid())
    with pytest.warns(UserWarning, match="none of staa.ops.SURROGATES") as told:
        seen = staa.record(neuron, current())
    assert len(told) == 1
    assert torch.equal(seen["membrane"] >= 1, seen["spikes"].bool())


def test_a_module_that_is_called_twice():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.fire = LIF()

        def forward(self, x):
            return self.fire(x) + self.fire(2 * x)

    model, x = Twice(), current()
    seen = staa.record(model, x)
    assert torch.equal(seen["fire.spikes"], model.fire(x))
    assert torch.equal(seen["fire.spikes.2"], model.fire(2 * x))
    assert torch.equal(seen["fire.membrane.2"] >= 1, seen["fire.spikes.2"].bool())


# Attention


EXPECTED = {
    "staa": {"position.encoding", "context.softmax", "context.gate", "step.gate"},
    "gc": {"context.softmax", "context.gate"},
    "gc-pe": {"position.encoding", "context.softmax", "context.gate"},
    "gc-pe-sa": {"position.encoding", "context.softmax", "context.gate", "step.gate"},
    "staa-causal": {"position.encoding", "context.softmax", "context.gate", "step.gate"},
    "dta": {"crossed.time_gate", "crossed.channel_gate", "merged.local_gate", "merged.global_gate", "gate"},
    "dta-txa": {"crossed.time_gate", "crossed.channel_gate", "gate"},
    "dta-tna": {"merged.local_gate", "merged.global_gate", "gate"},
    "dta-ltca": {"merged.local_gate", "gate"},
    "dta-gtca": {"merged.global_gate", "gate"},
    "ta": {"gate"},
    "ta-max": {"gate"},
    "se": {"gate"},
}


@pytest.mark.parametrize("how", ["folded", "called", "reference"])
@pytest.mark.parametrize("name", ATTENTIONS)
def test_every_attention_tells_its_gates(name, how):
    site, x = Site(LIF(), ATTENTIONS[name](STEPS, 6)), current()
    for p in site.parameters():
        nn.init.normal_(p, std=0.5)
    if how == "called":
        site.attention.register_forward_hook(lambda module, inputs, output: None)
    if how == "reference":
        with staa.reference():
            seen = staa.record(site, x)
    else:
        seen = staa.record(site, x)
    spikes = {"spikes", "membrane", "threshold", "output"}  # the site's, whose neuron is called `neuron`
    found = {key.removeprefix("attention."): value for key, value in seen.items() if key.startswith("attention.")}
    assert set(found) == EXPECTED[name]
    assert {key.removeprefix("neuron.") for key in seen if not key.startswith("attention.")} == spikes
    for key, value in found.items():
        word = key.rpartition(".")[2]
        assert len(value) == STEPS
        if word in OPEN:
            assert 0 <= value.min() < value.max() <= 1
            assert value.std() > 0.01
        elif word == "softmax":
            assert value.shape == (STEPS, 2, 4, 4)
            torch.testing.assert_close(value.sum((2, 3)), torch.ones(STEPS, 2))
            assert value.std() > 0.01
        else:
            assert word in FREE
        if word in ("time_gate", "channel_gate", "global_gate") or key == "context.gate":
            assert value.shape == (STEPS, 2, 6)
        elif word == "encoding":
            assert value.shape == (STEPS, 6)


def test_there_is_an_expectation_for_each_attention():
    assert set(EXPECTED) == set(ATTENTIONS)


def test_staa_by_its_equations():
    """Position, context and step one after the other, in float64 and in words of their own."""
    attention, x = STAA(STEPS, 6), current()
    for p in attention.parameters():
        nn.init.normal_(p, std=0.5)
    seen = staa.record(Site(LIF(), attention).eval(), x)
    get = lambda key: seen[f"attention.{key}"].double()  # noqa: E731
    attention = attention.double()
    y = x.double() + get("position.encoding")[:, None, :, None, None]
    assert torch.equal(get("position.encoding"), attention.position.encoding)
    weights = torch.einsum("c,tnchw->tnhw", attention.context.key.weight[0], y).flatten(2).softmax(2).view(STEPS, 2, 4, 4)
    torch.testing.assert_close(get("context.softmax"), weights, rtol=1e-5, atol=1e-6)
    pooled = (weights[:, :, None] * y).sum((3, 4))
    context = attention.context
    gate = context.value(context.norm(context.query(pooled)).relu()).sigmoid()
    torch.testing.assert_close(get("context.gate"), gate, rtol=1e-5, atol=1e-6)
    step = attention.step
    p = (y * gate[..., None, None]).mean((2, 3, 4))
    q = step.excite(step.squeeze(p.T).relu()).sigmoid().T
    torch.testing.assert_close(get("step.gate")[..., 0], q, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(seen["neuron.membrane"][0].double(), (y * gate[..., None, None] * q[..., None, None, None])[0],
                               rtol=1e-4, atol=1e-5)  # fmt: skip


def test_dta_s_gate_makes_the_spikes_graded():
    site, x = Site(LIF(threshold=0.5), DTA(STEPS, 6)), current()
    seen = staa.record(site, x)
    assert torch.equal(seen["attention.gate"] * seen["neuron.spikes"], seen["output"])


def test_an_attention_of_ones_own_tells_what_it_likes():
    class Half(nn.Module):
        acts_on = "current"

        def forward(self, x):
            gate = x.new_full(x.shape[:3], 0.5)
            note(self, gate=gate)
            return x * gate[..., None, None]

    assert (staa.record(Site(LIF(), Half()), current())["attention.gate"] == 0.5).all()


def test_a_part_with_a_hook_is_called_and_heard():
    attention = STAA(STEPS, 6)
    attention.context.key.register_forward_hook(lambda module, inputs, output: 2 * output)
    with torch.no_grad():
        attention.context.key.weight.normal_()
    x = current()
    seen = staa.record(Site(LIF(), attention).eval(), x)["attention.context.softmax"]
    weights = 2 * torch.einsum("c,tnchw->tnhw", attention.context.key.weight[0], attention.position(x))
    torch.testing.assert_close(seen, weights.flatten(2).softmax(2).view_as(seen))


# Whole networks


@pytest.mark.some(2)
@pytest.mark.parametrize("attention", [None, "staa", "dta", "ta"])
@pytest.mark.parametrize("name", MODELS)
def test_a_network_computes_what_it_always_does(name, attention):
    options = dict(steps=2, width=0.05, in_channels=2, attention=ATTENTIONS.get(attention), sites="all")
    model = MODELS[name](3, **options | ({"size": 16} if name == "vggsnn" else {})).eval()
    x = torch.rand(2, 2, 2, 16, 16)
    with torch.no_grad():
        before = model(x)
        state = torch.get_rng_state()
        seen = staa.record(model, x)
        assert torch.equal(torch.get_rng_state(), state)
        after = model(x)
    assert torch.equal(seen["output"], before)
    assert torch.equal(after, before)
    neurons = [name.removesuffix(".neuron") for name, module in model.named_modules() if isinstance(module, LIF)]
    for name in neurons:
        assert torch.equal(seen[f"{name}.membrane"] >= seen[f"{name}.threshold"], seen[f"{name}.spikes"].bool())
    sites = [name for name, module in model.named_modules() if getattr(module, "attention", None) is not None]
    assert bool(sites) == (attention is not None)
    assert all(any(key.startswith(f"{name}.attention.") and key.endswith("gate") for key in seen) for name in sites)


def untouched(model):
    return not any(m._forward_hooks or m._forward_pre_hooks or "forward" in vars(m) for m in model.modules())


def test_nothing_is_left_behind_even_after_an_error():
    model = network(attention=STAA)
    with pytest.raises(ValueError, match="channels"):
        staa.record(model, torch.rand(STEPS, 2, 5, 16, 16))
    x = torch.rand(STEPS, 2, 2, 16, 16)
    model.readout.linear.forward = lambda x: 1 / 0
    with pytest.raises(ZeroDivisionError):
        staa.record(model, x)
    del model.readout.linear.forward
    assert untouched(model)
    assert not staa.ops.notes.listened_to()
    assert "output" in staa.record(model, x)
    assert untouched(model)


def test_each_module_stays_in_its_mode():
    model = network().train()
    norms = [m for m in staa.streaming.freeze_norms(model).modules() if isinstance(m, nn.BatchNorm2d)]
    running = norms[0].running_mean.clone()
    staa.record(model, torch.rand(STEPS, 2, 2, 16, 16))
    assert model.training
    assert model.stem.training
    assert norms
    assert not any(norm.training for norm in norms)
    assert torch.equal(norms[0].running_mean, running)


def test_others_are_not_heard():
    """Two networks in turns, and one that runs within the other's call."""
    inner = LIF()

    class Outer(nn.Module):
        def __init__(self):
            super().__init__()
            self.fire = LIF(threshold=0.5)

        def forward(self, x):
            alone = staa.record(inner, x)
            lif(x, decay=0.1)
            return self.fire(alone["spikes"])

    seen = staa.record(Outer(), current())
    assert sorted(seen) == ["fire.membrane", "fire.spikes", "fire.threshold", "output"]
    assert torch.equal(seen["fire.membrane"] >= 0.5, seen["fire.spikes"].bool())


def test_what_is_returned_is_the_caller_s():
    """Copies without gradients: neither the model's in-place operations nor the caller's reach the other."""
    model = nn.Sequential(LIF(), nn.ReLU(inplace=True), PerStep(nn.Flatten()))
    x = current().requires_grad_()
    seen = staa.record(model, x)
    assert not any(value.requires_grad for value in seen.values())
    kept = seen["0.spikes"].clone()
    seen["output"].fill_(7)
    assert torch.equal(seen["0.spikes"], kept)


def test_a_recording_that_is_too_large_is_refused_with_its_size(monkeypatch):
    model, x = LIF(), torch.zeros(4, 1, 1024)  # spikes and membrane 16 KiB each, threshold 4 bytes
    monkeypatch.setenv("STAA_MAX_BYTES", "32K")
    with pytest.raises(ValueError, match=r"recording of a LIF.*32 KiB of memory, the limit is 32 KiB.*STAA_MAX_BYTES=33K"):
        staa.record(model, x)
    assert untouched(model)
    monkeypatch.setenv("STAA_MAX_BYTES", "33K")
    assert sum(v.numel() * v.element_size() for k, v in staa.record(model, x).items() if k != "output") == 2 * 16384 + 4


def test_beyond_the_limit_nothing_is_kept(monkeypatch):
    monkeypatch.setenv("STAA_MAX_BYTES", "16K")
    notes = staa.analysis.record._Notes(model := LIF())
    for _ in range(3):
        notes.of_neuron("fire", model, (None,), torch.zeros(4, 1, 1024))
    assert notes.kept == {}
    assert notes.needed == 3 * 16384


def test_a_model_of_which_nothing_is_known():
    with pytest.raises(ValueError, match=r"no spiking neuron and no attention is known in this Linear.*fires = True"):
        staa.record(nn.Linear(3, 4), torch.zeros(2, 3))


def test_a_compiled_model_is_heard_uncompiled():
    model = nn.Sequential(PerStep(nn.Conv2d(2, 4, 1)), LIF(threshold=0.3))
    x = current(2)
    compiled = torch.compile(model, backend="eager")
    with torch.no_grad():
        before = compiled(x)
    seen = staa.record(compiled, x)
    assert torch.equal(seen["_orig_mod.1.spikes"], seen["output"])
    assert torch.equal(seen["_orig_mod.1.membrane"] >= 0.3, seen["output"].bool())
    with torch.no_grad():
        assert torch.equal(compiled(x), before)


# Forecasters


@pytest.mark.parametrize("make", [spikestag, ispikformer])
@pytest.mark.parametrize("heads", [1, 8])  # Q Kᵀ V from either side
def test_a_forecaster_s_attention(make, heads):
    model = make(5, 12, 3, width=16, heads=heads, neuron=lambda channels, threshold=0.3: LIF(threshold=threshold)).eval()
    for layer in model.modules():
        if isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, std=0.5)
    x = torch.randn(3, 12, 5)
    seen = staa.record(model, x)
    assert torch.equal(seen["output"], model(x))
    for name in [key.removesuffix(".scores") for key in seen if key.endswith(".scores")]:
        scores, (q, k) = seen[f"{name}.scores"], (seen[f"{name}.{part}.spikes"] for part in ("query", "key"))
        groups, tokens = (15, 12) if make is spikestag else (3, 5)
        assert scores.shape == (4, groups, heads, tokens, tokens)
        width = 16 // heads
        for head, (a, b) in ((0, (1, 2)), (heads - 1, (4, 0))):
            one, other = (part[2, tokens + token, head * width : (head + 1) * width] for part, token in ((q, a), (k, b)))
            assert scores[2, 1, head, a, b] == (one * other).sum()
        assert scores.max() > 0
        assert torch.equal(seen[f"{name}.membrane"] >= 0.5, seen[f"{name}.spikes"].bool())
    assert any(key.endswith(".scores") for key in seen)


def test_layers_in_pieces_are_put_together(monkeypatch):
    model, x = spikestag(5, 12, 3, width=16).eval(), torch.randn(3, 12, 5)
    whole = staa.record(model, x)
    monkeypatch.setattr(pieces, "LARGE", 1)
    monkeypatch.setattr(pieces, "PIECE", 4 * 16 * 50)  # 180 rows
    with torch.no_grad():
        before = model(x)
    split = staa.record(model, x)
    assert torch.equal(split["output"], before)
    assert set(split) == set(whole)
    for key, value in split.items():
        assert value.shape == whole[key].shape
        if key.endswith(".membrane"):
            name = key.removesuffix(".membrane")
            assert torch.equal(value >= split[f"{name}.threshold"], split[f"{name}.spikes"].bool())


def test_hooks_of_others_stay_and_are_not_disturbed():
    model, heard = network(attention=STAA), []
    handle = model.stem[1].neuron.register_forward_hook(Passive(lambda *_: heard.append(1)))
    staa.record(model, torch.rand(STEPS, 1, 2, 16, 16))
    assert heard == [1]
    handle.remove()
    assert untouched(model)


def test_names_are_those_of_the_firing_rates():
    model = vggsnn(3, in_channels=2, steps=2, width=0.05, size=16, attention=STAA).eval()
    x = torch.rand(2, 2, 2, 16, 16)
    with staa.rates.firing_rates(model) as rates, torch.no_grad():
        model(x)
    seen = staa.record(model, x)
    assert {key.removesuffix(".spikes") for key in seen if key.endswith(".spikes")} == set(rates)
    for name, rate in rates.items():
        assert math.isclose(seen[f"{name}.spikes"].mean(), rate)
