"""A table of samples, each an interval of a recording: which are of which class, and in which part."""

import csv
import hashlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from staa.data.events.recording import LARGEST, SAID, TICKS
from staa.data.splits import Labelled, fold_of, some, unknown_split
from staa.files import read_text

TABLE = "samples.csv"
PARTS = ("train", "val", "test")
SHOWN = 9  # problems in a message
MOST = 1_000_000  # samples


class Sample(NamedTuple):
    """An interval of a file, "PATH#START-END" in µs; the file's path under the table's folder; class; part if it is said."""

    recording: str
    file: str
    label: str
    part: str | None


def read_samples(folder: Path, endings: tuple[str, ...]) -> list[Sample]:
    """The rows of folder/samples.csv: columns file, start, end, class, and part if the table says it.

    start and end are in µs, whole numbers, or, called start_s and end_s or start_ms and end_ms, in these units; a sample has
    the events from start to before end, in the recording's own time. endings: of files that can be read.

    Raises ValueError that names every line that is wrong, and for a file whose samples are in several parts.
    """
    path = folder / TABLE
    try:
        rows = csv.DictReader(read_text(path).splitlines(), strict=True, skipinitialspace=True)
        names = [name.strip() for name in rows.fieldnames or ()]
        rows.fieldnames = names
        unit = _unit(names, path)
        start, end = (name if unit == "us" and name in names else f"{name}_{unit}" for name in ("start", "end"))
        found, wrong, lines, part_of, places = [], [], {}, {}, {}
        for row in rows:
            problem, line = None, rows.line_num
            if len(found) + len(wrong) == MOST:
                raise ValueError(f"{path} has more than {MOST:,} samples: cut it into several data sets")
            try:
                sample = _sample(row, folder, endings, start, end, TICKS[unit], places)
                if sample.recording in lines:
                    problem = f"the same interval as line {lines[sample.recording]}"
                elif part_of.setdefault(sample.file, (sample.part, line))[0] != sample.part:
                    part, first = part_of[sample.file]
                    problem = (
                        f"{sample.file} is in {sample.part}, but in {part} in line {first}: a recording must be in one part"
                    )
                lines[sample.recording] = line
                found.append(sample)
            except ValueError as error:
                problem = str(error)
            if problem is not None:
                wrong.append(f"line {line}: {problem}")
    except csv.Error as error:
        raise ValueError(f"{path} can't be read as a table: {error}") from error
    if wrong:
        more = f"; and {len(wrong) - SHOWN} more" if len(wrong) > SHOWN else ""
        raise ValueError(f"{path} has {len(wrong)} lines that are wrong: {'; '.join(wrong[:SHOWN])}{more}")
    if not found:
        raise ValueError(f"{path} has no samples: expected lines file,start,end,class below the first")
    return found


def parted(samples: list[Sample], split: str | None, validation: float, test_share: float, folder: Path) -> dict[str, Labelled]:
    """part -> class -> recordings. A file's samples are all in one part: the table's, else chosen by a hash of the file's path.

    split: "fold-1-of-5" and so on. Raises ValueError if a class would be missing from a part.
    """
    by_part: dict[str, list[Sample]] = {}
    if samples[0].part is not None:
        if split is not None:
            raise ValueError(f"`data.split={split}` needs a table without the column part: remove one of them")
        for sample in samples:
            by_part.setdefault(sample.part or "", []).append(sample)
        if missing := sorted({"train", "test"} - by_part.keys()):
            raise ValueError(f"{folder / TABLE} has no samples for {some(missing)} in its column part")
    elif split is not None:
        if (fold := fold_of(split)) is None:
            raise ValueError(unknown_split(split))
        k, n = fold
        files = _by_hash({sample.file for sample in samples}, "fold")
        out = set(files[k::n])
        by_part = {"train": [s for s in samples if s.file not in out], "test": [s for s in samples if s.file in out]}
    else:
        by_part["test"], by_part["train"] = _held_out(samples, test_share, "test", folder)
    if validation and "val" not in by_part:
        by_part["val"], by_part["train"] = _held_out(by_part["train"], validation, "val", folder)
    names = sorted({sample.label for sample in samples})
    parts = {
        part: {name: [s.recording for s in by_part[part] if s.label == name] for name in names}
        for part in PARTS
        if part in by_part
    }
    for part, classes in parts.items():
        if missing := [name for name in names if not classes[name]]:
            raise ValueError(_too_few(missing, part, folder))
    return parts


