"""`staa.Stream`: windows of events as they come, what it remembers, when it begins at rest, and what can't be streamed."""

import math
import shlex
import sys
import threading
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_events import recordings, some_events
from torch import nn

import staa
from staa import Stream
from staa.build import task_of
from staa.data import Events, to_frames
from staa.data.events import windows as windows_module
from staa.data.events.recording import unchecked
from staa.data.events.windows import Windows
from staa.inference.decision import Memory
from staa.inference.obstacles import check_streamable, training
from staa.neurons import AdaptiveLIF
from staa.recipes import RECIPES
from staa.runs import Run

OWN = RECIPES["events-folder-stream"]
SMALL = replace(OWN, model=replace(OWN.model, width=0.05), data=replace(OWN.data, size=4, sensor="8x8", window=10.0))


class Known(Run):
    """A run of three classes on frames of 4 × 4 whose network is given."""

    def __init__(self, network, recipe=SMALL, **about):
        self.folder, self.data_root, self.recipe, self.task = Path("known"), None, recipe, task_of(recipe)
        self.network, self.known = network, {"classes": 3, "channels": 2, "size": 4, "names": ["left", "right", "none"]} | about

    @cached_property
    def environment(self):
        return {"data": self.known}

    def model(self, weights=None):
        return self.network.eval()


class Sides(nn.Module):
    """Logits: events on the left, on the right, and a half."""

    per_step = True

    def forward(self, x):
        left, right = x[..., :2].sum((2, 3, 4)), x[..., 2:].sum((2, 3, 4))
        return torch.stack([left, right, torch.full_like(left, 0.5)], -1)


class Holds(Sides):
    """The same of all events since it was at rest."""

    def forward(self, x):
        return self.scan(x, None)[0]

    def scan(self, x, state):
        summed = x.cumsum(0) + (0 if state is None else state)
        return super().forward(summed), summed[-1]


def at(t, x=0):
    """Events at these times in µs, at one x of a sensor 8 wide."""
    t = np.atleast_1d(np.asarray(t, np.int64))
    return unchecked(t, np.full(len(t), x, np.int32), np.zeros(len(t), np.int32), np.ones(len(t), np.uint8), (8, 8))


def in_pieces(events, cuts):
    for start, stop in zip([0, *cuts], [*cuts, len(events.t)], strict=True):
        yield Events(*(column[start:stop] for column in events[:4]), events.sensor)


@settings(deadline=None, max_examples=60)
@given(recordings.filter(lambda e: e.t[-1] < 1 << 30), st.integers(500, 90_000), st.data())
def test_windows_are_the_frames_of_a_recording_in_any_pieces(events, window, data):
    cuts = sorted(data.draw(st.lists(st.integers(0, len(events.t)), max_size=6)))
    made = Windows(window, events.sensor)
    found = [w for piece in in_pieces(events, cuts) for w in made.push(piece)] + list(made.end())
    frames = to_frames(events, window=window)
    assert [w.number for w in found] == list(range(1, len(frames) + 1))
    assert [w.end for w in found] == [int(events.t[0]) + w.number * window for w in found]
    assert [w.events for w in found] == frames.sum((1, 2, 3)).tolist()
    for w, frame in zip(found, frames, strict=True):
        assert (w.counts is None) == (not frame.any())
        assert w.counts is None or (w.counts == frame).all()
    assert made.late == 0


def test_the_clock_ends_windows_and_what_comes_for_them_later_is_counted():
    made = Windows(10_000, (4, 4))
    assert list(made.push(at([]), until=50_000)) == []  # no window before the first event
    assert list(made.push(at([100_000, 100_001]), until=109_999)) == []
    (first,) = made.push(at([]), until=110_000)
    assert (first.number, first.end, first.events) == (1, 110_000, 2)
    assert [w.counts for w in made.push(at([]), until=135_000)] == [None, None]
    assert [w.events for w in made.push(at([105_000, 129_999, 130_000, 139_999, 140_000]))] == [2]
    assert made.late == 2


