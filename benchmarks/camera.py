"""A camera, simulated, and what a stream makes of it:

    python -m benchmarks.camera send --rate 5e6 --seconds 60          # EVT 3.0 at its own pace, to standard output
    python -m benchmarks.camera pipe RUN --rate 5e6 --seconds 300     # `staa stream RUN -` fed by that: drops, latency, memory
    python -m benchmarks.camera change RUN --data DATA                # time to change after 1, 10 and 100 s of one class
    python -m benchmarks.camera memory RUN --data DATA --out FIGURE.png   # accuracy of a window against --memory

RUN is a run of nmnist-stream, and DATA holds NMNIST/. The camera is of 34 × 34 pixels as N-MNIST's; each microsecond some of a
row's pixels fire at once. Each prints JSON, as an entry of results/measured.json has it.
"""

import argparse
import json
import re
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from staa import Run, Stream, stream
from staa.files import save_with
from staa.inference.decision import Memory

SIDE = 34
HEADER = f"% evt 3.0\n% format EVT3;height={SIDE};width={SIDE}\n% end\n".encode()
HIGH = 4096  # µs from one TIME_HIGH to the next
DWELLS = 1, 3, 10  # recordings that a class is shown for
MEMORIES = 1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 15, 20, 30, 50, 100  # windows
BEFORE = 1, 10, 100  # seconds of the first class
LONG = 50  # windows at a time
BLOCKS = 16  # of that length, all different, that are sent over and over


def block(rng: np.random.Generator, rate: float) -> np.ndarray:
    """The words of EVT 3.0 between two TIME_HIGH, without it: a row each microsecond that has events."""
    events = rng.poisson(rate * 1e-6, HIGH)
    words = []
    for t, n in enumerate(events.tolist()):
        if n:
            words += [0x6000 | t, int(rng.integers(SIDE))]  # TIME_LOW, ADDR_Y
            words += (0x2000 | rng.integers(SIDE, size=n) | rng.integers(2, size=n) << 11).tolist()  # ADDR_X
    return np.array(words, "<u2")


def send(rate: float, seconds: float) -> None:
    """Writes so many events a second at their own pace, and says on standard error how far it was held up."""
    rng = np.random.default_rng(0)
    blocks = [block(rng, rate) for _ in range(BLOCKS)]
    counts = [int((words >> 12 == 2).sum()) for words in blocks]
    out, sent, held = sys.stdout.buffer, 0, 0.0
    out.write(HEADER)
    began = time.perf_counter()
    for k in range(round(seconds * 1e6 / HIGH)):
        ahead = began + (k + 1) * HIGH / 1e6 - time.perf_counter()  # a block is there once its time is over
        if ahead > 0:
            time.sleep(ahead)
        out.write(np.array([0x8000 | k & 0xFFF], "<u2").tobytes() + blocks[k % BLOCKS].tobytes())
        out.flush()
        sent += counts[k % BLOCKS]
        held = max(held, time.perf_counter() - began - (k + 1) * HIGH / 1e6)
    took = time.perf_counter() - began
    print(
        f"sent {sent:,} events in {took:.1f} s, {sent / took:,.0f} a second, at most {held * 1e3:.0f} ms late", file=sys.stderr
    )


def frames_of(run: Run, split: str) -> tuple[Tensor, Tensor]:
    """(frames [n, T, 2, h, w] of the recordings of a part of the data, in windows as a stream has them, labels [n])."""
    part = getattr(run.data, split)
    return run.data.prepare(part.take(torch.arange(len(part)))).movedim(0, 1), part.y


def logits_of(model: nn.Module, frames: Tensor, every: int | None) -> Tensor:
    """The logits [T, n, classes] of n streams of frames [T, n, 2, h, w], at rest before every so many windows; None: once."""
    made, state = [], None
    for chunk in frames.split(every or LONG):
        logits, state = stream(model, chunk, None if every else state)
        made.append(logits)
    return torch.cat(made)


def remembered(logits: Tensor, windows: int) -> Tensor:
    """The class [T, n] that leads by the mean over so many windows."""
    memory = Memory(windows)
    return torch.stack([memory.mean(k, step).argmax(-1) for k, step in enumerate(logits)])


