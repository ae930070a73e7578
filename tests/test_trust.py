"""A run folder is data: what it names runs only if its user says so, on every command and in every function that takes one."""

import hashlib
import importlib
import inspect
import json
import os
import pkgutil
import random
import shutil
import subprocess
import sys
from contextlib import nullcontext, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

import broken_runs
import numpy as np
import pandas as pd
import pytest
import tiny
import torch
from test_events import some_events, write_nmnist

import staa
from staa.build import task_of
from staa.cli import COMMANDS, main
from staa.cli.export import ENDINGS
from staa.recipes import code, find
from staa.recipes.as_json import from_json, to_json
from staa.recipes.code import UntrustedCodeError
from staa.recipes.find import find_recipe
from staa.runs import Run, run
from staa.runs.folder import read_environment, read_recipe, read_result
from staa.training.checkpoint import LAST
from staa.training.progress import Result

FIELDS = [("data", "name"), ("model", "name"), ("model", "neuron"), ("model", "attention"), ("loss", "name")]
TINY = f"{tiny.__file__}:recipe"
BASE = replace(tiny.recipe, epochs=1, model=replace(tiny.recipe.model, attention=None))


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Finished runs of images and of a series, with a recording and a table to go with them."""
    root = tmp_path_factory.mktemp("runs")
    for _ in run(BASE, root / "images"):
        pass
    broken_runs.make(root / "series", series=True)
    write_nmnist(root / "0.bin", some_events())
    series = tiny.series()
    times = np.datetime_as_string(series.times, unit="s")
    rows = [
        ",".join(["time", *series.names]),
        *(",".join([t, *map(str, v)]) for t, v in zip(times, series.values, strict=True)),
    ]
    (root / "table.csv").write_text("\n".join(rows))
    return root


@pytest.fixture
def another_process(monkeypatch):
    """As if the run had been trained by another process: nobody here has named a file yet."""
    monkeypatch.setattr(code, "_vouched", set())


def payload(path, marker):
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_text(
        f"from os import kill\nfrom pathlib import Path\nPath({str(marker)!r}).touch()\n"
        f"def n(*args, **settings):\n    Path({str(marker)!r}).touch()\n"
    )
    return path


def rename(folder, part, key, name):
    """Have a run's recipe name something else, in its checkpoint too."""
    values = json.loads((folder / "recipe.json").read_text())
    values[part][key] = name
    (folder / "recipe.json").write_text(json.dumps(values))
    state = torch.load(folder / LAST, weights_only=True)
    torch.save(state | {"recipe": json.dumps(values)}, folder / LAST)


def in_code(folder, marker):
    """What the folder says of a payload that lies where a copy would."""
    path = payload(folder / "code" / "notes.py", marker)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    path.rename(path.with_name(f"notes-{digest}.py"))
    return f"code/notes-{digest}.py:n"


EXPLOITS = {
    "beside the run": lambda folder, marker: f"{payload(folder / 'downloaded' / 'notes.py', marker).relative_to(folder)}:n",
    "anywhere": lambda folder, marker: f"{payload(folder.parent / 'notes.py', marker)}:n",
    "as a copy": in_code,
    "outside": lambda folder, marker: f"code/../../{payload(folder.parent / 'notes.py', marker).name}:n",
    "a module of Python's": lambda folder, marker: f"{os.__file__}:kill",
}


def hostile(runs, kind, exploit, part, key, tmp_path):
    folder, marker = tmp_path / kind, tmp_path / "marker"
    shutil.copytree(runs / kind, folder)
    rename(folder, part, key, EXPLOITS[exploit](folder, marker))
    (folder / "result.json").rename(tmp_path / "result.json")
    return folder, marker


def functions():
    """Every public function of the package that takes a run folder, by its signature."""
    for info in pkgutil.walk_packages(staa.__path__, "staa."):
        if info.name.startswith("staa.__") or "_kernels" in info.name:
            continue
        module = importlib.import_module(info.name)
        for name, f in inspect.getmembers(module, inspect.isfunction):
            if f.__module__ == info.name and not name.startswith("_"):
                names = set(inspect.signature(f).parameters)
                if names & {"run", "run_folder", "runs", "resume"} or (info.name == "staa.runs.folder" and "folder" in names):
                    yield pytest.param(f, id=f"{info.name}.{name}")
    for name in ("model", "data", "log", "result", "environment", "names", "preparation", "predict"):
        yield pytest.param(partial(_part, name), id=f"Run.{name}")
    yield pytest.param(staa.Stream, id="Stream")


