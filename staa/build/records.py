"""Numbers in a run's records, which may be a stranger's."""

import math
from typing import Any

LARGEST = 2**24  # classes, pixels, nodes: what records may say of the data


def is_whole(value: Any, least: int, most: int = LARGEST) -> bool:
    return type(value) is int and least <= value <= most


def is_real(value: Any) -> bool:
    """A float, be it NaN as R² of constant data is, or a whole number that is no longer than one."""
    return type(value) is float or is_whole(value, -(2**53), 2**53)


def is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) < 1e300 and math.isfinite(value)
