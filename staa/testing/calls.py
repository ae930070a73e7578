"""Contracts on calls, samples and time: each takes a built module and raises AssertionError, in words, if it is broken."""

import copy

import torch
from torch import Tensor, nn

from staa.folding import Passive
from staa.streaming import stream
from staa.testing.contracts import close, demand


def nothing_survives_a_call(module: nn.Module, x: Tensor) -> None:
    """In training, with the same random numbers, a second call gives the same, and another one between changes nothing.

    The input is left alone, too. What a norm keeps for evaluation is no matter.

    Args:
        module: A copy of it is called.
        x: Input to try it on.

    Shapes:
        x [T, N, ...]

    Raises:
        AssertionError: In words, if that is not so.
    """
    module, kept = copy.deepcopy(module).train(), x.clone()
    outputs = []
    with torch.no_grad():
        for given in (x, x, x.flip(0) + 1, x):
            torch.manual_seed(1)
            outputs.append(module(given))
    demand(torch.equal(x, kept), "the input was changed in training")
    demand(
        all(torch.equal(outputs[0], again) for again in outputs[1::2]),
        "in training, a call changes a later one that has the same input and random numbers: something survives the call",
    )


def evaluation_is_deterministic(module: nn.Module, x: Tensor) -> None:
    """In evaluation mode a second call gives the same, and another one between changes nothing.

    Neither the input nor the module's state nor the global random state is changed.

    Args:
        module: Put in evaluation mode.
        x: Input to try it on.

    Shapes:
        x [T, N, ...]

    Raises:
        AssertionError: In words, if that is not so.
    """
    module.eval()
    kept, state = x.clone(), copy.deepcopy(module.state_dict())
    with torch.no_grad():
        torch.rand(1)  # else a seed that was set before is no change
        random = torch.get_rng_state()
        first = module(x)
        demand(torch.equal(x, kept), "the input was changed")
        second = module(x)
        demand(
            torch.equal(first, second), "a second call with the same input gives another output: something survives the call"
        )
        demand(torch.equal(random, torch.get_rng_state()), "it draws or seeds random numbers in evaluation mode")
        module(x.flip(0) + 1)
        demand(torch.equal(first, module(x)), "a call with another input changes the next one: something survives the call")
    for name, value in module.state_dict().items():
        same = torch.equal(value, state[name]) if isinstance(value, Tensor) else value == state[name]
        demand(same, f"{name} of the state dict changes in evaluation mode")


def samples_are_independent(module: nn.Module, x: Tensor, *, training: bool = False) -> None:
    """Permuting the batch permutes the output, and no sample sees its neighbours, in float64.

    Args:
        module: Made double, in place.
        x: Input to try it on, in float64.
        training: In training mode; only for modules without BatchNorm and random parts.

    Shapes:
        x [T, N, ...]

    Raises:
        AssertionError: In words, if that is not so.
    """
    module = module.double().train(training)
    order = torch.randperm(x.shape[1])
    with torch.no_grad():
        y = module(x)
        demand(close(module(x[:, order]), y[:, order]), "a permuted batch does not give the permuted output")
        demand(close(module(x[:, :1]), y[:, :1]), "a sample alone gives another output than among others")


def sees_later_steps(module: nn.Module, x: Tensor, *, training: bool = False) -> bool:
    """Whether output[t] depends on an input[t' > t]: by its gradient, or by its value when later inputs change.

    Args:
        module: Made double, in place.
        x: Input to try it on, in float64.
        training: In training mode; only for modules without BatchNorm and random parts.

    Shapes:
        x [T, N, ...] -> True or False

    Raises:
        AssertionError: If no output depends on its past.
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
            future += 0.0 if close(module(changed)[: t + 1], y[: t + 1]) else 1.0
    demand(past > 0, "no gradient reaches the input")
    return future > 0


def causality(module: nn.Module, x: Tensor, causal: bool) -> None:
    """output[t] depends on no input[t' > t] exactly if the module is causal; the past matters in any case.

    Args:
        module: Made double and put in evaluation mode, in place.
        x: Input to try it on, in float64.
        causal: What the module is expected to be.

    Shapes:
        x [T, N, ...]

    Raises:
        AssertionError: In words, if that is not so.
    """
    looks = sees_later_steps(module, x)
    demand(looks != causal, "a step sees later ones, and it should not" if looks else "no step sees later ones, and it should")


def chunks_equal_the_whole(module: nn.Module, x: Tensor, *, rounding: float = 1e-12, flipped: float = 0.0) -> None:
    """Streamed in chunks of 1, 2, 3 and at once, the output is the whole's to a relative rounding, unless a spike flipped.

    Args:
        module: Put in evaluation mode.
        x: The whole window.
        rounding: Norm of the difference, as a share of the output's.
        flipped: Largest share of the spikes of all neurons that may differ.

    Shapes:
        x [T, N, ...]

    Raises:
        AssertionError: In words, if that is not so.
        ValueError: If the module can't be streamed.
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
            demand(state is not None and state.steps == len(x), "the stream has lost count of its steps")
            pieces = [torch.cat(fired[i :: len(spikes)]) for i in range(len(spikes))]
            differ = sum((a != b).sum().item() for a, b in zip(pieces, spikes, strict=True))
            total = sum(s.numel() for s in spikes)
            demand(
                differ <= flipped * total, f"in chunks of {chunk}, {differ} of {total} spikes differ from those of the whole"
            )
            if differ == 0:
                off = ((torch.cat(outputs) - whole).norm() / whole.norm().clamp(min=1e-300)).item()
                demand(off <= rounding, f"in chunks of {chunk}, the output differs from the whole's by {off:.1e} of it")
    finally:
        for note in notes:
            note.remove()
