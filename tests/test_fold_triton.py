"""What is folded into the neuron on CUDA, without a CUDA device, as in test_triton: averages, networks, spikes as bits."""

import copy
import itertools
import re

import pytest
import torch
from interpreter import INTERPRETED
from test_fold import close, window
from test_triton import LAYOUTS, interpreted, pytestmark  # noqa: F401
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

import staa
from staa.attention import STAA, ChannelGate, GlobalContext, PositionEncoding, StepAttention
from staa.layers import Site, fold_batch_norm
from staa.models.parts import ConvNorm, run_folded
from staa.neurons import LIF, AdaptiveLIF
from staa.ops import lif, memory
from staa.ops.averages import batch_norm, context, served
from staa.ops.bits import _pack, _unpack, spikes_as_bits

ORDER = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
TINY = (2, 2, 3, 2, 3)
DTYPES = [torch.float32, torch.bfloat16, torch.float16]


@pytest.fixture
def kernels(triton_kernels, monkeypatch):
    """Triton's kernels in the place of the CPU's, in tiles so small that a frame has several parts and several blocks."""
    from staa.ops import averages_triton

    for name, value in (("BLOCK", 64), ("COLUMNS", 4), ("MERGED", 2)):
        monkeypatch.setattr(averages_triton, name, value)
    return averages_triton


def averages(x, key, weight, bias, up, dtype):
    """All that is made of x, and all gradients, as from the random gradients `up` of what is made."""
    x, *rest = (p.to(dtype if p is x else wide(dtype), copy=True).requires_grad_() for p in (x, key, weight, bias))
    x1, scale, shift, mean, all_mean, variance = batch_norm(x, *rest[1:], 0.1)
    x2, pooled, mean2 = context(x1, rest[0])
    outputs = scale, shift, mean, pooled, mean2, x2
    torch.autograd.backward(outputs, [g.to(p.dtype) for g, p in zip(up, outputs, strict=True)])
    return [scale, shift, mean, all_mean, variance, pooled, mean2, x.grad, *(p.grad for p in rest)]


def wide(dtype):
    return torch.promote_types(dtype, torch.float32)


def compare_averages(shape, keys, layout, dtype, times=1, tolerance=2e-5):
    """With those of the plain path in float64, of the same numbers; and several times the same bit for bit."""
    x = window(shape, ORDER[layout], dtype)
    channels = shape[2]
    key, weight, bias = torch.randn(*keys, channels) * 0.3, torch.rand(channels) + 0.5, torch.randn(channels)
    per_channel, per_frame = (1, 1, channels, 1, 1), shape[:3]
    up = [torch.randn(p) for p in (per_channel, per_channel, per_frame, per_frame, per_frame)] + [torch.randn(shape).to(dtype)]
    found, *again = (averages(x, key, weight, bias, up, dtype) for _ in range(times))
    assert found[7].stride() == x.stride()
    assert found[7].dtype == dtype
    for others in again:
        assert all(torch.equal(a, b) for a, b in zip(found, others, strict=True))
    for i, (a, b) in enumerate(zip(found, averages(x, key, weight, bias, up, torch.float64), strict=True)):
        assert a.shape == b.shape
        close(a, b, {torch.float32: 1e-6, torch.float16: 1e-3, torch.bfloat16: 1e-2}[dtype] if i == 7 else tolerance)


@pytest.mark.some(2)
@interpreted
@LAYOUTS
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("keys", [(1, 1), (2, 1), (2, 2)])
def test_averages_are_those_of_plain_torch(kernels, layout, dtype, keys):
    compare_averages(TINY, keys, layout, dtype)


@pytest.mark.some(2)
@interpreted
@LAYOUTS
@pytest.mark.parametrize("shape", [(2, 1, 5, 3, 7), (1, 1, 3, 9, 20), (3, 1, 13, 1, 1), (1, 1, 1, 1, 1)])
def test_averages_of_any_shape(kernels, layout, shape):
    """Channels in several blocks, positions in several parts, the last of them not full."""
    compare_averages(shape, (1, 1), layout, torch.float32, times=2)


