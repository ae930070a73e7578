"""Commands that train."""

import time
from dataclasses import replace
from pathlib import Path

from staa.analysis.compare import baselines_of, check_finished, draw, one_kind, read_names, write_csv
from staa.analysis.compare import compare as compare_runs
from staa.analysis.tensorboard import to_tensorboard
from staa.build import check_recipe
from staa.cli.flags import value_of
from staa.cli.options import DEFAULT, CompareOptions, TrainOptions
from staa.cli.parse import parse
from staa.cli.render import render
from staa.cli.signals import INTERRUPTED, Signals, listening
from staa.cli.text import comparison, over_seeds, say, show, warn
from staa.cli.waiting import waiting
from staa.files import check_writable, inside, save_text
from staa.recipes import RECIPES
from staa.recipes.code import trust
from staa.recipes.find import find_recipe, with_absolute_paths
from staa.recipes.recipe import Recipe
from staa.runs import Run, run
from staa.runs.folder import ENVIRONMENT, RECIPE, RESULT, check_same_recipe, read_environment, read_recipe
from staa.runs.seeds import first_run, is_run
from staa.training.progress import Result


def train(args: list[str]) -> int:
    """train a recipe, or go on with a run"""
    name = args.pop(0) if args and not args[0].startswith("-") else None
    for before, late in zip(args, args[1:] if name is None else [], strict=False):
        if late in RECIPES and not before.startswith("-"):
            raise ValueError(f"the recipe comes before the options: staa train {late} …")
    resumed = value_of(args, "--resume")
    if name is None and resumed is not None:
        recipe = read_recipe(first_run(Path(resumed)))
    else:
        recipe = find_recipe(name or DEFAULT)
    options = parse(TrainOptions, args, f"staa train {name or ''}".strip(), TrainOptions(recipe=recipe))
    recipe = with_absolute_paths(options.recipe)
    if options.seeds < 1:
        raise ValueError(f"--seeds must be at least 1, got {options.seeds}")
    if options.resume is not None:
        if options.out is not None:
            raise ValueError("--resume goes on in the run's own folder: leave out --out")
        check_same_recipe(first_run(options.resume), recipe)
        if options.seeds == 1 and not is_run(options.resume):
            raise ValueError(f"{options.resume} holds several seeds: say how many with --seeds, or resume one of its folders")
        if options.seeds > 1 and is_run(options.resume):
            raise ValueError(f"{options.resume} is a run of one seed: resume it without --seeds")
    target = options.resume or options.out or new_folder(recipe)
    if options.resume is None:
        _check_seeds(target, options.seeds)
    folders = _folders(recipe, target, options.seeds)
    finished = options.resume is not None and all((folder / RESULT).is_file() for folder in folders)
    with listening() as signals:
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
        line = f"{recipe.name}: test {over_seeds(results)} over {len(results)} seeds"
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
    runs: dict[str, list[Run]] = {}
    for name in names or [DEFAULT]:
        folder = Path(name) if (Path(name) / RECIPE).is_file() or Path(name).suffix == ".zip" else None
        old = None if folder is None else Run(folder)
        recipe = find_recipe(name) if old is None else old.recipe
        o = parse(CompareOptions, args, "staa compare", CompareOptions(recipe=recipe))
        label = recipe.name if folder is None else name.rstrip("/")
        if label in options:
            if old is not None:
                raise ValueError(f"the run {label} is there twice: name it once")
            raise ValueError(f"{name} is called {label}, as another recipe here: give each a name of its own")
        if o.seeds < 1:
            raise ValueError(f"--seeds must be at least 1, got {o.seeds}")
        options[label] = o = replace(o, recipe=with_absolute_paths(o.recipe))
        if old is not None:
            check_same_recipe(old.folder, o.recipe, old.recipe)
            old.data_root = o.data
            if o.trust_code:
                trust(old.recipe)
            check_finished([old])
            runs[label] = [old]
    one_kind({label: o.recipe for label, o in options.items()})
    first = next(iter(options.values()))
    target = first.out or Path("runs") / "compare" / _now()
    table = target / "compare.csv"
    if table.is_file() and not read_names(table) <= options.keys():
        raise ValueError(f"{table} is of other recipes: choose another --out")
    for path in (table, target / "compare.png"):
        check_writable(path)
    new = {label: o for label, o in options.items() if label not in runs}
    with waiting():
        for label in runs if new else ():  # before anything is trained; else the comparison itself says it
            _ = runs[label][0].data
        for label, o in new.items():
            _check_before_training(o, target / label)
    with listening() as signals:
        for label, o in new.items():
            there = target / label if inside(target, label).exists() else None
            settings = TrainOptions(
                o.recipe, resume=there, seeds=o.seeds, device=o.device, data=o.data, workers=o.workers, debug=o.debug
            )
            results = _train_seeds(o.recipe, target / label, settings, signals)
            if results is None:
                say(f"go on with the same command and --out {target}")
                return INTERRUPTED
            folders = _folders(o.recipe, target / label, o.seeds)
            runs[label] = [Run(folder, data_root=o.data, trust=o.trust_code) for folder in folders]
    with waiting("comparing"):
        rows = compare_runs({label: runs[label] for label in options}, device=first.device)
    baselines = baselines_of(runs)
    show(*comparison(rows, baselines), narrowest=110)
    if len({one.about["split"] for seeds in runs.values() for one in seeds}) > 1:
        say("warning: their data differ, or how they are split: the figures can't be compared directly", style="yellow")
    target.mkdir(parents=True, exist_ok=True)
    write_csv(rows, table, baselines)
    draw(rows, target / "compare.png")
    say(f"table and picture → {table}, {target / 'compare.png'}")
    return 0


