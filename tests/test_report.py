"""A run on one page: what it says is so, a part that can't be made is named, and names are shown and nothing else."""

import json
import random
import re
import shutil
import tomllib
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import broken_runs
import numpy as np
import pandas as pd
import pytest
import tiny
import torch
from browser import CHROMIUM, DESK, PHONE, browser

from staa.analysis.predictions import Predictions
from staa.analysis.priced import Energy, LayerEnergy
from staa.analysis.report import classes, curves, forecasts, nodes, page, summary
from staa.analysis.report.energy import priced
from staa.analysis.report.page import write_report
from staa.analysis.report.parts import Fold, Picture, Table
from staa.cli import main
from staa.data import WindowBatches
from staa.export.share import share
from staa.runs import Run, run

VERSIONS = Path(__file__).parent / "versions" / "unnumbered"
HOSTILE = replace(
    tiny.recipe,
    data=replace(tiny.recipe.data, name=f"{tiny.__file__}:hostile"),
    summary="</style><img src=x onerror=alert(1)>",
    expect="</details>{{ 7 * 7 }}<a href=javascript:alert(1)>",
)
WIDE = replace(broken_runs.forecast, data=replace(broken_runs.forecast.data, name=f"{tiny.__file__}:long_names"))


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Finished runs: of classes with hostile names, and of a series with very long ones; each with its report."""
    root = tmp_path_factory.mktemp("runs")
    for _ in run(HOSTILE, root / "classes"):
        pass
    for _ in run(WIDE, root / "series"):
        pass
    with (root / "classes" / "log.jsonl").open("a") as log:
        log.write(
            json.dumps({"event": "warning", "epoch": 2, "text": "a layer </td><script>alert(3)</script> is silent"}) + "\n"
        )
    for name in ("classes", "series"):
        assert write_report(root / name).left_out == ()
    return root


def text_of(path):
    """The page without its pictures."""
    return re.sub(r"data:image/[^\"]+", "", path.read_text())


def tables(parts):
    """All tables, folded ones too, by their captions."""
    found = {}
    for part in parts:
        found |= tables(part.parts) if isinstance(part, Fold) else {part.caption: part} if isinstance(part, Table) else {}
    return found


def test_names_are_shown_and_are_nothing_else(runs):
    text = text_of(runs / "classes" / "report.html")
    assert "<script" not in text
    assert "onerror=" not in re.sub(r"&lt;.*?&gt;", "", text)
    assert re.findall(r"</style>", text) == ["</style>"]
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert "{{ 7 * 7 }}" in text
    assert r"\u202e\x1b[31m$x^2$ \udc80" in text
    assert not set(text) & set("\u202e\x1b")
    assert re.search(r"style-src (&#39;|')sha256-", text)


def test_the_page_holds_all_that_a_run_says(runs):
    text = text_of(runs / "classes" / "report.html")
    made, result = Run(runs / "classes"), Run(runs / "classes").result
    for said in (
        f"test accuracy {result['test_accuracy']:.2%}", "on 8 samples", "test-once", made.about["split"], "model.width",
        f"{made.environment['parameters']:,}", "is silent", "Learning curves", "Confusion matrix", "Reliability diagram",
        "Steps used", "most confident mistakes" if result["test_accuracy"] < 1 else "no mistake", "Energy",
    ):  # fmt: skip
        assert said in text, said
    commit = made.environment["commit"]
    assert commit is None or commit.removesuffix("+") in text
    assert (runs / "classes" / "report.html").stat().st_size < 3e6


def test_a_forecast_is_told_beside_what_needs_no_network(runs):
    text, result = text_of(runs / "series" / "report.html"), Run(runs / "series").result
    for name, figures in result["baselines"].items():
        assert name in text
        assert figures is None or f"{figures['mae']:.4g}" in text
    assert f"{result['test_mae']:.4g}" in text


def test_the_same_run_gives_the_same_page_and_an_older_one_gives_way(runs):
    path = runs / "series" / "report.html"
    before = path.read_bytes()
    path.write_text("older")
    assert main(["report", str(runs / "series")]) == 0
    assert path.read_bytes() == before


def test_what_is_there_or_no_page_is_refused_before_any_work(runs, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(page, "_builders", lambda *_, **__: pytest.fail("work was done"))
    there = tmp_path / "there.html"
    there.write_text("mine")
    for out, cause in (
        (there, "is there already: choose another --out"),
        (tmp_path, "is there already"),
        (tmp_path / "page.pdf", "--out is an HTML file to write, such as report.html; got"),
        (there / "page.html", "can't be written"),
    ):
        assert main(["report", str(runs / "series"), "--out", str(out)]) == 2
        assert cause in capsys.readouterr().err
    assert there.read_text() == "mine"
    assert sorted(tmp_path.iterdir()) == [there]


def test_a_link_in_the_place_of_a_report_is_not_followed(runs, tmp_path):
    shutil.copytree(runs / "series", tmp_path / "run")
    (tmp_path / "mine").write_text("mine")
    (tmp_path / "run" / "report.html").unlink()
    (tmp_path / "run" / "report.html").symlink_to(tmp_path / "mine")
    with pytest.raises(ValueError, match="is a link"):
        write_report(tmp_path / "run")
    assert (tmp_path / "mine").read_text() == "mine"


def test_nothing_is_written_if_the_page_can_not_be_made(runs, tmp_path, monkeypatch):
    monkeypatch.setattr(page, "_builders", lambda *_, **__: {})
    monkeypatch.setattr(page, "page", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_report(runs / "series", tmp_path / "new" / "page.html")
    assert not list(tmp_path.iterdir())


def test_without_data_the_rest_is_there_and_the_page_says_what_is_missing(tmp_path, capsys):
    shutil.copytree(VERSIONS / "images", tmp_path / "run")
    assert main(["report", str(tmp_path / "run"), "--out", str(tmp_path / "page.html")]) == 0
    told, text = capsys.readouterr().out, text_of(tmp_path / "page.html")
    assert "warning: left out: all that needs samples, Answers, Energy: " in told
    assert "give --data" in told
    assert re.search(r"Left out: all that needs samples, Answers, Energy: .*removed/tests/versions/images", text)
    assert "Loss by epoch" in text
    assert "test accuracy 0.00%" in text
    assert main(["report", str(tmp_path / "run"), "--data", str(VERSIONS.parent / "images")]) == 0
    assert "left out" not in capsys.readouterr().out
    assert "Confusion matrix" in text_of(tmp_path / "run" / "report.html")


def test_forecasts_without_data_keep_what_the_records_tell(runs, tmp_path, monkeypatch):
    monkeypatch.setattr(Run, "data", property(lambda _: (_ for _ in ()).throw(FileNotFoundError("no series here"))))
    made = write_report(runs / "series", tmp_path / "page.html")
    assert made.left_out == ("all that needs samples, Energy: no series here",)
    text = text_of(tmp_path / "page.html")
    assert "last value" in text
    assert "Left out, forecasts beside what came: no series here" in text
    assert "no spiking neurons" in text


@pytest.mark.parametrize("name", ["digits-interrupted", "ring-interrupted"])
def test_an_unfinished_run_says_so_and_is_measured_on_validation(name, tmp_path):
    shutil.copytree(VERSIONS / name, tmp_path / "run")
    made = write_report(tmp_path / "run")
    text = text_of(made.path)
    assert "This run is not finished: " in text
    assert "none yet, since the run is not finished" in text
    assert "validation" in text
    assert "On 450 test samples" not in text


def test_a_shared_run_has_neither_paths_nor_a_command(runs, tmp_path):
    out = share(runs / "series", tmp_path / "shared")
    made = write_report(out)
    assert made.left_out == ()
    assert summary.SHARED in text_of(made.path)
    assert str(tmp_path) not in text_of(made.path)


def test_code_that_nobody_trusts_stops_the_report_before_anything_is_drawn(runs, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("staa.recipes.code._vouched", set())
    monkeypatch.setattr(page, "_builders", lambda *_, **__: pytest.fail("work was done"))
    assert main(["report", str(runs / "classes"), "--out", str(tmp_path / "page.html")]) == 2
    assert "--trust-code" in capsys.readouterr().err


def test_a_broken_record_is_refused_or_its_section_left_out(runs, tmp_path, monkeypatch):
    """Whatever a file of a stranger's run says, it is a clear error or a page."""
    monkeypatch.setattr(page, "classification", lambda *_, **__: ())
    monkeypatch.setattr(page, "energy", lambda *_, **__: ())
    monkeypatch.setattr(page, "activity", lambda *_, **__: ())
    chance = random.Random(0)
    for k in range(3):
        for name in ("log.jsonl", "environment.json"):
            folder = tmp_path / f"{name}-{k}"
            shutil.copytree(runs / "classes", folder)
            broken_runs.mutate(folder, name, chance)
            (folder / "report.html").unlink()
            with suppress(ValueError, OSError):
                write_report(folder)
                assert (folder / "report.html").is_file()


