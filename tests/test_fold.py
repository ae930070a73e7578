"""What is folded into the neuron, BatchNorm and gates, against the plain form: values, statistics and every gradient."""

import copy
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from torch import nn

import staa
from benchmarks.traffic import rows
from staa.attention import STAA, GlobalContext
from staa.folding import fold_of
from staa.layers import Site, fold_batch_norm, per_step
from staa.models import resnet20
from staa.models.parts import ConvNorm, run_folded
from staa.neurons import LIF, AdaptiveLIF
from staa.ops import cpu
from staa.ops.averages import Folded, batch_norm, context

KERNELS = pytest.mark.skipif(cpu.LIBRARY is None, reason=f"no CPU kernels: {cpu.WHY_NOT}")
LAYOUTS = pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=["contiguous", "channels_last"])
SHAPES = [(3, 2, 24, 6, 7), (2, 2, 70, 9, 9), (2, 3, 16, 70, 70), (1, 2, 600, 2, 3), (1, 1, 1, 1, 1)]


def window(shape, layout, dtype=torch.float32):
    x = torch.randn(shape) * 0.7 + 3.0  # far from zero: a variance as the mean of squares would lose its digits
    return x.flatten(0, 1).to(dtype).contiguous(memory_format=layout).unflatten(0, shape[:2])


def close(a, b, tolerance=5e-6):
    assert (a.double() - b.double()).norm() <= tolerance * b.double().norm() + 1e-9


@KERNELS
@LAYOUTS
@pytest.mark.parametrize("shape", SHAPES)
def test_averages_are_those_of_plain_torch(shape, layout):
    """Against the same in float64, which takes the plain path; the gradients of all outputs come home through x at once."""
    narrow = window(shape, layout)
    key, gain, bias = torch.randn(1, shape[1], shape[2]) * 0.3, torch.rand(shape[2]) + 0.5, torch.randn(shape[2])
    weights = [torch.randn(p) for p in ((1, 1, shape[2], 1, 1), (1, 1, shape[2], 1, 1), shape[:3], shape[:3], shape[:3], shape)]
    found = []
    for dtype in (torch.float32, torch.float64):
        x, k, g, b = (p.to(dtype, copy=True).requires_grad_() for p in (narrow, key, gain, bias))
        x1, scale, shift, mean, _, variance = batch_norm(x, g, b, 0.1)
        x2, pooled, mean2 = context(x1, k)
        outputs = [scale, shift, mean, pooled, mean2, x2]
        sum((out * w).sum() for out, w in zip(outputs, weights, strict=True)).backward()
        found.append((scale, shift, mean, variance, pooled, mean2, x.grad, k.grad, g.grad, b.grad))
        assert x2.data_ptr() == x.data_ptr()
    assert found[0][6].stride() == narrow.stride()
    size = found[1][6].norm()
    for a, b in zip(*found, strict=True):
        close(a, b, 1e-4 if b.norm() > 1e-3 * size else 1e-2)  # keys and their gradients are differences of large sums


@pytest.mark.parametrize("affine", [True, False])
def test_gradients_of_batch_norm_are_those_of_differences(affine):
    x = window((3, 2, 4, 3, 2), torch.channels_last, torch.float64).requires_grad_()
    weight, bias = (torch.rand(4, dtype=torch.float64, requires_grad=True) if affine else None for _ in range(2))
    assert torch.autograd.gradcheck(lambda *p: batch_norm(*p, 1e-5)[:4], (x, weight, bias))


@KERNELS
@LAYOUTS
def test_averages_of_bfloat16(layout):
    x = window((3, 2, 24, 6, 7), layout, torch.bfloat16)
    key = torch.randn(1, 1, 24)
    for f in (lambda x: batch_norm(x, None, None, 1e-5), lambda x: context(x, key)):
        for a, b in zip(f(x)[1:], f(x.double())[1:], strict=True):
            close(a, b, 1e-5)
    x.requires_grad_()
    (grad,) = torch.autograd.grad(context(batch_norm(x, None, None, 1e-5)[0], key)[1].sum(), x)
    assert grad.dtype == torch.bfloat16


