"""What a recipe says: plain frozen data that goes to JSON and back. Nothing here knows a network or a data set."""

import dataclasses
import json
import math
import re
import reprlib
import types
from dataclasses import dataclass, field
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from tyro.conf import Suppress  # texts about a recipe are no options of the command line

from staa.files import FORMAT, check_format


@dataclass(frozen=True)
class Data:
    """What it trains on."""

    name: str = "digits-events"
    """Data set."""
    validation: float = 0.1
    """Share of the training set held out for validation, stratified; 0 holds out none."""
    size: int | None = None
    """Height and width of images from a folder (None: 224), or of event frames (None: the sensor's)."""
    resize: int | None = None
    """Shorter side of images from a folder before their centre is cut out; None: size."""
    corrupt: Literal["refuse", "skip", "unchecked"] = "refuse"
    """Files that can't be read: refuse or skip them, after a look at all, or don't look."""
    frames: Literal["number", "time", "window"] = "number"
    """Event frames of equal numbers of events, of equal duration, or windows of a fixed length."""
    window: float | None = None
    """Length of such windows in milliseconds."""
    steps: int | None = None
    """Event frames of a recording for a network of any number of steps (model.steps None); None: 10."""
    values: Literal["sum", "binary", "normalised"] = "sum"
    """Event frames hold counts, 1 where there is an event, or counts as a share of the recording's largest."""
    sensor: str | None = None
    """HEIGHTxWIDTH of the sensor, such as 260x346, for recordings that don't say it."""
    split: str | None = None
    """Named split, where the data set has several, such as fold-1-of-5; None: its usual one."""

    def __post_init__(self) -> None:
        _check_types(self, "data.")


@dataclass(frozen=True)
class Series:
    """Forecasting: what of a series is seen and told. The rest of the series' settings is data's: its name, its validation."""

    horizon: int | None = None
    """Steps that are forecast; None: the recipe is of images or events."""
    window: int = 12
    """Steps that are seen."""
    train: float = 0.7
    """Share of the windows, the first ones, to train on; data.validation of them follow, and the rest is the test set."""
    normalise: Literal["none", "max", "max-per-variate", "zscore", "zscore-per-variate"] = "zscore"
    """Divide by the largest absolute value, or subtract the mean and divide by the standard deviation."""
    fit_on: Literal["train", "all"] = "train"
    """What that is taken of: the rows that training sees, or the whole series (a leak, as in SeqSNN's code)."""
    gaps: Literal["refuse", "mask", "interpolate"] = "refuse"
    """Missing values: refuse them, leave them out of loss and figures, or fill them in from both sides before all else."""
    time_features: bool = True
    """Tell the network minute, hour, weekday, day and day of the year, where the series has times."""
    graph: str | None = None
    """File of the graph of a series of one's own: a matrix, or a list of edges."""
    distances: bool = False
    """That graph holds distances: its weights become exp(−(d / std)²)."""
    time: str | None = None
    """Column of the times in a CSV file of one's own; None: the first, where it holds dates."""

    def __post_init__(self) -> None:
        _check_types(self, "series.")


@dataclass(frozen=True)
class Forecast:
    """A forecaster, beside its name, steps and neuron in model. One that has no use for a setting refuses it."""

    width: int = 64
    """Features of a node, a patch and a step."""
    patch: int | None = None
    """Steps of the series that make one token; None: the forecaster's own choice for the window."""
    hops: int = 2
    """spikestag: neighbourhoods that are aggregated one after the other, K."""
    graph: Literal["adaptive", "identity", "given"] = "adaptive"
    """spikestag: neighbours are learned, none, or those of the data's graph."""
    top_k: int | None = None
    """spikestag: neighbours of a node, the strongest; None: all."""
    observe: bool = True
    """spikestag: the observation block."""
    fusion: Literal["both", "lstm", "attention", "sum"] = "both"
    """spikestag: the LSTM's and the attention's sequence joined by a spiking gate, one of them alone, or their sum."""
    spike_messages: bool = False
    """spikestag: fire before what neighbours say is multiplied, so that every product has a binary side."""
    tokens: Literal["patch", "node"] = "patch"
    """spikestag: attention over a node's patches, or over the nodes of a patch."""
    heads: int = 8
    """Attention heads."""
    blocks: int = 2
    """ispikformer: attention blocks."""
    encoder: Literal["conv", "delta"] = "conv"
    """ispikformer: currents of the first neuron are a convolution over three steps, or a step's change (delta)."""
    instance_norm: bool = True
    """Normalise each window by its own mean and standard deviation, and undo it on the forecast."""
    across: bool = False
    """linear: a node's forecast is of all nodes' windows, not of its own."""
    ridge: float = 1e-3
    """linear: weight of the squared coefficients, at least 0; of normalised values and for each row."""

    def __post_init__(self) -> None:
        _check_types(self, "forecast.")


