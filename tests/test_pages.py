"""The Python that the pages show runs, one block after the other, where the files lie that it names."""

import re
import shutil
import warnings
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from PIL import Image
from test_events import nmnist_set

import staa
from staa.models import vggsnn
from staa.neurons import AdaptiveLIF
from staa.runs import run

ROOT = Path(__file__).parents[1]


def readme():
    trained("digits-events")
    for name in ("three.png", "folder/four.png"):
        Path(name).parent.mkdir(exist_ok=True)
        Image.new("L", (8, 8), 90).save(name)
    return {}


def events():
    Path("00002.bin").write_bytes(bytes([3, 4, 128, 0, 9] * 40))  # one event, again and again
    model = vggsnn(10, in_channels=2, steps=None, neuron=AdaptiveLIF, attention=staa.attention.STAA, width=0.05, size=34)
    return {"model": model.eval()}


def live():
    nmnist_set(Path("data"), per_class=5)
    shutil.copy("data/NMNIST/Test/3/00304.bin", "recording.bin")
    trained("nmnist-stream", width=0.05)
    return {}


def folder():
    for k, name in enumerate(("train/cat/0", "train/cat/1", "train/dog/2", "train/dog/3", "val/cat/4", "val/dog/5")):
        Path("data", name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (256, 256), (40 * k, 90, 9)).save(f"data/{name}.jpg")
    trained("folder-resnet18-staa", data_root=Path("data"), width=0.05)
    for name in ("one", "two"):
        Image.new("RGB", (300, 260)).save(f"{name}.jpg")
    return {}


def logs():
    """The pages train for a minute; tests/test_train_from_python.py trains for a moment."""
    trained("digits-events", validation=0.1)
    return {}


def convert():
    from safetensors.torch import save_file
    from spikingjelly.activation_based.model.ms_resnet import MSResNet

    save_file(MSResNet(4, 3, 10, (1, 1, 1), 4, 3, 1).state_dict(), "theirs.safetensors")
    return {}


def extend():
    """`parts.py` is what the page says it is: each of its blocks that defines something."""
    defining = [code for code in blocks(ROOT / "docs/extend.md") if re.search(r"^(class|def|recipe) ", code, re.MULTILINE)]
    Path("parts.py").write_text("\n\n".join(["import staa", "import torch", *defining]))
    return {}


def beside(name):
    """Another library, whose import and calls may warn."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pytest.importorskip(name)
    return {}


def trained(name, *, data_root=Path("data"), width=None, validation=0.0):
    """A run of one step in a folder that is called as in the pages."""
    recipe = staa.RECIPES[name]
    recipe = replace(recipe, max_steps=1, batch_size=2, data=replace(recipe.data, validation=validation))
    recipe = replace(recipe, model=replace(recipe.model, width=width or recipe.model.width))
    list(run(recipe, Path("runs", name, "…"), data_root=data_root, device="cpu", workers=0))


def network():
    Image.new("L", (8, 8), 90).save("three.png")
    return {}


PAGES = {
    "README.md": readme,
    "docs/convert.md": convert,
    "docs/energy.md": dict,
    "docs/extend.md": extend,
    "docs/from-snntorch.md": partial(beside, "snntorch"),
    "docs/from-spikingjelly.md": partial(beside, "spikingjelly.activation_based"),
    "docs/hub.md": network,
    "docs/live.md": live,
    "docs/logs.md": logs,
    "docs/methods/dta.md": dict,
    "docs/methods/spikestag.md": dict,
    "docs/methods/staa.md": dict,
    "docs/recipes/events.md": events,
    "docs/recipes/folder.md": folder,
}


@pytest.mark.parametrize("page", PAGES)
def test_the_python_of_a_page_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("staa.cli.called.train", lambda recipe, **how: staa.Run("runs/digits-events/…"))
    scope = {"staa": staa, "torch": torch, **PAGES[page]()}
    with torch.set_grad_enabled(page.startswith("docs/from-")), warnings.catch_warnings():
        warnings.simplefilter("ignore" if page.startswith("docs/from-") else "error")
        for code in blocks(ROOT / page):
            exec(code, scope)
    if "recipe" in scope:
        *_, result = run(replace(scope["recipe"], max_steps=2), Path("run"), device="cpu", workers=0)
        assert result.samples == 100
    if "answers" in scope:
        assert all(answer.label in scope["run"].names for answer in scope["answers"])
    elif "forecast" in scope:
        assert scope["forecast"].shape == (4, 3, 6)
    elif "energy" in scope:
        assert (scope["energy"].papers.sops, scope["energy"].exact.sops) == (144.0, 100.0)
    elif "decision" in scope:
        assert scope["decision"].window > 5
    elif "epochs" in scope:
        assert list(scope["epochs"].index) == [1]
    else:
        assert scope["logits"].shape[-1] in (3, 10, 100)


def test_no_page_is_left_out():
    pages = {str(page.relative_to(ROOT)) for page in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")] if blocks(page)}
    assert pages == PAGES.keys()


def blocks(page):
    return re.findall(r"^```py\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)
