"""A trained run's network in a file that other programs run."""

import time
from pathlib import Path
from typing import Any

from staa.analysis.figures import percent
from staa.cli.parse import parse
from staa.cli.run_options import ExportOptions
from staa.cli.text import say, warn
from staa.cli.waiting import waiting
from staa.export import to_nir, to_onnx, to_program
from staa.runs import Run

ENDINGS = {"onnx": ".onnx", "program": ".pt2", "nir": ".nir"}


def export(args: list[str]) -> int:
    """write a run's network for other programs"""
    options = parse(ExportOptions, args, "staa export")
    if options.to == "nir" and options.form is not None:
        raise ValueError("--form is of onnx and program, and a NIR graph is of one step anyway: leave it out")
    run = Run(options.run, data_root=options.data, trust=options.trust_code)
    out = options.out or Path(f"{run.folder.resolve().name}{ENDINGS[options.to]}")
    began = time.perf_counter()
    with waiting():
        told = _written(options, run, out)
    _tell_proof(told)
    size = out.stat().st_size
    say(f"{options.run} → {out} ({size / 2**20:.2f} MiB, {time.perf_counter() - began:.0f} s)")
    if options.to == "onnx":
        if options.form == "step":
            say(f"a loop that needs NumPy and onnxruntime alone → {out.with_suffix('.py')}")
        say(f"it answers with: staa predict {out} FILE")
    return 0


def _written(options: ExportOptions, run: Run, out: Path) -> dict[str, Any]:
    """What the written file says of itself."""
    if options.to == "nir":
        return to_nir(run, out, weights=options.weights, verify=options.verify)
    write = to_onnx if options.to == "onnx" else to_program
    return write(run, out, form=options.form or "window", weights=options.weights, verify=options.verify)


def _tell_proof(told: dict[str, Any]) -> None:
    opset = f", opset {told['opset']}" if told["opset"] else ""
    say(f"form {told['form']}{opset}; {_shapes(told)}")
    proof = told["proof"]
    if proof is None:
        warn("the file was not verified, and says so", ExportOptions)
        return
    flipped = round(proof["flipped"] * proof["samples"])
    of_steps = round(proof["flipped_by_step"] * proof["samples"] * proof["steps"])
    say(
        f"verified on {proof['samples']} {proof['split']} samples, {proof['steps']} steps each: logits differ by "
        f"{proof['largest']:.2g} at most (their deviation is {proof['deviation']:.3g}); predictions flipped {flipped} of "
        f"{proof['samples']}, after single steps {of_steps} of {proof['samples'] * proof['steps']} (at most "
        f"{percent(proof['tolerance'], 0)})"
    )


def _shapes(told: dict[str, Any]) -> str:
    """What goes in, and how much state."""
    sizes = ", ".join("N" if size is None else str(size) for size in told["input"]["shape"])
    state = f", {len(told['state'])} tensors of state" if told["form"] == "step" else ""
    return f"{told['input']['name']} [{sizes}]{state}"
