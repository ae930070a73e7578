"""`staa compare --over`, and what is not put side by side."""

import csv
from dataclasses import replace

import pytest
import tiny
import torch

from staa import RECIPES
from staa.analysis.alike import Candidate, check_settings, check_tests, unlike_budgets
from staa.analysis.compare import compare
from staa.build import task_of
from staa.cli import main
from staa.cli.over import folder_of, settings_of, variants_of
from staa.recipes.parts import Data, Series
from staa.runs.folder import read_recipe

TINY = f"{tiny.__file__}:recipe"


def test_a_recipe_at_several_values(tmp_path, capsys):
    """Each is trained in a folder of its own, named in the table, and taken if it is there."""
    options = ["--max-steps", "1", "--epochs", "1", "--out", str(tmp_path / "out")]
    command = ["compare", TINY, "--over", "model.attention=none,gc", "model.width=0.05,0.06", *options]
    assert main(command) == 0
    text = capsys.readouterr().out
    names = [f"model.attention={a}, model.width={w}" for a in ("none", "gc") for w in ("0.05", "0.06")]
    with (tmp_path / "out" / "compare.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == names
    assert all(name in text for name in names)
    recipes = [read_recipe(tmp_path / "out" / folder_of(name)) for name in names]
    assert [(r.model.attention, r.model.width) for r in recipes] == [(None, 0.05), (None, 0.06), ("gc", 0.05), ("gc", 0.06)]
    assert main(command) == 0
    assert "epoch" not in capsys.readouterr().out
    folders = {name: [tmp_path / "out" / folder_of(name)] for name in names[:2]}
    assert [row.test for row in compare(folders, device="cpu")] == [float(row["test_accuracy"]) for row in rows[:2]]


def test_what_the_options_make():
    over = ["model.attention=none,staa", "augment.flip=true,False"]
    made = variants_of(over, [], tiny.recipe, alone=False)
    assert [one.label for one in made][:2] == [f"tiny model.attention=none, augment.flip={v}" for v in ("true", "False")]
    assert [one.args for one in made][1:3] == [
        ["--model.attention=none", "--augment.no-flip"], ["--model.attention=staa", "--augment.flip"],
    ]  # fmt: skip
    assert variants_of(["data.size"], [], tiny.recipe, alone=True) == variants_of([], [], tiny.recipe, alone=True)
    gates = variants_of(["model.attention.reduction=4,8"], ["--epochs", "2"], tiny.recipe, alone=True)
    assert [one.args for one in gates] == [[f"--model.attention.reduction={r}"] for r in (4, 8)]
    assert settings_of(["data.size,model.norm-momentum", "optim.lr=1,2"]) == ["data.size", "model.norm_momentum", "optim.lr"]
    assert folder_of("loss.name=/a/b.py:c, x=1") == "loss.name=_a_b.py_c,_x=1"
    hundred = ",".join(map(str, range(1, 101)))
    many = [f"{name}={hundred}" for name in ("optim.lr", "model.width", "optim.min-lr", "epochs", "batch-size")]
    with pytest.raises(ValueError, match="makes 10,000,000,000 recipes, and 100 are the most"):
        variants_of(many, [], tiny.recipe, alone=True)
    with pytest.raises(ValueError, match="makes 50,000 recipes"):  # the same value so often was looked for 10⁹ times
        variants_of([f"optim.lr={'1,' * 49_999}1"], [], tiny.recipe, alone=True)
    with pytest.raises(ValueError, match="makes 121 recipes"):
        variants_of(
            [f"{name}={','.join(map(str, range(11)))}" for name in ("optim.lr", "model.width")], [], tiny.recipe, alone=True
        )


IMAGES, EVENTS = RECIPES["cifar100-resnet20-tiny-staa"], RECIPES["nmnist-vggsnn-staa"]
FORECAST = RECIPES["series-gru"]


@pytest.mark.parametrize(
    ("recipe", "part", "changes", "unlike"),
    [
        (IMAGES, "model", {"steps": 8}, ""),  # each step sees the same image
        (IMAGES, "model", {"attention": None, "width": 0.5}, ""),
        (IMAGES, "optim", {"lr": 0.3}, ""),
        (IMAGES, "augment", {"flip": False}, ""),
        (IMAGES, "data", {"validation": 0.2}, "data.validation"),
        (RECIPES["folder-resnet18-staa"], "data", {"size": 64}, "data.size"),
        (RECIPES["folder-resnet18-staa"], "data", {"corrupt": "skip"}, ""),
        (EVENTS, "model", {"steps": 8}, "model.steps"),  # frames are made otherwise
        (EVENTS, "data", {"frames": "time"}, "data.frames"),
        (EVENTS, "data", {"values": "binary"}, "data.values"),
        (EVENTS, "data", {"split": "fold-1-of-5"}, "data.split"),
        (FORECAST, "series", {"window": 24}, "series.window"),
        (FORECAST, "series", {"fit_on": "all"}, "series.fit_on"),
        (FORECAST, "series", {"train": 0.6}, "series.train"),
        (FORECAST, "series", {"season": "none", "normalise": "max", "time_features": False}, ""),
        (FORECAST, "model", {"name": "last-value"}, ""),
    ],
)
def test_what_must_be_alike(recipe, part, changes, unlike):
    other = replace(recipe, **{part: replace(getattr(recipe, part), **changes)})
    both = {"a": recipe, "b": other}
    if not unlike:
        return check_settings(both)
    with pytest.raises(ValueError, match=rf"not tested alike \({unlike}: .* for a, .* for b\).*name it with `over={unlike}`"):
        check_settings(both)
    check_settings(both, over=[unlike])
    return None


def test_other_protocols_jobs_and_budgets():
    paper = replace(IMAGES, protocol="paper", data=replace(IMAGES.data, validation=0.0))
    with pytest.raises(ValueError, match=r"not tested alike \(protocol: test-once for a, paper for b; data.validation: "):
        check_settings({"a": IMAGES, "b": paper})
    with pytest.raises(ValueError, match="their data sets differ"):
        check_settings({"a": IMAGES, "b": EVENTS}, over=["data.name"])
    with pytest.raises(ValueError, match="different jobs"):
        check_settings({"a": IMAGES, "b": FORECAST})
    longer = replace(IMAGES, epochs=5, max_steps=None)
    assert unlike_budgets({"a": IMAGES, "b": longer, "c": longer}) == (
        "epochs: 1 for a, 5 for b and 1 more; max_steps: 300 for a, None for b and 1 more"
    )
    assert unlike_budgets({"a": longer, "b": longer}) == ""


def test_other_tests_are_refused_whatever_is_compared(tmp_path):
    def tested(recipe, source=None):
        task = task_of(recipe)
        return Candidate(recipe, task.tested(source or task.source(tmp_path)))

    series = replace(FORECAST, data=Data(f"{tiny.__file__}:series", 0.1), series=Series(horizon=3))
    changed = {"horizon": 4, "train": 0.6, "window": 24}
    for name, value in changed.items():
        other = replace(series, series=replace(series.series, **{name: value}))
        with pytest.raises(ValueError, match=rf"the test set of a is not that of b \(series.{name}: .* for a, {value} for b\)"):
            check_tests({"a": tested(series), "b": tested(other)})
    check_tests({"a": tested(series), "b": tested(replace(series, series=replace(series.series, normalise="max")))})
    images = tested(tiny.recipe)
    check_tests({"a": images, "b": tested(replace(tiny.recipe, model=replace(tiny.recipe.model, steps=2)))})
    source = task_of(tiny.recipe).source(tmp_path)
    labels = replace(source.test, y=torch.zeros_like(source.test.y))
    with pytest.raises(ValueError, match="the data of one of them have changed"):
        check_tests({"a": images, "b": tested(tiny.recipe, replace(source, test=labels))})
