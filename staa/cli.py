"""The command line. The only file that prints: it renders the events that a run yields."""

import contextlib
import difflib
import io
import os
import shutil
import signal
import statistics
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column, Table

import staa
from staa.attention import ATTENTIONS
from staa.bench import bench as run_bench
from staa.build import check_recipe, choose_device, choose_precision, needs_files, source_of
from staa.compare import Row, all_forecast, check_finished, draw, read_names, write_csv
from staa.compare import compare as compare_runs
from staa.config import Recipe
from staa.data import DOWNLOADS, inventory, read_events
from staa.data.events import parse_sensor
from staa.files import check_writable, inside, save_text
from staa.find import UntrustedCodeError, find, find_recipe, named_files, with_absolute_paths
from staa.live import stream_run
from staa.models import MODELS
from staa.neurons import NEURONS
from staa.options import (
    DEFAULT,
    OPTIONS,
    BenchOptions,
    CheckOptions,
    CompareOptions,
    DataOptions,
    DoctorOptions,
    EvaluateOptions,
    PredictOptions,
    RecipesOptions,
    ShareOptions,
    ShowOptions,
    StreamOptions,
    TrainOptions,
    in_flags,
    parse,
    value_of,
)
from staa.pages import keep_pages
from staa.plot import draw_recording
from staa.predict import check_nodes, draw_run, forecasts_of, new_folder
from staa.predict import draw as draw_prediction
from staa.predict import predict as predict_file
from staa.predict import write_csv as write_prediction
from staa.recipes import RECIPES
from staa.runfolder import ENVIRONMENT, RECIPE, RESULT, check_same_recipe, neuron_path, read_environment, read_recipe
from staa.runs import LOG_EVERY, evaluate_run, run
from staa.share import share as share_run
from staa.testing import check as check_part
from staa.text import for_terminal

BAD_INPUT, FAILED, INTERRUPTED, CUT_OFF = 2, 1, 130, 141


def _console(**options: Any) -> Console:
    console = Console(highlight=False, markup=False, emoji=False, **options)  # a path may hold [brackets] and :colons:
    console.on_broken_pipe = _cut_off  # else it ends the process itself
    return console


def _cut_off() -> NoReturn:
    raise BrokenPipeError


out = _console(soft_wrap=True)


def say(*lines: object, style: str | None = None) -> None:
    """Print lines, whatever is in them."""
    for line in lines:
        out.print(for_terminal(line), style=style)


def warn(text: str, kind: Any) -> None:
    """Print a warning of the library, for whoever uses the command with these options."""
    say(f"warning: {in_flags(text, kind)}", style="yellow")


def show(table: Table, rows: Iterable[Iterable[object]], *, narrowest: int = 0) -> None:
    """Print a table of such rows."""
    for row in rows:
        table.add_row(*map(for_terminal, row))
    _console(width=max(out.width, narrowest)).print(table)


def train(args: list[str]) -> int:
    """train a recipe, or go on with a run"""
    name = args.pop(0) if args and not args[0].startswith("-") else None
    for before, late in zip(args, args[1:] if name is None else [], strict=False):
        if late in RECIPES and not before.startswith("-"):
            raise ValueError(f"the recipe comes before the options: staa train {late} …")
    resumed = value_of(args, "--resume")
    if name is None and resumed is not None:
        recipe = read_recipe(_first_run(Path(resumed)))
    else:
        recipe = find_recipe(name or DEFAULT)
    options = parse(TrainOptions, args, f"staa train {name or ''}".strip(), TrainOptions(recipe=recipe))
    recipe = with_absolute_paths(options.recipe)
    if options.seeds < 1:
        raise ValueError(f"--seeds must be at least 1, got {options.seeds}")
    if options.resume is not None:
        if options.out is not None:
            raise ValueError("--resume goes on in the run's own folder: leave out --out")
        check_same_recipe(_first_run(options.resume), recipe)
        if options.seeds == 1 and not _is_run(options.resume):
            raise ValueError(f"{options.resume} holds several seeds: say how many with --seeds, or resume one of its folders")
        if options.seeds > 1 and _is_run(options.resume):
            raise ValueError(f"{options.resume} is a run of one seed: resume it without --seeds")
    target = options.resume or options.out or Path("runs") / recipe.name / f"{_now()}-seed{recipe.seed}"
    if options.resume is None:
        _check_seeds(target, options.seeds)
    folders = _folders(recipe, target, options.seeds)
    finished = options.resume is not None and all((folder / RESULT).is_file() for folder in folders)
    with _listening() as signals:
        results = _train_seeds(recipe, target, options, signals)
    if finished and results is not None:
        known = recipe.name if recipe.name in RECIPES else "RECIPE"
        say(
            f"a finished run can't be trained longer; begin a new one from its weights: "
            f"staa train {known} --init-from {folders[0]} --epochs {recipe.epochs}"
        )
    if results is None:
        if options.seeds > 1:
            say(f"the seeds go on with: staa train --resume {target} --seeds {options.seeds}")
        return INTERRUPTED
    if len(results) > 1:
        line = f"{recipe.name}: test {_over_seeds(results)} over {len(results)} seeds"
        say(line, style="bold")
        save_text(target / "summary.txt", line + "\n")
    return 0


