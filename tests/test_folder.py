"""Images in class folders, as small files in the real formats."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from staa.cli import main, train
from staa.data import DATASETS, Batches, image_folder
from staa.data.draws import keys_of
from staa.data.images.files import ImageFiles, decode
from staa.recipes import RECIPES
from staa.recipes.parts import Augment, Data, Model
from staa.runs import evaluate_run, run

COLOURS = {"blue": (20, 30, 200), "green": (20, 200, 30), "red": (200, 20, 30)}


def write(folder, count, *, colours=COLOURS, size=(20, 24), ending="jpg"):
    """count images of each class: noise around the class's colour."""
    rng = np.random.default_rng(len(str(folder)))
    for name, colour in colours.items():
        (folder / name).mkdir(parents=True)
        for i in range(count):
            pixels = np.clip(rng.normal(colour, 30, (*size, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{i:03}.{ending}")
    return folder


def files(samples):
    return [path.decode() for path in samples.x.paths]


def test_train_val_and_test_folders_are_what_they_say(tmp_path):
    for part, count in (("train", 5), ("val", 2), ("test", 3)):
        write(tmp_path / part, count)
    source = image_folder(root=tmp_path, validation=0.1, size=16)
    assert [len(p) for p in (source.train, source.validation, source.test)] == [15, 6, 9]
    assert source.names == ("blue", "green", "red")
    assert source.train.y.tolist() == [0] * 5 + [1] * 5 + [2] * 5
    assert all("/val/" in path for path in files(source.validation))
    x, y = next(Batches(source.test, 9, prepare=source.prepare).epoch())
    assert x.shape == (9, 3, 16, 16)
    assert x.mean((2, 3)).argmax(1).tolist() == [2 - c for c in y.tolist()]  # blue, green, red are channels 2, 1, 0


def test_what_has_no_folder_is_held_out_from_train(tmp_path):
    write(tmp_path / "a", 20)
    source = image_folder(root=tmp_path / "a", validation=0.1, size=16)
    parts = [files(p) for p in (source.train, source.validation, source.test)]
    assert [len(p) for p in parts] == [49, 5, 6]  # a tenth to test, a tenth of the rest to validate
    assert len({path for part in parts for path in part}) == 60
    assert image_folder(root=tmp_path / "a", validation=0.1, size=16).split == source.split
    write(tmp_path / "b" / "train", 10)
    write(tmp_path / "b" / "val", 2)
    source = image_folder(root=tmp_path / "b", validation=0.2, size=16)
    assert [len(p) for p in (source.train, source.validation, source.test)] == [27, 6, 3]
    assert all("/train/" in path for path in files(source.test))
    (tmp_path / "b" / "train" / "red" / "000.jpg").rename(tmp_path / "b" / "train" / "red" / "other.jpg")
    assert image_folder(root=tmp_path / "b", validation=0.2, size=16).split != source.split


def test_the_test_images_stay_the_test_images(tmp_path):
    """Whatever is held out for validation; and another image changes hardly any of them."""
    write(tmp_path, 60)
    tests = [files(image_folder(root=tmp_path, validation=share, size=16).test) for share in (0.0, 0.1, 0.3)]
    assert tests[0] == tests[1] == tests[2]
    assert len(tests[0]) == 18
    (tmp_path / "blue" / "0000.jpg").write_bytes((tmp_path / "blue" / "000.jpg").read_bytes())
    assert len(set(files(image_folder(root=tmp_path, validation=0.0, size=16).test)) & set(tests[0])) >= 17


@pytest.mark.parametrize("name", ["imagenet", "tiny-imagenet"])
def test_imagenets_val_is_the_test_set(name, tmp_path):
    write(tmp_path / "train", 10)
    write(tmp_path / "val", 2)
    write(tmp_path / "test", 1, colours={"images": (0, 0, 0)})  # Tiny-ImageNet's test images have no labels
    source = DATASETS[name](root=tmp_path, validation=0.0, size=16)
    assert (len(source.train), source.validation, len(source.test)) == (30, None, 6)
    source = DATASETS[name](root=tmp_path, validation=0.2, size=16)
    assert (len(source.train), len(source.validation), len(source.test)) == (24, 6, 6)
    with pytest.raises(FileNotFoundError, match="val does not exist: this data set is tested on it"):
        DATASETS[name](root=tmp_path / "train", validation=0.0)


def test_tiny_imagenets_own_layout(tmp_path):
    """train/CLASS/images/*.JPEG with boxes beside them; val/images/*.JPEG named by val/val_annotations.txt."""
    for c in COLOURS:
        write(tmp_path / "train" / c, 4, colours={"images": COLOURS[c]}, ending="JPEG")
        (tmp_path / "train" / c / f"{c}_boxes.txt").write_text("000.JPEG\t0\t0\t9\t9\n")
    write(tmp_path / "val", 1, colours={"images": (200, 20, 30)}, ending="JPEG")
    images = tmp_path / "val" / "images"
    for i, colour in enumerate(("green", "blue"), 1):
        Image.new("RGB", (20, 20), COLOURS[colour]).save(images / f"{i:03}.JPEG")
    annotations = tmp_path / "val" / "val_annotations.txt"
    annotations.write_text("000.JPEG\tred\t0\t0\t9\t9\n001.JPEG\tgreen\t0\t0\t9\t9\n002.JPEG\tblue\t0\t0\t9\t9\n")
    source = DATASETS["tiny-imagenet"](root=tmp_path, validation=0.0, size=16)
    assert len(source.train) == 12
    assert [path.rsplit("/", 1)[1] for path in files(source.test)] == ["002.JPEG", "001.JPEG", "000.JPEG"]
    annotations.write_text("000.JPEG red\n")
    with pytest.raises(ValueError, match=r"val_annotations.txt, line 1 must be .*; got '000.JPEG red'"):
        DATASETS["tiny-imagenet"](root=tmp_path, validation=0.0, size=16)


def test_hidden_files_and_other_files_are_left_out(tmp_path):
    write(tmp_path / "train", 4)
    write(tmp_path / "test", 1)
    (tmp_path / "train" / ".ipynb_checkpoints").mkdir()
    (tmp_path / "train" / "red" / "._000.jpg").write_bytes(b"macOS")
    (tmp_path / "train" / "red" / "notes.txt").write_text("red")
    (tmp_path / "train" / "red" / ".ipynb_checkpoints").mkdir()
    (tmp_path / "train" / "red" / ".ipynb_checkpoints" / "000.jpg").write_bytes(b"a copy")
    (tmp_path / "train" / "red" / "loop").symlink_to(tmp_path / "train")
    (tmp_path / "train" / "red" / "deep" / "er").mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(tmp_path / "train" / "red" / "deep" / "er" / "x.PNG")
    assert len(image_folder(root=tmp_path, validation=0.0, size=16).train) == 13


def test_a_class_called_train_is_a_class(tmp_path):
    write(tmp_path, 10, colours={"train": (0, 0, 0), "plane": (255, 255, 255)})
    assert image_folder(root=tmp_path, validation=0.2, size=16).names == ("plane", "train")


@pytest.mark.parametrize(
    ("folders", "named"),
    [
        (("Training", "Testing"), "Testing, images/Training"),
        (("x", "val", "test"), "test, images/val"),
        (("train", "valid"), "valid"),
        (("train", "validation", "test"), "validation"),
        (("Train", "Test"), "Test"),
        (("train/train", "train/val"), "train/val"),
    ],
)
def test_folders_that_look_like_other_parts_are_refused(folders, named, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder in folders:
        write(tmp_path / "images" / folder, 2)
    with pytest.raises(ValueError, match=rf"^images/{named}: named as a part of the data, .*rename or move it"):
        image_folder(root=Path("images"), validation=0.1)


def test_folders_beside_train_are_told(tmp_path):
    for part in ("train", "test", "devkit"):
        write(tmp_path / part, 3)
    assert image_folder(root=tmp_path, validation=0.0).notes == ("folders beside train/ that are left out: devkit",)


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "1", "I;16", "LA"])
def test_every_kind_of_image_becomes_rgb(mode, tmp_path):
    grey = np.linspace(0, 255, 64).reshape(8, 8)
    if mode == "I;16":
        image = Image.fromarray((grey * 257).astype(np.uint16))
    else:
        image = Image.fromarray(grey.astype(np.uint8)).convert("RGB").convert(mode)
    path = tmp_path / ("x.tiff" if mode == "CMYK" else "x.png")
    image.save(path)
    pixels = np.asarray(decode(str(path)))
    assert pixels.shape == (8, 8, 3)
    if mode != "1":
        assert np.abs(pixels[..., 0] - grey).max() <= (52 if mode == "P" else 6)  # a palette of six levels
    assert pixels[0, 0, 0] < 10
    assert pixels[-1, -1, 0] > 245


def corrupt(path, kind):
    data = path.read_bytes()
    path.write_bytes({"truncated": data[: len(data) // 2], "empty": b"", "garbage": b"no image at all" * 20}[kind])


@pytest.mark.parametrize("ending", ["jpg", "png", "webp", "bmp", "tiff"])
@pytest.mark.parametrize("kind", ["truncated", "empty", "garbage"])
def test_a_corrupt_image_is_refused_skipped_or_met(tmp_path, kind, ending):
    write(tmp_path / "train", 4, ending=ending)
    write(tmp_path / "test", 2)
    victim = tmp_path / "train" / "green" / f"001.{ending}"
    corrupt(victim, kind)
    with pytest.raises(ValueError, match=rf"1 of the images under .* can't be read: {victim} \(.+\); .*corrupt=skip`"):
        image_folder(root=tmp_path, validation=0.0, size=16)
    source = image_folder(root=tmp_path, validation=0.0, size=16, corrupt="skip")
    assert len(source.train) == 11
    assert source.notes == (f"1 images that can't be read are left out: {victim}",)
    source = image_folder(root=tmp_path, validation=0.0, size=16, corrupt="unchecked")
    for workers in (None, 0, 1):
        with pytest.raises(ValueError, match=f"^{victim} can't be decoded as an image"):
            list(Batches(source.train, 4, prepare=source.prepare, workers=workers).epoch())


def test_a_file_that_can_not_be_read_is_not_taken_for_a_corrupt_one(tmp_path, monkeypatch):
    write(tmp_path / "train", 4)
    write(tmp_path / "test", 2)

    def read_bytes(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("staa.data.images.files.read_bytes", read_bytes)
    with pytest.raises(PermissionError, match=r"000\.jpg"):
        image_folder(root=tmp_path, validation=0.0, corrupt="skip")


def test_pixels_of_32_bits_are_refused(tmp_path):
    """Their black and white are anyone's guess: they used to become all black or all white."""
    for name, pixels in (("F", np.linspace(0, 1, 256, dtype=np.float32)), ("I", np.arange(256, dtype=np.int32))):
        Image.fromarray(pixels.reshape(16, 16), mode=name).save(tmp_path / f"{name}.tiff")
        with pytest.raises(ValueError, match="its pixels have 32 bits"):
            decode(str(tmp_path / f"{name}.tiff"))


def test_a_palette_with_transparency_keeps_its_colours_and_warns_of_nothing(tmp_path):
    """Warnings are errors here, and images are checked by several threads, where silencing them would leak."""
    image = Image.new("P", (4, 4))
    image.putpalette([200, 20, 30, 20, 30, 200])
    image.paste(1, (0, 0, 2, 4))
    image.save(tmp_path / "some.png", transparency=bytes([0, 128]))
    pixels = np.asarray(decode(str(tmp_path / "some.png")))
    assert (pixels[:, :2] == (20, 30, 200)).all()
    assert (pixels[:, 2:] == (200, 20, 30)).all()


def test_a_long_strip_is_cut_before_it_is_enlarged(tmp_path):
    Image.new("RGB", (20000, 1), "red").save(tmp_path / "strip.png")
    assert decode(str(tmp_path / "strip.png")).size == (8, 1)
    x = ImageFiles([str(tmp_path / "strip.png")], size=16, resize=20).read(torch.tensor([0]))
    assert (x[0, 0] == 255).all()
    assert (x[0, 1:] == 0).all()


def test_links_that_point_nowhere_and_pipes(tmp_path):
    write(tmp_path, 12)
    (tmp_path / "red" / "lost.jpg").symlink_to(tmp_path / "nowhere.jpg")
    os.mkfifo(tmp_path / "red" / "pipe.jpg")  # reading it would wait for ever
    with pytest.raises(ValueError, match=r"1 of the images .*lost.jpg \(No such file.*`data.corrupt=skip`"):
        image_folder(root=tmp_path, validation=0.1, size=16)
    source = image_folder(root=tmp_path, validation=0.1, size=16, corrupt="skip")
    assert sum(len(p) for p in (source.train, source.validation, source.test)) == 36


def test_tiny_imagenets_val_sorted_into_class_folders(tmp_path):
    write(tmp_path / "train", 3)
    write(tmp_path / "val", 2)
    (tmp_path / "val" / "val_annotations.txt").write_text("val_0.JPEG\tred\t0\t0\t1\t1\n")  # left behind
    assert len(DATASETS["tiny-imagenet"](root=tmp_path, validation=0.0, size=16).test) == 6


def test_folders_that_can_not_serve(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere does not exist: `data_root` must be the folder"):
        image_folder(root=tmp_path / "nowhere", validation=0.1)
    (tmp_path / "empty" / "a").mkdir(parents=True)
    with pytest.raises(ValueError, match=r"empty holds no images \(expected .*CLASS/\*.jpg"):
        image_folder(root=tmp_path / "empty", validation=0.1)
    (tmp_path / "loose").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "loose" / "x.png")
    with pytest.raises(ValueError, match="1 images but no class folders"):
        image_folder(root=tmp_path / "loose", validation=0.1)
    write(tmp_path / "one", 5, colours={"red": COLOURS["red"]})
    with pytest.raises(ValueError, match="at least two class folders"):
        image_folder(root=tmp_path / "one", validation=0.2)
    write(tmp_path / "hole", 5)
    (tmp_path / "hole" / "white").mkdir()
    with pytest.raises(ValueError, match=rf"class white has no images in {tmp_path / 'hole'}: add some, or remove the folder"):
        image_folder(root=tmp_path / "hole", validation=0.2)
    write(tmp_path / "few", 5)
    write(tmp_path / "few" / "..", 1, colours={"few/grey": (9, 9, 9)})
    with pytest.raises(ValueError, match=r"few has no test/ folder, and 10% of its 16 images are too few .*class .*grey"):
        image_folder(root=tmp_path / "few", validation=0.1)
    with pytest.raises(ValueError, match=r"data.resize must be at least data.size, 32"):
        image_folder(root=tmp_path / "few", validation=0.0, size=32, resize=16)


def test_parts_must_have_the_same_classes(tmp_path):
    write(tmp_path / "train", 5)
    write(tmp_path / "test", 2)
    write(tmp_path / "val", 2, colours={c: COLOURS[c] for c in ("red", "blue")})
    with pytest.raises(ValueError, match="val/ of .* has no images of class green; it must have the same 3 classes as train/"):
        image_folder(root=tmp_path, validation=0.1, size=16)
    write(tmp_path / "val" / "..", 1, colours={"val/green": (0, 0, 0), "val/white": (255, 255, 255)})
    with pytest.raises(ValueError, match="val/ of .* has class white, which train/ lacks"):
        image_folder(root=tmp_path, validation=0.1, size=16)


def test_training_cuts_at_random_and_evaluation_in_the_middle(tmp_path):
    image = Image.fromarray(np.tile(np.arange(64, dtype=np.uint8)[None, :, None] * 4, (32, 1, 3)))
    image.save(tmp_path / "x.png")
    reader = ImageFiles([str(tmp_path / "x.png")], size=16, resize=16, scale=0.2)
    plain = reader.read(torch.tensor([0]))
    assert torch.equal(plain, reader.read(torch.tensor([0])))
    assert plain[0, 0, 0].float().mean() == pytest.approx(126, abs=3)  # the middle of 0 … 252
    draws = [reader.read(torch.tensor([0]), keys_of(s, 0, np.array([0]))) for s in (0, 0, 1)]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


def test_a_folder_trains_and_is_measured(tmp_path):
    write(tmp_path / "images", 20)
    recipe = replace(
        RECIPES["folder-resnet18-staa"], epochs=2, batch_size=8, data=Data(name="folder", size=32, validation=0.2),
        augment=Augment(scale=0.5, flip=True, policy="randaugment"), model=Model(name="resnet18", steps=2, width=0.1),
    )  # fmt: skip
    events = list(run(recipe, tmp_path / "run", data_root=tmp_path / "images", workers=1))
    assert events[-1].samples == 6
    figures = evaluate_run(tmp_path / "run", workers=0)
    assert figures["loss"] == events[-1].test["loss"]
    # in two goes, with another number of workers: the same run
    list(run(recipe, tmp_path / "twin", data_root=tmp_path / "images", workers=0, stop=iter([False, True]).__next__))
    again = list(run(recipe, tmp_path / "twin", data_root=tmp_path / "images", workers=2, resume=tmp_path / "twin"))
    assert again[-1].test["loss"] == events[-1].test["loss"]
    assert '"names": [' in (tmp_path / "run" / "environment.json").read_text()
    # the folder changes: the run no longer fits it
    (tmp_path / "images" / "red" / "000.jpg").unlink()
    with pytest.raises(ValueError, match="split differs"):
        evaluate_run(tmp_path / "run", workers=0)


def test_each_image_is_looked_at_once_for_all_seeds_and_recipes(tmp_path, monkeypatch):
    """An image is decoded once to look at it, however many runs go over it; one that has changed is looked at again."""
    write(tmp_path / "images", 14)
    looks: list[str] = []
    monkeypatch.setattr("staa.data.images.folder.decode", lambda path: looks.append(path) or decode(path))
    base = RECIPES["folder-resnet18-staa"]
    recipe = replace(
        base, model=replace(base.model, width=0.125, steps=2), data=replace(base.data, size=16), batch_size=8, max_steps=1
    )
    options = {"data_root": tmp_path / "images", "device": "cpu", "workers": 0}
    for k, change in enumerate(({}, {"seed": 1}, {"model": replace(recipe.model, attention=None)})):
        assert list(run(replace(recipe, **change), tmp_path / f"run{k}", **options))[-1].samples == 4
        assert len(looks) == len(set(looks)) == 42
    changed = Path(looks[0])
    changed.write_bytes(changed.read_bytes()[:100])
    with pytest.raises(ValueError, match=f"can't be read: {changed}"):
        list(run(replace(recipe, seed=2), tmp_path / "run", **options))
    assert looks[42:] == [str(changed)]


def test_all_seeds_are_trained_on_the_same_data(tmp_path, monkeypatch, capsys):
    """What changes between two seeds ends the command before the second one, and the first is kept."""
    write(tmp_path / "images", 14)
    options = ["--data", str(tmp_path / "images"), "--data.size", "16", "--model.width", "0.125", "--model.steps", "2"]
    options += ["--batch-size", "8", "--max-steps", "1", "--workers", "0", "--device", "cpu", "--seeds", "2"]
    real = train.render

    def and_change(*args, **more):
        result = real(*args, **more)
        write(tmp_path / "others", 1)
        (tmp_path / "others" / "red" / "000.jpg").replace(tmp_path / "images" / "red" / "000.jpg")
        return result

    monkeypatch.setattr(train, "render", and_change)
    assert main(["train", "folder-resnet18-staa", *options, "--out", str(tmp_path / "out")]) == 2
    assert "the data have changed since" in capsys.readouterr().err
    assert (tmp_path / "out" / "seed0" / "result.json").is_file()
    assert not (tmp_path / "out" / "seed1" / "recipe.json").exists()