@interpreted
def test_either_average_alone_has_gradients(kernels):
    """What arrives may be of the scale alone, of x alone, and so on; without weight and bias."""
    x = window((2, 1, 3, 2, 3), torch.channels_last)
    key = torch.randn(1, 1, 3)
    for f, outputs in ((lambda x, key: batch_norm(x, None, None, 1e-5), range(4)), (context, range(3))):
        for i in outputs:
            found = []
            for dtype in (torch.float32, torch.float64):
                given = [p.to(dtype).requires_grad_() for p in (x, key)]
                out = f(*given)[i]
                (grad,) = torch.autograd.grad((out * torch.arange(out.numel()).view(out.shape)).sum(), given[:1])
                found.append(grad)
            close(*found, 1e-5)


@interpreted
def test_statistics_far_from_zero(kernels):
    """float32 keeps three digits of such a variance, and of squares of x none."""
    x = torch.randn(3, 2, 4, 5, 5) * 0.1 + 1000 * torch.arange(1, 5).view(4, 1, 1)
    for a, b in zip(batch_norm(x, None, None, 1e-5)[1:], batch_norm(x.double(), None, None, 1e-5)[1:], strict=True):
        close(a, b, 1e-3)


@interpreted
@pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning")
@pytest.mark.parametrize("hole", [torch.nan, torch.inf, -torch.inf])
def test_nan_and_infinities_are_not_averaged_away(kernels, hole):
    x, key = window((2, 1, 3, 3, 3), torch.channels_last), torch.ones(1, 1, 3)
    x[1, 0, 1, 2, 0] = hole
    for f in (lambda x: batch_norm(x, None, None, 1e-5), lambda x: context(x, key)):
        for a, b in zip(f(x)[1:], f(x.double())[1:], strict=True):
            assert torch.equal(a.isfinite(), b.isfinite())


ATTENTION = {
    "none": None,
    "all": lambda: STAA(3, 5, dropout=0.5),
    "position": lambda: STAA(3, 5, context=None, step=None),
    "context": lambda: GlobalContext(5),
    "step": lambda: StepAttention(3),
    "any length": lambda: STAA(None, 5),
    "channels": lambda: ChannelGate(5),
    "encoding": lambda: PositionEncoding(3, 5),
}


def sites(network, x, choose):
    torch.manual_seed(2)  # the same steps are skipped
    network, x = copy.deepcopy(network), x.clone().requires_grad_()
    with choose:
        y = run_folded(network, x)
    weight = torch.randn(y.shape, generator=torch.Generator().manual_seed(1), device="cpu")
    (y * weight.to(y.device)).sum().backward()
    return [y, x.grad, *(p.grad for p in network.parameters()), *network.buffers()]


@interpreted
@pytest.mark.parametrize(("layout", "attention"), list(zip(itertools.cycle(ORDER), ATTENTION)))
def test_a_site_folded_and_by_the_reference(triton_kernels, monkeypatch, layout, attention):
    """Convolution, BatchNorm, attention, neuron: spikes, running statistics and the gradients of x and of every parameter."""
    launched = []
    monkeypatch.setattr(memory.KERNELS["cpu"], "of_frames", watched(memory.KERNELS["cpu"].of_frames, launched))
    make = ATTENTION[attention]
    network = nn.Sequential(ConvNorm(2, 5, 3), Site(AdaptiveLIF(5), make and make()))
    for p in network.parameters():
        p.data += 0.1 * torch.randn(p.shape)
    x = window((3, 2, 2, 4, 5), ORDER[layout])
    found, expected = (sites(network, x, choose) for choose in (torch.enable_grad(), staa.reference()))
    assert torch.equal(found[0], expected[0])
    for a, b in zip(found[1:], expected[1:], strict=True):
        close(a, b, 2e-4)
    assert "staa_batch_norm_backward" in launched
    assert ("staa_context_backward" in launched) == (attention in ("all", "context", "any length"))


