import pytest
import torch
from torch import nn
from torch.nn import functional as F

from staa.analysis.cost import kept_bytes
from staa.attention import STAA
from staa.models import resnet20
from staa.models.parts import fuse_norms
from staa.neurons import AdaptiveLIF
from staa.ops import cpu
from staa.ops.bits import WATCHERS, _pack, _unpack, spikes_as_bits

pytestmark = pytest.mark.skipif(cpu.LIBRARY is None, reason=f"no CPU kernels: {cpu.WHY_NOT}")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(4, 3, 16, 33, 31), (5000,), (3, 4097), (1 << 16,)])
def test_what_is_packed_comes_back(shape, dtype):
    x = (torch.rand(shape) < 0.2).to(dtype)
    if len(shape) == 5:
        x = x.flatten(0, 1).contiguous(memory_format=torch.channels_last).unflatten(0, shape[:2])
    kept = _pack(x)
    assert len(kept) == 4
    assert kept[0].nbytes <= x.nbytes / (8 * x.element_size()) + 4
    back = _unpack(kept)
    assert torch.equal(back, x)
    assert back.stride() == x.stride()


@pytest.mark.parametrize("value", [0.5, -1.0, 2.0, float("nan"), -0.0, 1e-40])
@pytest.mark.parametrize("where", [0, 12345, -1])
def test_what_is_no_spike_is_kept_as_it_is(value, where):
    x = (torch.rand(40000) < 0.2).float()
    x[where] = value
    assert _pack(x)[0] is x


def test_others_are_kept_as_they_are():
    for x in (
        torch.zeros(100),
        torch.zeros(50, 200)[:, ::2],
        torch.zeros(5000, dtype=torch.float64),
        torch.zeros(1, 1).expand(99, 99),
    ):
        assert _pack(x)[0] is x


@pytest.mark.filterwarnings("ignore")
def test_tensors_of_another_kind_are_kept_as_they_are():
    dense = torch.zeros(100, 100)
    for x in (dense.to_sparse(), dense.to_sparse_csr(), torch.nested.nested_tensor([torch.zeros(5000), torch.zeros(3)])):
        assert _pack(x)[0] is x
    weight = torch.eye(100).to_sparse().requires_grad_()
    with spikes_as_bits():
        torch.sparse.mm(weight, dense + 0.5).sum().backward()
    assert weight.grad is not None


@pytest.mark.parametrize("spikes", [False, True])
def test_what_is_changed_in_place_is_never_taken_for_what_it_was(spikes):
    """torch's own error for other tensors; of spikes there is a copy."""
    x = (torch.rand(100, 100) < 0.2).float() + (0 if spikes else 0.5)
    kept, weight = x.clone(), torch.randn(100, 100, requires_grad=True)
    with spikes_as_bits():
        y = (weight * x).sum()
    x.add_(1)
    if not spikes:
        with pytest.raises(RuntimeError, match=r"changed in place since: it is at version 1, and was at 0"):
            y.backward()
    else:
        y.backward()
        assert torch.equal(weight.grad, kept)


def test_gradients_are_the_same_and_less_is_kept():
    torch.manual_seed(0)
    model = resnet20(10, steps=4, width=0.25, neuron=AdaptiveLIF, attention=STAA).to(memory_format=torch.channels_last)
    x, y = torch.rand(8, 3, 16, 16), torch.randint(10, (8,))
    found = []
    for bits in (False, True):
        torch.manual_seed(1)
        model.zero_grad()
        if bits:
            with spikes_as_bits():
                logits = model(x)
        else:
            logits = model(x)
        F.cross_entropy(logits.mean(0), y).backward()
        found.append([p.grad.clone() for p in model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_bits_are_counted_among_what_is_kept():
    layer, spikes = nn.Linear(1024, 1, bias=False), (torch.rand(64, 1024) < 0.3).float()
    other = torch.rand(64, 1024)

    def step():
        (layer(spikes) * layer(other)).sum().backward()

    def step_in_bits():
        with spikes_as_bits():
            step()

    products = 2 * 4 * 64
    assert kept_bytes(layer, step) == 2 * other.nbytes + products
    assert kept_bytes(layer, step_in_bits) == spikes.nbytes // 32 + other.nbytes + products
    assert not WATCHERS
    with spikes_as_bits(), pytest.raises(ValueError, match="set them inside step"):
        kept_bytes(layer, step)


def test_fused_norms_change_nothing_but_rounding():
    torch.manual_seed(0)
    model = resnet20(10, steps=4, width=0.25, neuron=AdaptiveLIF, attention=STAA)
    x = torch.rand(8, 3, 16, 16)
    for _ in range(3):
        model(x)  # running statistics
    with pytest.raises(ValueError, match=r"call model.eval\(\) first"):
        fuse_norms(model)
    model = model.double().eval()
    fused = fuse_norms(model)
    torch.testing.assert_close(fused(x.double()), model(x.double()), rtol=1e-9, atol=1e-9)
    assert sum("norm" in name for name in fused.state_dict()) < sum("norm" in name for name in model.state_dict())
