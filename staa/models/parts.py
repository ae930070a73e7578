"""What the image models share: convolution + norm per step, where attention goes, the readout."""

import copy
import math
import warnings
from collections.abc import Callable, Iterable
from functools import cache
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from staa.folding import plain, untouched
from staa.layers import Site, Window, fold_batch_norm, per_step, plain_batch_norm
from staa.neurons import Neuron
from staa.ops import direct
from staa.ops.averages import Folded, served
from staa.ops.checks import NUMBERS, check_counts, check_input

NeuronFactory = Callable[[int], nn.Module]
AttentionFactory = Callable[[int | None, int], nn.Module]
Sites = Literal["all", "last-of-stage", "stem"]


def he_normal(weight: Tensor) -> None:
    """A convolution's weight [C_out, C_in, k, k] from N(0, 2 / (k² C_out)) (He et al. 2015, by fan-out)."""
    nn.init.normal_(weight, std=math.sqrt(2 / (weight[0, 0].numel() * len(weight))))


class ConvNorm(nn.Module):
    """Convolution without bias, then BatchNorm with statistics joint over T, N, H, W. [T, N, C, H, W] -> same rank.

    initialise(weight) sets the convolution's weight; None leaves it as PyTorch makes it, U(±1 / √(k² C_in)).
    """

    per_step = True

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        stride: int = 1,
        *,
        initialise: Callable[[Tensor], None] | None = he_normal,
    ):
        super().__init__()
        # A strided 1×1 convolution is one of every stride-th pixel, and is built so: oneDNN's backward pass of the strided
        # form, channels-last and narrow, corrupts the heap.
        self.skip = stride if kernel == 1 else 1
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride // self.skip, kernel // 2, bias=False)
        self.norm: nn.Module = nn.BatchNorm2d(outputs)
        if initialise is not None:
            initialise(self.conv.weight)

    def forward(self, x: Tensor) -> Tensor:
        return per_step(self.norm, self._convolve(x))

    def fold(self, x: Tensor) -> Folded:
        """The same, BatchNorm left to the neuron that follows, if a kernel takes its averages."""
        x = self._convolve(x)
        return fold_batch_norm(x, self.norm) if served(x) else Folded(per_step(self.norm, x))

    def _convolve(self, x: Tensor) -> Tensor:
        return per_step(self.conv, x if self.skip == 1 else x[..., :: self.skip, :: self.skip])


def fuse_norms(model: nn.Module) -> nn.Module:
    """A copy of the model for evaluation, each BatchNorm multiplied into the convolution before it; up to rounding the same.

    Only what is plainly a convolution and a BatchNorm is fused; a pair with a hook, a parametrization or a subclass stays as it
    is.

    Raises ValueError for a model in training mode, whose BatchNorm goes by the batch.
    """
    if model.training:
        raise ValueError("BatchNorm can only be fused with its running statistics: call model.eval() first")
    model = copy.deepcopy(model)
    for layer in model.modules():
        if isinstance(layer, ConvNorm) and plain(layer.conv, nn.Conv2d) and plain_batch_norm(layer.norm):
            layer.conv = fuse_conv_bn_eval(layer.conv, cast(nn.BatchNorm2d, layer.norm)).requires_grad_(False)
            layer.norm = nn.Identity()
    return model


def weigh_branches(blocks: nn.Module, weight: float) -> None:
    """Set the initial weight of the last BatchNorm of each residual block, its layer2's.

    Spikes are all or nothing, so that each layer of a fresh network tears similar inputs apart; behind many of them, the
    gradient of the first is noise. A block whose branch begins small passes spikes on nearly as they are: docs/log.md.

    Raises ValueError for a weight that is negative or no finite number.
    """
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 <= weight < math.inf:
        raise ValueError(f"residual_init must be a number of at least 0, got {weight!r}")
    for block in blocks.modules():
        layer = getattr(block, "layer2", None)
        if isinstance(layer, ConvNorm) and isinstance(layer.norm, nn.BatchNorm2d):
            nn.init.constant_(layer.norm.weight, weight)


def run_folded(layers: nn.Sequential | Iterable[nn.Module], x: Tensor) -> Tensor:
    """Run layers one after the other, the BatchNorm of each ConvNorm folded into the Site behind it.

    A layer that is not plainly one of the two, or has a hook, is called, and so is a Sequential that has one.
    """
    if isinstance(layers, nn.Module) and not (type(layers) is nn.Sequential and untouched(layers)):
        return layers(x)
    current = Folded(x)
    for layer in layers:
        if type(layer) is ConvNorm and untouched(layer):
            current = layer.fold(current.written_out())
        elif type(layer) is Site and untouched(layer):
            current = Folded(layer(current))
        else:
            current = Folded(layer(current.written_out()))
    return current.written_out()


