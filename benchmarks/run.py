"""Measure ours beside SpikingJelly, snnTorch and Norse on this machine:  python -m benchmarks.run [--out DIR] [--quick]

Two processes, one that keeps its memory pages (as the `staa` command does) and one as it starts, take turns, one at a time, so
that all columns see the same load. Each round gives every column one turn; what is reported is the median over rounds of the
ratio to a column of the same round, with the quarter- and three-quarter-points. A "copy" moves the bytes that a neuron must,
forward and backward: for each element x in, its spike out; x and the gradient in, x's gradient out. On a GPU: --device cuda.
Writes DIR/bench.json, bench.md and bench.png.
"""

import argparse
import json
import multiprocessing
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from staa.analysis import cost
from staa.analysis.cost import ratio
from staa.files import save_with

SHAPES = {
    "T=4 16×128×32×32": (4, 16, 128, 32, 32),
    "T=10 16×64×48×48": (10, 16, 64, 48, 48),
    "T=4 262144": (4, 262144),
    "T=16 65536": (16, 65536),
    "T=100 10240": (100, 10240),
}
SCALING = {
    f"T={t} N={n} C={c}": (t, n, c, 16, 16)
    for t, n, c in ((1, 16, 64), (4, 16, 64), (16, 16, 64), (64, 16, 64), (4, 4, 64), (4, 64, 64), (4, 16, 16), (4, 16, 256))
}
Case = Callable[[], None]


def neuron_case(shape: tuple[int, ...], column: str) -> Case:
    from benchmarks.nets import NEURONS

    torch.manual_seed(0)
    if column == "copy":  # of 10 bytes an element: read and written, 20
        source = torch.empty(int(torch.Size(shape).numel() * 2.5))
        target = torch.empty_like(source)
        return lambda: target.copy_(source)
    x = (2 * torch.randn(shape) + 0.6).requires_grad_()
    grad = torch.randn(shape)
    neuron = NEURONS[column]()

    def run() -> None:
        x.grad = None
        neuron(x).backward(grad)

    return run


def layer_case(column: str) -> Case:
    """conv3×3 – BatchNorm – neuron, 64 channels at 32 × 32, T = 4, batch 16: forward and backward."""
    from benchmarks import nets

    torch.manual_seed(0)
    network = nets._network((64,), 64, column)
    x, grad = torch.rand(4, 16, 64, 32, 32, requires_grad=True), torch.randn(16, 10)

    def run() -> None:
        if column.startswith("spikingjelly"):
            nets._spikingjelly()[0].reset_net(network)
        x.grad = None
        network(x).backward(grad)

    return run


def resnet_step(name: str, column: str) -> tuple[Case, torch.nn.Module]:
    """A training step on CIFAR-size images, T = 4: STAA against its plain twin. Batch 32; on CUDA 128 in bfloat16."""
    from staa.attention import STAA
    from staa.models import MODELS
    from staa.neurons import NEURONS, AdaptiveLIF

    torch.manual_seed(0)
    cuda = torch.get_default_device().type == "cuda"
    options = {"neuron": NEURONS["plain"]} if column == "plain" else {"neuron": AdaptiveLIF, "attention": STAA}
    network = MODELS[name](100, steps=4, **options).to(memory_format=torch.channels_last)
    call = torch.compile(network) if column.endswith("compiled") else network
    x, y = torch.rand(128 if cuda else 32, 3, 32, 32), torch.randint(100, (128 if cuda else 32,))
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01)

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast("cuda", torch.bfloat16, enabled=cuda):
            logits = call(x)
        torch.nn.functional.cross_entropy(logits.mean(0).float(), y).backward()
        optimizer.step()

    return step, network


def training_step(name: str, column: str) -> tuple[Case, torch.nn.Module]:
    """A function that takes one step, and the network it trains."""
    from benchmarks import nets

    return (resnet_step if name.startswith("resnet") else nets.training_step)(name, column)


def build(case: str, column: str) -> Case:
    kind, _, name = case.partition("/")
    if kind == "neuron":
        return neuron_case({**SHAPES, **SCALING}[name], column)
    if kind == "layer":
        return layer_case(column)
    return training_step(name, column)[0]


def flops(case: str, column: str) -> int:
    """Floating-point operations of one step, as torch counts them: those of convolutions and matrix products."""
    from torch.utils.flop_counter import FlopCounterMode

    run = build(case, column)
    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()


