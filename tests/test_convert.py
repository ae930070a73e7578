"""Weights from elsewhere: the same outputs where the other network can be built, its names and shapes where it can't."""

import pickle
from functools import partial

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from staa.attention import DTA
from staa.convert import fsta_snn, load_converted, read_state
from staa.forecasters import FORECASTERS
from staa.models import MSResNet, ms_resnet18, ms_resnet34, resnet18, resnet19, resnet20, vggsnn
from staa.neurons import LIF, NEURONS, ParametricLIF
from staa.rates import firing_rates

T, N = 4, 2
NORM = ("weight", "bias", "running_mean", "running_var")
W = 1 / 16  # width: 64 channels are 4


# SpikingJelly, built


@pytest.fixture(scope="module")
def sj():
    pytest.importorskip("spikingjelly")
    from spikingjelly.activation_based import functional, layer, neuron
    from spikingjelly.activation_based.model import ms_resnet, spiking_vgg

    def vgg(make):
        """vggsnn as SpikingJelly would build it: the layers of its SpikingVGG, with average pools and one linear layer."""
        widths = [4, 8, "M", 16, 16, "M", 32, 32, "M", 32, 32, "M"]
        features = spiking_vgg.SpikingVGG.make_layers(widths, batch_norm=True, neuron=make)
        for k, part in enumerate(features):
            if isinstance(part, layer.MaxPool2d):
                features[k] = layer.AvgPool2d(2)
        model = nn.Sequential(features, layer.Flatten(), layer.Linear(32, 5))
        functional.set_step_mode(model, "m")
        return model

    def resnet(make):
        return ms_resnet.MSResNet(T, 3, 5, (1, 2, 1), 4, 3, 1, spiking_neuron=make)

    return {"spikingjelly-vgg": vgg, "spikingjelly-ms-resnet": resnet, "neuron": neuron, "reset": functional.reset_net}


OURS = {
    "spikingjelly-vgg": lambda neuron: vggsnn(5, neuron=neuron, steps=T, width=W, size=16),
    "spikingjelly-ms-resnet": lambda neuron: MSResNet(
        5, neuron=neuron, steps=T, stem=(4, 3, 1), stages=[(4, 1), (8, 2), (16, 1)], stage_strides=(2, 2, 2)
    ),
}


@pytest.mark.parametrize("learned", [False, True])
@pytest.mark.parametrize("source", OURS)
def test_a_network_of_spikingjelly_gives_the_same(source, learned, sj, tmp_path):
    torch.manual_seed(0)
    make = partial(sj["neuron"].ParametricLIFNode, 2.0) if learned else partial(sj["neuron"].LIFNode, 3.0)
    theirs = sj[source](lambda **options: make())
    x = torch.rand(T, N, 3, 16, 16) * 3
    with torch.no_grad():
        for name, value in theirs.state_dict().items():
            if name.endswith(".w"):
                nn.init.uniform_(value, -1, 1)
            elif value.ndim == 1:
                nn.init.uniform_(value, 0.5, 2.5)
        theirs.train()(x)
    sj["reset"](theirs)
    neuron = partial(ParametricLIF, gain=None) if learned else partial(LIF, decay=2 / 3, gain=1 / 3)
    mine, path = OURS[source](neuron).eval(), tmp_path / "theirs.safetensors"
    save_file(theirs.state_dict(), path)
    load_converted(mine, path, source=source)
    with torch.no_grad(), firing_rates(mine) as rates:
        expected, found = theirs.eval()(x), mine(x)
    assert sum(0.001 < rate < 1 for rate in rates.values()) >= len(rates) - 1, rates
    found = found.mean(0) if expected.ndim == 2 else found
    assert torch.allclose(found, expected, atol=1e-4)


# The papers' code: its names and shapes, of a narrow network


def norm(name, channels):
    return {f"{name}.{field}": (channels,) for field in NORM} | {f"{name}.num_batches_tracked": ()}


