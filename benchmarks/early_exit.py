"""Accuracy against the steps a classifier needs, for margins at which it stops:

    python -m benchmarks.early_exit RUN … [--split test]

Of each run and each margin: the mean number of steps that `staa predict --margin` takes on a part of its data, and how many
of its answers are right. As there, no step knows of a later one: a network that sees the whole window has empty frames for
those that have not come. Prints JSON, the rows of an entry of results/measured.json: margin (None: never) -> [mean steps,
right, of].
"""

import argparse
import json
from contextlib import closing
from pathlib import Path

import torch
from torch import Tensor

from staa import Run
from staa.runs.classify import by_step
from staa.training.metrics import leading

MARGINS = (0.1, 0.2, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.99)


def decisions(run: Run, split: str) -> tuple[Tensor, Tensor, Tensor]:
    """(labels [n], the class that leads after each step [T, n], its margin [T, n])."""
    preparation, model, device = run.preparation, run.model(), torch.device("cpu")
    labels, leads, margins = [], [], []
    with closing(run.task.batches(run.data, split, device, workers=0)) as batches, torch.inference_mode():  # type: ignore[arg-type]
        for x, y in batches.epoch():
            made = torch.stack([*by_step(model, x, frames=preparation.frames, steps=preparation.steps or 1)])
            for kept, part in zip((leads, margins), leading(made), strict=True):
                kept.append(part)
            labels.append(y)
    return torch.cat(labels), torch.cat(leads, 1), torch.cat(margins, 1)


def rows(labels: Tensor, leads: Tensor, margins: Tensor) -> dict[str, tuple[float, int, int]]:
    """Of each margin: mean steps, how many are right, of how many."""
    steps, found = len(leads), {}
    for margin in (*MARGINS, None):
        far = margins >= margin if margin is not None else torch.zeros_like(margins, dtype=torch.bool)
        far[-1] = True  # no step comes after the last
        first = far.int().argmax(0)
        right = int((leads.gather(0, first[None])[0] == labels).sum())
        found[str(margin)] = float((first + 1).double().mean()), right, len(labels)
    assert steps == int(found["None"][0])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--split", default="test", choices=("validation", "test"))
    options = parser.parse_args()
    for folder in options.runs:
        print(json.dumps({folder.name: rows(*decisions(Run(folder), options.split))}, indent=1))


if __name__ == "__main__":
    main()
