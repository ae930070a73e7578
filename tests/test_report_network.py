"""The report's sections of what a network does: spikes, membranes, gates, maps."""

import io
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import nn

import staa
from staa.analysis.report import learned, maps, spiking
from staa.analysis.report.attention import NONE, attention, gates
from staa.analysis.report.parts import Fold, Picture, Table
from staa.attention import ATTENTIONS, STAA
from staa.layers import PerStep, Site
from staa.models import spikestag
from staa.models.parts import Readout
from staa.neurons import LIF, AdaptiveLIF, ParametricLIF

SMALLEST = 360  # pixels of a phone's page


def of(model):
    """What a section needs of a run."""
    return SimpleNamespace(model=lambda weights: model.eval())


def flat(parts):
    for part in parts:
        yield from flat(part.parts) if isinstance(part, Fold) else [part]


def pictures(section):
    """Its pictures, each opaque, small, and with words."""
    found = [part for part in flat(section.parts) if isinstance(part, Picture)]
    for picture in found:
        image = Image.open(io.BytesIO(picture.image))
        assert image.format == "PNG"
        assert "transparency" not in image.info
        assert image.width == 2 * SMALLEST
        assert len(np.unique(np.asarray(image.convert("L")))) > 2, "it is empty"
        assert picture.caption.endswith(".")
        assert any(c.isdigit() for c in picture.alt)
        assert "nan" not in picture.alt
    assert sum(len(picture.image) for picture in found) < 200_000
    return found


def lively(channels):
    return LIF(threshold=0.1)


def small(steps=4, neuron=lively, attention=None, channels=4):
    """Two layers of events."""
    site = lambda: Site(neuron(channels), attention and attention(steps, channels))  # noqa: E731
    return nn.Sequential(
        PerStep(nn.Conv2d(2, channels, 3, padding=1)), site(), PerStep(nn.AvgPool2d(2)),
        PerStep(nn.Conv2d(channels, channels, 1)), site(), Readout(channels, 3),
    )  # fmt: skip


def frames(steps=4, samples=6, size=8):
    return torch.poisson(torch.full((steps, samples, 2, size, size), 0.4))


# Firing rates


def test_rates_are_of_all_samples():
    """Six samples, four and two at once, against one recording of all of them."""
    model, x = small(), 3 * frames()
    found, seen = spiking.firing(model, x), staa.record(model, x)
    assert found.samples == 6
    for name in ("1", "4"):
        spikes = seen[f"{name}.spikes"]
        assert 0 < spikes.mean() < 1
        np.testing.assert_allclose(found.by_step[name], spikes.mean((1, 2, 3, 4)), rtol=1e-6)
        np.testing.assert_allclose(found.by_neuron[name], spikes.mean((0, 1)), rtol=1e-6)
    assert not any(module._forward_hooks for module in model.modules())


def test_silent_and_saturated_neurons_are_counted():
    """One channel of four never fires, two always do."""
    model = nn.Sequential(PerStep(nn.Conv2d(2, 4, 1)), LIF(threshold=1.0))
    nn.init.zeros_(model[0].module.weight)
    model[0].module.bias.data = torch.tensor([0.1, 1.5, 1.5, 0.6])
    found = spiking.firing(model, frames())
    assert (found.silent("1"), found.saturated("1")) == (0.25, 0.5)
    texts = " ".join(p.alt for p in pictures(spiking.spiking(of(model), frames())))
    assert "Silent neurons by layer: 25.0% to 25.0%, most in 1. Saturated: up to 50.0%, in 1." in texts
    assert "1, busiest: 4 spikes, membrane up to 1.5" in texts
    assert "1, silent: 0 spikes, membrane up to 0.19" in texts  # 0.1 · (1 + ½ + ¼ + ⅛)


def test_chosen_neurons():
    spikes = np.array([[1, 0, 0, 1, 0], [1, 0, 0, 1, 1], [1, 0, 0, 0, 0]])
    membrane = np.array([[2, 0.1, 0.5, 2, 0], [2, 0.2, 0.9, 2, 2], [2, 0.1, 0.1, 0, 0]])
    assert spiking._typical(spikes, membrane, np.ones(5)) == {"busiest": 0, "median": 3, "silent": 2}
    assert spiking._typical(spikes[:, 1:3], membrane[:, 1:3], np.ones(2)) == {"silent": 1}
    assert spiking._typical(spikes[:, :1], membrane[:, :1], np.ones(1)) == {"busiest": 0}


@pytest.mark.parametrize("steps", [1, 4, 200])
def test_any_number_of_steps(steps):
    found = pictures(spiking.spiking(of(small(steps)), frames(steps, samples=2)))
    assert [picture.alt.split()[0] for picture in found] == ["Spikes", "Heat", "Silent", "Membranes"]
    assert f"over {steps} steps" in found[0].alt


def test_a_forecaster_s_neurons():
    section = spiking.spiking(of(model := spikestag(5, 12, 3, width=16)), (torch.randn(4, 12, 5), None))
    assert len(pictures(section)) >= 3
    assert spiking.OF_NODES in section.parts
    (table,) = (part for part in flat(section.parts) if isinstance(part, Table))
    assert [row[0] for row in table.rows] == [*staa_rates(model, (torch.randn(1, 12, 5), None))]
    assert {len(row) for row in table.rows} == {len(table.header)}


def staa_rates(model, inputs):
    with staa.rates.firing_rates(model) as rates, torch.no_grad():
        model(*inputs)
    return rates


