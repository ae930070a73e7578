"""Event-camera data sets: recordings on disk, binned once, kept as frames beside them. Of every data set both layouts are
read: the authors' own files, and tonic's downloads.
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
from staa.data.events.recording import LARGEST, Told
from staa.data.events.repair import How
from staa.data.source import Source
from staa.data.splits import Labelled, named_split, some, with_validation
from staa.files import check_no_file, read_bytes

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
    repair: How = "refuse",
) -> Source:
    """N-MNIST: 70,000 recordings of about 0.3 s of handwritten digits that a moving sensor of 34 × 34 sees, 10 classes.

        root/NMNIST/Train/DIGIT/*.bin, root/NMNIST/Test/DIGIT/*.bin

    Args:
        root: Folder that holds NMNIST/.
        validation: Share of the training recordings held out for validation, at least 0 and below 1.
        steps: Frames T of a recording, at least 1; None: 10.
        size: Height and width of the frames, in pixels, at most the sensor's; None: the sensor's.
        frames: "number", frames of equal numbers of events; "time", of equal duration; or "window", of a fixed duration each.
        window: Duration of a frame for frames="window", in milliseconds; else None.
        values: "sum", counts of events; "binary", 1 if there is an event; or "normalised", counts as a share of the recording's
            largest.
        split: None: the official parts, 60,000 to train and 10,000 to test; or "fold-1-of-5" and so on, of all recordings.
        corrupt: "refuse" and "skip" read every recording first, and refuse what can't be read, or skip and count it;
            "unchecked" does not look, and such a recording stops the run when it is met.
        repair: What is done about wrong events, as of `read_events`; notes count them.

    Shapes:
        Inputs are [T, N, 2, size, size], channel 0 OFF and channel 1 ON.

    Raises:
        FileNotFoundError: If the recordings are not there.
        ValueError: If a setting does not suit the recordings or another setting, or recordings can't be read and are refused.

    Source:
        Orchard et al., Converting static image datasets to spiking neuromorphic datasets using saccades, 2015.
    """
    folder, found = _nmnist_in(root)
    if split is None:
        parts = with_validation(found["Train"], validation, "nmnist validation", folder) | {"test": found["Test"]}
    else:
        parts = named_split({c: found["Train"][c] + found["Test"][c] for c in found["Train"]}, split, validation, folder)
    count = sum(len(f) for part in found.values() for f in part.values())
    notes = [] if count == PUBLISHED["nmnist"] else [f"{count} of the {PUBLISHED['nmnist']:,} recordings are there"]
    files = event_files(
        folder, steps=steps, frames=frames, window=window, size=size, sensor=SENSORS["nmnist"], told=Told(repair=repair)
    )
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
    repair: How = "refuse",
) -> Source:
    """CIFAR10-DVS: 10,000 recordings of CIFAR-10's images that move before a DVS128 of 128 × 128, 1,000 in each of 10 classes.

        root/CIFAR10DVS/CLASS/*.aedat4 (as tonic has it) or *.aedat (the authors' files)

    There is no official split. "first-90" trains on the first nine tenths of each class, in the order of the number in the
    file's name; most papers do so, and leave the order to the file system. "stratified" tests on a tenth of each class, chosen
    by a hash. "train-val-test" holds out tenths for validation and test by a hash; validation must then be 0.1.

    Args:
        root: Folder that holds CIFAR10DVS/.
        validation: Share of the training recordings held out for validation, at least 0 and below 1.
        steps: Frames T of a recording, at least 1; None: 10.
        size: Height and width of the frames, in pixels, at most the sensor's; None: the sensor's.
        frames: "number", frames of equal numbers of events; "time", of equal duration; or "window", of a fixed duration each.
        window: Duration of a frame for frames="window", in milliseconds; else None.
        values: "sum", counts of events; "binary", 1 if there is an event; or "normalised", counts as a share of the recording's
            largest.
        split: "first-90" (None), "stratified", "train-val-test", or "fold-1-of-5" and so on.
        corrupt: "refuse" and "skip" read every recording first, and refuse what can't be read, or skip and count it;
            "unchecked" does not look, and such a recording stops the run when it is met.
        repair: What is done about wrong events, as of `read_events`; notes count them.

    Shapes:
        Inputs are [T, N, 2, size, size], channel 0 OFF and channel 1 ON.

    Raises:
        FileNotFoundError: If the recordings are not there.
        ValueError: If both kinds of files are there; if a setting does not suit the recordings or another setting; if
            recordings can't be read and are refused.

    Source:
        Li et al., CIFAR10-DVS: an event-stream dataset for object classification, 2017.
    """
    folder, found = _cifar10dvs_in(root)
    endings = {Path(f).suffix for files in found.values() for f in files}
    if len(endings) > 1:
        raise ValueError(f"{folder} holds .aedat and .aedat4 files, which are the same recordings twice: keep one kind")
    parts = named_split(found, split or "first-90", validation, folder, ("first-90", "stratified", "train-val-test"))
    odd = [f"{c} {len(files)}" for c, files in found.items() if len(files) != 1000]
    notes = [f"not 1000 recordings of every class: {some(odd)}"] if odd else []
    files = event_files(
        folder, steps=steps, frames=frames, window=window, size=size, sensor=SENSORS["cifar10dvs"], told=Told(repair=repair)
    )
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
    repair: How = "refuse",
) -> Source:
    """DVS128 Gesture: 11 gestures before a DVS128 of 128 × 128; 23 users train, 6 others test.

        root/DVSGesture/ibmGestureTrain/USER_LIGHT/CLASS.npy and ibmGestureTest/… (as tonic has it), or, of the authors' files,
        root/DvsGesture/trials_to_train.txt, trials_to_test.txt, USER_LIGHT.aedat and USER_LIGHT_labels.csv

    A row of the authors' tables says which interval of the file is of which class, from 1.

    Args:
        root: Folder that holds DVSGesture/ or DvsGesture/.
        validation: Share of the training users held out for validation, whole users, at least 0 and below 1.
        steps: Frames T of a recording, at least 1; None: 10.
        size: Height and width of the frames, in pixels, at most the sensor's; None: the sensor's.
        frames: "number", frames of equal numbers of events; "time", of equal duration; or "window", of a fixed duration each.
        window: Duration of a frame for frames="window", in milliseconds; else None.
        values: "sum", counts of events; "binary", 1 if there is an event; or "normalised", counts as a share of the recording's
            largest.
        corrupt: "refuse" and "skip" read every recording first, and refuse what can't be read, or skip and count it;
            "unchecked" does not look, and such a recording stops the run when it is met.
        repair: What is done about wrong events, as of `read_events`; notes count them.

    Shapes:
        Inputs are [T, N, 2, size, size], channel 0 OFF and channel 1 ON.

    Raises:
        FileNotFoundError: If the recordings are not there.
        ValueError: If a user trains and tests; if a setting does not suit the recordings or another setting; if recordings
            can't be read and are refused.

    Source:
        Amir et al., A low power, fully event-based gesture recognition system, CVPR 2017.
    """
    folder, found = _dvsgesture_in(root)
    twice = sorted(found["train"].keys() & found["test"].keys())
    if twice:
        raise ValueError(f"{folder} has recordings both to train and to test on, {some(twice)}: leave each user in one list")
    count = sum(map(len, found.values()))
    notes = [] if count == PUBLISHED["dvsgesture"] else [f"{count} of the {PUBLISHED['dvsgesture']:,} recordings are there"]
    if validation:
        users = sorted({_user(f) for f in found["train"]}, key=lambda u: hashlib.sha256(f"dvsgesture {u}".encode()).digest())
        chosen = set(users[: max(1, round(validation * len(users)))])
        found["val"] = {f: c for f, c in found["train"].items() if _user(f) in chosen}
        found["train"] = {f: c for f, c in found["train"].items() if _user(f) not in chosen}
    parts = {name: {c: sorted(f for f in part if part[f] == c) for c in GESTURES} for name, part in found.items()}
    files = event_files(
        folder, steps=steps, frames=frames, window=window, size=size, sensor=SENSORS["dvsgesture"], told=Told(repair=repair)
    )
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
    check_no_file(root, f"{tonic.name}/ or {original.name}/")
    raise FileNotFoundError(
        f"dvsgesture is not under {root}: expected {tonic / 'ibmGestureTrain'} or {original / 'trials_to_train.txt'}; "
        f"download it with 'staa data dvsgesture', or give another folder (`data_root`)"
    )


def _saved_trials(folder: Path) -> dict[str, str]:
    """recording -> class, of tonic's USER_LIGHT/CLASS.npy, classes numbered from 0."""
    found = {}
    for path in sorted(folder.glob("user*/[!.]*.npy")):
        if not (path.stem.isdecimal() and int(path.stem) < len(GESTURES)):
            raise ValueError(f"{path} must be called by its class, from 0.npy to {len(GESTURES) - 1}.npy")
        found[str(path)] = GESTURES[int(path.stem)]
    if not found:
        raise FileNotFoundError(f"{folder} holds no recordings: expected USER_LIGHT/CLASS.npy, such as user01_led/0.npy")
    return found


