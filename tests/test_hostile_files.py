"""Files of data that are made to run code, to fill memory, to hang or to crash: refused, by name, before any harm."""

import contextlib
import gzip
import io
import os
import pickle
import subprocess
import sys
import tarfile
import tracemalloc
import zipfile
import zlib
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
from hdf_files import TIMES, VALUES, Payload, write_hdf
from PIL import Image

from staa.data import DATASETS, read_graph, read_series
from staa.data.download import unpack
from staa.data.images.files import decode

NAMES = ["773869", "767541", "717447"]


# HDF5


def test_pickles_in_a_table_are_not_touched(tmp_path):
    """pandas.read_hdf ran these; the name of an axis is one that it reads always."""
    path, marker = tmp_path / "a.h5", tmp_path / "ran"
    payload = np.bytes_(pickle.dumps(Payload(marker), 0))
    write_hdf(path, VALUES, times=TIMES, names=NAMES)
    with h5py.File(path, "a") as file:
        for of in (file["df"], *file["df"].values()):
            for attribute in ("freq", "name", "TITLE", "FLAVOR", "info", "values_cols", "errors", "transposed"):
                of.attrs[attribute] = payload
    assert np.array_equal(read_series(path).values, VALUES)
    with h5py.File(path, "a") as file:
        file["df/axis1"].attrs["tz"] = payload
    with pytest.raises(ValueError, match="a.h5 can't be read as one pandas table: axis1 has a time zone that is pickled"):
        read_series(path)
    with h5py.File(path, "a") as file:
        for of in (file["df"], *file["df"].values()):
            for attribute in ("pandas_type", "encoding", "kind", "value_type", "CLASS", "VERSION"):
                of.attrs[attribute] = payload
    with pytest.raises(ValueError, match="a.h5 can't be read as one pandas table"):
        read_series(path)
    assert not marker.exists()
    pickle.loads(bytes(payload))
    assert marker.exists()  # what would have happened


def test_a_table_with_columns_of_objects_is_refused(tmp_path):
    path = tmp_path / "a.h5"
    write_hdf(path, VALUES, times=TIMES, names=NAMES)
    with h5py.File(path, "a") as file:
        del file["df/block0_values"]
        file["df"].create_dataset("block0_values", (1,), h5py.vlen_dtype(np.uint8))
    with pytest.raises(ValueError, match="block0_values holds no plain numbers or text .*make all columns numbers"):
        read_series(path)
    with h5py.File(path, "a") as file:
        file["df"].attrs["pandas_type"] = np.bytes_(b"frame_table")
    with pytest.raises(ValueError, match=r"it is a frame_table, whose names are pickled: .*format='fixed'"):
        read_series(path)


def test_a_chunk_that_inflates_without_end_is_stopped(tmp_path, monkeypatch):
    """HDF5 inflates a chunk to whatever it becomes, not to the size that the file says it has."""
    path = tmp_path / "a.h5"
    write_hdf(path, VALUES, times=TIMES, names=NAMES)
    packer = zlib.compressobj(9)
    bomb = b"".join([packer.compress(bytes(2**20)) for _ in range(512)] + [packer.flush()])
    with h5py.File(path, "a") as file:
        del file["df/block0_values"]
        values = file["df"].create_dataset("block0_values", VALUES.shape, "f8", chunks=VALUES.shape, compression="gzip")
        values.id.write_direct_chunk((0, 0), bomb)
    assert path.stat().st_size < 1e6
    monkeypatch.setenv("STAA_MAX_BYTES", "10M")
    with pytest.raises(ValueError, match=r"a.h5 (would take more memory than the limit|can't be read as one pandas table)"):
        read_series(path)


def test_a_table_larger_than_the_limit_is_not_read(tmp_path):
    path = tmp_path / "a.h5"
    write_hdf(path, VALUES, times=TIMES, names=NAMES)
    with h5py.File(path, "a") as file:
        del file["df/block0_values"]
        file["df"].create_dataset("block0_values", (2**30, 2**20), "f8", chunks=(1, 16))  # nothing of it is written
    with pytest.raises(ValueError, match=r"a.h5 can't be read .*its arrays take .* bytes or more, the limit is"):
        read_series(path)


