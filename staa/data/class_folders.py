"""Class folders: which files are in which part and class, whatever they hold."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from staa.counting import counted
from staa.data.content import as_it_is
from staa.data.splits import Labelled, hold_out, paths_in, some
from staa.files import check_no_file

TEST_SHARE = 0.1  # of the training files, if there is no test/
_whole: set[int] = set()  # hashes of looks at files that could be read: 1.3 million of ImageNet's stay small
SPLITS = {"training", "val", "valid", "validation", "test", "testing"}


def class_folders(
    root: Path,
    *,
    endings: tuple[str, ...],
    what: str,
    validation: float,
    corrupt: Literal["refuse", "skip", "unchecked"],
    problems: Callable[[list[str]], dict[str, str]],
    look: Callable[[str], object] = as_it_is,
    val_is_test: bool = False,
    test_share: float = TEST_SHARE,
    annotated: Callable[[Path], Labelled | None] = lambda _: None,
    strays: Callable[[list[str]], list[str]] = lambda _: [],
) -> tuple[dict[str, Labelled], list[str]]:
    """The files of "train", "test" and, if there is one, "val", by class; and what the user should hear about them.

        root/train/CLASS/…  root/val/CLASS/…  root/test/CLASS/…        or        root/CLASS/…

    Files (`what` they hold, for messages) may lie at any depth under their class; names starting with a dot, links to
    folders there, and files without one of the endings, are left out. Without test/, a tenth of the training files are
    the test set, and without val/ a share `validation` of the others is held out, both stratified and chosen by a hash of
    their paths, at least as many files as classes: neither depends on the other. val_is_test: val/ is the test set; test/ is
    not looked at. annotated: tells a part's classes if they are written down. strays: which of a class's files are none of the
    data; they are left out, and told.

    problems: path -> problem, of the files that can't be read. They are refused, or skipped and counted; corrupt =
    "unchecked" does not look. look: as for `readable`. Raises FileNotFoundError if there is no folder, ValueError for one
    without files or classes, a class without files, one that validation or test lacks or has alone, folders that look like
    other parts, and files that are refused.
    """
    at = _parts(root, val_is_test=val_is_test)
    parts = {name: annotated(folder) or _classes(folder, endings, what) for name, folder in at.items()}
    beside = [f for f in _folders(root) if at["train"] != root and f not in ("train", "val", "test")]
    notes = [f"folders beside train/ that are left out: {some(beside)}"] if beside else []
    if stray := {file for part in parts.values() for files in part.values() for file in strays(files)}:
        parts = {p: {c: [f for f in files if f not in stray] for c, files in part.items()} for p, part in parts.items()}
        notes.append(f"files that are no {what} are left out: {some(sorted(stray))}")
    parts, left_out = readable(parts, problems, corrupt, root, what, look=look)
    for name, part in parts.items():
        empty = [c for c, files in part.items() if not files]
        if empty:
            raise ValueError(f"class {some(empty)} has no {what} in {at[name]}: add some, or remove the folder")
    train = parts.pop("train")
    names = list(train)
    if len(names) < 2:
        raise ValueError(f"{root} must hold at least two class folders with {what} in them, got {len(names)}: {some(names)}")
    for name, part in parts.items():
        if part.keys() != train.keys():
            lacking, alone = [c for c in train if c not in part], [c for c in part if c not in train]
            text = f"has no {what} of class {some(lacking)}" if lacking else f"has class {some(alone)}, which train/ lacks"
            raise ValueError(f"{name}/ of {root} {text}; it must have the same {len(names)} classes as train/")
    for name, share in (("test", test_share), ("val", validation)):
        if name not in parts and share:
            parts[name], train = hold_out(train, share, name, root, what)
    return {"train": train, **parts}, notes + left_out


def readable(
    parts: dict[str, Labelled],
    problems: Callable[[list[str]], dict[str, str]],
    corrupt: Literal["refuse", "skip", "unchecked"],
    root: Path,
    what: str,
    *,
    look: Callable[[str], object] = as_it_is,
) -> tuple[dict[str, Labelled], list[str]]:
    """The parts without files that can't be read, and a note of them. Raises ValueError if they are refused.

    look: path -> what the look at it goes by, None if it must be looked at each time. What was found whole is not looked at
    again in this process while that is the same, so that several seeds and recipes share one look.
    """
    if corrupt == "unchecked":
        return parts, []
    looks = {path: look(path) for path in paths_in(parts)}
    broken = problems([path for path, about in looks.items() if about is None or hash(about) not in _whole])
    _whole.update(hash(about) for path, about in looks.items() if about is not None and path not in broken)
    if broken and corrupt == "refuse":
        raise ValueError(
            f"{len(broken)} of the {what} under {root} can't be read: {some(list(broken))} ({next(iter(broken.values()))}); "
            f"repair or remove them, or skip them with `data.corrupt=skip`"
        )
    notes = [f"{len(broken)} {what} that can't be read are left out: {some(list(broken))}"] if broken else []
    return {p: {c: [f for f in fs if f not in broken] for c, fs in part.items()} for p, part in parts.items()}, notes


def _parts(root: Path, *, val_is_test: bool) -> dict[str, Path]:
    """The parts that have a folder: "train" and, if there are any, "val" and "test"; a class may be called train."""
    if not root.is_dir():
        check_no_file(root, "train/, or the class folders")
        raise FileNotFoundError(
            f"{root} does not exist: `data_root` must be the folder that holds train/, or the class folders"
        )
    folders = {name: root / name for name in ("train", "val", "test") if (root / name).is_dir()}
    if "train" not in folders or not _folders(folders["train"]):  # or train/ is itself a class among others
        folders = {"train": root}
    odd = [
        str(at / f)
        for at in sorted({root, folders["train"]})
        for f in _folders(at)
        if f.lower() in SPLITS and at / f not in folders.values()
    ]
    if odd:
        raise ValueError(
            f"{some(odd)}: named as a part of the data, but not in the place of one; expected train/ (and val/, "
            f"test/) with class folders in them, or class folders alone: rename or move it"
        )
    if val_is_test:
        if "val" not in folders:
            raise FileNotFoundError(f"{root / 'val'} does not exist: this data set is tested on it; expected train/ and val/")
        folders = {"train": folders["train"], "test": folders["val"]}
    return folders


def _classes(folder: Path, endings: tuple[str, ...], what: str) -> Labelled:
    """The files of each class folder, sorted. Raises ValueError if there is none."""
    classes = _folders(folder)
    found = {c: sorted(files_in(folder / c, endings)) for c in counted(classes, "listing class folders", len(classes))}
    if not any(found.values()):
        loose = sum(_fits(entry.name, endings) for entry in os.scandir(folder))
        text = f"{loose} {what} but no class folders: sort them into a folder for each class" if loose else f"no {what}"
        raise ValueError(
            f"{folder} holds {text} (expected {folder}/CLASS/*{endings[0]}, or files that end in {', '.join(endings)})"
        )
    return found


def _folders(folder: Path) -> list[str]:
    return sorted(entry.name for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith("."))


def files_in(folder: Path, endings: tuple[str, ...] = ("",)) -> list[str]:
    """Paths of the files under a folder that end so, in no order; names that start with a dot are left out."""
    found = []
    for at, below, files in os.walk(folder):
        below[:] = [f for f in below if not f.startswith(".")]
        found += [p for f in files if _fits(f, endings) and not _is_special(p := os.path.join(at, f))]
    return found


def _fits(name: str, endings: tuple[str, ...]) -> bool:
    return name.lower().endswith(endings) and not name.startswith(".")


def _is_special(path: str) -> bool:
    """A pipe, a socket, a device: reading one could wait for ever. A link that points nowhere is a file that can't be read."""
    return os.path.exists(path) and not os.path.isfile(path)
