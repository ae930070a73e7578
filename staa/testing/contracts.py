"""Contracts on values, gradients and spikes: each takes a built module and raises AssertionError, in words, if it is broken."""

import copy

import torch
from torch import Tensor, nn

ROUNDING = 1e-9
FLIPPED = 0.01  # of all spikes: those that rounding may move across a threshold


def randomised(module: nn.Module, spread: float = 0.2) -> nn.Module:
    """The module, each parameter moved at random, so that no gate is constant and no gradient zero by symmetry.

    Args:
        module: Changed in place.
        spread: Standard deviation of the moves.
    """
    with torch.no_grad():
        for p in module.parameters():
            p.add_(spread * torch.randn_like(p))
    return module


def random_input(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """Normal random numbers, to try a module on.

    Args:
        *shape: T, N and the rest.
        dtype: float64, so that rounding hides nothing.

    Shapes:
        -> x [T, N, ...]
    """
    return torch.randn(*shape, dtype=dtype)


def shape_and_finite(module: nn.Module, x: Tensor, shape: tuple[int, ...]) -> None:
    """The output has the expected shape and the input's dtype, and each value is finite.

    Args:
        module: Called as it is.
        x: Input to try it on.
        shape: Expected of the output.

    Shapes:
        x [T, N, ...] -> output of `shape`

    Raises:
        AssertionError: In words, if that is not so.
    """
    y = module(x)
    demand(isinstance(y, Tensor), f"the output is a {type(y).__name__}, not a tensor")
    demand(y.shape == shape, f"the output is {list(y.shape)}, expected {list(shape)} for an input {list(x.shape)}")
    demand(y.dtype == x.dtype, f"the output is {y.dtype}, the input {x.dtype}")
    demand(bool(y.isfinite().all()), f"{int((~y.isfinite()).sum())} of {y.numel()} values are not finite")


def every_parameter_learns(module: nn.Module, x: Tensor) -> None:
    """Each parameter gets a gradient within two optimizer steps.

    Args:
        module: A copy of it is trained.
        x: Input to try it on.

    Shapes:
        x [T, N, ...]

    Raises:
        AssertionError: In words, if that is not so.
    """
    if not list(module.parameters()):
        return
    module = copy.deepcopy(module).train()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    target, seen = None, set()
    for _ in range(2):
        y = module(x)
        target = torch.randn_like(y) if target is None else target
        optimizer.zero_grad()
        (y * target).sum().backward()
        for name, p in module.named_parameters():
            demand(p.grad is None or bool(p.grad.isfinite().all()), f"the gradient of {name} is not finite")
        seen |= {name for name, p in module.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
        optimizer.step()
    silent = [name for name, _ in module.named_parameters() if name not in seen]
    demand(not silent, f"no gradient reaches {', '.join(silent[:5])}{' …' if len(silent) > 5 else ''}")


def state_dict_round_trip(module: nn.Module, fresh: nn.Module, x: Tensor) -> None:
    """A fresh module that takes the state dict gives the same output, and so does a deep copy.

    Args:
        module: Put in evaluation mode.
        fresh: Another one, built alike, which takes the state dict of the first.
        x: Input to try it on.

    Shapes:
        x [T, N, ...]

    Raises:
        AssertionError: In words, if that is not so.
    """
    fresh.load_state_dict(module.state_dict())
    for each in (module, fresh):
        each.eval()
    with torch.no_grad():
        y = module(x)
        demand(
            torch.equal(y, fresh(x)), "a fresh module with this state dict gives another output: what it goes by is not in it"
        )
        demand(torch.equal(y, copy.deepcopy(module)(x)), "a deep copy gives another output")


def folding_changes_nothing(module: nn.Module, x: Tensor, *, training: bool = False) -> None:
    """With a hook on each module each is called, without one some are folded: output and gradients are the same.

    But for rounding, and for spikes that it moves across a threshold.

    Args:
        module: A copy of it is called, in float64.
        x: Input to try it on, in float64.
        training: In training mode, with the same random numbers.

    Shapes:
        x [T, N, C, H, W]

    Raises:
        AssertionError: In words, if that is not so.
    """
    module = copy.deepcopy(module).double().train(training)
    called = copy.deepcopy(module)
    for part in called.modules():
        part.register_forward_hook(lambda *_: None)
    folded, called = _value_and_gradients(module, x), _value_and_gradients(called, x)
    demand(_almost(folded[0], called[0]), "folded into the neuron, the output is another than when every module is called")
    for a, b in zip(folded[1:], called[1:], strict=True):
        demand(_almost(a, b), "folded into the neuron, a gradient is another than when every module is called")


def silence_and_noise_are_finite(module: nn.Module, x: Tensor) -> None:
    """No input and one of 100 times the size give finite outputs and gradients, in float32 and evaluation mode.

    Neurons are often silent; in training, a BatchNorm that sees no variance would multiply gradients by 1/√eps.

    Args:
        module: A copy of it is called.
        x: Input of ordinary size.

    Shapes:
        x [T, N, ...]

    Raises:
        AssertionError: In words, if that is not so.
    """
    module = copy.deepcopy(module).float().eval()
    for name, size in (("zero", 0.0), ("100 times a normal input", 100.0)):
        y, *gradients = _value_and_gradients(module, (size * x).float())
        demand(bool(y.isfinite().all()), f"for an input of {name}, the output is not finite")
        demand(all(bool(g.isfinite().all()) for g in gradients), f"for an input of {name}, a gradient is not finite")


def it_fires(neuron: nn.Module, x: Tensor) -> None:
    """Outputs are 0 or 1, and both occur for some input.

    Args:
        neuron: Put in evaluation mode.
        x: Current of ordinary size; 0, 1 and 10 times it are tried.

    Shapes:
        x [T, N, ...]

    Raises:
        AssertionError: In words, if that is not so.
    """
    with torch.no_grad():
        spikes = torch.cat([neuron.eval()(size * x) for size in (0.0, 1.0, 10.0)])
    odd = spikes[(spikes != 0) & (spikes != 1)][:1].tolist()
    demand(not odd, f"a spike is 0 or 1, and there are outputs such as {odd[0]:.4g}" if odd else "")
    demand(bool((spikes == 1).any()), "it never fires")
    demand(bool((spikes == 0).any()), "it always fires")


def an_affine_current_is_one(neuron: nn.Module, x: Tensor) -> None:
    """neuron(x, scale, shift) = neuron(scale · x + shift), to rounding.

    Args:
        neuron: Called as it is.
        x: Current to try it on.

    Shapes:
        x [T, N, C, H, W]

    Raises:
        AssertionError: In words, if that is not so.
    """
    channels = x.shape[2]
    scale, shift = (torch.rand(1, 1, channels, 1, 1, dtype=x.dtype) + 0.5 for _ in range(2))
    with torch.no_grad():
        given, made = neuron(x, scale, shift), neuron(x * scale + shift)
    demand(_almost(given, made), "neuron(x, scale, shift) is not neuron(scale · x + shift)")


class OnSpikes(nn.Module):
    """Attention that acts on spikes, as a map of one input."""

    per_step = True

    def __init__(self, attention: nn.Module):
        super().__init__()
        self.attention, self.causal = attention, getattr(attention, "causal", None)

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(x, (x > 0).to(x.dtype) + (x - x.detach()))  # spikes, with the gradient of the current


def on_one_input(module: nn.Module) -> nn.Module:
    """The module itself, or attention on spikes as a map of one input, the current whose sign gives the spikes.

    Args:
        module: Attention, or any other module.
    """
    return OnSpikes(module) if getattr(module, "acts_on", None) == "spikes" else module


def demand(holds: bool, otherwise: str) -> None:
    """Raise AssertionError in these words if it does not hold."""
    if not holds:
        raise AssertionError(otherwise)


def close(a: Tensor, b: Tensor) -> bool:
    """Equal to rounding."""
    return a.shape == b.shape and torch.allclose(a, b, rtol=ROUNDING, atol=ROUNDING)


def _almost(a: Tensor, b: Tensor) -> bool:
    """Equal to rounding, but for a few values that a spike on its threshold has changed."""
    return a.shape == b.shape and (~torch.isclose(a, b, rtol=1e-6, atol=1e-8)).double().mean().item() <= FLIPPED


def _value_and_gradients(module: nn.Module, x: Tensor) -> list[Tensor]:
    torch.manual_seed(1)
    x = x.detach().requires_grad_()
    y = module(x)
    weight = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view_as(y)
    wanted = [x, *(p for p in module.parameters() if p.requires_grad)]
    return [y, *(g for g in torch.autograd.grad((y * weight).sum(), wanted, allow_unused=True) if g is not None)]
