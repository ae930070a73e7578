"""Events in Event Stream files (.es) of a DVS or an ATIS, read by the package event_stream. It runs in a process of its own
(`apart`), so it imports nothing of the package.

The format does not say where y counts from: it is taken as it is.
"""

from collections.abc import Iterator
from typing import Any

PACKAGES = ("event_stream", "numpy")
PIECE = 1 << 20


def pieces_in(path: str, stream: str | None, limit: int) -> Iterator[tuple[dict, list[Any]]]:
    """{"unit", "sensor"}, then t, x, y, p of at most PIECE events. Raises ValueError for what is no such file."""
    import event_stream

    try:
        with event_stream.Decoder(path) as decoder:
            if decoder.type not in ("dvs", "atis"):
                raise ValueError(f"it holds events of type {decoder.type}; expected dvs or atis")
            about = {"unit": "us", "sensor": (decoder.height, decoder.width)}
            for chunk in decoder:
                if decoder.type == "atis":
                    chunk = chunk[~chunk["exposure"]]
                on = "on" if decoder.type == "dvs" else "polarity"
                for k in range(0, len(chunk), PIECE):
                    part = chunk[k : k + PIECE]
                    yield about, [part[name].copy() for name in ("t", "x", "y", on)]
    except (ValueError, MemoryError):
        raise
    except Exception as error:  # RuntimeError for what it can't read
        raise ValueError(f"it can't be read as Event Stream: {str(error)[:300]}; copy or download it again") from error
