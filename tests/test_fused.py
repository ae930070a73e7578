"""The fused paths of the scan against the reference: spikes and membranes bit for bit, every gradient by relative error."""

import itertools

import pytest
import torch
from torch import nn

from staa.ops import SURROGATES, cpu, lif, lif_op, lif_reference

pytestmark = pytest.mark.skipif(cpu.LIBRARY is None, reason=f"no CPU kernels: {cpu.WHY_NOT}")

T, N, C = 5, 3, 24
FORMS = ("plain", "channels", "attention", "steps")
RESETS = list(itertools.product(("zero", "subtract"), (False, True)))


def channels_last(x):
    return x.flatten(0, 1).contiguous(memory_format=torch.channels_last).unflatten(0, x.shape[:2])


def current(layout, shape=(T, N, C, 6, 7)):
    x = torch.randn({"features": shape[:3], "flat": shape[:2]}.get(layout, shape)) + 0.3
    return channels_last(x) if layout == "channels_last" else x


def constants(form, x):
    """The arguments as a plain neuron, a learned one behind BatchNorm, one behind attention, and step attention give them."""
    steps, samples, *rest = x.shape
    c, space = tuple(rest[:1]), (1,) * len(rest[1:])
    one = (1,) * len(c)
    uniform = lambda *shape: torch.rand(shape) + 0.5  # noqa: E731
    return {
        "plain": dict(decay=0.5, gain=1.0, threshold=1.0),
        "channels": dict(
            decay=torch.rand(c + space), gain=uniform(*c, *space), threshold=uniform(*c, *space),
            scale=uniform(1, 1, *c, *space), shift=torch.randn(1, 1, *c, *space),
        ),
        "attention": dict(
            decay=torch.tensor(0.3), gain=uniform(*c, *space), threshold=0.7,
            scale=uniform(steps, samples, *c, *space), shift=torch.randn(steps, 1, *c, *space),
        ),
        "steps": dict(decay=0.5, threshold=0.7, scale=uniform(steps, samples, *one, *space)),
    }[form]  # fmt: skip


def both(x, options, v=None, *, grad_last=True):
    """[spikes, last membrane, gradients of x, v and each tensor] of the fused path and of the reference."""
    grad_s, grad_h = torch.randn(x.shape).to(x.dtype), torch.randn(x.shape[1:])
    found = []
    for f in (lif, lif_reference):
        leaves = {k: p.clone().requires_grad_() for k, p in options.items() if isinstance(p, torch.Tensor)}
        x_, v_ = x.clone().requires_grad_(), None if v is None else v.clone().requires_grad_()
        spikes, last = f(x_, v_, **{**options, **leaves})
        outputs, grads = ([spikes, last], [grad_s, grad_h]) if grad_last else ([spikes], [grad_s])
        torch.autograd.backward(outputs, grads)
        found.append([spikes, last, x_.grad, *([] if v is None else [v_.grad]), *(p.grad for p in leaves.values())])
    assert found[0][0].stride() == x.stride()
    return found


def at_the_threshold(form, x):
    """The current and the constants on grids so coarse that membranes meet the threshold often and every sum is exact."""
    coarse = lambda p: (4 * p).round() / 4 if isinstance(p, torch.Tensor) else p  # noqa: E731
    options = {name: coarse(p) for name, p in constants(form, x).items()}
    options |= {"decay": 0.5, "gain": 1.0, "threshold": 0.75} | (
        {"shift": coarse(options["shift"] / 4)} if "shift" in options else {}
    )
    return coarse(x), options


def compare(found, tolerance=1e-5):
    (spikes, last, *grads), (expected, expected_last, *expected_grads) = found
    assert torch.equal(spikes, expected)
    assert torch.equal(last, expected_last)
    for a, b in zip(grads, expected_grads, strict=True):
        error = (a - b).norm() / b.norm().clamp(min=1e-6)
        assert error < (tolerance if a.numel() > 1 else 20 * tolerance), error  # one number is the rest of a long sum


