"""Back-testing: all forecasts of a part of the data, with their origins and what came."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from staa.counting import counted
from staa.data.series.source import SeriesSource
from staa.inference.ahead import look_ahead
from staa.inference.forecast import band_of
from staa.inference.intervals import Band, check_level
from staa.inference.prepared import Prepared, check_forecasts, own_data, prepare
from staa.inference.table import Piece, Write, check_table, table
from staa.machine import choose_device, choose_precision
from staa.recipes.code import UntrustedCodeError
from staa.runs.load import Run, opened
from staa.training.evaluate import autocast


def evaluate_rolling(
    run: Run | str | Path,
    *,
    out: Path | None = None,
    split: Literal["train", "validation", "test"] | None = None,
    stride: int = 1,
    interval: float | None = None,
    weights: Literal["last", "best"] | None = None,
    data_root: Path | None = None,
    device: str | None = None,
    trust: bool = False,
) -> dict[str, Any]:
    """Forecast from every `stride`-th row of a part of a run's data, and measure.

    At stride 1 the figures are those that `staa.runs.evaluate_run` gives, bit for bit on one machine. data_root: where the
    run's data are (None: where it found them), or another series, of which all rows are forecast from. out: a table of all
    forecasts to write, .csv or .parquet. interval: also measure how many values an interval of this level holds.

    Returns what `evaluate_run` does, with "horizons", the figures of each step ahead, and for an interval "coverage", the share
    of the values that it holds, and "width", its mean in the series' units: of all, and in "horizons" of each step ahead.

    Raises what `evaluate_run` does, and ValueError if the run classifies, or stride, interval or out can't be so.
    """
    if isinstance(stride, bool) or not isinstance(stride, int) or stride < 1:
        raise ValueError(f"`stride` must be a whole number, at least 1, got {stride!r}")
    check_level(interval)
    if out is not None:
        check_table(out)
    run = opened(run, data_root=data_root, trust=trust)
    task = check_forecasts(run)
    chosen, model = choose_device(device), run.model(weights)
    split = split or ("test" if run.finished else "validation")
    if interval is not None and split == "validation":
        raise ValueError(
            "an interval is made from the errors on validation, which it holds anyway: `split` must be test or train"
        )
    source, series, windows, notes, part = _windows(run, split)
    model, precision = model.to(chosen), choose_precision(run.recipe.precision, chosen)
    measure = task.measure(source, chosen)
    origins = torch.tensor(windows[::stride]) + series.window - 1
    pieces = origins.split(min(run.recipe.batch_size, len(origins)))
    total, held, rows = None, None, torch.arange(1, series.horizon + 1)
    with torch.inference_mode(), autocast(chosen, precision):
        home = run if part != "own" else Run(run.folder)
        band = None if interval is None else band_of(home, model, interval, series.horizon, chosen)
        with _table(out, series, band) as write:
            for some in counted(pieces, "forecasting", len(pieces)):
                made = look_ahead(model, series, some, series.horizon, chosen)
                sums = measure.sums(made.to(chosen), source.targets[some[:, None] + rows].to(chosen))
                total = sums if total is None else total + sums
                piece = _piece(made.double(), some.numpy(), series, band)
                write(piece)
                if band is not None:
                    held = _held(piece, source.missing) + (0 if held is None else held)
    assert total is not None  # a part has windows
    figures = measure.figures(total)
    if not math.isfinite(figures["loss"]):
        raise FloatingPointError(f"the measured loss is {figures['loss']}: the network's outputs are not finite, or too large")
    horizons = [dict(step) for step in measure.details(total)["horizons"]]
    if held is not None:
        figures |= _of_interval(held.sum(0))
        for step, sums in zip(horizons, held[[step["step"] - 1 for step in horizons]], strict=True):
            step |= _of_interval(sums)
    return {
        "split": part, "weights": weights or run.recipe.weights, "samples": len(origins), "protocol": run.recipe.protocol,
        "notes": (*notes, *(() if band is None else band.notes)), **figures, "horizons": horizons,
    }  # fmt: skip


def _windows(run: Run, split: str) -> tuple[SeriesSource, Prepared, range, tuple[str, ...], str]:
    """The part that is measured: its data, the first rows of its windows, notes, and what it is called."""
    try:
        source, series = own_data(run)
    except UntrustedCodeError:
        raise
    except ValueError:
        if run.data_root is None or not run.data_root.is_file():
            raise
        return (*_another(run, run.data_root), "own")
    windows = getattr(source, split)
    if windows is None:
        raise ValueError(f"{run.folder} held out no validation samples (data.validation = 0): split must be train or test")
    return source, series, windows, source.notes, split


def _another(run: Run, file: Path) -> tuple[SeriesSource, Prepared, range, tuple[str, ...]]:
    """All windows of another series, as the run's recipe reads one."""
    read = check_forecasts(run).series(file)
    series = prepare(run, read, str(file), ahead=0)
    windows = len(series.values) - series.window - series.horizon + 1
    if windows < 1:
        raise ValueError(
            f"{file} has {len(series.values)} rows, but {series.window} that are seen and {series.horizon} that follow are "
            f"needed: give more"
        )
    known = ~np.isnan(series.values)
    begins = int(known.argmax(0).max()) if run.recipe.series.gaps != "refuse" else 0  # before, a variate has no value yet
    first = min(max(0, begins + 1 - series.window), windows - 1)
    series.check(np.arange(first, windows) + series.window - 1, run.recipe.series.gaps, str(file))
    source = SeriesSource(
        values=series.normal,
        targets=series.normaliser.normalise(torch.from_numpy(series.values)).float(),
        time=series.time,
        window=series.window,
        horizon=series.horizon,
        train=range(0),
        validation=None,
        test=range(first, windows),
        normaliser=series.normaliser,
        missing=read.missing,
        graph=None,
        names=series.names,
        split="",
        every=read.every,
    )
    note = (
        f"{file} is not the series that {run.folder} was trained on: all its rows are measured. If there are rows among them "
        f"that it was trained on, the figures are better than those of rows to come"
    )
    return source, series, source.test, (*read.notes, note)


