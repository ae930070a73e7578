"""What stands in the place of what a command wants is named for what it is, in one line, and nothing is made."""

import re
import zipfile

import pytest
import tiny

from staa.cli import main
from staa.recipes import RECIPES

IN_FILES = {recipe.data.name: name for name, recipe in RECIPES.items() if recipe.data.name not in ("digits-events", "ring")}
"""Each data set that lies in files, and a recipe that takes it."""
DATA = {f"data of {name}": ["train", recipe, "--data"] for name, recipe in IN_FILES.items()}
FOLDERS = {name: args for name, args in DATA.items() if name != "data of series"}
RUNS = {name: [*name.split(" ")] for name in ("evaluate", "energy", "report", "share", "train --resume")}
WRONG = [
    *((args, "missing", "does not exist") for args in RUNS.values()),
    *((args, "folder", "it has no recipe.json") for args in RUNS.values()),
    *((args, "a.zip", "is a file.*unpack it first") for args in RUNS.values()),
    *((args, "empty.csv", r"empty.csv is (a file, .*|in no run folder.*): give") for args in RUNS.values()),
    *((args, "missing", "does not exist|is not under|is missing|is not whole under") for args in FOLDERS.values()),
    *((args, "folder", "is not under|is missing|is not whole under|holds no|val does not exist") for args in FOLDERS.values()),
    *((args, "a.zip", "is a file, not a folder: unpack it") for args in FOLDERS.values()),
    *((args, "empty.csv", "is a file, not a folder: give") for args in FOLDERS.values()),
    (DATA["data of series"], "missing", "does not exist"),
    (DATA["data of series"], "folder", "is a folder"),
    (DATA["data of series"], "a.zip", "a.zip is an archive: unpack it"),
    (DATA["data of series"], "empty.csv", "is empty"),
    (["runs"], "missing", "missing does not exist: give"),
    (["runs"], "a.zip", "a.zip is a file, not a folder: unpack it"),
    (["runs"], "empty.csv", "empty.csv is a file, not a folder: give"),
    (["runs", "--csv"], "empty.csv", "empty.csv is there already: choose"),
    (["train", "--out"], "empty.csv", "is a file"),
    (["train", "--out"], "empty.csv/run", "since empty.csv is a file"),
    (["train", "--out"], "full", "holds other files"),
]


@pytest.mark.parametrize(("args", "path", "cause"), WRONG)
def test_what_is_there_is_looked_at(args, path, cause, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "empty.csv").touch()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    with zipfile.ZipFile("a.zip", "w") as archive:
        archive.writestr("a/b", "c")
    before = sorted(tmp_path.rglob("*"))
    assert main([*args, path]) == 2
    told = capsys.readouterr().err
    assert re.search(cause, told), told
    assert told.startswith("staa: error: ")
    assert told.count("\n") == 1
    assert path.partition("/")[0] in told
    assert sorted(tmp_path.rglob("*")) == before


def test_a_file_that_is_no_checkpoint(tmp_path, capsys):
    run = tmp_path / "run"
    assert main(["train", f"{tiny.__file__}:recipe", "--epochs", "1", "--out", str(run)]) == 0
    (run / "none.pt").touch()
    for name, cause in (
        ("none.pt", "none.pt is empty"),
        ("recipe.json", "recipe.json is no checkpoint of staa: give a run folder, or last.pt"),
        ("best.safetensors", "best.safetensors is no checkpoint of staa: give a run folder, or last.pt"),
    ):
        assert main(["train", "--resume", str(run / name)]) == 2
        assert cause in capsys.readouterr().err
        assert main(["evaluate", str(run / name)]) == 2
        assert f"is a file, and a run is a folder: give {run}" in capsys.readouterr().err
