"""Training."""

import signal
import time
from dataclasses import replace
from pathlib import Path

from staa.analysis.tensorboard import to_tensorboard
from staa.cli.flags import value_of, without
from staa.cli.options import DEFAULT, TrainOptions
from staa.cli.parse import parse
from staa.cli.processes import check_devices, join, launch, launches, leave_status, started_with
from staa.cli.render import render
from staa.cli.requeue import began_in, job_of, requeue
from staa.cli.signals import Signals, listening
from staa.cli.text import over_seeds, say, warn
from staa.files import inside, save_text
from staa.parallel import began, begin, joined, leave, local_rank
from staa.recipes import RECIPES
from staa.recipes.find import find_recipe, with_absolute_paths
from staa.recipes.recipe import Recipe
from staa.runs import Run, run
from staa.runs.folder import ENVIRONMENT, RECIPE, RESULT, check_same_recipe, read_environment, read_recipe
from staa.runs.inherit import inherited, starting_from
from staa.runs.longer import check_prolonged, prolong
from staa.runs.seeds import first_run, is_run
from staa.training.progress import Result


def train(args: list[str]) -> int:
    """train a recipe, or go on with a run"""
    join()
    given, group = list(args), joined()
    name = args.pop(0) if args and not args[0].startswith("-") else None
    for before, late in zip(args, args[1:] if name is None else [], strict=False):
        if late in RECIPES and not before.startswith("-"):
            raise ValueError(f"the recipe comes before the options: staa train {late} …")
    resumed = value_of(args, "--resume")
    if name is None and resumed is not None:
        recipe = read_recipe(first_run(Path(resumed)))
    else:
        recipe = find_recipe(name or DEFAULT)
    base = recipe if name is None and resumed is not None else from_run(recipe, args)
    options = parse(TrainOptions, args, f"staa train {name or ''}".strip(), TrainOptions(recipe=base))
    if options.devices is not None:
        check_devices(options.devices, options.device)
    job = job_of() if options.requeue else None
    if options.devices is not None and launches(options.devices):
        return launch(options.devices, without(given, ["devices"]))
    tell_inherited(recipe, base, options.recipe)
    recipe = with_absolute_paths(options.recipe)
    if (folder := group.as_first(lambda: _begun_before(recipe, options, job))) is not None:
        recipe = recipe if options.prolong is None else read_recipe(first_run(folder))
        options = replace(options, resume=folder, out=None, prolong=None)
    if options.seeds < 1:
        raise ValueError(f"--seeds must be at least 1, got {options.seeds}")
    if options.prolong is not None and options.resume is None:
        raise ValueError("--prolong goes on with a finished run: name it with --resume")
    if options.resume is not None:
        if options.out is not None and options.prolong is None:
            raise ValueError("--resume goes on in the run's own folder: leave out --out")
        check_same_recipe(first_run(options.resume), recipe)
        if options.seeds == 1 and not is_run(options.resume):
            raise ValueError(f"{options.resume} holds several seeds: say how many with --seeds, or resume one of its folders")
        if options.seeds > 1 and is_run(options.resume):
            raise ValueError(f"{options.resume} is a run of one seed: resume it without --seeds")
    target = (None if options.prolong else options.resume) or options.out
    target = target or group.as_first(lambda: new_folder(recipe, job))
    if options.resume is None:
        check_seeds(target, options.seeds)
    elif options.prolong is not None:
        recipe = group.as_first(lambda: _prolonged(recipe, options, target))
    folders = folders_of(recipe, target, options.seeds)
    finished = options.resume is not None and all((folder / RESULT).is_file() for folder in folders)
    with listening(requeue=options.requeue) as signals:
        results = train_seeds(recipe, target, options, signals)
    if finished and results is not None:
        known = recipe.name if recipe.name in RECIPES else "RECIPE"
        seeds = f" --seeds {options.seeds}" if options.seeds > 1 else ""
        say(
            f"train it longer with: staa train --resume {target} --prolong {recipe.epochs}{seeds}; "
            f"or begin a new one from its weights: staa train {known} --init-from {folders[0]} --epochs {recipe.epochs}"
        )
    if results is None:
        if options.seeds > 1:
            say(f"the seeds go on with: staa train --resume {target} --seeds {options.seeds}")
        if job is not None and signals.number != signal.SIGINT:
            group.as_first(lambda: requeue(job))
            say(f"job {job} is queued again, and goes on with the run when it starts")
        return ended(signals.status)
    if len(results) > 1 and group.first:
        line = f"{recipe.name}: test {over_seeds(results)} over {len(results)} seeds"
        say(line, style="bold")
        save_text(target / "summary.txt", line + "\n")
    return ended(0)


def ended(code: int) -> int:
    """The exit code of a run that has come to its end, or is saved, in all processes."""
    if local_rank() == 0:
        leave_status(code)
    leave()
    return code


