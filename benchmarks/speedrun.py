"""Time a sample of each trick of the speedrun recipes, against none of them:  python -m benchmarks.speedrun --data data

CIFAR-100, cifar100-speedrun at a quarter of its width, one thread. Whole training steps are taken in turns, with the batch's
augmentation, and the time of the process is measured, not the clock's, so that other work on the machine matters little.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from staa.analysis.cost import ratio
from staa.build import task_of
from staa.data import Source
from staa.recipes import RECIPES
from staa.recipes.parts import Early
from staa.recipes.recipe import Recipe
from staa.training.optim import make_optimizer
from staa.training.step import update_average

BATCH = 64
CPU = torch.device("cpu")
NOTHING = "no trick"


def forms(width: float = 0.25) -> dict[str, Recipe]:
    """The recipe without any trick, then with one each. A share of 1 holds what is early for good."""
    full = RECIPES["cifar100-speedrun"]
    none = replace(
        full,
        batch_size=BATCH,
        model=replace(full.model, width=width),
        loss=replace(full.loss, label_smoothing=0.0),
        optim=replace(full.optim, nesterov=False, ema=0.0),
        early=Early(),
    )
    held = Early(steps_share=1.0, size_share=1.0, size_stages=1)
    two = replace(held, steps=full.early.steps)
    return {
        NOTHING: none,
        "T = 2 of 4": replace(none, early=two),
        "16 of 32 pixels": replace(none, early=replace(held, size=16)),
        "24 of 32 pixels": replace(none, early=replace(held, size=24)),
        "T = 2, 16 pixels": replace(none, early=replace(two, size=16)),
        "T = 2, 24 pixels": replace(none, early=replace(two, size=24)),
        f"batch of {4 * BATCH}, not {BATCH}": replace(none, batch_size=4 * BATCH),
        "label smoothing": replace(none, loss=full.loss),
        "Nesterov": replace(none, optim=replace(none.optim, nesterov=True)),
        "average of the weights": replace(none, optim=replace(none.optim, ema=full.optim.ema)),
    }


def stepper(recipe: Recipe, source: Source) -> Callable[[], float]:
    """step() takes the next training step, and returns its seconds of the process a sample."""
    torch.manual_seed(0)
    model = task_of(recipe).model_for(source).train()
    task_of(recipe).check_early(source, model)
    o, loss = recipe.optim, task_of(recipe).loss
    optimizer = make_optimizer(
        model, name=o.name, lr=o.lr, momentum=o.momentum, nesterov=o.nesterov, weight_decay=o.weight_decay
    )
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(o.ema), use_buffers=True) if o.ema else None
    batches = task_of(recipe).batches(source, "train", CPU, workers=0, training=True)
    coming: Iterator[tuple[Any, Tensor]] = (batch for epoch in count() for batch in batches.epoch(epoch))

    def step() -> float:
        began = time.process_time()
        x, y = next(coming)
        optimizer.zero_grad()
        loss(model(x), y).backward()
        optimizer.step()
        if average is not None:
            update_average(average, model, first=False)
        return (time.process_time() - began) / len(y)

    return step


def measure(source: Source, rounds: int, width: float = 0.25) -> dict[str, list[float]]:
    """Seconds a sample of each form, by round, each round beginning with another; two rounds before are not counted."""
    steps = {name: stepper(recipe, source) for name, recipe in forms(width).items()}
    found: dict[str, list[float]] = {name: [] for name in steps}
    names = [*steps]
    for k in range(2 + rounds):
        first = k % len(names)
        for name in names[first:] + names[:first]:
            found[name].append(steps[name]())
    return {name: values[2:] for name, values in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--rounds", type=int, default=27)
    options = parser.parse_args()
    torch.set_num_threads(1)
    source = task_of(RECIPES["cifar100-speedrun"]).source(options.data)
    assert isinstance(source, Source)
    found = measure(source, options.rounds)
    usual = statistics.median(found[NOTHING])
    print("| | ms a sample | of no trick's | middle half of the rounds |\n|---|---|---|---|")
    for name, values in found.items():
        middle, (_, low, high) = statistics.median(values), ratio(values, found[NOTHING])
        print(f"| {name} | {1e3 * middle:.2f} | {middle / usual:.2f} | {low:.2f}–{high:.2f} |")


if __name__ == "__main__":
    main()
