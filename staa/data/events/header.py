"""The lines of text before the data of Prophesee's and iniVation's files."""

from staa.data.events.recording import Sensor, said

LONGEST = 1 << 16  # bytes; cameras write some hundred


class Header:
    """Lines that begin so, up to and with a last one, or to the first that begins otherwise.

    prefix: what every line begins with. last: the last line, without its end. optional: there may be none.
    """

    def __init__(self, prefix: bytes, last: bytes, *, optional: bool = False):
        self._prefix, self._ends, self.optional = prefix, (last + b"\n", last + b"\r\n"), optional
        self.text, self.done, self.ended = "", False, False
        self._rest = b""

    def feed(self, data: bytes, *, end: bool = False) -> bytes:
        """What follows the header, as far as it is there; then it is `done`, and `ended` if its last line was there.

        Raises ValueError if there is none, or it is too long.
        """
        if self.done:
            return data
        data, at = self._rest + data, 0
        while data.startswith(self._prefix, at) and (stop := data.find(b"\n", at) + 1):
            line, at = data[at:stop], stop
            if line in self._ends:
                self.ended = True
                break
        self.text += data[:at].decode("latin-1")
        self._rest = data[at:]
        begun = self._rest.startswith(self._prefix) or self._prefix.startswith(self._rest)
        if len(self.text) > LONGEST or (begun and not self.ended and len(self._rest) > LONGEST):
            raise ValueError(f"its header has more than {LONGEST:,} bytes: it is of another format than its ending says")
        if begun and not self.ended and not end:
            return b""
        if not self.text and not self.optional:
            raise ValueError(f"expected header lines starting with '{self._prefix.decode()}', found {data[:8]!r}")
        self.done = True
        return self._rest


def prophesee_header(*, optional: bool = False) -> Header:
    return Header(b"% ", b"% end", optional=optional)


def geometry(header: str) -> Sensor | None:
    """From '% format EVT3;height=720;width=1280', '% geometry 1280x720', or '% height 720' and '% width 1280'."""
    height = said(header, r"^% (?:format \S*;)?height[= ](\d+)") or said(header, r"^% geometry \d+x(\d+)")
    width = said(header, r"^% (?:format \S*;)?width[= ](\d+)") or said(header, r"^% geometry (\d+)x")
    return (int(height), int(width)) if height and width else None
