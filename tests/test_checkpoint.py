"""What is saved stays saved: full disks, kills, truncation."""

import copy
import io
import json
import math
import os
import resource
import shutil
import signal
import subprocess
import sys
import zipfile
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path

import pytest
import tiny
import torch
from processes import wait_for
from torch import nn

import staa
from staa import files
from staa.build import task_of
from staa.cli.signals import listening
from staa.runs import evaluate_run, run
from staa.training.checkpoint import load_checkpoint, save_checkpoint
from staa.training.optim import cosine_schedule, make_optimizer
from staa.training.progress import Result, Warned
from staa.training.resume import check_resumable
from staa.training.weights import check_savable, load_weights, read_weights, save_weights

HERE = Path(__file__).parent
TRAIN = [sys.executable, "-m", "staa", "train", f"{HERE}/tiny.py:recipe", "--epochs", "20"]
ENV = {**os.environ, "OMP_NUM_THREADS": "1"}


def test_a_checkpoint_comes_back_and_the_one_before_is_kept(tmp_path):
    save_checkpoint(tmp_path, {"step": 1, "model": {"w": torch.ones(3)}})
    save_checkpoint(tmp_path, {"step": 2, "model": {"w": torch.zeros(3)}})
    assert load_checkpoint(tmp_path)["step"] == 2
    assert load_checkpoint(tmp_path / "previous.pt")["step"] == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["last.pt", "previous.pt"]


