"""Training that is bit-equal each time on a machine: with PyTorch's deterministic algorithms alone."""

import os
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TypeVar

import torch

WORKSPACE, FIXED = "CUBLAS_WORKSPACE_CONFIG", (":4096:8", ":16:8")
"""cuBLAS adds up in the same order each time only in one of these workspaces. It is told in the environment, and looks once."""

T = TypeVar("T")


def fix_workspace() -> None:
    """Give cuBLAS a fixed workspace in this process, before CUDA begins. Raises ValueError if it has begun with another, or the
    environment asks for another."""
    given = os.environ.get(WORKSPACE)
    if given in FIXED or not torch.cuda.is_available():
        return
    if given is not None or torch.cuda.is_initialized():
        why = "this process has used CUDA already without it" if given is None else f"it is {given!r}"
        raise ValueError(
            f"`deterministic` needs {WORKSPACE}={FIXED[0]} in the environment before CUDA begins, and {why}: set it, and start "
            f"Python anew"
        )
    os.environ[WORKSPACE] = FIXED[0]


@contextmanager
def deterministic_algorithms() -> Iterator[None]:
    """Within, what PyTorch computes is the same each time, with as many threads on the same machine.

    An operation takes its deterministic algorithm, cuDNN chooses none by measuring, and new tensors are filled, lest one is
    read before it is written. It holds for the whole process. Raises RuntimeError naming an operation that has none.
    """
    before = torch.get_deterministic_debug_mode(), torch.backends.cudnn.benchmark
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False
    try:
        yield
    except (RuntimeError, ValueError) as error:
        found = re.search(r"(\S+) does not have a deterministic implementation", str(error))
        if found is None:
            raise
        raise RuntimeError(
            f"{found[1]}, an operation of this network or its loss, has no deterministic form on this device: train without "
            f"`deterministic`, or with another operation in its place"
        ) from error
    finally:
        torch.set_deterministic_debug_mode(before[0])
        torch.backends.cudnn.benchmark = before[1]


def made_within(context: Callable[[], AbstractContextManager[None]], events: Iterator[T]) -> Iterator[T]:
    """The events, each of which is made within a context of its own; who takes them is outside."""
    while True:
        with context():
            event = next(events, None)
        if event is None:
            return
        yield event
