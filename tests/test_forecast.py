"""Forecasters against numpy written from their equations, their symmetries and parameter counts, and what they must refuse."""

import math
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

import staa.testing as contracts
from staa.forecasters import FORECASTERS
from staa.forecasters.parts import ENCODERS, DeltaEncoder, SpikingAttention
from staa.forecasters.spikestag import spikestag

L, P, K = 12, 3, 5
SIZES = {"spikestag": {"width": 16, "heads": 4}, "ispikformer": {"width": 16, "heads": 4}, "gru": {"width": 8}}
GIVEN = torch.tensor([[0, 1, 3, 0, 0], [1, 1, 0, 0, 0], [0, 0, 0, 0, 0], [0, 2, 0, 0, 6], [1, 1, 1, 1, 0.5]])
SWITCHES = [
    {},
    {"patch": 3},
    {"hops": 0},
    {"hops": 3},
    {"graph": "identity"},
    {"graph": GIVEN},
    {"top_k": 2},
    {"observe": False},
    {"fusion": "lstm"},
    {"fusion": "attention"},
    {"fusion": "sum"},
    {"spike_messages": True},
    {"tokens": "node"},
    {"tokens": "node", "patch": 2, "fusion": "attention"},
    {"instance_norm": False},
    {"steps": 1},
    {"attention_scale": 0.125},
]
OTHERS = [
    ("ispikformer", {}),
    ("ispikformer", {"blocks": 1, "instance_norm": False}),
    ("ispikformer", {"encoder": "delta"}),
    ("ispikformer", {"encoder": "repeat"}),
    ("ispikformer", {"attention_scale": None}),
    ("gru", {}),
    ("gru", {"instance_norm": False}),
    ("linear", {}),
    ("linear", {"across": True}),
    ("last-value", {}),
]
EVERY = [("spikestag", switch) for switch in SWITCHES] + OTHERS


def named(options):
    return "-".join(f"{k}={'given' if isinstance(v, torch.Tensor) else v}" for k, v in options.items()) or "default"


every = pytest.mark.parametrize(("name", "options"), EVERY, ids=[f"{name}-{named(options)}" for name, options in EVERY])


def make(name, *, features=2, nodes=K, **options):
    return FORECASTERS[name](nodes, L, P, time_features=features, **SIZES.get(name, {}) | options)


def lively(model, seed=2):
    """In float64 and eval mode, with no parameter, weight of least squares or statistic of BatchNorm where it starts.

    BatchNorm is wide enough that every layer fires: behind silence an error would not show.
    """
    torch.manual_seed(seed)
    contracts.randomised(model.double())
    for part in model.modules():
        if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d):
            part.running_mean.normal_(std=0.3)
            part.running_var.uniform_(0.1, 0.6)
            with torch.no_grad():
                part.weight.uniform_(1, 3)
                part.bias.normal_(1)
        if isinstance(part, DeltaEncoder):
            with torch.no_grad():
                part.linear.weight.uniform_(1, 2)
    if hasattr(model, "weight"):
        model.weight.normal_(std=0.2)
    return model.eval()


def inputs(batch=4, features=2, nodes=K, dtype=torch.float64, seed=1):
    torch.manual_seed(seed)
    x = torch.randn(batch, L, nodes, dtype=dtype).cumsum(1) + 10
    return (x, torch.rand(batch, L, features, dtype=dtype) - 0.5) if features else (x,)


def torchs(part):
    return 1 / (3 * part.weight[0].numel()) ** 0.5


@pytest.mark.parametrize(("name", "features"), [("spikestag", 64), ("ispikformer", 64), ("gru", 0)])
def test_initialisation_is_the_papers(name, features):
    """SeqSNN's N(0, 0.02²) and biases of 0 in iSpikformer but for encoder and head; else PyTorch's own."""
    torch.manual_seed(0)
    model = FORECASTERS[name](50, 96, 40, time_features=features, width=64)
    for path, part in model.named_modules():
        if isinstance(part, nn.Linear | nn.Conv2d):
            official = name == "ispikformer" and isinstance(part, nn.Linear) and path != "head"
            expected = 0.02 if official else torchs(part)
            assert part.weight.std().item() == pytest.approx(expected, rel=4 / part.weight.numel() ** 0.5), path
            assert (part.bias == 0).all() == official
        elif isinstance(part, nn.GRU | nn.LSTM):
            for weight in part.parameters():
                assert weight.std().item() == pytest.approx(1 / (3 * part.hidden_size) ** 0.5, rel=0.15)
    if name == "spikestag":
        assert (model.node.std().item(), model.neighbour.std().item()) == pytest.approx((1, 1), abs=0.1)