def test_a_table_can_not_show_another_file(tmp_path):
    path, secret = tmp_path / "a.h5", tmp_path / "secret"
    secret.write_bytes(VALUES.tobytes())
    write_hdf(tmp_path / "other.h5", VALUES, times=TIMES, names=NAMES)
    layout = h5py.VirtualLayout(VALUES.shape, "f8")
    layout[:] = h5py.VirtualSource(str(tmp_path / "other.h5"), "df/block0_values", VALUES.shape)
    for hide in (
        lambda group: group.__setitem__("block0_values", h5py.ExternalLink(str(tmp_path / "other.h5"), "/df/block0_values")),
        lambda group: group.__setitem__("block0_values", h5py.SoftLink("/df/axis1")),
        lambda group: group.create_dataset("block0_values", VALUES.shape, "f8", external=[(str(secret), 0, VALUES.nbytes)]),
        lambda group: group.create_virtual_dataset("block0_values", layout),
    ):
        write_hdf(path, VALUES, times=TIMES, names=NAMES)
        with h5py.File(path, "a") as file:
            del file["df/block0_values"]
            hide(file["df"])
        with pytest.raises(ValueError, match=r"a.h5 can't be read .*(has no block0_values|is not in the file itself)"):
            read_series(path)
    with h5py.File(path, "w") as file:
        file["df"] = h5py.ExternalLink(str(tmp_path / "other.h5"), "/df")
    with pytest.raises(ValueError, match="it holds 0 of them"):
        read_series(path)


def test_groups_that_hold_each_other_come_to_an_end(tmp_path):
    path = tmp_path / "a.h5"
    write_hdf(path, VALUES, times=TIMES, names=NAMES)
    with h5py.File(path, "a") as file:
        for k in range(50):
            file[f"df/again{k}"] = file["/"]
    assert np.array_equal(read_series(path).values, VALUES)


def test_a_reader_that_breaks_down_or_hangs_is_told(tmp_path, monkeypatch):
    write_hdf(tmp_path / "a.h5", VALUES, times=TIMES, names=NAMES)
    for script, seconds, said in (
        ("import os; os.abort()", 60, "HDF5 crashed on it"),
        ("while True: pass", 0.5, "HDF5 took too long"),
    ):
        (tmp_path / "script.py").write_text(script)
        monkeypatch.setattr("staa.data.series.hdf.__file__", str(tmp_path / "script.py"))
        monkeypatch.setattr("staa.data.series.hdf.SECONDS", seconds)
        with pytest.raises(ValueError, match=rf"a.h5 can't be read: .*{said}"):
            read_series(tmp_path / "a.h5")


# Series and graphs


@pytest.mark.parametrize("name", ["a.csv.gz", "a.txt.gz", "a.npz"])
def test_what_inflates_past_the_limit_is_refused(name, tmp_path, monkeypatch):
    path = tmp_path / name
    if name.endswith("gz"):
        path.write_bytes(gzip.compress(b"1,2\n" * 2**20))
    else:
        np.savez_compressed(path, values=np.zeros((2**19, 1)))
    assert path.stat().st_size < 2**15
    monkeypatch.setenv("STAA_MAX_BYTES", "2M")
    for read in (read_series, lambda path: read_graph(path, ("a", "b"))):
        with pytest.raises(ValueError, match=rf"{name}.* would take .*the limit is 2 MiB"):
            read(path)


def test_a_wide_first_row_does_not_make_every_row_wide(tmp_path):
    """3 MB of text would be 10¹² cells."""
    (tmp_path / "a.csv").write_text("," * 10**6 + "\n" + "1\n" * 10**6)
    with pytest.raises(ValueError, match="a.csv can't be read .* would take"):
        read_series(tmp_path / "a.csv")


