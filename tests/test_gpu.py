"""What only a CUDA device can show. Skipped without one."""

import json
import subprocess
import sys
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import test_fold_triton as folded
import test_fused as fused
import tiny
import torch
from torch import nn
from torch.nn import functional as F

import staa
from staa.attention import STAA
from staa.build import task_of
from staa.layers import Site
from staa.models import resnet20
from staa.models.parts import ConvNorm
from staa.neurons import AdaptiveLIF
from staa.ops import SURROGATES, lif, lif_reference
from staa.ops.bits import _pack, _unpack, spikes_as_bits
from staa.recipes import RECIPES
from staa.runs import evaluate_run, run
from staa.training.optim import make_optimizer
from staa.training.progress import Epoch, Result, Step
from staa.training.settings import Settings
from staa.training.step import Descent, fast_arithmetic, recorded

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


@pytest.fixture
def on_cuda():
    with torch.device("cuda"):
        yield


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("form", fused.FORMS)
def test_the_kernels_equal_the_reference(on_cuda, layout, form):
    x = fused.current(layout, (4, 3, 70, 9, 11))
    for (reset, detach), v in zip(fused.RESETS, 2 * (None, torch.randn(x.shape[1:])), strict=True):
        options = {**fused.constants(form, x), "reset": reset, "detach_reset": detach}
        fused.compare(fused.both(x, options, v), tolerance=5e-5)


@pytest.mark.parametrize("layout", ["contiguous", "channels_last", "features", "flat"])
@pytest.mark.parametrize("steps", [1, 10, 37])
def test_the_kernels_at_any_length(on_cuda, layout, steps):
    x = fused.current(layout, (steps, 3, 70, 9, 11))
    fused.compare(fused.both(x, fused.constants("attention", x), torch.randn(x.shape[1:])), tolerance=5e-5)