@dataclass(frozen=True)
class Augment:
    """What is done to training samples, in this order; by default nothing."""

    scale: float | None = None
    """Random resized crop of images from a folder: the smallest share of the area it takes; None: no such crop."""
    shift: int = 0
    """Random shift by up to so many pixels along each axis."""
    flip: bool = False
    """Mirror every other sample."""
    policy: Literal["autoaugment-cifar10", "autoaugment-imagenet", "randaugment"] | None = None
    """Learned or random image operations, on photographs."""
    magnitude: int = 9
    """Strength of randaugment, of 30."""
    jitter: float = 0.0
    """Brightness, contrast and saturation change by up to this share."""
    events: Literal["nda", "eventdrop"] | None = None
    """One random operation, or none, on each sample of event frames: a shift along x or y, a rotation, a shear or a cutout
    (nda); or a loss of events, by time, by area or at random (eventdrop)."""
    cutout: int = 0
    """Side of a square that is blanked, in pixels; 0: none."""
    mixup: float = 0.0
    """MixUp with λ ~ Beta(mixup, mixup); 0: none."""
    cutmix: float = 0.0
    """CutMix with λ ~ Beta(cutmix, cutmix); 0: none. With both, each batch takes one of the two."""
    mix_probability: float = 1.0
    """Share of the batches that are mixed."""
    mix_epochs: bool = False
    """Mix whole epochs, that share of them, not single batches."""
    mix_hard: bool = False
    """Give a mixed sample the label of its larger part alone, as DTA-SNN's code does."""

    def __post_init__(self) -> None:
        _check_types(self, "augment.")


@dataclass(frozen=True)
class Loss:
    """What training minimises."""

    name: str = "mean"
    """mean: cross-entropy of the time-mean logits; bce: their binary cross-entropy, each class for itself; tet: mean over
    time of each step's cross-entropy; mse, mae: of a forecast; or my_file.py:function."""
    label_smoothing: float = 0.0
    """Label smoothing of mean, bce and tet."""
    tet_weight: float = 1e-3
    """TET's λ: the weight of its mean squared distance to tet_level."""
    tet_level: float = 1.0
    """TET's φ: the level that all logits are drawn to."""
    rate_weight: float = 0.0
    """Weight of the firing-rate penalty, mean over layers of (rate − rate_target)²; 0: none."""
    rate_target: float = 0.1
    """The firing rate it aims at, spikes per neuron and step."""

    def __post_init__(self) -> None:
        _check_types(self, "loss.")


@dataclass(frozen=True)
class Model:
    """The network."""

    name: str = "resnet20"
    """Backbone, or my_file.py:function."""
    steps: int | None = 4
    """Time steps T; None for any T, where attention and data allow it."""
    width: float = 1.0
    """Multiplier of every layer's channels."""
    neuron: str = "adaptive"
    """Neuron, or my_file.py:function."""
    attention: str | None = "staa"
    """Attention, None for a plain network, or my_file.py:function."""
    sites: Literal["all", "last-of-stage", "stem"] | None = None
    """Where attention goes; None: its own default."""
    residual_init: float = 1.0
    """Initial weight of the last BatchNorm in each residual block (ResNets); at 0.2 the loss falls from the first steps on."""
    norm_momentum: float | None = None
    """Share of a batch in BatchNorm's running statistics; None: the network's own, 0.1. At 0.5 they keep up with the weights
    where validation in the middle of training falls far behind training."""

    def __post_init__(self) -> None:
        _check_types(self, "model.")


