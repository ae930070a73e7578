"""Evidence that gathers while other work is done: paired runs, one after the other, on one core.

    python -m benchmarks.study next --minutes 150 --data data     # go on with the plan; killed, it goes on where it stopped
    python -m benchmarks.study table                              # what there is: paired differences and their intervals

results/study/plan.json says what is compared, in order of worth: for each comparison a baseline and its variants, what
`staa train` is told for each, and on which seeds. results/study/results.jsonl takes a line for each finished run.

A pair is two runs of one seed. It is bound to one commit and one version of torch, those of its first run: the second is
trained in a git worktree of that commit, with its own kernels. Only validation is looked at; the test set is left alone.
"""

import argparse
import contextlib
import json
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from staa.cli.options import TrainOptions
from staa.cli.parse import parse
from staa.files import append_text, save_text, save_with
from staa.locks import exclusive
from staa.recipes.find import find_recipe
from staa.runs import run
from staa.runs.folder import RECIPE
from staa.runs.log import LOG
from staa.training.progress import End, Result, Start

HERE = Path(__file__).resolve().parents[1]
PLAN, RESULTS, CURVE, FIGURE, BEGUN = "plan.json", "results.jsonl", "curve.json", "study.png", "begun.json"
WORK = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "staa-study"
RESAMPLES = 10_000


@dataclass(frozen=True)
class Job:
    """One run: who it is in the plan, and what `staa train` is told."""

    comparison: str
    variant: str
    seed: int
    command: tuple[str, ...]

    @property
    def pair(self) -> tuple[str, int]:
        return self.comparison, self.seed

    @property
    def key(self) -> tuple[str, str, int]:
        return self.comparison, self.variant, self.seed


def jobs(plan: Sequence[dict[str, Any]]) -> Iterator[Job]:
    """The plan's runs in its order: for each variant and seed the baseline, if it has not come yet, then the variant.

    Raises ValueError for a comparison that lacks something, or is there twice.
    """
    seen: set[tuple[str, str, int]] = set()
    names = [comparison.get("name") for comparison in plan]
    if len(set(names)) < len(names):
        raise ValueError("two comparisons have the same name")
    for comparison in plan:
        lacking = {"name", "baseline", "variants", "seeds"} - comparison.keys()
        if lacking:
            raise ValueError(f"comparison {comparison.get('name')} lacks {', '.join(sorted(lacking))}")
        variants, baseline = comparison["variants"], comparison["baseline"]
        unknown = ({baseline} | comparison["seeds"].keys()) - variants.keys()
        if unknown:
            raise ValueError(f"comparison {comparison['name']} does not say what {', '.join(sorted(unknown))} is")
        for variant, seeds in comparison["seeds"].items():
            for seed in seeds:
                for one in (baseline, variant):
                    job = Job(comparison["name"], one, seed, tuple(variants[one]))
                    if job.key not in seen:
                        seen.add(job.key)
                        yield job


def read_plan(results: Path) -> list[dict[str, Any]]:
    return json.loads((results / PLAN).read_text())["comparisons"]


def read_results(results: Path) -> list[dict[str, Any]]:
    path = results / RESULTS
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def choose(
    plan: Sequence[dict[str, Any]], done: Sequence[dict[str, Any]], begun: Collection[tuple[str, str, int]] = ()
) -> Job | None:
    """The next run: one that has begun, else the other half of an open pair, else the first in the plan's order.

    begun: keys of runs that were begun on this machine. None if the plan is done.
    """
    finished = {(r["comparison"], r["variant"], r["seed"]) for r in done}
    left = [job for job in jobs(plan) if job.key not in finished]
    baselines = {(c["name"], c["baseline"]) for c in plan}
    alone = {(c, seed) for c, variant, seed in finished if (c, variant) in baselines}
    alone -= {(c, seed) for c, variant, seed in finished if (c, variant) not in baselines}
    resumed = [job for job in left if job.key in begun]
    halves = [job for job in left if job.pair in alone]
    return next(iter([*resumed, *halves, *left]), None)


