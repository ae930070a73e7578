"""Commands on a trained run."""

import statistics
from itertools import chain, islice

import numpy as np

from staa.cli.options import EvaluateOptions, PredictOptions, ShareOptions, StreamOptions
from staa.cli.parse import parse
from staa.cli.text import reached, say, warn
from staa.cli.waiting import waiting
from staa.export.share import share as share_run
from staa.files import check_writable
from staa.inference.camera import stream_run
from staa.inference.forecast import check_nodes, draw_run, forecasts_of, new_folder
from staa.inference.forecast import draw as draw_prediction
from staa.inference.forecast import predict as predict_file
from staa.inference.forecast import write_csv as write_prediction
from staa.recipes.code import UntrustedCodeError, named_files
from staa.runs import Run, evaluate_run


def evaluate(args: list[str]) -> int:
    """measure the model of a run"""
    options = parse(EvaluateOptions, args, "staa evaluate")
    with waiting():
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
    say(f"{figures['split']} {reached(figures)} on {figures['samples']} samples, {figures['weights']} weights of {options.run}")
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
    with waiting():
        first = list(islice(steps, 1))
    for step in chain(first, steps):
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
    run = Run(options.run, trust=options.trust_code)  # what is no run is told before what can't be written
    if options.out is not None and options.out.exists():
        raise ValueError(f"{options.out} is there already: choose another --out, which is made")
    check_writable((options.out or forecasts_of(options.run)) / "forecast.csv")
    with waiting():
        made = predict_file(
            run, options.file, at=options.at, time=options.time, time_format=options.time_format, weights=options.weights,
            device=options.device,
        )  # fmt: skip
    check_nodes(options.nodes, made.names)
    if options.out is not None:
        options.out.mkdir(parents=True)
    folder = options.out or new_folder(options.run, options.file)
    title = f"{options.file.name}, forecast by {options.run}"
    with waiting("drawing"):
        draw_prediction(made, folder / "forecast.png", nodes=options.nodes, title=title)
        write_prediction(made, folder / "forecast.csv")
        others = draw_run(run, folder, made.rates, weights=options.weights)
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


def share(args: list[str]) -> int:
    """copy a run for others"""
    options = parse(ShareOptions, args, "staa share")
    run = Run(options.run)
    with waiting():
        there, recipe = share_run(run, options.out), run.recipe
    try:
        data = run.task.needs_files
    except UntrustedCodeError:  # then what its data set asks for is not known
        data = True
    flags = (" --data …" if data else "") + (" --trust-code" if named_files(recipe) else "")
    first = "they unpack it and measure it" if there.suffix == ".zip" else "they measure it"
    say(f"{options.run} for others → {there}; {first} with: staa evaluate FOLDER{flags}")
    return 0
