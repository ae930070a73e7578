"""What decodes an event camera's bytes as they come: from a file, a pipe or a socket."""

from collections.abc import Callable
from typing import Protocol

from staa.data.events.aedat import Aedat2, Aedat3
from staa.data.events.aedat4 import Aedat4
from staa.data.events.evt import Evt2
from staa.data.events.evt3 import Evt3
from staa.data.events.evt21 import Evt21
from staa.data.events.header import prophesee_header
from staa.data.events.recording import Events, Sensor, said
from staa.data.events.records import Bin, Dat, Txyp
from staa.data.events.repair import Repair


class Decoder(Protocol):
    """A format of bytes. It holds what is not whole yet, so any pieces give the same events as all bytes at once."""

    @property
    def sensor(self) -> Sensor | None:
        """(height, width), once the header has said it."""
        ...

    # EVT also has `clock`, the time in µs that it has told without an event, too: live streams see silence by it.

    def feed(self, data: bytes) -> Events:
        """All events that are complete by now, in the order of the bytes, unchecked; there may be none. Times are µs, int64,
        unwrapped. Raises ValueError for bytes that are none of the format."""
        ...

    def end(self) -> Events:
        """The events that waited for what would follow. Raises ValueError if a part of a header, word or packet is left."""
        ...


DECODERS: dict[str, Callable[[Repair], Decoder]] = {
    "bin": Bin, "dat": Dat, "evt2": Evt2, "evt2.1": Evt21, "evt3": Evt3, "aedat2": Aedat2, "aedat3": Aedat3, "aedat4": Aedat4,
    "txyp": Txyp,
}  # fmt: skip
"""By the format's name. What a repair leaves out is counted in it."""


def aedat_format(head: bytes) -> str:
    """The format of a .aedat by its first bytes."""
    name = {b"#!AER-DAT2.0": "aedat2", b"#!AER-DAT3.1": "aedat3", b"#!AER-DAT4.0": "aedat4"}.get(head[:12])
    if name is None:
        raise ValueError(f"expected a first line '#!AER-DAT2.0', '#!AER-DAT3.1' or '#!AER-DAT4.0', found {head[:12]!r}")
    return name


def raw_format(head: bytes) -> str:
    """The format of a .raw by its header."""
    header = prophesee_header()
    header.feed(head, end=True)
    name = said(header.text, r"^% format (\w+)").upper() or "EVT" + said(header.text, r"^% evt (\S+)")
    known = {"EVT21": "evt2.1"}.get(name, name.removesuffix(".0").lower())
    if known not in ("evt2", "evt2.1", "evt3"):
        raise ValueError(
            f"it is encoded as {name}; expected EVT 2.0, 2.1 or 3.0, told by a header line '% evt 3.0' or '% format EVT3;…': "
            f"convert it to DAT with Metavision's metavision_file_to_dat"
        )
    return known
