"""What is smaller early in training: fewer steps, smaller images."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import tiny
import torch
from torch._dynamo.config import recompile_limit
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

import staa
from benchmarks.speedrun import forms, measure
from staa.attention import ATTENTIONS
from staa.build import check_recipe, task_of
from staa.cli.options import TrainOptions
from staa.cli.parse import parse
from staa.data import Samples
from staa.data.early import Shrink, make_shrink
from staa.models import resnet9, resnet20
from staa.neurons import AdaptiveLIF
from staa.recipes import RECIPES
from staa.recipes.as_json import from_json, to_json
from staa.recipes.parts import Early, Series
from staa.recipes.recipe import Recipe
from staa.runs import run
from staa.streaming import allow_fewer_steps
from staa.training.checkpoint import load_checkpoint
from staa.training.optim import make_optimizer
from staa.training.progress import Step
from staa.training.step import update_average

small = tiny.speedrun
EARLY = small.early


def shapes_of(batches, epochs):
    return [list(x.shape) for epoch in range(epochs) for x, _ in batches.epoch(epoch)]


def batches_of(recipe):
    source = task_of(recipe).source(Path())
    return task_of(recipe).batches(source, "train", torch.device("cpu"), workers=0, training=True)


def test_the_schedule_by_hand():
    shrink = make_shrink(total=12, full=16, steps=1, steps_share=0.5, size=6, size_share=0.75, size_stages=3)
    assert shrink == Shrink(steps=1, few=6, sizes=(6, 10, 12), small=9)
    assert shrink.changes() == [0, 3, 6, 9]
    x = torch.rand(2, 3, 16, 16)
    found = [list(shrink(x, k).shape) for k in range(12)]
    assert found == [[1, 2, 3, s, s] for s in (6, 6, 6, 10, 10, 10)] + [[2, 3, 12, 12]] * 3 + [[2, 3, 16, 16]] * 3
    assert shrink(x, 11) is x
    assert make_shrink(total=12, full=16) is None
    assert make_shrink(total=10, full=32, size=16).sizes == (16, 24)
    assert make_shrink(total=10, full=32, size=15, size_stages=1).sizes == (15,)
    assert make_shrink(total=10, full=32, steps=3, steps_share=1.0).changes() == [0, 10]


@pytest.mark.parametrize("stages", [1, 2, 3, 4])
@pytest.mark.parametrize("total", [1, 2, 7, 100])
@pytest.mark.parametrize("share", [0.01, 0.3, 1.0])
def test_every_change_is_foretold_and_nothing_shrinks_again(total, share, stages):
    shrink = make_shrink(total=total, full=32, steps=1, steps_share=share / 2, size=9, size_share=share, size_stages=stages)
    shapes = [list(shrink(torch.rand(1, 1, 32, 32), k).shape) for k in range(total)]
    changes = [0, *(k for k in range(1, total) if shapes[k] != shapes[k - 1])]
    assert set(changes) <= set(shrink.changes())
    assert [shape[-1] for shape in shapes] == sorted(shape[-1] for shape in shapes)
    assert max(shape[-1] for shape in shapes) == 32 or share == 1.0
    assert len({str(shape) for shape in shapes}) <= stages + 2
    assert stages + 2 <= recompile_limit, "torch.compile gives up on a function of more forms"


def test_images_are_averaged_down():
    """A constant stays one, half the size is close to the mean of 2 × 2, and a sample does not see its neighbours."""
    shrink = Shrink(sizes=(8,), small=1)
    assert torch.allclose(shrink(torch.full((2, 3, 16, 16), 0.7), 0), torch.tensor(0.7))
    x = torch.rand(2, 3, 16, 16)
    mean = torch.nn.functional.avg_pool2d(x, 2)
    assert (shrink(x, 0) - mean).std() < 0.5 * mean.std()
    assert torch.equal(shrink(x, 0)[1:], shrink(x[1:], 0))
    with pytest.raises(ValueError, match="only still images"):
        Shrink(sizes=(8,), small=1)(torch.rand(2, 2, 3, 16, 16), 0)


def test_batches_of_training_alone_are_smaller_and_an_epoch_can_be_entered_anywhere():
    source = task_of(small).source(Path())
    batches = batches_of(small)
    expected = [[1, 8, 3, s, s] for s in (6, 6, 6, 10, 10, 10)] + [[8, 3, 12, 12]] * 3 + [[8, 3, 16, 16]] * 3
    assert shapes_of(batches, 3) == expected
    for epoch in range(3):
        whole = list(batches.epoch(epoch))
        for start in range(4):
            for (x, y), (a, b) in zip(whole[start:], batches.epoch(epoch, start), strict=True):
                assert torch.equal(x, a)
                assert torch.equal(y, b)
    for part in ("validation", "test"):
        plain = task_of(small).batches(source, part, torch.device("cpu"), workers=0)
        assert {tuple(x.shape[1:]) for x, _ in plain.epoch()} == {(3, 16, 16)}


def test_the_schedule_is_fitted_to_the_run(tmp_path):
    """To its epochs, or to the steps after which it stops; with fewer samples than a batch, too."""
    assert shapes_of(batches_of(replace(small, max_steps=4)), 1)[:4] == [
        [1, 8, 3, 6, 6], [1, 8, 3, 10, 10], [8, 3, 12, 12], [8, 3, 16, 16],
    ]  # fmt: skip
    one = batches_of(replace(small, batch_size=512, epochs=4))
    assert len(one) == 1
    assert [shape[-1] for shape in shapes_of(one, 4)] == [6, 10, 12, 16]
    assert small.steps(4) == 12
    assert replace(small, max_steps=5).steps(4) == 5


def finish(recipe, folder, **options):
    return list(run(recipe, folder, **options))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("early") / "run"
    events = finish(small, folder)
    return folder, events[-1]


def test_what_is_measured_is_the_average_of_weights_and_statistics(whole):
    """At all steps and full size: test figures, the best epoch's and staa.load, BatchNorm's statistics among them."""
    folder, result = whole
    state = load_checkpoint(folder)
    model = staa.load(folder)
    for name, value in model.state_dict().items():
        assert torch.equal(value, state["average"][f"module.{name}"]), name
    running = [name for name in state["model"] if name.endswith("running_mean")]
    assert len(running) == 10
    assert not any(torch.equal(state["model"][name], state["average"][f"module.{name}"]) for name in running)
    images = task_of(small).source(Path())
    with torch.no_grad():
        logits = model(images.prepare(images.test.x))
    assert len(logits) == 2
    assert (logits.mean(0).argmax(1) == images.test.y).float().mean().item() == pytest.approx(result.test["accuracy"])
    with pytest.raises(ValueError, match="built for T = 2 steps, got 1"):
        model(torch.rand(1, 2, 3, 16, 16))


def test_a_small_speedrun_learns(tmp_path):
    recipe = replace(small, epochs=12, data=replace(small.data, validation=0.0))
    losses = [event.read.loss for event in finish(recipe, tmp_path / "run") if isinstance(event, Step)]
    assert len(losses) == 48
    assert sum(losses[-8:]) < 0.85 * sum(losses[:8])


FITTING = [None, "gc", "gc-pe", "staa-causal", "se"]


@pytest.mark.parametrize("attention", FITTING)
def test_the_first_steps_alone_are_the_first_of_all(attention):
    """So that what is learned early is of the network that is trained later."""
    model = resnet20(3, steps=4, width=0.1, neuron=AdaptiveLIF, attention=ATTENTIONS[attention] if attention else None)
    model = allow_fewer_steps(model.double().eval())
    x = torch.randn(4, 2, 3, 16, 16, dtype=torch.float64)
    with torch.no_grad():
        whole = model(x)
        for few in (1, 2, 3):
            torch.testing.assert_close(model(x[:few]), whole[:few], rtol=1e-9, atol=1e-9)
    with pytest.raises(ValueError, match="built for T = 4 steps, got 5"):
        model(torch.randn(5, 2, 3, 16, 16, dtype=torch.float64))


@pytest.mark.parametrize("attention", [name for name in ATTENTIONS if name not in FITTING])
def test_attention_that_sees_later_steps_takes_no_fewer(attention, tmp_path):
    recipe = replace(small, model=replace(small.model, attention=attention))
    with pytest.raises(ValueError, match=r"`early.steps` needs a network in which no step sees a later one \(.*sees the whole"):
        next(run(recipe, tmp_path / "run"))
    assert not any(tmp_path.glob("run/*"))
    assert finish(replace(recipe, early=replace(EARLY, steps=None), max_steps=1), tmp_path / "run")[-1].test["loss"] > 0


def test_a_position_encoding_learns_a_step_once_it_is_there(tmp_path):
    """The first rows are trained early, the others wait as they began."""
    recipe = replace(small, model=replace(small.model, attention="gc-pe"), early=Early(steps=1, steps_share=0.5))
    asked = iter(range(99))
    last = finish(recipe, tmp_path / "run", stop=lambda: next(asked) == 5)[-1]
    begun, now = (
        load_checkpoint(tmp_path / "run" / name)["model"]["stem.1.attention.position.encoding"]
        for name in ("previous.pt", "last.pt")
    )
    assert last.step == 6
    assert not torch.equal(begun[0], now[0])
    assert torch.equal(begun[1], now[1])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(early=Early(size=16)), r"`early.size` must be below the images' own 16 pixels, got 16"),
        (dict(early=Early(size=40)), r"`early.size` must be below the images' own 16 pixels, got 40"),
        (
            dict(model=replace(tiny.recipe.model, name="vggsnn", steps=2, neuron="plain", attention=None)),
            r"can't take what `early.steps` and `early.size` make of an image, \[1, 1, 3, 6, 6\]: this vggsnn was built for",
        ),
        (
            dict(data=tiny.recipe.data, augment=tiny.recipe.augment),
            "`early.steps` and `early.size` are for still images, repeated at each step; .*events has a frame for each",
        ),
        (dict(batch_size=1), "at T = 1 gives BatchNorm one sample"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_written(changes, message, tmp_path):
    recipe = replace(small, **changes)
    with pytest.raises(ValueError, match=message):
        next(run(recipe, tmp_path / "run"))
    assert not any(tmp_path.glob("run/*"))
    if "batch_size" not in changes:
        with pytest.raises(ValueError, match=message):
            check_recipe(recipe, tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(steps=0), "early.steps must be at least 1, got 0"),
        (dict(steps=2), "early.steps must be below model.steps, which is 2, got 2"),
        (dict(steps_share=0.0), r"early.steps_share must be above 0 and at most 1, got 0.0"),
        (dict(size_share=1.5), r"early.size_share must be above 0 and at most 1, got 1.5"),
        (dict(size=0), "early.size must be at least 1, got 0"),
        (dict(size_stages=0), "early.size_stages must be at least 1, got 0"),
        (dict(size_stages=5), "early.size_stages must be below 5, got 5"),
        (dict(size="16"), "early.size must be int, None"),
    ],
)
def test_settings_that_make_no_sense(changes, message):
    with pytest.raises(ValueError, match=message):
        replace(small, early=Early(**changes))


def test_a_window_of_any_length_and_a_series_have_no_fewer_steps():
    with pytest.raises(ValueError, match="early.steps must be below model.steps, which is None, got 1"):
        replace(small, model=replace(small.model, steps=None))
    with pytest.raises(ValueError, match="early.steps and early.size must be None, got 1 and 6"):
        replace(small, series=Series(horizon=3))


def test_a_recipe_from_before_has_nothing_smaller():
    older = json.loads(to_json(small))
    del older["early"]
    assert from_json(json.dumps(older)) == replace(small, early=Early())
    assert from_json(to_json(small)) == small
    assert all(recipe.early == Early() for name, recipe in RECIPES.items() if "speedrun" not in name)


def test_each_trick_is_an_option():
    recipe = RECIPES["cifar10-speedrun"]
    args = (
        "--early.steps None --early.size None --optim.ema 0 --optim.no-nesterov --loss.label-smoothing 0 --optim.lr 0.1 "
        "--batch-size 128 --optim.warmup-epochs 0 --model.residual-init 1"
    )
    options = parse(TrainOptions, args.split(), "staa train", default=TrainOptions(recipe=recipe))
    plain = options.recipe
    assert plain.early == replace(recipe.early, steps=None, size=None)
    assert (plain.optim.ema, plain.optim.nesterov, plain.optim.warmup_epochs, plain.optim.lr) == (0, False, 0, 0.1)
    assert (plain.loss.label_smoothing, plain.batch_size, plain.model.residual_init) == (0, 128, 1)


@pytest.mark.parametrize("data", ["cifar10", "cifar100"])
def test_the_speedrun_is_what_it_says(data):
    """The rate is 0.1 at a batch of 128, scaled; nothing is augmented one by one on the CPU; no promise is made."""
    recipe = RECIPES[f"{data}-speedrun"]
    assert recipe.optim.lr == pytest.approx(0.1 * recipe.batch_size / 128)
    assert (recipe.optim.nesterov, recipe.optim.warmup_epochs > 0, recipe.optim.ema > 0) == (True, True, True)
    assert recipe.loss.label_smoothing > 0
    assert recipe.early.steps == recipe.model.steps // 2
    assert recipe.augment.policy is None
    assert recipe.augment.jitter == 0
    assert recipe.expect.startswith("unmeasured; the aim is ")
    assert recipe.expect.endswith("not yet measured")


# Work per sample, counted: it does not depend on the machine.


def multiplications(recipe: Recipe, full: int = 32) -> int:
    """Floating-point operations of convolutions and products, forward and backward, per sample over a whole run."""
    shrink = make_shrink(
        total=100, full=full, steps=recipe.early.steps, steps_share=recipe.early.steps_share, size=recipe.early.size,
        size_share=recipe.early.size_share, size_stages=recipe.early.size_stages,
    )  # fmt: skip
    model = resnet9(10, steps=recipe.model.steps, width=recipe.model.width)
    if recipe.early.steps is not None:
        allow_fewer_steps(model)
    x, counted, total = torch.rand(2, 3, full, full), {}, 0
    for k in range(100):
        small_x = x if shrink is None else shrink(x, k)
        shape = tuple(small_x.shape)
        if shape not in counted:
            with FlopCounterMode(display=False) as counter:
                model(small_x).sum().backward()
            counted[shape] = counter.get_total_flops()
        total += counted[shape]
    return total


def test_the_work_that_early_saves():
    """Half the steps for half of the run: a quarter. 16 and 24 of 32 pixels for 15 % each: 0.15 · 0.75 + 0.15 · 0.4375 = 18 %,
    but for the readout. Both: each step's share times its pixels' share."""
    recipe = replace(RECIPES["cifar10-speedrun"], model=replace(RECIPES["cifar10-speedrun"].model, width=0.1))
    assert recipe.early == Early(steps=2, steps_share=0.5, size=16, size_share=0.3, size_stages=2)
    usual = multiplications(replace(recipe, early=Early()))
    assert multiplications(replace(recipe, early=replace(recipe.early, size=None))) == pytest.approx(0.75 * usual, rel=1e-6)
    assert multiplications(replace(recipe, early=replace(recipe.early, steps=None))) == pytest.approx(0.8219 * usual, rel=2e-3)
    both = 0.15 * 0.5 * 0.25 + 0.15 * 0.5 * 0.5625 + 0.2 * 0.5 + 0.5
    assert multiplications(recipe) == pytest.approx(both * usual, rel=2e-3)


class Counted(TorchDispatchMode):
    """Elements that elementwise operations write in place: those of optimizer and average."""

    def __init__(self):
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.name().partition(".")[0].endswith("_"):
            self.elements += sum(t.numel() for t in tree_leaves(args[0]) if isinstance(t, torch.Tensor))
        return func(*args, **(kwargs or {}))


def updates_per_sample(batch: int, ema: float = 0.0) -> float:
    model = resnet9(10, width=0.05)
    optimizer = make_optimizer(model, name="sgd", lr=0.1, nesterov=True)
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(ema), use_buffers=True)
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    optimizer.step()
    with Counted() as counted:
        for _ in range(1024 // batch):
            optimizer.step()
            if ema:
                update_average(average, model, first=False)
    assert counted.elements > 0
    return counted.elements / 1024


def test_the_work_that_large_batches_save_and_an_average_costs():
    """Updates of weights per sample fall with the batch; the average adds one pass to the optimizer's."""
    assert updates_per_sample(512) == pytest.approx(updates_per_sample(128) / 4)
    plain, averaged = updates_per_sample(512), updates_per_sample(512, ema=0.99)
    assert plain < averaged < 2 * plain


def test_the_benchmark_takes_each_trick_in_turns():
    images = task_of(small).source(Path())
    x = torch.randint(0, 256, (256, 3, 32, 32), dtype=torch.uint8)
    source = replace(images, train=Samples(x, torch.arange(256) % 3), size=32)
    found = measure(source, 1, width=0.03)
    assert found.keys() == forms().keys()
    assert len(set(forms().values())) == 10
    assert all(len(values) == 1 and values[0] > 0 for values in found.values())
