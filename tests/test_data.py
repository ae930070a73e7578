import hashlib
import io
import pickle
import tarfile
import threading
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from hdf_files import Payload
from hypothesis import given, settings
from hypothesis import strategies as st

from staa.data import Batches, Samples, Source, digits_events, saccade_events, split_by_hash
from staa.data.augment import make_augment
from staa.data.draws import whole
from staa.data.images import cifar as cifar_module
from staa.data.images.cifar import CIFAR, cifar, download_cifar, load_cifar
from staa.data.images.files import normalise
from staa.data.splits import split_digest


@pytest.fixture(scope="module")
def digits():
    return digits_events(steps=10, validation=0.1)


def test_digits_events_is_split_as_documented(digits):
    assert (len(digits.train), len(digits.validation), len(digits.test)) == (1212, 135, 450)
    assert digits.test.x.shape == (450, 10, 2, 16, 16)
    assert digits.test.x.dtype == torch.uint8
    assert torch.bincount(digits.test.y).tolist() == [45, 46, 44, 46, 45, 46, 45, 45, 43, 45]
    assert digits.split == "27ae152ee087f014cff3770ffba53e706a2ac34e6631e4ae4bb640ab65de00c2"


def test_the_test_digits_do_not_depend_on_the_validation_share(digits):
    other = digits_events(steps=10, validation=0.0)
    assert torch.equal(other.test.x, digits.test.x)
    assert other.validation is None
    assert len(other.train) == 1347


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(0, 4), min_size=1, max_size=60), st.data())
def test_a_hashed_split_is_stratified_disjoint_and_fixed(labels, data):
    labels = torch.tensor(labels)
    count = data.draw(st.integers(0, len(labels)))
    chosen, others = split_by_hash(labels, count, "salt")
    assert len(chosen) == count
    assert sorted([*chosen.tolist(), *others.tolist()]) == list(range(len(labels)))
    for c in labels.unique():
        share = count * (labels == c).sum().item() / len(labels)
        assert abs((labels[chosen] == c).sum().item() - share) < 1
    assert torch.equal(split_by_hash(labels, count, "salt")[0], chosen)


def test_split_errors_and_digest():
    with pytest.raises(ValueError, match="count must be from 0 to the 3 samples .*, got 4"):
        split_by_hash(torch.zeros(3), 4, "salt")
    a, b = torch.tensor([0, 1]), torch.tensor([2])
    assert split_digest(train=a, test=b) != split_digest(train=b, test=a)


def test_no_motion_or_no_contrast_no_events():
    dark, digit = np.zeros((1, 8, 8)), np.random.default_rng(0).random((1, 8, 8))
    assert saccade_events(dark).sum() == 0
    assert saccade_events(digit, amplitude=0).sum() == 0
    assert saccade_events(digit).sum() > 0


def test_events_add_up_to_the_change_of_log_intensity():
    """ON minus OFF times the threshold is the level's whole change; after a closed path that is less than a threshold."""
    frames = saccade_events(np.random.default_rng(0).random((3, 8, 8)), threshold=0.1).astype(int)
    net = (frames[:, :, 0] - frames[:, :, 1]).sum(1)
    assert np.abs(net).max() <= 1


def test_binning_keeps_every_event():
    images_ = np.random.default_rng(0).random((2, 8, 8))
    whole = saccade_events(images_, steps=1).sum((1,))
    for steps in (3, 10, 90):
        assert np.array_equal(saccade_events(images_, steps=steps).sum(1), whole)


def test_a_brightening_edge_sends_on_events_ahead_of_it():
    """A bright square moving right: ON where it arrives, OFF where it leaves."""
    square = np.zeros((1, 8, 8))
    square[0, 2:6, 2:6] = 1
    frames = saccade_events(square, steps=3)[0].astype(float)  # one frame a saccade; the second goes from left to right
    columns = np.arange(frames.shape[-1])
    on, off = ((frames[1, c].sum(0) * columns).sum() / frames[1, c].sum() for c in (0, 1))
    assert on > off


