"""What to train: the recipes, each with where its numbers come from and what to expect."""

from staa.recipes.events import (
    cifar10dvs_msresnet18_dta,
    cifar10dvs_resnet20_staa,
    cifar10dvs_vggsnn_staa,
    digits_events,
    dvsgesture_resnet20_staa,
    events_folder_stream,
    events_folder_vggsnn_staa,
    nmnist_stream,
    nmnist_vggsnn_staa,
)
from staa.recipes.images import (
    ABLATION,
    _speedrun,
    cifar,
    cifar100_resnet20_tiny_staa,
    dta,
    folder_resnet18_staa,
    imagenet_msresnet34_dta,
    imagenet_resnet34_staa,
    plain,
    tiny,
    tiny_imagenet_resnet18_staa,
)
from staa.recipes.series import HORIZONS, SEQSNN, SOURCES, benchmark_of, own_series, ring_spikestag
from staa.registry import Registry

RECIPES = Registry(
    "recipe",
    "staa.RECIPES",
    {
        recipe.name: recipe
        for recipe in (
            digits_events,
            plain(digits_events),
            cifar100_resnet20_tiny_staa,
            plain(cifar100_resnet20_tiny_staa),
            tiny("dta", "dta", "DTA-SNN's attention"),
            tiny("ta", "ta-max", "TA-SNN's temporal attention in SpikingJelly's form"),
            nmnist_vggsnn_staa,
            plain(nmnist_vggsnn_staa),
            nmnist_stream,
            events_folder_vggsnn_staa,
            events_folder_stream,
            cifar10dvs_resnet20_staa,
            cifar10dvs_vggsnn_staa,
            dvsgesture_resnet20_staa,
            folder_resnet18_staa,
            tiny_imagenet_resnet18_staa,
            imagenet_resnet34_staa,
            dta("cifar10"),
            dta("cifar100"),
            cifar10dvs_msresnet18_dta,
            imagenet_msresnet34_dta,
            ring_spikestag,
            *(own_series(model, "depends on the series") for model in SOURCES),
            *(benchmark_of(data, model, p) for data in SEQSNN for model in ("spikestag", "ispikformer") for p in HORIZONS),
            _speedrun("cifar10"),
            _speedrun("cifar100"),
            *(cifar(d, b, row) for d in ("cifar100", "cifar10") for b in ("resnet20", "resnet19") for row in ABLATION),
        )
    },
)

__all__ = ["RECIPES"]