@dataclass(frozen=True)
class Optim:
    """The optimizer: a linear warm-up, then a cosine from lr to min_lr over the run, set at every step."""

    name: Literal["sgd", "adamw"] = "sgd"
    """Optimizer."""
    lr: float = 0.1
    """Peak learning rate."""
    min_lr: float = 1e-5
    """Learning rate at the end."""
    momentum: float = 0.9
    """Momentum (sgd)."""
    nesterov: bool = False
    """Nesterov's momentum (sgd)."""
    weight_decay: float = 0.0
    """Weight decay of convolution and linear weights; not on norms, biases, decays, gains and position encodings."""
    decay_all: bool = False
    """Weight decay on every parameter."""
    warmup_epochs: float = 0.0
    """Epochs of linear warm-up, at most half of the run."""
    clip: float | None = None
    """Largest norm of the whole gradient; None: no clipping."""
    patience: int | None = None
    """Stop after so many epochs without a better one on validation; None: all epochs."""
    accumulate: int = 1
    """Pieces a batch is taken in, their gradients added up: less memory. What is taken over a batch, as BatchNorm's
    statistics and firing rates are, is then taken over a piece."""
    ema: float = 0.0
    """Decay per step of an exponential moving average of weights and BatchNorm's statistics, which is what is measured; 0:
    none."""

    def __post_init__(self) -> None:
        _check_types(self, "optim.")


@dataclass(frozen=True)
class Early:
    """What is smaller early in training, to save time; by default nothing. Validation and test see all of it."""

    steps: int | None = None
    """Time steps at first, of still images and a network in which no step sees a later one; None: model.steps."""
    steps_share: float = 0.5
    """Share of the run that has so few."""
    size: int | None = None
    """Height and width that images are resized to at first, after augmentation; None: their own."""
    size_share: float = 0.5
    """Share of the run in which they grow to their own."""
    size_stages: int = 2
    """Sizes that they have in it, evenly spaced, for equal times. A compiled or recorded run prepares itself for each anew."""

    def __post_init__(self) -> None:
        _check_types(self, "early.")


