"""A run and its folder."""

from staa.runs.execute import run
from staa.runs.load import evaluate_run

__all__ = ["evaluate_run", "run"]
