"""A run for TensorBoard, written as its events come. log.jsonl stays the truth: nothing here changes a run, or ends it."""

import io
import time
from collections.abc import Generator, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from staa.analysis.figures import percent
from staa.files import inside
from staa.rates import neurons_heard
from staa.runs.execute import is_logged
from staa.runs.log import LOG, lines
from staa.text import for_figure
from staa.training.evaluate import Inputs, call, device_of, evaluation_mode
from staa.training.progress import Epoch, Event, Start, Warned, for_log

FOLDER = "tensorboard"
SAMPLES = 16  # that firing rates of neurons are taken over
ROWS = 240  # of a raster, all layers together
BINS = np.linspace(0, 1, 41)  # of firing rates


def to_tensorboard(events: Generator[Event, None, None], folder: Path) -> Generator[Event, None, None]:
    """The same events, each written to RUN/tensorboard once it has come, after the log has it.

    There are the numbers of log.jsonl, as EVENT/NAME, and after each epoch how often each neuron fires on a few training
    samples, as a histogram for each layer, and the spikes of one of them, as a picture. A run that goes on writes a file of
    its own there, which takes the place of steps that were taken after the checkpoint. What can't be written ends the writing
    and not the run; a `Warned` says so.

    Args:
        events: What `staa.runs.run` yields.
        folder: The run's.

    Raises:
        ImportError: If the package tensorboard is missing.
        ValueError: If a link is in the place of RUN/tensorboard.
    """
    try:
        import tensorboard.summary.writer.record_writer  # noqa: F401
    except ImportError as error:
        raise ImportError(
            'TensorBoard\'s files are written by the package tensorboard: pip install "staa-snn[logs]"'
        ) from error
    return _written(events, inside(folder, FOLDER))


def _written(events: Generator[Event, None, None], folder: Path) -> Generator[Event, None, None]:
    board, at = None, (0, 1)
    with closing(events):
        for event in events:
            at = getattr(event, "step", at[0]), getattr(event, "epoch", at[1])
            problem = None
            try:
                if isinstance(event, Start):
                    board = Board(folder, event)
                elif board is not None:
                    board.add(event, at[0])
            except Exception as error:
                problem = Warned(*at, f"TensorBoard is not written any more, log.jsonl is: {type(error).__name__}: {error}")
            yield event
            if problem is not None:
                board = None
                yield problem


class Board:
    """A file of TensorBoard for a run from `start` on. One that began without gets what its log tells of before.

    A record goes to the file whole and at once: no thread writes it, so none can be left waiting.
    """

    def __init__(self, folder: Path, start: Start):
        self.start = start
        self.inputs: list[Inputs] = []
        before = list(folder.glob("*tfevents*"))
        folder.mkdir(exist_ok=True)
        self.path = folder / f"events.out.tfevents.{time.time():.6f}"  # TensorBoard reads them in the order of their names
        with self.path.open("xb"):
            pass
        self.write(file_version="brain.Event:2")
        kind = _events().SessionLog
        self.write(step=start.step + 1, session_log=kind(status=kind.START))  # what was there from this step on goes
        if start.step and not before:
            told = (said for _, said in lines(folder.parent / LOG) if isinstance(said, dict) and "step" in said)
            for (_, step), said in {(said["event"], said["step"]): said for said in told}.items():  # the last of each
                if step <= start.step:
                    self.write_numbers(said, step, said["time"])

    def add(self, event: Event, step: int) -> None:
        """Write what an event tells, and after an epoch what the network does."""
        if is_logged(event, self.start.steps):
            self.write_numbers(for_log(event), step)
        if isinstance(event, Epoch) and self.start.model is not None and self.start.samples is not None:
            several, one = self.inputs = self.inputs or [self.start.samples(count) for count in (SAMPLES, 1)]
            for layer, spikes in spikes_of(self.start.model, several).items():
                rates = spikes.float().mean((0, 1)).flatten().cpu().numpy()
                self.write_values(step, {"tag": f"firing/{layer}", "histo": _histogram(rates)})
            layers = spikes_of(self.start.model, one)
            if layers:
                self.write_values(step, {"tag": "raster", "image": _raster(layers)})

    def write_numbers(self, said: dict[str, Any], step: int, when: float | None = None) -> None:
        if said["event"] in ("step", "epoch", "end", "result"):
            told = {name: value for name, value in said.items() if name not in ("time", "step", "epoch")}
            values = ({"tag": tag, "simple_value": number} for tag, number in _numbers(said["event"], told))
            self.write_values(step, *values, when=when)

    def write_values(self, step: int, *values: dict[str, Any], when: float | None = None) -> None:
        kind = _summaries().Summary
        self.write(step=step, summary=kind(value=[kind.Value(**value) for value in values]), when=when)

    def write(self, *, when: float | None = None, **fields: Any) -> None:
        from tensorboard.summary.writer.record_writer import RecordWriter

        record = io.BytesIO()
        RecordWriter(record).write(_events().Event(wall_time=when or time.time(), **fields).SerializeToString())
        with self.path.open("ab") as file:
            file.write(record.getbuffer())


