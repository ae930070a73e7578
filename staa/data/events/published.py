"""Where the published event data sets come from, and what is in them."""

from pathlib import Path

from staa.data.download import Archive, Tell, fetch, unpack

CIFAR_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

FIGSHARE = ("https://figshare.com/ndownloader/files/{}", "https://api.figshare.com/v2/file/download/{}")
MENDELEY = ("https://data.mendeley.com/public-files/datasets/468j46mzdv/files/{}/file_downloaded",)
ARCHIVES = {
    "nmnist": (
        "NMNIST",
        "https://www.garrickorchard.com/datasets/n-mnist",
        MENDELEY,
        (
            ("train.zip", "20959b8e626244a1b502305a9e6e2031", "39c25547-014b-4137-a934-9d29fa53c7a0", "Train"),
            ("test.zip", "69ca8762b2fe404d9b9bad1103e97832", "05a4d654-7e03-4c15-bdfa-9bb2bcbea494", "Test"),
        ),
    ),
    "cifar10dvs": (
        "CIFAR10DVS",
        "https://figshare.com/articles/dataset/CIFAR10-DVS_New/4724671",
        FIGSHARE,
        (("CIFAR10DVS.zip", "ce3a4a0682dc0943703bd8f749a7701c", "38023437", "airplane.zip"),),
    ),
    "dvsgesture": (
        "DVSGesture",
        "https://research.ibm.com/interactive/dvsgesture",
        FIGSHARE,
        (
            ("ibmGestureTrain.tar.gz", "3a8f0d4120a166bac7591f77409cb105", "38022171", "ibmGestureTrain"),
            ("ibmGestureTest.tar.gz", "56070e45dadaa85fff82e0fbfbc06de5", "38020584", "ibmGestureTest"),
        ),
    ),
}
"""data set -> its folder, its page, addresses, and archives: file, md5, number in the address, what it unpacks to"""
PUBLISHED = {"nmnist": 70_000, "cifar10dvs": 10_000, "dvsgesture": 1_342}
"""data set -> recordings"""


def download_events(name: str, root: Path, tell: Tell = lambda *_: None) -> Path:
    """Download a data set's archives and unpack them as tonic lays them out; returns the folder of the recordings.

    What is there is left alone, but for an empty folder.

    Args:
        name: "nmnist", "cifar10dvs" or "dvsgesture".
        root: Folder that they go to; it is made if need be.
        tell: Called as tell(name, bytes there, bytes in all or None) while it downloads.

    Raises:
        ValueError: If no address answers, or if an archive is broken or not the published one.
    """
    folder_name, page, hosts, archives = ARCHIVES[name]
    folder = root / folder_name
    for file, md5, number, makes in archives:
        if not _holds(folder / makes):
            unpack(fetch(Archive(file, md5, tuple(host.format(number) for host in hosts), page), folder, tell), folder)
    for inner in sorted(folder.glob("*.zip")):  # CIFAR10-DVS has an archive for each class in its archive
        if inner.stem in CIFAR_CLASSES and not _holds(folder / inner.stem):
            unpack(inner, folder)
    return folder


def _holds(path: Path) -> bool:
    """A file, or a folder with something in it."""
    return path.is_file() or (path.is_dir() and any(path.iterdir()))
