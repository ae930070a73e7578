"""A run's report: one HTML file that loads nothing, runs nothing and goes to whoever asks."""

import base64
import hashlib
import re
import struct
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

from staa.analysis.report.activity import activity
from staa.analysis.report.classes import classification
from staa.analysis.report.curves import curves
from staa.analysis.report.energy import energy
from staa.analysis.report.forecasts import forecasts
from staa.analysis.report.parts import Fold, Part, Picture, Section, Table
from staa.analysis.report.summary import about_data, recipe_of, state_of, summary, warned
from staa.build.classification import Classification
from staa.counting import counted
from staa.files import check_writable, inside, write
from staa.recipes.code import UntrustedCodeError
from staa.runs.load import Run, Weights, opened
from staa.text import for_terminal
from staa.version import __version__

REPORT = "report.html"
POLICY = "default-src 'none'; style-src 'sha256-{digest}'; img-src data:; base-uri 'none'; form-action 'none'"
"""What a browser may do with the page: show it, with this one style sheet and the pictures in it."""
NUMBER = re.compile(r"[−+-]?[\d,]*\.?\d+(e[+-]?\d+)?( ?[%a-zA-Zµ]{1,3})?|n/a|–?")
WIDE = 640  # pixels: a picture that is wider takes a row of its own
CAUSES = (OSError, ValueError, ImportError, FloatingPointError)
"""What a part of a report may fail with while the others stand: data that are gone, an answer that is not finite."""


@dataclass(frozen=True)
class Report:
    """Where a report is, and what is not in it."""

    path: Path
    left_out: tuple[str, ...]
    """What could not be made, by why."""


def write_report(
    run: Run | str | Path,
    out: Path | None = None,
    *,
    split: Literal["train", "validation", "test"] | None = None,
    weights: Weights | None = None,
    data_root: Path | None = None,
    device: str | None = None,
    workers: int | None = None,
    trust: bool = False,
) -> Report:
    """Write what a run is, has learned, costs and says as one HTML file, which a browser shows without a network.

    A part that can't be made, since the data or the weights are gone, is left out, and the page says so.

    Args:
        run: A `staa.Run`, or a run folder, which is opened with data_root and trust.
        out: The file, which must not be there; None: report.html in the run folder, which takes the place of an older one.
        split: Part of the data that answers and forecasts are of; None: the test set of a finished run, else validation.
        weights: "last" epoch or "best" on validation; None: what the test figure was measured with.
        data_root: Where its data are; None: where the run found them.
        device: Such as "cpu" or "cuda"; None: the GPU if there is one.
        workers: Processes that read images, at least 0; None: as many as suit the machine.
        trust: Let Python files in the run folder run, if the run has parts of its own.

    Raises:
        FileNotFoundError: If there is no such run.
        ValueError: If its records are broken; if `out` is there already, is no .html, or can't be written.
        RuntimeError: If the disk is full.
    """
    run = opened(run, data_root=data_root, trust=trust)
    if out is not None and (out.exists() or out.is_symlink()):
        raise ValueError(f"{out} is there already: choose another `out`")
    if out is not None and out.suffix.lower() not in (".html", ".htm"):
        raise ValueError(f"`out` is an HTML file to write, such as {REPORT}; got {out}")
    path = out or inside(run.folder, REPORT)
    check_writable(path)
    _check_records(run)
    sections: list[Section] = []
    causes: dict[str, list[str]] = {}
    if (lacking := _lacking(run)) is not None:
        causes[lacking] = ["all that needs samples"]
    builders = _builders(run, split=split, weights=weights, device=device, workers=workers)
    for title, build in counted(builders.items(), "making the report", len(builders)):
        try:
            sections += _with_warnings(build)
        except UntrustedCodeError:
            raise
        except CAUSES as error:
            why = _why(error)
            causes.setdefault(why, []).append(title)
            sections.append(Section(title, [f"Left out: {why}"]))
    left_out = tuple(f"{', '.join(titles)}: {why}" for why, titles in causes.items())
    text = page(run, sections, left_out)
    path.parent.mkdir(parents=True, exist_ok=True)
    write(path, text.encode(), new=out is not None)
    return Report(path, left_out)


def _check_records(run: Run) -> None:
    """Raises what a run's records raise, and UntrustedCodeError for code that may not run, before anything takes time."""
    if run.environment and run.finished:
        _ = run.result
    try:
        run.task.check()
    except UntrustedCodeError:
        raise
    except CAUSES:  # the sections that need a part say what is wrong with it
        pass


def _lacking(run: Run) -> str | None:
    """Why there are no samples; None if there are."""
    try:
        _ = run.data
    except UntrustedCodeError:
        raise
    except CAUSES as error:
        return _why(error)
    return None


