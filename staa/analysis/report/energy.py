"""What an inference costs, layer by layer."""

import numpy as np

from staa.analysis.figures import percent, si, unit_of
from staa.analysis.priced import Account, Energy, LayerEnergy, by_attention
from staa.analysis.report.drawing import HELD_OUT, TRAIN, axes, legend, picture
from staa.analysis.report.parts import Fold, Part, Picture, Section, Table
from staa.analysis.run_energy import energy_of, part_of
from staa.runs.load import Run, Weights
from staa.text import for_figure

DRAWN = 20  # layers at most that have a bar


def energy(run: Run, *, weights: Weights | None = None, device: str | None = None) -> Section:
    """Operations, energy and memory traffic of an inference, by the firing rates on samples of the run's data.

    Args:
        run: The run.
        weights: "last" epoch or "best" on validation; None: what the test figure was measured with.
        device: Such as "cpu" or "cuda"; None: the GPU if there is one.

    Raises:
        FileNotFoundError: If the weights or the data are missing.
        ValueError: If they are broken, or an operation of the network has no price.
    """
    found = energy_of(run, weights=weights, device=device)
    return priced(found, f"{found.samples} {part_of(run)} samples")


def priced(found: Energy, samples: str) -> Section:
    """The same of what was counted.

    Args:
        found: What was counted.
        samples: Whose rates it goes by, such as "64 test samples".
    """
    layers = [layer for layer in by_attention(found.layers) if layer.dense or layer.memory_bytes]
    papers, exact = found.papers, found.exact
    parts: list[Part] = [
        f"A sample costs {si(papers.joules, 'J')} as papers count, {si(exact.joules, 'J')} by what really happens, and "
        f"{si(papers.ann_joules, 'J')} in the same network without spikes, run for one step. It is an estimate by the firing "
        f"rates on {samples}: 45 nm energies of 32-bit arithmetic, without memory, which costs more than arithmetic on real "
        f"hardware.",
        Table(
            ("convention", "MACs", "SOPs", "energy", "ANN's MACs", "ANN's energy"),
            [_sums("papers: rate × dense", papers), _sums("exact: no border, no zeros", exact)],
            "A sample over all its steps. What reads real numbers multiplies (MACs); what reads spikes adds (SOPs)",
        ),
        f"Memory traffic, in no sum: {si(found.weight_bytes, 'B')} of weights read, {si(found.membrane_bytes, 'B')} of "
        f"membranes read and written.",
    ]
    multiplying = [layer for layer in layers if layer.dense]
    if multiplying:
        parts.insert(2, _bars(multiplying))
    if found.left_out:
        parts.append(f"Not counted, by the numbers that they put out: {_left_out(found)}.")
    header = ("layer", "dense", "rate of its input", "papers'", "papers' energy", "exact", "exact energy", "memory")
    table = Table(header, [_cells(layer) for layer in layers], "Operations, energy and memory traffic of each layer, a sample")
    parts.append(Fold(f"All {len(layers)} layers", [table]))
    return Section("Energy", parts)


def _left_out(found: Energy) -> str:
    elements: dict[str, float] = {}
    for some in found.left_out:
        operation = some.operation.removeprefix("aten::")
        elements[operation] = elements.get(operation, 0.0) + some.elements
    return ", ".join(f"{operation} {si(count)}" for operation, count in elements.items())


def _sums(name: str, account: Account) -> list[str]:
    ann = si(account.ann_macs), si(account.ann_joules, "J")
    return [name, si(account.macs), si(account.sops), si(account.joules, "J"), *ann]


def _cells(layer: LayerEnergy) -> list[str]:
    memory = si(layer.memory_bytes, "B") if layer.memory_bytes else "–"
    if not layer.dense:
        return [layer.name or "the model", *["–"] * 6, memory]
    rate = "real" if layer.rate is None else percent(layer.rate)
    papers, exact = (si(layer.operations), si(layer.joules, "J")), (si(layer.effective), si(layer.joules_exact, "J"))
    return [layer.name or "the model", si(layer.dense), rate, *papers, *exact, memory]


def _bars(layers: list[LayerEnergy]) -> Picture:
    """Energy of each layer in both conventions; of many, those that cost most."""
    order = sorted(range(len(layers)), key=lambda k: -layers[k].joules)[:DRAWN]
    kept = [layers[k] for k in sorted(order)]
    size, prefix = unit_of(max(layer.joules for layer in kept))
    papers, exact = ([getattr(layer, name) / size for layer in kept] for name in ("joules", "joules_exact"))
    figure, axis = axes(height=1.2 + 0.26 * len(kept))
    rows = np.arange(len(kept))
    axis.barh(rows - 0.2, papers, 0.38, color=TRAIN, label="papers'")
    axis.barh(rows + 0.2, exact, 0.38, color=HELD_OUT, label="exact")
    axis.set_yticks(rows, [for_figure(layer.name or "the model", 24) for layer in kept], fontsize=8)
    axis.set_ylim(len(kept) - 0.4, -0.6)
    axis.set(xlabel=f"energy of a sample [{prefix}J]")
    legend(figure)
    most = max(kept, key=lambda layer: layer.joules)
    of = f"the {len(kept)} of {len(layers)} layers that cost most" if len(kept) < len(layers) else "each layer"
    return picture(
        figure,
        f"Energy of {of}, in both conventions.",
        f"Energy by layer; {most.name or 'the model'} costs most, {si(most.joules, 'J')} as papers count.",
    )