def _piece(made: Tensor, origins: np.ndarray, series: Prepared, band: Band | None) -> Piece:
    """Forecasts [B, P, K] as they are written."""
    lower, upper = (None, None) if band is None else band.around(series.normaliser.clipped(made), series)
    return Piece(
        origins=series.when[origins],
        when=series.when[origins[:, None] + np.arange(1, series.horizon + 1)],
        forecast=series.normaliser.real(made).numpy(),
        truth=series.truth(origins, series.horizon),
        lower=lower,
        upper=upper,
    )


def _held(piece: Piece, missing: float | None) -> np.ndarray:
    """Of the values that are known, for each step ahead: how many there are, how many lie in the interval, and how wide the
    intervals are in all: [P, 3]."""
    assert piece.lower is not None
    assert piece.upper is not None
    known = ~np.isnan(piece.truth) & (piece.truth != (np.nan if missing is None else missing))
    inside = known & (piece.lower <= piece.truth) & (piece.truth <= piece.upper)
    return np.stack([known.sum((0, 2)), inside.sum((0, 2)), np.where(known, piece.upper - piece.lower, 0).sum((0, 2))], 1)


def _of_interval(sums: np.ndarray) -> dict[str, float]:
    count, inside, width = (float(x) for x in sums)
    return {"coverage": inside / count if count else math.nan, "width": width / count if count else math.nan}


@contextmanager
def _table(out: Path | None, series: Prepared, band: Band | None) -> Iterator[Write]:
    if out is None:
        yield lambda piece: None
        return
    out.parent.mkdir(parents=True, exist_ok=True)
    with table(out, series.names, interval=band is not None) as write:
        yield write