def kept_bytes(case: str, column: str) -> int:
    """What the forward pass of a training step keeps for its backward pass."""
    run, network = training_step(case.removeprefix("step/"), column)
    return cost.kept_bytes(network, run)


def turn(run: Case) -> float:
    """Seconds of one run: the median of as many as take a twentieth of a second, after one that is not counted.

    The pause lets the other process's threads fall asleep, which spin for a while after their work.
    """
    time.sleep(0.03)
    run()
    seconds: list[float] = []
    wait = torch.cuda.synchronize if torch.get_default_device().type == "cuda" else lambda: None
    while sum(seconds) < 0.05:
        wait()
        began = time.perf_counter()
        run()
        wait()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


def worker(keep: bool, device: str, dtype: str, pipe: Any) -> None:
    """Answer (what, case, column): "time" with seconds, "bytes", "flops", "drop" when cases are forgotten; errors as text."""
    import warnings

    warnings.simplefilter("ignore")
    torch.set_default_device(device)
    torch.set_default_dtype(getattr(torch, dtype))
    if keep:
        from staa.machine import keep_pages

        keep_pages()
    cases: dict[tuple[str, str], Case] = {}
    while True:
        try:
            what, case, column = pipe.recv()
        except EOFError:  # the other end is gone
            return
        try:
            if what == "drop":
                cases.clear()
                pipe.send(None)
            elif what == "bytes":
                pipe.send(kept_bytes(case, column))
            elif what == "flops":
                pipe.send(flops(case, column))
            else:
                if (case, column) not in cases:
                    began = time.perf_counter()
                    cases[case, column] = build(case, column)
                    for _ in range(2):
                        cases[case, column]()
                    pipe.send(("warm", time.perf_counter() - began))
                    continue
                pipe.send(turn(cases[case, column]))
        except Exception as error:
            pipe.send(f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"[:200])


class Workers:
    """Both processes, of which one works at a time; on CUDA, where pages matter little, one."""

    def __init__(self, device: str, dtype: str) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipes = {}
        for keep in (False, True) if device == "cpu" else (False,):
            here, there = context.Pipe()
            context.Process(target=worker, args=(keep, device, dtype, there), daemon=True).start()
            self.pipes[keep] = here

    def ask(self, keep: bool, *question: str) -> Any:
        self.pipes[keep].send(question)
        return self.pipes[keep].recv()


def measure(workers: Workers, case: str, columns: list[str], rounds: int) -> dict[str, Any]:
    """Seconds of each column in each round, "column" as it starts and "column, pages kept"; and what did not run, and why."""
    runs = [(keep, column) for column in columns for keep in workers.pipes]
    name = {run: run[1] + (", pages kept" if run[0] else "") for run in runs}
    seconds: dict[str, list[float]] = {}
    failed, warm = {}, {}
    for run in runs:
        answer = workers.ask(run[0], "time", case, run[1])
        if isinstance(answer, str):
            failed[name[run]] = answer
        else:
            seconds[name[run]], warm[name[run]] = [], answer[1]
    for _ in range(rounds):
        for run in runs:
            if name[run] in seconds:
                seconds[name[run]].append(workers.ask(run[0], "time", case, run[1]))
    for keep in workers.pipes:
        workers.ask(keep, "drop", "", "")
    return {"seconds": seconds, "warm_up": warm, "failed": failed}


def environment() -> dict[str, Any]:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())
    packages = {}
    for name in ("torch", "spikingjelly", "snntorch", "norse", "staa-snn"):
        try:
            packages[name] = version(name)
        except Exception:
            packages[name] = None
    about = {"cpu": model, "threads": torch.get_num_threads(), "load": os.getloadavg()[0], "time": time.ctime()}
    about["commit"] = subprocess.run(
        ["git", "describe", "--always", "--dirty=+"], capture_output=True, text=True
    ).stdout.strip()
    return {**about, "versions": packages}


def table(case: str, found: dict[str, Any]) -> str:
    base, kept = found["base"], ", pages kept" if found["base"].endswith(", pages kept") else ""
    lines = [f"\n### {case}\n", f"| | ms, median | × {base} (quartiles) |", "|---|---|---|"]
    for name, times in found["seconds"].items():
        middle, low, high = ratio(times, found["seconds"][base])
        lines.append(f"| {name} | {statistics.median(times) * 1e3:.2f} | {middle:.2f} ({low:.2f}–{high:.2f}) |")
    lines += [f"| {name} | did not run: {why} | |" for name, why in found["failed"].items()]
    if "kept_bytes" in found:
        sizes = (f"{c} {b / 2**20:.1f}" if isinstance(b, int) else f"{c}: {b}" for c, b in found["kept_bytes"].items())
        lines.append(f"\nkept for backward, MiB: {', '.join(sizes)}")
        if isinstance(found.get("flops"), int) and f"staa{kept}" in found["seconds"]:
            speed = found["flops"] / statistics.median(found["seconds"][f"staa{kept}"])
            lines[-1] += f"; a step of staa is {found['flops'] / 1e9:.1f} GFLOP, {speed / 1e12:.2f} TFLOP/s"
    return "\n".join(lines)


