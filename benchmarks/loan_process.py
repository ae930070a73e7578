"""A stage of a loan in a process of its own: a time limit that its children can't outlive, and results kept as they come.

Nothing but the standard library: this must run before anything has been unpacked.
"""

import argparse
import itertools
import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parents[1]
LEAST = 4.0  # seconds with which a stage is worth starting
CLOSING = 3.0  # of a call, for its last lines
STATE = "state.json"
MARK = "STAA_LOAN_STAGE"
"""Environment variable that a stage and all its children inherit, whatever sessions they start: by it they are found."""
GRACE = 1 << 20  # bytes of a log that a stage may at least write
FAULT = "STAA_LOAN_FAULT"
"""Environment variable with faults to inject, for tests (benchmarks/loan_stages.py)."""
HANG = 10.0  # seconds after which a stage is killed that hangs because it was told to
PROGRAM = (sys.executable, "-u", "-m", "benchmarks.loan_stages")
_numbers = itertools.count()


@dataclass
class Outcome:
    """How a stage ended, "done", "failed", "late" or "skipped", and what it had found until then."""

    stage: str
    status: str
    seconds: float = 0.0
    results: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class Journal:
    """What comes home of a call: NAME.jsonl with a line for each result, NAME.log with what the stages printed."""

    out: Path
    name: str
    most: int
    """bytes of the log"""

    @property
    def results(self) -> Path:
        return self.out / f"{self.name}.jsonl"

    @property
    def log(self) -> Path:
        return self.out / f"{self.name}.log"

    def tell(self, **what: Any) -> None:
        """A line for the results, and for whoever looks on."""
        line = json.dumps(what, default=str)
        with open(self.results, "a") as file:
            file.write(line + "\n")
        print(line, flush=True)

    def trim(self, since: int) -> None:
        """Cut the middle out of what a stage has logged, if it took more than half of the room that was left."""
        room = max((self.most - since) // 2, GRACE)
        data = self.log.read_bytes()[since:]
        if len(data) > room:
            middle = f"\n… {len(data) - room} bytes left out …\n".encode()
            os.truncate(self.log, since)
            with open(self.log, "ab") as file:
                file.write(data[: room // 2] + middle + data[-room // 2 :])


def run_stages(
    stage: str,
    jobs: Sequence[Mapping[str, Any]],
    seconds: float,
    journal: Journal,
    environment: Mapping[str, str],
    program: Sequence[str] = PROGRAM,
) -> list[Outcome]:
    """Run a stage, once for each job, all at the same time; kill at the limit what still runs, with its children.

    A job is what the stage is called with (`benchmarks.loan_stages`). Its lines for the results are written by the stage
    itself, the moment it has them, so whatever becomes of it they are there.
    """
    began = time.monotonic()
    journal.log.touch()
    journal.results.touch()
    since, offset = journal.log.stat().st_size, journal.results.stat().st_size
    started: list[tuple[str, subprocess.Popen[bytes]]] = []
    ended: dict[str, tuple[str, float]] = {}
    try:
        for job in jobs:
            mark = f"{stage}-{os.getpid()}-{next(_numbers)}"
            clock = {"launched": time.time(), "ends": time.time() + seconds}
            call = {**job, **clock, "stage": stage, "mark": mark, "journal": str(journal.results)}
            with open(journal.log, "ab") as log:
                log.write(f"\n=== {mark}\n".encode())
                log.flush()
                process = subprocess.Popen(
                    [*program, json.dumps(call)],
                    cwd=HERE, env={**environment, MARK: mark}, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                    start_new_session=True,
                )  # fmt: skip
            started.append((mark, process))
        while len(ended) < len(started) and time.monotonic() - began < seconds:
            for mark, process in started:
                if mark not in ended and process.poll() is not None:
                    ended[mark] = "done" if process.returncode == 0 else "failed", time.monotonic() - began
            time.sleep(0.05)
    finally:
        for mark, process in started:
            end(mark)
            process.wait()
    outcomes = []
    found = []
    for line in journal.results.read_bytes()[offset:].splitlines():
        with suppress(ValueError):  # a stage was killed while it wrote
            found.append(json.loads(line))
    for (mark, _), job in zip(started, jobs, strict=True):
        status, took = ended.get(mark, ("late", time.monotonic() - began))
        mine = [{k: v for k, v in line.items() if k not in ("stage", "mark")} for line in found if line.get("mark") == mark]
        outcomes.append(Outcome(stage, status, took, mine))
        for line in mine:
            print(json.dumps({"stage": stage, **line}), flush=True)
        of = {"recipe": job["recipe"]} if "recipe" in job else {}
        journal.tell(stage=stage, **of, status=status, took=round(took, 1), limit=round(seconds, 1))
    journal.trim(since)
    return outcomes


def end(mark: str) -> None:
    """Kill every process that inherited a mark, again until there is none: one may have just started another."""
    for _ in range(50):
        marked = [pid for pid, value in marks() if value == mark]
        if not marked:
            return
        for pid in marked:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)


def marks() -> list[tuple[int, str]]:
    """(process, mark) of all that have one; a process that has ended and was not waited for has none."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            for entry in (folder / "environ").read_bytes().split(b"\0"):
                if entry.startswith(f"{MARK}=".encode()):
                    found.append((int(folder.name), entry.decode(errors="replace").partition("=")[2]))
    return found


def end_strays(tell: Callable[[str], object]) -> None:
    """Kill what is left of an earlier call whose own process was killed before it could."""
    for pid, mark in marks():
        with suppress(IndexError, ValueError, ProcessLookupError, PermissionError):
            owner = int(mark.split("-")[1])
            if not Path(f"/proc/{owner}").exists():
                os.kill(pid, signal.SIGKILL)
                tell(f"{mark} was left over from an earlier call, and is ended")


class Call:
    """One call: its clock, what it has to say, and what it knows from the calls before on this machine."""

    def __init__(self, options: argparse.Namespace):
        self.options, self.began = options, time.monotonic()
        for name in ("out", "work", "data", "cargo"):
            setattr(options, name, getattr(options, name).resolve())
        options.out.mkdir(parents=True, exist_ok=True)
        options.work.mkdir(parents=True, exist_ok=True)
        self.journal = Journal(options.out, options.command, int(options.mib * 2**20))
        self.state: dict[str, Any] = {}
        if (options.work / STATE).is_file():
            self.state = json.loads((options.work / STATE).read_text())
        self.statuses: list[tuple[str, str]] = []
        site = options.work / "site"
        for wheel in options.cargo.rglob("*.whl"):
            try:
                with zipfile.ZipFile(wheel) as file:
                    file.extractall(site)
            except zipfile.BadZipFile as error:
                self.note(f"{wheel.name} can't be unpacked: {error}")
        about = options.cargo / "about.json"
        self.commit = json.loads(about.read_text())["commit"] if about.is_file() else None
        path = [str(HERE), str(site), os.environ.get("PYTHONPATH", "")]
        caches = {f"{name}_CACHE_DIR": str(options.work / name.lower()) for name in ("TRITON", "TORCHINDUCTOR")}
        self.environment = {**os.environ, **caches, "PYTHONPATH": os.pathsep.join(filter(None, path))}
        self.how = {"data": str(options.data), "seed": options.seed, "policy": options.policy, "small": options.small}
        self.how["device"] = options.device

    def left(self) -> float:
        return self.options.seconds - (time.monotonic() - self.began) - CLOSING

    def note(self, text: str) -> None:
        self.journal.tell(note=text)

    def remember(self, **what: Any) -> None:
        self.state |= what
        (self.options.work / f"{STATE}.new").write_text(json.dumps(self.state))
        os.replace(self.options.work / f"{STATE}.new", self.options.work / STATE)

    def stage(self, name: str, seconds: float, **job: Any) -> Outcome:
        return self.together(name, seconds, [job])[0]

    def together(self, name: str, seconds: float, jobs: Sequence[dict[str, Any]], *, slow: bool = False) -> list[Outcome]:
        """The outcomes of a stage's jobs, run at the same time; slow: by the reference path."""
        seconds = min(seconds * self.options.patience, self.left(), *(() if name == "train" else (self.options.stage_seconds,)))
        if seconds < LEAST:
            outcomes = [Outcome(name, "skipped") for _ in jobs]
            self.note(f"{name} was skipped: {max(0.0, seconds):.0f} s are left")
        else:
            if f"{name}:hang" in os.environ.get(FAULT, "").split(","):
                seconds = min(seconds, HANG)
            environment = {**self.environment, **({"STAA_REFERENCE": "1"} if slow else {})}
            outcomes = run_stages(name, [{**self.how, **job} for job in jobs], seconds, self.journal, environment)
        self.statuses += [(name, outcome.status) for outcome in outcomes]
        return outcomes

    def close(self) -> None:
        """The last line: how the stages ended, and what there is to bring home."""
        files = {p.name: round(p.stat().st_size / 2**20, 2) for p in sorted(self.options.out.iterdir()) if p.is_file()}
        large = [name for name, size in files.items() if size > self.options.mib]
        if large or len(files) > self.options.files:
            self.note(f"more than may come home: {len(files)} files, too large {large}")
        count = {status: [n for n, s in self.statuses if s == status] for status in ("done", "failed", "late", "skipped")}
        told = ", ".join(
            f"{len(names)} {status}" + (f" ({', '.join(names)})" if status != "done" else "")
            for status, names in count.items()
            if names
        )
        took = time.monotonic() - self.began
        self.journal.tell(summary=f"{self.options.command}: {told}; {took:.0f} s of {self.options.seconds:.0f}", home_mib=files)