def dta_snn(first, stem, blocks, planes, attention):
    """Most weights have several names there, as a layer is an attribute and in a container."""
    shapes, same = {}, []

    def td_norm(name, channels):
        shapes.update(norm(f"{name}.bn", channels) | norm(f"{name}.seqbn.module", channels))
        same.extend((f"{name}.seqbn.module.{field}", f"{name}.bn.{field}") for field in (*NORM, "num_batches_tracked"))

    def both(name, kind, shape):
        shapes.update({f"{name}.weight": shape, f"{name}_s.layer.module.weight": shape})
        same.append((f"{name}_s.layer.module.weight", f"{name}.weight"))
        number = name[-1]
        owner = name.rpartition(".")[0]
        at = f"{owner}.bn{number}" if owner else f"bn{number}"
        for part in (at, f"{name}_s.bn"):
            td_norm(part, shape[0])
        same.extend((f"{name}_s.bn.bn.{field}", f"{at}.bn.{field}") for field in (*NORM, "num_batches_tracked"))
        same.extend((f"{name}_s.bn.seqbn.module.{field}", f"{at}.bn.{field}") for field in (*NORM, "num_batches_tracked"))

    if stem == 7:
        both("conv1", "stem", (4, 3, 7, 7))
    else:
        shapes["input_conv.layer.module.weight"] = (4, 3, 3, 3)
        td_norm("input_conv.bn", 4)
    inputs = 4
    for k, (count, outputs) in enumerate(zip(blocks, planes, strict=True)):
        for b in range(count):
            at = f"layer{first + k}.{b}"
            both(f"{at}.conv1", "block", (outputs, inputs, 3, 3))
            both(f"{at}.conv2", "block", (outputs, outputs, 3, 3))
            if inputs != outputs or (b == 0 and k >= len(planes) - 2):
                shapes[f"{at}.downsample.layer.module.weight"] = (outputs, inputs, 1, 1)
                td_norm(f"{at}.downsample.bn", outputs)
            inputs = outputs
    name = "fc1_s" if stem == 7 else "fc"
    shapes |= {f"{name}.layer.module.weight": (5, 32), f"{name}.layer.module.bias": (5,)}
    if attention:
        at, merged = "encoding", 6 * 4
        shapes |= {f"{at}.T_XA.scale_t": (), f"{at}.T_XA.scale_c": ()}
        shapes |= {f"{at}.T_XA.conv_t.weight": (6, 6, 3), f"{at}.T_XA.conv_c.weight": (4, 4, 6)}
        shapes |= {f"{at}.T_NA.tca.LTCA.0.weight": (merged, 1, 5, 5), f"{at}.T_NA.tca.LTCA.1.weight": (merged, 1, 1, 1)}
        shapes |= {f"{at}.T_NA.{part}.weight": (merged, merged, 1, 1) for part in ("encoding.0", "tca.LTCA.2", "decoding")}
        biased = ("encoding.0", "tca.LTCA.0", "tca.LTCA.1", "tca.LTCA.2", "decoding")
        shapes |= {f"{at}.T_NA.{part}.bias": (merged,) for part in biased}
        shapes |= {f"{at}.T_NA.tca.MLP_block.0.weight": (6, merged), f"{at}.T_NA.tca.MLP_block.2.weight": (merged, 6)}
    return numbers(shapes, same)


def fsta(stem, blocks, planes, attention=False):
    """Stem "3" and "7": one layer; "deep": the three of the modified ResNet-20, whose shortcuts pool first."""
    shapes, inputs, deep = {}, planes[0], stem == "deep"
    kernel = 7 if stem == "7" else 3
    if deep:
        for k, source in enumerate((3, 4, 4)):
            shapes |= {f"conv1.{3 * k}.pool.weight": (4, source, 3, 3), **norm(f"conv1.{3 * k + 1}.bn", 4)}
    else:
        shapes |= {"conv1.pool.weight": (inputs, 3, kernel, kernel), **norm("bn1.bn", inputs)}
    for k, (count, outputs) in enumerate(zip(blocks, planes, strict=True)):
        for b in range(count):
            at = f"layer{k + 1}.{b}"
            shapes |= {f"{at}.conv1.pool.weight": (outputs, inputs, 3, 3), **norm(f"{at}.bn1.bn", outputs)}
            shapes |= {f"{at}.conv2.pool.weight": (outputs, outputs, 3, 3), **norm(f"{at}.bn2.bn", outputs)}
            if inputs != outputs:
                shapes |= {f"{at}.downsample.{int(deep)}.pool.weight": (outputs, inputs, 1, 1)}
                shapes |= norm(f"{at}.downsample.{int(deep) + 1}.bn", outputs)
            if attention:
                shapes |= {f"{at}.relu1.dct.alpha": (1,), f"{at}.relu2.dct.fc_t.weight": (4, 4)}
            inputs = outputs
    return numbers(shapes | {"fc.conv.weight": (5, 32), "fc.conv.bias": (5,)})


