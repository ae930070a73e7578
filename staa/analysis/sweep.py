"""Settings of a recipe, ranked by what their runs reach on validation. Nothing here looks at the test set."""

import csv
import io
import re
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from staa.analysis.figures import shown, written
from staa.build import task_of
from staa.build.records import is_number
from staa.files import save_text
from staa.runs.folder import ENVIRONMENT, RECIPE, read_json, read_recipe
from staa.runs.listing import listed
from staa.runs.log import LOG, events_of
from staa.runs.measure import evaluate_run
from staa.text import for_csv, for_terminal


class Setting(NamedTuple):
    """Values of options, as they are told, and the run folder of each seed."""

    values: Mapping[str, str]
    runs: Mapping[int, Path]


@dataclass(frozen=True)
class Tried:
    """What the runs of a setting reach."""

    values: Mapping[str, str]
    measure: str
    """What is measured on validation: "accuracy", or "mae", a forecast's mean absolute error in the series' units."""
    reached: Mapping[int, float]
    """It, by seed, of the runs that are trained to their end."""
    problem: str = ""
    """Why the setting is not ranked; empty if all its seeds are trained."""
    parameters: int | None = None
    seconds: float | None = None
    """In which a run trained, mean over the seeds."""

    @property
    def mean(self) -> float:
        """Over the seeds."""
        return statistics.mean(self.reached.values())

    @property
    def spread(self) -> float | None:
        """Standard deviation over the seeds; None for one."""
        return statistics.stdev(self.reached.values()) if len(self.reached) > 1 else None


class Outcome(NamedTuple):
    """How far a run is."""

    trained: bool
    """To its last step."""
    figures: Mapping[str, Any]
    """On validation, of the weights that the test figures would be of; empty before an epoch has ended."""
    failed: str
    """Why it can't go on."""


def outcome_of(run_folder: Path) -> Outcome:
    """How far a run is, as its log says."""
    if not (run_folder / RECIPE).is_file() or not (run_folder / LOG).is_file():
        return Outcome(False, {}, "")
    recipe, events = read_recipe(run_folder), events_of(run_folder)
    epochs = [event for event in events if event["event"] == "epoch"]
    if recipe.weights == "best" and epochs:
        epochs = [event for event in epochs if event.get("epoch") == epochs[-1].get("best_epoch")]
    part = "validation_"
    figures = {name.removeprefix(part): value for name, value in (epochs or [{}])[-1].items() if name.startswith(part)}
    trained = any(event["event"] == "end" for event in events)
    failed = events[-1] if events and events[-1]["event"] == "failed" else {}
    return Outcome(trained, figures, "" if trained else str(failed.get("text", "")))


def rank(
    settings: Iterable[Setting],
    *,
    problems: Mapping[Path, str] | None = None,
    data_root: Path | None = None,
    device: str | None = None,
    trust: bool = False,
) -> list[Tried]:
    """The settings, the best one first: by their mean on validation over the seeds, and those that are not trained last.

    problems: why a run could not be trained, by its folder. Raises ValueError for runs that were trained on different data.
    """
    settings = list(settings)
    outcomes = {folder: outcome_of(folder) for setting in settings for folder in setting.runs.values()}
    data = {data_of(read_json(folder / ENVIRONMENT)): folder for folder, outcome in outcomes.items() if outcome.trained}
    if len(data) > 1:
        some = " and ".join(map(str, list(data.values())[:2]))
        raise ValueError(f"{some} were trained on different data, so their figures can't be compared: choose another folder")

    def figures_of(folder: Path) -> Mapping[str, Any]:
        return outcomes[folder].figures or evaluate_run(  # nothing was learned in epochs
            folder, split="validation", weights="last", data_root=data_root, device=device, trust=trust
        )

    rows = [_tried(setting, outcomes, problems or {}, figures_of) for setting in settings]
    sign = -1 if any(shown(row.measure).rises for row in rows if row.measure) else 1
    return sorted(rows, key=lambda row: (True, 0.0) if row.problem else (False, sign * row.mean))


