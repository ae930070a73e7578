import json
import math
import re
from dataclasses import replace

import pytest
import tiny
import torch
from torch import nn

import staa
from staa.attention import STAA
from staa.build import evaluate_run, run
from staa.checkpoint import load_checkpoint
from staa.config import from_json, to_json
from staa.losses import mean_cross_entropy
from staa.metrics import classification_figures, classification_sums
from staa.neurons import AdaptiveLIF
from staa.recipes import RECIPES
from staa.train import cosine_schedule, make_optimizer


def finish(recipe, folder, **options):
    return list(run(recipe, folder, **options))


def stop_after(count):
    """A stop() that says yes after so many questions."""
    asked = iter(range(10**9))
    return lambda: next(asked) >= count - 1


def same(a, b):
    assert a.keys() == b.keys()
    for key in a.keys() - {"seconds"}:
        if isinstance(a[key], dict):
            same(a[key], b[key])
        elif isinstance(a[key], torch.Tensor):
            assert torch.equal(a[key], b[key]), key
        elif isinstance(a[key], list) and a[key] and isinstance(a[key][0], dict):
            for x, y in zip(a[key], b[key], strict=True):
                same(x, y)
        else:
            assert a[key] == b[key], key


@pytest.mark.parametrize("stops", [[5], [3], [7], [1, 1, 5, 2]])
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_resume_is_bit_equal(tmp_path, stops, optimizer):
    """One go of 2 epochs of 5 steps against stops at the border (5) and inside epochs: every tensor and figure equal."""
    recipe = replace(tiny.recipe, optim=replace(tiny.recipe.optim, name=optimizer))
    whole = finish(recipe, tmp_path / "whole")
    resume = None
    pieces = []
    for count in stops:
        events = finish(recipe, tmp_path / "pieces", resume=resume, stop=stop_after(count))
        assert events[-1]["event"] == "interrupted"
        pieces += events
        torch.manual_seed(123)  # the caller's random state must not matter
        torch.randn(7)
        resume = tmp_path / "pieces"
    pieces += finish(recipe, tmp_path / "pieces", resume=resume)
    same(load_checkpoint(tmp_path / "whole"), load_checkpoint(tmp_path / "pieces"))

    def figures(events, kind, keys):
        return [{k: e[k] for k in keys} for e in events if e["event"] == kind]

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
    assert again[0]["step"] == 5
    assert again[-1]["test_loss"] == whole[-1]["test_loss"]


def test_two_runs_are_equal_and_seeds_differ(tmp_path):
    a, b = finish(tiny.recipe, tmp_path / "a"), finish(tiny.recipe, tmp_path / "b")
    assert a[-1] == b[-1]
    other = finish(replace(tiny.recipe, seed=1), tmp_path / "c")
    assert [e["loss"] for e in other if e["event"] == "step"] != [e["loss"] for e in a if e["event"] == "step"]


def test_a_run_folder_holds_the_whole_truth(tmp_path):
    events = finish(tiny.recipe, tmp_path / "run")
    folder = tmp_path / "run"
    assert {p.name for p in folder.iterdir()} == {
        "recipe.json", "environment.json", "log.jsonl", "last.pt", "previous.pt", "best.safetensors", "result.json",
    }  # fmt: skip
    assert from_json((folder / "recipe.json").read_text()) == tiny.recipe
    environment = json.loads((folder / "environment.json").read_text())
    assert environment["torch"] == torch.__version__
    assert environment["data"]["split"] == "tiny"
    log = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert [e["event"] for e in log] == ["environment", "start", "epoch", "step", "epoch", "end", "result"]
    result = json.loads((folder / "result.json").read_text())
    assert result["test_accuracy"] == events[-1]["test_accuracy"] == log[-1]["test_accuracy"]
    assert evaluate_run(folder)["loss"] == result["test_loss"]
    assert evaluate_run(folder, split="validation", weights="best")["samples"] == 8
    # a finished run only tells its result again
    assert [e["event"] for e in run(tiny.recipe, folder, resume=folder)] == ["result"]


def test_the_test_set_is_touched_once_at_the_end(tmp_path, monkeypatch):
    seen = []
    original = staa.build.evaluate
    monkeypatch.setattr(staa.build, "evaluate", lambda *a, **k: seen.append(True) or original(*a, **k))
    events = run(tiny.recipe, tmp_path / "run")
    for event in events:
        if event["event"] != "result":
            assert not seen
    assert seen == [True]


def test_load_gives_the_model_that_was_measured(tmp_path):
    finish(tiny.recipe, tmp_path / "run")
    model = staa.load(tmp_path / "run")
    assert not model.training
    source = tiny.events(root=None, steps=3, validation=0.1, augment=False)
    with torch.no_grad():
        logits = model(source.prepare(source.test.x))
    figures = classification_figures(classification_sums(logits, source.test.y))
    assert figures["loss"] == pytest.approx(json.loads((tmp_path / "run" / "result.json").read_text())["test_loss"])
    best = staa.load(tmp_path / "run", weights="best")
    assert best.state_dict().keys() == model.state_dict().keys()


def test_own_neuron_from_a_file(tmp_path):
    assert math.isfinite(finish(replace(tiny.own_neuron, epochs=1), tmp_path / "run")[-1]["test_loss"])
    assert staa.load(tmp_path / "run").stages[0][1].neuron.threshold == 0.3


def test_without_validation(tmp_path):
    recipe = replace(tiny.recipe, data=replace(tiny.recipe.data, validation=0.0))
    events = finish(recipe, tmp_path / "run")
    assert all("validation_loss" not in e for e in events)
    with pytest.raises(ValueError, match="held out no validation"):
        evaluate_run(tmp_path / "run", split="validation")
    with pytest.raises(FileNotFoundError, match=r"best.safetensors is missing"):
        staa.load(tmp_path / "run", weights="best")


