"""A stream's decisions on a source of events: a recording, a live camera's bytes, or a generator."""

import re
import threading
import time
from collections.abc import Generator, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from staa.data.events.check import Check
from staa.data.events.decoders import DECODERS, aedat_format, raw_format
from staa.data.events.header import prophesee_header
from staa.data.events.read import decoder_of, read_pieces
from staa.data.events.recording import NOTHING, Events
from staa.data.events.repair import How, Repair
from staa.files import naming
from staa.inference.backlog import Backlog
from staa.inference.sources import STDIN, ByteSource, is_file, opened
from staa.registry import unknown

if TYPE_CHECKING:
    from staa.inference.camera import Stream
from staa.inference.decision import Decision

TICK = 0.05  # seconds between two looks at a source that is silent
FEW = 2  # windows that may wait in any case
WAITING = 1 << 28  # bytes of windows that may wait
NO_LAG = 1000.0  # milliseconds of windows that wait if none is dropped


class LiveRepair(Repair):
    """That of a stream, which is asked for when it begins."""

    def advice(self, *, order: bool = False) -> str:
        return "; `repair=drop` leaves out what is wrong and counts it"


def check_watch(format: str | None, lag: float | None) -> None:
    """Raises ValueError for a format that is not known, and for a lag that is out of range."""
    if format is not None and format not in DECODERS:
        raise ValueError(unknown("format", format, DECODERS))
    if lag is not None and not 1 <= lag <= 1e9:
        raise ValueError(f"`lag` must be from 1 to a billion ms, or None, got {lag:g}")


def watched(
    stream: "Stream",
    source: str | Path | Iterable[Events],
    *,
    format: str | None,
    follow: bool,
    lag: float | None,
    repair: How,
    remote: bool,
) -> Generator["Decision"]:
    """What `staa.Stream.watch` gives."""
    stream.reset()
    stream.repair = LiveRepair(repair)
    if not isinstance(source, str | Path):
        for events in source:
            yield from stream.push(events)
        yield from stream.end()
        return
    name = str(source)
    if is_file(name) and format is None and not follow:
        for events in read_pieces(Path(name), stream.sensor, stream.repair, stream.told):
            yield from map(stream.decide, stream.windows.push(stream.fitting(events)))
        yield from stream.end()
        return
    with opened(name, follow=follow, remote=remote) as bytes_:
        yield from _live(stream, bytes_, name, format, lag)


def _live(stream: "Stream", source: ByteSource, name: str, format: str | None, lag: float | None) -> Generator["Decision"]:
    height, width = stream.windows.size
    most = max(FEW, min(int((lag or NO_LAG) / stream.window), WAITING // (8 * height * width)))
    backlog = Backlog(most, lag / 1000 if lag is not None and not source.keeps else None)

    def read() -> None:
        try:
            _read(stream, source, name, format, backlog, lag / 1000 if lag is not None and source.live else None)
        except Exception as error:
            backlog.close(error)
        else:
            backlog.close()

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    try:
        while (window := backlog.get()) is not None:
            stream.dropped = backlog.dropped
            yield stream.decide(window)
    except (ValueError, OSError) as error:
        kind = ValueError if isinstance(error, ValueError) else OSError
        raise kind(naming("standard input" if name == STDIN else name, error)) from error
    finally:
        backlog.close()
        reader.join(1.0)
        stream.dropped = backlog.dropped


def _read(stream: "Stream", source: ByteSource, name: str, format: str | None, backlog: Backlog, silence: float | None) -> None:
    """Makes windows of what comes, until the source ends or nobody takes them."""
    check, decoder, begun = Check(stream.sensor, stream.repair, held=0), None, b""
    heard, clock = 0.0, None  # when there were bytes, and the camera's time then

    def put(events: Events, until: int | None, arrived: float) -> None:
        for window in stream.windows.push(stream.fitting(check.feed(events)), until=until, arrived=arrived):
            backlog.put(window)

    while not backlog.closed and (data := source.read(TICK)) is not None:
        now = time.perf_counter()
        if data:
            heard = now
            if decoder is None:
                begun += data
                if (found := format or format_of(name, begun)) is None:
                    continue
                decoder, data = decoder_of(found, stream.repair, stream.told), begun
            events = decoder.feed(data)
            known = getattr(decoder, "clock", None)
            put(events, known, now)
            clock = max((t for t in (clock, known, *events.t[-1:].tolist()) if t is not None), default=None)
        elif silence is not None and clock is not None and now - heard > silence:
            put(NOTHING, clock + int((now - heard - silence) * 1e6), now)
    if backlog.closed:
        return
    if decoder is None:
        raise ValueError("it ended before it said its format" if begun else "it ended without an event")
    try:
        put(decoder.end(), None, time.perf_counter())
    finally:  # what it ended within does not take away what came before
        for window in stream.windows.end():
            backlog.put(window)
    if stream.windows.begin is None:
        raise ValueError("it ended without an event")


def format_of(name: str, begun: bytes) -> str | None:
    """The format of bytes by their header, or by the file's name; None if they are too few to tell.

    Raises ValueError if neither says it.
    """
    if begun[:9] == b"#!AER-DAT"[: len(begun)]:
        return aedat_format(begun) if len(begun) >= 12 else None
    if begun[:2] == b"% "[: len(begun)]:
        header = prophesee_header()
        header.feed(begun)
        if not header.done:
            return None
        return raw_format(begun) if re.search("^% (evt|format) ", header.text, re.MULTILINE) else "dat"
    found = Path(name).suffix.lower().removeprefix(".")
    if found not in DECODERS:
        known = ", ".join(DECODERS)
        raise ValueError(f"nothing says of which format it is, or none that can be taken live: `format` must be one of {known}")
    return found