def compare(args: list[str]) -> int:
    """train recipes and set them side by side"""
    count = next((i for i, arg in enumerate(args) if arg.startswith("-")), len(args))
    names, args = args[:count], args[count:]
    if not names and not {"-h", "--help"} & set(args):
        raise ValueError("name what to compare, recipes or run folders: staa compare NAME NAME …")
    options: dict[str, CompareOptions] = {}
    runs: dict[str, list[Path]] = {}
    for name in names or [DEFAULT]:
        folder = Path(name) if (Path(name) / RECIPE).is_file() or Path(name).suffix == ".zip" else None
        recipe = find_recipe(name) if folder is None else read_recipe(folder)
        o = parse(CompareOptions, args, "staa compare", CompareOptions(recipe=recipe))
        label = recipe.name if folder is None else name.rstrip("/")
        if label in options:
            raise ValueError(f"{label} is there twice: give each recipe a name of its own")
        if o.seeds < 1:
            raise ValueError(f"--seeds must be at least 1, got {o.seeds}")
        options[label] = o = replace(o, recipe=with_absolute_paths(o.recipe))
        if folder is not None:
            check_same_recipe(folder, o.recipe)
            check_finished([folder])
            runs[label] = [folder]
    forecasts = all_forecast({label: o.recipe for label, o in options.items()})
    first = next(iter(options.values()))
    target = first.out or Path("runs") / "compare" / _now()
    table = target / "compare.csv"
    if table.is_file() and not read_names(table) <= options.keys():
        raise ValueError(f"{table} is of other recipes: choose another --out")
    for path in (table, target / "compare.png"):
        check_writable(path)
    new = {label: o for label, o in options.items() if label not in runs}
    for label in runs if new else ():  # before anything is trained; else the comparison itself says it
        source_of(runs[label][0], first.data, trust=first.trust_code)
    for label, o in new.items():
        _check_before_training(o, target / label)
    with _listening() as signals:
        for label, o in new.items():
            there = target / label if inside(target, label).exists() else None
            settings = TrainOptions(
                o.recipe, resume=there, seeds=o.seeds, device=o.device, data=o.data, workers=o.workers, debug=o.debug
            )
            results = _train_seeds(o.recipe, target / label, settings, signals)
            if results is None:
                say(f"go on with the same command and --out {target}")
                return INTERRUPTED
            runs[label] = _folders(o.recipe, target / label, o.seeds)
    rows = compare_runs(
        {label: runs[label] for label in options}, data_root=first.data, device=first.device, trust=first.trust_code
    )
    show(*_comparison(rows), narrowest=110)
    if forecasts and len({read_environment(folder)["data"]["split"] for folders in runs.values() for folder in folders}) > 1:
        say("warning: not all are of the same series, windows and horizon: their MAE can't be compared", style="yellow")
    target.mkdir(parents=True, exist_ok=True)
    write_csv(rows, table)
    draw(rows, target / "compare.png")
    say(f"table and picture → {table}, {target / 'compare.png'}")
    return 0