def some_predictions(count=600, names=10, steps=4):
    """Answers that settle one step after another: sample k is right from step k % steps + 1 on, but for every tenth, always
    wrong."""
    labels = torch.arange(count) % names
    wrong = (labels + 1) % names
    right = torch.arange(steps)[:, None] >= torch.arange(count) % steps
    right &= torch.arange(count) % 10 != 9
    by_step = torch.where(right, labels, wrong)
    probabilities = torch.full((count, names), 0.2 / (names - 1)).scatter(1, by_step[-1:].T, 0.8)
    margins = torch.where(right, 0.9, 0.1)
    return Predictions(labels, probabilities, by_step, margins, tuple(f"c{k}" for k in range(names)))


def test_steps_used_and_early_exit_are_those_of_the_answers():
    p = some_predictions()
    section = classes.decisions(p, hindsight=False)
    rows = {row[0]: row[1:] for row in tables(section.parts)["Stop when ahead by this margin"].rows}
    assert rows["0"] == ["1.00", f"{(p.by_step[0] == p.labels).double().mean():.2%}"]
    leaves = torch.where(torch.arange(600) % 10 == 9, 4, torch.arange(600) % 4 + 1)
    assert rows["0.5"] == [f"{leaves.double().mean():.2f}", "90.00%"]
    assert rows["0.99"] == ["4.00", "90.00%"]
    settled = torch.where(torch.arange(600) % 10 == 9, 1, torch.arange(600) % 4 + 1)
    assert (torch.from_numpy(classes._settled(p)) == settled).all()
    assert not any("hindsight" in part for part in section.parts if isinstance(part, str))
    assert "hindsight" in classes.decisions(p, hindsight=True).parts[0]


