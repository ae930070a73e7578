"""What recipes there are, and all that is known of one."""

import re
import textwrap
from collections.abc import Iterable

from staa.analysis.figures import percent
from staa.build.parameters import parameters_of
from staa.cli.options import RecipesOptions
from staa.cli.parse import parse
from staa.cli.text import out, say
from staa.data import DOWNLOADS
from staa.recipes import RECIPES
from staa.recipes.code import split
from staa.recipes.find import find_recipe
from staa.recipes.options import Part, name_of, options_of
from staa.recipes.recipe import Recipe
from staa.registry import did_you_mean, nearest, unknown

WHERE = {
    "digits-events": "comes with scikit-learn",
    "ring": "simulated, nothing to download",
    "folder": "your own images: DIR/CLASS/*.jpg, or DIR/train/CLASS/…",
    "events-folder": "your own event recordings: DIR/CLASS/*.raw, .aedat4 …",
    "series": "a series of your own: FILE.csv, .parquet, .npz, .h5 …",
    "imagenet": "from image-net.org: DIR/train/CLASS/…, DIR/val/CLASS/…",
    "tiny-imagenet": "as it is unpacked: DIR/train/…, DIR/val/…",
} | {name: f"staa data {name} downloads it to ./data" for name in DOWNLOADS}
"""Where a data set comes from."""
GIVEN = {
    name: " --data FILE" if name == "series" else " --data DIR" for name, where in WHERE.items() if re.search("DIR|FILE", where)
}
"""How a data set that lies where its user put it is told to `staa train`."""


def recipes(args: list[str]) -> int:
    """list the recipes, or tell all of one"""
    options = parse(RecipesOptions, args, "staa recipes")
    words = options.words
    if len(words) == 1 and (words[0] in RECIPES or split(words[0])[0] is not None):
        say(*_told(find_recipe(words[0]), words[0]))
        return 0
    found = [recipe for recipe in RECIPES.values() if all(word.lower() in _text(recipe) for word in words)]
    sets = list(dict.fromkeys(recipe.data.name for recipe in RECIPES.values()))
    if options.data is not None:
        if options.data not in sets:
            raise ValueError(unknown("data set of a recipe", options.data, sets))
        found = [recipe for recipe in found if recipe.data.name == options.data]
    if not found:
        for word in words:
            if not any(word.lower() in _text(recipe) for recipe in RECIPES.values()):
                hint = f"{did_you_mean(nearest(word, _vocabulary()))} " + f"`staa recipes` lists all {len(RECIPES)}"
                raise ValueError(f"unknown recipe or word of one {word!r}; {hint.lstrip()}")
        more = [] if options.data is None else [f"--data {options.data}"]
        raise ValueError(f"no recipe has all of {', '.join([*words, *more])}: leave one out")
    for name in (name for name in sets if any(recipe.data.name == name for recipe in found)):
        say(name, style="bold")
        say(f"  {WHERE[name]}")
        say(*_rows([recipe for recipe in found if recipe.data.name == name], out.width))
    say("", *([f"{len(found)} of {len(RECIPES)} recipes"] if len(found) < len(RECIPES) else []))
    say("staa recipes NAME tells all of one, staa recipes WORD … those with such words.")
    say("staa train NAME trains it, staa train my_file.py:recipe one of your own.")
    return 0


def _text(recipe: Recipe) -> str:
    """What words are looked for in."""
    parts = (recipe.data.name, recipe.model.name, recipe.model.attention)
    named = [name_of(part) for part in parts if part is not None]
    return "\n".join([recipe.name, *named, recipe.summary, recipe.expect]).lower()


def _vocabulary() -> list[str]:
    """The names of recipes, and the words in them."""
    return list(dict.fromkeys([*RECIPES, *(word for name in RECIPES for word in name.split("-"))]))


def _rows(recipes: Iterable[Recipe], width: int) -> list[str]:
    """A line for each: name, network, T, length, and of what to expect as much as fits."""
    recipes = list(recipes)
    cells = [[r.name, _network(r), _steps(r), _length(r)] for r in recipes]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["  " + "  ".join(f"{cell:<{w}}" for cell, w in zip(row, widths, strict=True)) for row in cells]
    return [f"{line}  {_brief(r.expect, width - len(line) - 2)}".rstrip() for line, r in zip(lines, recipes, strict=True)]


def _network(recipe: Recipe) -> str:
    return name_of(recipe.model.name) + (f" ×{recipe.model.width:g}" if recipe.model.width != 1 else "")


def _steps(recipe: Recipe) -> str:
    if recipe.model.steps is None:
        return "T any" if recipe.series.horizon is None else ""  # a forecaster without T has no steps
    return f"T {recipe.model.steps}"


def _length(recipe: Recipe) -> str:
    return f"{recipe.max_steps} steps" if recipe.max_steps else f"{recipe.epochs} epoch{'s' if recipe.epochs > 1 else ''}"


def _brief(expect: str, room: int) -> str:
    """What to expect; if there is no room for it its first figure, ours or a paper's. Nothing is said of what is unmeasured."""
    if len(expect) > room:
        expect = re.split(r"[;:,(]", expect.removeprefix("unmeasured; "))[0].strip()
    return "" if expect == "unmeasured" or len(expect) > room else expect


def _told(recipe: Recipe, name: str) -> list[str]:
    """All that is known of a recipe, under the name that it is trained by."""
    data, model, optim = name_of(recipe.data.name), recipe.model, recipe.optim
    network = [text for text in (_network(recipe), _steps(recipe)) if text]
    if recipe.series.horizon is not None:
        network.append(f"{recipe.series.window} steps in, {recipe.series.horizon} out")
    network += [f"neuron {_part(model.neuron)}"] if name_of(model.name) not in ("gru", "linear", "last-value") else []
    network += [] if model.attention is None else [f"attention {_part(model.attention)}"]
    parameters = parameters_of(recipe)
    training = [
        _length(recipe),
        f"batches of {recipe.batch_size}",
        f"{optim.name} at {optim.lr:g}",
        f"loss {_part(recipe.loss.name)}",
    ]
    training += [f"ends after {optim.patience} epochs without a better one"] if optim.patience is not None else []
    held = f"{percent(recipe.data.validation, 0) if recipe.data.validation else 'nothing'} held out for validation"
    told = {
        "": recipe.summary,
        "data": f"{data}: {WHERE[data]}" if data in WHERE else data,
        "network": ", ".join(network),
        "parameters": "" if parameters is None else f"{parameters:,}",
        "training": ", ".join(training),
        "tested": f"{'best weights on validation' if recipe.weights == 'best' else 'last weights'}; {held}",
        "expect": recipe.expect,
        "source": recipe.source,
        "train it": f"staa train {name}{GIVEN.get(data, '')}",
        "settings": f"staa train {name} --help",
    }
    lines = [recipe.name]
    for what, text in told.items():
        wrapped = textwrap.wrap(text, max(20, out.width - 14), break_long_words=False, break_on_hyphens=False)
        lines += [f"  {what if k == 0 else '':<12}{line}".rstrip() for k, line in enumerate(wrapped)]
    return lines


def _part(part: str | Part) -> str:
    """A part's name, with its options."""
    options = ", ".join(f"{key} {value}" for key, value in options_of(part).items())
    return name_of(part) + (f" ({options})" if options else "")