def seqsnn(encoder):
    parts = {"network.emb.value_embedding": (16, 12)}
    norms = {"network.emb.bn": 16}
    shapes = {}
    if encoder == "conv":
        shapes |= {"network.encoder.encoder.0.weight": (4, 1, 1, 3), "network.encoder.encoder.0.bias": (4,)}
        norms["network.encoder.encoder.1"] = 4
    else:
        parts["network.encoder.enc"] = (4, 1)
        norms["network.encoder.norm"] = 1
    for b in range(2):
        at = f"network.blocks.{b}"
        for name in ("q", "k", "v", "last"):
            parts[f"{at}.attn.{name}_m"], norms[f"{at}.attn.{name}_bn"] = (16, 16), 16
        for name, size in (("1", (64, 16)), ("2", (16, 64))):
            parts[f"{at}.mlp.fc{name}"], norms[f"{at}.mlp.bn{name}"] = size, size[0]
    for name, size in (parts | {"fc_out": (3, 16)}).items():
        shapes |= {f"{name}.weight": size, f"{name}.bias": size[:1]}
    for name, size in norms.items():
        shapes |= norm(name, size)
    return numbers(shapes)


def numbers(shapes, same=()):
    """Other numbers for each name, but for names of the same weight."""
    generator = torch.Generator().manual_seed(0)
    state = {k: torch.tensor(7) if k.endswith("tracked") else torch.rand(s, generator=generator) for k, s in shapes.items()}
    for alias, name in same:
        state[alias] = state[name]
    return state


FORECASTER = partial(FORECASTERS["ispikformer"], 5, 12, 3, width=16, steps=4, heads=4)
DTA_NEURON = NEURONS["dta"]
PAPERS = {
    "dta 18": (
        "dta-snn",
        lambda: dta_snn(1, 3, (3, 3, 2), (8, 16, 32), True),
        lambda: ms_resnet18(5, steps=6, neuron=DTA_NEURON, attention=DTA, width=W),
        {
            "layer2.1.conv2.weight": "stages.1.1.layer2.conv.weight",
            "layer1.0.bn1.bn.running_var": "stages.0.0.layer1.norm.running_var",
            "layer3.0.downsample.layer.module.weight": "stages.2.0.shortcut.conv.weight",
            "encoding.T_XA.scale_c": "fire.attention.crossed.channel_gain",
            "encoding.T_XA.conv_t.weight": "fire.attention.crossed.over_channels.weight",
            "encoding.T_NA.decoding.weight": "fire.attention.merged.project.weight",
            "encoding.T_NA.tca.LTCA.2.bias": "fire.attention.merged.ltca.2.bias",
        },
    ),
    "dta 34": (
        "dta-snn",
        lambda: dta_snn(0, 7, (3, 4, 6, 3), (4, 8, 16, 32), False),
        lambda: ms_resnet34(5, steps=6, neuron=DTA_NEURON, width=W),
        {"layer0.2.conv1.weight": "stages.0.2.layer1.conv.weight", "conv1.weight": "stem.conv.weight"},
    ),
    "fsta 19": (
        "fsta-snn",
        lambda: fsta("3", (3, 3, 2), (8, 16, 32)),
        lambda: resnet19(5, width=W),
        {"layer2.0.downsample.1.bn.bias": "stages.1.0.shortcut.norm.bias", "bn1.bn.weight": "stem.0.norm.weight"},
    ),
    "fsta 20": (
        "fsta-snn",
        lambda: fsta("deep", (2, 2, 2, 2), (4, 8, 16, 32)),
        lambda: resnet20(5, width=W),
        {
            "conv1.6.pool.weight": "stem.4.conv.weight",
            "conv1.4.bn.bias": "stem.2.norm.bias",
            "layer4.0.downsample.1.pool.weight": "stages.3.0.shortcut.project.conv.weight",
        },
    ),
    "fsta 18": ("fsta-snn", lambda: fsta("7", (2, 2, 2, 2), (4, 8, 16, 32)), lambda: resnet18(5, width=W), {}),
    "seqsnn": (
        "seqsnn-ispikformer",
        lambda: seqsnn("conv"),
        FORECASTER,
        {
            "network.blocks.1.attn.k_m.weight": "blocks.1.key.linear.weight",
            "network.blocks.0.attn.last_bn.bias": "blocks.0.out.norm.bias",
            "network.blocks.1.mlp.bn2.running_mean": "blocks.1.down.norm.running_mean",
            "fc_out.bias": "head.bias",
        },
    ),
    "seqsnn delta": ("seqsnn-ispikformer", lambda: seqsnn("delta"), partial(FORECASTER, encoder="delta"), {}),
}


