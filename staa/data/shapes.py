"""What a sample of a published data set is, known before any is read."""

from staa.data.events.folder import parse_sensor
from staa.data.events.published import CIFAR_CLASSES
from staa.data.events.sets import GESTURES, SENSORS
from staa.data.images.cifar import CIFAR

CLASSES = {"nmnist": 10, "cifar10dvs": len(CIFAR_CLASSES), "dvsgesture": len(GESTURES)}
SHAPES: dict[str, tuple[int, int, int | None]] = {
    "digits-events": (10, 2, 16),
    **{name: (cifar.classes, 3, 32) for name, cifar in CIFAR.items()},
    **{name: (CLASSES[name], 2, (parse_sensor(sensor) or (0,))[0]) for name, sensor in SENSORS.items()},
    "imagenet": (1000, 3, None),
    "tiny-imagenet": (200, 3, None),
}
"""data set -> (classes, channels, height and width unless `data.size` says others; None: it always says them)"""