@KERNELS
@pytest.mark.filterwarnings("ignore")
@LAYOUTS
def test_the_operations_are_registered_as_torch_wants_it(layout):
    x, up = window((3, 2, 8, 4, 4), layout), window((3, 2, 8, 4, 4), layout)
    some = lambda *shape: torch.rand(shape) + 0.5  # noqa: E731
    for key in (some(1, 1, 8), some(3, 1, 8)):
        ops = torch.ops.staa
        torch.library.opcheck(ops.context.default, (x, key))
        torch.library.opcheck(ops.context_backward.default, (up, x, key, some(3, 2, 16), *(some(3, 2, 8) for _ in range(3))))
    for weight, bias, grads in (
        (None, None, (None, some(1, 1, 8, 1, 1), None)),
        (some(8), some(8), (*some(2, 1, 1, 8, 1, 1), some(3, 2, 8))),
    ):
        torch.library.opcheck(ops.batch_norm.default, (x, weight, bias, 1e-5))
        torch.library.opcheck(ops.batch_norm_backward.default, (up, *grads, x, some(8), some(8), some(8), 1e-5))


def norms():
    yield nn.BatchNorm2d(8)
    yield nn.BatchNorm2d(8, momentum=None)
    yield nn.BatchNorm2d(8, affine=False)
    yield nn.BatchNorm2d(8, track_running_stats=False)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", range(4))
