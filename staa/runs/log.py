"""What happens while a run trains: an event a line."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from staa.files import append_text, check_format, read_bytes, read_text
from staa.recipes.as_json import parse_json

LOG = "log.jsonl"


def log(folder: Path, event: dict[str, Any]) -> None:
    """Add an event to the run's log."""
    path = folder / LOG
    try:
        append_text(path, json.dumps({"time": round(time.time(), 3), **event}) + "\n")
    except OSError as error:
        raise RuntimeError(f"could not write {path}: {error.strerror}; the last checkpoint is kept") from error


def lines(path: Path, *, having: str = "") -> Iterator[tuple[int, Any]]:
    """(number, what it says) of each line of a log, or of the lines that have a text in them; one that a crash cut off is left
    out.

    Raises OSError, or ValueError for a line that is nested too deeply, and for one of a newer version.
    """
    for number, line in enumerate(read_text(path).splitlines(), 1):
        if having not in line:
            continue
        try:
            said = parse_json(line)
        except json.JSONDecodeError:
            continue
        except ValueError as error:
            raise ValueError(f"{path}, line {number}: {error}") from error
        if isinstance(said, dict):
            check_format(said.get("format", 0), path)
        yield number, said


def events_of(folder: Path) -> list[dict[str, Any]]:
    """The events of a run, in their order. Raises what `lines` does, and ValueError naming a line that is no event."""
    path, events = folder / LOG, []
    for number, event in lines(path):
        if not isinstance(event, dict) or not isinstance(event.get("event"), str):
            raise ValueError(f"{path}, line {number} is no event: remove the line")
        events.append(event)
    return events


def check_log(folder: Path) -> None:
    """Raises ValueError if a newer version has written to the log."""
    if (folder / LOG).is_file():
        for _ in lines(folder / LOG, having='"format"'):
            pass


def log_once(folder: Path, event: dict[str, Any]) -> None:
    """Add an event to the run's log unless it is there."""
    path = folder / LOG
    mark = f'"event": "{event["event"]}", "step": {event["step"]},'
    if not path.is_file() or mark.encode() not in read_bytes(path):
        log(folder, event)
