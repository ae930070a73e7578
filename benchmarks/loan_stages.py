"""The stages of a loan, each called in a process of its own:  python -m benchmarks.loan_stages '{"stage": …}'

A stage tells what it finds with `say`, the moment it has it; to end without having said everything is to have failed.
STAA_LOAN_FAULT=stage:kind,… makes stages fail, for tests. A kind is raise, die, break (dies once it has said something), hang
(with a child that hangs too) or wrong (the fused kernels' numbers are taken for wrong); a stage may be stage/recipe.
"""

import inspect
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks import cargo, loan_kernels
from benchmarks.loan_process import FAULT
from staa.build import task_of
from staa.machine import choose_device, choose_precision
from staa.recipes.find import find_recipe
from staa.recipes.recipe import Recipe
from staa.runs import run
from staa.runs.folder import RESULT
from staa.training.checkpoint import LAST
from staa.training.progress import Epoch, Interrupted, Result, Start, Warned, for_log

KINDS = ("raise", "die", "break", "hang", "wrong")
FORMS: dict[str, dict[str, Any]] = {"reference": {}, "eager": {}, "compile": {"compile": True}, "graph": {"compile": "graph"}}
"""The forms of a training step, and what `staa.runs.run` is told for each."""
WARM_STEPS, WINDOW = 25, 4.0  # before a pace is measured; seconds in which it is
STOP_EARLY = 12.0  # seconds before its limit in which a run saves, and what there is comes home
_call: dict[str, Any] = {}
_fault = ""


def say(**what: Any) -> None:
    line = json.dumps({"stage": _call["stage"], "mark": _call["mark"], **what}, default=str)
    with open(_call["journal"], "a") as file:
        file.write(line + "\n")
    print(line, flush=True)
    if _fault == "break":
        os.kill(os.getpid(), signal.SIGKILL)


def facts(device: str) -> None:
    """The machine, and how fast it copies."""
    chosen = choose_device(device)
    about: dict[str, Any] = {"python": platform.python_version(), "torch": torch.__version__, "cores": os.cpu_count()}
    about |= {"device": chosen.type, "compiler": shutil.which("gcc"), "free_gib": shutil.disk_usage(".").free >> 30}
    if chosen.type == "cuda":
        import triton

        properties = torch.cuda.get_device_properties(chosen)
        about |= {"triton": triton.__version__, "name": properties.name, "memory_gib": properties.total_memory >> 30}
        about |= {"capability": torch.cuda.get_device_capability(chosen), "cuda": torch.version.cuda}
    say(**about)
    say(copy_gb_s=loan_kernels.copy_bandwidth(chosen))
    if chosen.type == "cuda":
        query = ["nvidia-smi", "--query-gpu=driver_version,clocks.sm,clocks.mem,power.limit", "--format=csv,noheader"]
        say(nvidia_smi=subprocess.run(query, capture_output=True, text=True, timeout=20).stdout.strip())


def unpack(cargo_folder: str, data: str) -> None:
    say(**cargo.unpack(Path(cargo_folder), Path(data)))


def smoke(device: str) -> None:
    """The kernels against the reference, values and gradients, each case on its own line."""
    for case in loan_kernels.equalities(choose_device(device)):
        say(**{**case, "right": case["right"] and _fault != "wrong"})


def speed(device: str, small: bool) -> None:
    chosen = choose_device(device)
    for row in loan_kernels.speeds(chosen, small=small):
        say(**row)
    for row in loan_kernels.tilings(chosen, small=small) if chosen.type == "cuda" else ():
        say(**row)


def tests(ends: float, files: list[str]) -> None:
    """pytest -m gpu, in several processes if that is installed; what had ended by the limit is counted."""
    command = [sys.executable, "-u", "-m", "pytest", "-m", "gpu", "-vv", "-W", "default", "-p", "no:cacheprovider", *files]
    try:
        import xdist  # noqa: F401

        command += ["-p", "no:benchmark", "-n", str(min(8, os.cpu_count() or 1))]
    except ImportError:
        pass
    counts: dict[str, int] = {}
    failed: list[str] = []
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True)
    signal.signal(signal.SIGALRM, lambda *_: os.killpg(process.pid, signal.SIGKILL))
    signal.setitimer(signal.ITIMER_REAL, max(1.0, ends - time.time() - 3))
    for line in process.stdout or ():
        print(line, end="", flush=True)
        words = line.split()
        for word in ("PASSED", "FAILED", "ERROR", "SKIPPED"):
            if word in words and "::" in line and not line.startswith(("FAILED", "ERROR")):
                counts[word.lower()] = counts.get(word.lower(), 0) + 1
                if word in ("FAILED", "ERROR"):
                    failed.append(next(w for w in words if "::" in w))
    signal.setitimer(signal.ITIMER_REAL, 0)
    code = process.wait()
    say(**counts, code=code, which=failed[:30], whole=code >= 0)