def test_max_steps_cuts_the_run_and_its_schedule(tmp_path):
    events = finish(replace(tiny.recipe, max_steps=7), tmp_path / "run")
    steps = [e for e in events if e["event"] == "step"]
    assert len(steps) == 7
    assert [e["step"] for e in events if e["event"] == "epoch"] == [5, 7]
    assert steps[-1]["lr"] < 0.2 * tiny.recipe.optim.lr


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path):
    finish(tiny.recipe, tmp_path / "run", stop=stop_after(6))
    state = load_checkpoint(tmp_path / "run")
    assert state["step"] == 6

    calls = iter(range(10**6))

    def broken(logits, labels):
        return mean_cross_entropy(logits, labels) * (math.nan if next(calls) == 1 else 1)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(staa.build, "mean_cross_entropy", lambda logits, labels, **_: broken(logits, labels))
        with pytest.raises(FloatingPointError, match=r"the loss is nan at step 8 \(epoch 2\); the last good checkpoint"):
            finish(tiny.recipe, tmp_path / "run", resume=tmp_path / "run")
    same(load_checkpoint(tmp_path / "run"), state)


def test_weights_that_are_not_finite_are_never_saved(tmp_path, monkeypatch):
    class Breaking(torch.optim.SGD):
        def step(self, closure=None):
            self.param_groups[0]["params"][0].data.fill_(math.inf)

    monkeypatch.setattr(staa.build, "make_optimizer", lambda model, **_: Breaking(model.parameters(), lr=0.1))
    with pytest.raises(FloatingPointError, match="a weight is not finite after step 1; the last good checkpoint is kept"):
        finish(replace(tiny.recipe, max_steps=1), tmp_path / "run")
    state = load_checkpoint(tmp_path / "run")
    assert state["step"] == 0
    assert all(p.isfinite().all() for p in state["model"].values())
    assert not (tmp_path / "run" / "best.safetensors").exists()


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
        patch.setitem(staa.build.NEURONS, "rest", lambda channels: Rest(next(values, 0.5)))
        recipe = replace(tiny.recipe, model=replace(tiny.recipe.model, neuron="rest", attention=None))
        texts = [e["text"] for e in finish(recipe, tmp_path / "run") if e["event"] == "warning"]
    assert len(texts) == 2
    assert "stages.0.1 is silent" in texts[0]
    assert "stages.0.3 is saturated" in texts[1]


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
    assert told[-1]["step"] == 3  # texts about a recipe do not make it another
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
    assert again[-1]["test_loss"] == whole[-1]["test_loss"]


def test_a_folder_is_one_process_s_alone(tmp_path):
    first = run(tiny.recipe, tmp_path / "run")
    next(first)
    with pytest.raises(ValueError, match="in use by another process"):
        finish(tiny.recipe, tmp_path / "run", resume=tmp_path / "run")
    first.close()
    assert finish(tiny.recipe, tmp_path / "run", resume=tmp_path / "run")[-1]["event"] == "result"


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


def test_files_of_one_s_own_can_be_named_from_anywhere(tmp_path, monkeypatch):
    (tmp_path / "sibling.py").write_text("DECAY = 0.5\n")
    (tmp_path / "own.py").write_text(
        "from __future__ import annotations\nfrom dataclasses import dataclass\nfrom sibling import DECAY\n"
        "from staa.neurons import LIF\n@dataclass\nclass Make:\n    decay: float = DECAY\n"
        "    def __call__(self, channels):\n        return LIF(decay=self.decay)\nmake = Make()\n"
    )
    monkeypatch.chdir(tmp_path)
    finish(replace(tiny.recipe, epochs=1, model=replace(tiny.recipe.model, neuron="own.py:make")), tmp_path / "run")
    monkeypatch.chdir("/")
    assert staa.load(tmp_path / "run").stages[0][1].neuron.decay == 0.5
    (tmp_path / "broken.py").write_text("what\n")
    with pytest.raises(ValueError, match=r"broken.py can't be imported: NameError: name 'what' is not defined"):
        staa.build.find_recipe(str(tmp_path / "broken.py") + ":recipe")


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_bfloat16_trains_on_a_cpu_when_asked_for(tmp_path, precision):
    recipe = replace(tiny.recipe, precision=precision, epochs=8)
    assert finish(recipe, tmp_path / "run")[-1]["test_accuracy"] == 1.0
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


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_round_trips_and_takes_a_shrunk_step(name, tmp_path):
    recipe = RECIPES[name]
    assert recipe.name == name
    assert from_json(to_json(recipe)) == recipe
    assert recipe.summary
    assert recipe.source
    assert recipe.expect
    small = replace(
        recipe, epochs=1, max_steps=1, batch_size=4, data=replace(recipe.data, name=f"{tiny.__file__}:events"),
        model=replace(recipe.model, steps=2, width=0.05),
    )  # fmt: skip
    assert finish(small, tmp_path / "run")[-1]["event"] == "result"


def test_recipe_errors():
    for change in (dict(epochs=0), dict(batch_size=0), dict(max_steps=0), dict(label_smoothing=1.0)):
        with pytest.raises(ValueError, match=next(iter(change))):
            replace(tiny.recipe, **change)
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
    with pytest.raises(ValueError, match=r"optim.momentum is in \[0, 1\)"):
        replace(tiny.recipe, optim=replace(tiny.recipe.optim, momentum=5))
    older = json.loads(text)
    del older["max_steps"], older["optim"]["clip"]
    assert from_json(json.dumps(older)) == replace(tiny.recipe, optim=replace(tiny.recipe.optim, clip=None))
    with pytest.raises(ValueError, match="Expecting"):
        from_json("no json")
