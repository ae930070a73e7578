"""What the library says: each message tells its reader, at the command line or in Python, what to do."""

import ast
import re
from pathlib import Path

import pytest

import staa
from staa.cli import COMMANDS
from staa.cli.flags import flags_of, in_flags
from staa.cli.options import OPTIONS

SOURCE = Path(staa.__file__).parent


def messages():
    """(where, text) of each text of the library that may reach a terminal: no docstring, and no word by itself."""
    for path in sorted(SOURCE.rglob("*.py")):
        tree = ast.parse(path.read_text())
        docs = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        pieces = {id(v) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for v in node.values}
        for node in ast.walk(tree):
            if isinstance(node, ast.JoinedStr):
                yield (
                    f"{path.name}:{node.lineno}",
                    "".join(v.value if isinstance(v, ast.Constant) else "{}" for v in node.values),
                )
            elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs | pieces:
                yield f"{path.name}:{node.lineno}", node.value


def test_an_argument_in_a_message_can_be_told_as_a_flag():
    """It stands between backticks, which is what `in_flags` looks for."""
    flags = {flag for kind in OPTIONS.values() for flag in flags_of(kind) if "-" in flag and "." not in flag}
    names = [*(flag.replace("-", "_") for flag in flags), "data_root", "trust="]
    bare = re.compile(rf"(?<![\w.])({'|'.join(names)})")
    found = [(at, text) for at, text in messages() if " " in text and bare.search(re.sub(r"`[^`]*`", "", text))]
    assert not found


def test_a_package_with_extras_is_quoted_for_every_shell():
    pages = [*SOURCE.parent.glob("*.md"), *SOURCE.parent.glob("docs/**/*.md")]
    texts = [page.read_text() for page in pages] + [path.read_text() for path in SOURCE.rglob("*.py")]
    found = [line for text in texts for line in re.findall(r"pip install[^\n]*?\S+\[[\w,]+\]\S?", text)]
    assert len(found) >= 4
    assert all(re.search(r'install (-e )?"[^"\']+"$', line) for line in found), found


@pytest.mark.parametrize(
    ("command", "text", "told"),
    [
        ("evaluate", "give `data_root`", "give --data"),
        ("share", "give `data_root`", "give `data_root`"),
        ("stream", "with `trust=True`", "with --trust-code"),
        ("stream", "say `window` or `sensor`", "say --window or --sensor"),
        ("train", "say `sensor`, not `window`", "say --data.sensor, not `window`"),
        ("predict", "train with `series.gaps=mask`", "train with --series.gaps mask"),
        ("train", "set `across=False`, `loss.rate_weight=0.1`", "set --forecast.no-across, --loss.rate-weight 0.1"),
        ("train", "`save_minutes` of `staa train`", "--save-minutes of `staa train`"),
        (None, "`data.corrupt=skip`, `data_root`", "--data.corrupt skip, `data_root`"),
    ],
)
def test_arguments_are_told_as_the_flags_of_the_command(command, text, told):
    assert in_flags(text, OPTIONS.get(command)) == told


def test_every_command_has_its_options():
    assert {name for name in OPTIONS if " " not in name} == set(COMMANDS)