def test_a_gap_that_is_no_silence_is_refused(monkeypatch):
    monkeypatch.setattr(windows_module, "LONGEST_GAP", 5)
    made = Windows(10, (4, 4))
    assert len(list(made.push(at([0, 59])))) == 5
    with pytest.raises(ValueError, match="time jumps by 6 windows of 10 µs without an event"):
        list(made.push(at([110])))


def test_the_memory_is_of_the_last_windows_alone():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(40, 3, generator=generator)
    memory = Memory(7)
    for k, step in enumerate(logits):
        assert torch.allclose(memory.mean(k, step), logits[max(0, k - 6) : k + 1].mean(0))
    memory.forget()
    for k in (0, 2, 3, 9):  # those between were dropped
        mean = memory.mean(k, logits[k])
    assert torch.allclose(mean, logits[[3, 9]].mean(0))


@pytest.mark.parametrize("network", [Sides, Holds])
def test_the_time_to_see_a_change_does_not_grow_with_the_time_before(network):
    """The other class leads after as many windows when the first one was there for 1, 10 or 100 s."""
    taken = []
    for seconds in (1, 10, 100):
        stream, before = Stream(Known(network()), window=100), round(seconds * 1e6)
        first = stream.push(at(np.arange(0, before, 100_000)))
        assert {d.prediction for d in first} == {"left"}
        then = stream.push(at(before + np.arange(0, 3_000_000, 100_000), x=7))
        taken.append(next(k for k, d in enumerate(then) if d.prediction == "right"))
        assert {d.prediction for d in then[taken[-1] :]} == {"right"}
    assert len(set(taken)) == 1
    assert taken[0] * stream.window <= stream.memory + stream.reset_every
    never = Stream(Known(Holds()), reset_every=math.inf)
    assert len(never.push(at(np.arange(0, 1_000_000, 10_000)))) == 99
    assert {d.prediction for d in never.push(at(1_000_000 + np.arange(0, 500_000, 10_000), x=7))} == {"left"}


def test_a_decision_tells_what_the_network_says_of_the_window_and_of_those_before():
    stream = Stream(Known(Sides()), memory=20)
    made = stream.push(at([5_000, 5_001, 16_000])) + stream.push(at([17_000, 25_000, 54_999], x=7)) + stream.end()
    assert [(d.window, d.end, d.time, d.events) for d in made] == [
        (1, 0.01, 15_000, 2), (2, 0.02, 25_000, 2), (3, 0.03, 35_000, 1), (4, 0.04, 45_000, 0), (5, 0.05, 55_000, 1),
    ]  # fmt: skip
    counts = torch.tensor([[2, 0, 0.5], [1, 1, 0.5], [0, 1, 0.5], [0, 0, 0.5], [0, 1, 0.5]])
    names = ("left", "right", "none")
    for k, d in enumerate(made):
        p, own = counts[max(0, k - 1) : k + 1].mean(0).softmax(0), counts[k].softmax(0)
        assert (d.probability, d.newest_probability) == (pytest.approx(float(p.max())), pytest.approx(float(own.max())))
        assert (d.prediction, d.newest) == (names[int(p.argmax())], names[int(own.argmax())])
        assert 0 < d.latency < 60
        assert (d.dropped, d.late) == (0, 0)


def test_resets():
    events, every = at(np.arange(0, 100_000, 10_000)), Stream(Known(Holds()), memory=10, reset_every=30)
    held = [round(math.log(d.newest_probability / (1 - d.newest_probability)), 4) for d in every.push(events) + every.end()]
    assert held == held[:3] * 3 + held[:1]
    assert held[0] < held[1] < held[2]
    silent = Stream(Known(Holds()), memory=50, reset_every=math.inf, reset_silent=20)
    made = silent.push(at([0, 10_000, 30_000, 60_000, 60_001], x=7)) + silent.end()
    fresh = Stream(Known(Holds()), memory=50)
    alone = fresh.push(at([0, 1], x=7)) + fresh.end()
    assert made[3].newest_probability > made[1].newest_probability  # one silent window is no new scene
    assert made[6].probability == alone[0].probability  # two are
    fresh.reset()
    again = fresh.push(at([1_000_000, 1_000_001], x=7)) + fresh.end()
    assert again[0][:2] + again[0][4:8] == alone[0][:2] + alone[0][4:8]
    steps = replace(SMALL, model=replace(SMALL.model, steps=3), data=replace(SMALL.data, steps=None))
    three = Stream(Known(Holds(), steps))
    assert (three.memory, three.reset_every) == (20, 30)
    assert len(three.push(events)) == 9


