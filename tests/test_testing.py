"""The contracts hold for all that is registered, and each is broken by what it is there for."""

import re

import pytest
import torch
from torch import nn

from staa.attention import ATTENTIONS, STAA
from staa.layers import PerStep
from staa.models import MODELS
from staa.neurons import LIF, NEURONS, AdaptiveLIF
from staa.ops import lif
from staa.testing import check, kind_of


def broken(make, kind=None):
    return {finding.contract: finding.text for finding in check(make, kind) if finding.holds is False}


@pytest.mark.parametrize(
    ("kind", "make"),
    [
        *(("neuron", make) for make in NEURONS.values()),
        *(("attention", make) for make in ATTENTIONS.values()),
        *(("model", make) for make in MODELS.values()),
    ],
    ids=[*NEURONS, *ATTENTIONS, *MODELS],
)
def test_what_is_registered_holds(kind, make):
    assert broken(make, kind) == {}


def test_kinds_are_told_by_their_parameters():
    assert [kind_of(make) for make in (LIF, STAA, MODELS["resnet20"])] == ["neuron", "attention", "model"]
    with pytest.raises(ValueError, match=r"its parameters \(a, b\) don't tell what it is"):
        kind_of(lambda a, b: None)
    with pytest.raises(ValueError, match="kind must be neuron, attention, model, got 'thing'"):
        list(check(LIF, "thing"))


def test_the_random_state_is_left_alone():
    before = torch.get_rng_state()
    list(check(LIF))
    assert torch.equal(torch.get_rng_state(), before)


class Neuron(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, x):
        return lif(x * self.weight, decay=0.5)[0]


class Deaf(Neuron):
    def __init__(self, channels):
        super().__init__(channels)
        self.unused = nn.Parameter(torch.ones(3))


class Remembering(Neuron):
    last = 0.0

    def forward(self, x):
        y = super().forward(x + self.last)
        self.last = y[-1].detach().mean()
        return y


class Foreseeing(Neuron):
    def forward(self, x):
        return super().forward(x + 0.1 * x.flip(0))


class Mixing(Neuron):
    def forward(self, x):
        return super().forward(x + x.mean(1, keepdim=True))


class Overwriting(Neuron):
    def forward(self, x):
        return super().forward(x.add_(1) if not x.requires_grad else x + 1)


class Exploding(Neuron):
    def forward(self, x):
        return super().forward(x) / 0


class Single(Neuron):
    def forward(self, x):
        return super().forward(x.float())


class Unsaved(Neuron):
    def __init__(self, channels):
        super().__init__(channels)
        self.gain = torch.rand(1).item()

    def forward(self, x):
        return super().forward(x * self.gain)


class Shifted(LIF):
    def forward(self, x, scale=None, shift=None):
        return super().forward(x, scale, None)


class Forgetful(AdaptiveLIF):
    def scan(self, x, state=None, scale=None, shift=None):
        return super().scan(x, None, scale, shift)


class Gate(nn.Module):
    acts_on, causal = "current", True

    def __init__(self, steps, channels):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels, 1, 1))

    def forward(self, x):
        return x * self.weight


class Hindsight(Gate):
    def forward(self, x):
        return super().forward(x) * x.mean(0, keepdim=True).sigmoid()


class Misfolded(Gate):
    def affine(self, x, scale=None, shift=None):
        return 2 * self.weight[None, None], None


class Silent(Gate):
    acts_on = None


class Graded(Neuron):
    def forward(self, x):
        return 0.5 * super().forward(x)


class Dead(Neuron):
    def forward(self, x):
        return 0 * super().forward(x)


class MixingInTraining(Neuron):
    def forward(self, x):
        return super().forward(x - x.mean(1, keepdim=True) if self.training else x)


class ForeseeingInTraining(Neuron):
    def forward(self, x):
        return super().forward(x - x.mean(0) if self.training else x)


class RememberingInTraining(Remembering):
    def forward(self, x):
        return super().forward(x) if self.training else Neuron.forward(self, x)


class OverwritingInTraining(Neuron):
    def forward(self, x):
        return super().forward(x.add_(1) if self.training and not x.requires_grad else x + 1)


class Seeding(Neuron):
    def forward(self, x):
        torch.manual_seed(0)
        return super().forward(x)


class Rooted(Neuron):
    def forward(self, x):
        return super().forward(x / x.square().mean((3, 4), keepdim=True).sqrt())


