"""Hours of training that is killed, starved of disk and has its files broken, and must end as if nothing had happened:

    python -m benchmarks.soak FOLDER --minutes 60 [--seed S] [--lives N] [--case NAME …]

Case after case, a run is trained to its end undisturbed, then again by a row of lives. Each life resumes what the one before
it has left, and is ended at a moment chosen by chance by SIGKILL, SIGTERM, SIGINT or a disk that takes no more (a limit on the
length of a file). Before some lives the last checkpoint, frames in the cache or the end of the log are broken. The last life is
left alone. Then weights, optimizer, figures and log must be those of the undisturbed run, bit for bit, and nothing else may lie
in the run folder.

A life is a process, forked warm, that runs `staa train`. FOLDER must be new. It takes data, runs and soak.jsonl, which has a
line for each life and each case and sums up in the last one. The exit code is 1 if anything differed, or if a life ended as it
should not.
"""

import argparse
import json
import multiprocessing
import os
import random
import re
import resource
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from PIL import Image

from staa.cli import main as staa
from staa.files import append_text
from staa.recipes.code import CODE
from staa.runs.folder import ENVIRONMENT, RECIPE, RESULT
from staa.runs.log import LOG, events_of
from staa.training.checkpoint import BEST, LAST, PREVIOUS, load_checkpoint

HERE = "soak.jsonl"
SIDE = 16  # pixels
SAMPLES = 12  # a class
HANGS = 300  # seconds after which a life hangs
KNOWN = {CODE, RECIPE, ENVIRONMENT, RESULT, LOG, LAST, PREVIOUS, BEST}
TIMES = {"time", "seconds", "waited", "samples_per_second"}  # what the clock says of an event
OPTIONS = ("--device", "cpu", "--save-minutes", "0.0005")  # a save after nearly every step
EVENTS = (
    "events-folder-vggsnn-staa", "--data.size", f"{SIDE}", "--data.sensor", f"{SIDE}x{SIDE}", "--model.width", "0.05",
)  # fmt: skip
CASES: dict[str, tuple[str, ...]] = {
    "short": (*EVENTS, "--model.steps", "2", "--batch-size", "8", "--epochs", "4"),
    "events": (*EVENTS, "--model.steps", "3", "--batch-size", "4", "--epochs", "12"),
    "average": (
        *EVENTS, "--model.steps", "2", "--batch-size", "6", "--epochs", "12", "--optim.ema", "0.9", "--optim.accumulate", "2",
        "--augment.events", "nda",
    ),
    "images": (
        "folder-resnet18-staa", "--model.name", "resnet20", "--data.size", f"{SIDE}", "--data.resize", f"{SIDE}",
        "--model.width", "0.25", "--model.steps", "2", "--batch-size", "6", "--epochs", "8",
    ),
    "forecast": ("series-spikestag", "--forecast.width", "8", "--series.horizon", "3", "--batch-size", "32", "--epochs", "6"),
}  # fmt: skip
"""What is trained: the command's arguments but for folders"""
ENDS = {"kill": signal.SIGKILL, "terminate": signal.SIGTERM, "interrupt": signal.SIGINT}
BREAKS = ("checkpoint", "cache", "log")
CODES = {
    "kill": {0, -signal.SIGKILL}, "terminate": {0, 130, -signal.SIGTERM}, "interrupt": {0, 130}, "disk": {0, 1}, "none": {0},
}  # fmt: skip
"""How a life may end, by what is done to it: 0 comes of a moment after its end"""


class Life(NamedTuple):
    """The exit code of a process that trained, negative for a signal and None if it hung, and what it said."""

    code: int | None
    said: str


