"""What is kept for the backward pass against the length of the window:  python -m benchmarks.memory

vggsnn at an eighth of its width, STAA for any T, 2 × 48 × 48 events, batch 4, frozen BatchNorm: as it is, spikes as bits, and
computed again in chunks of ten steps; and how far apart the gradients of the first and the last are.
"""

import torch
from torch import Tensor, nn

from staa.attention import STAA
from staa.models import vggsnn
from staa.neurons import AdaptiveLIF
from staa.ops.bits import _pack, _unpack
from staa.streaming import freeze_norms, recompute


def kept_bytes(model: nn.Module, x: Tensor, *, bits: bool = False, chunk: int | None = None) -> tuple[int, list[Tensor]]:
    """Bytes kept at the end of the forward pass, each storage once, weights left out; and the gradients."""
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    storages: dict[int, int] = {}

    def pack(tensor: Tensor) -> object:
        kept = _pack(tensor) if bits else tensor
        storage = (kept if isinstance(kept, Tensor) else kept[0]).untyped_storage()
        if storage.data_ptr() not in weights:
            storages[storage.data_ptr()] = storage.nbytes()
        return kept

    with torch.autograd.graph.saved_tensors_hooks(pack, _unpack):
        out = model(x) if chunk is None else recompute(model, x, chunk)
    total = sum(storages.values())
    return total, list(torch.autograd.grad(out.square().mean(), list(model.parameters())))


def main() -> None:
    torch.manual_seed(0)
    attention = lambda steps, channels: STAA(steps, channels, dropout=0.0)  # noqa: E731
    model = vggsnn(10, in_channels=2, steps=None, width=0.125, neuron=AdaptiveLIF, attention=attention)
    model.to(memory_format=torch.channels_last)
    for _ in range(20):  # running statistics that let it fire
        model((torch.rand(10, 4, 2, 48, 48) < 0.05).float())
    freeze_norms(model)
    print("| T | as it is, MiB | spikes as bits | again in chunks of 10 | largest relative difference of a gradient |")
    print("|---|---|---|---|---|")
    for steps in (10, 100, 1000):
        x = (torch.rand(steps, 4, 2, 48, 48) < 0.05).float()
        plain, gradients = kept_bytes(model, x)
        bits, _ = kept_bytes(model, x, bits=True)
        chunked, others = kept_bytes(model, x, chunk=10)
        error = max(((a - b).norm() / a.norm().clamp(min=1e-12)).item() for a, b in zip(gradients, others, strict=True))
        print(f"| {steps} | {plain / 2**20:.1f} | {bits / 2**20:.1f} | {chunked / 2**20:.1f} | {error:.1e} |", flush=True)


if __name__ == "__main__":
    main()
