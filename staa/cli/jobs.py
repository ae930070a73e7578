"""Runs of a sweep: one after the other in this process, or several at once, each in a process of its own.

A worker process reads a job a line from its input and writes the job's events, a line each. Once its input ends, since it is
told to stop or the process that began it is gone, it ends its step, saves and ends.
"""

import json
import os
import queue
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from staa.cli.machine import keeps_pages
from staa.machine import keep_pages
from staa.recipes.as_json import from_json, parse_json, to_json
from staa.recipes.recipe import Recipe
from staa.runs import run
from staa.runs.folder import RECIPE
from staa.runs.log import log
from staa.training.progress import Epoch, Interrupted, Start, Warned, for_log

BEGIN = "import json, sys; sys.path[:], sys.argv[:] = json.loads(sys.stdin.readline()); from staa.cli.jobs import work; work()"
OVER = ("trained", "failed", "stopped")
"""The last event of a job."""
LOOK = 0.2  # seconds between two looks at whether to stop


@dataclass(frozen=True)
class Job:
    """A run to train up to its last step, or to go on with; the test set is left alone."""

    recipe: Recipe
    folder: Path
    data_root: Path
    device: str | None = None
    workers: int | None = None
    deterministic: bool = False


def run_jobs(
    jobs: Sequence[Job], *, at_once: int, threads: int, stop: Callable[[], bool]
) -> Iterator[tuple[Job, dict[str, Any]]]:
    """Train all jobs, yielding what happens as it does: (job, event as the log has it), with one of `OVER` as its last.

    threads: of each process. stop: once it is true, running jobs save and end, and no other begins. A job that fails says
    why in "text", and stops no other.
    """
    if at_once == 1:
        for job in jobs:
            if stop():
                return
            for event in events_of(job, stop):
                yield job, event
        return
    waiting, told, processes = deque(jobs), queue.Queue[tuple[Job, dict[str, Any]] | None](), list[subprocess.Popen[str]]()
    over = threading.Event()

    def serve() -> None:
        process = None
        try:
            while not over.is_set():
                try:
                    job = waiting.popleft()
                except IndexError:
                    break
                if process is None:
                    process = _begin(threads)
                    processes.append(process)
                    if over.is_set():  # since it was looked at
                        _close(process)
                if not _has_done(process, job, told.put):
                    process = None
        finally:
            if process is not None:
                _close(process)
                process.wait()
            told.put(None)

    servers = [threading.Thread(target=serve, daemon=True) for _ in range(min(at_once, len(jobs)))]
    try:
        for server in servers:
            server.start()
        serving = len(servers)
        while serving:
            if stop() and not over.is_set():
                over.set()
                for process in processes:
                    _close(process)
            try:
                one = told.get(timeout=LOOK)
            except queue.Empty:
                continue
            if one is None:
                serving -= 1
            else:
                yield one
    finally:
        over.set()
        for process in processes:  # none is left but after an error here, or if it is to end at once
            process.kill()


def events_of(job: Job, stop: Callable[[], bool]) -> Iterator[dict[str, Any]]:
    """Train a job, yielding its start, warnings, epochs, and how it ended."""
    last = None
    try:
        resume = job.folder if (job.folder / RECIPE).is_file() else None
        for last in run(
            job.recipe, job.folder, data_root=job.data_root, device=job.device, workers=job.workers, resume=resume,
            deterministic=job.deterministic, measure_test=False, stop=stop,
        ):  # fmt: skip
            if isinstance(last, Start | Warned | Epoch):
                yield for_log(last)
    except FloatingPointError as error:  # which the same steps would meet again
        log(job.folder, {"event": "failed", "text": str(error)})
        yield {"event": "failed", "text": str(error)}
    except (ValueError, OSError, RuntimeError, MemoryError) as error:
        yield {"event": "failed", "text": str(error) or type(error).__name__}
    else:
        yield {"event": "stopped" if isinstance(last, Interrupted) else "trained"}


def work() -> None:
    """A worker process: `run_jobs` begins it."""
    if keeps_pages():
        keep_pages()
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints is no event
    jobs, over = queue.Queue[str | None](), threading.Event()

    def listen() -> None:
        for line in sys.stdin:
            jobs.put(line)
        over.set()
        jobs.put(None)

    threading.Thread(target=listen, daemon=True).start()
    while (line := jobs.get()) is not None and not over.is_set():
        for event in events_of(_job(line), over.is_set):
            try:
                out.write(json.dumps(event) + "\n")
                out.flush()
            except BrokenPipeError:  # nobody is there, so that the input has ended too
                over.wait()


def _begin(threads: int) -> "subprocess.Popen[str]":
    """A worker with so many threads, in a group of its own, so that a terminal's Ctrl-C does not reach it."""
    env = os.environ | {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    pipe = subprocess.PIPE
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", BEGIN], stdin=pipe, stdout=pipe, env=env, text=True, process_group=0, bufsize=1
    )
    _send(process, json.dumps([sys.path, sys.argv]))
    return process


def _has_done(process: "subprocess.Popen[str]", job: Job, tell: Callable[[tuple[Job, dict[str, Any]]], None]) -> bool:
    """Give a worker a job and tell its events; whether it lives to take another one."""
    paths = {"folder": str(job.folder), "data_root": str(job.data_root)}
    others = {"device": job.device, "workers": job.workers, "deterministic": job.deterministic}
    _send(process, json.dumps({"recipe": to_json(job.recipe), **paths, **others}))
    assert process.stdout is not None
    for line in process.stdout:
        event = parse_json(line)
        tell((job, event))
        if event["event"] in OVER:
            return True
    code = process.wait()
    died = f"its process died ({f'signal {-code}' if code < 0 else f'exit code {code}'})"
    tell((job, {"event": "failed", "text": died} if code else {"event": "stopped"}))  # 0: it was told to before the job came
    return False


def _job(line: str) -> Job:
    """The job of such a line. Its recipe is that of this user's command, as are the files that it names."""
    told = parse_json(line)
    recipe = replace(from_json(told["recipe"]), folder=None)
    return Job(recipe, Path(told["folder"]), Path(told["data_root"]), told["device"], told["workers"], told["deterministic"])


def _send(process: "subprocess.Popen[str]", line: str) -> None:
    assert process.stdin is not None
    with suppress(BrokenPipeError, ValueError):  # it died, or was told to stop: its output has ended or will
        process.stdin.write(line + "\n")
        process.stdin.flush()


def _close(process: "subprocess.Popen[str]") -> None:
    """Let a worker end its step, save and end."""
    assert process.stdin is not None
    with suppress(BrokenPipeError):
        process.stdin.close()