def make_data(folder: Path) -> dict[str, Path]:
    """For each case: recordings of two classes, in the upper or the lower half; images of two colours; a table of series."""
    rng, n = np.random.default_rng(0), 400
    for k, name in enumerate(("first", "second")):
        (folder / "events" / name).mkdir(parents=True)
        (folder / "images" / name).mkdir(parents=True)
        for number in range(SAMPLES):
            t, x = np.sort(rng.integers(0, 100_000, n)), rng.integers(0, SIDE, n)
            y, p = rng.integers(0, SIDE // 2, n) + k * SIDE // 2, rng.integers(0, 2, n)
            np.savez(folder / f"events/{name}/{number}.npz", t=t, x=x, y=y, p=p)
            pixels = rng.integers(0, 128, (SIDE, SIDE, 3), np.uint8)
            pixels[..., k] += 96
            Image.fromarray(pixels).save(folder / f"images/{name}/{number}.png")
    hours = np.arange(200)
    waves = 10 + np.sin(2 * np.pi * (hours[:, None] / 24 + np.arange(4) / 4)) + 0.1 * rng.standard_normal((200, 4))
    table = pd.DataFrame(waves, pd.Timestamp("2026-01-01") + hours * pd.Timedelta("1h"), list("abcd"))
    table.to_csv(folder / "table.csv", index_label="time")
    events = folder / "events"
    return {"short": events, "events": events, "average": events, "images": folder / "images", "forecast": folder / "table.csv"}


def live(argv: list[str], said: Path, fault: str = "none", after: float = 0.0, most: int = 0) -> Life:
    """Run a command in a process of its own, to which the fault comes after so many seconds. most: bytes of a file on a disk
    that is full."""

    def run() -> None:
        with open(said, "wb") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        sys.exit(staa(argv))

    process = multiprocessing.get_context("fork").Process(target=run)
    process.start()
    process.join(after)
    if process.pid is not None and process.exitcode is None:
        if fault in ENDS:
            os.kill(process.pid, ENDS[fault])
        elif fault == "disk":
            resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (most, resource.RLIM_INFINITY))
    process.join(HANGS)
    code = process.exitcode
    if code is None:
        process.kill()
        process.join()
    return Life(code, said.read_text(errors="replace") if said.exists() else "")


def step_of(folder: Path) -> int:
    """The step of the newest checkpoint that is whole; 0 if there is none."""
    for name in (LAST, PREVIOUS):
        try:
            return int(load_checkpoint(folder / name)["step"])
        except (ValueError, OSError):
            continue
    return 0


