"""Forecasts of single nodes beside what came."""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from staa.analysis.report.drawing import HELD_OUT, TRAIN, axes, legend, picture
from staa.analysis.report.parts import Fold, Part, Picture, Table
from staa.counting import counted
from staa.data import SeriesSource, WindowBatches
from staa.data.batches import spread
from staa.text import for_figure
from staa.training.evaluate import autocast, call, evaluation_mode

MOST = 2048  # windows that the nodes' errors are of
STRETCH = 168  # windows in a row that are drawn


@dataclass(frozen=True)
class Forecast:
    """Forecasts of windows in a row, in the series' units, and the errors of each node over windows of the whole part.

    Args:
        part: The part of the data.
        names: Of the nodes.
        when: Times or numbers of the rows that the first step of each window is of.
        truth: What came, at the first step of each window, NaN if it is not known.
        first: The forecast of that row, one step ahead.
        last: The forecast of the same row, made P steps before; NaN for the first rows.
        mae: Mean absolute error of each node, over all steps ahead; NaN if nothing is known.
        windows: How many windows that is of, and how many there are.
        horizon: P.

    Shapes:
        when [n], truth, first, last [n, K], mae [K]
    """

    part: str
    names: tuple[str, ...]
    when: np.ndarray
    truth: np.ndarray
    first: np.ndarray
    last: np.ndarray
    mae: np.ndarray
    windows: tuple[int, int]
    horizon: int


def forecast_of(
    source: SeriesSource,
    model: torch.nn.Module,
    part: Literal["train", "validation", "test"],
    batch_size: int,
    device: torch.device,
    precision: str,
) -> Forecast:
    """Forecasts of a part: of windows in a row from its middle on, and errors over windows spread over all of it.

    Args:
        source: The data.
        model: The run's network, which is taken to the device.
        part: The part.
        batch_size: Windows that are forecast at once.
        device: Where.
        precision: As `staa.training.evaluate.autocast` takes it.

    Raises:
        ValueError: If the part has no windows.
    """
    if not getattr(source, part):
        raise ValueError(f"the run held out no {part} samples (data.validation = 0): split must be train or test")
    batches, model = WindowBatches(source, part, batch_size, device=device), model.to(device)
    count = len(batches.windows)
    chosen = spread(min(MOST, count), batches.windows)
    begin = max(0, (count - STRETCH) // 2)
    row = torch.arange(begin, min(begin + STRETCH, count))
    errors = known = torch.zeros(len(source.names), dtype=torch.float64)
    told, came = [], []
    with evaluation_mode(model), torch.inference_mode(), autocast(device, precision):
        for some in counted(chosen.split(batch_size), "forecasting", -(-len(chosen) // batch_size)):
            made, y = _real(source, model, batches, some)
            error = (made - y).abs()
            errors, known = errors + error.nansum((0, 1)), known + (~error.isnan()).sum((0, 1))
        for some in row.split(batch_size):
            made, y = _real(source, model, batches, some)
            told.append(made[:, [0, -1]])
            came.append(y[:, 0])
    both, horizon = torch.cat(told).numpy(), source.horizon
    last = np.full_like(both[:, 1], np.nan)
    if horizon == 1:
        last = both[:, 1]
    elif len(both) >= horizon:
        last[horizon - 1 :] = both[: len(both) - horizon + 1, 1]
    rows = (row + batches.windows.start + source.window).numpy()
    return Forecast(
        part=part,
        names=source.names,
        when=source.rows[rows] if len(source.rows) else rows,
        truth=torch.cat(came).numpy(),
        first=both[:, 0],
        last=last,
        mae=(errors / known).numpy(),
        windows=(len(chosen), count),
        horizon=horizon,
    )


def _real(
    source: SeriesSource, model: torch.nn.Module, batches: WindowBatches, some: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """(forecast, truth) of windows [B, P, K] in real units; truth NaN if it is not known, or stands for no measurement."""
    inputs, y = batches.take(some.to(batches.device))
    made, y = source.normaliser.real(call(model, inputs).double().cpu()), source.normaliser.real(y.double().cpu())
    if source.missing is not None:
        nothing = 1e-6 * (source.normaliser.scale + source.normaliser.offset.abs())
        y = y.where((y - source.missing).abs() > nothing, torch.nan)
    return made, y


def drawn(f: Forecast) -> list[Part]:
    """Pictures of the best, a median and the worst node, and a table of all of them.

    Args:
        f: The forecasts.
    """
    order = [int(k) for k in np.argsort(f.mae, kind="stable") if not math.isnan(f.mae[k])]
    if not order:
        return ["Nothing that was forecast is known, so there is no error of a node."]
    picked = (
        {"best": order[0], "median": order[len(order) // 2], "worst": order[-1]}
        if len(order) > 2
        else dict(zip(("best", "worst"), order, strict=False))
    )
    of = (
        f"{f.windows[0]:,} windows"
        if f.windows[0] == f.windows[1]
        else f"{f.windows[0]:,} of {f.windows[1]:,} windows, spread over all"
    )
    parts: list[Part] = [f"Errors of each node are over all steps ahead of {of} of {f.part}."]
    parts += [_stretch(f, which, k) for which, k in picked.items()]
    rows = [[f.names[k], f"{f.mae[k]:.4g}"] for k in order]
    parts.append(
        Fold(f"All {len(rows)} nodes", [Table(("node", "MAE"), rows, "Mean absolute error of each node, the best first")])
    )
    return parts


def _stretch(f: Forecast, which: str, k: int) -> Picture:
    figure, axis = axes()
    axis.plot(f.when, f.truth[:, k], color="black", linewidth=1, label="what came")
    axis.plot(f.when, f.first[:, k], color=TRAIN, linewidth=1.2, label="forecast 1 step ahead")
    if f.horizon > 1:
        axis.plot(f.when, f.last[:, k], "--", color=HELD_OUT, linewidth=1.2, label=f"forecast {f.horizon} steps ahead")
    axis.set_title(for_figure(f"{which} node: {f.names[k]}, MAE {f.mae[k]:.4g}", 60), fontsize=10)
    legend(figure)
    if np.asarray(f.when).dtype.kind == "M":
        figure.autofmt_xdate(rotation=30)
    else:
        axis.set_xlabel("row")
    span = f"{len(f.when)} rows from the middle of {f.part}"
    return picture(
        figure,
        f"The {which} node by its mean absolute error: what came, and what was forecast of the same rows, over {span}.",
        f"Series of the {which} node, {f.names[k]}, MAE {f.mae[k]:.4g}: truth and forecasts over {span}.",
    )
