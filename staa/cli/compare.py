"""Recipes and runs, side by side."""

from dataclasses import replace
from pathlib import Path

from staa.analysis.alike import Candidate, check_settings, check_tests, unlike_budgets
from staa.analysis.compare import baselines_of, check_finished, draw, read_names, write_csv
from staa.analysis.compare import compare as compare_runs
from staa.build import task_of
from staa.cli.options import DEFAULT, CompareOptions, TrainOptions
from staa.cli.over import check_differ, checked, folder_of, settings_of, variants_of
from staa.cli.parse import parse
from staa.cli.signals import listening
from staa.cli.text import comparison, say, show
from staa.cli.train import check_seeds, folders_of, from_run, now, tell_inherited, train_seeds
from staa.cli.waiting import waiting
from staa.files import check_writable, inside
from staa.recipes.code import trust
from staa.recipes.find import find_recipe, with_absolute_paths
from staa.runs import Run
from staa.runs.folder import RECIPE, check_same_recipe
from staa.runs.seeds import is_run


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
        base = from_run(recipe, args) if old is None else recipe
        plain = parse(CompareOptions, args, "staa compare", CompareOptions(recipe=base))
        if plain.seeds < 1:
            raise ValueError(f"--seeds must be at least 1, got {plain.seeds}")
        if old is not None:
            label, o = name.rstrip("/"), replace(plain, recipe=with_absolute_paths(plain.recipe))
            if label in options:
                raise ValueError(f"the run {label} is there twice: name it once")
            check_same_recipe(old.folder, o.recipe, old.recipe)
            old.data_root = o.data
            if o.trust_code:
                trust(old.recipe)
            check_finished([old])
            options[label], runs[label] = o, [old]
            continue
        tell_inherited(recipe, base, plain.recipe)
        for variant in variants_of(plain.over, args, plain.recipe, alone=len(names) == 1):
            try:
                o = parse(CompareOptions, [*args, *variant.args], "staa compare", CompareOptions(recipe=base))
            except ValueError as error:
                raise ValueError(f"{variant.label}: {error}" if variant.args else str(error)) from error
            if variant.label in options:
                raise ValueError(f"{name} is called {variant.label}, as another recipe here: give each a name of its own")
            options[variant.label] = replace(o, recipe=with_absolute_paths(o.recipe))
    first = next(iter(options.values()))
    over = settings_of(first.over)
    recipes = {label: o.recipe for label, o in options.items()}
    check_settings(recipes, over=over)
    check_differ({label: recipe for label, recipe in recipes.items() if label not in runs})
    target = first.out or Path("runs") / "compare" / now()
    table = target / "compare.csv"
    if table.is_file() and not read_names(table) <= options.keys():
        raise ValueError(f"{table} is of other recipes: choose another --out")
    for path in (table, target / "compare.png"):
        check_writable(path)
    new = {label: o for label, o in options.items() if label not in runs}
    with waiting():
        if new:  # before anything is trained; else the comparison itself says it
            tested = {label: Candidate(run.recipe, run.task.tested(run.data)) for label, (run,) in runs.items()}
            check_tests(tested | {label: _tried(label, o, target / folder_of(label)) for label, o in new.items()})
    with listening() as signals:
        for label, o in new.items():
            place = target / folder_of(label)
            there = place if inside(target, place.name).exists() else None
            settings = TrainOptions(
                o.recipe, resume=there, seeds=o.seeds, device=o.device, data=o.data, workers=o.workers,
                deterministic=o.deterministic, debug=o.debug,
            )  # fmt: skip
            results = train_seeds(o.recipe, place, settings, signals)
            if results is None:
                say(f"go on with the same command and --out {target}")
                return signals.status
            runs[label] = [Run(folder, data_root=o.data, trust=o.trust_code) for folder in folders_of(o.recipe, place, o.seeds)]
    runs = {label: runs[label] for label in options}
    with waiting("comparing"):
        rows = compare_runs(runs, device=first.device, over=over)
        descending = [label for label, (run, *_) in runs.items() if any(p.requires_grad for p in run.model().parameters())]
    baselines = baselines_of(runs)
    title = next(iter(recipes.values())).name if len(names) == 1 and len(rows) > 1 else ""  # else rows have its name
    show(*comparison(rows, baselines, title=title), narrowest=110)
    if unlike := unlike_budgets({label: recipes[label] for label in descending}):
        say(f"their training differs in length: {unlike}")
    target.mkdir(parents=True, exist_ok=True)
    write_csv(rows, table, baselines)
    draw(rows, target / "compare.png", title=title)
    say(f"table and picture → {table}, {target / 'compare.png'}")
    return 0


def _tried(label: str, options: CompareOptions, folder: Path) -> Candidate:
    """What is wrong with the last recipe is said before the first is trained."""
    check_seeds(folder, options.seeds)
    for k, run_folder in enumerate(folders_of(options.recipe, folder, options.seeds)):
        if is_run(run_folder):
            check_same_recipe(run_folder, replace(options.recipe, seed=options.recipe.seed + k))
    source = checked(label, options.recipe, options.data or Path("data"))
    return Candidate(options.recipe, task_of(options.recipe).tested(source))
