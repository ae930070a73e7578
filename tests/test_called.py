"""Folding can't be seen: hooks, pruning, parametrizations, subclasses and adapters work as if every module were called."""

import re
from collections import defaultdict
from functools import partial, wraps
from itertools import product

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune

import staa.testing as contracts
from staa.attention import ATTENTIONS, STAA, GlobalContext, StepAttention
from staa.folding import Passive, plain
from staa.layers import Site, fold_batch_norm, per_step
from staa.models import FORECASTERS, MODELS, ms_resnet18, resnet19, resnet20
from staa.models.parts import ConvNorm, fuse_norms
from staa.neurons import LIF, AdaptiveLIF
from staa.rates import firing_rates

pytestmark = pytest.mark.filterwarnings(
    "ignore::FutureWarning",
    "ignore::DeprecationWarning",
    "ignore:Full backward hook",
    "ignore:For backward hooks",
    "ignore:torch.quantize",
)

HOOKS = {
    "forward": lambda module, f: module.register_forward_hook(lambda *_: f()),
    "forward_pre": lambda module, f: module.register_forward_pre_hook(lambda *_: f()),
    "full_backward": lambda module, f: module.register_full_backward_hook(lambda *_: f()),
    "full_backward_pre": lambda module, f: module.register_full_backward_pre_hook(lambda *_: f()),
}


def heard(model, modules, x, kind="forward"):
    """The names of those modules whose hook of a kind fires in one training step, hooks on them alone."""
    fired, handles = set(), []
    for name, module in modules.items():
        handles.append(HOOKS[kind](module, partial(fired.add, name)))
    with torch.set_grad_enabled("backward" in kind):
        y = model(x)
    if "backward" in kind:
        y.sum().backward()
    for handle in handles:
        handle.remove()
    return fired


def by_role(model):
    """Modules by their place: layer2 of every block is one role."""
    roles = defaultdict(dict)
    for name, module in model.named_modules():
        if not isinstance(module, nn.ModuleList):  # which nobody calls
            roles[re.sub(r"\d+", "#", name)][name] = module
    return roles.values()


def every_hook_fires(model, x, monkeypatch, kind="forward"):
    """Hooks on one role fire while all else is folded, just when they fire in a network of which every module is called."""
    roles = by_role(model)
    with monkeypatch.context() as patch:
        for room in ("layers", "folding"):
            patch.setattr(f"staa.{room}.hooked", lambda module: True)
        called = heard(model, dict(model.named_modules()), x, kind)
    folded = set().union(*(heard(model, role, x, kind) for role in roles))
    assert folded == called
    assert folded == heard(model, {name: module for role in roles for name, module in role.items()}, x, kind)
    return called


@pytest.mark.some(2)
@pytest.mark.parametrize(
    ("name", "attention"),
    [*product(MODELS, (None, "staa")), *(("vggsnn", name) for name in ATTENTIONS if name != "staa")],
)
def test_every_hook_fires(name, attention, monkeypatch):
    size = {"size": 16} if name == "vggsnn" else {}
    make = ATTENTIONS[attention] if attention else None
    model = MODELS[name](3, in_channels=2, steps=2, width=0.05, neuron=AdaptiveLIF, attention=make, **size)
    side = 16 if size else 8
    called = every_hook_fires(model, torch.randn(2, 2, 2, side, side), monkeypatch)
    assert called == {name for name, module in model.named_modules() if not isinstance(module, nn.ModuleList)}


@pytest.mark.parametrize("name", ["spikestag", "ispikformer", "gru"])
def test_every_hook_fires_in_a_forecaster(name, monkeypatch):
    model = FORECASTERS[name](4, 12, 3, width=8)
    called = every_hook_fires(model, torch.randn(2, 12, 4), monkeypatch)
    assert called == {name for name, module in model.named_modules() if not isinstance(module, nn.ModuleList)}


@pytest.mark.parametrize("kind", HOOKS)
def test_hooks_of_every_kind_fire(kind, monkeypatch):
    model = ms_resnet18(3, in_channels=2, steps=2, width=0.05, attention=ATTENTIONS["staa-causal"])
    quiet = ("window", "past") if "backward" in kind else ()  # a slice has no gradient
    called = every_hook_fires(model, torch.randn(2, 2, 2, 8, 8, requires_grad=True), monkeypatch, kind)
    assert {n for n, m in model.named_modules() if not n.endswith(quiet)} - called == set()


