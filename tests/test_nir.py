"""NIR: a network and its graph give the same spikes, here and in other libraries, and what a graph can't say is refused."""

import importlib.util
import sys
import types
from functools import partial

import h5py
import nir
import numpy as np
import pytest
import torch
from torch import nn

from staa.attention import STAA
from staa.export.nir import from_nir, nir_graph, parity, read_nir, save_nir
from staa.layers import PerStep
from staa.models import ms_resnet18, resnet20, vggsnn
from staa.models.parts import fuse_norms
from staa.neurons import LIF, NEURONS, AdaptiveLIF, Integrator, ParametricLIF
from staa.ops import lif
from staa.rates import firing_rates
from staa.streaming import stream

T, N, SIZE = 4, 3, 16
SHAPE = (2, SIZE, SIZE)
FRAMES = (torch.rand(T, N, *SHAPE, generator=torch.Generator().manual_seed(1)) > 0.5).float() * 2
NETWORKS = {"vggsnn": partial(vggsnn, size=SIZE), "resnet20": resnet20, "ms_resnet18": ms_resnet18}


def trained(make, **options):
    """A network whose BatchNorms have statistics and weights of their own, and whose neurons fire; its constants vary."""
    torch.manual_seed(0)
    model = make(5, in_channels=2, width=0.1, **options)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.weight, 0.5, 2)
                nn.init.uniform_(module.bias, 0, 0.7)
            elif isinstance(module, AdaptiveLIF):
                nn.init.uniform_(module.decay, 0, 0.9)
                nn.init.uniform_(module.gain, 0.5, 1.5)
            elif isinstance(module, ParametricLIF):
                nn.init.uniform_(module.decay_logit, -2, 2)
        for _ in range(5):
            model.train()(FRAMES)
    return model.eval()