def test_event_errors():
    with pytest.raises(ValueError, match=r"\[N, h, w\]"):
        saccade_events(np.zeros((8, 8)))
    with pytest.raises(ValueError, match="values from 0 to 1"):
        saccade_events(np.full((1, 8, 8), 16.0))
    with pytest.raises(ValueError, match="can hold 255 events, .* gives up to 753"):
        saccade_events(np.random.default_rng(0).random((1, 8, 8)), steps=1, threshold=0.01)
    with pytest.raises(ValueError, match="threshold must be positive"):
        saccade_events(np.zeros((1, 8, 8)), threshold=0)
    with pytest.raises(ValueError, match="from 1 to 90"):
        saccade_events(np.zeros((1, 8, 8)), steps=91)


def test_batches_depend_on_seed_epoch_and_position_alone():
    samples = Samples(torch.arange(10)[:, None, None, None].expand(10, 2, 5, 5).to(torch.uint8), torch.arange(10))

    def make(seed):
        return Batches(samples, 4, prepare=lambda x: x.float(), augment=partial(random_noise, high=9), seed=seed)

    full = list(make(1).epoch(3))
    torch.manual_seed(99)
    assert len(make(1)) == 2  # the last two samples make no batch
    entered = list(make(1).epoch(3, start=1))
    assert torch.equal(entered[0][0], full[1][0])
    assert torch.equal(entered[0][1], full[1][1])
    assert not torch.equal(full[0][1], next(make(1).epoch(4))[1])
    assert not torch.equal(full[0][1], next(make(2).epoch(3))[1])
    assert len(set(torch.cat([y for _, y in full]).tolist())) == 8


def test_evaluation_batches_are_whole_and_in_order():
    samples = Samples(torch.zeros(10, 1, 2, 2), torch.arange(10))
    batches = Batches(samples, 4, prepare=lambda x: x, augment=lambda x, g: x + 1)
    assert len(batches) == 3
    assert torch.cat([y for _, y in batches.epoch()]).tolist() == list(range(10))
    assert sum(x.sum() for x, _ in batches.epoch()) == 0  # not augmented


def test_a_label_out_of_range_is_named():
    def source(y):
        part = Samples(torch.zeros(len(y), 1, 2, 2), torch.tensor(y))
        return Source(
            train=part, validation=None, test=part, classes=3, channels=1, size=2, prepare=lambda x: x, split="",
        )  # fmt: skip

    assert source([0, 1, 2]).classes == 3
    with pytest.raises(ValueError, match=r"label 3 of sample 1 of train is out of range: there are 3 classes.*\(2 such labels"):
        source([0, 3, -1])


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_workers_change_nothing(workers):
    samples = Samples(torch.randint(0, 255, (10, 3, 4, 4), dtype=torch.uint8), torch.arange(10))

    def make(workers, seed=1):
        mix = lambda x, y, generator, _: (x + torch.rand((), generator=generator), y)  # noqa: E731
        augment = partial(random_noise, high=9)
        return Batches(samples, 3, prepare=lambda x: x.float(), augment=augment, mix=mix, seed=seed, workers=workers)

    torch.manual_seed(3)
    state = torch.get_rng_state()
    for seed in (1, None):
        for epoch, start in ((0, 0), (2, 1)):
            a, b = list(make(None, seed).epoch(epoch, start)), list(make(workers, seed).epoch(epoch, start))
            assert len(a) == len(b) == len(make(None, seed)) - start
            assert all(torch.equal(x, u) and torch.equal(y, v) for (x, y), (u, v) in zip(a, b, strict=True))
    assert torch.equal(torch.get_rng_state(), state)


def test_what_workers_need_can_be_sent_to_them():
    """Where processes are spawned and not forked, as on macOS; prepare and mix, which may come from anywhere, stay here."""
    samples = Samples(torch.randint(0, 255, (10, 3, 16, 16), dtype=torch.uint8), torch.arange(10))
    augment = make_augment(shift=1, flip=True, policy="randaugment", jitter=0.1, cutout=4)
    batches = Batches(samples, 4, prepare=lambda x: x, mix=lambda x, y, g, _: (x, y), augment=augment, seed=0, workers=1)
    stored = batches._stored
    sent = pickle.loads(pickle.dumps(stored))
    assert all(torch.equal(a, b) for k in range(2) for a, b in zip(stored[2, k], sent[2, k], strict=True))