def test_a_hook_for_all_modules_fires_for_all():
    model, fired = resnet20(3, steps=2, width=0.05, attention=STAA), set()
    handle = nn.modules.module.register_module_forward_hook(lambda module, *_: fired.add(module))
    try:
        model(torch.randn(2, 3, 8, 8))
    finally:
        handle.remove()
    assert fired == set(model.modules())


# What PyTorch and its users do to modules: values and gradients are those of the network of which every module is called.


class ThresholdNorm(nn.BatchNorm2d):
    """tdBN (Zheng et al. 2021): normalised to the threshold."""

    def forward(self, x):
        return 0.5 * super().forward(x)


class LowRank(nn.Module):
    """Another layer's output and a low-rank one, as LoRA has it: nothing but a forward."""

    def __init__(self, layer):
        super().__init__()
        outputs, inputs = layer.weight.shape[:2]
        conv = isinstance(layer, nn.Conv2d)
        make = partial(nn.Conv2d, kernel_size=1, stride=layer.stride) if conv else nn.Linear
        self.layer, self.down = layer, make(inputs, 2, bias=False)
        self.up = nn.Conv2d(2, outputs, 1, bias=False) if conv else nn.Linear(2, outputs, bias=False)

    def forward(self, x):
        return self.layer(x) + 0.3 * self.up(self.down(x))


class Around(nn.Module):
    def __init__(self, module):
        super().__init__()
        self.inner, self.gain = module, nn.Parameter(torch.tensor(0.9))

    def forward(self, *inputs):
        return self.gain * self.inner(*inputs)


class HalfSTAA(STAA):
    def forward(self, x):
        return 0.5 * super().forward(x)


class HalfContext(GlobalContext):
    def forward(self, x):
        return 0.5 * super().forward(x)


def layers_of(model, *kinds):
    return [m for m in model.modules() if type(m) in kinds]


def to_weights(f):
    def tamper(model):
        for layer in layers_of(model, nn.Conv2d, nn.Linear):
            f(layer)
        return model

    return tamper


def to_norms(**attributes):
    def tamper(model):
        for norm in layers_of(model, nn.BatchNorm2d):
            for name, value in attributes.items():
                setattr(norm, name, value)
        return model

    return tamper


def replaced(make, *kinds):
    def tamper(model):
        places = [(m, name) for m in model.modules() for name, child in m.named_children() if type(child) in kinds]
        for parent, name in places:
            setattr(parent, name, make(getattr(parent, name)))
        return model

    return tamper


def norm_like(kind):
    def make(norm):
        new = kind(norm.num_features)
        new.load_state_dict(norm.state_dict())
        return new

    return make


def pruned(model):
    for layer in layers_of(model, nn.Conv2d, nn.Linear, nn.BatchNorm2d, nn.LayerNorm):
        prune.random_unstructured(layer, "weight", 0.3)
    return model


def halved_by_hooks(model):
    for module in model.modules():
        if type(module) in (ConvNorm, nn.BatchNorm2d, STAA, GlobalContext, StepAttention, nn.Linear):
            module.register_forward_hook(lambda _, __, y: 0.9 * y)
        if type(module) in (AdaptiveLIF, STAA, StepAttention, nn.Conv2d):
            module.register_forward_pre_hook(lambda _, inputs: (1.2 * inputs[0],))
    return model


def forwards_of_instances(model):
    for norm in layers_of(model, nn.BatchNorm2d):
        norm.forward = lambda x, old=norm.forward: 0.7 * old(x)
    for context in layers_of(model, GlobalContext):
        context.forward = lambda x, old=context.forward: 0.7 * old(x)
    return model


