"""The numerics ladder of the scan: a hand trace, a numpy loop, gradcheck, an oracle, compiled, dtypes and layouts."""

import itertools
import math
import shutil
import warnings
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from staa import ops
from staa.neurons import LIF, Integrator
from staa.ops import SURROGATES, direct, fire, integrate, latency, lif, lif_reference, rate, scan

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from spikingjelly.activation_based import neuron as sj_neuron
    from spikingjelly.activation_based import surrogate as sj_surrogate


def numpy_lif(x, v, decay, gain, threshold, reset, strict=False):
    """The equations once more, one number at a time."""
    spikes = np.zeros_like(x)
    h = v.copy()
    for t in range(x.shape[0]):
        for i in np.ndindex(x.shape[1:]):
            u = decay * h[i] + gain * x[(t, *i)]
            s = 1.0 if u > threshold or (u == threshold and not strict) else 0.0
            h[i] = u * (1 - s) if reset == "zero" else u - threshold * s
            spikes[(t, *i)] = s
    return spikes, h


def test_trace_by_hand():
    x = torch.tensor([0.6, 0.6, 0.6, 0.9, -0.2]).view(5, 1)
    # v:  0.6, 0.9, 1.05 fires -> 0, 0.9, 0.25
    spikes, v = lif(x, decay=0.5, threshold=1.0)
    assert spikes.flatten().tolist() == [0, 0, 1, 0, 0]
    assert v.item() == pytest.approx(0.25)
    # subtract: 1.05 leaves 0.05, then 0.925, 0.2625
    spikes, v = lif(x, decay=0.5, threshold=1.0, reset="subtract")
    assert spikes.flatten().tolist() == [0, 0, 1, 0, 0]
    assert v.item() == pytest.approx(0.2625)


def test_fires_at_the_threshold_itself():
    spikes, v = lif(torch.ones(1, 1), decay=0.5, threshold=1.0)
    assert spikes.item() == 1
    assert v.item() == 0


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("reset", ["zero", "subtract"])
def test_at_the_threshold(reset, strict, dtype):
    """Currents on a grid of quarters meet the threshold often; every sum is exact."""
    x = torch.randint(-2, 9, (5, 40, 6)).to(dtype) / 4
    spikes, last = lif(x, decay=0.5, threshold=1.0, reset=reset, strict=strict)
    expected, expected_last = numpy_lif(x.double().numpy(), np.zeros(x.shape[1:]), 0.5, 1.0, 1.0, reset, strict)
    assert np.array_equal(spikes.double().numpy(), expected)
    assert np.array_equal(last.double().numpy(), expected_last)
    assert not torch.equal(spikes, lif(x, decay=0.5, threshold=1.0, reset=reset, strict=not strict)[0])


@pytest.mark.parametrize("reset", ["zero", "subtract"])
@pytest.mark.parametrize("steps", [1, 2, 7])
def test_equals_a_numpy_loop_exactly(reset, steps):
    x, v = torch.randn(steps, 3, 4, dtype=torch.float64), torch.randn(3, 4, dtype=torch.float64)
    spikes, last = lif(x, v, decay=0.7, gain=1.3, threshold=0.6, reset=reset)
    expected, expected_last = numpy_lif(x.numpy(), v.numpy(), 0.7, 1.3, 0.6, reset)
    assert np.array_equal(spikes.numpy(), expected)
    assert np.array_equal(last.numpy(), expected_last)
    assert set(spikes.unique().tolist()) <= {0.0, 1.0}


@pytest.mark.parametrize("reset", ["zero", "subtract"])
@pytest.mark.parametrize("name", SURROGATES)
def test_gradients_of_the_smooth_relaxation(name, reset, monkeypatch):
    """With S(u) in the place of the step, autograd and finite differences agree in every argument."""
    monkeypatch.setattr(scan, "fire", lambda u, surrogate, strict: surrogate(u))
    values = [
        torch.randn(3, 2, 2),
        torch.randn(2, 2),
        torch.rand(2),
        torch.rand(2),
        torch.rand(2),
        torch.rand(3, 2, 1),
        torch.randn(3, 1, 2),
    ]
    values = [v.double().requires_grad_() for v in values]

    def f(x, v, decay, gain, threshold, scale, shift):
        return lif_reference(
            x, v, decay=decay, gain=gain, threshold=threshold, scale=scale, shift=shift, reset=reset, surrogate=SURROGATES[name]
        )

    assert torch.autograd.gradcheck(f, values)