def test_a_leak_above_one_is_told():
    network = nn.Sequential(AdaptiveLIF(2, decay=1.1), Sides())
    Stream(Known(network))
    with pytest.warns(UserWarning, match="1 of its layers of neurons holds ever more of what came first"):
        Stream(Known(network), reset_every=math.inf)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"window": 0}, "`window` must be from 0.001 to a billion ms, got 0 ms"),
        ({"window": math.nan}, "`window` must be"),
        ({"memory": 5}, "`memory` must be from a window, 10 ms, to 100,000 of them, got 5 ms"),
        ({"memory": math.inf}, "`memory` must be"),
        ({"reset_every": 9.9}, "`reset_every` must be from a window"),
        ({"reset_silent": math.nan}, "`reset_silent` must be"),
        ({"sensor": "8"}, "`sensor` must be HEIGHTxWIDTH"),
    ],
)
def test_settings_out_of_range(options, told):
    with pytest.raises(ValueError, match=told):
        Stream(Known(Sides()), **options)


def test_what_can_not_be_pushed():
    stream = Stream(Known(Sides()))
    stream.push(at([50, 60]))
    for wrong, told in (
        (at([59]), "time runs backwards between two pieces of the stream, from 60 to 59 µs"),
        (at([70, 65]), "time runs backwards"),
        (at([70], x=8), "sensor"),
        (at([70])._replace(sensor=(9, 9)), "9 × 9"),
    ):
        with pytest.raises(ValueError, match=told):
            stream.push(wrong)
    with pytest.raises(TypeError, match=r"must be staa.data.Events, got ndarray"):
        stream.push(np.zeros(3))
    assert stream.push(None) == stream.push(at([])) == []
    whole = replace(SMALL, data=replace(SMALL.data, size=None, sensor=None))
    with pytest.raises(ValueError, match="sensor of 8 × 8"):
        Stream(Known(Sides(), whole)).push(at([1]))


def test_all_obstacles_are_told_at_once_with_the_command_that_goes_round_them():
    named = replace(RECIPES["events-folder-vggsnn-staa"], seed=3)
    recipe = replace(
        named,
        data=replace(named.data, values="normalised", frames="time", sensor="8x8", size=16),
        model=replace(named.model, width=0.05),
    )
    model = task_of(recipe).network({"classes": 2, "channels": 2, "size": 16})
    run = Known(model, recipe, size=16)
    with pytest.raises(ValueError, match=r"\(1\).*largest count.*\(2\).*cut by time.*\(3\).*whole window") as refused:
        Stream(run)
    command = str(refused.value).partition("This trains one that can be: ")[2]
    assert shlex.split(command)[:5] == ["staa", "train", "events-folder-vggsnn-staa", "--data", "DIR"]
    assert "--seed 3" in command
    from staa.cli.options import TrainOptions
    from staa.cli.parse import parse

    trained = parse(TrainOptions, shlex.split(command)[3:], "staa train", TrainOptions(recipe=named)).recipe
    check_streamable(Known(task_of(trained).network(run.about), trained, size=16), task_of(trained).network(run.about))
    assert trained.data.steps == 10
    with pytest.raises(ValueError, match="known can't be streamed: its frames are cut by time.*or say how many ms a `window`"):
        Stream(Known(Sides(), replace(SMALL, data=replace(SMALL.data, frames="time", window=None))))
    Stream(Known(Sides(), replace(SMALL, data=replace(SMALL.data, frames="time", window=None))), window=10)