def _check_seeds(folder: Path, seeds: int) -> None:
    """One seed lies in a folder, several in folders in it."""
    if _is_run(folder) if seeds > 1 else any(folder.glob(f"seed*/{RECIPE}")):
        raise ValueError(f"{folder} was trained with {'one seed' if seeds > 1 else 'several seeds'}: choose another --out")


def _check_before_training(options: CompareOptions, folder: Path) -> None:
    """What is wrong with the last recipe is said before the first is trained."""
    _check_seeds(folder, options.seeds)
    for k, run_folder in enumerate(_folders(options.recipe, folder, options.seeds)):
        if _is_run(run_folder):
            check_same_recipe(run_folder, replace(options.recipe, seed=options.recipe.seed + k))
    check_recipe(options.recipe, options.data or Path("data"))


def _comparison(rows: list[Row]) -> tuple[Table, list[list[str]]]:
    table = Table(Column("", no_wrap=True), box=None, pad_edge=False)
    for header in (
        "test\naccuracy" if rows[0].measure == "accuracy" else "test\nMAE",
        "thousand\nparameters",
        "MACs\n[M]",
        "SOPs\n[M]",
        "energy\n[µJ]",
        "training\n[1/s]",
        "kept\n[MiB]",
    ):
        table.add_column(header, justify="right", no_wrap=True)
    cells = []
    for r in rows:
        form = ".2%" if r.measure == "accuracy" else ".4g"
        reached = f"{r.test:{form}}" + ("" if r.spread is None else f" ± {r.spread:{form.replace('4', '2')}}")
        figures = r.parameters / 1e3, r.macs / 1e6, r.sops / 1e6, r.microjoules, r.samples_per_second, r.kept_mib
        cells.append([r.name, reached, *(f"{x:,.3g}" if x < 1000 else f"{x:,.0f}" for x in figures)])
    return table, cells


def _folders(recipe: Recipe, target: Path, seeds: int) -> list[Path]:
    """Where the run of each seed lies: in target, or in its folders seed0, seed1 …; others there are of other calls."""
    return [target] if seeds == 1 else [inside(target, f"seed{k}") for k in range(recipe.seed, recipe.seed + seeds)]


def _train_seeds(recipe: Recipe, target: Path, options: TrainOptions, signals: "_Signals") -> list[dict[str, Any]] | None:
    """Train each seed in its folder; their results, or None when interrupted."""
    results: list[dict[str, Any]] = []
    for k, folder in enumerate(_folders(recipe, target, options.seeds)):
        seeded = replace(recipe, seed=recipe.seed + k)
        result = None if signals.asked else _train_one(seeded, folder, options, signals)
        if result is None:
            return None
        results.append(result)
    return results


def _now() -> str:
    return time.strftime("%Y%m%d-%H%M%S")


class _Signals:
    """Ctrl-C or a termination: asked for once while training, it is noted; before training, or twice, it ends at once."""

    asked = training = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if self.asked or not self.training:
            raise KeyboardInterrupt
        self.asked = True
        print("stopping after this step …", file=sys.stderr)


def _train_one(recipe: Recipe, target: Path, options: TrainOptions, signals: _Signals) -> dict[str, Any] | None:
    """Train one seed with progress on the screen; the result, or None when interrupted."""
    resume = target if options.resume is not None and _is_run(target) else None
    if target.is_file() and resume is None:
        raise ValueError(f"--out is a run folder, but {target} is a file")
    folder = target.parent if target.is_file() else target
    root = options.data or Path("data")
    if options.resume is not None and options.data is None:
        begun = _first_run(options.resume)  # another seed's, where this one has not begun
        if (begun / ENVIRONMENT).is_file():
            root = Path(read_environment(begun).get("data_root") or root)
    events = run(
        recipe,
        folder,
        data_root=root,
        device=options.device,
        workers=options.workers,
        save_minutes=options.save_minutes,
        bits=options.bits,
        compile=options.compile,
        resume=resume,
        trust=options.trust_code,
        stop=lambda: signals.asked,
    )
    try:
        return _render(events, f"{recipe.name}, seed {recipe.seed}", folder, signals)
    finally:
        signals.training = False


