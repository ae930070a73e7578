"""Options of the commands on a trained run."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from staa.cli.shared_options import OfFile, OfRun


@dataclass(frozen=True)
class EvaluateOptions(OfRun):
    """Measure the model of a run folder."""

    run: tyro.conf.Positional[Path]
    """The run folder."""
    split: Literal["train", "validation", "test"] | None = None
    """Part of the data; by default test for a finished run, else validation."""
    weights: Literal["last", "best"] | None = None
    """Those of the last epoch, or of the one best on validation (with protocol paper: on the test set); by default those that
    the test figure is of."""
    data: Path | None = None
    """Where data sets are; by default where the run found them."""
    device: str | None = None
    """cpu, cuda …; by default the GPU if there is one."""
    workers: int | None = None
    """Processes that read images; by default as many as serve."""
    csv: Path | None = None
    """Of classes: CSV to write, with every prediction."""
    rolling: bool = False
    """Of forecasts: write all forecasts of the part, with their origins and what came; --data may then be another series."""
    stride: int | None = None
    """With --rolling: forecast from every so many rows; by default from each."""
    out: Path | None = None
    """With --rolling: .csv or .parquet to write; by default a new one in the run folder."""
    interval: float | None = None
    """Of forecasts: also measure how many values an interval holds that shall hold this share of them, such as 0.9. It is made
    from the errors on validation."""


@dataclass(frozen=True)
class EnergyOptions(OfRun):
    """Count what an inference of a run's network costs, layer by layer: operations, energy, memory traffic, in the papers'
    convention and exactly, beside the same network as an ANN. Rates are those on the test set, or on validation if the run is
    not finished."""

    run: tyro.conf.Positional[Path]
    """The run folder."""
    samples: int = 64
    """How many samples the rates are of."""
    batch: int | None = None
    """How many run at once, which changes no figure; by default the recipe's batch size."""
    csv: Path | None = None
    """.csv to write, with all columns."""
    mac_pj: float = 4.6
    """Energy of a multiply-accumulate in picojoules; by default that of 32 bits in 45 nm."""
    ac_pj: float = 0.9
    """Energy of an addition in picojoules; by default that of 32 bits in 45 nm."""
    weights: Literal["last", "best"] | None = None
    """Those of the last epoch, or best on validation; by default those that the test figure is of."""
    data: Path | None = None
    """Where data sets are; by default where the run found them."""
    device: str | None = None
    """cpu, cuda …; by default the GPU if there is one."""


@dataclass(frozen=True)
class StreamOptions(OfRun):
    """Feed a run's model events of a camera as they come, window by window: a running prediction, the newest window's own, and
    the latency. Only a run of a recipe made for it can be streamed, such as nmnist-stream or events-folder-stream."""

    run: tyro.conf.Positional[Path]
    """The run folder."""
    source: tyro.conf.Positional[str]
    """A recording, or a live source: - for standard input, a named pipe, tcp:HOST:PORT or unix:PATH of a program that serves
    events there."""
    format: str | None = None
    """Format of the bytes, where neither a header nor the file's name says it: bin, dat, evt2, evt2.1, evt3, aedat2, aedat3,
    aedat4 or txyp."""
    follow: bool = False
    """At the end of a file, wait for more: another program writes to it. No window of it is dropped."""
    window: float | None = None
    """Length of a window in milliseconds; by default the recipe's."""
    memory: float | None = None
    """Milliseconds that the running prediction is taken over; by default half as long as a training sample."""
    reset_every: float | None = None
    """Milliseconds after which the network begins at rest again, membranes and all; the running prediction goes on. By default
    as long as a training sample; inf: never."""
    reset_silent: float | None = None
    """Milliseconds without an event after which the next one is of a new scene: network and running prediction begin anew."""
    lag: float | None = 1000.0
    """Of a live source, milliseconds: windows that wait longer for the network are dropped and counted, and after as long
    without data windows end by this machine's clock. None: nothing is dropped, and the events' time alone counts."""
    repair: Literal["refuse", "drop"] = "refuse"
    """What is wrong in the events ends the stream, or is left out and counted."""
    remote: bool = False
    """Let HOST be another machine: nothing protects what it sends."""
    json: bool = False
    """Print a JSON object a line: one for each window, and one at the end."""
    sensor: str | None = None
    """HEIGHTxWIDTH of the sensor, where neither the recording nor the data set says it."""
    weights: Literal["last", "best"] | None = None
    """Those of the last epoch, or best on validation; by default those that the test figure is of."""
    device: str | None = None
    """cpu, cuda …; by default the GPU if there is one."""


