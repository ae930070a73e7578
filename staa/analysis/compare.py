"""Several trained recipes side by side: what each reaches and what it costs."""

import copy
import csv
import io
import statistics
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from staa.analysis.alike import Candidate, check_settings, check_tests
from staa.analysis.cost import interleaved, kept_bytes
from staa.analysis.energy import estimate_energy
from staa.analysis.pictures import draw_bars
from staa.analysis.priced import AC, MAC
from staa.counting import counted
from staa.data.batches import spread
from staa.files import read_text, save_text
from staa.machine import choose_device, choose_precision
from staa.runs.load import Run, opened
from staa.text import for_csv, from_csv
from staa.training.evaluate import Inputs, autocast, call
from staa.training.named import freeze, set_training
from staa.training.optim import make_optimizer
from staa.training.step import pieces_of

SAMPLES = 64  # whose firing rates the energy goes by
ROUNDS = 7  # of training steps, in turns


@dataclass(frozen=True)
class Row:
    """One recipe. Counts and energy are a sample's, over all its time steps."""

    name: str
    seeds: int
    measure: str
    """What was measured on the test set: "accuracy", or "mae", a forecast's mean absolute error in the series' units."""
    test: float
    """It, mean over the seeds."""
    spread: float | None
    """Standard deviation over the seeds; None for one."""
    parameters: int
    macs: float
    """Multiply-accumulates, where real numbers are read."""
    sops: float
    """Additions, where spikes are read."""
    microjoules: float
    """4.6 pJ a multiply-accumulate, 0.9 pJ an addition (`staa.estimate_energy`)."""
    samples_per_second: float
    """Of a training step, without reading the data: median over rounds in which all recipes take turns."""
    slowest: float
    fastest: float
    """Quarter- and three-quarter-point over the rounds."""
    kept_mib: float
    """Memory that the forward pass of a training batch keeps for its backward pass, in MiB; weights left out."""


def compare(
    runs: Mapping[str, Sequence[Run | str | Path]],
    *,
    data_root: Path | None = None,
    device: str | None = None,
    over: Collection[str] = (),
    trust: bool = False,
) -> list[Row]:
    """A row for each name: finished runs of one recipe, one for each seed. What is not accuracy is the first seed's.

    Energy goes by the rates on some training samples, unaugmented. runs: `staa.Run`s, or folders, which are opened with
    data_root and trust. over: settings that are compared on purpose, such as "data.size".
    Raises ValueError or OSError for a run that is not finished, or whose data are not there, and ValueError for runs that were
    not tested alike (`staa.analysis.alike`).
    """
    chosen = choose_device(device)
    seeds = {name: [opened(run, data_root=data_root, trust=trust) for run in some] for name, some in runs.items()}
    for some in seeds.values():
        check_finished(some)
    first = {name: some[0] for name, some in seeds.items()}
    check_settings({name: run.recipe for name, run in first.items()}, over=over)
    for name, some in seeds.items():
        if len({run.about["split"] for run in some}) > 1:
            raise ValueError(f"the seeds of {name} were trained on different splits of the data: train them anew")
    check_tests({name: Candidate(run.recipe, run.task.tested(run.data)) for name, run in first.items()})
    results = {name: [run.result for run in some] for name, some in seeds.items()}
    measure = next(iter(first.values())).task.figures[0]
    costs, steps, sizes = {}, {}, {}
    for name, run in counted(first.items(), "measuring what each costs", len(first)):
        costs[name], steps[name], sizes[name] = _costs(run, chosen)
    seconds = interleaved(steps, ROUNDS, chosen)
    rows = []
    for name, measured in results.items():
        reached = [result[f"test_{measure}"] for result in measured]
        slow, middle, fast = statistics.quantiles((sizes[name] / s for s in seconds[name]), n=4)
        rows.append(
            Row(
                name=name,
                seeds=len(reached),
                measure=measure,
                test=statistics.mean(reached),
                spread=float(np.std(reached, ddof=1)) if len(reached) > 1 else None,
                samples_per_second=middle,
                slowest=slow,
                fastest=fast,
                **costs[name],
            )
        )
    return rows


def baselines_of(runs: Mapping[str, Sequence[Run | str | Path]], *, trust: bool = False) -> dict[str, float | None]:
    """The first figure of each trivial forecast that the runs of `compare` tell of, None for one that was not possible on their
    data; empty if they have other data than each other, or tell of none."""
    all_runs = [opened(run, trust=trust) for some in runs.values() for run in some]
    first = all_runs[0]
    if len({run.about["split"] for run in all_runs}) > 1:
        return {}
    told, measure = first.result.get("baselines", {}), first.task.figures[0]
    return {name: None if figures is None else figures[measure] for name, figures in told.items()}


