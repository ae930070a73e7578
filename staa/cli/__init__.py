"""The command line. These files alone print: they render the events that a run yields."""

import io
import os
import sys
import traceback
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import staa
from staa.cli import (
    check,
    compare,
    data,
    energy,
    export,
    machine,
    predict,
    push,
    recipes,
    report,
    runs,
    stream,
    sweep,
    train,
    trained,
)
from staa.cli.flags import in_flags
from staa.cli.machine import keeps_pages
from staa.cli.options import OPTIONS
from staa.cli.processes import cause_of, voice
from staa.cli.signals import BAD_INPUT, CUT_OFF, FAILED, INTERRUPTED
from staa.cli.text import say
from staa.machine import keep_pages
from staa.parallel import several
from staa.registry import unknown
from staa.text import for_terminal

COMMANDS: dict[str, Callable[[list[str]], int]] = {
    f.__name__: f
    for f in (
        train.train,
        trained.evaluate,
        energy.energy,
        compare.compare,
        sweep.sweep,
        stream.stream,
        predict.predict,
        report.report,
        trained.share,
        push.push,
        export.export,
        check.check,
        runs.runs,
        recipes.recipes,
        data.data,
        machine.bench,
        machine.doctor,
    )
}


def main(argv: list[str] | None = None) -> int:
    """Run a command; returns the exit code: 0, 1 for a failed run, 2 for bad input, 130 if it is interrupted.

    A reader that stops reading (`staa … | head`) ends the command without a word, with 141, as it ends a pipe.

    Args:
        argv: The command and its options; None: this process's.
    """
    args = list(sys.argv[1:] if argv is None else argv)
    if keeps_pages():
        keep_pages()
    for file in (sys.stdout, sys.stderr):
        if isinstance(file, io.TextIOWrapper):  # a terminal that has no → shows its escape
            file.reconfigure(errors="backslashreplace")
    before, warnings.formatwarning = warnings.formatwarning, partial(_warning, _options_of(args))
    code = FAILED
    try:
        code = _run(args)
        if sys.stdout is not None:  # it was open when this process began
            sys.stdout.flush()
        return code
    except BrokenPipeError:
        _leave_output()
        return CUT_OFF
    except OSError as error:  # such as a full disk
        _leave_output()
        return code or _complain(f"error: standard output can't be written: {error.strerror or error}", FAILED, error)
    finally:
        warnings.formatwarning = before


def _leave_output() -> None:
    """The interpreter flushes standard output once more, when it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _run(args: list[str]) -> int:
    kind = _options_of(args)
    debug = "--debug" in args or os.environ.get("STAA_DEBUG", "0") != "0"
    try:
        if args[:1] == ["help"] and len(args) > 1:
            args = [args[1], "--help"]
        if not args or args[0] in ("-h", "--help", "help"):
            say(f"staa {staa.__version__}: spatial-temporal attention for spiking neural networks", "")
            for name, command in COMMANDS.items():
                say(f"  staa {name:<10} {command.__doc__}")
            say("", "staa COMMAND --help says more. First try: staa train")
            return 0
        if args[0] in ("-V", "-v", "--version", "version"):
            say(staa.__version__)
            return 0
        if args[0] not in COMMANDS:
            raise ValueError(unknown("command", args[0], COMMANDS))
        if several() and args[0] != "train":
            raise ValueError(f"staa {args[0]} runs in one process: start it without torchrun")
        return COMMANDS[args[0]](args[1:])
    except KeyboardInterrupt as error:
        return _complain("interrupted", INTERRUPTED, error)
    except BrokenPipeError:
        raise
    except Exception as error:
        error = cause_of(error)
        if debug:
            for line in traceback.format_exc().rstrip("\n").split("\n"):
                print(for_terminal(line), file=sys.stderr)
            return BAD_INPUT if isinstance(error, (ValueError, OSError, ImportError)) else FAILED
        if isinstance(error, (ValueError, OSError, ImportError)):
            return _complain(f"error: {in_flags(_without_number(error), kind)}", BAD_INPUT, error)
        if isinstance(error, (FloatingPointError, RuntimeError)) and not isinstance(
            error, (NotImplementedError, RecursionError)
        ):
            return _complain(f"failed: {in_flags(error, kind)} (STAA_DEBUG=1 shows where)", FAILED, error)
        if isinstance(error, MemoryError):
            return _complain(f"failed: out of memory {error}".rstrip(), FAILED, error)
        return _complain(f"failed: {_fault(error)}", FAILED, error)


def _without_number(error: Exception) -> Exception | str:
    """What the system says of a file without its error number: "nothere.raw: no such file or directory"."""
    if not isinstance(error, OSError) or error.filename is None or not error.strerror:
        return error
    return f"{os.fsdecode(error.filename)}: {error.strerror[:1].lower()}{error.strerror[1:]}"


def _fault(error: Exception) -> str:
    """What to report of an error that no input should have led to."""
    here = [
        f for f in traceback.extract_tb(error.__traceback__) if Path(f.filename).is_relative_to(Path(__file__).parent.parent)
    ]
    where = f" in {Path(here[-1].filename).name}, line {here[-1].lineno}" if here else ""
    return (
        f"{type(error).__name__}: {error}{where}. This is a fault of staa {staa.__version__}: please report this line, the "
        f"command, and what it prints once more with STAA_DEBUG=1"
    )


def _warning(kind: Any, message: Warning | str, *_: object, **__: object) -> str:
    return f"staa: warning: {for_terminal(' '.join(in_flags(message, kind).split()))}\n"


def _options_of(args: list[str]) -> Any:
    """Those of the command that is called; None for one that is not known."""
    return OPTIONS.get(" ".join(args[:2])) or OPTIONS.get(args[0] if args else "")


def _complain(text: str, code: int, error: BaseException) -> int:
    line = f"staa: {' '.join(text.split())}"
    if (to := voice(error, for_terminal(line), code)) is not None:
        print(for_terminal(line), file=to)
    return code
