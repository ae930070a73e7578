"""What decodes an event camera's bytes as they come: from a file, a pipe or a socket."""

from collections.abc import Callable
from typing import Protocol

from staa.data.events.evt import Evt2
from staa.data.events.evt3 import Evt3
from staa.data.events.recording import Events, Sensor
from staa.data.events.repair import Repair


class Decoder(Protocol):
    """A format of bytes. It holds what is not whole yet, so any pieces give the same events as all bytes at once."""

    @property
    def sensor(self) -> Sensor | None:
        """(height, width), once the header has said it."""
        ...

    def feed(self, data: bytes) -> Events:
        """All events that are complete by now, in the order of the bytes, unchecked; there may be none. Times are µs, int64,
        unwrapped. Raises ValueError for bytes that are none of the format."""
        ...

    def end(self) -> Events:
        """The events that waited for what would follow. Raises ValueError if a part of a header, word or packet is left."""
        ...


DECODERS: dict[str, Callable[[Repair], Decoder]] = {"evt2": Evt2, "evt3": Evt3}
"""By the format's name. What a repair leaves out is counted in it."""
