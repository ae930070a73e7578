"""Train a recipe on a machine that is lent for minutes at a time, has no network and takes small files alone.

    python results/remote.py pack data/cifar-100-binary parts       # here: parts of at most 60 MiB, to travel one by one
    python results/remote.py unpack parts data                      # there, when all have arrived
    python results/remote.py piece cifar100-resnet20-staa --home out   # there, again and again until it says "done"
    python results/remote.py row home/cifar100-resnet20-staa        # here: its row for results/README.md

A piece trains for --minutes and saves; the next one goes on. The first measures an epoch and chooses how many fit into --total
minutes, between 60 and 200 (or --epochs). After each piece --home holds what is worth bringing back: log, recipe, environment,
result, and the weights as bfloat16 in parts of at most 15 MiB (`join_weights` reads them).
"""

import argparse
import json
import shutil
import tarfile
import tempfile
import time
from collections.abc import Iterable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from statistics import fmean

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from staa import Recipe
from staa.checkpoint import load_checkpoint, measured_weights
from staa.find import find_recipe
from staa.runs import run

DATA_PART, WEIGHTS_PART = 60 << 20, 15 << 20
FEWEST, MOST = 60, 200  # epochs
PLAN = "plan.json"


def pack(folder: Path, parts: Path, size: int = DATA_PART) -> list[Path]:
    """A folder as a compressed archive, cut into parts."""
    parts.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile() as whole:
        with tarfile.open(fileobj=whole, mode="w:xz", preset=1) as archive:
            archive.add(folder, folder.name)
        whole.seek(0)
        pieces = iter(lambda: whole.read(size), b"")
        written = []
        for i, piece in enumerate(pieces):
            written.append(parts / f"{folder.name}.{i:02}.part")
            written[-1].write_bytes(piece)
    (parts / f"{folder.name}.count").write_text(f"{len(written)}\n")
    return written


def unpack(parts: Path, target: Path) -> None:
    """Every archive whose parts are all there. Raises FileNotFoundError naming one that is not."""
    for count in sorted(parts.glob("*.count")):
        pieces = [parts / f"{count.stem}.{i:02}.part" for i in range(int(count.read_text()))]
        missing = [p.name for p in pieces if not p.is_file()]
        if missing:
            raise FileNotFoundError(f"{parts} lacks {', '.join(missing)}")
        with tempfile.TemporaryFile() as whole:
            for p in pieces:
                whole.write(p.read_bytes())
            whole.seek(0)
            with tarfile.open(fileobj=whole) as archive:
                archive.extractall(target, filter="data")


