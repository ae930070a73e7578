"""Which samples and files are in which part: chosen by hashes, so that it depends on nothing else."""

import hashlib
import os
import re
from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path

import torch
from torch import Tensor

Labelled = dict[str, list[str]]
"""class -> paths of its files"""

NAMED = 5  # files or classes in a message


def split_by_hash(
    labels: Tensor, count: int, salt: str, among: Tensor | None = None, names: Sequence[str] | None = None
) -> tuple[Tensor, Tensor]:
    """Choose some samples, stratified, by a hash: no random state, so the choice is the same on every machine.

    Each class gives its share (largest remainders first) of the samples with the smallest sha256("salt/key").

    Args:
        labels: The class of each sample.
        count: How many to choose, from 0 to all.
        salt: Text that makes one choice differ from another.
        among: Indices of the samples to choose among; None: all.
        names: The key of each sample; None: its index.

    Shapes:
        labels [N], among [M], names [N] -> (chosen [count], others [M - count]), sorted indices

    Raises:
        ValueError: If count is below 0, or above the number of samples to choose among.
    """
    among = torch.arange(len(labels)) if among is None else among
    if not 0 <= count <= len(among):
        raise ValueError(f"count must be from 0 to the {len(among)} samples to choose among, got {count}")
    keys: Sequence[object] = range(len(labels)) if names is None else names
    rank = {i: hashlib.sha256(f"{salt}/{keys[i]}".encode(errors="surrogateescape")).digest() for i in among.tolist()}
    classes = sorted(set(labels[among].tolist()))
    members = {c: sorted(among[labels[among] == c].tolist(), key=rank.__getitem__) for c in classes}
    share = {c: count * len(m) / len(among) for c, m in members.items()}
    take = {c: int(share[c]) for c in classes}
    for c in sorted(classes, key=lambda c: take[c] - share[c])[: count - sum(take.values())]:
        take[c] += 1
    chosen = sorted(i for c in classes for i in members[c][: take[c]])
    others = sorted(i for c in classes for i in members[c][take[c] :])
    return torch.tensor(chosen, dtype=torch.long), torch.tensor(others, dtype=torch.long)


def split_digest(**parts: Tensor) -> str:
    """sha256 of which indices are in which part: two runs with the same digest saw the same split."""
    digest = hashlib.sha256()
    for name, indices in parts.items():
        digest.update(f"{name} {len(indices)} ".encode() + indices.to(torch.int64).numpy().tobytes())
    return digest.hexdigest()


def files_and_labels(part: Labelled, names: Sequence[str]) -> tuple[list[str], Tensor]:
    """A part's files, class by class, and their labels, numbered as in names."""
    labels = torch.repeat_interleave(torch.tensor([len(part[c]) for c in names]))
    return list(chain.from_iterable(part[c] for c in names)), labels


def paths_in(parts: dict[str, Labelled]) -> list[str]:
    """The files of all parts."""
    return [file for part in parts.values() for files in part.values() for file in files]


def chosen_share(part: Labelled, share: float, salt: str, root: Path) -> tuple[Labelled, Labelled]:
    """(a share of the files, the others): stratified, by a hash of their paths under root; at least as many as classes."""
    names = list(part)
    files, labels = files_and_labels(part, names)
    paths = [os.path.relpath(f, root) for f in files]
    chosen, others = split_by_hash(labels, max(round(share * len(files)), len(names)), salt, names=paths)
    pick = lambda indices: {c: [files[i] for i in indices[labels[indices] == k].tolist()] for k, c in enumerate(names)}  # noqa: E731
    return pick(chosen), pick(others)


def digest(root: Path, parts: dict[str, Labelled]) -> str:
    """sha256 of which file, by its path under root, is in which part and class."""
    found = hashlib.sha256()
    for name in sorted(parts):
        for c, files in parts[name].items():
            found.update("\n".join([name, c, *(os.path.relpath(f, root) for f in files), ""]).encode(errors="surrogateescape"))
    return found.hexdigest()


def some(names: list[str]) -> str:
    """The first few, and how many more."""
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more


def hold_out(train: Labelled, share: float, name: str, root: Path, what: str) -> tuple[Labelled, Labelled]:
    """A stratified share of the training files: (held out, the rest). Raises ValueError if a class would be missing."""
    held_out, kept = chosen_share(train, share, f"folder {name}", root)
    few = [c for c in train if not held_out[c] or not kept[c]]
    if few:
        count = sum(map(len, train.values()))
        raise ValueError(
            f"{root} has no {name}/ folder, and {share:.0%} of its {count} {what} are too few to give each class {what} both "
            f"there and in training: class {some(few)} has none in one of them; add {what}, or make a {name}/ folder"
        )
    return held_out, kept


def with_validation(train: Labelled, share: float, salt: str, root: Path) -> dict[str, Labelled]:
    """A stratified share held out by a hash of the paths: {"train", and "val" if the share is not 0}."""
    if not share:
        return {"train": train}
    held_out, rest = chosen_share(train, share, salt, root)
    return {"train": rest, "val": held_out}


def fold_of(split: str) -> tuple[int, int] | None:
    """(k, n) of "fold-K-of-N", k from 0; None for another name."""
    found = re.fullmatch(r"fold-(\d{1,3})-of-(\d{1,3})", split)
    if not found or not 1 <= int(found[1]) <= int(found[2]) or int(found[2]) < 2:
        return None
    return int(found[1]) - 1, int(found[2])


def unknown_split(split: str, names: Iterable[str] = ()) -> str:
    """What to say of a name that is neither a fold nor one of these."""
    known = ", ".join((*names, "fold-1-of-5 … fold-5-of-5 and other numbers of folds"))
    return f"unknown split {split!r}; known: {known}"


def named_split(found: Labelled, split: str, validation: float, root: Path, names: tuple[str, ...] = ()) -> dict[str, Labelled]:
    """Parts by the name of a split: a fold, or one of names; see `cifar10dvs`. Raises ValueError for another one."""
    fold = fold_of(split)
    if fold is None and split not in names:
        raise ValueError(unknown_split(split, names))
    if fold is not None:
        k, n = fold
        order = {
            c: sorted(f, key=lambda x: hashlib.sha256(f"fold {os.path.relpath(x, root)}".encode()).digest())
            for c, f in found.items()
        }
        test = {c: sorted(files[k::n]) for c, files in order.items()}
        out = {f for files in test.values() for f in files}
        train = {c: [f for f in files if f not in out] for c, files in found.items()}
    elif split == "first-90":
        tenth = {c: len(files) * 9 // 10 for c, files in found.items()}
        train, test = ({c: f[: tenth[c]] for c, f in found.items()}, {c: f[tenth[c] :] for c, f in found.items()})
    else:
        test, train = chosen_share(found, 0.1, "test", root)
        if split == "train-val-test":
            if validation != 0.1:
                raise ValueError(
                    f"the split train-val-test holds out a tenth for validation: data.validation must be 0.1, got {validation}"
                )
            validation = 1 / 9  # of the other nine tenths
    parts = with_validation(train, validation, "validation", root) | {"test": test}
    for name, part in parts.items():
        empty = [c for c, files in part.items() if not files]
        if empty:
            raise ValueError(
                f"the split {split} leaves class {some(empty)} without recordings in {name}: add recordings, or take another "
                f"split"
            )
    return parts
