"""What a classifier says of a part of its data, against a loop over the samples and scikit-learn."""

import csv
import math
from dataclasses import replace

import broken_runs
import numpy as np
import pytest
import tiny
import torch
from sklearn.metrics import (
    accuracy_score,
    confusion_matrix,
    log_loss,
    precision_score,
    recall_score,
    top_k_accuracy_score,
)

import staa
from staa.analysis.predictions import Predictions, by_class, calibration, confusion, predictions, top
from staa.cli import main
from staa.cli.classes import show_predictions, write_predictions
from staa.runs import evaluate_run, run
from staa.text import from_csv


@pytest.fixture(scope="module", params=["frames", "still"])
def trained(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    recipe = replace(tiny.recipe if request.param == "frames" else tiny.pictures, epochs=1, batch_size=6)
    for _ in run(recipe, folder):
        pass
    return staa.Run(folder)


def of(labels, probabilities, names=None):
    """Predictions of one step."""
    probabilities = torch.as_tensor(probabilities, dtype=torch.float32)
    ahead = probabilities.topk(2, 1).values
    names = names or tuple(map(str, range(probabilities.shape[1])))
    return Predictions(
        torch.as_tensor(labels), probabilities, probabilities.argmax(1)[None], (ahead[:, 0] - ahead[:, 1])[None], names
    )


@pytest.fixture(scope="module")
def some():
    """Ninety samples of six classes, two of which are never right or never predicted."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 5, 90)  # none of the sixth class
    logits = rng.normal(0, 2, (90, 6)) + 3 * np.eye(6)[labels] * rng.random((90, 1))
    logits[:, 3] = -9  # which is never predicted
    return of(labels, torch.as_tensor(logits).softmax(1))


@pytest.mark.parametrize("split", ["validation", "test", None])
def test_one_pass_is_a_loop_over_the_samples(trained, split):
    p, data, model = predictions(trained, split=split), trained.data, trained.model()
    samples = getattr(data, split or "test")
    assert len(p.labels) == len(samples) > 5  # more than a batch
    for i in range(len(samples)):
        with torch.no_grad():
            logits = model(data.prepare(samples.take(torch.tensor([i]))))[:, 0].double()
        assert p.labels[i] == samples.y[i]
        for t in range(len(logits)):
            shares = logits[: t + 1].mean(0).softmax(0)
            first, second = shares.sort(descending=True).values[:2]
            assert float(p.margin_by_step[t, i]) == pytest.approx(float(first - second), abs=1e-5)
            assert first - second < 1e-5 or p.by_step[t, i] == shares.argmax()
        torch.testing.assert_close(p.probabilities[i].double(), shares, atol=1e-6, rtol=1e-5)
    assert p.by_step.shape == p.margin_by_step.shape == (trained.recipe.model.steps, len(samples))
    kinds = p.labels.dtype, p.by_step.dtype, p.probabilities.dtype, p.margin_by_step.dtype
    assert kinds == (torch.int64, torch.int64, torch.float32, torch.float32)


def test_they_agree_with_what_is_measured(trained):
    p, figures = predictions(trained), evaluate_run(trained)
    assert (p.accuracy, p.loss) == (figures["accuracy"], pytest.approx(figures["loss"], rel=1e-12))
    assert p.accuracy == accuracy_score(p.labels, p.predicted)
    shares = p.probabilities.double()
    assert p.loss == pytest.approx(
        log_loss(p.labels, shares / shares.sum(1, keepdim=True), labels=range(len(p.names))), rel=1e-5
    )
    assert (p.split, p.weights, p.notes, p.names) == ("test", "last", figures["notes"], trained.names)
    assert p.files is None


def test_figures_of_classes_are_scikit_learns(some):
    told = by_class(some)
    known = dict(labels=range(6), average=None, zero_division=np.nan)
    np.testing.assert_array_equal(confusion(some), confusion_matrix(some.labels, some.predicted, labels=range(6)))
    np.testing.assert_allclose(told.accuracy, recall_score(some.labels, some.predicted, **known))
    np.testing.assert_allclose(told.precision, precision_score(some.labels, some.predicted, **known))
    assert told.support.tolist() == np.bincount(some.labels, minlength=6).tolist()
    assert math.isnan(told.accuracy[5])
    assert math.isnan(told.precision[3])


@pytest.mark.parametrize("k", [1, 2, 3, 5])
def test_the_right_class_among_the_first(some, k):
    expected = top_k_accuracy_score(some.labels, some.probabilities, k=k, labels=range(6))
    assert top(some, k) == pytest.approx(expected, abs=1e-12)


def test_a_tie_goes_to_the_class_of_the_smaller_number():
    p = of([0, 1, 2], [[1 / 3] * 3] * 3)
    assert [top(p, k) for k in (1, 2, 3)] == pytest.approx([1 / 3, 2 / 3, 1])


@pytest.mark.parametrize("bins", [1, 4, 15])
def test_calibration_is_a_loop_over_bins(some, bins):
    told, error = calibration(some, bins), 0.0
    for b in range(bins):
        members = [i for i, row in enumerate(some.probabilities.tolist()) if b / bins < max(row) <= (b + 1) / bins]
        assert told.count[b] == len(members)
        if not members:
            assert math.isnan(told.confidence[b])
            assert math.isnan(told.accuracy[b])
            continue
        confidence = sum(max(some.probabilities[i].tolist()) for i in members) / len(members)
        accuracy = sum(int(some.predicted[i] == some.labels[i]) for i in members) / len(members)
        assert (float(told.confidence[b]), float(told.accuracy[b])) == pytest.approx((confidence, accuracy))
        error += len(members) / 90 * abs(accuracy - confidence)
    assert told.ece == pytest.approx(error)
    assert told.count.sum() == 90


def test_a_network_that_is_always_sure_and_right_is_calibrated():
    assert calibration(of([0, 1], [[1.0, 0.0], [0.0, 1.0]])).ece == 0
    assert calibration(of([1, 0], [[1.0, 0.0], [0.0, 1.0]])).ece == 1


def test_what_is_out_of_range(some):
    with pytest.raises(ValueError, match="`k` must be from 1 to the 6 classes, got 7"):
        top(some, 7)
    with pytest.raises(ValueError, match="`bins` must be at least 1, got 0"):
        calibration(some, 0)


def test_the_command_says_what_was_measured(trained, tmp_path, capsys):
    assert main(["evaluate", str(trained.folder), "--csv", str(tmp_path / "all.csv")]) == 0
    lines = capsys.readouterr().out.splitlines()
    p, error = predictions(trained), calibration(predictions(trained)).ece
    assert lines[0].startswith(
        f"test accuracy {p.accuracy:.2%}, loss {p.loss:.4f} on {len(p.labels)} samples, last weights of "
    )
    assert lines[1].startswith(f"calibration error (ECE) {error:.2%}: sure by")  # no top-5 of two or three classes
    for c, name in enumerate(p.names):
        counts = [str(int(n)) if n else "·" for n in confusion(p)[c]]
        (row,) = [line.split() for line in lines[4:] if name in line.split()]
        assert row[-len(p.names) :] == counts
    with open(tmp_path / "all.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["sample"]) for row in rows] == list(range(len(p.labels)))
    assert [row["label"] for row in rows] == [p.names[c] for c in p.labels]
    assert [row["prediction"] for row in rows] == [p.names[c] for c in p.predicted]
    assert [row["correct"] == "1" for row in rows] == p.correct.tolist()
    np.testing.assert_allclose([float(row["probability"]) for row in rows], p.probabilities.amax(1), rtol=1e-4)
    own = p.probabilities.gather(1, p.labels[:, None])[:, 0]
    np.testing.assert_allclose([float(row["of the label"]) for row in rows], own, rtol=1e-4)
    assert f"all predictions → {tmp_path / 'all.csv'}" in lines


def test_of_many_classes_the_worst_and_the_most_common_confusions_are_told(capsys):
    labels = torch.arange(40).repeat(5)
    predicted = labels.clone()
    predicted[labels == 7] = 8  # never right
    predicted[(labels == 9).nonzero()[:2, 0]] = 3
    p = of(labels, 0.9 * torch.nn.functional.one_hot(predicted, 40) + 0.1 / 40, tuple(f"c{i}" for i in range(40)))
    show_predictions(p)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"top-5 accuracy {top(p, 5):.2%}, calibration error (ECE) {calibration(p).ece:.2%}")
    assert lines[1] == "the 10 classes of the lowest accuracy, of 40:"
    assert lines[3].split() == ["c7", "5", "0.0%", "c8", "(5)"]
    assert lines[4].split() == ["c9", "5", "60.0%", "100.0%", "c3", "(2)"]
    assert lines[-1] == "most common confusions: c7 taken for c8 (5), c9 taken for c3 (2)"


def test_a_sample_of_a_file_is_told_by_its_name(some, tmp_path):
    write_predictions(replace(some, files=tuple(f"={i}.png" for i in range(90))), tmp_path / "a.csv")
    with open(tmp_path / "a.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [from_csv(row["file"]) for row in rows] == [f"={i}.png" for i in range(90)]
    assert all(row["file"].startswith("'=") for row in rows)
    for place in range(2, 6):
        expected = some.probabilities.topk(place, 1).values[:, -1]
        np.testing.assert_allclose([float(row[f"probability {place}"]) for row in rows], expected, rtol=1e-4)


def test_a_forecast_has_no_classes(tmp_path):
    with pytest.raises(ValueError, match="forecasts a series, so it has no classes"):
        predictions(staa.Run(broken_runs.make(tmp_path / "series", series=True)))


def test_more_predictions_than_there_is_memory_for_are_refused(trained, monkeypatch):
    monkeypatch.setenv("STAA_MAX_BYTES", "200K")
    trained.data, trained.model()  # which take more
    monkeypatch.setenv("STAA_MAX_BYTES", "100")
    with pytest.raises(ValueError, match=r"the predictions of \d+ samples for \d classes would take"):
        predictions(trained)


def test_outputs_that_are_not_finite_stop_it(trained):
    broken = staa.Run(trained.folder)
    with torch.no_grad():
        next(p for p in reversed(list(broken.model().parameters()))).fill_(math.nan)
    with pytest.raises(FloatingPointError, match="outputs are not finite"):
        predictions(broken)
