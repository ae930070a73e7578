"""What happens inside a network while it runs: spikes, membranes and gates, by the names of its layers."""

import sys
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from staa.files import check_bytes, max_bytes
from staa.folding import Passive
from staa.neurons import Integrator
from staa.ops import SURROGATES, lif, lif_reference
from staa.ops.notes import listening
from staa.rates import fires
from staa.training.evaluate import evaluation_mode


def record(model: nn.Module, *inputs: Tensor) -> dict[str, Tensor]:
    """What happens inside a network in one call, in evaluation mode, by the names of its layers.

        seen = staa.record(model, x)
        seen["stages.0.1.spikes"], seen["stages.0.1.membrane"], seen["stages.0.1.attention.step.gate"]

    A neuron is named as the layer that it fires for, without `.neuron` at the end, an attention in full:

        NAME.spikes         what a neuron puts out, 0 or 1
        NAME.membrane       v[t], charged and not yet reset, of the neuron's own scan; of an `Integrator`, what it puts out
        NAME.threshold      θ: the neuron fires where v ≥ θ, or, if it is strict, v > θ
        NAME.encoding       E of a position encoding
        NAME.softmax        a of a global context: how much each place of the frame counts, in [0, 1] and 1 in sum
        NAME.gate           factor of the current, in [0, 1]; of DTA of the spikes
        NAME.time_gate      a_t, and NAME.channel_gate a_c, of DTA's T-XA, in [0, 1]
        NAME.local_gate     L, and NAME.global_gate G, of DTA's T-NA: factors of any size and sign
        NAME.scores         Q Kᵀ of spiking self-attention: how many spikes a query and a key share, before the scale
        output              what the model puts out, if that is one tensor

    A layer's second call in the same pass adds `.2` to the name, and so on. After a spike the membrane is 0, or v − θ with
    reset="subtract": v · (1 − s), or v − θ · s.

    The network computes what it always computes, on its fast paths and folded, and what these do not write out is computed
    beside them: a membrane by `staa.ops.lif`, step by step, with a threshold out of reach. What torch.compile has compiled runs
    uncompiled.

    A neuron of your own is known if it says fires = True. It has a membrane if it puts out the spikes of `staa.ops.lif` as they
    are; a warning tells of spikes that were changed in place. An attention of your own tells its gates by
    `staa.layers.note(self, gate=gate)`.

    Args:
        model: The network. Each of its modules is left in the mode it was in.
        *inputs: What it is called with.

    Shapes:
        spikes, membrane, local_gate and a DTA's gate [T, N, C, ...], as the layer has them; threshold broadcasts with
        membrane[0]; encoding [T, C]; softmax [T, N, H, W]; gate, time_gate, channel_gate, global_gate [T, N, C], C = 1 for
        gates of steps; scores [T, groups, heads, tokens, tokens]

    Returns:
        Copies, without gradients, on the model's device: in the layer's dtype, membranes at least in float32.

    Raises:
        ValueError: If no neuron and no attention is known in the model; after the call, which keeps nothing beyond it, if the
            recording is larger than `staa.files.max_bytes`.
    """
    notes = _Notes(model)
    with ExitStack() as stack:
        stack.enter_context(evaluation_mode(model))
        stack.enter_context(torch.no_grad())
        stack.enter_context(_uncompiled())
        for name, module in model.named_modules():
            if fires(module) or isinstance(module, Integrator):
                name = name.removesuffix(".neuron")
                handle = module.register_forward_hook(Passive(partial(notes.of_neuron, name)))
                stack.callback(handle.remove)
        stack.enter_context(listening(notes.take))
        output = model(*inputs)
    check_bytes(notes.needed, f"this recording of a {type(model).__name__}, of a smaller batch it is less,")
    if not notes.kept:
        raise ValueError(
            f"no spiking neuron and no attention is known in this {type(model).__name__}: a neuron of your own must say "
            f"fires = True"
        )
    return notes.kept | ({"output": output} if isinstance(output, Tensor) else {})


