"""SpikingJelly's networks."""

from torch import Tensor

from staa.convert.renaming import NORM, Rules, State, renamed, stages

MS_RESNET: Rules = (
    (r"stem\.0\.weight", r"stem.conv.weight"),
    (rf"stem\.1\.{NORM}", r"stem.norm.\1"),
    (r"(stages\.\d\.\d+)\.conv([12])\.weight", r"\1.layer\2.conv.weight"),
    (rf"(stages\.\d\.\d+)\.bn([12])\.{NORM}", r"\1.layer\2.norm.\3"),
    (r"(stages\.\d\.\d+)\.downsample\.0\.weight", r"\1.shortcut.conv.weight"),
    (rf"(stages\.\d\.\d+)\.downsample\.1\.{NORM}", r"\1.shortcut.norm.\2"),
    (r"(stages\.\d\.\d+)\.spike([12])\.w", r"\1.fire\2.neuron.decay_logit"),
    (r"head_lif\.w", r"last.neuron.decay_logit"),
    (r"head\.(weight|bias)", r"readout.linear.\1"),
)


def spikingjelly_vgg(state: State) -> dict[str, Tensor]:
    """SpikingJelly's convolutions, BatchNorms, neurons and one linear layer in a row, as `staa.models.vggsnn` has them.

    They are told apart by what they hold and counted in the order of the numbers in their names, whatever stands before these.
    A convolution's bias, which vggsnn has not, is taken off BatchNorm's running mean, which comes to the same.

    SpikingJelly's LIFNode(tau) is `staa.neurons.LIF` with decay = 1 − 1/tau and gain = 1/tau, or gain = 1 if its decay_input is
    False; its ParametricLIFNode is ParametricLIF with gain=None, or gain=1.0, and its w becomes −decay_logit.

    Args:
        state: State dict of a network like SpikingJelly's `SpikingVGG(batch_norm=True)`, with the layers of vggsnn.

    Shapes:
        -> the weights of `staa.models.vggsnn` by name

    Raises:
        ValueError: If a key is of no such layer, or there are not 8 convolutions, 8 BatchNorms, 8 or no learned neurons and one
            linear layer.

    Source:
        Names as in spikingjelly 2.0, activation_based/model/spiking_vgg.py.
    """
    layers: dict[str, dict[str, Tensor]] = {}
    for key in sorted(state, key=_natural):
        owner, _, field = key.rpartition(".")
        layers.setdefault(owner, {})[field] = state[key]
    kinds: dict[str, list[dict[str, Tensor]]] = {
        "convolutions": [],
        "BatchNorms": [],
        "linear layers": [],
        "learned neurons": [],
    }
    for owner, layer in layers.items():
        kinds[_kind_of(owner, layer)].append(layer)
    counts = {kind: len(found) for kind, found in kinds.items()}
    wanted = {"convolutions": (8,), "BatchNorms": (8,), "linear layers": (1,), "learned neurons": (0, 8)}
    if any(counts[kind] not in numbers for kind, numbers in wanted.items()):
        told = ", ".join(f"{count} {kind}" for kind, count in counts.items())
        raise ValueError(
            f"a vggsnn has 8 convolutions, 8 BatchNorms, one linear layer and 8 learned neurons or none, got {told}"
        )
    (linear,) = kinds["linear layers"]
    found = {f"readout.{field}": value for field, value in linear.items()}
    for k, (conv, norm) in enumerate(zip(kinds["convolutions"], kinds["BatchNorms"], strict=True)):
        at = f"stages.{k // 2}.{2 * (k % 2)}"
        found[f"{at}.conv.weight"] = conv["weight"]
        found |= {f"{at}.norm.{field}": value for field, value in norm.items()}
        if "bias" in conv:
            found[f"{at}.norm.running_mean"] = norm["running_mean"] - conv["bias"]
    for k, neuron in enumerate(kinds["learned neurons"]):
        found[f"stages.{k // 2}.{2 * (k % 2) + 1}.neuron.decay_logit"] = -neuron["w"]
    return found


def spikingjelly_ms_resnet(state: State) -> dict[str, Tensor]:
    """SpikingJelly's MSResNet, for `staa.models.MSResNet` with its stem, stages and strides: ms_resnet18 there is

        MSResNet(1000, steps=6, neuron=…, stem=(64, 7, 2), stages=[(64, 2), (128, 2), (256, 2), (512, 2)],
                 stage_strides=(2, 2, 2, 2))

    with neuron = partial(LIF, decay=0.25, threshold=0.5), and its output is the mean of ours over time.

    Args:
        state: State dict of SpikingJelly's `MSResNet` without stem_pool.

    Shapes:
        -> the weights of `staa.models.MSResNet` by name

    Raises:
        ValueError: If a key is not one of its.

    Source:
        Names as in spikingjelly 2.0, activation_based/model/ms_resnet.py.
    """
    return renamed(stages(state, 1), MS_RESNET, "SpikingJelly's MSResNet")


def _natural(key: str) -> list[tuple[bool, int, str]]:
    """To sort by numbers in a name: features.2 before features.10, as safetensors does not."""
    return [(part.isdecimal(), int(part) if part.isdecimal() else 0, part) for part in key.split(".")]


def _kind_of(owner: str, layer: dict[str, Tensor]) -> str:
    fields, rank = layer.keys(), layer["weight"].ndim if "weight" in layer else 0
    if rank == 4 and fields <= {"weight", "bias"}:
        return "convolutions"
    if rank == 1 and fields == {"weight", "bias", "running_mean", "running_var", "num_batches_tracked"}:
        return "BatchNorms"
    if rank == 2 and fields == {"weight", "bias"}:
        return "linear layers"
    if fields == {"w"}:
        return "learned neurons"
    raise ValueError(f"{owner!r} is no layer of a vggsnn: it holds {', '.join(sorted(fields))}")
