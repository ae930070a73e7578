"""`staa predict` and `staa.predict` on images, recordings and arrays: prepared as the run's data, and stopped early."""

import csv
import json
import re
import shutil
from dataclasses import replace

import broken_runs
import numpy as np
import pytest
import tiny
import torch
from PIL import Image
from rich.cells import cell_len
from test_events import nmnist_set, some_events, write_nmnist

import staa
from staa.build.inputs import PREPARATIONS
from staa.cli import main
from staa.cli import text as cli_text
from staa.cli.classes import show_answers
from staa.data import DATASETS, Events, read_events
from staa.data.events.digits import saccade_events
from staa.data.images.cifar import CIFAR
from staa.data.images.files import normalise
from staa.recipes import RECIPES
from staa.runs import run
from staa.runs.classify import Answer, Refused, by_step
from staa.training.metrics import leading, running_means

CAUSAL, WHOLE = None, "staa"


def trained(folder, name, attention, data, *, root, steps=3, **settings):
    base = RECIPES[name]
    neuron = ("adaptive", {"threshold": 0.05})  # it fires, so that something depends on the input
    model = replace(base.model, steps=steps, width=0.05, attention=attention, sites=None, neuron=neuron)
    optim = replace(base.optim, warmup_epochs=0)
    recipe = replace(
        base, data=replace(base.data, **data), model=model, optim=optim, epochs=1, max_steps=2, batch_size=8, **settings
    )
    for _ in run(recipe, folder, data_root=root):
        pass
    return folder


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Recordings and images with runs on them, each with a network that looks back alone and one that sees the whole window."""
    root = tmp_path_factory.mktemp("classify")
    nmnist_set(root, per_class=5)
    rng = np.random.default_rng(0)
    for part, count in (("train", 8), ("test", 3)):
        for name in ("red", "=blue"):
            folder = root / "images" / part / name
            folder.mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 256, (20 + 3 * i, 30, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{i}.png")
    images = dict(name="folder", size=16, resize=18, validation=0.0)
    still = dict(root=root / "images", steps=4)
    plain = replace(RECIPES["cifar100-resnet20-tiny-plain"].augment, shift=2)
    for kind, attention in (("causal", CAUSAL), ("whole", WHOLE)):
        trained(root / f"events-{kind}", "nmnist-vggsnn-staa", attention, {"validation": 0.0}, root=root)
        trained(root / f"images-{kind}", "cifar100-resnet20-tiny-staa", attention, images, **still, augment=plain)
    trained(root / "digits", "digits-events", CAUSAL, {}, root=root)
    return root


@pytest.fixture(scope="module")
def runs(root):
    """Each opened once."""
    kinds = [f"{data}-{network}" for data in ("events", "images") for network in ("causal", "whole")]
    return {kind: staa.Run(root / kind) for kind in [*kinds, "digits"]}


@pytest.fixture(scope="module")
def recordings(root):
    return sorted(map(str, (root / "NMNIST" / "Test").rglob("*.bin")))


@pytest.fixture(scope="module")
def pictures(root):
    return sorted(map(str, (root / "images" / "test").rglob("*.png")))


# --- preparation --------------------------------------------------------------------------------------------------------------


def test_every_data_set_says_how_its_inputs_are_made():
    assert PREPARATIONS.keys() == DATASETS.keys()


@pytest.mark.parametrize("run_", ["events-causal", "images-whole"])
def test_a_file_is_prepared_as_the_run_s_own_samples(run_, root, runs):
    opened = runs[run_]
    source = opened.data
    for i, file in enumerate(source.test.origin()):
        prepared = opened.preparation.read(root / file)
        sample = source.prepare(source.test.take(torch.tensor([i])))
        assert torch.equal(opened.preparation.together([prepared]), sample)
        assert prepared.shape == opened.input_shape
    assert len(source.test) == (10 if run_.startswith("events") else 6)


@pytest.mark.parametrize(
    "data",
    [
        {"frames": "time", "values": "binary", "size": 17},
        {"frames": "window", "window": 40.0, "values": "normalised"},
        {"frames": "number", "values": "normalised", "size": 20},
    ],
)
def test_so_is_a_recording_with_other_settings(data, root, tmp_path):
    trained(tmp_path / "run", "nmnist-vggsnn-staa", CAUSAL, data | {"validation": 0.0}, root=root)
    opened = staa.Run(tmp_path / "run")
    source = opened.data
    for i in (0, 7):
        sample = source.prepare(source.test.take(torch.tensor([i])))[:, 0]
        assert torch.equal(opened.preparation.read(root / source.test.origin()[i]), sample)
    assert opened.preparation.whole is None or data["values"] == "normalised"


@pytest.mark.parametrize("name", CIFAR)
def test_an_image_for_cifar_is_its_pixels_normalised(name):
    spec, about = CIFAR[name], {"classes": CIFAR[name].classes, "channels": 3, "size": 32}
    recipe = replace(tiny.pictures, data=replace(tiny.pictures.data, name=name))
    preparation = PREPARATIONS[name](recipe, about)
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    expected = normalise(torch.from_numpy(pixels).permute(2, 0, 1)[None], spec.mean, spec.std)[0]
    assert torch.equal(preparation.take(pixels), expected)
    assert torch.equal(preparation.take(Image.fromarray(pixels)), expected)
    large = Image.fromarray(pixels).resize((300, 224))
    assert preparation.take(large).shape == (3, 32, 32)
    assert len(spec.names) == spec.classes == len(set(spec.names))


def test_a_digit_is_seen_by_the_simulated_sensor(runs):
    """An image of 8 × 8 pixels with 8 bits is a sample but for rounding, and so is a larger one of the same digit."""
    from sklearn.datasets import load_digits

    opened = runs["digits"]
    for image in load_digits().images[:12]:
        events = torch.from_numpy(saccade_events(image[None] / 16, steps=3))[0].float()
        pixels = (image * 255 / 16).round().astype(np.uint8)
        taken = opened.preparation.take(pixels)
        assert taken.shape == events.shape == opened.input_shape
        assert (taken != events).float().mean() < 0.02
        large = opened.preparation.take(np.kron(pixels, np.ones((10, 10), np.uint8)))
        assert torch.equal(large, taken)
    counts = torch.randint(0, 3, opened.input_shape, dtype=torch.uint8)
    assert torch.equal(opened.preparation.take(counts), counts.float())


# --- answers ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["events-causal", "events-whole", "images-causal", "images-whole", "digits"])
def test_answers_are_the_network_s(kind, root, recordings, pictures, runs):
    opened = runs[kind]
    given = {"e": recordings, "i": pictures, "d": list(np.random.default_rng(0).integers(0, 256, (5, 8, 8), np.uint8))}[kind[0]]
    answers = opened.predict(given, top=3)
    prepared = [opened.preparation.read(root / g) if isinstance(g, str) else opened.preparation.take(g) for g in given]
    with torch.no_grad():
        logits = opened.model()(opened.preparation.together(prepared))
    shares, leaders = logits.mean(0).softmax(-1), leading(running_means(logits))[0]
    for i, answer in enumerate(answers):
        assert answer.input == (given[i] if isinstance(given[i], str) else f"input {i + 1}")
        expected = sorted(zip(shares[i].tolist(), opened.names, strict=True), reverse=True)[: len(answer.top)]
        assert [name for name, _ in answer.top] == [name for _, name in expected]
        assert [share for _, share in answer.top] == pytest.approx([share for share, _ in expected], abs=1e-5)
        assert len(answer.top) == min(3, len(opened.names))
        settled = max([0, *(t + 1 for t in range(len(logits)) if leaders[t, i] != leaders[-1, i])]) + 1
        assert (answer.steps, answer.settled) == (len(logits), settled)
    assert staa.predict(root / kind, given, top=3) == answers


def test_one_model_serves_many_calls_and_many_kinds_of_input(root, pictures, monkeypatch):
    opened = staa.Run(root / "images-whole")
    first = opened.predict(pictures[0])
    monkeypatch.setattr("staa.runs.load.load_weights", lambda *_: pytest.fail("the weights were read again"))
    with Image.open(pictures[0]) as image:
        pixels = np.asarray(image)
        for given in (image, pixels, torch.from_numpy(pixels.copy()), opened.preparation.take(image), [pixels], (pixels,)):
            (answer,) = opened.predict(given)
            assert answer.top == first[0].top
    assert answer.input == "input 1"
    grey = np.asarray(Image.open(pictures[0]).convert("L"))
    assert opened.predict(grey)[0].top == opened.predict(np.stack([grey] * 3, -1))[0].top


def test_events_are_taken_as_they_are_read(recordings, runs):
    opened = runs["events-whole"]
    (from_file,) = opened.predict(recordings[0])
    events = read_events(recordings[0], (34, 34))
    assert opened.predict(events)[0].top == opened.predict([events])[0].top == from_file.top
    assert isinstance(events, Events)


def test_the_files_of_a_folder_are_taken_at_any_depth(root, pictures, runs):
    found = runs["images-whole"].predict(root / "images" / "test")
    assert [answer.input for answer in found] == pictures


# --- early exit ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["events-causal", "events-whole", "images-causal"])
def test_no_step_knows_of_a_later_one(kind, root, recordings, pictures, runs):
    """Other frames later on change nothing before; the last step is what the network says of the whole."""
    opened = runs[kind]
    frames, model = opened.preparation.frames, opened.model()
    files = recordings[:4] if frames else pictures[:4]
    x = opened.preparation.together([opened.preparation.read(root / f) for f in files])
    steps = opened.preparation.steps
    with torch.inference_mode():
        made = list(by_step(model, x, frames=frames, steps=steps))
        torch.testing.assert_close(made[-1], model(x).mean(0), atol=1e-5, rtol=1e-5)
        if kind != "events-whole":
            for mean, whole in zip(made, running_means(model(x)), strict=True):
                torch.testing.assert_close(mean, whole, atol=1e-5, rtol=1e-5)
        if frames:
            other = x.clone()
            other[2:] = other[2:].flip(1) + 1
            after = list(by_step(model, other, frames=True, steps=steps))
            assert torch.equal(made[0], after[0])
            assert torch.equal(made[1], after[1])
            assert not torch.equal(made[2], after[2])


@pytest.mark.parametrize("kind", ["events-causal", "events-whole", "images-causal"])
@pytest.mark.parametrize("margin", [0.01, 0.05, 0.2, 1.0])
def test_it_stops_at_the_first_step_that_is_far_enough_ahead(kind, margin, root, recordings, pictures, monkeypatch, runs):
    opened = runs[kind]
    frames, model = opened.preparation.frames, opened.model()
    files, most = (recordings if frames else pictures)[:6], opened.preparation.steps
    seen = []  # steps that the first convolution has
    handle = next(m for m in model.modules() if isinstance(m, torch.nn.Conv2d)).register_forward_hook(
        staa.layers.Passive(lambda module, args, output: seen.append(len(output)))
    )
    answers = opened.predict(files, margin=margin, top=1)
    handle.remove()
    expected = []
    for file in files:
        x = opened.preparation.together([opened.preparation.read(root / file)])
        with torch.inference_mode():
            for t, mean in enumerate(by_step(model, x, frames=frames, steps=most), 1):
                first, second = mean[0].softmax(-1).topk(2).values.tolist()
                if first - second >= margin or t == most:
                    break
        expected.append((t, pytest.approx(first, abs=1e-6)))
    assert [(answer.steps, answer.probability) for answer in answers] == expected
    assert all(1 <= answer.settled <= answer.steps for answer in answers)
    if kind == "events-whole":
        assert sum(seen) == most * sum(answer.steps for answer in answers)
    else:
        assert sum(seen) == sum(answer.steps for answer in answers)  # the rest was not computed


@pytest.mark.parametrize("kind", ["events-causal", "events-whole", "images-causal"])
def test_fewer_steps(kind, root, recordings, pictures, runs):
    opened = runs[kind]
    frames, files = opened.preparation.frames, recordings if opened.preparation.frames else pictures
    x = opened.preparation.together([opened.preparation.read(root / f) for f in files])
    with torch.inference_mode():
        *_, mean = by_step(opened.model(), x, frames=frames, steps=2)
    answers = opened.predict(files, steps=2)
    assert [answer.steps for answer in answers] == [2] * len(files)
    assert [answer.probability for answer in answers] == pytest.approx(mean.softmax(-1).amax(1).tolist(), abs=1e-5)
    assert opened.predict(files, steps=opened.preparation.steps) == opened.predict(files)


# --- bad input ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (
            "images-whole",
            {"margin": 0.5},
            r"can't be stopped early: .*sees the whole window\..*such as `model.attention=gc-pe`",
        ),
        ("images-whole", {"steps": 2}, "can't be stopped early"),
        ("events-whole", {"steps": 4}, "`steps` must be from 1 to 3, the steps that the network was trained with; got 4"),
        ("events-whole", {"steps": 0}, "`steps` must be from 1 to 3"),
        ("events-whole", {"margin": 0.0}, "`margin` must be above 0 and at most 1, .*; got 0.0"),
        ("events-whole", {"margin": float("nan")}, "`margin` must be above 0"),
        ("events-whole", {"top": 0}, "`top` must be at least 1, got 0"),
    ],
)
def test_options_that_can_not_be(kind, options, message, runs):
    with pytest.raises(ValueError, match=message):
        runs[kind].predict([], **options)


def test_counts_that_are_shares_of_a_whole_recording_are_not_known_early(root, recordings, tmp_path):
    trained(tmp_path / "run", "nmnist-vggsnn-staa", CAUSAL, {"values": "normalised", "validation": 0.0}, root=root)
    assert len(staa.predict(tmp_path / "run", recordings[0], steps=3)) == 1
    for options in ({"margin": 0.5}, {"steps": 2}):
        with pytest.raises(ValueError, match="divides by the recording's largest count, which is known at its end alone"):
            staa.predict(tmp_path / "run", recordings[0], **options)


@pytest.mark.parametrize(
    ("kind", "given", "message"),
    [
        ("images-whole", np.zeros((3, 20, 20), np.uint8), r"input 1 must be a PIL.Image, uint8 .*; got uint8 \[3, 20, 20\]"),
        ("images-whole", np.zeros((0, 20, 3), np.uint8), r"got uint8 \[0, 20, 3\]"),
        ("images-whole", np.zeros((20, 20, 3)), r"floating-point numbers \[3, 16, 16\], prepared; got float64 \[20, 20, 3\]"),
        ("images-whole", np.zeros((2, 3, 16, 16), np.float32), r"got float32 \[2, 3, 16, 16\]"),
        ("images-whole", np.zeros((20, 20, 3), np.int64), r"got int64 \[20, 20, 3\]"),
        ("images-whole", np.full((3, 16, 16), np.nan), "input 1 holds values that are not finite"),
        ("images-whole", Image.new("F", (20, 20)), "input 1: its pixels have 32 bits"),
        ("events-whole", np.zeros((3, 2, 34, 33), np.uint8), r"counts \[3, 2, 34, 34\] of whole numbers.*\[3, 2, 34, 33\]"),
        ("events-whole", np.zeros((3, 2, 34, 34), bool), r"got bool \[3, 2, 34, 34\]"),
        ("events-whole", np.zeros((20, 20, 3), np.uint8), "input 1 must be staa.data.Events"),
        ("images-whole", np.full((3, 16, 16), 1e39), "values that are not finite in float32"),
        ("events-whole", np.full((3, 2, 34, 34), -1), "input 1 must be counts of events, and holds numbers below 0"),
        ("events-whole", some_events(2), "input 1: the recording has 2 events, too few for 3 frames"),
        (
            "events-whole",
            some_events(sensor=(40, 40)),
            r"input 1 is of a sensor of 40 × 40 \(.*, and recordings of 34 × 34 are",
        ),
        ("events-whole", some_events(sensor=(30, 40)), "input 1 is of a sensor of 30 × 40"),
    ],
)
def test_what_is_no_input_is_told_in_words(kind, given, message, runs):
    with pytest.raises(ValueError, match=message):
        runs[kind].predict(given)


@pytest.mark.parametrize(
    ("kind", "given"), [("images-whole", some_events()), ("events-whole", Image.new("L", (9, 9))), ("digits", {"a": 1})]
)
def test_what_is_nothing_like_an_input(kind, given, runs):
    with pytest.raises(TypeError, match="input 1 must be a path, "):
        runs[kind].predict([given])
    with pytest.raises(TypeError, match="`inputs` must be an input or an iterable of them, got int"):
        runs[kind].predict(3)


def test_files_that_can_not_be_taken(recordings, pictures, tmp_path, runs):
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken.png").write_bytes(b"no image")
    (tmp_path / "broken.bin").write_bytes(b"123")
    (tmp_path / "table.csv").write_text("a,b\n1,2\n")
    (tmp_path / "table.parquet").write_bytes(b"PAR1")
    other = some_events(sensor=(20, 34))
    np.savez(tmp_path / "other.npz", t=other.t, x=other.x, y=other.y, p=other.p, sensor=np.array((20, 34)))
    write_nmnist(tmp_path / "far.bin", some_events(sensor=(50, 50)))
    cases = [
        ("images-whole", "missing.png", "missing.png does not exist"),
        ("images-whole", "empty", r"empty holds no images \(.jpg, "),
        ("images-whole", "broken.png", "broken.png can't be decoded as an image"),
        ("images-whole", "broken.bin", "broken.bin is a recording of an event camera by its name, and this run takes images"),
        ("images-whole", "table.csv", "table.csv is a recording or a series by its name, and this run takes images"),
        ("events-whole", "broken.bin", "broken.bin: truncated"),
        ("events-whole", "broken.png", "broken.png is an image by its name, and this run takes recordings"),
        ("events-whole", "table.parquet", "table.parquet is a series by its name, and this run takes recordings"),
        ("events-whole", "other.npz", r"other.npz is of a sensor of 20 × 34 \(height × width\), and recordings of 34 × 34 are"),
        ("events-whole", "far.bin", "far.bin: event .* lies at x .*, outside the sensor of 34 × 34"),
        ("digits", "broken.bin", "broken.bin is a recording .* takes images of a digit, bright on dark"),
    ]
    for kind, name, message in cases:
        with pytest.raises(ValueError, match=message):
            runs[kind].predict(tmp_path / name)
        good = recordings[0] if kind.startswith("events") else pictures[0]
        before, refused, after = runs[kind].answers([good, tmp_path / name, good])
        assert isinstance(refused, Refused)
        assert refused.input == str(tmp_path / name)
        assert [before, after] == runs[kind].predict([good, good])


def test_a_data_set_of_one_s_own_takes_prepared_tensors_alone(tmp_path):
    for name, recipe, shape in (("still", tiny.pictures, (3, 16, 16)), ("frames", tiny.recipe, (3, 2, 16, 16))):
        for _ in run(replace(recipe, epochs=1, max_steps=1), tmp_path / name):
            pass
        opened = staa.Run(tmp_path / name)
        assert opened.input_shape == shape
        assert len(opened.predict([torch.rand(shape), np.random.rand(*shape)])) == 2
        Image.new("L", (16, 16)).save(tmp_path / "a.png")
        with pytest.raises(ValueError, match=r"one of your own: in Python, give prepared tensors \[3, "):
            opened.predict(tmp_path / "a.png")
        with pytest.raises(ValueError, match=r"input 1 must be floating-point numbers \[3, .*got uint8"):
            opened.predict(torch.zeros(shape, dtype=torch.uint8))
        with pytest.raises(ValueError, match="holds no prepared tensors"):
            opened.predict(tmp_path)


def test_a_run_on_a_series_has_no_classes(tmp_path):
    opened = staa.Run(broken_runs.make(tmp_path / "series", series=True))
    for wrong in (lambda: opened.predict("a.png"), lambda: opened.input_shape):
        with pytest.raises(ValueError, match="forecasts a series, so it has no classes"):
            wrong()


# --- the command --------------------------------------------------------------------------------------------------------------


def test_the_command_tells_what_it_could_and_what_it_could_not(root, pictures, tmp_path, capsys, runs):
    (tmp_path / "=1+1.png").write_bytes(b"no image")
    files = [*pictures[:2], str(tmp_path / "=1+1.png"), str(tmp_path / "gone"), pictures[2]]
    outs = "--csv", str(tmp_path / "a.csv"), "--json", str(tmp_path / "a.json")
    assert main(["predict", str(root / "images-whole"), *files, "--top", "2", *outs]) == 1
    told = capsys.readouterr()
    errors = [line for line in told.err.splitlines() if line.startswith("staa: ")]
    assert len(errors) == 3
    assert "=1+1.png can't be decoded" in errors[0]
    assert "gone does not exist" in errors[1]
    assert errors[2] == "staa: 2 of 5 could not be taken"
    answers = runs["images-whole"].predict(pictures[:3], top=2)
    for answer in answers:
        assert f"{answer.input}  {answer.label}" in told.out
    with open(tmp_path / "a.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["input"] for row in rows] == pictures[:3]
    assert [staa.text.from_csv(row["class"]) for row in rows] == [answer.label for answer in answers]
    assert [float(row["probability 2"]) for row in rows] == pytest.approx([answer.top[1][1] for answer in answers], rel=1e-4)
    assert {row["class"] for row in rows} | {row["class 2"] for row in rows} == {"red", "'=blue"}
    made = json.loads((tmp_path / "a.json").read_text())
    assert [one["top"] for one in made["answers"]] == [[{"class": n, "probability": p} for n, p in a.top] for a in answers]
    assert [one["input"] for one in made["refused"]] == files[2:4]
    assert main(["predict", str(root / "images-whole"), *pictures, "--csv", str(tmp_path / "a.csv")]) == 2
    assert "a.csv is there already: choose another --csv" in capsys.readouterr().err


def test_what_is_passed_over_is_counted_once_and_one_refusal_is_one_line(root, pictures, tmp_path, capsys):
    for name in ("a.gif", "below/b.txt", "below/.hidden"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"what")
    run_ = str(root / "images-whole")
    assert main(["predict", run_, str(tmp_path)]) == 1
    told = capsys.readouterr()
    assert told.out == ""
    assert re.fullmatch(r"(preparing …\n)?staa: \S+ holds no images \(.*\)\n", told.err)
    shutil.copy(pictures[0], tmp_path / "c.png")
    assert main(["predict", run_, str(tmp_path), "--top", "500"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "2 files of other endings passed over"


def test_the_table_shows_five_classes_more_and_fits_the_terminal(capsys, monkeypatch):
    top = tuple((f"{'猫' * 20} {k}", 0.1) for k in range(9))
    answers = [Answer("folder/" * 9 + "a.png", top, 4, 2), Answer("b.png", top[::-1], 4, 1)]
    show_answers(answers)
    assert capsys.readouterr().out.count(" 10.0% and 3 more") == 2
    monkeypatch.setattr(cli_text, "out", cli_text.Console(width=80, force_terminal=True))
    show_answers(answers)
    lines = re.sub(r"\x1b\[[\d;]*m", "", capsys.readouterr().out).splitlines()
    assert len(lines) == 3
    assert max(cell_len(line.rstrip()) for line in lines) <= 80
    assert "a.png" in lines[1]


@pytest.mark.parametrize("wrong", [["--top", "0"], ["--steps", "0"], ["--steps", "99"], ["--margin", "0"]])
def test_options_are_checked_before_anything_is_prepared(wrong, root, capsys, monkeypatch):
    monkeypatch.setattr(staa.Run, "_load", lambda *_: pytest.fail("the model was loaded"))
    monkeypatch.setattr(staa.cli.predict, "waiting", lambda: pytest.fail("it began to prepare"))
    assert main(["predict", str(root / "images-causal"), "a.png", *wrong]) == 2
    assert f"{wrong[0]} must be" in capsys.readouterr().err
    with pytest.raises(ValueError, match="must be"):
        staa.Run(root / "images-causal").predict("a.png", **{wrong[0][2:]: int(wrong[1])})


def test_what_is_asked_for_is_written_if_all_were_refused(root, tmp_path, capsys):
    assert main(["predict", str(root / "images-whole"), str(tmp_path / "a.png"), "--csv", str(tmp_path / "a.csv")]) == 1
    assert (tmp_path / "a.csv").read_text().splitlines() == ["input,class,probability,steps,settled"]
    assert capsys.readouterr().out == f"table → {tmp_path / 'a.csv'}\n"


def test_the_command_says_what_the_steps_mean(root, recordings, capsys, runs):
    told = {}
    for kind in ("causal", "whole"):
        assert main(["predict", str(root / f"events-{kind}"), *recordings, "--margin", "0.01"]) == 0
        told[kind] = capsys.readouterr().out
        answers = runs[f"events-{kind}"].predict(recordings, margin=0.01)
        early, mean = sum(answer.steps < 3 for answer in answers), np.mean([answer.steps for answer in answers])
        assert f"{early} of 10 decided before step 3; {mean:.2f} steps in the mean" in told[kind]
    assert "ran anew at each step" in told["whole"]
    assert "ran anew" not in told["causal"]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["predict", "RUN"], "name a file: staa predict RUN FILE"),
        (["predict", "RUN", "a.png", "--at", "3"], "--at is of forecasts, and RUN classifies: leave it out"),
        (["predict", "RUN", "a.png", "--time-format", "unix-s"], "--time-format is of forecasts"),
        (["predict", "RUN", "a.png", "--out", "o"], "--out is of forecasts"),
        (["predict", "RUN", "a.png", "--csv", "x", "--json", "x"], "--csv and --json are both x"),
        (["predict", "RUN", "a.png", "--csv", "x", "--json", "y/../x"], "--csv and --json are both x"),
        (["predict", "RUN", "a.png", "--csv", "."], ". is there already"),
        (["predict", "RUN", "a.png", "--margin", "2"], "--margin must be above 0"),
        (["predict", "RUN", "a.png", "--margin", "0.5"], "leave out --steps and --margin, or train with"),
        (["predict", "SERIES", "a.csv", "--margin", "0.5"], "--margin is of runs that classify, and SERIES forecasts a series"),
        (["predict", "SERIES", "a.csv", "--json", "x"], "--json is of runs that classify"),
        (["predict", "SERIES", "a.csv", "b.csv"], "SERIES forecasts a series, which is one file: give one, got 2"),
        (["evaluate", "SERIES", "--csv", "x"], "--csv is of runs that classify, and SERIES forecasts a series"),
        (["evaluate", "RUN", "--csv", "full"], "full is there already: choose another --csv"),
    ],
)
def test_options_of_another_kind_of_run(args, message, root, tmp_path, capsys, monkeypatch):
    series = root / "series"
    if not series.exists():
        broken_runs.make(series, series=True)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full").touch()
    names = {"RUN": str(root / "images-whole"), "SERIES": str(series)}
    assert main([names.get(arg, arg) for arg in args]) == 2
    told = capsys.readouterr().err
    for name, path in names.items():
        message = message.replace(name, path) if "staa predict RUN" not in message else message
    assert message in told, told
    assert [path.name for path in tmp_path.iterdir()] == ["full"]
