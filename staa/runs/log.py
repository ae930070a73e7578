"""What happens while a run trains: an event a line."""

import json
import time
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


def read_log(folder: Path) -> list[dict[str, Any]]:
    """The events of a run, in their order; a line that a crash cut off is left out. Raises OSError, or ValueError naming a line
    that is no event, or is of a newer version."""
    path, events = folder / LOG, []
    for number, line in enumerate(read_text(path).splitlines(), 1):
        try:
            event = parse_json(line)
        except json.JSONDecodeError:
            continue
        except ValueError as error:
            raise ValueError(f"{path}, line {number}: {error}") from error
        if not isinstance(event, dict) or not isinstance(event.get("event"), str):
            raise ValueError(f"{path}, line {number} is no event")
        check_format(event.get("format", 0), path)
        events.append(event)
    return events


def check_log(folder: Path) -> None:
    """Raises ValueError if a newer version has written to the log."""
    path = folder / LOG
    for line in read_text(path).splitlines() if path.is_file() else ():
        if '"format"' in line:
            try:
                check_format(parse_json(line).get("format", 0), path)
            except (json.JSONDecodeError, AttributeError):
                continue


def log_once(folder: Path, event: dict[str, Any]) -> None:
    """Add an event to the run's log unless it is there."""
    path = folder / LOG
    mark = f'"event": "{event["event"]}", "step": {event["step"]},'
    if not path.is_file() or mark.encode() not in read_bytes(path):
        log(folder, event)
