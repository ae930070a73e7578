"""How figures and tables are written: one form for a share, n/a for what is no number, and no wider than the terminal."""

import ast
import math
import re
from pathlib import Path

import numpy as np
import pytest
from rich.cells import cell_len

import staa
from staa.analysis.figures import in_unit, percent, si, told, unit_of, written
from staa.cli import text

SOURCE = Path(staa.__file__).parent


def test_what_is_no_finite_number_is_said_to_be_none():
    for value in (math.nan, math.inf, -math.inf, 10**400, "12", None, np.float32("nan")):
        assert (percent(value), written(value, ".3g"), told("accuracy", value)) == ("n/a", "n/a", "accuracy n/a")
    assert (percent(0.2174), percent(np.float32(0.2174), 2), told("accuracy", 1)) == ("21.7%", "21.74%", "accuracy 100.00%")


def test_a_number_and_a_column_round_alike():
    for value in (999.4, 999.4e3, 999.6, 999.6e3, 0.9996, 1, 5e-15, 0):
        size, prefix = unit_of(value)
        assert si(value, "J") == f"{in_unit(value / size)} {prefix}J"
    assert [si(value) for value in (999.4, 999.6, 999.6e3, 0.9996, 0)] == ["999", "1 k", "1 M", "1", "0"]


def test_shares_are_written_by_one_function():
    """In what is shown of runs, no format of its own, and no space before the sign."""
    for path in [*(SOURCE / "analysis").rglob("*.py"), *(SOURCE / "cli").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.JoinedStr):
                continue
            for value, after in zip(node.values, [*node.values[1:], None], strict=True):
                if isinstance(value, ast.FormattedValue):
                    own = value.format_spec is not None and re.search(r"\.\d%'?$", ast.unparse(value.format_spec).strip("f\"'"))
                    assert not own or path.name == "figures.py", f"{path.name}, line {node.lineno}: figures.percent"
                    assert not str(getattr(after, "value", "")).startswith(" %"), f"{path.name}, line {node.lineno}"


@pytest.fixture
def terminal(monkeypatch):
    """One so wide."""
    return lambda width: monkeypatch.setattr(text, "out", text.Console(width=width, force_terminal=True))


COLUMNS = {
    "run": ["runs/" + "a" * 40 + "/seed1", "猫" * 30],
    "name": ["b" * 20, "c"],
    "state": ["running", "done"],
    "when": ["d" * 16] * 2,
}


def wide(columns):
    return sum(max(map(cell_len, (header, *cells))) + 2 for header, cells in columns.items()) - 2


@pytest.mark.parametrize("width", [40, 60, 80, 100])
def test_a_table_fits_the_terminal_and_is_whole_elsewhere(width, terminal):
    assert text.fitted(COLUMNS, cut=("run", "name"), spare=("when",)) == COLUMNS
    terminal(width)
    found = text.fitted(COLUMNS, cut=("run", "name"), spare=("when",))
    assert wide(found) <= width < wide(COLUMNS)
    assert ("when" in found) == (width >= 80)
    assert found["state"] == COLUMNS["state"]
    assert found["run"][0].startswith("run")
    assert found["run"][0].endswith("1")
