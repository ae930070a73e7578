"""Run folders as a version of the package writes them:  python tests/versions/make.py NAME

NAME/RECIPE is a finished run, NAME/RECIPE-interrupted one that was stopped within its second epoch, answers.npz holds inputs
of each finished network and its outputs. Make a new NAME with the last commit before the files of a run change, and keep the
old ones: tests/test_versions.py holds that every later version reads them.
"""

import os
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

import staa
from staa import RECIPES, Augment, Recipe
from staa.build import task_of
from staa.runs import run

HERE = Path(__file__).parent
FACTS = {"epochs": 2, "batch_size": 4, "max_steps": 16}


def recipes() -> dict[str, tuple[Recipe, Path]]:
    """A recipe of each kind, as small as can be, and its data: images, recordings, events and a series."""
    images, recordings, digits, ring = (
        RECIPES[name] for name in ("folder-resnet18-staa", "events-folder-vggsnn-staa", "digits-events", "ring-spikestag")
    )
    sgd = replace(images.optim, name="sgd", lr=0.1, accumulate=2, ema=0.5, warmup_epochs=0.5)
    return {
        "images": (
            replace(
                images, **FACTS, data=replace(images.data, size=16, resize=16, validation=0.2), augment=Augment(flip=True),
                model=replace(images.model, name="resnet20", steps=2, width=0.02), optim=sgd,
            ),
            HERE / "images",
        ),
        "recordings": (
            replace(
                recordings, **FACTS, data=replace(recordings.data, size=16, validation=0.2), augment=Augment(shift=1),
                model=replace(recordings.model, steps=3, width=0.05), optim=replace(recordings.optim, warmup_epochs=0.5),
            ),
            HERE / "recordings",
        ),
        "digits": (
            replace(digits, **FACTS, weights="best", model=replace(digits.model, steps=4, width=0.03, attention="dta")), HERE,
        ),
        "ring": (replace(ring, **FACTS, forecast=replace(ring.forecast, width=8)), HERE),
    }  # fmt: skip


def train(recipe: Recipe, folder: Path, data: Path, *, most: int) -> None:
    """A run of so many steps at most, without this machine's paths."""
    asked = iter(range(most))
    for _ in run(recipe, folder, data_root=data, device="cpu", workers=0, stop=lambda: next(asked, None) is None):
        pass
    (folder / "previous.pt").unlink(missing_ok=True)  # as last.pt
    for name in ("environment.json", "log.jsonl"):
        text = (folder / name).read_text()
        (folder / name).write_text(text.replace(str(HERE.parents[1]), "removed"))


def answers(folder: Path, recipe: Recipe, data: Path) -> dict[str, np.ndarray]:
    """The first test batch as the network takes it, and what it answers in float64, where no rounding moves a spike."""
    source = task_of(recipe).source(data)
    x, _ = next(iter(task_of(recipe).batches(source, "test", torch.device("cpu"), workers=0).epoch()))
    inputs = [one.double() for one in (x if isinstance(x, tuple) else (x,))]
    with torch.no_grad():
        y = staa.load(folder).double()(*inputs)
    return {f"x{k}": one.numpy() for k, one in enumerate(inputs)} | {"y": y.numpy()}


def write_data() -> None:
    """Images of three colours, and recordings of an upper and a lower half."""
    from PIL import Image

    rng = np.random.default_rng(0)
    for number, colour in enumerate(("red", "green", "blue")):
        (HERE / "images" / colour).mkdir(parents=True)
        for k in range(14):
            pixels = rng.integers(0, 128, (16, 16, 3), dtype=np.uint8)
            pixels[..., number] += 96
            Image.fromarray(pixels).save(HERE / "images" / colour / f"{k:02}.png")
    for half, name in enumerate(("upper", "lower")):
        (HERE / "recordings" / name).mkdir(parents=True)
        for k in range(20):
            x, y, p = rng.integers(0, 16, 40), rng.integers(0, 8, 40) + 8 * half, rng.integers(0, 2, 40)
            columns = {"t": np.sort(rng.integers(0, 10_000, 40)), "x": x, "y": y, "p": p, "height": 16, "width": 16}
            np.savez_compressed(HERE / "recordings" / name / f"{k:02}.npz", **columns)


if __name__ == "__main__":
    torch.set_num_threads(1)
    os.environ["STAA_FRAMES"] = tempfile.mkdtemp()
    if not (HERE / "images").is_dir():
        write_data()
    to = HERE / sys.argv[1]
    for name, (recipe, data) in recipes().items():
        train(recipe, to / name, data, most=10**9)
        train(recipe, to / f"{name}-interrupted", data, most=9)
        np.savez_compressed(to / name / "answers.npz", **answers(to / name, recipe, data))