def test_folded_batch_norm_is_batch_norm(dtype, training, kind):
    narrow = window((3, 2, 8, 5, 6), torch.channels_last).to(dtype)
    found = []
    for folded in (True, False):
        torch.manual_seed(0)
        norm = list(norms())[kind].to(dtype).train(training)
        for p in norm.parameters():
            nn.init.uniform_(p, 0.5, 1.5)
        x = narrow.clone().requires_grad_()
        for _ in range(2):  # twice: running statistics move on
            y = fold_batch_norm(x, norm).written_out() if folded else per_step(norm, x)
        weight = torch.randn(y.shape, dtype=dtype, generator=torch.Generator().manual_seed(1))
        grads = torch.autograd.grad((y * weight).sum(), [x, *norm.parameters()])
        found.append([y, *grads, *norm.buffers()])
    for a, b in zip(*found, strict=True):
        close(a, b, 1e-5 if dtype == torch.float32 else 1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_network_folded_and_plain(dtype, monkeypatch):
    """conv – BN – STAA – neuron, twice: nothing differs but rounding, down to the first layer's gradients."""
    monkeypatch.setattr("staa.models.parts.served", lambda x: True)  # in float64 too
    found = []
    for folded in (True, False):
        torch.manual_seed(0)
        layers = [m for c in (3, 8) for m in (ConvNorm(c, 8, 3), Site(AdaptiveLIF(8), STAA(4, 8)))]
        network = nn.Sequential(*layers).to(dtype)
        for p in network.parameters():
            p.data += 0.1 * torch.randn(p.shape, dtype=dtype)
        x = torch.randn(4, 5, 3, 9, 9, dtype=dtype)
        torch.manual_seed(2)  # the same steps are skipped
        y = run_folded(network, x) if folded else network(x)
        (y * torch.randn(y.shape, dtype=dtype)).sum().backward()
        found.append([y, *(p.grad for p in network.parameters())])
    assert torch.equal(found[0][0], found[1][0])
    for a, b in zip(*found, strict=True):
        close(a, b, 2e-4 if dtype == torch.float32 else 1e-9)


def test_a_neuron_that_folds_nothing_gets_the_current_written_out():
    class Bare(nn.Module):
        def forward(self, x):
            return (x > 0).float()

    x = torch.randn(2, 3, 4, 5, 5)
    scale, shift = torch.rand(1, 1, 4, 1, 1), torch.randn(1, 1, 4, 1, 1)
    assert torch.equal(Site(Bare())(Folded(x, scale, shift)), (x * scale + shift > 0).float())
    assert Site(LIF())(Folded(x, scale, shift)).shape == x.shape


def test_one_value_per_channel_has_no_variance():
    with pytest.raises(ValueError, match="more than one value per channel"):
        fold_batch_norm(torch.ones(1, 1, 8, 1, 1), nn.BatchNorm2d(8))


@KERNELS
@pytest.mark.filterwarnings("ignore")
def test_compiled_equals_eager():
    torch.manual_seed(0)
    network = nn.Sequential(ConvNorm(3, 8, 3), Site(AdaptiveLIF(8), STAA(4, 8, dropout=0.0)))
    x = torch.randn(4, 2, 3, 6, 6)
    run = lambda: run_folded(network, x)  # noqa: E731
    assert fold_of(network[1].attention) == torch.compile(lambda: fold_of(network[1].attention), fullgraph=True)() == "fold"
    eager, compiled = run(), torch.compile(run, fullgraph=True)()
    assert torch.equal(eager, compiled)
    for a, b in zip(*(torch.autograd.grad(y.mean(), list(network.parameters())) for y in (eager, compiled)), strict=True):
        torch.testing.assert_close(a, b)


def test_exported_equals_eager_and_leaves_nothing_behind():
    torch.manual_seed(0)
    network = resnet20(5, width=0.125, neuron=AdaptiveLIF, attention=STAA).eval()
    x = torch.rand(2, 3, 16, 16)
    exported = torch.export.export(network, (x,)).module()
    assert torch.equal(exported(x), network(x))


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_autocast_does_not_reach_the_pooled_context(half, dtype):
    """Products of a hundred with two thousand channels overflow float16; the plain path is the one CUDA takes."""
    x, key = 100 * torch.rand(2, 2, 2048, 3, 3).to(dtype), torch.ones(1, 1, 2048)
    with staa.reference():
        expected = context(x, key)
        with torch.autocast("cpu", half):
            found = context(x, key)
    for a, b in zip(found[1:], expected[1:], strict=True):
        assert a.dtype == torch.float32
        assert a.isfinite().all()
        assert torch.equal(a, b)


def test_running_statistics_in_bfloat16_are_taken_to_float32():
    norm = nn.BatchNorm2d(8).eval()
    with torch.no_grad():
        norm.running_mean.normal_(), norm.running_var.uniform_(0.5, 2), norm.weight.uniform_(0.5, 2)
    norm.bfloat16()
    folded = fold_batch_norm(torch.randn(2, 2, 8, 3, 3).bfloat16(), norm)
    wide = fold_batch_norm(torch.randn(2, 2, 8, 3, 3), copy.deepcopy(norm).float())
    assert torch.equal(folded.scale, wide.scale)
    assert torch.equal(folded.shift, wide.shift)
    assert folded.written_out().dtype == torch.bfloat16


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
def test_both_paths_agree_under_autocast(half):
    torch.manual_seed(0)
    site, norm, conv = Site(LIF(), GlobalContext(8)), nn.BatchNorm2d(8), nn.Conv2d(3, 8, 3)
    x = torch.rand(6, 3, 8, 8)
    for p in site.parameters():
        nn.init.normal_(p, std=0.3)
    found = []
    for choose in (False, True):
        with torch.autocast("cpu", half), staa.reference() if choose else nullcontext():
            found.append(site(fold_batch_norm(conv(x).unflatten(0, (3, 2)), norm)))
    assert found[0].dtype == found[1].dtype == half
    assert (found[0] != found[1]).float().mean() < 0.01


@KERNELS
def test_the_documented_bytes_are_those_that_are_counted():
    page = (Path(__file__).parent.parent / "docs" / "performance.md").read_text()
    assert [row for row in rows() if row not in page] == []
