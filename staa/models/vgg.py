"""VGGSNN, the usual network for CIFAR10-DVS (TET, Deng et al., ICLR 2022)."""

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

STAGES = ((64, 128), (256, 256), (512, 512), (512, 512))


class VGGSNN(nn.Module):
    """64, 128, P, 256, 256, P, 512, 512, P, 512, 512, P, linear; conv3×3 – BN – neuron each, P an average pool of 2.

    Arguments, input and output as for `staa.models.ResNet`, and size: the height and width of the input, which the
    linear layer depends on (48 as in the paper). Attention "stem" is the first neuron, "last-of-stage" those before P.
    Raises ValueError where the input has another size.

    Initialisation as in TET's code: convolutions N(0, 2 / (k² C_out)), BatchNorm 1 and 0, the linear layer as PyTorch makes
    it, weight and bias U(±1 / √inputs). TET's convolutions have a bias, which BatchNorm takes out again; these have none.
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
        if size < 2 ** len(STAGES):
            raise ValueError(f"vggsnn halves its input {len(STAGES)} times: size must be at least 16, got {size}")
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
            raise ValueError(f"this vggsnn was built for size {self.size}, got {list(x.shape[3:])}; build it with size=")
        for stage in self.stages:
            x = per_step(lambda frames: F.avg_pool2d(frames, 2), run_folded(stage, x))  # type: ignore[arg-type]
        return self.readout(x.flatten(2))


vggsnn = VGGSNN  # called like the other models
