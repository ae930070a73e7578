"""A trained network on events as they come from a camera: windows of events in, decisions out."""

import math
import time
import warnings
from collections.abc import Generator, Iterable
from pathlib import Path
from threading import Lock
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from staa.build.inputs import of_sensor, sensor_of, told_by
from staa.data.events.folder import DEFAULT_STEPS, parse_sensor
from staa.data.events.frames import Fit, Values, scaled
from staa.data.events.recording import NOTHING, Events
from staa.data.events.repair import Repair
from staa.data.events.windows import Window, Windows
from staa.inference.decision import Decision, Memory
from staa.inference.live import check_watch, watched
from staa.inference.obstacles import check_streamable
from staa.machine import choose_device
from staa.neurons import AdaptiveLIF
from staa.runs.load import Run, opened
from staa.streaming import StreamState, stream, taking_turns

MOST = 100_000  # windows that are remembered


def _grows(module: nn.Module) -> bool:
    """Whether a membrane of it grows without a current."""
    return isinstance(module, AdaptiveLIF) and bool((module.decay.abs() >= 1).any())


class Stream:
    """A run's network on an endless stream of events, which `push` takes as they come.

        stream = staa.Stream("runs/nmnist-stream/…")
        for events in camera:                      # staa.data.Events, or structured arrays with t, x, y, p made such
            for decision in stream.push(events):
                print(decision.prediction, decision.probability)

    The network sees a frame for each window of time, a silent one too, and its neurons' membranes go on from window to window.
    Its running prediction is by the mean of the logits over the last `memory` ms, and every `reset_every` ms the network begins
    at rest, since training has shown it no more windows than a sample has: some never forget what they saw first, with a
    learned leak above 1 they even hold it ever more. So how long it takes to see a change does not depend on how long nothing
    changed.

    Args:
        run: A `staa.Run`, or a run folder, which is opened with `trust`.
        window: Duration of a window, from 0.001 to a billion milliseconds; None: the recipe's.
        memory: Milliseconds over which the running prediction is taken, from a window to 100,000 of them; None: half as many
            windows as a sample of the run's training has, which was best on N-MNIST's validation part.
        reset_every: The network begins at rest (membranes, and what attention has seen) every so many milliseconds, at least a
            window; the running prediction goes on. None: as many windows as a sample of the run's training has; infinity:
            never, for a network that was built for any number of steps (`model.steps=None`).
        reset_silent: After so many milliseconds without an event, at least a window, the next event is of a new scene: network
            and running prediction begin anew. None: silence is seen as any other window.
        sensor: Size of the sensor, "HEIGHTxWIDTH" in pixels; None: what the events say, or the recipe.
        weights: "last" epoch or "best" on validation; None: what the test figure was measured with.
        device: Such as "cpu" or "cuda"; None: the GPU if there is one.
        trust: Let Python files in the run folder run, if the run has parts of its own.

    Raises:
        ValueError: If the run can't be streamed: all that is in the way is told, and how to train one that can; if a setting is
            out of range.
        OSError: If a file of the run is missing or can't be read.
    """

    def __init__(
        self,
        run: Run | str | Path,
        *,
        window: float | None = None,
        memory: float | None = None,
        reset_every: float | None = None,
        reset_silent: float | None = None,
        sensor: str | None = None,
        weights: Literal["last", "best"] | None = None,
        device: str | None = None,
        trust: bool = False,
    ):
        run = opened(run, trust=trust)
        recipe, about = run.recipe, run.about
        if window is not None and not 1e-3 <= window <= 1e9:
            raise ValueError(f"`window` must be from 0.001 to a billion ms, got {window} ms")
        if "channels" not in about:
            check_streamable(run, None)
        chosen = choose_device(device)
        self._model = run.model(weights).to(chosen)
        with taking_turns(self._model):
            check_streamable(run, self._model, window=window)
        window = recipe.data.window if window is None else window
        if window is None:  # a data set of one's own
            raise ValueError(f"{run.folder} doesn't say how long its windows are: say how many ms a `window` has")
        self.window: float = round(window * 1000) / 1000
        """Duration of a window in milliseconds."""
        steps = recipe.model.steps
        length = steps or recipe.data.steps or DEFAULT_STEPS
        self._memory = Memory(self._windows("memory", memory) or -(-length // 2))
        self.memory: float = self._memory.windows * self.window
        """Milliseconds over which the running prediction is taken."""
        self._every = None if reset_every == math.inf else self._windows("reset_every", reset_every) or length
        if steps is not None and (self._every is None or self._every > steps):
            raise ValueError(
                f"the network was built for {steps} windows of {self.window:g} ms: `reset_every` must be at most "
                f"{steps * self.window:g} ms, got {reset_every:g}"
            )
        self.reset_every: float = math.inf if self._every is None else self._every * self.window
        """Milliseconds after which the network begins at rest."""
        if self._every is None and (growing := sum(map(_grows, self._model.modules()))):
            warnings.warn(
                f"{growing} of its layers of neurons {'holds' if growing == 1 else 'hold'} ever more of what came first, "
                f"by a learned leak of 1 or above: let the network begin at rest now and then "
                f"(`reset_every`), or train with `model.neuron=plain`",
                stacklevel=2,
            )
        self._silent_for = self._windows("reset_silent", reset_silent)
        self.names, self._device, self._side = run.names, chosen, about["size"]
        self._values: Values = recipe.data.values
        self._fit: Fit = recipe.data.fit
        self._whole = recipe.data.size is None and self._fit == "stretch"
        self.sensor = parse_sensor(sensor) or sensor_of(recipe, about)
        """(height, width) that events must be of; None: what they say."""
        self.told = told_by(recipe)._replace(sensor=self.sensor)
        """What a source may leave open, as in training."""
        self._turn = Lock()  # threads push one after the other
        self._logits(np.zeros((2, self._side, self._side), np.float32), None)  # the first call takes longest
        self.reset()

    def push(self, events: Events | None, *, until: int | None = None) -> list[Decision]:
        """The decisions on all windows that these events end.

        Args:
            events: The events that follow those before, in order of time, `staa.data.Events`; None or empty: there were none.
            until: Time up to which the camera has told all events, in microseconds on its clock: a window that ends before is
                over, a silent one too. None: only a later event ends a window.

        Raises:
            ValueError: If time runs backwards, within the events or since those before; if an event is outside the sensor, or
                the sensor is not the run's; if time jumps by more than a million windows.
            TypeError: If it is no `staa.data.Events`.
            FloatingPointError: If the network's outputs are not finite.
        """
        if events is not None and not isinstance(events, Events):
            raise TypeError(f"events must be staa.data.Events, got {type(events).__name__}")
        if events is None or not len(events.t):
            events = NOTHING
        else:
            events = self.fitting(of_sensor(events, self.sensor, "a piece of the stream"))
        with self._turn:
            if len(events.t) and self._last is not None and int(events.t[0]) < self._last:
                raise ValueError(
                    f"time runs backwards between two pieces of the stream, from {self._last} to {int(events.t[0])} µs: give "
                    f"events in order of time, or call reset() where another stream begins"
                )
            decisions = [self.decide(window) for window in self.windows.push(events, until=until)]
            self._last = int(events.t[-1]) if len(events.t) else self._last
        return decisions

    def end(self) -> list[Decision]:
        """The decision on the window that has begun, if it has events, as if it were over: the stream ends here."""
        with self._turn:
            return [self.decide(window) for window in self.windows.end()]

    def watch(
        self,
        source: str | Path | Iterable[Events],
        *,
        format: str | None = None,
        follow: bool = False,
        lag: float | None = 1000.0,
        repair: Literal["refuse", "drop"] = "refuse",
        remote: bool = False,
    ) -> Generator[Decision]:
        """The decisions on a source of events, from its beginning to its end, as they are made: first `reset`.

        A recording or a generator waits for the network. A live source does not: a thread reads its bytes and makes windows of
        them, which wait for the network, and one that has waited for `lag` ms is dropped and counted, unless it is the newest.
        A source that runs ahead of time, as a file does that another program pipes in, is made to wait instead. After `lag` ms
        without data, windows of a live source end by this machine's clock, so silence is seen even if the format tells no time
        without an event (EVT does). Events that come for such a window later are left out and counted.

        Args:
            source: A recording's file; "-" for standard input, the path of a named pipe, "tcp:HOST:PORT" or "unix:PATH" of a
                program that serves events there; or an iterable of `staa.data.Events`.
            format: Of the bytes, a name in `staa.data.events.decoders.DECODERS`; None: what a header or the file's name says.
            follow: At the end of a file, wait for more. Such a file loses no window: the stream falls behind instead.
            lag: Milliseconds, as told; None drops nothing and lets the events' time alone count.
            repair: "refuse" ends the stream with what is wrong in the bytes; "drop" leaves it out and counts it in `repair`.
            remote: Let HOST be another machine.

        Raises:
            ValueError: If the source is of another form, sensor or format, ends within an event, or holds what is refused; the
                decisions up to there have been given.
            OSError: If it can't be opened or read.
        """
        check_watch(format, lag)  # at once, not with the first decision
        return watched(self, source, format=format, follow=follow, lag=lag, repair=repair, remote=remote)

    def reset(self) -> None:
        """Begin anew: the network at rest, nothing remembered, nothing counted; the next event begins window 1."""
        self.windows = Windows(round(self.window * 1000), (self._side, self._side), self._fit)
        """Makes frames of the events; `decide` takes what it gives."""
        self.repair = Repair()
        """What was left out of the events, by kind."""
        self.dropped = 0
        """Windows that were dropped so far, since the network was too slow."""
        self._last: int | None = None
        self._silent = 0
        self._rest()
        self._memory.forget()

    def fitting(self, events: Events) -> Events:
        """The events, checked to be of the sensor that the run takes. Raises ValueError if they are of another one, or of one
        whose size is not known."""
        if len(events.t) and events.sensor is None:
            raise ValueError("the events don't say the size of their sensor: give `sensor` as HEIGHTxWIDTH")
        if self._whole and events.sensor is not None and events.sensor != (self._side, self._side):
            there = f"{events.sensor[0]} × {events.sensor[1]}"
            raise ValueError(
                f"the events are of a sensor of {there}, and the run was trained on one of {self._side} × {self._side}"
            )
        return events

    def decide(self, window: Window) -> Decision:
        """What the network says of the next window.

        Args:
            window: A later one than the one before, of `windows`.
        """
        if window.counts is not None:
            if self._silent_for is not None and self._silent >= self._silent_for:
                self._rest()
                self._memory.forget()
            self._silent = 0
        else:
            self._silent += 1
        if self._seen == self._every:
            self._rest()
        frame = np.zeros((2, self._side, self._side), np.float32) if window.counts is None else window.counts.astype(np.float32)
        logits, self._state = self._logits(frame, self._state)
        if not bool(logits.isfinite().all()):
            raise FloatingPointError(
                f"the network's outputs at window {window.number} are not finite: its weights are too large"
            )
        self._seen += 1
        p, prediction = self._memory.mean(window.number, logits).softmax(0).max(0)
        own, newest = logits.softmax(0).max(0)
        return Decision(
            window=window.number,
            end=window.number * self.window / 1000,
            time=window.end,
            events=window.events,
            prediction=self.names[int(prediction)],
            probability=float(p),
            newest=self.names[int(newest)],
            newest_probability=float(own),
            latency=time.perf_counter() - window.arrived,
            dropped=self.dropped,
            late=self.windows.late,
        )

    def _logits(self, frame: np.ndarray, state: StreamState | None) -> tuple[Tensor, StreamState]:
        logits, state = stream(self._model, torch.from_numpy(scaled(frame, self._values))[None, None].to(self._device), state)
        return logits[0, 0], state

    def _rest(self) -> None:
        self._state: StreamState | None = None
        self._seen = 0

    def _windows(self, name: str, milliseconds: float | None) -> int | None:
        """How many windows a duration has."""
        if milliseconds is None:
            return None
        if not self.window <= milliseconds <= MOST * self.window:
            raise ValueError(
                f"`{name}` must be from a window, {self.window:g} ms, to {MOST:,} of them, got {milliseconds:g} ms"
            )
        return math.floor(milliseconds / self.window + 1e-9)
