"""The commands' options."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from staa.cli.run_options import (
    EnergyOptions,
    EvaluateOptions,
    ExportOptions,
    PredictOptions,
    PushOptions,
    ReportOptions,
    ShareOptions,
    StreamOptions,
)
from staa.cli.shared_options import OfCommand, OfFile, OfRun
from staa.recipes import RECIPES
from staa.recipes.reading import Reading
from staa.recipes.recipe import Recipe

DEFAULT = "digits-events"


@dataclass(frozen=True)
class TrainOptions(OfRun):
    """Train a recipe: staa train [NAME | my_file.py:recipe] [OPTIONS]. Without a name: the embedded default."""

    recipe: Annotated[Recipe, tyro.conf.arg(name="")] = field(default_factory=lambda: RECIPES[DEFAULT])
    out: Path | None = None
    """Run folder; by default runs/NAME/date-time-seed."""
    resume: Path | None = None
    """Go on with a run: its folder, or a checkpoint in it."""
    prolong: int | None = None
    """Train the finished run that --resume names for so many more epochs, down another cosine from lr to min_lr, in a folder of
    its own (--out)."""
    seeds: int = 1
    """How many seeds to train, from --seed on, each in its own folder."""
    device: str | None = None
    """cpu, cuda, cuda:1 …; by default the GPU if there is one."""
    data: Path | None = None
    """Where data sets are, or the folder of images or file of a series; by default ./data, or where the resumed run found
    them."""
    devices: int | None = None
    """How many processes train together, each on a GPU of its own or on a share of the CPU's cores, as torchrun starts them; by
    default one."""
    workers: int | None = None
    """Processes that read and augment images; by default as many as serve. They change nothing but the speed."""
    bits: bool = False
    """Keep spikes as bits for the backward pass: the same results, on the CPU with a third less memory and a little slower."""
    compile: bool | Literal["graph"] = False
    """Compile the network with torch.compile, which takes a minute or more at the start; or record a step as a CUDA graph:
    --compile graph."""
    deterministic: bool = False
    """Bit-equal each time on one machine, by PyTorch's deterministic algorithms: slower on a GPU, on the CPU by the time that
    filling new tensors takes. An operation that has none is refused."""
    save_minutes: float = 10.0
    """Minutes between saves inside a long epoch."""
    requeue: bool = False
    """In a job of SLURM: on SIGTERM or SIGUSR1 save and have the job queued again, which then goes on with the run."""
    log: Literal["tensorboard"] | None = None
    """Also write TensorBoard's files, to RUN/tensorboard."""


@dataclass(frozen=True)
class CompareOptions(OfRun):
    """Train several recipes, or one at several values of an option, and set them side by side:
    staa compare NAME|RUN … [--over OPTION=A,B] [OPTIONS]. Run folders are taken as they are."""

    recipe: Annotated[Recipe, tyro.conf.arg(name="")] = field(default_factory=lambda: RECIPES[DEFAULT])
    out: Path | None = None
    """Folder of the runs, the table and the picture; what is trained there already is taken or gone on with. By default
    runs/compare/date-time."""
    over: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """Options that are compared on purpose: each recipe is trained at each value, as model.attention=none,staa,dta; of several
    such lists at each combination. Without values, as data.size, recipes or runs may differ in it."""
    seeds: int = 1
    """How many seeds to train of each, from --seed on."""
    device: str | None = None
    """cpu, cuda, cuda:1 …; by default the GPU if there is one."""
    data: Path | None = None
    """Where data sets are, or the folder of images or file of a series; by default ./data, or where the run found them."""
    workers: int | None = None
    """Processes that read and augment images; by default as many as serve."""
    deterministic: bool = False
    """Bit-equal each time on one machine, as staa train --deterministic."""