class OfOneSize(Neuron):
    def __init__(self, channels):
        super().__init__(channels)
        self.mask = nn.Parameter(torch.ones(8, 8))

    def forward(self, x):
        return super().forward(x * self.mask)


class Leaving(Neuron):
    def forward(self, x):
        raise SystemExit("bye")


class MisfoldedInTraining(Gate):
    def affine(self, x, scale=None, shift=None):
        return self.weight[None, None] * (2 if self.training else 1), None


class OnSpikes(nn.Module):
    """Attention on spikes that leaves the current alone."""

    acts_on, causal, per_step = "spikes", True, True

    def __init__(self, steps, channels):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))

    def forward(self, current, spikes):
        return spikes * torch.sigmoid(self.weight * spikes.mean((3, 4)))[..., None, None]


class ForeseeingSpikes(OnSpikes):
    def forward(self, current, spikes):
        return super().forward(current, spikes) * spikes.mean(0)


def unspiking(num_classes, *, in_channels, steps, neuron, attention, sites, width):
    return PerStep(nn.Conv2d(in_channels, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, num_classes))


def test_attention_on_spikes_alone_holds():
    assert broken(OnSpikes) == {}


class Skipping(Gate):
    def fold(self, current):
        return current


@pytest.mark.parametrize(
    ("make", "contract", "text"),
    [
        (Deaf, "gradient", "no gradient reaches unused"),
        (Remembering, "calls", "something survives the call"),
        (Foreseeing, "time", "a step sees later ones, which a neuron may not"),
        (Mixing, "samples", "a sample alone gives another output"),
        (Overwriting, "calls", "the input was changed"),
        (Exploding, "shape", "values are not finite"),
        (Single, "shape", "the output is torch.float32, the input torch.float64"),
        (Unsaved, "state dict", "what it goes by is not in it"),
        (Shifted, "fold", r"neuron\(x, scale, shift\) is not neuron"),
        (Forgetful, "stream", "spikes differ from those of the whole"),
        (Hindsight, "time", "which what says causal = True may not"),
        (Misfolded, "fold", "folded into the neuron, the output is another"),
        (Skipping, "fold", "folded into the neuron, the output is another"),
        (Silent, "built", "attention must say acts_on"),
        (Graded, "spikes", "a spike is 0 or 1, and there are outputs such as 0.5"),
        (Dead, "spikes", "it never fires"),
        (MixingInTraining, "samples", "another output than among others"),
        (ForeseeingInTraining, "time", "a step sees later ones, which a neuron may not"),
        (RememberingInTraining, "calls", "in training, a call changes a later one"),
        (OverwritingInTraining, "calls", "the input was changed in training"),
        (Seeding, "calls", "it draws or seeds random numbers in evaluation mode"),
        (Rooted, "values", "for an input of zero, .* not finite"),
        (OfOneSize, "sizes", "RuntimeError: The size of tensor"),
        (Leaving, "shape", "SystemExit: bye"),
        (MisfoldedInTraining, "fold", "folded into the neuron, the output is another"),
        (ForeseeingSpikes, "time", "which what says causal = True may not"),
        (unspiking, "parts", "the neuron that it is given is not in it"),
        (lambda channels: 3, "built", "must be a torch.nn.Module, got int"),
        (lambda channels: nn.Linear(1, 2, 3, 4, 5, 6), "built", "TypeError"),
    ],
)
def test_what_is_broken_is_said(make, contract, text):
    found = broken(make)
    assert contract in found, found
    assert re.search(text, found[contract]), found


def test_what_does_not_apply_is_no_fault():
    findings = {finding.contract: finding for finding in check(Neuron)}
    assert findings["fold"].holds is None
    assert findings["stream"].holds is None
    assert "is not known to run in pieces" in findings["stream"].text
    assert str(findings["shape"]) == "ok      shape: [T, N, C, H, W] gives the same, finite, in the input's dtype"


def network(num_classes, *, in_channels, steps, neuron, attention, sites, width):
    return nn.Sequential(
        PerStep(nn.Conv2d(in_channels, 4, 3), nn.BatchNorm2d(4)),
        neuron(4),
        PerStep(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, num_classes)),
    )


def test_a_network_of_ones_own():
    findings = list(check(network))
    assert not any(finding.holds is False for finding in findings), [str(finding) for finding in findings]
    assert [str(finding) for finding in findings if finding.holds is None] == [
        "-       parts: the attention that it is given is not in it"
    ]