TAMPER = {
    "nothing": lambda model: model,
    "pruning": pruned,
    "old weight_norm": to_weights(nn.utils.weight_norm),
    "weight_norm": to_weights(parametrizations.weight_norm),
    "old spectral_norm": to_weights(nn.utils.spectral_norm),
    "spectral_norm": to_weights(parametrizations.spectral_norm),
    "threshold norm": replaced(norm_like(ThresholdNorm), nn.BatchNorm2d),
    "sync norm": nn.SyncBatchNorm.convert_sync_batchnorm,
    "no running statistics, built": replaced(
        lambda m: nn.BatchNorm2d(m.num_features, track_running_stats=False), nn.BatchNorm2d
    ),
    "no running statistics, set": to_norms(track_running_stats=False),
    "cumulative statistics": to_norms(momentum=None),
    "no weights": replaced(lambda m: nn.BatchNorm2d(m.num_features, affine=False), nn.BatchNorm2d),
    "group norm": replaced(lambda m: nn.GroupNorm(1, m.num_features), nn.BatchNorm2d),
    "adapters": replaced(LowRank, nn.Conv2d, nn.Linear),
    "around norms": replaced(Around, nn.BatchNorm2d),
    "around layers": replaced(Around, ConvNorm),
    "around sites": replaced(Around, Site),
    "around attention": replaced(Around, STAA),
    "around its parts": replaced(Around, GlobalContext, StepAttention),
    "around neurons": replaced(Around, AdaptiveLIF),
    "hooks that change": halved_by_hooks,
    "forwards of instances": forwards_of_instances,
}


