"""The recipes: each says what it trains, where its numbers come from and what to expect."""

from dataclasses import replace

from staa.config import Data, Model, Optim, Recipe


def _plain(recipe: Recipe, expect: str) -> Recipe:
    """The plain twin: the same network with STAA's LIF before it learns, and no attention."""
    return replace(
        recipe,
        name=recipe.name.replace("-staa", "") + "-plain",
        summary=f"{recipe.name}'s plain LIF twin, without attention",
        model=replace(recipe.model, neuron="plain", attention=None),
        expect=expect,
    )


digits_events = Recipe(
    name="digits-events",
    summary="handwritten digits as simulated event-camera data: small, embedded, no download",
    source="ours; the making of the events after N-MNIST (Orchard et al. 2015)",
    expect="98.1 ± 0.4 % (5 seeds), 90 s on 2 cores",
    data=Data(name="digits-events"),
    model=Model(name="vggsnn", steps=10, width=0.125),
    optim=Optim(name="adamw", lr=5e-3, min_lr=1e-5, weight_decay=0.02, warmup_epochs=2, clip=1.0),
    epochs=18,
    batch_size=32,
    label_smoothing=0.1,
)

cifar100_resnet20_tiny_staa = Recipe(
    name="cifar100-resnet20-tiny-staa",
    summary="ResNet-20 at quarter width, T = 2, 300 steps: a quick look at real images on a CPU",
    source="ours; the network of STAA-SNN (CVPR 2025, reconstructed), made small",
    expect="3.6 ± 0.4 % (3 seeds), 82 s on 2 cores",
    data=Data(name="cifar100"),
    model=Model(name="resnet20", steps=2, width=0.25),
    optim=Optim(name="sgd", lr=0.1, min_lr=1e-5, weight_decay=5e-3),
    epochs=1,
    max_steps=300,
    batch_size=64,
)

RECIPES = {
    recipe.name: recipe
    for recipe in (
        digits_events,
        _plain(digits_events, "97.4 ± 0.7 % (5 seeds)"),
        cifar100_resnet20_tiny_staa,
        _plain(cifar100_resnet20_tiny_staa, "3.5 ± 0.6 % (3 seeds)"),
    )
}
