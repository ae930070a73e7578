"""A trained network as a file of the Neuromorphic Intermediate Representation (NIR)."""

from pathlib import Path
from typing import Any

from staa.export.facts import KEY, as_text, facts_of
from staa.export.nir import from_nir, nir_graph, nir_package, save_nir
from staa.export.program import exportable
from staa.export.proof import prove
from staa.runs.load import Run, Weights


def to_nir(
    run: Run | str | Path,
    out: str | Path,
    *,
    weights: Weights | None = None,
    verify: bool = True,
    trust: bool = False,
) -> dict[str, Any]:
    """Write a run's network as a graph of NIR, which other SNN libraries and chips read: see `staa.export.nir.nir_graph`.

    The graph is of one time step, and its neurons carry their membranes from one to the next. Its metadata hold what the file
    says of itself as JSON, by the key "staa".

    Args:
        run: A `staa.Run`, or a run folder, which is opened with trust.
        out: File to write, ending in .nir.
        weights: "last" epoch or "best" on validation; None: what the test figure was measured with.
        verify: Read the graph back and hold it against the run on samples of its data before it is written.
        trust: Let Python files in the run folder run, if the run has parts of its own.

    Returns:
        What the file says of itself, with the proof.

    Raises:
        FileNotFoundError: If the run or its weights are missing.
        ValueError: If the run forecasts or is broken; if `out` is there already; if a part of the network has no exact
            counterpart in NIR, such as attention; or if the data to verify with are missing, or the graph is not the run's.
        ImportError: If the extra `export` is not installed.
    """
    out = Path(out)
    nir_package()
    run, model = exportable(run, out, suffix=".nir", weights=weights, verify=verify, trust=trust)
    graph = nir_graph(model.eval(), run.input_shape[-3:])
    proof = prove(run, from_nir(graph).eval(), weights=weights) if verify else None
    told = facts_of(run, "graph", (), weights=weights, proof=proof)
    graph.metadata[KEY] = as_text(told)
    save_nir(out, graph)
    return told
