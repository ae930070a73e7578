"""Options of a recipe's parts: in Python, in JSON, on the command line, in a run; and what is wrong with them, in words."""

import json
from dataclasses import replace

import pytest
import tiny
import torch
from test_cli import complaint

import staa
from staa.attention import ATTENTIONS, STAA
from staa.build import task_of
from staa.cli import main
from staa.neurons import NEURONS
from staa.recipes import RECIPES
from staa.recipes.as_json import differences, from_json, to_json
from staa.recipes.code import UntrustedCodeError, named_files
from staa.recipes.find import find, options_taken, with_absolute_paths
from staa.recipes.parts import Loss, Model

TINY = f"{tiny.__file__}:recipe"
PARTS = [*(("neuron", NEURONS, name) for name in NEURONS), *(("attention", ATTENTIONS, name) for name in ATTENTIONS)]
OWN = """
from typing import Literal
from torch import nn
import torch
class Mine(nn.Module):
    acts_on, causal = "current", True
    def __init__(self, steps, channels, *, size: int, gentle=False, kind: "Literal[1, 'a']" = "a", cut: int = None, f=nn.ReLU):
        super().__init__()
        self.weights = nn.Parameter(torch.ones(size))
    def forward(self, x):
        return x * self.weights.mean()
"""


def made(model):
    return replace(tiny.recipe, model=replace(tiny.recipe.model, **model), max_steps=1)


def test_a_recipe_with_options_is_compared_hashed_and_kept():
    a = made({"attention": ("staa", {"reduction": 8, "dropout": 0.2}), "neuron": ("lif", {"decay": 0.3})})
    b = made({"attention": ["staa", {"dropout": 0.2, "reduction": 8}], "neuron": ("lif", {"decay": 0.3})})
    assert a == b
    assert hash(a) == hash(b)
    assert from_json(to_json(a)) == a
    assert json.loads(to_json(a))["model"]["attention"] == ["staa", {"dropout": 0.2, "reduction": 8}]
    assert replace(a.model, attention="dta").attention == "dta"
    assert made({"attention": ("staa", {})}).model.attention == "staa"
    c = made({"attention": ("staa", {"reduction": 4, "dropout": 0.2}), "neuron": "lif"})
    assert differences(a, c) == ["model.neuron.decay: 0.3, not set", "model.attention.reduction: 8, 4"]
    assert differences(made({"neuron": ("parametric", {"gain": None})}), made({"neuron": "parametric"})) == [
        "model.neuron.gain: None, not set"
    ]


@pytest.mark.parametrize("name", RECIPES)
def test_a_plain_name_is_written_as_it_was(name):
    kept, neuron = json.loads(to_json(RECIPES[name])), RECIPES[name].model.neuron
    assert isinstance(kept["model"]["name"], str)
    assert isinstance(kept["model"]["neuron"], str if isinstance(neuron, str) else list)
    assert isinstance(kept["loss"]["name"], str)
    assert isinstance(kept["model"]["attention"], str | None)


