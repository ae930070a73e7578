"""A run of one seed or of several, in a folder."""

from pathlib import Path

from staa.runs.folder import RECIPE


def is_run(path: Path) -> bool:
    """A run folder, or a checkpoint in one; not a folder of several seeds."""
    return path.is_file() or (path / RECIPE).is_file()


def first_run(resume: Path) -> Path:
    """The run folder that is meant, or the first seed's where there are several."""
    if resume.is_file():
        return resume if resume.suffix == ".zip" else resume.parent
    if is_run(resume):
        return resume
    seeds = sorted(p.parent for p in resume.glob(f"seed*/{RECIPE}"))
    return seeds[0] if seeds else resume