@pytest.mark.parametrize("name", SURROGATES)
def test_surrogates_are_smooth_steps_of_slope_one(name):
    surrogate = SURROGATES[name]
    u = torch.linspace(-3, 3, 2001, dtype=torch.float64).requires_grad_()
    (slope,) = torch.autograd.grad(surrogate(u).sum(), u)
    assert slope.max().item() == pytest.approx(1, abs=1e-6)
    assert slope[1000].item() == pytest.approx(1, abs=1e-6)
    assert (slope >= 0).all()
    torch.testing.assert_close(slope, slope.flip(0))
    assert surrogate(torch.zeros(1)).item() == pytest.approx(0.5)


def test_surrogate_slopes_are_the_published_ones():
    u = torch.tensor([-0.5, -0.3, 0.2, 0.5, 1.2], dtype=torch.float64)
    sigma = 1 / (1 + (-4 * u).exp())
    expected = {
        "rectangle": (u.abs() < 0.5).double(),  # zero at the border itself
        "triangle": (1 - u.abs()).clamp(min=0),
        "arctan": 1 / (1 + (np.pi * u) ** 2),
        "sigmoid": 4 * sigma * (1 - sigma),
        "fast_sigmoid": 1 / (1 + 25 * u.abs()) ** 2,
    }
    for name, slope in expected.items():
        w = u.clone().requires_grad_()
        torch.testing.assert_close(torch.autograd.grad(fire(w, SURROGATES[name]).sum(), w)[0], slope)


ORACLES = {
    "arctan": lambda: sj_surrogate.ATan(alpha=2.0),
    "sigmoid": lambda: sj_surrogate.Sigmoid(alpha=4.0),
    "triangle": lambda: sj_surrogate.PiecewiseQuadratic(alpha=1.0),
    "rectangle": lambda: sj_surrogate.Rect(alpha=1.0),
}


@pytest.mark.parametrize("detach_reset", [False, True])
@pytest.mark.parametrize("reset", ["zero", "subtract"])
@pytest.mark.parametrize("name", ORACLES)
@pytest.mark.parametrize("strict", [False, True])
def test_spikingjelly_agrees(strict, name, reset, detach_reset, monkeypatch):
    """Same spikes, gradients within 1e-5, for its LIF without input decay: decay = 1 − 1/tau. It fires at the threshold too."""
    if strict:
        monkeypatch.setattr(sj_surrogate, "heaviside", lambda u: (u > 0).to(u))
    theirs = sj_neuron.LIFNode(
        tau=4 / 3, decay_input=False, v_threshold=0.5, v_reset=0.0 if reset == "zero" else None,
        surrogate_function=ORACLES[name](), detach_reset=detach_reset, step_mode="m",
    )  # fmt: skip
    x = torch.randint(-8, 9, (6, 4, 8)).double() / 8  # which meets the threshold now and then
    weight = torch.randn_like(x)
    a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
    options = dict(decay=0.25, threshold=0.5, reset=reset, surrogate=SURROGATES[name], detach_reset=detach_reset)
    ours, _ = lif(a, strict=strict, **options)
    other = theirs(b)
    assert torch.equal(ours, other.to(ours.dtype))
    assert not torch.equal(ours, lif(a, strict=not strict, **options)[0])
    (ours * weight).sum().backward()
    (other * weight).sum().backward()
    torch.testing.assert_close(a.grad, b.grad, rtol=1e-5, atol=1e-5)


def test_scale_and_shift_are_an_affine_map_of_the_current():
    x = torch.randn(4, 3, 5, 2, 2, dtype=torch.float64)
    scale, shift = torch.rand(4, 3, 5, 1, 1).double(), torch.randn(4, 1, 5, 1, 1).double()
    folded = lif(x, decay=0.5, scale=scale, shift=shift)
    plain = lif(scale * x + shift, decay=0.5)
    assert all(torch.equal(a, b) for a, b in zip(folded, plain, strict=True))


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 9), st.data())
def test_bit_equal_under_any_chunking(steps, data):
    cuts = sorted(data.draw(st.sets(st.integers(0, steps))) | {0, steps})
    x = torch.randn(steps, 2, 3)
    for f in (lambda x, v: lif(x, v, decay=0.9, threshold=0.5), lambda x, v: integrate(x, v, decay=0.9)):
        whole, last = f(x, None)
        v, pieces = None, []
        for a, b in itertools.pairwise(cuts):
            piece, v = f(x[a:b], v)
            pieces.append(piece)
        assert torch.equal(torch.cat(pieces), whole)
        assert torch.equal(v, last)


