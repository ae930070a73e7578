"""How a command ends: its exit codes, and what Ctrl-C and a termination do while a run trains."""

import contextlib
import signal
import sys
from collections.abc import Iterator
from types import FrameType

BAD_INPUT, FAILED, INTERRUPTED, CUT_OFF = 2, 1, 130, 141
COMPILER = ("torch._inductor.", "torch._dynamo.")
"""Modules with the errors of torch.compile."""


class Signals:
    """Ctrl-C or a termination: asked for once while training, it is noted; before training, or twice, it ends at once."""

    asked = training = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if self.asked or not self.training:
            raise KeyboardInterrupt
        self.asked = True
        print("stopping after this step; ask again to stop at once", file=sys.stderr)


@contextlib.contextmanager
def listening() -> Iterator[Signals]:
    """Within, Ctrl-C and a termination are noted. A terminal sends Ctrl-C to a compiler too, which leaves its step undone:
    that is an interruption and no failure."""
    signals = Signals()
    before = {number: signal.signal(number, signals) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield signals
    except RuntimeError as error:
        if signals.asked and type(error).__module__.startswith(COMPILER):
            raise KeyboardInterrupt from error
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
