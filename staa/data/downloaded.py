"""Which of the data sets that can be downloaded are in a folder."""

from pathlib import Path

from staa.data.download import told
from staa.data.events.published import ARCHIVES, PUBLISHED
from staa.data.events.sets import recordings_in
from staa.data.images.cifar import CIFAR, load_cifar
from staa.data.series.named import FILES, published_file


def inventory(name: str, root: Path) -> str:
    """What is there of a data set, in words: how much of it, and whether it was checked.

    Args:
        name: A data set that can be downloaded, of `staa.data.DOWNLOADS`.
        root: Folder that it was downloaded to.

    Raises:
        FileNotFoundError: If it is not there, or its download is not finished; it says what to do.
        ValueError: If what is there is broken, or not the published files.
    """
    try:
        if name in CIFAR:
            train, test = load_cifar(name, root)
            return f"{len(train):,} + {len(test):,} images under {root}, md5 right"
        if name in FILES:
            path, _ = published_file(name, root)
            own = path.name != FILES[name].name
            return f"{path}, {'unpacked, so not checked' if own else told(FILES[name].checksum).split()[0] + ' right'}"
        folder, count = recordings_in(name, root)
        return f"{count:,} of the {PUBLISHED[name]:,} recordings in {folder}"
    except FileNotFoundError as error:
        begun = [path.name.removesuffix(".part") for path in _parts(name, root) if path.is_file()]
        if not begun:
            raise
        raise FileNotFoundError(
            f"the download of {' and '.join(begun)} is not finished: `staa data {name}` goes on with it"
        ) from error


def _parts(name: str, root: Path) -> list[Path]:
    """Where a download waits until it is whole."""
    if name in ARCHIVES:
        folder, _, _, archives = ARCHIVES[name]
        return [root / folder / f"{file}.part" for file, *_ in archives]
    file = CIFAR[name].url.rpartition("/")[2] if name in CIFAR else FILES[name].name
    return [root / f"{file}.part"]
