"""VGGSNN, which most papers train on CIFAR10-DVS (TET, Deng et al., ICLR 2022)."""

from torch import Tensor, nn
from torch.nn import functional as F

from staa.layers import Window, per_step
from staa.models.parts import (
    AttentionFactory,
    ConvNorm,
    NeuronFactory,
    Sites,
    as_window,
    check_sizes,
    run_folded,
    scaled,
    site_factory,
)
from staa.neurons import LIF
from staa.ops.checks import check_counts

STAGES = ((64, 128), (256, 256), (512, 512), (512, 512))


class VGGSNN(nn.Module):
    """VGGSNN for event frames: conv3×3 – BN – neuron eight times, an average pool of 2 (P) after each second, a linear layer.

        64, 128, P, 256, 256, P, 512, 512, P, 512, 512, P, linear at each step

    Args:
        num_classes: Logits of a step.
        in_channels: C of the input: 2 for events, 3 for photographs.
        steps: T; None: any T, if neuron and attention allow it.
        neuron: Makes each neuron, neuron(channels).
        attention: Makes each attention, attention(steps, channels), such as `staa.attention.STAA`; None: none.
        sites: Neurons with attention: "all", "last-of-stage" (before each P), the "stem"'s (the first), or None for the
            attention's own default.
        width: Multiplier of every layer's channels, above 0.
        size: Height and width of the input, at least 16, on which the linear layer depends; 48 as in the paper.

    Shapes:
        x [T, N, C, H, W], or [N, C, H, W], which is repeated T times -> logits of each step [T, N, num_classes]

    Raises:
        ValueError: If x has another T, rank, size, number of channels, dtype or device than the network, or an argument is of
            another type or range.
        TypeError: If x is no tensor.

    Source:
        TET, Deng et al., ICLR 2022. Initialised as in its code: convolutions N(0, 2 / (k² C_out)), BatchNorm 1 and 0, the
        linear layer U(±1 / √inputs), as PyTorch makes it. TET's convolutions have a bias, which BatchNorm
        takes out again; these have none.
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
        size: int = 48,
    ):
        super().__init__()
        check_sizes(num_classes, in_channels, steps, width)
        check_counts(size=size)
        if size < 2 ** len(STAGES):
            raise ValueError(f"size must be at least 16, since vggsnn halves its input {len(STAGES)} times, got {size}")
        self.steps, self.in_channels, self.size = steps, in_channels, size
        self.window = Window(steps, "model")
        site = site_factory(neuron, attention, steps, sites, scaled(STAGES[0][0], width))
        self.stages, channels = nn.ModuleList(), in_channels
        for i, stage in enumerate(STAGES):
            layers = nn.Sequential()
            for j, outputs in enumerate(stage):
                outputs = scaled(outputs, width)
                layers.append(ConvNorm(channels, outputs, 3))
                layers.append(site(outputs, "stem" if i == j == 0 else "last" if j == len(stage) - 1 else "inner"))
                channels = outputs
            self.stages.append(layers)
        self.readout = nn.Linear(channels * (size >> len(STAGES)) ** 2, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = as_window(x, self, self.window, self.in_channels)
        if x.shape[3:] != (self.size, self.size):
            raise ValueError(f"this vggsnn was built for size={self.size}, got {list(x.shape[3:])}: resize the input")
        for stage in self.stages:
            x = per_step(lambda frames: F.avg_pool2d(frames, 2), run_folded(stage, x))  # type: ignore[arg-type]
        return self.readout(x.flatten(2))


vggsnn = VGGSNN  # called like the other models
