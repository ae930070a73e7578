"""The whole MS-ResNet-18 with DTA against numpy, spike by spike. `python tests/test_dta_network.py` does so at full size."""

import json

import numpy as np
import pytest
import torch
from dta_numpy import CASES, GOLDEN, made_up, network_in_numpy

from staa.attention import DTA
from staa.models import ms_resnet18
from staa.neurons import NEURONS
from staa.recipes import RECIPES


def network(p, *, steps, training, neuron=NEURONS["dta"], width=1.0):
    """staa's network in float64 with these weights."""
    model = ms_resnet18(10, steps=steps, neuron=neuron, attention=DTA, width=width).double()
    missing, unexpected = model.load_state_dict({key: torch.as_tensor(value) for key, value in p.items()}, strict=False)
    assert not unexpected
    assert all(name.endswith("num_batches_tracked") for name in missing)
    return model.train(training)


def spikes_and_logits(model, images):
    spikes = {}
    for name, part in model.named_modules():
        if hasattr(part, "scan") and hasattr(part, "threshold"):
            part.register_forward_hook(lambda _, __, fired, name=name: spikes.update({name: fired.numpy()}))
    with torch.no_grad():
        logits = model(torch.as_tensor(images)).numpy()
    return spikes, logits


def differing(found, expected):
    assert list(found) == list(expected)
    return sum(int((found[name] != expected[name]).sum()) for name in expected)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(("steps", "images", "side"), [(1, 3, 8), (2, 1, 9), (6, 3, 12)])
def test_every_spike_is_the_official_networks(steps, images, side, training):
    p, x = made_up(steps, steps=steps, images=images, side=side, width=0.25)
    spikes, logits = spikes_and_logits(network(p, steps=steps, training=training, width=0.25), x)
    expected, expected_logits = network_in_numpy(p, x, steps=steps, training=training)
    assert differing(spikes, expected) == 0
    first = 3 if steps == 1 else 0  # a gate is at most 1, so the first block fires only where membranes add up over steps
    assert all(0.001 < s.mean() < 0.6 for s in list(spikes.values())[first:])
    np.testing.assert_allclose(logits, expected_logits, rtol=1e-9, atol=1e-12)
    at_threshold, _ = network_in_numpy(p, x, steps=steps, training=training, strict=False)
    assert differing(at_threshold, expected) > 0  # the gate is 1 somewhere, so that the test can tell the two


@pytest.mark.parametrize("case", json.loads(GOLDEN.read_text()), ids=lambda case: f"T={case['steps']}-{case['training']}")
def test_the_counts_that_numpy_wrote(case):
    assert {key: case[key] for key in CASES[0]} in CASES
    p, x = made_up(case["seed"], steps=case["steps"])
    spikes, logits = spikes_and_logits(network(p, steps=case["steps"], training=case["training"]), x)
    assert {name: [int(fired.sum()), fired.size] for name, fired in spikes.items()} == case["spikes"]
    assert logits.sum() == pytest.approx(case["logits"], rel=1e-9)


def test_the_recipes_have_this_neuron():
    recipes = [recipe for recipe in RECIPES.values() if recipe.model.name.startswith("ms_resnet")]
    assert len(recipes) == 4
    for recipe in recipes:
        neuron = NEURONS[recipe.model.neuron](64)
        assert (neuron.strict, neuron.decay, neuron.gain, neuron.threshold, neuron.detach_reset) == (True, 0.5, 1, 1, False)


if __name__ == "__main__":
    for steps, training in ((6, True), (6, False), (4, True)):
        p, x = made_up(0, steps=steps, images=4, side=32)
        expected, logits = network_in_numpy(p, x, steps=steps, training=training)
        total = sum(s.size for s in expected.values())
        for what, neuron in (("above", NEURONS["dta"]), ("at or above", lambda c: NEURONS["dta"](c, strict=False))):
            spikes, found = spikes_and_logits(network(p, steps=steps, training=training, neuron=neuron), x)
            print(
                f"T = {steps}, 4 images of 32 × 32, {'training' if training else 'evaluation'}, {what} the threshold: "
                f"{differing(spikes, expected):,} of {total:,} spikes differ, logits by {abs(found - logits).max():.1e}"
            )