class Readout(nn.Module):
    """Global average over space, then a linear layer at each step. [T, N, C, H, W] -> logits [T, N, classes].

    linear(inputs, outputs) makes the layer: nn.Linear, U(±1 / √inputs) for weight and bias, or another.
    """

    per_step = True

    def __init__(self, channels: int, num_classes: int, *, linear: Callable[[int, int], nn.Linear] = nn.Linear):
        super().__init__()
        self.linear = linear(channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x.mean((3, 4)))


def site_factory(
    neuron: NeuronFactory, attention: AttentionFactory | None, steps: int | None, where: Sites | None, channels: int
) -> Callable[..., Site]:
    """Returns make(channels, at="inner" | "last" | "stem") -> Site, with attention at the sites that `where` asks for.

    where: "all", "last-of-stage" (the last neuron of each stage) or "stem" (the last neuron of the stem); None is the
    default of the attention, asked of one for `channels`. Raises ValueError on another name.
    """
    if not callable(neuron) or isinstance(neuron, nn.Module):
        raise ValueError(f"neuron must be a factory (channels) -> Module, such as LIF, got {neuron!r}")
    if attention is not None and (not callable(attention) or isinstance(attention, nn.Module)):
        raise ValueError(f"attention must be a factory (steps, channels) -> Module, such as STAA, got {attention!r}")
    if where is None and attention is not None:
        with torch.device("meta"):  # ask one instance, without touching the random state
            where = getattr(attention(steps, channels), "default_sites", "all")
    if where not in (None, "all", "last-of-stage", "stem"):
        raise ValueError(f'sites must be "all", "last-of-stage" or "stem", got {where!r}')
    wanted = {"all": {"inner", "last", "stem"}, "last-of-stage": {"last"}, "stem": {"stem"}}.get(where or "", set())

    def make(channels: int, at: Literal["inner", "last", "stem"] = "inner") -> Site:
        made = neuron(channels)
        if isinstance(made, Neuron) and made.dims is None:
            made.dims = 5  # a batch [N, C, H, W] fed to a part of a network is no window
        return Site(made, attention(steps, channels) if attention and at in wanted else None)

    return make


def as_window(x: Tensor, model: nn.Module, window: Window, in_channels: int) -> Tensor:
    """[T, N, C, H, W] as it is (T checked); [N, C, H, W] repeated T times.

    Raises ValueError for any other input, and for one of another dtype or device than the model's weights (under autocast of
    any dtype of floats); TypeError for what is no tensor.
    """
    check_input(x, model)
    if x.ndim == 4:
        if window.steps is None:
            raise ValueError("a model with steps=None can't repeat an image: give a window [T, N, C, H, W]")
        if in_channels == 2 and not torch.compiler.is_compiling():
            _warn_of_frames()
        x = direct(x, window.steps)
    if x.ndim != 5:
        raise ValueError(f"the input must be [T, N, C, H, W] or [N, C, H, W], got shape {list(x.shape)}")
    window(x)
    if x.shape[2] != in_channels:
        raise ValueError(f"the input must have the model's {in_channels} channels, got {x.shape[2]} (input {list(x.shape)})")
    return x


@cache  # so that it warns once
def _warn_of_frames() -> None:
    warnings.warn(
        "an input [N, 2, H, W] is taken as N images, each repeated T times: the T event frames of one recording are "
        "[T, 1, 2, H, W], frames[:, None]; images are given without this warning as staa.ops.direct(x, steps=T)",
        stacklevel=6,  # past nn.Module's calls
    )


def scaled(channels: int, width: float) -> int:
    """A layer's channels at a width multiplier, at least 1."""
    return max(1, round(channels * width))


def check_sizes(num_classes: int, in_channels: int, steps: int | None, width: float) -> None:
    """Raises ValueError for sizes no network can have."""
    check_counts(num_classes=num_classes, in_channels=in_channels, steps=1 if steps is None else steps)
    if isinstance(width, bool) or not isinstance(width, NUMBERS) or not 0 < width < 1000:
        raise ValueError(f"width must be a number above 0 and below 1000, got {width!r}")