def check_finished(opened: Iterable[Run]) -> None:
    """Raises ValueError for a run that has no result yet."""
    for run in opened:
        if not run.finished:
            raise ValueError(f"{run.folder} is not finished: resume it first")


def draw(rows: Sequence[Row], path: Path, *, title: str = "") -> None:
    """The rows as a picture (PNG): accuracy, energy, parameters, speed and memory, a bar for each recipe."""
    measure = rows[0].measure
    what, unit = {"accuracy": ("test accuracy [%]", 100), "mae": ("test MAE [series' units]", 1)}.get(measure, (measure, 1))
    panels: dict[str, dict[str, list[float]]] = {
        what: {"": [unit * r.test for r in rows], "±": [unit * (r.spread or 0) for r in rows]},
        "energy an inference [µJ]": {
            "multiply-accumulates": [r.macs * MAC * 1e6 for r in rows],
            "additions": [r.sops * AC * 1e6 for r in rows],
        },
        "parameters [thousand]": {"": [r.parameters / 1e3 for r in rows]},
        "training, samples a second": {"": [r.samples_per_second for r in rows]},
        "kept for the backward pass [MiB]": {"": [r.kept_mib for r in rows]},
    }
    draw_bars([r.name for r in rows], panels, path, title=title)


def write_csv(rows: Sequence[Row], path: Path, baselines: Mapping[str, float | None] | None = None) -> None:
    """The rows as a table, with the names of `Row`'s fields above, `test` as what it is of; an empty cell for the unknown.
    Baselines follow, with nothing but their name and figure.

    Names are written as `staa.text.for_csv` does; `read_names` gives them back.
    """
    table = [{(f"test_{r.measure}" if k == "test" else k): v for k, v in asdict(r).items() if k != "measure"} for r in rows]
    table += [{"name": name, f"test_{rows[0].measure}": value} for name, value in (baselines or {}).items()]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(table[0])
    for row in ({key: row.get(key) for key in table[0]} for row in table):
        writer.writerow(map(for_csv, ("" if value is None else value for value in row.values())))
    save_text(path, text.getvalue())


def read_names(path: Path) -> set[str | None]:
    """The names in such a table, without baselines; None if it is another. Raises what `read_text` does."""
    rows = csv.DictReader(io.StringIO(read_text(path), newline=""))
    names = (row.get("name") for row in rows if row.get("seeds") != "")
    return {None if name is None else from_csv(name) for name in names}


def _costs(run: Run, device: torch.device) -> tuple[dict[str, float], Callable[[], None], int]:
    """A run's parameters, energy and memory; its training step; and the samples it takes."""
    recipe, source, task = run.recipe, run.data, run.task
    model = copy.deepcopy(run.model()).to(device)  # which is trained on
    frozen = freeze(model, recipe.frozen)
    x, y = task.take(source, "train", spread(SAMPLES, source.train), device)
    inputs = x if isinstance(x, tuple) else (x,)
    energy = estimate_energy(model, *inputs, events=task.counts_events(source), samples=len(y))
    x, y = next(task.batches(source, "train", device, workers=0, training=True).epoch())
    pieces = recipe.optim.accumulate
    step = _training_step(
        model,
        *next(pieces_of(x, y, pieces)),
        loss=task.loss,
        optimizer=make_optimizer(model, name=recipe.optim.name, lr=recipe.optim.lr, weight_decay=recipe.optim.weight_decay),
        precision=choose_precision(recipe.precision, device),
        still=frozen.norms,
    )
    costs = {
        "parameters": sum(p.numel() for p in model.parameters()),
        "macs": energy.macs,
        "sops": energy.sops,
        "microjoules": energy.joules * 1e6,
        "kept_mib": kept_bytes(model, step) / 2**20,
    }
    return costs, step, len(y) // pieces


def _training_step(
    model: nn.Module,
    x: Inputs,
    y: Tensor,
    *,
    loss: Callable[[Tensor, Tensor], Tensor],
    optimizer: torch.optim.Optimizer,
    precision: str,
    still: Sequence[nn.Module],
) -> Callable[[], None]:
    def step() -> None:
        optimizer.zero_grad()
        with autocast(y.device, precision):
            outputs = call(model, x)
        value = loss(outputs, y)
        if value.requires_grad:  # not of a forecaster in closed form
            value.backward()
            optimizer.step()

    set_training(model, still)
    return step
