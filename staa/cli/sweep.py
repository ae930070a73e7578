"""Choosing settings of a recipe by validation."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from rich.table import Table

from staa.analysis.alike import check_settings
from staa.analysis.figures import told
from staa.analysis.landscape import draw
from staa.analysis.sweep import Setting, Tried, briefly, cells, data_of, in_words, outcome_of, rank, write_csv, write_markdown
from staa.build import task_of
from staa.cli.bar import bar
from staa.cli.draws import drawn, is_range
from staa.cli.flags import option_of, without
from staa.cli.jobs import Job, run_jobs
from staa.cli.options import DEFAULT, SweepOptions
from staa.cli.over import MOST, Variant, check_differ, checked, folder_of, settings_of, variants_of
from staa.cli.parse import parse
from staa.cli.signals import FAILED, INTERRUPTED, listening
from staa.cli.text import fitted, say, show, warn
from staa.cli.train import check_seeds, from_run, tell_inherited
from staa.cli.waiting import waiting
from staa.files import check_no_file, check_writable, inside
from staa.machine import choose_device, choose_workers
from staa.recipes.code import named_files
from staa.recipes.find import find_recipe, with_absolute_paths
from staa.recipes.recipe import Recipe
from staa.runs.folder import ENVIRONMENT, RECIPE, check_same_recipe, read_json

OWN = ("over", "random", "sweep-seed", "jobs", "out", "seeds", "seed", "debug")
"""Options of a sweep that a training of the best setting is not given."""
LENGTH = ("epochs", "max-steps")


def sweep(args: list[str]) -> int:
    """choose settings of a recipe by validation"""
    name, args = (args[0], args[1:]) if args and not args[0].startswith("-") else (DEFAULT, args)
    recipe = find_recipe(name)
    base = from_run(recipe, args)
    options = parse(SweepOptions, args, "staa sweep", SweepOptions(recipe=base))
    variants = _variants(options, args)
    tell_inherited(recipe, base, options.recipe)
    recipes = {one.label: _recipe_of(one, args, base) for one in variants}
    check_settings(recipes, over=settings_of(options.over))
    check_differ(recipes)
    target = options.out or Path("runs") / "sweep" / folder_of(" ".join([recipe.name, *sorted(variants[0].values)]))
    settings = _settings(variants, target, options)
    files = [target / f"sweep.{ending}" for ending in ("csv", "md", "png")]
    for path in files:
        check_writable(path)
    with waiting():
        jobs = _jobs(recipes, settings, options)
    problems: dict[Path, str] = {}
    if not _trained(jobs, settings, options, target, problems):
        say("go on with the same command" + ("" if options.out else f"; the runs are in {target}"))
        return INTERRUPTED
    with waiting("ranking"):
        rows = rank(
            settings.values(), problems=problems, data_root=options.data, device=options.device, trust=options.trust_code
        )
    _tell(rows, recipe.name, files)
    if rows[0].problem:
        say("no setting was trained with all its seeds", style="yellow")
        return FAILED
    best = next(one for one in variants if one.values == rows[0].values)
    _tell_best(rows, recipes[best.label], inside(target, _folder_of(best)), options)
    kept = without(args, OWN)
    fresh = ["--seed", str(options.recipe.seed + options.seeds), "--seeds", str(options.seeds)]
    say(f"  {shlex.join(['staa', 'train', name, *kept, *best.args, *fresh])}")
    if short := [arg for arg in kept if arg.startswith("--") and option_of(arg) in LENGTH]:
        say(f"  leave out {' and '.join(short)} there to train it for as long as the recipe says")
    return 0


def _variants(options: SweepOptions, args: Sequence[str]) -> list[Variant]:
    """The settings to try, as the options ask for them."""
    if not options.over:
        raise ValueError("name what to try: staa sweep RECIPE --over optim.lr=0.01,0.03")
    for name in ("seeds", "jobs", "random"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise ValueError(f"--{name} must be at least 1, got {value}")
    for text in options.over:
        if "=" not in text:
            raise ValueError(f"a sweep wants the values of what it tries: --over {text}=A,B")
        if options.random is None and is_range(text):
            raise ValueError(f"--over {text} is a range, from which values are drawn: say how many settings with --random")
    if options.random is None:
        return variants_of(options.over, args, options.recipe, alone=True)
    if options.random > MOST:
        raise ValueError(f"--random must be at most {MOST}, got {options.random}")
    return drawn(options.over, args, options.recipe, count=options.random, seed=options.sweep_seed)


def _recipe_of(one: Variant, args: Sequence[str], base: Recipe) -> Recipe:
    try:
        recipe = parse(SweepOptions, [*args, *one.args], "staa sweep", SweepOptions(recipe=base)).recipe
    except ValueError as error:
        raise ValueError(f"{one.label}: {error}") from error
    if recipe.protocol == "paper":
        raise ValueError(
            f"{one.label}: protocol paper measures on the test set after each epoch, and nothing is to be chosen by it: choose "
            f"on validation (`protocol=test-once`, `data.validation=0.1`)"
        )
    return with_absolute_paths(recipe)


def _settings(variants: Sequence[Variant], target: Path, options: SweepOptions) -> dict[str, Setting]:
    """Each setting with its run folders: a folder for each setting, in it one for each seed, so that both can be added to."""
    check_no_file(target, "the runs of a sweep")
    settings = {}
    for one in variants:
        folder = inside(target, _folder_of(one))
        check_seeds(folder, 2)
        seeds = range(options.recipe.seed, options.recipe.seed + options.seeds)
        settings[one.label] = Setting(one.values, {seed: inside(folder, f"seed{seed}") for seed in seeds})
    own = set(map(_folder_of, variants))
    others = sorted({path.parts[-3] for path in target.glob(f"*/seed*/{RECIPE}")} - own)
    if others:
        raise ValueError(
            f"{target} has runs of other settings, such as {others[0]}: a sweep is only added to, so keep what was tried in "
            f"--over and --random, or choose another --out"
        )
    return settings


def _folder_of(one: Variant) -> str:
    """The same for options in any order."""
    return folder_of(in_words(dict(sorted(one.values.items()))))


def _jobs(recipes: Mapping[str, Recipe], settings: Mapping[str, Setting], options: SweepOptions) -> list[Job]:
    """The runs that are to be trained or gone on with, once all settings are known to be possible, and their data to be split
    alike. First each setting with the first seed, so that what is there of a sweep compares."""
    root, device = options.data or Path("data"), choose_device(options.device)
    workers = options.workers
    if workers is None and options.jobs > 1:
        workers = max(1, choose_workers(None, device) // options.jobs)
    jobs: list[tuple[int, Job]] = []
    splits: dict[str, str] = {}
    for label, setting in settings.items():
        for seed, folder in setting.runs.items():
            recipe, outcome = replace(recipes[label], seed=seed), outcome_of(folder)
            if (folder / RECIPE).is_file():
                check_same_recipe(folder, recipe)
            if (folder / ENVIRONMENT).is_file():
                splits.setdefault(str(data_of(read_json(folder / ENVIRONMENT))[0]), label)
            if not outcome.trained and not outcome.failed:
                jobs.append((seed, Job(recipe, folder, root, options.device, workers, options.deterministic)))
        if any(job.folder in setting.runs.values() for _, job in jobs):
            splits.setdefault(_checked(label, recipes[label], root), label)
    if len(splits) > 1:
        first, other = list(splits.values())[:2]
        raise ValueError(
            f"the data are split otherwise for {other} than for {first}, so they are validated on different samples: sweep "
            f"over settings that leave the split as it is"
        )
    return [job for _, job in sorted(jobs, key=lambda pair: pair[0])]


def _checked(label: str, recipe: Recipe, root: Path) -> str:
    """Tries all of a recipe but the training; its data's split."""
    source = checked(label, recipe, root)
    if source.validation is None:
        raise ValueError(f"{label}: there are no validation samples to choose by: hold some out (`data.validation=0.1`)")
    return source.split


