"""Data sets: f(*, root, validation, …) -> Source; each asks by its parameters for steps, scale and settings of a recipe."""

from functools import partial

from staa.data.batches import Batches
from staa.data.downloaded import inventory
from staa.data.events.digits import digits_events, saccade_events
from staa.data.events.folder import event_folder
from staa.data.events.frames import to_frames
from staa.data.events.published import ARCHIVES, download_events
from staa.data.events.read import read_events
from staa.data.events.recording import Events
from staa.data.events.sets import cifar10dvs, dvsgesture, nmnist
from staa.data.images.cifar import cifar, download_cifar, load_cifar
from staa.data.images.folder import image_folder
from staa.data.series.describe import describe
from staa.data.series.files import read_series
from staa.data.series.graph import read_graph
from staa.data.series.named import FILES, SERIES, diffusion_ring, download_series
from staa.data.series.prepare import Normaliser
from staa.data.series.series import TimeSeries
from staa.data.series.source import SeriesSource, forecast_source
from staa.data.series.windows import WindowBatches
from staa.data.source import Samples, Source, SplitData
from staa.data.splits import split_by_hash
from staa.registry import Registry

DATASETS = Registry(
    "data set",
    "staa.data.DATASETS",
    {
        "digits-events": digits_events,
        "cifar10": partial(cifar, "cifar10"),
        "cifar100": partial(cifar, "cifar100"),
        "cifar10dvs": cifar10dvs,
        "dvsgesture": dvsgesture,
        "nmnist": nmnist,
        "events-folder": event_folder,
        "folder": image_folder,
        "imagenet": partial(image_folder, val_is_test=True),
        "tiny-imagenet": partial(image_folder, val_is_test=True),
    },
)
DOWNLOADS = {
    **{name: partial(download_cifar, name) for name in ("cifar10", "cifar100")},
    **{name: partial(download_events, name) for name in ARCHIVES},
    **{name: partial(download_series, name) for name in FILES},
}
"""f(root, tell) -> the folder; see `staa.data.download`."""

__all__ = [
    "DATASETS",
    "DOWNLOADS",
    "SERIES",
    "Batches",
    "Events",
    "Normaliser",
    "Samples",
    "SeriesSource",
    "Source",
    "SplitData",
    "TimeSeries",
    "WindowBatches",
    "cifar",
    "cifar10dvs",
    "describe",
    "diffusion_ring",
    "digits_events",
    "download_cifar",
    "dvsgesture",
    "event_folder",
    "forecast_source",
    "image_folder",
    "inventory",
    "load_cifar",
    "nmnist",
    "read_events",
    "read_graph",
    "read_series",
    "saccade_events",
    "split_by_hash",
    "to_frames",
]