def follow(results: Path, work: Path, data: Path, *, minutes: float) -> None:
    """Train one run of the plan after the other until the time is over; each finished one is a line in results."""
    end = time.monotonic() + 60 * minutes
    stopping = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.append(True))
    with exclusive(work / "lock"):
        while time.monotonic() < end and not stopping:
            plan, done = read_plan(results), read_results(results)
            begun = _begun(work)
            job = choose(plan, done, begun)
            if job is None:
                print("the plan is done")
                return
            same = [r for r in done if (r["comparison"], r["seed"]) == job.pair]
            if same and same[0]["torch"] != torch.__version__:
                raise ValueError(
                    f"the pair {job.pair} was begun with torch {same[0]['torch']}, this is {torch.__version__}: install "
                    f"that one, or remove the pair's first line from {results / RESULTS}"
                )
            bound = [r["commit"] for r in same] + [c for key, c in begun.items() if (key[0], key[2]) == job.pair]
            commit = bound[0] if bound else _commit()
            save_text(work / BEGUN, json.dumps([[*key, at] for key, at in (begun | {job.key: commit}).items()]))
            checkout = _checkout(work, commit)
            folder = work / "runs" / f"{job.comparison}-{job.variant}-{job.seed}-{commit[:12]}"
            print(f"{time.strftime('%H:%M')} {job.comparison} {job.variant} seed {job.seed} at {commit[:12]}", flush=True)
            if not _train(job, folder, checkout, data, end, stopping):
                return
            curve = json.loads((folder / CURVE).read_text())
            line = {
                "comparison": job.comparison, "variant": job.variant, "seed": job.seed, "command": job.command,
                "commit": commit, "torch": torch.__version__, "threads": 1, "machine": platform.machine(), **curve,
            }  # fmt: skip
            append_text(results / RESULTS, json.dumps(line) + "\n")
            save_text(results / "table.md", as_table(differences(plan, read_results(results))))


