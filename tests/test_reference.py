"""The switch to the reference path, and what works under it alone: second derivatives, torch.func, export, the hunt for NaN."""

import os
import subprocess
import sys
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn

import staa
from staa.attention import STAA
from staa.layers import Site, fold_batch_norm
from staa.models import resnet20
from staa.neurons import LIF, AdaptiveLIF
from staa.ops import arctan, cpu, lif, lif_reference, scan
from staa.ops.averages import batch_norm, context
from staa.ops.bits import spikes_as_bits
from staa.ops.switch import reference_chosen

KERNELS = pytest.mark.skipif(cpu.LIBRARY is None, reason=f"no CPU kernels: {cpu.WHY_NOT}")
SHAPE = (4, 2, 3, 5, 5)
FORWARD_MODE = pytest.mark.filterwarnings("ignore:.*torch.jit.script:FutureWarning")  # torch's own, at its first jvp


class Folding(nn.Module):
    """Every fast path at once: BatchNorm folded, attention pooled, a neuron."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(3)
        self.site = Site(AdaptiveLIF(3, surrogate=arctan), STAA(4, 3, dropout=0))
        for p in self.parameters():
            nn.init.normal_(p, 0.5, 0.2)

    def forward(self, x):
        return self.site(fold_batch_norm(x, self.norm))


def small_resnet():
    return resnet20(4, in_channels=2, steps=2, width=0.125, neuron=AdaptiveLIF, attention=STAA)


MODULES = {"LIF": lambda: LIF(), "AdaptiveLIF": lambda: AdaptiveLIF(3, surrogate=arctan), "folding": Folding}
FAST = {  # a scalar of x by each custom operation
    "lif": lambda x: lif(x, decay=0.5)[0].sum() + lif(x, decay=0.5)[1].pow(2).sum(),
    "batch_norm": lambda x: sum(p.pow(2).sum() for p in batch_norm(x, torch.ones(3), None, 1e-5)[1:4]),
    "context": lambda x: sum(p.pow(2).sum() for p in context(x, torch.ones(1, 1, 3))[1:]),
}


@pytest.fixture(params=MODULES)
def module(request):
    return MODULES[request.param]()


@KERNELS
@pytest.mark.parametrize("name", FAST)
def test_second_derivatives_of_a_fast_path_are_refused(name):
    f, x = FAST[name], torch.randn(SHAPE, requires_grad=True)
    (grad,) = torch.autograd.grad(f(x), x, create_graph=True)  # first ones are not
    (again,) = torch.autograd.grad(f(x), x)
    assert torch.equal(grad, again)
    with pytest.raises(RuntimeError, match=r"first derivatives alone.*staa\.reference.*STAA_REFERENCE=1"):
        torch.autograd.grad(grad.pow(2).sum(), x)
    with staa.reference():
        (grad,) = torch.autograd.grad(f(x), x, create_graph=True)
    (second,) = torch.autograd.grad(grad.pow(2).sum(), x)
    assert second.abs().sum() > 0


@KERNELS
@FORWARD_MODE
@pytest.mark.parametrize("name", FAST)
@pytest.mark.parametrize("transform", ["grad", "jacrev", "vmap", "jvp"])
def test_torch_func_without_the_switch_is_refused(name, transform):
    f, x = FAST[name], torch.randn(SHAPE)
    calls = {
        "grad": lambda: torch.func.grad(f)(x),
        "jacrev": lambda: torch.func.jacrev(f)(x),
        "vmap": lambda: torch.func.vmap(f)(x[None]),
        "jvp": lambda: torch.func.jvp(f, (x,), (x,)),
    }
    with pytest.raises(RuntimeError, match=r"does not work under torch\.func.*staa\.reference"):
        calls[transform]()
    with staa.reference():
        calls[transform]()


@KERNELS
@pytest.mark.parametrize("name", FAST)
def test_both_paths_have_the_same_gradients(name):
    x, found = torch.randn(SHAPE), []
    for choose in (False, True):
        leaf = x.clone().requires_grad_()
        if choose:
            with staa.reference():
                value = FAST[name](leaf)
        else:
            value = FAST[name](leaf)
        found.append((value, *torch.autograd.grad(value, leaf)))
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-5)


def test_gradcheck_and_gradgradcheck_of_the_smooth_relaxation(monkeypatch):
    monkeypatch.setattr(scan, "fire", lambda u, surrogate, strict: surrogate(u))
    x, decay = torch.randn(3, 2, 2).double().requires_grad_(), torch.tensor(0.5).double().requires_grad_()
    x5, key = torch.randn(2, 1, 2, 2, 2).double().requires_grad_(), torch.randn(1, 1, 2).double().requires_grad_()
    with staa.reference():
        for f, values in (
            (lambda x, decay: lif(x, decay=decay), (x, decay)),
            (lambda x, weight: batch_norm(x, weight.flatten(), None, 1e-5)[1:4], (x5, key)),
            (lambda x, key: context(x, key)[1:], (x5, key)),
        ):
            assert torch.autograd.gradcheck(f, values)
            assert torch.autograd.gradgradcheck(f, values)


@FORWARD_MODE
def test_torch_func_agrees_with_autograd(module):
    x, v = torch.randn(SHAPE), torch.randn(SHAPE)
    module.eval()
    f = lambda x: module(x).pow(2).sum()  # noqa: E731
    with staa.reference():
        leaf = x.clone().requires_grad_()
        (grad,) = torch.autograd.grad(f(leaf), leaf, create_graph=True)
        (second,) = torch.autograd.grad((grad * v).sum(), leaf)
        torch.testing.assert_close(torch.func.grad(f)(x), grad)
        torch.testing.assert_close(torch.func.jvp(f, (x,), (v,))[1], (grad * v).sum())
        torch.testing.assert_close(torch.func.jacrev(f)(x), grad)
        torch.testing.assert_close(torch.func.jvp(torch.func.grad(f), (x,), (v,))[1], second, rtol=1e-3, atol=1e-4)
        many = torch.stack([x, 2 * x])
        torch.testing.assert_close(torch.func.vmap(module)(many), torch.stack([module(one) for one in many]))


@pytest.mark.filterwarnings("ignore:an input .N, 2, H, W. is taken as N images")
def test_a_network_under_torch_func():
    """Gradients per sample, which need vmap over grad, equal those of one sample at a time."""
    model, x, y = small_resnet().eval(), torch.rand(3, 2, 8, 8), torch.tensor([0, 1, 2])
    weights = {name: p.detach() for name, p in model.named_parameters()}

    def loss(weights, x, y):
        logits = torch.func.functional_call(model, weights, (x[None],))
        return nn.functional.cross_entropy(logits.mean(0), y[None])

    with staa.reference():
        grads = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0, 0))(weights, x, y)
        alone = torch.func.grad(loss)(weights, x[1], y[1])
    for name, grad in alone.items():
        torch.testing.assert_close(grads[name][1], grad, rtol=1e-3, atol=1e-5)
    assert sum(grad.abs().sum() for grad in alone.values()) > 0


@pytest.mark.filterwarnings("ignore:an input .N, 2, H, W. is taken as N images")
def test_a_gradient_penalty_on_a_network():
    model, x = small_resnet(), torch.rand(2, 2, 8, 8, requires_grad=True)
    with staa.reference():
        (grad,) = torch.autograd.grad(model(x).pow(2).sum(), x, create_graph=True)
        grad.pow(2).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters() if p.ndim == 4)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("strict", [False, True])
def test_an_exported_network_holds_no_operation_of_staa(strict):
    model, x = small_resnet().eval(), torch.rand(2, 2, 8, 8)
    with staa.reference():
        program = torch.export.export(model, (x,), strict=strict)
        expected = model(x)
    assert "staa" not in str(program.graph)
    if not strict and cpu.LIBRARY is not None:
        assert "staa.lif" in str(torch.export.export(model, (x,)).graph)
    torch.testing.assert_close(program.module()(x), expected)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_onnx_export():
    pytest.importorskip("onnxscript")
    model, x = small_resnet().eval(), torch.rand(2, 2, 8, 8)
    with staa.reference():
        program = torch.onnx.export(model, (x,), dynamo=True)
    assert program is not None
    assert not {node.domain for node in program.model.graph} - {"", "pkg.torch.onnx"}


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_anomaly_detection_names_the_operation_that_made_a_nan(module):
    x = torch.randn(SHAPE)
    x[1, 0, 1, 2, 3] = torch.nan
    with staa.reference(), torch.autograd.detect_anomaly(), pytest.raises(RuntimeError, match="returned nan values"):
        module(x.requires_grad_()).sum().backward()


@KERNELS
@pytest.mark.filterwarnings("ignore::FutureWarning")  # torch's, of torch.jit.script, as it loads forward mode
@pytest.mark.parametrize("operation", ["lif", "batch_norm", "context"])
def test_forward_mode_names_the_switch(operation):
    x, one = torch.randn(2, 2, 3, 4, 4), torch.ones(3)
    f = {
        "lif": lambda x: lif(x, decay=0.5)[0],
        "batch_norm": lambda x: batch_norm(x, one, one, 1e-5)[1],
        "context": lambda x: context(x, one.view(1, 1, 3))[1],
    }[operation]
    with pytest.raises(RuntimeError, match=r"forward-mode.*staa.reference"), torch.autograd.forward_ad.dual_level():
        f(torch.autograd.forward_ad.make_dual(x, x))
    with pytest.raises(RuntimeError, match=r"forward-mode.*staa.reference"):
        torch.func.linearize(f, x)
    with staa.reference(), torch.autograd.forward_ad.dual_level():
        f(torch.autograd.forward_ad.make_dual(x, x))


@KERNELS
@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("operand", ["decay", "membrane", "scale", "weight", "bias", "key"])
def test_forward_mode_of_any_operand_names_the_switch(operand):
    x, one = torch.randn(2, 2, 3, 4, 4), torch.ones(3)
    f, at = {
        "decay": (lambda p: lif(x, decay=p), torch.tensor(0.5)),
        "membrane": (lambda p: lif(x, p, decay=0.5), x[0]),
        "scale": (lambda p: lif(x, decay=0.5, scale=p), one.view(1, 1, 3, 1, 1)),
        "weight": (lambda p: batch_norm(x, p, one, 1e-5), one),
        "bias": (lambda p: batch_norm(x, one, p, 1e-5), one),
        "key": (lambda p: context(x, p), one.view(1, 1, 3)),
    }[operand]
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(at, torch.ones_like(at))
        with pytest.raises(RuntimeError, match=r"forward-mode.*staa.reference"):
            f(dual)
        with staa.reference():
            f(dual)


@KERNELS
def test_gradients_in_batches_name_the_switch():
    x = torch.randn(2, 2, 3, requires_grad=True)

    def grads():
        y = lif(x, decay=0.5)[0]
        return torch.autograd.grad(y, x, torch.ones(5, *y.shape), is_grads_batched=True)[0]

    with pytest.raises(RuntimeError, match=r"one gradient at a time.*staa.reference"):
        grads()
    with pytest.raises(RuntimeError, match=r"one gradient at a time.*staa.reference"):
        torch.autograd.functional.jacobian(lambda x: lif(x, decay=0.5)[0], x, vectorize=True)
    with staa.reference():
        assert grads().shape == (5, 2, 2, 3)


def test_a_network_on_the_meta_device():
    with torch.device("meta"):
        model = resnet20(10, in_channels=2, steps=4, width=0.25, neuron=AdaptiveLIF, attention=STAA)
        assert model(torch.randn(4, 2, 2, 16, 16)).shape == (4, 2, 10)


@KERNELS
def test_bits_obey():
    spikes, weight = torch.ones(100, 100), torch.ones(100, 100, requires_grad=True)
    with staa.reference(), spikes_as_bits():
        assert (weight * spikes).grad_fn._saved_other is not None  # no hook stands in between
        torch.func.grad(lambda w: (w * spikes).sum())(weight)  # torch.func refuses hooks
    with spikes_as_bits(), pytest.raises(RuntimeError, match="saved tensor hooks"):
        torch.func.grad(lambda w: (w * spikes).sum())(weight)


def is_fused(y):
    return "Lif" in type(y.grad_fn).__name__


@KERNELS
def test_contexts_nest_and_end_with_an_error():
    x = torch.randn(2, 3, requires_grad=True)
    with staa.reference():
        with staa.reference():
            assert not is_fused(lif(x, decay=0.5)[0])
        assert not is_fused(lif(x, decay=0.5)[0])
    with pytest.raises(KeyError), staa.reference():
        raise KeyError
    assert is_fused(lif(x, decay=0.5)[0])


def _held():
    with staa.reference():
        yield


def test_generators_that_overlap_end_in_any_order():
    first, second = _held(), _held()
    next(first), next(second)
    first.close()
    assert reference_chosen()
    second.close()
    assert not reference_chosen()


def test_a_generator_closed_by_another_thread_leaves_the_choice_of_both():
    held = _held()
    next(held)

    def close():
        with staa.reference():
            held.close()
            during = reference_chosen()
        return during, reference_chosen()

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(close).result() == (True, False)
    assert not reference_chosen()
    with staa.reference():
        assert reference_chosen()
    assert not reference_chosen()


@KERNELS
def test_a_thread_chooses_for_itself_alone():
    barrier = threading.Barrier(2, timeout=20)

    def run(choose):
        x = torch.randn(2, 3, requires_grad=True)  # torch may hang if two threads are the first to use a leaf of a graph
        found = []
        for _ in range(50):
            if choose:
                with staa.reference():
                    barrier.wait()
                    found.append(is_fused(lif(x, decay=0.5)[0]))
                    barrier.wait()
            else:
                barrier.wait()
                found.append(is_fused(lif(x, decay=0.5)[0]))
                barrier.wait()
        return found

    with ThreadPoolExecutor(2) as pool:
        assert [set(found) for found in pool.map(run, (True, False))] == [{False}, {True}]
    assert not reference_chosen()


@KERNELS
@pytest.mark.filterwarnings("ignore")
def test_a_compiled_function_compiles_anew_where_the_choice_changes():
    graphs = []

    def backend(graph, inputs):
        graphs.append(str(graph.code))
        return graph.forward

    def f(x):
        return lif(x, decay=0.5)[0]

    x = torch.randn(3, 4)
    compiled = torch.compile(f, backend=backend)
    for choose in (False, True, False, True):
        if choose:
            with staa.reference():
                assert torch.equal(compiled(x), lif_reference(x, decay=0.5)[0])
        else:
            assert torch.equal(compiled(x), f(x))
    assert "staa.lif" in graphs[0]
    untraced = torch.__version__ < "2.14"  # the graph breaks at the choice, and what comes after it is compiled for both
    assert len(graphs) == 2 + untraced
    assert "staa.lif" not in graphs[1]


@KERNELS
@pytest.mark.filterwarnings("ignore")
def test_the_switch_within_a_compiled_function():
    """A break in the graph: what is within takes the reference path, what comes after does not."""
    graphs = []

    def backend(graph, inputs):
        graphs.append(str(graph.code))
        return graph.forward

    def f(x):
        with staa.reference():
            y = lif(x, decay=0.5)[0]
        return y + lif(x, decay=0.25)[0]

    x = torch.randn(3, 4)
    assert torch.equal(torch.compile(f, backend=backend)(x), f(x))
    assert not reference_chosen()


def test_the_environment_chooses_for_a_process():
    code = "import staa, torch; from staa.ops.switch import reference_chosen; print(reference_chosen())"
    for value, expected in (("1", "True"), ("0", "False"), ("", "False")):
        found = subprocess.run([sys.executable, "-c", code], env={**os.environ, "STAA_REFERENCE": value}, capture_output=True)
        assert found.stdout.decode().split() == [expected]
    found = subprocess.run([sys.executable, "-c", code], env={**os.environ, "STAA_REFERENCE": "yes"}, capture_output=True)
    assert b"STAA_REFERENCE must be 1" in found.stderr


def test_no_warning_of_a_slower_path_where_it_was_chosen():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with staa.reference():
            lif(torch.randn(2, 3), decay=0.5, surrogate=lambda u: u)
