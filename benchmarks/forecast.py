"""Forecasters on real series, side by side:  python -m benchmarks.forecast RUNS --raw DIR [--ablation]

DIR holds metr_la_week1.npz, hangzhou_tensor.mat, ETTh1.csv.gz and montevideo_bus.npz, as published (docs/recipes/series.md says
where); each is written to RUNS/DATA.npz once. Trains what is not in RUNS yet, two runs at a time with a thread each, then
writes the errors to results/forecast.json (`make figures` takes them into the pages) and draws RUNS/DATA.png. The rows of
trivial forecasts need no run; --trivial measures them alone. --ablation: SpikeSTAG's switches, on two sets, instead.
"""

import argparse
import datetime
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.figures import RESULTS, measured
from benchmarks.tables import TABLES
from staa.analysis.pictures import draw_horizons
from staa.build import task_of
from staa.recipes import RECIPES
from staa.runs.folder import RESULT, read_environment, read_json

NO_SEASON = ["--series.season", "none"]
MODELS = {
    "spikestag": [],
    "ispikformer": [],
    "gru": [],
    "linear, all nodes": ["--forecast.across", *NO_SEASON],
    "linear, all nodes + profile": ["--forecast.across"],
}
RIDGE = {"metr-la-week": 30, "hangzhou": 0.01, "etth1": 0.001, "montevideo": 10}  # least MAE on validation, of six or so
TRAINED = ("spikestag", "ispikformer", "gru")
SEEDS = {"metr-la-week": 3, "hangzhou": 3, "etth1": 3, "montevideo": 3}
OPTIONS = {
    "etth1": ["--series.normalise", "zscore-per-variate"],  # its variates are of different units
}
PATH = RESULTS / "forecast.json"
AT = (3, 6, 12)
FIGURES = ("mae", "rmse", "mase", "wmape", "r2", "r2_nodes")
FORMS = {
    "whole": [],
    "graph: identity": ["--forecast.graph", "identity"],
    "graph: given": ["--forecast.graph", "given"],
    "fusion: LSTM alone": ["--forecast.fusion", "lstm"],
    "fusion: attention alone": ["--forecast.fusion", "attention"],
}
ABLATION = {
    "hangzhou": FORMS
    | {
        "no season": NO_SEASON,
        "instance normalisation": ["--forecast.instance-norm", "True"],
        "no observation block": ["--forecast.no-observe"],
        **{f"K = {k}": ["--forecast.hops", str(k)] for k in (0, 1, 3)},
    },
    "metr-la-week": FORMS,
}


def convert(name: str, raw: Path, path: Path) -> None:
    """A published file as values [n, K], times and graph."""
    if name == "metr-la-week":
        with np.load(raw / "metr_la_week1.npz") as z:
            values, graph, names = z["speed"], z["adj_dcrnn"], z["sensor_ids"]
        more = {"time": every("2012-03-01", 5, len(values)), "graph": graph, "names": names}
    elif name == "hangzhou":  # stations × days × ten minutes from 6 to 24 o'clock
        from scipy.io import loadmat

        tensor = loadmat(str(raw / "hangzhou_tensor.mat"))["tensor"]
        stations, days, steps = tensor.shape
        values = tensor.reshape(stations, -1).T.astype(float)
        day = np.datetime64("2019-01-01T06:00", "m") + np.arange(days)[:, None] * np.timedelta64(1, "D")
        times = (day + np.arange(steps) * np.timedelta64(10, "m")).ravel()
        seen = values[: int(0.7 * len(values))]
        seen = seen + 1e-6 * np.random.default_rng(0).standard_normal(seen.shape)  # a station that is shut correlates with none
        correlation = np.corrcoef(seen.T)
        graph = np.where(correlation >= np.sort(correlation, 1)[:, -8:-7], correlation.clip(0), 0)  # the 8 likest, itself too
        more = {"time": times, "graph": graph}
    elif name == "etth1":
        import pandas as pd

        table = pd.read_csv(raw / "ETTh1.csv.gz", parse_dates=["date"])
        values = table.drop(columns="date").to_numpy(float)
        more = {"time": table["date"].to_numpy(), "names": np.array(table.columns[1:], str)}
    else:
        with np.load(raw / "montevideo_bus.npz") as z:
            values, (begin, end) = z["y"].T.astype(float), z["edge_index"]
        graph = np.zeros((values.shape[1],) * 2)
        graph[begin, end] = graph[end, begin] = 1.0
        more = {"time": every("2020-10-01", 60, len(values)), "graph": graph}
    more["time"] = more["time"].astype("datetime64[ns]").astype(np.int64)
    np.savez_compressed(path, values=values, **more)


def every(start: str, minutes: int, rows: int) -> np.ndarray:
    return np.datetime64(start, "m") + minutes * np.arange(rows) * np.timedelta64(1, "m")


def train(folder: Path, arguments: list[str]) -> None:
    """A run in a process of its own, one thread; its CPU seconds go to cpu.json beside it. What is there is gone on with."""
    if (folder / RESULT).is_file():
        return
    start = ["--resume", str(folder)] if folder.is_dir() else [*arguments, "--out", str(folder)]
    command = [sys.executable, "-m", "staa", "train", *start]
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_suffix(".log").open("a") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=os.environ | {"OMP_NUM_THREADS": "1"})
        _, status, used = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(command)} failed: see {folder.with_suffix('.log')}")
    folder.with_suffix(".json").write_text(json.dumps({"cpu_seconds": used.ru_utime + used.ru_stime}))


