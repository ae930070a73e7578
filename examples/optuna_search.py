"""Search settings with Optuna, which ends poor runs early. Only validation is looked at: the test set is left alone.

pip install optuna
python examples/optuna_search.py [TRIALS]
"""

import sys
from dataclasses import replace
from pathlib import Path

import optuna

from staa import RECIPES
from staa.runs import run
from staa.training.progress import Epoch

BASE, OUT = replace(RECIPES["digits-events"], epochs=3), Path("runs/optuna")


def objective(trial: optuna.Trial) -> float:
    lr = trial.suggest_float("optim.lr", 1e-3, 0.1, log=True)
    width = trial.suggest_categorical("model.width", [0.0625, 0.125])
    recipe = replace(BASE, optim=replace(BASE.optim, lr=lr), model=replace(BASE.model, width=width))
    accuracy = 0.0
    for event in run(recipe, OUT / f"trial{trial.number}", measure_test=False):
        if isinstance(event, Epoch):
            accuracy = event.measured["accuracy"]
            trial.report(accuracy, event.epoch)
            if trial.should_prune():
                raise optuna.TrialPruned
    return accuracy


study = optuna.create_study(
    direction="maximize", sampler=optuna.samplers.TPESampler(seed=0), pruner=optuna.pruners.MedianPruner()
)
study.optimize(objective, n_trials=int(sys.argv[1]) if len(sys.argv) > 1 else 20)
print(f"best on validation, {study.best_value:.2%}: {study.best_params}")
print(f"measure it on the test set, once: staa train --resume {OUT}/trial{study.best_trial.number}")
