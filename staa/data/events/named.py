"""What columns of events are called, and which of a file's recordings is meant.

Readers in a process of their own run this file by its path, so nothing of the package is imported here.
"""

COLUMNS = {
    "t": ("t", "ts", "time", "timestamp", "timestamps"), "x": ("x", "xs"), "y": ("y", "ys"),
    "p": ("p", "ps", "pol", "polarity", "on"),
}  # fmt: skip
"""What arrays and columns are called"""


def choose(names: list[str], stream: str | None) -> int:
    """Which of a file's recordings, at least one, is meant. Raises ValueError, naming them, if none or several are."""
    chosen = [k for k, name in enumerate(names) if stream is None or name.strip("/") == stream.strip("/")]
    told = ", ".join(name[:64] for name in names[:9])
    if not chosen:
        raise ValueError(f"it has no recording {stream!r}: choose one of {told}")
    if len(chosen) > 1:
        raise ValueError(f"it holds {len(names)} recordings: choose one with `stream`: {told}")
    return chosen[0]
