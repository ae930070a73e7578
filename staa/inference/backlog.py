"""Windows that wait for the network, the oldest of them dropped when it is too slow for a live source."""

import time
from collections import deque
from threading import Condition

from staa.data.events.windows import Window


class Backlog:
    """A queue between a thread that reads events and one that runs the network.

    A window that has waited for `lag` seconds is dropped, unless it is the newest. If `most` windows wait, as many as last for
    `lag`, and none of them so long yet, then the source is faster than time, as a file in a pipe is, and its reader waits.

    most: windows that wait at most. lag: None drops nothing.
    """

    def __init__(self, most: int, lag: float | None):
        self.dropped = 0
        self._most, self._lag = most, lag
        self._waiting: deque[Window] = deque()
        self._changed = Condition()
        self._closed, self._error = False, None

    def put(self, window: Window) -> None:
        """Let a window wait; returns at once if nobody takes any more."""
        with self._changed:
            while len(self._waiting) >= self._most and not self._closed:
                left = self._left()
                if left is not None and left <= 0:
                    self._drop()
                else:
                    self._changed.wait(left)
            self._waiting.append(window)
            self._changed.notify_all()

    def close(self, error: BaseException | None = None) -> None:
        """No window follows, since the source has ended or an error has ended it; or nobody takes any more."""
        with self._changed:
            self._closed, self._error = True, error
            self._changed.notify_all()

    @property
    def closed(self) -> bool:
        return self._closed

    def get(self) -> Window | None:
        """The oldest window, as soon as there is one; None at the end. Raises the error that ended it."""
        with self._changed:
            while not self._waiting and not self._closed:
                self._changed.wait()
            while len(self._waiting) > 1 and (left := self._left()) is not None and left <= 0:
                self._drop()
            if self._waiting:
                window = self._waiting.popleft()
                self._changed.notify_all()
                return window
        if self._error is not None:
            raise self._error
        return None

    def _left(self) -> float | None:
        """Seconds until the oldest has waited too long."""
        return None if self._lag is None else self._waiting[0].arrived + self._lag - time.perf_counter()

    def _drop(self) -> None:
        self._waiting.popleft()
        self.dropped += 1