def step(recipe: str, forms: list[str], device: str, **how: Any) -> None:
    """Loss, norm of the gradient and milliseconds of a training step in each form, from the same weights on the same batch;
    and where the milliseconds go."""
    chosen, wanted = choose_device(device), recipe_of(recipe, **how)
    source = task_of(wanted).source(Path(how["data"]))
    x, y = next(iter(task_of(wanted).batches(source, "train", chosen, workers=0, training=True).epoch()))
    for form in forms:
        if form == "graph" and chosen.type != "cuda":
            say(form=form, failed="needs CUDA")
            continue
        torch.manual_seed(wanted.seed)
        model = task_of(wanted).model_for(source).to(chosen)
        for module in model.modules():
            if isinstance(getattr(module, "dropout", None), float):
                setattr(module, "dropout", 0.0)  # noqa: B010 — each form would draw it at another moment
        try:
            take = loan_kernels.step_taker(model, x, y, form, choose_precision(wanted.precision, chosen))
            first = take()
            grads = [p.grad for p in model.parameters() if p.grad is not None]
            loss, norm = float(first), float(nn.utils.get_total_norm(grads))
            right = 2.0 if _fault == "wrong" and form != "reference" else 1.0
            ms = loan_kernels.milliseconds(take, chosen, least=0.5)
        except Exception as error:
            say(form=form, failed=f"{type(error).__name__}: {error}"[:500])
            if "CUDA" in str(error):
                raise  # nothing after it in this process would tell anything
            continue
        say(form=form, loss=right * loss, norm=norm, ms=ms)
        if form == "eager" and chosen.type == "cuda":
            say(kernels=loan_kernels.kernels_of(take))


def recipe_of(
    name: str, *, data: str, seed: int, epochs: int = 1, policy: bool = False, small: bool = False, **_: Any
) -> Recipe:
    """The recipe as the loan trains it: on what has arrived, and unless `policy` without AutoAugment, so that all augmentation
    is done in batches on the device; in a run of few epochs it costs more than it brings."""
    recipe = find_recipe(name)
    source = recipe.data
    if not Path(data, cargo.WHOLE, "train.bin").is_file():  # which is written last
        source = replace(source, name=f"{cargo.__file__}:some_of_cifar100")
    augment = recipe.augment if policy else replace(recipe.augment, policy=None)
    model, batch = recipe.model, recipe.batch_size
    if small:
        model, batch = replace(model, width=0.05, steps=2), 8
    return replace(recipe, data=source, augment=augment, model=model, batch_size=batch, epochs=epochs, seed=seed)


def pace(recipe: str, mine: int, of: int, meet: str, form: str, device: str, launched: float, **how: Any) -> None:
    """Steps a second of a run alone, and beside the others: the runs meet, then take turns, then go all at once."""
    folder, chosen = Path(meet) / recipe, choose_device(device)
    shutil.rmtree(folder, ignore_errors=True)
    window, warm = (WINDOW / 2, 3) if how["small"] else (WINDOW, WARM_STEPS)
    steps, epoch_steps, ready, over = 0, 0, 0.0, 0.0
    windows: list[tuple[float, float]] = []
    seen: tuple[list[tuple[float, int]], ...] = [], []  # (time, steps until then), alone and beside the others

    def stop() -> bool:
        nonlocal steps, ready, over
        steps += 1
        if steps < warm:
            return False
        if not windows:
            ready = time.time() - launched
            start = _meet(Path(meet), mine, of)
            windows.extend((start + window * k, start + window * (k + 1)) for k in (mine, of))
        if chosen.type == "cuda":
            torch.cuda.synchronize()
        for (first, last), points in zip(windows, seen, strict=True):
            if (now := time.time()) < first:
                time.sleep(first - now)
            if now < last:
                points.append((time.time(), steps))
                return False
        over = time.time()
        return True

    for event in run(recipe_of(recipe, **{**how, "epochs": 500}), folder, stop=stop, **_running(form, device, how)):
        epoch_steps = event.epoch_steps if isinstance(event, Start) else epoch_steps
    saving = time.time() - over
    alone, beside = ((points[-1][1] - points[0][1]) / (points[-1][0] - points[0][0]) for points in seen)
    rates = {"alone": round(alone, 3), "together": round(beside, 3), "epoch_steps": epoch_steps}
    say(recipe=recipe, **rates, ready_after=round(ready, 1), saving=round(saving, 2))
    shutil.rmtree(folder, ignore_errors=True)


