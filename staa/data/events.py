"""Event-camera data sets: recordings on disk, binned once, kept as frames beside them.

Of every data set both layouts are read: the authors' own files, and those that tonic downloads. Frames are the counts of
`staa.data.binning`, channel 0 OFF and channel 1 ON.
"""

import csv
import hashlib
import os
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from staa.data.binning import UnsuitedError, Values
from staa.data.content import content_of_files
from staa.data.digits import as_frames
from staa.data.download import Archive, Tell, fetch, unpack
from staa.data.eventfiles import EventFiles, Frames, _interval
from staa.data.layout import (
    TEST_SHARE,
    Labelled,
    chosen_share,
    class_folders,
    digest,
    files_and_labels,
    paths_in,
    readable,
    some,
)
from staa.data.recordings import LARGEST, LARGEST_SENSOR, READERS
from staa.data.source import Samples, Source
from staa.files import read_bytes

Corrupt = Literal["refuse", "skip", "unchecked"]

CACHE = ".staa-frames"  # folder beside the recordings
IN_MEMORY = 1 << 28  # bytes of frames that are held, not read again at every epoch
DEFAULT_STEPS = 10
SENSORS = {"nmnist": "34x34", "cifar10dvs": "128x128", "dvsgesture": "128x128"}
GESTURES = (
    "hand_clapping", "right_hand_wave", "left_hand_wave", "right_arm_clockwise", "right_arm_counter_clockwise",
    "left_arm_clockwise", "left_arm_counter_clockwise", "arm_roll", "air_drums", "air_guitar", "other_gestures",
)  # fmt: skip
CIFAR_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

FIGSHARE = ("https://figshare.com/ndownloader/files/{}", "https://api.figshare.com/v2/file/download/{}")
MENDELEY = ("https://data.mendeley.com/public-files/datasets/468j46mzdv/files/{}/file_downloaded",)
ARCHIVES = {
    "nmnist": (
        "NMNIST",
        "https://www.garrickorchard.com/datasets/n-mnist",
        MENDELEY,
        (
            ("train.zip", "20959b8e626244a1b502305a9e6e2031", "39c25547-014b-4137-a934-9d29fa53c7a0", "Train"),
            ("test.zip", "69ca8762b2fe404d9b9bad1103e97832", "05a4d654-7e03-4c15-bdfa-9bb2bcbea494", "Test"),
        ),
    ),
    "cifar10dvs": (
        "CIFAR10DVS",
        "https://figshare.com/articles/dataset/CIFAR10-DVS_New/4724671",
        FIGSHARE,
        (("CIFAR10DVS.zip", "ce3a4a0682dc0943703bd8f749a7701c", "38023437", "airplane.zip"),),
    ),
    "dvsgesture": (
        "DVSGesture",
        "https://research.ibm.com/interactive/dvsgesture",
        FIGSHARE,
        (
            ("ibmGestureTrain.tar.gz", "3a8f0d4120a166bac7591f77409cb105", "38022171", "ibmGestureTrain"),
            ("ibmGestureTest.tar.gz", "56070e45dadaa85fff82e0fbfbc06de5", "38020584", "ibmGestureTest"),
        ),
    ),
}
"""data set -> its folder, its page, addresses, and archives: file, md5, number in the address, what it unpacks to"""
PUBLISHED = {"nmnist": 70_000, "cifar10dvs": 10_000, "dvsgesture": 1_342}
"""data set -> recordings"""