def break_file(what: str, folder: Path, cache: Path, rng: random.Random) -> bool:
    """Break a file as a crash, a bad disk or a careless hand would. Returns whether there was one to break."""
    if what == "log":
        path = folder / LOG
        if not path.is_file():
            return False
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) - rng.randrange(len(whole.splitlines()[-1]))])
        return True
    files = [folder / LAST] if what == "checkpoint" else sorted(path for path in cache.rglob("*") if path.is_file())
    if what == "checkpoint" and not _two(folder):
        return False
    for path in rng.sample(files, min(rng.randint(1, 3), len(files))):
        data = bytearray(path.read_bytes())
        how = rng.choice(("flip", "cut", "empty", "lost"))
        if how == "lost":
            path.unlink()
            continue
        if how == "flip" and data:
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        path.write_bytes({"flip": data, "cut": data[: len(data) // 2], "empty": b""}[how])
    return bool(files)


def _two(folder: Path) -> bool:
    """Whether there are two whole checkpoints, so that one may be broken."""
    try:
        load_checkpoint(folder / LAST)
        load_checkpoint(folder / PREVIOUS)
    except (ValueError, OSError):
        return False
    return not (folder / LAST).samefile(folder / PREVIOUS)


def differences(found: Path, expected: Path) -> list[str]:
    """In what a run differs from the undisturbed one, in words; empty if in nothing."""
    odd = [f"{name} lies in the run folder" for name in sorted({p.name for p in found.iterdir()} - KNOWN)]
    for name in (LAST, BEST, RESULT):
        a, b = (folder / name for folder in (found, expected))
        if name == LAST:
            same = _equal(*(load_checkpoint(path) for path in (a, b)))
        else:
            same = a.read_bytes() == b.read_bytes()
        odd += [] if same else [f"{name} differs"]
    logs = [Counter(_told(folder)) for folder in (found, expected)]
    odd += [f"not in the log: {line[:200]}" for line in logs[1] if line not in logs[0]]
    odd += [f"in the log alone: {line[:200]}" for line in logs[0] if line not in logs[1]]
    odd += [f"twice in the log: {line[:200]}" for line, count in logs[0].items() if count > 1 and '"epoch"' in line[:20]]
    return odd


def _told(folder: Path) -> Iterator[str]:
    """The events of a log but for what the clock says."""
    for event in events_of(folder):
        if event["event"] in ("step", "epoch", "end", "result"):
            yield json.dumps({"event": event["event"], **{key: event[key] for key in event if key not in TIMES}})


def _equal(a: Any, b: Any) -> bool:
    """Whether two checkpoints are the same bit for bit, but for what the clock says."""
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(key in TIMES or _equal(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(_equal, a, b))
    return torch.equal(a, b) if isinstance(a, torch.Tensor) else bool(a == b)


def soak(case: str, data: Path, place: Path, rng: random.Random, lives: int) -> Iterator[dict[str, Any]]:
    """Train a case undisturbed, then with faults; a row for each life, then one for the case."""
    os.environ["STAA_FRAMES"] = str(place / "cache")
    train = ["train", *CASES[case], "--data", str(data), *OPTIONS]
    expected, folder, said = place / "undisturbed", place / "disturbed", place / "said.txt"
    began = time.perf_counter()
    first = live([*train, "--out", str(expected)], said)
    if first.code != 0:
        raise RuntimeError(f"the undisturbed run of {case} ended with {first.code}: {first.said}")
    seconds, size = time.perf_counter() - began, (expected / LAST).stat().st_size
    faults, odd, number = [*ENDS, "disk"], [], 0
    while not (folder / RESULT).is_file():
        turn = number % len(faults)
        if turn == 0:
            rng.shuffle(faults)
        fault, before = faults[turn] if number < lives else "none", step_of(folder)
        broken = [what for what in BREAKS if rng.random() < 0.3 and break_file(what, folder, place / "cache", rng)]
        begun = (folder / RECIPE).is_file()
        argv = ["train", "--resume", str(folder), *OPTIONS] if begun else [*train, "--out", str(folder)]
        after, most = rng.uniform(0, seconds / 3), rng.randrange(2 * size)
        life = live(argv, said, fault, after, most)
        advice = re.search(r"resume (\S+" + re.escape(PREVIOUS) + ")", life.said) if life.code == 2 else None
        if advice:  # it is followed
            life = live(["train", "--resume", advice[1], *OPTIONS], said, fault, after, most)
        step, problem = step_of(folder), ""
        if life.code not in CODES[fault]:
            problem = "it hung" if life.code is None else f"exit code {life.code}"
        elif "Traceback" in life.said or life.said.count("error:") > 1:
            problem = "not one line of error"
        elif step < before and "checkpoint" not in broken:
            problem = f"step {before} is lost: {step}"
        row = {"case": case, "life": number, "fault": fault, "broken": broken, "code": life.code, "step": step}
        yield {**row, "problem": problem, "said": life.said[-2000:]} if problem else row
        odd += [problem] if problem else []
        number += 1
        if number > lives + 5:
            odd.append("it came to no end")
            break
    odd += differences(folder, expected)
    yield {"case": case, "lives": number, "differences": odd, "seconds": round(time.perf_counter() - began, 1)}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--minutes", type=float, default=60.0, help="cases are begun for so long; at least one is")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--lives", type=int, default=16, help="of a case, before the last one")
    parser.add_argument("--case", nargs="+", choices=CASES, default=list(CASES)[1:])
    args = parser.parse_args()
    args.folder.mkdir(parents=True)
    places = make_data(args.folder / "data")
    began, counts, number = time.monotonic(), Counter[str](), 0
    while number == 0 or time.monotonic() - began < 60 * args.minutes:
        case, place = args.case[number % len(args.case)], args.folder / str(number)
        place.mkdir()
        for row in soak(case, places[case], place, random.Random(f"{args.seed} {number}"), args.lives):
            append_text(args.folder / HERE, json.dumps(row) + "\n")
            if "fault" in row:
                counts.update([row["fault"], *row["broken"]])
                continue
            counts.update(cases=1, lives=row["lives"], differences=len(row["differences"]))
            print(f"{case}: {row['lives']} lives, {row['seconds']} s", *row["differences"], sep="\n  ", flush=True)
        if not row["differences"]:
            shutil.rmtree(place)
        number += 1
    summary = {"minutes": round((time.monotonic() - began) / 60, 1), "seed": args.seed, **counts}
    append_text(args.folder / HERE, json.dumps(summary) + "\n")
    print(json.dumps(summary))
    return 1 if counts["differences"] else 0


if __name__ == "__main__":
    sys.exit(main())
