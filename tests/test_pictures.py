"""What pictures of forecasts name: the run, the variates, and in the legend what can be seen."""

from dataclasses import replace

import numpy as np
import pytest
from test_forecasting import finish, series_file, small

from staa.analysis import pictures
from staa.cli import main


@pytest.fixture
def drawn(monkeypatch):
    """{file's name: figure} of all that is drawn."""
    figures = {}
    save = pictures.save

    def keep(figure, path, **options):
        figures[path.stem] = figure
        save(figure, path, **options)

    monkeypatch.setattr(pictures, "save", keep)
    return figures


def legends(figure):
    """{label: what stands for it} of all legends."""
    own = [*figure.legends, *(axis.get_legend() for axis in figure.axes if axis.get_legend())]
    return {text.get_text(): handle for legend in own for text, handle in zip(legend.texts, legend.legend_handles, strict=True)}


@pytest.mark.parametrize(
    ("options", "labels"),
    [
        ([], ["seen", "forecast"]),
        (["--at", "300"], ["seen", "actual", "forecast"]),
        (["--at", "300", "597", "--interval", "0.8"], ["seen", "actual", "forecast", "interval"]),
        (["--interval", "0.8", "--steps", "9"], ["seen", "forecast", "interval"]),
    ],
)
def test_every_picture_names_what_it_shows(options, labels, drawn, tmp_path):
    finish(replace(small(), epochs=1), tmp_path / "run")
    file = series_file(tmp_path / "series.csv")
    assert main(["predict", str(tmp_path / "run"), str(file), "--out", str(tmp_path / "out"), *options]) == 0
    assert drawn.keys() == {"forecast", "horizons", "rates", "adjacency"}
    for name, figure in drawn.items():
        title = figure.get_suptitle()
        assert ("series.csv" if name == "forecast" else "series-spikestag") in title, name
        assert not any(label.strip() == "" for label in legends(figure))
    assert list(legends(drawn["forecast"])) == labels
    titles = [axis.get_title() for axis in drawn["forecast"].axes]
    assert titles == list("abcd")
    for axis in drawn["adjacency"].axes[:2]:
        for ticks in (axis.get_xticklabels(), axis.get_yticklabels()):
            assert [tick.get_text() for tick in ticks] == list("abcdef")


def test_what_is_in_the_legend_is_in_the_picture(drawn, tmp_path):
    """A label stands there if any panel has it."""
    numbers = np.arange(12.0).reshape(6, 2)
    truth = np.full((3, 2), np.nan)
    pictures.draw_forecasts(["a", "b"], [pictures.Drawn(range(9), numbers, numbers[:3], truth)], tmp_path / "no.png", title="t")
    truth[1, 1] = 5
    each = [pictures.Drawn(range(9), numbers, numbers[:3], truth)]
    pictures.draw_forecasts(["a", "b"], each, tmp_path / "b.png", title="t")
    assert list(legends(drawn["no"])) == ["seen", "forecast"]
    assert list(legends(drawn["b"])) == ["seen", "actual", "forecast"]
