"""The command that runs a model on events as they come."""

import json
from collections import deque
from collections.abc import Generator
from contextlib import closing
from itertools import chain, islice

import numpy as np

from staa.analysis.figures import percent
from staa.cli.parse import parse
from staa.cli.run_options import StreamOptions
from staa.cli.signals import INTERRUPTED
from staa.cli.text import say
from staa.cli.waiting import waiting
from staa.inference.camera import Stream
from staa.inference.decision import Decision
from staa.inference.sources import is_file

KEPT = 100_000  # latencies


def stream(args: list[str]) -> int:
    """run a model on events of a camera as they come"""
    options = parse(StreamOptions, args, "staa stream")
    with waiting():
        made = Stream(
            options.run,
            window=options.window,
            memory=options.memory,
            reset_every=options.reset_every,
            reset_silent=options.reset_silent,
            sensor=options.sensor,
            weights=options.weights,
            device=options.device,
            trust=options.trust_code,
        )
    latencies: deque[float] = deque(maxlen=KEPT)
    last = None
    try:
        with closing(_decisions(made, options)) as decisions:
            with waiting("waiting for events"):
                first = list(islice(decisions, 1))
            for last in chain(first, decisions):
                latencies.append(last.latency)
                say(json.dumps({"event": "window", **last._asdict()}) if options.json else _line(last))
    except BrokenPipeError:  # nobody reads
        raise
    except (ValueError, OSError):
        _tell(made, options, last, latencies)
        raise
    except KeyboardInterrupt:
        _tell(made, options, last, latencies)
        return INTERRUPTED if is_file(options.source) and not options.follow else 0
    _tell(made, options, last, latencies)
    return 0


def _decisions(made: Stream, options: StreamOptions) -> Generator[Decision]:
    return made.watch(
        options.source,
        format=options.format,
        follow=options.follow,
        lag=options.lag,
        repair=options.repair,
        remote=options.remote,
    )


def _line(d: Decision) -> str:
    """A decision in a line."""
    running, newest = f"{d.prediction} ({percent(d.probability)})", f"{d.newest} ({percent(d.newest_probability)})"
    return f"{d.end:8.3f} s  {d.events:>8,} events  {running}  newest window {newest}  {d.latency * 1e3:6.1f} ms"


def _tell(made: Stream, options: StreamOptions, last: Decision | None, latencies: deque[float]) -> None:
    """What there was in all, if there was anything."""
    if last is None:
        return
    windows, dropped, late = last.window - made.dropped, made.dropped, made.windows.late
    median, most, longest = (float(q) for q in np.quantile(latencies, (0.5, 0.99, 1)))
    if options.json:
        figures = {"windows": windows, "end": last.end, "dropped": dropped, "late": late, "repaired": dict(made.repair.counts)}
        latency = {"latency_median": median, "latency_99": most, "latency_longest": longest}
        say(json.dumps({"event": "end", **figures, **latency}))
        return
    say(
        f"{windows:,} windows of {made.window:g} ms; from events to prediction {median * 1e3:.1f} ms in the median, "
        f"{most * 1e3:.1f} ms in 99 of 100, {longest * 1e3:.1f} ms at most"
    )
    if dropped:
        share = percent(dropped / (windows + dropped))
        say(f"{dropped:,} windows ({share}) were dropped, since the network was too slow for them")
    if late:
        say(f"{late:,} events came when their window had been ended by the clock, and were left out")
    if made.repair.repaired():
        say(made.repair.told())
