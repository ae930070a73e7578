"""A training step: what it reads from the device, and how it may be taken."""

import json
import math
import shutil
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import pytest
import tiny
import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import staa
from staa.attention import STAA
from staa.cli import main
from staa.cli.options import TrainOptions
from staa.cli.parse import parse
from staa.layers import Passive
from staa.losses import mean_cross_entropy
from staa.models import resnet20
from staa.neurons import AdaptiveLIF
from staa.recipes import RECIPES
from staa.runs import run
from staa.training.checkpoint import load_checkpoint
from staa.training.optim import make_optimizer
from staa.training.progress import Result, Step, Warned
from staa.training.settings import Settings
from staa.training.step import Descent, recorded, update_average

READS = {"item", "tolist", "numpy", "cpu", "__array__", "__bool__", "__float__", "__int__", "__index__", "pin_memory"}
WAITS = {
    "aten::_local_scalar_dense", "aten::nonzero", "aten::is_nonzero", "aten::equal", "aten::masked_select", "aten::_unique2",
    "aten::lift_fresh",
}  # fmt: skip
"""The last one makes a tensor of Python's numbers, which must be sent to a GPU."""


class Calls(TorchFunctionMode):
    """What reads a tensor from Python; not all of it reaches the dispatcher on a CPU."""

    def __init__(self, seen):
        super().__init__()
        self.seen = seen

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if getattr(func, "__name__", "") in READS:
            self.seen.append(func.__name__)
        return func(*args, **(kwargs or {}))


class Operations(TorchDispatchMode):
    """What waits for a GPU, wherever it is called, in the backward pass too."""

    def __init__(self, seen):
        super().__init__()
        self.seen = seen

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.name().partition(".")[0] in WAITS:
            self.seen.append(func.name())
        return func(*args, **(kwargs or {}))


def reads_of(events):
    """(event, what was read on the way to it) of each event."""
    while True:
        seen = []
        with Calls(seen), Operations(seen):
            event = next(events, None)
        if event is None:
            return
        yield event, seen


def fused(kind):
    return lambda *args, **options: kind(*args, **{**options, "fused": True})


def series(model):
    recipe = RECIPES[f"series-{model}"]
    return replace(recipe, data=replace(recipe.data, name="ring"), batch_size=16, max_steps=12)


plain_pictures = replace(
    tiny.pictures,
    augment=replace(tiny.pictures.augment, policy=None, jitter=0.0, mixup=0.0, cutmix=0.0),
    loss=replace(tiny.pictures.loss, rate_weight=0.0),
)
LONG = {
    "events": replace(tiny.recipe, epochs=1, augment=replace(tiny.recipe.augment, cutout=3, events="nda")),
    "sgd": replace(tiny.recipe, epochs=1, optim=replace(tiny.recipe.optim, name="sgd", clip=1.0)),
    "pictures": replace(plain_pictures, epochs=1),
    "speedrun": replace(tiny.speedrun, epochs=1),
    "penalty": replace(plain_pictures, epochs=1, loss=tiny.pictures.loss),
    "spikestag": series("spikestag"),
    "gru": series("gru"),
}


@pytest.mark.some(2)
@pytest.mark.parametrize(("name", "bits"), [*((name, False) for name in LONG), ("events", True)])
def test_a_step_reads_nothing_from_the_device(name, bits, tmp_path, monkeypatch):
    """Between readings: data and augmentation, forward and backward pass, figures, gradients, optimizer, average, schedule."""
    recipe = replace(LONG[name], max_steps=12)
    monkeypatch.setattr(staa.runs.execute, "Settings", partial(Settings, read_every=10))
    for kind in ("SGD", "AdamW"):  # as on CUDA: the others keep their counters on the host
        monkeypatch.setattr(staa.training.optim, kind, fused(getattr(torch.optim, kind)))
    quiet = 0
    for event, seen in reads_of(run(replace(recipe, batch_size=2 * recipe.optim.accumulate), tmp_path / "run", bits=bits)):
        if not isinstance(event, Step):
            continue
        if event.read is not None:
            assert event.step in (10, 12, 8)
            assert "tolist" in seen
        elif event.step > 1:  # the first one begins the epoch, whose order is sent at once
            assert seen == []
            quiet += 1
    assert quiet >= 6


