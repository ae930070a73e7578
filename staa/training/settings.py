"""How a run trains, apart from what it trains."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from staa.parallel import Part
from staa.training.evaluate import CLASSIFICATION, Measure
from staa.training.losses import mean_cross_entropy

Compile = bool | Literal["graph"]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What `train` goes by."""

    steps: int
    """Steps of the optimizer in the whole run."""
    loss: Callable[[Tensor, Tensor], Tensor] = mean_cross_entropy
    """Of (outputs, targets)."""
    penalty: Callable[[Iterable[Tensor]], Tensor] | None = None
    """Of the layers' firing rates; it is added to the loss."""
    measure: Measure = CLASSIFICATION
    """What the figures are."""
    measured_on: Literal["validation", "test"] = "validation"
    """What the validation samples are, for the names of the figures."""
    patience: int | None = None
    """The run ends after so many epochs without a better one."""
    clip: float | None = None
    """The largest norm of all gradients together."""
    accumulate: int = 1
    """Pieces a batch is taken in. Their gradients add up to the whole batch's, weighted by their samples."""
    part: Part | None = None
    """What this process takes of each batch; None: all of it."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """bfloat16 has float32's range: there is no loss scaling, by which a step may overflow and be left out."""
    seed: int = 0
    """Every random number of step k follows from (seed, k)."""
    save_every: float = math.inf
    """Seconds between checkpoints within an epoch."""
    bits: bool = False
    """Spikes wait for the backward pass as bits (`staa.ops.bits.spikes_as_bits`)."""
    compile: Compile = False
    """True: the network is compiled, but for each tenth step, in which firing rates are measured. "graph": forward and
    backward pass are recorded as a CUDA graph."""
    read_every: int | None = None
    """Steps between readings from the device. None: 1 on a CPU, which has nothing to wait for, else 10."""