def test_a_network_for_fixed_steps_and_a_recipe_of_ones_own():
    recipe = replace(SMALL, model=replace(SMALL.model, attention="dta", steps=4), data=replace(SMALL.data, steps=None, size=16))
    run = Known(task_of(recipe).network({"classes": 2, "channels": 2, "size": 16}), recipe, size=16)
    with pytest.raises(ValueError, match="--data.steps 4 .*--model.steps None .*--model.attention staa"):
        Stream(run)
    own = Known(Sides(), replace(SMALL, name="mine", data=replace(SMALL.data, values="normalised")))
    with pytest.raises(ValueError, match="with your recipe and `data.values=sum`"):
        Stream(own)
    assert "`data.window=30`" in training(own, ["data.frames=window data.window=30"])


def test_runs_on_other_data_are_told_what_can_be_streamed():
    for name, why in (
        ("digits-events", "ON before OFF"), ("nmnist", "cut by number"), ("metr-la-week", "forecasts a series"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=rf"can't be streamed: .*{why}.*staa train \S+"):
            Stream(staa.pretrained(name))
    images = replace(RECIPES["folder-resnet18-staa"], model=replace(SMALL.model, attention=None, name="resnet18"))
    with pytest.raises(ValueError, match="trained on images.*staa train events-folder-stream --data DIR"):
        Stream(Known(Sides(), images, channels=3, size=32))


def test_some_events_of_a_recording_in_the_sensor_of_the_recipe():
    events = some_events(span=100_000)._replace(sensor=None)
    recipe = replace(SMALL, data=replace(SMALL.data, sensor="34x34"))
    stream = Stream(Known(Sides(), recipe))
    made = stream.push(events) + stream.end()
    assert sum(d.events for d in made) == 200


def test_a_push_that_is_refused_changes_nothing(monkeypatch):
    monkeypatch.setattr(windows_module, "LONGEST_GAP", 50)
    made, twin = Stream(Known(Holds())), Stream(Known(Holds()))
    good, later = at([5, 20_000, 40_000], 1), at([41_000, 90_000], 6)
    jump = at([0, 30_000, 10**9])
    for wrong in (
        jump,  # the first event of a refused piece begins no stream
        good._replace(t=good.t / 1e6),
        good._replace(t=good.t[::-1]),
        good._replace(x=good.x[:2]),
        good._replace(t=np.array([0, 1, (1 << 63) - 1])),
    ):
        with pytest.raises(ValueError, match="t must|time |differ in length"):
            made.push(wrong)
    strip = lambda decisions: [d[:8] for d in decisions]  # noqa: E731
    first = strip(made.push(good))
    with pytest.raises(ValueError, match="time jumps by"):
        made.push(at([50_000, 10**9]))
    assert first + strip(made.push(later)) == strip(twin.push(good) + twin.push(later))


def test_threads_take_turns():
    """A network at work has other forwards meanwhile: another stream of it found them, or took its state."""
    network, pieces = Holds(), [at([k * 10_000 + 1], k % 8) for k in range(60)]

    def told(made):
        return [d[:8] for piece in pieces for d in made.push(piece)]

    expected, found = told(Stream(Known(network))), []
    threads = [threading.Thread(target=lambda: found.append(told(Stream(Known(network))))) for _ in range(4)]
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(before)
    assert found == [expected] * 4


def test_outputs_that_are_not_finite_are_no_decision():
    class Huge(Sides):
        per_step = True

        def forward(self, x):
            return super().forward(x) * torch.inf

    with pytest.raises(FloatingPointError, match="the network's outputs at window 1 are not finite"):
        Stream(Known(Huge())).push(at([0, 20_000]))


def test_a_window_is_a_whole_number_of_microseconds():
    made = Stream(Known(Sides()), window=0.0014)
    assert made.window == 0.001
    assert [(d.time, d.end) for d in made.push(at([0, 3]))] == [(k, k / 1e6) for k in (1, 2, 3)]
