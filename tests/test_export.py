"""`staa export`: what leaves says what the run says, without staa, and what doesn't is not written."""

import importlib.util
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from PIL import Image
from test_content import IMAGES, RECORDINGS, images, recordings

import staa
from staa.cli import main
from staa.export import to_nir, to_onnx, to_program
from staa.export.network import StepNetwork
from staa.export.nir import from_nir, read_nir
from staa.export.session import open_onnx
from staa.recipes import RECIPES
from staa.runs import run

onnx = pytest.importorskip("onnx")
pytestmark = pytest.mark.skipif(torch.__version__ < (2, 10), reason="exports need torch 2.10")
NETWORKS = {"plain": (4, None), "causal": (16, "staa-causal"), "any": (None, "staa"), "whole": (4, "staa")}
ALONE = """
import sys
class Gone:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {gone}:
            raise ImportError(name)
sys.meta_path.insert(0, Gone())
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A run of each network, which fires, and two of them as files: one as a window, one as a step."""
    root, base = tmp_path_factory.mktemp("export"), RECIPES["digits-events"]
    for name, (steps, attention) in NETWORKS.items():
        neuron = ("adaptive", {"threshold": 0.1})
        model = replace(base.model, name=f"{tiny.__file__}:shallow", steps=steps, attention=attention, neuron=neuron)
        recipe = replace(
            base, data=replace(base.data, steps=None if steps else 5), model=model, epochs=1, max_steps=3,
            optim=replace(base.optim, warmup_epochs=0, lr=0.05),
        )  # fmt: skip
        list(run(recipe, root / name, data_root=root))
    for name in ("causal", "whole"):
        file_of(root, name)
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (20, 20), dtype=np.uint8)).save(root / "a.png")
    return root


def file_of(root, name):
    """The file of a network, made for the first that asks."""
    file = root / f"{name}.onnx"
    if not file.exists():
        to_onnx(root / name, file, form="window" if name == "whole" else "step")
    return file


of_networks = pytest.mark.parametrize(
    "names", [("causal", "whole"), pytest.param(tuple(NETWORKS), marks=pytest.mark.slow)], ids=["two", "all"]
)