class _Notes:
    """What is heard of a network while it runs, by name, and the bytes it takes."""

    def __init__(self, model: nn.Module):
        self.names = {module: name for name, module in model.named_modules()}
        self.kept: dict[str, Tensor] = {}
        self.calls: dict[str, int] = {}
        self.needed, self.limit = 0, max_bytes()
        self.scans: list[dict[str, Any]] = []  # of `lif`, since a neuron last put something out

    def keep(self, name: str, value: Tensor) -> None:
        """A copy of it, unless they become too many: then only their size is kept."""
        self.calls[name] = self.calls.get(name, 0) + 1
        if self.calls[name] > 1:
            name = f"{name}.{self.calls[name]}"
        self.needed += value.numel() * value.element_size()
        if self.needed > self.limit:
            self.kept.clear()
        else:
            self.kept[name] = value.detach().clone()

    def take(self, owner: nn.Module | None, what: dict[str, Any]) -> None:
        """A note: of an attention's gates, or of a scan, which the neuron that puts its spikes out then claims."""
        if owner is None:
            if self.needed <= self.limit:
                with listening(None):
                    what["membrane"] = charges(**what)
            self.scans.append({name: what.get(name) for name in ("spikes", "membrane", "threshold", "strict")})
        elif owner in self.names:
            for name, value in what.items():
                self.keep(f"{self.names[owner]}.{name}".lstrip("."), value)

    def of_neuron(self, name: str, module: nn.Module, inputs: Any, spikes: Any) -> None:
        """What a neuron put out. A layer that ran in pieces (`staa.forecasters.pieces`) has no inputs, and a scan a piece."""
        if not isinstance(spikes, Tensor):
            raise ValueError(f"{name} says that it fires, so it must put out a tensor of spikes, got {type(spikes).__name__}")
        scans, self.scans = self.scans, []
        if not fires(module):
            return self.keep(f"{name}.membrane".lstrip("."), spikes)
        self.keep(f"{name}.spikes".lstrip("."), spikes)
        own = scans if not inputs else [scan for scan in scans if scan["spikes"] is spikes]
        if not own or sum(scan["spikes"].shape[1] for scan in own) != spikes.shape[1]:
            return None
        if self.needed > self.limit:
            self.needed += spikes.numel() * torch.promote_types(spikes.dtype, torch.float32).itemsize
            return None
        membrane = own[0]["membrane"] if len(own) == 1 else torch.cat([scan["membrane"] for scan in own], 1)
        threshold = torch.as_tensor(own[0]["threshold"], dtype=membrane.dtype, device=membrane.device)
        self.keep(f"{name}.membrane".lstrip("."), membrane)
        self.keep(f"{name}.threshold".lstrip("."), threshold)
        fired = membrane > threshold if own[0]["strict"] else membrane >= threshold
        odd = int((fired != (spikes != 0)).sum())
        if odd:
            warnings.warn(
                f"{name or 'the neuron'} puts out {odd:,} of {spikes.numel():,} spikes otherwise than its membrane crosses the "
                f"threshold: something changes them after `staa.ops.lif`, or its charge is not finite",
                stacklevel=2,
            )


def charges(
    *, spikes: Tensor, x: Tensor, v: Tensor | None, threshold: Any, scale: Tensor | None, shift: Tensor | None, **options: Any
) -> Tensor:
    """v[t] of each step [T, N, ...] for the arguments of a `lif`: the same operation, and so its very bits, a step a call.

    With a threshold out of reach, the membrane that a step leaves is its charge.
    """
    scan = lif if any(options["surrogate"] is known for known in SURROGATES.values()) else lif_reference
    far = torch.finfo(torch.float32).max
    out_of_reach = torch.full_like(threshold, far) if isinstance(threshold, Tensor) else far
    charged = torch.empty_like(spikes, dtype=torch.promote_types(x.dtype, torch.float32))
    for t in range(len(x)):
        at: dict[str, Any] = options | {
            name: p if p is None or len(p) == 1 else p[t : t + 1] for name, p in (("scale", scale), ("shift", shift))
        }
        charging: dict[str, Any] = at | {"reset": "zero", "threshold": out_of_reach}
        charged[t] = scan(x[t : t + 1], v, **charging)[1]
        v = scan(x[t : t + 1], v, threshold=threshold, **at)[1]
    return charged


@contextmanager
def _uncompiled() -> Iterator[None]:
    """Without what torch.compile has made, in which nothing is heard."""
    if "torch._dynamo" not in sys.modules:  # slow to import, and then nothing is compiled
        yield
        return
    with torch.compiler.set_stance("force_eager"):
        yield
