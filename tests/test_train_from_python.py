"""`staa.train`: what the command does, from a script or a notebook."""

import os
import signal
import subprocess
import sys
import threading
import time
import types
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import tiny
import torch

import staa
from staa.cli import bar, called, waiting
from staa.runs import run
from staa.training.progress import Step, Warned

SHORT = replace(tiny.recipe, max_steps=5)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plain") / "run"
    list(run(tiny.recipe, folder))
    return folder


def same(a, b):
    a, b = (torch.load(folder / "last.pt", weights_only=True)["model"] for folder in (a, b))
    return all(torch.equal(a[name], b[name]) for name in a)


def test_it_trains_as_the_command_does_and_opens_the_run(plain, tmp_path, capsys):
    trained = staa.train(tiny.recipe, tmp_path / "run", log="tensorboard")
    assert isinstance(trained, staa.Run)
    assert trained.folder == tmp_path / "run"
    assert trained.result == staa.Run(plain).result
    assert same(plain, tmp_path / "run")
    assert list((tmp_path / "run" / "tensorboard").iterdir())
    shown = capsys.readouterr().out
    assert shown.startswith(f"tiny, seed 0 → {tmp_path / 'run'}\n")
    assert "epoch   2" in shown
    assert "test accuracy" in shown
    again = staa.train(resume=tmp_path / "run")
    assert again.result == trained.result
    assert "was already finished" in capsys.readouterr().out


def test_nothing_is_shown_if_nothing_is_to_be(tmp_path, capfd, monkeypatch):
    monkeypatch.chdir(tmp_path)
    trained = staa.train(f"{tiny.__file__}:recipe", progress=False)
    assert capfd.readouterr() == ("", "")
    assert trained.folder.parent == Path("runs/tiny")
    assert trained.folder.name.endswith("-seed0")
    assert trained.recipe == staa.train(replace(tiny.recipe, name="tiny"), "again", progress=False).recipe


@pytest.mark.parametrize("progress", [True, False])
def test_warnings_are_warned_of_where_it_was_called(progress, tmp_path, monkeypatch, capsys):
    def noted(*args, **options):
        yield Warned(0, 1, "neurons are slow, with `data_root` or not")
        yield from run(*args, **options)

    monkeypatch.setattr(called, "run", lambda *args, **options: (yield from noted(*args, **options)))
    with pytest.warns(UserWarning, match="neurons are slow, with `data_root` or not") as caught:
        staa.train(SHORT, tmp_path / "run", progress=progress)
    assert [warning.filename for warning in caught] == [__file__]
    assert "slow" not in capsys.readouterr().out


def interrupt_at(step, monkeypatch):
    """As Ctrl-C would while that step is taken."""

    def events(*args, stop, **options):
        for event in run(*args, stop=stop, **options):
            yield event
            if isinstance(event, Step) and event.step == step:
                os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(called, "run", events)


@pytest.mark.parametrize("progress", [True, False])
def test_an_interruption_saves_and_the_run_goes_on(progress, plain, tmp_path, monkeypatch, capsys):
    folder, before = tmp_path / "run", signal.getsignal(signal.SIGINT)
    with monkeypatch.context() as patch:
        interrupt_at(6, patch)
        with pytest.raises(KeyboardInterrupt, match=r"go on with staa.train\(resume='"):
            staa.train(tiny.recipe, folder, progress=progress)
    assert signal.getsignal(signal.SIGINT) is before
    assert torch.load(folder / "last.pt", weights_only=True)["step"] in (6, 7)
    out = capsys.readouterr().out
    assert (f"saved. Go on with: staa.train(resume={str(folder)!r})" in out) == progress
    trained = staa.train(resume=folder, progress=progress)
    assert trained.finished
    assert same(plain, folder)


