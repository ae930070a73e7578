"""What a trained run says of a file."""

import numpy as np

from staa.cli.parse import parse
from staa.cli.run_options import PredictOptions
from staa.cli.text import say, warn
from staa.cli.waiting import waiting
from staa.files import check_writable
from staa.inference.drawing import check_nodes, draw_run, forecasts_of, new_folder
from staa.inference.drawing import draw as draw_prediction
from staa.inference.drawing import write_csv as write_prediction
from staa.inference.forecast import predict as predict_file
from staa.inference.prepared import moment
from staa.runs import Run


def predict(args: list[str]) -> int:
    """forecast what follows a series"""
    options = parse(PredictOptions, args, "staa predict")
    if options.data is not None and options.interval is None:
        raise ValueError("--data is of --interval: add --interval, such as 0.9, or leave it out")
    # What is no run is told before what can't be written.
    run = Run(options.run, data_root=options.data, trust=options.trust_code)
    if options.out is not None and options.out.exists():
        raise ValueError(f"{options.out} is there already: choose another --out, which is made")
    check_writable((options.out or forecasts_of(options.run)) / "forecast.csv")
    with waiting():
        made = predict_file(
            run, options.file, at=options.at, steps=options.steps, interval=options.interval, time=options.time,
            time_format=options.time_format, weights=options.weights, device=options.device,
        )  # fmt: skip
    check_nodes(options.nodes, made.names)
    if options.out is not None:
        options.out.mkdir(parents=True)
    folder = options.out or new_folder(options.run, options.file.name)
    title = f"{options.file.name}, forecast by {options.run}"
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
            say(f"the interval of {options.interval:.4g} holds {inside.mean():.1%} of the {inside.size:,} values there")
    say(f"table and pictures → {', '.join(str(folder / name) for name in ('forecast.csv', 'forecast.png'))}")
    if others:
        say(f"of the run → {', '.join(map(str, others))}")
    return 0