def _unit(names: list[str], path: Path) -> str:
    """The unit of the columns of times. Raises ValueError if a column is missing or there are others."""
    units = [unit for unit in TICKS if {f"start_{unit}", f"end_{unit}"} <= set(names)]
    units += ["us"] if {"start", "end"} <= set(names) else []
    others = set(names) - {"file", "class", "part"}
    if len(units) != 1 or not {"file", "class"} <= set(names) or len(others) != 2 or len(set(names)) != len(names):
        raise ValueError(
            f"{path} has columns {', '.join(name[:SAID] for name in names[:9]) or 'without names'}: expected file, start, end, "
            f"class (times in µs), or file, start_s, end_s, class, and part if need be"
        )
    return units[0]


def _sample(
    row: dict, folder: Path, endings: tuple[str, ...], start: str, end: str, tick: int, places: dict[str, str]
) -> Sample:
    """places: by what files are called in the table so far, which they are."""
    if None in row or None in row.values():
        raise ValueError("it has more or fewer fields than the first line")
    row = {key: value.strip() for key, value in row.items()}
    file, label, part = row["file"], row["class"], row.get("part")
    if not file or os.path.isabs(file) or ".." in Path(file).parts:
        raise ValueError(f"file {file[:SAID]!r} must be a path under the table's folder")
    if not file.lower().endswith(endings):
        raise ValueError(f"file {file[:SAID]!r} must end in one of {', '.join(endings)}")
    if file not in places:
        if not (folder / file).is_file():
            raise ValueError(f"file {file[:SAID]!r} is not there")
        places[file] = os.path.relpath(os.path.realpath(folder / file), os.path.realpath(folder))
    if not label:
        raise ValueError("it has no class")
    if part is not None and part not in PARTS:
        raise ValueError(f"part must be train, val or test, got {part[:SAID]!r}")
    begin, stop = (_time(row[name], name, tick) for name in (start, end))
    if begin >= stop:
        raise ValueError(f"{start} must be before {end}, got {row[start]} and {row[end]}")
    return Sample(f"{folder / file}#{begin}-{stop}", places[file], label, part)


def _time(text: str, name: str, tick: int) -> int:
    """A time in µs."""
    try:
        if "_" in text or not text.isascii():  # which Python takes in numbers
            raise ValueError
        value = float(text) * tick if tick > 1 else int(text)
    except ValueError as error:
        hint = " (of times in seconds call the columns start_s and end_s)" if tick == 1 else ""
        raise ValueError(f"{name} must be a {'whole ' if tick == 1 else ''}number, got {text[:SAID]!r}{hint}") from error
    if not 0 <= value <= LARGEST:  # nor is NaN
        raise ValueError(f"{name} must be from 0 to 2**62 µs, got {text[:SAID]!r}")
    return round(value)


def _by_hash(files: Iterable[str], salt: str) -> list[str]:
    return sorted(files, key=lambda file: hashlib.sha256(f"{salt} {file}".encode(errors="surrogateescape")).digest())


def _held_out(samples: list[Sample], share: float, part: str, folder: Path) -> tuple[list[Sample], list[Sample]]:
    """Whole files that hold a share of the samples, at least one of each class, and the others, which keep one of each."""
    held: dict[str, list[str]] = {}
    for sample in samples:
        held.setdefault(sample.file, []).append(sample.label)
    left = {label: sum(label in labels for labels in held.values()) for label in {s.label for s in samples}}
    missing, count, chosen = set(left), 0, set()
    for needed in (True, False):  # what a class lacks first
        for file in _by_hash(held, f"samples {part}"):
            labels = set(held[file])
            wanted = labels & missing if needed else count + len(held[file]) / 2 < share * len(samples)
            if file not in chosen and wanted and all(left[label] > 1 for label in labels):
                chosen.add(file)
                count += len(held[file])
                missing -= labels
                left.update({label: left[label] - 1 for label in labels})
    if missing:
        raise ValueError(_too_few(sorted(missing), part, folder))
    return [s for s in samples if s.file in chosen], [s for s in samples if s.file not in chosen]


def _too_few(labels: list[str], part: str, folder: Path) -> str:
    return (
        f"{folder / TABLE}: class {some(labels)} is in too few recordings to be in {part} and in the other parts, which must "
        f"not share a recording: add recordings, or say the part of each in a column part (train, val or test)"
    )
