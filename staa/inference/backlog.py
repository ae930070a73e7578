"""Windows that wait for the network, the oldest of them dropped when it is too slow for a live source."""

import time
from collections import deque
from threading import Condition

from staa.data.events.windows import Window


class Backlog:
    """A queue between a thread that reads events and one that runs the network; `most` windows long, as long as `lag` seconds.

    If it is full, its oldest window is dropped, provided that it has waited for `lag`: then the network is slower than time
    itself. Else the reader waits, as it does for a source that is faster than time, such as a file in a pipe.

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
                left = None
                if self._lag is not None:
                    left = self._waiting[0].arrived + self._lag - time.perf_counter()
                    if left <= 0:
                        self._waiting.popleft()
                        self.dropped += 1
                        continue
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
            if self._waiting:
                window = self._waiting.popleft()
                self._changed.notify_all()
                return window
        if self._error is not None:
            raise self._error
        return None