@pytest.mark.parametrize("layout", ["contiguous", "channels_last", "features", "flat"])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("surrogate", list(SURROGATES.values()), ids=list(SURROGATES))
def test_equals_the_reference(layout, form, surrogate):
    x = current(layout)
    for (reset, detach), v in itertools.product(RESETS, (None, torch.randn(x.shape[1:]))):
        options = dict(reset=reset, detach_reset=detach, surrogate=surrogate)
        compare(both(x, {**constants(form, x), **options}, v), tolerance=2e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("layout", ["contiguous", "channels_last", "features", "flat"])
@pytest.mark.parametrize("form", FORMS)
def test_strictly_above_the_threshold_or_at_it(layout, form, dtype):
    x, options = at_the_threshold(form, current(layout, (T, 30, 6, 3, 2)).to(dtype))
    for (reset, detach), v in zip(RESETS, 2 * (None, x[0].float()), strict=True):
        options |= dict(reset=reset, detach_reset=detach)
        found = [both(x, {**options, "strict": strict}, v) for strict in (False, True)]
        for one in found:
            compare(one, tolerance=1e-5 if dtype is torch.float32 else 1e-2)
        assert not torch.equal(found[0][0][0], found[1][0][0])


def with_holes(p):
    """Now and then NaN or an infinity, in the memory order of p."""
    p, chance = p.clone(), torch.rand(p.shape)
    for i, hole in enumerate((torch.nan, torch.inf, -torch.inf)):
        p[(chance > 0.01 * i) & (chance < 0.01 * (i + 1))] = hole
    return p


def compare_holes(found):
    """NaN and infinities stand at the same places in spikes, membranes and the current's gradient; all else is equal or close.

    Of a sum over infinities the order decides whether it is one or NaN.
    """
    (spikes, last, *grads), (expected, expected_last, *expected_grads) = found
    torch.testing.assert_close((spikes, last), (expected, expected_last), rtol=0, atol=0, equal_nan=True)
    for i, (a, b) in enumerate(zip(grads, expected_grads, strict=True)):
        if i:
            a, b = (p.masked_fill(~p.isfinite(), torch.nan) for p in (a, b))
        torch.testing.assert_close(a, b, rtol=1e-2 if a.dtype is torch.bfloat16 else 1e-3, atol=1e-4, equal_nan=True)
    return [p.isnan().any() for p in (spikes, last, grads[0])]


@pytest.mark.some(2)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("layout", ["contiguous", "channels_last", "flat"])
@pytest.mark.parametrize("form", FORMS)
def test_nan_and_infinities_go_where_the_reference_takes_them(layout, form, dtype):
    """In currents, membranes, scales and the gradients that arrive."""
    x = current(layout, (T, 30, 6, 3, 2)).to(dtype)
    seen = []
    for surrogate, (reset, detach), strict in itertools.product(SURROGATES.values(), RESETS, (False, True)):
        options = constants(form, x) | dict(reset=reset, detach_reset=detach, surrogate=surrogate, strict=strict)
        seen.append(compare_holes(both(with_holes(x), options, torch.randn(x.shape[1:]))))
        compare_holes(both(x, options, with_holes(torch.randn(x.shape[1:]))))
        if "scale" in options:
            compare_holes(both(x, options | {"scale": with_holes(options["scale"])}))
    assert all(map(any, zip(*seen, strict=True)))


@pytest.mark.parametrize("hole", [torch.nan, torch.inf])
@pytest.mark.parametrize("surrogate", [SURROGATES["rectangle"], SURROGATES["arctan"]])
def test_gradients_that_are_not_finite_go_where_the_reference_takes_them(surrogate, hole):
    x, up = current("contiguous"), torch.randn(T, N, C, 6, 7)
    up[2, 1, 3, 4, 5] = hole
    found = []
    for f in (lif, lif_reference):
        leaf, decay = x.clone().requires_grad_(), torch.full((C, 1, 1), 0.5, requires_grad=True)
        found.append(torch.autograd.grad(f(leaf, decay=decay, surrogate=surrogate)[0], (leaf, decay), up))
    torch.testing.assert_close(*found, equal_nan=True, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("form", FORMS)
def test_bfloat16_is_charged_in_float32(layout, form):
    x = current(layout).bfloat16()
    (spikes, last, *grads), (expected, expected_last, *expected_grads) = both(x, constants(form, x))
    assert spikes.dtype == grads[0].dtype == torch.bfloat16
    assert torch.equal(spikes, expected)
    assert torch.equal(last, expected_last)
    for a, b in zip(grads, expected_grads, strict=True):
        assert (a - b).norm() / b.norm() < 1e-2


@pytest.mark.parametrize(
    "shape",
    [
        (1, 1, 1, 1, 1),
        (1, 2, 3, 5, 1),
        (4, 1, 700, 3, 3),
        (3, 70, 5, 11, 9),
        (2, 1, 2, 40, 41),
        (300, 2, 3, 4, 5),
        (7, 2, 33, 1, 1),
    ],
)
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_any_shape(shape, layout):
    x = current(layout, shape)
    for form in FORMS:
        compare(both(x, constants(form, x), torch.randn(x.shape[1:])), tolerance=5e-5)


def test_any_memory_order():
    """A slice, a transpose, an expanded gradient: results are those of the same numbers in order."""
    base = torch.randn(6, C, N, 8, 7)
    for x in (base.transpose(1, 2)[::2], base[:, :N], torch.randn(1, N, C, 6, 7).expand(T, -1, -1, -1, -1)):
        x = x.detach().requires_grad_()
        spikes, last = lif(x, decay=0.5)
        (grad,) = torch.autograd.grad(spikes.sum() + last.sum(), x)
        expected, expected_last = lif_reference(x, decay=0.5)
        (expected_grad,) = torch.autograd.grad(expected.sum() + expected_last.sum(), x)
        assert torch.equal(spikes, expected)
        assert torch.equal(last, expected_last)
        torch.testing.assert_close(grad, expected_grad)


def test_either_output_alone_has_gradients():
    x = current("contiguous")
    compare(both(x, constants("channels", x), grad_last=False))
    x = x.requires_grad_()
    (grad,) = torch.autograd.grad(lif(x, decay=0.5)[1].sum(), x)
    (expected,) = torch.autograd.grad(lif_reference(x, decay=0.5)[1].sum(), x)
    torch.testing.assert_close(grad, expected)


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("form", FORMS)
def test_chunks_equal_the_whole_bit_for_bit(layout, form):
    x = current(layout, (7, N, C, 6, 7))
    options = constants(form, x)
    whole, last = lif(x, **options)
    cut = lambda a, b: {k: p[a:b] if k in ("scale", "shift") and p.shape[0] > 1 else p for k, p in options.items()}  # noqa: E731
    first, h = lif(x[:3], **cut(0, 3))
    second, h = lif(x[3:], h, **cut(3, 7))
    assert torch.equal(torch.cat([first, second]), whole)
    assert torch.equal(h, last)


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_the_number_of_threads_changes_nothing(layout, monkeypatch):
    monkeypatch.setattr(cpu, "ALONE", 0)
    x = current(layout, (4, 8, 32, 20, 20))
    options, before, found = constants("attention", x), torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            torch.manual_seed(0)
            found.append(both(x, options)[0])
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for other in found[1:] for a, b in zip(found[0], other, strict=True))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_the_operation_is_registered_as_torch_wants_it(layout):
    some = lambda *shape: (torch.rand(shape) + 0.5).requires_grad_()  # noqa: E731
    x = current(layout, (3, 2, 8, 4, 4)).requires_grad_()
    v = torch.randn(2, 8, 4, 4, requires_grad=True)
    for rest in (
        (some(8), some(8), some(8), some(3, 2, 8), some(1, 1, 8)),
        (some(1), some(1), some(1), some(1, 1, 1), some(3, 2, 1)),
    ):
        torch.library.opcheck(torch.ops.staa.lif.default, (x, v, *rest, False, "zero", "arctan", False))
        torch.library.opcheck(torch.ops.staa.lif.default, (x, None, *rest, True, "subtract", "sigmoid", True))


def test_only_the_current_is_kept_for_the_backward_pass():
    kept = []
    x = torch.randn(4, 8, 16, 8, 8, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(lambda p: (kept.append(p.nbytes), p)[1], lambda p: p):
        lif(x, decay=0.5)
    assert sum(kept) < 1.01 * x.nbytes


def test_what_the_kernels_do_not_serve_takes_the_reference_path():
    x = torch.randn(3, 2, 4, 5, 5)
    refused = [
        dict(x=x.double(), decay=0.5),
        dict(x=x.half(), decay=0.5),
        dict(x=x, decay=torch.rand(4, 5, 5)),
        dict(x=x, decay=torch.rand(2, 1, 1, 1)),
        dict(x=x, decay=0.5, scale=torch.rand(1, 1, 4, 5, 5)),
    ]
    for options in refused:
        defaults = dict(gain=1.0, threshold=1.0, strict=False, reset="zero", surrogate=SURROGATES["arctan"], detach_reset=False)
        options = {"scale": None, "shift": None, **defaults, **options}
        assert lif_op.fused(options.pop("x"), None, **options) is None
    for options in refused:
        assert torch.equal(lif(**options)[0], lif_reference(**options)[0])


def test_a_surrogate_of_ones_own_takes_the_reference_path_and_says_so():
    x = torch.randn(3, 4, requires_grad=True)
    with pytest.warns(UserWarning, match="double is none of staa.ops.SURROGATES"):
        spikes, _ = lif(x, decay=0.5, surrogate=_double)
    (grad,) = torch.autograd.grad(spikes.sum(), x)
    assert grad.abs().sum() > 0


@pytest.mark.filterwarnings("ignore:.*:DeprecationWarning")
def test_a_surrogate_of_ones_own_compiles_to_one_graph():
    x = torch.randn(3, 4)
    compiled = torch.compile(lambda x: lif(x, decay=0.5, surrogate=_double)[0], fullgraph=True, backend="eager")
    assert torch.equal(compiled(x), lif_reference(x, decay=0.5)[0])


@pytest.mark.parametrize("layouts", list(itertools.product(("contiguous", "channels_last"), repeat=2)))
@pytest.mark.parametrize("shape", list(itertools.product((1, 2), (1, 2), (1, 3), (1, 4), (1, 4))))
def test_one_step_one_sample_one_channel_one_pixel(shape, layouts):
    """A dimension of one has any stride. The current and the gradient that arrives may differ in memory order."""
    x, up = (current(layout, shape) for layout in layouts)
    for decay in (0.5, torch.full((shape[2], 1, 1), 0.5)):
        found = []
        for f in (lif, lif_reference):
            leaf = x.detach().requires_grad_()
            found.append(torch.autograd.grad(f(leaf, decay=decay)[0], leaf, up)[0])
        torch.testing.assert_close(*found)
        assert found[0].stride() == x.stride()


def _double(u):
    return 2 * u


def test_under_autocast():
    """A half-precision convolution feeds a neuron whose constants are float32."""
    layer = nn.Conv2d(3, 8, 3)
    with torch.autocast("cpu", torch.bfloat16):
        current = layer(torch.randn(6, 3, 8, 8)).unflatten(0, (3, 2))
        spikes, last = lif(current, decay=torch.rand(8, 1, 1), scale=torch.rand(1, 1, 8, 1, 1))
    assert (spikes.dtype, last.dtype) == (torch.bfloat16, torch.float32)
    spikes.sum().backward()
    assert layer.weight.grad.isfinite().all()
