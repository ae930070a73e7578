"""The contracts: each takes a built module and raises AssertionError, in words, if it is broken."""

import copy

import torch
from torch import Tensor, nn

from staa.layers import Passive
from staa.streaming import stream

ROUNDING = 1e-9
FLIPPED = 0.01  # of all spikes: those that rounding may move across a threshold


def randomised(module: nn.Module, spread: float = 0.2) -> nn.Module:
    """The module, each parameter moved at random, so that no gate is constant and no gradient zero by symmetry."""
    with torch.no_grad():
        for p in module.parameters():
            p.add_(spread * torch.randn_like(p))
    return module


def window(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """A random input."""
    return torch.randn(*shape, dtype=dtype)


def shape_and_finite(module: nn.Module, x: Tensor, shape: tuple[int, ...]) -> None:
    """The output has the expected shape and the input's dtype, and every value is finite."""
    y = module(x)
    _demand(isinstance(y, Tensor), f"the output is a {type(y).__name__}, not a tensor")
    _demand(y.shape == shape, f"the output is {list(y.shape)}, expected {list(shape)} for an input {list(x.shape)}")
    _demand(y.dtype == x.dtype, f"the output is {y.dtype}, the input {x.dtype}")
    _demand(bool(y.isfinite().all()), f"{int((~y.isfinite()).sum())} of {y.numel()} values are not finite")


def every_parameter_learns(module: nn.Module, x: Tensor) -> None:
    """Each parameter gets a gradient within two optimizer steps."""
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
            _demand(p.grad is None or bool(p.grad.isfinite().all()), f"the gradient of {name} is not finite")
        seen |= {name for name, p in module.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
        optimizer.step()
    silent = [name for name, _ in module.named_parameters() if name not in seen]
    _demand(not silent, f"no gradient reaches {', '.join(silent[:5])}{' …' if len(silent) > 5 else ''}")


def nothing_survives_a_call(module: nn.Module, x: Tensor) -> None:
    """In training, with the same random numbers: a second call gives the same, another one between changes nothing, and the
    input is left alone. What a norm keeps for evaluation is no matter."""
    module, kept = copy.deepcopy(module).train(), x.clone()
    outputs = []
    with torch.no_grad():
        for given in (x, x, x.flip(0) + 1, x):
            torch.manual_seed(1)
            outputs.append(module(given))
    _demand(torch.equal(x, kept), "the input was changed in training")
    _demand(
        all(torch.equal(outputs[0], again) for again in outputs[1::2]),
        "in training, a call changes a later one that has the same input and random numbers: something survives the call",
    )


def evaluation_is_deterministic(module: nn.Module, x: Tensor) -> None:
    """In evaluation mode nothing survives a call: a second one gives the same, another one between changes nothing, and neither
    the input nor the module's state nor the global random state is changed."""
    module.eval()
    kept, state = x.clone(), copy.deepcopy(module.state_dict())
    with torch.no_grad():
        torch.rand(1)  # else a seed that was set before is no change
        random = torch.get_rng_state()
        first = module(x)
        _demand(torch.equal(x, kept), "the input was changed")
        second = module(x)
        _demand(
            torch.equal(first, second), "a second call with the same input gives another output: something survives the call"
        )
        _demand(torch.equal(random, torch.get_rng_state()), "it draws or seeds random numbers in evaluation mode")
        module(x.flip(0) + 1)
        _demand(torch.equal(first, module(x)), "a call with another input changes the next one: something survives the call")
    for name, value in module.state_dict().items():
        same = torch.equal(value, state[name]) if isinstance(value, Tensor) else value == state[name]
        _demand(same, f"{name} of the state dict changes in evaluation mode")


def samples_are_independent(module: nn.Module, x: Tensor, *, training: bool = False) -> None:
    """Permuting the batch permutes the output, and no sample sees its neighbours (float64). training: in training mode too is
    for modules without BatchNorm and random parts alone."""
    module = module.double().train(training)
    order = torch.randperm(x.shape[1])
    with torch.no_grad():
        y = module(x)
        _demand(_close(module(x[:, order]), y[:, order]), "a permuted batch does not give the permuted output")
        _demand(_close(module(x[:, :1]), y[:, :1]), "a sample alone gives another output than among others")


def sees_later_steps(module: nn.Module, x: Tensor, *, training: bool = False) -> bool:
    """Whether output[t] depends on an input[t' > t]: by its gradient, or by its value when later inputs change. training: as
    for `samples_are_independent`.

    Raises AssertionError if no output depends on its past.
    """
    module = module.double().train(training)
    future, past = 0.0, 0.0
    for t in range(len(x)):
        x = x.detach().requires_grad_()
        y = module(x)
        (grad,) = torch.autograd.grad((y[t] * torch.randn_like(y[t])).sum(), x)
        future += grad[t + 1 :].abs().sum().item()
        past += grad[: t + 1].abs().sum().item()
        with torch.no_grad():
            changed = torch.cat([x[: t + 1], 3 * torch.randn_like(x[t + 1 :])])
            future += 0.0 if _close(module(changed)[: t + 1], y[: t + 1]) else 1.0
    _demand(past > 0, "no gradient reaches the input")
    return future > 0


def causality(module: nn.Module, x: Tensor, causal: bool) -> None:
    """output[t] depends on no input[t' > t] exactly if the module is causal; the past matters in any case."""
    looks = sees_later_steps(module, x)
    _demand(looks != causal, "a step sees later ones, and it should not" if looks else "no step sees later ones, and it should")


def chunks_equal_the_whole(module: nn.Module, x: Tensor, *, rounding: float = 1e-12, flipped: float = 0.0) -> None:
    """Streamed in chunks of 1, 2, 3 and at once: the module's output to a relative rounding, unless a spike flipped.

    flipped: the largest fraction of the spikes of all neurons that may differ. x is the whole window. Raises ValueError as
    `staa.stream` does for a module that can't be streamed.
    """
    module.eval()
    fired: list[Tensor] = []
    notes = [
        part.register_forward_hook(Passive(lambda _, __, spikes: fired.append(spikes)))
        for part in module.modules()
        if hasattr(part, "scan") and hasattr(part, "threshold")
    ]
    try:
        with torch.no_grad():
            whole = module(x)
        spikes = [s.clone() for s in fired]
        for chunk in (1, 2, 3, len(x)):
            fired.clear()
            outputs, state = [], None
            for piece in x.split(chunk):
                output, state = stream(module, piece, state)
                outputs.append(output)
            _demand(state is not None and state.steps == len(x), "the stream has lost count of its steps")
            pieces = [torch.cat(fired[i :: len(spikes)]) for i in range(len(spikes))]
            differ = sum((a != b).sum().item() for a, b in zip(pieces, spikes, strict=True))
            total = sum(s.numel() for s in spikes)
            _demand(
                differ <= flipped * total, f"in chunks of {chunk}, {differ} of {total} spikes differ from those of the whole"
            )
            if differ == 0:
                off = ((torch.cat(outputs) - whole).norm() / whole.norm().clamp(min=1e-300)).item()
                _demand(off <= rounding, f"in chunks of {chunk}, the output differs from the whole's by {off:.1e} of it")
    finally:
        for note in notes:
            note.remove()


def state_dict_round_trip(module: nn.Module, fresh: nn.Module, x: Tensor) -> None:
    """A fresh module that takes the state dict gives the same output, and so does a deep copy."""
    fresh.load_state_dict(module.state_dict())
    for each in (module, fresh):
        each.eval()
    with torch.no_grad():
        y = module(x)
        _demand(
            torch.equal(y, fresh(x)), "a fresh module with this state dict gives another output: what it goes by is not in it"
        )
        _demand(torch.equal(y, copy.deepcopy(module)(x)), "a deep copy gives another output")


def folding_changes_nothing(module: nn.Module, x: Tensor, *, training: bool = False) -> None:
    """With a hook on every module each is called, without one some are folded: output and gradients are the same but for
    rounding, and for spikes that it moves across a threshold. training: in training mode, with the same random numbers."""
    module = copy.deepcopy(module).double().train(training)
    called = copy.deepcopy(module)
    for part in called.modules():
        part.register_forward_hook(lambda *_: None)
    folded, called = _value_and_gradients(module, x), _value_and_gradients(called, x)
    _demand(_almost(folded[0], called[0]), "folded into the neuron, the output is another than when every module is called")
    for a, b in zip(folded[1:], called[1:], strict=True):
        _demand(_almost(a, b), "folded into the neuron, a gradient is another than when every module is called")


def silence_and_noise_are_finite(module: nn.Module, x: Tensor) -> None:
    """No input and one of 100 times the size give finite outputs and gradients in float32: neurons are often silent. In
    evaluation mode: a BatchNorm that sees no variance in training multiplies gradients by 1/√eps."""
    module = copy.deepcopy(module).float().eval()
    for name, size in (("zero", 0.0), ("100 times a normal input", 100.0)):
        y, *gradients = _value_and_gradients(module, (size * x).float())
        _demand(bool(y.isfinite().all()), f"for an input of {name}, the output is not finite")
        _demand(all(bool(g.isfinite().all()) for g in gradients), f"for an input of {name}, a gradient is not finite")


def it_fires(neuron: nn.Module, x: Tensor) -> None:
    """Outputs are 0 or 1, and both occur for some input."""
    with torch.no_grad():
        spikes = torch.cat([neuron.eval()(size * x) for size in (0.0, 1.0, 10.0)])
    odd = spikes[(spikes != 0) & (spikes != 1)][:1].tolist()
    _demand(not odd, f"a spike is 0 or 1, and there are outputs such as {odd[0]:.4g}" if odd else "")
    _demand(bool((spikes == 1).any()), "it never fires")
    _demand(bool((spikes == 0).any()), "it always fires")


def an_affine_current_is_one(neuron: nn.Module, x: Tensor) -> None:
    """neuron(x, scale, shift) = neuron(scale · x + shift)."""
    channels = x.shape[2]
    scale, shift = (torch.rand(1, 1, channels, 1, 1, dtype=x.dtype) + 0.5 for _ in range(2))
    with torch.no_grad():
        given, made = neuron(x, scale, shift), neuron(x * scale + shift)
    _demand(_almost(given, made), "neuron(x, scale, shift) is not neuron(scale · x + shift)")


class OnSpikes(nn.Module):
    """Attention that acts on spikes, as a map of one input."""

    per_step = True

    def __init__(self, attention: nn.Module):
        super().__init__()
        self.attention, self.causal = attention, getattr(attention, "causal", None)

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(x, (x > 0).to(x.dtype) + (x - x.detach()))  # spikes, with the gradient of the current


def on_one_input(module: nn.Module) -> nn.Module:
    """The module itself, or attention on spikes as a map of one input."""
    return OnSpikes(module) if getattr(module, "acts_on", None) == "spikes" else module


def _demand(holds: bool, otherwise: str) -> None:
    if not holds:
        raise AssertionError(otherwise)


def _close(a: Tensor, b: Tensor) -> bool:
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
