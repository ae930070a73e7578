"""What an inference of a trained run costs."""

from collections import defaultdict
from operator import attrgetter

from rich.table import Column, Table

from staa.analysis.figures import in_unit, percent, si, unit_of
from staa.analysis.priced import Account, Energy, LayerEnergy, by_attention
from staa.analysis.run_energy import energy_of, part_of, write_csv
from staa.cli.parse import parse
from staa.cli.run_options import EnergyOptions
from staa.cli.text import say, show, warn
from staa.cli.waiting import waiting
from staa.files import check_new
from staa.runs import Run
from staa.text import for_terminal

PARTS = {"train": "training", "validation": "validation", "test": "test"}


def energy(args: list[str]) -> int:
    """count what an inference costs: operations, energy, memory"""
    options = parse(EnergyOptions, args, "staa energy")
    run = Run(options.run, data_root=options.data, trust=options.trust_code)
    if options.csv is not None:
        check_new(options.csv)
    with waiting("counting operations"):
        found = energy_of(
            run, samples=options.samples, batch=options.batch, weights=options.weights, device=options.device,
            mac_pj=options.mac_pj, ac_pj=options.ac_pj,
        )  # fmt: skip
        part = part_of(run)
    for note in run.data.notes:
        warn(note, EnergyOptions)
    say(
        f"{options.run}: what a sample costs, over all its steps, by the rates on {found.samples} {PARTS[part]} samples",
        f"what reads real numbers multiplies, {options.mac_pj:g} pJ; what reads spikes adds, {options.ac_pj:g} pJ",
        "",
    )
    show(*_layers(found))
    say("")
    show(_sums(found), [])
    say(
        "",
        f"memory: {si(found.weight_bytes, 'B')} of weights read, {si(found.membrane_bytes, 'B')} of membranes read and "
        f"written, in no sum",
    )
    if found.left_out:
        elements: dict[str, float] = defaultdict(float)
        for some in found.left_out:
            elements[some.operation.removeprefix("aten::")] += some.elements
        told = ", ".join(f"{name} {si(count)}" for name, count in elements.items())
        say(f"not counted, by the numbers that they put out: {told}")
    if options.csv is not None:
        options.csv.parent.mkdir(parents=True, exist_ok=True)
        write_csv(found, options.csv)
        say(f"table → {options.csv}")
    return 0


def _layers(found: Energy) -> tuple[Table, list[list[str]]]:
    """The layers, 80 characters wide unless their names are long."""
    layers = by_attention(found.layers)
    counts, joules, memory = (
        unit_of(max((of(layer) for layer in layers), default=0.0))
        for of in (attrgetter("dense"), attrgetter("joules"), attrgetter("memory_bytes"))
    )
    shared = _shared([layer.name for layer in layers])
    table = Table(
        Column(f"layer of\n{for_terminal(shared)}" if shared else "\nlayer", overflow="fold"), box=None, pad_edge=False
    )
    of_counts, of_joules = f"[{counts[1]}]" if counts[1] else "", f"[{joules[1]}J]"
    for header in (
        f"dense\n{of_counts}", "input\nrate", f"papers'\n{of_counts}", f"\n{of_joules}", f"exact\n{of_counts}",
        f"\n{of_joules}", f"memory\n[{memory[1]}B]",
    ):  # fmt: skip
        table.add_column(header, justify="right", no_wrap=True)

    def cells(layer: LayerEnergy) -> list[str]:
        name = layer.name.removeprefix(f"{shared}.") or "the model"
        kept = in_unit(layer.memory_bytes / memory[0]) if layer.memory_bytes else ""
        if not layer.dense:
            return [name, *[""] * 6, kept]
        rate = "real" if layer.rate is None else percent(layer.rate)
        costs = [
            in_unit(value / unit[0])
            for value, unit in (
                (layer.dense, counts), (layer.operations, counts), (layer.joules, joules), (layer.effective, counts),
                (layer.joules_exact, joules),
            )
        ]  # fmt: skip
        return [name, costs[0], rate, *costs[1:], kept]

    return table, [cells(layer) for layer in layers]


def _shared(names: list[str]) -> str:
    """The module that all of these are in."""
    first, *others = [name.split(".")[:-1] for name in names] or [[]]
    return ".".join(part for k, part in enumerate(first) if all(name[: k + 1] == first[: k + 1] for name in others))


def _sums(found: Energy) -> Table:
    table = Table(Column("in all", no_wrap=True), box=None, pad_edge=False)
    for name in ("MACs", "SOPs", "energy"):
        table.add_column(name, justify="right", no_wrap=True)

    def add(name: str, account: Account) -> None:
        row = name, si(account.macs), si(account.sops), si(account.joules, "J")
        ann = "  as an ANN, for one step", si(account.ann_macs), "", si(account.ann_joules, "J")
        for cells in (row, ann):
            table.add_row(*map(for_terminal, cells))

    add("papers: rate × dense", found.papers)
    add("exact: no border, no zeros", found.exact)
    return table
