"""The commands' options."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from staa.recipes import RECIPES
from staa.recipes.reading import Reading
from staa.recipes.recipe import Recipe

DEFAULT = "digits-events"


@dataclass(frozen=True, kw_only=True)
class OfCommand:
    """What every command takes."""

    debug: bool = False
    """Show tracebacks."""


@dataclass(frozen=True, kw_only=True)
class OfFile(OfCommand):
    """What a command that reads files takes."""

    max_bytes: str | None = None
    """Memory that one file may take, such as 8G; by default half of this machine's."""


@dataclass(frozen=True, kw_only=True)
class OfRun(OfFile):
    """What a command that reads a run takes."""

    trust_code: bool = False
    """Let the code in a run folder run, where a run has parts of its own. Read it first."""


@dataclass(frozen=True)
class TrainOptions(OfRun):
    """Train a recipe: staa train [NAME | my_file.py:recipe] [OPTIONS]. Without a name: the embedded default."""

    recipe: Annotated[Recipe, tyro.conf.arg(name="")] = field(default_factory=lambda: RECIPES[DEFAULT])
    out: Path | None = None
    """Run folder; by default runs/NAME/date-time-seed."""
    resume: Path | None = None
    """Go on with a run: its folder, or a checkpoint in it."""
    seeds: int = 1
    """How many seeds to train, from --seed on, each in its own folder."""
    device: str | None = None
    """cpu, cuda, cuda:1 …; by default the GPU if there is one."""
    data: Path | None = None
    """Where data sets are, or the folder of images or file of a series; by default ./data, or where the resumed run found
    them."""
    workers: int | None = None
    """Processes that read and augment images; by default as many as serve. They change nothing but the speed."""
    bits: bool = False
    """Keep spikes as bits for the backward pass: the same results, on the CPU with a third less memory and a little slower."""
    compile: bool | Literal["graph"] = False
    """Compile the network with torch.compile, which takes a minute or more at the start; or record a step as a CUDA graph:
    --compile graph."""
    save_minutes: float = 10.0
    """Minutes between saves inside a long epoch."""


@dataclass(frozen=True)
class CompareOptions(OfRun):
    """Train several recipes and set them side by side: staa compare NAME|RUN … [OPTIONS]. Run folders are taken as they are."""

    recipe: Annotated[Recipe, tyro.conf.arg(name="")] = field(default_factory=lambda: RECIPES[DEFAULT])
    out: Path | None = None
    """Folder of the runs, the table and the picture; what is trained there already is taken or gone on with. By default
    runs/compare/date-time."""
    seeds: int = 1
    """How many seeds to train of each, from --seed on."""
    device: str | None = None
    """cpu, cuda, cuda:1 …; by default the GPU if there is one."""
    data: Path | None = None
    """Where data sets are, or the folder of images or file of a series; by default ./data, or where the run found them."""
    workers: int | None = None
    """Processes that read and augment images; by default as many as serve."""


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
    rolling: bool = False
    """Write all forecasts of the part, with their origins and what came; --data may then be another series."""
    stride: int | None = None
    """With --rolling: forecast from every so many rows; by default from each."""
    out: Path | None = None
    """With --rolling: .csv or .parquet to write; by default a new one in the run folder."""
    interval: float | None = None
    """Of forecasts: also measure how many values an interval holds that shall hold this share of them, such as 0.9. It is made
    from the errors on validation."""


@dataclass(frozen=True)
class StreamOptions(OfRun):
    """Feed a run's model a recording of an event camera, window by window: running prediction and latency. Only a run of a
    recipe made for it can be streamed, such as nmnist-stream."""

    run: tyro.conf.Positional[Path]
    """The run folder."""
    file: tyro.conf.Positional[Path]
    """Recording: .bin, .dat, .aedat, .aedat4, .raw, .npz or .npy."""
    window: float | None = None
    """Length of a window in milliseconds; by default the recipe's."""
    sensor: str | None = None
    """HEIGHTxWIDTH of the sensor, where neither the recording nor the data set says it."""
    weights: Literal["last", "best"] | None = None
    """Those of the last epoch, or best on validation; by default those that the test figure is of."""
    device: str | None = None
    """cpu, cuda …; by default the GPU if there is one."""


