import copy
import json
import math
import os
import re
from dataclasses import replace
from pathlib import Path

import pytest
import tiny
import torch
from safetensors.torch import load_file
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import staa
from staa.attention import STAA
from staa.build import task_of
from staa.cli.flags import flags_of
from staa.layers import PerStep
from staa.locks import exclusive
from staa.losses import mean_binary_cross_entropy, mean_cross_entropy, rate_penalty, tet
from staa.neurons import LIF, AdaptiveLIF
from staa.rates import firing_rates
from staa.recipes import RECIPES
from staa.recipes.as_json import from_json, to_json
from staa.recipes.code import for_folder
from staa.recipes.parts import Augment, Data, Forecast, Loss, Optim
from staa.recipes.recipe import Recipe
from staa.runs import evaluate_run, run
from staa.runs.transfer import transfer_weights
from staa.training.checkpoint import load_checkpoint
from staa.training.evaluate import evaluate
from staa.training.learner import Learner
from staa.training.metrics import classification_figures, classification_sums
from staa.training.optim import cosine_schedule, make_optimizer
from staa.training.progress import Epoch, Interrupted, Result, Step, Transfer, Warned, for_log
from staa.training.settings import Settings
from staa.training.weights import measured_weights


def finish(recipe, folder, **options):
    return list(run(recipe, folder, **options))


SGD = replace(tiny.recipe, optim=replace(tiny.recipe.optim, name="sgd"))


class OneBatch:
    """What `evaluate` takes, of one batch."""

    def __init__(self, *batch):
        self.batch = batch

    def __len__(self):
        return 1

    def epoch(self, epoch=0, start=0):
        yield self.batch


def stop_after(count):
    """A stop() that says yes after so many questions."""
    asked = iter(range(10**9))
    return lambda: next(asked) >= count - 1


def same(a, b):
    assert a.keys() == b.keys()
    for key in a.keys() - {"seconds", "waited"}:
        if isinstance(a[key], dict):
            same(a[key], b[key])
        elif isinstance(a[key], torch.Tensor):
            assert torch.equal(a[key], b[key]), key
        elif isinstance(a[key], list) and a[key] and isinstance(a[key][0], dict):
            for x, y in zip(a[key], b[key], strict=True):
                same(x, y)
        else:
            assert a[key] == b[key], key


@pytest.mark.some(2)
@pytest.mark.parametrize(
    ("recipe", "stops"),
    [
        (tiny.recipe, [5]),
        (tiny.recipe, [3]),
        (tiny.recipe, [1, 1, 5, 2]),
        (SGD, [7]),
        (tiny.pictures, [4]),
        (tiny.pictures, [3, 2]),
        (tiny.speedrun, [6]),
        (tiny.speedrun, [2, 3, 3]),
    ],
)
def test_resume_is_bit_equal(tmp_path, recipe, stops):
    """One go of 2 epochs of 4 or 5 steps against stops at the border and inside epochs: every tensor and figure equal.

    `tiny.pictures` has all augmentation, in a worker process, TET, soft targets, a rate penalty, accumulation and EMA;
    `tiny.speedrun` grows within an epoch.
    """
    whole = finish(recipe, tmp_path / "whole")
    resume = None
    pieces = []
    for count in stops:
        events = finish(recipe, tmp_path / "pieces", resume=resume, stop=stop_after(count))
        assert isinstance(events[-1], Interrupted)
        pieces += events
        torch.manual_seed(123)  # the caller's random state must not matter
        torch.randn(7)
        resume = tmp_path / "pieces"
    pieces += finish(recipe, tmp_path / "pieces", resume=resume)
    same(load_checkpoint(tmp_path / "whole"), load_checkpoint(tmp_path / "pieces"))

    def figures(events, kind, keys):
        return [{k: e[k] for k in keys} for e in map(for_log, events) if e["event"] == kind]

    for kind, keys in (
        ("step", ("step", "loss", "lr", "accuracy")),
        ("epoch", ("loss", "accuracy", "validation_loss", "best", "rates")),
        ("result", ("test_loss", "test_accuracy")),
    ):
        assert figures(whole, kind, keys) == figures(pieces, kind, keys)


def test_a_checkpoint_before_the_last_resumes_too(tmp_path):
    whole = finish(tiny.recipe, tmp_path / "a")
    finish(tiny.recipe, tmp_path / "b", stop=stop_after(8))
    again = finish(tiny.recipe, tmp_path / "b", resume=tmp_path / "b" / "previous.pt")
    assert again[0].step == 5
    assert again[-1].test["loss"] == whole[-1].test["loss"]


def test_two_runs_are_equal_and_seeds_differ(tmp_path):
    a, b = finish(tiny.recipe, tmp_path / "a"), finish(tiny.recipe, tmp_path / "b")
    assert a[-1] == b[-1]
    other = finish(replace(tiny.recipe, seed=1), tmp_path / "c")
    assert [e.read.loss for e in other if isinstance(e, Step)] != [e.read.loss for e in a if isinstance(e, Step)]


def test_a_run_folder_holds_the_whole_truth(tmp_path):
    events = finish(tiny.recipe, tmp_path / "run")
    folder = tmp_path / "run"
    assert {p.name for p in folder.iterdir()} == {
        "recipe.json", "environment.json", "log.jsonl", "last.pt", "previous.pt", "best.safetensors", "result.json", "code",
    }  # fmt: skip
    assert from_json((folder / "recipe.json").read_text()) == for_folder(tiny.recipe)[0]
    assert [p.read_bytes() for p in (folder / "code").iterdir()] == [Path(tiny.__file__).read_bytes()]
    environment = json.loads((folder / "environment.json").read_text())
    assert environment["torch"] == torch.__version__
    assert environment["data"]["split"] == "tiny"
    log = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert [e["event"] for e in log] == ["environment", "start", "epoch", "step", "epoch", "end", "result"]
    result = json.loads((folder / "result.json").read_text())
    assert result["test_accuracy"] == events[-1].test["accuracy"] == log[-1]["test_accuracy"]
    assert evaluate_run(folder)["loss"] == result["test_loss"]
    assert evaluate_run(folder, split="validation", weights="best")["samples"] == 8
    # a finished run only tells its result again
    assert list(run(tiny.recipe, folder, resume=folder)) == [events[-1]]


