"""What a trained run says of files."""

import statistics
import sys
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from staa.analysis.figures import percent
from staa.build.inputs import Preparation
from staa.cli.classes import show_answers, write_answers, write_json
from staa.cli.flags import in_flags
from staa.cli.parse import parse
from staa.cli.run_options import PredictOptions
from staa.cli.signals import FAILED
from staa.cli.text import say, warn
from staa.cli.waiting import waiting
from staa.data import Events
from staa.files import check_new, check_writable
from staa.inference.drawing import check_nodes, draw_run, forecasts_of, new_folder
from staa.inference.drawing import draw as draw_prediction
from staa.inference.drawing import write_csv as write_prediction
from staa.inference.exported import Exported
from staa.inference.forecast import check_asked as check_forecast
from staa.inference.forecast import predict as predict_file
from staa.inference.prepared import moment
from staa.runs import Run
from staa.runs.classify import Answer, Refused, check_asked, passed_over, sees_the_whole
from staa.text import for_terminal

NO_FILE = "name a file: staa predict RUN FILE (see staa predict --help)"
OF_SERIES = ("at", "interval", "data", "nodes", "time", "time_format", "out")
OF_CLASSES = ("top", "margin", "csv", "json")
OF_RUNS = (*OF_SERIES, "weights", "device", "trust_code")


def predict(args: list[str]) -> int:
    """say what a run makes of files: classes, or a forecast"""
    options = parse(PredictOptions, args, "staa predict")
    if options.run.suffix == ".onnx":
        return _classify_exported(options)
    if options.run.suffix in (".pt2", ".nir"):
        raise ValueError(f"{options.run} is for other programs: give its run folder, or an .onnx file that staa export wrote")
    # What is no run is told before what can't be written.
    run = Run(options.run, data_root=options.data, trust=options.trust_code)
    classifies = run.task.verb == "classify"
    for name in OF_SERIES if classifies else OF_CLASSES:
        if getattr(options, name) not in (None, ()):
            of, does = ("forecasts", "classifies") if classifies else ("runs that classify", "forecasts a series")
            raise ValueError(f"--{name.replace('_', '-')} is of {of}, and {options.run} {does}: leave it out")
    if not options.files:
        raise ValueError(NO_FILE)
    return _classify_with_run(options, run) if classifies else _forecast(options, run)


def _classify_with_run(options: PredictOptions, run: Run) -> int:
    def answers(**asked: Any) -> Iterable[Answer | Refused]:
        return run.answers(options.files, **asked, weights=options.weights, device=options.device)

    def whole() -> bool:
        return sees_the_whole(run.model(options.weights)) is not None

    return _classify(options, answers, run.preparation, run.recipe.data.frames, whole)


def _classify_exported(options: PredictOptions) -> int:
    for name in OF_RUNS:
        if getattr(options, name) not in (None, (), False):
            flag = name.replace("_", "-")
            raise ValueError(f"--{flag} is of run folders, and {options.run} is an exported file: leave it out")
    if not options.files:
        raise ValueError(NO_FILE)
    with waiting():
        exported = Exported(options.run)
    facts = exported.facts
    if facts.told.get("verified") is not True:
        warn(f"{options.run} was not verified when it was exported", PredictOptions)

    def answers(**asked: Any) -> Iterable[Answer | Refused]:
        return exported.answers(options.files, **asked)

    return _classify(options, answers, facts.preparation, facts.recipe.data.frames, lambda: facts.whole)


def _classify(
    options: PredictOptions,
    answer: Callable[..., Iterable[Answer | Refused]],
    preparation: Preparation,
    frames: str,
    whole: Callable[[], bool],
) -> int:
    if options.csv is not None and options.json is not None and options.csv.resolve() == options.json.resolve():
        raise ValueError(f"--csv and --json are both {options.csv}: give each a file of its own")
    for flag in ("csv", "json"):
        if (path := getattr(options, flag)) is not None:
            check_new(path, f"--{flag}")
    asked = {"top": 3 if options.top is None else options.top, "steps": options.steps, "margin": options.margin}
    check_asked(preparation, **asked)
    with waiting():
        found = list(answer(**asked))
    answers = [one for one in found if isinstance(one, Answer)]
    refused = [one for one in found if isinstance(one, Refused)]
    if answers:
        show_answers(answers)
        _tell_steps(options, answers, preparation, frames, whole)
    if options.csv is not None:  # also if all were refused: whoever reads it finds the header alone
        write_answers(answers, options.csv)
        say(f"table → {options.csv}")
    if options.json is not None:
        write_json(options.run, answers, refused, options.json)
        say(f"answers → {options.json}")
    for one in refused:
        _complain(in_flags(one.error, PredictOptions))
    if passed := passed_over(options.files, preparation):
        say(f"{passed} file{'s' if passed > 1 else ''} of other endings passed over")
    if refused and len(found) > 1:
        _complain(f"{len(refused)} of {len(found)} could not be taken")
    return FAILED if refused else 0


