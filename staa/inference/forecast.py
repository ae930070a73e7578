"""Forecasts of a trained run on a series of one's own: a table, and pictures of them and of what the run learned."""

import csv
import io
import re
import time as clock
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

import numpy as np
import torch

from staa.analysis.pictures import draw_adjacency, draw_bars, draw_forecast, draw_horizons
from staa.build.forecasting import Forecasting
from staa.data.series.files import TEXT, series_for
from staa.data.series.prepare import calendar_features, fill_gaps
from staa.data.series.series import TimeSeries, common_step, following
from staa.data.series.times import FormatError
from staa.data.series.windows import SeriesSource
from staa.files import inside, save_text
from staa.forecasters import LearnsGraph
from staa.machine import choose_device
from staa.rates import firing_rates
from staa.recipes.reading import Reading
from staa.recipes.values import field_names
from staa.runs.load import Run, opened
from staa.text import for_csv

PANELS = 4  # variates that are drawn where none are named


@dataclass(frozen=True)
class Prediction:
    """A forecast of P steps of K variates, in the series' units, after L steps that were seen."""

    names: tuple[str, ...]
    when: np.ndarray
    """[L + P] times (datetime64), or row numbers of a series without times."""
    seen: np.ndarray
    """[L, K]"""
    forecast: np.ndarray
    """[P, K]"""
    truth: np.ndarray
    """[P, K], NaN where the file ends before it, or has a gap."""
    rates: dict[str, float]
    """Firing rate of each layer that fires, while it forecast: spikes per neuron and step."""
    notes: tuple[str, ...]
    """What the user should hear of the file."""


def predict(
    run: Run | str | Path,
    file: Path,
    *,
    at: str | None = None,
    time: str | None = None,
    time_format: str | None = None,
    weights: Literal["last", "best"] | None = None,
    device: str | None = None,
    trust: bool = False,
) -> Prediction:
    """Forecast the steps that follow row `at` of a file (its number or its time; None: the last row).

    run: a `staa.Run`, or a folder, opened with `trust`. The file holds the variates that the run was trained on, in any order
    if they are named; it is normalised as the run's data were. time: its column of times; time_format: what they are written in
    (None: as the run's recipe says). Raises ValueError or OSError if it has other variates, another time step, too few rows
    before `at`, or gaps in what the network sees that the run's recipe refuses.
    """
    run = opened(run, trust=trust)
    recipe, about = run.recipe, run.about
    if not isinstance(run.task, Forecasting):
        raise ValueError(f"{run.folder} classifies, it doesn't forecast: evaluate it, or stream a recording to it")
    window, horizon, names = about["window"], about["horizon"], tuple(about["names"])
    own = recipe.series.time_format if time_format is None and file.name.lower().endswith(TEXT) else None
    try:
        given = {name: getattr(recipe.series, name) for name in field_names(Reading)}
        series = series_for(file, names, given, time=time, time_format=time_format)
    except FormatError as error:
        if own is None:
            raise
        raise FormatError(f"{error}: the run's data had it; give this file's own, or ISO8601 for 2024-01-31 12:00") from error
    order = _order(series, names, file)
    values = series.values[:, order]
    refused = np.isnan(values) if series.unmeasured is None else np.isnan(values) & ~series.unmeasured[:, order]
    last = _row(series, at, file)
    if last + 1 < window:
        raise ValueError(
            f"the network sees {window} rows, but {file} has only {last + 1} up to {'its end' if at is None else at}"
        )
    if None not in (series.every, about["every"]) and series.every != about["every"]:
        raise ValueError(f"the run was trained on a row every {about['every']:g} s, {file} has one every {series.every:g} s")
    if about["features"] and series.times is None:
        raise ValueError(f"the run was trained with time features, but {file} has no times: name their column, `time`")
    gaps = np.argwhere(refused[last + 1 - window : last + 1])
    if recipe.series.gaps == "refuse" and gaps.size:
        row, k = gaps[0]
        raise ValueError(
            f"{file} has {len(gaps)} gaps in the {window} rows that the network sees, the first in variate {names[k]}, row "
            f"{last + 1 - window + row}: fill them, or take a run trained with `series.gaps=mask` or "
            f"`series.gaps=interpolate`"
        )
    how = "mask" if recipe.series.gaps == "refuse" else recipe.series.gaps
    seen = fill_gaps(values[: last + 1], how, times=series.times, names=names)[0][-window:]
    truth = np.full((horizon, len(names)), np.nan)
    came = values[last + 1 : last + 1 + horizon]
    truth[: len(came)] = came
    chosen = choose_device(device)
    offset, scale = (torch.tensor(about[key], dtype=torch.float64) for key in ("offset", "scale"))
    inputs = [((torch.from_numpy(seen) - offset) / scale).float()[None].to(chosen)]
    if about["features"] and series.times is not None:
        calendar = calendar_features(series.times)  # of the whole file, since whether it tells minutes depends on all of it
        if calendar.shape[1] != about["features"]:
            raise ValueError(f"the run was trained with {about['features']} time features, {file} gives {calendar.shape[1]}")
        inputs.append(calendar[last + 1 - window : last + 1][None].to(chosen))
    model = run.model(weights).to(chosen)
    with torch.inference_mode(), firing_rates(model) as rates:
        forecast = model(*inputs)[0].double().cpu() * scale + offset
    return Prediction(
        names=names,
        when=_when(series, last, window, horizon),
        seen=seen,
        forecast=forecast.numpy(),
        truth=truth,
        rates={name: float(rate) for name, rate in rates.items()},
        notes=series.notes,
    )


