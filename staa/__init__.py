"""staa: spatial-temporal attention for spiking neural networks."""

__version__ = "0.1.0"

from staa import attention, data, layers, models, neurons, ops
from staa.build import load
from staa.config import Augment, Data, Early, Loss, Model, Optim, Recipe
from staa.energy import estimate_energy
from staa.ops.switch import reference
from staa.recipes import RECIPES
from staa.streaming import stream

__all__ = [
    "RECIPES",
    "Augment",
    "Data",
    "Early",
    "Loss",
    "Model",
    "Optim",
    "Recipe",
    "attention",
    "data",
    "estimate_energy",
    "layers",
    "load",
    "models",
    "neurons",
    "ops",
    "reference",
    "stream",
]
