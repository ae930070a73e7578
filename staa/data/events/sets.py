"""Event-camera data sets: recordings on disk, binned once, kept as frames beside them.

Of every data set both layouts are read: the authors' own files, and those that tonic downloads. Frames are the counts of
`staa.data.events.frames`, channel 0 OFF and channel 1 ON.
"""

import csv
import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

from staa.data.events.cache import Frames
from staa.data.events.folder import Corrupt, event_files, event_source
from staa.data.events.frames import Values
from staa.data.events.published import CIFAR_CLASSES, PUBLISHED
from staa.data.events.recording import LARGEST
from staa.data.source import Source
from staa.data.splits import Labelled, named_split, some, with_validation
from staa.files import read_bytes

SENSORS = {"nmnist": "34x34", "cifar10dvs": "128x128", "dvsgesture": "128x128"}
GESTURES = (
    "hand_clapping", "right_hand_wave", "left_hand_wave", "right_arm_clockwise", "right_arm_counter_clockwise",
    "left_arm_clockwise", "left_arm_counter_clockwise", "arm_roll", "air_drums", "air_guitar", "other_gestures",
)  # fmt: skip


def nmnist(
    *,
    root: Path,
    validation: float,
    steps: int | None,
    size: int | None = None,
    frames: Frames = "number",
    window: float | None = None,
    values: Values = "sum",
    split: str | None = None,
    corrupt: Corrupt = "refuse",
) -> Source:
    """N-MNIST (Orchard et al. 2015): root/NMNIST/{Train,Test}/DIGIT/*.bin, 34 × 34, 60,000 + 10,000 recordings of about 0.3 s.

    split: None for the official parts, or "fold-1-of-5" and so on over all recordings. The other arguments are those of
    `event_folder`; validation is held out of the training part by a hash.
    """
    folder, found = _nmnist_in(root)
    if split is None:
        parts = with_validation(found["Train"], validation, "nmnist validation", folder) | {"test": found["Test"]}
    else:
        parts = named_split({c: found["Train"][c] + found["Test"][c] for c in found["Train"]}, split, validation, folder)
    count = sum(len(f) for part in found.values() for f in part.values())
    notes = [] if count == PUBLISHED["nmnist"] else [f"{count} of the {PUBLISHED['nmnist']:,} recordings are there"]
    files = event_files(folder, steps=steps, frames=frames, window=window, size=size, sensor=SENSORS["nmnist"])
    return event_source(files, folder, parts, values, notes, corrupt)


def cifar10dvs(
    *,
    root: Path,
    validation: float,
    steps: int | None,
    size: int | None = None,
    frames: Frames = "number",
    window: float | None = None,
    values: Values = "sum",
    split: str | None = None,
    corrupt: Corrupt = "refuse",
) -> Source:
    """CIFAR10-DVS (Li et al. 2017): root/CIFAR10DVS/CLASS/*.aedat4 (tonic) or *.aedat (the authors'), 128 × 128, 1000 a class.

    There is no official split. split: "first-90" (None), the first nine tenths of each class to train, in the order of the
    number in the file's name, as most papers have it (they leave the order to the file system); "stratified", a tenth of each
    class to test, chosen by a hash; "train-val-test", tenths for validation and test by a hash, which data.validation must
    say too (0.1); or "fold-1-of-5" and so on. The other arguments are those of `event_folder`.
    """
    folder, found = _cifar10dvs_in(root)
    endings = {Path(f).suffix for files in found.values() for f in files}
    if len(endings) > 1:
        raise ValueError(f"{folder} holds both .aedat and .aedat4 files, the same recordings twice: keep one kind")
    parts = named_split(found, split or "first-90", validation, folder, ("first-90", "stratified", "train-val-test"))
    odd = [f"{c} {len(files)}" for c, files in found.items() if len(files) != 1000]
    notes = [f"not 1000 recordings of every class: {some(odd)}"] if odd else []
    files = event_files(folder, steps=steps, frames=frames, window=window, size=size, sensor=SENSORS["cifar10dvs"])
    return event_source(files, folder, parts, values, notes, corrupt)


def dvsgesture(
    *,
    root: Path,
    validation: float,
    steps: int | None,
    size: int | None = None,
    frames: Frames = "number",
    window: float | None = None,
    values: Values = "sum",
    corrupt: Corrupt = "refuse",
) -> Source:
    """DVS128 Gesture (Amir et al. 2017), 128 × 128, 11 classes; 23 users train, 6 test. Validation holds out whole users.

    root/DVSGesture/ibmGestureTrain/USER_LIGHT/CLASS.npy and ibmGestureTest/… (tonic), or root/DvsGesture/trials_to_train.txt,
    trials_to_test.txt, USER_LIGHT.aedat and USER_LIGHT_labels.csv (the authors'), whose rows say which interval of the
    file is of which class, from 1. The arguments are those of `event_folder`.
    """
    folder, found = _dvsgesture_in(root)
    twice = sorted(found["train"].keys() & found["test"].keys())
    if twice:
        raise ValueError(f"{some(twice)}: both to train and to test; a user belongs in one of the two lists")
    count = sum(map(len, found.values()))
    notes = [] if count == PUBLISHED["dvsgesture"] else [f"{count} of the {PUBLISHED['dvsgesture']:,} recordings are there"]
    if validation:
        users = sorted({_user(f) for f in found["train"]}, key=lambda u: hashlib.sha256(f"dvsgesture {u}".encode()).digest())
        chosen = set(users[: max(1, round(validation * len(users)))])
        found["val"] = {f: c for f, c in found["train"].items() if _user(f) in chosen}
        found["train"] = {f: c for f, c in found["train"].items() if _user(f) not in chosen}
    parts = {name: {c: sorted(f for f in part if part[f] == c) for c in GESTURES} for name, part in found.items()}
    files = event_files(folder, steps=steps, frames=frames, window=window, size=size, sensor=SENSORS["dvsgesture"])
    return event_source(files, folder, parts, values, notes, corrupt)


