"""Files of data sets: fetched with resume, checked against their published md5 or sha256, unpacked."""

import hashlib
import http.client
import os
import shutil
import stat
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from staa.counting import counted
from staa.files import open_regular

CHUNK = 1 << 20
Tell = Callable[[str, int, int | None], None]
"""tell(name, bytes there, bytes in all, or None if that is not known)"""


@dataclass(frozen=True)
class Archive:
    name: str
    checksum: str
    """md5, or sha256"""
    urls: tuple[str, ...]
    """tried in turn"""
    page: str
    """where a person finds it"""


def fetch(archive: Archive, folder: Path, tell: Tell = lambda *_: None) -> Path:
    """The archive in the folder, downloaded if it is not there. What has arrived waits in NAME.part and is gone on with.

    Raises ValueError, saying what to do by hand, if no address answers or what arrived is not the published archive.
    """
    path = folder / archive.name
    if path.is_file():
        if not _is(path, archive.checksum):
            raise ValueError(f"{path} is not the published archive ({told(archive.checksum)}): remove it and run this again")
        return path
    folder.mkdir(parents=True, exist_ok=True)
    part, anew = folder / f"{archive.name}.part", folder / f"{archive.name}.part.{os.getpid()}"
    problems = []
    for url in archive.urls:
        try:
            arrived = _download(url, part, anew, lambda there, of: tell(archive.name, there, of))
        except (URLError, OSError, http.client.HTTPException) as error:
            problems.append(f"{url}: {error}")
            continue
        if _is(arrived, archive.checksum):
            arrived.replace(path)
            part.unlink(missing_ok=True)
            return path
        problems.append(f"{url}: what it sends is not the published archive")
        arrived.unlink()
    raise ValueError(
        f"could not download {archive.name} ({'; '.join(problems)}). By hand: get it from {archive.page}, put it at {path} "
        f"({told(archive.checksum)}) and run this again"
    )


def unpack(path: Path, folder: Path) -> None:
    """Extract a .zip or .tar.gz: its files and folders appear whole, what is there stays, but for an empty folder.

    Raises ValueError for one that is broken, that holds anything but files and folders or a name that leads out of the
    folder, or whose files are larger than it says or than the disk has room for.
    """
    with tempfile.TemporaryDirectory(dir=folder, prefix=".") as at:
        try:
            with open_regular(path) as file:
                (_unzip if path.suffix == ".zip" else _untar)(file, Path(at), shutil.disk_usage(folder).free)
        except OSError:  # such as a full disk
            raise
        except Exception as error:  # zipfile, tarfile, zlib and lzma each have their own
            raise ValueError(f"{path} can't be unpacked ({error}): remove it and download it again") from error
        for entry in Path(at).iterdir():
            there = folder / entry.name
            if there.is_dir() and not there.is_symlink() and not any(there.iterdir()):
                there.rmdir()
            if not there.exists():
                entry.rename(there)


def _untar(file: IO[bytes], at: Path, room: int) -> None:
    with tarfile.open(fileobj=file, mode="r:gz") as archive:
        # Before Python 3.11.4 there is no filter, and what follows is the only check.
        archive.extraction_filter = getattr(tarfile, "data_filter", None)
        for member in counted(archive, "unpacking"):
            if not (member.isreg() or member.isdir()):
                raise ValueError(f"{member.name!r} is neither a file nor a folder")
            room = _take(member.size, room, member.name)
            _inside(at, member.name)
            archive.extract(member, at)


def _unzip(file: IO[bytes], at: Path, room: int) -> None:
    with zipfile.ZipFile(file) as archive:
        for member in counted(archive.infolist(), "unpacking", len(archive.infolist())):
            kind = stat.S_IFMT(member.external_attr >> 16)
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise ValueError(f"{member.filename!r} is neither a file nor a folder")
            room = _take(member.file_size, room, member.filename)
            path = _inside(at, member.filename)
            if member.is_dir():
                path.mkdir(parents=True, exist_ok=True)
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(member) as packed, path.open("xb") as out:
                left = member.file_size
                while left:  # never more than the archive says: zipfile itself inflates all there is
                    chunk = packed.read(min(CHUNK, left))
                    if not chunk:
                        raise ValueError(f"{member.filename!r} is shorter than the archive says")
                    out.write(chunk)
                    left -= len(chunk)


def _inside(at: Path, name: str) -> Path:
    """Where a member goes. Raises ValueError for a name that is absolute, or leads out of the folder."""
    steps = name.replace("\\", "/").split("/")
    if not steps[0] or ".." in steps or ":" in steps[0] or "\0" in name:
        raise ValueError(f"{name!r} leads out of the folder")
    return at.joinpath(*steps)


def _take(size: int, room: int, name: str) -> int:
    if size > room:
        raise ValueError(f"the disk has no room for the {size:,} bytes of {name!r}")
    return room - size


def _download(url: str, part: Path, anew: Path, tell: Callable[[int, int | None], None]) -> Path:
    """Append to the part what it lacks, or write to `anew` if a server sends all of it again; returns which of the two."""
    there = part.stat().st_size if part.exists() else 0
    headers = {"User-Agent": "staa"} | ({"Range": f"bytes={there}-"} if there else {})
    try:
        answer = urlopen(Request(url, headers=headers), timeout=60)
    except HTTPError as error:
        if error.code == 416 and there:  # nothing is missing
            return part
        raise
    if answer.status not in (200, 206):  # some hosts ask whether one is a robot, with 202
        raise OSError(f"it answered {answer.status} {answer.reason}")
    to = part if answer.status == 206 or not there else anew
    with answer, to.open("ab" if answer.status == 206 else "wb") as out:
        there = out.tell()
        length = answer.headers.get("Content-Length")
        of = there + int(length) if length else None
        while chunk := answer.read(CHUNK):
            out.write(chunk)
            there += len(chunk)
            tell(there, of)
        tell(there, of or there)
    if of is not None and there < of:
        if to is anew:
            anew.unlink()
        raise OSError(f"the connection broke after {there} of {of} bytes; run this again to go on")
    return to


def _kind(checksum: str) -> str:
    return {32: "md5", 64: "sha256"}[len(checksum)]


def told(checksum: str) -> str:
    """Such as "md5 c32a…", by the length of the sum."""
    return f"{_kind(checksum)} {checksum}"


def is_published(data: bytes, checksum: str) -> bool:
    """Whether bytes have a published md5 or sha256."""
    return hashlib.new(_kind(checksum), data).hexdigest() == checksum


def _is(path: Path, checksum: str) -> bool:
    with path.open("rb") as file:
        return hashlib.file_digest(file, _kind(checksum)).hexdigest() == checksum
