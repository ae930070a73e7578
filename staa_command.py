"""The command `staa`, as it is installed. It stands outside the package, whose import takes seconds: PyTorch's.

Until the command listens itself, Ctrl-C ends it at once, without the traceback of an import.
"""

import signal


def main() -> int:
    """Run the command; returns its exit code."""
    before = signal.getsignal(signal.SIGINT)
    if before is signal.default_int_handler:  # else whoever started it chose what Ctrl-C does
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from staa.cli import main as command

    signal.signal(signal.SIGINT, before)
    return command()
