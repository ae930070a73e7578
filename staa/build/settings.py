"""Settings for a function that says by its parameters which it takes."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any


def asked_for(f: Callable[..., Any], what: str, given: Mapping[str, Any], usual: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the given settings that a function has parameters for. Raises ValueError where another is not the usual."""
    asked = inspect.signature(f).parameters
    for name, value in given.items():
        if name.rpartition(".")[2] not in asked and value != usual.get(name):
            raise ValueError(f"{what} takes no `{name}`, which is {value}: leave it out (at {usual.get(name)})")
    return {short: value for name, value in given.items() if (short := name.rpartition(".")[2]) in asked}
