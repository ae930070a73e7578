"""Options that several commands have."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class OfCommand:
    """What every command takes."""

    debug: bool = False
    """Show tracebacks."""


@dataclass(frozen=True, kw_only=True)
class OfFile(OfCommand):
    """What a command that reads files takes."""

    max_bytes: str | None = None
    """Memory that one file may take, such as 8G; by default half of this machine's."""


@dataclass(frozen=True, kw_only=True)
class OfRun(OfFile):
    """What a command that reads a run takes."""

    trust_code: bool = False
    """Let the code in a run folder run, where a run has parts of its own. Read it first."""