def test_channels_last_is_kept_and_changes_nothing():
    x = torch.randn(3, 2, 4, 5, 5)
    last = x.flatten(0, 1).contiguous(memory_format=torch.channels_last).unflatten(0, (3, 2)).requires_grad_()
    scale = torch.rand(3, 2, 4, 1, 1)
    a, v = lif(last, decay=0.5, scale=scale, threshold=0.3)
    assert a.flatten(0, 1).is_contiguous(memory_format=torch.channels_last)
    assert v.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(a, lif(x, decay=0.5, scale=scale, threshold=0.3)[0])
    (grad,) = torch.autograd.grad((a * torch.randn_like(a)).sum(), last)
    assert grad.flatten(0, 1).is_contiguous(memory_format=torch.channels_last)


def test_non_contiguous_input():
    x = torch.randn(3, 5, 4).transpose(1, 2)
    assert torch.equal(lif(x, decay=0.5)[0], lif(x.contiguous(), decay=0.5)[0])


def test_half_precision_is_charged_in_float32():
    x = torch.rand(40, 2, 8).bfloat16()
    spikes, v = lif(x, decay=0.99, threshold=30.0)
    assert spikes.dtype == torch.bfloat16
    assert v.dtype == torch.float32
    assert torch.equal(spikes.float(), lif(x.float(), decay=0.99, threshold=30.0)[0])


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
@pytest.mark.filterwarnings("ignore")
def test_compiled_equals_eager():
    x = torch.randn(3, 2, 8).requires_grad_()
    decay = torch.tensor(0.5, requires_grad=True)
    weight = torch.randn(3, 2, 8)

    def f(x, decay):
        return lif(x, decay=decay, threshold=0.5)[0]

    eager, fused = f(x, decay), torch.compile(f, fullgraph=True)(x, decay)
    assert torch.equal(eager, fused)
    for a, b in zip(*(torch.autograd.grad((y * weight).sum(), (x, decay)) for y in (eager, fused)), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(x=torch.randn(3)), r"\[T, N, ...\]"),
        (dict(x=torch.randn(0, 2)), "at least one time step"),
        (dict(x=torch.ones(3, 2, dtype=torch.int64)), "float tensor"),
        (
            dict(x=torch.randn(3, 2), v=torch.zeros(3)),
            "like one step of the current, torch.float32 .2. on cpu; got torch.float32 .3. on cpu",
        ),
        (dict(x=torch.randn(3, 2), v=torch.zeros(2).double()), "current, torch.float32 .2. on cpu; got torch.float64"),
        (dict(x=torch.randn(3, 2), decay=torch.ones(2).double()), "decay is torch.float64 but the current torch.float32"),
        (dict(x=torch.randn(3, 2), scale=torch.ones(3, 2).double()), "scale is torch.float64"),
        (dict(x=torch.randn(3, 2, 1), decay=torch.ones(4)), "decay must broadcast with one step"),
        (dict(x=torch.randn(3, 2, 1), threshold=torch.ones(5)), "threshold must broadcast"),
        (dict(x=torch.randn(3, 2), gain=torch.ones(1, 1, 2)), "gain must broadcast"),
        (dict(x=torch.randn(3, 2), scale=torch.ones(2, 2)), "scale must broadcast"),
        (dict(x=torch.randn(3, 2), shift=torch.ones(2)), "shift must broadcast"),
        (dict(x=torch.randn(3, 2), reset="soft"), 'reset must be "zero" or "subtract"'),
        (dict(x=torch.randn(3, 2), shift=torch.ones(3, 2, device="meta")), "shift is on meta but the current on cpu"),
        (dict(x=torch.randn(3, 2), v=torch.zeros(2, device="meta")), "on cpu; got torch.float32 .2. on meta"),
    ],
)
def test_bad_input_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        lif(arguments.pop("x"), arguments.pop("v", None), **{"decay": 0.5, **arguments})


