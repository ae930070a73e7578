"""The command line as a user meets it: one clear line on bad input, exit code 2, nothing written."""

import csv
import json
import re
import shutil
import signal
import statistics
import subprocess
import sys
import zipfile
from functools import partial
from pathlib import Path

import pytest
import tiny
from test_events import nmnist_set

from staa import __version__, load
from staa.analysis.bench import bench
from staa.cli import COMMANDS, main
from staa.cli.flags import PARTS, flags_of
from staa.cli.options import OPTIONS
from staa.recipes import RECIPES
from staa.recipes.recipe import Recipe
from staa.training import checkpoint

TINY = f"{Path(tiny.__file__)}:recipe"


def complaint(capsys, *args, code=2):
    assert main(list(args)) == code
    captured = capsys.readouterr()
    said = captured.err.removeprefix("preparing …\n")  # a slow machine says that it prepares
    assert said.startswith("staa: ")
    assert said.count("\n") == 1
    assert "Traceback" not in said
    return said


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["trian"], "unknown command 'trian'; did you mean train?"),
        (["predict", "run", "a.png", "--top", "3.5"], "staa: error: --top must be a whole number, got '3.5'"),
        (["predict", "run", "a.png", "--margin", "x"], "staa: error: --margin must be a number, got 'x'"),
        (["train", "--max-steps", "1.5"], "staa: error: --max-steps must be a whole number, got '1.5'"),
        (["train", "digit-events"], "unknown recipe 'digit-events'; did you mean digits-events"),
        (["train", "zzz"], "unknown recipe 'zzz'; known: digits-events"),
        (["train", "--epoch", "3"], "unknown option --epoch; did you mean --epochs?"),
        (["train", "--lr", "3"], "unknown option --lr; did you mean --optim.lr?"),
        (["train", "--no-flip"], "unknown option --no-flip; did you mean --augment.flip?"),
        (["train", "--foo"], "unknown option --foo; see staa train --help"),
        (["train", "--series.window", "5"], "digits-events is not forecast, so it takes no --series.window 5: remove it"),
        (["train", "--forecast.width", "5"], "digits-events is not forecast, so it takes no --forecast.width 5: remove it"),
        (["train", "--model.neurn=lif"], "did you mean --model.n"),
        (["train", "--epochs", "three"], "--epochs must be a whole number, got 'three'"),
        (["train", "--epochs", "0"], "epochs must be at least 1, got 0"),
        (["train", "--optim.name", "adam"], "invalid choice"),
        (["train", "--seeds", "0"], "--seeds must be at least 1"),
        (["train", "--model.neuron", "lyf"], "unknown neuron 'lyf'; did you mean lif"),
        (["train", "--model.steps", "91"], "steps must be from 1 to 90"),
        (["train", "nowhere.py:recipe"], "nowhere.py to take 'recipe' from"),
        (["train", "--augment.flip", "--data.validation", "2"], "data.validation must be at least 0 and below 1, got 2.0"),
        (["train", f"{tiny.__file__}:nothing"], "defines no 'nothing'"),
        (["train", f"{tiny.__file__}:not_a_recipe"], "is a int, not a staa.Recipe"),
        (["train", "cifar100-resnet20-tiny-staa", "--data", "nowhere"], "cifar100 is not under nowhere"),
        (["train", "--resume", "nowhere"], "nowhere is not a run folder"),
        (["train", "--device", "tpu"], "device must be cpu, cuda, cuda:1 … or mps, got 'tpu'"),
        (["train", "--device", "meta"], "device must be cpu, cuda, cuda:1 … or mps, got 'meta'"),
        (["train", tiny.__file__], "name what it defines, as in"),
        (["train", "."], ". is a file or folder: a recipe is given by its name"),
        (["train", "run.zip"], "run.zip is a file or folder"),
        (["train", "--epochs", "1", "digits-events"], "the recipe comes before the options: staa train digits-events"),
        (["train", "--model.width", "inf"], "width must be a number above 0 and below 1000, got inf"),
        (["train", "--model.attention", f"{tiny.__file__}:not_a_recipe"], "attention must be a factory"),
        (["train", "--model.neuron", f"{tiny.__file__}:events"], "the network can't be built (TypeError"),
        (["train", "--out", tiny.__file__], "is a file"),
        (["compare"], "name what to compare"),
        (["compare", "--epochs", "2"], "name what to compare"),
        (["compare", TINY, TINY], "is called tiny, as another recipe here: give each a name of its own"),
        (["compare", TINY, "digit-events"], "unknown recipe 'digit-events'"),
        (["compare", TINY, "--seeds", "0"], "--seeds must be at least 1"),
        (["compare", TINY, "--bits"], "unknown option --bits"),
        (["compare", "cifar100-speedrun", "cifar100-msresnet18-dta", "--data", "nowhere"], "cifar100 is not under nowhere"),
        (["compare", "digits-events", "digits-events-plain", "--model.attention", "stag"], "unknown attention 'stag'"),
        (["compare", TINY, "digits-events"], "their data sets differ ("),
        (["compare", "nmnist-stream", "nmnist-vggsnn-staa"], "is what you compare, name it with --over data.frames,data."),
        (["compare", TINY, "--over", "attention=none,gc"], "'attention' is none; did you mean model.attention?"),
        (["compare", TINY, "--over", "model.steps=3"], "--over wants an option and two values or more"),
        (["compare", TINY, "--over", "model.steps=3,2,3"], "--over model.steps has 3 twice"),
        (["compare", TINY, "--over", "model.steps=3,x"], "model.steps=x: --model.steps must be a whole number, got 'x'"),
        (["compare", TINY, "--over", "model.attention=gc,stag"], "model.attention=stag: unknown attention 'stag'; did you"),
        (["compare", TINY, "--over", "model.attention.reduktion=4,8"], "takes no --model.attention.reduktion; did you mean"),
        (["compare", TINY, "--over", "augment.flip=true,maybe"], "--over augment.flip must be true or false, got 'maybe'"),
        (["compare", TINY, "--over", "optim.lr=0.1,0.10"], "optim.lr=0.1 and optim.lr=0.10 are the same recipe"),
        (["compare", TINY, "--over", "seed=0,1"], "--over takes no seed: --seeds trains several"),
        (["compare", TINY, "--over", "model.steps=2,3", "--model.steps", "4"], "model.steps is given twice"),
        (["compare", TINY, "--over", "data.name=digits-events,nmnist"], "their data sets differ (digits-events for data.name="),
        (["train", "--prolong", "3"], "--prolong goes on with a finished run: name it with --resume"),
        (
            ["train", TINY, "--freeze", "stges.0"],
            "--freeze names stges.0, which is no module and no parameter of this network; did",
        ),
        (["train", TINY, "--freeze", "*"], "--freeze * leaves nothing to train"),
        (["train", TINY, "--freeze", "stages,"], "--freeze has an empty part"),
        (["train", TINY, "--optim.lr-of", "readot=1"], "--optim.lr-of names readot, which is no module and no parameter"),
        (
            ["train", TINY, "--optim.lr-of", "readout=x"],
            "--optim.lr-of must be like readout=0.01,stages*=0.001; got 'readout=x'",
        ),
        (["train", TINY, "--optim.lr-of", "readout=-1"], "--optim.lr-of must be positive and at most a million for readout"),
        (
            ["train", TINY, "--optim.lr-of", "*=1,readout=2"],
            "--optim.lr-of readout names nothing that is trained and not named",
        ),
        (["train", "digits-events", "--init-from", "nowhere"], "nowhere is not a run folder"),
        (["evaluate", "nowhere"], "nowhere is not a run folder"),
        (["evaluate"], "required"),
        (["check", "lyf"], "unknown neuron, attention or model 'lyf'; did you mean lif"),
        (["check", f"{tiny.__file__}:each"], "its parameters (logits, targets) don't tell what it is"),
        (["data", "mnist"], "unknown data set 'mnist'; did you mean nmnist?"),
    ],
)
def test_bad_input(capsys, args, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert message in complaint(capsys, *args)
    assert not list(tmp_path.iterdir())


def help_of(capsys, *args):
    with pytest.raises(SystemExit) as stop:
        main([*args, "--help"] if args[-1] != "all" else [*args[:-1], "--help", "all"])
    assert stop.value.code == 0
    return capsys.readouterr().out


def shown(text):
    """The options of a help text, without the options of parts."""
    flags = set(re.findall(r"^  --([a-z][a-z.-]*)", text, re.MULTILINE))
    return {flag for flag in flags if not f"--{flag}".startswith(PARTS)}


@pytest.mark.parametrize("command", ["train", "compare"])
def test_all_options_are_in_the_whole_help_and_taken(command, capsys):
    assert shown(help_of(capsys, command, "all")) == flags_of(OPTIONS[command])


@pytest.mark.some(3)
@pytest.mark.parametrize("name", [None, *RECIPES])
def test_the_help_of_a_recipe_shows_what_has_an_effect_on_it(name, capsys, monkeypatch):
    """What it hides is refused at another value, or is a setting of another kind of recipe."""
    monkeypatch.setenv("COLUMNS", "80")
    text = help_of(capsys, "train", *([] if name is None else [name]))
    recipe, flags = RECIPES[name or "digits-events"], shown(text)
    assert len(text.splitlines()) <= (101 if name is None else 128)  # tyro's releases wrap lines otherwise
    assert "--model.neuron.threshold" in text or recipe.model.name in ("gru", "linear", "last-value")
    forecasts = recipe.series.horizon is not None
    sections = {flag.partition(".")[0] for flag in flags if "." in flag}
    assert ({"series"} <= sections) == forecasts
    assert ({"augment"} & sections == set()) == forecasts
    assert not forecasts or "early" not in sections
    defaults = Recipe()
    for section in ("augment", "early", "series", "forecast"):  # a recipe has nothing set that its help hides
        for field, value in vars(getattr(recipe, section)).items():
            flag = f"{section}.{field}".replace("_", "-")
            assert flag in flags or value == getattr(getattr(defaults, section), field), flag


def test_the_help_of_a_long_name_has_room_for_its_texts(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    lines = help_of(capsys, "train", TINY, "--data.name", f"{'long' * 40}.py:events").splitlines()
    assert re.search(r"long.py:events +Data set", next(line for line in lines if "--data.name" in line))


def test_the_help_follows_what_is_given(capsys):
    text = help_of(capsys, "train", "--model.attention", "dta", "--model.attention.kernel", "5", "--optim.lr", "0.3")
    assert re.search(r"--optim.lr 0.3 ", text)
    assert re.search(r"--model.attention dta ", text)
    assert re.search(r"--model.attention.kernel 5 ", text)
    assert re.search(r"--model.attention.dilation 3 ", text)
    assert "--model.attention.reduction" not in text


def test_a_path_with_brackets(capsys, tmp_path):
    out = tmp_path / "[bold]x[/y]"
    assert main(["train", TINY, "--epochs", "1", "--out", str(out)]) == 0
    assert str(out) in capsys.readouterr().out


def test_broken_records_of_a_run(capsys, tmp_path):
    run = tmp_path / "run"
    assert main(["train", TINY, "--epochs", "1", "--out", str(run)]) == 0
    capsys.readouterr()
    for name, text in (("result.json", "{}"), ("environment.json", '{"data": []}'), ("recipe.json", '{"data": 5}')):
        whole = (run / name).read_text()
        (run / name).write_text(text)
        assert name in complaint(capsys, *(["train", "--resume"] if name == "result.json" else ["evaluate"]), str(run))
        (run / name).write_text(whole)
    for name in ("result.json", "environment.json"):
        (run / name).unlink()
    assert main(["train", "--resume", str(run)]) == 0
    assert main(["evaluate", str(run)]) == 0


def test_narrow_terminals_show_whole_names(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["recipes"]) == 0
    text = capsys.readouterr().out
    assert set(RECIPES) <= set(text.split())
    assert max(map(len, text.splitlines())) <= 80


def test_debug_shows_the_traceback(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["train", "--model.neuron", "lyf", "--debug"]) == 2
    text = capsys.readouterr().err
    assert text.startswith("Traceback")
    assert "ValueError: unknown neuron" in text.splitlines()[-1]


@pytest.mark.parametrize("event", ["epoch", "start", 3])
def test_a_result_is_one_whatever_it_says_of_itself(event, tmp_path):
    run = tmp_path / "run"
    assert main(["train", TINY, "--epochs", "1", "--max-steps", "1", "--out", str(run)]) == 0
    result = json.loads((run / "result.json").read_text()) | {"event": event}
    (run / "result.json").write_text(json.dumps(result))
    assert main(["train", "--resume", str(run)]) == 0


def test_compare_takes_the_seeds_it_is_asked_for(tmp_path):
    """And not what else lies in their folder."""
    args = ["compare", TINY, "--max-steps", "1", "--out", str(tmp_path / "cmp")]
    for seeds in ("3", "2"):
        assert main([*args, "--seeds", seeds]) == 0
        with open(tmp_path / "cmp" / "compare.csv", newline="") as file:
            assert [row["seeds"] for row in csv.DictReader(file)] == [seeds]


def test_a_run_from_start_to_evaluation(capsys, tmp_path):
    out = str(tmp_path / "run")
    assert main(["train", TINY, "--out", out]) == 0
    text = capsys.readouterr().out
    assert "test accuracy" in text
    assert "epoch   2" in text
    assert "firing" in text
    assert main(["evaluate", out]) == 0
    assert "test accuracy" in capsys.readouterr().out
    assert "finished" not in text
    assert main(["train", "--resume", out]) == 0
    text = capsys.readouterr().out
    assert "was already finished, nothing was trained: test accuracy" in text
    assert f"train it longer with: staa train --resume {out} --prolong 2; or begin a new one from its weights: " in text
    assert f"staa train RECIPE --init-from {out} --epochs 2" in text
    assert main(["train", TINY, "--init-from", out, "--epochs", "1", "--out", str(tmp_path / "longer")]) == 0
    capsys.readouterr()
    assert "holds a run already" in complaint(capsys, "train", TINY, "--out", out)
    error = complaint(capsys, "train", TINY, "--resume", out, "--epochs", "3")
    assert "trained with another recipe (its, yours): epochs: 2, 3. A run keeps its recipe" in error
    assert "begin a new run, from its weights if you like (--init-from)" in error
    assert "another recipe" in complaint(capsys, "train", "digits-events", "--resume", out)


def test_a_truncated_checkpoint(capsys, tmp_path):
    out = tmp_path / "run"
    assert main(["train", TINY, "--out", str(out)]) == 0
    (out / "result.json").unlink()
    (out / "last.pt").write_bytes((out / "last.pt").read_bytes()[:1000])
    capsys.readouterr()
    assert f"resume {out}/previous.pt" in complaint(capsys, "train", "--resume", str(out))
    assert main(["train", "--resume", f"{out}/previous.pt"]) == 0


def test_a_failed_run_ends_with_one(capsys, tmp_path, monkeypatch):
    def full(*_, **__):
        raise RuntimeError("could not write last.pt: No space left on device")

    monkeypatch.setattr("staa.training.learner.save_checkpoint", full)
    error = complaint(capsys, "train", TINY, "--out", str(tmp_path / "run"), code=1)
    assert "failed: could not write last.pt: No space left on device" in error


def test_several_seeds_and_going_on_with_them(capsys, tmp_path):
    out = tmp_path / "runs"
    assert main(["train", TINY, "--epochs", "1", "--seeds", "3", "--out", str(out)]) == 0
    text = capsys.readouterr().out
    assert "over 3 seeds" in text
    assert (out / "summary.txt").read_text().strip() in text
    accuracies = [json.loads((out / f"seed{s}" / "result.json").read_text())["test_accuracy"] for s in range(3)]
    (out / "seed1" / "result.json").unlink()  # as if stopped there
    shutil.rmtree(out / "seed2")
    (out / "seed2").mkdir()
    capsys.readouterr()
    assert "holds several seeds" in complaint(capsys, "train", "--resume", str(out))
    assert "without --seeds" in complaint(capsys, "train", "--resume", str(out / "seed0"), "--seeds", "3")
    assert "was trained with several seeds" in complaint(capsys, "train", TINY, "--out", str(out))
    assert "was trained with one seed" in complaint(capsys, "train", TINY, "--out", str(out / "seed0"), "--seeds", "2")
    assert main(["train", "--resume", str(out), "--seeds", "3"]) == 0
    assert [json.loads((out / f"seed{s}" / "result.json").read_text())["test_accuracy"] for s in range(3)] == accuracies


def test_compare(capsys, tmp_path):
    """Trains what is not there, takes what is, and writes a table and a picture."""
    out, run, short = tmp_path / "out", tmp_path / "run", ["--epochs", "1"]
    assert main(["train", TINY, *short, "--out", str(run)]) == 0
    own = f"{tiny.__file__}:own_neuron"
    assert main(["compare", own, str(run), *short, "--out", str(out)]) == 0
    text = capsys.readouterr().out
    with open(out / "compare.csv") as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == ["tiny-steep", str(run)]
    for row, folder in zip(rows, (out / "tiny-steep", run), strict=True):
        assert float(row["test_accuracy"]) == json.loads((folder / "result.json").read_text())["test_accuracy"]
        assert int(row["parameters"]) == sum(p.numel() for p in load(folder).parameters())
        joules = 4.6e-12 * float(row["macs"]) + 0.9e-12 * float(row["sops"])
        assert float(row["microjoules"]) == pytest.approx(1e6 * joules)
        assert 0 < float(row["slowest"]) <= float(row["samples_per_second"]) <= float(row["fastest"])
        assert float(row["kept_mib"]) > 0
        assert row["name"] in text
    assert (out / "compare.png").read_bytes().startswith(b"\x89PNG")
    assert "is of other recipes" in complaint(capsys, "compare", own, *short, "--out", str(out))
    again = ["compare", own, str(run), "--out", str(out)]
    assert main([*again, *short]) == 0  # nothing is trained twice
    assert "epoch" not in capsys.readouterr().out
    assert "another recipe" in complaint(capsys, *again, "--epochs", "2")
    assert "was trained with one seed" in complaint(capsys, *again, *short, "--seeds", "2")
    assert "another recipe" in complaint(capsys, "compare", str(run), "--epochs", "2")
    (run / "result.json").unlink()
    assert f"{run} is not finished" in complaint(capsys, "compare", str(run), *short)


def test_compare_seeds(capsys, tmp_path):
    options = ["compare", TINY, "--epochs", "1", "--seeds", "2", "--out", str(tmp_path)]
    assert main(options) == 0
    figures = [json.loads((tmp_path / "tiny" / f"seed{s}" / "result.json").read_text())["test_accuracy"] for s in range(2)]
    with open(tmp_path / "compare.csv") as file:
        (row,) = csv.DictReader(file)
    assert float(row["test_accuracy"]) == pytest.approx(statistics.mean(figures))
    assert float(row["spread"]) == pytest.approx(statistics.stdev(figures))
    assert row["seeds"] == "2"
    assert "±" in capsys.readouterr().out
    assert "with several seeds" in complaint(capsys, *options[:4], "--out", str(tmp_path))


def test_recipes_doctor_and_help(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["recipes"]) == 0
    text = capsys.readouterr().out
    assert all(name in text for name in RECIPES)
    assert main(["doctor", "--data", str(tmp_path)]) == 0
    text = capsys.readouterr().out
    assert "torch" in text
    assert "staa data cifar10" in text
    assert main([]) == 0
    text = capsys.readouterr().out
    assert all(f"staa {name}" in text for name in COMMANDS)
    with pytest.raises(SystemExit) as stop:
        main(["train", "--help"])
    assert stop.value.code == 0
    assert "--optim.lr" in capsys.readouterr().out


def test_the_doctor_says_what_is_there_of_a_data_set(capsys, tmp_path):
    def doctor(name):
        assert main(["doctor", "--data", str(tmp_path)]) == 0
        return dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())[name]

    for name, archive in (("nmnist", "NMNIST/train.zip"), ("cifar10", "cifar-10-binary.tar.gz"), ("solar", "solar_AL.txt.gz")):
        assert f"`staa data {name}`" in doctor(name).replace("'", "`")
        (tmp_path / archive).parent.mkdir(exist_ok=True)  # as a failed download leaves it
        assert "is not" in doctor(name) or "missing" in doctor(name)
        (tmp_path / f"{archive}.part").write_bytes(b"some")
        assert f"download of {Path(archive).name} is not finished: `staa data {name}` goes on" in doctor(name)
    nmnist_set(tmp_path, per_class=5)
    there = len(list(tmp_path.glob("NMNIST/*/*/*.bin")))
    assert doctor("nmnist") == f"{there} of the 70,000 recordings in {tmp_path / 'NMNIST'}"
    (tmp_path / "solar_AL.txt.gz").write_bytes(b"other")
    assert "is not the published file" in doctor("solar")
    (tmp_path / "solar_AL.txt").write_bytes(b"other")
    assert doctor("solar").endswith("solar_AL.txt, unpacked, so not checked")


def test_an_empty_folder_is_no_data_set(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr("staa.data.events.published.fetch", lambda archive, folder, tell: folder / archive.name)
    archives = {"train.zip": "Train", "test.zip": "Test"}
    for name, part in archives.items():
        (tmp_path / "NMNIST" / part).mkdir(parents=True)
        with zipfile.ZipFile(tmp_path / "NMNIST" / name, "w") as archive:
            for digit in range(9 if part == "Test" else 10):
                archive.writestr(f"{part}/{digit}/1.bin", b"12345")
    assert "no *.bin in" in complaint(capsys, "data", "nmnist", "--data", str(tmp_path))  # one digit is not there
    assert len(list(tmp_path.glob("NMNIST/*/*/1.bin"))) == 19


def test_offline_download_says_so(capsys, monkeypatch, tmp_path):
    from urllib.error import URLError

    def offline(*_, **__):
        raise URLError("no route to host")

    monkeypatch.setattr("staa.data.download.urlopen", offline)
    for name in ("cifar100", "nmnist", "cifar10dvs", "dvsgesture"):
        text = complaint(capsys, "data", name, "--data", str(tmp_path))
        assert "no route to host" in text
        assert "By hand: get it from https://" in text


def test_a_checkpoint_of_another_run_in_the_folder(capsys, tmp_path):
    a, b = tmp_path / "a", tmp_path / "b"
    assert main(["train", TINY, "--epochs", "1", "--out", str(a)]) == 0
    assert main(["train", TINY, "--out", str(b)]) == 0
    (b / "result.json").unlink()
    (b / checkpoint.LAST).write_bytes((a / checkpoint.LAST).read_bytes())
    capsys.readouterr()
    assert "belongs to another recipe" in complaint(capsys, "train", "--resume", str(b))


@pytest.mark.slow
@pytest.mark.parametrize("option", [[], ["--inference"]])
def test_bench(capsys, option, monkeypatch):
    monkeypatch.setattr("staa.cli.machine.run_bench", partial(bench, rounds=2))
    assert main(["bench", *option]) == 0
    text = capsys.readouterr().out
    assert ("fused, inference mode" if option else "lif_reference") in text
    assert "× 1.00 (1.00–1.00)" in text


def test_help_and_version_are_found_under_any_name(capsys):
    for args in (["--version"], ["-V"], ["-v"], ["version"]):
        assert main(args) == 0
        assert capsys.readouterr().out.strip() == __version__
    for args in ([], ["-h"], ["--help"], ["help"]):
        assert main(args) == 0
        assert "First try: staa train" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["help", "evaluate"])
    assert "Measure the model of a run folder" in capsys.readouterr().out


def test_a_folder_of_other_files_is_not_taken_for_a_run(capsys, tmp_path):
    (tmp_path / "notes.txt").touch()
    assert f"{tmp_path} holds other files: empty it, or choose" in complaint(capsys, "train", TINY, "--out", str(tmp_path))


def test_a_part_of_ones_own_is_checked(capsys, tmp_path):
    assert main(["check", f"{tiny.__file__}:steep"]) == 0
    assert "ok      stream: piece by piece it gives what it gives at once" in capsys.readouterr().out
    assert main(["check", "staa-causal"]) == 0
    assert "no step sees later ones" in capsys.readouterr().out
    (tmp_path / "mine.py").write_text("import torch\ndef make(channels):\n    return torch.nn.Softmax(1)\n")
    assert main(["check", f"{tmp_path / 'mine.py'}:make"]) == 1
    assert "BROKEN  samples: a sample alone gives another output" in capsys.readouterr().out


def test_an_option_is_given_once(capsys):
    assert "--epochs is given twice" in complaint(capsys, "train", "--epochs", "1", "--epochs=2")
    assert "--augment.flip is given twice" in complaint(capsys, "train", "--augment.flip", "--augment.no-flip")
    assert "--optim.lr must be a number, got 'x'" in complaint(capsys, "train", "--optim.lr", "x")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no such device")
def test_an_output_that_is_full_or_closed(monkeypatch, capsys):
    with open("/dev/full", "w") as full, monkeypatch.context() as patched:
        patched.setattr("sys.stdout", full)
        assert main(["--version"]) == 2
    error = capsys.readouterr().err
    assert error == "staa: error: standard output can't be written: No space left on device\n"
    with monkeypatch.context() as patched:
        patched.setattr("sys.stdout", None)
        assert main(["--version"]) == 0


SLOW = """
import signal, sys, time
class Finder:
    def find_spec(self, name, *_):
        if name == "torch":
            print("importing", flush=True)
            time.sleep(60)
sys.meta_path.insert(0, Finder())
signal.signal(signal.SIGINT, signal.default_int_handler)
import staa_command
staa_command.main()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows sends no SIGINT to one process")
def test_ctrl_c_while_the_package_is_imported_ends_without_a_traceback():
    command = subprocess.Popen([sys.executable, "-c", SLOW], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert command.stdout.readline() == b"importing\n"
    command.send_signal(signal.SIGINT)
    assert command.communicate(timeout=30) == (b"", b"")
    assert command.returncode == -signal.SIGINT
