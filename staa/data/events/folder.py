"""A folder of recordings as a data set: binned once, looked at before training."""

import hashlib
import os
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from pathlib import Path
from typing import Literal

import torch

from staa.counting import counted
from staa.data.class_folders import TEST_SHARE, class_folders, readable
from staa.data.content import as_it_is, content_of_files
from staa.data.events.cache import EventFiles, Frames, interval_of
from staa.data.events.cut import Cutter, note
from staa.data.events.frames import Fit, UnsuitedError, Values, as_values
from staa.data.events.read import READERS
from staa.data.events.recording import LARGEST_SENSOR, Told, Unit
from staa.data.events.repair import How
from staa.data.events.samples import TABLE, parted, read_samples
from staa.data.events.text import TEXTS, lists_events
from staa.data.source import Samples, Source
from staa.data.splits import Labelled, digest, files_and_labels, named_split, paths_in

Corrupt = Literal["refuse", "skip", "unchecked"]

CACHE = ".staa-frames"  # folder beside the recordings
IN_MEMORY = 1 << 28  # bytes of frames that are held, not read again at every epoch
DEFAULT_STEPS = 10


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
    unit: Unit | None = None,
    stream: str | None = None,
    upright: bool = False,
    fit: Fit = "stretch",
    slice: float | None = None,
    split: str | None = None,
    corrupt: Corrupt = "refuse",
    repair: How = "refuse",
) -> Source:
    """Recordings of one's own in class folders, of any format that `staa.data.read_events` reads.

        root/train/CLASS/…  root/val/CLASS/…  root/test/CLASS/…        or        root/CLASS/…

    Without test/, a tenth of the training recordings are the test set; without val/, a share `validation` of the others is held
    out. Both are stratified and chosen by a hash of the paths. Frames are made once, and kept in root/.staa-frames or in the
    folder that the environment variable STAA_FRAMES names.

    Of long recordings, either `slice` cuts each into pieces, or root/samples.csv says which interval is of which class, and
    class folders are not needed:

        file,start,end,class                    µs of the recording's own time; or start_s,end_s in seconds, start_ms,end_ms
        monday/first.raw,1500000,4000000,wave   and, if you like, a column part: train, val or test

    Samples of one recording are never in two parts: whole recordings are held out.

    Args:
        root: Folder that holds train/, or the class folders, or samples.csv.
        validation: Share of the training recordings held out for validation, at least 0 and below 1.
        steps: Frames T of a recording, at least 1; None: 10.
        size: Height and width of the frames, in pixels, at most the sensor's; None: the sensor's.
        frames: "number", frames of equal numbers of events; "time", of equal duration; or "window", of a fixed duration each.
        window: Duration of a frame for frames="window", in milliseconds; else None.
        values: "sum", counts of events; "binary", 1 if there is an event; or "normalised", counts as a share of the recording's
            largest.
        sensor: Size of the sensor, "HEIGHTxWIDTH" in pixels, for recordings that do not say it.
        unit: Unit of times, "us", "ms", "ns" or "s", for text, arrays and HDF5 that don't say it.
        stream: Which of the recordings in each file, if .aedat4 (a number) or HDF5 (a name) hold several.
        upright: Turn AEDAT 2.0 of a DVS128 upright, so that it agrees with other formats; else it is transposed, as in
            published work on CIFAR10-DVS.
        fit: "stretch", a sensor that is not square fills the square frames; or "keep", it keeps its shape in the middle.
        slice: Duration of the pieces that each recording is cut into, in seconds, from its first event on. A piece without
            events is left out, and a last one shorter than half of it. None: recordings are not cut.
        split: "fold-1-of-5" and so on, of all recordings, if root holds class folders alone; None: parts as described.
        corrupt: "refuse" and "skip" read every recording once before anything else, and refuse what can't be read, or skip and
            count it; "unchecked" does not look, and such a recording stops the run when it is met.
        repair: What is done about wrong events: "refuse" the recording, "drop" them, or "sort" those back in time, too, as of
            `read_events`. Notes say how many there were.

    Shapes:
        Inputs are [T, N, 2, size, size], channel 0 OFF and channel 1 ON.

    Raises:
        FileNotFoundError: If there is no such folder.
        ValueError: If settings don't go together or don't suit a recording; if it holds no recordings or fewer than two
            classes; if parts differ in their classes; if a folder looks like another part; if lines of samples.csv are wrong;
            if recordings can't be read and are refused.
    """
    told = Told(unit, stream, upright, repair=repair)
    files = event_files(
        root, steps=steps, frames=frames, window=window, size=size, sensor=sensor, fit=fit, from_start=True, told=told
    )
    if (root / TABLE).is_file():
        if slice is not None:
            raise ValueError(f"{root / TABLE} says where samples begin and end, so `data.slice` must be None, got {slice:g}")
        parts, notes = parted(read_samples(root, tuple(READERS)), split, validation, TEST_SHARE, root), []
        return event_source(files, root, parts, values, notes, corrupt)
    cutter, made = None, files([])
    if slice is not None:
        cutter = Cutter(round(slice * 1e6), root=root, cache=made.cache, sensor=made.sensor, told=told)
    parts, notes = class_folders(
        root,
        endings=tuple(READERS),
        what="recordings",
        validation=0.0 if split else validation,
        corrupt=corrupt,
        problems=partial(_unreadable, files) if cutter is None else partial(_problems, cutter.pieces),
        look=partial(_look, (cutter or made).how),
        test_share=0.0 if split else TEST_SHARE,
        strays=_notes_beside,
    )
    if split is not None:
        if any((root / part).is_dir() for part in ("train", "val", "test")):
            raise ValueError(f"`data.split={split}` needs class folders alone, but {root} has folders for its parts; remove it")
        together = {c: sorted(f for part in parts.values() for f in part[c]) for c in parts["train"]}
        parts = named_split(together, split, validation, root)
    if cutter is None:
        return event_source(files, root, parts, values, notes, "unchecked")  # class_folders has looked
    pieces = cutter.all(parts)
    return event_source(files, root, pieces, values, [*notes, note(parts, pieces, slice or 0)], corrupt)