SMALL = replace(tiny.recipe, max_steps=4, model=replace(tiny.recipe.model, name=f"{tiny.__file__}:shallow"))


def losses(folder, **options):
    return [event.read.loss for event in run(SMALL, folder, **options) if isinstance(event, Step)]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_a_compiled_step_equals_one_as_it_is_written(tmp_path):
    """The first step, whose rates are measured, is as written; the others are compiled."""
    eager, found = losses(tmp_path / "eager"), losses(tmp_path / "compiled", compile=True)
    assert found == pytest.approx(eager, abs=1e-5)
    assert found[0] == eager[0]
    assert json.loads((tmp_path / "compiled" / "environment.json").read_text())["compile"] is True
    kept = [load_checkpoint(tmp_path / name)["model"] for name in ("eager", "compiled")]
    assert kept[0].keys() == kept[1].keys()


@pytest.mark.parametrize(
    ("where", "message"),
    [("loss", r"the loss is nan at step 3 \(epoch 1\)"), ("gradient", "gradients are not finite at step 3;")],
)
def test_what_is_not_finite_between_readings_is_named_and_never_saved(where, message, tmp_path, monkeypatch):
    """The steps after it, whose losses are not finite either, are not to blame."""
    calls = iter(range(100))

    def broken(logits, labels, *, label_smoothing):
        value = mean_cross_entropy(logits, labels)
        if next(calls) == 3:  # the first call is the trial
            return value * math.nan if where == "loss" else value + (logits * 0).sum().sqrt()  # its slope at 0 is infinite
        return value

    monkeypatch.setitem(staa.losses.LOSSES, "mean", broken)
    monkeypatch.setattr(staa.runs.execute, "Settings", partial(Settings, read_every=10))
    with pytest.raises(FloatingPointError, match=message):
        list(run(replace(tiny.recipe, batch_size=4), tmp_path / "run"))
    assert load_checkpoint(tmp_path / "run")["step"] == 0