def test_a_graph_of_many_nodes_is_not_allocated(tmp_path):
    (tmp_path / "g.csv").write_text("a,b\n")
    with pytest.raises(ValueError, match="a graph of 1000000 nodes would take"):
        read_graph(tmp_path / "g.csv", tuple(map(str, range(10**6))))


def test_an_array_that_says_it_is_longer_than_it_is(tmp_path):
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (9999999999, 3)}".ljust(117) + b"\n"
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("values.npy", b"\x93NUMPY\1\0" + len(header).to_bytes(2, "little") + header)
    with pytest.raises(ValueError, match="a.npz, array 'values' is truncated or no NumPy array"):
        read_series(tmp_path / "a.npz")


@pytest.mark.parametrize("ending", [".csv", ".csv.gz", ".npz", ".h5", ".npy"])
def test_a_pipe_does_not_hang(ending, tmp_path):
    path = tmp_path / f"a{ending}"
    os.mkfifo(path)
    with pytest.raises(ValueError, match=f"a{ending} is no regular file"):
        read_graph(path, ("a", "b")) if ending == ".npy" else read_series(path)


# Images


EPS = b"""%!PS-Adobe-3.0 EPSF-3.0
%%BoundingBox: 0 0 8 8
%%Pages: 1
%%EndComments
(%pipe%touch ran) (w) file
showpage
%%EOF
"""


def test_no_image_starts_ghostscript(tmp_path, monkeypatch):
    """Pillow goes by content, and a gs on the path would be run for this one, whatever it is called."""
    marker, gs = tmp_path / "ran", tmp_path / "bin" / "gs"
    gs.parent.mkdir()
    gs.write_text(f"#!/bin/sh\ntouch {marker}\n")
    gs.chmod(0o755)
    monkeypatch.setenv("PATH", f"{gs.parent}:{os.environ['PATH']}")
    monkeypatch.setattr("PIL.EpsImagePlugin.gs_binary", None, raising=False)  # from 10.1 on, Pillow looks once
    (tmp_path / "cat.jpg").write_bytes(EPS)
    with pytest.raises(ValueError, match="cat.jpg can't be decoded as an image: its content is none of JPEG, PNG"):
        decode(str(tmp_path / "cat.jpg"))
    assert not marker.exists()
    with Image.open(tmp_path / "cat.jpg") as image, contextlib.suppress(OSError):
        image.load()
    assert marker.exists()  # what would have happened


@pytest.mark.parametrize("kind", ["GIF", "ICO", "PCX", "SGI", "TGA", "PDF", "JPEG2000", "EPS"])
def test_other_formats_are_refused_under_an_ending_that_is_accepted(kind, tmp_path):
    Image.new("RGB", (16, 16)).save(tmp_path / "a.png", format=kind)
    with pytest.raises(ValueError, match="a.png can't be decoded as an image: its content is none of"):
        decode(str(tmp_path / "a.png"))


def test_an_accepted_format_may_have_another_accepted_ending(tmp_path):
    Image.new("RGB", (16, 16), "red").save(tmp_path / "a.jpg", format="PNG")
    assert decode(str(tmp_path / "a.jpg")).getpixel((0, 0)) == (255, 0, 0)


def png(path, width, height):
    """White, one bit a pixel: a thousand pixels a byte."""

    def chunk(name, data):
        return len(data).to_bytes(4, "big") + name + data + zlib.crc32(name + data).to_bytes(4, "big")

    packer = zlib.compressobj(9)
    row = b"\0" + b"\xff" * -(-width // 8)
    pixels = b"".join([packer.compress(row) for _ in range(height)] + [packer.flush()])
    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([1, 0, 0, 0, 0])
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b""))


@pytest.mark.parametrize(("width", "height"), [(13000, 13000), (9500, 9500), (10**5, 900), (30000, 30000)])
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_small_file_of_many_pixels_is_refused_before_it_is_decoded(width, height, tmp_path):
    path = tmp_path / "bomb.png"
    png(path, width, height)
    assert path.stat().st_size < 160_000
    tracemalloc.start()
    with pytest.raises(ValueError, match=r"bomb.png is an image of more than 89,478,485 pixels"):
        decode(str(path))
    assert tracemalloc.get_traced_memory()[1] < 2e6
    tracemalloc.stop()


