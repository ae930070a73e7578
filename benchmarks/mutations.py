"""Broken and hostile files of every kind that staa reads:  python -m benchmarks.mutations [--kind K …] [--count N] [--seed S]

Each mutant is read in a child process that is forked warm, a batch a child, so that a crash or a hang is counted and the next
child goes on behind it. A mutant is accepted, or ends in a clean error (ValueError, OSError or ImportError, one line that names
the file); every other outcome is a fault, and the exit code is then 1. Writes results/mutations.json after each kind, and
mutations.md; what is there of the same commit, seed and count is not run again. --show N: the traceback of mutant N of a kind.
"""

import argparse
import faulthandler
import json
import os
import platform
import random
import resource
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from benchmarks.mutators import BLIND, CANARY, TWO_LINES
from benchmarks.samples import HERE, Sample, WrongError, samples
from staa.files import LIMIT

OUTCOMES = ("accepted", "clean error", "unclear error", "traceback", "wrong", "crash", "hang", "code run")
GOOD = OUTCOMES[:2]
BATCH = 250  # mutants a child
FORKING = threading.Lock()  # a child that held another's end of a pipe would keep it open
SECONDS = 10  # after which a mutant hangs
MAY_TAKE = 64 << 20  # bytes: STAA_MAX_BYTES of the children
ROOM = 3 << 30  # bytes of address space that a child may add; more is a MemoryError
PACKAGES = ("torch", "numpy", "pandas", "pillow", "h5py", "tables", "aedat", "safetensors")

RUNS_CODE = (
    "canary", "os.system", "os.exec", "os.spawn", "os.posix_spawn", "os.fork", "os.kill", "os.startfile", "subprocess.Popen",
    "socket.connect", "socket.bind", "pickle.find_class", "pty.spawn", "webbrowser.open",
)  # fmt: skip
CHANGES = (
    "os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.chmod", "os.chown", "os.link", "os.symlink", "os.truncate", "shutil.",
)  # fmt: skip
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


def mutant(kind: str, some: Sequence[Sample], seed: int, number: int) -> tuple[Sample, bytes]:
    """The sample that is mutated, and the mutant: of one to three mutations, half of them of those that know the format."""
    draw = random.Random(f"{seed} {kind} {number}")
    sample = some[number % len(some)]
    data = sample.data
    count = draw.choice((1, 1, 1, 2, 3))
    known = sum(draw.random() < 0.6 for _ in range(count)) if sample.mutators else 0
    for k in range(count):  # what knows the format goes first, and so meets a whole file
        data = draw.choice(sample.mutators if k < known else BLIND)(data, draw)
    return sample, data


class Watch:
    """An audit hook: notes and refuses what runs code or writes outside a folder, while it is on."""

    def __init__(self, folder: Path):
        self.folder, self.on, self.seen = str(folder), False, []
        sys.addaudithook(self)

    def __call__(self, event: str, args: tuple[Any, ...]) -> None:
        if not self.on:
            return
        foreign = event == "exec" and str(args[0].co_filename).endswith((CANARY, os.__file__))
        if foreign or event.startswith(RUNS_CODE):
            self._refuse(f"{event} {args!r:.80}")
        elif event == "open" and isinstance(args[0], (str, bytes)) and args[2] & WRITING and self._is_outside(args[0]):
            self._refuse(f"open {args[0]!r:.80} to write")
        elif event.startswith(CHANGES) and isinstance(args[0], (str, bytes)) and self._is_outside(args[0]):
            self._refuse(f"{event} {args[0]!r:.80}")

    def _is_outside(self, path: str | bytes) -> bool:
        return not os.path.abspath(os.fsdecode(path)).startswith((self.folder, "/dev/null"))

    def _refuse(self, what: str) -> None:
        self.seen.append(what)
        raise PermissionError(f"refused: {what}")


def prepare(some: Sequence[Sample], folder: Path) -> None:
    """Lay out what lies beside the samples' files, each sample in a folder of its own."""
    for k, sample in enumerate(some):
        for name, data in {**sample.beside, sample.name: sample.data}.items():
            path = folder / str(k) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data.replace(HERE.encode(), str(folder / str(k)).encode()))


def read(sample: Sample, data: bytes, home: Path) -> None:
    path = home / sample.name
    path.write_bytes(data.replace(HERE.encode(), str(home).encode()))
    try:
        sample.read(path)
    finally:
        path.write_bytes(sample.data.replace(HERE.encode(), str(home).encode()))