def row(folders: list[Path]) -> dict[str, Any]:
    """Of each seed: MAE at each horizon, over all of them, the other figures and CPU time; and the number of parameters."""
    results = [read_json(folder / RESULT) for folder in folders]
    figures = {f"mae_{at}": [r["horizons"][at - 1]["mae"] for r in results] for at in AT}
    figures |= {name: [r[f"test_{name}"] for r in results] for name in FIGURES}
    seconds = [json.loads(folder.with_suffix(".json").read_text())["cpu_seconds"] for folder in folders]
    found: dict[str, Any] = {name: {"values": values} for name, values in figures.items()}
    return found | {
        "parameters": read_environment(folders[0])["parameters"],
        "cpu_minutes": sum(seconds) / len(seconds) / 60,
    }


def trivial(name: str, path: Path) -> dict[str, dict[str, Any] | None]:
    """What forecasts that need no network reach, by their names; None for one that is not possible on these data."""
    recipe = RECIPES["series-last-value"]
    if name == "etth1":
        recipe = replace(recipe, series=replace(recipe.series, normalise="zscore-per-variate"))
    task = task_of(recipe)
    source = task.source(path)
    return task.beside(source, task.measure(source, torch.device("cpu")))["baselines"]


def trivial_row(figures: dict[str, Any] | None) -> dict[str, Any] | None:
    if figures is None:
        return None
    return {f"mae_{at}": figures["mae_by_step"][at - 1] for at in AT} | {name: figures[name] for name in FIGURES}


def store(name: str, rows: dict[str, list[Path]], baselines: dict[str, Any], *, seeds: int, ablation: bool) -> None:
    """A table of results/forecast.json."""
    first = read_environment(next(iter(rows.values()))[0])
    tables = json.loads(PATH.read_text())
    tables[name] = {
        "command": "python -m benchmarks.forecast RUNS --raw DIR" + " --ablation" * ablation,
        "commit": first["commit"][:7],
        "measured": str(datetime.date.today()),
        "machine": f"one thread of {first['device']} for each run, {first['processor']}",
        "torch": first["torch"],
        "seeds": list(range(seeds)),
        "rows": {title: row(folders) for title, folders in rows.items()}
        | {title: trivial_row(figures) for title, figures in baselines.items()},
    }
    write(tables)


def store_trivial(name: str, baselines: dict[str, Any]) -> None:
    """Their rows beside those that are in the table."""
    tables = json.loads(PATH.read_text())
    tables[name]["rows"] |= {title: trivial_row(figures) for title, figures in baselines.items()}
    write(tables)


def write(tables: dict[str, Any]) -> None:
    PATH.write_text(json.dumps(tables, indent=1, ensure_ascii=False) + "\n")
    measured.cache_clear()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=Path)
    parser.add_argument("--raw", type=Path, required=True)
    parser.add_argument("--ablation", action="store_true")
    parser.add_argument("--trivial", action="store_true")
    parser.add_argument("--data", nargs="+", choices=list(SEEDS), default=list(SEEDS))
    options = parser.parse_args()
    options.runs.mkdir(parents=True, exist_ok=True)
    data = [name for name in options.data if not options.ablation or name in ABLATION]
    for name in data:
        if not (options.runs / f"{name}.npz").is_file():
            convert(name, options.raw, options.runs / f"{name}.npz")
    baselines = {} if options.ablation else {name: trivial(name, options.runs / f"{name}.npz") for name in data}
    if options.trivial:
        for name in data:
            store_trivial(name, baselines[name])
        return
    jobs: dict[Path, list[str]] = {}
    tables: dict[str, dict[str, list[Path]]] = {}
    for name in data:
        for title, more in (ABLATION[name] if options.ablation else MODELS).items():
            model = "spikestag" if options.ablation else title.partition(",")[0]
            for seed in range(SEEDS[name] if model in TRAINED else 1):
                stem = "".join(c if c.isalnum() else "-" for c in title) if more else model
                folder = options.runs / name / f"{stem}-{seed}"
                tables.setdefault(name, {}).setdefault(title, []).append(folder)
                source = ["--data", str(options.runs / f"{name}.npz")]
                jobs[folder] = [f"series-{model}", *source, "--seed", str(seed), *OPTIONS.get(name, []), *more]
                if title.startswith("linear, all nodes"):
                    jobs[folder] += ["--forecast.ridge", str(RIDGE[name])]
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(train, jobs, jobs.values()))
    kept = {name: f"{name}, ablation" if options.ablation else name for name in tables}
    for name, rows in tables.items():
        store(kept[name], rows, baselines.get(name, {}), seeds=SEEDS[name], ablation=options.ablation)
    for name, rows in tables.items():
        print(f"\n{name}\n\n{TABLES[f'forecast/{kept[name]}']()}")
        if not options.ablation:
            curves = {title: read_json(folders[0] / RESULT)["horizons"] for title, folders in rows.items()}
            draw_horizons(curves, options.runs / f"{name}.png", title=f"{name}: test errors by steps ahead, seed 0")


if __name__ == "__main__":
    main()
