"""staa: spatial-temporal attention for spiking neural networks."""

from staa import attention, data, layers, models, neurons, ops
from staa.analysis.energy import estimate_energy
from staa.inference.frame import forecast
from staa.ops.switch import reference
from staa.recipes import RECIPES
from staa.recipes.parts import Augment, Data, Early, Loss, Model, Optim
from staa.recipes.recipe import Recipe
from staa.runs.load import Run, load, read_log
from staa.streaming import stream
from staa.version import __version__ as __version__

__all__ = [
    "RECIPES",
    "Augment",
    "Data",
    "Early",
    "Loss",
    "Model",
    "Optim",
    "Recipe",
    "Run",
    "attention",
    "data",
    "estimate_energy",
    "forecast",
    "layers",
    "load",
    "models",
    "neurons",
    "ops",
    "read_log",
    "reference",
    "stream",
]