@pytest.mark.parametrize("f", [lif, integrate])
@pytest.mark.parametrize("name", ["decay", "gain", "threshold"])
@pytest.mark.parametrize(
    "value",
    [
        1j, "0.5", np.array([0.5]), [0.5], None, True, Fraction(1, 2), math.nan, -math.inf, 10**400, 1e300,
        torch.ones(2, dtype=torch.complex64), torch.tensor(1), torch.tensor(True),
    ],
)  # fmt: skip
def test_constants_that_are_none_are_named(f, name, value):
    if f is integrate and name == "threshold":
        return
    with pytest.raises(ValueError, match=f"{name} must be a (finite number|float tensor), "):
        f(torch.randn(3, 2), **{"decay": 0.5, name: value})
    if not isinstance(value, torch.Tensor):
        with pytest.raises(ValueError, match=f"{name} must be a finite number"):
            (LIF if f is lif else Integrator)(**{name: value})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(decay=-0.1), r"decay must be in \[0, 1\], got -0.1"),
        (dict(decay=np.float32(1.5)), r"decay must be in \[0, 1\]"),
        (dict(threshold=-1), "threshold must be positive, got -1"),
        (dict(threshold=0.0), "threshold must be positive"),
        (dict(scale=2.0), "scale must be a tensor or None, got 2.0"),
        (dict(shift=[0.0]), "shift must be a tensor or None"),
        (dict(scale=torch.ones(3, 2, dtype=torch.complex64)), "scale must be a float tensor, got torch.complex64"),
        (dict(v=0.0), "the membrane must be a tensor or None, got 0.0"),
        (dict(x=np.ones((3, 2), np.float32)), "the current must be a tensor, got a NumPy array .3, 2.: call torch.from_numpy"),
        (dict(x=None), "the current must be a tensor, got None"),
        (dict(strict="no"), "strict must be True or False, got 'no'"),
        (dict(detach_reset=1), "detach_reset must be True or False, got 1"),
        (dict(surrogate="arctan"), "surrogate must be a function such as staa.ops.arctan, got 'arctan'"),
    ],
)
def test_arguments_of_another_type_or_range_are_named(arguments, message):
    with pytest.raises((ValueError, TypeError), match=message):
        lif(**{"x": torch.randn(3, 2), "decay": 0.5, **arguments})


@pytest.mark.parametrize("decay", [0, 1, np.float32(0.5), np.float64(0.5), np.int64(1)])
def test_numbers_of_any_kind_that_are_real(decay):
    x = torch.randn(3, 2)
    assert torch.equal(lif(x, decay=decay)[0], lif(x, decay=float(decay))[0])


def test_spikes_keep_the_value_of_the_step_for_extreme_membranes():
    u = torch.tensor([1e30, -1e30, 5e-45, -5e-45, 0.0])
    for surrogate in SURROGATES.values():
        assert fire(u, surrogate).tolist() == [1, 0, 1, 0, 1]


def test_encoders():
    x = torch.tensor([[0.0, 0.25, 1.0]])
    assert direct(x, 3).shape == (3, 1, 3)
    assert torch.equal(direct(x, 3)[2], x)
    generator = torch.Generator().manual_seed(1)
    spikes = rate(x, 4000, generator=generator)
    assert spikes.unique().tolist() == [0, 1]
    torch.testing.assert_close(spikes.mean(0), x, atol=0.03, rtol=0)
    assert latency(x, 5).argmax(0).tolist() == [[0, 3, 0]]
    assert latency(x, 5).sum(0).tolist() == [[0, 1, 1]]  # nothing to say, no spike
    for encode in (rate, latency):
        with pytest.raises(ValueError, match=r"\[0, 1\]"):
            encode(x * 2, 3)
    for steps in (0, 2.5, None):
        with pytest.raises(ValueError, match="steps must be a whole number of at least 1"):
            ops.direct(x, steps)
    for encode in (direct, rate, latency):
        with pytest.raises(TypeError, match="must be a tensor, got a NumPy array"):
            encode(x.numpy(), 3)