def test_the_test_set_is_touched_once_at_the_end(tmp_path, monkeypatch):
    seen = []
    original = staa.runs.execute.evaluate_in_detail
    monkeypatch.setattr(staa.runs.execute, "evaluate_in_detail", lambda *a, **k: seen.append(True) or original(*a, **k))
    events = run(tiny.recipe, tmp_path / "run")
    for event in events:
        if not isinstance(event, Result):
            assert not seen
    assert seen == [True]


def test_load_gives_the_model_that_was_measured(tmp_path):
    finish(tiny.recipe, tmp_path / "run")
    model = staa.load(tmp_path / "run")
    assert not model.training
    source = tiny.events(steps=3, validation=0.1)
    with torch.no_grad():
        logits = model(source.prepare(source.test.x))
    figures = classification_figures(classification_sums(logits, source.test.y))
    assert figures["loss"] == pytest.approx(json.loads((tmp_path / "run" / "result.json").read_text())["test_loss"])
    best = staa.load(tmp_path / "run", weights="best")
    assert best.state_dict().keys() == model.state_dict().keys()


def test_own_neuron_from_a_file(tmp_path):
    assert math.isfinite(finish(replace(tiny.own_neuron, epochs=1), tmp_path / "run")[-1].test["loss"])
    assert staa.load(tmp_path / "run").stages[0][1].neuron.threshold == 0.3


def test_without_validation(tmp_path):
    recipe = replace(tiny.recipe, data=replace(tiny.recipe.data, validation=0.0))
    events = finish(recipe, tmp_path / "run")
    assert not any("validation_loss" in for_log(e) for e in events)
    with pytest.raises(ValueError, match="held out no validation"):
        evaluate_run(tmp_path / "run", split="validation")
    with pytest.raises(FileNotFoundError, match=r"best.safetensors is missing: .* = 0 there are only the last weights"):
        staa.load(tmp_path / "run", weights="best")


def test_max_steps_cuts_the_run_and_its_schedule(tmp_path):
    events = finish(replace(tiny.recipe, max_steps=7), tmp_path / "run")
    steps = [e for e in events if isinstance(e, Step)]
    assert len(steps) == 7
    assert [e.step for e in events if isinstance(e, Epoch)] == [5, 7]
    assert steps[-1].lr < 0.2 * tiny.recipe.optim.lr


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path):
    finish(tiny.recipe, tmp_path / "run", stop=stop_after(6))
    state = load_checkpoint(tmp_path / "run")
    assert state["step"] == 6

    calls = iter(range(10**6))

    def broken(logits, labels):
        return mean_cross_entropy(logits, labels) * (math.nan if next(calls) == 2 else 1)  # the first call is the trial

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(staa.losses.LOSSES, "mean", lambda logits, labels, *, label_smoothing: broken(logits, labels))
        with pytest.raises(FloatingPointError, match=r"the loss is nan at step 8 \(epoch 2\); the last good checkpoint"):
            finish(tiny.recipe, tmp_path / "run", resume=tmp_path / "run")
    same(load_checkpoint(tmp_path / "run"), state)


def test_weights_that_are_not_finite_are_never_saved(tmp_path, monkeypatch):
    class Breaking(torch.optim.SGD):
        def step(self, closure=None):
            self.param_groups[0]["params"][0].data.fill_(math.inf)

    monkeypatch.setattr(staa.runs.execute, "make_optimizer", lambda model, **_: Breaking(model.parameters(), lr=0.1))
    with pytest.raises(FloatingPointError, match="a weight is not finite after step 1; the last good checkpoint is kept"):
        finish(replace(tiny.recipe, max_steps=1), tmp_path / "run")
    state = load_checkpoint(tmp_path / "run")
    assert state["step"] == 0
    assert all(p.isfinite().all() for p in state["model"].values())
    assert not (tmp_path / "run" / "best.safetensors").exists()


@pytest.mark.parametrize("clip", [None, 1.0])
def test_gradients_that_are_not_finite_stop_the_run_before_anything_is_saved(tmp_path, monkeypatch, clip):
    """The loss stays finite, so nothing else tells. They are read at the epoch's end, and their steps named."""
    calls = iter(range(10**6))

    class Idle(torch.optim.SGD):
        def step(self, closure=None):
            pass

    def optimizer(model, **_):
        next(model.parameters()).register_hook(lambda grad: grad * (math.nan if next(calls) in (2, 4) else 1))
        return Idle(model.parameters(), lr=0.1)

    recipe = replace(tiny.recipe, optim=replace(tiny.recipe.optim, clip=clip))
    monkeypatch.setattr(staa.runs.execute, "make_optimizer", optimizer)
    with pytest.raises(FloatingPointError, match=r"not finite at steps \d, \d; the last good .*lower learning rate.*reference"):
        finish(recipe, tmp_path / "run")
    assert load_checkpoint(tmp_path / "run")["step"] == 0
    assert not (tmp_path / "run" / "best.safetensors").exists()


def test_figures_that_are_not_finite_are_no_result(tmp_path):
    model = nn.Linear(2, 3)
    model.weight.data.fill_(3e38)
    with pytest.raises(FloatingPointError, match="the measured loss is nan"):
        evaluate(model, OneBatch(torch.full((1, 4, 2), 10.0), torch.zeros(4, dtype=torch.long)))


