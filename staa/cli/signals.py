"""How a command ends: its exit codes, and what Ctrl-C and a termination do while a run trains."""

import contextlib
import signal
import sys
from collections.abc import Iterator
from types import FrameType

from staa.parallel import several

BAD_INPUT, FAILED, INTERRUPTED, CUT_OFF = 2, 1, 130, 141
COMPILER = ("torch._inductor.", "torch._dynamo.")
"""Modules with the errors of torch.compile."""


class Signals:
    """Ctrl-C or a termination: asked for once while training, it is noted; before training, or with Ctrl-C once more, it ends
    at once. A second termination is none: whoever ends a job tells its processes and what has started them."""

    asked = training = False
    number: int | None = None
    """The signal; None if another process of the run was asked."""

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if not self.training or (self.asked and signal.SIGINT in (number, self.number)):
            raise KeyboardInterrupt
        if self.asked:
            return
        self.asked, self.number = True, number
        if number == signal.SIGINT or not several():  # torchrun terminates processes whose companion has died, too
            print("stopping after this step; ask again to stop at once", file=sys.stderr)

    @property
    def status(self) -> int:
        """The exit code once the run is saved: whoever terminates a job, as to give its machine to another, wants 0."""
        return INTERRUPTED if self.number == signal.SIGINT else 0


@contextlib.contextmanager
def listening(*, requeue: bool = False) -> Iterator[Signals]:
    """Within, Ctrl-C and a termination are noted. A terminal sends Ctrl-C to a compiler too, which leaves its step undone: that
    is an interruption and no failure. requeue: SIGUSR1 is noted too, which SLURM can send before a job's time is up."""
    signals = Signals()
    numbers = [signal.SIGINT, signal.SIGTERM, *([signal.SIGUSR1] if requeue else [])]
    before = {number: signal.signal(number, signals) for number in numbers}
    try:
        yield signals
    except RuntimeError as error:
        if signals.asked and type(error).__module__.startswith(COMPILER):
            raise KeyboardInterrupt from error
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if several():  # torchrun terminates it if another one has failed: it is ending, and may still have to say so
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
