"""Recipes for event cameras."""

from dataclasses import replace

from staa.recipes.images import dta
from staa.recipes.measured import MEASURED
from staa.recipes.parts import Augment, Data, Loss, Model, Optim
from staa.recipes.recipe import Recipe

digits_events = Recipe(
    name="digits-events",
    summary="handwritten digits as simulated event-camera data: small, embedded, no download",
    source="ours; the making of the events after N-MNIST (Orchard et al. 2015)",
    expect=MEASURED["digits-events"],
    data=Data(name="digits-events"),
    augment=Augment(shift=1),
    model=Model(name="vggsnn", steps=10, width=0.125),
    optim=Optim(name="adamw", lr=5e-3, min_lr=1e-5, weight_decay=0.02, warmup_epochs=2, clip=1.0),
    loss=Loss(label_smoothing=0.1),
    epochs=18,
    batch_size=32,
)

cifar10dvs_resnet20_staa = Recipe(
    name="cifar10dvs-resnet20-staa",
    summary="ResNet-20 on CIFAR10-DVS, 10 frames of 64 × 64",
    source="STAA-SNN (CVPR 2025, reconstructed); training after FSTA-SNN (AAAI 2025)",
    expect="unmeasured; paper 82.10 % (best epoch on the test set)",
    data=Data(name="cifar10dvs", validation=0.0, size=64),
    augment=Augment(flip=True, events="nda", mixup=0.5),
    model=Model(name="resnet20", steps=10),
    optim=Optim(name="sgd", lr=0.02, min_lr=1e-5, nesterov=True, weight_decay=1e-4, warmup_epochs=10),
    epochs=500,
    batch_size=32,
)

cifar10dvs_vggsnn_staa = replace(
    cifar10dvs_resnet20_staa,
    name="cifar10dvs-vggsnn-staa",
    summary="VGGSNN on CIFAR10-DVS, 10 frames of 48 × 48",
    source="ours: TET's network (ICLR 2022) with STAA, trained as cifar10dvs-resnet20-staa",
    expect="unmeasured",
    data=replace(cifar10dvs_resnet20_staa.data, size=48),
    model=Model(name="vggsnn", steps=10),
)

dvsgesture_resnet20_staa = Recipe(
    name="dvsgesture-resnet20-staa",
    summary="ResNet-20 on DVS128 Gesture, 16 frames of 128 × 128",
    source="STAA-SNN (CVPR 2025, reconstructed); training after FSTA-SNN (AAAI 2025), but AdamW at 1e-3 for LAMB at 5e-3",
    expect="unmeasured; the paper's figure is not known to us",
    data=Data(name="dvsgesture", validation=0.0),
    model=Model(name="resnet20", steps=16),
    loss=Loss(name="bce", label_smoothing=0.1),
    optim=Optim(name="adamw", lr=1e-3, min_lr=1e-5, weight_decay=0.02),
    epochs=200,
    batch_size=4,
)

nmnist_vggsnn_staa = replace(
    digits_events,
    name="nmnist-vggsnn-staa",
    summary="VGGSNN at eighth width on N-MNIST, 10 frames of 34 × 34: real recordings on a CPU",
    source="ours; the network of TET (ICLR 2022) with STAA, made small",
    expect=MEASURED["nmnist-vggsnn-staa"],
    data=Data(name="nmnist"),
    augment=Augment(shift=2),
    epochs=30,
)

nmnist_stream = replace(
    nmnist_vggsnn_staa,
    name="nmnist-stream",
    summary="the same for any number of steps, in windows of 30 ms: made for staa stream",
    source="ours",
    expect=MEASURED["nmnist-stream"],
    data=replace(nmnist_vggsnn_staa.data, frames="window", window=30.0, steps=10),
    model=replace(nmnist_vggsnn_staa.model, steps=None),
    loss=replace(nmnist_vggsnn_staa.loss, name="tet"),
)

events_folder_vggsnn_staa = replace(
    nmnist_vggsnn_staa,  # and its augmentation: no mirror, since left and right may be two classes
    name="events-folder-vggsnn-staa",
    summary="VGGSNN on event recordings of your own in class folders",
    source="ours",
    expect="depends on the recordings",
    data=Data(name="events-folder", size=48),
    model=Model(name="vggsnn", steps=10, width=0.5),
    epochs=60,
)

events_folder_stream = replace(
    events_folder_vggsnn_staa,
    name="events-folder-stream",
    summary="the same for any number of steps, in windows of 30 ms: made for staa stream",
    data=replace(events_folder_vggsnn_staa.data, frames="window", window=30.0, steps=10),
    model=replace(events_folder_vggsnn_staa.model, steps=None),
    loss=nmnist_stream.loss,
)

cifar10dvs_msresnet18_dta = replace(
    dta("cifar10dvs"),
    summary="MS-ResNet-18 with DTA on CIFAR10-DVS, 10 frames of 48 × 48",
    source="DTA-SNN (WACV 2025), after its official code, but that a mixed sample has both labels (there: augment.mix_hard)",
    data=Data(name="cifar10dvs", validation=0.0, size=48),
    augment=Augment(flip=True, events="nda", mixup=0.5, mix_probability=0.5),
    model=Model(name="ms_resnet18", steps=10, neuron="dta", attention="dta"),
    optim=Optim(name="sgd", lr=0.05, min_lr=0.0),
    epochs=1000,
)