def change(run: Run, split: str, pairs: int) -> dict[str, object]:
    """Of streams that show recordings of one class for 1, 10 and 100 s and then those of another: after how many milliseconds
    the other class leads for the first time, median and largest, by what `staa.Stream` does; by its newest window; without its
    resets; and by the mean of all windows without resets."""
    frames, labels = frames_of(run, split)
    made, rng, rows = Stream(run), np.random.default_rng(0), {}
    window, steps = made.window, frames.shape[1]
    memory, every = (round(ms / window) for ms in (made.memory, made.reset_every))
    hows = {"stream": (memory, every), "newest": (1, every), "no reset": (memory, None), "all": (10**9, None)}
    classes = [rng.choice(len(run.names), 2, replace=False) for _ in range(pairs)]

    def shown(c: int, seconds: float) -> Tensor:
        count = round(seconds * 1e3 / window)
        return frames[rng.choice(np.flatnonzero(labels.numpy() == c), count // steps + 1)].flatten(0, 1)[:count]

    for before in BEFORE:
        x = torch.stack([torch.cat([shown(a, before), shown(b, 1.1 * before + 3)]) for a, b in classes], 1)
        begin, wanted = round(before * 1e3 / window), torch.tensor([int(b) for _, b in classes])
        logits = {e: logits_of(run.model(), x, e) for e in (every, None)}
        for name, (windows, e) in hows.items():
            right = (remembered(logits[e], windows)[begin:] == wanted).int()
            taken = torch.where(right.any(0), right.argmax(0) + 1, len(right)) * window
            rows[f"{name}, {before} s"] = float(taken.median()), float(taken.max())
    return {"memory_ms": made.memory, "reset_every_ms": made.reset_every, "pairs": pairs, "rows": rows}


def by_memory(run: Run, split: str) -> dict[str, object]:
    """The share of windows whose running prediction is right, against the memory, of streams that show a class for 1, 3 and 10
    recordings of 0.3 s, one after the other; mean over ten orders, in which a class begins at each window after a reset."""
    frames, labels = frames_of(run, split)
    made, steps, rng = Stream(run), frames.shape[1], np.random.default_rng(0)
    window, every = made.window, round(made.reset_every / made.window)
    rows: dict[str, dict[str, float]] = {}
    for dwell in DWELLS:
        shown, of = [], []
        for k in range(every):
            chosen = torch.from_numpy(order(labels.numpy(), dwell, rng))
            at = torch.arange(-k, len(chosen) * steps - k)  # begins with the end of the last recording
            which = chosen[at // steps]
            shown.append(frames[which, at % steps])
            of.append(labels[which])
        x, y = torch.stack(shown, 1), torch.stack(of, 1)
        for name, e in (("default", every), ("every window", 1), ("never", None)):
            logits = logits_of(run.model(), x, e)
            shares = {f"{m * window:g}": float((remembered(logits, m) == y).double().mean()) for m in MEMORIES}
            rows[f"reset {name}, {dwell}"] = shares
    return {"split": split, "windows": x.shape[0] * x.shape[1], "rows": rows}


def order(labels: np.ndarray, dwell: int, rng: np.random.Generator) -> np.ndarray:
    """The recordings in an order in which a class stays for so many of them at least."""
    of_class = (rng.permutation(np.flatnonzero(labels == c)) for c in np.unique(labels))
    together = [piece for found in of_class for piece in np.array_split(found, 10 // dwell)]
    return np.concatenate([together[k] for k in rng.permutation(len(together))])


def pipe(folder: str, rate: float, seconds: float, *options: str) -> dict[str, object]:
    """`staa stream RUN - --json`, fed by `send`: windows, drops, latencies in ms, and its memory in MB over time."""
    sender = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.camera", "send", "--rate", str(rate), "--seconds", str(seconds)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=False,
    )  # fmt: skip
    command = [sys.executable, "-m", "staa", "stream", folder, "-", "--json", *options]
    receiver = subprocess.Popen(command, stdin=sender.stdout, stdout=subprocess.PIPE)
    sender.stdout.close()
    memory, next_look, events, last = [], 0.0, 0, {}
    for line in receiver.stdout:
        last = json.loads(line)
        if last["event"] == "window":
            events += last["events"]
            if last["end"] >= next_look:
                status = Path(f"/proc/{receiver.pid}/status").read_text()
                memory.append([round(last["end"], 1), int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1e3])
                next_look = last["end"] + seconds / 20
    told = sender.stderr.read().decode().strip()
    code = receiver.wait(), sender.wait()
    return {"code": code, "sender": told, "events": events, "end": last, "memory_mb": memory}


def draw(rows: dict[str, dict[str, float]], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure((6, 3.8), layout="constrained")
    axes = figure.subplots()
    for reset, style in (("default", "o-"), ("never", ".:")):
        for k, dwell in enumerate(DWELLS):
            shares = rows[f"reset {reset}, {dwell}"]
            label = f"{0.3 * dwell:g} s" + ", no reset" * (reset == "never")
            axes.plot([float(m) for m in shares], [100 * s for s in shares.values()], style, ms=3, color=f"C{k}", label=label)
    axes.set(xscale="log", xlabel="memory [ms]", ylabel="windows that are right [%]", ylim=(0, 100))
    axes.legend(title="a class is shown for", ncols=2, fontsize=8)
    axes.grid(alpha=0.3)
    save_with(path, partial(figure.savefig, dpi=130, format="png"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("send", "pipe", "change", "memory"))
    parser.add_argument("run", nargs="?")
    parser.add_argument("--rate", type=float, default=5e6)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--split", default="test", choices=("validation", "test"))
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--out", type=Path)
    options, more = parser.parse_known_args()
    if options.what == "send":
        send(options.rate, options.seconds)
        return
    if options.what == "pipe":
        print(json.dumps(pipe(options.run, options.rate, options.seconds, *more), indent=1))
        return
    run = Run(options.run, data_root=options.data)
    made = change(run, options.split, options.pairs) if options.what == "change" else by_memory(run, options.split)
    print(json.dumps(made, indent=1))
    if options.what == "memory" and options.out:
        draw(made["rows"], options.out)


if __name__ == "__main__":
    main()
