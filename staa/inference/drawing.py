"""Pictures of forecasts and of what a run learned, and where they go."""

import re
import time as clock
from pathlib import Path
from typing import Literal, cast

import numpy as np

from staa.analysis.pictures import Drawn, draw_adjacency, draw_bars, draw_forecasts, draw_horizons
from staa.data.series.source import SeriesSource
from staa.files import inside
from staa.forecasters import LearnsGraph
from staa.forecasters.seasonal import forecaster_of
from staa.inference.forecast import Forecasts
from staa.inference.table import Piece, table
from staa.runs.load import Run, opened

PANELS = 4  # variates that are drawn if none are named
ORIGINS = 12  # that are drawn


def write_csv(made: Forecasts, path: Path) -> None:
    """The forecasts as `staa.inference.table.table` writes them."""
    with table(path, made.names, interval=made.lower is not None) as write:
        write(Piece(made.origins, made.ahead, made.forecast, made.truth, made.lower, made.upper))


def draw(made: Forecasts, path: Path, *, nodes: tuple[str, ...] = (), title: str = "") -> None:
    """The chosen variates' history, forecast and truth as a PNG; without a choice the first few. Of many origins, some."""
    check_nodes(nodes, made.names)
    names = nodes or made.names[:PANELS]
    which = [made.names.index(name) for name in names]
    count = len(made.origins)
    some = np.unique(np.linspace(0, count - 1, min(count, ORIGINS)).astype(int))
    if len(some) < count:
        title += f"; {len(some)} of {count} origins"
    each = [
        Drawn(
            made.when[b],
            *(None if a is None else a[b][:, which] for a in (made.seen, made.forecast, made.truth, made.lower, made.upper)),  # type: ignore[arg-type]
        )
        for b in some
    ]
    draw_forecasts(names, each, path, title=title)


def check_nodes(nodes: tuple[str, ...], names: tuple[str, ...]) -> None:
    """Raises ValueError for a node that is no variate."""
    unknown = [name for name in nodes if name not in names]
    if unknown:
        raise ValueError(
            f"no variate is called {', '.join(unknown)}; there are {', '.join(names[:20])}{' …' * (len(names) > 20)}"
        )


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
    name = run.recipe.name
    if run.finished and "horizons" in run.result:
        drawn.append(folder / "horizons.png")
        draw_horizons({name: run.result["horizons"]}, drawn[-1], title=f"{name}: test errors by steps ahead")
    if rates:
        drawn.append(folder / "rates.png")
        draw_bars(
            list(rates), {"spikes per neuron and step": {"": list(rates.values())}}, drawn[-1], title=f"{name}: firing rates"
        )
    model = forecaster_of(run.model(weights))
    if isinstance(model, LearnsGraph):
        try:
            given = cast(SeriesSource, run.data).graph
        except (OSError, ValueError):  # the file may have gone or changed since: the learned matrix is in the weights
            given = None
        drawn.append(folder / "adjacency.png")
        learned = model.adjacency().detach().cpu().numpy()
        given = None if given is None else given.numpy()
        draw_adjacency(learned, given, drawn[-1], names=run.about["names"], title=f"{name}: neighbours of each node")
    return drawn


def forecasts_of(run_folder: Path) -> Path:
    """The folder of a run's forecasts. Raises ValueError for a link in its place, which could lead anywhere."""
    return inside(run_folder, "forecasts")


def new_folder(run_folder: Path, name: str) -> Path:
    """Where forecasts go if nothing else is said: a folder of their own in the run's, which is made. name: such as the name of
    the file that is forecast."""
    stem = re.sub(r"[^\w .-]", "_", name.partition(".")[0])[:40]  # the name of a file goes into no other as it came
    first = forecasts_of(run_folder) / f"{stem}-{clock.strftime('%Y%m%d-%H%M%S')}"
    folder, k = first, 1
    while folder.exists():
        k += 1
        folder = first.with_name(f"{first.name}-{k}")
    folder.mkdir(parents=True)
    return folder