def judge(sample: Sample, data: bytes, home: Path, watch: Watch) -> tuple[str, str]:
    """(outcome, what happened, in short) of reading a mutant."""
    watch.seen, watch.on = [], True
    try:
        read(sample, data, home)
        outcome = "accepted", ""
    except WrongError as error:
        outcome = "wrong", str(error)
    except (ValueError, OSError, ImportError) as error:
        text = str(error).replace(TWO_LINES, "")
        named = (Path(sample.name).name in text or str(home) in text) and "\n" not in text
        outcome = ("clean error", "") if named else ("unclear error", _short(error))
    except BaseException as error:
        outcome = "traceback", _short(error)
    finally:
        watch.on = False
    return ("code run", watch.seen[0]) if watch.seen else outcome


def _short(error: BaseException) -> str:
    """The error's type and text, and the deepest line of staa that it went through."""
    lines = [f for f in traceback.extract_tb(error.__traceback__) if "/staa/" in f.filename]
    where = f" ({Path(lines[-1].filename).name}:{lines[-1].lineno})" if lines else ""
    return f"{type(error).__name__}: {str(error).split(chr(10))[0]:.100}{where}"


def child(kind: str, some: Sequence[Sample], seed: int, numbers: range, folder: Path, pipe: int) -> None:
    """Read mutants, telling each as it begins and its outcome as it ends: lines of JSON."""
    silent = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(silent, descriptor)
    faulthandler.disable()  # a crash is counted, not told
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ[LIMIT] = str(MAY_TAKE)
    pages = int(Path("/proc/self/statm").read_text().split()[0]) if Path("/proc/self/statm").exists() else None
    if pages is not None:
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + ROOM,) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    warnings.simplefilter("ignore")
    sys.dont_write_bytecode = True
    tempfile.tempdir = str(folder)
    watch, before = Watch(folder), _peak()
    for number in numbers:
        os.write(pipe, b"%d\n" % number)
        sample, data = mutant(kind, some, seed, number)
        os.write(pipe, b"\n")  # the mutant is made; now it is read
        told = [number, *judge(sample, data, folder / str(number % len(some)), watch), _peak() - before]
        os.write(pipe, json.dumps(told).encode() + b"\n")


def _peak() -> int:
    """Bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _be_child(*args: Any) -> None:
    errors = os.dup(2)
    try:
        child(*args)
    except BaseException:  # a fault of a mutator's, or of this file
        os.write(errors, traceback.format_exc().encode())
        os._exit(1)
    os._exit(0)


def run_batch(kind: str, some: Sequence[Sample], seed: int, numbers: range) -> list[tuple[int, str, str, int]]:
    """(number, outcome, what happened, peak memory) of each mutant."""
    found: list[tuple[int, str, str, int]] = []
    while len(numbers):
        folder = Path(tempfile.mkdtemp(prefix="staa-mutants-"))
        prepare(some, folder)
        with FORKING:
            reading, writing = os.pipe()
            pid = os.fork()
            if pid == 0:
                _be_child(kind, some, seed, numbers, folder, writing)
            os.close(writing)
        results, hung = _listen(reading)
        os.close(reading)
        if hung:
            os.kill(pid, signal.SIGKILL)
        status = os.waitpid(pid, 0)[1]
        shutil.rmtree(folder, ignore_errors=True)
        found += results
        done = numbers.start + len(results)
        if done < numbers.stop:
            if hung:
                found.append((done, "hang", f"nothing for {SECONDS} s", 0))
            else:
                how = signal.Signals(os.WTERMSIG(status)).name if os.WIFSIGNALED(status) else f"exit {os.WEXITSTATUS(status)}"
                found.append((done, "crash", how, 0))
            done += 1
        numbers = range(done, numbers.stop)
    return found


def _listen(pipe: int) -> tuple[list[tuple[int, str, str, int]], bool]:
    """What a child tells of its mutants, until it ends or falls silent (True). Raises RuntimeError if one could not be made."""
    text, begun, made, results = b"", -1, True, []
    while True:
        ready, _, _ = select.select([pipe], [], [], SECONDS)
        if not ready:
            return results, True
        piece = os.read(pipe, 65536)
        if not piece:
            if not made:
                raise RuntimeError(f"mutant {begun} could not be made")
            return results, False
        *lines, text = (text + piece).split(b"\n")
        for line in lines:
            if line.startswith(b"["):
                results.append(tuple(json.loads(line)))
            elif line:
                begun, made = int(line), False
            else:
                made = True


def measure(kind: str, some: Sequence[Sample], *, seed: int, count: int, jobs: int = 1) -> dict[str, Any]:
    """Counts of outcomes, peak memory above the child's own in MiB, speed, and the commonest faults with a mutant of each."""
    began = time.perf_counter()
    batches = [range(k, min(k + BATCH, count)) for k in range(0, count, BATCH)]
    with ThreadPoolExecutor(jobs) as pool:
        found = [r for rows in pool.map(lambda numbers: run_batch(kind, some, seed, numbers), batches) for r in rows]
    assert len(found) == count
    counts = Counter(outcome for _, outcome, _, _ in found)
    faults: dict[str, dict[str, Any]] = {}
    for number, outcome, what, _ in found:
        if outcome not in GOOD:
            fault = faults.setdefault(f"{outcome}: {what}", {"count": 0, "first": number})
            fault["count"] += 1
    worst = dict(sorted(faults.items(), key=lambda item: -item[1]["count"])[:20])
    return {
        **{outcome: counts[outcome] for outcome in OUTCOMES},
        "peak_mib": round(max(peak for *_, peak in found) / 2**20),
        "per_second": round(count / (time.perf_counter() - began)),
        "faults": worst,
    }