@dataclass(frozen=True)
class Recipe:
    """How to train one network: the whole truth of a run but for its seed's draws and the machine."""

    name: Suppress[str] = ""
    """What it is called."""
    summary: Suppress[str] = ""
    """One line on what it is."""
    source: Suppress[str] = ""
    """Where its numbers come from."""
    expect: Suppress[str] = ""
    """What we measured, or that we did not; the paper's figure is marked as such."""
    data: Data = field(default_factory=Data)
    series: Series = field(default_factory=Series)
    augment: Augment = field(default_factory=Augment)
    model: Model = field(default_factory=Model)
    forecast: Forecast = field(default_factory=Forecast)
    loss: Loss = field(default_factory=Loss)
    optim: Optim = field(default_factory=Optim)
    early: Early = field(default_factory=Early)
    epochs: int = 10
    """Passes over the training set."""
    max_steps: int | None = None
    """Stop after so many optimizer steps, with the schedule fitted to them; None: all epochs."""
    batch_size: int = 128
    """Samples a step."""
    protocol: Literal["test-once", "paper"] = "test-once"
    """paper: measure on the test set after each epoch, as the papers do, and tell the best epoch too."""
    weights: Literal["last", "best"] = "last"
    """Weights that the test figures are of: the last epoch's, or those best on validation."""
    init_from: str | None = None
    """Run folder whose weights to start from, where they fit."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """auto: bfloat16 autocast on a GPU that has it, else float32."""
    seed: int = 0
    """Seed of every random number of the run."""
    folder: Suppress[str | None] = field(default=None, compare=False)
    """The run folder it was read from; None for a recipe made in Python. It is not in the JSON."""

    def __post_init__(self) -> None:
        _check_types(self)
        _require(bool(re.fullmatch(r"[\w+-][\w.+-]*|", self.name)), "a recipe's name has letters, digits, _ . + -", self.name)
        _require(0 <= self.seed < 2**63, "seed is from 0 to 2**63 - 1", self.seed)
        data, augment, model, loss, optim = self.data, self.augment, self.model, self.loss, self.optim
        early = self.early
        for name, value in (
            ("epochs", self.epochs), ("batch_size", self.batch_size), ("max_steps", self.max_steps), ("data.size", data.size),
            ("data.resize", data.resize), ("model.steps", model.steps), ("optim.accumulate", optim.accumulate),
            ("data.steps", data.steps), ("series.horizon", self.series.horizon), ("series.window", self.series.window),
            ("forecast.width", self.forecast.width), ("forecast.patch", self.forecast.patch),
            ("forecast.top_k", self.forecast.top_k), ("forecast.heads", self.forecast.heads),
            ("forecast.blocks", self.forecast.blocks), ("optim.patience", optim.patience),
            ("early.steps", early.steps), ("early.size", early.size), ("early.size_stages", early.size_stages),
        ):  # fmt: skip
            _require(value is None or value >= 1, f"{name} must be at least 1", value)
            most = MOST.get(name) or 2**31
            _require(value is None or value < most, f"{name} is below {most:,}", value)
        _require((data.size or 1) < 2**15 and (data.resize or 1) < 2**15, "data.size and data.resize are below 32768", data)
        for name, value in (
            ("data.validation", data.validation), ("augment.jitter", augment.jitter), ("optim.momentum", optim.momentum),
            ("loss.label_smoothing", loss.label_smoothing), ("optim.ema", optim.ema),
        ):  # fmt: skip
            _require(0 <= value < 1, f"{name} is in [0, 1)", value)
        for name, value in (
            ("augment.mix_probability", augment.mix_probability), ("loss.tet_weight", loss.tet_weight),
            ("loss.rate_target", loss.rate_target), ("augment.scale", augment.scale or 1.0),
        ):  # fmt: skip
            _require(0 <= value <= 1, f"{name} is in [0, 1]", value)
        for name, value in (
            ("augment.shift", augment.shift), ("augment.cutout", augment.cutout), ("augment.mixup", augment.mixup),
            ("augment.cutmix", augment.cutmix), ("loss.rate_weight", loss.rate_weight),
            ("optim.warmup_epochs", optim.warmup_epochs), ("optim.weight_decay", optim.weight_decay),
            ("model.residual_init", model.residual_init),
        ):  # fmt: skip
            _require(0 <= value <= 1e6, f"{name} is from 0 to a million", value)
        _require(not optim.nesterov or optim.momentum > 0, "optim.nesterov needs optim.momentum above 0", optim.momentum)
        for name, value in (("augment.mixup", augment.mixup), ("augment.cutmix", augment.cutmix)):
            _require(value == 0 or value >= 1e-3, f"{name} is 0, or at least 0.001", value)
        _require(0 <= self.forecast.hops <= 1000, "forecast.hops is from 0 to 1000", self.forecast.hops)
        _require(0 < self.series.train < 1, "series.train is between 0 and 1", self.series.train)
        _require(
            self.series.horizon is None or self.protocol == "test-once",
            'a forecast is chosen on validation and tested once: protocol must be "test-once"',
            self.protocol,
        )
        for name, share in (("early.steps_share", early.steps_share), ("early.size_share", early.size_share)):
            _require(0 < share <= 1, f"{name} is above 0 and at most 1", share)
        _require(
            early.steps is None or (model.steps is not None and early.steps < model.steps),
            f"early.steps is below model.steps, which is {model.steps}",
            early.steps,
        )
        _require(
            self.series.horizon is None or (early.steps is None and early.size is None),
            "a forecast has no smaller form early in training: early.steps and early.size must be None",
            f"{early.steps} and {early.size}",
        )
        needs = "best" if self.weights == "best" else "a patience" if optim.patience is not None else None
        _require(needs is None or data.validation > 0, f"{needs} needs validation: data.validation above 0", data.validation)
        _require(data.window is None or 1e-3 <= data.window <= 1e9, "data.window is from 0.001 to a billion ms", data.window)
        _require(
            None in (data.steps, model.steps),
            "data.steps must be None unless model.steps is None",
            data.steps,
        )
        _require(math.isfinite(loss.tet_level), "loss.tet_level is finite", loss.tet_level)
        _require(0 <= augment.magnitude <= 30, "augment.magnitude is from 0 to 30", augment.magnitude)
        _require(augment.scale is None or augment.scale > 0, "augment.scale must be positive", augment.scale)
        _require(0 < optim.lr <= 1e6, "optim.lr is positive, a million at most", optim.lr)
        _require(0 <= optim.min_lr <= optim.lr, "optim.min_lr is from 0 to optim.lr", optim.min_lr)
        _require(optim.clip is None or optim.clip > 0, "optim.clip must be positive", optim.clip)
        _require(model.width > 0, "model.width must be positive", model.width)
        share = model.norm_momentum
        _require(share is None or 0 < share <= 1, "`model.norm_momentum` is above 0 and at most 1", share)
        _require(self.batch_size % optim.accumulate == 0, "`optim.accumulate` must divide `batch_size`", optim.accumulate)
        _require(
            self.protocol == "test-once" or data.validation == 0,
            "the paper's protocol measures on the test set and holds out no validation: data.validation must be 0",
            data.validation,
        )


MOST: dict[str, int] = {
    "model.steps": 2**20, "data.steps": 2**20, "forecast.blocks": 1000, "forecast.heads": 2**16, "forecast.width": 2**20,
    "series.window": 2**24, "series.horizon": 2**24, "early.size_stages": 5,
}  # fmt: skip
"""Bounds of what a recipe makes loops and tensors of, far above any use; what fits into memory is checked when it is built."""
PARTS = {
    "data": Data, "series": Series, "augment": Augment, "model": Model, "forecast": Forecast, "loss": Loss, "optim": Optim,
    "early": Early,
}  # fmt: skip


def to_json(recipe: Recipe) -> str:
    """The recipe as JSON text, every field written out."""
    values = {"format": FORMAT, **dataclasses.asdict(recipe)}
    del values["folder"]
    return json.dumps(values, indent=2) + "\n"


def from_json(text: str, folder: str = "") -> Recipe:
    """The recipe of such a text; a field it lacks, as one of an older version may, takes its default.

    folder: the run folder that the text is of. Such a recipe's names are its writer's word, not this process's user's: see
    `staa.find`. Raises ValueError naming a field that is unknown, a part that is missing, or what is no JSON, and for the text
    of a newer version.
    """
    values = parse_json(text)
    if isinstance(values, dict):
        check_format(values.pop("format", 0), "this recipe")
    for name, part in PARTS.items():
        if isinstance(values, dict) and name in ("series", "augment", "forecast", "loss", "early"):
            values.setdefault(name, {})
        if not isinstance(values, dict) or not isinstance(values.get(name), dict):
            raise ValueError(f"this is no recipe: it has no {name!r}")
        values[name] = _filled(part, values[name], f"{name}.")
    return dataclasses.replace(_filled(Recipe, values, ""), folder=folder)


def parse_json(text: str) -> Any:
    """json.loads, with ValueError for every text that is no JSON."""
    try:
        return json.loads(text)  # JSONDecodeError is a ValueError
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def differences(a: Recipe, b: Recipe) -> list[str]:
    """The fields in which two recipes differ, as 'field: a's, b's'; texts about the recipe do not count."""
    flat_a, flat_b = _flat(a), _flat(b)
    return [f"{k}: {flat_a[k]!r}, {flat_b[k]!r}" for k in flat_a if flat_a[k] != flat_b[k]]


def _flat(recipe: Recipe) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in dataclasses.asdict(recipe).items():
        if isinstance(value, dict):
            flat |= {f"{key}.{k}": v for k, v in value.items()}
        elif key not in ("summary", "source", "expect", "folder"):
            flat[key] = value
    return flat


def _filled(kind: Any, values: dict[str, Any], prefix: str) -> Any:
    unknown = values.keys() - {f.name for f in dataclasses.fields(kind) if f.name != "folder"}
    if unknown:
        raise ValueError(f"this recipe is of another version of staa: unknown {', '.join(prefix + k for k in sorted(unknown))}")
    return kind(**values)


def _check_types(values: Any, prefix: str = "") -> None:
    """Raises ValueError for a field whose value is not of its annotated type; a whole number passes for a float."""
    for name, hint in get_type_hints(type(values)).items():
        value, allowed = getattr(values, name), _alternatives(hint)
        if type(value) in allowed or (isinstance(value, str) and value in allowed) or (float in allowed and type(value) is int):
            continue
        names = ", ".join("None" if a is type(None) else a.__name__ if isinstance(a, type) else repr(a) for a in allowed)
        raise ValueError(f"{prefix}{name} must be {names}; got {reprlib.repr(value)}")


def _alternatives(hint: Any) -> list[Any]:
    """The types and literal values an annotation allows."""
    if get_origin(hint) is Literal:
        return list(get_args(hint))
    if get_origin(hint) in (types.UnionType, Union):
        return [a for part in get_args(hint) for a in _alternatives(part)]
    return [hint]


def _require(fine: bool, rule: str, given: Any) -> None:
    if not fine:
        raise ValueError(f"{rule}, got {given}")
