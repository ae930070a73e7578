"""Why a spiking network learns slowly at first, measured:  python -m benchmarks.diagnosis {curves,layers,statistics}

curves: training loss of the first steps of ResNet-20 ×¼ (T = 2, CIFAR-100), plain: as it is, with residual_init 0.2, and with
ReLUs in the place of its neurons. layers: what a fresh network does to a little noise and to its gradient, layer by layer.
statistics: validation of digits-events with BatchNorm's running statistics, and with statistics taken anew.
"""

import argparse
import copy
import json
import statistics as stats
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import count, islice
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from staa.build import task_of
from staa.data import SeriesSource, Source
from staa.files import save_text, save_with
from staa.neurons import LIF, NEURONS
from staa.recipes import RECIPES
from staa.recipes.recipe import Recipe
from staa.training.evaluate import evaluate
from staa.training.optim import cosine_schedule, make_optimizer

CPU = torch.device("cpu")
TINY = RECIPES["cifar100-resnet20-tiny-plain"]
BEFORE = replace(TINY, batch_size=128, optim=replace(TINY.optim, weight_decay=5e-4))
AFTER = replace(BEFORE, model=replace(BEFORE.model, residual_init=0.2))
FORMS = {
    "LIF": BEFORE,
    "LIF, residual_init 0.2": AFTER,
    "ReLU": replace(BEFORE, model=replace(BEFORE.model, neuron=f"{__file__}:relu")),
}
WHOLE = 20  # epochs that the schedule of the learning rate is made for


class Activation(nn.Module):
    """What takes a current and its affine map as a neuron does, and gives a function of it."""

    def __init__(self, function: Callable[[Tensor], Tensor]):
        super().__init__()
        self.function = function

    def forward(self, x: Tensor, scale: Tensor | None = None, shift: Tensor | None = None) -> Tensor:
        x = x if scale is None else x * scale
        return self.function(x if shift is None else x + shift)


def relu(channels: int) -> nn.Module:
    return Activation(F.relu)


def smooth(channels: int) -> nn.Module:
    """The plain LIF, its spike replaced by the integral of its surrogate: s = clamp(v − threshold + ½, 0, 1)."""
    neuron = NEURONS["plain"](channels)
    assert isinstance(neuron, LIF)

    def spikes(x: Tensor) -> Tensor:
        h, out = torch.zeros_like(x[0]), []
        for current in x:
            v = neuron.decay * h + current
            s = (v - neuron.threshold + 0.5).clamp(0, 1)
            h = v * (1 - s)
            out.append(s)
        return torch.stack(out)

    return Activation(spikes)


def steps(recipe: Recipe, source: Source | SeriesSource, *, epochs: int) -> Iterator[tuple[nn.Module, Tensor, float]]:
    """Train without end, the learning rate's schedule made for so many epochs: after each step the network, which samples it
    got right, and the loss. Without clipping, unlike `staa train`."""
    batches = task_of(recipe).batches(source, "train", CPU, workers=0, training=True)
    torch.manual_seed(recipe.seed)
    model, loss, optim = task_of(recipe).model_for(source), task_of(recipe).loss, recipe.optim
    optimizer = make_optimizer(model, name=optim.name, lr=optim.lr, momentum=optim.momentum, weight_decay=optim.weight_decay)
    whole, warmup = epochs * len(batches), round(optim.warmup_epochs * len(batches))
    schedule = cosine_schedule(optimizer, steps=whole, warmup=warmup, lr=optim.lr, min_lr=optim.min_lr)
    for epoch in count():
        for x, y in batches.epoch(epoch):
            optimizer.zero_grad()
            logits = model(x)
            value = loss(logits, y)
            value.backward()
            optimizer.step()
            schedule.step()
            yield model, logits.mean(0).argmax(1) == y, value.item()


def curves(data: Path, results: Path, seeds: int, length: int) -> None:
    path = results / "start.json"
    found = json.loads(path.read_text()) if path.is_file() else {}
    for seed in range(seeds):
        for form, recipe in FORMS.items():
            if len(found.setdefault(form, {}).get(str(seed), [])) < length:
                training = steps(replace(recipe, seed=seed), task_of(recipe).source(data), epochs=WHOLE)
                found[form][str(seed)] = [round(loss, 4) for _, _, loss in islice(training, length)]
                save_text(path, json.dumps(found))
    print("Mean training loss of 25 steps, up to a step; mean ± spread over the seeds\n")
    ends = [end for end in (25, 75, 150, 300) if end <= length]
    print("| | " + " | ".join(map(str, ends)) + " |\n|---|" + "---|" * len(ends))
    for form, runs in found.items():
        cells = []
        for end in ends:
            values = [stats.mean(run[end - 25 : end]) for run in runs.values()]
            cells.append(f"{stats.mean(values):.3f} ± {stats.stdev(values) if len(values) > 1 else 0:.3f}")
        print(f"| {form} | " + " | ".join(cells) + " |")
    draw(found, results / "start.png")