@pytest.mark.parametrize("name", PAPERS)
def test_weights_of_a_papers_code_are_renamed(name, tmp_path):
    source, state, make, pairs = PAPERS[name]
    state = state()
    torch.save({"net": {f"module.{key}": value for key, value in state.items()}, "epoch": 3}, tmp_path / "model.pth")
    own = load_converted(make(), tmp_path / "model.pth", source=source).state_dict()
    assert all(torch.equal(own[ours], state[theirs]) for theirs, ours in pairs.items())
    floats = {tuple(value.flatten().tolist()) for value in state.values() if value.is_floating_point()}
    assert {tuple(value.flatten().tolist()) for value in own.values() if value.is_floating_point()} == floats


@pytest.mark.parametrize("name", PAPERS)
def test_what_does_not_fit_is_refused_by_name_and_nothing_is_loaded(name):
    source, state, make, _ = PAPERS[name]
    state, model = state(), make()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    last = next(key for key in reversed(state) if state[key].ndim == 1)
    wrong = {
        "'head.extra' is no weight of": state | {"head.extra": torch.ones(1)},
        "no weight of it becomes this": {key: value for key, value in state.items() if key != last},
        "is 9, in this": state | {last: torch.ones(9)},
        "not finite": state | {last: state[last] * torch.nan},
    }
    for told, broken in wrong.items():
        with pytest.raises(ValueError, match=told):
            load_converted(model, broken, source=source)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_two_names_of_one_weight_must_agree():
    state = PAPERS["dta 18"][1]()
    state["layer1.0.conv1_s.layer.module.weight"] = state["layer1.0.conv1.weight"] + 1
    with pytest.raises(ValueError, match=r"conv1_s.*holds other numbers .*stages.0.0.layer1.conv.weight"):
        load_converted(PAPERS["dta 18"][2](), state, source="dta-snn")


def test_attention_that_is_not_here_is_refused_or_left_out():
    state = fsta("3", (3, 3, 2), (8, 16, 32), attention=True)
    with pytest.raises(ValueError, match=r"layer1.0.relu1.dct.alpha and 15 more keys belong to FSTA-SNN's attention"):
        load_converted(resnet19(5, width=W), state, source="fsta-snn")
    rest = fsta_snn(state, drop_attention=True)
    assert resnet19(5, width=W).state_dict().keys() == rest.keys()


def test_a_vgg_of_another_depth_is_refused():
    state = {f"{k}.weight": torch.ones(1, 1, 3, 3) for k in range(3)}
    with pytest.raises(ValueError, match="a vggsnn has 8 convolutions, .*got 3 convolutions, 0 BatchNorms"):
        load_converted(nn.Linear(1, 1), state, source="spikingjelly-vgg")
    with pytest.raises(ValueError, match="'norm' is no layer of a vggsnn: it holds weight"):
        load_converted(nn.Linear(1, 1), {"norm.weight": torch.ones(3)}, source="spikingjelly-vgg")
    with pytest.raises(KeyError, match="unknown source of weights 'spikingjelly'; did you mean"):
        load_converted(nn.Linear(1, 1), state, source="spikingjelly")


@pytest.mark.parametrize(
    ("given", "told"), [(None, "it is of type NoneType"), ({1: torch.ones(1)}, "1 is no tensor"), ({"a": 1}, "a is no tensor")]
)
def test_what_is_no_state_dict_is_told(given, told):
    with pytest.raises(ValueError, match=f"the state dict is no state dict: {told}"):
        load_converted(nn.Linear(1, 1), given, source="spikingjelly-vgg")


def test_a_file_of_weights_runs_no_code(tmp_path):
    class Payload:
        def __reduce__(self):
            return open, (str(tmp_path / "ran"), "w")

    for name, content in {"a.pth": {"w": Payload()}, "b.pth": [1], "c.pth": {"epoch": 3}}.items():
        torch.save(content, tmp_path / name)
    (tmp_path / "d.pkl").write_bytes(pickle.dumps(Payload()))
    (tmp_path / "e.safetensors").write_bytes(b"\x10")
    (tmp_path / "f.onnx").touch()
    told = {
        "a.pth": "more than tensors",
        "b.pth": "is no state dict: it is",
        "c.pth": "is no state dict: epoch is",
        "d.pkl": "corrupt",
        "e.safetensors": "corrupt",
        "f.onnx": "must be a .safetensors file",
    }
    for name, expected in told.items():
        with pytest.raises(ValueError, match=f"{name} .*{expected}"):
            read_state(tmp_path / name)
    assert not (tmp_path / "ran").exists()
    with pytest.raises(OSError, match="g.pth"):
        read_state(tmp_path / "g.pth")
