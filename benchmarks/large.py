"""Peak memory and CPU seconds of a step of SpikeSTAG on many nodes:

    python -m benchmarks.large [--bits] [--plain] [--recipe NAME]

862 nodes × 168 steps and 2,000 nodes × 12, batch 16, the recipe's settings and optimizer, one thread, each in a process of its
own. --plain: no layer is computed in pieces.
"""

import argparse
import resource
import statistics
import subprocess
import sys
import time
from dataclasses import replace

import torch

from staa.build import task_of
from staa.forecasters import pieces
from staa.ops.bits import spikes_as_bits
from staa.recipes import RECIPES
from staa.training.optim import make_optimizer

SIZES = ((862, 168), (2000, 12))


def measure(name: str, nodes: int, window: int, steps: int, *, bits: bool, plain: bool) -> None:
    if plain:
        pieces.LARGE = 1 << 62
    torch.set_num_threads(1)
    recipe = replace(RECIPES[name], series=replace(RECIPES[name].series, window=window))
    facts = {"nodes": nodes, "window": window, "horizon": 12, "features": 5}
    torch.manual_seed(0)
    model, task = task_of(recipe).network(facts).train(), task_of(recipe)
    optimizer = make_optimizer(model, name=recipe.optim.name, lr=1e-3, momentum=0.9, weight_decay=0.0)
    x, feature = torch.randn(16, window, nodes).cumsum(1), torch.rand(16, window, 5) - 0.5
    y, seconds = torch.randn(16, 12, nodes), []
    for _ in range(steps):
        begin = time.process_time()
        optimizer.zero_grad()
        if bits:
            with spikes_as_bits():
                loss = task.loss(model(x, feature), y)
        else:
            loss = task.loss(model(x, feature), y)
        loss.backward()
        optimizer.step()
        seconds.append(time.process_time() - begin)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"| {nodes} × {window} | {peak:.2f} | {statistics.median(seconds[1:]):.1f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipe", default="series-spikestag")
    parser.add_argument("--bits", action="store_true")
    parser.add_argument("--plain", action="store_true")
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--size", type=int, nargs=2)
    options = parser.parse_args()
    if options.size:
        nodes, window = options.size
        measure(options.recipe, nodes, window, options.steps, bits=options.bits, plain=options.plain)
        return
    print("| nodes × steps | peak, GiB | CPU seconds a step |\n|---|---|---|", flush=True)
    for nodes, window in SIZES:
        size = ["--size", str(nodes), str(window)]
        subprocess.run([sys.executable, "-m", "benchmarks.large", *sys.argv[1:], *size], check=True)


if __name__ == "__main__":
    main()
