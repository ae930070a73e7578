"""What to do about what is wrong in a recording, and what was done about it."""

from collections import Counter
from pathlib import Path
from shlex import quote
from typing import Literal

How = Literal["refuse", "drop", "sort"]
"""What is wrong is an error; or is left out; or is left out, but events back in time are put in their place."""


class Repair:
    """How a recording is repaired, and a count of what was left out or moved, by what it is.

    path: the recording's file, for the command that an error names.
    """

    def __init__(self, how: How = "refuse", path: Path | None = None):
        self.how, self.path = how, path
        self.counts: Counter[str] = Counter()

    def found(self, what: str, count: int, problem: str) -> None:
        """Counts so many of what is wrong. Raises ValueError with the problem, and what repairs it, if it is refused."""
        if self.how == "refuse":
            raise ValueError(f"{problem}{self.advice()}")
        self.counts[what] += count

    def advice(self, *, order: bool = False) -> str:
        """What follows a problem in a message. order: it is of events that are not in order of time."""
        if self.path is None:
            return ""
        new = self.path.with_name(f"{self.path.stem}-repaired.npz")
        also = ", or puts them in order with --repair sort" if order else ""
        return f"; 'staa data convert {quote(str(self.path))} {quote(str(new))} --repair drop' leaves such events out{also}"

    def __str__(self) -> str:
        """Such as "3 events outside the sensor, 1 stray time"; nothing if all was right."""
        return ", ".join(f"{count:,} {what}" for what, count in self.counts.items() if count)

    def told(self) -> str:
        """A sentence for the user."""
        return f"{'left out' if self.how == 'drop' else 'left out or moved'} {self}"
