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
    """neuron – conv3×3 – BN – neuron – conv3×3 – BN – (+ shortcut, a 1×1 convolution and BN where shapes differ).

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
    """conv – BN, stages of membrane blocks, a last neuron, a readout at each step.

    Arguments, input and output as for `staa.models.ResNet`; stages: (channels, blocks); stage_strides: one for each. The stem
    has a neuron only where attention stands there (sites "stem" or "all"), since its spikes are what such attention acts on.

    Initialisation as in DTA-SNN's code, PyTorch's own: convolutions U(±1 / √(k² C_in)), BatchNorm 1 and 0, the readout's weight
    and bias U(±1 / √inputs). So begin the convolutions and the readout of Hu et al. too; their BatchNorm begins at the
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
            raise ValueError(f"expected a stride for each of {len(stages)} stages, got {list(stage_strides)}")
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


# MS-ResNet-18 for 32 × 32 images and event frames; 12,502,090 parameters at 10 classes.
ms_resnet18 = partial(MSResNet, stem=(64, 3, 1), stages=[(128, 3), (256, 3), (512, 2)], stage_strides=(1, 2, 2))
# MS-ResNet-34 for 224 × 224 images. DTA-SNN strides in the last two stages alone, which costs 49 G MACs a step; the code it
# descends from in every stage: stage_strides=(2, 2, 2, 2).
ms_resnet34 = partial(MSResNet, stem=(64, 7, 2), stages=[(64, 3), (128, 4), (256, 6), (512, 3)], stage_strides=(1, 1, 2, 2))