def test_the_command_shows_steps_that_are_read(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(staa.runs.execute, "Settings", partial(Settings, read_every=10))
    assert main(["train", f"{tiny.__file__}:recipe", "--batch-size", "2", "--epochs", "3", "--out", str(tmp_path / "run")]) == 0
    text = capsys.readouterr().out
    assert "step    50  loss" in text
    logged = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [event["step"] for event in logged if event["event"] == "step" and "loss" in event] == [50, 60]


class Recorded:
    """Stands for a CUDA graph on the CPU: a replay runs the recorded function on the tensors that it was recorded with, and
    writes into those that it gave."""

    now = None

    def record(self, f, *args):
        result = f(*args)
        if Recorded.now is not None:
            Recorded.now.call = f, args, result
        return result

    def replay(self):
        f, args, result = self.call
        own = [p.grad for p in self.model.parameters()]
        self.model.zero_grad()
        again = f(*args)
        grads = [p.grad for p in self.model.parameters()]
        for mine, new in zip(tree_leaves((result, self.grads)), tree_leaves((again, grads)), strict=True):
            mine.copy_(new)
        for p, grad in zip(self.model.parameters(), own, strict=True):
            p.grad = grad


@pytest.fixture
def graphs(monkeypatch):
    """The graphs that were recorded, on the CPU."""
    made, cuda = [], torch.cuda

    def graph():
        made.append(Recorded())
        return made[-1]

    @contextmanager
    def capture(graph, pool, capture_error_mode):
        Recorded.now = graph
        yield
        Recorded.now = None
        graph.model, graph.grads = model_of[0], [p.grad for p in model_of[0].parameters()]

    model_of = []

    def of(f, model):
        model_of[:] = [model]
        return recorded(partial(Recorded().record, f), model)

    stream = SimpleNamespace(wait_stream=lambda other: None)
    monkeypatch.setattr(cuda, "CUDAGraph", graph)
    monkeypatch.setattr(cuda, "graph", capture)
    monkeypatch.setattr(cuda, "graph_pool_handle", lambda: (0, 1))
    monkeypatch.setattr(cuda, "Stream", lambda device: stream)
    monkeypatch.setattr(cuda, "current_stream", lambda device: stream)
    monkeypatch.setattr(cuda, "stream", lambda stream: nullcontext())
    monkeypatch.setattr(cuda, "get_rng_state", lambda device: torch.get_rng_state())
    monkeypatch.setattr(cuda, "set_rng_state", lambda state, device: torch.set_rng_state(state))
    monkeypatch.setattr(staa.training.step, "recorded", of)
    for module in (staa.runs.execute, staa.training.loop):
        monkeypatch.setattr(module, "check_compile", lambda *_, **__: None)
    return made


@pytest.mark.some(2)
@pytest.mark.parametrize("recipe", [SMALL, LONG["penalty"], LONG["gru"]])
@pytest.mark.parametrize("read_every", [1, 10])
def test_a_run_by_graphs_is_the_same(recipe, read_every, graphs, tmp_path, monkeypatch):
    """What a graph must not do: move statistics or random numbers while it is recorded, hand out what is overwritten, or take
    gradients of another step."""
    monkeypatch.setattr(staa.runs.execute, "Settings", partial(Settings, read_every=read_every))
    for name, compile in (("eager", False), ("graph", "graph")):
        for _ in run(recipe, tmp_path / name, compile=compile):
            pass
    assert len(graphs) == 2  # one measures firing rates
    a, b = (load_checkpoint(tmp_path / name) for name in ("eager", "graph"))
    for part in ("model", "average"):
        assert all(torch.equal(w, b[part][key]) for key, w in a.get(part, {}).items())
    assert {k: v for k, v in a["report"].items() if k not in ("seconds", "waited")} == {
        k: v for k, v in b["report"].items() if k not in ("seconds", "waited")
    }


def test_a_graph_is_recorded_anew_for_another_shape_and_says_why_it_can_not(graphs):
    model = torch.nn.Linear(3, 2)

    def f(x, y, measuring):
        if len(y) == 7:
            raise RuntimeError("operation not permitted when stream is capturing\nand more")
        loss = torch.nn.functional.cross_entropy(model(x), y)
        loss.backward()
        return Descent(loss.detach(), [], [])

    step = staa.training.step.recorded(f, model)
    batches = [(torch.randn(count, 3), torch.zeros(count, dtype=torch.long)) for count in (4, 4, 5)]
    losses = [step(x, y, False).loss for x, y in batches]
    for loss, (x, y) in zip(losses, batches, strict=True):
        assert torch.equal(loss, torch.nn.functional.cross_entropy(model(x), y))
    assert len(graphs) == 2
    with pytest.raises(RuntimeError, match=r"can't be recorded .*\(operation not permitted .* capturing\): train it without"):
        step(torch.randn(7, 3), torch.zeros(7, dtype=torch.long), False)


def test_a_graph_is_recorded_for_each_form_of_what_grows(graphs, tmp_path):
    for name, compile in (("eager", False), ("graph", "graph")):
        for _ in run(tiny.speedrun, tmp_path / name, compile=compile):
            pass
    forms = [(tuple(x.shape), measuring) for x, _, measuring in (graph.call[1] for graph in graphs)]
    sizes = [((1, 8, 3, 6, 6), True), ((1, 8, 3, 6, 6), False), ((1, 8, 3, 10, 10), False), ((8, 3, 12, 12), False)]
    assert forms == [*sizes, ((8, 3, 16, 16), False), ((8, 3, 16, 16), True)]
    a, b = (load_checkpoint(tmp_path / name) for name in ("eager", "graph"))
    for part in ("model", "average"):
        assert all(torch.equal(w, b[part][key]) for key, w in a[part].items())


def test_what_cannot_be_compiled_is_refused_before_anything_is_written(tmp_path, monkeypatch):
    def broken(*_, **__):
        raise RuntimeError("no working C++ compiler\nand so on")

    monkeypatch.setattr(torch, "compile", lambda f, **_: broken)
    for recipe, wanted, message in (
        (SMALL, "graph", "`compile=graph` needs a CUDA device, and this run is on cpu"),
        (SMALL, True, "`compile` can't be used here, leave it out: no working C.. compiler$"),
        (SMALL, "cudagraph", "`compile` must be True, False or \"graph\", got 'cudagraph'"),
        (SMALL, 1, '`compile` must be True, False or "graph", got 1'),
        (tiny.pictures, True, "`loss.rate_weight`.*`compile` leaves out"),
    ):
        with pytest.raises(ValueError, match=message):
            next(run(recipe, tmp_path / "run", device="cpu", compile=wanted))
        assert not (tmp_path / "run").exists()


def test_a_run_resumed_in_another_form_says_so(tmp_path, monkeypatch):
    for module in (staa.runs.execute, staa.training.loop):
        monkeypatch.setattr(module, "check_compile", lambda *_, **__: None)
    monkeypatch.setattr(staa.training.step, "compiled", lambda model: model)
    for _ in run(SMALL, tmp_path / "run", compile=True, stop=lambda: True):
        pass
    texts = [e.text for e in run(SMALL, tmp_path / "run", resume=tmp_path / "run") if isinstance(e, Warned)]
    assert any("compile True, now False" in text for text in texts)


@pytest.mark.parametrize(("given", "expected"), [([], False), (["--compile"], True), (["--compile", "graph"], "graph")])
@pytest.mark.parametrize("more", [[], ["--bits"]])
def test_the_flag(given, expected, more):
    options = parse(TrainOptions, [*given, *more], "staa train")
    assert (options.compile, options.bits) == (expected, bool(more))
    for wrong in ("yes", "cudagraph"):
        with pytest.raises(ValueError, match="graph"):
            parse(TrainOptions, ["--compile", wrong], "staa train")


@pytest.mark.parametrize("name", ["sgd", "adamw"])
@pytest.mark.parametrize("before", [False, True])
def test_a_fused_optimizers_checkpoint_resumes_on_another_device(tmp_path, monkeypatch, name, before):
    """And the other way round: what is fused is the device's affair."""
    recipe = replace(tiny.recipe, optim=replace(tiny.recipe.optim, name=name), max_steps=4)
    whole = list(run(recipe, tmp_path / "whole"))
    made = []
    for fuse in (before, not before):
        with monkeypatch.context() as patch:
            for kind in (torch.optim.SGD, torch.optim.AdamW) if fuse else ():
                patch.setattr(staa.training.optim, kind.__name__, fused(kind))
            patch.setattr(
                staa.runs.execute, "make_optimizer", lambda *args, **kw: made.append(make_optimizer(*args, **kw)) or made[-1]
            )
            asked = iter(range(10))
            resume = tmp_path / "run" if made else None
            events = list(run(recipe, tmp_path / "run", resume=resume, stop=lambda asked=asked: bool(next(asked))))
    assert [bool(optimizer.param_groups[0]["fused"]) for optimizer in made] == [before, not before]
    assert isinstance(events[-1], Result)
    assert events[-1].test["loss"] == pytest.approx(whole[-1].test["loss"], rel=1e-3)


@pytest.mark.parametrize("options", [{"use_buffers": True}, {"use_buffers": False}])
def test_the_average_is_torchs_own(options):
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.BatchNorm1d(3)).train()
    own, its = (AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9), **options) for _ in range(2))
    for k in range(4):
        model(torch.randn(5, 3))
        with torch.no_grad():
            for p in model.parameters():
                p.add_(torch.randn_like(p))
        update_average(own, model, first=k == 0)
        its.update_parameters(model)
        assert all(torch.equal(a, b) for a, b in zip(own.state_dict().values(), its.state_dict().values(), strict=True))


def test_autocast_covers_the_gates():
    """Their layers, forward and backward, are in half precision; the averages that they see are summed in float32."""
    model = resnet20(3, steps=2, width=0.1, neuron=AdaptiveLIF, attention=STAA)
    found = []
    for name, layer in model.named_modules():
        if name.rpartition(".")[2] in ("query", "value", "squeeze", "excite"):
            layer.register_forward_hook(Passive(lambda layer, given, out: found.append(out.dtype)))
    with torch.autocast("cpu", torch.bfloat16):
        model(torch.rand(2, 3, 8, 8))
    assert found
    assert set(found) == {torch.bfloat16}