def markdown(about: dict[str, Any], cases: dict[str, dict[str, Any]]) -> str:
    """bench.md of what bench.json holds."""
    packages = ", ".join(f"{k} {v}" for k, v in about["versions"].items())
    machine = f"{about['cpu']}, {about['threads']} threads, load {about['load']:.1f} at the start"
    commit = f"; commit {about['commit']}" if about.get("commit") else ""
    head = f"# Benchmarks\n\n{machine}; {packages}; {about['time']}{commit}.\n"
    return head + "\n".join(table(case, found) for case, found in cases.items()) + "\n"


def picture(results: dict[str, Any], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    cases = {case: found for case, found in results.items() if case.startswith(("neuron/T=4 16×", "neuron/T=10 16×", "step/"))}
    if not cases:
        return
    figure, axes = plt.subplots(1, len(cases), figsize=(3.6 * len(cases), 5), layout="constrained")
    for axis, (case, found) in zip(axes if len(cases) > 1 else [axes], cases.items(), strict=True):
        names = list(found["seconds"])
        milliseconds = [statistics.median(found["seconds"][n]) * 1e3 for n in names]
        colour = {"staa": "tab:orange", "copy": "tab:gray", "conv": "tab:gray"}
        colours = [next((c for start, c in colour.items() if n.startswith(start)), "tab:blue") for n in names]
        axis.barh(range(len(names)), milliseconds, color=colours)
        axis.set_yticks(range(len(names)), names, fontsize=7)
        axis.invert_yaxis()
        axis.set_xlabel("ms")
        axis.set_title(case, fontsize=9)
    save_with(path, partial(figure.savefig, dpi=130, format="png"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("results/bench"))
    parser.add_argument("--quick", action="store_true", help="fewer rounds, and nothing that must be compiled")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"), help="of neurons and layers")
    parser.add_argument("--only", default="", help="cases whose name starts so")
    options = parser.parse_args()
    from benchmarks.nets import COLUMNS, NEURONS

    cuda = options.device == "cuda"
    kept = "" if cuda else ", pages kept"
    wanted = lambda columns: [c for c in columns if not (options.quick and "compiled" in c)]  # noqa: E731
    plan = [(f"neuron/{name}", wanted(["copy", *NEURONS]), f"copy{kept}", 11) for name in SHAPES]
    plan += [(f"neuron/{name}", ["copy", "staa", "spikingjelly"], f"copy{kept}", 7) for name in SCALING]
    eager = [c for c in COLUMNS if "compiled" not in c]
    plan += [("layer/conv-BN-neuron", eager, f"conv only{kept}", 11)]
    plan += [(f"step/{net}", wanted(COLUMNS), f"conv only{kept}", 7) for net in ("vgg6", "events")]
    plan += [("step/resnet20", ["plain", "staa", *(["staa compiled"] if cuda else [])], f"plain{kept}", 5)]
    plan += [("step/resnet19", ["plain", "staa", "staa compiled"], "plain", 5)] if cuda else []
    plan = [p for p in plan if p[0].startswith(options.only)]
    options.out.mkdir(parents=True, exist_ok=True)
    workers, results = Workers(options.device, options.dtype), {}
    about = environment()
    for case, columns, base, rounds in plan:
        found = results[case] = measure(workers, case, columns, 3 if options.quick else rounds)
        found["base"] = base
        if case.startswith("step/"):
            plain = [c for c in columns if "compiled" not in c]
            found["kept_bytes"] = {c: workers.ask(not cuda, "bytes", case, c) for c in plain}
            found["flops"] = workers.ask(not cuda, "flops", case, "staa")
        print(table(case, found), flush=True)
        (options.out / "bench.json").write_text(json.dumps({"environment": about, "cases": results}, indent=1) + "\n")
    (options.out / "bench.md").write_text(markdown(about, results))
    picture(results, options.out / "bench.png")


if __name__ == "__main__":
    main()