@dataclass(frozen=True)
class PredictOptions(OfRun):
    """Forecast what follows a series with a run's model: a table, and pictures of the forecast and of what the run learned."""

    run: tyro.conf.Positional[Path]
    """The run folder."""
    file: tyro.conf.Positional[Path]
    """Series with the variates of the run's data: a table such as .csv, .parquet, .npz or .h5."""
    at: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """Row number or time of the last row that is seen, or several; by default the file's last."""
    steps: int | None = None
    """How many steps; by default as many as the run was trained for. Beyond them its forecasts are fed back."""
    interval: float | None = None
    """Draw and write the interval that shall hold this share of the values, such as 0.9. It is made from the errors on
    validation."""
    data: Path | None = None
    """Where the run's own data are, for --interval; by default where the run found them."""
    nodes: tuple[str, ...] = ()
    """Variates to draw; by default the first four."""
    time: str | None = None
    """Column of the times, where it is not the first."""
    time_format: str | None = None
    """What they are written in, such as %d/%m/%Y %H:%M; by default as the run's recipe says."""
    out: Path | None = None
    """Folder for the table and the pictures; by default a new one in the run's."""
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
class CheckOptions(OfCommand):
    """Hold a neuron, an attention or a network of your own against what each must do: shapes, gradients, independence of
    samples, time, streaming, folding. The file is run."""

    name: tyro.conf.Positional[str]
    """my_file.py:name, or a registered name."""
    kind: Literal["neuron", "attention", "model"] | None = None
    """What it is; by default the names of its parameters tell."""


@dataclass(frozen=True)
class DataOptions(OfFile):
    """Download a data set, checking its published checksum."""

    name: tyro.conf.Positional[str]
    """cifar10, cifar100, nmnist, cifar10dvs, dvsgesture, metr-la, pems-bay, solar or electricity;
    or show, to draw a recording, or describe, to tell what is in a series: staa data show --help, staa data describe --help."""
    data: Path = Path("data")
    """Where data sets are."""


@dataclass(frozen=True)
class ShowOptions(OfFile):
    """Draw a recording of an event camera to a PNG: frames, event rate, events in space and time."""

    file: tyro.conf.Positional[Path]
    """Recording: .bin, .dat, .aedat, .aedat4, .raw, .npz or .npy."""
    out: Path | None = None
    """PNG to write; by default NAME.png in this folder, after the recording's name."""
    sensor: str | None = None
    """HEIGHTxWIDTH of the sensor, where the recording doesn't say it."""


@dataclass(frozen=True)
class DescribeOptions(OfFile):
    """Tell what is understood of a series' file, as training reads it: columns, times, gaps, scale, seasons."""

    file: tyro.conf.Positional[Path]
    """Series: .csv, .txt, .tsv (also .gz), .npz, .npy, .h5 or .parquet."""
    series: Reading = field(default_factory=Reading)


@dataclass(frozen=True)
class RecipesOptions(OfCommand):
    """List the recipes."""


@dataclass(frozen=True)
class DoctorOptions(OfFile):
    """Say what this machine has, and which data sets."""

    data: Path = Path("data")
    """Where data sets are."""


@dataclass(frozen=True)
class BenchOptions(OfCommand):
    """Time a neuron and a training step on this machine."""

    inference: bool = False
    """Time inference: as trained, and with BatchNorm fused into the convolutions."""
    device: str | None = None
    """cpu, cuda, cuda:1 …; by default the GPU if there is one."""


OPTIONS: dict[str, Any] = {
    "train": TrainOptions,
    "compare": CompareOptions,
    "evaluate": EvaluateOptions,
    "stream": StreamOptions,
    "predict": PredictOptions,
    "share": ShareOptions,
    "check": CheckOptions,
    "data": DataOptions,
    "data show": ShowOptions,
    "data describe": DescribeOptions,
    "recipes": RecipesOptions,
    "doctor": DoctorOptions,
    "bench": BenchOptions,
}
"""The options of each command."""
