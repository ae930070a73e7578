"""How often each layer of a forecaster fires, and its gradient, at the first step of training:

    python -m benchmarks.firing RUNS [--before]

RUNS/DATA.npz are those of benchmarks/forecast.py. Prints tables for series-spikestag and series-ispikformer on each set, of the
first batch the mean rate of a layer, the share of its neurons that never fire, and the norm of its weights' gradient. --before:
with SeqSNN's threshold of 1, its factor of 0.125 and eight heads, as the recipes were at first.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import torch

from staa.build import task_of
from staa.rates import fires
from staa.recipes import RECIPES
from staa.recipes.recipe import Recipe


def before(recipe: Recipe) -> Recipe:
    return replace(
        recipe,
        model=replace(recipe.model, neuron="seqsnn"),
        forecast=replace(recipe.forecast, heads=8, attention_scale=0.125),
    )


def first_step(recipe: Recipe, path: Path) -> dict[str, tuple[float, float, float]]:
    """Of each layer: firing rate, share of neurons that never fire, norm of the gradient of its weights."""
    task = task_of(recipe)
    source = task.source(path)
    x, y = next(iter(task.batches(source, "train", torch.device("cpu"), workers=0, training=True).epoch(0)))
    torch.manual_seed(recipe.seed)
    model = task.model_for(source).train()
    rates: dict[str, torch.Tensor] = {}
    for name, part in model.named_modules():
        if fires(part):
            part.register_forward_hook(lambda _, __, s, name=name: rates.__setitem__(name, s.detach().flatten(0, -2).mean(0)))
    task.loss(model(*x), y).backward()
    found = {}
    for name, rate in rates.items():
        layer = name.removesuffix("neuron").removesuffix(".")
        owners = [f"{layer}.linear", f"{layer}.norm"] if layer else ["encoder"]
        grads = [
            p.grad.square().sum()
            for key, p in model.named_parameters()
            if key.rpartition(".")[0] in owners and p.grad is not None
        ]
        norm = float(torch.stack(grads).sum().sqrt()) if grads else float("nan")
        found[layer or "encoder"] = rate.mean().item(), (rate == 0).float().mean().item(), norm
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path)
    parser.add_argument("--before", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    for model in ("spikestag", "ispikformer"):
        for data in ("hangzhou", "metr-la-week", "etth1", "montevideo"):
            recipe = RECIPES[f"series-{model}"]
            table = first_step(before(recipe) if options.before else recipe, options.runs / f"{data}.npz")
            print(f"\n{recipe.name}, {data}\n\n| layer | rate | never fire | gradient |\n|---|---|---|---|")
            for layer, (rate, silent, norm) in table.items():
                print(f"| {layer} | {rate:.4f} | {silent:.0%} | {norm:.1e} |", flush=True)


if __name__ == "__main__":
    main()
