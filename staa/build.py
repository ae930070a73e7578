"""From names to objects: the only place that sees both models and data."""

import inspect
import os
import re
import warnings
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from staa.attention import ATTENTIONS
from staa.checkpoint import BEST, LAST, load_checkpoint, load_weights, measured_weights, read_origin, read_weights
from staa.config import Augment, Data, Forecast, Loss, Model, Recipe, Series
from staa.data import DATASETS, SERIES, Batches, SeriesSource, Source, TimeSeries, WindowBatches, forecast_source
from staa.data.augment import make_augment, make_mix
from staa.data.early import Shrink, make_shrink
from staa.evaluate import CLASSIFICATION, Inputs, Measure, device_of, evaluation_mode
from staa.files import check_bytes
from staa.find import UntrustedCodeError, find
from staa.losses import FORECAST_LOSSES, LOSSES
from staa.metrics import forecast_figures, forecast_figures_by_horizon, forecast_sums
from staa.models import FORECASTERS, MODELS
from staa.neurons import LIF, NEURONS
from staa.runfolder import ENVIRONMENT, RECIPE, check_origin, check_split, read_environment, read_recipe
from staa.streaming import allow_fewer_steps


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
    settings = _asked_for(dataset, f"the data set {data.name}", given | {"augment.scale": recipe.augment.scale}, usual)
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
    given, usual = ({f"series.{name}": getattr(c, name) for name in ("graph", "distances", "time")} for c in (s, Series()))
    settings = _asked_for(read, f"the series {recipe.data.name}", given, usual)
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


def build_loss(recipe: Recipe) -> Callable[[Tensor, Tensor], Tensor]:
    """The recipe's loss of (outputs, targets). Raises ValueError for a setting of the recipe that it does not take."""
    loss = find(recipe.loss.name, LOSSES if recipe.series.horizon is None else FORECAST_LOSSES, "loss", folder=recipe.folder)
    names = ("label_smoothing", "tet_weight", "tet_level")
    given, usual = ({f"loss.{name}": getattr(c, name) for name in names} for c in (recipe.loss, Loss()))
    return partial(loss, **_asked_for(loss, f"the loss {recipe.loss.name}", given, usual))