def _why(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _builders(
    run: Run, *, split: Literal["train", "validation", "test"] | None, **options: Any
) -> dict[str, Callable[[], Section | Sequence[Section]]]:
    """The sections, by the title that one has if it can't be made."""
    classifies = isinstance(run.task, Classification)
    answers = {"Answers": partial(classification, run, split=split, **options)}
    ahead = {"Forecasts": partial(forecasts, run, split=split, weights=options["weights"], device=options["device"])}
    return {
        "Summary": partial(summary, run),
        "Learning curves": lambda: curves(run.log, run.task.figures[0]),
        "Warnings": lambda: warned(run.log),
        **(answers if classifies else ahead),
        "Spiking and attention": partial(activity, run, split=split, weights=options["weights"]),
        "Energy": partial(energy, run, weights=options["weights"], device=options["device"]),
        "Data": partial(about_data, run),
        "Recipe": partial(recipe_of, run.recipe),
    }


def _with_warnings(build: Callable[[], Section | Sequence[Section]]) -> list[Section]:
    """The sections that are built, the last one with the library's warnings of it, which are also given on."""
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always", UserWarning)
        made = build()
    sections = [made] if isinstance(made, Section) else list(made)
    told = list(dict.fromkeys(" ".join(str(w.message).split()) for w in heard if issubclass(w.category, UserWarning)))
    for text in told:
        warnings.warn(text, stacklevel=3)
    if told:
        sections[-1] = Section(sections[-1].title, [*sections[-1].parts, *(f"Warning: {text}" for text in told)])
    return sections


def page(run: Run, sections: Sequence[Section], left_out: Sequence[str] = ()) -> str:
    """The page: these sections, and at its top what is to be known of them.

    Args:
        run: The run that they are of.
        sections: What they say; each title once.
        left_out: What could not be made, by why.
    """
    notices = [text for text in (state_of(run),) if text is not None]
    notices += [f"Left out: {text}" for text in left_out]
    template, style = _template()
    return template.render(
        title=run.recipe.name or run.folder.resolve().name,
        about=run.recipe.summary,
        notices=notices,
        sections=sections,
        footer=f"Report of the run {run.folder.resolve().name}, made by staa {__version__}.",
        style=style,
        policy=POLICY.format(digest=base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()),
    )


@cache
def _template() -> tuple[Any, str]:
    """(the page's template, its style sheet)"""
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    loader = PackageLoader("staa.analysis.report")
    env = Environment(
        loader=loader,
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: value if isinstance(value, Markup) else for_terminal(value),
    )
    env.filters |= {
        "anchor": lambda title: re.sub(r"\W+", "-", title.lower()).strip("-"),
        "grouped": _grouped,
        "numbers": _numbers,
        "uri": lambda picture: Markup(_uri(picture)),
        "size": lambda picture: Markup(
            "".join(f' {n}="{v}"' for n, v in zip(("width", "height"), _size(picture), strict=True))
        ),
    }
    env.tests["wide"] = lambda picture: _size(picture)[0] > WIDE
    style, _, _ = loader.get_source(env, "style.css")
    return env.get_template("page.html"), Markup(style)


def _grouped(parts: Sequence[Part]) -> Iterator[tuple[str, list[Part]]]:
    """(what they are, parts) of those that follow each other and are alike."""
    kinds = {Picture: "picture", Table: "table", Fold: "fold", str: "text"}
    for kind, some in groupby(parts, type):
        yield kinds[kind], list(some)


def _numbers(table: Table) -> set[int]:
    """The columns that hold numbers alone, but for the first."""
    return {
        k for k in range(1, len(table.header)) if table.rows and all(NUMBER.fullmatch(row[k].strip()) for row in table.rows)
    }


def _uri(picture: Picture) -> str:
    kind = "png" if picture.image.startswith(b"\x89PNG") else "svg+xml"
    return f"data:image/{kind};base64,{base64.b64encode(picture.image).decode()}"


def _size(picture: Picture) -> tuple[int, int]:
    """Width and height in pixels, which keep its place until it is drawn."""
    if picture.image.startswith(b"\x89PNG"):
        width, height = struct.unpack(">II", picture.image[16:24])
        return width, height
    found = re.search(rb'<svg[^>]*? viewBox="0 0 ([\d.]+) ([\d.]+)"', picture.image)
    if found is None:
        raise ValueError(f"a picture is a PNG, or an SVG with a viewBox; got {picture.image[:20]!r}")
    return round(float(found[1]) * 4 / 3), round(float(found[2]) * 4 / 3)  # points to pixels