@pytest.mark.parametrize(
    ("make", "count"),
    [
        (partial(spikestag, 207, 12, 24, time_features=5), 154_332),
        (partial(spikestag, 207, 12, 24, time_features=5, width=128), 558_428),
        (partial(spikestag, 321, 168, 24, time_features=4, width=128), 568_132),
    ],
)
def test_parameters(make, count):
    with torch.device("meta"):
        assert sum(p.numel() for p in make().parameters()) == count


@pytest.mark.parametrize(("window", "patch"), [(12, 1), (24, 1), (25, 5), (48, 12), (168, 12), (29, 1)])
def test_the_patch_follows_from_the_window(window, patch):
    assert spikestag(3, window, 2).of_patch.in_features == patch


@pytest.mark.parametrize("window", [1, 2, 10, 11, 12, 13, 168])
def test_a_patch_is_the_largest_that_fits(window):
    """A recipe's patch serves any window that a user sets."""
    for patch in (1, 4, 5, 200):
        model = spikestag(3, window, 2, patch=patch, width=4)
        found = model.of_patch.in_features
        assert window % found == 0
        assert all(window % other for other in range(found + 1, min(patch, window) + 1))
        assert model(torch.randn(2, window, 3)).shape == (2, 2, 3)


@every
@pytest.mark.parametrize("features", [0, 5])
def test_shapes(name, options, features):
    model = make(name, features=features, **options)
    x = inputs(3, features, dtype=torch.float32)
    y = model(*x)
    assert y.shape == (3, P, K)
    assert y.dtype == torch.float32
    assert y.isfinite().all()
    model.eval()
    assert model(*(part[:1] for part in x)).shape == (1, P, K)
    assert model.state_dict(), "a module without tensors has no device"


