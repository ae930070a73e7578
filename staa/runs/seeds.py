"""A run of one seed or of several, in a folder."""

from pathlib import Path

from staa.runs.folder import RECIPE


def is_run(path: Path) -> bool:
    """A run folder, or a checkpoint in one; not a folder of several seeds."""
    return path.is_file() or (path / RECIPE).is_file()


def first_run(resume: Path) -> Path:
    """The run folder that is meant, or the first seed's if there are several. Raises ValueError for a file in no run folder."""
    if resume.is_file() and resume.suffix == ".zip":
        return resume
    if resume.is_file():
        if not (resume.parent / RECIPE).is_file():
            raise ValueError(f"{resume} is in no run folder, since there is no {RECIPE} beside it: give a run folder")
        return resume.parent
    if is_run(resume):
        return resume
    seeds = {int(name[4:]): p.parent for p in resume.glob(f"seed*/{RECIPE}") if (name := p.parent.name)[4:].isdecimal()}
    return seeds[min(seeds)] if seeds else resume