def event_folder(
    *,
    root: Path,
    validation: float,
    steps: int | None,
    size: int | None = None,
    frames: Frames = "number",
    window: float | None = None,
    values: Values = "sum",
    sensor: str | None = None,
    split: str | None = None,
    corrupt: Corrupt = "refuse",
) -> Source:
    """Recordings of one's own in class folders, as `class_folders` has them: any file `read_events` reads.

    steps: T frames, 10 where None; frames, window (ms), size, sensor ("HEIGHTxWIDTH"): as in `EventFiles`. values: as in
    `to_frames`. split: None, or "fold-1-of-5" and so on, of all recordings in class folders alone. corrupt: every
    recording is read, and its frames kept, before anything else, and those that can't be are refused, or skipped and counted;
    "unchecked" leaves it to the moment each is met.

    Raises what `class_folders` does, and ValueError for settings that don't go together.
    """
    files = _files(root, steps=steps, frames=frames, window=window, size=size, sensor=sensor)
    parts, notes = class_folders(
        root,
        endings=tuple(READERS),
        what="recordings",
        validation=0.0 if split else validation,
        corrupt=corrupt,
        problems=partial(_unreadable, files),
        test_share=0.0 if split else TEST_SHARE,
    )
    if split is not None:
        if any((root / part).is_dir() for part in ("train", "val", "test")):
            raise ValueError(f"`data.split={split}` is for class folders alone; {root} has its parts in folders of their own")
        together = {c: sorted(f for part in parts.values() for f in part[c]) for c in parts["train"]}
        parts = _named_split(together, split, validation, root)
    return _source(files, root, parts, values, notes, "unchecked")  # class_folders has looked


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
        parts = _with_validation(found["Train"], validation, "nmnist validation", folder) | {"test": found["Test"]}
    else:
        parts = _named_split({c: found["Train"][c] + found["Test"][c] for c in found["Train"]}, split, validation, folder)
    count = sum(len(f) for part in found.values() for f in part.values())
    notes = [] if count == PUBLISHED["nmnist"] else [f"{count} of the {PUBLISHED['nmnist']:,} recordings are there"]
    files = _files(folder, steps=steps, frames=frames, window=window, size=size, sensor=SENSORS["nmnist"])
    return _source(files, folder, parts, values, notes, corrupt)


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
    parts = _named_split(found, split or "first-90", validation, folder, ("first-90", "stratified", "train-val-test"))
    odd = [f"{c} {len(files)}" for c, files in found.items() if len(files) != 1000]
    notes = [f"not 1000 recordings of every class: {some(odd)}"] if odd else []
    files = _files(folder, steps=steps, frames=frames, window=window, size=size, sensor=SENSORS["cifar10dvs"])
    return _source(files, folder, parts, values, notes, corrupt)


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
    files = _files(folder, steps=steps, frames=frames, window=window, size=size, sensor=SENSORS["dvsgesture"])
    return _source(files, folder, parts, values, notes, corrupt)


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


def _files(
    folder: Path, *, steps: int | None, frames: Frames, window: float | None, size: int | None, sensor: str | None
) -> Callable[[Sequence[str]], EventFiles]:
    """Makes `EventFiles` of recordings under the folder. Raises ValueError for settings that don't go together."""
    if (frames == "window") != (window is not None):
        raise ValueError(f"`data.window` goes with `data.frames=window` and is needed there; got {frames!r} and {window}")
    cache = folder / CACHE
    if os.environ.get("STAA_FRAMES"):
        cache = Path(os.environ["STAA_FRAMES"]).expanduser() / hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:16]
    return partial(
        EventFiles,
        root=folder,
        cache=cache,
        steps=steps or DEFAULT_STEPS,
        by=frames,
        window=None if window is None else round(window * 1000),
        size=size,
        sensor=parse_sensor(sensor),
    )


def parse_sensor(text: str | None) -> tuple[int, int] | None:
    """(height, width) of "260x346". Raises ValueError for another form."""
    if text is None:
        return None
    found = re.fullmatch(r"(\d{1,5})x(\d{1,5})", text)
    if not found or not all(1 <= int(side) <= LARGEST_SENSOR for side in found.groups()):
        raise ValueError(f"the sensor is HEIGHTxWIDTH, such as 260x346, at most {LARGEST_SENSOR} each; got {text!r}")
    return int(found[1]), int(found[2])


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


def _with_validation(train: Labelled, share: float, salt: str, root: Path) -> dict[str, Labelled]:
    """A stratified share held out by a hash of the paths: {"train", "val" where the share is not 0}."""
    if not share:
        return {"train": train}
    held_out, rest = chosen_share(train, share, salt, root)
    return {"train": rest, "val": held_out}


