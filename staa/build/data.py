"""A recipe's data set, its batches, and whether it lies in files."""

import inspect
from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from staa.build.settings import asked_for
from staa.data import DATASETS, SERIES, Batches, SeriesSource, Source, TimeSeries, WindowBatches, forecast_source
from staa.data.augment import make_augment, make_mix
from staa.data.early import Shrink, make_shrink
from staa.recipes.find import find
from staa.recipes.parts import Augment, Data, Series
from staa.recipes.recipe import Recipe
from staa.training.evaluate import Inputs


def build_source(recipe: Recipe, data_root: Path, *, check: bool = True) -> Source | SeriesSource:
    """The recipe's data set, split. It is called with what it asks for of root, validation, steps and the settings below; or
    the series it forecasts, called with root and what it asks for of the graph and the column of times.

    check=False skips the look for corrupt images that are refused: such a one is then named when it is met. Raises
    ValueError for an option of the recipe that this data set does not take.
    """
    if recipe.series.horizon is not None:
        return _series_source(recipe, data_root, recipe.series.horizon)
    if recipe.data.name in SERIES:
        raise ValueError(f"{recipe.data.name} is a series: say how many steps to forecast with `series.horizon`")
    dataset = find(recipe.data.name, DATASETS, "data set", folder=recipe.folder)
    data = recipe.data
    names = ("size", "resize", "corrupt", "frames", "window", "values", "sensor", "split")
    given, usual = ({f"data.{name}": getattr(d, name) for name in names} for d in (data, Data()))
    settings = asked_for(dataset, f"the data set {data.name}", given | {"augment.scale": recipe.augment.scale}, usual)
    if settings.get("corrupt") == "refuse" and not check:
        settings["corrupt"] = "unchecked"
    asked = inspect.signature(dataset).parameters
    given = {"root": data_root, "validation": data.validation, "steps": recipe.model.steps or data.steps}
    source = dataset(**settings, **{name: value for name, value in given.items() if name in asked})
    if not isinstance(source, Source):
        hint = "; a series needs `series.horizon`" if isinstance(source, TimeSeries) else ""
        raise ValueError(f"a data set is a staa.data.Source, {data.name} gives a {type(source).__name__}{hint}")
    return source


def _series_source(recipe: Recipe, data_root: Path, horizon: int) -> SeriesSource:
    read, s = find(recipe.data.name, SERIES, "series", folder=recipe.folder), recipe.series
    if recipe.folder and s.graph is not None:
        s = replace(s, graph=str(Path(recipe.folder, s.graph)))  # a shared run has its own beside it
    for part, usual, what in (
        (recipe.augment, Augment(), "augment"),
        (replace(recipe.data, name="", validation=0.0), Data(name="", validation=0.0), "data"),
    ):
        if part != usual:
            raise ValueError(f"a forecast takes no settings of {what} but the data's name and validation; leave them out")
    given, usual = (
        {f"series.{name}": getattr(c, name) for name in ("graph", "distances", "time", "time_format")} for c in (s, Series())
    )
    settings = asked_for(read, f"the series {recipe.data.name}", given, usual)
    if "root" in inspect.signature(read).parameters:
        settings["root"] = data_root
    elif data_root.is_file():
        raise ValueError(f"{recipe.data.name} takes no file; a series of your own is trained by series-{recipe.model.name}")
    series = read(**settings)
    if not isinstance(series, TimeSeries):
        raise ValueError(f"a series is a staa.data.TimeSeries, {recipe.data.name} gives a {type(series).__name__}")
    return forecast_source(
        series,
        window=s.window,
        horizon=horizon,
        train=s.train,
        validation=recipe.data.validation,
        normalise=s.normalise,
        fit_on=s.fit_on,
        gaps=s.gaps,
        time_features=s.time_features,
    )


def build_batches(
    recipe: Recipe,
    source: Source | SeriesSource,
    part: Literal["train", "validation", "test"],
    device: torch.device,
    *,
    workers: int,
    training: bool = False,
) -> Batches | WindowBatches:
    """A part of the data: for training shuffled and augmented as the recipe says, else in order and plain.

    workers: used where samples are read from disk or augmented one by one. Raises ValueError for augmentation that
    these data do not take.
    """
    if isinstance(source, SeriesSource):
        return WindowBatches(source, part, recipe.batch_size, seed=recipe.seed if training else None, device=device)
    samples, a = getattr(source, part), recipe.augment
    augment = mix = shrink = None
    slow = not isinstance(samples.x, Tensor)
    if training:
        one_by_one = a.policy is not None or a.jitter > 0
        if one_by_one and source.channels != 3:
            raise ValueError(
                f"`augment.policy` and `augment.jitter` are for colour images; {recipe.data.name} has {source.channels} "
                f"channels"
            )
        if a.events is not None and (source.channels == 3 or (isinstance(samples.x, Tensor) and samples.x.ndim != 5)):
            raise ValueError(f"`augment.events` is for event frames, [T, 2, H, W] a sample; {recipe.data.name} has images")
        if max(a.shift, a.cutout) > source.size:
            raise ValueError(
                f"`augment.shift` and `augment.cutout` can't exceed the images' {source.size} pixels, got {a.shift} and "
                f"{a.cutout}"
            )
        augment = make_augment(
            shift=a.shift,
            flip=a.flip,
            policy=a.policy,
            magnitude=a.magnitude,
            jitter=a.jitter,
            events=a.events,
            cutout=a.cutout,
        )
        mix = make_mix(
            classes=source.classes,
            mixup=a.mixup,
            cutmix=a.cutmix,
            probability=a.mix_probability,
            whole_epochs=a.mix_epochs,
            hard=a.mix_hard,
        )
        slow = slow or one_by_one
        shrink = shrink_of(recipe, source, steps_of_run(recipe, max(1, len(samples) // recipe.batch_size)))
    return Batches(
        samples,
        recipe.batch_size,
        prepare=source.prepare,
        augment=augment,
        mix=mix,
        shrink=shrink,
        seed=recipe.seed if training else None,
        device=device,
        workers=workers if slow else None,
    )


def steps_of_run(recipe: Recipe, in_epoch: int) -> int:
    """Optimizer steps of a run with so many batches in an epoch."""
    steps = recipe.epochs * in_epoch
    return steps if recipe.max_steps is None else min(steps, recipe.max_steps)


def shrink_of(recipe: Recipe, source: Source, total: int) -> Shrink | None:
    early = recipe.early
    return make_shrink(
        total=total,
        full=source.size,
        steps=early.steps,
        steps_share=early.steps_share,
        size=early.size,
        size_share=early.size_share,
        size_stages=early.size_stages,
    )


def some_inputs(source: Source | SeriesSource, count: int, device: torch.device) -> tuple[Inputs, Tensor]:
    """Inputs and targets of some training samples, spread over all of them, as they are."""
    chosen = torch.linspace(0, len(source.train) - 1, min(count, len(source.train))).long()
    if isinstance(source, SeriesSource):
        return WindowBatches(source, "train", 1, device=device).take(chosen)
    return source.prepare(source.train.take(chosen).to(device)), source.train.y[chosen].to(device)


def needs_files(recipe: Recipe) -> bool:
    """Whether the recipe's data lie in files, and are not made or come with a package. Raises what `staa.recipes.find.find`
    does."""
    known, what = (DATASETS, "data set") if recipe.series.horizon is None else (SERIES, "series")
    return "root" in inspect.signature(find(recipe.data.name, known, what, folder=recipe.folder)).parameters