def draw(found: dict[str, dict[str, list[float]]], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for number, (form, runs) in enumerate(found.items()):
        for seed, run in runs.items():
            smooth = torch.tensor(run).unfold(0, 25, 1).mean(1)
            axes.plot(range(25, len(run) + 1), smooth, color=f"C{number}", label=form if seed == "0" else None, linewidth=1)
    axes.set(xlabel="step", ylabel="training loss, mean of 25 steps", title="ResNet-20 ×¼, T = 2, CIFAR-100: the first steps")
    axes.legend(frameon=False)
    save_with(path, lambda file: figure.savefig(file, format="png", dpi=120))


def layers(data: Path) -> None:
    """Of a fresh network in training mode, 16 batches of 64 images."""
    recipe = replace(BEFORE, batch_size=64)
    source = task_of(recipe).source(data)
    batches = task_of(recipe).batches(source, "train", CPU, workers=0, training=True).epoch(0)
    taken = [(x, y) for x, y in islice(batches, 16) if isinstance(x, Tensor)]
    for name, form in (("LIF", BEFORE), ("LIF, residual_init 0.2", AFTER)):
        torch.manual_seed(0)
        model = task_of(form).model_for(source)
        twin = task_of(replace(form, model=replace(form.model, neuron=f"{__file__}:smooth"))).network(
            source.facts, source=source
        )
        twin.load_state_dict(model.state_dict())
        gradients, relaxed = gradient(model, taken), gradient(twin, taken[:4])
        x = taken[0][0]
        spikes, noisy, others = (spikes_of(model, y) for y in (x, x + 0.1 * x.std() * torch.randn_like(x), x.roll(1, 0)))
        print(f"\n{name}\n{'':34}{'|gradient|':>11}{'of two batches':>16}{'to the relaxation':>19}")
        for key, one in gradients.items():
            g = one @ one.T
            count, own = len(one), g.trace()
            between = (g.sum() - own) / (count - 1) / own
            to = F.cosine_similarity(one[:4], relaxed[key], dim=1).mean()
            print(f"{key:34}{(own / count).sqrt():11.4f}{between:16.4f}{to:19.4f}")
        print(f"{'':34}{'rate':>11}{'changed by noise':>18}")
        for key, s in spikes.items():
            changed = (s - noisy[key]).abs().mean() / (s - others[key]).abs().mean()
            print(f"{key:34}{s.mean():11.3f}{changed:18.3f}")


def gradient(model: nn.Module, batches: list[tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
    """[batches, weights] for each convolution."""
    found: dict[str, list[Tensor]] = {}
    for x, y in batches:
        model.zero_grad()
        F.cross_entropy(model(x).mean(0), y).backward()
        for key, p in model.named_parameters():
            if p.ndim == 4 and p.grad is not None:
                found.setdefault(key, []).append(p.grad.flatten().clone())
    return {key: torch.stack(values) for key, values in found.items()}


def spikes_of(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    hooks = [
        layer.register_forward_hook(lambda _, __, spikes, key=key: found.__setitem__(key, spikes.clone()))
        for key, layer in model.named_modules()
        if key.endswith("neuron")
    ]
    with torch.no_grad():
        model(x)
    for hook in hooks:
        hook.remove()
    return found


def statistics(data: Path, epochs: int) -> None:
    for momentum in (None, 0.5):
        recipe = RECIPES["digits-events"]
        recipe = replace(recipe, seed=100, model=replace(recipe.model, norm_momentum=momentum))
        source = task_of(recipe).source(data)
        again = task_of(recipe).batches(source, "train", CPU, workers=0, training=True)
        validation = task_of(recipe).batches(source, "validation", CPU, workers=0)
        training = steps(recipe, source, epochs=recipe.epochs)
        print(f"\nnorm_momentum {momentum or 0.1}\n{'epoch':>5}{'training':>10}{'validation':>12}{'anew':>7}{'means off':>11}")
        for epoch in range(epochs):
            models, right, _ = zip(*islice(training, len(again)), strict=True)
            model = models[-1]
            anew = copy.deepcopy(model).eval()
            norms = [layer for layer in anew.modules() if isinstance(layer, nn.BatchNorm2d)]
            old = [running(norm) for norm in norms]
            for norm in norms:
                norm.reset_running_stats()
                norm.momentum = None  # a plain average over all batches
                norm.train()
            with torch.no_grad():
                for x, _ in again.epoch(epoch):
                    anew(x)
            new = [running(norm) for norm in norms]
            off = max(((mean - now).abs() / std).mean().item() for (mean, std), (now, _) in zip(old, new, strict=True))
            shares = [torch.cat(right).float().mean(), *(evaluate(m, validation)["accuracy"] for m in (model, anew))]
            cells = "".join(f"{100 * s:{w}.1f}" for s, w in zip(shares, (10, 12, 7), strict=True))
            print(f"{epoch + 1:5}{cells}{off:11.2f}")


def running(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Running mean and standard deviation, copied."""
    mean, variance = norm.get_buffer("running_mean"), norm.get_buffer("running_var")
    return mean.clone(), variance.sqrt()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["curves", "layers", "statistics"])
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--results", type=Path, default=Path("results/study"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--epochs", type=int, default=6)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.what == "curves":
        curves(options.data, options.results, options.seeds, options.steps)
    elif options.what == "layers":
        layers(options.data)
    else:
        statistics(options.data, options.epochs)


if __name__ == "__main__":
    main()