def write_csv(prediction: Prediction, path: Path) -> None:
    """A row for each step ahead and variate: step, time (or row), variate, forecast, truth (empty if it is not known).

    Variates are written as `staa.text.for_csv` does; `from_csv` gives their names back.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["step", "time", "variate", "forecast", "truth"])
    later = prediction.when[-len(prediction.forecast) :]
    for p, (values, truths) in enumerate(zip(prediction.forecast, prediction.truth, strict=True)):
        moment = str(later[p]).removesuffix(".000000000")
        for name, value, truth in zip(prediction.names, values, truths, strict=True):
            cells = p + 1, moment, name, f"{value:.9g}", "" if np.isnan(truth) else f"{truth:.9g}"
            writer.writerow(map(for_csv, cells))
    save_text(path, text.getvalue())


def draw(prediction: Prediction, path: Path, *, nodes: tuple[str, ...] = (), title: str = "") -> None:
    """The chosen variates' history, forecast and truth as a PNG; without a choice the first few."""
    check_nodes(nodes, prediction.names)
    names = nodes or prediction.names[:PANELS]
    which = [prediction.names.index(name) for name in names]
    seen, forecast, truth = (a[:, which] for a in (prediction.seen, prediction.forecast, prediction.truth))
    draw_forecast(names, seen, forecast, truth, path, when=list(prediction.when), title=title)


def check_nodes(nodes: tuple[str, ...], names: tuple[str, ...]) -> None:
    """Raises ValueError for a node that is no variate."""
    unknown = [name for name in nodes if name not in names]
    if unknown:
        raise ValueError(f"no variate is called {', '.join(unknown)}; there are {', '.join(names[:20])} …")


def draw_run(
    run: Run | str | Path,
    folder: Path,
    rates: dict[str, float],
    *,
    weights: Literal["last", "best"] | None = None,
    trust: bool = False,
) -> list[Path]:
    """Pictures of a run, in a folder: errors by horizon (finished runs), firing rates by layer, and the adjacency that it
    learned beside the data's own, where it has one and the data are still there. Returns what was drawn."""
    drawn, run = [], opened(run, trust=trust)
    if run.finished and "horizons" in run.result:
        drawn.append(folder / "horizons.png")
        name = run.recipe.name
        draw_horizons({name: run.result["horizons"]}, drawn[-1], title=f"{name}: test errors by steps ahead")
    if rates:
        drawn.append(folder / "rates.png")
        draw_bars(list(rates), {"spikes per neuron and step": {"": list(rates.values())}}, drawn[-1])
    model = run.model(weights)
    if isinstance(model, LearnsGraph):
        try:
            given = cast(SeriesSource, run.data).graph
        except (OSError, ValueError):  # the file may have gone or changed since: the learned matrix is in the weights
            given = None
        drawn.append(folder / "adjacency.png")
        draw_adjacency(model.adjacency().detach().cpu().numpy(), None if given is None else given.numpy(), drawn[-1])
    return drawn


def forecasts_of(run_folder: Path) -> Path:
    """The folder of a run's forecasts. Raises ValueError for a link in its place, which could lead anywhere."""
    return inside(run_folder, "forecasts")


def new_folder(run_folder: Path, file: Path) -> Path:
    """Where a forecast of the file goes, if nothing else is said: a folder of its own in the run's, which is made."""
    stem = re.sub(r"[^\w .-]", "_", file.name.partition(".")[0])[:40]  # the name of a file goes into no other as it came
    first = forecasts_of(run_folder) / f"{stem}-{clock.strftime('%Y%m%d-%H%M%S')}"
    folder, k = first, 1
    while folder.exists():
        k += 1
        folder = first.with_name(f"{first.name}-{k}")
    folder.mkdir(parents=True)
    return folder


def _order(series: TimeSeries, names: tuple[str, ...], file: Path) -> list[int]:
    if set(series.names) != set(names):
        lacking = [name for name in names if name not in series.names]
        raise ValueError(
            f"the run forecasts {len(names)} variates, {', '.join(names[:4])} …; {file} has {len(series.names)}"
            + (f" and lacks {', '.join(lacking[:4])}" if lacking else ", more than those")
        )
    return [series.names.index(name) for name in names]


def _row(series: TimeSeries, at: str | None, file: Path) -> int:
    rows = len(series.values)
    if at is None:
        return rows - 1
    if at.removeprefix("-").isdecimal():
        if not 0 <= int(at) < rows:
            raise ValueError(f"`at` = {at} is no row of {file}: its rows are 0 to {rows - 1}")
        return int(at)
    if series.times is None:
        raise ValueError(f"`at` = {at} is a time, but {file} has none: give a row number, 0 to {rows - 1}")
    try:
        if not at[:1].isdecimal():  # now, today, NaT
            raise ValueError("no date")
        moment = np.datetime64(at)
    except ValueError as error:
        raise ValueError(f"`at` is a row number or a time such as 2024-05-31T12:00, got {at!r}") from error
    row = int(np.searchsorted(series.times, moment, side="right")) - 1
    first, end = series.times[0], series.times[-1]
    if row < 0 or moment > end + (common_step(series.times) or np.timedelta64(0, "ns")):
        raise ValueError(f"`at` = {at} is not between the times of {file}, {str(first)[:19]} to {str(end)[:19]}")
    return row


def _when(series: TimeSeries, last: int, window: int, horizon: int) -> np.ndarray:
    if series.times is None:
        return np.arange(last + 1 - window, last + 1 + horizon)
    known = series.times[last + 1 - window : last + 1 + horizon]
    return np.concatenate([known, following(series.times, window + horizon - len(known))])