def test_an_image_of_many_pixels_is_told_in_one_line(tmp_path):
    for width in (9500, 30000):
        png(tmp_path / f"{width}.png", width, width)
    code = "import sys; from staa.data.images.files import decode\nfor path in sys.argv[1:]:\n"
    code += "  try: decode(path)\n  except ValueError as error: print(error, file=sys.stderr)"
    paths = [str(tmp_path / "9500.png"), str(tmp_path / "30000.png")]
    told = subprocess.run([sys.executable, "-c", code, *paths], capture_output=True, text=True, check=True).stderr
    text = "is an image of more than 89,478,485 pixels (PIL.Image.MAX_IMAGE_PIXELS): make it smaller, or raise the limit"
    assert told.splitlines() == [f"{path} {text}" for path in paths]


def test_the_limit_of_memory_holds_for_images(tmp_path, monkeypatch):
    png(tmp_path / "a.png", 2000, 2000)
    assert decode(str(tmp_path / "a.png")).size == (2000, 2000)
    monkeypatch.setenv("STAA_MAX_BYTES", "10M")
    with pytest.raises(ValueError, match="a.png can't be decoded as an image: its 2000 × 2000 pixels would take 68.6"):
        decode(str(tmp_path / "a.png"))


def test_a_listed_image_is_no_pipe_and_lies_in_the_folder(tmp_path):
    for c in ("red", "blue"):
        (tmp_path / "train" / c).mkdir(parents=True)
        (tmp_path / "val" / "images").mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), c).save(tmp_path / "train" / c / "0.png")
        Image.new("RGB", (8, 8), c).save(tmp_path / "val" / "images" / f"{c}.png")
    listing = tmp_path / "val" / "val_annotations.txt"
    listing.write_text("red.png\tred\nblue.png\tblue\n")
    assert len(DATASETS["tiny-imagenet"](root=tmp_path, validation=0.0, size=8).test) == 2
    for name in (f"{tmp_path}/train/red/0.png", "../../train/red/0.png"):
        listing.write_text(f"{name}\tred\nblue.png\tblue\n")
        with pytest.raises(ValueError, match="val_annotations.txt, line 1 must be"):
            DATASETS["tiny-imagenet"](root=tmp_path, validation=0.0, size=8)
    listing.write_text("red.png\tred\nblue.png\tblue\n")
    (tmp_path / "val" / "images" / "red.png").unlink()
    os.mkfifo(tmp_path / "val" / "images" / "red.png")
    with pytest.raises(ValueError, match=r"red.png \(.*is no regular file"):
        DATASETS["tiny-imagenet"](root=tmp_path, validation=0.0, size=8)


# Archives


def zipped(path, *members, mode=0o644):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members:
            info = zipfile.ZipInfo(name)
            info.external_attr, info.compress_type = mode << 16, zipfile.ZIP_DEFLATED
            archive.writestr(info, data)


