"""The study's harness: its order, its pairs, its intervals, and that it goes on when it is killed."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from benchmarks import study
from benchmarks.study import choose, differences, jobs, student_interval

HERE = Path(__file__).resolve().parents[1]
PLAN = [
    {
        "name": "a",
        "baseline": "plain",
        "variants": {"plain": ["r-plain"], "staa": ["r-staa"], "gc": ["r-gc"]},
        "seeds": {"staa": [0, 1], "gc": [0]},
    },
    {"name": "b", "baseline": "plain", "variants": {"plain": ["s"], "staa": ["t"]}, "seeds": {"staa": [0]}},
]


def line(comparison, variant, seed, accuracy=0.5, commit="c", torch="2", minutes=1.0):
    return {
        "comparison": comparison, "variant": variant, "seed": seed, "commit": commit, "torch": torch, "minutes": minutes,
        "parameters": 100, "validation": {"accuracy": accuracy},
    }  # fmt: skip


def keys(jobs):
    return [(job.comparison, job.variant, job.seed) for job in jobs]


def test_the_plan_is_followed_pair_by_pair_and_a_baseline_is_trained_once():
    order = [("a", "plain", 0), ("a", "staa", 0), ("a", "plain", 1), ("a", "staa", 1), ("a", "gc", 0), ("b", "plain", 0)]
    assert keys(jobs(PLAN)) == [*order, ("b", "staa", 0)]
    done = []
    for key in order:
        job = choose(PLAN, done)
        assert (job.comparison, job.variant, job.seed) == key
        done.append(line(*key))
    done.append(line("b", "staa", 0))
    assert choose(PLAN, done) is None


def test_a_run_that_has_begun_comes_first_and_then_the_other_half_of_an_open_pair():
    assert choose(PLAN, [], {("b", "staa", 0): "c"}).key == ("b", "staa", 0)
    assert choose(PLAN, [line("b", "plain", 0)]).key == ("b", "staa", 0)
    assert choose(PLAN, [line("b", "plain", 0)], {("a", "plain", 0): "c"}).key == ("a", "plain", 0)


@pytest.mark.parametrize(
    ("plan", "match"),
    [
        ([PLAN[0], PLAN[0]], "same name"),
        ([{"name": "a"}], "lacks baseline, seeds, variants"),
        ([PLAN[1] | {"baseline": "none"}], "does not say what none is"),
    ],
)
def test_a_plan_that_is_no_plan(plan, match):
    with pytest.raises(ValueError, match=match):
        list(jobs(plan))


def test_student_interval_is_scipys():
    from scipy.stats import ttest_rel

    a, b = np.random.default_rng(1).normal(size=(2, 7))
    low, high = ttest_rel(b, a).confidence_interval(0.95)
    assert student_interval(list(b - a)) == pytest.approx((low, high))
    assert student_interval([0.1]) is None


def test_the_bootstrap_covers_what_it_should():
    rng = np.random.default_rng(2)
    inside = [low <= 0 <= high for low, high in (study.bootstrap_interval(list(rng.normal(size=30))) for _ in range(200))]
    assert 0.88 <= np.mean(inside) <= 0.98


def test_differences_are_paired_by_seed():
    done = [
        line("a", "plain", 0, 0.5), line("a", "staa", 0, 0.6, minutes=2.0), line("a", "plain", 1, 0.7),
        line("a", "staa", 1, 0.72), line("a", "gc", 0, 0.4), line("b", "plain", 0, 0.1),
    ]  # fmt: skip
    staa, gc = differences(PLAN, done)
    assert staa.differences == pytest.approx((0.1, 0.02))
    assert (staa.planned, staa.time, staa.student) == (2, 1.5, student_interval(staa.differences))
    assert gc.differences == pytest.approx((-0.1,))
    assert "| a | staa | 2 of 2 | 60.00 % | +6.00 |" in study.as_table([staa, gc])


def test_a_pair_of_two_commits_is_refused():
    with pytest.raises(ValueError, match="staa and plain are of two commits"):
        differences(PLAN, [line("b", "plain", 0), line("b", "staa", 0, commit="d")])


CODE = """
import sys
from pathlib import Path
from benchmarks import study
study._checkout, study._commit = lambda *_: study.HERE, lambda: "0" * 40
study.follow(Path(sys.argv[1]), Path(sys.argv[2]), Path("data"), minutes=float(sys.argv[3]))
"""
SMALL = ["--epochs", "3", "--max-steps", "60", "--model.steps", "2", "--model.width", "0.0625", "--batch-size", "16"]


def follow(results, work, minutes=5.0):
    command = [sys.executable, "-c", CODE, str(results), str(work), str(minutes)]
    environment = os.environ | {"PYTHONPATH": str(HERE)}
    return subprocess.Popen(command, cwd=HERE, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.mark.slow
def test_killed_it_goes_on_and_gets_what_it_would_have_got(tmp_path):
    variants = {"plain": ["digits-events-plain", *SMALL], "staa": ["digits-events", *SMALL]}
    plan = {"comparisons": [{"name": "digits", "baseline": "plain", "variants": variants, "seeds": {"staa": [0]}}]}
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "plan.json").write_text(json.dumps(plan))
    whole = follow(tmp_path / "whole", tmp_path / "work")
    killed = follow(tmp_path / "killed", tmp_path / "other")
    log = tmp_path / "other" / "runs" / f"digits-plain-0-{'0' * 12}" / "log.jsonl"
    while killed.poll() is None and not (log.is_file() and '"epoch": 1' in log.read_text()):
        time.sleep(0.05)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert not (tmp_path / "killed" / "results.jsonl").exists()
    again = follow(tmp_path / "killed", tmp_path / "other")
    texts = [process.communicate(timeout=300)[0] for process in (whole, again)]
    assert all(text.endswith("the plan is done\n") for text in texts), texts
    a, b = (study.read_results(tmp_path / name) for name in ("whole", "killed"))
    for one, other in zip(a, b, strict=True):
        for curve in (one["curve"], other["curve"]):
            for epoch in curve:
                del epoch["seconds"]
        assert one["curve"] == other["curve"]
        assert one["variant"] == other["variant"]
    assert not list(tmp_path.rglob("result.json"))  # the test set was not touched
    assert len(differences(plan["comparisons"], a)) == 1