def test_what_can_not_be_shown_is_said():
    assert spiking.spiking(of(nn.Linear(2, 2)), None).parts == ["This model has no spiking neurons."]
    missing = spiking.spiking(of(small()), None)
    assert missing.parts[0].startswith("Who fires when and how often is missing")
    assert missing.parts[1].rows[0] == ["1", "LIF", "0.1"]

    class Own(nn.Module):
        fires = True

        def __init__(self, channels):
            super().__init__()

        def forward(self, x):
            return (x > 0.2).to(x.dtype)

    section = spiking.spiking(of(small(neuron=Own)), frames())
    assert any("Membranes are not drawn" in part for part in section.parts if isinstance(part, str))
    assert len(pictures(section)) in (2, 3)
    quiet = spiking.spiking(of(nn.Sequential(LIF(threshold=0.5))), torch.tensor([1.0, 0.0]).repeat(4).view(8, 1, 1, 1, 1))
    assert any(isinstance(part, str) and part.startswith("No neuron is silent") for part in quiet.parts)


# Attention

WORDS = {
    "staa": ["Where the global context looks", "Gates of time steps", "Gates of channels", "Position encoding"],
    "dta": ["Gate of each place", "DTA's two looks"],
    "ta": ["Gates of time steps"],
    "se": ["Gates of channels"],
}


@pytest.mark.parametrize("name", WORDS)
def test_each_attention_shows_what_it_has(name):
    section = attention(of(small(attention=ATTENTIONS[name])), frames(), ["$\\frac{", "\x1b[31m_x"])
    captions = [picture.caption for picture in pictures(section)]
    assert list(dict.fromkeys(word for c in captions for word in WORDS[name] if c.startswith(word))) == WORDS[name]
    assert NONE not in section.parts


def test_gates_are_of_the_first_eight_samples():
    model, x = small(attention=STAA).eval(), frames(samples=11)
    seen, found = staa.record(model, x[:, :8]), gates(model, x)
    assert set(found) == {key for key in seen if key.startswith(("1.attention", "4.attention")) and "encoding" not in key}
    for key, value in found.items():
        torch.testing.assert_close(value, seen[key])


def test_an_attention_for_any_number_of_steps_has_two_gates_of_channels():
    model = small(None, attention=lambda steps, channels: STAA(None, channels))
    (picture,) = (p for p in pictures(attention(of(model), frames())) if p.caption.startswith("Gates of channels"))
    assert "attention.step" in picture.alt or "attention.context" in picture.alt


def test_a_map_s_place_and_size_are_told():
    values = torch.zeros(4, 1, 6, 6)
    values[2, 0, 5, 0] = 9.0
    (picture,) = maps.maps_beside({"deep": values}, frames(samples=1), ["seven"], what="Looks", shares=True)
    assert picture.alt == "Sample 1. deep: up to 9× at step 3, lower left."
    assert "Sample 1 (seven), all 4 steps: above the input, below it deep." in picture.caption
    assert "logarithmic scale" in picture.caption


def test_shares_are_drawn_as_far_below_an_even_one_as_above():
    axis = Figure().subplots()
    image, ticks = maps._share(axis, np.array([[0.0, 1 / 3, 1.0, 3.0, 9.0]]), 9.0)
    assert np.allclose(image.norm(image.get_array()), [[0, 0.25, 0.5, 0.75, 1]])
    assert [*ticks.values()] == ["1/9", "1×", "9×"]
    assert maps._share(axis, np.ones((1, 1)), 1.01)[1].keys() == {0.5, 1.0, 2.0}  # all but even is drawn so


def test_images_are_drawn_too():
    looks = {"deep": torch.rand(2, 1, 4, 4)}
    for channels in (1, 2, 3):
        (picture,) = maps.maps_beside(looks, torch.randn(1, channels, 8, 8), None, what="Looks")
        assert picture.caption.startswith("Looks. Sample 1, all 2 steps")


def test_a_forecaster_s_queries_and_keys():
    (picture,) = pictures(attention(of(spikestag(5, 12, 3, width=16)), (torch.randn(4, 12, 5), None)))
    assert picture.alt.startswith("2 heads of 12 × 12 tokens")


def test_without_attention_and_without_samples():
    assert attention(of(small()), frames()).parts == [NONE]
    section = attention(of(small(neuron=AdaptiveLIF)), None)
    assert section.parts[0] == NONE
    assert [p.caption.split(":")[0] for p in pictures(section)] == ["What the neurons have learned"]
    section = attention(of(small(attention=STAA)), None)
    assert "Gates and maps are missing" in section.parts[0]
    assert [p.caption.split(",")[0] for p in pictures(section)] == ["Position encoding"]

    class Silent(nn.Module):
        acts_on = "current"

        def forward(self, x):
            return x

    (told,) = attention(of(small(attention=lambda steps, channels: Silent())), frames()).parts
    assert told.startswith("This attention tells no gates")


@pytest.mark.parametrize(
    ("neuron", "expected"),
    [
        (AdaptiveLIF(2, decay=0.5, gain=2.0), {learned.DECAY: [0.5, 0.5], learned.GAIN: [2.0, 2.0]}),
        (ParametricLIF(decay=0.25), {learned.DECAY: [0.25]}),
        (ParametricLIF(decay=0.25, gain=None), {learned.DECAY: [0.25], learned.GAIN: [0.75]}),
        (LIF(), {}),
    ],
)
def test_what_neurons_learn(neuron, expected):
    found = {title: value.detach().reshape(-1).tolist() for title, value in learned._learned(neuron).items()}
    assert found == {title: pytest.approx(values) for title, values in expected.items()}


def test_the_same_run_gives_the_same_bytes():
    found = spiking.firing(small(), frames())
    assert spiking._rates(found) == spiking._rates(found)
