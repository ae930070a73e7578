"""A trained run's network in a file that other programs run."""

import time
from pathlib import Path
from typing import Any

from staa.cli.parse import parse
from staa.cli.run_options import ExportOptions
from staa.cli.text import say, warn
from staa.cli.waiting import waiting
from staa.runs import Run

ENDINGS = {"onnx": ".onnx", "program": ".pt2", "nir": ".nir"}


def export(args: list[str]) -> int:
    """write a run's network for other programs"""
    options = parse(ExportOptions, args, "staa export")
    if options.to == "nir":
        raise ValueError("`to=nir` is not there yet: take `to=onnx` or `to=program`")
    run = Run(options.run, data_root=options.data, trust=options.trust_code)
    out = options.out or Path(f"{run.folder.resolve().name}{ENDINGS[options.to]}")
    began = time.perf_counter()
    with waiting():
        told = _writer(options.to)(run, out, form=options.form, weights=options.weights, verify=options.verify)
    _tell_proof(told)
    size = out.stat().st_size
    say(f"{options.run} → {out} ({size / 2**20:.2f} MiB, {time.perf_counter() - began:.0f} s)")
    if options.to == "onnx":
        if options.form == "step":
            say(f"a loop that needs NumPy and onnxruntime alone → {out.with_suffix('.py')}")
        say(f"it answers with: staa predict {out} FILE")
    return 0


def _writer(to: str) -> Any:
    """The function that writes such a file; it imports what only an export needs."""
    from staa import export

    return {"onnx": export.to_onnx, "program": export.to_program}[to]


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
        f"{proof['tolerance']:.0%})"
    )


def _shapes(told: dict[str, Any]) -> str:
    """What goes in, and how much state."""
    sizes = ", ".join("N" if size is None else str(size) for size in told["input"]["shape"])
    state = f", {len(told['state'])} tensors of state" if told["form"] == "step" else ""
    return f"{told['input']['name']} [{sizes}]{state}"