def _render(events: Iterator[dict[str, Any]], title: str, folder: Path, signals: _Signals) -> dict[str, Any] | None:
    """Show a run's events; returns its result."""
    steps = 0
    texts = (TextColumn(text, markup=False) for text in ("{task.fields[at]} ETA", "{task.fields[figures]}"))
    columns = (BarColumn(12), next(texts), TimeRemainingColumn(), next(texts))
    speed = None
    began = time.perf_counter()
    with Progress(*columns, console=out, transient=True, disable=not out.is_terminal) as progress:
        bar = progress.add_task("", total=None, at="preparing …", figures="")
        for event in events:
            kind = event["event"]
            if kind == "start":
                signals.training = True
                say(f"{title} → {folder}" + (f", from step {event['step']}" if event["step"] else ""))
                steps = event["steps"]
                what = f"{event['classes']} classes; samples" if "classes" in event else f"{event['nodes']} nodes; windows"
                say(
                    f"{what}: {event['train']} to train, {event['validation']} to validate, {event['test']} to test; "
                    f"{event['parameters']:,} parameters"
                )
                progress.update(bar, total=steps, completed=event["step"], at=f"{event['step']}/{steps}")
            elif kind == "step" and "loss" not in event:  # not read from the device
                progress.update(bar, completed=event["step"], at=f"{event['step']}/{steps}")
            elif kind == "step":
                now = event["samples"] / event["seconds"]
                speed = now if speed is None else 0.9 * speed + 0.1 * now
                rates = event["rates"]
                main = f"acc {event['accuracy']:.1%}" if "accuracy" in event else f"MAE {event['mae']:.4g}"
                figures = f"loss {event['loss']:.3f} {main} {speed:.0f}/s"
                firing = f" firing {rates['mean']:.1%} ({rates['lowest']:.1%}–{rates['highest']:.1%})" if rates else ""
                progress.update(
                    bar,
                    completed=event["step"],
                    at=f"{event['step']}/{steps}",
                    figures=figures + (firing if out.width >= 100 else ""),
                )
                if event["step"] % LOG_EVERY == 0:
                    say(f"  step {event['step']:>5}  {figures}{firing}")
            elif kind == "transfer":
                say(*_transfer_lines(event))
            elif kind == "warning":
                warn(event["text"], TrainOptions)
            elif kind == "epoch":
                say(_epoch_line(event))
            elif kind == "interrupted":
                say(f"interrupted at step {event['step']}: saved. Go on with: staa train --resume {folder}")
            elif kind == "result":
                which = f"best weights, epoch {event['best_epoch']}" if event["weights"] == "best" else "last weights"
                took = f" ({time.perf_counter() - began:.0f} s)" if signals.training else ""
                say(
                    ("" if signals.training else f"{title} was already finished, nothing was trained: ")
                    + f"test {_figures(event, 'test_')} on {event['test_samples']} samples, {which}{took} → {folder}",
                    style="bold",
                )
                if event.get("protocol") == "paper":
                    say(
                        f"best test epoch {event['best_test_accuracy']:.2%} (epoch {event['best_test_epoch']}), chosen by "
                        f"looking at the test set, as the papers do"
                    )
                return event
    return None


def _over_seeds(results: list[dict[str, Any]]) -> str:
    """Mean ± standard deviation, and the worst."""

    def spread(name: str) -> tuple[float, float, list[float]]:
        values = [result[f"test_{name}"] for result in results]
        return statistics.mean(values), float(np.std(values, ddof=1)), values  # statistics.stdev takes no NaN

    if "test_accuracy" in results[0]:
        mean, deviation, values = spread("accuracy")
        return f"accuracy {mean:.2%} ± {deviation:.2%}, lowest {min(values):.2%}"
    parts = []
    for name, title in (("mae", "MAE"), ("rmse", "RMSE"), ("r2", "R²")):
        mean, deviation, values = spread(name)
        worst = f"lowest {min(values):.4g}" if name == "r2" else f"highest {max(values):.4g}"
        parts.append(f"{title} {mean:.4g} ± {deviation:.2g} ({worst})")
    return ", ".join(parts)


