"""A bar that shows how far work is: on a terminal it goes when the work is done, in a notebook it stays."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from html import escape
from typing import Any

from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from staa.cli.text import in_notebook, out
from staa.text import for_terminal

Tell = Callable[[int, int | None, str], None]
"""tell(done, total, or None if that is not known, text)"""
EVERY = 0.2  # seconds between two looks of a notebook at it, at least


@contextmanager
def bar() -> Iterator[Tell]:
    """Within, a bar that shows what it is told; nothing where there is neither terminal nor notebook."""
    if in_notebook():
        shown = Notebook()
        yield shown.tell
        shown.show()
    elif out.is_terminal:
        texts = (TextColumn(text, markup=False) for text in ("{task.fields[at]} ETA", "{task.fields[text]}"))
        columns = (BarColumn(12), next(texts), TimeRemainingColumn(), next(texts))
        with Progress(*columns, console=out, transient=True) as progress:
            task = progress.add_task("", total=None, at="", text="")
            yield lambda done, total, text: progress.update(task, completed=done, total=total, at=f"{done}/{total}", text=text)
    else:
        yield lambda *_: None


class Notebook:
    """A bar in the output of a cell, by IPython alone. rich would need ipywidgets for it."""

    def __init__(self) -> None:
        self.told: tuple[int, int | None, str] = 0, None, ""
        self.began: tuple[float, int] | None = None
        self.handle: Any = None
        self.last = 0.0

    def tell(self, done: int, total: int | None, text: str) -> None:
        self.told = done, total, text
        if self.began is None:
            self.began = time.monotonic(), done
        if time.monotonic() - self.last >= EVERY:
            self.show()

    def show(self) -> None:
        if self.began is None:
            return
        (done, total, text), self.last = self.told, time.monotonic()
        began, first = self.began
        words, share = [], None
        if total:
            share = done / total
            words.append(f"{done:,}/{total:,}")
            left = (self.last - began) * (total - done) / max(done - first, 1)
            words += [f"ETA {int(left) // 60}:{int(left) % 60:02}"] if first < done < total else []
        line = for_terminal("  ".join([*words, text]))
        drawn = "" if share is None else f"[{'█' * round(20 * share):<20}] "
        meter = "" if share is None else f'<progress value="{done}" max="{total}" style="vertical-align: middle"></progress> '
        shown = {"text/plain": drawn + line, "text/html": f"<div>{meter}<code>{escape(line)}</code></div>"}
        self._put(shown)

    def clear(self) -> None:
        """Leave an empty line of it: nothing but a new output of the cell could take it away."""
        if self.handle is not None:
            self._put({"text/plain": "", "text/html": ""})

    def _put(self, shown: dict[str, str]) -> None:
        from IPython.display import display  # type: ignore[import-not-found]

        if self.handle is None:
            self.handle = display(shown, raw=True, display_id=True)
        else:
            self.handle.update(shown, raw=True)