def test_of_many_classes_the_worst_and_what_is_mixed_up_most_are_told():
    p = some_predictions(count=2000, names=40)
    parts = classes.classes(p).parts
    assert not any(isinstance(part, Picture) for part in parts)
    found = tables(parts)
    assert len(found["The 10 worst classes and the 5 best"].rows) == 15
    assert len(found["Accuracy of each class, the worst first"].rows) == 40
    assert found["All confusions"].rows[0] == ["c9", "c10", "50", "100.0%"]
    assert found["The 10 worst classes and the 5 best"].rows[0] == ["c9", "0.0%", "n/a", "50"]


def test_hindsight_is_told_of_attention_that_sees_the_whole_window(runs):
    assert "hindsight" in text_of(runs / "classes" / "report.html")  # its attention is STAA


def test_errors_of_nodes_and_forecasts_of_rows_are_the_runs(runs):
    opened = Run(runs / "series")
    model, source, horizon = opened.model(), opened.data, opened.about["horizon"]
    f = nodes.forecast_of(source, model, "test", 7, torch.device("cpu"), "float32")
    assert f.windows[0] == f.windows[1] == len(source.test)
    assert f.mae.mean() == pytest.approx(opened.result["test_mae"], rel=1e-6)
    batches = WindowBatches(source, "test", 1)
    begin = (len(source.test) - len(f.when)) // 2
    with torch.inference_mode():
        for k in (horizon - 1, len(f.when) - 1):
            inputs, y = batches.take(torch.tensor([begin + k]))
            made = source.normaliser.real(model(*inputs).double())[0, 0]
            assert np.allclose(f.first[k], made)
            assert np.allclose(f.truth[k], source.normaliser.real(y.double())[0, 0])
            inputs, _ = batches.take(torch.tensor([begin + k - horizon + 1]))
            assert np.allclose(f.last[k], source.normaliser.real(model(*inputs).double())[0, -1])
    assert np.isnan(f.last[: horizon - 1]).all()
    row = begin + len(f.when) - 1 + source.test.start + source.window
    assert f.when[-1] == source.rows[row]


def test_a_learned_graph_stands_beside_the_given_one():
    learned, given = np.eye(3) + 0.5 * np.eye(3, k=1), np.eye(3, k=1)
    parts = forecasts.graphs(learned, given, ("a", "b", "c"))
    assert [isinstance(part, Picture) for part in parts] == [True, True, False]
    assert parts[-1] == "Correlation between the two, without their diagonals: 1.00."
    assert "have no graph" in forecasts.graphs(learned, None, ("a", "b", "c"))[-1]


def test_curves_tell_their_numbers_in_words():
    epochs = [(1, 2.0, 0.5), (2, 1.0, 0.25), (3, 0.5, 0.75)]
    log = pd.DataFrame(
        [
            {"event": "epoch", "epoch": e, "loss": a, "accuracy": b, "validation_loss": a + 1, "rates": {"one": b}}
            for e, a, b in epochs
        ]
        + [{"event": "epoch", "epoch": 3, "loss": 0.25, "accuracy": 1.0, "rates": {"one": 0.002}}]
    )
    loss, accuracy, rates, fold = curves.curves(log, "accuracy").parts
    assert loss.alt.startswith(
        "loss by epoch: training from 2.0000 to 0.2500, best 0.2500 in epoch 3; validation from 3.0000 to 2.0000, best 2.0000"
    )
    assert "training from 50.00% to 100.00%, best 100.00% in epoch 3" in accuracy.alt
    assert "one fires least, 0.2%" in rates.alt
    assert [row[0] for row in fold.parts[0].rows] == ["1", "2", "3"]
    assert "no epoch in the log" in curves.curves(log.iloc[:0], "accuracy").parts[0]


