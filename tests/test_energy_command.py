"""`staa energy`, and what a run costs from Python."""

import csv
import shutil
from dataclasses import replace

import numpy as np
import pytest
import tiny

import staa
from staa.analysis import run_energy
from staa.analysis.priced import LeftOut
from staa.analysis.run_energy import COLUMNS, energy_of, part_of
from staa.cli import main
from staa.runs import Run, run

PLAIN = replace(tiny.recipe, epochs=1, model=replace(tiny.recipe.model, attention=None))
SERIES = replace(
    staa.RECIPES["series-spikestag"],
    epochs=1, max_steps=1, batch_size=16,
    series=replace(staa.RECIPES["series-spikestag"].series, window=8, horizon=2, season="none"),
    forecast=replace(staa.RECIPES["series-spikestag"].forecast, width=8),
)  # fmt: skip


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    for _ in run(PLAIN, root / "images"):
        pass
    rows = np.arange(300)[:, None]
    values = np.sin(rows / 4 + np.arange(3)) + 0.1 * np.random.default_rng(0).standard_normal((300, 3))
    np.savetxt(root / "data.csv", values, delimiter=",", header="=cmd,b,c", comments="")
    for _ in run(SERIES, root / "series", data_root=root / "data.csv"):
        pass
    return root


def rows_of(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def told(capsys, *args, code=0):
    assert main(["energy", *map(str, args)]) == code
    captured = capsys.readouterr()
    return captured.out if code == 0 else captured.err


@pytest.mark.parametrize("name", ["images", "series"])
def test_the_table_and_its_file(name, runs, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    text = told(capsys, runs / name, "--samples", "8", "--csv", tmp_path / "new" / "energy.csv")
    lines = text.splitlines()
    table = lines[lines.index("") + 1 : lines.index("", lines.index("") + 1)]
    assert len(table) > 8
    assert max(map(len, table)) <= 80
    energy, rows = energy_of(Run(runs / name), samples=8, batch=3), rows_of(tmp_path / "new" / "energy.csv")
    assert energy.samples == 8
    assert "8 test samples" in lines[0]
    assert [row["layer"] for row in rows] == [layer.name for layer in energy.layers]
    assert list(rows[0]) == list(COLUMNS)
    column = lambda key: sum(float(row[key]) for row in rows)  # noqa: E731
    for kind, account in (("", energy.papers), ("exact_", energy.exact)):
        for key in ("macs", "sops", "joules", "ann_macs"):
            assert column(kind + key) == pytest.approx(getattr(account, key), rel=1e-3), key  # another batch may flip a spike
    assert column("weight_bytes") == energy.weight_bytes
    assert column("membrane_bytes") == energy.membrane_bytes
    assert "in no sum" in text
    for layer in energy.layers:
        if not (layer.name.endswith(".attention") or layer.dense == 0):
            assert layer.name in text


def test_figures_do_not_depend_on_the_batch(runs):
    """Nor do a run's own weights and mode change."""
    opened = Run(runs / "images")
    opened.model().train()
    whole = energy_of(opened, batch=8)
    for batch in (1, 3):
        other = energy_of(opened, batch=batch)
        assert [(a.name, a.dense, a.inside, a.weight_bytes) for a in other.layers] == [
            (a.name, a.dense, a.inside, a.weight_bytes) for a in whole.layers
        ]
        assert other.joules == pytest.approx(whole.joules, rel=1e-3)
    assert energy_of(opened, samples=3).samples == 3


def test_joules_can_be_given(runs, tmp_path, capsys):
    energy = energy_of(Run(runs / "images"), mac_pj=1.0, ac_pj=0.0)
    assert energy.joules == pytest.approx(energy.macs * 1e-12)
    assert "multiplies, 1 pJ" in told(capsys, runs / "images", "--mac-pj", "1", "--ac-pj", "0")


def test_whose_rates_are_taken(runs, tmp_path):
    shutil.copytree(runs / "images", tmp_path / "run")
    assert part_of(Run(tmp_path / "run")) == "test"
    (tmp_path / "run" / "result.json").unlink()
    opened = Run(tmp_path / "run")
    assert part_of(opened) == "validation"
    assert energy_of(opened).samples == 8
    opened.data = replace(opened.data, validation=None)
    assert part_of(opened) == "train"


def test_a_run_without_an_epoch_or_without_its_data(runs, tmp_path, capsys):
    shutil.copytree(runs / "series", tmp_path / "run")
    shutil.copy(runs / "data.csv", tmp_path / "data.csv")
    args = (tmp_path / "run", "--data", tmp_path / "data.csv")
    assert told(capsys, *args)
    (tmp_path / "data.csv").unlink()
    error = told(capsys, *args, "--csv", tmp_path / "energy.csv", code=2)
    assert "data.csv does not exist" in error
    assert error.count("\n") == 1
    for name in ("last.pt", "previous.pt"):
        (tmp_path / "run" / name).unlink()
    assert "last.pt" in told(capsys, *args, "--weights", "last", "--csv", tmp_path / "energy.csv", code=2)
    assert not (tmp_path / "energy.csv").exists()


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--samples", "0"], "--samples must be a whole number of at least 1, got 0"),
        (["--batch", "-1"], "--batch must be a whole number of at least 1, got -1"),
        (["--ac-pj", "-1"], "--ac-pj must be a finite number of at least 0, got -1"),
        (["--mac-pj", "nan"], "--mac-pj must be a finite number of at least 0, got nan"),
        (["--csv", "there.csv"], "there.csv is there already: choose another name"),
        (["--csv", "."], "is there already"),
        (["--csv", "there.csv/energy.csv"], "can't be written"),
    ],
)
def test_bad_input(args, message, runs, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there.csv").write_text("mine")
    error = told(capsys, runs / "images", *args, code=2)
    assert message in error
    assert error.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["there.csv"]
    assert (tmp_path / "there.csv").read_text() == "mine"


def test_a_full_disk_leaves_no_file(runs, tmp_path, monkeypatch, capsys):
    def full(path, text, *, new):
        raise RuntimeError(f"could not write {path}: no space left")

    monkeypatch.setattr(run_energy, "save_text", full)
    assert "could not write" in told(capsys, runs / "images", "--csv", tmp_path / "energy.csv", code=1)
    assert not list(tmp_path.iterdir())


def test_names_do_nothing_but_be_shown(runs, tmp_path, capsys, monkeypatch):
    """Those of modules are the user's, from a file that may be somebody else's."""
    name = "=1+1\x1b[2J"
    energy = energy_of(Run(runs / "images"))
    layers = tuple(replace(layer, name=f"{name}.{layer.name}") for layer in energy.layers)
    odd = replace(energy, layers=layers, left_out=(LeftOut(name, name, 3.0),))
    monkeypatch.setattr("staa.cli.energy.energy_of", lambda *_, **__: odd)
    text = told(capsys, runs / "images", "--csv", tmp_path / "energy.csv")
    assert "\x1b" not in text
    assert "=1+1\\x1b[2J" in text
    assert rows_of(tmp_path / "energy.csv")[0]["layer"].startswith("'=1+1\\u001b[2J.")


def test_a_network_without_products(runs, tmp_path, capsys):
    """It costs nothing, and is told so."""
    recipe = replace(staa.RECIPES["series-last-value"], series=SERIES.series)
    for _ in run(recipe, tmp_path / "run", data_root=runs / "data.csv"):
        pass
    text = told(capsys, tmp_path / "run", "--samples", "4")
    assert "papers: rate × dense" in text
    assert energy_of(Run(tmp_path / "run"), samples=4).joules == 0
