"""How measured figures are written: in a terminal, a table, a page."""

import math
from collections.abc import Mapping
from numbers import Real
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


def written(value: Any, form: str) -> str:
    """A number in such a form; n/a for what is no number, as a stranger's records may have it, or none that is finite."""
    try:
        finite = isinstance(value, Real) and math.isfinite(value)
    except OverflowError:  # a whole number in JSON may be of any length
        finite = False
    return f"{value:{form}}" if finite else "n/a"


def percent(share: Any, digits: int = 1) -> str:
    """A share such as 21.7%, with so many digits after the point."""
    return written(share, f".{digits}%")


def told(figure: str, value: Any, form: str | None = None) -> str:
    return f"{shown(figure).name} {written(value, form or shown(figure).form)}"


def figures_in(figures: Mapping[str, Any]) -> list[str]:
    """The figures among these values, but for the loss; the one that counts is the first."""
    return [name for name, value in figures.items() if name != "loss" and (name in FIGURES or type(value) is float)]


PREFIXES = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""), (1e-3, "m"), (1e-6, "µ"), (1e-9, "n"), (1e-12, "p"))


def unit_of(value: float) -> tuple[float, str]:
    """(size, prefix) of the unit in which a number is from 1 to 999."""
    return next(((size, prefix) for size, prefix in PREFIXES if value >= 0.9995 * size), PREFIXES[-1] if value else (1.0, ""))


def si(value: float, unit: str = "") -> str:
    """A number of at least 0 with three digits that count and a prefix, such as 9.97 M or 12.3 µJ."""
    size, prefix = unit_of(value)
    return f"{in_unit(value / size)} {prefix}{unit}".rstrip()


def in_unit(x: float) -> str:
    """A number of at least 0 in the unit of a column, which suits its largest: at most five characters up to 999."""
    if x >= 999.5:
        return f"{x:,.0f}"
    if x >= 0.9995 or x == 0:
        return f"{x:.3g}"
    return "<0.001" if x < 0.0005 else f"{x:.3f}"
