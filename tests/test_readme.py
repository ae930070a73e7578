"""What the README shows is what runs."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import staa
from staa.cli import COMMANDS
from staa.cli.flags import flags_of
from staa.cli.options import TrainOptions
from staa.cli.run_options import StreamOptions
from staa.layers import PerStep
from staa.neurons import LIF
from staa.ops import direct
from staa.recipes import RECIPES

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_the_library_examples_run(capsys):
    first, code = blocks("python")
    assert sum(bool(line) for line in first.splitlines()) <= 5
    exec(first, {})
    assert "'3'" in capsys.readouterr().out
    assert len(code.splitlines()) <= 15
    scope = {}
    exec(code, scope)
    assert scope["logits"].shape == (4, 8, 10)
    assert scope["loss"].isfinite()


@pytest.mark.parametrize(("drop", "shape"), [("-", (2, 10)), ("+", (2, 10))])
def test_both_sides_of_the_change_run(drop, shape):
    """Before and after, on the same image."""
    (diff,) = blocks("diff")
    kept = [line[1:] for line in diff.splitlines() if not line.startswith(drop)]
    assert sum(line[:1] in "+-" for line in diff.splitlines() if line) <= 10
    scope = {"nn": nn, "PerStep": PerStep, "LIF": LIF, "direct": direct}
    exec("\n".join(kept), scope)
    assert scope["Net"]()(torch.rand(2, 3, 8, 8)).shape == shape


def test_the_commands_shown_exist():
    shown = set(re.findall(r"^staa (\w+)", "\n".join(blocks("sh")), re.MULTILINE))
    assert shown == set(COMMANDS)
    assert README.index("make train") < README.index("make test") < README.index("**staa** is")


EXAMPLES = [
    pytest.param(path, id=path.name, marks=[pytest.mark.slow] * (path.name in ("own_attention.py", "optuna_search.py")))
    for path in sorted((ROOT / "examples").glob("*.py"))
    if path.name != "linear_baseline.py"  # tests/test_figures.py runs it, and looks at what it prints
]


@pytest.mark.parametrize("script", EXAMPLES)
def test_examples_run(script, tmp_path):
    assert len(script.read_text().splitlines()) < 60
    if script.name == "optuna_search.py":
        pytest.importorskip("optuna")
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_nothing_is_left_to_do_and_links_lead_somewhere():
    pages = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("results/*.md")]
    for page in pages:
        text = page.read_text()
        assert "TODO" not in text, page
        for link in re.findall(r"\]\((?!http)([^)#]+)", text):
            assert (page.parent / link).exists(), (page, link)
    for recipe in RECIPES.values():
        assert "TODO" not in recipe.expect + recipe.summary + recipe.source


def test_every_recipe_has_its_page():
    pages = "".join(page.read_text() for page in ROOT.glob("docs/recipes/*.md"))
    for name in RECIPES:
        assert f"`{name}`" in pages, name


def test_commands_in_the_pages_are_taken():
    """Every `staa …` line of the pages parses: recipes exist, options too."""
    for page in ROOT.glob("docs/recipes/*.md"):
        for line in re.findall(r"^    staa train (.*)$", page.read_text(), re.MULTILINE):
            name, *options = [*line.partition("#")[0].split(), ""]
            known = flags_of(TrainOptions)
            assert not name or name in RECIPES, line
            assert {o.removeprefix("--") for o in options if o.startswith("--")} <= known, line


def test_the_citation_is_of_this_version():
    text = (ROOT / "CITATION.cff").read_text()
    assert f"\nversion: {staa.__version__}\n" in text
    assert "cff-version: 1.2.0" in text
    assert "arXiv:2503.02689" in text


def test_contributing_is_short():
    assert len((ROOT / "CONTRIBUTING.md").read_text().splitlines()) <= 60


def test_no_part_of_the_library_has_two_rows():
    rows = re.findall(r"^\| (`staa\.[^|]*) \|", README, re.MULTILINE)
    names = [name for row in rows for name in row.split(", ")]
    assert len(names) > 8
    assert len(set(names)) == len(names)


def test_the_pages_say_where_a_shared_run_goes_and_which_runs_stream():
    for page in ("README.md", "docs/security.md"):
        assert "NAME-shared" in (ROOT / page).read_text(), page
    for text in (
        README,
        (ROOT / "docs/recipes/events.md").read_text().partition("staa stream")[2][:700],
        StreamOptions.__doc__,
    ):
        assert "nmnist-stream" in text