def test_batchnorm_needs_more_than_one_image(tmp_path):
    recipe = replace(tiny.recipe, batch_size=4, model=replace(tiny.recipe.model, steps=1), optim=Optim(accumulate=4))
    with pytest.raises(ValueError, match="in 4 pieces at T = 1 .* make it at least 8"):
        finish(recipe, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_short_run_gets_past_its_warm_up(tmp_path):
    recipe = replace(tiny.recipe, max_steps=6, epochs=100, optim=replace(tiny.recipe.optim, warmup_epochs=50))
    rates = [event.lr for event in finish(recipe, tmp_path / "run") if isinstance(event, Step)]
    assert rates[2] == pytest.approx(recipe.optim.lr)
    assert rates[5] < rates[4] < recipe.optim.lr


def test_silent_and_saturated_layers_are_named_in_the_first_epoch(tmp_path):
    class Rest(nn.Module):
        threshold = 1.0

        def __init__(self, value):
            super().__init__()
            self.value = value

        def forward(self, x, scale=None, shift=None):
            return torch.full_like(x, self.value) + 0 * x

        def scan(self, x):
            raise NotImplementedError

    values = iter([0.0, 1.0] + [0.5] * 6)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(staa.neurons.NEURONS, "rest", lambda channels: Rest(next(values, 0.5)))
        recipe = replace(tiny.recipe, model=replace(tiny.recipe.model, neuron="rest", attention=None))
        texts = [e.text for e in finish(recipe, tmp_path / "run") if isinstance(e, Warned)]
    assert len(texts) == 2
    assert "stages.0.1 is silent" in texts[0]
    assert "stages.0.3 is saturated" in texts[1]
    assert "lower threshold" in texts[1]  # once, however many layers there are
    assert "threshold" not in texts[0]
    settings = {f.replace("-", "_") for f in flags_of(Recipe)}
    assert set(re.findall(r"`([\w.]+)", texts[1])) <= settings


def test_bad_input_is_refused_before_anything_is_written(tmp_path):
    cases = [
        (replace(tiny.recipe, model=replace(tiny.recipe.model, attention="stta")), "unknown attention 'stta'; did you mean"),
        (replace(tiny.recipe, model=replace(tiny.recipe.model, neuron="lyf")), "unknown neuron 'lyf'"),
        (replace(tiny.recipe, model=replace(tiny.recipe.model, name="vgg")), "unknown model 'vgg'"),
        (replace(tiny.recipe, data=replace(tiny.recipe.data, name="cifar1000")), "did you mean cifar100"),
    ]
    for recipe, message in cases:
        with pytest.raises(ValueError, match=message):
            finish(recipe, tmp_path / "run")
    with pytest.raises(FileNotFoundError, match="cifar100 is not under"):
        finish(replace(RECIPES["cifar100-resnet20-tiny-staa"]), tmp_path / "run", data_root=tmp_path)
    with pytest.raises(ValueError, match="device 'cuda:99'"):
        finish(tiny.recipe, tmp_path / "run", device="cuda:99")
    assert not (tmp_path / "run").exists()


def test_what_resume_refuses(tmp_path):
    finish(tiny.recipe, tmp_path / "a", stop=stop_after(2))
    with pytest.raises(ValueError, match="holds a run already"):
        finish(tiny.recipe, tmp_path / "a")
    told = list(run(replace(tiny.recipe, expect="told otherwise"), tmp_path / "a", resume=tmp_path / "a", stop=lambda: True))
    assert told[-1].step == 3  # texts about a recipe do not make it another
    with pytest.raises(ValueError, match=r"another recipe \(its, yours\): epochs: 2, 3"):
        finish(replace(tiny.recipe, epochs=3), tmp_path / "a", resume=tmp_path / "a")
    finish(replace(tiny.recipe, seed=5), tmp_path / "b", stop=stop_after(2))
    with pytest.raises(ValueError, match=r"belongs to another recipe \(its, the run's\): seed: 5, 0"):
        finish(tiny.recipe, tmp_path / "a", resume=tmp_path / "b" / "last.pt")
    environment = tmp_path / "a" / "environment.json"
    environment.write_text(environment.read_text().replace('"split": "tiny"', '"split": "other"'))
    with pytest.raises(ValueError, match="split differs"):
        finish(tiny.recipe, tmp_path / "a", resume=tmp_path / "a")


def test_a_run_that_died_before_its_first_checkpoint_starts_over(tmp_path):
    whole = finish(tiny.recipe, tmp_path / "a")
    finish(tiny.recipe, tmp_path / "b", stop=stop_after(1))
    for name in ("last.pt", "previous.pt", "environment.json"):
        (tmp_path / "b" / name).unlink()
    again = finish(tiny.recipe, tmp_path / "b", resume=tmp_path / "b")
    assert again[-1].test["loss"] == whole[-1].test["loss"]


def test_a_folder_is_one_process_s_alone(tmp_path):
    first = run(tiny.recipe, tmp_path / "run")
    next(first)
    with pytest.raises(ValueError, match="in use by another process"):
        finish(tiny.recipe, tmp_path / "run", resume=tmp_path / "run")
    first.close()
    assert isinstance(finish(tiny.recipe, tmp_path / "run", resume=tmp_path / "run")[-1], Result)


def test_a_worker_that_outlives_its_killed_parent_does_not_hold_the_folder(tmp_path):
    ready, go = os.pipe(), os.pipe()
    parent = os.fork()
    if not parent:
        with exclusive(tmp_path / "run"):
            if not os.fork():  # the worker
                os.close(go[1])
                os.write(ready[1], b"1")
                os.read(go[0], 1)  # until the test is over
            os._exit(0)
    os.read(ready[0], 1)
    os.waitpid(parent, 0)
    with exclusive(tmp_path / "run"):
        pass
    os.close(go[1])


def test_a_log_line_lost_or_cut_in_a_crash_is_mended(tmp_path):
    finish(tiny.recipe, tmp_path / "run", stop=stop_after(5))
    log = tmp_path / "run" / "log.jsonl"
    lines = log.read_text().splitlines()
    assert json.loads(lines[-1])["event"] == "interrupted"
    log.write_text("\n".join(lines[:-2]) + '\n{"time": 1, "eve')  # the epoch's line is gone, another cut off
    finish(tiny.recipe, tmp_path / "run", resume=tmp_path / "run")
    epochs = [line for line in log.read_text().splitlines() if '"event": "epoch"' in line]
    assert [json.loads(line)["epoch"] for line in epochs] == [1, 2]


def test_resume_keeps_where_the_run_came_from(tmp_path):
    finish(tiny.recipe, tmp_path / "run", stop=stop_after(2))
    before = (tmp_path / "run" / "environment.json").read_bytes()
    finish(tiny.recipe, tmp_path / "run", resume=tmp_path / "run")
    assert (tmp_path / "run" / "environment.json").read_bytes() == before
    assert (tmp_path / "run" / "log.jsonl").read_text().count('"event": "environment"') == 2


def test_load_refuses_another_run_s_checkpoint(tmp_path):
    for name, seed in (("a", 0), ("b", 1)):
        finish(replace(tiny.recipe, epochs=1, seed=seed), tmp_path / name)
    (tmp_path / "a" / "last.pt").write_bytes((tmp_path / "b" / "last.pt").read_bytes())
    with pytest.raises(ValueError, match="belongs to another recipe"):
        staa.load(tmp_path / "a")


def test_files_of_one_s_own_travel_with_the_run(tmp_path, monkeypatch):
    (tmp_path / "own.py").write_text(
        "from __future__ import annotations\nfrom dataclasses import dataclass\nfrom staa.neurons import LIF\n"
        "@dataclass\nclass Make:\n    decay: float = 0.5\n"
        "    def __call__(self, channels):\n        return LIF(decay=self.decay)\nmake = Make()\n"
    )
    monkeypatch.chdir(tmp_path)
    finish(replace(tiny.recipe, epochs=1, model=replace(tiny.recipe.model, neuron="own.py:make")), tmp_path / "run")
    (tmp_path / "own.py").unlink()
    (tmp_path / "run").rename(tmp_path / "moved")
    monkeypatch.chdir("/")
    assert staa.load(tmp_path / "moved").stages[0][1].neuron.decay == 0.5
    (tmp_path / "broken.py").write_text("what\n")
    with pytest.raises(ValueError, match=r"broken.py can't be imported: NameError: name 'what' is not defined"):
        staa.recipes.find.find_recipe(str(tmp_path / "broken.py") + ":recipe")


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_bfloat16_trains_on_a_cpu_when_asked_for(tmp_path, precision):
    recipe = replace(tiny.recipe, precision=precision, epochs=8)
    assert finish(recipe, tmp_path / "run")[-1].test["accuracy"] == 1.0
    assert json.loads((tmp_path / "run" / "environment.json").read_text())["precision"] == precision


def test_weight_decay_is_for_convolutions_and_linear_layers_alone():
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Linear(3, 4), AdaptiveLIF(3), STAA(4, 3))
    optimizer = make_optimizer(model, name="sgd", lr=0.1, weight_decay=0.5)
    names = {id(p): name for name, p in model.named_parameters()}
    decayed, free = ({names[id(p)] for p in group["params"]} for group in optimizer.param_groups)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.5, 0.0]
    assert decayed == {
        "0.weight", "2.weight", "4.context.key.weight", "4.context.query.weight", "4.context.value.weight",
        "4.step.squeeze.weight", "4.step.excite.weight",
    }  # fmt: skip
    assert {"3.decay", "3.gain", "4.position.encoding", "1.weight", "4.context.norm.weight"} <= free
    everything = make_optimizer(model, name="sgd", lr=0.1, weight_decay=0.5, decay_all=True)
    assert [len(group["params"]) for group in everything.param_groups] == [len(names), 0]
    with pytest.raises(ValueError, match='"sgd" or "adamw"'):
        make_optimizer(model, name="lamb", lr=1)