def random_noise(x, keys, high):
    return x + torch.from_numpy(whole(keys, "noise", high)).view(-1, 1, 1, 1)


def broken(x, keys):
    raise ValueError("this image is broken")


@pytest.mark.parametrize("workers", [None, 0, 1])
def test_what_goes_wrong_in_a_worker_is_told_as_it_is(workers):
    batches = Batches(
        Samples(torch.zeros(4, 1), torch.zeros(4)), 2, prepare=lambda x: x, augment=broken, seed=0, workers=workers
    )
    with pytest.raises(ValueError, match="^this image is broken$"):
        next(batches.epoch())


def test_batches_errors():
    with pytest.raises(ValueError, match="got 2 inputs and 3 labels"):
        Samples(torch.zeros(2, 1), torch.zeros(3))
    with pytest.raises(ValueError, match="batch size of at least 1"):
        Batches(Samples(torch.zeros(2, 1), torch.zeros(2)), 0, prepare=lambda x: x)
    one = Batches(Samples(torch.zeros(2, 1), torch.zeros(2)), 64, prepare=lambda x: x, seed=0)
    assert len(one) == 1  # fewer samples than a batch still train


def write_cifar(root: Path, name: str, images_per_file: tuple[int, int], monkeypatch) -> dict[str, np.ndarray]:
    """Small files in the official binary layout, and their md5 in the place of the published ones."""
    spec, rng = CIFAR[name], np.random.default_rng(0)
    truth, digests = {}, {}
    (root / spec.folder).mkdir(parents=True)
    for part, count in ((spec.train, images_per_file[0]), (spec.test, images_per_file[1])):
        for file in part:
            pixels = rng.integers(0, 256, (count, 3, 32, 32), dtype=np.uint8)
            labels = np.stack([np.full(count, 7), np.arange(count) % spec.classes], 1)[:, -spec.label_bytes :].astype(np.uint8)
            data = np.concatenate([labels, pixels.reshape(count, -1)], 1).tobytes()
            (root / spec.folder / file).write_bytes(data)
            truth[file], digests[file] = pixels, hashlib.md5(data).hexdigest()
    small = replace(
        spec,
        images_per_file=images_per_file,
        train={f: digests[f] for f in spec.train},
        test={f: digests[f] for f in spec.test},
    )
    monkeypatch.setitem(cifar_module.CIFAR, name, small)
    return truth


@pytest.mark.parametrize("name", CIFAR)
def test_cifar_binary_files(name, tmp_path, monkeypatch):
    truth = write_cifar(tmp_path, name, (40, 20), monkeypatch)
    train, test = load_cifar(name, tmp_path)
    assert np.array_equal(test.x.numpy(), truth[next(iter(CIFAR[name].test))])
    assert np.array_equal(train.x.numpy(), np.concatenate([truth[f] for f in CIFAR[name].train]))
    assert test.y.tolist() == [i % CIFAR[name].classes for i in range(20)]
    source = cifar(name, root=tmp_path, validation=0.25)
    assert len(source.train) + len(source.validation) == len(train)
    assert len(source.validation) == len(train) // 4
    assert len(source.test) == 20


def test_cifar_errors_name_the_file(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match="download it into .* with `staa data cifar100`"):
        load_cifar("cifar100", tmp_path)
    write_cifar(tmp_path, "cifar100", (40, 20), monkeypatch)
    file = tmp_path / "cifar-100-binary" / "train.bin"
    data = file.read_bytes()
    file.write_bytes(data[:-1])
    with pytest.raises(ValueError, match=r"train.bin is truncated or no CIFAR file: expected 122960 bytes, found 122959"):
        load_cifar("cifar100", tmp_path)
    file.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(ValueError, match=r"train.bin is corrupt"):
        load_cifar("cifar100", tmp_path)
    file.unlink()
    with pytest.raises(FileNotFoundError, match=r"train.bin is missing"):
        load_cifar("cifar100", tmp_path)