def _part(name, run):
    part = getattr(Run(run), name)
    return {"model": lambda: part(), "predict": lambda: part(torch.zeros(3, 2, 16, 16))}.get(name, lambda: part)()


def arguments(f, folder, runs, kind, tmp_path):
    """Something for each argument; a new one is to be told here."""
    (tmp_path / "new").mkdir(exist_ok=True)
    known = {
        "run": folder, "run_folder": folder,
        "folder": tmp_path / "new" if "rates" in inspect.signature(f).parameters else folder,
        "runs": {"it": [folder]}, "resume": folder, "rates": {"a": 0.5}, "recording": runs / "0.bin", "window": 30.0,
        "file": runs / ("0.bin" if kind == "images" else "table.csv"), "weights": "last", "split": "test",
        "data_root": tmp_path,
        "out": tmp_path / "shared", "event": {"event": "x", "step": 1}, "wanted": BASE, "sensor": "16x16",
        "series": tiny.series(), "frame": pd.DataFrame(tiny.series().values, tiny.series().times, tiny.series().names),
        "what": "it", "at": (), "ahead": 1, "steps": 1, "interval": 0.5, "level": 0.5, "model": torch.nn.Identity(),
        "device": "cpu", "epochs": 1, "name": "it", "sections": (), "events": (), "inputs": torch.zeros(1, 3, 2, 16, 16),
        "form": "window", "suffix": ".onnx", "verify": False, "trust": False, "network": torch.nn.Identity(), "proof": None,
        "exported": torch.nn.Identity(), "state": (), "changes": [], "same_data_as": None,
    }  # fmt: skip
    endings = {"to_onnx": ".onnx", "traced": ".onnx", "exportable": ".onnx", "to_program": ".pt2", "to_nir": ".nir"}
    if (ending := endings.get(getattr(f, "__name__", ""))) is not None:
        known["out"] = tmp_path / f"a{ending}"
    if getattr(f, "__name__", "") == "push":
        known["name"] = "org/it"
    if getattr(f, "__name__", "") == "evaluate_rolling":
        known["out"] = tmp_path / f"{len(list(tmp_path.iterdir()))}.csv"
    if getattr(f, "__name__", "") == "write_report":
        known["out"] = None
    if getattr(f, "__name__", "") == "forecast":
        known["at"] = None
    signature = inspect.signature(f).parameters
    if "run" in signature and signature["run"].annotation is Run:
        known["run"] = Run(folder)
    if "recipe" in signature:
        known["recipe"] = read_recipe(folder)
    if "about" in signature:
        known["about"] = read_environment(folder)["data"]
    if "source" in signature:
        known["source"] = tiny.events(steps=3, validation=0.1)
    if {"resume", "out"} <= signature.keys():
        known.pop("out")  # it goes on in the run's own folder
    needed = {name for name, p in signature.items() if p.default is p.empty}
    assert needed <= known.keys(), f"say here what {f} takes as {', '.join(needed - known.keys())}"
    return {name: known[name] for name in signature if name in known}


PLACES = [*(("images", *field) for field in FIELDS), *(("series", part, "name") for part in ("data", "model", "loss"))]


@pytest.mark.some(2)
@pytest.mark.parametrize(("number", "f"), [pytest.param(k, *f.values, id=f.id) for k, f in enumerate(functions())])
def test_no_function_runs_what_a_folder_names(number, f, runs, tmp_path, another_process):
    """Every function on every place of a recipe; the exploits take turns, so that each is tried in each place."""
    for k, (kind, part, key) in enumerate(PLACES):
        exploit = list(EXPLOITS)[(number + k) % len(EXPLOITS)]
        base = tmp_path / f"{kind}-{part}-{key}"
        folder, marker = hostile(runs, kind, exploit, part, key, base)
        for finished in (False, True):
            if finished:
                shutil.copy(base / "result.json", folder)
            with suppress(ValueError, OSError):
                made = f(**arguments(f, folder, runs, kind, base))
                if inspect.isgenerator(made):
                    list(made)
            assert not marker.exists(), (exploit, kind, part, key)