def test_the_schedule_warms_up_and_follows_a_cosine():
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.2)
    schedule = cosine_schedule(optimizer, steps=14, warmup=4, lr=0.2, min_lr=0.02)
    rates = []
    for _ in range(15):
        rates.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    assert rates[:5] == pytest.approx([0.05, 0.1, 0.15, 0.2, 0.2])
    assert rates[9] == pytest.approx(0.11)
    assert rates[14] == pytest.approx(0.02)


def test_saves_every_so_often_within_an_epoch(tmp_path, monkeypatch):
    saved = []
    original = staa.training.learner.save_checkpoint
    monkeypatch.setattr(
        staa.training.learner, "save_checkpoint", lambda f, state: saved.append(state["step"]) or original(f, state)
    )
    finish(tiny.recipe, tmp_path / "a")
    assert saved == [0, 5, 10]
    saved.clear()
    whole = finish(tiny.recipe, tmp_path / "b", save_minutes=1e-9)
    assert saved == list(range(11))
    for name in ("result.json", "last.pt"):  # as if killed between two saves
        (tmp_path / "b" / name).unlink()
    (tmp_path / "b" / "previous.pt").rename(tmp_path / "b" / "last.pt")
    again = finish(tiny.recipe, tmp_path / "b", resume=tmp_path / "b", save_minutes=1e-9)
    assert again[0].step == 9
    assert again[-1] == whole[-1]
    with pytest.raises(ValueError, match="`save_minutes` must be positive"):
        finish(tiny.recipe, tmp_path / "c", save_minutes=0)