def _trained(
    jobs: Sequence[Job],
    settings: Mapping[str, Setting],
    options: SweepOptions,
    target: Path,
    problems: dict[Path, str],
) -> bool:
    """Train, and tell of it; whether that was not interrupted. What goes wrong with a run is added to problems."""
    names = {path: f"{label}, seed {seed}" for label, one in settings.items() for seed, path in one.runs.items()}
    total, done, warned = len(names), len(names) - len(jobs), set()
    threads = max(1, torch.get_num_threads() // options.jobs)
    say(
        f"{len(settings)} settings × {options.seeds} seeds → {target}" + (f"; {done} of {total} runs are there" if done else "")
    )
    if jobs and options.jobs > 1:
        say(f"{options.jobs} runs at once, with {threads} {'thread' if threads == 1 else 'threads'} each")
    with listening() as signals, bar() as tell:
        signals.training = True
        for job, event in run_jobs(jobs, at_once=options.jobs, threads=threads, stop=lambda: signals.asked):
            name = names[job.folder]
            match event["event"]:
                case "warning" if event["text"] not in warned:
                    warned.add(event["text"])
                    warn(f"{name}: {event['text']}", SweepOptions)
                case "epoch":
                    reached = _reached(job.recipe, event, "validation_")
                    tell(done, total, f"{name}: epoch {event['epoch']} of {job.recipe.epochs}, {reached}")
                case "trained":
                    done += 1
                    say(f"  {done} of {total}  {name}: {_reached(job.recipe, outcome_of(job.folder).figures)}")
                case "failed":
                    done += 1
                    problems[job.folder] = event["text"]
                    warn(f"{name} failed: {briefly(event['text'])}", SweepOptions)
        if signals.asked and done < total:
            say(f"interrupted: {done} of {total} runs are done, those that had begun are saved")
            return False
    return True


def _reached(recipe: Recipe, figures: Mapping[str, object], prefix: str = "") -> str:
    """The figure that counts, on validation."""
    name = task_of(recipe).figures[0]
    return f"validation {told(name, figures[prefix + name])}" if prefix + name in figures else "trained"


def _tell(rows: Sequence[Tried], name: str, files: Sequence[Path]) -> None:
    """Show and write the table and the picture."""
    columns = fitted(cells(rows), cut=list(rows[0].values))
    table = Table(box=None, pad_edge=False)
    for header in columns:
        table.add_column(header, justify="left" if header in rows[0].values else "right", no_wrap=True)
    show(table, zip(*columns.values(), strict=True))
    for row in rows:
        if row.problem:
            say(f"{in_words(row.values)}: {row.problem}", style="yellow")
    table_file, page, picture = files
    table_file.parent.mkdir(parents=True, exist_ok=True)
    seeds = max(len(row.reached) for row in rows)
    title = f"{name} on validation, {seeds} {'seed' if seeds == 1 else 'seeds'} each"
    write_csv(rows, table_file)
    write_markdown(rows, page, title=title)
    written = [table_file, page]
    if not rows[0].problem:
        draw(rows, picture, title=title)
        written.append(picture)
    say(f"tables and picture → {', '.join(map(str, written))}")


def _tell_best(rows: Sequence[Tried], recipe: Recipe, folder: Path, options: SweepOptions) -> None:
    """Show the best setting, how sure it is, and how to measure its runs."""
    best, second = rows[0], next((row for row in rows[1:] if not row.problem), None)
    (figure,) = [column[0] for header, column in cells(rows).items() if header.startswith("validation ")]
    say(f"best: {in_words(best.values)}, {figure} on validation; the test set was not looked at", style="bold")
    if best.spread is None:
        say("one seed each: how much of a lead is chance is not known; --seeds 3 tells")
    elif second is not None and abs(best.mean - second.mean) <= max(best.spread, second.spread or 0.0):
        say(f"its lead over {in_words(second.values)} is within the spread over seeds: they may be equal")
    trust = " --trust-code" if named_files(recipe) else ""
    runs = f"{shlex.quote(str(folder))} --seeds {options.seeds}"
    if options.seeds == 1:
        runs = shlex.quote(str(folder / f"seed{recipe.seed}"))
    say("measure its runs on the test set, once it is chosen:", f"  staa train --resume {runs}{trust}")
    say("train it with seeds that chose nothing, and measure those:")
