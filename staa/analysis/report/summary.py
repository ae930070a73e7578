"""What a run is: its result, where it came from, its data and its recipe."""

import shlex
import statistics
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from staa.analysis.figures import figures_in, told
from staa.analysis.report.parts import Fold, Part, Section, Table
from staa.recipes import RECIPES
from staa.recipes.as_json import flat
from staa.recipes.options import name_of
from staa.recipes.recipe import Recipe
from staa.runs.load import Run
from staa.training.progress import Result

if TYPE_CHECKING:
    import pandas

UNKNOWN = "not recorded"
SHARED = "not recorded, as in every run that `staa share` has copied"
MANY = 12  # warnings, or names, that stand in the open at most
LONG = 400  # characters of a name or a value at most


def summary(run: Run) -> Section:
    """What was trained, how well it does, how long it took, on what, and with which command."""
    recipe, environment = run.recipe, run.environment
    network = name_of(recipe.model.name) + (f" at width {recipe.model.width:g}" if recipe.model.width != 1 else "")
    steps = "any number of steps" if recipe.model.steps is None else f"T = {recipe.model.steps}"
    parts = [network, steps, f"neuron {name_of(recipe.model.neuron)}"]
    parts += [] if recipe.model.attention is None else [f"attention {name_of(recipe.model.attention)}"]
    parameters = environment.get("parameters")
    rows = [
        ["job", f"{run.task.verb} {name_of(recipe.data.name)}"],
        ["network", ", ".join(parts)],
        ["parameters", f"{parameters:,}" if type(parameters) is int else UNKNOWN],
        ["result", _result(run)],
        ["seed", str(recipe.seed)],
        ["trained", _time(run)],
        ["machine", _listed(environment, "device", "processor", "platform", "threads")],
        ["software", _listed(environment, "staa", "torch", "python", "precision", "neuron", "compile")],
        ["commit", _commit(environment)],
        ["command", _command(environment)],
    ]
    return Section("Summary", [Table(["of the run", ""], rows, "What was trained, and what it reaches")])


def state_of(run: Run) -> str | None:
    """What is to be known of a run that has no result; None if it has one."""
    if run.finished:
        return None
    try:
        log: Any = run.log
        steps, start = log[log["event"].isin(["step", "epoch", "interrupted"])], log[log["event"] == "start"]
        at, total = int(steps["step"].max()), int(start["steps"].iloc[-1])
        how = f": {at} of {total} steps are in its log"
    except (OSError, ValueError, KeyError, IndexError):
        how = ""
    return (
        f"This run is not finished{how}. It has no test figures; what is measured here is of its last checkpoint, on "
        f"validation. Resume it to finish it."
    )


def _result(run: Run) -> str:
    if not run.finished:
        return "none yet, since the run is not finished"
    result = Result.of({"seed": run.recipe.seed, **run.result})
    first = figures_in(result.test)
    figures = ", ".join(told(name, result.test[name]) for name in first)
    epoch = f" (epoch {result.best_epoch})" if result.weights == "best" else ""
    text = f"test {figures} on {result.samples:,} samples, with the {result.weights} weights{epoch}"
    if result.protocol == "paper":
        return (
            f"{text}; best test epoch {told('accuracy', result.best_test_accuracy or 0.0)} (epoch {result.best_test_epoch}), "
            f"chosen by looking at the test set, as the papers do (protocol paper)"
        )
    return f"{text}. The test set was measured once, after the last step (protocol {result.protocol})"


def _time(run: Run) -> str:
    """When training began and how long its epochs took, from the log."""
    try:
        log: Any = run.log
    except (OSError, ValueError):
        return UNKNOWN
    if "event" not in log or "time" not in log:
        return UNKNOWN
    texts, begun = [], [time for time in log["time"] if type(time) is float and 0 < time < 4e9]
    if begun:
        texts.append(f"begun {datetime.fromtimestamp(begun[0], UTC):%Y-%m-%d %H:%M} UTC")
    epochs = log[log["event"] == "epoch"]
    if len(epochs):
        epochs = epochs.drop_duplicates("epoch", keep="last")
        seconds = [value for value in epochs["seconds"] if type(value) is float and value >= 0]
        if seconds:
            many = f"{len(seconds)} epochs of {statistics.mean(seconds):.3g} s" if len(seconds) > 1 else "one epoch"
            texts.append(f"{duration(sum(seconds))} in {many}")
    starts = int((log["event"] == "start").sum())
    return "; ".join(texts + ([f"resumed {starts - 1} times"] if starts > 1 else [])) or UNKNOWN


