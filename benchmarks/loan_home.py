"""What is done at home for a loan: packing what travels, taking in what came back, and a rehearsal on the CPU."""

import argparse
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path

import numpy as np

from benchmarks import cargo, gpu
from benchmarks.loan_process import FAULT, HERE
from staa.export.share import PRIVATE
from staa.files import read_bytes, read_text, save_text, write
from staa.runs.folder import ENVIRONMENT, commit_of
from staa.runs.log import LOG

CALLS = ("call1", "call2")
WHEELS = ("tyro", "docstring_parser", "typeguard", "typing_extensions", "spikingjelly", "loguru")
"""What the machine lacks or may have too old, and what is compared with: of pure Python all, in the versions tested here."""
COLUMNS = ("recipe", "seed", "epochs", "training images", "test accuracy", "minutes", "form", "machine", "commit", "command")


def pack(options: argparse.Namespace) -> None:
    """A folder for each call, with its part of the data, the wheels and the commit. Raises ValueError if a call's folder takes
    more than --call-mib together with the repository, or the data more parts than there are calls to carry them."""
    for call in CALLS:
        shutil.rmtree(options.to / call, ignore_errors=True)
    parts = cargo.pack(options.source, options.to, size=int(options.part_mib * 2**20), block=options.block)
    if len(parts) > len(CALLS):
        raise ValueError(f"the data take {len(parts)} parts of {options.part_mib} MiB, and {len(CALLS)} calls carry one each")
    first = options.to / CALLS[0]
    if not options.no_wheels:
        names = [f"{name}=={version(name)}" for name in WHEELS]
        how = f"-q --no-deps --only-binary=:all: --python-version={options.python}".split()
        command = [sys.executable, "-m", "pip", "download", *how, "-d", str(first / "wheels"), *names]
        subprocess.run(command, check=True)
    first.mkdir(parents=True, exist_ok=True)
    save_text(first / "about.json", json.dumps({"commit": commit_of()}) + "\n")
    for call in CALLS[1:]:
        shutil.copytree(first, options.to / call)
    listed = ["git", "-C", str(HERE), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    files = subprocess.run(listed, capture_output=True, text=True, check=True).stdout.split("\0")
    repository = sum((HERE / name).lstat().st_size for name in files if name and (HERE / name).is_file())
    for call, part in zip(CALLS, parts, strict=False):
        part.rename(options.to / call / part.name)
    for call in CALLS:
        sizes = {p.name: p.stat().st_size for p in sorted((options.to / call).rglob("*")) if p.is_file()}
        total = (sum(sizes.values()) + repository) / 2**20
        told = ", ".join(f"{name} {size / 2**20:.2f}" for name, size in {**sizes, "the repository": repository}.items())
        print(f"{options.to / call}: {told}; together {total:.2f} MiB")
        if total > options.call_mib:
            raise ValueError(
                f"{options.to / call} takes {total:.1f} MiB with the repository, at most {options.call_mib} may go"
            )


def collect(options: argparse.Namespace) -> None:
    """Archives as run folders, results and logs of the calls as they are, in the loan's own folder; and a table of all loans'
    runs in README.md.

    What is there already stays: raises ValueError, before anything is written, where another file of the same name came home.
    """
    found: dict[Path, bytes] = {}
    there = options.to / str(options.loan)
    for home in options.home:
        for path in sorted([*home.rglob("call*.jsonl"), *home.rglob("call*.log")]):
            found[there / path.name] = read_bytes(path)
        for _, data in cargo.archives(home):
            with tarfile.open(fileobj=io.BytesIO(data)) as archive:
                for member in archive:
                    parts = Path(member.name).parts
                    content = archive.extractfile(member)
                    if content is None or len(parts) != 2 or ".." in parts or Path(member.name).is_absolute():
                        raise ValueError(f"an archive in {home} holds {member.name}, which is no file of a run folder")
                    found[there / member.name] = without_folders(parts[1], content.read())
    if not found:
        raise ValueError(f"nothing of a loan is in {', '.join(map(str, options.home))}")
    for path, data in found.items():
        if path.exists() and read_bytes(path) != data:
            raise ValueError(f"{path} is there already and holds something else: give this loan another number (--loan)")
    for path, data in found.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path, data)
    text = page(options.to)
    save_text(options.to / "README.md", text)
    print(text)