def seconds_an_epoch(recipe: Recipe, data: Path, steps: int = 60) -> float:
    """From the second half of some steps, so that what happens once is left out."""
    times: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        for event in run(
            replace(recipe, max_steps=steps), Path(folder) / "run", data_root=data, stop=lambda: len(times) >= steps
        ):
            if event["event"] == "start":
                epoch_steps = event["epoch_steps"]
            if event["event"] == "step":
                times.append(event["seconds"])
    return fmean(times[len(times) // 2 :]) * epoch_steps


def piece(
    recipe: Recipe, folder: Path, data: Path, *, minutes: float, total: float, epochs: int | None, most: int = MOST
) -> str:
    """Train for some minutes; "done" or how far it is."""
    began = time.monotonic()
    plan = folder.parent / f"{folder.name}-{PLAN}"
    if not plan.is_file():
        each = seconds_an_epoch(recipe, data)
        fit = int((60 * total - (time.monotonic() - began)) * 0.9 / each)  # a tenth for starting, measuring, saving
        chosen = epochs or min(max(fit, min(FEWEST, most)), most)
        folder.parent.mkdir(parents=True, exist_ok=True)
        plan.write_text(json.dumps({"epochs": chosen, "seconds_an_epoch": each, "fit": fit}) + "\n")
    recipe = replace(recipe, epochs=json.loads(plan.read_text())["epochs"])
    event = {}
    over = lambda: time.monotonic() - began > 60 * minutes  # noqa: E731
    for event in run(recipe, folder, data_root=data, resume=folder if folder.is_dir() else None, stop=over):
        if event["event"] in ("epoch", "interrupted", "result"):
            print({k: v for k, v in event.items() if k != "rates"}, flush=True)
    return "done" if event["event"] == "result" else f"at step {event['step']}: run it again"


def bring_home(folder: Path, home: Path) -> None:
    target = home / folder.name
    target.mkdir(parents=True, exist_ok=True)
    for name in ("log.jsonl", "recipe.json", "environment.json", "result.json"):
        if (folder / name).is_file():
            shutil.copy(folder / name, target / name)
    shutil.copy(folder.parent / f"{folder.name}-{PLAN}", target / PLAN)
    for old in target.glob("weights.*.safetensors"):
        old.unlink()
    weights = {
        k: w.to(torch.bfloat16) if w.is_floating_point() else w for k, w in measured_weights(load_checkpoint(folder)).items()
    }
    for i, some in enumerate(_in_parts(weights.items())):
        save_file(some, target / f"weights.{i:02}.safetensors")


def _in_parts(weights: Iterable[tuple[str, Tensor]]) -> Iterable[dict[str, Tensor]]:
    """Whole tensors, as many to a part as fit; a larger one has a part of its own."""
    some: dict[str, Tensor] = {}
    for name, weight in weights:
        if some and sum(w.nbytes for w in some.values()) + weight.nbytes > WEIGHTS_PART - (1 << 16):
            yield some
            some = {}
        some[name] = weight.contiguous()
    yield some


def join_weights(folder: Path) -> dict[str, Tensor]:
    """The weights that were brought home, bfloat16."""
    return {k: w for path in sorted(folder.glob("weights.*.safetensors")) for k, w in load_file(path).items()}


def row(folder: Path) -> str:
    """recipe | seed | epochs | last | best epoch | minutes | hardware | commit | log"""
    recipe, about = (json.loads((folder / name).read_text()) for name in ("recipe.json", "environment.json"))
    events = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    epochs = [e for e in events if e["event"] == "epoch"]
    result = json.loads((folder / "result.json").read_text()) if (folder / "result.json").is_file() else {}
    seconds = sum(b["time"] - a["time"] for a, b in pairwise(events) if b["event"] != "environment")  # which begins each piece
    last = f"{result['test_accuracy']:.2%}" if result else f"not done: epoch {len(epochs)}"
    best = f"{result['best_test_accuracy']:.2%} ({result['best_test_epoch']})" if "best_test_accuracy" in result else ""
    cells = [
        recipe["name"], recipe["seed"], recipe["epochs"], last, best, f"{seconds / 60:.1f} min",
        about["device"], (about["commit"] or "")[:7], f"{folder.name}/log.jsonl",
    ]  # fmt: skip
    return "| " + " | ".join(str(c) for c in cells) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, arguments in {"pack": ("folder", "parts"), "unpack": ("parts", "target"), "row": ("folder",)}.items():
        command = commands.add_parser(name)
        for argument in arguments:
            command.add_argument(argument, type=Path)
    command = commands.add_parser("piece")
    command.add_argument("recipe")
    command.add_argument("--data", type=Path, default=Path("data"))
    command.add_argument("--runs", type=Path, default=Path("runs/remote"))
    command.add_argument("--home", type=Path, required=True)
    command.add_argument("--minutes", type=float, default=9.0, help="of this piece")
    command.add_argument("--total", type=float, default=28.0, help="minutes of all pieces, from which the epochs are chosen")
    command.add_argument("--epochs", type=int, help="instead of as many as fit")
    command.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if options.command == "pack":
        for path in pack(options.folder, options.parts):
            print(path, f"{path.stat().st_size / 2**20:.1f} MiB")
    elif options.command == "unpack":
        unpack(options.parts, options.target)
    elif options.command == "row":
        print(row(options.folder))
    else:
        recipe = replace(find_recipe(options.recipe), seed=options.seed)
        folder = options.runs / f"{recipe.name}-seed{recipe.seed}"
        try:
            print(piece(recipe, folder, options.data, minutes=options.minutes, total=options.total, epochs=options.epochs))
        finally:
            if folder.is_dir():
                bring_home(folder, options.home)


if __name__ == "__main__":
    main()
