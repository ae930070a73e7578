"""Settings for a function that says by its parameters which it takes."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any


def asked_for(f: Callable[..., Any], what: str, given: Mapping[str, Any], default: Mapping[str, Any]) -> dict[str, Any]:
    """The given settings that a function has parameters for, by the last part of their names.

    Raises ValueError if a setting that it has no parameter for differs from its default.
    """
    asked = inspect.signature(f).parameters
    for name, value in given.items():
        if name.rpartition(".")[2] not in asked and value != default.get(name):
            raise ValueError(f"`{name}={value}` is not supported by {what}; remove it (default: {default.get(name)})")
    return {short: value for name, value in given.items() if (short := name.rpartition(".")[2]) in asked}
