"""The CUDA kernels without a CUDA device: run by Triton's interpreter on the CPU, and compiled for a GPU that is not there.

tests/interpreter.py runs those marked `interpreted`; tests/test_gpu.py has what needs a GPU.
"""

import importlib.util
import subprocess
import sys

import pytest
import torch
from interpreter import INTERPRETED
from test_fused import FORMS, RESETS, at_the_threshold, both, compare, compare_holes, constants, current, with_holes

from staa.ops import SURROGATES, lif, lif_reference, memory

pytestmark = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="this torch brought no Triton")
interpreted = pytest.mark.interpreted
LAYOUTS = pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
SMALL = (4, 2, 5, 3, 7)


@pytest.fixture
def kernels(triton_kernels, monkeypatch):
    """Triton's kernels, in tiles so small that a little window has many."""
    from staa.ops import lif_triton

    monkeypatch.setattr(lif_triton, "BLOCK", 64)
    monkeypatch.setattr(lif_triton, "CHANNELS", 4)
    monkeypatch.setattr(lif_triton, "COLUMNS", 16)
    return lif_triton


@pytest.mark.some(2)
@interpreted
@LAYOUTS
@pytest.mark.parametrize("form", FORMS)
def test_equals_the_reference(kernels, layout, form):
    x = current(layout, SMALL)
    for (reset, detach), v in zip(RESETS, 2 * (None, torch.randn(x.shape[1:])), strict=True):
        compare(both(x, {**constants(form, x), "reset": reset, "detach_reset": detach}, v), tolerance=2e-5)


@pytest.mark.some(2)
@interpreted
@LAYOUTS
@pytest.mark.parametrize("form", FORMS)
def test_strictly_above_the_threshold_or_at_it(kernels, layout, form):
    x, options = at_the_threshold(form, current(layout, SMALL))
    for reset in ("zero", "subtract"):
        found = [both(x, {**options, "reset": reset, "strict": strict}) for strict in (False, True)]
        for one in found:
            compare(one, tolerance=2e-5)
        assert not torch.equal(found[0][0][0], found[1][0][0])


@pytest.mark.some(2)
@interpreted
@pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning")
@pytest.mark.parametrize("surrogate", list(SURROGATES.values()), ids=list(SURROGATES))
@pytest.mark.parametrize("steps", [4, 7])
def test_nan_and_infinities_go_where_the_reference_takes_them(kernels, monkeypatch, surrogate, steps):
    monkeypatch.setattr(kernels, "SEGMENT", 4)  # seven steps do not fill two segments
    x = current("contiguous", (steps, 5, 4, 3, 5))
    for form, (reset, detach) in zip(("plain", "channels", "attention", "channels"), RESETS, strict=True):
        options = constants(form, x) | dict(reset=reset, detach_reset=detach, surrogate=surrogate)
        compare_holes(both(with_holes(x), options, torch.randn(x.shape[1:])))


@interpreted
@pytest.mark.parametrize("surrogate", list(SURROGATES.values()), ids=list(SURROGATES))
def test_every_surrogate(kernels, surrogate):
    x = current("contiguous", SMALL)
    compare(both(x, {**constants("channels", x), "surrogate": surrogate}), tolerance=2e-5)


@pytest.mark.some(2)
@interpreted
@LAYOUTS
@pytest.mark.parametrize(("steps", "samples"), [(1, 1), (1, 2), (4, 1), (4, 2)])
def test_maps_that_tell_steps_or_samples_apart(kernels, layout, steps, samples):
    """Their sums alone are wanted."""
    x, shift = current(layout, SMALL), torch.randn(steps, samples, 5, 1, 1)
    compare(both(x, {"decay": 0.5, "scale": torch.rand(1, samples, 5, 1, 1), "shift": shift}), tolerance=2e-5)


