"""From names to objects: the only place that sees both models and data. A run, from recipe to result, lives here."""

import difflib
import hashlib
import importlib.util
import inspect
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

import staa
from staa.attention import ATTENTIONS
from staa.checkpoint import BEST, LAST, exclusive, has_checkpoint, load_checkpoint, load_weights, save_text
from staa.config import Recipe, differences, from_json, to_json
from staa.data import DATASETS, Batches, Samples, Source
from staa.evaluate import evaluate
from staa.losses import mean_cross_entropy
from staa.models import MODELS
from staa.neurons import NEURONS
from staa.recipes import RECIPES
from staa.train import cosine_schedule, make_optimizer, train

RECIPE, LOG, ENVIRONMENT, RESULT = "recipe.json", "log.jsonl", "environment.json", "result.json"
LOG_EVERY = 50  # steps


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


def build_source(recipe: Recipe, data_root: Path) -> Source:
    """The recipe's data set, split."""
    dataset = find(recipe.data.name, DATASETS, "data set")
    return dataset(root=data_root, steps=recipe.model.steps, validation=recipe.data.validation, augment=recipe.data.augment)


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


def run(
    recipe: Recipe,
    folder: Path,
    *,
    data_root: Path = Path("data"),
    device: str | None = None,
    resume: Path | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> Iterator[dict[str, Any]]:
    """Train a recipe in a run folder, yielding `staa.train.train`'s events, then "result" with the test figures.

    The folder takes recipe.json, environment.json (versions, commit, device, split), log.jsonl, last.pt, previous.pt,
    best.safetensors and, at the end, result.json; this process holds it meanwhile. The test set is touched once: after the
    last step, with the last weights. resume: the folder or a checkpoint in it; a finished run just yields its result again.

    Raises ValueError and OSError on bad input, before anything is written, and what `train` raises.
    """
    recipe = with_absolute_paths(recipe)
    chosen = choose_device(device)
    precision = choose_precision(recipe.precision, chosen)
    with exclusive(folder):
        if resume is None and any(folder.iterdir()):
            raise ValueError(f"{folder} holds a run already: resume it with --resume {folder}, or choose another --out")
        if resume is not None:
            check_same_recipe(folder, recipe)
        if resume is not None and resume.is_dir() and (folder / RESULT).is_file():
            result = _read_json(folder / RESULT)
            if not {"test_accuracy", "test_loss", "test_samples"} <= result.keys():
                raise ValueError(f"{folder / RESULT} is broken; delete it and resume the run to write it anew")
            yield {"event": "result", **result}
            return
        state = None
        if resume is not None and (resume.is_file() or has_checkpoint(folder)):  # else it died before its first one
            state = load_checkpoint(resume)
            _check_origin(state, recipe, resume)
        source = build_source(recipe, data_root)
        if state is not None and (folder / ENVIRONMENT).is_file():
            _check_split(folder, source)
        torch.manual_seed(recipe.seed)
        model = build_model(recipe, classes=source.classes, channels=source.channels, size=source.size).to(chosen)
        with torch.no_grad(), torch.random.fork_rng(devices=[]):  # a T or C that doesn't fit speaks before anything is written
            model.eval()(source.prepare(source.train.x[:1].to(chosen)))

        def batches(samples: Samples, seed: int | None) -> Batches:
            augment = source.augment if seed is not None else None
            return Batches(samples, recipe.batch_size, prepare=source.prepare, augment=augment, seed=seed, device=chosen)

        training = batches(source.train, recipe.seed)
        steps = recipe.epochs * len(training)
        steps = steps if recipe.max_steps is None else min(steps, recipe.max_steps)
        optim = recipe.optim
        optimizer = make_optimizer(
            model, name=optim.name, lr=optim.lr, momentum=optim.momentum, weight_decay=optim.weight_decay
        )
        warmup = round(optim.warmup_epochs * len(training))
        schedule = cosine_schedule(optimizer, steps=steps, warmup=warmup, lr=optim.lr, min_lr=optim.min_lr)
        environment = _environment(source, model, chosen, precision, data_root)
        if state is None:
            save_text(folder / RECIPE, to_json(recipe))
        if state is None or not (folder / ENVIRONMENT).is_file():
            save_text(folder / ENVIRONMENT, json.dumps(environment, indent=2) + "\n")
        if state is not None and state.get("report"):
            _log_once(folder, state["report"])  # saved, but the process may have died before it was logged
        _log(folder, {"event": "environment", **environment})

        event: dict[str, Any] = {}
        for event in train(
            model,
            training,
            folder=folder,
            steps=steps,
            optimizer=optimizer,
            schedule=schedule,
            validation=None if source.validation is None else batches(source.validation, None),
            loss=partial(mean_cross_entropy, label_smoothing=recipe.label_smoothing),
            clip=optim.clip,
            precision=precision,
            seed=recipe.seed,
            state=state,
            about={"recipe": to_json(recipe)},
            stop=stop,
        ):
            if event["event"] != "step" or event["step"] % LOG_EVERY == 0 or event["step"] == steps:
                _log(folder, event)
            yield event
        if event["event"] == "end":
            figures = evaluate(model, batches(source.test, None), precision=precision)
            result = {f"test_{k}": v for k, v in figures.items()}
            result |= {"test_samples": len(source.test), "weights": "last", "recipe": recipe.name, "seed": recipe.seed}
            save_text(folder / RESULT, json.dumps(result, indent=2) + "\n")
            _log(folder, {"event": "result", **result})
            yield {"event": "result", **result}


def with_absolute_paths(recipe: Recipe, base: Path = Path()) -> Recipe:
    """The recipe with each `my_file.py:name` in it made absolute (from `base`), so that a run can be read from anywhere."""

    def absolute(name: str | None) -> str | None:
        path, colon, attribute = (name or "").rpartition(":")
        return f"{(base / path).resolve()}:{attribute}" if colon and path.endswith(".py") else name

    model = {key: absolute(getattr(recipe.model, key)) for key in ("name", "neuron", "attention")}
    data = replace(recipe.data, name=absolute(recipe.data.name) or "")
    return replace(recipe, data=data, model=replace(recipe.model, **model))  # type: ignore[arg-type]


def read_recipe(folder: Path) -> Recipe:
    """The recipe of a run folder. Raises FileNotFoundError where it is none, ValueError where its recipe is broken."""
    path = folder / RECIPE
    if not path.is_file():
        raise FileNotFoundError(f"{folder} is not a run folder: it has no {RECIPE}")
    try:
        return from_json(path.read_text())
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} can't be read as a recipe: {error}") from error