@pytest.mark.parametrize(("what", "registry", "name"), PARTS)
def test_each_option_at_its_default_changes_nothing(what, registry, name):
    taken = options_taken(name, registry, what, folder=None)
    assert taken
    found = find((name, {key: option.default for key, option in taken.items()}), registry, what, folder=None)
    sizes = (8,) if what == "neuron" else (4, 8)
    own, plain = found(*sizes), registry[name](*sizes)
    assert own.extra_repr() == plain.extra_repr()
    assert {k: v.shape for k, v in own.state_dict().items()} == {k: v.shape for k, v in plain.state_dict().items()}


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"attention": ("staa", {"reductio": 3})}, "no `model.attention.reductio`; did you mean reduction?.*dropout, causal"),
        ({"attention": ("staa", {"position": None})}, "takes no `model.attention.position`"),
        ({"attention": ("staa", {"reduction": 2.5})}, "`model.attention.reduction` must be int; got 2.5"),
        ({"attention": ("staa", {"reduction": True})}, "`model.attention.reduction` must be int; got True"),
        ({"attention": ("staa", {"dropout": 3})}, "dropout must be a probability"),
        ({"attention": ("staa", {"reduction": [4]})}, "model.attention.reduction must be a number"),
        ({"attention": ("staa", {"dropout": float("nan")})}, "model.attention.dropout must be finite"),
        ({"attention": ("staa", {"reduction": 10**400})}, "model.attention.reduction must be finite"),
        ({"attention": ("staa", {"a b": 1})}, "no Python parameter"),
        ({"attention": ("staa", 3)}, "model.attention must be a name, or one with options"),
        ({"attention": ("staa",)}, "model.attention must be a name, or one with options"),
        ({"neuron": ("lif", {"surrogate": "atan"})}, "`model.neuron.surrogate` must be 'rectangle', .*; got 'atan'"),
        ({"neuron": ("lif", {"decay": 3})}, r"decay must be in \[0, 1\]"),
        ({"name": ("vggsnn", {"width": 0.5})}, "the model vggsnn takes no `model.name.width`; it has no options"),
    ],
)
def test_a_bad_option_is_refused_in_words(model, message):
    with pytest.raises(ValueError, match=message):
        task_of(made(model)).network({"classes": 2, "channels": 2, "size": 16})


def test_a_surrogate_is_named():
    recipe = made({"neuron": ("lif", {"surrogate": "triangle"})})
    model = task_of(recipe).network({"classes": 2, "channels": 2, "size": 16})
    assert {m.surrogate for m in model.modules() if isinstance(m, staa.neurons.LIF)} == {staa.ops.triangle}