@dataclass(frozen=True)
class SweepOptions(OfRun):
    """Choose settings of a recipe: train it at several values of options, and rank them by validation, the mean over seeds. The
    test set is left alone: staa sweep [NAME | my_file.py:recipe] --over OPTION=A,B … [OPTIONS]. The same command again goes on,
    and with more values, draws or seeds it trains what is new."""

    recipe: Annotated[Recipe, tyro.conf.arg(name="")] = field(default_factory=lambda: RECIPES[DEFAULT])
    out: Path | None = None
    """Folder of the runs, the tables and the picture; what is trained there already is taken or gone on with. By default
    runs/sweep/NAME_OPTIONS."""
    over: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """Options and their values, as optim.lr=0.01,0.03 model.steps=2,4: each combination is trained. With --random also ranges,
    as optim.lr=0.001..0.3:log or augment.cutout=0..8:linear; of an option in whole numbers these are drawn."""
    random: int | None = None
    """Draw so many combinations, in place of all."""
    sweep_seed: int = 0
    """Seed of what --random draws."""
    seeds: int = 1
    """How many seeds to train of each, from --seed on."""
    jobs: int = 1
    """How many runs train at once, as processes that share the threads of this one."""
    device: str | None = None
    """cpu, cuda, cuda:1 …; by default the GPU if there is one, for all jobs."""
    data: Path | None = None
    """Where data sets are, or the folder of images or file of a series; by default ./data."""
    workers: int | None = None
    """Processes of each run that read and augment images; by default as many as serve, shared by the jobs."""
    deterministic: bool = False
    """Bit-equal each time on one machine, as staa train --deterministic."""


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
    or show, to draw a recording, convert, to repair or cut one, or describe, to tell what is in a series:
    staa data show --help, staa data convert --help, staa data describe --help."""
    data: Path = Path("data")
    """Where data sets are."""


@dataclass(frozen=True)
class ShowOptions(OfFile):
    """Draw a recording of an event camera to a PNG: frames, event rate, events in space and time."""

    file: tyro.conf.Positional[Path]
    """Recording: .raw, .aedat4, .h5, .csv and others; the page on event cameras has all."""
    out: Path | None = None
    """PNG to write; by default NAME.png in this folder, after the recording's name."""
    sensor: str | None = None
    """HEIGHTxWIDTH of the sensor, where the recording doesn't say it."""
    unit: Literal["s", "ms", "us", "ns"] | None = None
    """Unit of its times, if it is text, arrays or HDF5 that don't say it."""
    stream: str | None = None
    """Which one, if an .aedat4 (a number), HDF5 (a name) or ROS bag (a topic) holds several."""
    upright: bool = False
    """Turn an AEDAT 2.0 of a DVS128 upright; else it is transposed, as in published work on CIFAR10-DVS."""


@dataclass(frozen=True)
class ConvertOptions(OfFile):
    """Write a recording of an event camera as .npz, whatever its size: repaired, cut, with the unit and the sensor that are
    told. What was left out is counted and said."""

    file: tyro.conf.Positional[Path]
    """Recording: .bin, .dat, .raw, .aedat, .aedat4, .h5, .hdf5, .txt, .csv, .npz, .npy, .bag or .es."""
    out: tyro.conf.Positional[Path]
    """New .npz with t (µs), x, y, p and, if they are known, height and width."""
    repair: Literal["refuse", "drop", "sort"] = "refuse"
    """Stray times, events outside the sensor or back in time: refuse the recording, drop them (of those back in time as few as
    possible), or drop them but sort those back in time, which takes memory for all."""
    cut: tuple[float, float] | None = None
    """First and last second to keep, counted from the first event; times stay as they are."""
    sensor: str | None = None
    """HEIGHTxWIDTH of the sensor, where the recording doesn't say it."""
    unit: Literal["s", "ms", "us", "ns"] | None = None
    """Unit of its times, if it is text, arrays or HDF5 that don't say it."""
    stream: str | None = None
    """Which one, if an .aedat4 (a number) or HDF5 (a name) holds several."""
    upright: bool = False
    """Turn an AEDAT 2.0 of a DVS128 upright; else it is transposed, as in published work on CIFAR10-DVS."""


@dataclass(frozen=True)
class DescribeOptions(OfFile):
    """Tell what is understood of a series' file, as training reads it: columns, times, gaps, scale, seasons."""

    file: tyro.conf.Positional[Path]
    """Series: .csv, .txt, .tsv (also .gz), .npz, .npy, .h5 or .parquet."""
    series: Reading = field(default_factory=Reading)


@dataclass(frozen=True)
class RecipesOptions(OfCommand):
    """List the recipes, by data set: all, or those that have each of these words in name, data set, network, attention,
    summary or what to expect. A recipe's own name, or my_file.py:recipe, tells all that is known of it."""

    words: tyro.conf.Positional[tuple[str, ...]] = ()
    """Words such as cifar100 or dta, or one recipe's name."""
    data: str | None = None
    """Data set whose recipes to list, such as nmnist."""


@dataclass(frozen=True)
class RunsOptions(OfFile):
    """List run folders, wherever they lie in these folders, with recipe, seed, state, result and training time. A run is
    running if a process holds its folder. Nothing of a run is run, so that none needs to be trusted."""

    folders: tyro.conf.Positional[tuple[Path, ...]] = ()
    """Folders to look in; by default ./runs."""
    sort: Literal["last", "run", "recipe", "seed", "state", "result", "time"] = "last"
    """What to sort by; last: of the last event, the newest last. Of results the best is last."""
    csv: Path | None = None
    """.csv to write, with all columns."""


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
    "sweep": SweepOptions,
    "evaluate": EvaluateOptions,
    "energy": EnergyOptions,
    "stream": StreamOptions,
    "predict": PredictOptions,
    "report": ReportOptions,
    "share": ShareOptions,
    "push": PushOptions,
    "export": ExportOptions,
    "check": CheckOptions,
    "data": DataOptions,
    "data show": ShowOptions,
    "data convert": ConvertOptions,
    "data describe": DescribeOptions,
    "recipes": RecipesOptions,
    "runs": RunsOptions,
    "doctor": DoctorOptions,
    "bench": BenchOptions,
}
"""The options of each command."""