def test_the_payload_runs_where_it_is_trusted(runs, tmp_path, another_process):
    """Else the tests around this one would show nothing."""
    folder, marker = hostile(runs, "images", "as a copy", "model", "neuron", tmp_path)
    with pytest.raises(ValueError, match="the network can't be built"):
        staa.load(folder, trust=True)
    assert marker.exists()


def commands(folder, runs, kind):
    """Every command on a run folder; None for one that takes none. A new command is to be told here."""
    run_, file = str(folder), str(runs / ("0.bin" if kind == "images" else "table.csv"))
    out = str(folder.parent / "out")
    return {
        "train": [
            ["train", "--resume", run_], ["train", TINY, "--init-from", run_, "--out", out],
            ["train", "--resume", run_, "--prolong", "1", "--out", out],
        ],
        "evaluate": [
            ["evaluate", run_], ["evaluate", run_, "--weights", "best"],
            ["evaluate", run_, "--rolling", "--out", f"{out}/all.csv", "--interval", "0.5"],
        ],
        "energy": [["energy", run_, "--csv", f"{out}/energy.csv"]],
        "compare": [["compare", run_, "--out", out]],
        "sweep": [["sweep", TINY, "--init-from", run_, "--over", "optim.lr=0.01,0.1", "--max-steps", "1", "--out", out]],
        "stream": [["stream", run_, file, "--window", "30"]],
        "predict": [
            ["predict", run_, file, "--out", out, "--interval", "0.5", "--steps", "9"], ["predict", run_, file, "--top", "2"],
        ],
        "report": [["report", run_, "--out", f"{out}/page.html"]],
        "share": [["share", run_, "--out", out]],
        "push": [["push", run_, "org/name"]],
        "export": [["export", run_, "--to", to, "--no-verify", "--out", f"{out}/a{end}"] for to, end in ENDINGS.items()],
        "runs": [["runs", run_], ["runs", str(folder.parent)]],
        "check": [], "recipes": [], "data": [], "bench": [], "doctor": [],
    }  # fmt: skip


@pytest.mark.some(2)
@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("exploit", EXPLOITS)
def test_no_command_runs_what_a_folder_names(command, exploit, runs, tmp_path, another_process, capsys):
    for kind, (part, key) in (("images", ("model", "neuron")), ("images", ("data", "name")), ("series", ("model", "name"))):
        base = tmp_path / f"{kind}-{key}"
        folder, marker = hostile(runs, kind, exploit, part, key, base)
        shutil.copy(base / "result.json", folder)
        for args in commands(folder, runs, kind)[command]:
            assert main(args) in (0, 1, 2), args
            assert "Traceback" not in capsys.readouterr().err
            assert not marker.exists(), args
            shutil.rmtree(base / "out", ignore_errors=True)