def test_a_run_with_options_from_start_to_evaluation(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = ["--model.attention.reduction", "8", "--model.neuron.no-strict", "--model.neuron.threshold=0.4"]
    assert main(["train", TINY, *options, "--model.width", "0.5", "--max-steps", "1", "--out", "run"]) == 0
    model = json.loads((tmp_path / "run" / "recipe.json").read_text())["model"]
    assert model["attention"] == ["staa", {"reduction": 8}]
    assert model["neuron"] == ["adaptive", {"strict": False, "threshold": 0.4}]
    sites = [m for m in staa.load("run").modules() if isinstance(m, STAA)]
    for site in sites:
        plain = STAA(3, site.channels, reduction=8).state_dict()
        assert {k: v.shape for k, v in site.state_dict().items()} == {k: v.shape for k, v in plain.items()}
    assert any(STAA(3, site.channels).context.query.out_features != site.context.query.out_features for site in sites)
    assert main(["evaluate", "run"]) == 0
    assert main(["train", "--resume", "run", "--model.attention.reduction", "8"]) == 0
    capsys.readouterr()
    assert "model.attention.reduction: 8, 2" in complaint(
        capsys, "train", "--resume", "run", "--model.attention.reduction", "2"
    )
    assert "dropout: not set, 0.3" in complaint(capsys, "train", "--resume", "run", "--model.attention.dropout", "0.3")


def test_options_of_a_part_of_one_s_own(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.py").write_text(OWN)
    own = ["train", TINY, "--max-steps", "1", "--out", "run", "--model.attention", "own.py:Mine"]
    for more, message in (
        ([], "own.py:Mine needs --model.attention.size: int"),
        (["--model.attention.siz", "3"], "did you mean size? its options are size, gentle, kind, cut"),
        (["--model.attention.f", "3"], "takes no --model.attention.f"),
        (["--model.attention.size", "x"], "--model.attention.size must be a whole number, got 'x'"),
        (["--model.attention.size", "3", "--model.attention.kind", "b"], "invalid choice"),
        (["--model.attention.size", "3", "--model.attention.cut", "b"], "--model.attention.cut"),
    ):
        assert message in complaint(capsys, *own, *more)
    assert main([*own, "--model.attention.size", "3", "--model.attention.gentle", "--model.attention.kind=1"]) == 0
    name, options = json.loads((tmp_path / "run" / "recipe.json").read_text())["model"]["attention"]
    assert name.startswith("code/own-")
    assert options == {"gentle": True, "kind": 1, "size": 3}
    (tmp_path / "own.py").unlink()
    assert any(value.shape == (3,) for value in staa.load("run").state_dict().values())


def test_options_in_a_recipe_file_of_one_s_own(tmp_path):
    (tmp_path / "own.py").write_text(OWN)
    recipe = with_absolute_paths(made({"attention": ("own.py:Mine", {"size": 2})}), tmp_path)
    assert recipe.model.attention == (f"{tmp_path}/own.py:Mine", (("size", 2),))


def test_another_part_drops_the_options_of_the_first(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(
        f"import sys; sys.path.append({str(tmp_path)!r})\nfrom dataclasses import replace\nimport staa\n"
        f"base = staa.RECIPES['digits-events']\n"
        f"recipe = replace(base, model=replace(base.model, attention=('staa', {{'reduction': 8}})))\n"
    )
    from staa.cli.options import TrainOptions
    from staa.cli.parse import parse
    from staa.recipes.find import find_recipe

    default = TrainOptions(recipe=find_recipe("mine.py:recipe"))

    def told(*args):
        return parse(TrainOptions, list(args), "staa train", default).recipe.model.attention

    assert told() == ("staa", (("reduction", 8),))
    assert told("--model.attention.dropout", "0.2") == ("staa", (("dropout", 0.2), ("reduction", 8)))
    assert told("--model.attention.reduction", "4") == ("staa", (("reduction", 4),))
    assert told("--model.attention", "dta") == "dta"
    assert told("--model.attention.dilation", "1", "--model.attention", "dta") == ("dta", (("dilation", 1),))
    assert told("--model.attention.dilation", "3", "--model.attention", "dta") == "dta"  # its default
    assert told("--model.attention", "None") is None
    error = complaint(capsys, "train", "--model.attention", "None", "--model.attention.dropout", "0.2")
    assert "the recipe has no attention, so it takes no --model.attention.dropout" in error


def test_options_of_a_loss_of_one_s_own(tmp_path):
    (tmp_path / "own.py").write_text(
        "def loss(logits, targets, *, power: float = 2.0):\n    return logits.mean().abs() ** power\n"
    )
    recipe = replace(tiny.recipe, loss=Loss(name=(f"{tmp_path}/own.py:loss", {"power": 3})))
    loss = task_of(recipe).loss
    assert loss(torch.full((2, 4), 2.0), torch.zeros(2)) == 8


def test_every_kind_of_part_has_its_registry():
    for recipe in (tiny.recipe, RECIPES["ring-spikestag"]):
        for field, (what, registry) in task_of(recipe).registries().items():
            section, key = field.split(".")
            name = getattr(getattr(recipe, section), key)
            assert name is None or find(name, registry, what, folder=None)


def test_a_model_says_what_it_can_be_given():
    with pytest.raises(ValueError, match="model.attention must be str, tuple, None; got 5"):
        Model(attention=5)  # type: ignore[arg-type]


def test_options_beside_a_folder_s_code_do_not_make_it_run(tmp_path):
    (tmp_path / "notes.py").write_text(f"open({str(tmp_path / 'marker')!r}, 'w')\ndef n(*args, a): pass\n")
    values = json.loads(to_json(tiny.recipe))
    for section, key in (("model", "name"), ("model", "neuron"), ("model", "attention"), ("loss", "name")):
        name = f"{tmp_path}/notes.py:n"
        changed = values | {section: values[section] | {key: [name, {"a": 1}]}}
        recipe = from_json(json.dumps(changed | {"data": {"name": "digits-events"}}), str(tmp_path))
        assert named_files(recipe) == [f"{tmp_path}/notes.py"]
        with pytest.raises(UntrustedCodeError):
            task_of(recipe).loss if section == "loss" else task_of(recipe).network({"classes": 2, "channels": 2, "size": 16})
    assert not (tmp_path / "marker").exists()
