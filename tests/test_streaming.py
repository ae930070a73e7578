from functools import partial

import pytest
import torch
from torch import nn

from staa.attention import STAA
from staa.layers import PerStep
from staa.models import vggsnn
from staa.neurons import LIF, AdaptiveLIF, Integrator
from staa.streaming import freeze_norms, recompute


def network(steps=None, **options):
    torch.manual_seed(0)
    attention = partial(STAA, dropout=0.0, **options)
    model = vggsnn(5, in_channels=2, steps=steps, size=16, width=0.125, neuron=AdaptiveLIF, attention=attention)
    for _ in range(20):  # running statistics that let it fire
        model((torch.rand(4, 8, 2, 16, 16) < 0.2).float())
    return model


def kept(f):
    storages, held = {}, []

    def pack(x):
        held.append(x)
        storages[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        out = f()
    return out, sum(storages.values())


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-6)])
@pytest.mark.parametrize("chunk", [1, 3, 100])
def test_chunks_have_the_gradients_of_the_whole(dtype, tolerance, chunk):
    model = freeze_norms(network().to(dtype).train())
    x = (torch.rand(7, 2, 2, 16, 16) < 0.2).to(dtype).requires_grad_()
    weight = torch.randn(7, 2, 5, dtype=dtype)
    found = []
    for f in (model, lambda x: recompute(model, x, chunk)):
        out = f(x)
        assert out.detach().abs().sum() > 0
        found.append([out, *torch.autograd.grad((out * weight).sum(), [x, *model.parameters()])])
    assert "forward" not in vars(model.stages[0][1].neuron)
    for a, b in zip(*found, strict=True):
        assert (a - b).norm() <= tolerance * a.norm() + tolerance * 1e-3


def test_little_is_kept_however_long_the_window():
    model = freeze_norms(network())
    bytes_kept = {}
    for steps in (20, 80):
        x = (torch.rand(steps, 2, 2, 16, 16) < 0.2).float()
        bytes_kept[steps] = [kept(lambda x=x: model(x))[1], kept(lambda x=x: recompute(model, x, 5))[1]]
    assert bytes_kept[80][0] > 3 * bytes_kept[20][0]
    assert bytes_kept[80][1] < 0.2 * bytes_kept[80][0]


def test_a_readout_that_integrates_goes_on_where_it_was():
    model = nn.Sequential(PerStep(nn.Linear(3, 4)), LIF(), PerStep(nn.Linear(4, 2)), Integrator())
    x = torch.rand(6, 5, 3)
    torch.testing.assert_close(recompute(model, x, 2), model(x))


def test_what_can_not_run_in_pieces_is_refused_with_the_reason():
    x = torch.rand(4, 1, 2, 16, 16)
    with pytest.raises(ValueError, match=r"BatchNorm in training mode.*freeze_norms"):
        recompute(network(), x, 2)
    with pytest.raises(ValueError, match=r"sees the whole window.*causal=True or steps=None"):
        recompute(nn.Sequential(STAA(4, 2), LIF()), x, 2)
    with pytest.raises(ValueError, match=r"built for a window of T = 4 steps.*steps=None"):
        recompute(freeze_norms(network(steps=4, causal=True)), x, 2)
    with pytest.raises(ValueError, match="at least one time step"):
        recompute(network(), x, 0)