@pytest.mark.parametrize("surrogate", SURROGATES)
def test_the_kernels_surrogates(on_cuda, surrogate):
    x = fused.current("channels_last")
    options = {**fused.constants("attention", x), "surrogate": SURROGATES[surrogate]}
    fused.compare(fused.both(x, options), tolerance=5e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("form", fused.FORMS)
def test_the_kernels_charge_half_precision_in_float32(on_cuda, layout, form, dtype):
    x = fused.current(layout, (4, 8, 64, 16, 16)).to(dtype)
    (spikes, last, *grads), (expected, expected_last, *expected_grads) = fused.both(x, fused.constants(form, x))
    assert spikes.dtype == grads[0].dtype == dtype
    assert torch.equal(spikes, expected)
    assert torch.equal(last, expected_last)
    for a, b in zip(grads, expected_grads, strict=True):
        assert (a - b).norm() / b.norm() < 1e-2


def test_a_large_window_and_its_sums_again(on_cuda):
    """Many tiles; no atomics, so gradients of coefficients are the same bit for bit."""
    x, found = fused.current("channels_last", (4, 64, 128, 32, 32)), []
    options = fused.constants("attention", x)
    for _ in range(2):
        torch.manual_seed(0)
        found.append(fused.both(x, options))
    assert all(torch.equal(a, b) for a, b in zip(found[0][0], found[1][0], strict=True))
    fused.compare(found[0], tolerance=1e-4)


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize(
    ("shape", "dtype"),
    [
        ((4, 64, 64, 32, 32), torch.bfloat16),
        ((4, 3, 70, 9, 11), torch.float32),
        ((1, 2, 24, 64, 65), torch.float16),
        ((3, 1, 600, 2, 3), torch.bfloat16),
        ((2, 1, 2100, 1, 1), torch.float32),
        ((1, 1, 1, 1, 1), torch.float32),
    ],
)
def test_averages_are_those_of_plain_torch(on_cuda, shape, layout, dtype):
    tolerance = 5e-5 if shape[1] == 64 else 2e-5  # a sum over 262,144 positions that nearly cancel: 2.5e-5 was seen
    folded.compare_averages(shape, (1, 1), layout, dtype, times=2, tolerance=tolerance)
    folded.compare_averages(shape, shape[:2], layout, dtype, tolerance=tolerance)


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("attention", folded.ATTENTION)
def test_a_site_folded_and_by_the_reference(on_cuda, layout, attention):
    """Statistics differ by rounding, so a spike at its threshold may."""
    make = folded.ATTENTION[attention]
    network = nn.Sequential(ConvNorm(2, 5, 3), Site(AdaptiveLIF(5), make and make()))
    x = folded.window((3, 8, 2, 20, 21), folded.ORDER[layout])
    found, expected = (folded.sites(network, x, choose) for choose in (torch.enable_grad(), staa.reference()))
    assert (found[0] != expected[0]).float().mean() < 1e-4
    for a, b in zip(found[1:], expected[1:], strict=True):
        folded.close(a, b, 1e-2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_spikes_are_kept_as_bits(on_cuda, dtype):
    spikes, _ = folded.spikes_of((3, 5, 70, 9, 11), dtype)
    kept = _pack(spikes.flatten(0, 1))
    assert kept[0].nbytes <= spikes.numel() / 8 * (1 + 1 / 64) + 8
    assert torch.equal(_unpack(kept), spikes.flatten(0, 1))


def gradients(model, x, y, bits):
    torch.manual_seed(1)
    model.zero_grad()
    with spikes_as_bits() if bits else nullcontext(), torch.autocast(x.device.type, torch.bfloat16):
        logits = model(x)
    F.cross_entropy(logits.float().mean(0), y).backward()
    return [p.grad for p in model.parameters()]


def test_forward_and_backward_do_not_wait_for_the_device():
    """With bits and without: what waits raises. The gradients are the same but for the order in which convolutions sum."""
    model = resnet20(10, steps=4, width=0.25, neuron=AdaptiveLIF, attention=STAA).cuda().to(memory_format=torch.channels_last)
    x, y = torch.rand(8, 3, 16, 16, device="cuda"), torch.randint(10, (8,), device="cuda")
    for bits in (False, True):
        gradients(model, x, y, bits)  # kernels are compiled and loaded
    torch.cuda.set_sync_debug_mode("error")
    try:
        found = [gradients(model, x, y, bits) for bits in (False, True)]
    finally:
        torch.cuda.set_sync_debug_mode("default")
    for a, b in zip(*found, strict=True):
        folded.close(a, b, 2e-2)


spikestag = RECIPES["series-spikestag"]
in_batches = replace(tiny.pictures.augment, policy=None, jitter=0.0)
LOOPS = {
    "events": replace(tiny.recipe, batch_size=4, augment=replace(tiny.recipe.augment, cutout=3, events="nda")),
    "sgd": replace(tiny.recipe, batch_size=4, optim=replace(tiny.recipe.optim, name="sgd", clip=1.0)),
    "pictures": replace(tiny.pictures, batch_size=4, augment=in_batches),
    "one by one": replace(tiny.pictures, batch_size=4),
    "spikestag": replace(spikestag, max_steps=14, data=replace(spikestag.data, name="ring")),
}
"""More than ten steps each; mixing, a penalty and an average among them."""


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("name", LOOPS)
def test_a_training_step_does_not_wait_for_the_device(tmp_path, name, workers):
    """Data, augmentation, forward and backward pass, optimizer, average and figures, unless the step is read.

    An epoch begins with its order, and the first steps load kernels.
    """
    of_epoch, steps, quiet = 1, 0, 0
    try:
        for event in run(LOOPS[name], tmp_path / "run", device="cuda", workers=workers):
            of_epoch, done = getattr(event, "epoch_steps", of_epoch), getattr(event, "step", 0)
            steps = getattr(event, "steps", steps)
            waits = done < 2 or done % of_epoch == 0 or (done + 1) % of_epoch == 0 or (done + 1) % 10 == 0 or done + 1 >= steps
            torch.cuda.set_sync_debug_mode("default" if waits or not isinstance(event, Step) else "error")
            quiet += not waits
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert quiet >= 6


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_optimizers_are_fused_and_their_checkpoints_go_to_a_cpu_and_back(tmp_path, name):
    recipe = replace(tiny.recipe, optim=replace(tiny.recipe.optim, name=name), epochs=3, precision="float32")
    optimizer = make_optimizer(nn.Linear(2, 2).cuda(), name=name, lr=0.1)
    assert all(group["fused"] for group in optimizer.param_groups)
    assert not make_optimizer(nn.Linear(2, 2), name=name, lr=0.1).param_groups[0]["fused"]
    for count, device in ((4, "cuda"), (4, "cpu"), (100, "cuda")):
        asked = iter(range(10**6))
        resume = tmp_path / "run" if (tmp_path / "run").exists() else None
        events = list(
            run(recipe, tmp_path / "run", device=device, resume=resume, stop=lambda n=count, asked=asked: next(asked) >= n)
        )
    assert isinstance(events[-1], Result)


def test_products_in_float32_take_tf32_in_a_step_alone():
    def error():
        torch.manual_seed(0)
        a, b = torch.randn(512, 512, device="cuda"), torch.randn(512, 512, device="cuda")
        return ((a @ b).double() - a.double() @ b.double()).abs().max().item()

    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.benchmark
    exact = error()
    with fast_arithmetic(torch.device("cuda")):
        assert torch.backends.cudnn.benchmark
        assert error() > 10 * exact
    assert (torch.get_float32_matmul_precision(), torch.backends.cudnn.benchmark) == before
    assert error() == exact


@pytest.mark.parametrize(("name", "form"), [("shallow", True), *((name, "graph") for name in ("shallow", "speedrun", *LOOPS))])
def test_a_step_compiled_or_recorded_trains_as_it_is_written(tmp_path, monkeypatch, name, form):
    """The same random numbers and samples. Rounding differs, so spikes at their thresholds may, and what follows from them."""
    small = replace(tiny.recipe, model=replace(tiny.recipe.model, name=f"{tiny.__file__}:shallow"))
    recipe = replace({"shallow": small, "speedrun": tiny.speedrun, **LOOPS}[name], precision="float32", max_steps=4)
    monkeypatch.setattr(staa.runs.execute, "Settings", partial(Settings, read_every=1))
    eager, found = (list(run(recipe, tmp_path / str(how), device="cuda", compile=how)) for how in (False, form))
    losses = [[event.read.loss for event in events if isinstance(event, Step)] for events in (found, eager)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3 if name == "shallow" else 0.05)
    rates = [next(event.rates for event in events if isinstance(event, Epoch)) for events in (found, eager)]
    assert rates[0] == pytest.approx(rates[1], abs=0.02)
    assert json.loads((tmp_path / str(form) / "environment.json").read_text())["compile"] == form
    assert isinstance(found[-1], Result)


def test_a_graph_runs_the_recorded_step():
    """One step's loss, sums and gradients, with random parts, twice from the same weights."""
    recipe = replace(tiny.recipe, precision="float32")
    source = task_of(recipe).source(Path())
    x, y = next(iter(task_of(recipe).batches(source, "train", torch.device("cuda"), workers=0, training=True).epoch()))
    model = task_of(recipe).model_for(source).cuda()
    buffers = {k: v.clone() for k, v in model.state_dict().items()}

    def descend(x, y, measuring):
        loss = F.cross_entropy(model(x).mean(0), y)
        loss.backward()
        return Descent(loss.detach(), [loss.detach() * 2], [])

    found = []
    for take in (descend, recorded(descend, model)):
        for _ in range(2):
            model.load_state_dict(buffers)
            model.zero_grad()
            torch.manual_seed(3)
            result = take(x, y, False)
            found.append((result, [p.grad.clone() for p in model.parameters()]))
    for result, grads in found[1:]:
        torch.testing.assert_close(result.loss, found[0][0].loss, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(result.sums[0], 2 * result.loss)
        for a, b in zip(grads, found[0][1], strict=True):
            folded.close(a, b, 1e-2)


WAITS = """
import torch
from torch import nn
from staa.training.step import Descent, recorded

step = recorded(lambda x, y, measuring: Descent(x.sum() * x.sum().item(), [], []), nn.Linear(2, 2).cuda())
step(torch.ones(2, device="cuda"), torch.ones(2, device="cuda"), False)
"""


def test_what_waits_in_a_step_can_not_be_recorded():
    """In a process of its own: one whose recording failed draws no more random numbers on the device (seen with torch 2.11)."""
    done = subprocess.run([sys.executable, "-c", WAITS], capture_output=True, text=True, cwd=Path(__file__).parents[1])
    assert "RuntimeError: a step of this network can't be recorded as a CUDA graph" in done.stderr
    assert done.stderr.rstrip().endswith("train it without `compile=graph`")


def test_numbers_may_stay_on_the_cpu():
    x = torch.randn(4, 3, 5, device="cuda")
    decay = torch.tensor(0.3, requires_grad=True)
    spikes, last = lif(x, decay=decay)
    assert torch.equal(spikes, lif_reference(x, decay=decay)[0])
    (spikes.sum() + last.sum()).backward()
    assert decay.grad is not None
    assert decay.grad.device.type == "cpu"


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
    assert events[-1].test["accuracy"] == 1.0
    environment = json.loads((tmp_path / "run" / "environment.json").read_text())
    assert environment["precision"] == ("float32" if precision == "float32" else "bfloat16")


@pytest.mark.parametrize("workers", [0, 2])
def test_every_augmentation_trains_and_resumes(tmp_path, workers):
    recipe = replace(tiny.pictures, precision="float32")
    asked = iter(range(10**6))
    for _ in run(recipe, tmp_path / "run", device="cuda", workers=workers, stop=lambda: next(asked) > 1):
        pass
    events = list(run(recipe, tmp_path / "run", device="cuda", workers=workers, resume=tmp_path / "run"))
    assert isinstance(events[-1], Result)


@pytest.mark.parametrize("augment", [tiny.pictures.augment, replace(tiny.pictures.augment, policy=None, jitter=0.0)])
def test_batches_on_a_gpu_follow_from_the_seed_alone(augment):
    recipe, device = replace(tiny.pictures, augment=augment), torch.device("cuda")
    source = task_of(recipe).source(Path())

    def batches(workers, start=0):
        return list(task_of(recipe).batches(source, "train", device, workers=workers, training=True).epoch(3, start))

    whole = batches(0)
    for other in (batches(2), batches(0)):
        assert all(torch.equal(x, u) and torch.equal(y, v) for (x, y), (u, v) in zip(whole, other, strict=True))
    assert torch.equal(batches(0, 2)[0][0], whole[2][0])
    assert whole[0][0].device.type == whole[0][1].device.type == "cuda"


@pytest.mark.parametrize("model", ["spikestag", "ispikformer", "gru", "linear", "last-value"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_forecasters_train_and_resume(tmp_path, model, precision):
    recipe = RECIPES[f"series-{model}"]
    recipe = replace(recipe, data=replace(recipe.data, name="ring"), precision=precision, epochs=2, max_steps=60)
    asked = iter(range(10**6))
    for _ in run(recipe, tmp_path / "run", device="cuda", stop=lambda: next(asked) > 20):
        pass
    result = list(run(recipe, tmp_path / "run", device="cuda", resume=tmp_path / "run"))[-1]
    assert isinstance(result, Result)
    assert result.test["mae"] == pytest.approx(evaluate_run(tmp_path / "run", device="cpu")["mae"], rel=0.05)
