"""What to do about what is wrong in a recording, and what was done about it."""

from collections import Counter
from pathlib import Path
from shlex import quote
from typing import Literal, get_args

How = Literal["refuse", "drop", "sort"]
"""What is wrong is an error; or is left out; or is left out, but events back in time are put in their place."""


MOVED = "events that were back in time"
KINDS = {
    "stray times": "stray time",
    "events of unknown time": "event of unknown time",
    "events back in time": "event back in time",
    MOVED: "event that was back in time",
    "events outside the sensor": "event outside the sensor",
    "events of unknown polarity": "event of unknown polarity",
    "bytes of a part of an event": "byte of a part of an event",
}
"""What can be wrong, as it is counted, and one of it. The order is that of the numbers that are kept of it."""


class Repair:
    """How a recording is repaired, and a count of what was left out or moved, by what it is.

    path: the recording's file, for the command that an error names.
    """

    def __init__(self, how: How = "refuse", path: Path | None = None):
        if how not in get_args(How):
            raise ValueError(f"`repair` must be refuse, drop or sort, got {how!r}")
        self.how: How = how
        self.path = path
        self.counts: Counter[str] = Counter()

    def found(self, what: str, count: int, problem: str) -> None:
        """Counts so many of what is wrong. Raises ValueError with the problem, and what repairs it, if it is refused."""
        if self.how == "refuse":
            raise ValueError(f"{problem}{self.advice()}")
        assert what in KINDS
        self.counts[what] += count

    def advice(self, *, order: bool = False) -> str:
        """What follows a problem in a message. order: it is of events that are not in order of time."""
        if self.path is None:
            return ""
        new = self.path.with_name(f"{self.path.stem}-repaired.npz")
        command = f"staa data convert {quote(str(self.path))} {quote(str(new))} --repair"
        return f"; '{command} drop' leaves such events out" + (f", '{command} sort' puts them in order" if order else "")

    def repaired(self) -> bool:
        """Whether anything was wrong."""
        return any(self.counts.values())

    def told(self) -> str:
        """What was done, such as "left out 3 events outside the sensor, 1 stray time"."""
        said = {kind: f"{n:,} {kind if n > 1 else KINDS[kind]}" for kind in KINDS if (n := self.counts[kind])}
        left = ", ".join(text for kind, text in said.items() if kind != MOVED)
        moved = f"put {said[MOVED]} in order" if MOVED in said else ""
        return "; ".join(filter(None, (left and f"left out {left}", moved)))