def spikes_of(model: nn.Module, inputs: Inputs) -> dict[str, Tensor]:
    """The spikes of each layer in evaluation mode, [T, N, ...]. The model and the random state are left as they were."""
    spikes: dict[str, Tensor] = {}
    device = device_of(model)

    def keep(name: str, module: nn.Module, inputs: Any, output: Tensor) -> None:
        spikes[name] = output

    with (
        torch.random.fork_rng(devices=[device] if device.type == "cuda" else []),
        neurons_heard(model, keep),
        evaluation_mode(model),
        torch.inference_mode(),
    ):
        call(model, inputs)
    return spikes


def _numbers(tag: str, value: Any) -> Iterator[tuple[str, float]]:
    """Each number in a value, however deep, with what it is called."""
    if isinstance(value, dict):
        for name, part in value.items():
            yield from _numbers(f"{tag}/{name}", part)
    elif isinstance(value, list):
        for k, part in enumerate(value, 1):
            yield from _numbers(f"{tag}/{k}", part)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        with suppress(OverflowError):  # no float
            yield tag, float(value)


def _histogram(rates: np.ndarray) -> Any:
    counts, _ = np.histogram(rates, BINS)
    return _summaries().HistogramProto(
        min=rates.min(), max=rates.max(), num=len(rates), sum=rates.sum(), sum_squares=np.square(rates).sum(),
        bucket_limit=BINS[1:], bucket=counts,
    )  # fmt: skip


def _raster(layers: dict[str, Tensor]) -> Any:
    """The spikes of one sample [T, 1, ...]: time to the right, layers from above, of each as many neurons as there is room."""
    from matplotlib.figure import Figure

    each = max(3, ROWS // len(layers))
    rows, middles, ends, end = [], [], [], 0
    for spikes in layers.values():
        neurons = spikes.flatten(1).T
        chosen = torch.linspace(0, len(neurons) - 1, min(each, len(neurons))).long()
        rows.append(neurons[chosen].float().cpu().numpy())
        middles.append(end + (len(chosen) - 1) / 2)
        ends.append(end := end + len(chosen))
    figure = Figure(figsize=(7, 1.2 + 0.022 * end), layout="constrained", dpi=100)
    axis = figure.add_subplot()
    steps = max(row.shape[1] for row in rows)
    spread = [np.pad(row, ((0, 0), (0, steps - row.shape[1]))) for row in rows]
    axis.imshow(np.concatenate(spread), cmap="Greys", aspect="auto", interpolation="nearest", vmin=0, vmax=1,
                extent=(0.5, steps + 0.5, end - 0.5, -0.5))  # fmt: skip
    for line in ends[:-1]:
        axis.axhline(line - 0.5, color="tab:red", linewidth=0.8)
    rates = (float(spikes.float().mean()) for spikes in layers.values())
    names = [f"{for_figure(name, 24)}  {percent(rate)}" for name, rate in zip(layers, rates, strict=True)]
    axis.set_yticks(middles, names, fontsize=7)
    axis.set_xlabel("step", fontsize=8)
    axis.locator_params(axis="x", integer=True)
    axis.set_title("spikes of one training sample, some neurons of each layer, and how often the layer fires", fontsize=8)
    picture = io.BytesIO()
    figure.savefig(picture, format="png")
    width, height = (round(side * figure.dpi) for side in figure.get_size_inches())
    return _summaries().Summary.Image(height=height, width=width, colorspace=4, encoded_image_string=picture.getvalue())


def _events() -> Any:
    from tensorboard.compat.proto import event_pb2

    return event_pb2


def _summaries() -> Any:
    from tensorboard.compat.proto import summary_pb2

    return summary_pb2
