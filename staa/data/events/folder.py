"""A folder of recordings as a data set: binned once, looked at before training."""

import hashlib
import os
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Literal

import torch

from staa.counting import counted
from staa.data.class_folders import TEST_SHARE, class_folders, readable
from staa.data.content import content_of_files
from staa.data.events.cache import EventFiles, Frames, interval_of
from staa.data.events.frames import UnsuitedError, Values, as_values
from staa.data.events.read import READERS
from staa.data.events.recording import LARGEST_SENSOR
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
    files = event_files(root, steps=steps, frames=frames, window=window, size=size, sensor=sensor)
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
        parts = named_split(together, split, validation, root)
    return event_source(files, root, parts, values, notes, "unchecked")  # class_folders has looked


def event_files(
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


def event_source(
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
        content=content_of_files(root, (interval_of(f)[0] for f in paths_in(parts))),
    )


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
        found = zip(recordings, pool.map(problem, recordings), strict=True)
        return {r: why for r, why in counted(found, "binning recordings", len(recordings)) if why is not None}
    finally:
        pool.shutdown(wait=False, cancel_futures=True)  # Ctrl-C does not wait for the rest