def recordings_in(name: str, root: Path) -> tuple[Path, int]:
    """The folder that a published data set lies in, and how many of its PUBLISHED[name] recordings are there.

    They are listed, not read. Raises FileNotFoundError if there is none, or a class or a part lacks all of them.
    """
    folder, found = {"nmnist": _nmnist_in, "cifar10dvs": _cifar10dvs_in, "dvsgesture": _dvsgesture_in}[name](root)
    if name == "dvsgesture":
        return folder, sum(map(len, found.values()))
    parts = [found] if name == "cifar10dvs" else found.values()
    return folder, sum(len(files) for part in parts for files in part.values())


def _nmnist_in(root: Path) -> tuple[Path, dict[str, Labelled]]:
    folder, digits = root / "NMNIST", tuple("0123456789")
    return folder, {name: _class_files(folder / name, digits, (".bin",), "nmnist", root) for name in ("Train", "Test")}


def _cifar10dvs_in(root: Path) -> tuple[Path, Labelled]:
    folder = root / "CIFAR10DVS"
    return folder, _class_files(folder, CIFAR_CLASSES, (".aedat4", ".aedat"), "cifar10dvs", root)


def _dvsgesture_in(root: Path) -> tuple[Path, dict[str, dict[str, str]]]:
    tonic, original = root / "DVSGesture", root / "DvsGesture"
    if (tonic / "ibmGestureTrain").is_dir():
        return tonic, {part: _saved_trials(tonic / f"ibmGesture{part.title()}") for part in ("train", "test")}
    if (original / "trials_to_train.txt").is_file():
        return original, {part: _original_trials(original / f"trials_to_{part}.txt") for part in ("train", "test")}
    raise FileNotFoundError(
        f"dvsgesture is not under {root}: expected {tonic / 'ibmGestureTrain'} or {original / 'trials_to_train.txt'}; "
        f"download it with 'staa data dvsgesture', or give another folder (`data_root`)"
    )


def _saved_trials(folder: Path) -> dict[str, str]:
    """recording -> class, of tonic's USER_LIGHT/CLASS.npy, classes numbered from 0."""
    found = {}
    for path in sorted(folder.glob("user*/[!.]*.npy")):
        if not (path.stem.isdecimal() and int(path.stem) < len(GESTURES)):
            raise ValueError(f"{path} is not named by its class, 0 to {len(GESTURES) - 1}")
        found[str(path)] = GESTURES[int(path.stem)]
    if not found:
        raise FileNotFoundError(f"no recordings in {folder}: expected USER_LIGHT/CLASS.npy, such as user01_led/0.npy")
    return found


def _original_trials(listing: Path) -> dict[str, str]:
    """recording -> class, of the authors' list of files and the table beside each: class (from 1), start and end in µs."""
    if not listing.is_file():
        raise FileNotFoundError(f"{listing} is missing, which says which files are in this part")
    found: dict[str, str] = {}
    for name in read_bytes(listing).decode(errors="replace").split():
        if name != Path(name).name:
            raise ValueError(f"{listing} names {name[:80]!r}: expected files beside it")
        table = listing.parent / f"{Path(name).stem}_labels.csv"
        if not table.is_file():
            raise FileNotFoundError(f"{table} is missing, which says what {listing.parent / name} holds")
        try:
            rows = list(csv.DictReader(read_bytes(table).decode(errors="replace").splitlines()))
        except csv.Error as error:
            raise ValueError(f"{table} can't be read as a table: {error}") from error
        if not rows:
            raise ValueError(f"{table} has no rows: expected class (1 to 11), startTime_usec, endTime_usec")
        for row in rows:
            try:
                gesture, start, end = (int(row[key]) for key in ("class", "startTime_usec", "endTime_usec"))
                if len(row) != 3 or not (1 <= gesture <= len(GESTURES) and 0 <= start < end <= LARGEST):
                    raise ValueError("class, start or end is impossible")
            except (KeyError, TypeError, ValueError) as error:
                raise ValueError(
                    f"{table} has a row {str(dict(row))[:200]}: expected class (1 to 11), startTime_usec, endTime_usec"
                ) from error
            recording = f"{listing.parent / name}#{start}-{end}"
            if recording in found:
                raise ValueError(f"{table} has the interval {start} to {end} twice: keep one")
            found[recording] = GESTURES[gesture - 1]
    return found


def _user(recording: str) -> str:
    found = re.findall(r"user\d+", recording)
    return found[-1] if found else ""


def _class_files(folder: Path, names: Sequence[str], endings: tuple[str, ...], data_set: str, root: Path) -> Labelled:
    """The recordings in folder/CLASS of a data set whose classes are known, in the order of the number in their names."""
    found = {}
    for c in names:
        files = sorted(str(p) for p in (folder / c).glob("[!.]*") if p.suffix in endings)
        if not files:
            raise FileNotFoundError(
                f"{data_set} is not whole under {root}: no *{' or *'.join(endings)} in {folder / c}; download it with "
                f"'staa data {data_set}', or give another folder (`data_root`)"
            )
        found[c] = sorted(files, key=lambda f: [int(n) for n in re.findall(r"\d+", Path(f).stem)])
    return found