def test_cifar_from_torchvisions_folder(tmp_path, monkeypatch):
    from torchvision.datasets import CIFAR100

    folder, rng, lists = tmp_path / "cifar-100-python", np.random.default_rng(0), {}
    folder.mkdir()
    for file, count in (("train", 12), ("test", 5)):
        entry = {"data": rng.integers(0, 256, (count, 3072), dtype=np.uint8), "fine_labels": list(range(count))}
        (folder / file).write_bytes(pickle.dumps(entry))
        lists[file] = [[file, hashlib.md5((folder / file).read_bytes()).hexdigest()]]
    monkeypatch.setattr(CIFAR100, "train_list", lists["train"])
    monkeypatch.setattr(CIFAR100, "test_list", lists["test"])
    train, test = load_cifar("cifar100", tmp_path)
    assert train.x.shape == (12, 3, 32, 32)
    assert test.y.tolist() == [0, 1, 2, 3, 4]
    entry = pickle.loads((folder / "test").read_bytes())
    assert np.array_equal(test.x.numpy().reshape(5, -1), entry["data"])  # channel first, as in the binary files
    (folder / "train").write_bytes(b"not what was published")
    with pytest.raises(ValueError, match="train is corrupt: its md5 is not the published"):
        load_cifar("cifar100", tmp_path)
    # and should one ever have the published sum, it still names no code
    for payload in (Payload(tmp_path / "ran"), {"data": np.array([Payload(tmp_path / "ran")]), "fine_labels": [0]}):
        (folder / "train").write_bytes(pickle.dumps(payload))
        lists["train"][0][1] = hashlib.md5((folder / "train").read_bytes()).hexdigest()
        with pytest.raises(ValueError, match="train is no CIFAR file: it names posix.mkdir, which is no array"):
            load_cifar("cifar100", tmp_path)
    assert not (tmp_path / "ran").exists()


@pytest.fixture
def server(tmp_path):
    """A web server on this machine that serves tmp_path."""
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as httpd:
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{httpd.server_port}"
        httpd.shutdown()


@pytest.mark.filterwarnings("ignore")
def test_download_checks_the_archive(tmp_path, monkeypatch, server):
    write_cifar(tmp_path / "origin", "cifar100", (40, 20), monkeypatch)
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as tar:
        tar.add(tmp_path / "origin" / "cifar-100-binary", "cifar-100-binary")
    (tmp_path / "cifar-100-binary.tar.gz").write_bytes(archive.getvalue())
    spec = replace(
        cifar_module.CIFAR["cifar100"],
        url=f"{server}/cifar-100-binary.tar.gz",
        archive_md5=hashlib.md5(archive.getvalue()).hexdigest(),
    )
    monkeypatch.setitem(cifar_module.CIFAR, "cifar100", spec)
    assert download_cifar("cifar100", tmp_path / "data") == tmp_path / "data" / "cifar-100-binary"
    assert len(load_cifar("cifar100", tmp_path / "data")[0]) == 40
    download_cifar("cifar100", tmp_path / "data")  # whole already: left alone

    monkeypatch.setitem(cifar_module.CIFAR, "cifar100", replace(spec, archive_md5="0" * 32))
    with pytest.raises(ValueError, match="not the published archive"):
        download_cifar("cifar100", tmp_path / "elsewhere")
    assert not (tmp_path / "elsewhere" / "cifar-100-binary").exists()


def test_normalise():
    x = torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1).expand(2, 3, 1, 1)
    y = normalise(x, (0.5, 0.25, 0.0), (0.5, 1.0, 2.0))
    assert y[0].flatten().tolist() == [-1, -0.25, 0]
    assert y[1].flatten().tolist() == [1, 0.75, 0.5]