def test_no_hard_links_no_harm(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise OSError("not supported")

    monkeypatch.setattr(files.os, "link", refuse)
    for step in (1, 2):
        save_checkpoint(tmp_path, {"step": step, "model": {}})
    assert load_checkpoint(tmp_path)["step"] == 2
    assert load_checkpoint(tmp_path / "previous.pt")["step"] == 1


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty", "garbage"])
def test_damage_is_noticed_and_the_way_out_named(tmp_path, damage):
    for step in (1, 2):
        save_checkpoint(tmp_path, {"step": step, "model": {"w": torch.arange(1000.0)}})
    data = bytearray((tmp_path / "last.pt").read_bytes())
    if damage == "flipped":
        data[len(data) // 2] ^= 1
    broken = {"truncated": data[: len(data) // 2], "flipped": data, "empty": b"", "garbage": b"what" * 99}[damage]
    (tmp_path / "last.pt").write_bytes(broken)
    with pytest.raises(ValueError, match=r"last.pt is (truncated or corrupt|empty).*previous.pt"):
        load_checkpoint(tmp_path)
    assert load_checkpoint(tmp_path / "previous.pt")["step"] == 1


def test_a_lost_checkpoint_is_never_started_over(tmp_path):
    for _ in run(tiny.recipe, tmp_path / "run", stop=lambda: True):
        pass
    before = (tmp_path / "run" / "previous.pt").read_bytes()
    (tmp_path / "run" / "last.pt").unlink()
    with pytest.raises(FileNotFoundError, match=r"no checkpoint at .*last.pt; .*: resume .*previous.pt"):
        list(run(tiny.recipe, tmp_path / "run", resume=tmp_path / "run"))
    assert (tmp_path / "run" / "previous.pt").read_bytes() == before
    events = list(run(tiny.recipe, tmp_path / "run", resume=tmp_path / "run" / "previous.pt"))
    assert isinstance(events[-1], Result)


def test_a_finished_run_can_be_mended_from_the_checkpoint_before(tmp_path):
    *_, result = run(tiny.recipe, tmp_path / "run")
    (tmp_path / "run" / "last.pt").write_bytes(b"gone")
    *_, again = run(tiny.recipe, tmp_path / "run", resume=tmp_path / "run" / "previous.pt")
    assert again == result
    assert load_checkpoint(tmp_path / "run")["step"] == 10


def test_a_broken_checkpoint_is_not_kept_as_the_one_before(tmp_path):
    """A run that resumed from previous.pt may die after its first save."""
    folder = tmp_path / "run"
    for _ in run(tiny.recipe, folder, stop=lambda: True):
        pass
    (folder / "last.pt").write_bytes(b"gone")
    for _ in run(tiny.recipe, folder, resume=folder / "previous.pt", stop=lambda: True):
        pass
    assert [load_checkpoint(folder / name)["step"] for name in ("previous.pt", "last.pt")] == [0, 1]


def test_a_checkpoint_that_lacks_something_is_named(tmp_path):
    for _ in run(tiny.recipe, tmp_path / "run", stop=lambda: True):
        pass
    state = load_checkpoint(tmp_path / "run")
    del state["sums"], state["best"]
    torch.save(state, tmp_path / "run" / "last.pt")
    with pytest.raises(ValueError, match="lacks best, sums"):
        list(run(tiny.recipe, tmp_path / "run", resume=tmp_path / "run"))


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """A run that stopped after its first step."""
    folder = tmp_path_factory.mktemp("stopped") / "run"
    for _ in run(tiny.recipe, folder, stop=lambda: True):
        pass
    return folder


def moment(name, change):
    return lambda s: [v.update({name: change(v[name])}) for v in s["optimizer"]["state"].values()]


def setting(name, value):
    return lambda s: [group.update({name: value}) for group in s["optimizer"]["param_groups"]]


def planned(**values):
    return lambda s: s["schedule"].update(values)


def told(name, value):
    return lambda s: s.update({name: value})


ODD = {
    "step of a parameter": [moment("step", lambda v, to=to: to) for to in (torch.tensor(-1.0), None, torch.tensor(0.5), 1)]
    + [moment("step", lambda v: v * 99), moment("step", lambda v: v.long()), moment("step", lambda v: v.expand(3, 3))],
    "a moment": [
        moment(name, change)
        for name in ("exp_avg", "exp_avg_sq")
        for change in (lambda v: None, lambda v: v.sum(), lambda v: v.long(), lambda v: v.double(), lambda v: v * math.nan)
    ]
    + [moment("exp_avg_sq", lambda v: -v - 1), moment("exp_avg", lambda v: v.clone().requires_grad_())],
    "more moments": [lambda s: s["optimizer"]["state"][0].update(max_exp_avg_sq=torch.zeros(1))],
    "fewer moments": [lambda s: s["optimizer"]["state"][0].clear(), lambda s: s["optimizer"]["state"].update({"a": {}})],
    "a setting": [
        *(setting(name, True) for name in ("amsgrad", "capturable", "maximize", "differentiable", "eps")),
        *(setting("fused", value) for value in (1, "yes", torch.ones(()))),  # True is a GPU's
        *(setting("betas", betas) for betas in ((5.0, 5.0), (0.9,), [0.9, 0.999], None, (0.9, torch.ones(2)))),
        *(setting("lr", lr) for lr in (-1.0, math.nan, math.inf, None, "1", torch.tensor(1.0), 10**400)),
        setting("unknown", 3.0),
        *(lambda s, name=name: [g.pop(name) for g in s["optimizer"]["param_groups"]] for name in ("lr", "betas", "params")),
        lambda s: s["optimizer"]["param_groups"].pop(),
        lambda s: s["optimizer"].update(more=1),
    ],
    "the schedule": [
        planned(optimizer=5), planned(optimizer=None), planned(step=None), planned(base_lrs=[-1.0, -1.0]),
        planned(last_epoch=7),
        planned(_step_count=torch.ones(3)), planned(_last_lr=[math.nan, math.nan]), planned(lr_lambdas=[{"a": 1}, None]),
        planned(_last_lr=[1.0, 1.0]), lambda s: s["schedule"].pop("base_lrs"), lambda s: s["schedule"].pop("_last_lr"),
    ],
    "the rates": [told("rates", rates) for rates in ({"a": [1.0, 1]}, {5: [1.0, 1]})]
    + [
        lambda s, rate=rate: s["rates"].update(dict.fromkeys(s["rates"], rate))
        for rate in ([10**400, 1], [math.nan, 1], [-1.0, 1], [1.0, 0.5], [1.0, 2**60], [True, 1])
    ],
    "the sums": [told("sums", torch.zeros(1, 1, 1, 1, dtype=torch.float64)), told("sums", torch.ones((), dtype=torch.float64))]
    + [
        lambda s, change=change: s.update(sums=change(s["sums"]))
        for change in (lambda v: v * math.nan, lambda v: v * 1j, lambda v: v.float(), lambda v: v.requires_grad_())
    ],
    "the best": [told("best_epoch", 2**61), told("best_epoch", 1), told("best", math.nan), told("best", 0.5)],
}  # fmt: skip


@pytest.fixture(scope="module")
def fresh(stopped):
    """What the run would go on with, before it takes over its checkpoint."""
    source = tiny.events(steps=3, validation=0.1)
    model, optim = task_of(tiny.recipe).model_for(source), tiny.recipe.optim
    optimizer = make_optimizer(model, name=optim.name, lr=optim.lr, weight_decay=optim.weight_decay, decay_all=optim.decay_all)
    schedule = cosine_schedule(optimizer, steps=10, warmup=2, lr=optim.lr, min_lr=optim.min_lr)
    parts = {"model": model, "optimizer": optimizer, "schedule": schedule, "average": False}
    check_resumable(load_checkpoint(stopped), stopped, **parts)
    return parts


@pytest.mark.parametrize("part", ODD)
def test_what_training_would_go_on_with_is_checked(part, stopped, fresh):
    """Each value that an optimizer, a schedule or an epoch's sums can't have here is refused in a line."""
    whole = load_checkpoint(stopped)
    for k, change in enumerate(ODD[part]):
        state = copy.deepcopy(whole)
        change(state)
        with pytest.raises(ValueError, match=r"^the checkpoint for [^\n]*$"):
            check_resumable(state, stopped, **fresh)
            pytest.fail(f"{part} {k} is taken")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: (s.update(step=2**61), s["schedule"].update(last_epoch=2**61, _step_count=2**61 + 1)), "ends at step 10"),
        (lambda s: s.update(sums=torch.zeros(7, 5, 3, dtype=torch.float64)), "sums of other figures"),
        (setting("betas", (5.0, 5.0)), r"not of this optimizer and schedule \(betas\)"),
    ],
)
def test_a_checkpoint_that_does_not_fit_the_run_is_refused_with_nothing_saved(change, message, stopped, tmp_path):
    shutil.copytree(stopped, tmp_path / "run")
    state = torch.load(stopped / "last.pt", weights_only=True)
    change(state)
    torch.save(state, tmp_path / "run" / "last.pt")
    before = (tmp_path / "run" / "last.pt").read_bytes()
    with pytest.raises(ValueError, match=message):
        list(run(tiny.recipe, tmp_path / "run", resume=tmp_path / "run"))
    assert (tmp_path / "run" / "last.pt").read_bytes() == before


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_a_checkpoint_of_another_torch_may_lack_or_add_switches(name, tmp_path):
    recipe = replace(tiny.recipe, optim=replace(tiny.recipe.optim, name=name))
    *_, last = run(recipe, tmp_path / "run", stop=lambda: True)
    state = torch.load(tmp_path / "run" / "last.pt", weights_only=True)
    for group in state["optimizer"]["param_groups"]:
        del group["foreach"]
        group["of_tomorrow"] = True
    state["schedule"]["verbose"] = False
    torch.save(state, tmp_path / "run" / "last.pt")
    *_, event = run(recipe, tmp_path / "run", resume=tmp_path / "run", stop=lambda: True)
    assert event.step == last.step + 1


def test_missing(tmp_path):
    with pytest.raises(FileNotFoundError, match="no checkpoint at"):
        load_checkpoint(tmp_path)
    with pytest.raises(FileNotFoundError, match="not a run folder"):
        staa.load(tmp_path)


def test_a_checkpoint_runs_no_code(tmp_path):
    class Evil:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "pwned"),))

    torch.save({"step": Evil()}, tmp_path / "last.pt")
    with pytest.raises(ValueError, match="holds more than tensors and plain values"):
        load_checkpoint(tmp_path)
    torch.save([1], tmp_path / "last.pt")
    with pytest.raises(ValueError, match="has no model and step"):
        load_checkpoint(tmp_path)
    assert not (tmp_path / "pwned").exists()


