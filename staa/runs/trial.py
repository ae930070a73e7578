"""What a run tries before it writes anything."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from staa.rates import firing_rates
from staa.training.evaluate import Inputs, call


def try_out(model: nn.Module, x: Inputs, y: Tensor, loss: Callable[..., Tensor], *, penalty: Any, backward: bool) -> None:
    """One sample through network and loss, and back: what does not fit speaks before anything is written. Raises ValueError."""
    with torch.set_grad_enabled(backward), torch.random.fork_rng(devices=[]), firing_rates(model) as rates:
        outputs = call(model.eval(), x)
        try:
            value = loss(outputs, y)
        except (RuntimeError, TypeError, IndexError) as error:
            kind = "labels" if not y.is_floating_point() else "probabilities" if y.ndim == 2 else "values"
            shapes = f"outputs {list(outputs.shape)} and {kind} {list(y.shape)}"
            raise ValueError(f"the loss can't be taken of {shapes}: {error}") from error
        if not isinstance(value, Tensor) or value.ndim:
            raise ValueError(
                f"a loss must be a scalar tensor, got {list(value.shape) if isinstance(value, Tensor) else value!r}"
            )
        if penalty is not None:
            penalty(rates.values())
        if value.requires_grad:
            value.backward()
            model.zero_grad()