def test_json_alone_kills_no_process(runs, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(runs / "images", folder)
    victim = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        values = json.loads((folder / "recipe.json").read_text())
        values["model"] |= {"attention": f"{os.__file__}:kill", "steps": victim.pid % 2**20, "width": 0.15}
        (folder / "recipe.json").write_text(json.dumps(values))
        torch.save(torch.load(folder / LAST, weights_only=True) | {"recipe": json.dumps(values)}, folder / LAST)
        for trust in (False, True):  # the file's own functions alone are found, even if it is trusted
            with (
                pytest.raises(ValueError, match="it was not run" if not trust else "only imports 'kill'"),
                _quiet_about_age(trust),
            ):
                staa.load(folder, trust=trust)
        assert victim.poll() is None
    finally:
        victim.kill()
        victim.wait()


def _quiet_about_age(expected):
    return pytest.warns(UserWarning, match="may have changed since") if expected else nullcontext()


@pytest.fixture
def own(tmp_path):
    """A run with a neuron of its own, trained here; and what it runs when it is imported."""
    marker = tmp_path / "marker"
    (tmp_path / "own.py").write_text(
        f"from pathlib import Path\nfrom staa.neurons import LIF\nPath({str(marker)!r}).touch()\n"
        f"def make(channels):\n    return LIF(decay=0.25)\nfirm = make\nimported = LIF\n"
    )
    recipe = replace(BASE, model=replace(BASE.model, neuron=f"{tmp_path}/own.py:make"))
    for _ in run(recipe, tmp_path / "run"):
        pass
    marker.unlink()
    return tmp_path


def test_the_process_that_trained_it_needs_no_word_and_every_other_does(own, monkeypatch, capsys):
    (own / "own.py").unlink()
    assert staa.load(own / "run").stages[0][1].neuron.decay == 0.25
    monkeypatch.setattr(code, "_vouched", set())
    (own / "marker").unlink(missing_ok=True)
    (copy,) = (own / "run" / "code").glob("own-*.py")
    digest = hashlib.sha256(copy.read_bytes()).hexdigest()
    with pytest.raises(UntrustedCodeError, match="it was not run: .*trust=True") as refused:
        staa.load(own / "run")
    assert f"'make' of {copy}, sha256 {digest}" in str(refused.value)
    (data,) = (own / "run" / "code").glob("tiny-*.py")  # trusted by the same word, so it is shown too
    assert f"'events' of {data}, sha256 {hashlib.sha256(data.read_bytes()).hexdigest()}" in str(refused.value)
    assert not (own / "marker").exists()
    assert main(["evaluate", str(own / "run")]) == 2
    assert "--trust-code" in capsys.readouterr().err
    assert main(["evaluate", str(own / "run"), "--trust-code"]) == 0
    assert staa.load(own / "run").stages[0][1].neuron.decay == 0.25  # this process has been told


def test_a_moved_run_with_its_own_code_goes_on_where_its_user_trusts_it(own, monkeypatch, capsys):
    (own / "own.py").unlink()
    (own / "run" / "result.json").unlink()
    (own / "run").rename(own / "moved")
    monkeypatch.setattr(code, "_vouched", set())
    assert main(["train", "--resume", str(own / "moved")]) == 2
    assert main(["train", "--resume", str(own / "moved"), "--trust-code"]) == 0


@pytest.mark.parametrize("trust", [False, True])
def test_a_changed_copy_is_refused_in_any_case(own, trust, monkeypatch):
    (copy,) = (own / "run" / "code").glob("own-*.py")
    copy.write_text(copy.read_text() + "\n")
    with pytest.raises(ValueError, match=rf"{copy} was changed since the run was trained"):
        staa.load(own / "run", trust=trust)
    assert not (own / "marker").exists()


def test_a_link_for_a_copy_is_refused(own):
    (copy,) = (own / "run" / "code").glob("own-*.py")
    copy.rename(own / "elsewhere.py")
    copy.symlink_to(own / "elsewhere.py")
    with pytest.raises(ValueError, match="is a link out of the run folder"):
        staa.load(own / "run", trust=True)


def test_a_missing_copy_is_named(own):
    next((own / "run" / "code").glob("own-*.py")).unlink()
    with pytest.raises(FileNotFoundError, match=r"code/own-\w+.py is missing"):
        staa.load(own / "run", trust=True)


def test_a_compiled_file_beside_a_copy_is_not_run_in_its_stead(own, monkeypatch):
    """What the user read is what runs."""
    import py_compile

    monkeypatch.setattr(code, "_vouched", set())
    (copy,) = (own / "run" / "code").glob("own-*.py")
    evil, text = own / "evil.py", copy.read_text()
    evil.write_text("import os\n" + "#" * (len(text) - 10))
    payload(evil, own / "pwned")
    cached = Path(importlib.util.cache_from_source(str(copy)))
    cached.parent.mkdir()
    py_compile.compile(str(evil), cfile=str(cached), invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)
    staa.load(own / "run", trust=True)
    assert not (own / "pwned").exists()


def test_what_a_file_merely_imports_is_not_its_own(own):
    for name in ("imported", "LIF"):
        recipe = replace(BASE, model=replace(BASE.model, neuron=f"{own}/own.py:{name}"))
        with pytest.raises(ValueError, match=f"only imports '{name}'"):
            list(run(recipe, own / "new"))
        assert not (own / "new").exists()


def test_a_file_that_needs_its_neighbours_is_refused_when_it_is_trained(tmp_path, monkeypatch):
    (tmp_path / "sibling.py").write_text("DECAY = 0.5\n")
    (tmp_path / "own.py").write_text(
        "from staa.neurons import LIF\ndef make(channels):\n    from sibling import DECAY\n    return LIF(decay=DECAY)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)  # as python -m staa has its own folder
    with pytest.raises(ValueError, match=r"own.py imports sibling beside it.*into that one file, or install"):
        list(run(replace(BASE, model=replace(BASE.model, neuron=f"{tmp_path}/own.py:make")), tmp_path / "run"))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("graphlib", "import graphlib"),  # of the standard library
        ("yaml_like_numpy", "import importlib; importlib.import_module('yaml_like_numpy')"),
        ("helper_x", "from importlib import import_module as f, import_module; import_module(name='helper_x.part')"),
        ("helper_x", "__import__('helper_x')"),
        ("pandas", "def later():\n    import pandas.core"),  # installed
        ("own", "import own"),
    ],
)
def test_a_neighbour_is_refused_whatever_it_is_called(name, line, tmp_path):
    (tmp_path / f"{name}.py").write_text("DECAY = 0.5\n")
    (tmp_path / "own.py").write_text(f"{line}\nfrom staa.neurons import LIF\ndef make(channels):\n    return LIF()\n")
    recipe = replace(BASE, model=replace(BASE.model, neuron=f"{tmp_path}/own.py:make"))
    with pytest.raises(ValueError, match=f"own.py imports {name} beside it"):
        code.for_folder(recipe)
    with pytest.raises(ValueError, match=f"own.py imports {name} beside it"):
        task_of(recipe).network({"classes": 2, "channels": 2, "size": 16})