def alone(code, *, gone):
    """What a process prints in which these packages can't be imported."""
    done = subprocess.run([sys.executable, "-c", ALONE.format(gone=gone) + code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def frames(steps, samples=3):
    return (torch.rand(steps, samples, 2, 16, 16, generator=torch.Generator().manual_seed(1)) < 0.3).float()


def about(file):
    return json.loads(next(e.value for e in onnx.load(str(file)).metadata_props if e.key == "staa"))


@pytest.mark.parametrize(
    ("name", "steps"),
    [("causal", 16), *(pytest.param(*case, marks=pytest.mark.slow) for case in (("plain", 4), ("any", 1000)))],
)
def test_the_loop_beside_a_step_says_what_the_run_says_with_numpy_and_onnxruntime_alone(root, name, steps, tmp_path):
    file_of(root, name)
    x = frames(steps, 2 if steps > 100 else 3)
    np.save(tmp_path / "x.npy", x.numpy())
    code = f"""
import sys; sys.path.insert(0, {str(root)!r})
import numpy as np, {name} as made
stream = made.Stream({str(root / name)!r} + ".onnx")
np.save({str(tmp_path / "y.npy")!r}, np.stack([stream(frame) for frame in np.load({str(tmp_path / "x.npy")!r})]))
"""
    alone(code, gone=("staa", "torch"))
    with torch.no_grad():
        wanted = staa.Run(root / name).model()(x)
    torch.testing.assert_close(torch.from_numpy(np.load(tmp_path / "y.npy")), wanted, atol=1e-4, rtol=1e-4)
    assert wanted.std() > 0.01
    assert (wanted[0] - wanted[-1]).abs().max() > 1e-3  # it goes by time


def test_the_loop_runs_as_a_script(root, tmp_path):
    np.save(tmp_path / "x.npy", frames(16, 2).numpy())
    done = subprocess.run([sys.executable, root / "causal.py", tmp_path / "x.npy"], capture_output=True, text=True)
    model = staa.Run(root / "causal").model()
    with torch.no_grad():
        wanted = model(frames(16, 2)).mean(0).argmax(-1).tolist()
    assert done.stdout.splitlines()[-1] == f"step 16: {', '.join(repr(str(k)) for k in wanted)}"
    np.save(tmp_path / "x.npy", frames(17, 2).numpy())
    done = subprocess.run([sys.executable, root / "causal.py", tmp_path / "x.npy"], capture_output=True, text=True)
    assert "built for 16 steps and has seen them all" in done.stderr


def test_a_window_takes_any_number_of_samples_and_gives_the_mean(root):
    import onnxruntime

    session = onnxruntime.InferenceSession(str(root / "whole.onnx"))
    model = staa.Run(root / "whole").model()
    for samples in (1, 7):
        x = frames(4, samples)
        logits, mean = session.run(["logits", "mean"], {"x": x.numpy()})
        with torch.no_grad():
            wanted = model(x)
        np.testing.assert_allclose(logits, wanted, atol=1e-4)
        np.testing.assert_allclose(mean, wanted.mean(0), atol=1e-4)


@of_networks
def test_a_file_holds_onnx_alone_and_says_what_it_is(root, names):
    for name in names:
        file = file_of(root, name)
        model, told = onnx.load(str(file)), about(file)
        onnx.checker.check_model(model, full_check=True)
        assert {node.domain for node in model.graph.node} == {""}
        assert [(o.domain, o.version) for o in model.opset_import] == [("", told["opset"])]
        assert not len(model.functions)
        proof = told["proof"]
        assert told["verified"]
        assert (proof["split"], proof["samples"], proof["flipped"]) == ("validation", 128, 0)
        assert proof["largest"] < 1e-3 < proof["deviation"]
        assert told["classes"] == [str(k) for k in range(10)]
        assert told["recipe"]["name"] == "digits-events"
        assert str(root) not in file.read_bytes().decode("latin-1")  # nothing of this machine
        assert str(Path(staa.__file__).parent) not in file.read_bytes().decode("latin-1")
    inputs = [i.name for i in onnx.load(str(root / "causal.onnx")).graph.input]
    assert inputs == ["frame", "state.step", "state.1.attention.step.past", "state.1.neuron.v"]
    assert [s["name"] for s in about(root / "causal.onnx")["state"]] == inputs[1:]
    if "any" in names:
        assert [s["name"] for s in about(root / "any.onnx")["state"]] == ["state.1.neuron.v"]


@pytest.mark.parametrize(("name", "form"), [pytest.param("causal", "step", marks=pytest.mark.slow), ("whole", "window")])
def test_a_program_runs_without_staa(root, name, form, tmp_path):
    told = to_program(root / name, tmp_path / "a.pt2", form=form)
    x = frames(NETWORKS[name][0], 5)
    torch.save(x, tmp_path / "x.pt")
    code = f"""
import json, torch
extra = {{"staa.json": ""}}
program = torch.export.load({str(tmp_path / "a.pt2")!r}, extra_files=extra).module()
told, x = json.loads(extra["staa.json"]), torch.load({str(tmp_path / "x.pt")!r})
state = [torch.zeros([n or x.shape[1] for n in s["shape"]], dtype=getattr(torch, s["dtype"])) for s in told["state"]]
logits = []
if told["form"] == "window":
    logits = program(x)[0]
else:
    for frame in x:
        y, *state = program(frame, *state)
        logits.append(y)
    logits = torch.stack(logits)
torch.save(logits.detach(), {str(tmp_path / "y.pt")!r})
"""
    alone(code, gone=("staa",))
    with torch.no_grad():
        wanted = staa.Run(root / name).model()(x)
    torch.testing.assert_close(torch.load(tmp_path / "y.pt"), wanted, atol=1e-4, rtol=1e-4)
    assert told["proof"]["flipped"] == 0
    assert told["opset"] is None


@of_networks
def test_predict_on_the_file_is_predict_on_the_run(root, names, tmp_path, capsys):
    for name in names:
        for of, out in ((root / name, "run"), (file_of(root, name), "file")):
            assert (
                main(["predict", str(of), str(root / "a.png"), "--top", "4", "--json", str(tmp_path / f"{name}-{out}.json")])
                == 0
            )
        a, b = (json.loads((tmp_path / f"{name}-{of}.json").read_text())["answers"][0] for of in ("run", "file"))
        for one, other in zip(a.pop("top"), b.pop("top"), strict=True):
            assert one["class"] == other["class"]
            assert one["probability"] == pytest.approx(other["probability"], abs=1e-5)
        assert a == b
    for flags in (["--steps", "2"], ["--margin", "0.9"]):  # a step alone, and a window whose later frames are empty
        told = []
        for of in (names[0], f"{names[0]}.onnx", "whole", "whole.onnx"):
            capsys.readouterr()
            assert main(["predict", str(root / of), str(root / "a.png"), *flags]) == 0
            told.append(capsys.readouterr().out)
        assert told[0] == told[1]
        assert told[2] == told[3]


@pytest.mark.parametrize(
    ("make", "recipe", "form", "ending"),
    [(images, IMAGES, "window", ".png"), pytest.param(recordings, RECORDINGS, "step", ".npz", marks=pytest.mark.slow)],
)
def test_files_of_each_kind_are_answered_as_by_the_run(make, recipe, form, ending, tmp_path):
    """Still images, whose average over space the exporter calls mean as well, and recordings."""
    folder, model = make(tmp_path / "data"), replace(recipe.model, name=f"{tiny.__file__}:residual")
    model = replace(model, attention=None, neuron=("adaptive", {"threshold": 0.1}))
    list(run(replace(recipe, model=model), tmp_path / "run", data_root=folder))
    to_onnx(tmp_path / "run", tmp_path / "a.onnx", form=form)
    one, told = next(folder.rglob(f"*{ending}")), {}
    for of in ("run", "a.onnx"):
        out = tmp_path / f"{of}.json"
        assert main(["predict", str(tmp_path / of), str(one), str(folder), str(Path(__file__)), "--json", str(out)]) == 1
        told[of] = json.loads(out.read_text())
    assert told["run"]["refused"] == told["a.onnx"]["refused"]
    assert [Path(one["input"]).name for one in told["run"]["refused"]] == ["test_export.py"]
    assert len(told["run"]["answers"]) == 41
    for mine, theirs in zip(told["run"]["answers"], told["a.onnx"]["answers"], strict=True):
        a, b = ({entry["class"]: entry["probability"] for entry in answer["top"]} for answer in (mine, theirs))
        assert a == pytest.approx(b, abs=1e-4)
    assert len({answer["top"][0]["probability"] for answer in told["run"]["answers"]}) > 10  # it goes by what is given


def refused(capsys, *args):
    capsys.readouterr()
    assert main([*map(str, args)]) == 2
    return capsys.readouterr().err


def test_what_can_not_be_exported_is_refused_before_any_work(root, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("staa.export.program.program_of", None)
    why = refused(capsys, "export", root / "whole", "--form", "step", "--out", tmp_path / "a.onnx")
    assert "sees the whole window" in why
    assert "--model.attention gc-pe" in why
    (tmp_path / "b.onnx").write_text("mine")
    assert "is there already: choose another --out" in refused(capsys, "export", root / "plain", "--out", tmp_path / "b.onnx")
    (tmp_path / "c.py").write_text("mine")
    assert "c.py is there" in refused(capsys, "export", root / "plain", "--form", "step", "--out", tmp_path / "c.onnx")
    assert "must end in .pt2" in refused(capsys, "export", root / "plain", "--to", "program", "--out", tmp_path / "a.onnx")
    assert "--form is of onnx" in refused(capsys, "export", root / "plain", "--to", "nir", "--form", "step")
    monkeypatch.setattr("staa.runs.load.Run.data", property(lambda run: (_ for _ in ()).throw(FileNotFoundError("no data"))))
    why = refused(capsys, "export", root / "plain", "--out", tmp_path / "a.onnx")
    assert "without samples of the run: no data" in why
    assert "--no-verify" in why
    assert sorted(p.name for p in tmp_path.iterdir()) == ["b.onnx", "c.py"]


@pytest.fixture
def forgetful(monkeypatch):
    """What is exported forgets its membranes from step to step."""
    scan = StepNetwork.forward
    forget = lambda s: 0 * s if s.is_floating_point() else s  # noqa: E731
    monkeypatch.setattr(StepNetwork, "forward", lambda net, frame, *state: scan(net, frame, *map(forget, state)))


def test_another_network_is_not_written(root, tmp_path, capsys, forgetful):
    assert "is not the run's" in refused(capsys, "export", root / "plain", "--form", "step", "--out", tmp_path / "a.onnx")
    assert not [*tmp_path.iterdir()]


@pytest.mark.slow
def test_another_network_is_written_if_it_is_not_verified_and_says_so(root, tmp_path, capsys, forgetful):
    assert "is not the run's" in refused(
        capsys, "export", root / "plain", "--form", "step", "--to", "program", "--out", tmp_path / "a.pt2"
    )
    assert not [*tmp_path.iterdir()]
    out = str(tmp_path / "a.onnx")
    assert main(["export", str(root / "plain"), "--form", "step", "--out", out, "--no-verify"]) == 0
    assert "was not verified" in capsys.readouterr().out
    assert (about(tmp_path / "a.onnx")["verified"], about(tmp_path / "a.onnx")["proof"]) == (False, None)
    assert main(["predict", str(tmp_path / "a.onnx"), str(root / "a.png")]) == 0
    assert "was not verified" in capsys.readouterr().out


def altered(root, change, tmp_path, name="whole"):
    model = onnx.load(str(root / f"{name}.onnx"))
    told = about(root / f"{name}.onnx")
    change(model, told)
    kept = [e for e in model.metadata_props if e.key != "staa"]
    del model.metadata_props[:]
    model.metadata_props.extend(kept)
    if told:
        entry = model.metadata_props.add()
        entry.key, entry.value = "staa", json.dumps(told)
    (tmp_path / "b.onnx").write_bytes(model.SerializeToString())
    return tmp_path / "b.onnx"


def foreign(model, told):
    model.graph.node[0].domain = "com.microsoft"


def looping(model, told):
    attribute = model.graph.node[0].attribute.add()
    attribute.name, attribute.type = "body", onnx.AttributeProto.GRAPH
    attribute.g.name = "inner"


def outside(model, told):
    tensor = model.graph.initializer[0]
    tensor.data_location = onnx.TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "/etc/passwd"


def one_class_less(model, told):
    told["data"]["classes"] -= 1
    told["classes"].pop()


def says(model, name, op, kind, *constants):
    """The output, of a node's own: one operation on nothing but constants."""
    for node in model.graph.node:
        for values in (node.input, node.output):
            values[:] = ["before" if value == name else value for value in values]
    constants = [onnx.numpy_helper.from_array(value, f"c{k}") for k, value in enumerate(constants)]
    model.graph.initializer.extend(constants)
    model.graph.node.append(onnx.helper.make_node(op, [c.name for c in constants], [name]))
    end = next(end for end in model.graph.output if end.name == name)
    end.CopyFrom(onnx.helper.make_tensor_value_info(name, kind, None))


def not_finite(model, told):
    says(model, "logits", "Tile", onnx.TensorProto.FLOAT, np.full((4, 1, 10), np.nan, np.float32), np.array([1, 1, 1]))


def impossible(model, told):
    says(model, "logits", "Tile", onnx.TensorProto.FLOAT, np.ones((4, 1, 10), np.float32), np.array([2**20, 2**20, 2**20]))


def of_doubles(model, told):
    says(model, "logits", "Tile", onnx.TensorProto.DOUBLE, np.ones((4, 1, 10)), np.array([1, 1, 1]))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (foreign, "operations that are not ONNX's own"),
        (looping, "with a graph of its own in it"),
        (outside, "weights in other files"),
        (lambda model, told: told.clear(), "says nothing of staa"),
        (lambda model, told: told.update(format=99), "newer version"),
        (lambda model, told: told["recipe"]["data"].update(name="evil.py:data"), "data set is one of its own"),
        (lambda model, told: told["recipe"]["data"].update(name="nothing"), "is broken|is of a run"),
        (lambda model, told: told.update(classes=["a"]), "its names"),
        (lambda model, told: told["data"].update(size=10**9), "its size"),
        (lambda model, told: told["data"].update(size=8), "not what it says of itself"),
        (lambda model, told: told.update(steps=5), "its steps"),
        (lambda model, told: told.update(steps=4.0), "its steps"),
        (lambda model, told: told.update(whole=1), "its whole"),
        (one_class_less, "logits must be finite, of shape .*9., and are .*10"),
        (not_finite, "logits must be finite, of shape .*, and are not"),
        (impossible, "can't be run"),
        (of_doubles, "not what it says of itself"),
        (lambda model, told: told.update(form="step"), "its steps|not what it says|state"),
        (lambda model, told: told.update(state=[{"name": "x"}]), "its state"),
        (lambda model, told: told.update(recipe=[]), "recipe"),
    ],
)
def test_a_strangers_onnx_is_read_as_data(root, tmp_path, capsys, monkeypatch, change, why):
    import re

    monkeypatch.chdir(tmp_path)
    Path("evil.py").write_text("open('ran', 'w')\ndef data(): ...\n")
    told = refused(capsys, "predict", altered(root, change, tmp_path), root / "a.png")
    assert re.search(why, told), told
    assert not Path("ran").exists()
    assert told.count("\n") == 1


def test_what_a_file_can_not_be_asked(root, tmp_path, capsys, monkeypatch):
    (tmp_path / "junk.onnx").write_bytes(b"\x00junk" * 20)
    assert "no ONNX file" in refused(capsys, "predict", tmp_path / "junk.onnx", root / "a.png")
    assert "no such file" in refused(capsys, "predict", tmp_path / "none.onnx", root / "a.png")
    assert "--weights is of run folders" in refused(
        capsys, "predict", root / "causal.onnx", root / "a.png", "--weights", "best"
    )
    assert "name a file" in refused(capsys, "predict", root / "causal.onnx")
    assert "give its run folder, or an .onnx file" in refused(capsys, "predict", tmp_path / "a.pt2", root / "a.png")
    monkeypatch.setenv("STAA_MAX_BYTES", "1K")
    assert "the limit is" in refused(capsys, "predict", root / "causal.onnx", root / "a.png")


@pytest.mark.parametrize(("name", "steps"), [("causal", 16), pytest.param("any", None, marks=pytest.mark.slow)])
def test_a_file_opens_as_a_network_that_streams(root, name, steps):
    facts, network = open_onnx(file_of(root, name))
    assert (facts.form, facts.steps) == ("step", steps)
    x, state, logits = frames(16), None, []
    for chunk in x.split(5):
        y, state = staa.stream(network.eval(), chunk, state)
        logits.append(y)
    with torch.no_grad():
        torch.testing.assert_close(torch.cat(logits), staa.Run(root / name).model()(x), atol=1e-4, rtol=1e-4)


def test_a_graph_of_nir_is_held_against_the_run_and_says_so(root, tmp_path, capsys):
    list(run(replace(RECIPES["digits-events-plain"], epochs=1, max_steps=1), root / "vgg", data_root=root))
    assert main(["export", str(root / "vgg"), "--to", "nir", "--out", str(tmp_path / "a.nir")]) == 0
    assert "predictions flipped 0 of" in capsys.readouterr().out
    graph, x = read_nir(tmp_path / "a.nir"), frames(10)
    assert torch.allclose(from_nir(graph)(x), staa.Run(root / "vgg").model()(x), atol=1e-4)
    told = json.loads(graph.metadata["staa"])
    assert told["form"] == "graph"
    assert told["proof"]["flipped"] == 0
    assert main(["export", str(root / "whole"), "--to", "nir", "--out", str(tmp_path / "b.nir")]) == 2
    assert "NIR has no attention" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["a.nir"]


@pytest.mark.parametrize("to", ["onnx", "program", "nir"])
def test_a_forecast_is_refused_by_name(forecasting, to, tmp_path, capsys):
    told = refused(capsys, "export", forecasting, "--to", to, "--out", tmp_path / "a")
    assert f"{forecasting} forecasts a series, and only networks that classify can be exported: give a run that" in told
    assert told.count("\n") == 1
    assert not [*tmp_path.iterdir()]


@pytest.fixture(scope="module")
def forecasting(tmp_path_factory):
    recipe = replace(RECIPES["ring-spikestag"], epochs=1, max_steps=1, batch_size=4)
    folder = tmp_path_factory.mktemp("forecasting") / "run"
    list(run(recipe, folder, data_root=folder.parent))
    return folder


def test_a_missing_package_is_an_import_error_whatever_is_exported(root, tmp_path, monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *of: None if name == "onnxruntime" else found(name, *of))
    monkeypatch.setitem(sys.modules, "nir", None)
    for ask in (lambda: to_onnx(root / "plain", tmp_path / "a.onnx"), lambda: to_nir(root / "plain", tmp_path / "a.nir")):
        with pytest.raises(ImportError, match=r'pip install "staa-snn\[export\]"'):
            ask()
    with pytest.raises(ImportError, match="need the package nir"):
        from_nir(tmp_path / "a.nir")
