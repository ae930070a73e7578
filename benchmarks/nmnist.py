"""N-MNIST by five-fold cross-validation over all recordings under DATA:  python -m benchmarks.nmnist RUNS --data DATA

STAA, its plain twin, and a linear classifier on the counts of each pixel and polarity, on the same folds; beside them the
official parts. Trains what is not in RUNS/{staa,plain}-{1..5,official} yet, then prints the accuracies, paired.
"""

import argparse
import statistics
from pathlib import Path

import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MaxAbsScaler

from staa.cli import main as staa
from staa.data import nmnist
from staa.runs.folder import RESULT, read_json

FOLDS = [f"fold-{k}-of-5" for k in range(1, 6)]


def trained(runs: Path, kind: str, split: str | None, data: Path) -> float:
    folder = runs / f"{kind}-{split.split('-')[1] if split else 'official'}"
    if not (folder / RESULT).is_file():
        anew = [f"nmnist-vggsnn-{kind}", "--out", str(folder), "--data", str(data), *(["--data.split", split] if split else [])]
        if staa(["train", *(["--resume", str(folder)] if folder.is_dir() else anew)]):
            raise SystemExit(f"{folder} was not trained")
    return read_json(folder / RESULT)["test_accuracy"]


def linear(split: str | None, data: Path) -> float:
    source = nmnist(root=data, validation=0.1, steps=10, split=split)
    train, test = (
        (part.take(torch.arange(len(part))).sum(1).flatten(1).numpy(), part.y.numpy()) for part in (source.train, source.test)
    )
    classifier = make_pipeline(MaxAbsScaler(), LogisticRegression(max_iter=5000)).fit(*train)
    return float(classifier.score(*test))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=Path)
    parser.add_argument("--data", type=Path, default=Path("data"))
    options = parser.parse_args()
    table = {kind: [trained(options.runs, kind, split, options.data) for split in (*FOLDS, None)] for kind in ("staa", "plain")}
    table["linear"] = [linear(split, options.data) for split in (*FOLDS, None)]
    print(f"{'':<14}" + "".join(f"{f:>8}" for f in ("1", "2", "3", "4", "5")) + "    mean ± spread   official")
    table["staa − plain"] = [a - b for a, b in zip(table["staa"], table["plain"], strict=True)]
    for kind, values in table.items():
        cells = "".join(f"{100 * v:8.2f}" for v in values[:5])
        mean, spread = statistics.mean(values[:5]), statistics.stdev(values[:5])
        print(f"{kind:<14}{cells}   {100 * mean:6.2f} ± {100 * spread:.2f}   {100 * values[5]:8.2f}")


if __name__ == "__main__":
    main()