def watched(frames, launched):
    def call(function, *arguments, **options):
        launched.append(function)
        frames(function, *arguments, **options)

    return call


@interpreted
def test_in_evaluation_the_running_statistics_fold(kernels):
    norm = nn.BatchNorm2d(TINY[2]).eval()
    norm.running_mean.normal_(), norm.running_var.uniform_(0.5, 2)
    x = window(TINY, torch.channels_last)
    assert torch.equal(Site(LIF())(fold_batch_norm(x, norm)), Site(LIF())(fold_batch_norm(x, norm).written_out()))


def spikes_of(shape, dtype=torch.float32, hole=None):
    current = torch.randn(shape) + 0.3
    if hole is not None:
        current.view(-1)[hole] = torch.nan
    if len(shape) == 5:
        current = current.flatten(0, 1).contiguous(memory_format=torch.channels_last).unflatten(0, shape[:2])
    return lif(current.to(dtype).requires_grad_(), decay=0.5)


@interpreted
@pytest.mark.parametrize(
    ("shape", "dtype"), [((2, 5, 9, 8, 7), torch.float32), ((3, 1500), torch.bfloat16), ((1, 8, 8, 8, 8), torch.float16)]
)
def test_spikes_are_kept_as_bits(triton_kernels, shape, dtype):
    spikes, _ = spikes_of(shape, dtype)
    for x in (spikes.flatten(0, 1), spikes.to(torch.float16).contiguous()):
        kept = _pack(x)
        assert len(kept) == 4
        assert kept[0].nbytes <= x.numel() / 8 * (1 + 1 / 64) + 8
        back = _unpack(kept)
        assert 0 < back.float().mean() < 1
        assert torch.equal(back, x)
        assert (back.stride(), back.dtype) == (x.stride(), x.dtype)


@interpreted
def test_what_hands_spikes_on_is_kept_as_bits(triton_kernels):
    spikes, _ = spikes_of((2, 2, 5, 40, 44))
    x = torch.nn.functional.max_pool2d(spikes.flatten(0, 1)[:, :, :, 2:], 2).unflatten(0, (2, 2))
    kept = _pack(x)
    assert len(kept) == 4
    assert torch.equal(_unpack(kept), x)


@interpreted
def test_what_is_not_known_to_be_spikes_is_kept_as_it_is(triton_kernels):
    """On a GPU its values are not looked at, even if they are zeros and ones."""
    spikes, last = spikes_of((2, 3, 9, 10, 9))
    changed, (doubled, _) = spikes_of((2, 5000))[0].mul_(1), spikes_of((2, 5000))
    with torch.no_grad():
        doubled.mul_(2)
    for x in (last, changed, doubled, 1 * spikes, spikes.detach(), torch.ones(9000), spikes_of((2, 1000))[0]):
        assert _pack(x)[0] is x


@interpreted
def test_nan_among_spikes_is_never_taken_for_one(triton_kernels):
    """NaN comes back, and for spikes nearby, too."""
    x, _ = spikes_of((2, 3000), hole=4500)
    back = _unpack(_pack(x))
    assert x.isnan().sum() == 1
    assert back[x.isnan()].isnan().all()
    assert back.isnan().sum() <= 2048
    assert torch.equal(back[~back.isnan()], x[~back.isnan()])


@interpreted
def test_gradients_are_the_same_with_bits(triton_kernels, monkeypatch):
    network = nn.Sequential(ConvNorm(2, 8, 3), Site(LIF()), ConvNorm(8, 3, 3), Site(LIF()))
    x, found, packed = window((2, 2, 2, 12, 12), torch.channels_last), [], []
    kernels = memory.KERNELS["cpu"]
    pack = kernels.pack
    monkeypatch.setattr(kernels, "pack", lambda x: (packed.append(pack(x)), packed[-1])[1])
    for choose in (torch.enable_grad(), spikes_as_bits()):
        found.append(sites(network, x, choose))
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
    assert sum(bits is not None for bits in packed) == 1


