"""The parts of a recipe: plain frozen data, each field with its meaning."""

from dataclasses import dataclass
from typing import Annotated, Literal

from tyro.constructors import PrimitiveConstructorSpec

from staa.recipes.options import Part, as_part, name_of
from staa.recipes.reading import Reading
from staa.recipes.values import check_types


def _on_command_line(metavar: str) -> PrimitiveConstructorSpec[str | Part | None]:
    """A part is named there, and its options are options of their own."""
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar=metavar,
        instance_from_str=lambda words: None if words[0] in ("None", "none") and "None" in metavar else words[0],
        is_instance=lambda value: value is None or isinstance(value, str | tuple),
        str_from_instance=lambda value: ["None" if value is None else name_of(value)],
    )


Named = Annotated[str | Part, _on_command_line("STR")]
NamedOrNone = Annotated[str | Part | None, _on_command_line("{None}|STR")]


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
    repair: Literal["refuse", "drop", "sort"] = "refuse"
    """A recording with stray times, or events outside the sensor or back in time: refuse it, drop such events, or drop them but
    sort those back in time."""
    frames: Literal["number", "time", "window"] = "number"
    """Event frames of equal numbers of events, of equal duration, or windows of a fixed length."""
    window: float | None = None
    """Length of such windows in milliseconds."""
    steps: int | None = None
    """Event frames of a recording for a network of any number of steps (model.steps None); None: 10."""
    values: Literal["sum", "binary", "normalised"] = "sum"
    """Event frames hold counts, 1 if there is an event, or counts as a share of the recording's largest."""
    sensor: str | None = None
    """HEIGHTxWIDTH of the sensor, such as 260x346, for recordings that don't say it."""
    unit: Literal["s", "ms", "us", "ns"] | None = None
    """Unit of times in recordings as text, arrays or HDF5 that don't say it."""
    stream: str | None = None
    """Which of the recordings in each .aedat4 (a number), HDF5 file (a name) or ROS bag (a topic), if they hold several."""
    upright: bool = False
    """Turn AEDAT 2.0 of a DVS128 upright; else it is transposed, as in published work on CIFAR10-DVS."""
    fit: Literal["stretch", "keep"] = "stretch"
    """A sensor that is not square fills the square frames, or keeps its shape in the middle of them."""
    slice: float | None = None
    """Cut each recording of a folder into pieces of so many seconds, each a sample; all of one recording are in one part."""
    split: str | None = None
    """Named split, if the data set has several, such as fold-1-of-5; None: its default one."""

    def __post_init__(self) -> None:
        check_types(self, "data.")


@dataclass(frozen=True)
class Series(Reading):
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
    transform: Literal["none", "log1p"] = "none"
    """log1p: take log(1 + x) of values that can't be negative before they are normalised; it is undone on a forecast."""
    nonnegative: bool = False
    """Values can't be negative: forecasts below 0 become 0."""
    gaps: Literal["refuse", "mask", "interpolate"] = "refuse"
    """Missing values: refuse them, or leave them out of loss and figures (mask) and show the network what came before them, or
    a line between what came before and after, once it came (interpolate)."""
    season: Literal["none", "day", "week", "day+weekend", "auto"] = "none"
    """Subtract the mean of the training rows at each time of the day, of the week, or of the day on weekdays and on weekends,
    and add it back to the forecast; auto: what a linear model does best with on validation."""
    period: int | None = None
    """Rows of a day, for a season of a series without times, or of a longer one, such as 12 for months; None: times tell."""
    time_features: bool = True
    """Tell the network minute, hour, weekday, day and day of the year, if the series has times."""

    def __post_init__(self) -> None:
        check_types(self, "series.")


@dataclass(frozen=True)
class Forecast:
    """A forecaster, beside its name, steps and neuron in model. One that has no use for a setting refuses it."""

    width: int = 64
    """Features of a node, a patch and a step."""
    patch: int | None = None
    """Most steps of the series that make one token, which has the largest divisor of the window up to that; None: the
    forecaster's own choice for the window."""
    hops: int = 2
    """spikestag: neighbourhoods that are aggregated one after the other, K."""
    graph: Literal["adaptive", "identity", "given"] = "adaptive"
    """spikestag: neighbours are learned, none, or given by the data's graph."""
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
    attention_scale: float | None = 0.125
    """Factor of attention's Q Kᵀ V before its neuron (0.125: SeqSNN's); None: a BatchNorm in its place, which fires with few
    tokens or narrow heads too."""
    day_embedding: bool = False
    """spikestag: learn what the time of day and the weekday mean to each node, if the series has times."""
    blocks: int = 2
    """ispikformer: attention blocks."""
    encoder: Literal["conv", "delta", "repeat"] = "conv"
    """ispikformer: currents of the first neuron are a convolution over three steps, a step's change (delta), or the values as
    they are (repeat)."""
    instance_norm: bool | None = None
    """Normalise each window by its own mean and standard deviation, and undo it on the forecast; None: unless a season of
    weekdays is subtracted, after which a window's level tells what follows."""
    across: bool = False
    """linear: a node's forecast is of all nodes' windows, not of its own."""
    ridge: float = 1e-3
    """linear: weight of the squared coefficients, at least 0; of normalised values and for each row."""

    def __post_init__(self) -> None:
        check_types(self, "forecast.")


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
        check_types(self, "augment.")


@dataclass(frozen=True)
class Loss:
    """What training minimises."""

    name: Named = "mean"
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
        object.__setattr__(self, "name", as_part(self.name, "loss.name"))
        check_types(self, "loss.")


@dataclass(frozen=True)
class Model:
    """The network. A part is a name, or a name and its options: ("staa", {"reduction": 8})."""

    name: Named = "resnet20"
    """Backbone, or my_file.py:function."""
    steps: int | None = 4
    """Time steps T; None for any T, if attention and data allow it."""
    width: float = 1.0
    """Multiplier of every layer's channels."""
    neuron: Named = "adaptive"
    """Neuron, or my_file.py:function."""
    attention: NamedOrNone = "staa"
    """Attention, None for a plain network, or my_file.py:function."""
    sites: Literal["all", "last-of-stage", "stem"] | None = None
    """Where attention goes; None: its own default."""
    residual_init: float = 1.0
    """Initial weight of the last BatchNorm in each residual block (ResNets); at 0.2 the loss falls from the first steps on."""
    norm_momentum: float | None = None
    """Share of a batch in BatchNorm's running statistics; None: the network's own, 0.1. At 0.5 they keep up with the weights
    if validation in the middle of training falls far behind training."""

    def __post_init__(self) -> None:
        for part in ("name", "neuron", "attention"):
            object.__setattr__(self, part, as_part(getattr(self, part), f"model.{part}"))
        check_types(self, "model.")


@dataclass(frozen=True)
class Optim:
    """The optimizer: a linear warm-up, then a cosine from lr to min_lr over the run, set at every step."""

    name: Literal["sgd", "adamw"] = "sgd"
    """Optimizer."""
    lr: float = 0.1
    """Peak learning rate."""
    min_lr: float = 1e-5
    """Learning rate at the end."""
    lr_of: str | None = None
    """Peak learning rates of modules and parameters, by name or pattern, such as readout=0.01,stages.0*=0.001: the first that
    fits counts. They rise and fall as lr does, which is that of the rest."""
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
        check_types(self, "optim.")


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
        check_types(self, "early.")
