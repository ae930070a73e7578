"""From names to objects: the only place that sees both models and data. A run, from recipe to result, lives here."""

import difflib
import hashlib
import importlib.util
import inspect
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import staa
from staa.attention import ATTENTIONS
from staa.checkpoint import (
    BEST,
    LAST,
    exclusive,
    has_checkpoint,
    load_checkpoint,
    load_weights,
    measured_weights,
    save_text,
    transfer_weights,
)
from staa.config import Data, Loss, Recipe, to_json
from staa.data import DATASETS, Batches, Source
from staa.data.augment import make_augment, make_mix
from staa.evaluate import evaluate
from staa.losses import LOSSES, rate_penalty
from staa.models import MODELS
from staa.neurons import NEURONS
from staa.recipes import RECIPES
from staa.recording import firing_rates
from staa.runfolder import (
    ENVIRONMENT,
    RECIPE,
    RESULT,
    check_origin,
    check_same_recipe,
    check_split,
    describe,
    log,
    log_once,
    read_environment,
    read_json,
    read_recipe,
)
from staa.train import cosine_schedule, make_optimizer, train

LOG_EVERY = 50  # steps
PARTS = ("train", "validation", "test")


def find(name: str, known: Mapping[str, Any], what: str) -> Any:
    """The entry of a registry, or what `path.py:attribute` names (that file is run).

    Raises ValueError with the nearest known names, FileNotFoundError for a missing file.
    """
    if name in known:
        return known[name]
    path, colon, attribute = name.rpartition(":")
    if colon and path.endswith(".py"):
        return _from_file(Path(path), attribute)
    if name.endswith(".py"):
        raise ValueError(f"{name} is a file: name what it defines, as in {name}:recipe")
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
    hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(known)}"
    raise ValueError(f"unknown {what} {name!r}; {hint}")


def find_recipe(name: str) -> Recipe:
    """A recipe by name, or `my_file.py:recipe`."""
    recipe = find(name, RECIPES, "recipe")
    if not isinstance(recipe, Recipe):
        raise ValueError(f"{name} is a {type(recipe).__name__}, not a staa.Recipe")
    path, colon, attribute = name.rpartition(":")
    if colon:  # what a recipe file names is looked for beside it
        recipe = with_absolute_paths(recipe, Path(path).parent)
    return recipe if recipe.name else replace(recipe, name=attribute)


def build_source(recipe: Recipe, data_root: Path, *, check: bool = True) -> Source:
    """The recipe's data set, split. It is called with what it asks for of root, validation, steps and the settings below.

    check=False skips the look for corrupt images that are refused: such a one is then named when it is met. Raises
    ValueError for an option of the recipe that this data set does not take.
    """
    dataset = find(recipe.data.name, DATASETS, "data set")
    data = recipe.data
    names = ("size", "resize", "corrupt", "frames", "window", "values", "sensor", "split")
    given, usual = ({f"data.{name}": getattr(d, name) for name in names} for d in (data, Data()))
    settings = _asked_for(dataset, f"the data set {data.name}", given | {"augment.scale": recipe.augment.scale}, usual)
    if settings.get("corrupt") == "refuse" and not check:
        settings["corrupt"] = "unchecked"
    asked = inspect.signature(dataset).parameters
    given = {"root": data_root, "validation": data.validation, "steps": recipe.model.steps or data.steps}
    return dataset(**settings, **{name: value for name, value in given.items() if name in asked})


def build_loss(recipe: Recipe) -> Callable[[Tensor, Tensor], Tensor]:
    """The recipe's loss of (logits, targets). Raises ValueError for a setting of the recipe that it does not take."""
    loss = find(recipe.loss.name, LOSSES, "loss")
    names = ("label_smoothing", "tet_weight", "tet_level")
    given, usual = ({f"loss.{name}": getattr(c, name) for name in names} for c in (recipe.loss, Loss()))
    return partial(loss, **_asked_for(loss, f"the loss {recipe.loss.name}", given, usual))


