"""What only a CUDA device can show. Skipped without one."""

import json
from dataclasses import replace

import pytest
import tiny
import torch

from staa.attention import STAA
from staa.build import run
from staa.models import resnet20
from staa.neurons import AdaptiveLIF
from staa.ops import SURROGATES, lif

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]


@pytest.mark.parametrize("name", SURROGATES)
def test_lif_equals_the_cpu(name):
    x, weight = torch.randn(8, 16, 32), torch.randn(8, 16, 32)
    gradients, spikes = [], []
    for device in ("cpu", "cuda"):
        y = x.to(device).requires_grad_()
        s, _ = lif(y, decay=0.5, threshold=0.5, surrogate=SURROGATES[name])
        gradients.append(torch.autograd.grad((s * weight.to(device)).sum(), y)[0].cpu())
        spikes.append(s.cpu())
    assert (spikes[0] != spikes[1]).float().mean() < 1e-4
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-4)


def test_a_model_equals_the_cpu_in_float64():
    model = resnet20(10, width=0.125, neuron=AdaptiveLIF, attention=STAA).double().eval()
    x = torch.randn(4, 3, 32, 32, dtype=torch.float64)
    with torch.no_grad():
        expected = model(x)
        torch.testing.assert_close(model.cuda()(x.cuda()).cpu(), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "auto"])
def test_a_run_trains_and_resumes(tmp_path, precision):
    recipe = replace(tiny.recipe, precision=precision, epochs=20)
    asked = iter(range(10**6))
    for _ in run(recipe, tmp_path / "run", device="cuda", stop=lambda: next(asked) > 20):
        pass
    events = list(run(recipe, tmp_path / "run", device="cuda", resume=tmp_path / "run"))
    assert events[-1]["test_accuracy"] == 1.0
    environment = json.loads((tmp_path / "run" / "environment.json").read_text())
    assert environment["precision"] == ("float32" if precision == "float32" else "bfloat16")
