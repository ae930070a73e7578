"""Files: bounded when they are read, whole and never through a link when they are written."""

import errno
import gzip
import io
import os
import zipfile
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest

from staa.arrays import arrays_in, check_members, inflate
from staa.files import (
    append_text,
    check_bytes,
    max_bytes,
    open_regular,
    parse_bytes,
    read_bytes,
    save_text,
    save_with,
    write,
)
from staa.locks import exclusive


def test_the_limit_is_half_the_memory_or_what_is_said(monkeypatch):
    monkeypatch.delenv("STAA_MAX_BYTES", raising=False)
    assert max_bytes() == os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    monkeypatch.setenv("STAA_MAX_BYTES", "3MiB")
    assert max_bytes() == 3 * 2**20
    with pytest.raises(ValueError, match=r"it would take 1000 GiB of memory, the limit is 3 MiB"):
        check_bytes(1000 * 2**30, "it")
    check_bytes(3 * 2**20, "it")
    with pytest.raises(ValueError, match=r"it would take 3 MiB of memory, the limit is 3 MiB: .* STAA_MAX_BYTES=4M"):
        check_bytes(3 * 2**20 + 1, "it")


@pytest.mark.parametrize(
    ("text", "size"), [("500", 500), ("2k", 2048), ("8G", 8 * 2**30), ("8 GiB", 8 * 2**30), ("1TB", 2**40)]
)
def test_sizes(text, size):
    assert parse_bytes(text) == size


@pytest.mark.parametrize("text", ["", "0", "-1", "8X", "1.5G", "much"])
def test_no_sizes(text):
    with pytest.raises(ValueError, match="a limit of memory must be a size such as 500M or 8G"):
        parse_bytes(text)


def test_a_pipe_and_a_folder_are_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe.npz")
    for path in (tmp_path / "pipe.npz", tmp_path):
        with pytest.raises(ValueError, match="is no regular file"):
            open_regular(path)


def test_a_file_above_the_limit_is_not_read(tmp_path, monkeypatch):
    (tmp_path / "large").write_bytes(bytes(2000))
    monkeypatch.setenv("STAA_MAX_BYTES", "1000")
    with pytest.raises(ValueError, match="large would take"):
        read_bytes(tmp_path / "large")


def test_arrays_come_back(tmp_path):
    arrays = {"a": np.arange(6.0).reshape(2, 3), "b": np.asfortranarray(np.arange(6).reshape(2, 3)), "none": np.zeros((0, 4))}
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / "a.npz", **arrays)
        read = arrays_in((tmp_path / "a.npz").read_bytes(), str(tmp_path / "a.npz"))
        assert read.keys() == arrays.keys()
        assert all(np.array_equal(read[k], arrays[k]) and read[k].dtype == arrays[k].dtype for k in arrays)
    np.save(tmp_path / "a.npy", arrays["a"])
    assert np.array_equal(arrays_in((tmp_path / "a.npy").read_bytes(), str(tmp_path / "a.npy"))[""], arrays["a"])


def test_some_arrays_of_many(tmp_path):
    np.savez_compressed(tmp_path / "a.npz", t=np.arange(3), note=np.array([{}], object))
    with open(tmp_path / "a.npz", "rb") as file:
        assert list(check_members(file, "a.npz", lambda names: {"t"} if "note" in names else set())[1]) == ["t"]


def test_well_packed_arrays_are_read_however_well_they_are_packed(tmp_path):
    np.savez_compressed(tmp_path / "a.npz", t=np.zeros(10_000_000, np.uint8))  # a thousand to one
    assert len(arrays_in((tmp_path / "a.npz").read_bytes(), str(tmp_path / "a.npz"))["t"]) == 10_000_000


def test_arrays_above_the_limit_are_not_inflated(tmp_path, monkeypatch):
    np.savez_compressed(tmp_path / "a.npz", t=np.zeros(10_000_000, np.uint8))
    monkeypatch.setenv("STAA_MAX_BYTES", "1M")
    with pytest.raises(ValueError, match="would take 9.537 MiB of memory, the limit is 1 MiB"):
        arrays_in((tmp_path / "a.npz").read_bytes(), str(tmp_path / "a.npz"))


def test_gzip_is_unpacked_up_to_the_limit(monkeypatch):
    data = os.urandom(1000) + bytes(100_000)
    assert inflate(gzip.compress(data), "it") == data
    assert inflate(gzip.compress(data) + gzip.compress(b"more") + bytes(10), "it") == data + b"more"
    for broken in (gzip.compress(data)[:-1], b"\x1f\x8bno", gzip.compress(data) + b"more"):
        with pytest.raises(ValueError, match=r"it can't be unpacked \(.*copy or save it again"):
            inflate(broken, "it")
    monkeypatch.setenv("STAA_MAX_BYTES", "1M")
    assert len(inflate(gzip.compress(bytes(2**20)), "it")) == 2**20
    for bomb in (gzip.compress(bytes(2**20 + 1)), gzip.compress(bytes(2**20)) + gzip.compress(b"1")):
        with pytest.raises(ValueError, match=r"it, unpacked, would take 1 MiB of memory, the limit is 1 MiB"):
            inflate(bomb, "it")


