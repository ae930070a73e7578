"""A GPU that is lent for minutes: what goes there, what is done there in three calls, and what comes home.

    python -m benchmarks.loan pack data/cifar-100-binary             # here: build/loan/call1 and call2, one folder a call
    python -m benchmarks.loan call1 --cargo build/loan/call1 --out O # there, 150 s: is it right, how fast is it
    python -m benchmarks.loan call2 --cargo build/loan/call2 --out O # there, 570 s: train the pair
    python -m benchmarks.loan call3 --cargo build/loan/call2 --out O # there, if time is left: the other rows, ResNet-19
    python -m benchmarks.loan collect FOLDER … --loan N              # here: what came home, into results/gpu/N
    python -m benchmarks.loan dry-run                                # here: all of it on the CPU with shrunk networks

A call is stages in order of worth, each in a process of its own with a limit of its own (benchmarks/loan_stages.py). What a
stage finds is in O at once. A stage that fails costs itself: what follows falls back, and says so. Folders that stay between
the calls (--work, --data) save the next one work; if they are gone, it does that work again.
"""

import argparse
import shlex
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.loan_process import Call, end_strays
from benchmarks.loan_training import FORMS, PAIR, choose_form, go_on, train

ROWS = ("cifar100-resnet20-gc", "cifar100-resnet20-gc-pe", "cifar100-resnet20-gc-pe-sa")
LARGER = ("cifar100-resnet19-plain", "cifar100-resnet19-staa")
GPU_TESTS = ("tests/test_gpu.py", "tests/test_augment.py")


def call1(call: Call) -> None:
    call.stage("facts", 30)
    unpack(call)
    smoke = call.stage("smoke", 45)
    wrong = [r["case"] for r in smoke.results if not r.get("right", True)]
    if wrong or smoke.status == "failed":
        why = f"{len(wrong)} cases of the kernels are wrong, first {wrong[0]}" if wrong else "the kernels' smoke test broke off"
        call.note(f"{why}: training will take the reference path")
        call.remember(reference=why)
    call.stage("speed", 45)
    call.stage("tests", 90, files=list(GPU_TESTS))


def call2(call: Call) -> None:
    unpack(call)
    choose_form(call)
    if not go_on(call):
        call.remember(epochs=train(call, call.options.recipes, seeds=call.options.seeds))


def call3(call: Call) -> None:
    unpack(call)
    choose_form(call)
    go_on(call)
    for k, recipe in enumerate(ROWS):
        train(call, (recipe,), epochs=call.state.get("epochs") or None, to_come=len(ROWS) - 1 - k + len(LARGER))
    train(call, LARGER)


def unpack(call: Call) -> None:
    outcome = call.stage("unpack", 60, cargo_folder=str(call.options.cargo))
    for found in outcome.results:
        if not found.get("whole", True):
            call.note(f"training runs on what has arrived: {found['train'][0]} training, {found['test'][0]} test images")


def main(arguments: Sequence[str] | None = None) -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended from outside"))  # and not without ending its stages
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.loan", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for name, seconds in (("call1", 150), ("call2", 570), ("call3", 300)):
        add = commands.add_parser(name).add_argument
        add("--seconds", type=float, default=seconds, help=f"for the whole call ({seconds})")
        add("--cargo", type=Path, required=True, help="the call's folder of what `pack` made")
        add("--out", type=Path, required=True, help="what comes home")
        add("--work", type=Path, default=Path("runs/loan"), help="stays between the calls (runs/loan)")
        add("--data", type=Path, default=Path("data"), help="where data are unpacked to; stays too (data)")
        add("--stage-seconds", type=float, default=90, help="of any one stage but training, at most (90)")
        add("--patience", type=float, default=1.0, help="the limits of stages times this, for a slower machine (1)")
        add("--files", type=int, default=8, help="that may come home from a call (8)")
        add("--mib", type=float, default=16.0, help="of one file that comes home, at most (16)")
        add("--archive-mib", type=float, default=15.0, help="of an archive, or of a piece of one (15)")
        add("--epochs", type=int, default=200, help="at most (200)")
        add("--seed", type=int, default=0, help="the first one (0)")
        add("--seeds", type=int, default=4, help="of call 2's recipes, at most (4)")
        add("--recipes", nargs="+", default=PAIR, help="of call 2 (cifar100-resnet20-plain and -staa)")
        add(
            "--forms", nargs="+", choices=(*FORMS, "compile"), default=FORMS, help="of a step, to choose from (all but compile)"
        )
        add("--policy", action="store_true", help="keep AutoAugment, in worker processes")
        add("--device", default="cuda", help="cpu to see that it runs (cuda)")
        add("--small", action="store_true", help="shrunk networks, to see that it runs")
    add = commands.add_parser("pack").add_argument
    add("source", type=Path, help="folder with train.bin and test.bin")
    add("--to", type=Path, default=Path("build/loan"))
    add("--part-mib", type=float, default=48.0, help="of a part of the data, at most (48)")
    add("--block", type=int, default=1000, help="records that are compressed together (1000)")
    add("--call-mib", type=float, default=64.0, help="of a call's folder and the repository together, at most (64)")
    add("--python", default="3.12", help="there (3.12)")
    add("--no-wheels", action="store_true")
    add = commands.add_parser("collect").add_argument
    add("home", type=Path, nargs="+", help="folders that came home")
    add("--to", type=Path, default=Path("results/gpu"))
    add("--loan", type=int, required=True, help="its number, the name of its folder there")
    add = commands.add_parser("dry-run").add_argument
    add("--folder", type=Path, default=Path("runs/loan-dry"))
    add("--seconds", type=float, nargs=3, default=(150, 150, 120), help="of the calls (150 150 120)")
    add("--stage-seconds", type=float, default=40, help="of a stage but training, at most (40)")
    add("--patience", type=float, default=1.0, help="the limits of stages times this (1)")
    add("--fault", action="append", default=[], metavar="CALL=STAGE:KIND,…", help="kinds: see benchmarks/loan_stages.py")
    options = parser.parse_args(arguments)
    told = [word.replace(str(Path.home()), "~") for word in (sys.argv[1:] if arguments is None else arguments)]
    options.told = shlex.join(["python", "-m", "benchmarks.loan", *told])
    if options.command in ("pack", "collect", "dry-run"):
        from benchmarks import loan_home  # which imports what may not be there

        getattr(loan_home, options.command.replace("-", "_"))(options)
        return
    call = Call(options)
    end_strays(call.note)
    try:
        {"call1": call1, "call2": call2, "call3": call3}[options.command](call)
    finally:
        call.close()


if __name__ == "__main__":
    main()
