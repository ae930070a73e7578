"""What is under results/gpu, a folder for each loan, as figures and tables: runs, their paired differences, kernels, steps."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.study import student_interval
from staa.files import read_text

TWINS = ("plain", "adaptive")  # without attention: a LIF that learns nothing, and one that learns leak and gain


def runs(folder: Path) -> dict[tuple[str, str, int], dict[int, dict[str, Any]]]:
    """Of each (network, row, epochs) the results by seed: cifar100-resnet20-staa is the row staa of cifar100-resnet20. Of
    runs of the same seed in several loans, the first counts."""
    found: dict[tuple[str, str, int], dict[int, dict[str, Any]]] = {}
    for path in sorted(folder.glob("*/*/result.json")):
        recipe = json.loads(read_text(path.parent / "recipe.json"))
        network, _, row = recipe["name"].rpartition("-")
        found.setdefault((network, row, recipe["epochs"]), {}).setdefault(recipe["seed"], json.loads(read_text(path)))
    return found


def differences(folder: Path) -> Iterator[tuple[str, str, str, int, list[float]]]:
    """(network, row, twin, epochs, test accuracy minus the twin's in points, for each seed that both have)."""
    found = runs(folder)
    for (network, row, epochs), results in sorted(found.items()):
        for twin in [name for name in TWINS if row not in ("plain", name)]:
            others = found.get((network, twin, epochs), {})
            both = sorted(results.keys() & others.keys())
            if both:
                accuracy = lambda some, seed: 100 * some[seed]["test_accuracy"]  # noqa: E731
                yield network, row, twin, epochs, [accuracy(results, seed) - accuracy(others, seed) for seed in both]


def paired(folder: Path) -> str:
    """A table of the differences: their mean, and its 95 % interval by Student's t."""
    lines = []
    for network, row, twin, epochs, points in differences(folder):
        interval = student_interval(points)
        between = f"{interval[0]:+.2f} … {interval[1]:+.2f}" if interval else "one pair"
        cells = (f"`{network}-{row}`", twin, str(epochs), str(len(points)), f"{np.mean(points):+.2f}", between)
        lines.append(f"| {' | '.join(cells)} |")
    head = "| recipe | against | epochs | pairs | difference, points | 95 % (t) |\n| --- | --- | --- | --- | --- | --- |\n"
    return head + "\n".join(lines) if lines else ""


def entries(folder: Path) -> dict[str, dict[str, Any]]:
    """As those of results/measured.json: gpu/RECIPE@EPOCHS, gpu/RECIPE@EPOCHS/TWIN and gpu/step."""
    found: dict[str, dict[str, Any]] = {}
    for (network, row, epochs), results in runs(folder).items():
        correct = [round(r["test_accuracy"] * r["test_samples"]) for r in results.values()]
        found[f"gpu/{network}-{row}@{epochs}"] = {
            "correct": correct, "of": [r["test_samples"] for r in results.values()], "seeds": list(results),
            "figures": {"epochs": epochs},
        }  # fmt: skip
    for network, row, twin, epochs, points in differences(folder):
        figures: dict[str, Any] = {"mean": float(np.mean(points)), "pairs": len(points)}
        if interval := student_interval(points):
            figures |= {"low": interval[0], "high": interval[1]}
        found[f"gpu/{network}-{row}@{epochs}/{twin}"] = {"figures": figures}
    step: dict[str, float] = {}
    for line in said(folder):
        if line.get("stage") == "step" and "ms" in line:
            step[line["form"]] = line["ms"]
        if line.get("stage") == "step" and "kernels" in line:
            step |= {"kernels": line["kernels"][0][1], "launches": line["kernels"][0][2]}
        if line.get("stage") == "pace" and "alone" in line:
            step[line["recipe"].rpartition("-")[2]] = 1e3 / line["alone"]
    if step.keys() >= {"plain", "staa"}:
        step["times"] = step["staa"] / step["plain"]
    return found | {"gpu/step": {"figures": step}} if step else found


def neurons(folder: Path) -> str:
    """The table of the neuron alone: milliseconds forward and backward, and the share of a copy's bandwidth."""
    rows: dict[tuple[str, str], dict[str, str]] = {}
    for line in said(folder):
        if line.get("stage") == "speed" and "shape" in line:
            cell = "refused" if "failed" in line else "{forward_ms:.2f} + {backward_ms:.2f}".format(**line)
            if line["library"] == "staa" and "failed" not in line:
                cell += " ({:.0f} % and {:.0f} %)".format(100 * line["forward_share"], 100 * line["backward_share"])
            rows.setdefault((line["shape"], line["dtype"]), {})[line["library"]] = cell
    lines = [
        f"| {shape}, {dtype} | {row.get('staa', '')} | {row.get('spikingjelly', '')} |" for (shape, dtype), row in rows.items()
    ]
    head = "| current | staa, ms (share of a copy's bandwidth) | SpikingJelly, Triton, ms |\n|---|---|---|\n"
    return head + "\n".join(lines)


def said(folder: Path) -> Iterator[dict[str, Any]]:
    """Every line of the calls' results, the latest loan's last."""
    for path in sorted(folder.glob("*/call*.jsonl")):
        for line in read_text(path).splitlines():
            yield json.loads(line)
