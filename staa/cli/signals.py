"""How a command ends: its exit codes, and what Ctrl-C and a termination do while a run trains."""

import contextlib
import signal
import sys
from collections.abc import Iterator
from types import FrameType

BAD_INPUT, FAILED, INTERRUPTED, CUT_OFF = 2, 1, 130, 141


class Signals:
    """Ctrl-C or a termination: asked for once while training, it is noted; before training, or twice, it ends at once."""

    asked = training = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if self.asked or not self.training:
            raise KeyboardInterrupt
        self.asked = True
        print("stopping after this step …", file=sys.stderr)


@contextlib.contextmanager
def listening() -> Iterator[Signals]:
    signals = Signals()
    before = {number: signal.signal(number, signals) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield signals
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
