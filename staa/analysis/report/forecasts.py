"""What a forecaster says of windows that it was not trained on, beside what came and what needs no network."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from staa.analysis.figures import percent, shown, told, written
from staa.analysis.report.drawing import HELD_OUT, NAMED, axes, legend, matrix, picture
from staa.analysis.report.nodes import drawn, forecast_of
from staa.analysis.report.parts import Part, Picture, Section, Table
from staa.data import SeriesSource
from staa.forecasters import LearnsGraph
from staa.forecasters.seasonal import forecaster_of
from staa.machine import choose_device, choose_precision
from staa.recipes.code import UntrustedCodeError
from staa.runs.load import Run, Weights
from staa.text import for_figure

COMPARED = ("mae", "rmse", "mase", "wmape", "smape", "r2", "r2_nodes")
"""Figures of a table of baselines."""
GONE = (OSError, ValueError)


def forecasts(
    run: Run,
    *,
    split: Literal["train", "validation", "test"] | None = None,
    weights: Weights | None = None,
    device: str | None = None,
) -> Section:
    """Errors beside the baselines', forecasts of the best, a median and the worst node, and the graph that was learned.

    What needs the data is left out, and said so, if they are gone.

    Args:
        run: A run that forecasts.
        split: The part; None: the test set of a finished run, else validation.
        weights: "last" epoch or "best" on validation; None: what the test figure was measured with.
        device: Such as "cpu" or "cuda"; None: the GPU if there is one.

    Raises:
        FileNotFoundError: If the weights are missing.
        ValueError: If the weights are broken, or the part has no windows.
    """
    parts: list[Part] = against_baselines(run.result, run.recipe.name) if run.finished else []
    model, given = run.model(weights), None
    try:
        source = run.data
        assert isinstance(source, SeriesSource)
    except UntrustedCodeError:
        raise
    except GONE as error:
        parts.append(f"Left out, forecasts beside what came: {' '.join(str(error).split())}")
    else:
        given = source.graph
        chosen = choose_device(device)
        part = split or ("test" if run.finished else "validation")
        precision = choose_precision(run.recipe.precision, chosen)
        parts += drawn(forecast_of(source, model, part, run.recipe.batch_size, chosen, precision))
        model.cpu()
    forecaster = forecaster_of(model)
    if isinstance(forecaster, LearnsGraph):
        learned = forecaster.adjacency().detach().cpu().numpy()
        parts += graphs(learned, None if given is None else given.numpy(), run.about["names"])
    return Section("Forecasts", parts)


def against_baselines(result: Mapping[str, Any], name: str) -> list[Part]:
    """Test errors by steps ahead, and a table, of the run and of forecasts that need no network.

    Args:
        result: What result.json holds.
        name: The run's.
    """
    baselines, parts = result.get("baselines") or {}, []
    horizons = result.get("horizons") or []
    if horizons:
        parts.append(_by_horizon(horizons, baselines, name))
    known = {title: figures for title, figures in baselines.items() if figures is not None}
    own = {key.removeprefix("test_"): value for key, value in result.items() if key.startswith("test_")}
    columns = [key for key in COMPARED if key in own]
    rows = [[name, *(written(own[key], shown(key).form) for key in columns)]]
    for title, figures in baselines.items():
        rows.append([title, *(written((figures or {}).get(key), shown(key).form) for key in columns)])
    if baselines:
        best = min(known, key=lambda title: known[title]["mae"], default=None)
        if best is not None:
            share = 1 - own["mae"] / known[best]["mae"] if known[best]["mae"] else math.nan
            better = "below" if share > 0 else "above"
            parts.append(
                f"The best forecast without a network is {best}, with {told('mae', known[best]['mae'])}: the run's "
                f"{written(own['mae'], '.4g')} is {percent(abs(share))} {better} it."
            )
        caption = "Test figures on the same windows, in the series' units; n/a: not possible with these data"
        parts.append(Table(["forecast", *(shown(key).name for key in columns)], rows, caption))
    return parts


def _by_horizon(horizons: Sequence[Mapping[str, Any]], baselines: Mapping[str, Any], name: str) -> Picture:
    figure, axis = axes(height=3.8)
    steps, mae = [point["step"] for point in horizons], [point["mae"] for point in horizons]
    axis.plot(steps, mae, color=HELD_OUT, linewidth=2.5, marker="o", markersize=4, label=for_figure(name, 24), zorder=3)
    import matplotlib

    curves = {title: some["mae_by_step"] for title, some in baselines.items() if some is not None}
    colours = matplotlib.colormaps["viridis"](np.linspace(0, 0.9, max(1, len(curves))))
    for k, ((title, curve), colour) in enumerate(zip(curves.items(), colours, strict=False)):
        axis.plot(steps[: len(curve)], curve[: len(steps)], ("--", "-.", ":")[k % 3], color=colour, label=for_figure(title, 24))
    axis.set(xlabel="steps ahead", ylabel="MAE", ylim=(0, None))
    axis.xaxis.get_major_locator().set_params(integer=True)
    legend(figure)
    others = "".join(f"; {title} {curve[0]:.4g} to {curve[-1]:.4g}" for title, curve in curves.items() if curve)
    return picture(
        figure,
        "Mean absolute error on the test set by steps ahead, in the series' units, beside forecasts that need no network.",
        f"MAE by steps ahead: {name} {mae[0]:.4g} at step {steps[0]} to {mae[-1]:.4g} at step {steps[-1]}{others}.",
    )


def graphs(learned: np.ndarray, given: np.ndarray | None, names: Sequence[str]) -> list[Part]:
    """The matrix by which the network aggregates neighbours, beside the data's own graph if there is one.

    Args:
        learned: The network's.
        given: The data's; None if they have none, or are gone.
        names: Of the nodes.

    Shapes:
        learned, given [K, K]
    """
    both = {"used by the network": learned} | ({} if given is None else {"given with the data": given})
    parts: list[Part] = []
    for which, values in both.items():
        above = values[values > 0]
        top = float(np.quantile(above, 0.99)) if len(above) else 1.0
        figure = matrix(values, names if len(names) <= NAMED else (), labels=("node", "neighbour"), top=top, colours="viridis")
        row, column = map(int, np.unravel_index(int(np.argmax(values)), values.shape))
        caption = f"Weights between nodes, {which}; the colour scale ends at the 99th percentile of what is not 0."
        largest = f"the largest, {values.max():.3g}, of {names[row]} for {names[column]}"
        alt = f"Matrix of weights {which}, {len(values)} nodes; {largest}."
        parts.append(picture(figure, caption, alt))
    if given is not None and len(given) > 1:
        off = ~np.eye(len(given), dtype=bool)
        a, b = learned[off], given[off]
        alike = float(np.corrcoef(a, b)[0, 1]) if a.std() and b.std() else math.nan
        told = "n/a, as one of them is constant" if math.isnan(alike) else f"{alike:.2f}"
        parts.append(f"Correlation between the two, without their diagonals: {told}.")
    elif given is None:
        parts.append("The data have no graph to set beside it, or are gone.")
    return parts