def without_folders(name: str, data: bytes) -> bytes:
    """A file of a run folder without what says where it lay on the machine: data root and command."""
    events = data.decode().splitlines() if name == LOG else [data.decode()] if name == ENVIRONMENT else []
    if not events:
        return data
    kept = [{k: v for k, v in json.loads(event).items() if k not in PRIVATE} for event in events]
    return "".join(json.dumps(event, indent=2 if name == ENVIRONMENT else None) + "\n" for event in kept).encode()


def page(folder: Path) -> str:
    """README.md of what came home: a line for each run, and paired differences."""
    rows = [row(path.parent) for path in sorted(folder.glob("*/*/loan.json"))]
    lines = [f"| {' | '.join(cells)} |" for cells in (COLUMNS, ["---"] * len(COLUMNS), *rows)]
    text = "# Trained on a GPU that was lent for minutes\n\nThe test set was looked at once, after the last step.\n\n"
    text += "\n".join(lines) + "\n"
    if table := gpu.paired(folder):
        text += f"\nTest accuracy by seed, minus that of a twin without attention:\n\n{table}\n"
    return text


def row(folder: Path) -> list[str]:
    """A run's line of the table, from its records alone."""
    recipe, about, loan = (json.loads(read_text(folder / n)) for n in ("recipe.json", "environment.json", "loan.json"))
    events = [json.loads(line) for line in read_text(folder / "log.jsonl").splitlines()]
    seconds = sum(b["time"] - a["time"] for a, b in pairwise(events) if b["event"] != "environment")
    epochs = sum(e["event"] == "epoch" for e in events)
    result = json.loads(read_text(folder / "result.json")) if (folder / "result.json").is_file() else {}
    stands_in = any("not of the test set" in e.get("text", "") for e in events)
    accuracy = f"{result['test_accuracy']:.2%}{' (held out, no test set)' * stands_in}" if result else "not finished"
    return [
        recipe["name"], str(recipe["seed"]), f"{epochs} of {recipe['epochs']}", str(about["data"]["train"]), accuracy,
        f"{seconds / 60:.1f}", loan["form"], f"{about['device']}, torch {about['torch']}, {about['precision']}",
        (loan["commit"] or about["commit"] or "unknown")[:7], f"`{loan['command']}`",
    ]  # fmt: skip


def dry_run(options: argparse.Namespace) -> None:
    """Everything, on the CPU, with a made-up set of 360 images: pack, three calls, collect. Raises CalledProcessError if a call
    does not end as it should; stages may fail."""
    folder = options.folder
    if folder.exists() and any(folder.iterdir()):
        raise ValueError(f"{folder} is not empty: give another --folder")
    made_up(folder / "set", train=300, test=60)
    packing = argparse.Namespace(
        source=folder / "set", to=folder / "cargo", part_mib=0.6, call_mib=64.0, no_wheels=True, python="3.12", block=60
    )
    pack(packing)
    faults = dict(fault.split("=", 1) for fault in options.fault)
    for call, carried, seconds in zip(("call1", "call2", "call3"), ("call1", "call2", "call2"), options.seconds, strict=True):
        command = [sys.executable, "-m", "benchmarks.loan", call, "--cargo", str(folder / "cargo" / carried)]
        command += ["--out", str(folder / call), "--work", str(folder / "work"), "--data", str(folder / "data")]
        limits = f"--seconds {seconds} --stage-seconds {options.stage_seconds} --patience {options.patience}"
        command += f"{limits} --device cpu --small --epochs 2 --seeds 2".split()
        subprocess.run(command, check=True, env={**os.environ, FAULT: faults.get(call, "")}, cwd=HERE)
    collect(argparse.Namespace(home=[folder / call for call in ("call1", "call2", "call3")], to=folder / "results", loan=1))


def made_up(folder: Path, *, train: int, test: int) -> None:
    """CIFAR-100's files, with smooth random images."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True)
    for name, count in (("train", train), ("test", test)):
        coarse = rng.integers(0, 256, (count, 3, 8, 8)).repeat(4, 2).repeat(4, 3)
        images = np.clip(coarse + rng.integers(-9, 10, (count, 3, 32, 32)), 0, 255).reshape(count, -1)
        labels = np.stack([np.arange(count) % 20, np.arange(count) % 100], 1)
        write(folder / f"{name}.bin", np.concatenate([labels, images], 1).astype(np.uint8).tobytes())