def _meet(folder: Path, mine: int, of: int, patience: float = 40.0) -> float:
    """When all may start, on the clock of all: a second after the last one came. Who does not come in time is left behind."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{mine}.ready").touch()
    until = time.time() + patience
    while time.time() < until and len(list(folder.glob("*.ready"))) < of:
        time.sleep(0.02)
    came = [p.stat().st_mtime for p in folder.glob("*.ready")]
    return max(came) + 1.0 if len(came) == of else time.time() + 0.1


def train(
    recipe: str, form: str, runs: str, device: str, ends: float, home: dict[str, Any], seeds: list[int], **how: Any
) -> None:
    """A whole run for each seed, or what is left of them; if the limit comes first, the last one saves what it has. Each comes
    home once it has ended, the first with its weights."""
    more: dict[Path, dict[str, Any]] = {}
    over = lambda: time.time() > ends - STOP_EARLY  # noqa: E731
    for seed in seeds:
        folder, event = Path(runs) / f"{recipe}-seed{seed}", None
        about = {**home, "form": form, "finished": True}
        goes_on = how["resume"] and (folder / LAST).is_file()
        if not goes_on:
            shutil.rmtree(folder, ignore_errors=True)  # what there is of another one
        if not (goes_on and (folder / RESULT).is_file()):
            wanted, resume = recipe_of(recipe, **{**how, "seed": seed}), folder if goes_on else None
            for event in run(wanted, folder, resume=resume, stop=over, **_running(form, device, how)):
                if isinstance(event, Epoch | Interrupted | Result | Warned):
                    told = {k: v for k, v in for_log(event).items() if k not in ("rates", "recipe", "seed")}
                    say(recipe=recipe, seed=seed, **told)
            about["finished"] = isinstance(event, Result)
        if seed == seeds[0]:
            archive(recipe, str(folder), about)
        else:
            more[folder] = {k: v for k, v in about.items() if k not in ("out", "size", "files")}
            cargo.bring_records(more, Path(home["out"]) / f"{recipe}-more.tar")
        if not about["finished"]:
            return


def archive(recipe: str, folder: str, home: dict[str, Any]) -> None:
    limits = {name: home.pop(name) for name in ("out", "size", "files")}
    written = cargo.bring_home(Path(folder), Path(limits["out"]), size=limits["size"], files=limits["files"], about=home)
    say(recipe=recipe, home={p.name: p.stat().st_size for p in written})


def _running(form: str, device: str, how: dict[str, Any]) -> dict[str, Any]:
    """What `run` is told."""
    workers = (os.cpu_count() or 1) // 2 if how.get("policy") else None
    return {"data_root": Path(how["data"]), "device": device, "workers": workers, **FORMS[form]}


STAGES: dict[str, Callable[..., None]] = {
    f.__name__: f for f in (facts, unpack, smoke, speed, tests, step, pace, train, archive)
}


def inject(stage: str, recipe: str | None) -> None:
    """The fault that is meant for this stage, if there is one. Raises ValueError for what is no fault, and as it is told to."""
    global _fault
    for fault in filter(None, os.environ.get(FAULT, "").split(",")):
        name, _, kind = fault.partition(":")
        if kind not in KINDS or name.partition("/")[0] not in STAGES:
            raise ValueError(f"{FAULT} is stage:kind,… with a kind of {', '.join(KINDS)}; got {fault!r}")
        if name in (stage, f"{stage}/{recipe}"):
            say(injected=kind)
            _fault = kind
    if _fault == "raise":
        raise RuntimeError("an injected fault")
    if _fault == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if _fault == "hang":
        subprocess.run(["sleep", "3600"], start_new_session=True)


def main() -> None:
    _call.update(json.loads(sys.argv[1]))
    stage = STAGES[_call["stage"]]
    inject(_call["stage"], _call.get("recipe"))
    arguments = {k: v for k, v in _call.items() if k not in ("stage", "mark", "journal")}
    taken = inspect.signature(stage).parameters
    if not any(p.kind is p.VAR_KEYWORD for p in taken.values()):
        arguments = {k: v for k, v in arguments.items() if k in taken}
    stage(**arguments)


if __name__ == "__main__":
    main()