def _figures(values: dict[str, Any], prefix: str = "") -> str:
    """What a part of the data gives: accuracy and loss, or the errors of a forecast, in the series' units and without."""
    v = {name: values.get(prefix + name) for name in ("accuracy", "loss", "mae", "rmse", "mape", "r2", "rse")}
    if v["accuracy"] is not None:
        return f"accuracy {v['accuracy']:.2%}, loss {v['loss']:.4f}"
    return f"MAE {v['mae']:.4g}, RMSE {v['rmse']:.4g}, MAPE {v['mape']:.1%}, R² {v['r2']:.3f}, RSE {v['rse']:.3f}"


def _transfer_lines(event: dict[str, Any]) -> list[str]:
    lines = [
        f"weights from {event['from']} ({event['from_recipe']}, step {event['from_step']}): "
        f"{len(event['loaded'])} entries loaded"
    ]
    for what, text in (("changed", "changed"), ("left_out", "left out"), ("fresh", "new here, starting fresh")):
        if event[what]:
            lines.append(f"  {text}: {', '.join(event[what][:6])}" + (" …" if len(event[what]) > 6 else ""))
    if not event["same_split"]:
        lines.append("  it was trained on another split of these data: it may have seen what is validation or test here")
    return lines


def _epoch_line(event: dict[str, Any]) -> str:
    def brief(prefix: str) -> str:
        loss = f"loss {event[f'{prefix}loss']:.4f}  "
        accuracy = event.get(f"{prefix}accuracy")
        return loss + (f"MAE {event[f'{prefix}mae']:.4g}" if accuracy is None else f"accuracy {accuracy:.1%}")

    line = f"epoch {event['epoch']:>3}  {brief('')}"
    for part in ("validation", "test"):
        if f"{part}_loss" in event:
            line += f"  {part} {brief(f'{part}_')}" + (" (best)" if event["best"] else "")
    rates = event["rates"].values()
    if rates:
        line += f"  firing {statistics.mean(rates):.1%} ({min(rates):.1%}–{max(rates):.1%})"
    waited = event["waited"] / event["seconds"]
    return f"{line}  {event['seconds']:.1f} s" + (f", {waited:.0%} waiting for data" if waited >= 0.01 else "")


def evaluate(args: list[str]) -> int:
    """measure the model of a run"""
    options = parse(EvaluateOptions, args, "staa evaluate")
    figures = evaluate_run(
        options.run,
        split=options.split,
        weights=options.weights,
        data_root=options.data,
        device=options.device,
        workers=options.workers,
        trust=options.trust_code,
    )
    for note in figures["notes"]:
        warn(note, EvaluateOptions)
    say(
        f"{figures['split']} {_figures(figures)} on {figures['samples']} samples, {figures['weights']} weights of {options.run}"
    )
    if figures["weights"] == "best" and figures["protocol"] == "paper":
        say("its best epoch was chosen on the test set, as the papers do")
    return 0


def stream(args: list[str]) -> int:
    """run a model on a recording as it comes"""
    options = parse(StreamOptions, args, "staa stream")
    steps = stream_run(
        options.run,
        options.file,
        window=options.window,
        sensor=options.sensor,
        weights=options.weights,
        device=options.device,
        trust=options.trust_code,
    )
    latencies, end = [], 0.0
    for step in steps:
        if step["event"] == "full":
            say(
                f"the model was built for T = {step['steps']} steps and has seen them all; {step['left']} windows are left "
                f"out: train with --model.steps None to go on for ever"
            )
            break
        latencies.append(step["seconds"])
        end = step["end"]
        say(
            f"{end:8.3f} s  {step['events']:>8,} events  {step['prediction']} {step['probability']:6.1%}  "
            f"{step['seconds'] * 1e3:6.1f} ms"
        )
    say(
        f"{len(latencies)} windows of {end / len(latencies) * 1e3:g} ms; from events to prediction "
        f"{statistics.median(latencies) * 1e3:.1f} ms in the median, {max(latencies) * 1e3:.1f} ms at most"
    )
    return 0