def is_clean(row: dict[str, Any]) -> bool:
    return not any(row[outcome] for outcome in OUTCOMES if outcome not in GOOD)


def check_samples(kinds: dict[str, list[Sample]]) -> None:
    """Raises unless every sample is read as it is; this also imports what the children will need."""
    for kind, some in kinds.items():
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            prepare(some, Path(folder))
            for k, sample in enumerate(some):
                try:
                    read(sample, sample.data, Path(folder) / str(k))
                except Exception as error:
                    raise RuntimeError(f"sample {k} of {kind} is not read as it is") from error


def markdown(about: dict[str, Any], rows: dict[str, dict[str, Any]]) -> str:
    heads = (*OUTCOMES, "peak MiB", "a second")
    lines = [
        "# Mutated files",
        "",
        f"{about['count']:,} mutants a kind, seed {about['seed']}; versions of libraries are in mutations.json.",
        "Peak memory is what reading added to the child process. `python -m benchmarks.mutations` runs it anew.",
        "",
        f"| kind | commit | {' | '.join(heads)} |",
        f"|---|---|{'---:|' * len(heads)}",
    ]
    for kind, row in rows.items():
        cells = [*(row[outcome] for outcome in OUTCOMES), row["peak_mib"], row["per_second"]]
        lines.append(f"| {kind} | {row['commit']} | {' | '.join(f'{cell:,}' for cell in cells)} |")
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kind", nargs="+", help="by default all")
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("results"))
    parser.add_argument("--show", type=int, help="the traceback of this mutant, read in this process")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        kinds = samples(Path(folder))
        if unknown := set(options.kind or ()) - kinds.keys():
            raise SystemExit(f"no kind {', '.join(unknown)}; there are {', '.join(kinds)}")
        chosen = {kind: kinds[kind] for kind in options.kind or kinds}
        if options.show is not None:
            return show(*next(iter(chosen.items())), options.seed, options.show, Path(folder))
        check_samples(chosen)
        commit = subprocess.run(["git", "describe", "--always", "--dirty=+"], capture_output=True, text=True).stdout.strip()
        versions = ", ".join(
            [f"Python {platform.python_version()}", *(f"{name} {version(name)}" for name in PACKAGES if _is_there(name))]
        )
        about = {"seed": options.seed, "count": options.count}
        path = options.out / "mutations.json"
        kept = json.loads(path.read_text()) if path.is_file() else {}
        rows = kept["kinds"] if kept.get("about") == about else {}
        for kind, some in chosen.items():
            if rows.get(kind, {}).get("commit") != commit or commit.endswith("+"):
                found = measure(kind, some, seed=options.seed, count=options.count, jobs=options.jobs)
                rows[kind] = {"commit": commit, "versions": versions, **found}
            print(
                f"{kind:<22}",
                "  ".join(f"{o} {rows[kind][o]}" for o in OUTCOMES if rows[kind][o]),
                f" ({rows[kind]['per_second']}/s, {rows[kind]['peak_mib']} MiB)",
                flush=True,
            )
            options.out.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps({"about": about, "kinds": rows}, indent=1) + "\n")
            (options.out / "mutations.md").write_text(markdown(about, rows))
    return 0 if all(is_clean(rows[kind]) for kind in chosen) else 1


def show(kind: str, some: Sequence[Sample], seed: int, number: int, folder: Path) -> int:
    os.environ[LIMIT] = str(MAY_TAKE)
    sample, data = mutant(kind, some, seed, number)
    home = folder / "shown"
    prepare(some, home)
    print(f"{len(data)} bytes, {data[:300]!r}")
    read(sample, data, home / str(number % len(some)))
    return 0


def _is_there(name: str) -> bool:
    from importlib.metadata import PackageNotFoundError

    try:
        return bool(version(name))
    except PackageNotFoundError:
        return False


if __name__ == "__main__":
    sys.exit(main())