def _train(job: Job, folder: Path, checkout: Path, data: Path, end: float, stopping: list[bool]) -> bool:
    """Train a run in the checkout in a process of its own, one thread, resumed if it had begun; whether it finished."""
    environment = os.environ | {"PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    arguments = ["--folder", str(folder), "--data", str(data.resolve()), "--", *job.command, "--seed", str(job.seed)]
    command = [sys.executable, "-m", "benchmarks.study", "train", *arguments]
    child = subprocess.Popen(command, cwd=checkout, env=environment, start_new_session=True)
    try:
        while child.poll() is None:
            if stopping or time.monotonic() > end:
                child.terminate()  # it saves first
                child.wait()
                return (folder / CURVE).is_file()
            time.sleep(0.5)
    finally:
        if child.poll() is None:
            child.kill()
    if child.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {child.returncode}")
    return (folder / CURVE).is_file()


def train_one(arguments: Sequence[str], folder: Path, data: Path) -> None:
    """Train what `staa train` would, up to the end of its last epoch: the test set is not measured. Writes curve.json."""
    torch.set_num_threads(1)
    with contextlib.suppress(OSError):  # Linux shares cores between sessions first, and niceness counts within one
        Path("/proc/self/autogroup").write_text(str(os.nice(0)))
    parent, stopping = os.getppid(), []
    signal.signal(signal.SIGTERM, lambda *_: stopping.append(True))
    name, *settings = arguments
    recipe = parse(TrainOptions, settings, "benchmarks.study", TrainOptions(recipe=find_recipe(name))).recipe
    _wait_for(folder)
    events = run(
        recipe,
        folder,
        data_root=data,
        device="cpu",
        workers=0,
        resume=folder if (folder / RECIPE).is_file() else None,
        stop=lambda: bool(stopping) or os.getppid() != parent,  # a killed parent is not outlived for long
    )
    parameters = None
    for event in events:
        if isinstance(event, Start):
            parameters = event.parameters
        if isinstance(event, Result):
            raise RuntimeError(f"{folder} was measured on the test set, which a study leaves alone: remove it")
        if isinstance(event, End):
            break
    else:
        return
    events.close()  # type: ignore[attr-defined]  # before the test set is touched
    epochs = {}
    for line in (folder / LOG).read_text().splitlines():
        event = json.loads(line)
        if event["event"] == "epoch":
            keep = ("epoch", "loss", "accuracy", "validation_loss", "validation_accuracy", "validation_mae", "seconds")
            epochs[event["epoch"]] = {key: event[key] for key in keep if key in event}
    curve = list(epochs.values())
    figures = {key.removeprefix("validation_"): value for key, value in curve[-1].items() if key.startswith("validation_")}
    summary = {
        "recipe": recipe.name, "epochs": len(curve), "parameters": parameters,
        "minutes": sum(epoch["seconds"] for epoch in curve) / 60, "validation": figures, "curve": curve,
    }  # fmt: skip
    save_text(folder / CURVE, json.dumps(summary))


def _wait_for(folder: Path) -> None:
    """Until a child whose parent was killed has saved and let go of the run folder."""
    for _ in range(60):
        try:
            with exclusive(folder):
                return
        except ValueError:
            time.sleep(1)


def _commit() -> str:
    """The commit of this checkout. Raises ValueError if the package or the benchmarks differ from it."""
    changed = _git("status", "--porcelain", "staa", "benchmarks")
    if changed:
        raise ValueError(f"a study trains what is committed; commit these first:\n{changed}")
    return _git("rev-parse", "HEAD")


def _checkout(work: Path, commit: str) -> Path:
    """A worktree of the commit with its kernels built, made if need be."""
    folder = work / "trees" / commit[:12]
    if not (folder / ".built").is_file():
        _git("worktree", "prune")
        if not folder.is_dir():
            _git("worktree", "add", "--detach", "--force", str(folder), commit)
        build = ["-c", "from setuptools import setup; setup()", "-q", "build_ext", "--inplace"]
        subprocess.run([sys.executable, *build], cwd=folder, check=True, capture_output=True)
        if not list((folder / "staa" / "ops").glob("_kernels*.so")):
            raise RuntimeError(f"the kernels could not be built in {folder}: a study needs a C compiler")
        (folder / ".built").touch()
    return folder


def _git(*words: str) -> str:
    return subprocess.run(["git", "-C", str(HERE), *words], check=True, capture_output=True, text=True).stdout.strip()


def _begun(work: Path) -> dict[tuple[str, str, int], str]:
    """The runs begun on this machine, each with its commit."""
    path = work / BEGUN
    return {(c, variant, seed): commit for c, variant, seed, commit in json.loads(path.read_text())} if path.is_file() else {}


@dataclass(frozen=True)
class Difference:
    """A variant against its baseline on the same seeds; figures are those of the last epoch on validation."""

    comparison: str
    variant: str
    baseline: float
    differences: tuple[float, ...]
    student: tuple[float, float] | None
    """95 % interval of the mean difference by Student's t; None for a single pair."""
    bootstrap: tuple[float, float] | None
    time: float
    """Training time over the baseline's."""
    parameters: float
    planned: int
    commits: tuple[str, ...]

    @property
    def mean(self) -> float:
        return float(np.mean(self.differences))


def differences(plan: Sequence[dict[str, Any]], done: Sequence[dict[str, Any]]) -> list[Difference]:
    """A row for each variant with a pair at least."""
    rows = []
    by_key = {(r["comparison"], r["variant"], r["seed"]): r for r in done}
    for comparison in plan:
        for variant, seeds in comparison["seeds"].items():
            name, baseline = comparison["name"], comparison["baseline"]
            pairs = [(by_key.get((name, baseline, s)), by_key.get((name, variant, s))) for s in seeds]
            whole = [(a, b) for a, b in pairs if a and b]
            for a, b in whole:
                if (a["commit"], a["torch"]) != (b["commit"], b["torch"]):
                    raise ValueError(
                        f"{name}, seed {a['seed']}: {variant} and {baseline} are of two commits or versions of torch"
                    )
            if not whole:
                continue
            values = [b["validation"]["accuracy"] - a["validation"]["accuracy"] for a, b in whole]
            rows.append(
                Difference(
                    name,
                    variant,
                    baseline=float(np.mean([a["validation"]["accuracy"] for a, _ in whole])),
                    differences=tuple(values),
                    student=student_interval(values),
                    bootstrap=bootstrap_interval(values),
                    time=float(np.mean([b["minutes"] / a["minutes"] for a, b in whole])),
                    parameters=whole[0][1]["parameters"] / whole[0][0]["parameters"],
                    planned=len(seeds),
                    commits=tuple(sorted({a["commit"][:10] for a, _ in whole})),
                )
            )
    return rows


def student_interval(values: Sequence[float]) -> tuple[float, float] | None:
    """mean ± t · s / √n, t the 97.5 % point of Student's distribution with n − 1 degrees of freedom."""
    from scipy.stats import t

    if len(values) < 2:
        return None
    half = float(t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values)))
    return float(np.mean(values)) - half, float(np.mean(values)) + half


