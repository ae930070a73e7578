"""How answers of a classifier are shown, and written to files."""

import csv
import io
import json
import math
from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from rich.cells import cell_len
from rich.table import Table

from staa.analysis.figures import percent
from staa.analysis.predictions import ByClass, Predictions, by_class, calibration, confusion, top
from staa.cli.text import fitted, say, show
from staa.files import save_text
from staa.runs.classify import Answer, Refused, settled_at
from staa.text import for_csv, for_terminal

WHOLE = 20  # classes at most whose confusion matrix is shown
WORST = 10  # classes and confusions that are named, if there are more
NEXT = 5  # classes after the likeliest that are shown of an input; a CSV file has all
LIKELIEST = 5  # classes in a CSV file, and of the figure beside accuracy
FIGURES = ("samples", "accuracy", "precision")
SHORT = 4  # characters of a name that can stand above a column of counts


def show_answers(answers: Sequence[Answer]) -> None:
    """Print a table: input, class, probability, the next classes, steps and the one at which the class settled."""
    headers, rows = ("input", "class", "probability", "next", "steps", "settled at"), []
    for answer in answers:
        following = ", ".join(f"{name} {percent(share)}" for name, share in answer.top[1 : NEXT + 1])
        following += f" and {len(answer.top) - 1 - NEXT} more" * (len(answer.top) - 1 > NEXT)
        rows.append([answer.input, answer.label, percent(answer.probability), following, *map(str, answer[-2:])])
    columns = fitted(dict(zip(headers, zip(*rows, strict=True), strict=True)), cut=("input", "class", "next"))
    _show_whole(headers, list(zip(*columns.values(), strict=True)), left=("input", "class", "next"))


def write_answers(answers: Sequence[Answer], path: Path) -> None:
    """A row for each input: input, class, probability, steps, settled, then the next classes and their probabilities."""
    count = max((len(answer.top) for answer in answers), default=1)
    header = ["input", "class", "probability", "steps", "settled", *_ranked(range(2, count + 1))]
    _write_csv(path, header, ([one.input, *one.top[0], one.steps, one.settled, *chain(*one.top[1:])] for one in answers))


def write_json(of: Path, answers: Sequence[Answer], refused: Sequence[Refused], path: Path) -> None:
    """{"run", "answers": [{"input", "top": [{"class", "probability"}], "steps", "settled"}], "refused": [{"input", "why"}]}"""
    told = [
        {
            "input": answer.input, "top": [{"class": name, "probability": share} for name, share in answer.top],
            "steps": answer.steps, "settled": answer.settled,
        }
        for answer in answers
    ]  # fmt: skip
    not_taken = [{"input": one.input, "why": str(one.error)} for one in refused]
    save_text(path, json.dumps({"run": str(of), "answers": told, "refused": not_taken}, indent=2) + "\n", new=True)


def show_predictions(p: Predictions) -> None:
    """Print top-5, calibration, figures by class and who is taken for whom."""
    told, classes = calibration(p), len(p.names)
    sure = float(p.probabilities.amax(1).double().mean())
    often = f"top-{LIKELIEST} accuracy {percent(top(p, LIKELIEST), 2)}, " if classes > LIKELIEST else ""
    confident = f"sure by {percent(sure)} in the mean, right in {percent(p.accuracy)}"
    say(f"{often}calibration error (ECE) {percent(told.ece, 2)}: {confident}")
    if classes <= WHOLE:
        _show_matrix(p)
    else:
        _show_worst(p)


def _show_matrix(p: Predictions) -> None:
    figures, counts = by_class(p), confusion(p).tolist()
    short = all(len(for_terminal(name)) <= SHORT for name in p.names)
    heads = p.names if short else [str(c) for c in range(1, len(p.names) + 1)]
    rows = [
        [name if short else f"{c + 1} {name}", *_told(figures, c), "", *(count or "·" for count in counts[c])]
        for c, name in enumerate(p.names)
    ]
    say("a row for each class, and how many of its samples are taken for which:")
    _show_whole(("class", *FIGURES, "", *heads), rows, left=("class",))


def _show_worst(p: Predictions) -> None:
    figures, wrong, rows = by_class(p), confusion(p).fill_diagonal_(0), []
    for c in figures.accuracy.nan_to_num(math.inf).argsort(stable=True)[:WORST].tolist():
        other = int(wrong[c].argmax())
        rows.append([p.names[c], *_told(figures, c), f"{p.names[other]} ({wrong[c, other]})" if wrong[c, other] else ""])
    say(f"the {len(rows)} classes of the lowest accuracy, of {len(p.names)}:")
    _show_whole(("class", *FIGURES, "most often taken for"), rows, left=("class", "most often taken for"))
    most = wrong.flatten().topk(WORST)
    pairs = [(divmod(at, len(p.names)), n) for n, at in zip(*(x.tolist() for x in most), strict=True) if n]
    if pairs:
        say("most common confusions: " + ", ".join(f"{p.names[a]} taken for {p.names[b]} ({n})" for (a, b), n in pairs))


def _told(figures: ByClass, c: int) -> list[str]:
    shares = (float(values[c]) for values in (figures.accuracy, figures.precision))
    return [str(int(figures.support[c])), *("" if math.isnan(share) else percent(share) for share in shares)]


def _show_whole(headers: Sequence[str], rows: Sequence[Sequence[object]], *, left: Sequence[str]) -> None:
    """Print a table whose cells are never cut; columns are flush right but for those named."""
    table = Table(box=None, pad_edge=False)
    for header in headers:
        table.add_column(for_terminal(header), justify="left" if header in left else "right", no_wrap=True)
    columns = zip(headers, *rows, strict=True)
    show(table, rows, narrowest=sum(max(cell_len(for_terminal(cell)) for cell in column) + 2 for column in columns))


def write_predictions(p: Predictions, path: Path) -> None:
    """A row for each sample: its number from 0, its file if it has one, the right class, the predicted one, whether that is
    right (1 or 0), its probability and the right class's, the step from which on it led, and the next classes."""
    count = min(LIKELIEST, len(p.names))
    shares, order = p.probabilities.topk(count, 1)
    own = p.probabilities.gather(1, p.labels[:, None])[:, 0]
    settled = settled_at(p.by_step)
    files = (lambda i: []) if p.files is None else (lambda i, names=p.files: [names[i]])
    header = [
        "sample", *["file"] * (p.files is not None), "label", "prediction", "correct", "probability", "of the label", "settled",
        *_ranked(range(2, count + 1)),
    ]  # fmt: skip

    def rows() -> Iterable[list[Any]]:
        columns = (p.labels, p.predicted, p.correct.int(), shares[:, 0], own, settled, order[:, 1:], shares[:, 1:])
        for i, row in enumerate(zip(*columns, strict=True)):
            label, made, right, share, of_label, at, others, theirs = (values.tolist() for values in row)
            following = chain(*((p.names[c], s) for c, s in zip(others, theirs, strict=True)))
            yield [i, *files(i), p.names[label], p.names[made], right, share, of_label, at, *following]

    _write_csv(path, header, rows())


def _ranked(places: Iterable[int]) -> list[str]:
    return [f"{what} {place}" for place in places for what in ("class", "probability")]


def _write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Numbers as they are; texts as `staa.text.for_csv` has them."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(map(for_csv, header))
    for row in rows:
        writer.writerow([f"{cell:.6g}" if isinstance(cell, float) else for_csv(cell) for cell in row])
    save_text(path, text.getvalue(), new=True)