def test_what_is_no_array_is_refused_by_name(tmp_path):
    path = tmp_path / "a.npz"
    for make, match in (
        (lambda: path.write_bytes(b"PK\3\4 broken"), "can't be read as .npz"),
        (lambda: path.write_bytes(_with_a_directory_before_the_file()), "can't be read as .npz"),
        (lambda: path.write_bytes(b"no array"), "can't be read as a NumPy array"),
        (lambda: np.savez(path, a=np.array([{}], object)), "Python objects, which are never unpickled"),
        (lambda: _member(path, b"\x93NUMPY\1\0" + b"v\0" + _header("(9999999999,)")), "truncated or no NumPy array"),
        (lambda: _member(path, b"\x93NUMPY\1\0" + b"v\0" + _header(f"({10**30}, 0)")), "is no NumPy array: "),
        (lambda: _member(path, b"\x93NUMPY\1\0" + b"v\0" + _header("(True,)") + bytes(8)), "its shape is .True,"),
        (
            lambda: _member(
                path, b"\x93NUMPY\1\0" + (8500).to_bytes(2, "little") + _header(f"({'9' * 4000}, {'9' * 4000})", 8499)
            ),
            "far more bytes",
        ),
        (lambda: path.write_bytes(_unreadable_name(path)), "can't be read as .npz"),
        (lambda: _member(path, b"x", zipfile.ZIP_LZMA), "is not packed as numpy does it"),
    ):
        make()
        with pytest.raises(ValueError, match=match) as caught:
            arrays_in(path.read_bytes(), str(path))
        assert str(path) in str(caught.value)


def _with_a_directory_before_the_file():
    file = io.BytesIO()
    np.savez(file, a=np.eye(2))
    data = bytearray(file.getvalue())
    data[-10:-6] = (2**31).to_bytes(4, "little")  # the directory's size, from which zipfile reckons where it begins
    return bytes(data)


def _header(shape, length=117):
    return f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}}}".ljust(length).encode() + b"\n"


def _unreadable_name(path):
    """A member whose name is said to be UTF-8 and is not: zipfile's UnicodeDecodeError is a ValueError too."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("äö.npy", b"x")
    return path.read_bytes().replace("äö".encode(), b"\xff\xff\xff\xff")


def _member(path, data, packed=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", packed) as archive:
        archive.writestr("a.npy", data)


def test_a_file_that_need_not_be_on_the_disk_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr("os.fsync", lambda descriptor: pytest.fail("waited for the disk"))
    assert write(tmp_path / "a", b"new", sync=False).read_bytes() == b"new"


def test_links_are_replaced_and_never_followed(tmp_path):
    victim = tmp_path / "victim"
    for save in (
        lambda path: write(path, b"new"),
        lambda path: save_text(path, "new"),
        lambda path: save_with(path, lambda file: file.write(b"new")),
    ):
        victim.write_text("precious")
        link = tmp_path / "link"
        link.unlink(missing_ok=True)
        link.symlink_to(victim)
        save(link)
        assert victim.read_text() == "precious"
        assert link.read_text() == "new"
        assert not link.is_symlink()
        assert sorted(p.name for p in tmp_path.iterdir()) == ["link", "victim"]
    link.unlink()
    link.symlink_to(victim)
    with pytest.raises(OSError, match="symbolic link"):
        append_text(link, "new")
    assert victim.read_text() == "precious"


def test_what_is_kept_is_the_link_itself_and_not_what_it_points_to(tmp_path):
    (tmp_path / "victim").write_text("precious")
    (tmp_path / "last").symlink_to(tmp_path / "victim")
    (tmp_path / "previous").symlink_to(tmp_path / "victim")
    write(tmp_path / "last", b"new", keep=tmp_path / "previous")
    assert (tmp_path / "victim").read_text() == "precious"
    assert (tmp_path / "last").read_bytes() == b"new"


def test_holding_a_folder_removes_what_a_killed_process_left(tmp_path):
    left, other = tmp_path / f".last.pt.{'0a' * 8}.tmp", tmp_path / "mine.tmp"
    left.touch()
    other.touch()
    with exclusive(tmp_path):
        assert not left.exists()
        assert other.exists()


def test_a_pipe_is_not_appended_to(tmp_path):
    os.mkfifo(tmp_path / "log")
    with pytest.raises(OSError, match="it is no regular file.*log"):
        append_text(tmp_path / "log", "line")


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="of Linux")
def test_a_file_that_can_not_be_read_is_named():
    with pytest.raises(OSError, match="/proc/self/mem"):
        read_bytes(Path("/proc/self/mem"))


@pytest.mark.parametrize("links", [True, False])
def test_a_new_file_replaces_nothing_that_came_meanwhile(tmp_path, monkeypatch, links):
    if not links:
        monkeypatch.setattr("os.link", Mock(side_effect=OSError(errno.EPERM, "no hard links here")))
    path = tmp_path / "table.csv"
    write(path, b"first", new=True)
    with pytest.raises(RuntimeError, match="File exists; the table.csv there is untouched"):
        write(path, b"second", new=True)
    assert path.read_bytes() == b"first"
    assert [*tmp_path.iterdir()] == [path]
