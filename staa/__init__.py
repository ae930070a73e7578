"""staa: spatial-temporal attention for spiking neural networks."""

from typing import TYPE_CHECKING, Any

from staa import attention, data, export, layers, models, neurons, ops
from staa.analysis.energy import estimate_energy
from staa.analysis.record import record
from staa.hub import from_pretrained, pretrained
from staa.inference.camera import Stream
from staa.inference.classify import predict
from staa.inference.frame import forecast
from staa.ops.switch import reference
from staa.recipes import RECIPES
from staa.recipes.parts import Augment, Data, Early, Loss, Model, Optim
from staa.recipes.recipe import Recipe
from staa.runs.load import Run, load, read_log
from staa.streaming import stream
from staa.version import __version__ as __version__

if TYPE_CHECKING:
    from staa.cli.called import train

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
    "Stream",
    "attention",
    "data",
    "estimate_energy",
    "export",
    "forecast",
    "from_pretrained",
    "layers",
    "load",
    "models",
    "neurons",
    "ops",
    "predict",
    "pretrained",
    "read_log",
    "record",
    "reference",
    "stream",
    "train",
]


def __getattr__(name: str) -> Any:
    """`train` shows bars and tables, and what they need is imported when it is asked for."""
    if name == "train":
        from staa.cli.called import train

        return train
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
