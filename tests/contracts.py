"""What every neuron, attention and model must hold. Each contract takes a built module and raises AssertionError."""

import copy

import torch
from torch import Tensor, nn

from staa import stream
from staa.layers import Passive


def randomised(module: nn.Module, spread: float = 0.2) -> nn.Module:
    """The module with every parameter moved at random, so that no gate is constant and no gradient zero by symmetry."""
    with torch.no_grad():
        for p in module.parameters():
            p.add_(spread * torch.randn_like(p))
    return module


def window(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, dtype=dtype)


def shape_and_finite(module: nn.Module, x: Tensor, shape: tuple[int, ...]) -> None:
    y = module(x)
    assert y.shape == shape
    assert y.dtype == x.dtype
    assert y.isfinite().all()


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
        seen |= {name for name, p in module.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
        optimizer.step()
    assert seen == {name for name, _ in module.named_parameters()}


def evaluation_is_deterministic(module: nn.Module, x: Tensor) -> None:
    module.eval()
    kept = x.clone()
    with torch.no_grad():
        assert torch.equal(module(x), module(x))
    assert torch.equal(x, kept), "the input was changed"


def samples_are_independent(module: nn.Module, x: Tensor) -> None:
    """Permuting the batch permutes the output, and no sample sees its neighbours (float64)."""
    module = module.double().eval()
    order = torch.randperm(x.shape[1])
    with torch.no_grad():
        y = module(x)
        torch.testing.assert_close(module(x[:, order]), y[:, order], rtol=1e-9, atol=1e-9)
        alone = module(x[:, :1])
        torch.testing.assert_close(alone, y[:, :1], rtol=1e-9, atol=1e-9)


def causality(module: nn.Module, x: Tensor, causal: bool) -> None:
    """∂ output[t] / ∂ input[t' > t] = 0 exactly when the module is causal; the past must matter in any case."""
    module = module.double().eval()
    future, past = 0.0, 0.0
    for t in range(len(x)):
        x = x.detach().requires_grad_()
        y = module(x)
        (grad,) = torch.autograd.grad((y[t] * torch.randn_like(y[t])).sum(), x)
        future += grad[t + 1 :].abs().sum().item()
        past += grad[: t + 1].abs().sum().item()
    assert past > 0
    assert (future == 0) if causal else (future > 0)


def chunks_equal_the_whole(module: nn.Module, x: Tensor, *, rounding: float = 1e-12, flipped: float = 0.0) -> None:
    """Streamed in chunks of 1, 2, 3 and at once: the module's output to a relative rounding, unless a spike flipped.

    flipped: the largest fraction of the spikes of all neurons that may differ. x is the whole window.
    """
    module.eval()
    fired: list[Tensor] = []
    for part in module.modules():
        if hasattr(part, "scan") and hasattr(part, "threshold"):
            part.register_forward_hook(Passive(lambda _, __, spikes: fired.append(spikes)))
    with torch.no_grad():
        whole = module(x)
    spikes = [s.clone() for s in fired]
    for chunk in (1, 2, 3, len(x)):
        fired.clear()
        outputs, state = [], None
        for piece in x.split(chunk):
            output, state = stream(module, piece, state)
            outputs.append(output)
        assert state.steps == len(x)
        pieces = [torch.cat(fired[i :: len(spikes)]) for i in range(len(spikes))]
        differ = sum((a != b).sum().item() for a, b in zip(pieces, spikes, strict=True))
        assert differ <= flipped * sum(s.numel() for s in spikes)
        if differ == 0:
            assert (torch.cat(outputs) - whole).norm() <= rounding * whole.norm()


def state_dict_round_trip(module: nn.Module, fresh: nn.Module, x: Tensor) -> None:
    fresh.load_state_dict(module.state_dict())
    module.eval(), fresh.eval()
    with torch.no_grad():
        assert torch.equal(module(x), fresh(x))