@pytest.mark.some(2)
@pytest.mark.skipif(INTERPRETED, reason="compiles")
@LAYOUTS
@pytest.mark.parametrize(
    ("shape", "keys", "dtype"),
    [((2, 3, 16, 4, 4), (1, 1), "float32"), ((1, 2, 24, 64, 65), (1, 2), "bfloat16"), ((3, 1, 7, 1, 1), (3, 1), "float16")],
)
def test_compiles_for_a_gpu(compiled, layout, shape, keys, dtype):
    x = window(shape, ORDER[layout], getattr(torch, dtype)).requires_grad_()
    key, weight, bias = torch.randn(*keys, shape[2]), torch.rand(shape[2]), torch.rand(shape[2])
    for given in ((key.requires_grad_(), weight.requires_grad_(), bias.requires_grad_()), (key, None, None)):
        x1, *made = batch_norm(x, *given[1:], 1e-5)
        x2, *pooled = context(x1, given[0])
        sum(out.float().sum() for out in (x2, *made[:3], *pooled)).backward()
        batch_norm(x, *given[1:], 1e-5)[1].sum().backward()  # nothing else arrives
    averages, gradients = ["_moments", "_merge_moments"], ["_unpool", "_add_affine"]
    once = [*averages, "_pool", "_merge_pools", *gradients, *averages, "_add_affine"]
    assert [name for name, _ in compiled] == 2 * once
    assert not any(re.search(r"\b(atom|red)\.", kernel.asm["ptx"]) for _, kernel in compiled)


@pytest.mark.skipif(INTERPRETED, reason="compiles")
@pytest.mark.parametrize("dtype", DTYPES)
def test_bits_compile_for_a_gpu(compiled, dtype):
    spikes, _ = spikes_of((2, 5000), dtype)
    _unpack(_pack(spikes))
    assert [name for name, _ in compiled] == ["_forward", "_pack", "_unpack"]


class Launched(TorchDispatchMode):
    """The names of the operations that ran."""

    def __init__(self):
        super().__init__()
        self.names = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.add(func.name())
        return func(*args, **(kwargs or {}))


@pytest.mark.skipif(INTERPRETED or torch.version.cuda is None, reason="needs a torch for CUDA, and no device")
@pytest.mark.skipif(
    torch.__version__ < "2.10" and not torch.cuda.is_available(),
    reason="before 2.10, torch asks the driver to index a tensor, a fake one too",
)
@pytest.mark.parametrize("dtype", [*DTYPES, torch.float64])
def test_tensors_on_cuda_take_the_kernels_where_there_are_any(monkeypatch, dtype):
    """By tensors that have a device and no memory."""
    found = []
    for kernels in (None, {"cuda": None}):  # as it is, and without Triton
        if kernels is not None:
            monkeypatch.setattr(memory, "KERNELS", kernels)
        with FakeTensorMode(), Launched() as launched, torch.device("cuda"):
            x, scale, shift, *_ = batch_norm(torch.empty(3, 2, 8, 5, 6, dtype=dtype), None, None, 1e-5)
            x, *_ = context(x, torch.empty(1, 1, 8, dtype=dtype))
            spikes, _ = lif(x, decay=0.5, scale=scale, shift=shift)
        assert spikes.device.type == "cuda"
        found.append((served(x), {name for name in launched.names if name.startswith("staa::")}))
    fused, plain = (True, {"staa::batch_norm", "staa::context", "staa::lif"}), (False, {"staa::batch_norm"})
    assert found == [fused if dtype != torch.float64 else plain, plain]
