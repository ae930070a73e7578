"""A command in several processes: how they are started, and how they speak with one voice."""

import json
import logging
import os
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

import torch

from staa.cli.signals import FAILED, INTERRUPTED
from staa.machine import cores
from staa.parallel import Elsewhere, is_lost, joined, several, tells_first

STATUS, DEVICES = "STAA_STATUS", "STAA_DEVICES"
"""Of a process that `launch` has started: the file for its exit code, and how many were asked for."""
NODES = "PET_NNODES"
"""How many machines take part, as torchrun takes it from the environment."""
LOST = "another process of this run has ended; the last checkpoint is kept, from which the run goes on with `resume`"


_loud: TextIO | None = None  # standard error of a process that else prints nothing


def join() -> None:
    """Meet the other processes, if there are any. Only the first one prints from here on; of errors see `voice`."""
    global _loud
    if not joined().first:
        _loud = sys.stderr
        sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115


def cause_of(error: Exception) -> Exception:
    """The error, in our words if it says that another process is gone."""
    return RuntimeError(LOST) if several() and is_lost(error) else error


def voice(error: BaseException, text: str, code: int) -> TextIO | None:
    """Where this process is to tell an error: of several only the one that meets it first does. torchrun is told too."""
    if not several():
        return sys.stderr
    if isinstance(error, Elsewhere) or not tells_first():
        return None
    leave_status(code)
    if path := os.environ.get("TORCHELASTIC_ERROR_FILE"):
        told = {"message": text, "extraInfo": {"py_callstack": text, "timestamp": str(int(time.time()))}}
        Path(path).write_text(json.dumps({"message": told}))
    return _loud or sys.stderr


def started_with() -> str:
    """The option that a command goes on with in as many processes."""
    return f" --devices {os.environ[DEVICES]}" if DEVICES in os.environ else ""


def leave_status(code: int) -> None:
    """Tell `launch` how the run has ended."""
    if path := os.environ.get(STATUS):
        Path(path).write_text(str(code))


def launches(count: int | None) -> bool:
    """Whether so many devices need processes of their own."""
    return count is not None and (count > 1 or NODES in os.environ)


def check_devices(count: int, device: str | None) -> None:
    """Raises ValueError for so many processes that this machine has no GPUs for, or that are started already."""
    if count < 1:
        raise ValueError(f"--devices must be at least 1, got {count}")
    if several():
        raise ValueError("torchrun has started the processes already: leave out --devices")
    if not launches(count):
        return
    if device not in (None, "cpu", "cuda"):
        raise ValueError(
            f"--devices takes that many GPUs, or processes on the CPU: --device must be cuda or cpu, got {device!r}"
        )
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device != "cpu" and count > gpus and (gpus or device == "cuda"):
        raise ValueError(f"--devices can be at most the GPUs here, {gpus}, got {count}; --device cpu takes any number")


def launch(count: int, args: Sequence[str]) -> int:
    """Run `staa train` with these arguments in so many processes, as torchrun starts them, and return its exit code.

    torchrun's own options come from its environment variables, such as PET_MAX_RESTARTS and, on several machines, PET_NNODES,
    PET_RDZV_BACKEND and PET_RDZV_ENDPOINT. Signals go on to the processes, SIGUSR1 as SIGTERM, which torchrun knows.
    """
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import main as torchrun

    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cores() // count)))
    os.environ.setdefault("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", "600")  # seconds to save in, where whoever stops it leaves them
    logging.disable(logging.CRITICAL)  # torchrun's: what there is to say, the processes say
    if hasattr(signal, "SIGUSR1"):
        signal.signal(signal.SIGUSR1, lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    with tempfile.TemporaryDirectory() as place:
        status = Path(place, "status")
        os.environ |= {STATUS: str(status), DEVICES: str(count)}
        try:
            alone = [] if NODES in os.environ else ["--standalone"]  # else torchrun's variables say where the others are
            torchrun([*alone, "--nproc-per-node", str(count), "--module", "staa", "train", *args])
            return 0
        except ChildFailedError:
            code = FAILED
        except SignalException:
            code = INTERRUPTED
        return int(status.read_text()) if status.is_file() else code