def predict(args: list[str]) -> int:
    """forecast what follows a series"""
    options = parse(PredictOptions, args, "staa predict")
    read_recipe(options.run)  # what is no run is told before what can't be written
    if options.out is not None and options.out.exists():
        raise ValueError(f"{options.out} is there already: choose another --out, which is made")
    check_writable((options.out or forecasts_of(options.run)) / "forecast.csv")
    made = predict_file(
        options.run,
        options.file,
        at=options.at,
        time=options.time,
        weights=options.weights,
        device=options.device,
        trust=options.trust_code,
    )
    check_nodes(options.nodes, made.names)
    if options.out is not None:
        options.out.mkdir(parents=True)
    folder = options.out or new_folder(options.run, options.file)
    draw_prediction(made, folder / "forecast.png", nodes=options.nodes, title=f"{options.file.name}, forecast by {options.run}")
    write_prediction(made, folder / "forecast.csv")
    others = draw_run(options.run, folder, made.rates, weights=options.weights, trust=options.trust_code)
    for note in made.notes:
        warn(note, PredictOptions)
    begin, end = (str(made.when[k]).removesuffix(".000000000") for k in (-len(made.forecast), -1))
    say(f"{len(made.names)} variates, {len(made.forecast)} steps from {begin} to {end}")
    error = abs(made.forecast - made.truth)
    if (known := ~np.isnan(error)).any():
        last = abs(made.seen[-1] - made.truth)
        say(f"MAE {error[known].mean():.4g} where the file goes on; repeating the last value gives {last[known].mean():.4g}")
    say(f"table and pictures → {', '.join(str(folder / name) for name in ('forecast.csv', 'forecast.png'))}")
    if others:
        say(f"of the run → {', '.join(map(str, others))}")
    return 0


def recipes(args: list[str]) -> int:
    """list the recipes"""
    parse(RecipesOptions, args, "staa recipes")
    table = Table(Column("recipe", no_wrap=True), "network", "T", "length", "expect", box=None, pad_edge=False)
    rows = []
    for r in RECIPES.values():
        network = r.model.name + (f" ×{r.model.width:g}" if r.model.width != 1 else "")
        length = f"{r.max_steps} steps" if r.max_steps else f"{r.epochs} epochs"
        rows.append([r.name, network, r.model.steps or "any", length, r.expect])
    show(table, rows)
    say("", "staa train NAME --help lists every setting; staa train my_file.py:recipe takes one of your own.")
    return 0


def share(args: list[str]) -> int:
    """copy a run for others"""
    options = parse(ShareOptions, args, "staa share")
    there = share_run(options.run, options.out)
    recipe = read_recipe(options.run)
    try:
        data = needs_files(recipe)
    except UntrustedCodeError:  # then what its data set asks for is not known
        data = True
    flags = (" --data …" if data else "") + (" --trust-code" if named_files(recipe) else "")
    first = "they unpack it and measure it" if there.suffix == ".zip" else "they measure it"
    say(f"{options.run} for others → {there}; {first} with: staa evaluate FOLDER{flags}")
    return 0


def data(args: list[str]) -> int:
    """download a data set, or draw a recording"""
    if args[:1] == ["show"]:
        return _show(args[1:])
    options = parse(DataOptions, args, "staa data")
    if options.name not in DOWNLOADS:
        raise ValueError(f"unknown data set {options.name!r}; known: {', '.join(DOWNLOADS)}")
    columns = (TextColumn("{task.description}", markup=False), BarColumn(20), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=out, transient=True, disable=not out.is_terminal) as progress:
        bars: dict[str, Any] = {}

        def tell(name: str, there: int, of: int | None) -> None:
            if name not in bars:
                bars[name] = progress.add_task(for_terminal(name))
            progress.update(bars[name], completed=there, total=of)

        folder = DOWNLOADS[options.name](options.data, tell)
    say(f"{options.name} is in {folder}: {inventory(options.name, options.data)}")
    return 0


