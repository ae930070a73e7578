"""Every registered data set is split once and for all, without a sample in two parts, and gives what a network takes."""

import inspect
import json

import pytest
import test_data
import test_events
import test_folder
import torch
from test_events import disjoint, members

from staa.data import DATASETS

PARTS = ("train", "validation", "test")


def write(name, root, monkeypatch):
    """A small copy of the data set in its own layout."""
    if name.startswith("cifar10") and name != "cifar10dvs":
        test_data.write_cifar(root, name, (200, 20), monkeypatch)
    elif name == "nmnist":
        test_events.nmnist_set(root)
    elif name == "cifar10dvs":
        test_events.cifar_set(root)
    elif name == "dvsgesture":
        test_events.gesture_set(root)
    elif name == "events-folder":
        test_events.class_folder(root)
    elif name != "digits-events":
        test_folder.write(root / "train", 10)
        if name != "folder":  # it would take them for validation
            test_folder.write(root / "val", 2)


@pytest.fixture
def make(name, tmp_path, monkeypatch):
    monkeypatch.setenv("STAA_FRAMES", str(tmp_path / "frames"))
    write(name, tmp_path / "data", monkeypatch)
    given = {"root": tmp_path / "data", "steps": 3, "sensor": "34x34" if name == "events-folder" else None, "size": None}
    given["size"] = 16 if "folder" in name or "imagenet" in name else None
    asked = inspect.signature(DATASETS[name]).parameters
    given = {key: value for key, value in given.items() if key in asked and value is not None}
    return lambda validation=0.25: DATASETS[name](validation=validation, **given)


@pytest.mark.parametrize("name", DATASETS)
def test_contract_of_a_data_set(make):
    source = make()
    parts = {name: getattr(source, name) for name in PARTS}
    disjoint(source, sum(map(len, parts.values())))
    for part in parts.values():
        assert part.y.dtype == torch.int64
    assert set(torch.cat([part.y for part in parts.values()]).tolist()) == set(range(source.classes))
    assert source.names is None or len(source.names) == len(set(source.names)) == source.classes

    x = source.prepare(source.train.take(torch.tensor([0, 1])))
    assert x.shape[-4:] == (2, source.channels, source.size, source.size)
    assert x.dtype == torch.float32
    assert x.isfinite().all()
    taken = source.train.take(torch.tensor([1, 0]))
    torch.testing.assert_close(source.prepare(taken)[..., [1, 0], :, :, :], x)
    json.dumps(source.facts)

    again, whole = make(), make(validation=0.0)
    assert (again.split, again.facts, again.notes) == (source.split, source.facts, source.notes)
    assert members(again) == members(source)
    assert whole.validation is None
    assert whole.split != source.split
    assert members(whole)["test"] == members(source)["test"], "the test samples depend on how many are for validation"
    assert sorted(members(whole)["train"]) == sorted(members(source)["train"] + members(source)["validation"])
    if source.content is not None:
        assert again.content.is_that(source.content.facts())