def read_environment(folder: Path) -> dict[str, Any]:
    """What a run recorded of its machine and data. Raises FileNotFoundError or ValueError where that is missing or broken."""
    path = folder / ENVIRONMENT
    if not path.is_file():
        raise FileNotFoundError(f"{folder} is not a run folder: it has no {ENVIRONMENT}")
    environment = _read_json(path)
    about = environment.get("data")
    sizes = [about.get(key) for key in ("classes", "channels", "size")] if isinstance(about, dict) else [None]
    if not all(isinstance(n, int) and n > 0 for n in sizes) or not isinstance(environment.get("data_root"), str):
        raise ValueError(f"{path} is broken: it does not say what the data were; delete it and resume the run to write it anew")
    return environment


def check_same_recipe(folder: Path, wanted: Recipe) -> None:
    """Raises ValueError naming the fields in which a run's recipe differs from the wanted one."""
    odd = differences(read_recipe(folder), wanted)
    if odd:
        raise ValueError(f"{folder} was trained with another recipe (its, yours): {'; '.join(odd[:4])}")


def _check_origin(state: dict[str, Any], recipe: Recipe, path: Path) -> None:
    """Raises ValueError where a checkpoint was not made with this recipe."""
    if "recipe" not in state:
        raise ValueError(f"the checkpoint at {path} does not say which recipe it is of")
    odd = differences(from_json(state["recipe"]), recipe)
    if odd:
        raise ValueError(f"the checkpoint at {path} belongs to another recipe (its, the run's): {'; '.join(odd[:4])}")