def test_what_ends_it_at_once_lets_the_folder_go(tmp_path, monkeypatch):
    """A notebook keeps the error, and with it what the error was raised in."""
    folder = tmp_path / "run"

    with monkeypatch.context() as patch:
        patch.setattr(called, "render", lambda events, *_, **__: [event for event in events if event.step < 2 or 1 / 0])
        with pytest.raises(ZeroDivisionError) as kept:
            staa.train(tiny.recipe, folder)
    assert staa.train(resume=folder, progress=False).finished
    assert kept.traceback


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"recipe": "digit-events"}, "unknown recipe 'digit-events'; did you mean digits-events"),
        ({"recipe": 3}, "`recipe` must be a staa.Recipe or the name of one, got a int"),
        ({"recipe": SHORT, "resume": "run", "out": "other"}, "`resume` goes on in the run's own folder: leave out `out`"),
        ({"recipe": SHORT, "log": "wandb"}, "`log` must be \"tensorboard\" or None, got 'wandb'"),
        ({"resume": "nowhere"}, "nowhere is not a run folder: it does not exist"),
        ({"recipe": SHORT, "device": "tpu"}, "device must be cpu, cuda"),
        ({"recipe": "cifar100-resnet20-tiny-staa", "data_root": "here"}, "cifar100 is not under here"),
    ],
)
def test_bad_input_is_told_before_anything_is_written(options, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises((ValueError, OSError), match=message.replace("(", r"\(")):
        staa.train(**options, progress=False)
    assert not list(tmp_path.iterdir())


def test_a_folder_of_several_seeds_is_no_run(plain, tmp_path):
    (tmp_path / "seed0").mkdir()
    (tmp_path / "seed0" / "recipe.json").write_bytes((plain / "recipe.json").read_bytes())
    with pytest.raises(ValueError, match="holds several seeds: resume one of its folders, such as .*seed0"):
        staa.train(resume=tmp_path)


def test_it_trains_in_a_thread_too(tmp_path):
    thread = threading.Thread(target=staa.train, args=(SHORT, tmp_path / "run"), kwargs={"progress": False})
    thread.start()
    thread.join()
    assert staa.Run(tmp_path / "run").finished


def test_a_plain_script_trains(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        f"import sys\nimport staa\nsys.path.insert(0, {str(Path(tiny.__file__).parent)!r})\nimport tiny\n"
        "run = staa.train(tiny.recipe, 'run', workers=0)\nprint(run.result['test_samples'])\n"
    )
    done = subprocess.run([sys.executable, "-W", "error", script], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "8"


class Kernel:
    """Stands for IPython in a notebook: it keeps what each output of the cell shows."""

    def __init__(self, monkeypatch):
        self.outputs = []
        shell = types.SimpleNamespace(kernel=self)
        ipython, shown = types.ModuleType("IPython"), types.ModuleType("IPython.display")
        ipython.get_ipython, shown.display = lambda: shell, self.display
        monkeypatch.setitem(sys.modules, "IPython", ipython)
        monkeypatch.setitem(sys.modules, "IPython.display", shown)
        monkeypatch.setattr(bar, "EVERY", 0.0)

    def display(self, data, *, raw, display_id):
        assert raw
        assert display_id
        history = [data]
        self.outputs.append(history)
        return types.SimpleNamespace(update=lambda data, *, raw: history.append(data))


def test_a_notebook_gets_one_bar_that_goes_on(tmp_path, monkeypatch, capsys):
    assert not bar.in_notebook()
    kernel = Kernel(monkeypatch)
    assert bar.in_notebook()
    monkeypatch.setattr(waiting, "PATIENCE", 60.0)
    staa.train(tiny.recipe, tmp_path / "run")
    (history,) = kernel.outputs
    assert [data["text/html"].split('"')[1] for data in history] == [*map(str, range(11)), "10"]  # the last look is the end
    assert all('max="10"' in data["text/html"] for data in history)
    assert "loss " in history[-1]["text/plain"]
    assert history[-1]["text/plain"].startswith(f"[{'█' * 20}] 10/10")
    assert "ETA 0:" in history[5]["text/plain"]
    assert "epoch   2" in capsys.readouterr().out


def test_a_notebook_waits_in_one_output_that_is_cleared(monkeypatch, capsys):
    kernel = Kernel(monkeypatch)
    monkeypatch.setattr(waiting, "PATIENCE", 0.001)
    monkeypatch.setattr(waiting, "REFRESH", 0.01)
    with waiting.waiting("reading <b>"):
        time.sleep(0.3)
    (history,) = kernel.outputs
    assert history[0]["text/plain"] == "reading <b> …"
    assert "reading &lt;b&gt; …" in history[0]["text/html"]
    assert history[-1] == {"text/plain": "", "text/html": ""}
    assert capsys.readouterr() == ("", "")


def test_importing_it_alone_warns_of_nothing():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert staa.train is called.train
    with pytest.raises(AttributeError, match="module 'staa' has no attribute 'trian'"):
        _ = staa.trian