def rewritten(path, change):
    """The archive at path with other members: change takes a dict of them."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    change(members)
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)


def test_a_file_that_two_readers_read_differently_is_refused(tmp_path):
    """torch reads the front of such a file, zipfile its back."""
    front, back = io.BytesIO(), io.BytesIO()
    torch.save({"step": 1, "model": {"w": torch.zeros(3)}}, front, _use_new_zipfile_serialization=False)
    torch.save({"step": 1, "model": {"w": torch.ones(3)}}, back)
    for prefix in (front.getvalue(), b"\0", b"PK\x03\x04" + bytes(60), back.getvalue()):
        (tmp_path / "last.pt").write_bytes(prefix + back.getvalue())
        with pytest.raises(ValueError, match=r"last.pt is truncated or corrupt \(something lies before its first part\)"):
            load_checkpoint(tmp_path)


@pytest.mark.parametrize(
    "name", ["archive/constants.pkl", "archive/DATA.pkl", "other/data.pkl", "archive/data/../0", "/data.pkl"]
)
def test_parts_that_torch_save_does_not_write_are_refused(name, tmp_path):
    path = save_checkpoint(tmp_path, {"step": 1, "model": {"w": torch.ones(3)}})
    rewritten(path, lambda members: members.update({name: next(iter(members.values()))}))
    with pytest.raises(ValueError, match="last.pt is truncated or corrupt"):
        load_checkpoint(tmp_path)


def test_a_tensor_that_claims_more_bytes_than_there_are_is_refused(tmp_path):
    path = save_checkpoint(tmp_path, {"step": 1, "model": {"w": torch.ones(3)}})
    rewritten(path, lambda members: members.update({"archive/data/0": b"1234"}))
    rewritten(path, lambda members: [members.update({k.replace("last", "archive"): members.pop(k)}) for k in list(members)])
    with pytest.raises(ValueError, match="a tensor's bytes, data/0, are not as many as it says"):
        load_checkpoint(tmp_path)


@pytest.mark.parametrize(
    "value", [b"(" + b")" + b"\x85" * 300_000 + b"K\x01d", b"(" + b")\x85K\x01d", b"\x8f", b"Gabcdefgh)\x86"]
)
def test_pickles_that_would_overflow_the_stack_or_hold_odd_keys_are_refused(value, tmp_path):
    """A tuple nested deep enough kills the process once it is hashed, as the key of a dict is."""
    path = save_checkpoint(tmp_path, {"step": 1, "model": {}})
    pickled = b"\x80\x02}(X\x04\x00\x00\x00stepK\x01X\x05\x00\x00\x00model" + value + b"u."
    rewritten(path, lambda members: members.update({next(k for k in members if k.endswith("data.pkl")): pickled}))
    with pytest.raises(ValueError, match="last.pt"):
        load_checkpoint(tmp_path)


def test_keys_are_texts_or_whole_numbers(tmp_path):
    save_checkpoint(tmp_path, {"step": 1, "model": {}, "x": [{(1, 2): 3}]})
    with pytest.raises(ValueError, match="more than tensors and plain values"):
        load_checkpoint(tmp_path)


class Attributed:
    """An ordered dict that hides its methods, as a pickle can make one."""

    def __init__(self, attributes, values):
        self.made = OrderedDict, (), attributes, None, iter(values.items())

    def __reduce__(self):
        return self.made


@pytest.mark.parametrize("name", ["items", "get", "copy", "values", "__class__"])
def test_a_dict_with_attributes_comes_back_plain(name, tmp_path):
    inner = Attributed({name: 5}, {"a": 1})
    save_checkpoint(
        tmp_path, {"step": 1, "model": Attributed({name: 5}, {"w": torch.ones(2)}), "rates": {}, "x": [inner, inner]}
    )
    state = load_checkpoint(tmp_path)
    assert type(state["model"]) is dict
    assert list(state["model"]) == ["w"]
    assert state["x"] == [{"a": 1}] * 2


def test_weights_of_another_network_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"another network: 2 entries do not fit, such as bias, weight"):
        load_weights(nn.Linear(2, 3), nn.Linear(3, 4).state_dict(), tmp_path)


@pytest.mark.skipif(sys.platform != "linux", reason="limits the file size as Linux does")
def test_a_full_disk_leaves_the_old_files(tmp_path):
    save_checkpoint(tmp_path, {"step": 1, "model": {}})
    save_weights(tmp_path / "best.safetensors", nn.Linear(2, 2))
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
    try:
        with pytest.raises(RuntimeError, match=r"could not write .*last.pt: File too large; the last.pt there is untouched"):
            save_checkpoint(tmp_path, {"step": 2, "w": torch.zeros(100_000)})
        with pytest.raises(RuntimeError, match=r"best.safetensors there is untouched"):
            save_weights(tmp_path / "best.safetensors", nn.Linear(1000, 100))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def start(out, *more, code=None):
    command = TRAIN if code is None else [sys.executable, "-c", code, *TRAIN[3:]]
    process = subprocess.Popen(
        [*command, "--out", str(out), *more], env=ENV, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    return process


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The run of 20 epochs that never stopped."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    for _ in run(replace(tiny.recipe, epochs=20), folder):
        pass
    return load_checkpoint(folder)


def resumed(out):
    command = [sys.executable, "-m", "staa", "train", "--resume", str(out), "--trust-code"]
    done = subprocess.run(command, env=ENV, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return load_checkpoint(out)


@pytest.mark.slow
def test_kill_during_an_epoch_loses_only_that_epoch(tmp_path, whole):
    out = tmp_path / "run"
    process = start(out)
    wait_for(process, lambda: (out / "log.jsonl").is_file() and (out / "log.jsonl").read_text().count('"epoch",') > 2)
    process.kill()
    process.communicate()
    step = load_checkpoint(out)["step"]
    assert step % 5 == 0
    assert 10 <= step < 100
    state = resumed(out)
    assert state["step"] == 100
    assert all(torch.equal(state["model"][k], whole["model"][k]) for k in whole["model"])


@pytest.mark.slow
def test_kill_during_a_save_leaves_a_whole_checkpoint(tmp_path, whole):
    """The third save dies half-way through its bytes, as by kill -9."""
    out = tmp_path / "run"
    code = """
