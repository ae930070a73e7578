"""`staa recipes`: the list by data set, what words find, and all that is known of one."""

import json
import re
from pathlib import Path

import pytest
import tiny
import torch

from staa.build.parameters import parameters_of
from staa.cli import main
from staa.cli.recipes import WHERE
from staa.data import DATASETS
from staa.data.shapes import SHAPES
from staa.recipes import RECIPES


def show(capsys, *args):
    assert main(["recipes", *args]) == 0
    return capsys.readouterr().out


def listed(text):
    return [name for line in text.splitlines() if (name := line.strip().split("  ")[0]) in RECIPES and line.startswith("  ")]


@pytest.fixture(autouse=True)
def _narrow(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")


def test_all_are_listed_each_below_its_data_set(capsys):
    text, data = show(capsys), None
    assert sorted(listed(text)) == sorted(RECIPES)
    for line in text.splitlines():
        if line in WHERE:
            data = line
        elif listed(line):
            assert RECIPES[listed(line)[0]].data.name == data
    assert max(map(len, text.splitlines())) <= 80
    assert len(text.splitlines()) < 1.5 * len(RECIPES)


@pytest.mark.parametrize(
    ("args", "names"),
    [
        (["dta", "cifar100"], ["cifar100-resnet20-tiny-dta", "cifar100-msresnet18-dta"]),
        (["97.14"], ["cifar10-resnet19-staa"]),
        (["DTA", "--data", "imagenet"], ["imagenet-msresnet34-dta"]),
        (["--data", "nmnist"], ["nmnist-vggsnn-staa", "nmnist-vggsnn-plain", "nmnist-stream"]),
        (["--data", "digits-events"], ["digits-events", "digits-events-plain"]),
        (["gc-pe-sa", "resnet19"], ["cifar100-resnet19-gc-pe-sa", "cifar10-resnet19-gc-pe-sa"]),
    ],
)
def test_every_word_must_be_there(args, names, capsys):
    text = show(capsys, *args)
    assert listed(text) == names
    assert f"{len(names)} of {len(RECIPES)} recipes" in text


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["cifra"], "unknown recipe or word of one 'cifra'; did you mean cifar10"),
        (["zzz"], f"unknown recipe or word of one 'zzz'; `staa recipes` lists all {len(RECIPES)}\n"),
        (["resnet19", "vgg-snn"], "unknown recipe or word of one 'vgg-snn'; did you mean vggsnn?"),
        (["digit-events"], "did you mean digits-events"),
        (["--data", "nmist"], "unknown data set of a recipe 'nmist'; did you mean nmnist?"),
        (["dta", "nmnist"], "no recipe has all of dta, nmnist: leave one out"),
        (["dta", "--data", "nmnist"], "no recipe has all of dta, --data nmnist: leave one out"),
        (["nowhere.py:recipe"], "nowhere.py to take 'recipe' from"),
    ],
)
def test_what_finds_nothing_is_an_error(args, told, capsys):
    assert main(["recipes", *args]) == 2
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    "name", ["digits-events", "cifar100-resnet20-staa", "metr-la-ispikformer-6", "series-gru", "folder-resnet18-staa"]
)
def test_a_name_tells_all_of_a_recipe(name, capsys):
    text, recipe = show(capsys, name), RECIPES[name]
    joined = " ".join(text.split())
    for part in (
        recipe.summary,
        recipe.source,
        recipe.expect,
        WHERE[recipe.data.name],
        f"{recipe.epochs} epochs",
        f"staa train {name}",
    ):
        assert part in joined
    assert max(map(len, text.splitlines())) <= 80
    assert ("parameters" in text) == (recipe.data.name in SHAPES)


def test_a_recipe_of_ones_own_is_told_and_nothing_is_invented(capsys):
    text = show(capsys, f"{tiny.__file__}:own_neuron")
    assert f"neuron {tiny.__file__}:steep" in " ".join(text.split())
    assert "parameters" not in text
    assert f"staa train {tiny.__file__}:own_neuron" in text


def test_every_data_set_of_a_recipe_says_where_it_comes_from():
    assert {recipe.data.name for recipe in RECIPES.values()} <= set(WHERE)
    assert set(SHAPES) | {"folder", "events-folder"} == set(DATASETS)


def test_parameters_are_those_of_the_network():
    before = torch.get_rng_state()
    assert parameters_of(RECIPES["cifar100-resnet20-staa"]) == 12_032_620  # as README and the tests of the network say
    assert torch.equal(torch.get_rng_state(), before)
    about = json.loads((Path(__file__).parent / "versions" / "unnumbered" / "digits" / "environment.json").read_text())["data"]
    assert SHAPES["digits-events"] == (about["classes"], about["channels"], about["size"])
    assert SHAPES["nmnist"] == (10, 2, 34)
    assert SHAPES["dvsgesture"] == (11, 2, 128)
    assert parameters_of(RECIPES["ring-spikestag"]) is None
    assert parameters_of(RECIPES["folder-resnet18-staa"]) is None


def test_where_data_of_ones_own_lie_is_part_of_the_command(capsys):
    for name, option in (("folder-resnet18-staa", "--data DIR"), ("series-linear", "--data FILE"), ("ring-spikestag", "")):
        (line,) = re.findall(r"train it +(.*)", show(capsys, name))
        assert line == f"staa train {name} {option}".strip()
