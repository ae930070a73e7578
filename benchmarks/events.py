"""Binning of one recording into frames beside tonic and SpikingJelly:  python -m benchmarks.events [--file F] [--steps T]

Without a file, a million random events on 128 × 128. Interleaved; medians of the ratios to ours. What is timed is events in
memory, as each library holds them, to frames [T, 2, H, W]; how far theirs differ is told first.
"""

import argparse
import importlib.util
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from staa.data import Events, read_events, to_frames
from staa.data.events.folder import parse_sensor
from staa.data.events.frames import borders_of, count

ROUNDS = 15


def random_events(n: int = 1_000_000, side: int = 128) -> Events:
    draw = np.random.default_rng(0)
    x, y = (draw.integers(0, side, n).astype(np.int32) for _ in range(2))
    return Events(np.sort(draw.integers(0, 2_000_000, n)), x, y, draw.integers(0, 2, n).astype(np.uint8), (side, side))


def binners(events: Events, steps: int) -> dict[str, Callable[[], np.ndarray]]:
    height, width = events.sensor or (0, 0)
    found: dict[str, Callable[[], np.ndarray]] = {
        "staa, float frames": lambda: to_frames(events, steps),
        "staa, counts": lambda: count(events, borders_of(events, steps)),
    }
    try:
        from tonic.transforms import ToFrame

        dtype = np.dtype([("x", np.int16), ("y", np.int16), ("t", np.int64), ("p", bool)])
        packed = np.empty(len(events.t), dtype)
        for name in dtype.names or ():
            packed[name] = getattr(events, name)
        frame = ToFrame(sensor_size=(width, height, 2), n_event_bins=steps)
        found["tonic ToFrame"] = lambda: frame(packed)
    except ImportError as error:
        print(f"tonic is left out: {error}")
    try:
        package = importlib.util.find_spec("spikingjelly")
        path = Path((package.submodule_search_locations or [""])[0]) / "datasets" / "utils.py"  # type: ignore[union-attr]
        spec = importlib.util.spec_from_file_location("spikingjelly.datasets.utils", path)  # its package asks for torchaudio
        module = importlib.util.module_from_spec(spec)  # type: ignore[arg-type]
        spec.loader.exec_module(module)  # type: ignore[union-attr]
        columns = {"t": events.t, "x": events.x, "y": events.y, "p": events.p.astype(np.int64)}
        found["spikingjelly"] = lambda: module.integrate_events_by_fixed_frames_number(columns, "number", steps, height, width)
    except (ImportError, OSError, AttributeError) as error:
        print(f"spikingjelly is left out: {error}")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--file", type=Path)
    parser.add_argument("--sensor", help="HEIGHTxWIDTH, where the file doesn't say it")
    parser.add_argument("--steps", type=int, default=16)
    options = parser.parse_args()
    events = read_events(options.file, parse_sensor(options.sensor)) if options.file else random_events()
    columns = binners(events, options.steps)
    ours = columns["staa, counts"]()
    for name, run in columns.items():
        apart = np.abs(run() - ours).sum()
        if apart:
            print(f"{name} splits the events otherwise: {apart:.0f} counts apart")
    seconds: dict[str, list[float]] = {name: [] for name in columns}
    for _ in range(ROUNDS):
        for name, run in columns.items():
            began = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - began)
    print(f"{len(events.t):,} events, T = {options.steps}, {events.sensor}")
    for name, times in seconds.items():
        ratios = sorted(a / b for a, b in zip(times, seconds["staa, float frames"], strict=True))
        middle, low, high = (ratios[k * ROUNDS // 4] for k in (2, 1, 3))
        usual = statistics.median(times)
        speed = f"{usual * 1e3:8.2f} ms  {len(events.t) / usual / 1e6:7.1f} M events/s"
        print(f"{name:<20} {speed}  × {middle:.2f} ({low:.2f}–{high:.2f})")


if __name__ == "__main__":
    main()