@pytest.mark.some(2)
@interpreted
@LAYOUTS
@pytest.mark.parametrize("steps", [6, 7])
@pytest.mark.parametrize("reset", ["zero", "subtract"])
def test_windows_longer_than_a_segment(kernels, monkeypatch, layout, steps, reset):
    monkeypatch.setattr(kernels, "SEGMENT", 3)
    x = current(layout, (steps, *SMALL[1:]))
    compare(both(x, {**constants("channels", x), "reset": reset}), tolerance=2e-5)
    compare(both(x, {**constants("attention", x), "reset": reset}, torch.randn(x.shape[1:])), tolerance=2e-5)


@pytest.mark.some(2)
@interpreted
@pytest.mark.parametrize("shape", [(1, 1, 1, 1, 1), (20, 2, 3, 5, 1), (2, 1, 70, 3, 3), (2, 3, 3, 11, 9)])
@LAYOUTS
def test_any_shape(kernels, shape, layout):
    x = current(layout, shape)
    for form in FORMS:
        compare(both(x, constants(form, x), torch.randn(x.shape[1:])), tolerance=5e-5)


@pytest.mark.some(2)
@interpreted
@pytest.mark.parametrize("layout", ["features", "flat"])
@pytest.mark.parametrize("form", FORMS)
def test_currents_without_space(kernels, layout, form):
    x = current(layout, (17, 3, 7, 1, 1))
    compare(both(x, constants(form, x), torch.randn(x.shape[1:])), tolerance=5e-5)


@pytest.mark.some(2)
@interpreted
@LAYOUTS
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_charged_in_float32(kernels, layout, dtype):
    x = current(layout, SMALL).to(dtype)
    for form in FORMS:
        (spikes, last, *grads), (expected, expected_last, *expected_grads) = both(x, constants(form, x))
        assert spikes.dtype == grads[0].dtype == dtype
        assert torch.equal(spikes, expected)
        assert torch.equal(last, expected_last)
        for a, b in zip(grads, expected_grads, strict=True):
            assert (a - b).norm() / b.norm() < 1e-2


@interpreted
def test_either_output_alone_has_gradients(kernels):
    x = current("contiguous", SMALL)
    compare(both(x, constants("attention", x), grad_last=False))
    x = x.requires_grad_()
    found = [torch.autograd.grad(f(x, decay=0.5)[1].sum(), x)[0] for f in (lif, lif_reference)]
    torch.testing.assert_close(*found)


@interpreted
def test_sums_are_the_same_every_time(kernels):
    x, found = current("channels_last", SMALL), []
    for _ in range(2):
        torch.manual_seed(0)
        found.append(both(x, constants("attention", x))[0])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


@pytest.mark.some(2)
@pytest.mark.skipif(INTERPRETED, reason="compiles")
@LAYOUTS
@pytest.mark.parametrize(
    ("form", "steps", "dtype"), [("plain", 1, "float32"), ("attention", 4, "bfloat16"), ("channels", 17, "float16")]
)
def test_compiles_for_a_gpu(compiled, layout, form, steps, dtype):
    x = current(layout, (steps, 2, 16, 4, 4)).to(getattr(torch, dtype)).requires_grad_()
    v = torch.randn(x.shape[1:], requires_grad=True)
    options = {k: p.requires_grad_() if isinstance(p, torch.Tensor) else p for k, p in constants(form, x).items()}
    options["strict"] = form == "attention"
    sum(out.sum() for out in lif(x, v, **options)).backward()
    assert [name for name, _ in compiled] == ["_forward", "_backward"]
    assert "fma." not in compiled[0][1].asm["ptx"]


def test_triton_is_imported_for_cuda_alone():
    code = "import sys, torch, staa.ops; staa.ops.lif(torch.randn(2, 3), decay=0.5); assert 'triton' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_without_triton_cuda_has_no_kernels(monkeypatch):
    monkeypatch.setattr(memory, "KERNELS", {})
    monkeypatch.setitem(sys.modules, "staa.ops.cuda", None)
    monkeypatch.delattr("staa.ops.cuda", raising=False)
    assert memory.kernels_of("cuda") is None