def test_energy_is_told_in_both_conventions():
    layer = LayerEnergy("conv", 1000.0, 0.25, 900.0, 200.0, 500.0, 450.0, 4000.0, 0.0)
    section = priced(Energy((layer,)), "64 test samples")
    rows = tables(section.parts)[
        "A sample over all its steps. What reads real numbers multiplies (MACs); what reads spikes adds (SOPs)"
    ].rows
    assert rows == [
        ["papers: rate × dense", "0", "250", "225 pJ", "500", "2.3 nJ"],
        ["exact: no border, no zeros", "0", "200", "180 pJ", "450", "2.07 nJ"],
    ]


def test_every_picture_is_told_in_words_and_asks_for_nothing():
    parts = [*classes.classes(some_predictions()).parts, *classes.reliability(some_predictions()).parts]
    for part in parts:
        if isinstance(part, Picture):
            assert len(part.alt) > 30
            assert len(part.caption) > 30
            assert not re.search(rb"<script|xlink:href=\"(?!#|data:)|url\((?!#)", part.image)


def test_the_package_brings_the_templates_along():
    """Where it is installed as in a checkout."""
    root = Path(page.__file__).parents[3]
    taken = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["staa"]
    templates = [path for path in (Path(page.__file__).parent / "templates").iterdir() if path.is_file()]
    assert len(templates) == 2
    for path in templates:
        assert any(path in (root / "staa").glob(pattern) for pattern in taken), path


@pytest.fixture(scope="module")
def chromium(tmp_path_factory, request):
    if CHROMIUM is None:
        with request.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
            print("\nno chromium here: no report was opened in a browser (Debian: apt install chromium)")
        pytest.skip("no chromium")
    with browser(tmp_path_factory.mktemp("browser")) as opened:
        yield opened


@pytest.mark.parametrize("width", [PHONE, DESK])
@pytest.mark.parametrize("dark", [False, True])
def test_a_page_complains_of_nothing_asks_for_nothing_and_fits(runs, chromium, width, dark):
    for path in (runs / name / "report.html" for name in ("classes", "series")):
        facts = chromium.open(path, width=width, dark=dark)
        assert facts["complaints"] == []
        assert [url for url in facts["asked"] if not url.startswith("data:")] == [path.as_uri()]
        assert facts["width"] <= width
        assert facts["wide"] == []
        assert facts["images"] >= 5
        assert facts["broken"] == facts["nameless"] == facts["scripts"] == facts["unreachable"] == 0
        assert facts["headings"][:2] == [1, 2]
        assert all(after <= before + 1 for before, after in zip(facts["headings"], facts["headings"][1:], strict=False))
        light, ink = (sum(map(int, facts[what][4:-1].split(","))) for what in ("ground", "ink"))
        assert (light < 150 and ink > 600) if dark else (light > 600 and ink < 150)


def test_hostile_names_are_text(runs, chromium):
    facts = chromium.open(runs / "classes" / "report.html", width=DESK)
    assert "<script>alert(1)</script>" in facts["text"]
    assert "<img src=x onerror=alert(1)>" in facts["text"]
    assert facts["title"] == "tiny: report of a run"


def test_what_is_folded_is_printed(runs, chromium):
    chromium.open(runs / "classes" / "report.html", width=DESK)
    shown = "[...document.querySelectorAll('details table')].map(table => table.checkVisibility())"
    closed = chromium.call("Runtime.evaluate", expression=shown, returnByValue=True)["result"]["value"]
    chromium.call("Emulation.setEmulatedMedia", media="print")
    printed = chromium.call("Runtime.evaluate", expression=shown, returnByValue=True)["result"]["value"]
    assert len(printed) >= 3
    assert not any(closed)
    assert all(printed)


def test_the_page_is_walked_by_keyboard(runs, chromium):
    """First the link that skips the contents, then each link of these, then what scrolls and what unfolds."""
    chromium.open(runs / "classes" / "report.html", width=PHONE)
    focus = "document.activeElement.className || document.activeElement.tagName + document.activeElement.hash"
    reached = []
    for _ in range(60):
        for kind in ("keyDown", "keyUp"):
            chromium.call("Input.dispatchKeyEvent", type=kind, key="Tab", code="Tab", windowsVirtualKeyCode=9)
        reached.append(chromium.call("Runtime.evaluate", expression=focus, returnByValue=True)["result"]["value"])
    assert reached[0] == "skip"
    assert reached[1] == "A#summary"
    assert "scroll" in reached
    assert "SUMMARYundefined" in reached