def test_what_an_installed_package_imports_is_not_taken_from_beside_a_file(tmp_path):
    """At training as at loading: the copy has no neighbours."""
    (tmp_path / "this.py").write_text("raise SystemError('beside')\n")
    (tmp_path / "own.py").write_text("import sys\nbefore = list(sys.path)\ndef make(channels):\n    return before\n")
    assert str(tmp_path) not in find.find(f"{tmp_path}/own.py:make", {}, "neuron", folder=None)(1)


def test_an_edited_file_is_read_anew_in_the_same_process(tmp_path):
    recipe = replace(BASE, max_steps=1, model=replace(BASE.model, neuron=f"{tmp_path}/own.py:make"))
    for decay in (0.5, 0.25):
        (tmp_path / "own.py").write_text(f"from staa.neurons import LIF\ndef make(channels):\n    return LIF(decay={decay})\n")
        folder = tmp_path / f"run{decay}"
        list(run(recipe, folder))
        (copy,) = (folder / "code").glob("own-*.py")
        assert copy.read_text() == (tmp_path / "own.py").read_text()
        assert staa.load(folder).stages[0][1].neuron.decay == decay


def test_a_file_that_changes_while_a_run_is_prepared_stops_it(tmp_path):
    """What is stored is what was trained with."""
    (tmp_path / "own.py").write_text(
        "from pathlib import Path\nfrom staa.neurons import LIF\n"
        "def make(channels):\n    Path(__file__).write_text(Path(__file__).read_text() + '#')\n    return LIF()\n"
    )
    with pytest.raises(ValueError, match="was changed while the run was prepared"):
        list(run(replace(BASE, model=replace(BASE.model, neuron=f"{tmp_path}/own.py:make")), tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_a_recipe_file_may_have_neighbours_and_name_its_own_functions(tmp_path):
    (tmp_path / "settings_beside.py").write_text("EPOCHS = 1\n")
    (tmp_path / "parts.py").write_text("from staa.neurons import LIF\ndef make(channels):\n    return LIF(decay=0.75)\n")
    (tmp_path / "mine.py").write_text(
        "from dataclasses import replace\nfrom settings_beside import EPOCHS\nfrom staa import RECIPES\n"
        "base = RECIPES['digits-events']\n"
        "recipe = replace(base, epochs=EPOCHS, model=replace(base.model, neuron='parts.py:make', attention=None, width=0.05))\n"
    )
    recipe = find_recipe(f"{tmp_path}/mine.py:recipe")
    for _ in run(replace(recipe, max_steps=1), tmp_path / "run"):
        pass
    assert [p.name[:6] for p in (tmp_path / "run" / "code").iterdir()] == ["parts-"]
    assert any(getattr(module, "decay", None) == 0.75 for module in staa.load(tmp_path / "run").modules())
    with pytest.raises(ValueError, match="imports settings_beside beside it"):
        (tmp_path / "mine.py").write_text((tmp_path / "mine.py").read_text() + "def own(*_, **__):\n    return None\n")
        recipe = find_recipe(f"{tmp_path}/mine.py:recipe")
        code.for_folder(replace(recipe, loss=replace(recipe.loss, name=f"{tmp_path}/mine.py:own")))


def test_a_recipe_from_a_folder_stays_one(own, monkeypatch):
    """It can be changed and trained anew; who wrote its names does not change with that."""
    monkeypatch.setattr(code, "_vouched", set())
    recipe = replace(read_recipe(own / "run"), epochs=2)
    with pytest.raises(UntrustedCodeError):
        list(run(recipe, own / "new"))
    with pytest.raises(UntrustedCodeError):
        task_of(recipe).network({"classes": 2, "channels": 2, "size": 16})
    assert not (own / "new").exists()
    assert isinstance(list(run(recipe, own / "new", trust=True))[-1], Result)
    assert {p.name for p in (own / "new" / "code").iterdir()} == {p.name for p in (own / "run" / "code").iterdir()}


def test_no_text_says_that_it_is_the_user_s_own():
    values = json.loads(to_json(tiny.recipe))
    assert from_json(json.dumps(values)).folder is not None
    with pytest.raises(ValueError, match="unknown folder"):
        from_json(json.dumps(values | {"folder": None}))


def test_a_run_of_an_older_version_loads_where_its_file_is_there_and_it_is_trusted(own, monkeypatch):
    rename(own / "run", "model", "neuron", f"{own}/own.py:make")
    next((own / "run" / "code").glob("own-*.py")).unlink()
    monkeypatch.setattr(code, "_vouched", set())
    with pytest.raises(UntrustedCodeError):
        staa.load(own / "run")
    with pytest.warns(UserWarning, match=r"own.py may have changed since"):
        assert staa.load(own / "run", trust=True).stages[0][1].neuron.decay == 0.25
    (own / "own.py").unlink()
    with pytest.raises(FileNotFoundError, match=r"own.py, which is not there: put it back"):
        staa.load(own / "run", trust=True)


def test_recipe_and_checkpoint_are_compared_first(runs, tmp_path, another_process):
    folder = tmp_path / "run"
    shutil.copytree(runs / "images", folder)
    values = json.loads((folder / "recipe.json").read_text())
    values["model"]["neuron"] = f"{payload(tmp_path / 'notes.py', tmp_path / 'marker')}:n"
    (folder / "recipe.json").write_text(json.dumps(values))
    for weights in ("last", "best"):
        with pytest.raises(ValueError, match=r"last.pt belongs to another recipe"):
            staa.load(folder, weights=weights)
    (folder / LAST).rename(folder / "previous.pt")
    with pytest.raises(ValueError, match=r"previous.pt belongs to another recipe"):
        staa.load(folder, weights="best")


@pytest.mark.parametrize(
    ("kind", "name", "changes", "message"),
    [
        ("series", "environment.json", {"data": {"window": 5}}, "its data.window is 5, the recipe's 12"),
        ("series", "environment.json", {"data": {"horizon": 5}}, "its data.horizon is 5, the recipe's "),
        ("series", "environment.json", {"data": {"scale": [0.0] * 6}}, "data.scale"),
        ("series", "environment.json", {"data": {"scale": [-1.0] * 6}}, "data.scale"),
        ("series", "environment.json", {"data": {"offset": [float("inf")] * 6}}, "broken"),
        ("series", "result.json", {"test_accuracy": 0.5}, "its test_accuracy"),
        ("images", "result.json", {"test_mae": 0.5}, "its test_mae"),
        ("images", "result.json", {"recipe": "another"}, "its recipe"),
        ("images", "result.json", {"protocol": "paper", "best_test_accuracy": 0.5}, "its protocol"),
    ],
)
def test_records_that_do_not_go_with_the_recipe_are_named(kind, name, changes, message, runs, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(runs / kind, folder)
    values = json.loads((folder / name).read_text())
    for key, value in changes.items():
        values[key] = values[key] | value if isinstance(value, dict) else value
    (folder / name).write_text(json.dumps(values))
    with pytest.raises(ValueError, match=rf"{name} is broken.*{message}" if message != "broken" else f"{name} is broken"):
        (read_environment if name == "environment.json" else read_result)(folder)


def test_sizes_that_do_not_go_with_the_data_are_named(runs, tmp_path):
    shutil.copytree(runs / "series", tmp_path / "run")
    path = tmp_path / "run" / "environment.json"
    values = json.loads(path.read_text())
    path.write_text(json.dumps(values | {"data": values["data"] | {"features": 99}}))
    with pytest.raises(ValueError, match=r"environment.json is broken: it tells of 99 features, the data have \d"):
        _ = Run(tmp_path / "run").data


def test_a_result_by_the_paper_s_protocol_tells_its_epoch(runs, tmp_path):
    shutil.copytree(runs / "images", tmp_path / "run")
    for name, more in (("recipe.json", {}), ("result.json", {"best_test_accuracy": 0.5})):
        values = json.loads((tmp_path / "run" / name).read_text()) | {"protocol": "paper", "weights": "last"} | more
        if name == "recipe.json":
            values["data"]["validation"] = 0.0
        (tmp_path / "run" / name).write_text(json.dumps(values))
    with pytest.raises(ValueError, match=r"result.json is broken: its best_test_epoch"):
        read_result(tmp_path / "run")


def test_best_weights_alone_load_with_a_warning(runs, tmp_path):
    shutil.copytree(runs / "images", tmp_path / "run")
    (tmp_path / "run" / "previous.pt").unlink()
    (tmp_path / "run" / LAST).write_bytes(b"broken")
    with pytest.raises(ValueError, match=r"last.pt is truncated or corrupt"):
        staa.load(tmp_path / "run", weights="best")
    (tmp_path / "run" / LAST).unlink()
    with pytest.warns(
        UserWarning, match="has no checkpoint: whether recipe.json is the recipe of best.safetensors is not known"
    ):
        staa.load(tmp_path / "run", weights="best")


HUGE = {
    ("model", "steps"): 2**20 - 1, ("model", "width"): 900.0, ("data", "size"): 2**15 - 1, ("model", "steps", 0): 10**12,
}  # fmt: skip


@pytest.mark.parametrize(("field", "value"), list(HUGE.items()))
def test_huge_sizes_are_refused_before_anything_is_allocated(field, value, runs, tmp_path, monkeypatch):
    import resource

    folder = tmp_path / "run"
    shutil.copytree(runs / "images", folder)
    rename(folder, *field[:2], value)
    if field == ("data", "size"):
        environment = json.loads((folder / "environment.json").read_text())
        environment["data"]["size"] = 2**24
        (folder / "environment.json").write_text(json.dumps(environment))
    monkeypatch.setenv("STAA_MAX_BYTES", "1G")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ValueError, match="would take|must be below"):
        staa.load(folder)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000  # KiB


def test_sizes_that_the_weights_do_not_have_are_refused_before_anything_is_allocated(runs, tmp_path, monkeypatch):
    """Though they would fit into memory: what a folder says of its data is held against its checkpoint."""
    import resource

    folder = tmp_path / "run"
    shutil.copytree(runs / "images", folder)
    environment = json.loads((folder / "environment.json").read_text())
    environment["data"] |= {"classes": 2**24, "names": None}
    (folder / "environment.json").write_text(json.dumps(environment))
    task, facts = task_of(staa.RECIPES["ring-spikestag"]), {"nodes": 6, "window": 12, "horizon": 2, "features": 2}
    state = task.network(facts).state_dict()
    monkeypatch.setenv("STAA_MAX_BYTES", "99T")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ValueError, match=r"can't be built: the weights are those of another network: 2 entries .* such as"):
        staa.load(folder)
    with pytest.raises(ValueError, match=r"the weights are those of another network: 1 entries .* such as of_time.weight"):
        task.network(facts | {"features": 2**24}, state=state)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # KiB


@pytest.mark.parametrize(
    ("part", "key", "value"),
    [("forecast", "width", 2**19), ("forecast", "blocks", 10**6), ("forecast", "hops", 10**6), ("series", "window", 2**23)],
)
def test_huge_forecasters_are_refused(part, key, value):
    base = staa.RECIPES["ring-spikestag"]
    with pytest.raises(ValueError, match="would take|must be below|must be from 0 to"):
        recipe = replace(base, **{part: replace(getattr(base, part), **{key: value})})
        task_of(recipe).network({"nodes": 2000, "window": recipe.series.window, "horizon": 2**10, "features": 0})


@pytest.mark.parametrize("name", broken_runs.FILES)
def test_broken_run_folders_are_refused_in_one_line(name, tmp_path, monkeypatch):
    monkeypatch.setattr("staa.runs.folder.commit_of", lambda: None)  # git takes longer than all the rest
    base = broken_runs.make(tmp_path / "base")
    for seed in range(5):  # through every command; tests/test_mutations.py reads fifty
        shutil.rmtree(tmp_path / "run", ignore_errors=True)
        shutil.copytree(base, tmp_path / "run")
        broken_runs.mutate(tmp_path / "run", name, random.Random(f"{name} {seed}"), tmp_path / "marker")
        try:
            broken_runs.check(tmp_path / "run", name)
        except Exception as error:
            raise AssertionError(f"mutation {seed} of {name}") from error
        assert not (tmp_path / "marker").exists()


@pytest.mark.parametrize(
    "name", ["recipe.json", "environment.json", "last.pt", "log.jsonl", "previous.pt", "result.json", "code"]
)
def test_links_in_a_run_folder_are_not_written_through(name, own):
    folder, victim = own / "run", own / "victim"
    victim.mkdir()
    (victim / "file").write_text("precious")
    if name == "code":
        shutil.rmtree(folder / "code")
        (folder / "code").symlink_to(victim)
    else:
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(victim / "file")
    if name != "result.json":
        (folder / "result.json").unlink()
    with suppress(ValueError, OSError, RuntimeError):
        list(run(read_recipe(folder), folder, resume=folder))
    assert [p.name for p in victim.iterdir()] == ["file"]
    assert (victim / "file").read_text() == "precious"


def test_folders_in_a_run_folder_that_are_links_are_not_written_through(runs, tmp_path, capsys):
    folder, victim = tmp_path / "run", tmp_path / "victim"
    shutil.copytree(runs / "series", folder)
    victim.mkdir()
    (folder / "forecasts").symlink_to(victim)
    assert main(["predict", str(folder), str(runs / "table.csv")]) == 2
    assert "is a link, through which nothing is written" in capsys.readouterr().err
    (tmp_path / "seeds").mkdir()
    shutil.copytree(runs / "images", tmp_path / "seeds" / "seed0")
    (tmp_path / "seeds" / "seed1").symlink_to(victim)
    assert main(["train", "--resume", str(tmp_path / "seeds"), "--seeds", "2"]) == 2
    assert not list(victim.iterdir())


def test_the_limit_is_an_option(runs, monkeypatch, capsys):
    monkeypatch.setenv("STAA_MAX_BYTES", "1G")
    assert main(["evaluate", str(runs / "images"), "--max-bytes", "much"]) == 2
    assert "such as 500M or 8G, got 'much'" in capsys.readouterr().err
    assert main(["evaluate", str(runs / "images"), "--max-bytes", "1K"]) == 2
    assert "would take" in capsys.readouterr().err
    assert main(["evaluate", str(runs / "images"), "--max-bytes", "1G"]) == 0
