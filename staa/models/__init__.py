"""Networks: f(num_classes, *, in_channels, steps, neuron, attention, sites, width) -> nn.Module."""

from staa.forecasters import FORECASTERS
from staa.forecasters.ispikformer import ispikformer
from staa.forecasters.spikestag import spikestag
from staa.models.ms_resnet import MSResNet, ms_resnet18, ms_resnet34
from staa.models.resnet import ResNet, resnet9, resnet18, resnet19, resnet20, resnet34
from staa.models.vgg import vggsnn
from staa.registry import Registry

MODELS = Registry(
    "model",
    "staa.models.MODELS",
    {
        "resnet9": resnet9,
        "resnet18": resnet18,
        "resnet19": resnet19,
        "resnet20": resnet20,
        "resnet34": resnet34,
        "ms_resnet18": ms_resnet18,
        "ms_resnet34": ms_resnet34,
        "vggsnn": vggsnn,
    },
)

__all__ = [
    "FORECASTERS", "MODELS", "MSResNet", "ResNet", "ispikformer", "ms_resnet18", "ms_resnet34", "resnet9", "resnet18",
    "resnet19", "resnet20", "resnet34", "spikestag", "vggsnn",
]  # fmt: skip