@dataclass(frozen=True)
class PredictOptions(OfRun):
    """What a run's model says of files: the classes of images or of recordings of an event camera, or what follows a series,
    with a table and pictures of the forecast and of what the run learned."""

    run: tyro.conf.Positional[Path]
    """The run folder, or an .onnx file that staa export wrote."""
    files: tyro.conf.Positional[tuple[Path, ...]] = ()
    """Images or recordings, and folders of them, as the run was trained on; or one series with the variates of the run's data:
    a table such as .csv, .parquet, .npz or .h5."""
    steps: int | None = None
    """Of a series: how many steps; by default as many as the run was trained for, and beyond them forecasts are fed back. Of
    classes: time steps that the network is given; by default all."""
    top: int | None = None
    """Of classes: how many are told for each file, all if there are fewer; by default three. The table shows six at most."""
    margin: float | None = None
    """Of classes: stop after the first time step at which the likeliest class is ahead of the second by so much probability,
    such as 0.5."""
    csv: Path | None = None
    """Of classes: CSV to write."""
    json: Path | None = None
    """Of classes: JSON to write."""
    at: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """Of a series: row number or time of the last row that is seen, or several; by default the file's last."""
    interval: float | None = None
    """Of a series: draw and write the interval that shall hold this share of the values, such as 0.9. It is made from the
    errors on validation."""
    data: Path | None = None
    """Where the run's own data are, for --interval; by default where the run found them."""
    nodes: tuple[str, ...] = ()
    """Of a series: variates to draw; by default the first four."""
    time: str | None = None
    """Of a series: column of the times, where it is not the first."""
    time_format: str | None = None
    """Of a series: what they are written in, such as %d/%m/%Y %H:%M; by default as the run's recipe says."""
    out: Path | None = None
    """Of a series: folder for the table and the pictures; by default a new one in the run's."""
    weights: Literal["last", "best"] | None = None
    """Those of the last epoch, or best on validation; by default those that the test figure is of."""
    device: str | None = None
    """cpu, cuda …; by default the GPU if there is one."""


@dataclass(frozen=True)
class ShareOptions(OfFile):
    """Copy a run for others: what it says of this machine, its user and its folders is left out."""

    run: tyro.conf.Positional[Path]
    """The run folder."""
    out: Path | None = None
    """Folder to make, or .zip to write; by default NAME-shared in this folder, after the run's."""


@dataclass(frozen=True)
class PushOptions(OfFile):
    """Copy a finished run to a hub, with a model card, through huggingface_hub: what it says of this machine, its user and its
    folders is left out, and so are pickles. The token is the hub's own: hf auth login, or HF_TOKEN."""

    run: tyro.conf.Positional[Path]
    """The run folder."""
    name: tyro.conf.Positional[str]
    """The repository, such as org/name, which is made if need be."""
    public: bool = False
    """Let all read it; by default only its owner can."""
    licence: str | None = None
    """Name of its licence on the hub, such as apache-2.0; by default the card says that it is not known."""
    update: bool = False
    """Replace a run that is there, in a new commit."""


@dataclass(frozen=True)
class ExportOptions(OfRun):
    """Write a run's network in a file that other programs run, held against the run on samples of its data."""

    run: tyro.conf.Positional[Path]
    """The run folder."""
    to: Literal["onnx", "program", "nir"] = "onnx"
    """ONNX of standard operations; a program of torch.export, which PyTorch loads without staa; or NIR."""
    form: Literal["window", "step"] | None = None
    """The whole window at once, by default; or one step, with the state as inputs and outputs, of a network that looks
    back alone."""
    out: Path | None = None
    """File to write; by default NAME.onnx, .pt2 or .nir in this folder, after the run's."""
    verify: bool = True
    """Compare with the run on samples of its data; nothing is written if they differ."""
    weights: Literal["last", "best"] | None = None
    """Those of the last epoch, or best on validation; by default those that the test figure is of."""
    data: Path | None = None
    """Where data sets are; by default where the run found them."""


@dataclass(frozen=True)
class ReportOptions(OfRun):
    """Write what a run is, has learned, costs and says as one HTML file, which a browser shows without a network."""

    run: tyro.conf.Positional[Path]
    """The run folder."""
    out: Path | None = None
    """HTML file to write; by default report.html in the run folder, in the place of an older one."""
    split: Literal["train", "validation", "test"] | None = None
    """Part of the data that answers and forecasts are of; by default test for a finished run, else validation."""
    weights: Literal["last", "best"] | None = None
    """Those of the last epoch, or best on validation; by default those that the test figure is of."""
    data: Path | None = None
    """Where data sets are; by default where the run found them."""
    device: str | None = None
    """cpu, cuda …; by default the GPU if there is one."""
    workers: int | None = None
    """Processes that read images; by default as many as serve."""
