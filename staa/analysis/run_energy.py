"""What a trained run costs, by the firing rates on its own data."""

import csv
import io
from pathlib import Path

import torch

from staa.analysis.energy import estimate_energy
from staa.analysis.priced import AC, MAC, Energy, LayerEnergy, average
from staa.build.task import Part
from staa.counting import counted
from staa.data.batches import spread
from staa.files import save_text
from staa.machine import choose_device
from staa.runs.load import Run, Weights
from staa.text import for_csv

SAMPLES = 64
COLUMNS = {
    "layer": lambda layer: layer.name,
    "dense_macs": lambda layer: layer.dense,
    "input_rate": lambda layer: layer.rate,
    "macs": lambda layer: layer.operations if layer.rate is None else 0.0,
    "sops": lambda layer: 0.0 if layer.rate is None else layer.operations,
    "joules": lambda layer: layer.joules,
    "exact_dense_macs": lambda layer: layer.inside,
    "exact_macs": lambda layer: layer.effective if layer.rate is None else 0.0,
    "exact_sops": lambda layer: 0.0 if layer.rate is None else layer.effective,
    "exact_joules": lambda layer: layer.joules_exact,
    "ann_macs": lambda layer: layer.once,
    "exact_ann_macs": lambda layer: layer.once_inside,
    "weight_bytes": lambda layer: layer.weight_bytes,
    "membrane_bytes": lambda layer: layer.membrane_bytes,
}


def energy_of(
    run: Run,
    *,
    samples: int | None = None,
    batch: int | None = None,
    weights: Weights | None = None,
    device: str | torch.device | None = None,
    mac_pj: float = MAC * 1e12,
    ac_pj: float = AC * 1e12,
) -> Energy:
    """What an inference of a run's network costs, a sample: `staa.estimate_energy` with the rates on samples of `part_of`.

    Args:
        run: The run.
        samples: How many samples, spread over that part, at least 1; None: 64. If there are fewer, all of them.
        batch: How many run at once, at least 1, which changes no figure but for rounding; None: the recipe's batch size.
        weights: "last" epoch or "best" on validation; None: what the test figure was measured with.
        device: Such as "cpu" or "cuda"; None: the GPU if there is one.
        mac_pj: Energy of a multiply-accumulate in picojoules.
        ac_pj: Energy of an addition in picojoules.

    Raises:
        FileNotFoundError: If the run, its weights or its data are missing.
        ValueError: If the run is broken, its data have changed, or a number is out of range; also what `estimate_energy`
            raises.
    """
    for name, value in (("samples", samples), ("batch", batch)):
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
            raise ValueError(f"`{name}` must be a whole number of at least 1, got {value!r}")
    chosen = choose_device(None if device is None else str(device))
    model, source, task, part = run.model(weights).to(chosen), run.data, run.task, part_of(run)
    places = spread(samples or SAMPLES, getattr(source, part)).split(batch or run.recipe.batch_size)
    events, found = task.counts_events(source), []
    for some in counted(places, "counting operations", len(places)):
        x, _ = task.take(source, part, some, chosen)
        inputs = x if isinstance(x, tuple) else (x,)
        found.append(estimate_energy(model, *inputs, events=events, samples=len(some), mac_pj=mac_pj, ac_pj=ac_pj))
    return average(found)


def part_of(run: Run) -> Part:
    """Whose rates are taken: the test set of a finished run, else validation, or training if none was held out.

    Args:
        run: The run.
    """
    if run.finished:
        return "test"
    return "train" if run.data.validation is None else "validation"


def write_csv(energy: Energy, path: Path) -> None:
    """A row a module, with the names of `COLUMNS`; the input rate of what reads no spikes is an empty cell.

    Args:
        energy: What is written.
        path: The file, which is made and must not be there.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(map(for_csv, COLUMNS))
    for layer in energy.layers:
        writer.writerow(map(for_csv, _cells(layer)))
    save_text(path, text.getvalue(), new=True)


def _cells(layer: LayerEnergy) -> list[object]:
    values = (cell(layer) for cell in COLUMNS.values())
    return ["" if value is None else value for value in values]
