"""What is shown of work that prints nothing by itself: nothing for two seconds, then how far it is.

It goes to the terminal, or else to standard error: what a command prints does not depend on how fast the machine is.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from staa.cli.bar import Notebook
from staa.cli.text import in_notebook, new_console, out
from staa.counting import telling
from staa.text import for_terminal

PATIENCE, EVERY, REFRESH = 2.0, 10.0, 0.1
"""Seconds until something is shown, between lines if it goes to no terminal, and between looks if it does."""


class Work:
    """What is done now, as the work itself tells it: of one loop within another, the outer one, and once that has not moved for
    a while, the inner one beside it. Threads may tell."""

    def __init__(self, what: str):
        self.default = what
        self.now: tuple[str, int, int | None, bool] | None = None
        self.inner: tuple[str, int] | None = None
        self.moved = 0.0

    def tell(self, what: str, done: int, total: int | None, in_bytes: bool = False) -> None:
        if self.now is None or self.now[0] == what:
            self.now = None if done == total else (what, done, total, in_bytes)
            self.inner, self.moved = None, time.monotonic()
        else:
            self.inner = None if done == total else (what, done)

    def tell_bytes(self, what: str, done: int, total: int | None) -> None:
        self.tell(what, done, total, in_bytes=True)

    def told(self) -> tuple[str, int, int | None]:
        """(text, done, total); 0 and None if these are not known."""
        if self.now is None:
            return f"{self.default} …", 0, None
        what, done, total, in_bytes = self.now
        numbers = [f"{number / 1e6:,.1f}" if in_bytes else f"{number:,}" for number in (done, total) if number is not None]
        inner = self.inner if time.monotonic() - self.moved > PATIENCE / 2 else None
        within = "" if inner is None else f" ({inner[1]:,} {inner[0]})"
        return f"{what}: {' of '.join(numbers)}{' MB' if in_bytes else ''}{within}", done, total


@contextmanager
def waiting(what: str = "preparing") -> Iterator[Work]:
    """Within, show how far the work is: on a terminal a bar, which goes when it is done, else a line now and then."""
    work, over = Work(what), threading.Event()
    shower = threading.Thread(target=_show, args=(work, over), daemon=True)
    shower.start()
    try:
        with telling(work.tell):
            yield work
    finally:
        over.set()
        shower.join()


def _show(work: Work, over: threading.Event) -> None:
    if over.wait(PATIENCE):
        return
    if in_notebook():
        shown = Notebook()
        while not over.wait(REFRESH):
            text, done, total = work.told()
            shown.tell(done, total, text)
        shown.clear()
        return
    if not out.is_terminal:
        lines = new_console(stderr=True, soft_wrap=True)
        with suppress(BrokenPipeError):  # nobody reads
            told = None
            while True:
                if (text := work.told()[0]) != told:
                    lines.print(for_terminal(text))
                told = text
                if over.wait(EVERY):
                    break
        return
    columns = (BarColumn(12), TextColumn("{task.description}", markup=False), TimeRemainingColumn())
    with Progress(*columns, console=out, transient=True) as progress:
        bar, before = progress.add_task(""), None
        while True:
            text, done, total = work.told()
            if (what := (text.partition(":")[0], total)) != before:  # a bar that has a total keeps it
                progress.remove_task(bar)
                bar, before = progress.add_task("", total=total), what
            progress.update(bar, description=for_terminal(text), completed=done)
            if over.wait(REFRESH):
                return