@every
def test_samples_are_independent_and_evaluation_is_deterministic(name, options):
    model, x = lively(make(name, **options)), inputs()
    kept = [part.clone() for part in x]
    order = torch.tensor([2, 0, 3, 1])
    with torch.no_grad():
        y = model(*x)
        assert torch.equal(model(*x), y)
        torch.testing.assert_close(model(*(part[order] for part in x)), y[order], rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(model(*(part[:1] for part in x)), y[:1], rtol=1e-9, atol=1e-9)
    assert all(torch.equal(a, b) for a, b in zip(x, kept, strict=True)), "the input was changed"


@every
def test_permuting_nodes_permutes_the_forecast(name, options):
    """With what belongs to a node: its embeddings, its row and column of the graph. Not least squares across nodes."""
    model, (x, time) = lively(make(name, **options)), inputs()
    order = torch.tensor([3, 0, 4, 1, 2])
    with torch.no_grad():
        y = model(x, time)
        if name == "spikestag":
            model.node.copy_(model.node[order])
            if model.neighbour is not None:
                model.neighbour.copy_(model.neighbour[order])
            if model.graph is not None:
                model.graph.copy_(model.graph[order][:, order])
        turned = model(x[:, :, order], time)
    same = torch.allclose(turned, y[:, :, order], rtol=1e-9, atol=1e-9)
    assert same == (not options.get("across", False))


@every
def test_every_parameter_learns_and_a_state_dict_comes_back(name, options):
    model = lively(make(name, **options)).float().train()
    x = inputs(8, dtype=torch.float32)
    target, seen = torch.randn(8, P, K), set()
    if list(model.parameters()):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for _ in range(2):
            optimizer.zero_grad()
            (model(*x) * target).sum().backward()
            assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
            seen |= {key for key, p in model.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
            optimizer.step()
    assert seen == {key for key, _ in model.named_parameters()}
    if isinstance(options.get("graph"), torch.Tensor):  # the graph comes with the weights
        options = options | {"graph": torch.eye(K)}
    fresh = make(name, **options)
    fresh.load_state_dict(model.state_dict())
    with torch.no_grad():
        assert torch.equal(model.eval()(*x), fresh.eval()(*x))


@pytest.mark.parametrize(("name", "options"), [("spikestag", {}), ("ispikformer", {}), ("ispikformer", {"encoder": "delta"})])
@pytest.mark.parametrize("train", [True, False])
def test_spikes_are_binary_and_every_layer_fires(name, options, train):
    model = lively(make(name, **options)).train(train)
    rates = {}

    def hook(key, spikes):
        assert ((spikes == 0) | (spikes == 1)).all(), key
        rates[key] = spikes.mean().item()

    for key, part in model.named_modules():
        if hasattr(part, "scan"):
            part.register_forward_hook(lambda _, __, spikes, key=key: hook(key, spikes))
    model(*inputs(8))
    assert len(rates) == {"spikestag": 13, "ispikformer": 16}[name]
    assert all(0 < rate < 1 for rate in rates.values()), rates


# The oracle: plain numpy, float64. p is a state dict, `at` a prefix of its keys.


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def linear(p, at, x):
    return x @ p[f"{at}.weight"].T + p[f"{at}.bias"]


def norm(p, at, x):
    scale = p[f"{at}.weight"] / np.sqrt(p[f"{at}.running_var"] + 1e-5)
    return (x - p[f"{at}.running_mean"]) * scale + p[f"{at}.bias"]


def lif(x, threshold=1.0):
    """SeqSNN's: u = (h + x) / 2."""
    h, spikes = np.zeros_like(x[0]), []
    for current in x:
        u = 0.5 * h + 0.5 * current
        spikes.append((u >= threshold).astype(float))
        h = u * (1 - spikes[-1])
    return np.stack(spikes)


def fire(p, at, x):
    return lif(norm(p, f"{at}.norm", linear(p, f"{at}.linear", x)), p["threshold"])


def encode(p, z):
    """z [B, L, K] -> [T, B, K, L], by the encoder that p is of."""
    if not any(key.startswith("encoder.") for key in p):
        return np.stack([z.transpose(0, 2, 1)] * 4)
    if "encoder.linear.weight" in p:
        change = np.diff(z, axis=1, prepend=z[:, :1])
        n = {key: p[f"encoder.norm.{key}"][0] for key in ("weight", "bias", "running_mean", "running_var")}
        change = ((change - n["running_mean"]) / np.sqrt(n["running_var"] + 1e-5) * n["weight"] + n["bias"]).transpose(0, 2, 1)
        weights, biases = p["encoder.linear.weight"][:, 0], p["encoder.linear.bias"]
        return np.stack([w * change + b for w, b in zip(weights, biases, strict=True)])
    padded = np.pad(z, ((0, 0), (1, 1), (0, 0)))
    length, out = z.shape[1], []
    for t, w in enumerate(p["encoder.conv.weight"][:, 0, 0]):
        c = sum(w[i] * padded[:, i : i + length] for i in range(3)) + p["encoder.conv.bias"][t]
        n = {key: p[f"encoder.norm.{key}"][t] for key in ("weight", "bias", "running_mean", "running_var")}
        out.append(((c - n["running_mean"]) / np.sqrt(n["running_var"] + 1e-5) * n["weight"] + n["bias"]).transpose(0, 2, 1))
    return np.stack(out)


def attend(p, at, x, heads):
    """x [T, groups, tokens, width]: every head of every group for itself."""
    q, k, v = (fire(p, f"{at}.{part}", x) for part in ("query", "key", "value"))
    mixed, size = np.zeros_like(x), x.shape[-1] // heads
    for head in range(heads):
        own = slice(head * size, (head + 1) * size)
        scores = np.einsum("tgid,tgjd->tgij", q[..., own], k[..., own])
        mixed[..., own] = np.einsum("tgij,tgjd->tgid", scores, v[..., own])
    mixed = norm(p, f"{at}.norm", mixed) if f"{at}.norm.weight" in p else p["scale"] * mixed
    x = x + fire(p, f"{at}.out", lif(mixed, 0.5))
    return x + fire(p, f"{at}.down", fire(p, f"{at}.up", x))


def recall(p, x):
    """The hidden states of an LSTM along x [rows, length, width]."""
    h = c = np.zeros_like(x[:, 0])
    out = []
    for step in range(x.shape[1]):
        gates = (
            x[:, step] @ p["lstm.weight_ih_l0"].T + p["lstm.bias_ih_l0"] + h @ p["lstm.weight_hh_l0"].T + p["lstm.bias_hh_l0"]
        )
        i, f, g, o = np.split(gates, 4, 1)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        out.append(h)
    return np.stack(out, 1)


def adjacency(p, graph, top_k):
    if isinstance(graph, torch.Tensor):
        a = graph.double().numpy()
        a = np.where(a.sum(1, keepdims=True) > 0, a, np.eye(len(a)))
        return a / a.sum(1, keepdims=True)
    if graph == "identity" or "neighbour" not in p:
        return np.eye(len(p["node"]))
    scores = np.exp(np.maximum(p["node"] @ p["neighbour"].T, 0))
    a = scores / scores.sum(1, keepdims=True)
    if top_k is not None:
        for row in a:
            row[np.argsort(-row, kind="stable")[top_k:]] = 0
        a /= a.sum(1, keepdims=True)
    return a


def normalised(x, on):
    if not on:
        return x, 0.0, 1.0
    mean, deviation = x.mean(1, keepdims=True), np.sqrt(x.var(1, keepdims=True) + 1e-5)
    return (x - mean) / deviation, mean, deviation


def spikestag_in_numpy(
    p, x, time, a, *, patch=1, hops=2, graph=None, top_k=None, observe=True, fusion="both", spike_messages=False,
    tokens="patch", instance_norm=True, steps=4, heads=4, attention_scale=None, day_slots=0, phase=None,
):  # fmt: skip
    z, mean, deviation = normalised(x, instance_norm)
    batch, _, nodes = x.shape
    e = linear(p, "of_patch", encode(p, z).reshape(steps, batch, nodes, -1, patch))  # [T, B, K, L', d]
    e = e + linear(p, "of_node", p["node"])[:, None]
    if time is not None:
        e = e + linear(p, "of_time", time[:, patch - 1 :: patch])[:, None]
    if phase is not None:
        slot, weekday = phase[:, patch - 1 : x.shape[1] : patch].transpose(2, 0, 1)
        table = np.einsum("nr,blr->bnlr", p["day.node"], p["day.slot.weight"][slot] + p["day.weekday.weight"][weekday])
        e = e + linear(p, "day.linear", table)
    h = fire(p, "observe", e) if observe else lif(norm(p, "observe.norm", e), p["threshold"])
    scales = [h]
    for k in range(hops):
        around = np.einsum("ij,tbjld->tbild", a, h)
        h = fire(p, f"hops.{k}", np.concatenate([h, lif(around, 0.25) if spike_messages else around], -1))
        scales.append(h)
    g = fire(p, "scales", np.concatenate(scales, -1))
    shape = g.shape
    recalled = attended = 0.0
    if fusion != "attention":
        states = recall(p, g.mean(0).reshape(batch * nodes, *shape[3:])).reshape(shape[1:])
        recalled = fire(p, "recall", np.stack([states] * steps))
    if fusion != "lstm":
        axes = (0, 1, 2, 3, 4) if tokens == "patch" else (0, 1, 3, 2, 4)
        turned = g.transpose(axes)
        attended = attend(p, "attention", turned.reshape(steps, -1, *turned.shape[3:]), heads)
        attended = attended.reshape(turned.shape).transpose(axes)
    if fusion == "both":
        gate = fire(p, "gate", np.concatenate([recalled, attended], -1))
        y = gate * attended + (1 - gate) * recalled
    else:
        y = recalled + attended
    forecast = linear(p, "head", y.mean(0).reshape(batch, nodes, -1)).transpose(0, 2, 1)
    return forecast * deviation + mean


def ispikformer_in_numpy(p, x, time, *, blocks=2, instance_norm=True, heads=4, encoder="conv", attention_scale=0.125):
    _, mean, deviation = normalised(x, instance_norm)
    h = fire(p, "embed", lif(encode(p, normalised(x if time is None else np.concatenate([x, time], 2), instance_norm)[0])))
    for i in range(blocks):
        h = attend(p, f"blocks.{i}", h, heads)
    return linear(p, "head", h[-1, :, : x.shape[2]]).transpose(0, 2, 1) * deviation + mean


def numpy_of(model, *x):
    p = {key: value.numpy() for key, value in model.state_dict().items()}
    p["threshold"] = next(
        part.threshold for key, part in model.named_modules() if key.endswith("embed.neuron") or key == "scales.neuron"
    )
    p["scale"] = next((part.scale for part in model.modules() if isinstance(part, SpikingAttention)), None)
    return p, x[0].numpy(), x[1].numpy() if len(x) > 1 else None


@pytest.mark.parametrize("features", [0, 2])
@pytest.mark.parametrize("options", SWITCHES, ids=named)
def test_spikestag_is_the_equations(options, features):
    model, x = lively(make("spikestag", features=features, **options)), inputs(features=features)
    with torch.no_grad():
        found = model(*x).numpy()
    p, *series = numpy_of(model, *x)
    a = adjacency(p, options.get("graph", "adaptive"), options.get("top_k"))
    np.testing.assert_allclose(model.adjacency().detach().numpy(), a, rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(a.sum(1), 1)
    expected = spikestag_in_numpy(p, *series, p.get("graph", a), **options)  # a given graph was made float32
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)


def phases(batch=4, slots=48, more=P, seed=1):
    return torch.stack([torch.randint(n, (batch, L + more), generator=torch.manual_seed(seed)) for n in (slots, 7)], 2)


@pytest.mark.parametrize("patch", [1, 4])
@pytest.mark.parametrize("features", [0, 2])
def test_the_day_is_the_equation(patch, features):
    model, x, phase = (
        lively(make("spikestag", day_slots=48, patch=patch, features=features)),
        inputs(features=features),
        phases(),
    )
    with torch.no_grad():
        found = model(*x, phase=phase)
        p, *series = numpy_of(model, *x)
        expected = spikestag_in_numpy(p, *series, adjacency(p, None, None), patch=patch, phase=phase.numpy())
        np.testing.assert_allclose(found.numpy(), expected, rtol=1e-9, atol=1e-9)
        later = phase.clone()
        later[:, L:] = 0
        assert torch.equal(model(*x, phase=later), found), "only the window is looked at"
        assert torch.equal(model(*x, phase=phase[:, :L]), found)
        for part in (0, 1):
            other = phase.clone()
            other[..., part] = 0
            assert not torch.allclose(model(*x, phase=other), found)
    model.train()(*x, phase=phase).sum().backward()
    assert all(p.grad.abs().sum() > 0 for p in model.day.parameters())


def test_the_day_is_small():
    """2,000 nodes with 288 slots: a table of them would have 18 million numbers."""
    with torch.device("meta"):
        day = make("spikestag", nodes=2000, day_slots=288, width=32).day
    assert sum(p.numel() for p in day.parameters()) == 2000 * 10 + (288 + 7) * 10 + 11 * 32


def test_phases_are_checked():
    timed, plain, x = make("spikestag", day_slots=48), make("spikestag"), inputs(dtype=torch.float32)
    phase = phases()
    for wrong in (None, phase[:2], phase[:, : L - 1], phase[..., :1], phase[0], phase.float(), phase.int(), phase.to("meta")):
        with pytest.raises(ValueError, match=r"phase must be int64 \[4, 12 or more, 2\] on cpu, got "):
            timed(*x, phase=wrong)
    with pytest.raises(ValueError, match=r"phase must be None, without day_slots, got int64 \[4, 15, 2\]"):
        plain(*x, phase=phase)
    with pytest.raises(TypeError, match="phase must be a tensor"):
        timed(*x, phase=phase.numpy())
    for part, value, message in (
        (0, 48, "slot of the day from 0 to 47, got 48"), (0, -1, "slot .*, got -1"), (1, 7, "weekday from 0 to 6, got 7"),
    ):  # fmt: skip
        wrong = phase.clone()
        wrong[1, 2, part] = value
        with pytest.raises(ValueError, match=message):
            timed(*x, phase=wrong)


@pytest.mark.parametrize("features", [0, 2])
@pytest.mark.parametrize("options", [options for name, options in OTHERS if name == "ispikformer"], ids=named)
def test_ispikformer_is_the_equations(options, features):
    model, x = lively(make("ispikformer", features=features, **options)), inputs(features=features)
    with torch.no_grad():
        found = model(*x).numpy()
    np.testing.assert_allclose(found, ispikformer_in_numpy(*numpy_of(model, *x), **options), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ["spikestag", "gru", "linear"])
def test_time_features_matter(name):
    model, (x, time) = lively(make(name)), inputs()
    assert not torch.allclose(model(x, time), model(x, time.flip(0)))


def test_neighbours_matter():
    """Through the graph alone, attention being along a node's patches: node 0 of this one sees 1 and 2, 2 hops away 0 to 2."""
    (x, time), other = inputs(), inputs(seed=2)[0]
    for options, reach in (({"hops": 0}, [0]), ({"hops": 1}, [0, 1, 2]), ({"graph": "identity"}, [0]), ({}, [0, 1, 2])):
        model = lively(make("spikestag", **{"graph": GIVEN} | options))
        y = model(x, time)
        for node in range(K):
            changed = x.clone()
            changed[:, :, node] = other[:, :, node]
            assert torch.equal(model(changed, time)[:, :, 0], y[:, :, 0]) == (node not in reach), (options, node)


def test_a_level_and_a_scale_pass_through_instance_normalisation():
    for name in ("spikestag", "ispikformer", "gru"):
        model, (x, time) = lively(make(name)), inputs()
        torch.testing.assert_close(model(1000 * x - 300, time), 1000 * model(x, time) - 300, rtol=1e-3, atol=1e-3)
        assert model(torch.ones_like(x), time).isfinite().all()


def test_last_value():
    (x, time) = inputs()
    y = make("last-value")(x, time)
    assert all(torch.equal(y[:, p], x[:, -1]) for p in range(P))
    assert not list(make("last-value").parameters())


def known_batches(*, unknown):
    batches = []
    for seed in range(3):
        x, time = inputs(40, seed=seed)
        y = x[:, -1:] + torch.randn(40, P, K, dtype=torch.float64) + 0.3 * x[:, :P].flip(2) - 0.2 * time[:, -1:, :1]
        if unknown:
            y[seed::7, 1, (0, 3)] = math.nan
        batches.append(((x, time), y))
    return batches


def least_squares(batches, *, across, ridge):
    """numpy's lstsq of min |A w − b|² + ridge · rows · |w|², written as more rows of A."""
    a, b = [], []
    for (x, time), y in batches:
        for sample in range(len(x)):
            window, change, end = x[sample].numpy(), (y[sample] - x[sample, -1]).numpy(), time[sample, -1].numpy()
            rows = [(window.ravel(), change.T.ravel())] if across else [
                (window[:, k] - window[-1, k], change[:, k]) for k in range(K)
            ]  # fmt: skip
            a += [np.concatenate([values, end, [1.0]]) for values, target in rows if not np.isnan(target).any()]
            b += [target for _, target in rows if not np.isnan(target).any()]
    a, b = np.array(a), np.array(b)
    penalty = np.sqrt(ridge * len(a)) * np.eye(a.shape[1])
    return np.linalg.lstsq(np.vstack([a, penalty]), np.vstack([b, np.zeros((len(penalty), b.shape[1]))]), rcond=None)[0]


@pytest.mark.parametrize("across", [False, True])
@pytest.mark.parametrize("unknown", [False, True])
@pytest.mark.parametrize("ridge", [1e-3, 0.5])
def test_linear_is_least_squares(across, unknown, ridge):
    model = make("linear", across=across, ridge=ridge).double()
    assert torch.equal(model(*inputs()), make("last-value")(*inputs())), "before fit it is the last value"
    batches = known_batches(unknown=unknown)
    model.fit(iter(batches))
    weights = least_squares(batches, across=across, ridge=ridge)
    np.testing.assert_allclose(model.weight.numpy(), weights, rtol=1e-7, atol=1e-9)
    (x, time) = inputs(seed=9)
    ends = np.concatenate([time[:, -1].numpy(), np.ones((len(x), 1))], 1)
    if across:
        change = (np.concatenate([x.flatten(1).numpy(), ends], 1) @ weights).reshape(len(x), K, P).transpose(0, 2, 1)
        np.testing.assert_allclose(model(x, time).numpy(), x[:, -1:].numpy() + change, rtol=1e-7)
    else:
        for k in range(K):
            own = np.concatenate([(x[:, :, k] - x[:, -1:, k]).numpy(), ends], 1)
            np.testing.assert_allclose(model(x, time)[:, :, k].numpy(), x[:, -1, k, None].numpy() + own @ weights, rtol=1e-7)
    assert not list(model.parameters())


def test_linear_finds_a_law():
    """The rule y = last value + ½ (last value − the one before) is found from float32, without time features."""
    x = inputs(64, 0, dtype=torch.float32)[0]
    y = (x[:, -1:] + 0.5 * (x[:, -1:] - x[:, -2:-1])).expand(-1, P, -1)
    model = make("linear", features=0, ridge=1e-9)
    model.fit([((x,), y)])
    torch.testing.assert_close(model(x), y, rtol=1e-5, atol=1e-5)
    with pytest.raises(ValueError, match="all its values ahead"):
        model.fit([((x,), torch.full_like(y, math.nan))])


@pytest.mark.parametrize("ridge", [0.0, 1e-3])
@pytest.mark.parametrize("across", [False, True])
def test_a_dead_sensor_and_a_twin_change_nothing(across, ridge):
    """A sensor that stands still in training, at whatever value, and one that is there twice; then the dead one comes alive."""
    parts = [(x, time, y) for (x, time), y in known_batches(unknown=False)]
    x, time, y = (torch.cat(part) for part in zip(*parts, strict=True))
    x[..., 1], y[..., 1] = -8.0, -8.0
    x[..., 2], y[..., 2] = x[..., 3], y[..., 3]
    rest = [0, 3, 4]
    model, alone = (
        make("linear", across=across, ridge=ridge).double(),
        make("linear", nodes=3, across=across, ridge=ridge).double(),
    )
    model.fit([((x, time), y)])
    alone.fit([((x[..., rest], time), y[..., rest])])
    assert model.weight.isfinite().all()
    assert model.weight.abs().max() < 100
    alive = x.clone()
    alive[..., 1] = torch.randn(x.shape[:2], dtype=x.dtype)
    torch.testing.assert_close(model(alive, time)[..., rest], model(x, time)[..., rest], rtol=1e-6, atol=1e-6)
    if across and ridge == 0:
        torch.testing.assert_close(model(x, time)[..., rest], alone(x[..., rest], time), rtol=1e-3, atol=1e-3)


def test_a_value_that_is_far_too_large_is_said():
    (x, time), y = known_batches(unknown=False)[0]
    x = x.clone()
    x[0, 3, 1] = 1e200
    with pytest.raises(ValueError, match="a value that is far too large"):
        make("linear", across=True).double().fit([((x, time), y)])


SMALL = (5, 12, 3)


@pytest.mark.parametrize(
    ("name", "sizes", "options", "message"),
    [
        *[(name, (0, 12, 3), {}, "nodes must be a whole number of at least 1, got 0") for name in FORECASTERS],
        *[(name, (5, 0, 3), {}, "window must be a whole number of at least 1, got 0") for name in FORECASTERS],
        *[(name, (5, 12, 0), {}, "horizon must be a whole number of at least 1, got 0") for name in FORECASTERS],
        *[(name, SMALL, {"time_features": -1}, "time_features must be a whole number of at least 0") for name in FORECASTERS],
        ("spikestag", SMALL, {"width": 0}, "width must be a whole number of at least 1, got 0"),
        ("spikestag", SMALL, {"steps": 0}, "steps must be a whole number of at least 1, got 0"),
        ("spikestag", SMALL, {"heads": 7}, "heads must divide the width, got 7 heads and a width of 64"),
        *[
            (
                name,
                SMALL,
                {"attention_scale": scale},
                f"attention_scale must be a finite number above 0, or None .*, got {scale}",
            )
            for name in ("spikestag", "ispikformer")
            for scale in (0, -1.0, math.inf, math.nan)
        ],
        ("spikestag", SMALL, {"day_slots": -1}, "day_slots must be a whole number of at least 0, got -1"),
        ("spikestag", SMALL, {"patch": -1}, "patch must be a whole number of at least 1, got -1"),
        ("spikestag", SMALL, {"hops": -1}, "hops must be a whole number of at least 0, got -1"),
        ("spikestag", SMALL, {"graph": torch.eye(4)}, "graph must be 5 × 5, a row a node, got 4 × 4"),
        ("ispikformer", SMALL, {"encoder": "latency"}, "encoder must be conv, delta, repeat, got 'latency'"),
        ("spikestag", SMALL, {"graph": -torch.eye(5)}, "finite and not negative"),
        ("spikestag", SMALL, {"graph": torch.full((5, 5), math.inf)}, "finite and not negative"),
        ("spikestag", SMALL, {"graph": torch.full((5, 5), math.nan)}, "finite and not negative"),
        ("spikestag", SMALL, {"graph": "learned"}, r"graph must be adaptive, identity or weights \[K, K\], got 'learned'"),
        ("spikestag", SMALL, {"fusion": "gate"}, "fusion must be both, lstm, attention, sum, got 'gate'"),
        ("spikestag", SMALL, {"tokens": "batch"}, "tokens must be patch, node, got 'batch'"),
        ("spikestag", SMALL, {"top_k": 0}, "top_k must be from 1 to the 5 nodes.*got top_k=0"),
        ("spikestag", SMALL, {"top_k": 6}, "top_k must be from 1 to the 5 nodes.*got top_k=6"),
        ("spikestag", SMALL, {"top_k": 2, "graph": "identity"}, "top_k must be .* and graph adaptive"),
        ("spikestag", SMALL, {"top_k": 2, "graph": torch.eye(5)}, "top_k must be .* and graph adaptive"),
        ("ispikformer", SMALL, {"heads": 7}, "heads must divide the width, got 7 heads and a width of 64"),
        ("ispikformer", SMALL, {"blocks": 0}, "blocks must be a whole number of at least 1, got 0"),
        ("linear", (300, 100, 3), {"across": True}, "20,000 inputs at most, got 30001, of 300 nodes and 100 steps"),
    ],
)
def test_sizes_and_options_are_checked(name, sizes, options, message):
    with pytest.raises(ValueError, match=message):
        FORECASTERS[name](*sizes, **options)


@pytest.mark.parametrize("name", FORECASTERS)
def test_inputs_are_checked(name):
    x, time = inputs(dtype=torch.float32)
    timed, plain = make(name), make(name, features=0)
    for wrong in (x[:, :-1], x[:, :, :-1], x[0], x.mT):
        with pytest.raises(ValueError, match=r"x must be \[B, 12, 5\], windows by nodes, got shape \["):
            timed(wrong, time)
    for wrong in (time[:, :-1], time[:, :, :1], time[:2], time[0]):
        with pytest.raises(ValueError, match=r"time must be \[4, 12, 2\], the time features of each step, got \["):
            timed(x, wrong)
    with pytest.raises(ValueError, match=r"time must be \[4, 12, 2\], .* got None"):
        timed(x)
    with pytest.raises(ValueError, match=r"time must be None, .* got \[4, 12, 2\]"):
        plain(x, time)
    for wrong, error in ((x.long(), ValueError), (x.numpy(), TypeError)):
        with pytest.raises(error, match="x must be a "):
            timed(wrong, time)
    if [*timed.parameters()]:
        for wrong in (x.double(), x.to("meta")):
            with pytest.raises(ValueError, match=r"the weights of this \w+ are .*, x is .*: call .to\("):
                timed(wrong, time)
    with pytest.raises(ValueError, match="time must be torch.float32 on cpu, as x is, got torch.float64 on cpu"):
        timed(x, time.double())


def test_a_given_graph_is_kept_with_rows_that_add_up():
    model = make("spikestag", graph=GIVEN)
    assert "graph" in model.state_dict()
    assert model.adjacency()[0].tolist() == [0, 0.25, 0.75, 0, 0]
    assert model.adjacency()[2].tolist() == [0, 0, 1, 0, 0], "a node without neighbours is its own"
    assert "neighbour" not in model.state_dict()


def test_top_k_keeps_k():
    torch.manual_seed(0)
    a = make("spikestag", nodes=20, top_k=15).adjacency()
    assert ((a > 0).sum(1) == 15).all()


def test_spike_messages_fire():
    model, rates = lively(make("spikestag", spike_messages=True)), []
    for message in model.messages:
        message.register_forward_hook(lambda _, __, spikes: rates.append(spikes.mean().item()))
    model(*inputs(8))
    assert all(0 < rate < 1 for rate in rates), rates


@pytest.mark.parametrize("graph", [np.eye(K), None, [[1.0]]])
def test_a_graph_of_another_kind_is_refused(graph):
    with pytest.raises((ValueError, TypeError), match="graph"):
        make("spikestag", graph=graph)


def test_a_patch_of_nothing_is_refused():
    with pytest.raises(ValueError, match="patch must be a whole number of at least 1, got 0"):
        make("spikestag", patch=0)


def test_no_parameter_is_left_unused():
    assert make("spikestag", hops=0).neighbour is None


@pytest.mark.parametrize("encoder", ENCODERS)
def test_a_time_feature_counts_as_a_variate(encoder):
    """It is normalised by itself, as SeqSNN's code does: one that stands still within the window says nothing."""
    model, (x, time) = lively(make("ispikformer", encoder=encoder)), inputs()
    with torch.no_grad():
        y = model(x, time)
        assert not torch.allclose(model(x, time.flip(0)), y)
        torch.testing.assert_close(model(x, 7 * time + 3), y, rtol=1e-3, atol=1e-3)
        still = time[:, :1].expand_as(time)
        torch.testing.assert_close(model(x, still), model(x, torch.zeros_like(time)))