def small(first=None, second=None):
    """A Sequential of a convolution and linear layers around two neurons that fire."""
    torch.manual_seed(3)
    first, second = first or LIF(), second or LIF()
    model = nn.Sequential(
        PerStep(nn.Conv2d(2, 4, 3, padding=1)),
        first,
        PerStep(nn.AvgPool2d(2), nn.Flatten(), nn.Linear(4 * 8 * 8, 6)),
        second,
        PerStep(nn.Linear(6, 5, bias=False)),
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(6 if parameter.ndim > 1 else 1)
    return model.eval()


@pytest.mark.parametrize(
    ("name", "neuron"), [*((n, "lif") for n in NETWORKS), ("vggsnn", "adaptive"), ("vggsnn", "parametric")]
)
def test_a_graph_gives_the_spikes_of_its_network(name, neuron, tmp_path):
    model = trained(NETWORKS[name], neuron=NEURONS[neuron])
    with firing_rates(model) as rates, torch.no_grad():
        model(FRAMES)
    assert min(rates.values()) > 0.02
    fused = fuse_norms(model)
    found = parity(fused, save_nir(tmp_path / "fused.nir", nir_graph(fused, SHAPE)), FRAMES)
    assert found.flipped == found.spikes == 0
    assert found.largest_difference < 1e-6
    # Folding rounds: a membrane next to its threshold may land on the other side, and what follows hears it.
    assert parity(model, nir_graph(model, SHAPE), FRAMES).spikes < 0.01


def test_parity_tells_other_spikes(tmp_path):
    model = small()
    graph = nir_graph(model, SHAPE)
    model[1].threshold = 0.7
    assert parity(model, graph, FRAMES).spikes > 0.01


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("threshold", [0.3, 1.0])
def test_a_neuron_fires_at_its_threshold_as_before(strict, threshold):
    """NIR fires above it alone; here many membranes are exactly at it, just below and just above."""
    neuron = LIF(decay=0.5, threshold=threshold, strict=strict)
    imported = from_nir(nir_graph(nn.Sequential(neuron).eval(), (7,)))
    at = np.float32(threshold)
    near = [np.nextafter(at, np.float32(0)), at, np.nextafter(at, np.float32(9)), 0, at / 2, -at, 2 * at]
    x = torch.tensor(np.array(near, np.float32)).expand(5, 1, 7)
    assert torch.equal(imported(x), neuron(x))
    assert bool(neuron(x)[0, 0, 1]) is not strict


@pytest.mark.parametrize("dt", [1e-4, 1e-3, 1.0])
def test_the_equation_is_nirs(dt):
    """τ v′ = −v + R i in steps of dt, read from the node alone."""
    node = nir_graph(nn.Sequential(LIF(decay=0.8, gain=0.6, strict=True)).eval(), (3,), dt=dt).nodes["0"]
    x, v, spikes = torch.rand(6, 1, 3, dtype=torch.float64) * 2, np.zeros(3), []
    for i in x[:, 0].numpy():
        v = v + dt / node.tau * (node.v_leak - v + node.r * i)
        spikes.append(v > node.v_threshold)
        v = np.where(spikes[-1], node.v_reset, v)
    expected = lif(x, decay=0.8, gain=0.6, strict=True)[0][:, 0].numpy()
    assert np.array_equal(np.array(spikes), expected)
    assert 0 < expected.mean() < 1


def test_what_does_not_leak_or_fire():
    perfect, readout = LIF(decay=1.0, gain=0.5), Integrator(decay=0.9, gain=0.3)
    model = nn.Sequential(perfect, PerStep(nn.Dropout(), nn.Identity(), nn.Linear(7, 7)), readout, Integrator()).eval()
    graph = nir_graph(model, (7,))
    assert [type(node).__name__ for node in graph.nodes.values()] == ["Input", "IF", "Affine", "LI", "I", "Output"]
    x = torch.rand(9, N, 7)
    with torch.no_grad():
        assert torch.allclose(from_nir(graph)(x), model(x), atol=1e-6)
    assert perfect(x).mean() > 0.1


def test_batch_norm_is_folded_into_what_stands_before_it():
    model = nn.Sequential(
        PerStep(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(588, 4, bias=False)), PerStep(nn.BatchNorm1d(4))
    )
    with torch.no_grad():
        model.train()(FRAMES)
        for norm in (model[0].module[1], model[1].module):
            nn.init.normal_(norm.weight)
            nn.init.normal_(norm.bias)
    graph = nir_graph(model.eval(), SHAPE)
    assert [type(node).__name__ for node in graph.nodes.values()] == ["Input", "Conv2d", "Flatten", "Affine", "Output"]
    with torch.no_grad():
        assert torch.allclose(from_nir(graph)(FRAMES), model(FRAMES), atol=1e-4)


def test_an_imported_network_streams():
    model = small()
    imported = from_nir(nir_graph(model, SHAPE))
    with torch.no_grad():
        first, state = stream(imported, FRAMES[:1])
        rest, _ = stream(imported, FRAMES[1:], state)
        assert torch.allclose(torch.cat([first, rest]), model(FRAMES), atol=1e-6)


REFUSED = {
    "attention": (lambda: trained(vggsnn, size=SIZE, attention=STAA, steps=T), r"stages.0.1.attention \(STAA\).*no attention"),
    "reset": (lambda: small(second=LIF(reset="subtract")), r"3 \(LIF\).*v_reset after a spike.*subtract"),
    "leak": (lambda: small(adaptive(-0.1)), r"1 \(AdaptiveLIF\).*from 0 to below 1.*-0.1"),
    "maximum": (lambda: nn.Sequential(PerStep(nn.MaxPool2d(2))), r"0.module \(MaxPool2d\).*no counterpart"),
    "ceiling": (lambda: nn.Sequential(PerStep(nn.AvgPool2d(3, 2, ceil_mode=True))), "no ceil_mode"),
    "norm": (lambda: nn.Sequential(PerStep(nn.AvgPool2d(2), nn.BatchNorm2d(2))), "no Conv2d or Linear stands right before"),
    "norm of a sum": (lambda: nn.Sequential(PerStep(nn.Conv2d(2, 2, 1)), LIF(), PerStep(nn.BatchNorm2d(2))), "right before"),
    "groups": (lambda: nn.Sequential(PerStep(nn.Conv2d(2, 2, 3, groups=2))), "in one group"),
    "subclass": (lambda: nn.Sequential(type("Mine", (LIF,), {})()), r"0 \(Mine\).*no counterpart"),
    "hook": (lambda: hooked(), r"1 \(LIF\).*hook"),
    "twice": (lambda: nn.Sequential(*[PerStep(nn.Conv2d(2, 2, 1))] * 2), "two places"),
    "training": (lambda: small().train(), "model.eval"),
    "double": (lambda: small().double(), r"float64: call .float\(\)"),
    "channels": (lambda: nn.Sequential(PerStep(nn.Conv2d(3, 2, 3))), r"takes \[3, H, W\], and gets \[2, 16, 16\]"),
    "size": (lambda: trained(vggsnn, size=SIZE).__class__(5, in_channels=2, width=0.1, size=32), r"takes \[C, 32, 32\]"),
}


def adaptive(decay):
    neuron = AdaptiveLIF(4)
    nn.init.constant_(neuron.decay, decay)
    return neuron


def hooked():
    model = small()
    model[1].register_forward_hook(lambda module, inputs, out: 1 - out)
    return model


@pytest.mark.parametrize("name", REFUSED)
def test_what_a_graph_can_not_say_is_refused_by_name(name):
    make, told = REFUSED[name]
    model = make()
    with pytest.raises(ValueError, match=told):
        nir_graph(model if name in ("training", "double") else model.eval(), SHAPE)


def test_a_file_that_is_there_is_kept(tmp_path):
    graph, path = nir_graph(small(), SHAPE), tmp_path / "a.nir"
    path.write_text("mine")
    with pytest.raises(ValueError, match="a.nir is there already"):
        save_nir(path, graph)
    assert path.read_text() == "mine"
    assert [p.name for p in tmp_path.iterdir()] == ["a.nir"]


def test_what_is_no_graph_and_no_network_is_told(tmp_path):
    model = small()
    graph = nir_graph(model, SHAPE)
    assert save_nir(str(tmp_path / "new" / "a.nir"), graph).exists()
    for ask in (from_nir, lambda it: save_nir(tmp_path / "b.nir", it), lambda it: parity(model, it, FRAMES)):
        with pytest.raises(TypeError, match=r"must be a nir.NIRGraph, got list"):
            ask([])
    with pytest.raises(TypeError, match=r"must be an nn.Module, got str"):
        nir_graph("model", SHAPE)
    with pytest.raises(ValueError, match="dt must be the seconds"):
        nir_graph(model, SHAPE, dt=10**400)
    with pytest.raises(ValueError, match="call model.eval"):
        parity(small().train(), graph, FRAMES)
    with pytest.raises(ValueError, match="of another network: it has no node 0"):
        parity(nn.Sequential(LIF(), *small()).eval(), graph, FRAMES)
    with pytest.raises(ValueError, match="alike and not empty"):
        parity(model, graph, FRAMES[:, :0])


# Graphs from elsewhere


def chain(*nodes, shape=(3,), out=(3,)):
    named = {"input": nir.Input({"input": np.array(shape)}), **{f"n{k}": node for k, node in enumerate(nodes)}}
    named["output"] = nir.Output({"output": np.array(out)})
    return nir.NIRGraph(named, list(zip(list(named), list(named)[1:], strict=False)), type_check=False)


def lif_node(**change):
    values = {"tau": 2e-4, "r": 2.0, "v_leak": 0.0, "v_threshold": 1.0, "v_reset": 0.0} | change
    return nir.LIF(**{name: np.broadcast_to(value, (3,)).astype(float) for name, value in values.items()})


def test_a_rest_that_is_not_0_is_counted_from():
    x = torch.rand(9, 2, 3) * 3
    mine = from_nir(chain(lif_node(v_leak=-0.5, v_reset=-0.5, v_threshold=0.5)))(x)
    assert torch.equal(mine, lif(x, decay=0.5, gain=1.0, threshold=1.0, strict=True)[0])


def test_dt_is_the_graphs_or_told():
    graph = chain(lif_node())
    assert from_nir(graph).nodes["0_n0"].decay == 0.5
    assert from_nir(graph, dt=5e-5).nodes["0_n0"].decay == 0.75
    graph.metadata = {"dt": 2e-4}
    assert from_nir(graph).nodes["0_n0"].decay == 0.0
    with pytest.raises(ValueError, match="time constant must be dt, 0.001, or longer"):
        from_nir(graph, dt=1e-3)
    with pytest.raises(ValueError, match="dt must be the seconds"):
        from_nir(graph, dt=-1)


def test_sums_and_pools_of_nir():
    nodes = {
        "input": nir.Input({"input": np.array([1, 4, 4])}),
        "a.b/c": nir.SumPool2d(np.array([2, 2]), np.array([2, 2]), np.array([0, 0])),
        "mean": nir.AvgPool2d(np.array([2, 2]), np.array([2, 2]), np.array([0, 0])),
        "output": nir.Output({"output": np.array([1, 2, 2])}),
    }
    edges = [("input", "a.b/c"), ("input", "mean"), ("a.b/c", "output"), ("mean", "output")]
    x = torch.rand(2, 3, 1, 4, 4)
    mine = from_nir(nir.NIRGraph(nodes, edges, type_check=False))(x)
    assert torch.allclose(mine, 5 * nn.functional.avg_pool2d(x.flatten(0, 1), 2).view_as(mine))


BAD_GRAPHS = {
    "reset": (chain(lif_node(v_reset=-1.0)), "n0.*v_reset must be its v_leak"),
    "thresholds": (chain(lif_node(v_threshold=[1.0, 2.0, 3.0])), "different thresholds"),
    "no threshold": (chain(lif_node(v_threshold=0.0)), "n0.*threshold must be positive"),
    "not finite": (chain(lif_node(r=np.inf)), "must be finite"),
    "unknown": (chain(nir.Delay(np.ones(3))), "'n0' is a Delay, which has no exact counterpart"),
    "within": (chain(chain(lif_node())), "'n0' is a NIRGraph"),
    "width": (chain(nir.Linear(np.ones((3, 4)))), r"n0.*takes \[4\], and gets \[3\]"),
    "rank": (chain(nir.Linear(np.ones((2, 3, 3)))), "numbers in 2 dimensions"),
    "kernel": (chain(nir.AvgPool2d(9, 1, 0), shape=(1, 4, 4)), "n0.*AvgPool2d"),
    "padding": (chain(nir.AvgPool2d(2, 1, 2**40), shape=(1, 4, 4)), "whole numbers from 0 on"),
    "output": (chain(nir.Linear(np.ones((3, 3))), shape=(2**30, 2**30, 3)), "would take"),
    "huge": (chain(nir.Conv2d((4, 4), np.ones((1, 1, 1, 1)), 1, 2**28, 1, 1, np.ones(1)), shape=(1, 4, 4)), "would take"),
    "missing": (nir.NIRGraph({"input": nir.Input({"input": np.array([3])})}, [("input", "x")], type_check=False), "not there"),
}


@pytest.mark.parametrize("name", BAD_GRAPHS)
def test_a_graph_that_is_not_understood_is_refused_by_name(name):
    graph, told = BAD_GRAPHS[name]
    with pytest.raises(ValueError, match=told):
        from_nir(graph)


def test_a_graph_in_a_circle_is_refused():
    graph = chain(lif_node(), nir.Linear(np.eye(3)))
    graph.edges.append(("n1", "n0"))
    with pytest.raises(ValueError, match="in a circle through node 'n[01]'"):
        from_nir(graph)


def test_a_strangers_file(tmp_path):
    """Links to other files, in circles, a lie about sizes and code for nir.read to trip on."""
    good = tmp_path / "good.nir"
    nir.write(good, chain(lif_node(), nir.Affine(np.eye(3), np.ones(3))))
    assert from_nir(good)(torch.ones(2, 1, 3)).shape == (2, 1, 3)
    secret = tmp_path / "secret.h5"
    with h5py.File(secret, "w") as file:
        file["tau"] = np.ones(3)

    def other(file):
        del file["node/nodes/n0/tau"]
        file["node/nodes/n0/tau"] = h5py.ExternalLink(str(secret), "tau")

    def circle(file):
        file["node/nodes/n0/nodes"] = file["node/nodes"]

    def large(file):
        del file["node/nodes/n0/tau"]
        file["node/nodes/n0"].create_dataset("tau", (2**40,), "f8", chunks=(2**10,), compression="gzip")

    def kind(file):
        del file["node/nodes/n0/type"]
        file["node/nodes/n0/type"] = "__import__"

    def field(file):
        del file["node/nodes/n0/r"]

    told = {other: "it has no tau", circle: "is not in the file itself", large: "STAA_MAX_BYTES", kind: "'n0' is a __import__"}
    for harm, expected in {**told, field: "its node 'n0' is broken"}.items():
        path = tmp_path / f"{harm.__name__}.nir"
        path.write_bytes(good.read_bytes())
        with h5py.File(path, "a") as file:
            harm(file)
        with pytest.raises(ValueError, match=expected):
            read_nir(path)
    good.write_bytes(good.read_bytes()[:1000])
    with pytest.raises(ValueError, match="good.nir can't be read as a NIR graph"):
        read_nir(good)


# Other libraries, node by node: their importers walk the graph with nirtorch, which need not be installed.


@pytest.fixture
def nirtorch(monkeypatch):
    if importlib.util.find_spec("nirtorch") is None:
        monkeypatch.setitem(sys.modules, "nirtorch", types.ModuleType("nirtorch"))


def along(graph, x, module_of):
    """The output of a chain's last node at each step, each node read by another library."""
    modules = [module_of(node) for node in list(graph.nodes.values())[1:-1]]
    states, out = [None] * len(modules), []
    with torch.no_grad():
        for value in x:
            for k, module in enumerate(modules):
                value, states[k] = module(value, states[k])
            out.append(value)
    return torch.stack(out)


def stateless(module):
    return lambda x, state: (module(x), None)


@pytest.mark.parametrize("neuron", ["lif", "seqsnn", "parametric"])
def test_spikingjelly_reads_it(neuron, nirtorch):
    pytest.importorskip("spikingjelly")
    from spikingjelly.activation_based.nir_exchange import from_nir as theirs

    mapper = theirs._NodeMapper()

    def module_of(node):
        module = mapper.map_dict[type(node)](node)
        return module if isinstance(module, theirs._NIRStatefulModule) else stateless(module)

    model = small(NEURONS[neuron](4), NEURONS[neuron](6))
    with torch.no_grad(), firing_rates(model) as rates:
        expected = model(FRAMES)
    assert all(0.01 < rate < 0.5 for rate in rates.values())
    assert torch.allclose(along(nir_graph(model, SHAPE), FRAMES, module_of), expected, atol=1e-5)


def test_spikingjellys_neurons_are_read(nirtorch):
    pytest.importorskip("spikingjelly")
    from spikingjelly.activation_based import neuron
    from spikingjelly.activation_based.nir_exchange.to_nir import _ModuleMapper

    x = torch.rand(9, 2, 3) * 2
    for node in (neuron.LIFNode(tau=3.0), neuron.ParametricLIFNode(2.5, decay_input=False), neuron.IFNode()):
        node.step_mode = "m"
        mapper = _ModuleMapper.__new__(_ModuleMapper)
        mapper.dt, mapper.module_io_shape = 1e-4, {node: x.shape}
        with torch.no_grad():
            mine, theirs = from_nir(chain(mapper.map_dict[type(node)](node)))(x), node(x)
        assert torch.equal(mine, theirs)
        assert theirs.mean() > 0.02


def test_snntorch_reads_it_and_is_read(nirtorch):
    snn = pytest.importorskip("snntorch")
    from snntorch.export_nir import _extract_snntorch_module
    from snntorch.import_nir import _nir_to_snntorch_module

    def module_of(node):
        module = _nir_to_snntorch_module(node)
        if not isinstance(module, snn.Leaky):
            return stateless(module)
        return lambda x, state: module(x, torch.zeros_like(x) if state is None else state)

    torch.manual_seed(2)
    model = nn.Sequential(PerStep(nn.Linear(3, 20)), LIF(decay=0.9), PerStep(nn.Linear(20, 4))).eval()
    x = torch.rand(9, 2, 3) * 3
    with torch.no_grad(), firing_rates(model) as rates:
        assert torch.allclose(along(nir_graph(model, (3,)), x, module_of).float(), model(x), atol=1e-5)
    assert 0.02 < rates["1"] < 0.9
    leaky, state, theirs = snn.Leaky(beta=0.8, reset_mechanism="zero", reset_delay=False), torch.zeros(2, 3), []
    for step in x:
        spikes, state = leaky(step, state)
        theirs.append(spikes)
    assert torch.equal(from_nir(chain(_extract_snntorch_module(leaky)))(x), torch.stack(theirs))