def _show(args: list[str]) -> int:
    options = parse(ShowOptions, args, "staa data show")
    path = options.out or Path(f"{options.file.stem}.png")
    if path.suffix.lower() != ".png" or path.is_dir():
        raise ValueError(f"--out is a PNG to write, such as {path.stem or 'picture'}.png; got {path}")
    check_writable(path)
    events = read_events(options.file, parse_sensor(options.sensor))
    if events.sensor is None:
        height, width = int(events.y.max()) + 1, int(events.x.max()) + 1
        say(f"the file doesn't say its sensor: taken as {height}x{width}, which holds all its events")
        events = events._replace(sensor=(height, width))
    draw_recording(events, path, options.file.name)
    say(f"{options.file} drawn in {path}")
    return 0


def doctor(args: list[str]) -> int:
    """say what this machine has"""
    options = parse(DoctorOptions, args, "staa doctor")
    device = choose_device(None)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    disk = shutil.disk_usage(".")
    cores = f"{os.cpu_count()} cores, torch uses {torch.get_num_threads()} threads"
    rows = {
        "staa": f"{staa.__version__}, Python {sys.version.split()[0]}, torch {torch.__version__}",
        "device": f"{name} (the default of --device)",
        "processor": f"{cores}, {torch.backends.cpu.get_cpu_capability()}",
        "precision": f"{choose_precision('auto', device)} with --precision auto",
        "memory": f"freed pages are {'kept' if _keeps_pages() and keep_pages() else 'given back'} (STAA_KEEP_PAGES=0 or 1)",
        "neuron": neuron_path(device),
        "disk": f"{disk.free / 2**30:.1f} GiB free here",
        "digits-events": "embedded, from scikit-learn",
    }
    for key in DOWNLOADS:
        try:
            rows[key] = inventory(key, options.data)
        except (OSError, ValueError) as error:
            rows[key] = in_flags(error, DoctorOptions)
    for key, value in rows.items():
        say(f"{key:<14} {value}")
    return 0


def bench(args: list[str]) -> int:
    """time a neuron and a training step here"""
    options = parse(BenchOptions, args, "staa bench")
    for title, rows in run_bench(choose_device(options.device), inference=options.inference):
        say(title, style="bold")
        table = Table(box=None, pad_edge=False, show_header=False)
        show(table, ((f"  {r[0]}", f"{r[1]:.2f} ms", f"× {r[2]:.2f} ({r[3]:.2f}–{r[4]:.2f})") for r in rows))
    say(f"medians and quartiles, run in turns; load {os.getloadavg()[0]:.1f}, torch uses {torch.get_num_threads()} threads")
    return 0


def check(args: list[str]) -> int:
    """hold a part of your own against its contracts"""
    options = parse(CheckOptions, args, "staa check")
    registries = {"neuron": NEURONS, "attention": ATTENTIONS, "model": MODELS}
    known = {name: (kind, make) for kind, registry in registries.items() for name, make in registry.items()}
    found = find(options.name, known, "neuron, attention or model", folder=None)
    kind, make = found if options.name in known else (None, found)
    broken = 0
    for finding in check_part(make, options.kind or kind):
        say(finding, style="red" if finding.holds is False else None)
        broken += finding.holds is False
    return FAILED if broken else 0


COMMANDS: dict[str, Callable[[list[str]], int]] = {
    f.__name__: f for f in (train, evaluate, compare, stream, predict, share, check, recipes, data, bench, doctor)
}


def main(argv: list[str] | None = None) -> int:
    """Run a command; returns the exit code: 0, 1 for a failed run, 2 for bad input, 130 when interrupted.

    Whoever stops reading what is printed (`staa … | head`) ends the command without a word, with 141, as a pipe does.
    """
    args = list(sys.argv[1:] if argv is None else argv)
    if _keeps_pages():
        keep_pages()
    for file in (sys.stdout, sys.stderr):
        if isinstance(file, io.TextIOWrapper):  # a terminal that has no → shows its escape
            file.reconfigure(errors="backslashreplace")
    before, warnings.formatwarning = warnings.formatwarning, partial(_warning, _options_of(args))
    try:
        code = _run(args)
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the interpreter flushes it once more
        return CUT_OFF
    finally:
        warnings.formatwarning = before


