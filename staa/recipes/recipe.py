"""What a recipe says: plain frozen data that goes to JSON and back. Nothing here knows a network or a data set."""

import math
import re
from dataclasses import dataclass, field
from typing import Any, Literal

from tyro.conf import Suppress  # texts about a recipe are no options of the command line

from staa.recipes.parts import Augment, Data, Early, Forecast, Loss, Model, Optim, Series
from staa.recipes.values import check_types, raise_all, rates_in


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
    """What it trains on."""
    series: Series = field(default_factory=Series)
    """Forecasting: what of a series is seen and told. The rest of the series' settings is data's: its name, its validation."""
    augment: Augment = field(default_factory=Augment)
    """What is done to training samples, in this order; by default nothing."""
    model: Model = field(default_factory=Model)
    """The network."""
    forecast: Forecast = field(default_factory=Forecast)
    """A forecaster, beside its name, steps and neuron in model. One that has no use for a setting refuses it."""
    loss: Loss = field(default_factory=Loss)
    """What training minimises."""
    optim: Optim = field(default_factory=Optim)
    """The optimizer: a linear warm-up, then a cosine from lr to min_lr over the run, set at every step."""
    early: Early = field(default_factory=Early)
    """What is smaller early in training, to save time; by default nothing. Validation and test see all of it."""
    epochs: int = 10
    """Passes over the training set."""
    max_steps: int | None = None
    """Stop after so many optimizer steps, with the schedule fitted to them; None: all epochs."""
    batch_size: int = 128
    """Samples a step."""
    protocol: Literal["test-once", "paper"] = "test-once"
    """paper: measure on the test set after each epoch, as the papers do, and tell the best epoch too."""
    weights: Literal["last", "best"] = "last"
    """Weights that the test figures are of: the last epoch's, or the best on validation."""
    init_from: str | None = None
    """Run folder whose weights to start from, as far as they fit. On the command line its network and the preparation of its
    inputs come with them, but for what is told there."""
    freeze: str | None = None
    """Modules and parameters that stay as they are, by name or pattern, such as stages.0,stages.1.*.norm. BatchNorm in a frozen
    module keeps its statistics."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """auto: bfloat16 autocast on a GPU that has it, else float32."""
    sync_norm: bool = False
    """BatchNorm's statistics are those of the whole batch, if several processes train together, not of each one's part."""
    seed: int = 0
    """Seed of every random number of the run."""
    prolonged: Suppress[tuple[int, ...]] = ()
    """Epochs that were added once it was finished, each time down another cosine from lr to min_lr."""
    folder: Suppress[str | None] = field(default=None, compare=False)
    """The run folder it was read from; None for a recipe made in Python. It is not in the JSON."""

    @property
    def frozen(self) -> list[str]:
        """The names and patterns in `freeze`."""
        return [] if self.freeze is None else [part.strip() for part in self.freeze.split(",")]

    @property
    def all_epochs(self) -> int:
        """Epochs, with those that were added once it was finished."""
        return self.epochs + sum(self.prolonged)

    def steps(self, in_epoch: int) -> int:
        """Optimizer steps, without those of epochs that were added; in_epoch: batches of an epoch."""
        steps = self.epochs * in_epoch
        return steps if self.max_steps is None else min(steps, self.max_steps)

    def __post_init__(self) -> None:
        if isinstance(self.prolonged, list):  # as JSON has it
            object.__setattr__(self, "prolonged", tuple(self.prolonged))
        check_types(self)
        wrong: list[str] = []

        def require(fine: bool, rule: str, given: Any) -> None:
            if not fine:
                wrong.append(f"{rule}, got {given}")

        require(
            bool(re.fullmatch(r"[\w+-][\w.+-]*|", self.name)),
            "name must be letters, digits and _ . + -, and not begin with a dot",
            self.name,
        )
        require(0 <= self.seed < 2**63, "seed must be from 0 to 2**63 - 1", self.seed)
        data, augment, model, loss, optim = self.data, self.augment, self.model, self.loss, self.optim
        early = self.early
        for name, value in (
            ("epochs", self.epochs), ("batch_size", self.batch_size), ("max_steps", self.max_steps), ("data.size", data.size),
            ("data.resize", data.resize), ("model.steps", model.steps), ("optim.accumulate", optim.accumulate),
            ("data.steps", data.steps), ("series.horizon", self.series.horizon), ("series.window", self.series.window),
            ("series.period", self.series.period),
            ("forecast.width", self.forecast.width), ("forecast.patch", self.forecast.patch),
            ("forecast.top_k", self.forecast.top_k), ("forecast.heads", self.forecast.heads),
            ("forecast.blocks", self.forecast.blocks), ("optim.patience", optim.patience),
            ("early.steps", early.steps), ("early.size", early.size), ("early.size_stages", early.size_stages),
        ):  # fmt: skip
            require(value is None or value >= 1, f"{name} must be at least 1", value)
            most = MOST.get(name) or 2**31
            require(value is None or value < most, f"{name} must be below {most:,}", value)
        for epochs in self.prolonged:
            require(type(epochs) is int and 1 <= epochs < 2**31, "prolonged must be whole numbers of epochs from 1", epochs)
        for name, value in (
            ("data.validation", data.validation), ("augment.jitter", augment.jitter), ("optim.momentum", optim.momentum),
            ("loss.label_smoothing", loss.label_smoothing), ("optim.ema", optim.ema),
        ):  # fmt: skip
            require(0 <= value < 1, f"{name} must be at least 0 and below 1", value)
        for name, value in (
            ("augment.mix_probability", augment.mix_probability), ("loss.tet_weight", loss.tet_weight),
            ("loss.rate_target", loss.rate_target), ("augment.scale", augment.scale or 1.0),
        ):  # fmt: skip
            require(0 <= value <= 1, f"{name} must be from 0 to 1", value)
        for name, value in (
            ("augment.shift", augment.shift), ("augment.cutout", augment.cutout), ("augment.mixup", augment.mixup),
            ("augment.cutmix", augment.cutmix), ("loss.rate_weight", loss.rate_weight),
            ("optim.warmup_epochs", optim.warmup_epochs), ("optim.weight_decay", optim.weight_decay),
            ("model.residual_init", model.residual_init),
        ):  # fmt: skip
            require(0 <= value <= 1e6, f"{name} must be from 0 to a million", value)
        require(
            not optim.nesterov or optim.momentum > 0,
            "optim.nesterov needs momentum: optim.momentum must be above 0",
            optim.momentum,
        )
        for name, value in (("augment.mixup", augment.mixup), ("augment.cutmix", augment.cutmix)):
            require(value == 0 or value >= 1e-3, f"{name} must be 0 or at least 0.001", value)
        require(0 <= self.forecast.hops <= 1000, "forecast.hops must be from 0 to 1000", self.forecast.hops)
        require(0 < self.series.train < 1, "series.train must be between 0 and 1", self.series.train)
        require(
            self.series.horizon is None or self.protocol == "test-once",
            'a forecast is chosen on validation and tested once: protocol must be "test-once"',
            self.protocol,
        )
        for name, share in (("early.steps_share", early.steps_share), ("early.size_share", early.size_share)):
            require(0 < share <= 1, f"{name} must be above 0 and at most 1", share)
        require(
            early.steps is None or (model.steps is not None and early.steps < model.steps),
            f"early.steps must be below model.steps, which is {model.steps}",
            early.steps,
        )
        require(
            self.series.horizon is None or (early.steps is None and early.size is None),
            "a forecast has no smaller form early in training: early.steps and early.size must be None",
            f"{early.steps} and {early.size}",
        )
        needs = 'weights="best"' if self.weights == "best" else "optim.patience" if optim.patience is not None else None
        rule = f"{needs} needs validation samples: data.validation must be above 0"
        require(needs is None or data.validation > 0, rule, data.validation)
        require(
            data.window is None or 1e-3 <= data.window <= 1e9, "data.window must be from 0.001 to a billion ms", data.window
        )
        require(data.slice is None or 1e-3 <= data.slice <= 1e6, "data.slice must be from 0.001 to a million s", data.slice)
        require(
            None in (data.steps, model.steps),
            "data.steps must be None unless model.steps is None",
            data.steps,
        )
        require(math.isfinite(loss.tet_level), "loss.tet_level must be finite", loss.tet_level)
        require(0 <= augment.magnitude <= 30, "augment.magnitude must be from 0 to 30", augment.magnitude)
        require(augment.scale is None or augment.scale > 0, "augment.scale must be positive", augment.scale)
        require(0 < optim.lr <= 1e6, "optim.lr must be positive and at most a million", optim.lr)
        require(0 <= optim.min_lr <= optim.lr, f"optim.min_lr must be from 0 to optim.lr, which is {optim.lr}", optim.min_lr)
        require(optim.clip is None or optim.clip > 0, "optim.clip must be positive", optim.clip)
        for name, value in (("freeze", self.freeze), ("optim.lr_of", optim.lr_of)):
            require(value is None or all(part.strip() for part in value.split(",")), f"`{name}` has an empty part", repr(value))
        try:
            rates = rates_in(optim.lr_of)
            for part, lr in rates.items():
                require(0 < lr <= 1e6, f"`optim.lr_of` must be positive and at most a million for {part}", lr)
        except ValueError as error:
            wrong.append(str(error))
        require(model.width > 0, "model.width must be positive", model.width)
        share = model.norm_momentum
        require(share is None or 0 < share <= 1, "`model.norm_momentum` must be above 0 and at most 1", share)
        require(self.batch_size % optim.accumulate == 0, "`optim.accumulate` must divide `batch_size`", optim.accumulate)
        require(
            self.protocol == "test-once" or data.validation == 0,
            'protocol="paper" measures on the test set and holds out no validation samples: data.validation must be 0',
            data.validation,
        )
        raise_all(wrong)


MOST: dict[str, int] = {
    "model.steps": 2**20, "data.steps": 2**20, "forecast.blocks": 1000, "forecast.heads": 2**16, "forecast.width": 2**20,
    "series.window": 2**24, "series.horizon": 2**24, "early.size_stages": 5,
    "data.size": 2**15, "data.resize": 2**15,
}  # fmt: skip
"""Bounds of what a recipe makes loops and tensors of, far above any use; what fits into memory is checked when it is built."""
