"""Fine-tuning: what comes with another run's weights, what is frozen, rates of parts, and a finished run that goes on."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import tiny
import torch
from test_train import finish, same, stop_after
from torch import nn

import staa
from staa import RECIPES
from staa.build import task_of
from staa.cli import main
from staa.export.share import share
from staa.recipes import code
from staa.recipes.as_json import from_json, to_json
from staa.recipes.code import UntrustedCodeError
from staa.recipes.parts import Series
from staa.runs import prolong, starting_from
from staa.runs.folder import read_recipe
from staa.runs.inherit import inherited
from staa.runs.transfer import causes
from staa.training.checkpoint import load_checkpoint
from staa.training.named import freeze
from staa.training.optim import cosine_schedule, make_optimizer
from staa.training.progress import Interrupted, Result, Start, Warned

TINY = f"{tiny.__file__}:recipe"
PLAIN = replace(tiny.recipe, epochs=1, model=replace(tiny.recipe.model, attention=None, neuron="plain"))


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("base") / "run"
    finish(PLAIN, folder)
    return folder


# --- what comes with the weights ---


EVENTS = {"classes": 10, "channels": 2, "size": 34, "names": None, "split": "x"}


def test_network_and_preparation_are_the_runs_and_the_rest_the_recipes():
    own, its = RECIPES["events-folder-vggsnn-staa"], RECIPES["nmnist-vggsnn-staa"]
    made = task_of(own).like(its, EVENTS)
    assert made == replace(own, model=its.model, data=replace(own.data, size=34))
    stream = task_of(own).like(RECIPES["nmnist-stream"], EVENTS)
    assert stream.data == replace(own.data, size=34, frames="window", window=30.0, steps=10)
    assert (stream.model.steps, stream.loss, stream.epochs) == (None, own.loss, own.epochs)
    back = task_of(RECIPES["nmnist-stream"]).like(its, EVENTS)  # a number of steps takes the place of the data's
    assert (back.model.steps, back.data.steps, back.data.frames) == (10, None, "number")
    photos = task_of(RECIPES["folder-resnet18-staa"]).like(RECIPES["cifar10-resnet19-staa"], EVENTS | {"size": 32})
    assert (photos.data.size, photos.model.name) == (32, "resnet19")
    assert photos.augment == RECIPES["folder-resnet18-staa"].augment
    camera = replace(own, data=replace(own.data, sensor="260x346", values="binary"))
    assert task_of(own).like(camera, EVENTS | {"size": 48}).data == camera.data
    assert inherited(own, made) == ("data.size 34 (was 48), model.width 0.125 (was 0.5)")
    assert inherited(own, made, replace(made, model=own.model)) == "data.size 34 (was 48)"


def test_a_forecasters_window_and_scale_are_the_runs():
    own = RECIPES["series-gru"]
    its = replace(RECIPES["series-ispikformer"], series=Series(horizon=6, window=24, normalise="max", train=0.5, season="auto"))
    made = task_of(own).like(its, {"features": 0, "season": "day"})
    assert (made.model, made.forecast) == (its.model, its.forecast)
    series = replace(own.series, horizon=6, window=24, normalise="max", season="day", time_features=False)
    assert made == replace(own, model=its.model, forecast=its.forecast, series=series)


def test_the_command_line_wins_and_the_run_stands_alone(base, tmp_path, capsys):
    args = ["train", TINY, "--init-from", str(base), "--model.steps", "2", "--epochs", "1", "--max-steps", "1"]
    assert main([*args, "--out", str(tmp_path / "tuned")]) == 0
    text = capsys.readouterr().out
    assert f"inherited from {base}: model.neuron plain (was adaptive), model.attention None (was staa)\n" in text
    assert "left out" not in text
    recipe = read_recipe(tmp_path / "tuned")
    assert (recipe.model, recipe.optim) == (replace(PLAIN.model, steps=2), tiny.recipe.optim)
    trained = staa.train(replace(tiny.recipe, max_steps=1), tmp_path / "python", init_from=base)
    assert "inherited from" in capsys.readouterr().out
    assert (trained.recipe.model, trained.recipe.init_from) == (PLAIN.model, str(base))
    weights = replace(PLAIN, init_from=str(base), model=tiny.recipe.model, max_steps=1)  # a recipe is taken as it is
    assert staa.train(weights, tmp_path / "weights", progress=False).recipe.model == tiny.recipe.model


def test_what_can_not_be_taken_over_is_refused(base, tmp_path, capsys):
    with pytest.raises(ValueError, match="was trained to classify, and series-gru is to forecast"):
        starting_from(RECIPES["series-gru"], base)
    with pytest.raises(ValueError, match="tiny can't have the network and the inputs of .*: early.steps must be below"):
        starting_from(
            replace(
                tiny.speedrun,
                name="tiny",
                model=replace(tiny.speedrun.model, steps=4),
                early=replace(tiny.speedrun.early, steps=3),
            ),
            base,
        )
    assert main(["compare", TINY, f"{tiny.__file__}:own_neuron", "--init-from", str(base)]) == 2
    assert "tiny and tiny-steep are the same recipe" in capsys.readouterr().err


def test_code_of_the_runs_own_needs_trust(tmp_path, monkeypatch):
    finish(replace(tiny.own_neuron, max_steps=1), tmp_path / "base")
    same_code = starting_from(tiny.own_neuron, tmp_path / "base")
    assert same_code.model.neuron == tiny.own_neuron.model.neuron
    monkeypatch.setattr(code, "_vouched", set())
    with pytest.raises(UntrustedCodeError, match=r"has code of its own, 'steep' of .*it was not run: name the part yourself"):
        starting_from(tiny.recipe, tmp_path / "base")
    told = ["train", TINY, "--init-from", str(tmp_path / "base"), "--max-steps", "1", "--out", str(tmp_path / "told")]
    assert main(told) == 2
    assert main([*told, "--model.neuron", "lif"]) == 0  # what is told instead needs no trust
    assert not code._vouched & {(key, "steep") for key, _ in code._vouched}
    trusted = starting_from(tiny.recipe, tmp_path / "base", trust=True)
    assert isinstance(finish(replace(trusted, max_steps=1), tmp_path / "tuned")[-1], Result)


# --- frozen parts and rates ---


def test_what_is_frozen_stays_and_the_run_resumes_bit_for_bit(base, tmp_path):
    recipe = replace(
        PLAIN, init_from=str(base), freeze="stages.0,stages.1.0.conv.weight,stages.2.*.norm",
        optim=replace(PLAIN.optim, lr_of="readout=0.02,*.norm=0.001", ema=0.5, weight_decay=0.1),
    )  # fmt: skip
    events = finish(recipe, tmp_path / "whole")
    start = next(event for event in events if isinstance(event, Start))
    assert 0 < start.trained < start.parameters
    before, after = load_checkpoint(base)["model"], load_checkpoint(tmp_path / "whole")
    names = ("stages.0.", "stages.1.0.conv.", "stages.2.0.norm.", "stages.2.2.norm.")
    held = [key for key in before if key.startswith(names)]
    assert any("running_mean" in key for key in held)
    for state in (after["model"], {k.removeprefix("module."): v for k, v in after["average"].items()}):
        assert all(torch.equal(before[key], state[key]) for key in held)
        moved = [k for k in before if k not in held and not torch.equal(before[k], state[k])]
        assert {"readout.weight", "stages.1.0.norm.running_mean"} <= set(moved)
    resume = None
    for count in (2, 1):
        assert isinstance(finish(recipe, tmp_path / "pieces", resume=resume, stop=stop_after(count))[-1], Interrupted)
        resume = tmp_path / "pieces"
    finish(recipe, tmp_path / "pieces", resume=resume)
    same(after, load_checkpoint(tmp_path / "pieces"))
    assert from_json(to_json(recipe)) == replace(recipe, folder="")


def test_what_is_not_frozen_learns_as_it_would(tmp_path):
    """One step with convolutions frozen and one without move all else alike, through attention and the folded norms."""
    one = replace(tiny.recipe, max_steps=1, optim=replace(tiny.recipe.optim, name="sgd", clip=None))
    states = []
    for name, pattern in (("free", None), ("frozen", "*.conv")):
        events = finish(replace(one, freeze=pattern), tmp_path / name)
        told = [event.text for event in events if isinstance(event, Warned)]
        assert any("stages.0.0.conv.weight and 7 more as drawn at random" in text for text in told) == (pattern is not None)
        states.append(load_checkpoint(tmp_path / name)["model"])
    unlike = {key for key, value in states[0].items() if not torch.equal(value, states[1][key])}
    assert unlike == {key for key in states[0] if key.endswith(".conv.weight")}


def net():
    return nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.Sequential(nn.Linear(4, 3), nn.ReLU()), nn.BatchNorm1d(3))


def test_freeze_by_name_and_pattern():
    frozen = freeze(model := net(), ["0", "1.*"])
    assert frozen.parameters == ["0.weight", "0.bias", "1.weight", "1.bias"]
    assert frozen.norms == [model[1]]
    assert [p.requires_grad for p in model.parameters()] == [False] * 4 + [True] * 4
    assert freeze(net(), ["1.weight", "2"]) == (["1.weight", "2.0.weight", "2.0.bias"], [])
    with pytest.raises(ValueError, match="`freeze=2.1` names what has no weights"):
        freeze(net(), ["2.1"])
    with pytest.raises(ValueError, match=r"`freeze` names 1.wieght, which is no module .*; did you mean 1.weight"):
        freeze(net(), ["1.wieght"])
    with pytest.raises(ValueError, match=r"`freeze=0,1,2,3` leaves nothing to train"):
        freeze(net(), ["0", "1", "2", "3"])


def test_a_frozen_part_must_come_from_the_other_run(base, tmp_path):
    three = replace(PLAIN, init_from=str(base), freeze="readout", data=replace(PLAIN.data, name=f"{tiny.__file__}:three"))
    with pytest.raises(
        ValueError, match=r"`freeze` holds readout.weight and 1 more, which .* \(the readout: 2 classes there, 3"
    ):
        finish(three, tmp_path / "tuned")
    assert not (tmp_path / "tuned").exists()


def test_rates_of_parts_follow_the_schedule():
    """The first pattern that fits counts, decay is left where it was, and each rate falls as lr does."""
    model = net()
    freeze(model, ["1"])
    optimizer = make_optimizer(model, name="sgd", lr=0.1, weight_decay=0.5, lr_of={"0.bias": 1.0, "[02]*": 0.01})
    groups = [(g["lr"], g["weight_decay"], [tuple(p.shape) for p in g["params"]]) for g in optimizer.param_groups]
    assert groups == [
        (0.1, 0.5, []), (0.1, 0.0, [(4,), (4,), (3,), (3,)]), (1.0, 0.5, []), (1.0, 0.0, [(4,)]),
        (0.01, 0.5, [(4, 2, 3, 3), (3, 4)]), (0.01, 0.0, [(3,)]),
    ]  # fmt: skip
    schedule = cosine_schedule(optimizer, steps=4, warmup=0, lr=0.1, min_lr=0.02)
    told = []
    for _ in range(5):
        told.append([rate / base for rate, base in zip(schedule.get_last_lr(), schedule.base_lrs, strict=True)])
        optimizer.step()
        schedule.step()
    assert [row[0] for row in told] == pytest.approx([1.0, 0.2 + 0.4 * (1 + 0.5**0.5), 0.6, 0.2 + 0.4 * (1 - 0.5**0.5), 0.2])
    assert all(row == pytest.approx([row[0]] * 6) for row in told)
    with pytest.raises(ValueError, match=r"`optim.lr_of=1` names nothing that is trained"):
        make_optimizer(model, name="sgd", lr=0.1, lr_of={"1": 0.5})


# --- a finished run goes on ---


def test_a_prolonged_run_is_one_that_was_so_from_the_start(tmp_path):
    """Bit for bit, twice, and with a stop in it; the finished runs stay as they are."""
    finish(PLAIN, tmp_path / "a")
    before = {path.name: path.read_bytes() for path in (tmp_path / "a").iterdir() if path.is_file()}
    one = prolong(tmp_path / "a", 1, tmp_path / "b")
    assert isinstance(finish(read_recipe(one), one, resume=one, stop=stop_after(2))[-1], Interrupted)
    finish(read_recipe(one), one, resume=one)
    two = prolong(staa.Run(one), 2, tmp_path / "c")
    events = finish(read_recipe(two), two, resume=two)
    finish(replace(PLAIN, prolonged=(1, 2)), tmp_path / "whole")
    same(load_checkpoint(two), load_checkpoint(tmp_path / "whole"))
    assert staa.Run(two).result == staa.Run(tmp_path / "whole").result == events[-1].values()
    assert {path.name: path.read_bytes() for path in (tmp_path / "a").iterdir() if path.is_file()} == before
    assert staa.Run(one).finished
    log = staa.read_log(two)
    assert log[log.event == "epoch"].epoch.tolist() == [1, 2, 3, 4]
    lr = log[log.event == "step"].lr
    assert (read_recipe(two).all_epochs, lr.iloc[-1] < 0.2 * PLAIN.optim.lr) == (4, True)


def test_what_can_not_be_prolonged(base, tmp_path, capsys):
    unfinished = Path(shutil.copytree(base, tmp_path / "unfinished"))
    (unfinished / "result.json").unlink()
    still = replace(PLAIN.model, norm_momentum=1e-9)
    early = replace(PLAIN, epochs=3, model=still, optim=replace(PLAIN.optim, patience=1, lr=1e-12, min_lr=0.0))
    finish(early, tmp_path / "early")
    for folder, message in (
        (unfinished, "is not finished, so it can't be prolonged"),
        (tmp_path / "early", "ended since none of its last 1 epochs was better"),
        (share(base, tmp_path / "shared"), "lacks what training goes on with"),
    ):
        with pytest.raises(ValueError, match=message):
            prolong(folder, 1, tmp_path / "out")
    with pytest.raises(ValueError, match="must be a number of epochs from 1, got 0"):
        prolong(base, 0, tmp_path / "out")
    with pytest.raises(ValueError, match="holds files already"):
        prolong(base, 1, unfinished)
    assert not (tmp_path / "out").exists()


def test_prolonged_from_the_command_line_and_from_python(base, tmp_path, capsys):
    assert main(["train", "--resume", str(base), "--prolong", "1", "--out", str(tmp_path / "more")]) == 0
    text = capsys.readouterr().out
    assert f"tiny, seed 0 → {tmp_path / 'more'}, from step 5" in text
    assert "epoch   2" in text
    assert main(["runs", str(tmp_path)]) == 0
    assert "2/2" in capsys.readouterr().out
    assert main(["train", "--resume", str(tmp_path / "more")]) == 0
    assert "was already finished" in capsys.readouterr().out
    again = staa.train(resume=base, prolong=1, out=tmp_path / "python", progress=False)
    same(load_checkpoint(again.folder), load_checkpoint(tmp_path / "more"))
    assert json.loads((again.folder / "recipe.json").read_text())["prolonged"] == [1]


# --- what is told of weights that do not fit ---


def test_causes_name_the_readout_and_shapes_first():
    own = {"a.weight": torch.zeros(8, 4, 3, 3), "a.bias": torch.zeros(8), "b.weight": torch.zeros(16, 8, 3, 3)}
    own |= {"readout.linear.weight": torch.zeros(10, 16), "readout.linear.bias": torch.zeros(10), "gate": torch.zeros(2, 3)}
    its = {"a.weight": torch.zeros(16, 4, 3, 3), "a.bias": torch.zeros(16), "b.weight": torch.zeros(32, 16, 3, 3)}
    its |= {"readout.linear.weight": torch.zeros(100, 32), "readout.linear.bias": torch.zeros(100), "c": torch.zeros(1)}
    left = dict.fromkeys(["a.weight", "a.bias", "b.weight", "readout.linear.weight", "readout.linear.bias"], "shapes")
    assert causes(own, its, left | {"c": "not in this network"}) == [
        "the readout readout.linear: 100 classes there, 10 here",
        "width: 16 channels there, 8 here, in a.weight and 1 more",
        "c (not in this network)",
    ]  # fmt: skip
    gate = {"gate": torch.zeros(2, 4)}
    assert causes(own, gate, {"gate": "2 × 4 there, 2 × 3 here"}) == ["shape: 2 × 4 there, 2 × 3 here, in gate"]


def test_a_run_that_is_broken_is_not_prolonged_and_copies_nothing(base, tmp_path):
    """A log that was a link to a file of the user's own was copied into the new run."""
    (tmp_path / "secret").write_text("secret\n")

    def broken(name, text):
        folder = Path(shutil.copytree(base, tmp_path / f"broken-{name}"))
        (folder / name).unlink()
        (folder / name).symlink_to(tmp_path / "secret") if text is None else (folder / name).write_text(text)
        return folder

    for name, text in (("result.json", "{}"), ("log.jsonl", None), ("environment.json", None)):
        with pytest.raises((ValueError, OSError), match=name):
            prolong(broken(name, text), 1, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_prolonged_run_that_was_cut_off_while_it_was_made(base, tmp_path, monkeypatch):
    def die(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr("staa.runs.longer.save_text", die)
        prolong(base, 1, tmp_path / "out")
    with pytest.raises(ValueError, match="holds files already: choose another folder, or empty it"):
        prolong(base, 1, tmp_path / "out")
    prolong(base, 1, tmp_path / "other")
    with pytest.raises(ValueError, match="or resume the run in it"):
        prolong(base, 1, tmp_path / "other")


@pytest.mark.parametrize("command", ["compare", "sweep"])
def test_all_runs_that_are_started_from_are_looked_at_before_one_is_trained(command, base, tmp_path, capsys):
    half = Path(shutil.copytree(base, tmp_path / "half"))
    for path in (*half.glob("*.pt"), *half.glob("*.safetensors")):
        path.unlink()
    over = ["--over", f"init-from={base},{half}", "--max-steps", "1", "--epochs", "1", "--out", str(tmp_path / "out")]
    assert main([command, TINY, *over]) == 2
    assert "no checkpoint at" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
