"""How measured figures are written: in a terminal, a table, a page."""

from collections.abc import Mapping
from typing import Any, NamedTuple


class Shown(NamedTuple):
    """How a figure is written."""

    name: str
    form: str
    rises: bool = False
    """Higher is better."""


FIGURES = {
    "accuracy": Shown("accuracy", ".2%", rises=True),
    "mae": Shown("MAE", ".4g"),
    "rmse": Shown("RMSE", ".4g"),
    "mape": Shown("MAPE", ".1%"),
    "smape": Shown("sMAPE", ".1%"),
    "wmape": Shown("wMAPE", ".1%"),
    "mase": Shown("MASE", ".3f"),
    "r2": Shown("R²", ".3f", rises=True),
    "r2_nodes": Shown("R² by node", ".3f", rises=True),
    "rse": Shown("RSE", ".3f"),
    "loss": Shown("loss", ".4f"),
    "coverage": Shown("coverage", ".1%"),
    "width": Shown("mean width", ".4g"),
}


def shown(figure: str) -> Shown:
    return FIGURES.get(figure) or Shown(figure.replace("_", " "), ".4g")


def told(figure: str, value: float, form: str | None = None) -> str:
    return f"{shown(figure).name} {value:{form or shown(figure).form}}"


def figures_in(figures: Mapping[str, Any]) -> list[str]:
    """The figures among these values, but for the loss; the one that counts is the first."""
    return [name for name, value in figures.items() if name != "loss" and (name in FIGURES or type(value) is float)]
