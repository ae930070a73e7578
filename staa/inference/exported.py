"""What an exported network says of images, recordings and arrays: all that is needed is in its file."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from staa.export.session import open_onnx
from staa.runs.classify import Answer, Refused, classify


class Exported:
    """An ONNX file that `staa.export.to_onnx` wrote, opened: it answers as the run that it came from.

    Args:
        path: The file.

    Raises:
        ValueError: If it is none, broken, or not what it says of itself.
        OSError: If it can't be read.
        ImportError: If the extra `export` is not installed.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.facts, self.network = open_onnx(self.path)
        self.network.eval()

    def answers(
        self, inputs: Any, *, top: int = 5, steps: int | None = None, margin: float | None = None
    ) -> Iterator[Answer | Refused]:
        """What the network says of each input, as `staa.Run.answers` does.

        Args:
            inputs: An input or an iterable of them, as the run takes them.
            top: Classes that are told, at least 1.
            steps: Time steps that the network is given; None: all.
            margin: How far the class that leads must be ahead to stop; None: it never stops before `steps`.

        Returns:
            An `Answer` for each input, in order, or a `Refused` with its error.

        Raises:
            ValueError: If an option is out of range, or this file can't be stopped.
        """
        facts = self.facts
        early = margin is not None or steps not in (None, facts.preparation.steps)
        if early and facts.form == "window" and not facts.preparation.frames:
            raise ValueError(
                f"{self.path} runs its {facts.steps} steps at once, so of a still image it can't be stopped: leave out `steps` "
                f"and `margin`" + ("" if facts.whole else ", or export the run with `form=step`")
            )
        return classify(self.network, facts.preparation, facts.names, inputs, top=top, steps=steps, margin=margin)
