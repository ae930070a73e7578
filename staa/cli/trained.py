"""Commands on a trained run."""

from contextlib import suppress
from typing import Any

from staa.analysis.predictions import predictions
from staa.cli.classes import show_predictions, write_predictions
from staa.cli.parse import parse
from staa.cli.run_options import EvaluateOptions, ShareOptions
from staa.cli.text import horizons, reached, say, show, warn
from staa.cli.waiting import waiting
from staa.export.share import share as share_run
from staa.files import check_new, check_writable
from staa.inference.drawing import forecasts_of, new_folder
from staa.inference.prepared import check_forecasts
from staa.inference.rolling import evaluate_rolling
from staa.recipes.code import UntrustedCodeError, named_files
from staa.runs import Run, evaluate_run


def evaluate(args: list[str]) -> int:
    """measure the model of a run"""
    options = parse(EvaluateOptions, args, "staa evaluate")
    for name in ("stride", "out"):
        if getattr(options, name) is not None and not options.rolling:
            raise ValueError(f"--{name} is of --rolling: add --rolling, or leave it out")
    if options.rolling or options.interval is not None:
        return _evaluate_rolling(options)
    run = Run(options.run, data_root=options.data, trust=options.trust_code)
    how = {"split": options.split, "weights": options.weights, "device": options.device, "workers": options.workers}
    if run.task.verb == "classify":
        return _evaluate_classes(options, run, how)
    if options.csv is not None:
        raise ValueError(f"--csv is of runs that classify, and {options.run} forecasts a series: --rolling --out writes that")
    with waiting():
        figures = evaluate_run(run, **how)
    _tell_figures(figures, options)
    return 0


def _evaluate_classes(options: EvaluateOptions, run: Run, how: dict[str, Any]) -> int:
    if options.csv is not None:
        check_new(options.csv, "--csv")
    with waiting():
        p = predictions(run, **how)
    figures = {"accuracy": p.accuracy, "loss": p.loss}
    about = {"split": p.split, "weights": p.weights, "samples": len(p.labels), "protocol": run.recipe.protocol}
    _tell_figures({**about, "notes": p.notes, **figures}, options)
    show_predictions(p)
    if options.csv is not None:
        write_predictions(p, options.csv)
        say(f"all predictions → {options.csv}")
    return 0


def _tell_figures(figures: dict[str, Any], options: EvaluateOptions) -> None:
    for note in figures["notes"]:
        warn(note, EvaluateOptions)
    part = options.data if figures["split"] == "own" else figures["split"]
    say(f"{part} {reached(figures)} on {figures['samples']} samples, {figures['weights']} weights of {options.run}")
    if figures["weights"] == "best" and figures["protocol"] == "paper":
        say("its best epoch was chosen on the test set, as the papers do")


def _evaluate_rolling(options: EvaluateOptions) -> int:
    run = Run(options.run, data_root=options.data, trust=options.trust_code)
    check_forecasts(run)
    out = options.out
    if options.rolling:
        check_writable(out or forecasts_of(options.run) / "forecasts.csv")
        out = out or new_folder(options.run, "rolling") / "forecasts.csv"
    try:
        with waiting():
            figures = evaluate_rolling(
                run,
                out=out,
                split=options.split,
                stride=1 if options.stride is None else options.stride,
                interval=options.interval,
                weights=options.weights,
                device=options.device,
            )
    finally:
        if out is not None and options.out is None and not out.exists():
            with suppress(OSError):  # the first that is not empty ends it
                for folder in (out.parent, out.parent.parent):
                    folder.rmdir()
    _tell_figures(figures, options)
    if options.interval is not None:
        say(f"coverage is of intervals that shall hold {options.interval:.4g} of the values; by steps ahead:")
    show(horizons(figures["horizons"]), [])
    if out is not None:
        say(f"all forecasts → {out}")
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
