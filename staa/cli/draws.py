"""What --random draws: a recipe at random values of options, from lists and from ranges."""

import math
import random
import re
from collections.abc import Callable, Sequence

from staa.cli.over import Variant, check_once, known_option, parsed, type_of, variant
from staa.recipes.recipe import Recipe
from staa.recipes.values import alternatives

NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
RANGE = re.compile(rf"(?P<option>[^=]+)=(?P<low>{NUMBER})\.\.(?P<high>{NUMBER})(?::(?P<scale>\w*))?")
TRIES = 1000  # draws of a setting that was drawn before, until it is said that there are no others

Draw = Callable[[float], str]
"""The value at a number from 0 to 1, without 1."""


def is_range(text: str) -> bool:
    """Whether --over has a range, such as optim.lr=0.001..0.3:log, and no list."""
    return RANGE.fullmatch(text) is not None


def drawn(over: Sequence[str], args: Sequence[str], recipe: Recipe, *, count: int, seed: int) -> list[Variant]:
    """The recipe at so many different random settings. Those of a smaller count are the first ones.

    args: the other options. Raises ValueError for what is no option of a recipe or is given otherwise too, for a range that is
    not clear, and if there are not so many settings.
    """
    draws = dict(_draw_of(text, recipe) for text in over)
    check_once([known_option(text.partition("=")[0]) for text in over], args)
    source = random.Random(seed)
    made: list[dict[str, str]] = []
    tries = 0
    while len(made) < count:
        values = {option: draw(source.random()) for option, draw in draws.items()}
        if values not in made:
            made.append(values)
            tries = 0
        elif (tries := tries + 1) == TRIES:
            raise ValueError(
                f"--random asks for {count} settings, and {len(made)} different ones were found: ask for fewer, or leave out "
                f"--random to train each combination of lists"
            )
    return [variant(values, recipe, alone=True) for values in made]


def _draw_of(text: str, recipe: Recipe) -> tuple[str, Draw]:
    """An option, and how its values are drawn."""
    found = RANGE.fullmatch(text)
    if found is None:
        option, values = parsed(text)
        return option, lambda u: values[int(u * len(values))]
    option, scale = known_option(found["option"]), found["scale"]
    low, high = float(found["low"]), float(found["high"])
    kinds = alternatives(type_of(option, recipe))
    whole = int in kinds and float not in kinds
    if not whole and float not in kinds:
        raise ValueError(f"--over {option} takes no range, since it is no number: list its values")
    if scale not in ("log", "linear"):
        ends = f"{option}={found['low']}..{found['high']}"
        raise ValueError(f"--over must say how to draw from a range: {ends}:log or {ends}:linear; got {text!r}")
    if not low < high < math.inf or (whole and not low.is_integer() & high.is_integer()):
        wanted = "two whole numbers" if whole else "two numbers"
        raise ValueError(f"--over {option} wants a range of {wanted}, the lower one first; got {text!r}")
    if scale == "log" and low <= 0:
        raise ValueError(f"--over {option} can't be drawn on a logarithmic scale from {found['low']} on: begin above 0")
    end = high + 1 if whole else high  # each whole number has the room up to the next one

    def draw(u: float) -> str:
        x = low * (end / low) ** u if scale == "log" else low + (end - low) * u
        x = min(max(math.floor(x) if whole else float(f"{x:.4g}"), low), high)
        return str(int(x)) if whole else repr(x)

    return option, draw