def test_the_papers_protocol_says_what_it_did(tmp_path):
    recipe = replace(tiny.recipe, protocol="paper", data=replace(tiny.recipe.data, validation=0.0))
    events = finish(recipe, tmp_path / "run")
    epochs = [e for e in events if isinstance(e, Epoch)]
    assert {e.measured_on for e in epochs} == {"test"}
    accuracies = [e.measured["accuracy"] for e in epochs]
    result = events[-1]
    assert result.protocol == "paper"
    assert result.test["accuracy"] == accuracies[-1]
    assert result.best_test_accuracy == max(accuracies)
    assert result.best_test_epoch == 1 + accuracies.index(max(accuracies))
    assert "best_test_accuracy" not in for_log(finish(tiny.recipe, tmp_path / "other")[-1])
    with pytest.raises(ValueError, match="holds out no validation samples: data.validation must be 0, got 0.1"):
        replace(tiny.recipe, protocol="paper")


class Frames(nn.Module):
    """A network without BatchNorm and random parts, on windows [T, N, C, H, W]."""

    def __init__(self):
        super().__init__()
        self.layer, self.fire = PerStep(nn.Conv2d(2, 3, 3), nn.Flatten(), nn.Linear(3 * 14 * 14, 2)), LIF(threshold=0.05)
        self.read = nn.Linear(2, 2)

    def forward(self, x):
        return self.read(self.fire(self.layer(x)))


def batches_of(count, size=6):
    generator = torch.Generator().manual_seed(0)
    made = [
        (torch.rand(3, size, 2, 16, 16, generator=generator, dtype=torch.float64), torch.arange(size) % 2) for _ in range(count)
    ]

    class Fixed:
        def __len__(self):
            return count

        def epoch(self, epoch=0, start=0):
            return iter(made[start:])

    return Fixed(), made


def train_frames(folder, count=2, average=lambda model: None, validation=None, **options):
    torch.manual_seed(0)
    model = Frames().double()
    batches, made = batches_of(count)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    schedule = cosine_schedule(optimizer, steps=10**9, warmup=0, lr=0.1, min_lr=0.1)
    average = average(model)
    folder.mkdir()
    events = list(
        staa.training.loop.train(
            Learner(model, optimizer, schedule, folder, average), batches, settings=Settings(steps=count, **options),
            validation=validation,
        )
    )  # fmt: skip
    return model, average, made, events


@pytest.mark.parametrize("pieces", [2, 3, 4])
def test_accumulated_gradients_are_the_whole_batchs(tmp_path, pieces):
    """Six samples in 2, 3, and 4 pieces (of 2, 2, 2 and none): the same weights after each step, the same figures."""
    whole, _, made, events = train_frames(tmp_path / "whole")
    parts, _, _, others = train_frames(tmp_path / "parts", accumulate=pieces)
    for a, b in zip(whole.parameters(), parts.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-14)
    for a, b in zip(events, others, strict=True):
        if isinstance(a, Step):
            assert a.read.loss == pytest.approx(b.read.loss, rel=1e-12)
            assert a.read.figures["accuracy"] == b.read.figures["accuracy"]
    # by hand: the first step's gradient is the mean over pieces of each piece's, weighted by its samples
    torch.manual_seed(0)
    model = Frames().double()
    (x, y), fresh = made[0], copy.deepcopy(model)
    for a, b in ((0, 4), (4, 6)):
        (mean_cross_entropy(model(x[:, a:b]), y[a:b]) * (b - a) / 6).backward()
    mean_cross_entropy(fresh(x), y).backward()
    for p, q in zip(model.parameters(), fresh.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad, rtol=1e-12, atol=1e-14)


def test_the_moving_average_by_hand(tmp_path):
    """average = weights after step 1; then 0.9 average + 0.1 weights. It is what is measured and kept as the best."""
    history = []

    class Recording(torch.optim.SGD):
        def step(self, closure=None):
            super().step(closure)
            history.append(self.param_groups[0]["params"][-1].detach().clone())

    average = lambda model: AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=True)  # noqa: E731
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim, "SGD", Recording)
        _, averaged, _, _ = train_frames(tmp_path / "run", count=3, average=average, validation=batches_of(1)[0])
    expected = history[0]
    for weights in history[1:]:
        expected = 0.9 * expected + 0.1 * weights
    torch.testing.assert_close(averaged.module.read.bias.detach(), expected)
    assert not torch.equal(expected, history[-1])
    kept = measured_weights(load_checkpoint(tmp_path / "run"))
    torch.testing.assert_close(kept["read.bias"], expected)
    torch.testing.assert_close(load_file(tmp_path / "run" / "best.safetensors")["read.bias"], expected)


def test_a_run_with_a_moving_average_measures_it(tmp_path):
    recipe = replace(tiny.recipe, optim=replace(tiny.recipe.optim, ema=0.5))
    events = finish(recipe, tmp_path / "run")
    state = load_checkpoint(tmp_path / "run")
    model = staa.load(tmp_path / "run")
    assert torch.equal(model.state_dict()["readout.bias"], state["average"]["module.readout.bias"])
    assert not torch.equal(state["model"]["readout.bias"], state["average"]["module.readout.bias"])
    assert evaluate_run(tmp_path / "run")["loss"] == events[-1].test["loss"]
    last = next(e for e in reversed(events) if isinstance(e, Epoch))
    assert evaluate_run(tmp_path / "run", split="validation")["loss"] == last.measured["loss"]


def test_the_rate_penalty_by_hand(tmp_path):
    """Weight 2, target 0.1, rates 0.3 and 0.0: 2 · ((0.2)² + (0.1)²) / 2 = 0.05, and it pulls rates to its target."""
    rates = [torch.tensor(0.3, requires_grad=True), torch.tensor(0.0)]
    value = 2 * rate_penalty(rates, target=0.1)
    assert value.item() == pytest.approx(0.05)
    value.backward()
    assert rates[0].grad.item() == pytest.approx(2 * 2 * 0.2 / 2)
    with pytest.raises(ValueError, match="needs spiking neurons"):
        rate_penalty([], target=0.1)

    def mean_rate(weight, target):
        finish(replace(tiny.recipe, loss=Loss(rate_weight=weight, rate_target=target)), tmp_path / f"{weight}-{target}")
        source = tiny.events(steps=3, validation=0.1)
        model = staa.load(tmp_path / f"{weight}-{target}")
        with torch.no_grad(), firing_rates(model) as rates:
            model(source.prepare(source.test.x))
        return torch.stack(list(rates.values())).mean()

    free = mean_rate(0.0, 0.0)
    assert mean_rate(30.0, 0.0) < free - 0.02
    assert mean_rate(30.0, 0.6) > free + 0.02


