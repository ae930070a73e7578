"""A registry is a dict that says in words what it does not hold."""

import copy
import importlib
import pickle

import pytest

from staa import RECIPES
from staa.attention import ATTENTIONS
from staa.data import DATASETS, SERIES
from staa.forecasters import FORECASTERS
from staa.losses import FORECAST_LOSSES, LOSSES
from staa.models import MODELS
from staa.neurons import LIF, NEURONS
from staa.registry import Registry

PUBLIC = [RECIPES, ATTENTIONS, DATASETS, SERIES, FORECASTERS, FORECAST_LOSSES, LOSSES, MODELS, NEURONS]


@pytest.mark.parametrize("registry", PUBLIC, ids=lambda registry: registry.where)
def test_an_unknown_name_is_answered_in_words(registry):
    """With the nearest names, and with where to look, which is where the registry is."""
    module, _, attribute = registry.where.rpartition(".")
    assert getattr(importlib.import_module(module), attribute) is registry
    name = next(iter(registry))
    with pytest.raises(KeyError, match=rf"unknown {registry.what} '{name}s'; did you mean {name}.*sorted\({registry.where}\)"):
        registry[f"{name}s"]
    with pytest.raises(KeyError, match=rf"unknown {registry.what} 'zzzz'; known: {name}"):
        registry["zzzz"]
    with pytest.raises(KeyError, match="unknown"):
        registry[3]  # type: ignore[index]


def test_it_is_a_dict():
    registry = Registry("part", "here", {"a": 1})
    registry["mine"] = 2
    assert registry == {"a": 1, "mine": 2}
    assert registry.get("b") is None
    assert "b" not in registry
    for other in (copy.deepcopy(registry), pickle.loads(pickle.dumps(registry))):
        assert other == registry
        with pytest.raises(KeyError, match="unknown part 'b'"):
            other["b"]


def test_a_long_list_is_cut():
    with pytest.raises(KeyError, match="known: k0, k1, k2, k3 and 96 more"):
        Registry("part", "here", {f"k{i}": i for i in range(100)})["zzzz"]


def test_a_surrogate_by_name_is_refused_in_words():
    with pytest.raises(ValueError, match=r"surrogate must be a function.*staa\.ops\.arctan.*got 'atan'"):
        LIF(surrogate="atan")  # type: ignore[arg-type]