def _begun_before(recipe: Recipe, options: TrainOptions, job: str | None) -> Path | None:
    """The folder that these processes' predecessors have begun a run in, which torchrun or SLURM has started again as these."""
    told, target = began(), options.out or new_folder(recipe, job)
    if told is not None and is_run(Path(told)):
        return Path(told) if options.seeds == 1 else Path(told).parent
    if job is not None and options.resume is None and began_in(job, target):
        return target
    return None


def _prolonged(recipe: Recipe, options: TrainOptions, target: Path) -> Recipe:
    """Make the runs that go on with finished ones, once all of these are known to be so; their recipe."""
    old, epochs = options.resume, options.prolong
    assert old is not None
    assert epochs is not None
    if old.is_file():
        raise ValueError(f"--prolong takes a finished run, not a checkpoint: give {old.parent}")
    new = folders_of(recipe, target, options.seeds)
    runs = [Run(folder, trust=options.trust_code) for folder in folders_of(recipe, old, options.seeds)]
    for finished in runs:
        check_prolonged(finished, epochs)
    for finished, folder in zip(runs, new, strict=True):
        prolong(finished, epochs, folder)
    begin(str(new[0]))
    return read_recipe(new[0])


def from_run(recipe: Recipe, args: list[str]) -> Recipe:
    """The recipe that options change: with --init-from it has the run's network and preparation."""
    told = value_of(args, "--init-from") or value_of(args, "--init_from")
    if told in (None, "None") or {"-h", "--help"} & set(args):
        return recipe
    own = [key for key in ("name", "neuron", "attention") if value_of(args, f"--model.{key}") is not None]
    return starting_from(recipe, Path(told or ""), own=own, trust="--trust-code" in args)


def tell_inherited(recipe: Recipe, base: Recipe, final: Recipe) -> None:
    """Say what of a recipe comes from the run that it starts from, but for what options change."""
    if told := inherited(recipe, base, final):
        say(f"inherited from {base.init_from}: {told}")


def new_folder(recipe: Recipe, job: str | None = None) -> Path:
    """Where a run goes if nobody says so. job: of SLURM, which may have to find it again."""
    return Path("runs") / recipe.name / f"{now() if job is None else f'job{job}'}-seed{recipe.seed}"


def data_root_for(begun: Path | None, given: str | Path | None) -> Path:
    """Where the data of a run are: where they are said to be, or were found by the run that it goes on with, or ./data."""
    if given is None and begun is not None and (begun / ENVIRONMENT).is_file():
        given = read_environment(begun).get("data_root")
    return Path(given or "data")


def check_seeds(folder: Path, seeds: int) -> None:
    """One seed lies in a folder, several in folders in it."""
    if is_run(folder) if seeds > 1 else any(folder.glob(f"seed*/{RECIPE}")):
        raise ValueError(f"{folder} was trained with {'one seed' if seeds > 1 else 'several seeds'}: choose another --out")


def folders_of(recipe: Recipe, target: Path, seeds: int) -> list[Path]:
    """Where the run of each seed lies: in target, or in its folders seed0, seed1 …; others there are of other calls."""
    return [target] if seeds == 1 else [inside(target, f"seed{k}") for k in range(recipe.seed, recipe.seed + seeds)]


def train_seeds(recipe: Recipe, target: Path, options: TrainOptions, signals: "Signals") -> list[Result] | None:
    """Train each seed in its folder; their results, or None when interrupted."""
    results: list[Result] = []
    first: Run | None = None
    for k, folder in enumerate(folders_of(recipe, target, options.seeds)):
        seeded = replace(recipe, seed=recipe.seed + k)
        result = (
            None if joined().anywhere(signals.asked)[0] else _train_one(seeded, folder, options, signals, same_data_as=first)
        )
        if result is None:
            return None
        results.append(result)
        first = first or (Run(folder) if options.seeds > 1 and joined().first else None)
    return results


def now() -> str:
    return time.strftime("%Y%m%d-%H%M%S")


def _train_one(
    recipe: Recipe, target: Path, options: TrainOptions, signals: Signals, *, same_data_as: Run | None
) -> Result | None:
    """Train one seed with progress on the screen, on the data of the first one; the result, or None when interrupted."""
    resume = target if options.resume is not None and is_run(target) else None
    if target.is_file() and resume is None:
        raise ValueError(f"--out is a run folder, but {target} is a file")
    folder = target.parent if target.is_file() else target
    # Another seed's, where this one has not begun.
    root = data_root_for(None if options.resume is None else first_run(options.resume), options.data)
    events = run(
        recipe,
        folder,
        data_root=root,
        device=options.device,
        workers=options.workers,
        save_minutes=options.save_minutes,
        bits=options.bits,
        compile=options.compile,
        deterministic=options.deterministic,
        resume=resume,
        same_data_as=same_data_as,
        trust=options.trust_code,
        stop=lambda: signals.asked,
    )
    if options.log == "tensorboard" and joined().first:
        events = to_tensorboard(events, folder)
    title, go_on = f"{recipe.name}, seed {recipe.seed}", f"staa train --resume {folder}" + started_with()
    try:
        return render(events, title, folder, signals, warn=lambda text: warn(text, TrainOptions), go_on=go_on)
    finally:
        signals.training = False
