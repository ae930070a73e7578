"""Networks: f(num_classes, *, in_channels, steps, neuron, attention, sites, width) -> nn.Module."""

from staa.models.resnet import ResNet, resnet18, resnet19, resnet20, resnet34
from staa.models.vgg import vggsnn

MODELS = {"resnet18": resnet18, "resnet19": resnet19, "resnet20": resnet20, "resnet34": resnet34, "vggsnn": vggsnn}

__all__ = ["MODELS", "ResNet", "resnet18", "resnet19", "resnet20", "resnet34", "vggsnn"]