import builtins, os, signal, sys
count, original = 0, builtins.open
def dying(path, mode="r", *rest, **more):
    global count
    file = original(path, mode, *rest, **more)
    if str(path).endswith(".tmp") and "/.last.pt." in str(path):
        count += 1
        if count == 3:
            write = file.write
            def half(data):
                file.raw.write(bytes(data[: len(data) // 2]))
                os.kill(os.getpid(), signal.SIGKILL)
            class Half:
                def __enter__(self): return self
                def __exit__(self, *_): file.close()
                write = staticmethod(half)
            return Half()
    return file
builtins.open = dying
from staa.cli import main
sys.argv[0] = "staa"
sys.exit(main(sys.argv[1:]))
"""
    process = start(out, code=code)
    process.communicate(timeout=120)
    assert process.returncode == -signal.SIGKILL
    assert len(list(out.glob(".last.pt.*.tmp"))) == 1
    assert load_checkpoint(out)["step"] == 5  # the start, the first epoch; the second died in its save
    state = resumed(out)
    assert state["step"] == 100
    assert all(torch.equal(state["model"][k], whole["model"][k]) for k in whole["model"])
    assert not list(out.glob("*.tmp"))


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_saves_and_says_how_to_go_on(tmp_path, whole, number):
    out = tmp_path / "run"
    process = start(out)
    wait_for(process, lambda: (out / "log.jsonl").is_file() and '"epoch",' in (out / "log.jsonl").read_text())
    process.send_signal(number)
    stdout, _ = process.communicate(timeout=60)
    assert process.returncode == (130 if number == signal.SIGINT else 0)
    assert f"staa train --resume {out}" in stdout.replace("\n", "")
    state = resumed(out)
    assert all(torch.equal(state["model"][k], whole["model"][k]) for k in whole["model"])


@pytest.mark.slow
def test_ctrl_c_reaches_workers_too_and_they_stay_calm(tmp_path):
    """A terminal sends Ctrl-C to the whole process group; a worker that printed or died of it would spoil the end."""
    out = tmp_path / "run"
    command = [*TRAIN[:4], f"{HERE}/tiny.py:pictures", "--epochs", "200", "--workers", "2", "--out", str(out)]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENV, start_new_session=True
    )
    wait_for(process, lambda: (out / "log.jsonl").is_file() and '"epoch",' in (out / "log.jsonl").read_text())
    os.killpg(process.pid, signal.SIGINT)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    told = [line for line in stderr.splitlines() if line.strip() != "preparing …"]  # which a slow machine says
    assert told == ["stopping after this step; ask again to stop at once"]
    assert f"staa train --resume {out}" in stdout.replace("\n", "")
    step = load_checkpoint(out)["step"]
    *_, last = run(replace(tiny.pictures, epochs=200), out, resume=out, stop=lambda: True)
    assert last.step == step + 1


@pytest.mark.parametrize(
    ("asked", "error", "seen"),
    [
        (True, "CppCompileError", KeyboardInterrupt),
        (True, "InductorError", KeyboardInterrupt),
        (False, "CppCompileError", RuntimeError),
        (True, "RuntimeError", RuntimeError),
    ],
)
def test_a_compiler_that_ctrl_c_killed_is_no_failure(asked, error, seen, capsys):
    """A terminal sends Ctrl-C to the whole process group; what else goes wrong meanwhile is still told."""
    from torch._inductor import exc

    kinds = {
        "CppCompileError": lambda: exc.CppCompileError(["g++"], "killed"),
        "InductorError": lambda: exc.InductorError(exc.CppCompileError(["g++"], "killed"), None),
        "RuntimeError": lambda: RuntimeError("could not write last.pt"),
    }
    with pytest.raises(seen) as caught, listening() as signals:
        signals.training = True
        if asked:
            os.kill(os.getpid(), signal.SIGINT)
        raise kinds[error]()
    assert caught.type is not RuntimeError or "could not write" in str(caught.value)
    assert signals.asked is asked
    assert ("ask again" in capsys.readouterr().err) == asked


class Keeping(nn.Module):
    """Weights shared by two modules, and a state that is no tensor."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(2, 2), nn.Linear(2, 2)
        self.b.weight = self.a.weight
        self.count = {"seen": 3, "by": [1.5, "x"]}

    def get_extra_state(self):
        return self.count

    def set_extra_state(self, state):
        self.count = state


def test_shared_weights_and_extra_states_are_saved_and_come_back(tmp_path):
    model, other = Keeping(), Keeping()
    other.count = {}
    check_savable(model)
    save_weights(tmp_path / "best.safetensors", model)
    load_weights(other, read_weights(tmp_path / "best.safetensors"), tmp_path)
    assert other.count == model.count
    assert torch.equal(other.b.weight, model.a.weight)
    assert other.a.weight is other.b.weight
    save_checkpoint(tmp_path, {"step": 1, "model": model.state_dict()})
    assert load_checkpoint(tmp_path)["model"]["_extra_state"] == model.count


@pytest.mark.parametrize("state", [{1, 2}, object(), {1: "keys of JSON are texts"}, (1, 2)])
def test_a_state_that_no_checkpoint_holds_is_refused_before_an_epoch_is_lost(state, tmp_path):
    model = Keeping()
    model.count = state
    with pytest.raises(ValueError, match="_extra_state can't be saved"):
        check_savable(model)


def test_a_whole_run_of_a_network_with_shared_weights_and_an_extra_state(tmp_path):
    recipe = replace(tiny.recipe, epochs=2, model=replace(tiny.recipe.model, name=f"{tiny.__file__}:keeping"))
    events = list(run(recipe, tmp_path / "run"))
    assert evaluate_run(tmp_path / "run", weights="best")["samples"] == 8
    assert evaluate_run(tmp_path / "run")["loss"] == events[-1].test["loss"]
    (tmp_path / "run" / "result.json").unlink()
    assert list(run(recipe, tmp_path / "run", resume=tmp_path / "run"))[-1].test["loss"] == events[-1].test["loss"]


def test_weights_that_are_not_finite_are_named(tmp_path):
    model = nn.Linear(2, 2)
    state = {**model.state_dict(), "bias": torch.tensor([0.0, torch.inf])}
    with pytest.raises(ValueError, match="holds weights that are not finite, such as bias"):
        load_weights(model, state, tmp_path / "x.safetensors")


@pytest.mark.parametrize("change", [lambda w: w * math.nan, lambda w: w * 1j, lambda w: w.double(), lambda w: w.long()])
def test_no_run_starts_from_weights_that_are_no_weights(change, stopped, tmp_path):
    shutil.copytree(stopped, tmp_path / "base")
    state = torch.load(stopped / "last.pt", weights_only=True)
    state["model"] = {k: change(v) if k.endswith("weight") and v.ndim > 1 else v for k, v in state["model"].items()}
    torch.save(state, tmp_path / "base" / "last.pt")
    with pytest.raises(ValueError, match=r"base holds weights that are not finite, or of another type .*weight: it is damaged"):
        list(run(replace(tiny.recipe, init_from=str(tmp_path / "base")), tmp_path / "new"))
    assert not (tmp_path / "new").exists()


def test_another_machine_and_the_slow_path_are_told(tmp_path, monkeypatch):
    def warnings(**more):
        return [e.text for e in run(replace(tiny.recipe, epochs=1), tmp_path / "run", **more) if isinstance(e, Warned)]

    assert not warnings(stop=lambda: True)
    monkeypatch.setattr("staa.ops.cpu.WHY_NOT", "it was not built: no C compiler was found")
    monkeypatch.setattr(torch, "get_num_threads", lambda: 7)
    slow, other = warnings(resume=tmp_path / "run")
    assert slow == "neurons take the reference path, several times slower: it was not built: no C compiler was found"
    assert "threads 1, now 7" in other
    assert "neuron 'fused CPU kernels', now 'reference path" in other
    last = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [e for e in last if e["event"] == "environment"][-1]["threads"] == 7