def _named_split(
    found: Labelled, split: str, validation: float, root: Path, names: tuple[str, ...] = ()
) -> dict[str, Labelled]:
    """Parts by the name of a split: a fold, or one of names; see `cifar10dvs`. Raises ValueError for another one."""
    fold = re.fullmatch(r"fold-(\d{1,3})-of-(\d{1,3})", split)
    if not (split in names or (fold and 1 <= int(fold[1]) <= int(fold[2]) and int(fold[2]) >= 2)):
        known = ", ".join((*names, "fold-1-of-5 … fold-5-of-5 and other numbers of folds"))
        raise ValueError(f"unknown split {split!r}; known: {known}")
    if fold:
        k, n = int(fold[1]) - 1, int(fold[2])
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
                    f"the split train-val-test holds out a tenth for validation; data.validation says {validation}"
                )
            validation = 1 / 9  # of the other nine tenths
    parts = _with_validation(train, validation, "validation", root) | {"test": test}
    for name, part in parts.items():
        empty = [c for c, files in part.items() if not files]
        if empty:
            raise ValueError(
                f"the split {split} leaves class {some(empty)} without recordings in {name}: it needs more of them"
            )
    return parts


def _source(
    files: Callable[[Sequence[str]], EventFiles],
    root: Path,
    parts: dict[str, Labelled],
    values: Values,
    notes: list[str],
    corrupt: Corrupt,
) -> Source:
    """The source, after a look at every recording; those that can't be read are refused, or skipped and counted."""
    parts, left_out = readable(parts, partial(_unreadable, files), corrupt, root, "recordings")
    names = list(parts["train"])

    def samples(part: str) -> Samples:
        recordings, labels = files_and_labels(parts[part], names)
        if not recordings:
            raise ValueError(f"no recording of {root} is left for {part}: give it more, or another split")
        reader = files(recordings)
        frames = reader.frames(recordings[0])
        held = len(recordings) * frames.nbytes <= IN_MEMORY
        return Samples(reader.read(torch.arange(len(recordings))) if held else reader, labels)

    train = samples("train")
    return Source(
        train=train,
        validation=samples("val") if "val" in parts else None,
        test=samples("test"),
        classes=len(names),
        channels=2,
        size=train.take(torch.tensor([0])).shape[-1],
        prepare=partial(as_values, values=values),
        split=digest(root, parts),
        names=tuple(names),
        notes=(*notes, *left_out, *files([]).notes()),
        content=content_of_files(root, (_interval(f)[0] for f in paths_in(parts))),
    )


def as_values(x: Tensor, values: Values) -> Tensor:
    """Event counts [N, T, 2, H, W] -> float frames [T, N, 2, H, W]: as they are, 1 where any, or ÷ the sample's largest."""
    x = as_frames(x)
    if values == "binary":
        return (x > 0).float()
    return x / x.amax((0, 2, 3, 4), keepdim=True).clamp(min=1) if values == "normalised" else x


def _unreadable(files: Callable[[Sequence[str]], EventFiles], recordings: list[str]) -> dict[str, str]:
    """recording -> problem, of those that can't be read; the others' frames are kept."""
    reader = files(recordings)

    def problem(recording: str) -> str | None:
        try:
            reader.frames(recording)
        except UnsuitedError:  # so are the others: skipping this one would not help
            raise
        except ValueError as error:
            return str(error).removeprefix(f"{recording}: ")
        return None

    recordings = sorted(recordings)  # those of one file follow one another
    pool = ThreadPoolExecutor(os.cpu_count())
    try:
        return {r: p for r, p in zip(recordings, pool.map(problem, recordings), strict=True) if p is not None}
    finally:
        pool.shutdown(wait=False, cancel_futures=True)  # Ctrl-C does not wait for the rest


def download_events(name: str, root: Path, tell: Tell = lambda *_: None) -> Path:
    """Download a data set's archives and unpack them as tonic lays them out under root; returns the folder.

    What is there is left alone, but for an empty folder. Raises ValueError as `fetch` does.
    """
    folder_name, page, hosts, archives = ARCHIVES[name]
    folder = root / folder_name
    for file, md5, number, makes in archives:
        if not _holds(folder / makes):
            unpack(fetch(Archive(file, md5, tuple(host.format(number) for host in hosts), page), folder, tell), folder)
    for inner in sorted(folder.glob("*.zip")):  # CIFAR10-DVS has an archive for each class in its archive
        if inner.stem in CIFAR_CLASSES and not _holds(folder / inner.stem):
            unpack(inner, folder)
    return folder


def _holds(path: Path) -> bool:
    """A file, or a folder with something in it."""
    return path.is_file() or (path.is_dir() and any(path.iterdir()))