def trained(make, x, steps=3):
    """Outputs, gradients and buffers of some steps of descent."""
    torch.manual_seed(0)
    model = make().double().train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02)
    found, reached = [], set()
    for _ in range(steps):
        y = model(x)
        optimizer.zero_grad()
        (y * torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view(y.shape)).sum().backward()
        found += [y.detach(), *(p.grad.clone() for p in model.parameters() if p.grad is not None)]
        reached |= {name for name, p in model.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
        optimizer.step()
    found += [b.clone() for b in model.buffers()]
    model.eval()
    with torch.no_grad():
        found.append(model(x))
    return found, {name for name, _ in model.named_parameters()} - reached


@pytest.mark.some(2)
@pytest.mark.parametrize("attention", [STAA, partial(STAA, causal=True), HalfSTAA, partial(STAA, context=HalfContext)])
@pytest.mark.parametrize("tamper", TAMPER)
def test_values_and_gradients_are_those_of_a_network_that_is_called(tamper, attention, monkeypatch):
    if tamper != "nothing" and getattr(attention, "keywords", None) != {"causal": True}:
        pytest.skip("one attention is enough")
    monkeypatch.setattr("staa.models.parts.served", lambda x: True)  # fold BatchNorm in float64 too

    def make():
        model = resnet19(3, in_channels=2, steps=3, width=0.06, neuron=AdaptiveLIF, attention=partial(attention, dropout=0.0))
        return TAMPER[tamper](contracts.randomised(model, 0.05))

    x = torch.randn(3, 2, 2, 8, 8, dtype=torch.float64)
    folded, silent = trained(make, x)
    with monkeypatch.context() as patch:
        for room in ("layers", "folding"):
            patch.setattr(f"staa.{room}.hooked", lambda module: True)
        called, _ = trained(make, x)
    assert len(folded) == len(called)
    for a, b in zip(folded, called, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-9)
    assert {name for name in silent if tamper != "pruning" or ".step." not in name} == set()  # few weights, all pruned


def test_a_strided_shortcut_can_be_pruned(monkeypatch):
    model = pruned(ms_resnet18(3, steps=2, width=0.1))
    for _ in range(3):
        model.to(memory_format=torch.channels_last)(torch.randn(2, 3, 8, 8)).sum().backward()
    originals = [p for name, p in model.named_parameters() if name.endswith("weight_orig")]
    assert all(p.grad is not None and p.grad.isfinite().all() for p in originals)


@pytest.mark.parametrize("form", ["staa", "staa-causal", "se", "ta", "dta"])
def test_dynamically_quantized_attention_before_a_neuron(form):
    from torch.ao.quantization import quantize_dynamic

    attention = contracts.randomised(ATTENTIONS[form](3, 4)).eval()
    site = quantize_dynamic(Site(LIF(), attention).eval(), {nn.Linear})
    x = torch.randn(3, 2, 4, 5, 5)
    found, expected = site(x), site.attention(x) if form != "dta" else None
    expected = site.attention(x, site.neuron(x)) if expected is None else site.neuron(expected)
    assert (found != expected).float().mean() < 0.02


def test_a_pruned_causal_gate_streams():
    model = Site(LIF(), STAA(5, 3, causal=True, dropout=0.0)).double()
    for layer in layers_of(contracts.randomised(model), nn.Linear):
        prune.random_unstructured(layer, "weight", 0.3)
    contracts.causality(model.attention, contracts.random_input(5, 2, 3, 4, 4), causal=True)
    contracts.chunks_equal_the_whole(model, contracts.random_input(5, 2, 3, 4, 4))


def test_a_neuron_that_is_looked_into_sees_its_current():
    """Not what it was before the gates and BatchNorm."""
    layer, site = ConvNorm(3, 8, 3), Site(LIF(), STAA(2, 8, dropout=0.0))
    seen = []
    site.neuron.register_forward_pre_hook(lambda _, inputs: seen.append(inputs))
    from staa.models.parts import run_folded

    x = torch.randn(2, 2, 3, 6, 6)
    run_folded((layer, site), x)
    ((current,),) = seen
    torch.testing.assert_close(current, site.attention(layer(x)))


def test_taking_notes_changes_nothing():
    """firing_rates and other passive hooks leave the folded network as it is, bit for bit."""
    model = resnet20(3, steps=2, width=0.1, neuron=AdaptiveLIF, attention=STAA).eval()
    x = torch.randn(2, 3, 8, 8)
    alone = model(x)
    with firing_rates(model) as rates:
        assert torch.equal(model(x), alone)
    assert len(rates) == 19
    for module in model.modules():
        module.register_forward_hook(Passive(lambda *_: None))
    assert torch.equal(model(x), alone)


def test_norms_that_are_not_plain_are_not_fused():
    model = ms_resnet18(3, steps=2, width=0.1)
    model.stem.norm = norm_like(ThresholdNorm)(model.stem.norm)
    model.stages[0][0].layer1.norm.register_forward_hook(lambda _, __, y: 0.5 * y)
    prune.random_unstructured(model.stages[0][0].layer2.conv, "weight", 0.5)
    model.double()
    x = torch.randn(4, 3, 8, 8, dtype=torch.float64)
    with torch.no_grad():  # a pruned weight with a history can't be copied
        for _ in range(3):
            model(x)
    fused = fuse_norms(model.eval())
    torch.testing.assert_close(fused(x), model(x), rtol=1e-9, atol=1e-9)
    assert isinstance(fused.stem.norm, ThresholdNorm)
    assert type(fused.stages[0][0].layer2.norm) is nn.BatchNorm2d
    assert type(fused.stages[1][0].layer1.norm) is nn.Identity


@pytest.mark.some(2)
@pytest.mark.parametrize("wrapped", [False, True], ids=["replaced", "wrapped"])
@pytest.mark.parametrize("attention", ["staa", "staa-causal", "se", "gc", "ta", None])
def test_a_forward_patched_for_a_whole_class_is_called_in_each_module(attention, wrapped, monkeypatch):
    """Of every class in the network, the library's own attentions, gates, sites and convolutions among them."""
    torch.manual_seed(0)
    model = resnet20(3, in_channels=2, steps=2, width=0.05, neuron=AdaptiveLIF, attention=attention and ATTENTIONS[attention])
    model, x = model.eval(), torch.randn(2, 2, 2, 8, 8)
    for kind in {type(module) for module in model.modules()} - {nn.ModuleList}:
        (owner,) = [base for base in kind.__mro__ if "forward" in vars(base)][:1]
        forward, called = owner.forward, set()

        def patched(self, *args, forward=forward, called=called, **options):
            called.add(self)
            return forward(self, *args, **options)

        with monkeypatch.context() as patch:
            patch.setattr(owner, "forward", wraps(forward)(patched) if wrapped else patched)
            model(x)
        assert {module for module in model.modules() if type(module) is kind} <= called, kind


def test_folding_is_the_rule_that_a_patch_takes_away(monkeypatch):
    x, site, forward = torch.randn(2, 2, 8, 4, 4), Site(LIF(), STAA(2, 8)).eval(), STAA.forward
    whole = site(x)
    monkeypatch.setattr(STAA, "forward", lambda self, x: 0 * forward(self, x))
    assert whole.any()
    assert not site(x).any()


def test_a_forward_patched_for_the_whole_class_is_called(monkeypatch):
    norm, x = nn.BatchNorm2d(3), torch.randn(2, 2, 3, 4, 4)
    forward, called = nn.BatchNorm2d.forward, []
    assert plain(norm, nn.BatchNorm2d)
    monkeypatch.setattr(nn.BatchNorm2d, "forward", lambda self, x: called.append(x) or 2 * forward(self, x))
    assert not plain(norm, nn.BatchNorm2d)
    assert torch.equal(fold_batch_norm(x, norm).written_out(), per_step(norm, x))
    assert len(called) == 2
