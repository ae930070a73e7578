"""What a report is made of. A section names what it shows; the page alone knows HTML."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Picture:
    """A figure, as matplotlib writes it."""

    image: bytes
    """PNG or SVG."""
    caption: str
    """What it shows and how to read it."""
    alt: str
    """The same for whoever does not see it: what is drawn, and what stands out, in a sentence or two."""


@dataclass(frozen=True)
class Table:
    """Rows of text, the first cell of each its heading."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str


@dataclass(frozen=True)
class Fold:
    """Parts that are shown when they are asked for."""

    title: str
    parts: "Sequence[Part]"


Part = str | Picture | Table | Fold
"""A string is a paragraph of plain text."""


@dataclass(frozen=True)
class Section:
    """A heading and what stands below it."""

    title: str
    parts: Sequence[Part]