def test_tet_by_hand():
    """Two steps, one sample, two classes: CE of each step apart, and the distance to φ."""
    logits = torch.tensor([[[2.0, 0.0]], [[0.0, 1.0]]])
    each = (math.log(1 + math.exp(-2)) + math.log(1 + math.exp(1))) / 2
    squares = ((2 - 1) ** 2 + 1 + 1 + 0) / 4
    assert tet(logits, torch.tensor([0])).item() == pytest.approx(0.999 * each + 0.001 * squares)
    assert tet(logits, torch.tensor([0]), tet_weight=0.0).item() == pytest.approx(each)
    assert tet(logits, torch.tensor([0]), tet_weight=1.0, tet_level=0.0).item() == pytest.approx(5 / 4)
    soft = torch.tensor([[0.25, 0.75]])
    log = lambda t: logits[t, 0].double().log_softmax(0)  # noqa: E731
    by_hand = -sum(0.25 * log(t)[0] + 0.75 * log(t)[1] for t in (0, 1)) / 2
    assert tet(logits, soft, tet_weight=0.0).item() == pytest.approx(by_hand.item())
    assert tet(logits.bfloat16(), soft).dtype == torch.float32
    once = logits[:1]  # at T = 1 the two losses are the same
    assert tet(once, soft, tet_weight=0.0).item() == pytest.approx(mean_cross_entropy(once, soft).item())


def test_binary_cross_entropy_by_hand():
    """Time means [1, 0]; smoothing by 0.2 of two classes makes labels of 0.9 and 0.1."""
    logits = torch.tensor([[[2.0, -1.0]], [[0.0, 1.0]]])
    one, half = 1 / (1 + math.exp(-1)), 0.5
    assert mean_binary_cross_entropy(logits, torch.tensor([0])).item() == pytest.approx(-(math.log(one) + math.log(half)) / 2)
    smoothed = -(0.9 * math.log(one) + 0.1 * math.log(1 - one) + math.log(half)) / 2
    assert mean_binary_cross_entropy(logits, torch.tensor([0]), label_smoothing=0.2).item() == pytest.approx(smoothed)
    assert mean_binary_cross_entropy(logits.bfloat16(), torch.tensor([0])).dtype == torch.float32


def test_soft_targets_by_hand():
    logits = torch.tensor([[[2.0, 0.0], [0.0, 1.0]], [[0.0, 0.0], [0.0, 3.0]]])  # time means [1, 0] and [0, 2]
    targets = torch.tensor([[0.3, 0.7], [1.0, 0.0]])
    z1, z2 = math.log(math.e + 1), math.log(1 + math.e**2)
    by_hand = [0.3 * (z1 - 1) + 0.7 * z1, z2]
    assert mean_cross_entropy(logits, targets).item() == pytest.approx(sum(by_hand) / 2)
    figures = classification_figures(classification_sums(logits, targets))
    assert figures == {"accuracy": 0.0, "loss": pytest.approx(sum(by_hand) / 2)}
    hard = nn.functional.one_hot(torch.tensor([1, 0]), 2).float()
    for f in (mean_cross_entropy, mean_binary_cross_entropy, tet):
        for smoothing in (0.0, 0.2):
            a, b = (f(logits, t, label_smoothing=smoothing).item() for t in (hard, torch.tensor([1, 0])))
            assert a == pytest.approx(b)


def test_a_loss_of_ones_own(tmp_path):
    recipe = replace(tiny.recipe, epochs=1, loss=Loss(name=f"{tiny.__file__}:squared"))
    first = next(e for e in finish(recipe, tmp_path / "run") if isinstance(e, Step))
    assert first.read.loss == pytest.approx(0.5, abs=0.3)


def test_fine_tuning_to_other_classes(tmp_path):
    finish(tiny.recipe, tmp_path / "base")
    base = load_checkpoint(tmp_path / "base")["model"]
    recipe = replace(
        tiny.recipe, init_from=str(tmp_path / "base"), data=replace(tiny.recipe.data, name=f"{tiny.__file__}:three")
    )
    events = finish(recipe, tmp_path / "tuned", stop=lambda: True)
    told = events[1]
    assert isinstance(told, Transfer)
    assert len(told.loaded) == len(base) - 2
    assert told.left_out == ["readout.weight (2 × 26 there, 3 × 26 here)", "readout.bias (2 there, 3 here)"]
    assert told.changed == told.fresh == []
    assert (told.recipe, told.step, told.same_split) == ("tiny", 10, True)
    start = load_checkpoint(tmp_path / "tuned" / "previous.pt")
    assert start["step"] == 0
    assert all(torch.equal(start["model"][key], base[key]) for key in told.loaded)
    log = map(json.loads, (tmp_path / "tuned" / "log.jsonl").read_text().splitlines())
    line = next(event for event in log if event["event"] == "transfer")
    assert list(line) == [
        "time", "event", "step", "epoch", "from", "from_recipe", "from_step", "from_split", "same_split", "loaded", "changed",
        "left_out", "fresh",
    ]  # fmt: skip
    assert (line["step"], line["from"], line["from_step"]) == (0, str(tmp_path / "base"), 10)
    # the checkpoint has all: going on does not need the other run
    (tmp_path / "base").rename(tmp_path / "gone")
    assert isinstance(finish(recipe, tmp_path / "tuned", resume=tmp_path / "tuned")[-1], Result)