def tarred(path, name, data=b"", **changes):
    with tarfile.open(path, "w:gz") as archive:
        member = tarfile.TarInfo(name)
        member.size = len(data)
        for key, value in changes.items():
            setattr(member, key, value)
        archive.addfile(member, io.BytesIO(data))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda p, out: zipped(p / "a.zip", ("../out/hit", b"x")), "'../out/hit' leads out of the folder"),
        (lambda p, out: zipped(p / "a.zip", ("in/../../out/hit", b"x")), "leads out of the folder"),
        (lambda p, out: zipped(p / "a.zip", (f"{out}/hit", b"x")), "leads out of the folder"),
        (lambda p, out: zipped(p / "a.zip", ("..\\out\\hit", b"x")), "leads out of the folder"),
        (lambda p, out: zipped(p / "a.zip", ("link", str(out)), mode=0o120777), "'link' is neither a file nor a folder"),
        (lambda p, out: zipped(p / "a.zip", ("pipe", b""), mode=0o010644), "'pipe' is neither a file nor a folder"),
        (lambda p, out: tarred(p / "a.tar.gz", "../out/hit", b"x"), "leads out of the folder"),
        (lambda p, out: tarred(p / "a.tar.gz", f"{out}/hit", b"x"), "leads out of the folder"),
        (lambda p, out: tarred(p / "a.tar.gz", "link", type=tarfile.SYMTYPE, linkname=str(out)), "neither a file nor a folder"),
        (lambda p, out: tarred(p / "a.tar.gz", "link", type=tarfile.LNKTYPE, linkname=str(out)), "neither a file nor a folder"),
        (lambda p, out: tarred(p / "a.tar.gz", "pipe", type=tarfile.FIFOTYPE), "neither a file nor a folder"),
        (lambda p, out: tarred(p / "a.tar.gz", "device", type=tarfile.CHRTYPE), "neither a file nor a folder"),
        (lambda p, out: (p / "a.zip").write_bytes(b"no archive"), "can't be unpacked"),
        (lambda p, out: (p / "a.tar.gz").write_bytes(b"no archive"), "can't be unpacked"),
        (lambda p, out: os.mkfifo(p / "a.zip"), "a.zip is no regular file"),
    ],
)
def test_an_archive_stays_in_its_folder(make, said, tmp_path):
    out, folder = tmp_path / "out", tmp_path / "folder"
    out.mkdir()
    folder.mkdir()
    make(tmp_path, out)
    (path,) = tmp_path.glob("a.*")
    with pytest.raises(ValueError, match=said):
        unpack(path, folder)
    assert not list(out.iterdir())
    assert not list(folder.iterdir())


@pytest.mark.parametrize("ending", ["zip", "tar.gz"])
def test_an_archive_is_unpacked_whole_and_what_is_there_stays(ending, tmp_path):
    folder = tmp_path / "folder"
    (folder / "there").mkdir(parents=True)
    (folder / "there" / "own.bin").write_bytes(b"3")
    if ending == "zip":
        zipped(tmp_path / "a.zip", ("new/deep/a.bin", b"1" * 10**6), ("there/b.bin", b"2"))
    else:
        with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as archive:
            for name, data in (("./new/deep/a.bin", b"1" * 10**6), ("there/b.bin", b"2")):
                member = tarfile.TarInfo(name)
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
    unpack(tmp_path / f"a.{ending}", folder)
    assert (folder / "new" / "deep" / "a.bin").read_bytes() == b"1" * 10**6
    assert [path.name for path in (folder / "there").iterdir()] == ["own.bin"]


def test_an_archive_that_the_disk_has_no_room_for_is_not_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=2**20))
    zipped(tmp_path / "a.zip", *((f"{k}.bin", bytes(2**19)) for k in range(3)))
    tarred(tmp_path / "a.tar.gz", "a.bin", bytes(2**20 + 1))
    for name in ("a.zip", "a.tar.gz"):
        (tmp_path / "folder").mkdir(exist_ok=True)
        with pytest.raises(ValueError, match=r"the disk has no room for the [0-9,]+ bytes of '(2|a).bin'"):
            unpack(tmp_path / name, tmp_path / "folder")
        assert not list((tmp_path / "folder").iterdir())


def test_a_member_gives_no_more_than_it_says(tmp_path):
    """zipfile would inflate the whole gigabyte before it saw that the length is wrong."""
    zipped(tmp_path / "a.zip", ("a.bin", bytes(2**27)))
    data = bytearray((tmp_path / "a.zip").read_bytes())
    for at in (data.index(b"PK\1\2") + 24, 22):
        data[at : at + 4] = (1000).to_bytes(4, "little")
    (tmp_path / "a.zip").write_bytes(data)
    (tmp_path / "folder").mkdir()
    tracemalloc.start()
    with contextlib.suppress(ValueError):
        unpack(tmp_path / "a.zip", tmp_path / "folder")
    assert tracemalloc.get_traced_memory()[1] < 2**24
    tracemalloc.stop()
    assert sum(f.stat().st_size for f in (tmp_path / "folder").glob("*")) <= 1000
