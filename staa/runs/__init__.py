"""A run and its folder."""

from staa.runs.execute import run
from staa.runs.inherit import starting_from
from staa.runs.load import Run
from staa.runs.longer import prolong
from staa.runs.measure import evaluate_run

__all__ = ["Run", "evaluate_run", "prolong", "run", "starting_from"]