def bootstrap_interval(values: Sequence[float]) -> tuple[float, float] | None:
    """2.5 % and 97.5 % points of the means of resampled pairs."""
    if len(values) < 2:
        return None
    chosen = np.random.default_rng(0).integers(len(values), size=(RESAMPLES, len(values)))
    low, high = np.quantile(np.array(values)[chosen].mean(1), [0.025, 0.975])
    return float(low), float(high)


def as_table(rows: Sequence[Difference]) -> str:
    """The rows in Markdown; accuracies in points."""
    lines = [
        "| comparison | variant | pairs | baseline | difference | 95 % (t) | 95 % (bootstrap) | time | parameters | commits |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for r in rows:
        intervals = ["—" if i is None else f"{100 * i[0]:+.2f} … {100 * i[1]:+.2f}" for i in (r.student, r.bootstrap)]
        cells = [
            r.comparison, r.variant, f"{len(r.differences)} of {r.planned}", f"{100 * r.baseline:.2f} %",
            f"{100 * r.mean:+.2f}", *intervals, f"× {r.time:.2f}", f"× {r.parameters:.2f}", ", ".join(r.commits),
        ]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def draw(rows: Sequence[Difference], path: Path) -> None:
    """Each variant's paired differences as points, their mean with the t interval."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(7, 1 + 0.5 * len(rows)), layout="constrained")
    for y, r in enumerate(reversed(rows)):
        axis.scatter([100 * d for d in r.differences], [y] * len(r.differences), s=14, alpha=0.5, color="C0")
        low, high = r.student or (r.mean, r.mean)
        axis.errorbar(100 * r.mean, y, xerr=[[100 * (r.mean - low)], [100 * (high - r.mean)]], fmt="o", color="C3", capsize=3)
    axis.axvline(0, color="0.6", lw=0.8)
    axis.set(xlabel="difference in validation accuracy [points]", yticks=range(len(rows)))
    axis.set_yticklabels([f"{r.comparison}: {r.variant} ({len(r.differences)} of {r.planned})" for r in reversed(rows)])
    axis.spines[["top", "right"]].set_visible(False)
    save_with(path, lambda file: figure.savefig(file, dpi=120, format="png"))
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    following = commands.add_parser("next", help="go on with the plan")
    following.add_argument("--minutes", type=float, required=True)
    following.add_argument("--data", type=Path, default=HERE / "data")
    following.add_argument("--work", type=Path, default=WORK, help="where worktrees and unfinished runs are")
    table = commands.add_parser("table", help="what there is")
    for command in (following, table):
        command.add_argument("--results", type=Path, default=HERE / "results" / "study")
    training = commands.add_parser("train", help="one run, in this checkout; `next` calls it")
    training.add_argument("--folder", type=Path, required=True)
    training.add_argument("--data", type=Path, required=True)
    training.add_argument("arguments", nargs="+")
    options = parser.parse_args()
    if options.command == "next":
        follow(options.results, options.work, options.data, minutes=options.minutes)
    elif options.command == "train":
        train_one(options.arguments, options.folder, options.data)
    else:
        rows = differences(read_plan(options.results), read_results(options.results))
        text = as_table(rows)
        print(text, end="")
        save_text(options.results / "table.md", text)
        if rows:
            draw(rows, options.results / FIGURE)


if __name__ == "__main__":
    main()