def _run(args: list[str]) -> int:
    kind = _options_of(args)
    debug = "--debug" in args or os.environ.get("STAA_DEBUG", "0") != "0"
    try:
        if args[:1] == ["help"] and len(args) > 1:
            args = [args[1], "--help"]
        if not args or args[0] in ("-h", "--help", "help"):
            say(f"staa {staa.__version__}: spatial-temporal attention for spiking neural networks", "")
            for name, command in COMMANDS.items():
                say(f"  staa {name:<10} {command.__doc__}")
            say("", "staa COMMAND --help says more. First try: staa train")
            return 0
        if args[0] in ("-V", "-v", "--version", "version"):
            say(staa.__version__)
            return 0
        if args[0] not in COMMANDS:
            near = difflib.get_close_matches(args[0], COMMANDS, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(COMMANDS)}"
            raise ValueError(f"unknown command {args[0]!r}; {hint}")
        return COMMANDS[args[0]](args[1:])
    except KeyboardInterrupt:
        return _complain("interrupted", INTERRUPTED)
    except BrokenPipeError:
        raise
    except Exception as error:
        if debug:
            for line in traceback.format_exc().rstrip("\n").split("\n"):
                print(for_terminal(line), file=sys.stderr)
            return BAD_INPUT if isinstance(error, (ValueError, OSError, ImportError)) else FAILED
        if isinstance(error, (ValueError, OSError, ImportError)):
            return _complain(f"error: {in_flags(error, kind)}", BAD_INPUT)
        if isinstance(error, (FloatingPointError, RuntimeError)) and not isinstance(
            error, (NotImplementedError, RecursionError)
        ):
            return _complain(f"failed: {in_flags(error, kind)} (STAA_DEBUG=1 shows where)", FAILED)
        if isinstance(error, MemoryError):
            return _complain(f"failed: out of memory {error}".rstrip(), FAILED)
        return _complain(f"failed: {_fault(error)}", FAILED)


def _fault(error: Exception) -> str:
    """What to report of an error that no input should have led to."""
    here = [f for f in traceback.extract_tb(error.__traceback__) if Path(f.filename).is_relative_to(Path(__file__).parent)]
    where = f" in {Path(here[-1].filename).name}, line {here[-1].lineno}" if here else ""
    return (
        f"{type(error).__name__}: {error}{where}. This is a fault of staa {staa.__version__}: please report this line, the "
        f"command, and what it prints once more with STAA_DEBUG=1"
    )


def _warning(kind: Any, message: Warning | str, *_: object, **__: object) -> str:
    return f"staa: warning: {for_terminal(' '.join(in_flags(message, kind).split()))}\n"


def _options_of(args: list[str]) -> Any:
    """Those of the command that is called; None for one that is not known."""
    return OPTIONS.get(" ".join(args[:2])) or OPTIONS.get(args[0] if args else "")


def _keeps_pages() -> bool:
    return os.environ.get("STAA_KEEP_PAGES", "1") != "0"


def _complain(text: str, code: int) -> int:
    print(for_terminal("staa: " + " ".join(text.split())), file=sys.stderr)
    return code


def _is_run(path: Path) -> bool:
    """A run folder, or a checkpoint in one; not a folder of several seeds."""
    return path.is_file() or (path / RECIPE).is_file()


def _first_run(resume: Path) -> Path:
    """The run folder that is meant, or the first seed's where there are several."""
    if resume.is_file():
        return resume if resume.suffix == ".zip" else resume.parent
    if _is_run(resume):
        return resume
    seeds = sorted(p.parent for p in resume.glob(f"seed*/{RECIPE}"))
    return seeds[0] if seeds else resume


@contextlib.contextmanager
def _listening() -> Iterator[_Signals]:
    signals = _Signals()
    before = {number: signal.signal(number, signals) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield signals
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