def duration(seconds: float) -> str:
    """Such as 8.2 s, 2 min 31 s, 1 h 12 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.3g} s"
    return f"{whole // 60} min {whole % 60} s" if whole < 3600 else f"{whole // 3600} h {whole % 3600 // 60} min"


def _listed(environment: Mapping[str, Any], *names: str) -> str:
    """What of these was recorded, with the name before what does not speak for itself."""
    speaks = {"device", "processor", "platform", "neuron", "precision"}
    found = {name: environment[name] for name in names if type(environment.get(name)) in (str, int, float)}
    return ", ".join(f"{value}" if name in speaks else f"{name} {value}" for name, value in found.items())[:LONG] or UNKNOWN


def _commit(environment: Mapping[str, Any]) -> str:
    commit = environment.get("commit")
    if not isinstance(commit, str):
        return f"{UNKNOWN}: it was trained from an installed package, not from a checkout"
    return commit.removesuffix("+")[:LONG] + (", with changes that were not committed" if commit.endswith("+") else "")


def _command(environment: Mapping[str, Any]) -> str:
    command = environment.get("command")
    if not (isinstance(command, list) and all(isinstance(word, str) for word in command)):
        return SHARED
    return shlex.join(command)


def warned(log: "pandas.DataFrame") -> Section:
    """What the run warned of, each once, with the epochs that it was warned of in.

    Args:
        log: The run's, as `staa.Run.log` gives it.
    """
    found: dict[str, list[str]] = {}
    if "text" in log:
        for _, row in log[log["event"] == "warning"].iterrows():
            epochs = found.setdefault(str(row["text"]), [])
            epochs.append(f"{row['epoch']:.0f}" if isinstance(row.get("epoch"), int | float) else "?")
    if not found:
        return Section("Warnings", ["The run gave no warning: no layer was silent or saturated after an epoch."])
    rows = [[", ".join(dict.fromkeys(epochs)), text] for text, epochs in found.items()]
    table = Table(["epoch", "warning"], rows, "What the run warned of while it trained")
    if len(rows) <= MANY:
        return Section("Warnings", [table])
    first = f"The run gave {len(rows)} warnings, the last of them: {rows[-1][1]}"
    return Section("Warnings", [first, Fold("All warnings", [table])])


def about_data(run: Run) -> Section:
    """What the data were, how they were split, and the digests that tell them from others."""
    environment, about = run.environment, run.about
    content, root = about.get("content"), environment.get("data_root")
    rows = [["data set", name_of(run.recipe.data.name)]]
    rows += [[part, _count(about.get(part))] for part in ("train", "validation", "test")]
    facts = {
        "classes": "classes", "channels": "channels", "size": "height and width", "nodes": "variates", "window": "steps seen",
        "horizon": "steps forecast", "every": "seconds between rows", "features": "time features", "season": "season",
    }  # fmt: skip
    rows += [[said, str(about[name])[:LONG]] for name, said in facts.items() if about.get(name) is not None]
    rows += [
        ["digest of the split", about["split"][:LONG]],
        ["digest of the content", _digest(content)],
        [
            "found at",
            (root if isinstance(root, str) else SHARED) if run.task.needs_files else "it is made, or comes with a package",
        ],
    ]
    parts: list[Part] = [
        "The digest of the split tells which sample is in which part. Runs with equal digests were trained and tested on the "
        "same samples.",
        Table(["of the data", ""], rows, "The data and their split"),
    ]
    names = about.get("names")
    if isinstance(names, list) and names:
        what = "classes" if "classes" in about else "variates"
        parts.append(Fold(f"Names of the {len(names)} {what}", [", ".join(str(name)[:LONG] for name in names)]))
    return Section("Data", parts)


def _count(value: Any) -> str:
    return UNKNOWN if type(value) is not int else "none held out" if value == 0 else f"{value:,} samples"


def _digest(content: Any) -> str:
    if isinstance(content, Mapping) and isinstance(content.get("sha256"), str):
        return content["sha256"][:LONG]
    return "none: the data are checked against published sums, or made"


def recipe_of(recipe: Recipe) -> Section:
    """The settings that differ from their defaults, those that differ from the library's recipe of this name, and all.

    Args:
        recipe: The run's.
    """
    own, defaults = flat(recipe), flat(Recipe())
    hidden = ("name",)
    changed = [
        [k, _value(v), _value(defaults[k]) if k in defaults else "–"] for k, v in own.items() if v != defaults.get(k, ...)
    ]
    changed = [row for row in changed if row[0] not in hidden]
    parts: list[Part] = [f"Source: {recipe.source}."] if recipe.source else []
    if recipe.expect:
        parts.append(f"What the recipe expects: {recipe.expect}.")
    if recipe.name in RECIPES:
        library = flat(RECIPES[recipe.name])
        odd = [
            f"{k} {_value(v)} ({_value(library[k]) if k in library else '–'})"
            for k, v in own.items()
            if v != library.get(k, ...)
        ]
        same = f"It is the library's recipe {recipe.name}, unchanged but for its seed."
        odd = [text for text in odd if not text.startswith("seed ")]
        parts.append(f"Changed from the library's recipe {recipe.name} (its value): {', '.join(odd)}." if odd else same)
    parts.append(Table(["setting", "value", "default"], changed, "Settings that differ from their defaults"))
    every = [[name, _value(value)] for name, value in own.items() if name not in hidden]
    parts.append(Fold("All settings", [Table(["setting", "value"], every, "The whole recipe")]))
    return Section("Recipe", parts)


def _value(value: Any) -> str:
    return f"{value}"[:LONG]