def _tell_steps(
    options: PredictOptions, answers: list[Answer], preparation: Preparation, frames: str, whole: Callable[[], bool]
) -> None:
    """Say what the steps mean."""
    steps = options.steps or preparation.steps or 1
    if options.margin is not None:
        early = sum(answer.steps < steps for answer in answers)
        mean = statistics.mean(answer.steps for answer in answers)
        say(f"{early} of {len(answers)} decided before step {steps}; {mean:.2f} steps in the mean")
        if preparation.takes is Events and frames != "window":
            say(f"frames by {frames} end where the whole recording says: a camera can only make those by window as it goes")
    if not preparation.frames or not whole():
        return
    sees = "this network's attention sees the whole window"
    if options.margin is not None:
        say(f"{sees}: frames that had not come were empty, and it ran anew at each step, which saves no time")
    elif steps != preparation.steps:
        say(f"{sees}: frames after step {steps} were empty")
    else:
        say(f"{sees}, from its first step on: --margin shows what it says without the later ones")


def _complain(text: str) -> None:
    print(for_terminal("staa: " + " ".join(text.split())), file=sys.stderr)


def _forecast(options: PredictOptions, run: Run) -> int:
    if len(options.files) > 1:
        raise ValueError(f"{options.run} forecasts a series, which is one file: give one, got {len(options.files)}")
    file = next(iter(options.files))
    if options.data is not None and options.interval is None:
        raise ValueError("--data is of --interval: add --interval, such as 0.9, or leave it out")
    if options.out is not None and options.out.exists():
        raise ValueError(f"{options.out} is there already: choose another --out, which is made")
    check_forecast(run, options.steps, options.interval)
    check_writable((options.out or forecasts_of(options.run)) / "forecast.csv")
    with waiting():
        made = predict_file(
            run, file, at=options.at, steps=options.steps, interval=options.interval, time=options.time,
            time_format=options.time_format, weights=options.weights, device=options.device,
        )  # fmt: skip
    check_nodes(options.nodes, made.names)
    if options.out is not None:
        options.out.mkdir(parents=True)
    folder = options.out or new_folder(options.run, file.name)
    title = f"{file.name}, forecast by {options.run}"
    if options.interval is not None:
        title += f"; interval of {options.interval:.4g}"
    with waiting("drawing"):
        draw_prediction(made, folder / "forecast.png", nodes=options.nodes, title=title)
        write_prediction(made, folder / "forecast.csv")
        others = draw_run(run, folder, made.rates, weights=options.weights)
    for note in made.notes:
        warn(note, PredictOptions)
    count, steps, _ = made.forecast.shape
    if count == 1:
        begin, end = moment(made.ahead[0, 0]), moment(made.ahead[0, -1])
        say(f"{len(made.names)} variates, {steps} steps from {begin} to {end}")
    else:
        told = ", ".join(map(moment, made.origins[:4])) + " …" * (count > 4)
        say(f"{len(made.names)} variates, {steps} steps after each of {count} origins: {told}")
    error = abs(made.forecast - made.truth)
    if (known := ~np.isnan(error)).any():
        others_reach = {name: abs(forecast - made.truth)[known].mean() for name, forecast in made.trivial.items()}
        told = ", ".join(f"{name} {reached:.4g}" for name, reached in others_reach.items())
        say(f"MAE {error[known].mean():.4g} where the file goes on; {told}")
        if made.lower is not None:
            inside = ((made.lower <= made.truth) & (made.truth <= made.upper))[known]
            say(f"the interval of {options.interval:.4g} holds {percent(inside.mean())} of the {inside.size:,} values there")
    say(f"table and pictures → {', '.join(str(folder / name) for name in ('forecast.csv', 'forecast.png'))}")
    if others:
        say(f"of the run → {', '.join(map(str, others))}")
    return 0
