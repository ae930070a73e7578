"""Spiking ResNets with the sum on currents and the output on spikes: `ResNet`, and a row for each of its forms."""

from collections.abc import Callable, Sequence
from functools import partial

from torch import Tensor, nn
from torch.nn import functional as F

from staa.layers import Site, Window, per_step
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


def small_linear(inputs: int, outputs: int) -> nn.Linear:
    """A linear layer with weights N(0, 1 / inputs²) and a bias of 0."""
    layer = nn.Linear(inputs, outputs)
    nn.init.normal_(layer.weight, std=1 / inputs)
    nn.init.zeros_(layer.bias)
    return layer


def conv_shortcut(inputs: int, outputs: int, stride: int) -> ConvNorm:
    """1×1 convolution with the block's stride, then BatchNorm."""
    return ConvNorm(inputs, outputs, 1, stride)


class PoolShortcut(nn.Module):
    """Average pool by the stride, then 1×1 convolution and BatchNorm."""

    per_step = True

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.stride = stride
        self.project = ConvNorm(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        # ceil_mode matches what the strided 3×3 convolution makes of an odd size
        pooled = per_step(lambda frames: F.avg_pool2d(frames, self.stride, ceil_mode=True), x) if self.stride > 1 else x
        return self.project(pooled)


class BasicBlock(nn.Module):
    """conv3×3 – BN – neuron – conv3×3 – BN – (+ shortcut) – neuron."""

    per_step = True

    def __init__(self, inputs: int, outputs: int, stride: int, shortcut: Callable[..., nn.Module], fire1: Site, fire2: Site):
        super().__init__()
        self.layer1 = ConvNorm(inputs, outputs, 3, stride)
        self.fire1 = fire1
        self.layer2 = ConvNorm(outputs, outputs, 3)
        self.shortcut = shortcut(inputs, outputs, stride) if stride != 1 or inputs != outputs else nn.Identity()
        self.fire2 = fire2

    def forward(self, x: Tensor) -> Tensor:
        return self.fire2(self.layer2(run_folded((self.layer1, self.fire1), x)) + self.shortcut(x))


def pool2(x: Tensor) -> Tensor:
    """Average pool 2 × 2."""
    return F.avg_pool2d(x, 2)


def pool3(x: Tensor) -> Tensor:
    """Average pool 3 × 3, stride 2, padding 1."""
    return F.avg_pool2d(x, 3, 2, 1)


class ResNet(nn.Module):
    """Spiking ResNet: a stem, stages of basic blocks, a readout at each step. Currents are added, spikes come out of a block:

        block(x) = neuron(BN(conv(neuron(BN(conv(x))))) + shortcut(x))
        logits[t] = Linear(mean over H, W of the last stage's spikes[t])

    Args:
        num_classes: Logits of a step.
        in_channels: C of the input: 2 for events, 3 for photographs.
        steps: T; None: any T, if neuron and attention allow it.
        neuron: Makes each neuron, neuron(channels).
        attention: Makes each attention, attention(steps, channels), such as `staa.attention.STAA`; None: none.
        sites: Neurons with attention: "all", "last-of-stage", the "stem"'s last, or None for the attention's own default.
        width: Multiplier of every layer's channels, above 0.
        residual_init: Initial weight of the last BatchNorm of each block. With 0.2 the loss falls from the first steps on. 0,
            as ANNs have it (Goyal et al. 2017), is refused: in a block without a projection, currents would be exactly 0 and
            1, where the surrogate's slope is 0, and nothing but the readout would learn.
        stem: (channels, kernel, stride) of each layer.
        stages: (channels, blocks, stride) of each stage.
        pool: Applied to the stem's spikes at each step; None: nothing.
        shortcut: Makes the shortcut of a block that changes its shape, shortcut(inputs, outputs, stride).

    Shapes:
        x [T, N, C, H, W], or [N, C, H, W], which is repeated T times -> logits of each step [T, N, num_classes]

    Raises:
        ValueError: If x has another T, rank, number of channels, dtype or device than the network, or an argument is of another
            type or range.
        TypeError: If x is no tensor.

    Source:
        Initialised as in the code of FSTA-SNN (AAAI 2025), by STAA-SNN's authors: convolutions N(0, 2 / (k² C_out)), BatchNorm
        1 and 0, the readout N(0, 1 / inputs²) with a bias of 0.
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
        stem: Sequence[tuple[int, int, int]],
        stages: Sequence[tuple[int, int, int]],
        pool: Callable[[Tensor], Tensor] | None,
        shortcut: Callable[..., nn.Module],
    ):
        super().__init__()
        check_sizes(num_classes, in_channels, steps, width)
        if residual_init == 0:
            raise ValueError("residual_init must be above 0, such as 0.2: at 0 no gradient passes a block without a projection")
        self.steps, self.in_channels, self.pool = steps, in_channels, pool
        self.window = Window(steps, "model")
        site = site_factory(neuron, attention, steps, sites, scaled(stem[0][0], width))
        self.stem, channels = nn.Sequential(), in_channels
        for i, (outputs, kernel, stride) in enumerate(stem):
            outputs = scaled(outputs, width)
            self.stem.append(ConvNorm(channels, outputs, kernel, stride))
            self.stem.append(site(outputs, "stem" if i == len(stem) - 1 else "inner"))
            channels = outputs
        self.stages = nn.Sequential()
        for outputs, blocks, stride in stages:
            outputs, stage = scaled(outputs, width), nn.Sequential()
            for i in range(blocks):
                fire1, fire2 = site(outputs), site(outputs, "last" if i == blocks - 1 else "inner")
                stage.append(BasicBlock(channels, outputs, stride if i == 0 else 1, shortcut, fire1, fire2))
                channels = outputs
            self.stages.append(stage)
        weigh_branches(self.stages, residual_init)
        self.readout = Readout(channels, num_classes, linear=small_linear)

    def forward(self, x: Tensor) -> Tensor:
        x = run_folded(self.stem, as_window(x, self, self.window, self.in_channels))
        x = x if self.pool is None else per_step(self.pool, x)
        return self.readout(self.stages(x))


CALLED = "Called as `staa.models.ResNet`, without stem, stages, pool and shortcut, which it sets."

resnet19 = partial(
    ResNet, stem=[(128, 3, 1)], pool=None, stages=[(128, 3, 1), (256, 3, 2), (512, 2, 2)], shortcut=conv_shortcut
)
resnet19.__doc__ = f"ResNet-19 for 32 × 32 images; 12,569,226 parameters at 10 classes. {CALLED}"

resnet9 = partial(
    ResNet, stem=[(64, 3, 1), (128, 3, 1)], pool=pool2, stages=[(128, 1, 1), (256, 1, 2), (512, 1, 2)], shortcut=PoolShortcut
)
resnet9.__doc__ = f"""ResNet-9, ours: eight convolutions and the readout, after the ANNs that learn CIFAR-10 in a minute;
4,968,522 parameters at 10 classes. {CALLED}"""

resnet20 = partial(
    ResNet,
    stem=[(64, 3, 1)] * 3,
    pool=pool2,
    stages=[(64, 2, 1), (128, 2, 2), (256, 2, 2), (512, 2, 2)],
    shortcut=PoolShortcut,
)
resnet20.__doc__ = f"""ResNet-20 (modified), as STAA-SNN's authors name it: not the net of 16 to 64 channels of He et al.;
11,247,946 parameters at 10 classes. {CALLED}"""

resnet18 = partial(
    ResNet,
    stem=[(64, 7, 2)],
    pool=pool3,
    stages=[(64, 2, 1), (128, 2, 2), (256, 2, 2), (512, 2, 2)],
    shortcut=conv_shortcut,
)
resnet18.__doc__ = f"ResNet-18 for 224 × 224 images; 11,689,512 parameters at 1000 classes. {CALLED}"

resnet34 = partial(
    ResNet,
    stem=[(64, 7, 2)],
    pool=pool3,
    stages=[(64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)],
    shortcut=conv_shortcut,
)
resnet34.__doc__ = f"ResNet-34 for 224 × 224 images; 21,797,672 parameters at 1000 classes. {CALLED}"