def _original_trials(listing: Path) -> dict[str, str]:
    """recording -> class, of the authors' list of files and the table beside each: class (from 1), start and end in µs."""
    if not listing.is_file():
        raise FileNotFoundError(f"{listing} is missing: it lists the files of this part; copy it from the authors' archive")
    found: dict[str, str] = {}
    for name in read_bytes(listing).decode(errors="replace").split():
        if name != Path(name).name:
            raise ValueError(f"{listing} names {name[:80]!r}: expected names of files beside it")
        table = listing.parent / f"{Path(name).stem}_labels.csv"
        if not table.is_file():
            raise FileNotFoundError(
                f"{table} is missing: it says what {listing.parent / name} holds; copy it from the authors' archive"
            )
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
                    raise ValueError("class, start or end is out of range")
            except (KeyError, TypeError, ValueError) as error:
                raise ValueError(
                    f"{table} has a row {str(dict(row))[:200]}: expected class (1 to 11), startTime_usec, endTime_usec"
                ) from error
            recording = f"{listing.parent / name}#{start}-{end}"
            if recording in found:
                raise ValueError(f"{table} has the interval {start} to {end} twice: keep one of them")
            found[recording] = GESTURES[gesture - 1]
    return found


def _user(recording: str) -> str:
    return (re.findall(r"user\d+", recording) or [""])[-1]


def _class_files(folder: Path, names: Sequence[str], endings: tuple[str, ...], data_set: str, root: Path) -> Labelled:
    """The recordings in folder/CLASS of a data set whose classes are known, in the order of the number in their names."""
    found = {}
    for c in names:
        files = sorted(str(p) for p in (folder / c).glob("[!.]*") if p.suffix in endings)
        if not files:
            check_no_file(root, f"{'/'.join(folder.relative_to(root).parts)}/CLASS/*{endings[0]}")
            raise FileNotFoundError(
                f"{data_set} is not whole under {root}: no *{' or *'.join(endings)} in {folder / c}; download it with "
                f"'staa data {data_set}', or give another folder (`data_root`)"
            )
        found[c] = sorted(files, key=lambda f: [int(n) for n in re.findall(r"\d+", Path(f).stem)])
    return found
