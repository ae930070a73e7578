"""Trained networks from elsewhere: the few in this package, and runs on a hub."""

import hashlib
from pathlib import Path

from staa.files import read_bytes, read_text
from staa.registry import unknown
from staa.runs.load import Run

WEIGHTS = Path(__file__).parent / "weights"
SUMS = "SHA256SUMS"
"""In a folder of weights/: the sha256 of each of its files, as `sha256sum` writes and checks them."""


def pretrained(name: str) -> Run:
    """A trained network of this package, as the run that trained it: no download, no network.

        run = staa.pretrained("digits-events")
        run.predict("three.png"), run.result["test_accuracy"], run.model()

    Args:
        name: Such as "digits-events"; `staa.hub.pretrained_names()` lists them.

    Raises:
        ValueError: If there is none of this name, or a file of it is not what was installed.
    """
    if name not in pretrained_names():
        raise ValueError(unknown("pretrained network", name, pretrained_names()))
    folder = WEIGHTS / name
    for line in read_text(folder / SUMS).splitlines():
        digest, _, file = line.partition("  ")
        if not (folder / file).is_file() or hashlib.sha256(read_bytes(folder / file)).hexdigest() != digest:
            raise ValueError(f"{folder / file} is missing or damaged: install staa anew")
    return Run(folder)


def pretrained_names() -> list[str]:
    """What `pretrained` takes."""
    return sorted(path.parent.name for path in WEIGHTS.glob(f"*/{SUMS}"))
