"""A kind of job is one class: everything above `staa.build` takes it as it is."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from torch import Tensor, nn

import staa
from staa.analysis.compare import compare
from staa.build import TASKS, Task, task_of
from staa.cli import main
from staa.data import Batches, Samples
from staa.parallel import ALONE
from staa.recipes.parts import Loss
from staa.runs import evaluate_run, run
from staa.training.evaluate import Measure


def test_all_that_is_wrong_is_told_at_once():
    wrong = replace(
        tiny.recipe,
        model=replace(tiny.recipe.model, neuron="lf", attention="sta"),
        loss=Loss(name="men", tet_weight=0.5),
        data=replace(staa.RECIPES["digits-events"].data, size=48, resize=50),
    )
    with pytest.raises(ValueError, match="4 settings are wrong") as told:
        task_of(wrong).check()
    for part in ("`data.size=48`, `data.resize=50`", "neuron 'lf'", "attention 'sta'", "loss 'men'"):
        assert part in str(told.value), part
    with pytest.raises(ValueError, match="^unknown loss 'men'"):
        task_of(replace(tiny.recipe, loss=Loss(name="men"))).check()
    with pytest.raises(ValueError, match=r"2 settings are wrong: \(1\) epochs must .* \(2\) batch_size must"):
        replace(tiny.recipe, epochs=0, batch_size=0)


@dataclass(frozen=True)
class Points:
    """Numbers x [N, 3] and their sum."""

    train: range
    validation: range | None
    test: range
    split: str = "points"
    names: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()
    content: None = None

    @property
    def facts(self) -> dict[str, Any]:
        return {"inputs": 3}


def line(inputs: int, *, width: float) -> nn.Module:
    return nn.Linear(inputs, 1)


def squares(outputs: Tensor, y: Tensor) -> Tensor:
    return (outputs[:, 0] - y).square().mean()


DATASETS = {"points": lambda: Points(range(64), range(64, 80), range(80, 96))}
NETWORKS = {"line": line}
LOSSES = {"squares": squares}


class Regression(Task[Points]):
    """y = Σ x, by a linear layer."""

    verb = "regress"
    figures = ("squared_error",)
    datasets, networks, losses = DATASETS, NETWORKS, LOSSES
    words = ("data set", "network")

    @staticmethod
    def takes(recipe):
        return recipe.data.name == "points"

    @cached_property
    def read(self):
        return self.dataset

    def source(self, root: Path, *, check: bool = True, about: Mapping[str, Any] | None = None) -> Points:
        return self.read()

    def _points(self, source: Points, part: str) -> Samples:
        x = torch.rand(96, 3, generator=torch.Generator().manual_seed(0))
        chosen = list(getattr(source, part))
        return Samples(x[chosen], x[chosen].sum(1))

    def batches(self, source, part, device, *, workers, training=False, group=ALONE):
        seed = self.recipe.seed if training else None
        samples = self._points(source, part)
        return Batches(samples, self.recipe.batch_size, prepare=lambda x: x, seed=seed, device=device, group=group)

    def take(self, source, part, chosen, device):
        some = self._points(source, part)
        return some.x[chosen], some.y[chosen]

    @cached_property
    def backbone(self):
        return partial(self.networks[self.recipe.model.name], width=self.recipe.model.width)

    def network(self, facts, *, source=None, state=None):
        return self.backbone(facts["inputs"])

    def measure(self, source, device):
        return Measure(
            lambda outputs, y: torch.stack([(outputs[:, 0] - y).square().sum(), torch.tensor(float(len(y)))]).double(),
            lambda sums: {"squared_error": float(sums[0] / sums[1]), "loss": float(sums[0] / sums[1])},
            score=lambda figures: -figures["loss"],
        )

    def tested(self, source):
        return repr(source.test)

    def conditions(self):
        return {"protocol": self.recipe.protocol}

    def like(self, other, about):
        return replace(self.recipe, model=other.model)

    def odd_facts(self, about):
        return [] if about.get("inputs") == 3 else ["inputs"]


def test_a_third_kind_of_job_is_one_class(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr("staa.build.TASKS", [Regression, *TASKS])
    recipe = staa.Recipe(
        name="points",
        data=replace(tiny.recipe.data, name="points"),
        model=staa.Model(name="line"),
        loss=Loss(name="squares"),
        optim=staa.Optim(name="adamw", lr=0.05),
        epochs=20,
        batch_size=16,
        weights="best",
    )
    assert isinstance(task_of(recipe), Regression)
    events = list(run(recipe, tmp_path / "run"))
    assert events[-1].test["squared_error"] < 0.05
    opened = staa.Run(tmp_path / "run")
    assert opened.result["test_squared_error"] == events[-1].test["squared_error"]
    assert opened.model()(torch.ones(1, 3)).item() == pytest.approx(3, abs=0.5)
    assert evaluate_run(opened)["squared_error"] == pytest.approx(events[-1].test["squared_error"])
    monkeypatch.setitem(staa.RECIPES, "points", recipe)
    out = ["--out", str(tmp_path / "seeds"), "--device", "cpu"]
    assert main(["train", "points", *out, "--seeds", "2"]) == 0
    assert main(["evaluate", str(tmp_path / "seeds" / "seed0")]) == 0
    told = capsys.readouterr().out
    assert "samples: 64 to train, 16 to validate, 16 to test; 4 parameters" in told
    assert "points: test squared error 0.0" in told
    assert "on 16 samples, best weights of" in told
    with pytest.raises(ValueError, match="these recipes have different jobs"):
        compare({"points": [opened], "digits": [staa.Run(tiny_run(tmp_path))]})


def tiny_run(folder: Path) -> Path:
    list(run(tiny.recipe, folder / "tiny"))
    return folder / "tiny"
