"""MS-ResNet (Hu et al. 2021), spiking ResNets whose shortcuts carry currents and never spikes, as DTA-SNN has them."""

from collections.abc import Sequence
from functools import partial

from torch import Tensor, nn

from staa.layers import Site, Window
from staa.models.parts import (
    AttentionFactory,
    ConvNorm,
    NeuronFactory,
    Readout,
    Sites,
    as_window,
    check_sizes,
    run_folded,
    scaled,
    site_factory,
    weigh_branches,
)
from staa.neurons import LIF

conv_norm = partial(ConvNorm, initialise=None)


class MembraneBlock(nn.Module):
    """neuron – conv3×3 – BN – neuron – conv3×3 – BN – (+ shortcut, a 1×1 convolution and BN if shapes differ).

    There is no activation after the sum.
    """

    per_step = True

    def __init__(self, inputs: int, outputs: int, stride: int, fire1: Site, fire2: Site):
        super().__init__()
        self.fire1 = fire1
        self.layer1 = conv_norm(inputs, outputs, 3, stride)
        self.fire2 = fire2
        self.layer2 = conv_norm(outputs, outputs, 3)
        self.shortcut = conv_norm(inputs, outputs, 1, stride) if stride != 1 or inputs != outputs else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.layer2(run_folded((self.layer1, self.fire2), self.fire1(x))) + self.shortcut(x)


class MSResNet(nn.Module):
    """MS-ResNet: conv – BN, stages of membrane blocks, a last neuron, a readout at each step. Shortcuts carry currents:

        block(x) = BN(conv(neuron(BN(conv(neuron(x)))))) + shortcut(x)
        logits[t] = Linear(mean over H, W of the last neuron's spikes[t])

    The stem has a neuron only if attention stands there (sites "stem" or "all"), since such attention acts on its spikes.

    Args:
        num_classes: Logits of a step.
        in_channels: C of the input: 2 for events, 3 for photographs.
        steps: T; None: any T, if neuron and attention allow it.
        neuron: Makes each neuron, neuron(channels).
        attention: Makes each attention, attention(steps, channels), such as `staa.attention.STAA`; None: none.
        sites: Neurons with attention: "all", "last-of-stage", the "stem"'s, or None for the attention's own default.
        width: Multiplier of every layer's channels, above 0.
        residual_init: Initial weight of the last BatchNorm of each block, at least 0.
        stem: Channels, kernel and stride of the stem.
        stages: (channels, blocks) of each stage.
        stage_strides: Stride of each stage's first block.

    Shapes:
        x [T, N, C, H, W], or [N, C, H, W], which is repeated T times -> logits of each step [T, N, num_classes]

    Raises:
        ValueError: If x has another T, rank, number of channels, dtype or device than the network, or an argument is of another
            type or range.
        TypeError: If x is no tensor.

    Source:
        Hu et al. 2021, as DTA-SNN (Kim et al., WACV 2025) has it, and initialised as in DTA-SNN's code, PyTorch's own:
        convolutions U(±1 / √(k² C_in)), BatchNorm 1 and 0, the readout U(±1 / √inputs). Hu et al. begin BatchNorm at the
        threshold, and at 0 in the last one of a block (residual_init=0).
    """

    per_step = True
    frame_rank = 3

    def __init__(
        self,
        num_classes: int,
        *,
        in_channels: int = 3,
        steps: int | None = 4,
        neuron: NeuronFactory = LIF,
        attention: AttentionFactory | None = None,
        sites: Sites | None = None,
        width: float = 1.0,
        residual_init: float = 1.0,
        stem: tuple[int, int, int],
        stages: Sequence[tuple[int, int]],
        stage_strides: Sequence[int],
    ):
        super().__init__()
        check_sizes(num_classes, in_channels, steps, width)
        if len(stage_strides) != len(stages):
            raise ValueError(f"stage_strides must be one for each of {len(stages)} stages, got {list(stage_strides)}")
        self.steps, self.in_channels, self.window = steps, in_channels, Window(steps, "model")
        channels, kernel, stride = scaled(stem[0], width), *stem[1:]
        site = site_factory(neuron, attention, steps, sites, channels)
        self.stem = conv_norm(in_channels, channels, kernel, stride)
        stem_fire = site(channels, "stem")
        self.fire: Site | None = stem_fire if stem_fire.attention is not None else None
        self.stages = nn.Sequential()
        for (outputs, blocks), stride in zip(stages, stage_strides, strict=True):
            outputs, stage = scaled(outputs, width), nn.Sequential()
            for i in range(blocks):
                fire1, fire2 = site(channels), site(outputs, "last" if i == blocks - 1 else "inner")
                stage.append(MembraneBlock(channels, outputs, stride if i == 0 else 1, fire1, fire2))
                channels = outputs
            self.stages.append(stage)
        weigh_branches(self.stages, residual_init)
        self.last = site(channels)
        self.readout = Readout(channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = as_window(x, self, self.window, self.in_channels)
        x = self.stem(x) if self.fire is None else run_folded((self.stem, self.fire), x)
        return self.readout(self.last(self.stages(x)))


CALLED = "Called as `staa.models.MSResNet`, without stem, stages and stage_strides, which it sets."

ms_resnet18 = partial(MSResNet, stem=(64, 3, 1), stages=[(128, 3), (256, 3), (512, 2)], stage_strides=(1, 2, 2))
ms_resnet18.__doc__ = f"MS-ResNet-18 for 32 × 32 images and event frames; 12,502,090 parameters at 10 classes. {CALLED}"

ms_resnet34 = partial(MSResNet, stem=(64, 7, 2), stages=[(64, 3), (128, 4), (256, 6), (512, 3)], stage_strides=(1, 1, 2, 2))
ms_resnet34.__doc__ = f"""MS-ResNet-34 for 224 × 224 images. DTA-SNN strides in the last two stages alone, at 49 G MACs a step;
the code it descends from in every stage: stage_strides=(2, 2, 2, 2). {CALLED}"""
