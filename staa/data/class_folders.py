"""Class folders: which files are in which part and class, whatever they hold."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from staa.counting import counted
from staa.data.splits import Labelled, hold_out, paths_in, some

TEST_SHARE = 0.1  # of the training files, where there is no test/
SPLITS = {"training", "val", "valid", "validation", "test", "testing"}


def class_folders(
    root: Path,
    *,
    endings: tuple[str, ...],
    what: str,
    validation: float,
    corrupt: Literal["refuse", "skip", "unchecked"],
    problems: Callable[[list[str]], dict[str, str]],
    val_is_test: bool = False,
    test_share: float = TEST_SHARE,
    annotated: Callable[[Path], Labelled | None] = lambda _: None,
) -> tuple[dict[str, Labelled], list[str]]:
    """The files of "train", "test" and, where there is one, "val", by class; and what the user should hear about them.

        root/train/CLASS/…  root/val/CLASS/…  root/test/CLASS/…        or        root/CLASS/…

    Files (`what` they hold, for messages) may lie at any depth under their class; names starting with a dot, links to
    folders there, and files without one of the endings, are left out. Without test/, a tenth of the training files are
    the test set, and without val/ a share `validation` of the others is held out, both stratified and chosen by a hash of
    their paths, at least as many files as classes: neither depends on the other. val_is_test: val/ is the test set; test/ is
    not looked at. annotated: tells a part's classes where they are written down.

    problems: path -> problem, of those files that can't be read. They are refused, or skipped and counted; corrupt =
    "unchecked" does not look. Raises FileNotFoundError where there is no folder, ValueError for one without files or
    classes, a class without files, one that validation or test lacks or has alone, folders that look like other parts,
    and files that are refused.
    """
    at = _parts(root, val_is_test=val_is_test)
    parts = {name: annotated(folder) or _classes(folder, endings, what) for name, folder in at.items()}
    beside = [f for f in _folders(root) if at["train"] != root and f not in ("train", "val", "test")]
    notes = [f"folders beside train/ that are left out: {some(beside)}"] if beside else []
    parts, left_out = readable(parts, problems, corrupt, root, what)
    for name, part in parts.items():
        empty = [c for c, files in part.items() if not files]
        if empty:
            raise ValueError(f"no {what} for class {some(empty)} in {at[name]}: remove the class's folder or fill it")
    train = parts.pop("train")
    names = list(train)
    if len(names) < 2:
        raise ValueError(f"expected at least two classes under {root}, got {names}: one folder for each class, {what} within")
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
) -> tuple[dict[str, Labelled], list[str]]:
    """The parts without files that can't be read, and a note of them. Raises ValueError where they are refused."""
    if corrupt == "unchecked":
        return parts, []
    broken = problems(paths_in(parts))
    if broken and corrupt == "refuse":
        raise ValueError(
            f"{len(broken)} of the {what} under {root} can't be read: {some(list(broken))} ({next(iter(broken.values()))}); "
            f"mend or remove them, or leave them out (`data.corrupt=skip`)"
        )
    notes = [f"{len(broken)} {what} that can't be read are left out: {some(list(broken))}"] if broken else []
    return {p: {c: [f for f in fs if f not in broken] for c, fs in part.items()} for p, part in parts.items()}, notes


def _parts(root: Path, *, val_is_test: bool) -> dict[str, Path]:
    """The parts that have a folder: "train" and, where there are any, "val" and "test"; a class may be called train."""
    if not root.is_dir():
        raise FileNotFoundError(f"no folder {root}: `data_root` is the folder that holds train/, or the class folders")
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
            f"{some(odd)}: not a class by its name, and not a part of the data where it stands; expected train/ (and val/, "
            f"test/) with class folders in them, or class folders alone: rename or move it"
        )
    if val_is_test:
        if "val" not in folders:
            raise FileNotFoundError(f"no folder {root / 'val'}: this data set is measured on it; expected train/ and val/")
        folders = {"train": folders["train"], "test": folders["val"]}
    return folders


def _classes(folder: Path, endings: tuple[str, ...], what: str) -> Labelled:
    """The files of each class folder, sorted. Raises ValueError where there is none."""
    classes = _folders(folder)
    found = {c: sorted(_files(folder / c, endings)) for c in counted(classes, "listing class folders", len(classes))}
    if not any(found.values()):
        loose = sum(_fits(entry.name, endings) for entry in os.scandir(folder))
        text = f"{loose} {what} but no class folders: sort them into one for each class" if loose else f"no {what}"
        raise ValueError(f"{folder} holds {text} (expected {folder}/CLASS/*{endings[0]} or another of {', '.join(endings)})")
    return found


def _folders(folder: Path) -> list[str]:
    return sorted(entry.name for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith("."))


def _files(folder: Path, endings: tuple[str, ...]) -> list[str]:
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