def _tried(
    setting: Setting,
    outcomes: Mapping[Path, Outcome],
    problems: Mapping[Path, str],
    figures_of: Callable[[Path], Mapping[str, Any]],
) -> Tried:
    why, reached, seconds, measure, parameters = [], dict[int, float](), list[float](), "", None
    for seed, folder in setting.runs.items():
        outcome = outcomes[folder]
        if not outcome.trained:
            told = outcome.failed or problems.get(folder)
            why.append(f"seed {seed} failed: {briefly(told)}" if told else f"seed {seed} is not trained yet")
            continue
        measure = task_of(read_recipe(folder)).figures[0]
        value = figures_of(folder).get(measure)
        if value is not None and is_number(value):
            reached[seed] = float(value)
        else:
            why.append(f"seed {seed} failed: its {measure} on validation is no finite number")
        took, parameters = listed(folder).seconds, read_json(folder / ENVIRONMENT).get("parameters")
        seconds += [] if took is None else [took]
    return Tried(
        values=setting.values,
        measure=measure,
        reached=reached,
        problem="; ".join(why),
        parameters=parameters if isinstance(parameters, int) else None,
        seconds=statistics.mean(seconds) if seconds else None,
    )


def data_of(environment: Mapping[str, Any]) -> tuple[Any, Any]:
    """(digest of the split, of the content) of the data that a run's environment.json tells of."""
    about = environment.get("data")
    about = about if isinstance(about, dict) else {}
    content = about.get("content")
    return about.get("split"), content.get("sha256") if isinstance(content, dict) else None


def cells(rows: Sequence[Tried]) -> dict[str, list[str]]:
    """What is shown of ranked settings: columns by their headers."""
    measure = next((row.measure for row in rows if row.measure), "accuracy")
    form = shown(measure).form

    def figure(row: Tried) -> str:
        if row.problem:
            return "failed" if "failed: " in row.problem else "not trained"
        spread = "" if row.spread is None else f" ± {written(row.spread, form.replace('4', '2'))}"
        return written(row.mean, form) + spread

    columns = {"rank": ["" if row.problem else str(k) for k, row in enumerate(rows, 1)]}
    columns |= {option: [row.values[option] for row in rows] for option in rows[0].values}
    columns[f"validation {shown(measure).name}"] = [figure(row) for row in rows]
    columns["parameters"] = ["" if row.parameters is None else f"{row.parameters:,}" for row in rows]
    columns["seconds a run"] = ["" if row.seconds is None else f"{row.seconds:.1f}" for row in rows]
    return columns


def write_csv(rows: Sequence[Tried], path: Path) -> None:
    """Ranked settings as a table: each option, the mean on validation, its standard deviation over the seeds, each seed's
    figure; an empty cell for the unknown. Texts are written as `staa.text.for_csv` does."""
    measure = next((row.measure for row in rows if row.measure), "")
    seeds = sorted({seed for row in rows for seed in row.reached})
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    figures = [f"validation_{measure}", "spread", *(f"seed{seed}" for seed in seeds)]
    writer.writerow(map(for_csv, ["rank", *rows[0].values, *figures, "parameters", "seconds", "problem"]))
    for k, row in enumerate(rows, 1):
        ranked = [k, row.mean, row.spread] if not row.problem else ["", "", ""]
        line = [ranked[0], *row.values.values(), *ranked[1:]]
        line += [*(row.reached.get(seed) for seed in seeds), row.parameters, row.seconds, row.problem]
        writer.writerow(map(for_csv, ("" if value is None else value for value in line)))
    save_text(path, text.getvalue())


def write_markdown(rows: Sequence[Tried], path: Path, *, title: str) -> None:
    """Ranked settings as a table in Markdown, and what went wrong below it."""
    columns = cells(rows)
    both = [[header, *column] for header, column in columns.items()]
    table = [f"| {' | '.join(map(_plain, row))} |" for row in zip(*both, strict=True)]
    rule = "".join("|---" if header in rows[0].values else "|---:" for header in columns)
    problems = [f"- {_plain(f'{in_words(row.values)}: {row.problem}')}" for row in rows if row.problem]
    lines = [f"# {_plain(title)}", "", table[0], f"{rule}|", *table[1:], *([""] if problems else []), *problems]
    save_text(path, "\n".join(lines) + "\n")


def in_words(values: Mapping[str, str]) -> str:
    """Values of options in words."""
    return ", ".join(f"{option}={value}" for option, value in values.items())


def briefly(error: str) -> str:
    """What went wrong, without what to do about it."""
    return error.partition("; ")[0]


def _plain(text: str) -> str:
    """Text on one line, in which Markdown sees no sign of its own."""
    return re.sub(r"([\\`*_{}\[\]<>|#])", r"\\\1", for_terminal(text))