def test_fine_tuning_to_other_steps_interpolates_the_position_encoding(tmp_path):
    attention = replace(tiny.recipe, model=replace(tiny.recipe.model, attention="gc-pe"))
    finish(attention, tmp_path / "base", stop=lambda: True)
    base = load_checkpoint(tmp_path / "base")["model"]
    recipe = replace(attention, init_from=str(tmp_path / "base"), model=replace(attention.model, steps=5))
    told = finish(recipe, tmp_path / "tuned", stop=lambda: True)[1]
    key = "stages.0.1.attention.position.encoding"
    assert f"{key} (T = 3 to 5)" in told.changed
    tuned = load_checkpoint(tmp_path / "tuned" / "previous.pt")["model"]
    a, b, c = base[key]
    torch.testing.assert_close(tuned[key], torch.stack([a, (a + b) / 2, b, (b + c) / 2, c]))
    assert torch.equal(tuned["readout.weight"], base["readout.weight"])  # the same data: the same classes
    assert not told.left_out
    plain = replace(recipe, model=replace(recipe.model, attention="staa", steps=2))
    told = finish(plain, tmp_path / "more", stop=lambda: True)[1]
    assert "stages.0.1.attention.step.squeeze.weight" in told.fresh


def test_the_same_number_of_other_classes_gets_a_fresh_readout(tmp_path):
    finish(tiny.pictures, tmp_path / "base", stop=lambda: True)
    same = replace(tiny.pictures, init_from=str(tmp_path / "base"))
    assert not finish(same, tmp_path / "same", stop=lambda: True)[1].left_out
    other = replace(same, data=replace(same.data, name=f"{tiny.__file__}:other_images"))
    told = finish(other, tmp_path / "other", stop=lambda: True)[1]
    assert told.left_out == ["readout.linear.weight (of other classes)", "readout.linear.bias (of other classes)"]


def test_another_split_of_the_same_data_is_told(tmp_path):
    recipe = replace(tiny.pictures, epochs=1)
    finish(recipe, tmp_path / "base")
    base = measured_weights(load_checkpoint(tmp_path / "base"))
    other = replace(recipe, init_from=str(tmp_path / "base"), data=replace(recipe.data, name=f"{tiny.__file__}:another_split"))
    told = finish(other, tmp_path / "tuned", stop=lambda: True)[1]
    assert not told.same_split
    start = load_checkpoint(tmp_path / "tuned" / "previous.pt")["model"]
    assert all(torch.equal(start[key], base[key]) for key in base)  # the moving average is what is taken over


def test_half_a_layer_is_not_taken_over(tmp_path):
    base, model = STAA(8, 4), STAA(9, 4)
    found = transfer_weights(model, base.state_dict(), tmp_path)
    assert {"step.squeeze.bias (as its weight)", "step.squeeze.weight (2 × 8 there, 2 × 9 here)"} <= set(found.left_out)
    assert model.step.squeeze.bias.tolist() == [1.0, 1.0]


def test_what_is_left_out_is_named_whole(tmp_path):
    """A module called graph_conv is not the entry `graph`."""
    base, model = (torch.nn.ModuleDict({name: torch.nn.Linear(2, 2) for name in ("graph", "graph_conv")}) for _ in range(2))
    found = transfer_weights(model, base.state_dict(), tmp_path, leave={"graph": "the data's own"})
    assert found.loaded == ["graph_conv.weight", "graph_conv.bias"]
    assert found.left_out == ["graph.weight (the data's own)", "graph.bias (the data's own)"]


def test_fine_tuning_with_nothing_in_common_is_refused(tmp_path):
    finish(tiny.recipe, tmp_path / "base", stop=lambda: True)
    recipe = replace(tiny.pictures, init_from=str(tmp_path / "base"))
    with pytest.raises(ValueError, match="has nothing in common with this network: none of its convolution and linear weights"):
        finish(recipe, tmp_path / "tuned")
    with pytest.raises(FileNotFoundError, match="nowhere is not a run folder"):
        finish(replace(tiny.recipe, init_from=str(tmp_path / "nowhere")), tmp_path / "tuned")
    assert not (tmp_path / "tuned").exists()


def test_settings_that_the_data_do_not_take_are_refused(tmp_path):
    for change, message in (
        (
            dict(data=replace(tiny.recipe.data, size=32)),
            r"^`data.size=32` is not supported by the data set .*; remove it \(default: None\)$",
        ),
        (dict(data=replace(tiny.recipe.data, corrupt="skip")), "`data.corrupt=skip` is not supported by the data set"),
        (dict(augment=Augment(scale=0.5)), "`augment.scale=0.5` is not supported"),
        (
            dict(model=replace(tiny.recipe.model, residual_init=0.2)),
            r"`model.residual_init=0.2` is not supported by the model .* \(default: 1.0\)",
        ),
        (dict(augment=Augment(policy="randaugment")), "for colour images; .* has 2 channels"),
        (dict(augment=Augment(cutout=17)), "can't exceed the images' 16 pixels"),
        (dict(loss=Loss(label_smoothing=0.1, tet_weight=0.5)), "`loss.tet_weight=0.5` is not supported by the loss mean"),
        (
            dict(loss=Loss(name=f"{tiny.__file__}:squared", label_smoothing=0.1)),
            "`loss.label_smoothing=0.1` is not supported by the loss ",
        ),
        (dict(loss=Loss(name=f"{tiny.__file__}:each")), r"a loss must be a scalar tensor, got \[1\]"),
        (dict(loss=Loss(name=f"{tiny.__file__}:squared"), augment=Augment(mixup=0.1)), r"can't be taken of outputs .*probabil"),
        (
            dict(model=replace(tiny.recipe.model, name=f"{tiny.__file__}:no_neurons"), loss=Loss(rate_weight=1.0)),
            "this network has none",
        ),
        (dict(loss=Loss(name="tett")), "unknown loss 'tett'; did you mean tet"),
    ):
        with pytest.raises(ValueError, match=message):
            finish(replace(tiny.recipe, **change), tmp_path / "run")
    with pytest.raises(ValueError, match="`workers` can't be negative"):
        finish(tiny.recipe, tmp_path / "run", workers=-1)
    assert not (tmp_path / "run").exists()