def _asked_for(f: Callable[..., Any], what: str, given: Mapping[str, Any], usual: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the given settings that a function has parameters for. Raises ValueError where another is not the usual."""
    asked = inspect.signature(f).parameters
    for name, value in given.items():
        if name.rpartition(".")[2] not in asked and value != usual.get(name):
            raise ValueError(f"{what} takes no {name}, which is {value}: leave it out (at {usual.get(name)})")
    return {short: value for name, value in given.items() if (short := name.rpartition(".")[2]) in asked}


def build_batches(
    recipe: Recipe,
    source: Source,
    part: Literal["train", "validation", "test"],
    device: torch.device,
    *,
    workers: int,
    training: bool = False,
) -> Batches:
    """A part of the data: for training shuffled and augmented as the recipe says, else in order and plain.

    workers: used where samples are read from disk or augmented one by one. Raises ValueError for augmentation that
    these data do not take.
    """
    samples, a = getattr(source, part), recipe.augment
    augment = mix = None
    slow = not isinstance(samples.x, Tensor)
    if training:
        one_by_one = a.policy is not None or a.jitter > 0
        if one_by_one and source.channels != 3:
            raise ValueError(
                f"augment.policy and augment.jitter are for colour images; {recipe.data.name} has {source.channels} channels"
            )
        if a.events is not None and (source.channels == 3 or (isinstance(samples.x, Tensor) and samples.x.ndim != 5)):
            raise ValueError(f"augment.events is for event frames, [T, 2, H, W] a sample; {recipe.data.name} has images")
        if max(a.shift, a.cutout) > source.size:
            raise ValueError(
                f"augment.shift and augment.cutout can't exceed the images' {source.size} pixels, got {a.shift} and {a.cutout}"
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
    return Batches(
        samples,
        recipe.batch_size,
        prepare=source.prepare,
        augment=augment,
        mix=mix,
        seed=recipe.seed if training else None,
        device=device,
        workers=workers if slow else None,
    )


def build_model(recipe: Recipe, *, classes: int, channels: int, size: int) -> nn.Module:
    """The recipe's network for such data, with fresh weights drawn from the global random state, channels_last."""
    config = recipe.model
    model = find(config.name, MODELS, "model")
    neuron = find(config.neuron, NEURONS, "neuron")
    attention = find(config.attention, ATTENTIONS, "attention") if config.attention is not None else None
    if "size" in inspect.signature(model).parameters:  # its readout depends on the input's size
        model = partial(model, size=size)
    try:
        built = model(
            classes,
            in_channels=channels,
            steps=config.steps,
            neuron=neuron,
            attention=attention,
            sites=config.sites,
            width=config.width,
        )
    except (TypeError, AttributeError, OverflowError) as error:  # what a function of one's own raises when called otherwise
        raise ValueError(
            f"the network can't be built ({type(error).__name__}: {error}); a model is called with (num_classes, *, "
            f"in_channels, steps, neuron, attention, sites, width), a neuron with (channels), attention with (steps, channels)"
        ) from error
    return built.to(memory_format=torch.channels_last)


def check_recipe(recipe: Recipe, data_root: Path) -> None:
    """Raises ValueError or OSError where its data are not there, or its network can't be built for them."""
    source = build_source(recipe, data_root)
    with torch.random.fork_rng(devices=[]):
        build_model(recipe, classes=source.classes, channels=source.channels, size=source.size)


def choose_device(name: str | None) -> torch.device:
    """The named device, or the GPU if there is one, else the CPU. Raises ValueError for a device that is not there."""
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        if device.type not in ("cpu", "cuda", "mps"):
            raise RuntimeError("it must be cpu, cuda or mps")
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
            raise ValueError(f"workers can't be negative, got {wanted}; 0 reads in the main process")
        return wanted
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(16, max(1, cores if device.type == "cuda" else cores // 2))


def run(
    recipe: Recipe,
    folder: Path,
    *,
    data_root: Path = Path("data"),
    device: str | None = None,
    workers: int | None = None,
    save_minutes: float = 10.0,
    bits: bool = False,
    resume: Path | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> Iterator[dict[str, Any]]:
    """Train a recipe in a run folder, yielding `staa.train.train`'s events, then "result" with the test figures.

    The folder takes recipe.json, environment.json (versions, commit, device, split, classes), log.jsonl, last.pt,
    previous.pt, best.safetensors and, at the end, result.json; this process holds it meanwhile. The test set is touched
    once: after the last step, with the last weights. With protocol "paper" it takes the place of validation in each epoch,
    and the result tells the best epoch's accuracy too, as best_test_accuracy.

    workers: processes that read and augment where that is slow (None: `choose_workers`). save_minutes: between saves
    inside an epoch. bits: spikes wait for the backward pass as bits. resume: the folder or a checkpoint in it; a finished
    run just yields its result again. After "start" comes "transfer" (what `transfer_weights` says) where the recipe starts
    from another run, and a "warning" for each of the data set's notes.

    Raises ValueError and OSError on bad input, before anything is written, and what `train` raises.
    """
    recipe = with_absolute_paths(recipe)
    chosen = choose_device(device)
    workers = choose_workers(workers, chosen)
    precision = choose_precision(recipe.precision, chosen)
    if not save_minutes > 0:
        raise ValueError(f"save_minutes must be positive, got {save_minutes}")
    with exclusive(folder):
        if resume is None and any(folder.iterdir()):
            raise ValueError(f"{folder} holds a run already: resume it with --resume {folder}, or choose another --out")
        if resume is not None:
            check_same_recipe(folder, recipe)
        if resume is not None and resume.is_dir() and (folder / RESULT).is_file():
            result = read_json(folder / RESULT)
            if not {"test_accuracy", "test_loss", "test_samples"} <= result.keys():
                raise ValueError(f"{folder / RESULT} is broken; delete it and resume the run to write it anew")
            yield {"event": "result", **result}
            return
        state = None
        if resume is not None and (resume.is_file() or has_checkpoint(folder)):  # else it died before its first one
            state = load_checkpoint(resume)
            check_origin(state, recipe, resume)
        source = build_source(recipe, data_root)
        if state is not None and (folder / ENVIRONMENT).is_file():
            check_split(folder, source)
        batches = partial(build_batches, recipe, source, device=chosen, workers=workers)
        training, test, loss = batches("train", training=True), batches("test"), build_loss(recipe)
        paper = recipe.protocol == "paper"
        validation = test if paper else None if source.validation is None else batches("validation")
        torch.manual_seed(recipe.seed)
        model = build_model(recipe, classes=source.classes, channels=source.channels, size=source.size).to(chosen)
        if recipe.model.steps == 1 and training.batch_size // recipe.optim.accumulate < 2:
            raise ValueError(
                f"batch_size {training.batch_size} in {recipe.optim.accumulate} pieces at T = 1 gives BatchNorm one image at a "
                f"time to take statistics of: make it at least {2 * recipe.optim.accumulate}"
            )
        _try(model, source, loss, mixed=training.mix is not None, penalty=_penalty(recipe))
        transfer = _transfer(recipe, source, model) if state is None and recipe.init_from is not None else None
        optim = recipe.optim
        average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(optim.ema), use_buffers=True) if optim.ema else None
        steps = recipe.epochs * len(training)
        steps = steps if recipe.max_steps is None else min(steps, recipe.max_steps)
        optimizer = make_optimizer(
            model,
            name=optim.name,
            lr=optim.lr,
            momentum=optim.momentum,
            weight_decay=optim.weight_decay,
            decay_all=optim.decay_all,
        )
        warmup = min(round(optim.warmup_epochs * len(training)), steps // 2)
        schedule = cosine_schedule(optimizer, steps=steps, warmup=warmup, lr=optim.lr, min_lr=optim.min_lr)
        environment = describe(source, model, chosen, precision, data_root, staa.__version__)
        if state is None:
            save_text(folder / RECIPE, to_json(recipe))
        if state is None or not (folder / ENVIRONMENT).is_file():
            save_text(folder / ENVIRONMENT, json.dumps(environment, indent=2) + "\n")
        if state is not None and state.get("report"):
            log_once(folder, state["report"])  # saved, but the process may have died before it was logged
        log(folder, {"event": "environment", **environment})
        told = [] if transfer is None else [transfer]
        told += [{"event": "warning", "step": 0, "epoch": 1, "text": note} for note in source.notes]
        for event in told:
            log(folder, event)

        event: dict[str, Any] = {}
        for event in train(
            model,
            training,
            folder=folder,
            steps=steps,
            optimizer=optimizer,
            schedule=schedule,
            validation=validation,
            measured_on="test" if paper else "validation",
            loss=loss,
            penalty=_penalty(recipe),
            clip=optim.clip,
            accumulate=optim.accumulate,
            average=average,
            precision=precision,
            seed=recipe.seed,
            save_every=60 * save_minutes,
            bits=bits,
            state=state,
            about={"recipe": to_json(recipe)},
            stop=stop,
        ):
            if event["event"] != "step" or event["step"] % LOG_EVERY == 0 or event["step"] == steps:
                log(folder, event)
            if event["event"] == "start":
                event |= {"classes": source.classes, **{part: environment["data"][part] for part in PARTS}}
            yield event
            if event["event"] == "start":
                yield from told
        if event["event"] == "end":
            figures = evaluate(model if average is None else average.module, test, precision=precision)
            result = {f"test_{k}": v for k, v in figures.items()}
            result |= {"test_samples": len(source.test), "weights": "last", "recipe": recipe.name, "seed": recipe.seed}
            result |= {"protocol": recipe.protocol}
            if paper:
                result |= {"best_test_accuracy": event["best"], "best_test_epoch": event["best_epoch"]}
            save_text(folder / RESULT, json.dumps(result, indent=2) + "\n")
            log(folder, {"event": "result", **result})
            yield {"event": "result", **result}


def _penalty(recipe: Recipe) -> Callable[[Iterable[Tensor]], Tensor] | None:
    weight, target = recipe.loss.rate_weight, recipe.loss.rate_target
    return (lambda rates: weight * rate_penalty(rates, target=target)) if weight else None


def _try(model: nn.Module, source: Source, loss: Callable[[Tensor, Tensor], Tensor], *, mixed: bool, penalty: Any) -> None:
    """One sample through network and loss: what does not fit speaks before anything is written. Raises ValueError."""
    x, y = source.train.take(torch.tensor([0])), source.train.y[:1]
    device = next(model.parameters()).device
    targets = F.one_hot(y, source.classes).float() if mixed else y
    with torch.no_grad(), torch.random.fork_rng(devices=[]), firing_rates(model) as rates:
        logits = model.eval()(source.prepare(x.to(device)))
        try:
            value = loss(logits, targets.to(device))
        except (RuntimeError, TypeError, IndexError) as error:
            kind = "probabilities [N, classes]" if mixed else "labels [N]"
            raise ValueError(f"the loss can't be taken of logits {list(logits.shape)} and {kind}: {error}") from error
        if not isinstance(value, Tensor) or value.ndim:
            raise ValueError(f"a loss is a scalar tensor, got {list(value.shape) if isinstance(value, Tensor) else value!r}")
        if penalty is not None:
            penalty(rates.values())


def _transfer(recipe: Recipe, source: Source, model: nn.Module) -> dict[str, Any]:
    """Take over what fits of the run that the recipe starts from, and tell; its readout only where the classes are the same."""
    folder = Path(recipe.init_from or "")
    other, about = read_recipe(folder), read_environment(folder)["data"]
    names = about.get("names")
    known = names is not None and source.names is not None
    same = names == list(source.names or ()) if known else other.data.name == recipe.data.name
    related = bool(set(names or ()) & set(source.names or ())) if known else same  # a class may have been added
    state = load_checkpoint(folder)
    check_origin(state, other, folder / LAST)
    found = transfer_weights(model, measured_weights(state), folder, readout=same)
    return {
        "event": "transfer", "step": 0, "epoch": 1, "from": str(folder), "from_recipe": other.name, "from_step": state["step"],
        "from_split": about["split"], "same_split": not related or about["split"] == source.split, **asdict(found),
    }  # fmt: skip


def with_absolute_paths(recipe: Recipe, base: Path = Path()) -> Recipe:
    """The recipe with each `my_file.py:name` and run folder in it made absolute (from `base`): it is read from anywhere."""

    def absolute(name: str | None) -> str | None:
        path, colon, attribute = (name or "").rpartition(":")
        return f"{(base / path).resolve()}:{attribute}" if colon and path.endswith(".py") else name

    model = {key: absolute(getattr(recipe.model, key)) for key in ("name", "neuron", "attention")}
    data = replace(recipe.data, name=absolute(recipe.data.name) or "")
    loss = replace(recipe.loss, name=absolute(recipe.loss.name) or "")
    init_from = None if recipe.init_from is None else str((base / recipe.init_from).resolve())
    return replace(recipe, data=data, loss=loss, model=replace(recipe.model, **model), init_from=init_from)  # type: ignore[arg-type]


def load(run_folder: str | Path, *, weights: Literal["last", "best"] = "last") -> nn.Module:
    """The trained model of a run folder, on the CPU in evaluation mode.

    weights: "last" epoch (what the test figure was measured with) or "best" on validation; of the moving average where the
    run keeps one. Raises FileNotFoundError or ValueError where the folder, its recipe or its weights are missing, broken
    or of another network.
    """
    folder = Path(run_folder)
    recipe = read_recipe(folder)
    about = read_environment(folder)["data"]
    with torch.random.fork_rng(devices=[]):
        model = build_model(recipe, classes=about["classes"], channels=about["channels"], size=about["size"])
    if weights not in ("last", "best"):
        raise ValueError(f'weights must be "last" or "best", got {weights!r}')
    if weights == "best":
        load_weights(model, _read_safetensors(folder / BEST), folder / BEST)
    else:
        state = load_checkpoint(folder)
        check_origin(state, recipe, folder / LAST)
        load_weights(model, measured_weights(state), folder / LAST)
    return model.eval()


def evaluate_run(
    run_folder: Path,
    *,
    split: Literal["train", "validation", "test"] | None = None,
    weights: Literal["last", "best"] = "last",
    data_root: Path | None = None,
    device: str | None = None,
    workers: int | None = None,
) -> dict[str, Any]:
    """Accuracy and loss of a run's model on a part of its data, in the precision the recipe has on this device.

    split: None is the test set for a finished run; before that it is validation, since the test set is touched once, at
    the end. data_root: None is where the run found its data.
    """
    recipe, model, chosen = read_recipe(run_folder), load(run_folder, weights=weights), choose_device(device)
    split = split or ("test" if (run_folder / RESULT).is_file() else "validation")
    source = build_source(recipe, data_root or Path(read_environment(run_folder)["data_root"]), check=False)
    check_split(run_folder, source)
    if getattr(source, split) is None:
        raise ValueError(f"{run_folder} held out no validation samples (data.validation = 0); give --split train or test")
    batches = build_batches(recipe, source, split, chosen, workers=choose_workers(workers, chosen))
    figures = evaluate(model.to(chosen), batches, precision=choose_precision(recipe.precision, chosen))
    return {
        "split": split, "weights": weights, "samples": len(getattr(source, split)), "protocol": recipe.protocol, **figures,
    }  # fmt: skip


def _from_file(path: Path, attribute: str) -> Any:
    """What a Python file defines. It is run once, with its folder on the import path."""
    path = path.resolve()
    if not path.is_file():
        raise FileNotFoundError(f"no file {path} to take {attribute!r} from")
    name = f"staa_file_{hashlib.sha256(str(path).encode()).hexdigest()[:16]}"
    module = sys.modules.get(name)
    if module is None:
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None
        assert spec.loader is not None
        module = sys.modules[name] = importlib.util.module_from_spec(spec)
        sys.path.insert(0, str(path.parent))
        try:
            spec.loader.exec_module(module)
        except (Exception, SystemExit) as error:
            del sys.modules[name]
            raise ValueError(f"{path} can't be imported: {type(error).__name__}: {error}") from error
        finally:
            sys.path.remove(str(path.parent))
    if not hasattr(module, attribute):
        raise ValueError(f"{path} defines no {attribute!r}")
    return getattr(module, attribute)


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not path.is_file():
        raise FileNotFoundError(
            f"{path} is missing: it is written after an epoch that ends with validation, which needs data.validation above 0"
        )
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is truncated or corrupt: {error}") from error