def load(run_folder: str | Path, *, weights: Literal["last", "best"] = "last") -> nn.Module:
    """The trained model of a run folder, on the CPU in evaluation mode.

    weights: "last" epoch (what the test figure was measured with) or "best" on validation. Raises FileNotFoundError or
    ValueError where the folder, its recipe or its weights are missing, broken or of another network.
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
        _check_origin(state, recipe, folder / LAST)
        load_weights(model, state["model"], folder / LAST)
    return model.eval()


def evaluate_run(
    run_folder: Path,
    *,
    split: Literal["train", "validation", "test"] | None = None,
    weights: Literal["last", "best"] = "last",
    data_root: Path | None = None,
    device: str | None = None,
) -> dict[str, Any]:
    """Accuracy and loss of a run's model on a part of its data, in the precision the recipe has on this device.

    split: None is the test set for a finished run; before that it is validation, since the test set is touched once, at
    the end. data_root: None is where the run found its data.
    """
    recipe, model, chosen = read_recipe(run_folder), load(run_folder, weights=weights), choose_device(device)
    split = split or ("test" if (run_folder / RESULT).is_file() else "validation")
    source = build_source(recipe, data_root or Path(read_environment(run_folder)["data_root"]))
    _check_split(run_folder, source)
    samples = {"train": source.train, "validation": source.validation, "test": source.test}[split]
    if samples is None:
        raise ValueError(f"{run_folder} held out no validation samples (data.validation = 0); give --split train or test")
    batches = Batches(samples, recipe.batch_size, prepare=source.prepare, device=chosen)
    figures = evaluate(model.to(chosen), batches, precision=choose_precision(recipe.precision, chosen))
    return {"split": split, "weights": weights, "samples": len(samples), **figures}


def _log(folder: Path, event: dict[str, Any]) -> None:
    path = folder / LOG
    try:
        with open(path, "ab+") as log:
            if log.tell():
                log.seek(-1, os.SEEK_END)
                if log.read(1) != b"\n":  # a full disk cut the last line off
                    log.write(b"\n")
            log.write((json.dumps({"time": round(time.time(), 3), **event}) + "\n").encode())
    except OSError as error:
        raise RuntimeError(f"could not write {path}: {error.strerror}; the last checkpoint is kept") from error


def _log_once(folder: Path, event: dict[str, Any]) -> None:
    path = folder / LOG
    mark = f'"event": "{event["event"]}", "step": {event["step"]},'
    if not path.is_file() or mark not in path.read_text(errors="replace"):
        _log(folder, event)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path} is broken ({error}); delete it and resume the run to write it anew") from error
    if not isinstance(values, dict):
        raise ValueError(f"{path} is broken: it holds no object")
    return values


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


def _read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: it is written with the first validation, after the first epoch")
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is truncated or corrupt: {error}") from error


def _check_split(folder: Path, source: Source) -> None:
    if read_environment(folder)["data"].get("split") != source.split:
        raise ValueError(f"the data's split differs from the one {folder} was trained on; is it another data set?")


def _environment(source: Source, model: nn.Module, device: torch.device, precision: str, root: Path) -> dict[str, Any]:
    return {
        "staa": staa.__version__,
        "commit": _commit(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "platform": platform.platform(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else f"{device.type}, {os.cpu_count()} cores",
        "threads": torch.get_num_threads(),
        "precision": precision,
        "parameters": sum(p.numel() for p in model.parameters()),
        "data_root": str(root.resolve()),
        "data": {
            "classes": source.classes,
            "channels": source.channels,
            "size": source.size,
            "split": source.split,
            "train": len(source.train),
            "validation": 0 if source.validation is None else len(source.validation),
            "test": len(source.test),
        },
        "command": sys.argv,
    }


def _commit() -> str | None:
    """The commit this package was run from, with a + for uncommitted changes; None outside a checkout of it."""
    here = Path(__file__).parent
    try:
        git = ["git", "-C", str(here)]
        tracked = subprocess.run([*git, "ls-files", "--error-unmatch", __file__], capture_output=True, timeout=10)
        commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10)
        changes = subprocess.run([*git, "status", "--porcelain", "."], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    if tracked.returncode or commit.returncode:
        return None
    return commit.stdout.strip() + ("+" if changes.stdout.strip() else "")