def new_folder(recipe: Recipe) -> Path:
    """Where a run goes if nobody says so."""
    return Path("runs") / recipe.name / f"{_now()}-seed{recipe.seed}"


def data_root_for(begun: Path | None, given: str | Path | None) -> Path:
    """Where the data of a run are: where they are said to be, or were found by the run that it goes on with, or ./data."""
    if given is None and begun is not None and (begun / ENVIRONMENT).is_file():
        given = read_environment(begun).get("data_root")
    return Path(given or "data")


def _check_seeds(folder: Path, seeds: int) -> None:
    """One seed lies in a folder, several in folders in it."""
    if is_run(folder) if seeds > 1 else any(folder.glob(f"seed*/{RECIPE}")):
        raise ValueError(f"{folder} was trained with {'one seed' if seeds > 1 else 'several seeds'}: choose another --out")


def _check_before_training(options: CompareOptions, folder: Path) -> None:
    """What is wrong with the last recipe is said before the first is trained."""
    _check_seeds(folder, options.seeds)
    for k, run_folder in enumerate(_folders(options.recipe, folder, options.seeds)):
        if is_run(run_folder):
            check_same_recipe(run_folder, replace(options.recipe, seed=options.recipe.seed + k))
    check_recipe(options.recipe, options.data or Path("data"))


def _folders(recipe: Recipe, target: Path, seeds: int) -> list[Path]:
    """Where the run of each seed lies: in target, or in its folders seed0, seed1 …; others there are of other calls."""
    return [target] if seeds == 1 else [inside(target, f"seed{k}") for k in range(recipe.seed, recipe.seed + seeds)]


def _train_seeds(recipe: Recipe, target: Path, options: TrainOptions, signals: "Signals") -> list[Result] | None:
    """Train each seed in its folder; their results, or None when interrupted."""
    results: list[Result] = []
    first: Run | None = None
    for k, folder in enumerate(_folders(recipe, target, options.seeds)):
        seeded = replace(recipe, seed=recipe.seed + k)
        result = None if signals.asked else _train_one(seeded, folder, options, signals, same_data_as=first)
        if result is None:
            return None
        results.append(result)
        first = first or (Run(folder) if options.seeds > 1 else None)
    return results


def _now() -> str:
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
        resume=resume,
        same_data_as=same_data_as,
        trust=options.trust_code,
        stop=lambda: signals.asked,
    )
    if options.log == "tensorboard":
        events = to_tensorboard(events, folder)
    title, go_on = f"{recipe.name}, seed {recipe.seed}", f"staa train --resume {folder}"
    try:
        return render(events, title, folder, signals, warn=lambda text: warn(text, TrainOptions), go_on=go_on)
    finally:
        signals.training = False