def test_norm_momentum_is_every_batch_norms():
    sizes = {"nodes": 2, "window": 12, "horizon": 2, "features": 0}
    for base, facts in ((tiny.recipe, {"classes": 3, "channels": 2, "size": 16}), (RECIPES["series-spikestag"], sizes)):
        for asked, momentum in ((None, 0.1), (0.5, 0.5)):
            model = task_of(replace(base, model=replace(base.model, norm_momentum=asked))).network(facts)
            norms = [layer for layer in model.modules() if isinstance(layer, nn.modules.batchnorm._BatchNorm)]
            assert {norm.momentum for norm in norms} == {momentum}
    linear = RECIPES["series-linear"]
    with pytest.raises(ValueError, match="has no BatchNorm, and takes no `model.norm_momentum`"):
        task_of(replace(linear, model=replace(linear.model, norm_momentum=0.5))).network(sizes)
    for odd in (0.0, 1.5, -1.0, math.nan):
        with pytest.raises(ValueError, match="`model.norm_momentum` must be above 0 and at most 1"):
            replace(tiny.recipe, model=replace(tiny.recipe.model, norm_momentum=odd))


def test_loss_and_metrics_by_hand():
    logits = torch.tensor([[[2.0, 0.0], [0.0, 1.0]], [[0.0, 0.0], [0.0, 3.0]]])  # time means [1, 0] and [0, 2]
    labels = torch.tensor([0, 0])
    expected = [math.log(1 + math.exp(-1)), math.log(1 + math.exp(2))]
    assert mean_cross_entropy(logits, labels).item() == pytest.approx(sum(expected) / 2)
    figures = classification_figures(classification_sums(logits, labels))
    assert figures == {"accuracy": 0.5, "loss": pytest.approx(sum(expected) / 2)}
    assert mean_cross_entropy(logits.bfloat16(), labels).dtype == torch.float32
    with pytest.raises(ValueError, match="no samples"):
        classification_figures(torch.zeros(3))


def test_every_recipe_round_trips():
    for name, recipe in RECIPES.items():
        assert recipe.name == name
        assert from_json(to_json(recipe)) == recipe
        assert recipe.summary
        assert recipe.source
        assert recipe.expect


@pytest.mark.some(3)
@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_takes_a_shrunk_step(name, tmp_path):
    recipe = RECIPES[name]
    of_events = any(word in recipe.data.name for word in ("events", "nmnist", "dvs"))
    if recipe.series.horizon is not None:
        data = Data(f"{tiny.__file__}:series", recipe.data.validation)
        forecast = recipe.forecast if recipe.forecast == Forecast() else replace(recipe.forecast, width=8)
        small = replace(recipe, epochs=1, max_steps=1, batch_size=4, data=data, forecast=forecast)
        small = replace(small, model=replace(recipe.model, steps=2))
        assert finish(small, tmp_path / "run")[-1].test["mae"] > 0
        return
    data = f"{tiny.__file__}:{'events' if of_events else 'images'}"
    small = replace(
        recipe, epochs=1, max_steps=1, batch_size=4,
        data=Data(data, recipe.data.validation) if of_events else replace(recipe.data, name=data),
        model=replace(recipe.model, steps=2, width=0.05), augment=replace(recipe.augment, cutout=min(4, recipe.augment.cutout)),
        early=replace(recipe.early, steps=recipe.early.steps and 1, size=recipe.early.size and 8),
    )  # fmt: skip
    assert isinstance(finish(small, tmp_path / "run")[-1], Result)


def test_recipe_errors():
    for change in (dict(epochs=0), dict(batch_size=0), dict(max_steps=0)):
        with pytest.raises(ValueError, match=next(iter(change))):
            replace(tiny.recipe, **change)
    for part, name, value in (
        ("loss", "label_smoothing", 1.0), ("loss", "rate_weight", -1.0), ("optim", "ema", 1.0), ("optim", "accumulate", 3),
        ("augment", "mixup", math.inf), ("augment", "scale", 0.0), ("augment", "magnitude", 31), ("data", "size", 0),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=rf"{part}.{name}`? .*got {value}"):
            replace(tiny.recipe, **{part: replace(getattr(tiny.recipe, part), **{name: value})})
    text = to_json(tiny.recipe)
    with pytest.raises(ValueError, match="unknown optim.lrr"):
        from_json(text.replace('"lr":', '"lrr":'))
    with pytest.raises(ValueError, match="no 'data'"):
        from_json("{}")
    for field, value in (
        ("epochs", '"x"'),
        ("batch_size", "true"),
        ("seed", "2.5"),
        ("precision", '"fp8"'),
        ("name", '"../up"'),
    ):
        with pytest.raises(ValueError, match=field if field != "name" else "letters, digits"):
            from_json(re.sub(rf'"{field}": [^,\n]+', f'"{field}": {value}', text, count=1))
    with pytest.raises(ValueError, match=r"model.sites must be .all"):
        replace(tiny.recipe.model, sites="roof")
    with pytest.raises(ValueError, match=r"optim.momentum must be at least 0 and below 1"):
        replace(tiny.recipe, optim=replace(tiny.recipe.optim, momentum=5))
    older = json.loads(text)
    del older["max_steps"], older["optim"]["clip"], older["augment"], older["loss"]
    plain = replace(tiny.recipe, optim=replace(tiny.recipe.optim, clip=None), augment=Augment(), loss=Loss())
    assert from_json(json.dumps(older)) == plain
    older["data"]["augment"] = True
    with pytest.raises(ValueError, match="another version of staa: unknown data.augment"):
        from_json(json.dumps(older))
    with pytest.raises(ValueError, match="Expecting"):
        from_json("no json")
