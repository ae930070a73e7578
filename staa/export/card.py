"""A run's model card: what a hub shows of it, in Markdown. Names from files are code spans, in which nothing has a meaning."""

import json
import re
from typing import Any

from staa.analysis.figures import figures_in, told
from staa.recipes.code import named_files
from staa.recipes.options import name_of
from staa.runs.load import Run
from staa.text import for_terminal

MOST, LONGEST = 20, 80  # names that are told, and characters of each
LICENCE = re.compile(r"[a-z0-9][a-z0-9.+-]{0,40}")
PROTOCOLS = {
    "test-once": "measured once on the test set, after the last step",
    "paper": "measured on the test set after each epoch, as the papers do",
}
WEIGHTS = {"last": "the weights are those of the last epoch", "best": "the weights are those that were best on validation"}


def check_licence(licence: str | None) -> None:
    """Raises ValueError for what is no licence's name on a hub."""
    if licence is not None and not LICENCE.fullmatch(licence):
        raise ValueError(f"`licence` must be a name in small letters such as apache-2.0 or cc-by-4.0, got {licence!r}")


def model_card(run: Run, name: str, *, licence: str | None = None) -> str:
    """The card of a finished run.

    Args:
        run: The run.
        name: What it is called on the hub, such as "org/name".
        licence: Its licence's name there, such as "apache-2.0"; None: the card says that it is not known.

    Raises:
        ValueError: If the run is broken, or `licence` is no such name.
        FileNotFoundError: If the run is not finished.
    """
    check_licence(licence)
    recipe, result, classifies = run.recipe, run.result, run.task.verb == "classify"
    tags = ["spiking-neural-network", "snn", "classification" if classifies else "time-series-forecasting"]
    head = {"library_name": "staa", "license": licence or "unknown", "tags": tags}
    figures = {key.removeprefix("test_"): value for key, value in result.items() if key.startswith("test_")}
    environment = run.environment
    model = [("network", recipe.model.name), ("neuron", recipe.model.neuron), ("attention", recipe.model.attention)]
    facts = [
        ("recipe", literal(recipe.name)),
        *((what, literal(name_of(part))) for what, part in model if part is not None),
        ("parameters", f"{environment['parameters']:,}" if type(environment.get("parameters")) is int else "not known"),
        ("data", literal(recipe.data.name)),
        ("classes" if classifies else "variates", _listed(run.names)),
        ("figures", ", ".join(told(key, figures[key]) for key in (*figures_in(figures), "loss"))),
        ("protocol", f"{PROTOCOLS[recipe.protocol]}, on {figures['samples']:,} samples; {WEIGHTS[recipe.weights]}"),
        ("seed", str(recipe.seed)),
        *((what, literal(environment[what])) for what in ("staa", "commit", "torch") if what in environment),
    ]
    own = bool(named_files(recipe))
    lines = [
        "---",
        *(f"{key}: {json.dumps(value)}" for key, value in head.items()),
        "---",
        "",
        f"# {literal(name)}",
        "",
        f"{literal(recipe.summary)}: a spiking neural network, trained with staa.",
        "",
        *(f"- {what}: {value}" for what, value in facts),
        "",
        "```python",
        'import staa  # pip install "staa-snn[hub]"',
        f"run = staa.from_pretrained({', '.join([json.dumps(name), *(['trust=True'] if own else [])])})",
        'answers = run.predict("FILE")' if classifies else "forecast = staa.forecast(run, table)  # a pandas table",
        "```",
        "",
        "`recipe.json` holds every setting, `log.jsonl` what happened while it trained. The weights are safetensors.",
        *(["The run has Python files of its own, in `code/`, which `trust=True` lets run: read them first."] if own else []),
    ]
    return "\n".join(lines) + "\n"


def literal(text: Any) -> str:
    """Text as a code span of Markdown on one line, with its middle left out if it is long."""
    line = for_terminal(text) or " "
    if len(line) > LONGEST:
        line = f"{line[: LONGEST // 2]}…{line[-LONGEST // 2 + 1 :]}"
    fence = "`" * (max(map(len, re.findall("`+", line)), default=0) + 1)
    return f"{fence} {line} {fence}" if line.startswith("`") or line.endswith("`") or fence != "`" else f"{fence}{line}{fence}"


def _listed(names: tuple[str, ...]) -> str:
    more = f" and {len(names) - MOST} more" if len(names) > MOST else ""
    return f"{len(names)}: {', '.join(map(literal, names[:MOST]))}{more}"