def event_files(
    folder: Path,
    *,
    steps: int | None,
    frames: Frames,
    window: float | None,
    size: int | None,
    sensor: str | None,
    fit: Fit = "stretch",
    from_start: bool = False,
    told: Told | None = None,
) -> Callable[[Sequence[str]], EventFiles]:
    """Makes `EventFiles` of recordings under the folder. Raises ValueError for settings that don't go together."""
    if (frames == "window") != (window is not None):
        raise ValueError(f"`data.window` is needed with `data.frames=window`, and only there; got {frames!r} and {window}")
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
        fit=fit,
        from_start=from_start,
        told=told,
    )


def parse_sensor(text: str | None) -> tuple[int, int] | None:
    """(height, width) of "260x346". Raises ValueError for another form."""
    if text is None:
        return None
    found = re.fullmatch(r"(\d{1,5})x(\d{1,5})", text)
    if not found or not all(1 <= int(side) <= LARGEST_SENSOR for side in found.groups()):
        raise ValueError(f"`sensor` must be HEIGHTxWIDTH, such as 260x346, at most {LARGEST_SENSOR} each; got {text!r}")
    return int(found[1]), int(found[2])


def event_source(
    files: Callable[[Sequence[str]], EventFiles],
    root: Path,
    parts: dict[str, Labelled],
    values: Values,
    notes: list[str],
    corrupt: Corrupt,
) -> Source:
    """The source, after a look at every recording; what can't be read is refused, or skipped and counted."""
    parts, left_out = readable(
        parts, partial(_unreadable, files), corrupt, root, "recordings", look=partial(_look, files([]).how)
    )
    names = list(parts["train"])

    def samples(part: str) -> Samples:
        recordings, labels = files_and_labels(parts[part], names)
        if not recordings:
            raise ValueError(f"{root} has no recording left for {part}: add recordings, or take another split")
        reader = files(recordings)
        frames = reader.frames(recordings[0])
        held = len(recordings) * frames.nbytes <= IN_MEMORY
        return Samples(reader.read(torch.arange(len(recordings))), labels, recordings) if held else Samples(reader, labels)

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
        notes=(*notes, *left_out, *files(list(paths_in(parts))).notes()),
        content=content_of_files(root, (interval_of(f)[0] for f in paths_in(parts))),
    )


def _notes_beside(files: list[str]) -> list[str]:
    """Texts that hold no events, such as README.txt or labels.csv, if recordings of another format are in their class: among
    texts alone such a file may be a broken recording."""
    texts = [f for f in files if f.lower().endswith(TEXTS)]
    return [] if len(texts) == len(files) else [f for f in texts if not lists_events(Path(f))]


def _look(how: object, recording: str) -> object:
    """What a look at a recording, binned so, goes by."""
    about = as_it_is(interval_of(recording)[0])
    return None if about is None else (recording, *about, how)


def _unreadable(files: Callable[[Sequence[str]], EventFiles], recordings: list[str]) -> dict[str, str]:
    """recording -> problem, of recordings that can't be read; the others' frames are kept."""
    return _problems(files(recordings).frames, recordings)


def _problems(read: Callable[[str], object], recordings: list[str]) -> dict[str, str]:
    """recording -> problem, of those that `read` refuses."""

    def problem(recording: str) -> str | None:
        try:
            read(recording)
        except UnsuitedError:  # so are the others: skipping this one would not help
            raise
        except ValueError as error:
            return str(error).removeprefix(f"{recording}: ")
        return None

    recordings = sorted(recordings, key=interval_of)  # those of one file follow one another
    pool = ThreadPoolExecutor(os.cpu_count())
    try:
        told = (copy_context() for _ in recordings)  # of whoever wants to hear how far it is
        problems = pool.map(lambda context, recording: context.run(problem, recording), told, recordings)
        found = zip(recordings, problems, strict=True)
        return {r: why for r, why in counted(found, "binning recordings", len(recordings)) if why is not None}
    finally:
        pool.shutdown(wait=False, cancel_futures=True)  # Ctrl-C does not wait for the rest
