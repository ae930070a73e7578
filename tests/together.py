"""What several processes train together, in float64, to be held against one process (tests/test_parallel.py)."""

from dataclasses import replace
from functools import partial

import tiny
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from staa.attention import STAA
from staa.data import Batches, WindowBatches, forecast_source
from staa.data.augment import make_augment, make_mix
from staa.layers import PerStep, Site, fold_batch_norm
from staa.models import spikestag
from staa.models.parts import ConvNorm
from staa.neurons import AdaptiveLIF
from staa.norms import sync
from staa.ops import direct
from staa.parallel import ALONE, joined, leave
from staa.training.evaluate import CLASSIFICATION, Measure, evaluate
from staa.training.learner import Learner
from staa.training.loop import train
from staa.training.losses import mean_squared_error, rate_penalty
from staa.training.metrics import forecast_figures, forecast_sums
from staa.training.optim import cosine_schedule, make_optimizer
from staa.training.progress import Epoch, Step
from staa.training.settings import Settings

STEPS = 20
HORIZON = 6
FORECASTS = Measure(
    partial(forecast_sums, offset=torch.zeros(6), scale=torch.ones(6)), forecast_figures, lambda figures: -figures["loss"]
)


def network():
    return nn.Sequential(
        ConvNorm(3, 4, 3),
        Site(AdaptiveLIF(4), STAA(2, 4, dropout=0.3)),
        ConvNorm(4, 6, 3),
        Site(AdaptiveLIF(6), STAA(2, 6, dropout=0.3)),
        PerStep(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3)),
    ).double()


def images(group, folder, *, synced=True):
    """A network with all that goes by the batch: BatchNorm, attention with random drops, a penalty on firing rates, samples
    that are moved and mixed, pieces, and a moving average; in parts of 3 and 2 samples."""
    source = tiny.images(validation=0.1)
    prepare = lambda x: direct(source.prepare(x).double(), 2)  # noqa: E731
    torch.manual_seed(0)
    model = network()
    how = {"prepare": prepare, "group": group}
    changed = {"augment": make_augment(shift=2, flip=True), "mix": make_mix(classes=3, mixup=0.5, cutmix=1.0, probability=0.7)}
    training = Batches(source.train, 10, seed=0, pieces=2, **changed, **how)
    settings = {"penalty": partial(rate_penalty, target=0.2), "accumulate": 2, "clip": 1.0}
    return trained(group, folder, model, training, Batches(source.validation, 3, **how), synced=synced, ema=0.8, **settings)


def forecasts(group, folder):
    """Windows with unknown truth, in parts of 4 and 3."""
    source = forecast_source(tiny.series(), window=12, horizon=HORIZON, train=0.7, validation=0.1)
    targets = source.targets.double()
    targets[::7, 2] = float("nan")
    time = None if source.time is None else source.time.double()
    source = replace(source, values=source.values.double(), targets=targets, time=time)
    torch.manual_seed(0)
    features = 0 if source.time is None else source.time.shape[1]
    model = spikestag(6, 12, HORIZON, time_features=features, width=4, steps=2, patch=6, hops=1).double()
    training, validation = (
        WindowBatches(source, "train", 7, seed=0, group=group),
        WindowBatches(source, "test", 32, group=group),
    )
    return trained(group, folder, model, training, validation, loss=mean_squared_error, measure=FORECASTS)


def trained(group, folder, model, training, validation, *, synced=True, ema=0.0, **settings):
    if synced:
        sync(model, group)
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(ema), use_buffers=True) if ema else None
    optimizer = make_optimizer(model, name="sgd", lr=0.1)
    schedule = cosine_schedule(optimizer, steps=STEPS, warmup=0, lr=0.1, min_lr=0.0)
    folder.mkdir()
    learner = Learner(model, optimizer, schedule, folder, average, group=group)
    part = group.part(training.batch_size, settings.get("accumulate", 1))
    s = Settings(steps=STEPS, part=part, **settings)
    events = list(train(learner, training, settings=s, validation=validation))
    learner.align()
    measure = s.measure
    return {
        "losses": [event.read.loss for event in events if isinstance(event, Step)],
        "epochs": [{**event.figures, **event.measured, **event.rates} for event in events if isinstance(event, Epoch)],
        "measured": evaluate(learner.measured, validation, measure=measure, group=group),
        "weights": {k: v.clone() for k, v in learner.measured.state_dict().items()},
    }


def folded(group):
    """The gradients and running statistics of a folded BatchNorm, of whole and part."""
    generator = torch.Generator().manual_seed(0)
    x, up = (torch.randn(2, 7, 5, 4, 4, generator=generator, dtype=torch.float64) for _ in range(2))
    weight = torch.randn(2, 7, 5, generator=generator, dtype=torch.float64)
    found = []
    for mine, among in ((slice(None), ALONE), (torch.arange(7).tensor_split(group.world)[group.rank], group)):
        model = nn.Sequential(nn.BatchNorm2d(5).double())
        with torch.no_grad():
            model[0].weight.copy_(weight[0, 0])
        sync(model, among)
        part = x[:, mine].clone().requires_grad_()
        current = fold_batch_norm(3 + 2 * part, model[0])
        ((current.written_out() * up[:, mine]).sum() + (current.mean * weight[:, mine]).sum()).backward()
        grads = [among.total(p.grad) for p in model.parameters()]
        found.append([current.written_out().detach(), part.grad, *grads, *model.buffers()])
    for k, (whole, part) in enumerate(zip(*found, strict=True)):
        torch.testing.assert_close(whole[:, mine] if k < 2 else whole, part, rtol=1e-12, atol=1e-12)


def measured_whole(group, weights):
    """The figures of given weights, of each process's turn."""
    source = tiny.images(validation=0.1)
    prepare = lambda x: direct(source.prepare(x).double(), 2)  # noqa: E731
    model = network()
    model.load_state_dict(weights)
    return evaluate(model, Batches(source.test, 3, prepare=prepare, group=group), measure=CLASSIFICATION, group=group)


def main(out):
    torch.set_num_threads(1)
    group = joined()
    found = {"images": images(group, out / f"images{group.rank}"), "forecasts": forecasts(group, out / f"series{group.rank}")}
    found["apart"] = images(group, out / f"apart{group.rank}", synced=False)
    folded(group)
    one = torch.load(out / "one.pt", weights_only=True)["images"]["weights"]
    found["measured"] = measured_whole(group, one)
    if group.first:
        torch.save(found, out / "two.pt")
    leave()