def _asked_for(f: Callable[..., Any], what: str, given: Mapping[str, Any], usual: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the given settings that a function has parameters for. Raises ValueError where another is not the usual."""
    asked = inspect.signature(f).parameters
    for name, value in given.items():
        if name.rpartition(".")[2] not in asked and value != usual.get(name):
            raise ValueError(f"{what} takes no `{name}`, which is {value}: leave it out (at {usual.get(name)})")
    return {short: value for name, value in given.items() if (short := name.rpartition(".")[2]) in asked}


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
        shrink = _shrink(recipe, source, steps_of_run(recipe, max(1, len(samples) // recipe.batch_size)))
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


def check_early(recipe: Recipe, source: Source | SeriesSource, model: nn.Module) -> None:
    """Tries on the network what the recipe makes smaller early in training, and lets it have fewer steps if it says so.

    Raises ValueError if these data or this network have no such form.
    """
    shrink = None if isinstance(source, SeriesSource) else _shrink(recipe, source, total := 10_000)
    if shrink is None:
        return
    x, _ = some_inputs(source, 1, device_of(model))
    if not isinstance(x, Tensor) or x.ndim != 4:
        raise ValueError(
            f"`early.steps` and `early.size` are for still images, repeated at each step; {recipe.data.name} has a frame for "
            f"each: leave them out"
        )
    if recipe.early.steps is not None:
        try:
            allow_fewer_steps(model)
        except ValueError as error:
            raise ValueError(
                f"`early.steps` needs a network in which no step sees a later one ({error}): leave it out, or take another "
                f"attention, such as `model.attention=gc-pe`"
            ) from error
    for small in (shrink(x, k) for k in shrink.changes() if k < total):
        try:
            with torch.no_grad(), torch.random.fork_rng(devices=[]), evaluation_mode(model):
                model(small)
        except (ValueError, RuntimeError) as error:
            raise ValueError(
                f"the network can't take what `early.steps` and `early.size` make of an image, {list(small.shape)}: "
                f"{str(error).splitlines()[0]}"
            ) from error


def _shrink(recipe: Recipe, source: Source, total: int) -> Shrink | None:
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


def build_model(recipe: Recipe, *, classes: int, channels: int, size: int, state: Mapping[str, Any] | None = None) -> nn.Module:
    """The recipe's network for such data, with fresh weights drawn from the global random state, channels_last.

    state: a state dict that it is built for; raises ValueError before memory is taken, if one of the library's networks has
    other sizes.
    """
    config = recipe.model
    model = find(config.name, MODELS, "model", folder=recipe.folder)
    neuron = find(config.neuron, NEURONS, "neuron", folder=recipe.folder)
    attention = find(config.attention, ATTENTIONS, "attention", folder=recipe.folder) if config.attention is not None else None
    if "size" in inspect.signature(model).parameters:  # its readout depends on the input's size
        model = partial(model, size=size)
    given, usual = ({"model.residual_init": c.residual_init} for c in (config, Model()))
    model = partial(model, **_asked_for(model, f"the model {config.name}", given, usual))
    model = partial(model, classes, in_channels=channels, steps=config.steps, sites=config.sites, width=config.width)
    check_bytes(4 * (config.steps or 1) * channels * size * size, "one input of the recipe's sizes")
    if config.name in MODELS:  # one of the user's own is not called twice
        _check_size(partial(model, neuron=LIF, attention=ATTENTIONS.get(config.attention or "")), state)
    try:
        built = model(neuron=neuron, attention=attention)
    except (TypeError, AttributeError, OverflowError) as error:  # what a function of one's own raises when called otherwise
        raise ValueError(
            f"the network can't be built ({type(error).__name__}: {error}); a model is called with (num_classes, *, "
            f"in_channels, steps, neuron, attention, sites, width), a neuron with (channels), attention with (steps, channels)"
        ) from error
    return _with_momentum(built, config.norm_momentum).to(memory_format=torch.channels_last)


def _with_momentum(model: nn.Module, momentum: float | None) -> nn.Module:
    """The network, such a momentum in each BatchNorm; None leaves them. Raises ValueError if there is none."""
    if momentum is None:
        return model
    norms = [layer for layer in model.modules() if isinstance(layer, nn.modules.batchnorm._BatchNorm)]
    if not norms:
        raise ValueError(
            f"this network has no BatchNorm, and takes no `model.norm_momentum`, which is {momentum}: leave it out"
        )
    for norm in norms:
        norm.momentum = momentum
    return model


def _check_size(model: Callable[..., nn.Module], state: Mapping[str, Any] | None) -> None:
    """Raises ValueError if a network's weights and gradients need more than `staa.files.max_bytes`, or if its weights are not
    in `state` in their sizes; allocates nothing."""
    try:
        with torch.device("meta"), torch.random.fork_rng(devices=[]):
            own = {name: value for name, value in model().state_dict().items() if isinstance(value, Tensor)}
    except (RuntimeError, TypeError, OverflowError) as error:
        if "verflow" in str(error):  # a number of bytes that is none
            raise ValueError(f"the network can't be built in the recipe's sizes: {str(error).splitlines()[0]}") from error
        return  # registered by somebody else, and not to be built without memory
    check_bytes(2 * sum(t.numel() * t.element_size() for t in own.values()), "the network, in the recipe's sizes,")
    if state is not None:
        odd = [name for name, value in own.items() if getattr(state.get(name), "shape", None) != value.shape]
        if odd:
            raise ValueError(f"the weights are those of another network: {len(odd)} entries do not fit, such as {odd[0]}")


def build_forecaster(
    recipe: Recipe,
    *,
    nodes: int,
    window: int,
    horizon: int,
    features: int,
    graph: Tensor | None = None,
    state: Mapping[str, Any] | None = None,
) -> nn.Module:
    """The recipe's forecaster for such a series, with fresh weights. Raises ValueError for a setting that it does not take.

    state: as for `build_model`, unless the graph is given.
    """
    config, own = recipe.model, recipe.forecast
    if config.attention is not None or config.sites is not None or config.width != 1:
        raise ValueError(
            "a forecaster has its own attention and width: `model.attention` and `model.sites` must be None and "
            "`model.width` 1; `forecast.width` is the features'"
        )
    forecaster = find(config.name, FORECASTERS, "forecaster", folder=recipe.folder)
    given, usual = ({f"forecast.{f.name}": getattr(c, f.name) for f in fields(c)} for c in (own, Forecast()))
    given["model.residual_init"], usual["model.residual_init"] = config.residual_init, Model().residual_init
    settings = _asked_for(forecaster, f"the forecaster {config.name}", given, usual)
    asked = inspect.signature(forecaster).parameters
    if "steps" in asked:
        if config.steps is None:
            raise ValueError(f"the forecaster {config.name} needs a number of steps: set `model.steps`, such as 4")
        settings["steps"] = config.steps
    if "neuron" in asked:
        settings["neuron"] = find(config.neuron, NEURONS, "neuron", folder=recipe.folder)
    if settings.get("graph") == "given":
        if graph is None:
            raise ValueError(f"{recipe.data.name} has no graph to be given: name its file with `series.graph`, or take another")
        settings["graph"] = graph
    forecaster = partial(forecaster, nodes, window, horizon, time_features=features)
    if config.name in FORECASTERS:
        check_bytes(4 * nodes * nodes if isinstance(settings.get("graph"), Tensor) else 0, "the graph")
        plain = settings | ({"neuron": LIF} if "neuron" in asked else {})
        plain |= {"graph": "adaptive"} if isinstance(settings.get("graph"), Tensor) else {}
        _check_size(partial(forecaster, **plain), None if isinstance(settings.get("graph"), Tensor) else state)
    try:
        return _with_momentum(forecaster(**settings), config.norm_momentum)
    except (TypeError, AttributeError) as error:  # what a function of one's own raises when called otherwise
        raise ValueError(
            f"the forecaster can't be built ({type(error).__name__}: {error}); it is called with (nodes, window, horizon, *, "
            f"time_features) and the settings it has parameters for, a neuron with (channels) and (channels, threshold=0.5)"
        ) from error


def model_for(recipe: Recipe, source: Source | SeriesSource) -> nn.Module:
    """The recipe's network for this data, with fresh weights."""
    if isinstance(source, SeriesSource):
        return build_forecaster(recipe, **_shape(source.facts), graph=source.graph)
    return build_model(recipe, classes=source.classes, channels=source.channels, size=source.size)


def build_measure(recipe: Recipe, source: Source | SeriesSource, device: torch.device | str = "cpu") -> Measure:
    """What is measured on such data: accuracy, or the errors of a forecast in the series' own units. device: the outputs'."""
    if isinstance(source, Source):
        return CLASSIFICATION
    fitted = "the training rows" if recipe.series.fit_on == "train" else "all rows"
    offset, scale = (part.to(device) for part in source.normaliser)
    return Measure(
        partial(forecast_sums, offset=offset, scale=scale, missing=source.missing),
        partial(forecast_figures, loss="mae" if recipe.loss.name == "mae" else "mse"),
        score=lambda figures: -figures["loss"],
        details=lambda sums: {
            "normaliser": f"{recipe.series.normalise} of {fitted}",
            "horizons": forecast_figures_by_horizon(sums),
        },
    )


def some_inputs(source: Source | SeriesSource, count: int, device: torch.device) -> tuple[Inputs, Tensor]:
    """Inputs and targets of some training samples, spread over all of them, as they are."""
    chosen = torch.linspace(0, len(source.train) - 1, min(count, len(source.train))).long()
    if isinstance(source, SeriesSource):
        return WindowBatches(source, "train", 1, device=device).take(chosen)
    return source.prepare(source.train.take(chosen).to(device)), source.train.y[chosen].to(device)


def source_of(run_folder: Path, data_root: Path | None = None, *, trust: bool = False) -> Source | SeriesSource:
    """The data that a run was trained on; data_root: None is where it found them. trust: see `load`. Raises ValueError if they
    are others."""
    recipe = read_recipe(run_folder, trusted=trust)
    root = data_root or read_environment(run_folder).get("data_root")
    if root is None and needs_files(recipe):
        raise ValueError(f"{run_folder} doesn't say where its data are, as no shared run does: give `data_root`")
    try:
        source = build_source(recipe, Path(root or ""), check=False)
    except (OSError, ValueError) as error:
        if data_root is not None or root is None or isinstance(error, UntrustedCodeError) or str(root) not in str(error):
            raise
        kind = FileNotFoundError if isinstance(error, FileNotFoundError) else ValueError
        raise kind(f"{error}; {run_folder} found its data at {root}: if they moved, give `data_root`") from error
    return replace(source, notes=(*source.notes, *check_split(run_folder, source)))


def needs_files(recipe: Recipe) -> bool:
    """Whether the recipe's data lie in files, and are not made or come with a package. Raises what `staa.find.find` does."""
    known, what = (DATASETS, "data set") if recipe.series.horizon is None else (SERIES, "series")
    return "root" in inspect.signature(find(recipe.data.name, known, what, folder=recipe.folder)).parameters


def check_recipe(recipe: Recipe, data_root: Path) -> None:
    """Raises ValueError or OSError where its data are not there, or its network can't be built for them."""
    source = build_source(recipe, data_root)
    with torch.random.fork_rng(devices=[]):
        model = model_for(recipe, source)
    check_weights(recipe, model)
    check_early(recipe, source, model)


def check_weights(recipe: Recipe, model: nn.Module) -> None:
    """Raises ValueError where the recipe asks for weights that a model without any to train can't have."""
    if any(p.requires_grad for p in model.parameters()):
        return
    if recipe.weights == "best":
        raise ValueError(f"{recipe.model.name} is not trained in epochs, of which one could be the best: give `weights=last`")
    if recipe.init_from is not None:
        raise ValueError(f"{recipe.model.name} is not trained, so it can't start from another run: leave out `init_from`")


def choose_device(name: str | None) -> torch.device:
    """The named device, or the GPU if there is one, else the CPU. Raises ValueError for a device that is not there."""
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if not re.fullmatch(r"(cpu|cuda|mps)(:\d{1,3})?", name):
        raise ValueError(f"device must be cpu, cuda, cuda:1 … or mps, got {name!r}")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ValueError(f"device {name!r} can't be used here: {str(error).splitlines()[0]}") from error
    return device


def choose_precision(wanted: str, device: torch.device) -> Literal["float32", "bfloat16"]:
    """bfloat16 where asked for, or where "auto" meets a GPU that has it. Never the default on a CPU."""
    if wanted == "auto":
        if device.type != "cuda":
            return "float32"
        with torch.cuda.device(device):
            return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    return "bfloat16" if wanted == "bfloat16" else "float32"


def choose_workers(wanted: int | None, device: torch.device) -> int:
    """Processes that read and augment: as wanted, or the cores up to 16, half of them where they also train."""
    if wanted is not None:
        if wanted < 0:
            raise ValueError(f"`workers` can't be negative, got {wanted}; 0 reads in the main process")
        return wanted
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(16, max(1, cores if device.type == "cuda" else cores // 2))


def load(run_folder: str | Path, *, weights: Literal["last", "best"] | None = None, trust: bool = False) -> nn.Module:
    """The trained model of a run folder, on the CPU in evaluation mode.

    weights: "last" epoch or "best" on validation, of the moving average if the run keeps one; None: what the test figure
    was measured with. trust: the Python files in the folder may run, where the run has parts of its own; the process that
    trained it needs no flag. Raises `staa.find.UntrustedCodeError` for such a file, and FileNotFoundError or ValueError if
    the folder, its recipe or its weights are missing, broken, of another network or larger than `staa.files.max_bytes`. Warns
    if no checkpoint is there to compare the recipe with.
    """
    folder = Path(run_folder)
    recipe = read_recipe(folder, trusted=trust)
    about = read_environment(folder)["data"]
    weights = weights or recipe.weights
    if weights not in ("last", "best"):
        raise ValueError(f'weights must be "last" or "best", got {weights!r}')
    if weights == "best":
        path, state = folder / BEST, read_weights(folder / BEST)
        if (origin := read_origin(folder)) is not None:
            check_origin(origin[1], recipe, origin[0])
        else:
            warnings.warn(f"{folder} has no checkpoint: whether {RECIPE} is the recipe of {BEST} is not known", stacklevel=2)
    else:
        path, checkpoint = folder / LAST, load_checkpoint(folder)
        check_origin(checkpoint, recipe, path)
        state = measured_weights(checkpoint)
    if ("nodes" in about) != (recipe.series.horizon is not None):
        raise ValueError(f"{folder / ENVIRONMENT} is of other data than the recipe's: one is of a series, the other is not")
    try:
        model = _model_of(recipe, about, folder, state)
    except UntrustedCodeError:
        raise
    except ValueError as error:
        raise ValueError(f"the network of {folder} can't be built: {error}") from error
    load_weights(model, state, path)
    return model.eval()


def _model_of(recipe: Recipe, about: dict[str, Any], folder: Path, state: Mapping[str, Any]) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        if recipe.series.horizon is None:
            return build_model(recipe, classes=about["classes"], channels=about["channels"], size=about["size"], state=state)
        given = recipe.forecast.graph == "given"  # it comes with the weights
        check_bytes(4 * about["nodes"] ** 2 if given else 0, f"the graph of {folder}")
        return build_forecaster(recipe, **_shape(about), graph=torch.eye(about["nodes"]) if given else None, state=state)


def _shape(facts: Mapping[str, Any]) -> dict[str, Any]:
    return {name: facts[name] for name in ("nodes", "window", "horizon", "features")}
