"""Text that is not ours: what each place it goes to does with it, and that none goes there another way."""

import ast
import contextlib
import csv
import io
import json
import os
import re
import subprocess
import sys
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import tiny
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image
from test_events import some_events, write_nmnist

import staa.cli
from staa.analysis.compare import read_names
from staa.analysis.pictures import Drawn, draw_adjacency, draw_bars, draw_forecasts, draw_horizons
from staa.cli import COMMANDS, main
from staa.files import check_writable
from staa.text import for_csv, for_figure, for_terminal, from_csv

SOURCE = Path(staa.__file__).parent
ESC = "\x1b[31m"
NAMES = [
    "cost $\\bad$", "q[/y]", "[bold]b", ":smile:", f"{ESC}red", "a\nb", "c\td\re", "\u202egnp.exe", "=HYPERLINK(1)", "@x;=y",
    "+1+1", "-2", "_hidden", "猫", "{task}", "%s", "e" * 200,
]  # fmt: skip
UNDECODABLE = os.fsdecode(b"f\xff")
BIDI = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
texts = st.text() | st.text("=+-@'\t\r\n;, \\u0123\x1b\udc80$_")


def is_plain(text):
    """One line, of characters that a terminal shows and nothing else."""
    return not any(unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") for c in text) and not BIDI.search(text)


@given(texts)
def test_a_terminal_gets_one_plain_line(text):
    line = for_terminal(text)
    assert is_plain(line)
    line.encode()
    assert for_terminal(line) == line
    assert (line == text) == all(c.isprintable() or unicodedata.category(c) == "Zs" or c in "\u200c\u200d" for c in text)


@given(texts)
@example("'=1")
@example("\\u003d")
@example("\\\\U0010ffff")
def test_a_csv_cell_is_no_formula_and_is_read_back(text):
    cell = for_csv(text)
    assert is_plain(cell)
    cell.encode()
    assert from_csv(cell) == text
    begins = cell.lstrip()[:1]
    assert begins not in ("=", "@", "＝", "＋", "－", "＠")
    assert begins not in ("+", "-") or float(cell) is not None  # a number, else it raises
    assert not re.search(r";\s*[=+@-]", cell)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_numbers_stay_numbers_in_csv(number):
    assert for_csv(f"{number}") == f"{number}"


@pytest.mark.parametrize("name", NAMES)
def test_a_figure_draws_the_name_itself(name, tmp_path):
    """Whatever the name, the picture is that of the plain text that stands for it, drawn without looking for formulas."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    def picture(text, **how):
        figure = Figure(figsize=(8, 1))
        figure.text(0, 0.5, text, **how)
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        return np.asarray(canvas.buffer_rgba())

    plain = for_figure(name)
    assert is_plain(plain)
    assert len(plain.replace("\\$", "$")) <= 64
    assert np.array_equal(picture(plain), picture(plain.replace("\\$", "$"), parse_math=False))
    assert plain.strip()[:4] in for_figure(name, 10_000)


def test_pictures_of_hostile_names(tmp_path):
    names, numbers = [*NAMES, UNDECODABLE], list(range(1, len(NAMES) + 2))
    draw_bars(names, {"bars": {"": numbers}}, tmp_path / "bars.png")
    figures = [{"step": k, "mae": k, "rmse": k, "r2": 0} for k in (1, 2)]
    draw_horizons(dict.fromkeys(names, figures), tmp_path / "horizons.png", title=NAMES[0])
    values = np.ones((4, len(names)))
    draw_forecasts(names, [Drawn(range(8), *[values] * 5)], tmp_path / "forecast.png", title="".join(NAMES))
    draw_adjacency(np.eye(len(names)), None, tmp_path / "adjacency.png", names=names, title="".join(NAMES))
    for name in ("bars", "horizons", "forecast", "adjacency"):
        with Image.open(tmp_path / f"{name}.png") as image:
            assert image.size[0] > 500


def test_a_picture_replaces_a_link_and_does_not_follow_it(tmp_path):
    (tmp_path / "kept").write_text("kept")
    (tmp_path / "bars.png").symlink_to(tmp_path / "kept")
    draw_bars(["a"], {"": {"": [1]}}, tmp_path / "bars.png")
    assert (tmp_path / "kept").read_text() == "kept"
    assert not (tmp_path / "bars.png").is_symlink()


def test_whether_a_file_can_be_written_is_known_before(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    check_writable(tmp_path / "new" / "folder" / "a.csv")
    check_writable(tmp_path / "file")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder"]
    for path in (tmp_path / "file" / "a.csv", tmp_path / "folder", Path("/proc/a.csv")):
        with pytest.raises(ValueError, match=re.escape(str(path))):
            check_writable(path)
    with pytest.raises(OSError, match="File name too long"):
        check_writable(tmp_path / ("a" * 256))


# --- every command on hostile names -------------------------------------------------------------------------------------------

RUN, CLASSES = f"{ESC}run[b] $\\x$", f"classes\n:smile: {UNDECODABLE}"
FILE = f"=f{ESC}[/y]"
TABLE = "=1+1; $s$ :x:"
NEURON = """
import torch
from staa.ops import lif
class Neuron(torch.nn.Module):
    def forward(self, x):
        return lif(x, decay=0.5)[0]
Neuron.__name__ = {!r}
def make(channels):
    return Neuron()
"""


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """A folder with two runs, a recording, a table and class folders, whose names all mean something somewhere."""
    root = tmp_path_factory.mktemp("hostile")
    before = Path.cwd()
    os.chdir(root)
    try:
        series = tiny.series()
        with Path(f"{TABLE}.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["time", *NAMES])
            for moment, row in zip(series.times, series.values, strict=True):
                writer.writerow([moment, *(row[k % 6] for k in range(len(NAMES)))])
        recording = f"{FILE.replace('/', '')}.npz"
        e = some_events()
        np.savez("r.npz", t=e.t, x=e.x, y=e.y, p=e.p)
        Path("r.npz").rename(recording)
        for name in (*NAMES, UNDECODABLE):
            for k in range(4):
                write_nmnist(Path("events") / name.replace("/", "") / f"{k}.bin", some_events(seed=k))
        (Path("events") / NAMES[0] / f"{NAMES[4]}.bin").write_bytes(b"123")
        part = f"{FILE.replace('/', '')}.py"
        Path(part).write_text(NEURON.format(FILE))
        made = {"table": f"{TABLE}.csv", "recording": recording, "part": f"{part}:make"}
        with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()) as output:
            patch.setenv("COLUMNS", "300")
            for train in RUNS:
                assert main(train(made)) == 0, output.getvalue()
        yield {**made, "trained": output.getvalue()}
    finally:
        os.chdir(before)


SERIES = ["series-linear", "--series.horizon", "4"]
EVENTS = [
    "events-folder-vggsnn-staa", "--data", "events", "--data.size", "16", "--data.sensor", "34x34", "--data.frames", "window",
    "--data.window", "30", "--model.steps", "None", "--data.steps", "4", "--model.attention", "None", "--model.sites", "None",
    "--model.width", "0.05", "--epochs", "1", "--optim.warmup-epochs", "0", "--data.corrupt", "skip",
]  # fmt: skip
RUNS = [  # what is trained for the commands
    lambda h: ["train", *SERIES, "--data", h["table"], "--out", RUN],
    lambda h: ["train", *SERIES, "--data", h["table"], "--out", "=second; @x"],
    lambda h: ["train", *EVENTS, "--out", CLASSES],
]
SHOWN = {  # command -> arguments, and what it must show
    "train": (lambda h: ["--resume", CLASSES], [CLASSES]),
    "evaluate": (lambda h: [RUN], [RUN]),
    "compare": (lambda h: [RUN, "=second; @x", "--out", f"out{ESC}[/y]"], [RUN, "=second; @x", f"out{ESC}[/y]"]),
    "sweep": (
        lambda h: [*SERIES, "--data", h["table"], "--over", "series.normalise=zscore,max", "--out", f"swept{ESC}[/y]"],
        [f"swept{ESC}[/y]", "series.normalise=max"],
    ),
    "stream": (lambda h: [CLASSES, h["recording"], "--sensor", "34x34"], []),
    "predict": (lambda h: [RUN, h["table"]], [RUN]),
    "energy": (lambda h: [CLASSES], [CLASSES]),
    "report": (lambda h: [CLASSES, "--out", f"page{ESC}[/y].html"], [f"page{ESC}[/y].html"]),
    "runs": (lambda h: [RUN, CLASSES], [RUN, CLASSES]),
    "share": (lambda h: [RUN, "--out", f"shared{ESC}[/y]"], [RUN, f"shared{ESC}[/y]"]),
    "push": (lambda h: [CLASSES, "org/name"], [CLASSES, NAMES[4]]),
    "export": (lambda h: [CLASSES, "--to", "nir", "--out", f"net{ESC}[/y].nir"], [CLASSES, f"net{ESC}[/y].nir"]),
    "check": (lambda h: [h["part"]], [FILE]),
    "recipes": (lambda h: [], []),
    "data": (lambda h: ["convert", h["recording"], f"new{ESC}[/y].npz"], [FILE.replace("/", ""), f"new{ESC}[/y].npz"]),
    "bench": (lambda h: [], [NAMES[4], "[x]"]),
    "doctor": (lambda h: ["--data", RUN], [RUN]),
}


def printed(capfd_bytes):
    """What came out, as text; it is plain in every byte."""
    text = b"".join(capfd_bytes).decode()
    assert all(map(is_plain, text.split("\n"))), ascii(text)
    return text


def test_every_command_is_tried():
    assert SHOWN.keys() == COMMANDS.keys()


def test_training_on_hostile_names(hostile):
    assert all(map(is_plain, hostile["trained"].split("\n")))
    for name in (RUN, CLASSES, NAMES[4]):  # the last is the file that can't be read
        assert for_terminal(name) in hostile["trained"]


@pytest.mark.parametrize("command", SHOWN)
def test_a_command_on_hostile_names(command, hostile, capfdbinary, monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.setattr("staa.cli.machine.run_bench", lambda *_, **__: [(NAMES[4], [("[x]", 1.0, 1.0, 1.0, 1.0)])])
    monkeypatch.setattr("staa.cli.push.push_run", lambda *_, **__: f"https://hub/{NAMES[4]}")
    make, shown = SHOWN[command]
    code = main([command, *make(hostile)])
    text = printed(capfdbinary.readouterr())
    assert code == 0, text
    for name in shown:
        assert for_terminal(name) in text
    if command == "compare":
        folder = Path(f"out{ESC}[/y]")
        assert read_names(folder / "compare.csv") == {RUN, "=second; @x"}
        check_table(folder / "compare.csv")
    if command == "predict":
        (table,) = Path(RUN, "forecasts").glob("*/forecast.csv")
        check_table(table)
        rows = csv.DictReader(io.StringIO(table.read_text(), newline=""))
        assert {from_csv(row["variate"]) for row in rows} == set(NAMES)
    if command in ("evaluate", "predict"):
        text = the_same_of_classes(command, hostile, capfdbinary)
    if command in ("evaluate", "predict", "stream"):
        assert any(for_terminal(name.replace("/", "")) in text for name in (*NAMES, UNDECODABLE))


def the_same_of_classes(command, hostile, capfdbinary):
    """A recording and classes of hostile names; returns what came out."""
    Path(f"{command}.csv").unlink(missing_ok=True)
    files = [hostile["recording"]] if command == "predict" else []
    assert main([command, CLASSES, *files, "--csv", f"{command}.csv"]) == 0
    check_table(Path(f"{command}.csv"))
    classes = {name.replace("/", "") for name in (*NAMES, UNDECODABLE)}
    column, where = ("class", "input") if command == "predict" else ("prediction", "file")
    with open(f"{command}.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {from_csv(row[column]) for row in rows} <= classes
    assert all(Path(from_csv(row[where])).is_file() for row in rows)
    return printed(capfdbinary.readouterr())


def check_table(path):
    for row in csv.reader(io.StringIO(path.read_text(), newline="")):
        assert all(for_csv(from_csv(cell)) == cell for cell in row)


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_an_error_with_a_hostile_name(command, hostile, capfdbinary):
    name = f"{ESC}\u202e[/y]{UNDECODABLE}"
    other = {"recipes": ["--" + name], "bench": ["--device", name], "doctor": ["--x" + name]}
    arguments = other.get(command, [name, "file"][: 2 if command in ("stream", "predict", "push") else 1])
    assert main([command, *arguments]) == 2
    text = printed(capfdbinary.readouterr())
    assert text.startswith("staa: error: ")
    assert text.count("\n") == 1


def test_the_help_of_a_foreign_recipe(hostile, capfdbinary, tmp_path):
    recipe = json.loads(Path(RUN, "recipe.json").read_text())
    recipe["series"]["graph"] = f"{ESC}/graph.npy"
    (tmp_path / "recipe.json").write_text(json.dumps(recipe))
    with pytest.raises(SystemExit):
        main(["train", "--resume", str(tmp_path), "--help"])
    assert "\\x1b[31m/graph.npy" in printed(capfdbinary.readouterr())


# --- the command's end --------------------------------------------------------------------------------------------------------


def staa_process(*args, **options):
    return subprocess.Popen([sys.executable, "-m", "staa", *args], stderr=subprocess.PIPE, **options)


def test_warnings_are_plain_too(tmp_path):
    path = tmp_path / f"{ESC}[b].aedat"
    path.write_bytes(b"#!AER-DAT2.0\r\n" + bytes(8) + b"rest")
    args = ["data", "show", str(path), "--out", str(tmp_path / "a.png")]
    with staa_process(*args, stdout=subprocess.PIPE) as process:
        text = printed(process.communicate())
    assert process.returncode == 0
    assert "staa: warning: " in text


@pytest.mark.parametrize("args", [["recipes"], ["train", "--help"]])
def test_nobody_reads_what_is_printed(args):
    reading, writing = os.pipe()
    os.close(reading)
    with staa_process(*args, stdout=writing) as process:
        os.close(writing)
        assert process.stderr.read() == b""
    assert process.returncode == staa.cli.signals.CUT_OFF


def test_a_terminal_without_the_characters():
    with staa_process("doctor", stdout=subprocess.PIPE, env=os.environ | {"PYTHONIOENCODING": "ascii"}) as process:
        text, error = process.communicate()
    assert (process.returncode, error) == (0, b"")
    assert b"CPU" in text


def test_a_fault_of_ours_says_what_to_report(capsys, monkeypatch):
    monkeypatch.setattr("staa.cli.machine.choose_device", lambda _: {}["no device"])
    assert main(["doctor"]) == 1
    text = capsys.readouterr().err
    assert re.match(
        r"staa: failed: KeyError: 'no device' in machine.py, line \d+. This is a fault of staa .*: please report", text
    )
    assert text.count("\n") == 1
    monkeypatch.setenv("STAA_DEBUG", "1")
    assert main(["doctor"]) == 1
    assert "Traceback" in (text := capsys.readouterr().err)
    assert text.endswith("KeyError: 'no device'\n")


def test_a_traceback_moves_no_cursor(monkeypatch, capsys):
    assert main(["train", "\x1b[2J.py:recipe\rstaa: fine", "--debug"]) == 2
    text = capsys.readouterr().err
    assert "Traceback" in text
    assert "\\x1b[2J" in text
    assert not {"\x1b", "\r"} & set(text)


@pytest.mark.parametrize("value", [float("inf"), -float("inf"), float("nan"), 1e308, -1e308])
def test_what_can_not_be_drawn_is_left_out(value, tmp_path):
    draw_bars(["a", "b"], {"x": {"": [value, 2.0], "±": [value, 0.1]}, "y": {"": [value, value]}}, tmp_path / "bars.png")
    draw_horizons({"a": [{"step": k, "mae": value, "rmse": 1.0, "r2": value} for k in (1, 2)]}, tmp_path / "curves.png")
    numbers = np.full((3, 1), value)
    draw_forecasts(["a"], [Drawn(range(6), *[numbers] * 5)], tmp_path / "forecast.png", title="")
    assert all((tmp_path / f"{name}.png").stat().st_size > 1000 for name in ("bars", "curves", "forecast"))


# --- the kind, in the source --------------------------------------------------------------------------------------------------


def calls(path):
    """(name of the function or method, call, name of the function around it)"""
    tree = ast.parse(path.read_text())
    around = {}
    for f in ast.walk(tree):
        if isinstance(f, ast.FunctionDef):
            around |= {id(node): f.name for node in ast.walk(f)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            yield name, node, around.get(id(node), "")


def is_ours(node, function):
    """Whether an expression is a constant, numbers in an f-string, or what a function of `staa.text` made."""
    if isinstance(node, ast.Constant):
        return True
    if isinstance(node, ast.JoinedStr):
        return all(is_ours(value, function) for value in node.values)
    if isinstance(node, ast.FormattedValue):
        return node.format_spec is not None or is_ours(node.value, function)
    if isinstance(node, (ast.ListComp, ast.GeneratorExp)):
        return is_ours(node.elt, function)
    if isinstance(node, ast.List):
        return all(is_ours(value, function) for value in node.elts)
    if isinstance(node, ast.IfExp):
        return is_ours(node.body, function) and is_ours(node.orelse, function)
    if isinstance(node, ast.Starred):
        return is_ours(node.value, function)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        mapped = node.func.id == "map" and isinstance(node.args[0], ast.Name) and node.args[0].id == function
        return mapped or node.func.id in (function, "int")
    return False


TITLED = {"set_title": 0, "suptitle": 0, "set_yticks": 1, "set_xticks": 1, "annotate": 0, "text": 0, "set_xlabel": 0}
TITLES = {"label", "title", "xlabel", "ylabel", "zlabel", "labels", "s"}


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=lambda p: str(p.relative_to(SOURCE)))
def test_no_text_goes_round_the_functions(path):
    odd = []
    # A child process, whose parent reads what it prints; and what is copied beside a file, to run without staa.
    piped = path.name in ("hdf.py", "apart.py", "loop.py")
    for name, call, inside in calls(path):
        line = f"{path.name}:{call.lineno}: {ast.unparse(call)}"
        if name == "print" and not (piped or inside in ("say", "show") or all(is_ours(a, "for_terminal") for a in call.args)):
            odd.append(line)
        if name == "add_row" and not all(is_ours(a, "for_terminal") for a in call.args):
            odd.append(line)
        if name == "add_task" and not is_ours(call.args[0], "for_terminal"):
            odd.append(line)
        if (name == "Console" and inside != "new_console") or (
            name == "TextColumn" and "markup" not in {k.arg for k in call.keywords}
        ):
            odd.append(line)
        if name == "write" and not piped and re.search(r"std(out|err)", ast.unparse(call.func)):
            odd.append(line)
        if name in ("writerow", "writerows") and not (inside == "write_csv" and writes_a_header(call)):
            odd += [line] * (not all(is_ours(a, "for_csv") for a in call.args))
        if path.name == "pictures.py":  # of a report, tests/test_report.py draws hostile names
            text = call.args[TITLED[name] : TITLED[name] + 1] if name in TITLED else []
            text += [k.value for k in call.keywords if k.arg in TITLES and name not in ("draw_bars", "draw_horizons")]
            odd += [line] * (not all(is_ours(a, "for_figure") for a in text))
        if name == "savefig" and not draws(path):
            odd.append(line)
    assert not odd
    assert draws(path) or path.name == "text.py" or "import matplotlib" not in path.read_text()


def draws(path):
    return path.parent.name == "report" or path.name in ("pictures.py", "tensorboard.py")


def writes_a_header(call):
    return ast.unparse(call.args[0]) == "table[0]" or (
        isinstance(call.args[0], ast.List) and all(isinstance(cell, ast.Constant) for cell in call.args[0].elts)
    )


FLAG = re.compile(r"(?<![\w-])--[a-z][\w.-]*")
ARGUMENTS = re.compile(r"--[a-z-]+")  # of another program's, alone in its string


COMMAND = re.compile(r"(?:^|')staa [^']*(?:'|$)")  # a whole one, which is typed as it is


def _written(node):
    """The text of a string, of an f-string with … for what is put in; nothing for what is none."""
    if isinstance(node, ast.JoinedStr):
        return "".join(piece.value if isinstance(piece, ast.Constant) else "…" for piece in node.values)
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


def test_the_library_speaks_of_no_flags():
    found = []
    for path in sorted(SOURCE.rglob("*.py")):
        if path.parent.name == "cli":
            continue
        tree = ast.parse(path.read_text())
        pieces = {id(piece) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for piece in node.values}
        for node in ast.walk(tree):
            text = "" if id(node) in pieces else COMMAND.sub("", _written(node))
            if FLAG.search(text) and not ARGUMENTS.fullmatch(text):
                found.append(f"{path.relative_to(SOURCE)}:{node.lineno}: {FLAG.search(text)[0]}")
    assert not found, "\n".join(found)
